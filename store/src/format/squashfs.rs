//! Placeholder.
use std::io::Write;

use super::Format;
use crate::{FormationId, Result, Store};

/// Placeholder.
pub struct Squashfs;

impl Format for Squashfs {
    fn name(&self) -> &'static str {
        "squashfs"
    }
    fn extension(&self) -> &'static str {
        "squashfs"
    }
    fn pack(&self, _store: &Store, _formation: FormationId, _output: &mut dyn Write) -> Result<()> {
        unimplemented!()
    }
}
