//! Whether what runs is filling the disk of the store: a step that does is ended before nobody else can write any more.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// How often the file system is asked.
const PAUSE: Duration = Duration::from_millis(200);
/// What is left to others, in bytes and in files; of a small file system, a twentieth.
const RESERVE: u64 = 256 << 20;
const RESERVE_OF_FILES: u64 = 10_000;

/// Watches a file system.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    /// None where there was too little from the start: then the steps may find out by themselves.
    reserve: Option<u64>,
    /// The same for files. Some file systems do not count them.
    reserve_of_files: Option<u64>,
    looked: Instant,
}

impl Watch {
    /// From now on.
    pub fn new(path: &Path) -> Self {
        let reserve = |(total, left): (u64, u64), most: u64| {
            let reserve = most.min(total / 20);
            (left > 2 * reserve).then_some(reserve)
        };
        Self {
            path: path.to_owned(),
            reserve: space(path).and_then(|room| reserve(room, RESERVE)),
            reserve_of_files: files(path).and_then(|room| reserve(room, RESERVE_OF_FILES)),
            looked: Instant::now(),
        }
    }

    /// What is left, in words, if that is too little.
    pub fn is_filling_up(&mut self) -> Option<String> {
        if self.looked.elapsed() < PAUSE {
            return None;
        }
        self.looked = Instant::now();
        let short = |reserve: Option<u64>, room: Option<(u64, u64)>| {
            let (reserve, (_, left)) = (reserve?, room?);
            (left < reserve).then_some(left)
        };
        let bytes = short(self.reserve, space(&self.path)).map(|left| format!("{left} bytes are left"));
        bytes.or_else(|| {
            let left = short(self.reserve_of_files, files(&self.path))?;
            Some(format!("room for {left} files is left"))
        })
    }
}

/// Refuses to begin what cannot end well: files of these sizes are to be fetched.
pub fn check_room(path: &Path, needed: u64) -> Result<()> {
    match space(path) {
        Some((_, available)) if available < needed => Err(Error::NoRoom { path: path.to_owned(), available, needed }),
        _ => Ok(()),
    }
}

/// Size of the file system, and what of it is left to an ordinary user.
fn space(path: &Path) -> Option<(u64, u64)> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some((found.f_blocks.saturating_mul(found.f_frsize), found.f_bavail.saturating_mul(found.f_frsize)))
}

/// The same of its files; none where they are not counted.
fn files(path: &Path) -> Option<(u64, u64)> {
    let found = rustix::fs::statvfs(path).ok()?;
    (found.f_files > 0).then_some((found.f_files, found.f_favail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_files_are_watched() {
        let world = tempfile::tempdir().unwrap();
        let watch = |reserve, reserve_of_files| Watch {
            path: world.path().to_owned(),
            reserve,
            reserve_of_files,
            looked: Instant::now().checked_sub(2 * PAUSE).unwrap(),
        };
        assert_eq!(watch(Some(0), Some(0)).is_filling_up(), None);
        assert!(watch(Some(u64::MAX), Some(0)).is_filling_up().unwrap().ends_with(" bytes are left"));
        let Some((_, left)) = files(world.path()) else { return };
        assert!(left > 0);
        let said = watch(None, Some(u64::MAX)).is_filling_up().unwrap();
        assert!(said.starts_with("room for ") && said.ends_with(" files is left"), "{said}");
    }
}
