//! Maps whose keys are digests: these are spread already, so that eight bytes of one are hash enough.
//!
//! Whoever makes files until their digests begin alike could fill one place of such a map. A number that differs from process to
//! process is mixed in, so that it takes all eight bytes.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

/// A map by digest, or by a digest and a number.
pub(super) type DigestMap<K, V> = HashMap<K, V, ByDigest>;

/// Makes hashers that begin with a number of this map's own.
#[derive(Debug, Clone)]
pub(super) struct ByDigest(u64);

impl Default for ByDigest {
    fn default() -> Self {
        Self(RandomState::new().hash_one(0_u8) | 1)
    }
}

impl BuildHasher for ByDigest {
    type Hasher = First;

    fn build_hasher(&self) -> First {
        First { seed: self.0, state: 0 }
    }
}

/// Takes the first eight bytes of what it is given.
pub(super) struct First {
    seed: u64,
    state: u64,
}

impl First {
    fn add(&mut self, word: u64) {
        // The high half of the product depends on all bits of the word.
        let product = u128::from(self.state ^ word ^ self.seed) * u128::from(self.seed);
        self.state = (product >> 64) as u64 ^ product as u64;
    }
}

impl Hasher for First {
    fn write(&mut self, bytes: &[u8]) {
        let mut word = [0; 8];
        let length = bytes.len().min(8);
        word[..length].copy_from_slice(&bytes[..length]);
        self.add(u64::from_le_bytes(word));
    }

    fn write_u64(&mut self, word: u64) {
        self.add(word);
    }

    /// The length of what follows, which is always the same.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.state
    }
}
