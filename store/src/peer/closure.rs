//! What lies below an object: which trees and blobs, in which order they are written, and which file was there before.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rayon::prelude::*;

use crate::peer::ObjectId;
use crate::{BlobId, DeltaId, Error, FormationId, Node, Result, Store, Tree, TreeId};

/// A blob and what is known of it from where it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobUse {
    /// Which.
    pub id: BlobId,
    /// Its length, as a tree says; none if no tree names it.
    pub size: Option<u64>,
    /// Whether it is a program where it was met first.
    pub executable: bool,
    /// Where it was met first, below the root of its tree.
    pub path: Vec<u8>,
}

/// Everything below some objects, each once.
#[derive(Debug, Clone, Default)]
pub struct Closure {
    /// As asked for.
    pub formations: Vec<FormationId>,
    /// Those asked for, and those that the formations' records list and that are here.
    pub deltas: Vec<DeltaId>,
    /// What lies above comes first. A tree that was passed over is not here, nor what is below it.
    pub trees: Vec<TreeId>,
    /// Sorted by their paths: what lies together is like each other.
    pub blobs: Vec<BlobUse>,
    /// Trees that were passed over.
    pub passed: Vec<TreeId>,
}

impl Closure {
    /// What lies below these objects of a store. `pass` says which trees are passed over with all below them.
    pub fn of(store: &Store, goals: &[ObjectId], pass: &(dyn Fn(TreeId) -> bool + Sync)) -> Result<Self> {
        let mut closure = Self::default();
        let mut roots: Vec<TreeId> = Vec::new();
        let mut blobs: HashMap<BlobId, BlobUse> = HashMap::new();
        let mut deltas = Vec::new();
        for goal in goals {
            match goal {
                ObjectId::Formation(id) => {
                    roots.push(store.formation(*id)?.root);
                    closure.formations.push(*id);
                    // A record is not part of the identity: what it lists may never have been here.
                    let layers = store.record(*id)?.layers;
                    deltas.extend(layers.iter().filter_map(|layer| layer.delta.parse().ok()).map(|id| (id, true)));
                }
                ObjectId::Delta(id) => deltas.push((*id, false)),
                ObjectId::Tree(id) => roots.push(*id),
                ObjectId::Blob(id) => {
                    blobs.insert(*id, BlobUse { id: *id, size: None, executable: false, path: Vec::new() });
                }
            }
        }
        for (id, may_be_gone) in deltas {
            match store.delta(id) {
                Err(Error::NotFound { .. }) if may_be_gone => {}
                delta => {
                    roots.push(delta?.tree);
                    closure.deltas.push(id);
                }
            }
        }
        closure.deltas.sort_unstable();
        closure.deltas.dedup();
        let mut level: Vec<(TreeId, Vec<u8>)> = roots.into_iter().map(|root| (root, Vec::new())).collect();
        let mut seen: HashSet<TreeId> = HashSet::new();
        while !level.is_empty() {
            level.retain(|(id, _)| seen.insert(*id));
            let read = |(id, path): &(TreeId, Vec<u8>)| -> Result<(TreeId, Vec<u8>, Option<Arc<Tree>>)> {
                Ok((*id, path.clone(), if pass(*id) { None } else { Some(store.tree(*id)?) }))
            };
            let trees: Vec<_> = level.par_iter().map(read).collect::<Result<_>>()?;
            level.clear();
            for (id, path, tree) in trees {
                let Some(tree) = tree else {
                    closure.passed.push(id);
                    continue;
                };
                closure.trees.push(id);
                for (name, node) in &tree.entries {
                    let at = || {
                        if path.is_empty() { name.as_bytes().to_vec() } else { [&path, name.as_bytes()].join(&b'/') }
                    };
                    match node {
                        Node::Directory(child) if !seen.contains(child) => level.push((*child, at())),
                        Node::File(file) => {
                            let used = blobs.entry(file.blob).or_insert_with(|| BlobUse {
                                id: file.blob,
                                size: None,
                                executable: file.metadata.mode & 0o100 != 0,
                                path: at(),
                            });
                            used.size.get_or_insert(file.size);
                        }
                        _ => {}
                    }
                }
            }
        }
        closure.blobs = blobs.into_values().collect();
        closure.blobs.sort_unstable_by(|one, other| (&one.path, one.id).cmp(&(&other.path, other.id)));
        Ok(closure)
    }

    /// Every object, formations first.
    pub fn objects(&self) -> Vec<ObjectId> {
        let formations = self.formations.iter().copied().map(ObjectId::Formation);
        let deltas = self.deltas.iter().copied().map(ObjectId::Delta);
        let trees = self.trees.iter().copied().map(ObjectId::Tree);
        formations.chain(deltas).chain(trees).chain(self.blobs.iter().map(|used| ObjectId::Blob(used.id))).collect()
    }
}

