//! `forge list`: the formations in the store.

use std::collections::BTreeMap;

use store::FormationId;

use crate::context::Context;
use crate::error::Result;
use crate::exit::ExitCode;
use crate::{render, runtimes};

/// `forge list`
pub fn run(context: &Context) -> Result<ExitCode> {
    let store = context.store()?;
    let mut names: BTreeMap<FormationId, Vec<String>> = BTreeMap::new();
    for (name, id) in store.roots()? {
        names.entry(id).or_default().push(name);
    }
    let (mut rows, mut records) = (Vec::new(), Vec::new());
    for id in store.formations()? {
        let formation = match store.formation(id) {
            // Collected meanwhile, or given up by a collection that was killed.
            Err(store::Error::NotFound { kind: "formation", .. }) => continue,
            formation => formation?,
        };
        let record = store.record(id)?;
        // A formation whose objects are not all here is listed as what its record tells.
        let size = store.known_extent(formation.root).map(|extent| extent.bytes);
        let size = size.unwrap_or_else(|_| record.layers.iter().map(|layer| layer.size).sum());
        let names = names.get(&id).cloned().unwrap_or_default();
        let (kind, description) = (runtimes::kind(&formation, &record), runtimes::description(&formation));
        records.push(serde_json::json!({
            "id": id.to_string(),
            "name": formation.name,
            "version": formation.version,
            "platform": formation.platform,
            "type": kind,
            "description": description,
            "size": size,
            "names": names,
            "built": record.built,
        }));
        // `NAME@VERSION` says nothing that the row does not.
        let own = format!("{}@{}", formation.name, formation.version);
        let shown: Vec<String> = match names.contains(&formation.name) {
            true => names.into_iter().filter(|name| *name != own).collect(),
            false => names,
        };
        let shown = if shown.is_empty() { "(unnamed)".to_owned() } else { shown.join(", ") };
        let description: String = description.chars().take(60).collect();
        let version = if formation.version.is_empty() { "-".to_owned() } else { formation.version };
        rows.push(vec![shown, version, kind, render::size(size), id.short(), formation.platform, description]);
    }
    if context.global.json {
        super::print_json(&serde_json::json!({ "schema": 1, "total": records.len(), "formations": records }))?;
    } else {
        rows.sort();
        let columns = ["RUNTIME", "VERSION", "TYPE", "SIZE", "ID", "PLATFORM", "DESCRIPTION"];
        let total = rows.len();
        super::print(&format!("{}Total runtimes: {total}\n", render::table(&columns, &rows)))?;
    }
    Ok(ExitCode::SUCCESS)
}
