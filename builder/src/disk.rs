//! Whether what runs is filling the disk of the store: a step that does is ended before nobody else can write any more.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// How often the file system is asked.
const PAUSE: Duration = Duration::from_millis(200);
/// What is left to others; of a small file system, a twentieth.
const RESERVE: u64 = 256 << 20;

/// Watches a file system.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    /// None where there was too little from the start: then the steps may find out by themselves.
    reserve: Option<u64>,
    looked: Instant,
}

impl Watch {
    /// From now on.
    pub fn new(path: &Path) -> Self {
        let (total, left) = space(path).unwrap_or((0, 0));
        let reserve = RESERVE.min(total / 20);
        Self { path: path.to_owned(), reserve: (left > 2 * reserve).then_some(reserve), looked: Instant::now() }
    }

    /// How many bytes are left, if that is too little.
    pub fn is_filling_up(&mut self) -> Option<u64> {
        let reserve = self.reserve?;
        if self.looked.elapsed() < PAUSE {
            return None;
        }
        self.looked = Instant::now();
        let (_, left) = space(&self.path)?;
        (left < reserve).then_some(left)
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
