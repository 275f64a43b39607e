//! `forge volume`: directories of this user that outlive runs, by name.

use serde_json::json;

use crate::args::volume::{VolumeAction, VolumeArguments};
use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;
use crate::render;
use crate::volumes::{self, Volume};

/// `forge volume`
pub fn run(arguments: &VolumeArguments, context: &Context) -> Result<ExitCode> {
    match &arguments.action {
        VolumeAction::Create { name } => create(name, context),
        VolumeAction::List => list(context),
        VolumeAction::Remove { names } => remove(names, context),
    }
}

fn create(name: &str, context: &Context) -> Result<ExitCode> {
    let volume = Volume::named(name, context)?;
    if !volume.ensure()? {
        let failure = Failure::new(code::NEGATIVE, format!("volume `{name}` is there already"));
        return Err(failure.hint(format!("`forge volume remove {name}` removes it, with all that is in it")));
    }
    if context.global.json {
        super::print_json(&json!({ "schema": 1, "name": name, "path": volume.path.display().to_string() }))?;
    } else {
        super::print(&format!("{}\n", volume.path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn list(context: &Context) -> Result<ExitCode> {
    let volumes = volumes::all(context)?;
    if context.global.json {
        let record = |volume: &Volume| json!({ "name": volume.name, "size": volume.size(), "path": volume.path.display().to_string() });
        super::print_json(&json!({ "schema": 1, "volumes": volumes.iter().map(record).collect::<Vec<_>>() }))?;
    } else {
        let row = |volume: &Volume| {
            vec![volume.name.clone(), render::size(volume.size()), render::plain(&volume.path.display().to_string())]
        };
        let rows: Vec<Vec<String>> = volumes.iter().map(row).collect();
        super::print(&render::table(&["VOLUME", "SIZE", "DIRECTORY"], &rows))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn remove(names: &[String], context: &Context) -> Result<ExitCode> {
    for name in names {
        Volume::named(name, context)?.remove()?;
    }
    if context.global.json {
        super::print_json(&json!({ "schema": 1, "removed": names }))?;
    }
    Ok(ExitCode::SUCCESS)
}
