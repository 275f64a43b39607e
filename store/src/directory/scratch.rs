//! Directories that belong to a running process, and go when it does.
//!
//! `scratch/NAME.lock` is made and locked before `scratch/NAME`, and removed after it. A lock that can be taken has lost its
//! owner, and what it stood for is removed: the kernel frees the lock however the process ended.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::place::remove_all;
use super::{Store, failed};
use crate::{Error, Result};

/// A directory that belongs to this process until dropped; removed then, or by the next process if this one is killed.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    lock_path: PathBuf,
    /// The lock is held as long as this is open.
    _lock: OwnedFd,
    kept: bool,
}

impl Scratch {
    /// Where it is. On the store's own file system, so that files can be renamed and linked into the store.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps the directory after all (`--keep-failed`), and says where. Collection removes it.
    pub fn keep(mut self) -> PathBuf {
        self.kept = true;
        self.path.clone()
    }

    pub(super) fn new(store: &Path) -> Result<Self> {
        let parent = store.join("scratch");
        loop {
            let name = format!("{}-{}", rustix::process::getpid().as_raw_nonzero(), super::random_name()?);
            let (path, lock_path) = (parent.join(&name), parent.join(format!("{name}.lock")));
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let lock = match rustix::fs::openat(CWD, &lock_path, flags, Mode::RUSR | Mode::WUSR) {
                Ok(lock) => lock,
                Err(Errno::NOENT) => {
                    super::ensure_directory(&parent)?;
                    continue;
                }
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(failed("create", lock_path)(errno)),
            };
            // Another process may have taken the lock for a dead one's, and the file away, before we locked it.
            if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
                continue;
            }
            if rustix::fs::fstat(&lock).map_err(failed("look at", &lock_path))?.st_nlink == 0 {
                continue;
            }
            rustix::fs::mkdirat(CWD, &path, Mode::RWXU).map_err(failed("create", &path))?;
            return Ok(Self { path, lock_path, _lock: lock, kept: false });
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Should it fail, the lock file stays, and the next process tries again.
        if self.kept || remove_all(&self.path).is_ok() {
            let _ = std::fs::remove_file(&self.lock_path);
        }
    }
}

impl Store {
    /// A new empty directory of this process's own.
    pub fn scratch(&self) -> Result<Scratch> {
        if !self.cleaned.swap(true, Ordering::Relaxed) {
            self.remove_dead_scratch()?;
        }
        Scratch::new(&self.path)
    }

    /// Removes the directories of processes that ended without doing so.
    pub(super) fn remove_dead_scratch(&self) -> Result<()> {
        let parent = self.path.join("scratch");
        let entries = match std::fs::read_dir(&parent) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::file("read the directory", parent)(error)),
        };
        for entry in entries {
            let lock_path = entry.map_err(Error::file("read the directory", &parent))?.path();
            if lock_path.extension().is_none_or(|extension| extension != "lock") {
                continue;
            }
            let Ok(lock) = rustix::fs::openat(CWD, &lock_path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) else {
                continue;
            };
            if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
                // A leftover that cannot be removed (a mount in it, another's file) must not keep anybody from working.
                if remove_all(&lock_path.with_extension("")).is_ok() {
                    let _ = std::fs::remove_file(&lock_path);
                }
            }
        }
        Ok(())
    }
}
