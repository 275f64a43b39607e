//! `forge commit`: what a run kept becomes the uppermost layer of a new formation.

use std::collections::BTreeSet;

use store::directory::{LayerRecord, Record};
use store::{Delta, DeltaId, FormationId, Store};

use super::run::KEPT_OF;
use crate::args::CommitArguments;
use crate::context::{Context, absolute};
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;

/// `forge commit`
pub fn run(arguments: &CommitArguments, context: &Context) -> Result<ExitCode> {
    if let Some(name) = &arguments.name {
        crate::names::check_name(name)?;
    }
    let directory = absolute(&arguments.directory)?;
    // Nothing is written to it meanwhile.
    let _lock = match directory.is_dir() {
        true => Some(super::run::lock_kept(&directory)?),
        false => None,
    };
    let note = directory.join(KEPT_OF);
    let text = std::fs::read_to_string(&note).map_err(|error| {
        Failure::new(code::NOT_FOUND, format!("`{}` holds no changes of a run", directory.display()))
            .cause(format!("cannot read `{}`: {error}", note.display()))
            .hint("`forge run --writable DIR FORMATION` keeps them there")
    })?;
    let base: FormationId = text
        .trim()
        .parse()
        .map_err(|_| Failure::new(code::DAMAGED, format!("`{}` names no formation", note.display())))?;
    let store = context.store()?;
    let mut formation = store.formation(base)?;
    let record = store.record(base)?;
    // The next run with the directory goes on from there.
    let delta = builder::scan::scan_and_leave(&store, &directory, formation.root)?;
    let mut layers = record.layers;
    if layers.is_empty() {
        let whole = Delta { tree: formation.root, removed: BTreeSet::new(), passed: BTreeSet::new() };
        layers.push(layer(&store, "all that was before", store.put_delta(&whole)?)?);
    }
    layers.push(layer(&store, "changes of a run", delta)?);
    let parse = |layer: &LayerRecord| {
        let wrong = |_| Failure::new(code::DAMAGED, format!("the record of formation {base} is damaged"));
        layer.delta.parse::<DeltaId>().map_err(wrong)
    };
    formation.root = store.merge(&layers.iter().map(parse).collect::<Result<Vec<_>>>()?)?;
    if let Some(name) = &arguments.name {
        formation.name.clone_from(name);
    }
    if let Some(version) = &arguments.version {
        formation.version.clone_from(version);
    }
    let id = store.put_formation(&formation, &Record { layers, ..Record::default() })?;
    store.set_root(&formation.name, id)?;
    if context.global.json {
        super::print_json(
            &serde_json::json!({ "schema": 1, "id": id.to_string(), "name": formation.name, "base": base.to_string() }),
        )?;
    } else {
        super::print(&format!("{id}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn layer(store: &Store, label: &str, delta: DeltaId) -> Result<LayerRecord> {
    let extent = store.extent(store.delta(delta)?.tree)?;
    Ok(LayerRecord { label: label.to_owned(), delta: delta.to_string(), size: extent.bytes, files: extent.files })
}
