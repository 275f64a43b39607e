//! Extended attributes: forge's own are hidden, and those that speak of users are kept beside.
//!
//! An ACL names users and groups, and the kernel takes only those that the namespace maps. So an ACL is kept as it was given, in an
//! attribute of forge's own, and shows under its right name. Of its effect, what a mode can say is done: the file's group bits
//! become the mask, as with a real one. Capabilities need no help (the kernel notes whose root they are for); only those that a
//! lower layer has, which an ordinary user could not lay out, are told from a mark.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::Mode;
use rustix::io::Errno;

use super::Supervisor;
use super::acl::Acl;
use super::marks::{self, PREFIX};
use super::sys::{self, Call, Result};
use super::task::{Answer, Place, name_of, read_string};

/// Attributes that are kept beside, and under which name: [`store::directory::ATTRIBUTE_PREFIX`] and their own.
const KEPT: [(&str, &str); 3] =
    [(ACCESS, ACCESS_MARK), (DEFAULT, DEFAULT_MARK), (CAPABILITY, "user.forge.attribute.security.capability")];
const ACCESS: &str = "system.posix_acl_access";
const ACCESS_MARK: &str = "user.forge.attribute.system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";
const DEFAULT_MARK: &str = "user.forge.attribute.system.posix_acl_default";
const CAPABILITY: &str = "security.capability";

/// XATTR_SIZE_MAX.
const LONGEST_VALUE: u64 = 65536;

/// What is asked of which file.
struct Request {
    place: Place,
    follow: bool,
}

impl Request {
    fn read(call: &Call) -> Result<Self> {
        let first = call.arguments[0];
        let (is_descriptor, follow) = match call.number {
            libc::SYS_fsetxattr | libc::SYS_fgetxattr | libc::SYS_flistxattr | libc::SYS_fremovexattr => (true, true),
            libc::SYS_lsetxattr | libc::SYS_lgetxattr | libc::SYS_llistxattr | libc::SYS_lremovexattr => (false, false),
            _ => (false, true),
        };
        let place = if is_descriptor { Place::descriptor(call, first)? } else { Place::read_from_cwd(call, first)? };
        if !is_descriptor && place.is_empty() { Err(Errno::NOENT) } else { Ok(Self { place, follow }) }
    }
}

impl Supervisor {
    /// The `getxattr`, `setxattr` and `removexattr` families.
    pub(super) fn handle_attribute(&mut self, call: &Call) -> Result<Answer> {
        let name = read_string(call.task, call.arguments[1])?;
        let kept = KEPT.iter().find(|(shown, _)| shown.as_bytes() == name);
        let is_own = name.starts_with(PREFIX);
        if kept.is_none() && !is_own {
            return Ok(Answer::LetThrough);
        }
        let (is_get, is_set) = match call.number {
            libc::SYS_getxattr | libc::SYS_lgetxattr | libc::SYS_fgetxattr => (true, false),
            libc::SYS_setxattr | libc::SYS_lsetxattr | libc::SYS_fsetxattr => (false, true),
            _ => (false, false),
        };
        let Some((shown, mark)) = kept else {
            return Err(if is_set { Errno::PERM } else { Errno::NODATA });
        };
        let Request { place, follow } = Request::read(call)?;
        let Ok(fd) = place.open(follow) else { return Ok(Answer::LetThrough) };
        let fd = fd.as_fd();
        let stat = sys::stat(fd)?;
        if is_get {
            let Some(mut value) = marks::read(fd, mark) else { return Ok(Answer::LetThrough) };
            if *shown == ACCESS {
                value = Acl::parse(&value)?.with_mode(stat.st_mode).encode();
            }
            return give(call, call.arguments[2], call.arguments[3], &value);
        }
        let identity = self.identities.of(call.task)?;
        if !identity.is_privileged() && identity.file_user() != self.marks.owner(fd, stat.st_mode).0 {
            return Err(Errno::PERM);
        }
        self.check_waiting(call)?;
        if is_set && *shown != CAPABILITY {
            return set_acl(call, fd, stat.st_mode, shown, mark);
        }
        let had = marks::read(fd, mark).is_some();
        if had {
            marks::remove(fd, mark)?;
        }
        // A mark that is removed is what the task wanted gone; what is set for real replaces it.
        if had && !is_set { Ok(Answer::Return(0)) } else { Ok(Answer::LetThrough) }
    }

