//! What is on its way into a store: trees, deltas and formations wait in memory, hashed, until all that they name is kept.
//!
//! So a store never has a tree without what lies below it, however a transfer ends, and whatever a peer sends.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rayon::prelude::*;

use super::closure::{BlobUse, by_height};
use super::{Error, ObjectId, Result};
use crate::directory::Record;
use crate::{BlobId, Delta, DeltaId, Formation, FormationId, Node, Store, Tree, TreeId};

/// Trees of a transfer that take more than this are no file system of anybody.
const MOST_TREE_BYTES: u64 = 2 << 30;
/// One tree of a directory with some millions of entries.
pub(super) const MOST_OBJECT_BYTES: u64 = 512 << 20;
/// A longer record is none of ours.
pub(super) const MOST_RECORD_BYTES: u64 = 64 << 20;

/// Gives the encodings of trees, deltas and formations, and records; none for what it has not got.
pub(super) trait Outline: Sync {
    /// Encodings in the order asked; whether they are what they should be is looked at by the caller.
    fn encodings(&self, ids: &[ObjectId]) -> Result<Vec<Option<Vec<u8>>>>;
    /// What is known of a formation.
    fn record(&self, id: FormationId) -> Result<Option<Record>>;
}

/// Everything below what was asked for.
pub(super) struct Incoming<'a> {
    store: &'a Store,
    peer: &'a str,
    trees: HashMap<TreeId, Arc<Tree>>,
    /// Those that are to be kept.
    new_trees: HashMap<TreeId, Arc<Tree>>,
    deltas: Vec<(DeltaId, Delta)>,
    formations: Vec<(FormationId, Formation, Record)>,
    blobs: HashMap<BlobId, BlobUse>,
    /// What came, and what was here.
    pub new: Vec<ObjectId>,
    pub had: Vec<ObjectId>,
    /// Bytes of what came.
    pub bytes: u64,
}

impl<'a> Incoming<'a> {
    /// Reads everything but blobs below these objects: from the store what it has, the rest from the peer.
    pub fn gather(store: &'a Store, peer: &'a str, goals: &[ObjectId], outline: &dyn Outline) -> Result<Self> {
        let (trees, new_trees, blobs) = (HashMap::new(), HashMap::new(), HashMap::new());
        let (deltas, formations, new, had) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut incoming = Self { store, peer, trees, new_trees, deltas, formations, blobs, new, had, bytes: 0 };
        let mut roots = Vec::new();
        for goal in goals {
            match goal {
                ObjectId::Formation(id) => incoming.formation(*id, outline, &mut roots)?,
                ObjectId::Delta(id) => {
                    if !incoming.delta(*id, outline, &mut roots)? {
                        return Err(Error::missing(peer, *goal));
                    }
                }
                ObjectId::Tree(id) => roots.push(*id),
                ObjectId::Blob(id) => {
                    incoming.blobs.insert(*id, BlobUse { id: *id, size: None, executable: false, path: Vec::new() });
                }
            }
        }
        incoming.below(roots.into_iter().map(|root| (root, Vec::new())).collect(), outline)?;
        Ok(incoming)
    }

    fn formation(&mut self, id: FormationId, outline: &dyn Outline, roots: &mut Vec<TreeId>) -> Result<()> {
        let object = ObjectId::Formation(id);
        let (formation, record) = match self.store.formation(id) {
            Ok(formation) => (formation, self.store.record(id).unwrap_or_default()),
            Err(_) => {
                let bytes =
                    self.ask(&[object], outline)?.pop().flatten().ok_or_else(|| Error::missing(self.peer, object))?;
                let formation = Formation::decode(&bytes).map_err(|_| Error::lie(self.peer, object))?;
                (formation, outline.record(id)?.unwrap_or_default())
            }
        };
        roots.push(formation.root);
        let mut record = record;
        let mut layers = Vec::new();
        for layer in &record.layers {
            let Ok(delta) = layer.delta.parse::<DeltaId>() else { return Err(Error::lie(self.peer, object)) };
            layers.push(delta);
        }
        for delta in layers {
            // A peer that has not got a layer has the formation all the same; without them all nothing is known of layers.
            if !self.delta(delta, outline, roots)? {
                record.layers.clear();
                break;
            }
        }
        self.formations.push((id, formation, record));
        Ok(())
    }

    fn delta(&mut self, id: DeltaId, outline: &dyn Outline, roots: &mut Vec<TreeId>) -> Result<bool> {
        let object = ObjectId::Delta(id);
        let delta = match self.store.delta(id) {
            Ok(delta) if self.store.has_delta(id) => {
                self.had.push(object);
                delta
            }
            _ => {
                let Some(bytes) = self.ask(&[object], outline)?.pop().flatten() else { return Ok(false) };
                let delta = Delta::decode(&bytes).map_err(|_| Error::lie(self.peer, object))?;
                self.deltas.push((id, delta.clone()));
                delta
            }
        };
        roots.push(delta.tree);
        Ok(true)
    }

