//! Placeholder.
use std::io::Write;

use super::Format;
use crate::{FormationId, Result, Store};

/// Placeholder.
pub struct Tar;

impl Format for Tar {
    fn name(&self) -> &'static str {
        "tar"
    }
    fn extension(&self) -> &'static str {
        "tar"
    }
    fn pack(&self, _store: &Store, _formation: FormationId, _output: &mut dyn Write) -> Result<()> {
        unimplemented!()
    }
}
