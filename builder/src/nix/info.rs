//! What is known of outputs that were made here.

use store::directory::Claim;
use store::nix::info::PathInfo;
use store::{Node, Store, StorePath};

use crate::Result;

/// The store path of an output of a Nix derivation, and what lies there; none if the claim is of something else.
pub fn output_of(store: &Store, claim: &Claim) -> Result<Option<(StorePath, Node)>> {
    match claim {
        Claim::Delta(delta) => Ok(store.node_of_store_delta(*delta)?),
        Claim::Blob(_) => Ok(None),
    }
}

/// Whether an output is here with everything that it refers to.
pub fn is_whole(store: &Store, claim: &Claim) -> Result<bool> {
    match output_of(store, claim)? {
        Some((path, _)) => Ok(store.store_closure([&path])?.is_some()),
        None => Ok(false),
    }
}

/// What is known of a store path.
pub fn read(store: &Store, path: &StorePath) -> Result<Option<PathInfo>> {
    Ok(store.store_path(path)?.map(|(_, info)| info))
}
