//! A commit's files as a tree of the store: files, executable files, symlinks and directories, as git has them, byte by byte.

use std::collections::BTreeMap;
use std::io;

use store::nix::nar::DEEPEST;
use store::{File, Metadata, Name, Node, Store, Tree, TreeId};

use super::attributes::{Attributes, ignored};
use super::object::{EntryKind, Kind, ObjectId, tree};
use super::pack::bad;
use super::repository::Repository;
use crate::{Error, Result};

/// What is asked for a submodule, by its path and commit: its tree, if it is to be there.
pub type Submodules<'a> = &'a mut dyn FnMut(&[u8], ObjectId) -> Result<Option<TreeId>>;

/// Keeps the files of a commit.
pub struct Keeper<'a> {
    /// Where they go.
    pub store: &'a Store,
    /// Where they come from.
    pub repository: &'a Repository,
    /// Leaves out what `.gitattributes` says.
    pub export_ignore: bool,
    /// Stops it.
    pub check: &'a dyn Fn() -> Result<()>,
    /// Makes the error for what is wrong with the repository.
    pub fail: &'a dyn Fn(io::Error) -> Error,
}

impl Keeper<'_> {
    /// Keeps a tree of git's.
    pub fn keep(&self, id: ObjectId, submodules: Submodules<'_>) -> Result<TreeId> {
        self.directory(id, &mut Vec::new(), &mut Vec::new(), 0, submodules)
    }

    fn directory(
        &self,
        id: ObjectId,
        path: &mut Vec<u8>,
        attributes: &mut Vec<(usize, Attributes)>,
        depth: usize,
        submodules: Submodules<'_>,
    ) -> Result<TreeId> {
        (self.check)()?;
        if depth >= DEEPEST {
            return Err((self.fail)(bad("its directories nest too deep")));
        }
        let content = self.repository.wanted(id, Kind::Tree).map_err(self.fail)?;
        let entries = tree(&content).ok_or_else(|| (self.fail)(bad(format!("tree {id} is damaged"))))?;
        let outer = attributes.len();
        let is_attributes = |kind, name: &[u8]| name == b".gitattributes" && matches!(kind, EntryKind::File);
        if let Some(entry) = entries.iter().find(|entry| self.export_ignore && is_attributes(entry.kind, &entry.name)) {
            let text = self.repository.wanted(entry.id, Kind::Blob).map_err(self.fail)?;
            attributes.push((path.len(), Attributes::parse(&text)));
        }
        let mut nodes = BTreeMap::new();
        for entry in entries {
            let name = Name::new(entry.name.clone()).map_err(|error| (self.fail)(bad(error.to_string())))?;
            let length = path.len();
            path.extend_from_slice(&entry.name);
            let node = if ignored(attributes, path) {
                None
            } else {
                match entry.kind {
                    EntryKind::Directory => {
                        path.push(b'/');
                        Some(Node::Directory(self.directory(entry.id, path, attributes, depth + 1, submodules)?))
                    }
                    EntryKind::Submodule => submodules(path, entry.id)?.map(Node::Directory),
                    kind => Some(self.leaf(kind, entry.id)?),
                }
            };
            path.truncate(length);
            if let Some(node) = node
                && nodes.insert(name, node).is_some()
            {
                return Err((self.fail)(bad(format!("tree {id} has a name twice"))));
            }
        }
        attributes.truncate(outer);
        Ok(self.store.put_tree(&Tree { metadata: Metadata::root(0o755), entries: nodes })?)
    }

    fn leaf(&self, kind: EntryKind, id: ObjectId) -> Result<Node> {
        let content = self.repository.wanted(id, Kind::Blob).map_err(self.fail)?;
        leaf(self.store, kind, &content)
            .map_err(|stop| stop.unwrap_or_else(|| (self.fail)(bad("a symlink leads nowhere"))))
    }
}

/// A file or symlink with this content; without an error if no symlink can be like this.
pub fn leaf(store: &Store, kind: EntryKind, content: &[u8]) -> Result<Node, Option<Error>> {
    if kind == EntryKind::Symlink {
        if content.is_empty() || content.contains(&0) {
            return Err(None);
        }
        return Ok(Node::Symlink { target: content.to_vec(), uid: 0, gid: 0 });
    }
    let executable = kind == EntryKind::Executable;
    let blob = store.put_blob(content, executable).map_err(|error| Some(error.into()))?;
    let metadata = Metadata::root(if executable { 0o755 } else { 0o644 });
    Ok(Node::File(File { blob, size: content.len() as u64, metadata }))
}
