//! `builtin:run`: a command of the user's over given layers; what it changes is the layer.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use store::DeltaId;
use store::directory::Claim;

use super::{Builtin, Job};
use crate::hosts::Hosts;
use crate::step::{Command, run_step};
use crate::{Error, Result};

/// Parameters: `layers` (lowest first), `command`, `environment`, `directory`, `timeout` (in milliseconds); `outputHash`, the id of
/// the delta that must come out, and `hosts`, what of the network may then be reached.
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
        let expected: Option<String> = job.parameter("outputHash")?;
        let command = Command {
            environment: environment.into_iter().map(|(name, value)| (name.into(), OsString::from(value))).collect(),
            directory: PathBuf::from(job.parameter::<String>("directory")?),
            timeout_millis: job.parameter("timeout")?,
            // What may come out otherwise each time sees nothing of the network.
            hosts: if expected.is_some() { hosts(job)? } else { Hosts::default() },
            ..Command::new(&layers, job.parameter::<Vec<String>>("command")?)
        };
        let delta = run_step(job.builder, job.name, &command)?;
        match expected {
            Some(expected) if expected != delta.to_string() => {
                Err(Error::Output { step: job.name.to_owned(), actual: delta.to_string(), expected })
            }
            _ => Ok(Claim::Delta(delta)),
        }
    }
}

fn hosts(job: &Job<'_>) -> Result<Hosts> {
    let mut hosts = Hosts::default();
    for word in job.parameter::<Option<Vec<String>>>("hosts")?.unwrap_or_default() {
        hosts.add_word(&word).map_err(|reason| Error::Parameter {
            step: job.name.to_owned(),
            parameter: "hosts".to_owned(),
            reason,
        })?;
    }
    Ok(hosts)
}
