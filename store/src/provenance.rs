//! How a formation was made: an in-toto statement (v1) with SLSA's provenance (v1) as its predicate.
//!
//! Its subject is the formation. What led to it is named by digests: derivations by their `.drv` paths, downloads by their hashes.
//! There is no clock and no machine in it, so the same plan gives the same statement.

use serde_json::{Value, json};

use crate::packages::origin;
use crate::{Error, FormationId, Result, Store};

/// The media type of what [`provenance`] gives, for attaching it to an artifact.
pub const MEDIA_TYPE: &str = "application/vnd.in-toto+json";

/// What is not found where a formation was not built.
pub const RECORD: &str = "record of how it was built for formation";

/// The statement of a formation that was built here, or that came with a record of how it was.
pub fn provenance(store: &Store, id: FormationId) -> Result<Value> {
    let (formation, record) = (store.formation(id)?, store.record(id)?);
    if record.steps.is_empty() {
        return Err(Error::NotFound { kind: RECORD, id: id.to_string() });
    }
    let (distribution, _) = store.distribution(formation.root)?;
    let fetched = record.fetched.iter().map(|fetch| {
        let mut dependency = json!({
            "name": fetch.name,
            "uri": uri(&fetch.url, &fetch.name),
            "digest": { fetch.algorithm.as_str(): fetch.digest },
        });
        // Addresses are relative to mirrors; this name is everybody's.
        if let Some(origin) = origin(fetch, &distribution) {
            dependency["annotations"] = json!({ "purl": origin.purl });
        }
        dependency
    });
    // Sources are inputs that no step makes; their store paths are digests of their content.
    let made: std::collections::BTreeSet<&str> = record.steps.iter().map(|step| step.derivation.as_str()).collect();
    let inputs = record.steps.iter().flat_map(|step| &step.inputs);
    let sources: std::collections::BTreeSet<&String> = inputs.filter(|path| !made.contains(path.as_str())).collect();
    let sources =
        sources.into_iter().map(|path| json!({ "name": name(path), "uri": format!("urn:forge:path:{path}") }));
    let layers: Vec<Value> =
        record.layers.iter().map(|layer| json!({ "label": layer.label, "delta": layer.delta })).collect();
    Ok(json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{
            "name": formation.name,
            "digest": { "blake3": id.to_string() },
            "annotations": { "version": formation.version, "platform": formation.platform, "root": formation.root.to_string() },
        }],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:forge:plan:1",
                "externalParameters": {
                    "name": formation.name,
                    "version": formation.version,
                    "platform": formation.platform,
                    "layers": layers,
                },
                "internalParameters": { "steps": record.steps },
                "resolvedDependencies": fetched.chain(sources).collect::<Vec<_>>(),
            },
            "runDetails": {
                "builder": { "id": "urn:forge:builder", "version": { "forge": env!("CARGO_PKG_VERSION") } },
            },
        },
    }))
}

/// What a path of the store is called.
fn name(path: &str) -> &str {
    path.rsplit('/').next().and_then(|last| last.get(33..)).unwrap_or(path)
}

/// `debian:…` and `python:…` are relative to mirrors, and addresses of nothing else.
fn uri(url: &str, name: &str) -> String {
    let absolute = url.contains("://");
    match (absolute, url.is_empty()) {
        (true, _) => url.to_owned(),
        (false, false) => format!("urn:forge:mirror:{url}"),
        (false, true) => format!("urn:forge:file:{name}"),
    }
}
