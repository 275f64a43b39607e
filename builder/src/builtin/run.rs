//! `builtin:run`: a command of the user's over given layers; what it changes is the layer.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use store::DeltaId;
use store::directory::Claim;

use super::{Builtin, Job};
use crate::Result;
use crate::step::{Command, run_step};

/// Parameters: `layers` (lowest first), `command`, `environment`, `directory`, `timeout` (in milliseconds).
pub struct Run;

impl Builtin for Run {
    fn name(&self) -> &'static str {
        "run"
    }

    fn phase(&self) -> &'static str {
        "run"
    }

    fn build(&self, job: &Job<'_>) -> Result<Claim> {
        let paths: Vec<String> = job.parameter("layers")?;
        let layers: Vec<DeltaId> = paths.iter().map(|path| job.delta(path)).collect::<Result<_>>()?;
        let environment: BTreeMap<String, String> = job.parameter("environment")?;
        let command = Command {
            environment: environment.into_iter().map(|(name, value)| (name.into(), OsString::from(value))).collect(),
            directory: PathBuf::from(job.parameter::<String>("directory")?),
            timeout_millis: job.parameter("timeout")?,
            ..Command::new(&layers, job.parameter::<Vec<String>>("command")?)
        };
        Ok(Claim::Delta(run_step(job.builder, job.name, &command)?))
    }
}
