//! Paths of any length, and removing what lies there.
//!
//! Linux takes no path above 4096 bytes in one call. A [`Place`] is an open directory and a short path below it; where the
//! path grows long, the directory it names is opened and a new short path begins.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::failed;
use crate::{Error, Name, Result};

/// Where a new short path begins. Well below PATH_MAX, so that one more name always fits.
const LONGEST: usize = 2048;

/// A path relative to an open directory.
#[derive(Debug, Clone)]
pub(super) struct Place {
    base: Arc<(OwnedFd, PathBuf)>,
    relative: PathBuf,
}

impl Place {
    /// The directory at `path`, opened.
    pub fn open(path: &Path) -> Result<Self> {
        let base = open_directory(CWD, path).map_err(failed("open", path))?;
        Ok(Self { base: Arc::new((base, path.to_owned())), relative: PathBuf::from(".") })
    }

    /// What the system calls take: this directory, and [`Place::relative`] below it.
    pub fn base(&self) -> BorrowedFd<'_> {
        self.base.0.as_fd()
    }

    /// The path below [`Place::base`].
    pub fn relative(&self) -> &Path {
        &self.relative
    }

    /// A path that reaches it now, however deep it is: for calls that take no open directory.
    pub fn reached(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.base.0.as_raw_fd())).join(&self.relative)
    }

    /// For messages.
    pub fn shown(&self) -> PathBuf {
        match self.relative.as_os_str().as_encoded_bytes() {
            b"." => self.base.1.clone(),
            _ => self.base.1.join(&self.relative),
        }
    }

    /// A name in the directory at this place.
    pub fn join(&self, name: &Name) -> Result<Self> {
        let relative = match self.relative.as_os_str().as_encoded_bytes() {
            b"." => PathBuf::from(name.as_os_str()),
            _ => self.relative.join(name.as_os_str()),
        };
        if relative.as_os_str().len() < LONGEST {
            return Ok(Self { base: Arc::clone(&self.base), relative });
        }
        let base = self.open_directory().map_err(self.failed("open"))?;
        let shown = self.shown();
        // Nobody reads a message that long, and a hostile tree would make it take all memory.
        let shown = if shown.as_os_str().len() > 4 * LONGEST { self.base.1.clone() } else { shown };
        Ok(Self { base: Arc::new((base, shown)), relative: PathBuf::from(name.as_os_str()) })
    }

    /// Opens the directory at this place for reading.
    pub fn open_directory(&self) -> Result<OwnedFd, Errno> {
        open_directory(self.base(), &self.relative)
    }

    /// The names here with their types, in the order of the directory. The type may be unknown.
    pub fn entries(&self) -> Result<Vec<(Name, FileType)>> {
        let read = || {
            let mut entries = Vec::new();
            for entry in Dir::new(self.open_directory()?)? {
                let entry = entry?;
                // `.` and `..` are no names.
                if let Ok(name) = Name::new(entry.file_name().to_bytes()) {
                    entries.push((name, entry.file_type()));
                }
            }
            Ok(entries)
        };
        read().map_err(self.failed("read the directory"))
    }

    /// For `map_err`: a system call on this place failed.
    pub fn failed(&self, action: &'static str) -> impl FnOnce(Errno) -> Error + '_ {
        move |errno| failed(action, self.shown())(errno)
    }
}

fn open_directory(base: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(base, path, flags, Mode::empty())
}

/// Removes a file or a directory with all below it, whatever its modes. Nothing there is fine. Only for what nobody else changes
/// meanwhile: a directory that somebody moves about could lead elsewhere.
pub fn remove_all(path: &Path) -> Result<()> {
    match rustix::fs::unlinkat(CWD, path, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(failed("remove", path)(errno)),
    }
    // What a program left may have mode 0000; its owner may still give it another.
    rustix::fs::chmodat(CWD, path, Mode::RWXU, AtFlags::empty()).map_err(failed("change the mode of", path))?;
    let mut directories = vec![Place::open(path)?];
    let mut next = 0;
    while let Some(place) = directories.get(next).cloned() {
        next += 1;
        for (name, kind) in place.entries()? {
            let child = place.join(&name)?;
            if kind != FileType::Directory {
                match rustix::fs::unlinkat(child.base(), child.relative(), AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => continue,
                    Err(Errno::ISDIR | Errno::PERM) if kind == FileType::Unknown => {}
                    Err(errno) => return Err(child.failed("remove")(errno)),
                }
            }
            rustix::fs::chmodat(child.base(), child.relative(), Mode::RWXU, AtFlags::empty())
                .map_err(child.failed("change the mode of"))?;
            directories.push(child);
        }
    }
    // Every directory comes after the one that it lies in.
    for place in directories.iter().skip(1).rev() {
        rustix::fs::unlinkat(place.base(), place.relative(), AtFlags::REMOVEDIR).map_err(place.failed("remove"))?;
    }
    rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR).map_err(failed("remove", path))
}
