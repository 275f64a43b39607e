//! A delta as an OCI layer: a tar of what was added or changed, with whiteouts for what is gone.
//!
//! An engine unpacks each layer into a directory of its own and lays these over each other. So what a layer's tar leaves out
//! of a directory's metadata does not shine through from below: it becomes what the engine makes up (0755 of root, or 0700, or 0600).
//! Hence directories that a delta merely passed through are written all the same, with the metadata that they have below, and
//! so are the parents of whiteouts. Two formations that put a delta over the same directories share the layer.
//!
//! Whiteouts (OCI layer specification): an empty file `.wh.NAME` hides NAME of the layers below; `.wh..wh..opq` hides all that a
//! directory has below. A directory that was removed and made anew is written opaque, since no layer may hold a whiteout of
//! a name and that name too. What is not there below needs no whiteout.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use crate::encoding::Writer;
use crate::format::tar::Packer;
use crate::tree::write_metadata;
use crate::{Delta, Error, Metadata, Name, Node, RelativePath, Result, Store, Tree, TreeId};

/// What begins the name of a whiteout.
pub const WHITEOUT: &[u8] = b".wh.";
/// The name of the file that makes its directory opaque.
pub const OPAQUE: &[u8] = b".wh..wh..opq";

const CONTEXT: &str = "forge 2026-11-21 OCI layer v1";
/// Of a path that could be opened (PATH_MAX); a tree that is deeper is refused rather than walked.
const DEEPEST: usize = 2048;

/// What is written of one delta over what lies below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    root: Directory,
}

/// A directory that is not simply a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Directory {
    metadata: Metadata,
    /// Its entries, but for those in `directories`.
    tree: Option<TreeId>,
    opaque: bool,
    whiteouts: BTreeSet<Name>,
    directories: BTreeMap<Name, Directory>,
}

impl Layer {
    /// A tree that nothing lies under.
    pub fn whole(store: &Store, tree: TreeId) -> Result<Self> {
        Ok(Self { root: Directory::of(&*store.tree(tree)?, tree) })
    }

    /// A delta over the tree that all layers below add up to.
    pub fn over(store: &Store, delta: &Delta, below: TreeId) -> Result<Self> {
        let mut layer = Self::whole(store, delta.tree)?;
        let covered = |path: &RelativePath, from: usize| {
            (0..path.0.len().saturating_sub(from) + 1)
                .any(|length| delta.removed.contains(&RelativePath(path.0[..length].to_vec())))
        };
        for path in &delta.passed {
            // Below what was removed, nothing lower is left.
            if covered(path, 0) {
                continue;
            }
            if let Some(lower) = tree_at(store, below, &path.0)? {
                layer.directory(store, &path.0, below)?.metadata = store.tree(lower)?.metadata.clone();
            }
        }
        for path in &delta.removed {
            let Some((name, parent)) = path.0.split_last() else { continue };
            let Some(lower) = tree_at(store, below, parent)? else { continue };
            // With the directory that it was in, it is gone already.
            let Some(lower) = store.tree(lower)?.entries.get(name).cloned() else { continue };
            if covered(path, 1) {
                continue;
            }
            match (entry_at(store, delta.tree, &path.0)?, lower) {
                (None, _) => _ = layer.directory(store, parent, below)?.whiteouts.insert(name.clone()),
                (Some(Node::Directory(_)), Node::Directory(_)) => layer.directory(store, &path.0, below)?.opaque = true,
                // What is no directory takes the place of what was there, and so does a directory of a file.
                _ => {}
            }
        }
        Ok(layer)
    }

    /// The directory at a path, taken out of the tree it is in; made, as it is below, if the delta has none.
    fn directory(&mut self, store: &Store, path: &[Name], below: TreeId) -> Result<&mut Directory> {
        let mut directory = &mut self.root;
        let mut lower = Some(below);
        for name in path {
            lower = match lower {
                Some(id) => directory_in(&*store.tree(id)?, name),
                None => None,
            };
            if !directory.directories.contains_key(name) {
                let own = match directory.tree {
                    Some(tree) => directory_in(&*store.tree(tree)?, name),
                    None => None,
                };
                let made = match (own, lower) {
                    (Some(own), _) => Directory::of(&*store.tree(own)?, own),
                    (None, Some(lower)) => Directory { tree: None, ..Directory::of(&*store.tree(lower)?, lower) },
                    (None, None) => Directory { tree: None, ..Directory::of(&Tree::empty(), below) },
                };
                directory.directories.insert(name.clone(), made);
            }
            directory = directory.directories.get_mut(name).expect("it was put there");
        }
        Ok(directory)
    }

