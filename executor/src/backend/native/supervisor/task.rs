//! A task whose call waits: its memory, its place in the file system, and what `/proc` tells of it.
//!
//! The supervisor sees the sandbox's own root and mounts, so an absolute path means the same to both; a relative one starts at
//! `/proc/TASK/cwd` or `/proc/TASK/fd/N`. The supervisor's working directory is `/proc` (see [`super::Supervisor::new`]), so that
//! those are short relative paths that stay right whatever is mounted over `/proc` later.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2, readlinkat};
use rustix::io::Errno;

use super::sys::{self, Call, Result};

/// What becomes of a call.
#[derive(Debug)]
pub(super) enum Answer {
    /// The kernel carries it out.
    LetThrough,
    /// It returns this.
    Return(i64),
    /// It returns a copy of this descriptor.
    Descriptor {
        /// The file.
        fd: OwnedFd,
        /// Whether the copy goes away with `exec`.
        close_on_exec: bool,
    },
}

/// Opening for looking only, which has no effect on anything.
const LOOK: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// PATH_MAX, the NUL included.
const LONGEST: usize = 4096;

/// Reads a C string of a task: a path or the name of an attribute.
pub(super) fn read_string(task: u32, address: u64) -> Result<Vec<u8>> {
    const PAGE: u64 = 4096;
    let mut bytes = Vec::new();
    let mut at = address;
    // Page by page: the next one need not be there.
    while bytes.len() < LONGEST {
        let room = (PAGE - at % PAGE).min((LONGEST - bytes.len()) as u64) as usize;
        let start = bytes.len();
        bytes.resize(start + room, 0);
        let read = sys::read_memory(task, at, &mut bytes[start..])?;
        if let Some(end) = bytes[start..start + read].iter().position(|byte| *byte == 0) {
            bytes.truncate(start + end);
            return Ok(bytes);
        }
        if read < room {
            return Err(Errno::FAULT);
        }
        at = at.wrapping_add(read as u64);
    }
    Err(Errno::NAMETOOLONG)
}

/// A path as a task gave it: where it begins, and what was written. An empty path is where it begins.
#[derive(Debug, Clone)]
pub(super) struct Place {
    task: u32,
    /// Relative to `/proc`: `TASK/cwd` or `TASK/fd/N`.
    base: String,
    path: Vec<u8>,
    /// Keeps open what `base` names, if it is a descriptor of the supervisor.
    _anchor: Option<Rc<OwnedFd>>,
    /// The task's root, if it is not the supervisor's.
    root: Option<Rc<OwnedFd>>,
}

impl Place {
    /// The path at `address`, from the directory `descriptor` (which may be `AT_FDCWD`).
    pub(super) fn read(call: &Call, descriptor: u64, address: u64) -> Result<Self> {
        let path = read_string(call.task, address)?;
        Self::of(call, descriptor as i32, path)
    }

    /// The path at `address`, from the working directory.
    pub(super) fn read_from_cwd(call: &Call, address: u64) -> Result<Self> {
        Self::read(call, libc::AT_FDCWD as u64, address)
    }

    /// A descriptor of the task itself.
    pub(super) fn descriptor(call: &Call, descriptor: u64) -> Result<Self> {
        Self::of(call, descriptor as i32, Vec::new())
    }

    fn of(call: &Call, descriptor: i32, path: Vec<u8>) -> Result<Self> {
        let task = call.task;
        let root = match call.is_elsewhere {
            true => Some(Rc::new(openat(CWD, format!("{task}/root"), LOOK | OFlags::DIRECTORY, Mode::empty())?)),
            false => None,
        };
        let base = match descriptor {
            libc::AT_FDCWD => format!("{task}/cwd"),
            number => format!("{task}/fd/{number}"),
        };
        Ok(Self { task, base, path: own_links(task, path), _anchor: None, root })
    }

    /// Whether only its beginning was given (`AT_EMPTY_PATH`).
    pub(super) fn is_empty(&self) -> bool {
        self.path.is_empty()
    }

    /// What was written.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// A path that means the same to the supervisor; none if there is none, or it is longer than the kernel takes.
    pub(super) fn text(&self) -> Option<CString> {
        if self.root.is_some() && !self.path.is_empty() {
            return None;
        }
        let mut text = Vec::with_capacity(self.base.len() + self.path.len() + 2);
        if !self.path.starts_with(b"/") {
            text.extend_from_slice(self.base.as_bytes());
            if !self.path.is_empty() {
                text.push(b'/');
            }
        }
        text.extend_from_slice(&self.path);
        if text.len() >= LONGEST { None } else { CString::new(text).ok() }
    }

    /// Opens what it names, for looking only.
    pub(super) fn open(&self, follow: bool) -> Result<OwnedFd> {
        self.open_with(LOOK | if follow { OFlags::empty() } else { OFlags::NOFOLLOW })
    }

    fn open_with(&self, flags: OFlags) -> Result<OwnedFd> {
        if let (Some(root), false) = (&self.root, self.path.is_empty()) {
            return self.open_below(root, flags);
        }
        match self.text() {
            Some(text) if !self.path.is_empty() => openat(CWD, text, flags, Mode::empty()),
            // The beginning is a link of /proc's that must be followed in any case.
            _ => {
                let base_flags = if self.path.is_empty() { flags & !OFlags::NOFOLLOW } else { LOOK };
                let base = openat(CWD, self.base.as_str(), base_flags, Mode::empty())?;
                if self.path.is_empty() { Ok(base) } else { openat(base, &self.path[..], flags, Mode::empty()) }
            }
        }
    }

