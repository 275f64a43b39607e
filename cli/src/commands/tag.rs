//! `forge tag` and `forge rm`: names are what keeps a formation from being collected.

use crate::args::{RmArguments, TagArguments};
use crate::context::Context;
use crate::error::Result;
use crate::exit::ExitCode;
use crate::names::root_name;
use crate::words::say;

/// `forge tag`
pub fn tag(arguments: &TagArguments, context: &Context) -> Result<ExitCode> {
    let name = root_name(&arguments.name)?;
    let store = context.store()?;
    let id = store.find(&arguments.formation)?;
    store.set_root(&name, id)?;
    if context.global.json {
        super::print_json(&serde_json::json!({ "schema": 1, "id": id.to_string(), "name": name }))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `forge rm`
pub fn rm(arguments: &RmArguments, context: &Context) -> Result<ExitCode> {
    let store = context.store()?;
    let mut removed = Vec::new();
    for given in &arguments.formations {
        let roots = store.roots()?;
        // `java:17` is what `java@17` was called once.
        let written = given.replacen(':', "@", 1);
        let given = if roots.contains_key(&written) { &written } else { given };
        if let Some(id) = roots.get(given) {
            store.remove_root(given)?;
            removed.push(given.clone());
            match given.split_once('@') {
                // The name goes on to the version before, or away with the last one.
                Some((name, _)) if roots.get(name) == Some(id) => match store.versions(name)?.pop() {
                    Some((_, before)) => store.set_root(name, before)?,
                    None => {
                        store.remove_root(name)?;
                        removed.push(name.to_owned());
                    }
                },
                Some(_) => {}
                None => {
                    for (version, _) in store.versions(given)? {
                        let root = format!("{given}@{version}");
                        store.remove_root(&root)?;
                        removed.push(root);
                    }
                }
            }
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
    } else if !context.global.quiet && removed.len() > arguments.formations.len() {
        // A name takes its versions along, a digest all its names.
        say!("removed {}", removed.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}
