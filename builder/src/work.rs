//! The step that is being made: whose it is, where its log goes, and under which conditions its commands run.
//!
//! A builder carries it along while it makes one step, so that whatever runs a command for the step writes to its log.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use store::StorePath;
use store::directory::Scratch;

use crate::check::Elsewhere;
use crate::{Error, Result};

/// One step while it is made.
#[derive(Debug)]
pub struct Work {
    /// The path of its derivation.
    pub derivation: StorePath,
    /// Where other than usual its commands run, to see whether the result is the same (`--check`).
    pub elsewhere: Option<Elsewhere>,
    /// Most memory that a process of it took, in bytes.
    pub peak_memory: AtomicU64,
    log: Mutex<Vec<u8>>,
}

/// What is kept of one step's output. Of more, the middle is left out.
const LONGEST_LOG: usize = 64 << 20;

impl Work {
    /// A step, before it has printed anything.
    pub fn new(derivation: StorePath, elsewhere: Option<Elsewhere>) -> Self {
        Self { derivation, elsewhere, peak_memory: AtomicU64::new(0), log: Mutex::default() }
    }

    /// Adds what a command printed.
    pub fn printed(&self, path: &Path) -> Result<()> {
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::file("read", path)(error)),
        };
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let room = LONGEST_LOG.saturating_sub(log.len());
        let length = file.metadata().map_err(Error::file("read", path))?.len();
        (&file).take(room as u64).read_to_end(&mut log).map_err(Error::file("read", path))?;
        if length > room as u64 {
            let _ = writeln!(log, "\n[… {} bytes more]", length - room as u64);
        }
        Ok(())
    }

    /// A command has ended, and took so much memory.
    pub fn used(&self, peak_memory: u64) {
        self.peak_memory.fetch_max(peak_memory, Ordering::Relaxed);
    }

    /// Everything that was printed so far.
    pub fn log(&self) -> Vec<u8> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where a command of this step may keep its files: in another place than usual, if it is to be made elsewhere.
    pub fn place(&self, scratch: &Scratch) -> Result<std::path::PathBuf> {
        let path = match &self.elsewhere {
            Some(elsewhere) => scratch.path().join(&elsewhere.directory),
            None => scratch.path().to_owned(),
        };
        fs::create_dir_all(&path).map_err(Error::file("create", &path))?;
        Ok(path)
    }
}
