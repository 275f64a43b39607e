//! Directories that belong to a running process, and go when it does.
//!
//! `scratch/NAME.lock` is made and locked before `scratch/NAME`, and removed after it. A lock that can be taken has lost its
//! owner, and what it stood for is removed: the kernel frees the lock however the process ended.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::place::remove_all;
use super::{Store, failed};
use crate::{Error, Result};

/// A file that exists and is locked as long as this process wants it.
#[derive(Debug)]
pub(super) struct Locked {
    path: PathBuf,
    file: fs::File,
}

impl Locked {
    /// Makes one with a name of its own, which ends in `.lock`.
    pub fn new(parent: &Path) -> Result<Self> {
        loop {
            let process = rustix::process::getpid().as_raw_nonzero();
            let path = parent.join(format!("{process}-{}.lock", super::random_name()?));
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let file = match rustix::fs::openat(CWD, &path, flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) => fs::File::from(file),
                Err(Errno::NOENT) => {
                    super::ensure_directory(parent)?;
                    continue;
                }
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(failed("create", path)(errno)),
            };
            // Another process may have taken the lock for a dead one's, and the file away, before we locked it.
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => continue,
                Err(errno) => return Err(failed("lock", path)(errno)),
            }
            if rustix::fs::fstat(&file).map_err(failed("look at", &path))?.st_nlink != 0 {
                return Ok(Self { path, file });
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::file("write", &self.path))
    }

    /// Removes the file. Should that fail, another process does it once this one has ended.
    pub fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A directory that belongs to this process until dropped; removed then, or by the next process if this one is killed.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    locked: Locked,
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
        let locked = Locked::new(&store.join("scratch"))?;
        let path = locked.path.with_extension("");
        rustix::fs::mkdirat(CWD, &path, Mode::RWXU).map_err(failed("create", &path))?;
        Ok(Self { path, locked, kept: false })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Should it fail, the lock file stays, and the next process tries again.
        if self.kept || remove_all(&self.path).is_ok() {
            self.locked.remove();
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
        let entries = match fs::read_dir(&parent) {
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
                    let _ = fs::remove_file(&lock_path);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::testing::world;
    use super::*;

    fn close(path: &Path) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
    }

    #[test]
    fn a_scratch_directory_goes_with_its_owner_whatever_is_in_it() {
        let world = world();
        let scratch = world.store.scratch().unwrap();
        let path = scratch.path().to_owned();
        fs::create_dir_all(path.join("a/b")).unwrap();
        fs::write(path.join("a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink("/", path.join("a/link")).unwrap();
        for closed in ["a/b/file", "a/b", "a"] {
            close(&path.join(closed));
        }
        drop(scratch);
        assert!(!path.exists() && Path::new("/usr").exists());
        assert_eq!(fs::read_dir(world.store.path().join("scratch")).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_a_living_one_has_is_not() {
        let world = world();
        let living = world.store.scratch().unwrap();
        // A process that was killed leaves a lock file that nobody holds.
        let dead = world.store.path().join("scratch/1-dead");
        fs::create_dir_all(dead.join("closed")).unwrap();
        close(&dead.join("closed"));
        fs::write(dead.with_extension("lock"), "").unwrap();
        let other = Store::open(world.store.path()).unwrap();
        let another = other.scratch().unwrap();
        assert!(!dead.exists() && !dead.with_extension("lock").exists());
        assert!(living.path().exists() && another.path().exists());
    }

    #[test]
    fn a_kept_directory_stays_until_collection() {
        let world = world();
        let kept = world.store.scratch().unwrap().keep();
        assert!(kept.exists());
        let other = Store::open(world.store.path()).unwrap();
        drop(other.scratch().unwrap());
        assert!(kept.exists());
        drop(other);
        world.store.collect(false).unwrap();
        assert!(!kept.exists());
    }
}
