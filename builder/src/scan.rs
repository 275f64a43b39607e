//! What a command in a sandbox left behind, as a delta.

use std::path::Path;

use store::{DeltaId, Store, TreeId};

use crate::Result;

/// Reads the upper layer that a `pretend_root` sandbox left in `directory` (`Writable::Kept`) over `lower`.
///
/// Ownership and devices come from the supervisor's marks. What equals the lower is no change; a directory that has the
/// lower's metadata was passed through. Everything is kept in the store; `directory` may lose files to it.
pub fn scan(_store: &Store, _directory: &Path, _lower: TreeId) -> Result<DeltaId> {
    unimplemented!()
}
