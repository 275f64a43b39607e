//! What the data of an image consists of, decided from trees alone, before a byte of content is read.
//!
//! Equal blobs are stored once, where the first path that has one stands. Files of [`OWN_BLOCKS`] bytes or more have blocks of
//! their own. Smaller ones share fragments, cut where the content says so: among the places where a fragment may end, it
//! ends before the blob with the smallest digest. A file that comes, goes or changes therefore disturbs the fragment that it is
//! in and seldom more than the next, because the places to end are soon the same ones again.

use std::collections::hash_map::Entry;

use super::BLOCK_SIZE;
use super::walk::{Step, walk};
use crate::format::digest_map::DigestMap;
use crate::{BlobId, Node, Result, Store, Tree};

/// Smaller files share fragments.
pub(super) const OWN_BLOCKS: u64 = BLOCK_SIZE as u64;
/// A fragment is not cut before it has this many bytes: small blocks compress worse.
const LEAST_FRAGMENT: u64 = BLOCK_SIZE as u64 * 3 / 4;
/// How much of a file is compressed at a time: a power of two, so that it is a subtree of BLAKE3's.
pub(super) const PIECE_LENGTH: u64 = 1 << 20;

/// A blob that goes into the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Source {
    pub blob: BlobId,
    pub size: u64,
    /// Where to look first.
    pub executable: bool,
}

/// A part of the data that is made, or copied, as one. What it becomes follows from this alone.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Up to [`PIECE_LENGTH`] bytes of a file that has blocks of its own.
    Blocks { source: Source, offset: u64 },
    /// Several small files in one block.
    Fragment(Vec<Source>),
}

/// What a piece is made of: a digest, and where in the file.
pub(super) type Key = ([u8; 32], u64);

impl Piece {
    /// Equal for pieces that become the same bytes.
    pub fn key(&self) -> Key {
        match self {
            Self::Blocks { source, offset } => (*source.blob.as_bytes(), *offset),
            Self::Fragment(members) => {
                let mut hasher = blake3::Hasher::new_derive_key("forge squashfs fragment 1");
                for member in members {
                    hasher.update(member.blob.as_bytes());
                }
                (*hasher.finalize().as_bytes(), u64::MAX)
            }
        }
    }
}

/// Where a blob is to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: it is empty.
    Empty,
    /// In this many pieces from the first.
    Pieces { first: usize, count: usize },
    /// In this fragment, from this byte on.
    Fragment { number: u32, offset: u32 },
}

/// All data of an image, in its order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub pieces: Vec<Piece>,
    pub places: DigestMap<BlobId, Place>,
    /// Which piece each fragment is.
    pub fragments: Vec<usize>,
}

impl Plan {
    /// For the files below a tree.
    pub fn new(store: &Store, root: &Tree) -> Result<Self> {
        let mut sources = Vec::new();
        let mut plan = Self::default();
        walk(store, root, &mut |step| {
            if let Step::Leaf(_, Node::File(file)) = step {
                let place = plan.places.entry(file.blob);
                if let Entry::Vacant(place) = place {
                    place.insert(Place::Empty);
                    let executable = file.metadata.mode & 0o111 != 0;
                    sources.push(Source { blob: file.blob, size: file.size, executable });
                }
            }
            Ok(())
        })?;
        plan.arrange(&sources);
        Ok(plan)
    }

    fn arrange(&mut self, sources: &[Source]) {
        let small: Vec<Source> =
            sources.iter().copied().filter(|source| (1..OWN_BLOCKS).contains(&source.size)).collect();
        let (mut left, mut length) = (&small[..], fragment(&small));
        let mut passed = 0;
        for source in sources.iter().filter(|source| source.size > 0) {
            if source.size >= OWN_BLOCKS {
                let first = self.pieces.len();
                let offsets = (0..source.size).step_by(PIECE_LENGTH as usize);
                self.pieces.extend(offsets.map(|offset| Piece::Blocks { source: *source, offset }));
                self.places.insert(source.blob, Place::Pieces { first, count: self.pieces.len() - first });
                continue;
            }
            // A fragment stands where the last of its members does.
            passed += 1;
            if passed == length {
                self.push_fragment(&left[..length]);
                left = &left[length..];
                (length, passed) = (fragment(left), 0);
            }
        }
    }

