//! Placeholder.
use std::io::Write;

use super::Format;
use crate::{FormationId, Result, Store};

/// Placeholder.
pub struct Sif;

impl Format for Sif {
    fn name(&self) -> &'static str {
        "sif"
    }
    fn extension(&self) -> &'static str {
        "sif"
    }
    fn pack(&self, _store: &Store, _formation: FormationId, _output: &mut dyn Write) -> Result<()> {
        unimplemented!()
    }
}
