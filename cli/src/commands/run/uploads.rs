//! Joblet's `--upload` and `--upload-dir`: files that are shown in its work directory, read-only.
//!
//! Who uploads a directory means what is in it. A symbolic link in it that leads elsewhere could have been put there by whoever wrote to
//! the directory, and would show any file of the caller's: it is left out, and that is said.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use executor::Bind;

use crate::args::joblet::{JobletOptions, WORK};
use crate::error::{Failure, Result, code};

/// What is uploaded.
#[derive(Debug, Default)]
pub struct Uploads {
    /// What is shown.
    pub binds: Vec<Bind>,
    /// Links that lead nowhere, or out of the directory that is uploaded.
    pub left_out: Vec<PathBuf>,
}

/// Reads the options.
pub fn of(options: &JobletOptions) -> Result<Uploads> {
    let mut uploads = Uploads::default();
    for path in &options.upload {
        let source = found("--upload", path)?;
        let Some(name) = path.file_name().or(source.file_name()) else {
            return Err(Failure::new(code::USAGE, format!("--upload: there is no name in `{}`", path.display())));
        };
        uploads.binds.push(shown(&source, name));
    }
    for directory in &options.upload_dir {
        let whole = found("--upload-dir", directory)?;
        let entries = fs::read_dir(&whole).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
        let mut entries = entries.map_err(|error| {
            Failure::new(code::USAGE, format!("--upload-dir: cannot read `{}`", directory.display()))
                .cause(error.to_string())
        })?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            match fs::canonicalize(entry.path()) {
                Ok(source) if source.starts_with(&whole) => {
                    uploads.binds.push(shown(&source, &entry.file_name()));
                }
                _ => uploads.left_out.push(directory.join(entry.file_name())),
            }
        }
    }
    Ok(uploads)
}

/// A path without links.
fn found(option: &str, path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).map_err(|error| {
        Failure::new(code::NOT_FOUND, format!("{option}: there is no `{}`", path.display())).cause(error.to_string())
    })
}

/// A file in the work directory.
fn shown(source: &Path, name: &OsStr) -> Bind {
    Bind { source: source.to_owned(), target: Path::new(WORK).join(name), read_only: true }
}
