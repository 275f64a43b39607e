//! Where the files of a wheel go, as `pip` of Debian lays them out, and the delta that they make up.
//!
//! Everything lies below `/usr/local`, so that Debian's own packages are left alone. Directories that exist on every Debian
//! system, or that several wheels share outside the packages' own, are only passed through: what is below keeps its metadata.

use std::collections::{BTreeMap, BTreeSet};

use store::{Delta, DeltaId, File, Metadata, Name, Node, RelativePath, Store, Tree, TreeId};

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

    /// Keeps everything as a delta. Directories outside of `own` are only passed through.
    pub fn put(&self, store: &Store, own: &str) -> Result<DeltaId> {
        let mut root = Directory::default();
        for (path, (file, _)) in &self.files {
            root.insert(path, file).map_err(|reason| Error::Invalid { what: "wheel", name: path.clone(), reason })?;
        }
        let own = RelativePath::parse(own.as_bytes()).map_err(|_| Error::Invalid {
            what: "path",
            name: own.to_owned(),
            reason: "it leads elsewhere".to_owned(),
        })?;
        let mut passed = BTreeSet::new();
        let tree = root.put(store, &RelativePath::default(), &own, &mut passed)?;
        Ok(store.put_delta(&Delta { tree, removed: BTreeSet::new(), passed })?)
    }
}

/// A directory in the making.
#[derive(Default)]
struct Directory {
    directories: BTreeMap<Name, Directory>,
    files: BTreeMap<Name, File>,
}

impl Directory {
    fn insert(&mut self, path: &str, file: &File) -> Result<(), String> {
        let clash = || "a file and a directory of it have the same name".to_owned();
        let (first, rest) = path.split_once('/').map_or((path, None), |(first, rest)| (first, Some(rest)));
        let name = Name::new(first).map_err(|error| error.to_string())?;
        match rest {
            Some(_) if self.files.contains_key(&name) => Err(clash()),
            Some(rest) => self.directories.entry(name).or_default().insert(rest, file),
            None if self.directories.contains_key(&name) => Err(clash()),
            None => {
                self.files.insert(name, file.clone());
                Ok(())
            }
        }
    }

    fn put(
        &self,
        store: &Store,
        path: &RelativePath,
        own: &RelativePath,
        passed: &mut BTreeSet<RelativePath>,
    ) -> Result<TreeId> {
        let is_own = path.0.len() > own.0.len() && path.0.starts_with(&own.0);
        if !is_own {
            passed.insert(path.clone());
        }
        let mut tree = Tree::empty();
        for (name, directory) in &self.directories {
            let id = directory.put(store, &path.join(name), own, passed)?;
            tree.entries.insert(name.clone(), Node::Directory(id));
        }
        for (name, file) in &self.files {
            tree.entries.insert(name.clone(), Node::File(file.clone()));
        }
        Ok(store.put_tree(&tree)?)
    }
}
