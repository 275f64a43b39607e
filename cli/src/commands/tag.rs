//! `forge tag` and `forge rm`: names are what keeps a formation from being collected.

use std::process::ExitCode;

use crate::args::{RmArguments, TagArguments};
use crate::context::Context;
use crate::error::{Failure, Result, code};

/// `forge tag`
pub fn tag(arguments: &TagArguments, context: &Context) -> Result<ExitCode> {
    check_name(&arguments.name)?;
    let store = context.store()?;
    let id = store.find(&arguments.formation)?;
    store.set_root(&arguments.name, id)?;
    if context.global.json {
        super::print_json(&serde_json::json!({ "schema": 1, "id": id.to_string(), "name": arguments.name }))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `forge rm`
pub fn rm(arguments: &RmArguments, context: &Context) -> Result<ExitCode> {
    let store = context.store()?;
    let mut removed = Vec::new();
    for given in &arguments.formations {
        let roots = store.roots()?;
        if roots.contains_key(given) {
            store.remove_root(given)?;
            removed.push(given.clone());
            continue;
        }
        let id = store.find(given)?;
        for (name, _) in roots.into_iter().filter(|(_, root)| *root == id) {
            store.remove_root(&name)?;
            removed.push(name);
        }
    }
    if context.global.json {
        super::print_json(&serde_json::json!({ "schema": 1, "removed": removed }))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses what could not be told from a digest or a path.
pub fn check_name(name: &str) -> Result<()> {
    if store::formation::is_name(name) {
        return Ok(());
    }
    let failure = Failure::new(code::USAGE, format!("`{name}` is not a name for a formation"));
    Err(failure.hint("letters, digits, `.`, `_`, `+` and `-`, starting with a letter or digit, and not like a digest"))
}
