//! What an evaluation has named so far: derivations and sources, by store path.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use store::StorePath;
use store::derivation::{Derivation, Source};

use crate::aterm;
use crate::modulo::{ModuloError, Namer};

/// Derivations and sources.
#[derive(Default)]
pub struct Registry {
    /// Gives derivations their names.
    namer: Namer,
    /// By the path of their `.drv`.
    derivations: HashMap<StorePath, Kept>,
    /// By store path.
    pub sources: BTreeMap<StorePath, Source>,
    /// What texts refer to.
    pub references: HashMap<StorePath, BTreeSet<StorePath>>,
    /// Paths that were copied as they are: hashed once.
    pub copied: HashMap<Vec<u8>, StorePath>,
}

/// A derivation. There are tens of thousands, and few are looked at again: as the packed text of their `.drv` they need a tenth.
enum Kept {
    Packed(Box<[u8]>),
    /// Its text does not say what it is: Nix does not escape the name of the system.
    Whole(Box<Derivation>),
}

impl Registry {
    /// Names a derivation, and keeps it; it gets the paths of its outputs.
    pub fn add(&mut self, derivation: &mut Derivation) -> Result<StorePath, ModuloError> {
        let (path, text) = self.namer.finish(derivation)?;
        let is_whole = derivation.system.iter().any(|byte| matches!(byte, b'"' | b'\\'));
        let kept = if is_whole {
            Kept::Whole(Box::new(derivation.clone()))
        } else {
            Kept::Packed(lz4_flex::compress_prepend_size(&text).into())
        };
        self.derivations.insert(path.clone(), kept);
        Ok(path)
    }

    /// Whether it is the path of a derivation.
    pub fn is_derivation(&self, path: &StorePath) -> bool {
        self.derivations.contains_key(path)
    }

    /// The text of a derivation's file.
    pub fn text(&self, path: &StorePath) -> Option<Vec<u8>> {
        Some(match self.derivations.get(path)? {
            Kept::Whole(derivation) => aterm::write(derivation),
            Kept::Packed(packed) => unpack(packed),
        })
    }

    /// A derivation.
    pub fn derivation(&self, path: &StorePath) -> Option<Derivation> {
        match self.derivations.get(path)? {
            Kept::Whole(derivation) => Some((**derivation).clone()),
            Kept::Packed(packed) => {
                let name = path.name();
                let read = aterm::read(name.strip_suffix(".drv").unwrap_or(name), &unpack(packed));
                debug_assert!(read.is_ok(), "what was written can be read: {read:?}");
                read.ok()
            }
        }
    }

    /// A derivation's file with all that it leads to: the files of its inputs, and sources.
    pub fn closure(&self, path: &StorePath) -> BTreeSet<StorePath> {
        let mut closure = BTreeSet::new();
        let mut waiting = vec![path.clone()];
        while let Some(path) = waiting.pop() {
            if closure.contains(&path) {
                continue;
            }
            if let Some(derivation) = self.derivation(&path) {
                waiting.extend(derivation.input_derivations.into_keys().chain(derivation.input_sources));
            }
            waiting.extend(self.references.get(&path).into_iter().flatten().cloned());
            closure.insert(path);
        }
        closure
    }
}

fn unpack(packed: &[u8]) -> Vec<u8> {
    lz4_flex::decompress_size_prepended(packed).expect("what was packed here can be unpacked")
}