    fn push_fragment(&mut self, members: &[Source]) {
        let number = self.fragments.len() as u32;
        let mut offset = 0;
        for member in members {
            self.places.insert(member.blob, Place::Fragment { number, offset });
            offset += member.size as u32;
        }
        self.fragments.push(self.pieces.len());
        self.pieces.push(Piece::Fragment(members.to_vec()));
    }
}

/// How many of these the next fragment takes.
fn fragment(sources: &[Source]) -> usize {
    let mut filled = 0;
    let mut best: Option<(usize, &[u8; 32])> = None;
    for (count, source) in sources.iter().enumerate() {
        let digest = source.blob.as_bytes();
        if filled >= LEAST_FRAGMENT && best.is_none_or(|(_, smallest)| digest < smallest) {
            best = Some((count, digest));
        }
        filled += source.size;
        if filled > BLOCK_SIZE as u64 {
            // Where nothing after the least length fits, it ends before what does not.
            return best.map_or(count, |(count, _)| count);
        }
    }
    sources.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(number: u32, size: u64) -> Source {
        Source { blob: BlobId::of(&number.to_le_bytes()), size, executable: false }
    }

    fn plan(sources: &[Source]) -> Plan {
        let mut plan = Plan::default();
        plan.arrange(sources);
        plan
    }

    #[test]
    fn every_byte_has_one_place() {
        let block = BLOCK_SIZE as u64;
        // Nothing; one byte; around a block; around a piece; many small ones.
        let sizes = [0, 1, block - 1, block, block + 1, PIECE_LENGTH, PIECE_LENGTH + 1, 5 * PIECE_LENGTH];
        let sizes = sizes.into_iter().chain((0..3000).map(|number| number * 37 % 30_000));
        let sources: Vec<Source> = sizes.enumerate().map(|(number, size)| source(number as u32, size)).collect();
        let plan = plan(&sources);
        let (mut own, mut shared) = (0, 0);
        for piece in &plan.pieces {
            match piece {
                Piece::Blocks { source, offset } => own += (source.size - offset).min(PIECE_LENGTH),
                Piece::Fragment(members) => {
                    let length: u64 = members.iter().map(|member| member.size).sum();
                    assert!((1..=block).contains(&length));
                    shared += length;
                }
            }
        }
        assert_eq!(own + shared, sources.iter().map(|source| source.size).sum::<u64>());
        for (number, piece) in plan.fragments.iter().enumerate() {
            let Piece::Fragment(members) = &plan.pieces[*piece] else { panic!("piece {piece} is no fragment") };
            let mut expected = 0;
            for member in members {
                assert_eq!(plan.places[&member.blob], Place::Fragment { number: number as u32, offset: expected });
                expected += member.size as u32;
            }
        }
    }

    #[test]
    fn one_change_disturbs_one_or_two_fragments() {
        let mut sources: Vec<Source> =
            (0..5000).map(|number| source(number, u64::from(number) * 7919 % 20_000 + 1)).collect();
        let before: Vec<Key> = plan(&sources).pieces.iter().map(Piece::key).collect();
        let known: std::collections::HashSet<Key> = before.iter().copied().collect();
        let mut disturbed = Vec::new();
        for position in (50..5000).step_by(50) {
            let kept = sources[position];
            sources[position] = source(100_000 + position as u32, kept.size + 500);
            disturbed.push(plan(&sources).pieces.iter().filter(|piece| !known.contains(&piece.key())).count());
            sources[position] = kept;
        }
        disturbed.sort_unstable();
        let (most, worst) = (disturbed[disturbed.len() * 9 / 10], disturbed[disturbed.len() - 1]);
        assert!(most <= 2 && worst <= 20, "of {}: {disturbed:?}", before.len());
    }
}
