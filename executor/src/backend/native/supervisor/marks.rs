//! What is recorded of a file: its pretended owner, and the device that it stands for.
//!
//! Files and directories carry the record themselves, in `user.forge.*` attributes: those go along when a file is renamed, linked
//! or copied up from a lower layer, which a table keyed by inode would not survive (inode numbers of an overlay change). What cannot
//! have such attributes is in a table by path, which `rename` and `link` keep true (see `create.rs`). No record means 0:0.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, CWD, StatxFlags, XattrFlags};
use rustix::io::Errno;
use store::directory::{DEVICE_ATTRIBUTE, OWNER_ATTRIBUTE};

use super::sys::Result;
use super::task::{name_of, path_of};
use crate::owners::{Entry, Kind, Owners};

/// All attributes of forge's own begin with this.
pub(super) const PREFIX: &[u8] = b"user.forge.";

/// User and group.
pub(super) type Owner = (u32, u32);

/// A device that an empty file stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) block: bool,
    pub(super) major: u32,
    pub(super) minor: u32,
}

impl Device {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (kind, numbers) = std::str::from_utf8(bytes).ok()?.split_once(' ')?;
        let (major, minor) = parse_pair(numbers.as_bytes())?;
        Some(Self { block: kind == "b", major, minor })
    }
}

fn parse_pair(bytes: &[u8]) -> Option<(u32, u32)> {
    let (first, second) = std::str::from_utf8(bytes).ok()?.split_once(':')?;
    Some((first.parse().ok()?, second.parse().ok()?))
}

fn kind_of(mode: u32) -> Kind {
    match mode & libc::S_IFMT {
        libc::S_IFLNK => Kind::Symlink,
        libc::S_IFIFO => Kind::Fifo,
        libc::S_IFSOCK => Kind::Socket,
        libc::S_IFDIR => Kind::Directory,
        _ => Kind::File,
    }
}

/// Whether a file of this type can have attributes.
fn bears_marks(mode: u32) -> bool {
    matches!(mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFDIR)
}

/// XATTR_LIST_MAX.
const LONGEST_LIST: usize = 65536;

/// All records of a step.
#[derive(Debug)]
pub(super) struct Marks {
    table: BTreeMap<Vec<u8>, Entry>,
    /// Whether the table has files and directories too, because some file system has no attributes.
    has_ordinary: bool,
    names: Vec<u8>,
}

impl Marks {
    pub(super) fn new(owners: Owners) -> Self {
        let mut marks = Self { table: BTreeMap::new(), has_ordinary: false, names: vec![0; LONGEST_LIST] };
        for (path, entry) in owners.0 {
            marks.insert([b"/", &path[..]].concat(), entry);
        }
        marks
    }

    fn insert(&mut self, path: Vec<u8>, entry: Entry) {
        self.has_ordinary |= matches!(entry.kind, Kind::File | Kind::Directory);
        self.table.insert(path, entry);
    }

    /// The table of what cannot carry its record, without what is gone.
    pub(super) fn owners(&self) -> Owners {
        let is_there = |(path, entry): &(&Vec<u8>, &Entry)| {
            let stat = rustix::fs::statx(CWD, &path[..], AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE);
            stat.is_ok_and(|stat| kind_of(u32::from(stat.stx_mode)) == entry.kind)
        };
        let kept = self.table.iter().filter(is_there).map(|(path, entry)| (path[1..].to_vec(), *entry));
        Owners(kept.collect())
    }

    /// The names of a file's attributes, forge's own included; `text` is a path that means the same to the supervisor.
    pub(super) fn names(&mut self, text: &CStr, follow: bool) -> Result<&[u8]> {
        let mut list = |length: usize| {
            let names = &mut self.names[..length];
            if follow { rustix::fs::listxattr(text, names) } else { rustix::fs::llistxattr(text, names) }
        };
        // The kernel makes a buffer of the size that it is given, every time.
        let length = match list(512) {
            Err(Errno::RANGE) => list(LONGEST_LIST)?,
            other => other?,
        };
        Ok(&self.names[..length])
    }

    /// Whether the kernel's own answer about this file is the right one. Errs on the side of no.
    pub(super) fn is_unmarked(&mut self, text: &CStr, follow: bool) -> bool {
        let marked = match self.names(text, follow) {
            Ok(names) => names.split(|byte| *byte == 0).any(|name| name.starts_with(PREFIX)),
            // Whatever is the matter, the kernel will say it to the task.
            Err(_) => false,
        };
        if marked || self.table.is_empty() {
            return !marked;
        }
        let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        match rustix::fs::statx(CWD, text, flags, StatxFlags::TYPE) {
            Ok(stat) => bears_marks(u32::from(stat.stx_mode)) && !self.has_ordinary,
            Err(_) => true,
        }
    }

    /// Whether there is no table to keep true.
    pub(super) fn has_no_table(&self) -> bool {
        self.table.is_empty()
    }

    fn in_table(&self, fd: BorrowedFd<'_>, mode: u32) -> Option<Owner> {
        if self.table.is_empty() {
            return None;
        }
        let entry = self.table.get(&path_of(fd)?)?;
        (entry.kind == kind_of(mode)).then_some((entry.uid, entry.gid))
    }

    /// The pretended owner of a file of this mode.
    pub(super) fn owner(&self, fd: BorrowedFd<'_>, mode: u32) -> Owner {
        let mark = if bears_marks(mode) { read(fd, OWNER_ATTRIBUTE) } else { None };
        mark.and_then(|mark| parse_pair(&mark)).or_else(|| self.in_table(fd, mode)).unwrap_or((0, 0))
    }

