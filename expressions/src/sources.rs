//! The only place where files are read: below the project, or anywhere if the evaluation need not be pure.

pub mod facts;
mod real;

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use self::facts::{Answer, Noting, Question, Recorder, Stamp};
use self::real::RealPaths;

use store::StorePath;
use store::lock::LockRequest;

use crate::eval::Evaluator;
use crate::failure::{Failure, Result};
use crate::fetching;
use crate::nar::{Disk, FileKind, Files, NarError};

/// What an expression can see.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Files below this directory can be read.
    pub project: PathBuf,
    /// All files can be read, and the clock and environment below are seen.
    pub impure: bool,
    /// `-I`: what `<name>` stands for, by prefix (may be empty) and path, in order.
    pub search_path: Vec<(String, PathBuf)>,
    /// What `~` stands for.
    pub home: Option<PathBuf>,
    /// What `builtins.getEnv` sees.
    pub environment: BTreeMap<OsString, OsString>,
    /// `builtins.currentTime`, in seconds since 1970.
    pub time: Option<i64>,
    /// Where things from elsewhere lie, which are known by their hash and never change.
    fetched: Arc<BTreeMap<StorePath, PathBuf>>,
    /// Writes down what is asked, if anything does.
    pub recorder: Option<Recorder>,
    /// Directories that were looked at: whether files in them can be read.
    known: Arc<Mutex<HashMap<PathBuf, bool>>>,
    real: Arc<RealPaths>,
}

impl Sources {
    /// Files of a project, and nothing else.
    pub fn pure(project: impl Into<PathBuf>) -> Self {
        Self { project: project.into(), ..Self::default() }
    }

    /// Everything.
    pub fn impure(project: impl Into<PathBuf>) -> Self {
        Self { project: project.into(), impure: true, ..Self::default() }
    }

    /// Shows where something from elsewhere lies. Whoever says so has compared it with its hash.
    pub fn show(&mut self, path: StorePath, place: PathBuf) {
        let place = fs::canonicalize(&place).unwrap_or(place);
        Arc::make_mut(&mut self.fetched).insert(path, place);
        self.known = Arc::default();
    }

    /// Where something from elsewhere lies, if it was shown.
    pub fn shown(&self, path: &StorePath) -> Option<&Path> {
        self.fetched.get(path).map(PathBuf::as_path)
    }

    /// Refuses what lies outside, also by way of a symlink.
    fn guard(&self, path: &Path) -> Result<()> {
        if self.impure || self.is_open(path) {
            return Ok(());
        }
        let shown = path.display();
        Err(Failure::new(format!("access to absolute path '{shown}' is forbidden in pure evaluation mode")))
    }

    fn is_open(&self, path: &Path) -> bool {
        let Some(directory) = path.parent() else { return false };
        if self.fetched.values().any(|root| root == path) {
            return true;
        }
        if !self.is_inside(path) {
            return false;
        }
        // The entry itself may be a link, which is looked at but not followed here.
        directory == self.project.parent().unwrap_or(&self.project) || self.is_open_directory(directory)
    }

    fn is_inside(&self, path: &Path) -> bool {
        let searched = self.search_path.iter().any(|(_, entry)| path.starts_with(entry));
        path.starts_with(&self.project) || searched || self.fetched.values().any(|root| path.starts_with(root))
    }

    fn is_open_directory(&self, directory: &Path) -> bool {
        if let Some(open) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(directory) {
            return *open;
        }
        let real = |path: &Path| self.real_path(path).unwrap_or_else(|| path.to_owned());
        let resolved = real(directory);
        let roots = std::iter::once(&self.project)
            .chain(self.search_path.iter().map(|(_, entry)| entry))
            .chain(self.fetched.values());
        let open = roots.into_iter().any(|root| resolved.starts_with(real(root)))
            || self.search_path.iter().any(|(_, entry)| entry.parent() == Some(directory));
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(directory.to_owned(), open);
        open
    }

    /// Refuses what a symlink at the end of a path leads to, if that lies outside.
    fn guard_followed(&self, path: &Path) -> Result<()> {
        self.guard(path)?;
        if !self.impure
            && let Some(resolved) = self.real_path(path)
        {
            let directory = resolved.parent().unwrap_or(&resolved);
            let project = self.real_path(&self.project).unwrap_or_else(|| self.project.clone());
            if resolved != project && !self.is_open_directory(directory) {
                return self.guard(&resolved);
            }
        }
        Ok(())
    }

