//! Files that a formation is packed into.
//!
//! Each is a deterministic projection: the same formation gives the same bytes on every machine. To add one, write a file,
//! implement [`Format`], and add a line to [`ALL`].

use std::io::Write;

use crate::{FormationId, Result, Store};

pub mod sif;
pub mod squashfs;
pub mod tar;

/// A way to pack a formation.
pub trait Format: Sync {
    /// As written after `--format`, for instance `squashfs`.
    fn name(&self) -> &'static str;
    /// The file name suffix, without dot.
    fn extension(&self) -> &'static str;
    /// Writes the formation, front to back, so that a pipe will do.
    fn pack(&self, store: &Store, formation: FormationId, output: &mut dyn Write) -> Result<()>;
}

/// Every format.
pub const ALL: &[&dyn Format] = &[&squashfs::Squashfs, &sif::Sif, &tar::Tar];
