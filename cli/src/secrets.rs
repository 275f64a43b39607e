//! What is said of files that look like private keys and tokens.

use serde_json::{Value, json};
use store::derivation::Source;
use store::secrets::{Secret, find_in, find_in_tree};
use store::{FormationId, Plan, Store};

use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::words::say;

/// What the sources of a plan have that looks like a secret.
pub fn in_plan(plan: &Plan) -> Result<Vec<Secret>> {
    let mut secrets = Vec::new();
    for source in plan.sources.values() {
        if let Source::Path { path, selected } = source {
            secrets.extend(find_in(path, selected.as_ref())?);
        }
    }
    secrets.sort();
    secrets.dedup();
    Ok(secrets)
}

/// What the layers of a formation have that looks like a secret: also what packages, downloads and steps brought.
pub fn in_formation(store: &Store, id: FormationId) -> Result<Vec<Secret>> {
    let mut secrets = find_in_tree(store, store.formation(id)?.root)?;
    for layer in store.record(id)?.layers {
        // What a later layer covers is shared all the same. A layer that is not here holds nothing.
        let Some(delta) = layer.delta.parse().ok().and_then(|delta| store.delta(delta).ok()) else { continue };
        secrets.extend(find_in_tree(store, delta.tree)?);
    }
    secrets.sort();
    secrets.dedup();
    Ok(secrets)
}

/// A line for each.
pub fn warn(secrets: &[Secret], context: &Context) {
    for secret in secrets.iter().filter(|_| !context.global.quiet) {
        say!(
            "warning: `{}` looks like {}: a store keeps and shares what it takes in",
            secret.path.display(),
            secret.what
        );
    }
}

/// For `--strict`.
pub fn refuse(secrets: &[Secret]) -> Result<()> {
    let Some(first) = secrets.first() else { return Ok(()) };
    let headline = match secrets.len() {
        1 => format!("`{}` looks like {}", first.path.display(), first.what),
        count => format!("{count} files look like secrets, the first `{}`, {}", first.path.display(), first.what),
    };
    Err(Failure::new(code::REFUSED, headline).hint(
        "bind it when it is run, `forge run --bind FILE:/run/secret:ro`; without --strict it is taken in all the same",
    ))
}

/// For `--json`.
pub fn to_json(secrets: &[Secret]) -> Value {
    let record = |secret: &Secret| json!({ "path": secret.path.display().to_string(), "what": secret.what });
    secrets.iter().map(record).collect()
}
