//! What a Nix derivation finds in /nix/store: its inputs, and everything that they refer to.

use std::collections::{BTreeMap, BTreeSet};

use store::derivation::Source;
use store::directory::Claim;
use store::nix::info::hash_part;
use store::nix::path as names;
use store::{Derivation, File, Metadata, Node, Store, StorePath, Tree, TreeId};

use super::info;
use super::references::Finder;
use crate::maker::Maker;
use crate::schedule::{self, OutputKey};
use crate::{Error, Result};

/// Everything that a derivation can know of.
#[derive(Debug, Default)]
pub struct Inputs {
    /// By store path, closed under references.
    pub paths: BTreeMap<StorePath, InputPath>,
    /// What the derivation itself names.
    pub direct: BTreeSet<StorePath>,
}

/// One store path.
#[derive(Debug, Clone)]
pub struct InputPath {
    /// What lies there, with the modes that Nix gives it.
    pub node: Node,
    /// What it refers to.
    pub references: BTreeSet<StorePath>,
}

impl Inputs {
    /// All that some paths lead to, themselves included.
    pub fn closure<'a>(&self, paths: impl IntoIterator<Item = &'a StorePath>) -> BTreeSet<StorePath> {
        let mut open: Vec<&StorePath> = paths.into_iter().collect();
        let mut found = BTreeSet::new();
        while let Some(path) = open.pop() {
            if let Some((path, input)) = self.paths.get_key_value(path)
                && found.insert(path.clone())
            {
                open.extend(&input.references);
            }
        }
        found
    }
}

/// Text in the place of text.
pub type Rewrites = BTreeMap<Vec<u8>, Vec<u8>>;

/// Collects a derivation's inputs; and what is to be put in the place of placeholders for outputs that were not known before.
pub fn gather(
    maker: &Maker<'_>,
    derivation: &Derivation,
    claims: &BTreeMap<OutputKey, Claim>,
) -> Result<(Inputs, Rewrites)> {
    let store = maker.builder.store;
    let (mut inputs, mut rewrites) = (Inputs::default(), Rewrites::new());
    for ((input, output), claim) in claims {
        let made = schedule::derivation(maker.plan, input)?;
        let planned = made.outputs.get(output).and_then(|output| output.path.clone());
        if super::is_nix(made) {
            let missing = || Error::NoOutput { step: made.name.clone(), output: output.clone() };
            let (path, _) = info::output_of(store, claim)?.ok_or_else(missing)?;
            for (delta, found) in store.store_closure([&path])?.ok_or_else(missing)? {
                let (_, node) = store.node_of_store_delta(delta)?.ok_or_else(missing)?;
                inputs.paths.insert(found.path, InputPath { node, references: found.references });
            }
            if planned.is_none() {
                rewrites.insert(names::upstream_placeholder(input, output).into_bytes(), path.as_str().into());
            }
            inputs.direct.insert(path);
        } else if let Some(path) = planned {
            // What forge's own steps give has no references: it does not know of store paths.
            let node = canonical(store, &node_of(store, claim)?)?;
            inputs.paths.insert(path.clone(), InputPath { node, references: BTreeSet::new() });
            inputs.direct.insert(path);
        }
    }
    let known: BTreeMap<[u8; 32], StorePath> =
        derivation.input_sources.iter().map(|path| (part(path), path.clone())).collect();
    let wanted: BTreeSet<[u8; 32]> = known.keys().copied().collect();
    for path in &derivation.input_sources {
        let node = canonical(store, &maker.source(path)?)?;
        let mut references = BTreeSet::new();
        if let Some(Source::Text(text)) = maker.plan.sources.get(path) {
            let mut finder = Finder::new(&wanted);
            finder.update(text);
            references = finder.finish().iter().filter_map(|part| known.get(part).cloned()).collect();
        }
        inputs.paths.insert(path.clone(), InputPath { node, references });
        inputs.direct.insert(path.clone());
    }
    Ok((inputs, rewrites))
}

/// The hash part of a store path, as bytes.
pub fn part(path: &StorePath) -> [u8; 32] {
    hash_part(path).as_bytes().try_into().expect("a hash part has 32 digits")
}

fn node_of(store: &Store, claim: &Claim) -> Result<Node> {
    Ok(match claim {
        Claim::Blob(blob) => {
            let size = store.open_blob(*blob)?.metadata().map_err(Error::file("read", store.path()))?.len();
            Node::File(File { blob: *blob, size, metadata: Metadata::root(0o444) })
        }
        Claim::Delta(delta) => Node::Directory(store.delta(*delta)?.tree),
    })
}

/// The same with the modes that Nix gives: 0444, or 0555 for directories and what is executable; all root's.
pub fn canonical(store: &Store, node: &Node) -> Result<Node> {
    Ok(match node {
        Node::File(file) => {
            let mode = if file.metadata.mode & 0o100 != 0 { 0o555 } else { 0o444 };
            Node::File(File { metadata: Metadata::root(mode), ..file.clone() })
        }
        Node::Directory(id) => Node::Directory(canonical_tree(store, *id, 0)?),
        Node::Symlink { target, .. } => Node::Symlink { target: target.clone(), uid: 0, gid: 0 },
        Node::Fifo(_) | Node::Device { .. } => {
            let reason = "a store path has files, directories and links, and nothing else".to_owned();
            return Err(Error::Conflict { path: store.path().display().to_string(), reason });
        }
    })
}

fn canonical_tree(store: &Store, id: TreeId, depth: usize) -> Result<TreeId> {
    if depth >= store::nix::nar::DEEPEST {
        let reason = "its directories nest too deep for a Nix archive".to_owned();
        return Err(Error::Conflict { path: id.to_string(), reason });
    }
    let tree = store.tree(id)?;
    let mut entries = BTreeMap::new();
    for (name, node) in &tree.entries {
        let node = match node {
            Node::Directory(id) => Node::Directory(canonical_tree(store, *id, depth + 1)?),
            node => canonical(store, node)?,
        };
        entries.insert(name.clone(), node);
    }
    let canonical = Tree { metadata: Metadata::root(0o555), entries };
    if *tree == canonical { Ok(id) } else { Ok(store.put_tree(&canonical)?) }
}