    /// Level by level, so that a deep tree needs no stack and a level is asked for at once.
    fn below(&mut self, mut level: Vec<(TreeId, Vec<u8>)>, outline: &dyn Outline) -> Result<()> {
        while !level.is_empty() {
            let mut seen = HashSet::new();
            level.retain(|(id, _)| !self.trees.contains_key(id) && seen.insert(*id));
            let here: Vec<Option<Arc<Tree>>> = level.par_iter().map(|(id, _)| self.here(*id)).collect::<Result<_>>()?;
            let wanted = level.iter().zip(&here).filter(|(_, tree)| tree.is_none()).map(|((id, _), _)| *id);
            let wanted: Vec<ObjectId> = wanted.map(ObjectId::Tree).collect();
            let answers = self.ask(&wanted, outline)?;
            let peer = self.peer;
            let decode = |(object, bytes): (&ObjectId, Option<Vec<u8>>)| {
                let bytes = bytes.ok_or_else(|| Error::missing(peer, *object))?;
                Ok(Arc::new(Tree::decode(&bytes).map_err(|_| Error::lie(peer, *object))?))
            };
            let decoded: Vec<Arc<Tree>> = wanted.par_iter().zip(answers).map(decode).collect::<Result<_>>()?;
            let mut decoded = decoded.into_iter();
            let mut next = Vec::new();
            for ((id, path), here) in level.into_iter().zip(here) {
                let tree = match here {
                    Some(tree) => {
                        self.had.push(ObjectId::Tree(id));
                        tree
                    }
                    None => {
                        let tree = decoded.next().expect("one for each that was asked for");
                        self.new_trees.insert(id, Arc::clone(&tree));
                        tree
                    }
                };
                self.enter(&tree, &path, &mut next).map_err(|()| Error::lie(peer, ObjectId::Tree(id)))?;
                self.trees.insert(id, tree);
            }
            level = next;
        }
        Ok(())
    }

    /// A tree of the store, if it has it. One that is damaged there comes anew.
    fn here(&self, id: TreeId) -> Result<Option<Arc<Tree>>> {
        // That we rely on it is noted, so that no collection takes it meanwhile.
        if !self.store.has_tree(id) {
            return Ok(None);
        }
        match self.store.tree(id) {
            Ok(tree) => Ok(Some(tree)),
            Err(crate::Error::NotFound { .. } | crate::Error::Mismatch { .. } | crate::Error::Decode { .. }) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn enter(&mut self, tree: &Tree, path: &[u8], next: &mut Vec<(TreeId, Vec<u8>)>) -> Result<(), ()> {
        for (name, node) in &tree.entries {
            let at = || if path.is_empty() { name.as_bytes().to_vec() } else { [path, name.as_bytes()].join(&b'/') };
            match node {
                Node::Directory(child) => next.push((*child, at())),
                Node::File(file) => {
                    let used = self.blobs.entry(file.blob).or_insert_with(|| BlobUse {
                        id: file.blob,
                        size: None,
                        executable: file.metadata.mode & 0o100 != 0,
                        path: at(),
                    });
                    // One content has one length: of two trees that disagree one lies.
                    if *used.size.get_or_insert(file.size) != file.size {
                        return Err(());
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Asks for encodings and hashes what comes.
    fn ask(&mut self, ids: &[ObjectId], outline: &dyn Outline) -> Result<Vec<Option<Vec<u8>>>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let answers = outline.encodings(ids)?;
        let wrong = ids
            .par_iter()
            .zip(&answers)
            .find_any(|(id, bytes)| bytes.as_ref().is_some_and(|bytes| id.of_same_kind(bytes) != **id));
        if let Some((id, _)) = wrong {
            return Err(Error::lie(self.peer, *id));
        }
        for (id, bytes) in ids.iter().zip(&answers) {
            if let Some(bytes) = bytes {
                self.new.push(*id);
                self.bytes += bytes.len() as u64;
            }
        }
        if self.bytes > MOST_TREE_BYTES {
            let reason = format!("what it describes has more than {MOST_TREE_BYTES} bytes of trees");
            return Err(Error::Protocol { peer: self.peer.to_owned(), reason });
        }
        Ok(answers)
    }

    /// The name of the first formation that was asked for.
    pub fn name(&self) -> Option<&str> {
        self.formations.first().map(|(_, formation, _)| formation.name.as_str())
    }

    /// The blobs that the store lacks. One that it has in another length than a tree says shows that the tree lies.
    pub fn lacking(&mut self) -> Result<Vec<BlobUse>> {
        let uses: Vec<BlobUse> = self.blobs.values().cloned().collect();
        let sizes: Vec<Option<u64>> =
            uses.par_iter().map(|used| self.store.blob_size(used.id)).collect::<crate::Result<_>>()?;
        let mut lacking = Vec::new();
        for (used, here) in uses.into_iter().zip(sizes) {
            match (here, used.size) {
                (Some(here), Some(said)) if here != said => {
                    // A crash may have cut ours; then it comes anew, and its digest tells who is right.
                    lacking.push(used);
                }
                (Some(_), _) => self.had.push(ObjectId::Blob(used.id)),
                (None, _) => lacking.push(used),
            }
        }
        lacking.sort_unstable_by(|one, other| (&one.path, one.id).cmp(&(&other.path, other.id)));
        Ok(lacking)
    }

    /// Keeps what waited. Every blob must be in the store by now: an object without all below it is not kept.
    pub fn keep(mut self, came: &HashSet<BlobId>) -> Result<super::Moved> {
        for used in self.blobs.values() {
            let size =
                self.store.blob_size(used.id)?.ok_or_else(|| Error::missing(self.peer, ObjectId::Blob(used.id)))?;
            if used.size.is_some_and(|said| said != size) {
                return Err(Error::lie(self.peer, ObjectId::Blob(used.id)));
            }
        }
        for group in by_height(&self.new_trees) {
            group.par_iter().try_for_each(|id| self.store.put_tree(&self.new_trees[id]).map(drop))?;
        }
        for (_, delta) in &self.deltas {
            self.store.put_delta(delta)?;
        }
        for (_, formation, record) in &self.formations {
            self.store.put_formation(formation, record)?;
        }
        let mut bytes = self.bytes;
        for used in self.blobs.values().filter(|used| came.contains(&used.id)) {
            self.new.push(ObjectId::Blob(used.id));
            bytes += used.size.unwrap_or_default();
        }
        Ok(super::Moved { moved: self.new, had: self.had, differences: 0, bytes, wire: 0 })
    }
}
