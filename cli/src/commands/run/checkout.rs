//! The root that a run has on the disk: kept from collection while it runs, and measured if that is asked for.

use std::io;

use store::directory::{Lease, Ownership};
use store::{Store, TreeId};

use crate::error::{Failure, Result, code};

/// Keeps a root from collection while it runs. In a store that cannot be written to nothing is collected by us, and who mounted it
/// so holds it.
pub fn hold(store: &Store, root: TreeId) -> Result<Option<Lease>> {
    if_writable(store.hold(&[root]))
}

/// The same, and closes the store.
pub fn close_and_hold(store: Store, root: TreeId) -> Result<Option<Lease>> {
    if_writable(store.close_and_hold(&[root]))
}

fn if_writable(lease: store::Result<Lease>) -> Result<Option<Lease>> {
    match lease {
        Ok(lease) => Ok(Some(lease)),
        Err(store::Error::File { source, .. }) if source.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Hashes a checkout again; refuses one that is not what it should be.
pub fn measure(store: &Store, root: TreeId, ownership: Ownership) -> Result<()> {
    let measured = store.measure(root, ownership)?;
    if measured.tree == root {
        return Ok(());
    }
    let headline = format!("the formation on this disk has digest {}, expected {root}", measured.tree);
    let failure = Failure::new(code::MISMATCH, headline).detail(measured.different.join("\n"));
    Err(failure.hint("somebody or something changed it: `forge verify` looks at the whole store"))
}