    /// Names the tar's content: equal keys, equal bytes.
    pub fn key(&self) -> [u8; 32] {
        let mut writer = Writer::default();
        self.root.describe(&mut writer);
        blake3::derive_key(CONTEXT, &writer.finish())
    }

    /// Writes the tar.
    pub fn write(&self, store: &Store, output: &mut dyn Write) -> Result<()> {
        let mut packer = Packer::new(store, output);
        self.root.write(&mut packer, &mut Vec::new(), 0)?;
        packer.write(&[0; 1024])
    }
}

impl Directory {
    fn of(tree: &Tree, id: TreeId) -> Self {
        let (whiteouts, directories) = (BTreeSet::new(), BTreeMap::new());
        Self { metadata: tree.metadata.clone(), tree: Some(id), opaque: false, whiteouts, directories }
    }

    fn describe(&self, writer: &mut Writer) {
        write_metadata(writer, &self.metadata);
        writer.u8(u8::from(self.tree.is_some())).digest(self.tree.unwrap_or(TreeId::from_bytes([0; 32])).as_bytes());
        writer.u8(u8::from(self.opaque)).count(self.whiteouts.len());
        self.whiteouts.iter().for_each(|name| _ = writer.bytes(name.as_bytes()));
        writer.count(self.directories.len());
        for (name, directory) in &self.directories {
            writer.bytes(name.as_bytes());
            directory.describe(writer);
        }
    }

    fn write(&self, packer: &mut Packer<'_>, path: &mut Vec<u8>, depth: usize) -> Result<()> {
        packer.directory_header(path, &self.metadata)?;
        let empty = |packer: &mut Packer<'_>, name: &[u8]| {
            let path = joined(path, name);
            packer.file(&path, 0)
        };
        if self.opaque {
            empty(packer, OPAQUE)?;
        }
        for name in &self.whiteouts {
            empty(packer, &[WHITEOUT, name.as_bytes()].concat())?;
        }
        let tree = self.tree.map(|id| packer.store.tree(id)).transpose()?;
        let own = tree.iter().flat_map(|tree| tree.entries.iter());
        let mut entries: BTreeMap<&Name, Option<&Node>> = own.map(|(name, node)| (name, Some(node))).collect();
        entries.extend(self.directories.keys().map(|name| (name, None)));
        for (name, node) in entries {
            within(path, name, depth, |path| match (self.directories.get(name), node) {
                (Some(directory), _) => directory.write(packer, path, depth + 1),
                (None, Some(node)) => write_node(packer, path, node, depth + 1),
                (None, None) => Ok(()),
            })?;
        }
        Ok(())
    }
}

fn write_node(packer: &mut Packer<'_>, path: &mut Vec<u8>, node: &Node, depth: usize) -> Result<()> {
    let Node::Directory(id) = node else { return packer.node(path, node) };
    let tree = packer.store.tree(*id)?;
    packer.directory_header(path, &tree.metadata)?;
    for (name, node) in &tree.entries {
        within(path, name, depth, |path| write_node(packer, path, node, depth + 1))?;
    }
    Ok(())
}

/// Goes on with one more name on the path, and takes it off again.
fn within(path: &mut Vec<u8>, name: &Name, depth: usize, go: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
    use std::os::unix::ffi::OsStringExt as _;
    let refuse = |path: &[u8], reason| {
        let path = std::ffi::OsString::from_vec(joined(path, name.as_bytes())).into();
        Err(Error::Unsupported { path, reason })
    };
    if name.as_bytes().starts_with(WHITEOUT) {
        return refuse(path, "an OCI layer takes names that begin with .wh. for something removed");
    }
    if depth > DEEPEST {
        return refuse(path, "the tree is more than 2048 directories deep");
    }
    let length = path.len();
    *path = joined(path, name.as_bytes());
    go(path)?;
    path.truncate(length);
    Ok(())
}

fn joined(path: &[u8], name: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
    [path, slash, name].concat()
}

fn directory_in(tree: &Tree, name: &Name) -> Option<TreeId> {
    match tree.entries.get(name) {
        Some(Node::Directory(id)) => Some(*id),
        _ => None,
    }
}

/// The directory at a path; links are not followed.
fn tree_at(store: &Store, mut tree: TreeId, path: &[Name]) -> Result<Option<TreeId>> {
    for name in path {
        match directory_in(&*store.tree(tree)?, name) {
            Some(next) => tree = next,
            None => return Ok(None),
        }
    }
    Ok(Some(tree))
}

fn entry_at(store: &Store, tree: TreeId, path: &[Name]) -> Result<Option<Node>> {
    let Some((name, parent)) = path.split_last() else { return Ok(Some(Node::Directory(tree))) };
    let Some(tree) = tree_at(store, tree, parent)? else { return Ok(None) };
    Ok(store.tree(tree)?.entries.get(name).cloned())
}
