//! What is needed: everything below the roots and the leases.

use std::collections::HashSet;

use rayon::prelude::*;

use super::super::Store;
use super::super::lease::Use;
use crate::{BlobId, DeltaId, Error, FormationId, Node, Result, TreeId};

/// What is needed.
#[derive(Debug, Default)]
pub(super) struct Marked<'a> {
    /// What was marked before this, and is not marked again.
    before: Option<&'a Marked<'a>>,
    pub formations: HashSet<FormationId>,
    pub checkouts: HashSet<TreeId>,
    pub deltas: HashSet<DeltaId>,
    pub trees: HashSet<TreeId>,
    pub blobs: HashSet<BlobId>,
    /// Formations and deltas that were marked before they were there, for a process notes what it is about to put. A note is read
    /// once, so they stay marked; if something else needs them, what is below them is marked then.
    awaited: HashSet<Use>,
}

/// Whether something below a marked object may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whole {
    /// A name or pin keeps it: what cannot be read is not known to be unneeded, and the error ends the collection.
    Must,
    /// A process is only just putting it, or looked whether it is here.
    May,
}

impl<'a> Marked<'a> {
    /// For what else is marked.
    pub fn beside(before: &'a Self) -> Self {
        Self { before: Some(before), ..Self::default() }
    }

    /// What was marked beside.
    pub fn only(self) -> Marked<'static> {
        let Self { formations, checkouts, deltas, trees, blobs, awaited, .. } = self;
        Marked { before: None, formations, checkouts, deltas, trees, blobs, awaited }
    }

    pub fn extend(&mut self, other: Marked<'_>) {
        self.formations.extend(other.formations);
        self.checkouts.extend(other.checkouts);
        self.deltas.extend(other.deltas);
        self.trees.extend(other.trees);
        self.blobs.extend(other.blobs);
        self.awaited.extend(other.awaited);
    }

    pub fn has(&self, one: Use) -> bool {
        if self.before.is_some_and(|before| before.has(one)) {
            return true;
        }
        match one {
            Use::Blob(id) => self.blobs.contains(&id),
            Use::Tree(id) => self.trees.contains(&id),
            Use::Delta(id) => self.deltas.contains(&id),
            Use::Formation(id) => self.formations.contains(&id),
        }
    }

    /// Whether nothing more of a formation is to be marked.
    pub fn is_whole(&self, id: FormationId) -> bool {
        self.formations.contains(&id) && !self.awaited.contains(&Use::Formation(id))
    }

    /// Marks a formation, what its record lists, and all below.
    pub fn formation(&mut self, store: &Store, id: FormationId, whole: Whole) -> Result<()> {
        let mut trees = Vec::new();
        self.note_formation(store, id, whole, &mut trees)?;
        self.below(store, trees, whole)
    }

    /// Marks what processes use, and all below.
    pub fn uses(&mut self, store: &Store, uses: impl IntoIterator<Item = Use>) -> Result<()> {
        let mut trees = Vec::new();
        for one in uses {
            match one {
                Use::Blob(id) => _ = self.blobs.insert(id),
                Use::Tree(id) => {
                    self.checkouts.insert(id);
                    trees.push(id);
                }
                Use::Delta(id) => self.note_delta(store, id, &mut trees)?,
                Use::Formation(id) => self.note_formation(store, id, Whole::May, &mut trees)?,
            }
        }
        self.below(store, trees, Whole::May)
    }

    fn note_formation(&mut self, store: &Store, id: FormationId, whole: Whole, trees: &mut Vec<TreeId>) -> Result<()> {
        self.formations.insert(id);
        let formation = match store.read_formation(id) {
            Err(Error::NotFound { .. }) => {
                self.awaited.insert(Use::Formation(id));
                return Ok(());
            }
            formation => formation?,
        };
        self.awaited.remove(&Use::Formation(id));
        self.checkouts.insert(formation.root);
        if whole == Whole::Must || store.is_stored(Use::Tree(formation.root)) {
            trees.push(formation.root);
        }
        for layer in store.record(id)?.layers {
            // A record is not part of the identity: what it lists may be gone, or never have been here.
            if let Ok(delta) = layer.delta.parse::<DeltaId>() {
                self.note_delta(store, delta, trees)?;
            }
        }
        Ok(())
    }

    fn note_delta(&mut self, store: &Store, id: DeltaId, trees: &mut Vec<TreeId>) -> Result<()> {
        let one = Use::Delta(id);
        if self.has(one) && !self.awaited.contains(&one) {
            return Ok(());
        }
        self.deltas.insert(id);
        match store.delta(id) {
            Err(Error::NotFound { .. }) => _ = self.awaited.insert(one),
            delta => {
                trees.push(delta?.tree);
                self.awaited.remove(&one);
            }
        }
        Ok(())
    }

    /// Marks these trees and all below: level by level, each tree read once.
    fn below(&mut self, store: &Store, mut trees: Vec<TreeId>, whole: Whole) -> Result<()> {
        let before = self.before;
        let known = |one: Use| before.is_some_and(|before| before.has(one));
        trees.retain(|id| !known(Use::Tree(*id)) && self.trees.insert(*id));
        while !trees.is_empty() {
            let read = |id: &TreeId| match store.read_tree(*id) {
                Err(Error::NotFound { .. }) if whole == Whole::May => Ok(None),
                tree => tree.map(Some),
            };
            // A few thousand at a time: a level may have millions of files.
            for some in std::mem::take(&mut trees).chunks(4096) {
                let read: Vec<_> = some.par_iter().map(read).collect::<Result<_>>()?;
                for node in read.iter().flatten().flat_map(|tree| tree.entries.values()) {
                    match node {
                        Node::File(file) if !known(Use::Blob(file.blob)) => _ = self.blobs.insert(file.blob),
                        Node::Directory(id) if !known(Use::Tree(*id)) && self.trees.insert(*id) => trees.push(*id),
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }
}