    /// The device that a regular file stands for.
    pub(super) fn device(&self, fd: BorrowedFd<'_>, mode: u32) -> Option<Device> {
        if mode & libc::S_IFMT != libc::S_IFREG {
            return None;
        }
        Device::parse(&read(fd, DEVICE_ATTRIBUTE)?)
    }

    /// Records the owner of a file of this mode.
    pub(super) fn set_owner(&mut self, fd: BorrowedFd<'_>, mode: u32, owner: Owner) -> Result<()> {
        if bears_marks(mode) {
            let done = if owner == (0, 0) {
                remove(fd, OWNER_ATTRIBUTE)
            } else {
                write(fd, OWNER_ATTRIBUTE, format!("{}:{}", owner.0, owner.1).as_bytes())
            };
            // tmpfs has had these attributes since Linux 6.6 only.
            if done != Err(Errno::OPNOTSUPP) {
                return done;
            }
        }
        // What has no path has nowhere to be looked for.
        let Some(path) = path_of(fd) else { return Ok(()) };
        if owner == (0, 0) {
            self.table.remove(&path);
        } else {
            self.insert(path, Entry { uid: owner.0, gid: owner.1, kind: kind_of(mode) });
        }
        Ok(())
    }

    /// Records that an empty file stands for a device.
    pub(super) fn set_device(&self, fd: BorrowedFd<'_>, device: Device) -> Result<()> {
        let letter = if device.block { 'b' } else { 'c' };
        write(fd, DEVICE_ATTRIBUTE, format!("{letter} {}:{}", device.major, device.minor).as_bytes())
    }

    /// Whether the table has this path or something below it.
    pub(super) fn has_at_or_below(&self, path: &[u8]) -> bool {
        self.table
            .range(path.to_vec()..)
            .take_while(|(key, _)| key.starts_with(path))
            .any(|(key, _)| is_at_or_below(key, path))
    }

    fn take(&mut self, path: &[u8]) -> Vec<(Vec<u8>, Entry)> {
        let keys: Vec<_> = self
            .table
            .range(path.to_vec()..)
            .map(|(key, _)| key)
            .take_while(|key| key.starts_with(path))
            .filter(|key| is_at_or_below(key, path))
            .cloned()
            .collect();
        keys.into_iter().filter_map(|key| self.table.remove_entry(&key)).collect()
    }

    fn put_at(&mut self, from: &[u8], to: &[u8], taken: Vec<(Vec<u8>, Entry)>) {
        for (path, entry) in taken {
            self.table.insert([to, &path[from.len()..]].concat(), entry);
        }
    }

    /// Something was renamed.
    pub(super) fn rename(&mut self, from: &[u8], to: &[u8], exchange: bool) {
        let taken = self.take(from);
        let replaced = self.take(to);
        self.put_at(from, to, taken);
        if exchange {
            self.put_at(to, from, replaced);
        }
    }

    /// Something was given a second name.
    pub(super) fn link(&mut self, from: &[u8], to: &[u8]) {
        self.table.remove(to);
        if let Some(entry) = self.table.get(from).copied() {
            self.table.insert(to.to_vec(), entry);
        }
    }
}

fn is_at_or_below(key: &[u8], path: &[u8]) -> bool {
    key.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// Reads an attribute of an open file, which may be open for looking only.
pub(super) fn read(fd: BorrowedFd<'_>, name: &str) -> Option<Vec<u8>> {
    let path = name_of(fd);
    let mut short = [0; 64];
    match rustix::fs::getxattr(path.as_str(), name, &mut short) {
        Ok(length) => Some(short[..length].to_vec()),
        Err(Errno::RANGE) => {
            let mut long = vec![0; 65536];
            let length = rustix::fs::getxattr(path.as_str(), name, &mut long[..]).ok()?;
            long.truncate(length);
            Some(long)
        }
        Err(_) => None,
    }
}

/// Writes an attribute of an open file.
pub(super) fn write(fd: BorrowedFd<'_>, name: &str, value: &[u8]) -> Result<()> {
    rustix::fs::setxattr(name_of(fd), name, value, XattrFlags::empty())
}

/// Removes an attribute of an open file, if it is there.
pub(super) fn remove(fd: BorrowedFd<'_>, name: &str) -> Result<()> {
    match rustix::fs::removexattr(name_of(fd), name) {
        Err(Errno::NODATA) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_follows_renames_and_links() {
        let link = |uid| Entry { uid, gid: uid, kind: Kind::Symlink };
        let mut marks = Marks::new(Owners(BTreeMap::from([
            (b"a/b/c".to_vec(), link(1)),
            (b"a/bx".to_vec(), link(2)),
            (b"d/c".to_vec(), link(3)),
        ])));
        assert!(marks.has_at_or_below(b"/a/b") && !marks.has_at_or_below(b"/a/b/c/d"));
        marks.rename(b"/a/b", b"/d", false);
        marks.link(b"/a/bx", b"/a/by");
        let left: Vec<_> = marks.table.iter().map(|(path, entry)| (path.as_slice(), entry.uid)).collect();
        assert_eq!(left, [(&b"/a/bx"[..], 2), (b"/a/by", 2), (b"/d/c", 1)]);
        marks.rename(b"/d/c", b"/a/bx", true);
        assert_eq!(marks.table[&b"/d/c"[..]].uid, 2);
        assert_eq!(marks.table[&b"/a/bx"[..]].uid, 1);
        marks.take(b"/a");
        assert_eq!(marks.table.len(), 1);
    }
}
