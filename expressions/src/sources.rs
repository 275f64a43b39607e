//! The only place where files are read: below the project, or anywhere if the evaluation need not be pure.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::eval::Evaluator;
use crate::failure::{Failure, Result};
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
    /// Directories that were looked at: whether files in them can be read.
    known: Arc<Mutex<HashMap<PathBuf, bool>>>,
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
        if !self.is_inside(path) {
            return false;
        }
        // The entry itself may be a link, which is looked at but not followed here.
        directory == self.project.parent().unwrap_or(&self.project) || self.is_open_directory(directory)
    }

    fn is_inside(&self, path: &Path) -> bool {
        let searched = self.search_path.iter().any(|(_, entry)| path.starts_with(entry));
        path.starts_with(&self.project) || searched
    }

    fn is_open_directory(&self, directory: &Path) -> bool {
        if let Some(open) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(directory) {
            return *open;
        }
        let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let resolved = real(directory);
        let roots = std::iter::once(&self.project).chain(self.search_path.iter().map(|(_, entry)| entry));
        let open = roots.into_iter().any(|root| resolved.starts_with(real(root)))
            || self.search_path.iter().any(|(_, entry)| entry.parent() == Some(directory));
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(directory.to_owned(), open);
        open
    }

    /// Refuses what a symlink at the end of a path leads to, if that lies outside.
    fn guard_followed(&self, path: &Path) -> Result<()> {
        self.guard(path)?;
        if !self.impure
            && let Ok(resolved) = fs::canonicalize(path)
        {
            let directory = resolved.parent().unwrap_or(&resolved);
            let project = fs::canonicalize(&self.project).unwrap_or_else(|_| self.project.clone());
            if resolved != project && !self.is_open_directory(directory) {
                return self.guard(&resolved);
            }
        }
        Ok(())
    }

    /// The bytes of a file.
    pub fn read(&self, path: &Path) -> Result<Vec<u8>> {
        self.guard_followed(path)?;
        fs::read(path).map_err(|error| refused("opening file", path, &error))
    }

    /// Whether there is something, not following a symlink at the end.
    pub fn exists(&self, path: &Path) -> bool {
        self.guard(path).is_ok() && fs::symlink_metadata(path).is_ok()
    }

    /// Whether it is a directory, following symlinks.
    pub fn is_directory(&self, path: &Path) -> Result<bool> {
        self.guard_followed(path)?;
        fs::metadata(path).map(|metadata| metadata.is_dir()).map_err(|error| refused("getting status of", path, &error))
    }

    /// Where a symlink points; none if it is something else.
    pub fn link_target(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        match self.kind(path)? {
            FileKind::Symlink => match fs::read_link(path) {
                Ok(target) => Ok(Some(target.into_os_string().into_vec())),
                Err(error) => Err(refused("reading symbolic link", path, &error)),
            },
            _ => Ok(None),
        }
    }

    /// What a path stands for, not following a symlink at the end.
    pub fn kind(&self, path: &Path) -> Result<FileKind> {
        self.guard(path)?;
        Disk.kind(path).map_err(Into::into)
    }

    /// The names in a directory and what they stand for, by the bytes of the names.
    pub fn entries(&self, path: &Path) -> Result<Vec<(Vec<u8>, FileKind)>> {
        self.guard_followed(path)?;
        if fs::metadata(path).is_ok_and(|metadata| !metadata.is_dir()) {
            let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
            return Err(Failure::new(format!("'{}' is not a directory", path.display())));
        }
        let mut names = Disk.entries(path)?;
        names.sort_unstable();
        let kinds = names.into_iter().map(|name| {
            let kind = Disk.kind(&path.join(OsString::from_vec(name.clone())))?;
            Ok((name, kind))
        });
        kinds.collect()
    }
}

fn refused(action: &str, path: &Path, error: &std::io::Error) -> Box<Failure> {
    let shown = path.display();
    Failure::new(match error.kind() {
        std::io::ErrorKind::NotFound => format!("path '{shown}' does not exist"),
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
        self.0.sources.guard(path)?;
        Ok(Disk.entries(path)?)
    }

    fn target(&self, path: &Path) -> Result<Vec<u8>> {
        self.0.sources.guard(path)?;
        Ok(Disk.target(path)?)
    }

    fn open(&self, path: &Path) -> Result<(u64, Box<dyn Read>)> {
        self.0.sources.guard(path)?;
        Ok(Disk.open(path)?)
    }
}