    /// Opens what it names for a task in another root, where absolute links begin anew.
    fn open_below(&self, root: &OwnedFd, flags: OFlags) -> Result<OwnedFd> {
        let mut path = Vec::new();
        if !self.path.starts_with(b"/") {
            let base = openat(CWD, self.base.as_str(), LOOK, Mode::empty())?;
            let (Some(root), Some(base_path)) = (path_of(root.as_fd()), path_of(base.as_fd())) else {
                return Err(Errno::NOENT);
            };
            let Some(below) = base_path.strip_prefix(&root[..]) else {
                // It kept a directory open from before; from there it goes where it likes.
                return openat(base, &self.path[..], flags, Mode::empty());
            };
            path.extend_from_slice(below);
            path.push(b'/');
        }
        path.extend_from_slice(&self.path);
        openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)
    }

    /// Opens the directory that the last name of the path lies in, and gives the name; none where the path ends in no name
    /// (`/`, `.`, `..`), so that nothing can be made there.
    pub(super) fn open_parent(&self) -> Result<Option<(OwnedFd, Vec<u8>)>> {
        let end = self.path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
        let trimmed = &self.path[..end];
        let start = trimmed.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let name = &trimmed[start..];
        if name.is_empty() || name == b"." || name == b".." {
            return Ok(None);
        }
        let parent = Self { path: trimmed[..start].to_vec(), ..self.clone() };
        let directory = parent.open_with(LOOK | OFlags::DIRECTORY)?;
        Ok(Some((directory, name.to_vec())))
    }

    /// Where a link in this directory leads.
    pub(super) fn followed(self, parent: OwnedFd, target: Vec<u8>) -> Self {
        let base = name_of(parent.as_fd());
        Self { base, path: own_links(self.task, target), _anchor: Some(Rc::new(parent)), ..self }
    }

    /// Whether the path says that it names a directory.
    pub(super) fn wants_directory(&self) -> bool {
        self.path.ends_with(b"/")
    }
}

/// Names of the task itself would mean the supervisor if it followed them.
fn own_links(task: u32, path: Vec<u8>) -> Vec<u8> {
    let replaced = |prefix: &str, by: String| {
        let rest = path.strip_prefix(prefix.as_bytes())?;
        (rest.is_empty() || rest[0] == b'/').then(|| [by.as_bytes(), rest].concat())
    };
    if !path.starts_with(b"/proc/") && !path.starts_with(b"/dev/") {
        return path;
    }
    replaced("/proc/self", format!("/proc/{task}"))
        .or_else(|| replaced("/proc/thread-self", format!("/proc/{task}/task/{task}")))
        .or_else(|| replaced("/dev/fd", format!("/proc/{task}/fd")))
        .or_else(|| replaced("/dev/stdin", format!("/proc/{task}/fd/0")))
        .or_else(|| replaced("/dev/stdout", format!("/proc/{task}/fd/1")))
        .or_else(|| replaced("/dev/stderr", format!("/proc/{task}/fd/2")))
        .unwrap_or(path)
}

/// The name, relative to `/proc`, under which a descriptor of the supervisor can be used as a path.
pub(super) fn name_of(fd: BorrowedFd<'_>) -> String {
    format!("self/fd/{}", fd.as_raw_fd())
}

/// Whether a task has another root than the supervisor. A task that is gone has none.
pub(super) fn is_elsewhere(task: u32) -> bool {
    // Shown as seen from the supervisor's own root.
    readlinkat(CWD, format!("{task}/root"), Vec::new()).is_ok_and(|root| root.as_bytes() != b"/")
}

/// Where an open file lies, as an absolute path; none for what has no path (any more).
pub(super) fn path_of(fd: BorrowedFd<'_>) -> Option<Vec<u8>> {
    let path = readlinkat(CWD, name_of(fd), Vec::with_capacity(256)).ok()?.into_bytes();
    (path.starts_with(b"/") && !path.ends_with(b" (deleted)")).then_some(path)
}

/// A field of `/proc/TASK/status`.
fn status_field(task: u32, name: &str) -> Option<String> {
    let status = fs::read(format!("{task}/status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// The file mode creation mask of a task.
pub(super) fn umask(task: u32) -> Mode {
    let field = status_field(task, "Umask").and_then(|text| u32::from_str_radix(&text, 8).ok());
    Mode::from_raw_mode(field.unwrap_or(0o022))
}

/// The first thread of a task's process.
pub(super) fn leader(task: u32) -> Option<u32> {
    status_field(task, "Tgid")?.parse().ok()
}

/// All threads of a process.
pub(super) fn threads(leader: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(format!("{leader}/task")) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// When a thread was started, in the kernel's own count: with its number, this is one thread for good.
pub(super) fn started(task: u32) -> Option<u64> {
    let stat = fs::read(format!("{task}/task/{task}/stat")).or_else(|_| fs::read(format!("{task}/stat"))).ok()?;
    // proc(5): field 22; the second is in parentheses and may contain any byte.
    let rest = &stat[stat.iter().rposition(|byte| *byte == b')')? + 1..];
    String::from_utf8_lossy(rest).split_ascii_whitespace().nth(19)?.parse().ok()
}
