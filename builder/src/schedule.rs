//! In which order steps are built.

use std::collections::BTreeMap;

use store::{DeltaId, FormationId, Plan};

use crate::{Builder, Result};

/// What came of a plan.
#[derive(Debug, Clone)]
pub struct Built {
    /// The formation.
    pub formation: FormationId,
    /// Its layers, lowest first.
    pub layers: Vec<(String, DeltaId)>,
    /// Steps that were made, by phase; the others were here.
    pub made: BTreeMap<String, usize>,
}

/// Makes what the plan asks for.
pub fn realise(_builder: &Builder<'_>, _plan: &Plan) -> Result<Built> {
    unimplemented!()
}
