//! `forge list`: the formations in the store.

use std::collections::BTreeMap;
use std::process::ExitCode;

use store::FormationId;

use crate::context::Context;
use crate::error::Result;
use crate::render;

/// `forge list`
pub fn run(context: &Context) -> Result<ExitCode> {
    let store = context.store()?;
    let mut names: BTreeMap<FormationId, Vec<String>> = BTreeMap::new();
    for (name, id) in store.roots()? {
        names.entry(id).or_default().push(name);
    }
    let (mut rows, mut records) = (Vec::new(), Vec::new());
    for id in store.formations()? {
        let (formation, record) = (store.formation(id)?, store.record(id)?);
        let size: u64 = record.layers.iter().map(|layer| layer.size).sum();
        let names = names.get(&id).cloned().unwrap_or_default();
        records.push(serde_json::json!({
            "id": id.to_string(),
            "name": formation.name,
            "version": formation.version,
            "platform": formation.platform,
            "size": size,
            "names": names,
            "built": record.built,
        }));
        let shown = if names.is_empty() { "(unnamed)".to_owned() } else { names.join(", ") };
        rows.push(vec![id.short(), shown, formation.version, formation.platform, render::size(size)]);
    }
    if context.global.json {
        super::print_json(&serde_json::json!({ "schema": 1, "formations": records }))?;
    } else {
        rows.sort_by(|left, right| left[1].cmp(&right[1]));
        super::print(&render::table(&["ID", "NAMES", "VERSION", "PLATFORM", "SIZE"], &rows))?;
    }
    Ok(ExitCode::SUCCESS)
}
