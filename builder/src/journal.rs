//! What builds did and why: a file for each build that made something, a line for each step, so that it can be explained later.
//!
//! `journal/MILLISECONDS-PROCESS.jsonl` begins with a line about the build. A step that was known by its derivation's path leaves
//! no line: it costs nothing to ask the same again. A line that cannot be read is skipped: a build that was killed may have left
//! half of one. The newest 256 builds are kept. The format is in `docs/formats/journal.md`.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use store::Store;

use crate::key::Fact;
use crate::{Error, Result};

/// How many builds are remembered.
const KEPT: usize = 256;

/// What happened to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Happened {
    /// It was made.
    Built,
    /// Its derivation was new, and what goes in was not: the result was here (early cutoff).
    Known,
    /// It failed.
    Failed,
}

/// One step of a build.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Entry {
    /// The path of its derivation.
    pub derivation: String,
    /// Its name.
    pub name: String,
    /// What it is made from, by content.
    pub key: String,
    /// What happened.
    pub happened: Happened,
    /// When it ended, in seconds since 1970.
    pub time: u64,
    /// How long it took, in milliseconds.
    pub took: u64,
    /// Most memory that a process of it took, in bytes; 0 where nothing ran.
    #[serde(default)]
    pub peak_memory: u64,
    /// What it was made from.
    pub facts: Vec<Fact>,
    /// What its outputs came out as, by name: `delta:…`, `blob:…`.
    #[serde(default)]
    pub outputs: std::collections::BTreeMap<String, String>,
}

/// Writes what one build does. The file is made with the first line.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    goal: String,
    file: Mutex<Option<BufWriter<fs::File>>>,
}

impl Journal {
    /// The journal of a build for this goal.
    pub fn new(store: &Store, goal: &str) -> Self {
        Self { directory: directory(store), goal: goal.to_owned(), file: Mutex::new(None) }
    }

    /// Adds a step.
    pub fn add(&self, entry: &Entry) -> Result<()> {
        let mut line = serde_json::to_vec(entry).expect("an entry has a text");
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match &mut *file {
            Some(file) => file,
            none => none.insert(self.open()?),
        };
        file.write_all(&line).map_err(Error::file("write", &self.directory))
    }

    /// Writes out what was added.
    pub fn flush(&self) -> Result<()> {
        match &mut *self.file.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(file) => file.flush().map_err(Error::file("write", &self.directory)),
            None => Ok(()),
        }
    }

    fn open(&self) -> Result<BufWriter<fs::File>> {
        fs::create_dir_all(&self.directory).map_err(Error::file("create", &self.directory))?;
        let mut names = names(&self.directory)?;
        names.sort_unstable();
        for old in names.iter().take((names.len() + 1).saturating_sub(KEPT)) {
            let _ = fs::remove_file(self.directory.join(old));
        }
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let process = std::process::id();
        let mut milliseconds = since.as_millis();
        let (path, file) = loop {
            // Of a fixed width, so that names sort by time.
            let path = self.directory.join(format!("{milliseconds:015}-{process}.jsonl"));
            match fs::OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => break (path, file),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => milliseconds += 1,
                Err(error) => return Err(Error::file("create", path)(error)),
            }
        };
        let mut file = BufWriter::new(file);
        let head = serde_json::json!({ "schema": 1, "goal": self.goal, "time": since.as_secs() });
        writeln!(file, "{head}").map_err(Error::file("write", path))?;
        Ok(file)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // What is only there to explain must not fail a build.
        let _ = self.flush();
    }
}

fn directory(store: &Store) -> PathBuf {
    store.path().join("journal")
}

fn names(directory: &Path) -> Result<Vec<String>> {
    match fs::read_dir(directory) {
        Ok(entries) => {
            let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
            Ok(names.filter(|name| name.ends_with(".jsonl")).collect())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::file("read the directory", directory)(error)),
    }
}

/// The entries of the newest `builds` builds, the newest first.
pub fn read(store: &Store, builds: usize) -> Result<Vec<Entry>> {
    let directory = directory(store);
    let mut names = names(&directory)?;
    names.sort_unstable_by(|left, right| right.cmp(left));
    let mut entries = Vec::new();
    for name in names.into_iter().take(builds) {
        let path = directory.join(name);
        let text = match fs::read(&path) {
            Ok(text) => text,
            // Another process has taken it away.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::file("read", path)(error)),
        };
        let lines = text.split(|byte| *byte == b'\n');
        let mut found: Vec<Entry> = lines.skip(1).filter_map(|line| serde_json::from_slice(line).ok()).collect();
        found.reverse();
        entries.append(&mut found);
    }
    Ok(entries)
}

/// Everything that is remembered, the newest first.
pub fn read_all(store: &Store) -> Result<Vec<Entry>> {
    read(store, usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, time: u64) -> Entry {
        Entry {
            derivation: format!("/nix/store/{}-{name}.drv", "0".repeat(32)),
            name: name.to_owned(),
            key: "00".to_owned(),
            happened: Happened::Built,
            time,
            took: 1,
            peak_memory: 0,
            facts: vec![Fact::new("builder", "builtin:run")],
            outputs: Default::default(),
        }
    }

    #[test]
    fn the_newest_comes_first_and_half_a_line_is_skipped() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("store")).unwrap();
        assert_eq!(read_all(&store).unwrap(), []);
        for build in 0..3 {
            let journal = Journal::new(&store, "goal");
            journal.add(&entry("a", 10 * build)).unwrap();
            journal.add(&entry("b", 10 * build + 1)).unwrap();
        }
        let times: Vec<u64> = read_all(&store).unwrap().iter().map(|entry| entry.time).collect();
        assert_eq!(times, [21, 20, 11, 10, 1, 0]);
        assert_eq!(read(&store, 1).unwrap().len(), 2);
        let newest = names(&super::directory(&store)).unwrap().into_iter().max().unwrap();
        let path = super::directory(&store).join(newest);
        let text = fs::read(&path).unwrap();
        fs::write(&path, &text[..text.len() - 10]).unwrap();
        assert_eq!(read(&store, 1).unwrap(), [entry("a", 20)]);
    }

    #[test]
    fn only_so_many_builds_are_remembered_and_one_that_does_nothing_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("store")).unwrap();
        drop(Journal::new(&store, "goal"));
        assert!(!super::directory(&store).exists());
        for build in 0..KEPT as u64 + 3 {
            Journal::new(&store, "goal").add(&entry("a", build)).unwrap();
        }
        let entries = read_all(&store).unwrap();
        assert_eq!((entries.len(), entries[0].time), (KEPT, KEPT as u64 + 2));
    }

    #[test]
    fn a_long_text_is_cut_and_still_told_from_another() {
        let (left, right) = (format!("{}é1", "x".repeat(599)), format!("{}é2", "x".repeat(599)));
        let facts = [&left, &right].map(|text| Fact::new("script", text.as_str()));
        assert!(facts[0] != facts[1] && facts[0].value.len() < 700, "{facts:?}");
        assert_eq!(Fact::new("a", "short").value, "short");
    }
}
