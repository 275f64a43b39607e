//! From a plan to its formation: the layers are made, merged, and kept with what is known of how they came to be.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use store::directory::{Claim, FetchRecord, LayerRecord, Record, StepRecord};
use store::nix::info::PathInfo;
use store::{DeltaId, Derivation, File, Formation, FormationId, Metadata, Node, Plan, StorePath};

use crate::schedule::{Realised, realise_outputs};
use crate::{Builder, Error, Result, nix};

/// What came of a plan.
#[derive(Debug, Clone)]
pub struct Built {
    /// The formation.
    pub formation: FormationId,
    /// Its layers, lowest first.
    pub layers: Vec<(String, DeltaId)>,
    /// Steps that were made, by phase; the others were here.
    pub made: BTreeMap<String, usize>,
}

/// Makes what the plan asks for.
pub fn realise(builder: &Builder<'_>, plan: &Plan) -> Result<Built> {
    let goals: Vec<_> = plan.goal.layers.iter().map(|layer| (&layer.derivation, layer.output.as_str())).collect();
    let Realised { claims, made } = realise_outputs(builder, plan, &goals)?;
    let mut layers = Vec::new();
    for (layer, claim) in plan.goal.layers.iter().zip(claims) {
        match claim {
            Claim::Delta(id) => layers.push((layer.label.clone(), id)),
            Claim::Blob(_) => return Err(not_a_layer(&layer.label)),
        }
    }
    let goal = &plan.goal;
    let deltas: Vec<DeltaId> = layers.iter().map(|(_, id)| *id).collect();
    let formation = Formation {
        name: goal.name.clone(),
        version: goal.version.clone(),
        variant: goal.variant.clone(),
        platform: goal.platform.clone(),
        root: builder.store.merge(&deltas)?,
        launch: goal.launch.clone(),
    };
    let formation = keep(builder, plan, &formation, &layers)?;
    Ok(Built { formation, layers, made })
}

/// What a derivation gave that is wanted as it is.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its name, where it has one that was known before or came out.
    pub path: Option<StorePath>,
    /// The derivation that made it.
    pub derivation: StorePath,
    /// What it came out as.
    pub claim: Claim,
    /// What lies at its path.
    pub node: Node,
    /// What is known of it, if Nix's rules made it.
    pub info: Option<PathInfo>,
    /// Steps that were made, by phase; the others were here.
    pub made: BTreeMap<String, usize>,
}

/// Makes the derivation that a plan is for, where no formation is wanted.
pub fn realise_plain(builder: &Builder<'_>, plan: &Plan) -> Result<Output> {
    let Some(layer) = plan.goal.layers.first() else { return Err(not_a_layer(&plan.goal.name)) };
    let goal = (&layer.derivation, layer.output.as_str());
    let Realised { claims, made } = realise_outputs(builder, plan, &[goal])?;
    let claim = claims.into_iter().next().ok_or_else(|| not_a_layer(&layer.label))?;
    let store = builder.store;
    let derivation = &plan.derivations[&layer.derivation];
    let found = if nix::is_nix(derivation) { nix::info::output_of(store, &claim)? } else { None };
    let (path, node) = match found {
        Some((path, node)) => (Some(path), node),
        None => {
            let path = derivation.outputs.get(&layer.output).and_then(|output| output.path.clone());
            let node = match &claim {
                Claim::Delta(delta) => Node::Directory(store.delta(*delta)?.tree),
                Claim::Blob(blob) => {
                    let size = store.open_blob(*blob)?.metadata().map_err(Error::file("read", store.path()))?.len();
                    Node::File(File { blob: *blob, size, metadata: Metadata::root(0o444) })
                }
            };
            (path, node)
        }
    };
    let info = path.as_ref().map(|path| nix::info::read(store, path)).transpose()?.flatten();
    Ok(Output { path, derivation: layer.derivation.clone(), claim, node, info, made })
}

fn not_a_layer(label: &str) -> Error {
    Error::Parameter { step: label.to_owned(), parameter: "layers".to_owned(), reason: "a file is no layer".to_owned() }
}

/// Keeps the formation; what is known of it is only worked out the first time.
fn keep(
    builder: &Builder<'_>,
    plan: &Plan,
    formation: &Formation,
    layers: &[(String, DeltaId)],
) -> Result<FormationId> {
    let id = formation.id();
    if builder.store.formation(id).is_ok() && builder.store.record(id).is_ok_and(|record| !record.steps.is_empty()) {
        return Ok(id);
    }
    let mut record = Record { built: now(), fetched: fetched(plan), steps: steps(plan), ..Record::default() };
    for (label, delta) in layers {
        let extent = builder.store.extent(builder.store.delta(*delta)?.tree)?;
        let (label, delta) = (label.clone(), delta.to_string());
        record.layers.push(LayerRecord { label, delta, size: extent.bytes, files: extent.files });
    }
    Ok(builder.store.put_formation(formation, &record)?)
}

/// What a plan fetches, sorted.
fn fetched(plan: &Plan) -> Vec<FetchRecord> {
    let fetches = plan.derivations.values().filter_map(|derivation| {
        let fixed = derivation.outputs.values().find_map(|output| output.fixed.as_ref())?;
        let environment = |name: &str| derivation.environment.get(name.as_bytes());
        let parameters: Option<Value> = environment("parameters").and_then(|text| serde_json::from_slice(text).ok());
        let url = parameters.as_ref().and_then(|parameters| parameters.get("url")?.as_str().map(str::to_owned));
        let url = url.or_else(|| environment("url").map(|url| String::from_utf8_lossy(url).into_owned()));
        Some(FetchRecord {
            name: derivation.name.clone(),
            url: url.unwrap_or_default(),
            algorithm: format!("{}{}", if fixed.recursive { "nar-" } else { "" }, fixed.algorithm.as_str()),
            digest: store::digest::to_hex(&fixed.hash),
        })
    });
    let fetches: BTreeSet<FetchRecord> = fetches.filter(|fetch| !fetch.digest.is_empty()).collect();
    fetches.into_iter().collect()
}

/// The steps of a plan, sorted.
fn steps(plan: &Plan) -> Vec<StepRecord> {
    let step = |(path, derivation): (&StorePath, &Derivation)| {
        let inputs = derivation.input_derivations.keys().chain(&derivation.input_sources);
        let inputs: BTreeSet<String> = inputs.map(StorePath::to_string).collect();
        StepRecord {
            derivation: path.to_string(),
            builder: String::from_utf8_lossy(&derivation.builder).into_owned(),
            inputs: inputs.into_iter().collect(),
        }
    };
    plan.derivations.iter().map(step).collect()
}

fn now() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}
