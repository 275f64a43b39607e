//! A tree while it is being made: directories are added to by path, and kept in the store all at once.
//!
//! A directory that is in the store already is opened only when something below it changes, so that a change to a whole root
//! costs as much as the directories on the way to it.

use std::collections::{BTreeMap, BTreeSet};

use store::{Delta, DeltaId, Metadata, Name, Node, RelativePath, Store, Tree, TreeId};

/// A directory that is being made.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Of the directory itself.
    pub metadata: Metadata,
    /// Its metadata is only a default: what lies below decides, if it has the directory (see [`Delta::passed`]).
    pub passed: bool,
    entries: BTreeMap<Name, Entry>,
}

#[derive(Debug, Clone)]
enum Entry {
    Kept(Node),
    Open(Draft),
}

/// Why something cannot be put where it should go.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    /// Something else has this path already, or is no directory and lies on the way.
    #[error("`/{}` is there already", String::from_utf8_lossy(.path))]
    Taken {
        /// Relative, without slash in front.
        path: Vec<u8>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl DraftError {
    /// As an error about something from outside: a `package`, a `wheel`.
    pub fn about(self, what: &'static str, name: &str) -> crate::Error {
        match self {
            Self::Taken { .. } => crate::Error::Invalid { what, name: name.to_owned(), reason: self.to_string() },
            Self::Store(error) => error.into(),
        }
    }
}

impl Draft {
    /// An empty directory with this metadata.
    pub fn new(metadata: Metadata) -> Self {
        Self { metadata, passed: false, entries: BTreeMap::new() }
    }

    /// An empty directory that is merely on the way to something: root's, 0755, unless what lies below has it otherwise.
    pub fn passing() -> Self {
        Self { passed: true, ..Self::new(Metadata::root(0o755)) }
    }

    /// A tree of the store, to be changed.
    pub fn open(store: &Store, id: TreeId) -> store::Result<Self> {
        let tree = store.tree(id)?;
        let entries = tree.entries.iter().map(|(name, node)| (name.clone(), Entry::Kept(node.clone()))).collect();
        Ok(Self { entries, ..Self::new(tree.metadata.clone()) })
    }

    /// The directory at a path. It and those on the way are made if they are missing, as ones that are merely passed.
    pub fn directory(&mut self, store: &Store, path: &[Name]) -> Result<&mut Self, DraftError> {
        let mut draft = self;
        for (depth, name) in path.iter().enumerate() {
            let entry = draft.entries.entry(name.clone()).or_insert_with(|| Entry::Open(Self::passing()));
            if let Entry::Kept(Node::Directory(id)) = entry {
                *entry = Entry::Open(Self::open(store, *id)?);
            }
            draft = match entry {
                Entry::Open(inner) => inner,
                Entry::Kept(_) => return Err(DraftError::Taken { path: join(&path[..=depth]) }),
            };
        }
        Ok(draft)
    }

    /// What is at a path, unless it is a directory or missing.
    pub fn leaf(&self, store: &Store, path: &[Name]) -> store::Result<Option<Node>> {
        let (mut draft, mut rest) = (self, path);
        while let Some((name, below)) = rest.split_first() {
            match draft.entries.get(name) {
                Some(Entry::Open(inner)) => (draft, rest) = (inner, below),
                Some(Entry::Kept(Node::Directory(id))) => return leaf(store, *id, below),
                Some(Entry::Kept(node)) if below.is_empty() => return Ok(Some(node.clone())),
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Puts something at a path where nothing is, or where exactly the same is.
    pub fn insert(&mut self, store: &Store, path: &[Name], node: Node) -> Result<(), DraftError> {
        let Some((name, parents)) = path.split_last() else { return Err(DraftError::Taken { path: Vec::new() }) };
        let parent = self.directory(store, parents)?;
        match parent.entries.get(name) {
            None => {
                parent.entries.insert(name.clone(), Entry::Kept(node));
                Ok(())
            }
            Some(Entry::Kept(present)) if *present == node => Ok(()),
            Some(_) => Err(DraftError::Taken { path: join(path) }),
        }
    }

    /// Puts something at a path instead of whatever is there.
    pub fn replace(&mut self, store: &Store, path: &[Name], node: Node) -> Result<(), DraftError> {
        if let Some((name, parents)) = path.split_last() {
            self.directory(store, parents)?.entries.insert(name.clone(), Entry::Kept(node));
        }
        Ok(())
    }

    /// Takes away what is at a path, if anything is; the directories on the way must be there.
    pub fn remove(&mut self, store: &Store, path: &[Name]) -> Result<(), DraftError> {
        if let Some((name, parents)) = path.split_last() {
            self.directory(store, parents)?.entries.remove(name);
        }
        Ok(())
    }

    /// Keeps a small file of root's at a path instead of whatever is there.
    pub fn write(&mut self, store: &Store, path: &str, mode: u16, content: &[u8]) -> Result<(), DraftError> {
        let blob = store.put_blob(content, mode & 0o111 != 0)?;
        let file = store::File { blob, size: content.len() as u64, metadata: Metadata::root(mode) };
        self.replace(store, &names(path), Node::File(file))
    }

    /// Keeps it all as a tree that nothing lies under.
    pub fn tree(self, store: &Store) -> store::Result<TreeId> {
        self.keep(store, &RelativePath::default(), &mut BTreeSet::new())
    }

    /// Keeps it all as a delta that removes nothing.
    pub fn delta(self, store: &Store) -> store::Result<DeltaId> {
        let mut passed = BTreeSet::new();
        let tree = self.keep(store, &RelativePath::default(), &mut passed)?;
        store.put_delta(&Delta { tree, removed: BTreeSet::new(), passed })
    }

    fn keep(self, store: &Store, path: &RelativePath, passed: &mut BTreeSet<RelativePath>) -> store::Result<TreeId> {
        if self.passed {
            passed.insert(path.clone());
        }
        let mut entries = BTreeMap::new();
        for (name, entry) in self.entries {
            let node = match entry {
                Entry::Kept(node) => node,
                Entry::Open(draft) => Node::Directory(draft.keep(store, &path.join(&name), passed)?),
            };
            entries.insert(name, node);
        }
        store.put_tree(&Tree { metadata: self.metadata, entries })
    }
}

/// What is at a path below a tree, unless it is a directory or missing.
pub fn leaf(store: &Store, tree: TreeId, path: &[Name]) -> store::Result<Option<Node>> {
    Ok(find(store, tree, path)?.filter(|node| !matches!(node, Node::Directory(_))))
}

/// What is at a path below a tree. No symlink is followed.
pub fn find(store: &Store, tree: TreeId, path: &[Name]) -> store::Result<Option<Node>> {
    let mut node = Node::Directory(tree);
    for name in path {
        let Node::Directory(id) = node else { return Ok(None) };
        match store.tree(id)?.entries.get(name) {
            Some(inner) => node = inner.clone(),
            None => return Ok(None),
        }
    }
    Ok(Some(node))
}

/// The names of a path that the source code spells out.
///
/// # Panics
/// If it is not made of valid names.
pub fn names(path: &str) -> Vec<Name> {
    RelativePath::parse(path.as_bytes()).expect("a path in the source code is made of names").0
}

fn join(names: &[Name]) -> Vec<u8> {
    RelativePath(names.to_vec()).to_bytes()
}
