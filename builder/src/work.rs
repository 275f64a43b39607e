//! The step that is being made: whose it is, where its log goes, and under which conditions its commands run.
//!
//! A builder carries it along while it makes one step, so that whatever runs a command for the step writes to its log.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
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
    log: Mutex<Log>,
}

/// What is kept of a step's output from its beginning, and again from its end, where the reason of a failure stands. Of more, the
/// middle is left out.
const HALF_OF_LOG: usize = 32 << 20;

/// What the commands of a step have printed, one after the other.
#[derive(Debug, Default)]
struct Log {
    first: Vec<u8>,
    last: Vec<u8>,
    /// How many bytes between the two are not kept.
    left_out: u64,
}

impl Log {
    fn add(&mut self, mut file: &fs::File) -> io::Result<()> {
        let mut rest = file.metadata()?.len();
        let room = HALF_OF_LOG - self.first.len();
        rest -= file.take(rest.min(room as u64)).read_to_end(&mut self.first)? as u64;
        let skipped = rest.saturating_sub(HALF_OF_LOG as u64);
        file.seek(SeekFrom::Current(skipped as i64))?;
        file.take(rest - skipped).read_to_end(&mut self.last)?;
        let superseded = self.last.len().saturating_sub(HALF_OF_LOG);
        self.last.drain(..superseded);
        self.left_out += skipped + superseded as u64;
        Ok(())
    }

    fn text(&self) -> Vec<u8> {
        let note = match self.left_out {
            0 => String::new(),
            left_out => format!("\n[… {left_out} bytes left out]\n"),
        };
        [&self.first, note.as_bytes(), &self.last].concat()
    }
}

impl Work {
    /// A step, before it has printed anything.
    pub fn new(derivation: StorePath, elsewhere: Option<Elsewhere>) -> Self {
        Self { derivation, elsewhere, peak_memory: AtomicU64::new(0), log: Mutex::default() }
    }

    /// Adds what a command printed.
    pub fn printed(&self, path: &Path) -> Result<()> {
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::file("read", path)(error)),
        };
        self.log.lock().unwrap_or_else(PoisonError::into_inner).add(&file).map_err(Error::file("read", path))
    }

    /// A command has ended, and took so much memory.
    pub fn used(&self, peak_memory: u64) {
        self.peak_memory.fetch_max(peak_memory, Ordering::Relaxed);
    }

    /// Everything that was printed so far.
    pub fn log(&self) -> Vec<u8> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).text()
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn of_a_long_log_the_beginning_and_the_end_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let work = Work::new(StorePath::parse(&format!("/nix/store/{}-a.drv", "0".repeat(32))).unwrap(), None);
        let print = |length: usize, begins: &str, ends: &str| {
            let path = directory.path().join("log");
            let file = fs::File::create(&path).unwrap();
            file.write_all_at(begins.as_bytes(), 0).unwrap();
            file.write_all_at(ends.as_bytes(), (length - ends.len()) as u64).unwrap();
            work.printed(&path).unwrap();
            work.log()
        };
        let whole = print(2 * HALF_OF_LOG, "the first line", "as much as is kept");
        assert_eq!(whole.len(), 2 * HALF_OF_LOG);
        assert!(whole.starts_with(b"the first line") && whole.ends_with(b"as much as is kept"));
        let more = print(1000, "a second command", "error: what failed");
        assert!(more.starts_with(b"the first line") && more.ends_with(b"error: what failed"));
        let note = b"\n[\xe2\x80\xa6 1000 bytes left out]\n";
        assert!(more[HALF_OF_LOG..].starts_with(note));
        assert_eq!(more.len(), 2 * HALF_OF_LOG + note.len());
        // A third, whose own middle is left out too.
        let most = print(3 * HALF_OF_LOG, "a third command", "error: the last line");
        assert!(most.starts_with(b"the first line") && most.ends_with(b"error: the last line"));
        let note = format!("\n[… {} bytes left out]\n", 1000 + 3 * HALF_OF_LOG);
        assert!(most[HALF_OF_LOG..].starts_with(note.as_bytes()));
        assert!(crate::step::tail(&most).ends_with("error: the last line"));
    }
}
