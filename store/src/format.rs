//! Files that a formation is packed into.
//!
//! Each is a deterministic projection: the same formation gives the same bytes on every machine, whatever its core count,
//! clock, locale or umask, and carries the formation's encoding, so that it can be read back to the same id. To add one, write
//! a file, implement [`Format`], and add a line to [`ALL`].

use std::io::Write;
use std::path::Path;

use crate::{Error, FormationId, Result, Store};

pub mod sif;
pub mod squashfs;
pub mod tar;

/// The time that every file of every artifact shows: 1980-01-02 00:00 UTC, in seconds since 1970.
pub const TIME: u32 = 315_619_200;

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

/// For `map_err`: the artifact could not be written.
fn write_failed(source: std::io::Error) -> Error {
    Error::File { action: "write", path: Path::new("artifact").to_owned(), source }
}