    /// The `listxattr` family.
    pub(super) fn list_attributes(&mut self, call: &Call) -> Result<Answer> {
        let Request { place, follow } = Request::read(call)?;
        let Some(text) = place.text() else { return Ok(Answer::LetThrough) };
        let Ok(names) = self.marks.names(&text, follow || place.is_empty()) else { return Ok(Answer::LetThrough) };
        let names: Vec<&[u8]> = names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
        if !names.iter().any(|name| name.starts_with(PREFIX)) {
            return Ok(Answer::LetThrough);
        }
        let mut shown: Vec<&[u8]> = names.iter().copied().filter(|name| !name.starts_with(PREFIX)).collect();
        for (name, mark) in &KEPT {
            if names.contains(&mark.as_bytes()) && !shown.contains(&name.as_bytes()) {
                shown.push(name.as_bytes());
            }
        }
        let list: Vec<u8> = shown.iter().flat_map(|name| [name, &b"\0"[..]].concat()).collect();
        give(call, call.arguments[1], call.arguments[2], &list)
    }
}

/// Writes a value where the task has room for it; without room it is only told the length.
fn give(call: &Call, address: u64, room: u64, value: &[u8]) -> Result<Answer> {
    if room != 0 {
        if room < value.len() as u64 {
            return Err(Errno::RANGE);
        }
        sys::write_memory(call.task, address, value)?;
    }
    Ok(Answer::Return(value.len() as i64))
}

fn set_acl(call: &Call, fd: BorrowedFd<'_>, mode: u32, shown: &str, mark: &str) -> Result<Answer> {
    let kind = mode & libc::S_IFMT;
    if kind == libc::S_IFLNK {
        return Err(Errno::OPNOTSUPP);
    }
    let (address, size) = (call.arguments[2], call.arguments[3]);
    if size > LONGEST_VALUE {
        return Err(Errno::TOOBIG);
    }
    let mut value = vec![0; size as usize];
    if sys::read_memory(call.task, address, &mut value)? != value.len() {
        return Err(Errno::FAULT);
    }
    let acl = Acl::parse(&value)?;
    if shown == DEFAULT && kind != libc::S_IFDIR {
        return if acl.is_empty() { Ok(Answer::Return(0)) } else { Err(Errno::ACCESS) };
    }
    let path = name_of(fd);
    // A real one (a lower layer may have it) would come back from under the mark.
    let _ = rustix::fs::removexattr(path.as_str(), shown);
    if shown == ACCESS && !acl.is_empty() {
        rustix::fs::chmod(path.as_str(), Mode::from_raw_mode(mode & 0o7000 | acl.mode()))?;
    }
    if acl.is_empty() || (shown == ACCESS && acl.is_minimal()) {
        marks::remove(fd, mark)?;
    } else {
        marks::write(fd, mark, &value)?;
    }
    Ok(Answer::Return(0))
}

/// The list that a directory hands on to what is made in it.
pub(super) fn default_acl(directory: BorrowedFd<'_>) -> Option<Acl> {
    Acl::parse(&marks::read(directory, DEFAULT_MARK)?).ok().filter(|acl| !acl.is_empty())
}

/// Gives something new of this type and mode the list that its directory hands on.
pub(super) fn inherit_acl(fd: BorrowedFd<'_>, kind: u32, mode: u32, acl: &Acl) -> Result<()> {
    if !acl.is_minimal() && matches!(kind, libc::S_IFREG | libc::S_IFDIR) {
        marks::write(fd, ACCESS_MARK, &acl.clone().with_mode(mode).encode())?;
    }
    if kind == libc::S_IFDIR {
        marks::write(fd, DEFAULT_MARK, &acl.encode())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_beside_is_named_as_the_store_reads_it() {
        for (shown, mark) in KEPT {
            assert_eq!([store::directory::ATTRIBUTE_PREFIX, shown].concat(), mark);
        }
    }
}
