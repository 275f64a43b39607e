//! A file or directory that may be an artifact, opened once.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// How much of a file is read to say what it is.
pub const HEAD_LENGTH: usize = 4096;

/// A file or directory that may be an artifact.
#[derive(Debug)]
pub struct Artifact {
    path: PathBuf,
    /// None for a directory.
    file: Option<File>,
    head: Vec<u8>,
    size: u64,
}

impl Artifact {
    /// Opens it and reads its beginning.
    pub fn open(path: &Path) -> Result<Self> {
        // A named pipe is not opened: that would wait for somebody to write to it.
        let metadata = fs::metadata(path).map_err(Error::file("look at", path))?;
        let path = path.to_owned();
        if metadata.is_dir() {
            return Ok(Self { path, file: None, head: Vec::new(), size: 0 });
        }
        if !metadata.is_file() {
            return Err(Error::Unsupported { path, reason: "it is neither a file nor a directory" });
        }
        let file = File::open(&path).map_err(Error::file("open", &path))?;
        let size = file.metadata().map_err(Error::file("look at", &path))?.len();
        let mut artifact = Self { path, file: Some(file), head: Vec::new(), size };
        let length = usize::try_from(size).unwrap_or(usize::MAX).min(HEAD_LENGTH);
        artifact.head = artifact.bytes("artifact", 0, length)?;
        Ok(artifact)
    }

    /// As it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is a directory, such as an OCI layout.
    pub fn is_directory(&self) -> bool {
        self.file.is_none()
    }

    /// The file, if it is one. Its position is shared: read with [`FileExt::read_at`].
    pub fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// Its first [`HEAD_LENGTH`] bytes, or fewer if it is shorter; none of a directory.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Bytes of the file; 0 for a directory.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes from the middle of the file. The caller has bounded `length`; what reaches over the end is an error.
    pub fn bytes(&self, format: &'static str, offset: u64, length: usize) -> Result<Vec<u8>> {
        let Some(file) = &self.file else { return Err(self.bad(format, "it is a directory")) };
        let end = offset.checked_add(length as u64).filter(|end| *end <= self.size);
        if end.is_none() {
            return Err(self.bad(format, format!("it ends at byte {}, within what begins at {offset}", self.size)));
        }
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset).map_err(Error::file("read", &self.path))?;
        Ok(bytes)
    }

    /// The file from its beginning; nothing of a directory.
    pub fn reader(&self) -> impl Read + '_ {
        FromStart { file: self.file.as_ref(), position: 0 }
    }

    /// The error that says what is wrong with it.
    pub fn bad(&self, format: &'static str, reason: impl Into<String>) -> Error {
        Error::Archive { from: self.path.display().to_string(), format, reason: reason.into() }
    }
}

/// Reads at a position of its own: readers of one artifact do not disturb each other.
struct FromStart<'a> {
    file: Option<&'a File>,
    position: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let Some(file) = self.file else { return Ok(0) };
        let length = file.read_at(buffer, self.position)?;
        self.position += length as u64;
        Ok(length)
    }
}