/// Trees in groups: what a group's trees name is in an earlier group, or not among them.
pub fn by_height(trees: &HashMap<TreeId, Arc<Tree>>) -> Vec<Vec<TreeId>> {
    let mut heights: HashMap<TreeId, usize> = HashMap::with_capacity(trees.len());
    let mut waiting: Vec<TreeId> = trees.keys().copied().collect();
    while let Some(id) = waiting.last().copied() {
        if heights.contains_key(&id) {
            waiting.pop();
            continue;
        }
        let children = trees[&id].entries.values().filter_map(|node| match node {
            Node::Directory(child) if trees.contains_key(child) => Some(*child),
            _ => None,
        });
        let (mut height, before) = (0, waiting.len());
        for child in children {
            match heights.get(&child) {
                Some(known) => height = height.max(known + 1),
                None => waiting.push(child),
            }
        }
        if waiting.len() == before {
            heights.insert(id, height);
            waiting.pop();
        }
    }
    let mut groups: Vec<Vec<TreeId>> = Vec::new();
    for (id, height) in heights {
        if groups.len() <= height {
            groups.resize_with(height + 1, Vec::new);
        }
        groups[height].push(id);
    }
    groups
}

/// Which file of an older closure stands for a file of a newer one: the one at the same path, else the one whose path differs only in
/// numbers and digests (`numpy-2.1.0.dist-info/RECORD`, `libopenblas-ff651d7f.so.0.3`).
pub struct Earlier<'a> {
    exact: HashMap<&'a [u8], &'a BlobUse>,
    alike: HashMap<Vec<u8>, &'a BlobUse>,
}

impl<'a> Earlier<'a> {
    /// Over the blobs of a closure.
    pub fn new(blobs: &'a [BlobUse]) -> Self {
        let exact = blobs.iter().map(|used| (used.path.as_slice(), used)).collect();
        let alike = blobs.iter().map(|used| (without_numbers(&used.path), used)).collect();
        Self { exact, alike }
    }

    /// The file that stands for this one.
    pub fn of(&self, used: &BlobUse) -> Option<&'a BlobUse> {
        if used.path.is_empty() {
            return None;
        }
        let found = self.exact.get(used.path.as_slice()).or_else(|| self.alike.get(&without_numbers(&used.path)));
        found.copied().filter(|earlier| earlier.id != used.id && !earlier.path.is_empty())
    }
}

/// A path with every number, version and digest in it replaced by `#`.
fn without_numbers(path: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some(first) = rest.first() {
        let hexadecimal = rest.iter().take_while(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte)).count();
        let number = rest.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
        let is_digest = hexadecimal >= 8 && rest[..hexadecimal].iter().any(u8::is_ascii_digit);
        if is_digest || first.is_ascii_digit() {
            plain.push(b'#');
            rest = &rest[if is_digest { hexadecimal.max(number) } else { number }..];
        } else {
            plain.push(*first);
            rest = &rest[1..];
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::testing::world;

    #[test]
    fn a_closure_has_everything_once_and_passes_over_what_it_is_told() {
        let world = world();
        let shared = world.tree(0o755, [("file", world.file("content", 0o644))]);
        let other = world.tree(0o755, [("b", world.file("other", 0o755)), ("a", world.file("content", 0o644))]);
        let root = world.tree(
            0o755,
            [("x", Node::Directory(shared)), ("y", Node::Directory(shared)), ("z", Node::Directory(other))],
        );
        let whole = Closure::of(&world.store, &[ObjectId::Tree(root)], &|_| false).unwrap();
        assert_eq!(whole.trees, [root, shared, other]);
        let paths: Vec<&[u8]> = whole.blobs.iter().map(|used| used.path.as_slice()).collect();
        assert_eq!(paths, [&b"x/file"[..], b"z/b"]);
        assert!(whole.blobs[1].executable && whole.blobs[1].size == Some(5));
        let part = Closure::of(&world.store, &[ObjectId::Tree(root)], &|id| id == other).unwrap();
        assert_eq!((part.trees, part.passed), (vec![root, shared], vec![other]));
        let trees = whole.trees.iter().map(|id| (*id, world.store.tree(*id).unwrap())).collect();
        let groups = by_height(&trees);
        assert_eq!(groups.len(), 2);
        assert_eq!(groups[1], [root]);
    }

    #[test]
    fn a_file_is_found_again_though_its_version_changed() {
        for (one, other) in [
            ("numpy-2.1.0.dist-info/RECORD", "numpy-2.1.13.dist-info/RECORD"),
            ("lib/libx-ff651d7f.so.0.3", "lib/libx-0a1b2c3d4e.so.0.4.1"),
        ] {
            assert_eq!(without_numbers(one.as_bytes()), without_numbers(other.as_bytes()));
        }
        assert_ne!(without_numbers(b"a/b"), without_numbers(b"a/c"));
        assert_eq!(without_numbers(b"decade/facade"), b"decade/facade");
    }
}
