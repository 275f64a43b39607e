//! `forge log`: what a step printed when it was made.

use std::time::SystemTime;

use serde_json::json;
use store::StorePath;

use crate::args::building::LogArguments;
use crate::context::Context;
use crate::error::Result;
use crate::exit::ExitCode;
use crate::names::{steps_of, unknown};
use crate::words::say;

/// `forge log`
pub fn run(arguments: &LogArguments, context: &Context) -> Result<ExitCode> {
    let store = context.store()?;
    let found = builder::log::find(&store, &arguments.step)?;
    let many = steps_of(&store, &arguments.step)?;
    let derivations: Vec<StorePath> = match (found.first(), many) {
        // Of several steps of one name the one that was made last.
        (Some(newest), _) => vec![newest.derivation.clone()],
        (None, Some(steps)) => steps.iter().filter_map(|step| StorePath::parse(step)).collect(),
        (None, None) if builder::explain::explain(&store, &arguments.step)?.is_empty() => {
            return Err(unknown(&arguments.step));
        }
        // A step that is part of forge, and runs no program.
        (None, None) => Vec::new(),
    };
    if let [_, others @ ..] = found.as_slice()
        && !others.is_empty()
        && !context.global.quiet
    {
        say!("note: {} more steps are called `{}`; this is the last one's", others.len(), arguments.step);
    }
    if derivations.is_empty() && !context.global.quiet {
        say!("note: step `{}` printed nothing", arguments.step);
    }
    let mut records = Vec::new();
    for derivation in &derivations {
        let Some(text) = builder::log::read(&store, derivation)? else { continue };
        if context.global.json {
            let time = builder::log::find(&store, derivation.as_str())?.first().map(|kept| kept.time);
            let time = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
            records.push(json!({
                "derivation": derivation.as_str(),
                "time": time.map(|time| time.as_secs()),
                "log": String::from_utf8_lossy(&text),
            }));
            continue;
        }
        if derivations.len() > 1 && !text.is_empty() {
            super::print(&format!("== {}\n", derivation.name()))?;
        }
        super::print_bytes(&text)?;
    }
    if context.global.json {
        super::print_json(&json!({ "schema": 1, "logs": records }))?;
    }
    Ok(ExitCode::SUCCESS)
}
