//! `builtin:closure`: outputs of Nix derivations with everything that they refer to, in /nix/store, as one layer.

use std::collections::BTreeSet;

use store::DeltaId;
use store::directory::Claim;

use super::{Builtin, Input, Job};
use crate::{Error, Result};

/// Parameters: `paths`, a list of store paths.
pub struct Closure;

impl Builtin for Closure {
    fn name(&self) -> &'static str {
        "closure"
    }

    fn phase(&self) -> &'static str {
        "closure"
    }

    fn build(&self, job: &Job<'_>) -> Result<Claim> {
        let paths: Vec<String> = job.parameter("paths")?;
        let mut deltas: BTreeSet<DeltaId> = BTreeSet::new();
        for path in &paths {
            match job.input(path)? {
                Input::Output { closure, .. } => deltas.extend(closure),
                _ => {
                    return Err(Error::Parameter {
                        step: job.name.to_owned(),
                        parameter: path.clone(),
                        reason: "only what a Nix derivation gives has a closure".to_owned(),
                    });
                }
            }
        }
        let deltas: Vec<DeltaId> = deltas.into_iter().collect();
        Ok(Claim::Delta(job.builder.store.squash(&deltas)?))
    }
}
