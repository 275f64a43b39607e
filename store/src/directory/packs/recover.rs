//! The index of a pack is made again from the pack, should it be gone or damaged.
//!
//! What does not hash to its name is left out; so are trees and deltas of which something is missing: they may have been deleted
//! from the index, and what lay below them from elsewhere.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::super::Store;
use super::super::lease::{RECORD, Use, parse};
use super::{Entry, FRAME, HEADER, Pack, encode, index_path};
use crate::{Delta, Node, Result, Tree};

impl Store {
    /// Makes the indexes of packs that have none, beside others that have.
    pub(super) fn recover_indexes(&self, lacking: &mut [Pack], others: &[Arc<Pack>]) -> Result<()> {
        let mut found: Vec<HashMap<Use, Entry>> = Vec::new();
        let mut needs: HashMap<Use, Vec<Use>> = HashMap::new();
        for pack in lacking.iter() {
            let mut whole = HashMap::new();
            for (entry, bytes) in Frames::of(pack) {
                if entry.object.of_same_kind(&bytes) == entry.object {
                    needs.insert(entry.object, below(entry.object, &bytes));
                    whole.insert(entry.object, entry);
                }
            }
            found.push(whole);
        }
        // Whoever misses something is missing to others in turn.
        loop {
            let here = |one: &Use| {
                needs.contains_key(one) || others.iter().any(|pack| pack.find(*one).is_some()) || self.is_loose(*one)
            };
            let gone: HashSet<Use> =
                needs.iter().filter(|(_, below)| !below.iter().all(here)).map(|(object, _)| *object).collect();
            if gone.is_empty() {
                break;
            }
            needs.retain(|object, _| !gone.contains(object));
        }
        for (pack, mut found) in lacking.iter_mut().zip(found) {
            found.retain(|object, _| needs.contains_key(object));
            // Kept for the next; where that cannot be, this process knows it all the same.
            let entries: Vec<Entry> = found.values().copied().collect();
            let written = self.temporary().and_then(|mut index| {
                index.write(&encode(&entries))?;
                index.place(&index_path(&pack.name))
            });
            pack.made = found;
            if written.is_ok()
                && let Some(file) = self.open_file(&index_path(&pack.name))?
                && let Ok(stat) = rustix::fs::fstat(&file)
            {
                (pack.inode, pack.index) = (stat.st_ino, super::index::Index::open(file));
            }
        }
        Ok(())
    }
}

/// The objects of a pack in the order in which they lie there, as far as it can be read.
pub(super) struct Frames<'a> {
    pack: &'a Pack,
    offset: u64,
}

impl<'a> Frames<'a> {
    pub fn of(pack: &'a Pack) -> Self {
        Self { pack, offset: HEADER.len() as u64 }
    }
}

impl Iterator for Frames<'_> {
    type Item = (Entry, Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        let mut frame = [0; FRAME];
        self.pack.data.read_exact_at(&mut frame, self.offset).ok()?;
        let (object, length) = frame.split_at(RECORD);
        // Behind a damaged frame nothing can be found.
        let object = parse(object)?;
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]);
        let entry = Entry { object, offset: self.offset + FRAME as u64, length };
        let bytes = self.pack.read(entry).ok()?;
        self.offset = entry.offset + u64::from(length);
        Some((entry, bytes))
    }
}

/// What an object names.
fn below(object: Use, bytes: &[u8]) -> Vec<Use> {
    match object {
        Use::Tree(_) => {
            let Ok(tree) = Tree::decode(bytes) else { return Vec::new() };
            let below = tree.entries.values().filter_map(|node| match node {
                Node::File(file) => Some(Use::Blob(file.blob)),
                Node::Directory(id) => Some(Use::Tree(*id)),
                _ => None,
            });
            below.collect()
        }
        Use::Delta(_) => Delta::decode(bytes).map(|delta| vec![Use::Tree(delta.tree)]).unwrap_or_default(),
        _ => Vec::new(),
    }
}
