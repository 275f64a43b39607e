//! `builtin:run`: a command of the user's over given layers; what it changes is the layer.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use store::directory::Claim;
use store::{DeltaId, Node, RelativePath};

use super::{Builtin, Job};
use crate::hosts::Hosts;
use crate::report::Event;
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
            _ => {
                tell_of_powers(job, delta)?;
                Ok(Claim::Delta(delta))
            }
        }
    }
}

/// Says which set-id programs and devices a step leaves. A run of ours heeds neither; what else runs the tree may.
fn tell_of_powers(job: &Job<'_>, delta: DeltaId) -> Result<()> {
    const SHOWN: usize = 5;
    let store = job.builder.store;
    let mut found: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut open = vec![(RelativePath::default(), store.delta(delta)?.tree)];
    while let Some((path, tree)) = open.pop() {
        for (name, node) in &store.tree(tree)?.entries {
            let kind = match node {
                Node::Directory(id) => {
                    open.push((path.join(name), *id));
                    continue;
                }
                Node::File(file) if file.metadata.mode & 0o6000 != 0 && file.metadata.mode & 0o111 != 0 => {
                    "set-id programs"
                }
                Node::Device { .. } => "devices",
                _ => continue,
            };
            let path = format!("`/{}`", String::from_utf8_lossy(&path.join(name).to_bytes()).escape_debug());
            found.entry(kind).or_default().push(path);
        }
    }
    for (kind, mut paths) in found {
        paths.sort_unstable();
        let more = paths.len().saturating_sub(SHOWN);
        paths.truncate(SHOWN);
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        let note = format!("step `{}` leaves {kind}: {}{rest}", job.name, paths.join(", "));
        job.builder.reporter.report(Event::Note(&note));
    }
    Ok(())
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
