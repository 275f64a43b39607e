//! What an evaluation has named so far: derivations and sources, by store path.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use store::StorePath;
use store::derivation::{Derivation, Source};

use crate::modulo::Namer;

/// Derivations and sources.
#[derive(Default)]
pub struct Registry {
    /// Gives derivations their names.
    pub namer: Namer,
    /// By the path of their `.drv`.
    pub derivations: HashMap<StorePath, Derivation>,
    /// By store path.
    pub sources: BTreeMap<StorePath, Source>,
    /// What texts refer to.
    pub references: HashMap<StorePath, BTreeSet<StorePath>>,
    /// Paths that were copied as they are: hashed once.
    pub copied: HashMap<Vec<u8>, StorePath>,
}