    /// Refuses to ask what is in a file that the expression may not read. With a hash nothing is asked: what is known is no news.
    pub(crate) fn guard_request(&self, request: &LockRequest) -> Result<()> {
        fetching::local_file(request, &self.project).map_or(Ok(()), |file| self.guard_followed(&file))
    }

    /// The same sources, with what is asked of them being written down.
    pub fn recorded(&self) -> (Self, Recorder) {
        let recorder = Recorder::default();
        let known = Arc::default();
        let sources = Self { recorder: Some(recorder.clone()), known, real: Arc::default(), ..self.clone() };
        (sources, recorder)
    }

    fn note(&self, question: impl FnOnce() -> Question, answer: impl FnOnce() -> Answer) {
        if let Some(recorder) = &self.recorder {
            recorder.note(question(), answer());
        }
    }

    /// What goes wrong is told, and remembered by nobody.
    fn spoil(&self) {
        if let Some(recorder) = &self.recorder {
            recorder.spoil();
        }
    }

    fn failed(&self, action: &str, path: &Path, error: &io::Error) -> Box<Failure> {
        self.spoil();
        refused(action, path, error)
    }

    fn unlisted(&self, path: &Path, source: io::Error) -> Box<Failure> {
        self.spoil();
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => NarError::Missing { path }.into(),
            _ => NarError::File { action: "list", path, source }.into(),
        }
    }

    fn real_path(&self, path: &Path) -> Option<PathBuf> {
        let resolved = self.real.resolve(path);
        self.note(|| Question::Real(path.to_owned()), || facts::real_answer(resolved.as_deref()));
        resolved
    }

    /// The bytes of a file.
    pub fn read(&self, path: &Path) -> Result<Vec<u8>> {
        self.guard_followed(path)?;
        if self.recorder.is_none() {
            return fs::read(path).map_err(|error| refused("opening file", path, &error));
        }
        let (bytes, answer) = facts::read(path).map_err(|error| self.failed("opening file", path, &error))?;
        self.note(|| Question::File(path.to_owned()), || answer);
        Ok(bytes)
    }

    /// Whether there is something, not following a symlink at the end.
    pub fn exists(&self, path: &Path) -> bool {
        if self.guard(path).is_err() {
            return false;
        }
        match facts::absent(fs::symlink_metadata(path)) {
            Ok(found) => {
                self.note(|| Question::Exists(path.to_owned()), || Answer::Truth(found.is_some()));
                found.is_some()
            }
            Err(_) => {
                self.spoil();
                false
            }
        }
    }

    /// Whether it is a directory, following symlinks.
    pub fn is_directory(&self, path: &Path) -> Result<bool> {
        self.guard_followed(path)?;
        match fs::metadata(path) {
            Ok(metadata) => {
                self.note(|| Question::Directory(path.to_owned()), || Answer::Truth(metadata.is_dir()));
                Ok(metadata.is_dir())
            }
            Err(error) => {
                let refusal = refused("getting status of", path, &error);
                match facts::absent::<()>(Err(error)) {
                    Ok(_) => self.note(|| Question::Directory(path.to_owned()), || Answer::Nothing),
                    Err(_) => self.spoil(),
                }
                Err(refusal)
            }
        }
    }

    /// Where a symlink points; none if it is something else.
    pub fn link_target(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        match self.kind(path)? {
            FileKind::Symlink => self.target(path).map(Some),
            _ => Ok(None),
        }
    }

    fn target(&self, path: &Path) -> Result<Vec<u8>> {
        use std::os::unix::ffi::OsStringExt as _;
        let target = fs::read_link(path).map_err(|error| self.failed("reading symbolic link", path, &error))?;
        let target = target.into_os_string().into_vec();
        self.note(|| Question::Link(path.to_owned()), || Answer::Bytes(target.clone()));
        Ok(target)
    }

    /// What a path stands for, not following a symlink at the end.
    pub fn kind(&self, path: &Path) -> Result<FileKind> {
        self.guard(path)?;
        let kind = Disk.kind(path);
        match &kind {
            Ok(kind) => self.note(|| Question::Kind(path.to_owned()), || Answer::Kind(facts::kind_number(*kind))),
            Err(_) => self.spoil(),
        }
        kind.map_err(Into::into)
    }

    /// The names in a directory and what they stand for, by the bytes of the names.
    pub fn entries(&self, path: &Path) -> Result<Vec<(Vec<u8>, FileKind)>> {
        self.guard_followed(path)?;
        if fs::metadata(path).is_ok_and(|metadata| !metadata.is_dir()) {
            self.spoil();
            let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
            return Err(Failure::new(format!("'{}' is not a directory", path.display())));
        }
        let (entries, answer) = facts::list(path, true).map_err(|error| self.unlisted(path, error))?;
        self.note(|| Question::Entries(path.to_owned()), || answer);
        Ok(entries)
    }

    /// When anything at or below a path was changed last, in seconds since 1970; none for an evaluation that must be pure,
    /// because that is not a thing of the files' content.
    pub fn last_modified(&self, path: &Path) -> Result<Option<u64>> {
        use std::os::unix::fs::MetadataExt as _;
        if !self.impure {
            return Ok(None);
        }
        self.spoil();
        let (mut latest, mut waiting) = (0, vec![path.to_owned()]);
        while let Some(path) = waiting.pop() {
            let metadata = fs::symlink_metadata(&path).map_err(|error| refused("getting status of", &path, &error))?;
            latest = latest.max(u64::try_from(metadata.mtime()).unwrap_or(0));
            if metadata.is_dir() {
                let entries = fs::read_dir(&path).map_err(|error| refused("listing", &path, &error))?;
                waiting.extend(entries.flatten().map(|entry| entry.path()));
            }
        }
        Ok(Some(latest))
    }

    /// A variable of the environment, if the evaluation may see it.
    pub fn variable(&self, name: &OsStr) -> Option<&OsStr> {
        if !self.impure {
            return None;
        }
        let value = self.environment.get(name);
        self.note(|| Question::Variable(name.to_owned()), || facts::variable_answer(value));
        value.map(OsString::as_os_str)
    }

    /// The time, which is never the same again.
    pub fn now(&self) -> Option<i64> {
        self.spoil();
        self.time
    }
}

