//! Which steps are being made, so that two processes do not make the same one.
//!
//! `building/KEY.lock` is locked by the process that makes the step. A lock file whose lock can be taken belongs to a process that
//! ended without taking it away: the kernel frees the lock however that was, and whoever takes it goes on in its place.

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;

use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::{Store, ensure_directory, failed};
use crate::digest::StepKey;
use crate::{Error, Result};

/// The right to make one step, held until dropped.
#[derive(Debug)]
pub struct Building {
    path: PathBuf,
    _file: fs::File,
}

impl Drop for Building {
    fn drop(&mut self) {
        // Before the lock is freed with the file: whoever waits for it sees that the file is gone, and makes another.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether a step can be made now.
#[derive(Debug)]
pub enum Begin {
    /// By the caller, and nobody else as long as this lives.
    Now(Building),
    /// Another is making it; its process, where that is known.
    Elsewhere(Option<u32>),
}

impl Store {
    /// Claims the making of a step. Whoever gets it looks again whether the step has been made meanwhile.
    pub fn begin(&self, key: &StepKey) -> Result<Begin> {
        let directory = self.full("building");
        let path = directory.join(format!("{key}.lock"));
        loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let mut file = match rustix::fs::openat(CWD, &path, flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) => fs::File::from(file),
                Err(Errno::NOENT) => {
                    ensure_directory(&directory)?;
                    continue;
                }
                Err(errno) => return Err(failed("open", path)(errno)),
            };
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    let mut text = String::new();
                    let _ = file.read_to_string(&mut text);
                    return Ok(Begin::Elsewhere(text.trim().parse().ok()));
                }
                // Without locks two may do the same work, and both come to the same result.
                Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
                Err(errno) => return Err(failed("lock", path)(errno)),
            }
            // Its last owner may have taken the file away between our opening and locking it.
            if rustix::fs::fstat(&file).map_err(failed("look at", &path))?.st_nlink == 0 {
                continue;
            }
            file.set_len(0).map_err(Error::file("write", &path))?;
            let _ = write!(file, "{}", rustix::process::getpid().as_raw_nonzero());
            return Ok(Begin::Now(Building { path, _file: file }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::world;
    use super::*;

    #[test]
    fn a_step_is_made_by_one_at_a_time_and_a_dead_ones_claim_is_taken_over() {
        let world = world();
        let (store, other) = (&world.store, Store::open(world.store.path()).unwrap());
        let (key, another) = (StepKey::of(b"a"), StepKey::of(b"b"));
        let Begin::Now(first) = store.begin(&key).unwrap() else { panic!("nobody else makes it") };
        assert!(matches!(other.begin(&key).unwrap(), Begin::Elsewhere(Some(process)) if process == std::process::id()));
        assert!(matches!(other.begin(&another).unwrap(), Begin::Now(_)));
        drop(first);
        assert!(matches!(other.begin(&key).unwrap(), Begin::Now(_)));
        // What a killed process leaves: a file, and no lock on it.
        let path = world.store.path().join(format!("building/{key}.lock"));
        fs::write(&path, "1").unwrap();
        assert!(matches!(store.begin(&key).unwrap(), Begin::Now(_)));
        assert_eq!(fs::read_dir(world.store.path().join("building")).unwrap().count(), 0);
    }

    #[test]
    fn many_who_want_it_get_it_one_after_the_other() {
        let world = world();
        let key = StepKey::of(b"a");
        let inside = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let held = loop {
                            match world.store.begin(&key).unwrap() {
                                Begin::Now(held) => break held,
                                Begin::Elsewhere(_) => std::thread::yield_now(),
                            }
                        };
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        drop(held);
                    }
                });
            }
        });
    }
}
