//! Where the files of a wheel go, as `pip` of Debian lays them out, and the delta that they make up.
//!
//! Everything lies below `/usr/local`, so that Debian's own packages are left alone.

use std::collections::BTreeMap;

use store::{DeltaId, File, Metadata, Node, RelativePath, Store};

use crate::draft::Draft;
use crate::python::PythonVersion;
use crate::python::archive::Kept;
use crate::{Error, Result};

/// The directories that wheels are installed to.
#[derive(Debug, Clone)]
pub struct Places {
    /// `/usr/local/lib/pythonX.Y/dist-packages`: `purelib` and `platlib`.
    pub packages: String,
    /// `/usr/local/bin`.
    pub scripts: String,
    /// `/usr/local/include/pythonX.Y`, where every project has a directory.
    pub headers: String,
    /// `/usr/local`.
    pub data: String,
    /// `/usr/bin/pythonX.Y`, for the first line of scripts.
    pub interpreter: String,
}

impl Places {
    /// Where Debian's Python of this version looks.
    pub fn debian(python: PythonVersion) -> Self {
        Self {
            packages: format!("usr/local/lib/python{python}/dist-packages"),
            scripts: "usr/local/bin".to_owned(),
            headers: format!("usr/local/include/python{python}"),
            data: "usr/local".to_owned(),
            interpreter: format!("/usr/bin/python{python}"),
        }
    }

    /// A path of the `data` scheme. `/usr/local/man` is a symlink to `share/man` on Debian, which a directory of that name
    /// would replace.
    pub fn data_path(&self, rest: &str) -> String {
        match rest.strip_prefix("man/") {
            Some(page) => format!("{}/share/man/{page}", self.data),
            None => format!("{}/{rest}", self.data),
        }
    }
}

/// Files on their way into a delta.
#[derive(Debug, Default)]
pub struct Layout {
    files: BTreeMap<String, (File, [u8; 32])>,
}

impl Layout {
    /// Adds a file at a path without slash in front. The same file twice is one; another at the same path is refused.
    pub fn add(&mut self, path: String, executable: bool, kept: &Kept) -> Result<(), String> {
        let metadata = Metadata::root(if executable { 0o755 } else { 0o644 });
        let file = File { blob: kept.blob, size: kept.size, metadata };
        match self.files.get(&path) {
            Some((earlier, _)) if *earlier != file => Err(format!("it has two files for `/{path}`")),
            _ => {
                self.files.insert(path, (file, kept.sha256));
                Ok(())
            }
        }
    }

    /// Every path with the digest and size that a RECORD wants.
    pub fn recorded(&self) -> impl Iterator<Item = (&str, &[u8; 32], u64)> {
        self.files.iter().map(|(path, (file, sha256))| (path.as_str(), sha256, file.size))
    }

    /// Whether something is at this path.
    pub fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// Keeps everything as a delta. Like pip, it makes the directories that are missing and leaves the others as they are.
    pub fn put(&self, store: &Store, file: &str) -> Result<DeltaId> {
        let mut root = Draft::passing();
        for (path, (node, _)) in &self.files {
            let path = RelativePath::parse(path.as_bytes()).map_err(|error| Error::Invalid {
                what: "wheel",
                name: file.to_owned(),
                reason: error.to_string(),
            })?;
            root.insert(store, &path.0, Node::File(node.clone())).map_err(|error| error.about("wheel", file))?;
        }
        Ok(root.delta(store)?)
    }
}