fn refused(action: &str, path: &Path, error: &io::Error) -> Box<Failure> {
    let shown = path.display();
    Failure::new(match error.kind() {
        io::ErrorKind::NotFound => format!("path '{shown}' does not exist"),
        _ => format!("{action} '{shown}': {error}"),
    })
}

impl From<NarError> for Box<Failure> {
    fn from(error: NarError) -> Self {
        let mut message = error.to_string();
        if let NarError::File { source, .. } = &error {
            message = format!("{message}: {source}");
        }
        Failure::new(message)
    }
}

/// Lets archives be read through the sources of an evaluation.
pub struct Reader<'a>(pub &'a Evaluator);

impl Files for Reader<'_> {
    type Error = Box<Failure>;

    fn kind(&self, path: &Path) -> Result<FileKind> {
        self.0.sources.kind(path)
    }

    fn entries(&self, path: &Path) -> Result<Vec<Vec<u8>>> {
        let sources = &self.0.sources;
        sources.guard(path)?;
        let (entries, answer) = facts::list(path, false).map_err(|error| sources.unlisted(path, error))?;
        sources.note(|| Question::Names(path.to_owned()), || answer);
        Ok(entries.into_iter().map(|(name, _)| name).collect())
    }

    fn target(&self, path: &Path) -> Result<Vec<u8>> {
        self.0.sources.guard(path)?;
        self.0.sources.target(path)
    }

    fn open(&self, path: &Path) -> Result<(u64, Box<dyn Read>)> {
        let sources = &self.0.sources;
        sources.guard(path)?;
        let failed = |error: io::Error| sources.failed("opening file", path, &error);
        let file = fs::File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let size = metadata.len();
        let Some(recorder) = sources.recorder.clone() else { return Ok((size, Box::new(file))) };
        let (stamp, hasher) = (Stamp::of(&metadata), blake3::Hasher::new());
        Ok((size, Box::new(Noting { file, hasher, path: path.to_owned(), stamp, length: 0, recorder })))
    }
}
