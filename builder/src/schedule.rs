//! In which order steps are built: what is here already is not made, the rest as parallel as the graph allows.
//!
//! A derivation is looked for twice. By its `.drv` path: the very same question was answered before, and nothing below it is
//! looked at. By its step key, once its inputs are known: the question differs, but what goes in is the same, so what comes out
//! is too (early cutoff). Only then is it made.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Condvar, Mutex};

use serde_json::Value;
use store::derivation::Source;
use store::digest::StepKey;
use store::directory::{Claim, FetchRecord, LayerRecord, Record, StepRecord};
use store::{DeltaId, Derivation, Formation, FormationId, Node, Plan, StorePath, Tree};

use crate::builtin::{self, Builtin, Input, Job};
use crate::report::{Event, Span};
use crate::{Builder, Error, Result};

/// Downloads that run at a time beside the steps that compute: they wait for others, not for this machine's cores.
const DOWNLOADS: usize = 8;

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
    let (claims, made) = realise_outputs(builder, plan, &goals)?;
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

/// Makes some outputs of a plan's derivations; says what each came out as, and how many steps of each phase were made.
pub fn realise_outputs(
    builder: &Builder<'_>,
    plan: &Plan,
    goals: &[(&StorePath, &str)],
) -> Result<(Vec<Claim>, BTreeMap<String, usize>)> {
    let mut schedule = Schedule::new(builder, plan, goals)?;
    builder.reporter.report(Event::Planned { steps: schedule.waiting.len(), known: schedule.known.len() });
    if !schedule.waiting.is_empty() {
        schedule.run()?;
    }
    let state = schedule.state.into_inner().expect("no thread panicked");
    let claim = |(derivation, output): &(&StorePath, &str)| {
        let key = ((*derivation).clone(), (*output).to_owned());
        let found = state.claims.get(&key).or_else(|| schedule.known.get(&key));
        found
            .cloned()
            .ok_or_else(|| Error::NoOutput { step: derivation.name().to_owned(), output: (*output).to_owned() })
    };
    Ok((goals.iter().map(claim).collect::<Result<_>>()?, state.made))
}

type OutputKey = (StorePath, String);

struct Schedule<'a> {
    builder: &'a Builder<'a>,
    plan: &'a Plan,
    /// Outputs that were made before.
    known: BTreeMap<OutputKey, Claim>,
    /// Derivations to be made, and how many of their inputs are still to be made.
    waiting: BTreeMap<StorePath, usize>,
    /// Which waiting derivations use a waiting derivation.
    users: BTreeMap<StorePath, Vec<StorePath>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    downloads: VecDeque<StorePath>,
    steps: VecDeque<StorePath>,
    waiting: BTreeMap<StorePath, usize>,
    unfinished: usize,
    claims: BTreeMap<OutputKey, Claim>,
    made: BTreeMap<String, usize>,
    failure: Option<Error>,
}

impl<'a> Schedule<'a> {
    /// Walks from the goals down, as far as nothing is known.
    fn new(builder: &'a Builder<'a>, plan: &'a Plan, goals: &[(&StorePath, &str)]) -> Result<Self> {
        let (mut known, mut waiting, mut users) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut open: Vec<OutputKey> =
            goals.iter().map(|(path, output)| ((*path).clone(), (*output).to_owned())).collect();
        let mut seen: BTreeSet<OutputKey> = open.iter().cloned().collect();
        while let Some(key) = open.pop() {
            let (path, output) = &key;
            if let Some(claim) = builder.store.claim_of_output(path, output)? {
                known.insert(key, claim);
                continue;
            }
            if waiting.contains_key(path) {
                continue;
            }
            waiting.insert(path.clone(), 0);
            for (input, outputs) in &derivation(plan, path)?.input_derivations {
                for output in outputs {
                    let key = (input.clone(), output.clone());
                    if seen.insert(key.clone()) {
                        open.push(key);
                    }
                }
            }
        }
        let paths: Vec<StorePath> = waiting.keys().cloned().collect();
        for path in paths {
            let inputs = derivation(plan, &path)?.input_derivations.keys().filter(|input| waiting.contains_key(*input));
            let inputs: Vec<StorePath> = inputs.cloned().collect();
            waiting.insert(path.clone(), inputs.len());
            for input in inputs {
                users.entry(input).or_insert_with(Vec::new).push(path.clone());
            }
        }
        let (state, changed) = (Mutex::new(State::default()), Condvar::new());
        Ok(Self { builder, plan, known, waiting, users, state, changed })
    }

    fn run(&mut self) -> Result<()> {
        {
            let state = self.state.get_mut().expect("no thread panicked");
            state.waiting = self.waiting.clone();
            state.unfinished = self.waiting.len();
            for (path, inputs) in &self.waiting {
                if *inputs == 0 {
                    enqueue(self.plan, state, path.clone())?;
                }
            }
        }
        let schedule = &*self;
        std::thread::scope(|scope| {
            for _ in 0..DOWNLOADS.min(self.waiting.len()) {
                scope.spawn(move || schedule.work(true));
            }
            for _ in 0..self.builder.jobs.max(1) {
                scope.spawn(move || schedule.work(false));
            }
        });
        match self.state.get_mut().expect("no thread panicked").failure.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// One thread: takes what is ready until nothing is left or something has failed.
    fn work(&self, downloads: bool) {
        loop {
            let mut state = self.state.lock().expect("no thread panicked");
            let path = loop {
                if state.unfinished == 0 || state.failure.is_some() {
                    return;
                }
                let queue = if downloads { &mut state.downloads } else { &mut state.steps };
                match queue.pop_front() {
                    Some(path) => break path,
                    None => state = self.changed.wait(state).expect("no thread panicked"),
                }
            };
            let inputs = self.input_claims(&state, &path);
            drop(state);
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.make(&path, inputs)));
            let mut state = self.state.lock().expect("no thread panicked");
            match result {
                Ok(Ok((claim, phase))) => {
                    let outputs = &self.plan.derivations[&path].outputs;
                    state.claims.extend(outputs.keys().map(|output| ((path.clone(), output.clone()), claim.clone())));
                    if let Some(phase) = phase {
                        *state.made.entry(phase.to_owned()).or_default() += 1;
                    }
                    state.unfinished -= 1;
                    for user in self.users.get(&path).into_iter().flatten() {
                        let left = state.waiting.get_mut(user).expect("a user waits");
                        *left -= 1;
                        if *left == 0 {
                            enqueue(self.plan, &mut state, user.clone()).expect("the plan has what it waits for");
                        }
                    }
                }
                Ok(Err(error)) => _ = state.failure.get_or_insert(error),
                Err(panic) => {
                    // The other threads must not wait for ever for a step that will never be done.
                    state.failure.get_or_insert(Error::Interrupted { signal: 0 });
                    self.changed.notify_all();
                    drop(state);
                    std::panic::resume_unwind(panic);
                }
            }
            self.changed.notify_all();
        }
    }

    fn input_claims(&self, state: &State, path: &StorePath) -> BTreeMap<String, Input> {
        let mut inputs = BTreeMap::new();
        for (input, outputs) in &self.plan.derivations[path].input_derivations {
            for output in outputs {
                let key = (input.clone(), output.clone());
                let claim = state.claims.get(&key).or_else(|| self.known.get(&key)).expect("inputs are made first");
                let out_path = &self.plan.derivations[input].outputs[output].path;
                if let Some(out_path) = out_path {
                    inputs.insert(out_path.as_str().to_owned(), Input::Claim(claim.clone()));
                }
            }
        }
        inputs
    }

    /// Makes one derivation; the phase is given if work was done for it.
    fn make(&self, path: &StorePath, mut inputs: BTreeMap<String, Input>) -> Result<(Claim, Option<&'static str>)> {
        self.builder.check_interrupt()?;
        let derivation = &self.plan.derivations[path];
        let builtin = builtin_of(derivation)?;
        for source in &derivation.input_sources {
            inputs.insert(source.as_str().to_owned(), Input::Source(self.source(source)?));
        }
        let text = derivation.environment.get(&b"parameters"[..]).map_or(&b"{}"[..], |text| text);
        let parameters: Value = serde_json::from_slice(text).map_err(|error| Error::Parameter {
            step: derivation.name.clone(),
            parameter: "parameters".to_owned(),
            reason: error.to_string(),
        })?;
        let fixed = derivation.outputs.values().find_map(|output| output.fixed.as_ref());
        let key = step_key(derivation, builtin, &parameters, &inputs);
        let known = self.builder.store.claim_of_step(&key)?;
        let phase = known.is_none().then(|| builtin.phase());
        let claim = match known {
            Some(claim) => claim,
            None => {
                let job = Job {
                    builder: self.builder,
                    name: &derivation.name,
                    parameters: &parameters,
                    inputs: &inputs,
                    fixed,
                };
                // A download reports itself, with its size.
                let _span = (builtin.name() != "fetch")
                    .then(|| Span::start(self.builder.reporter, builtin.phase(), derivation.name.clone(), None));
                let claim = builtin.build(&job)?;
                self.builder.store.put_claim_of_step(&key, &claim)?;
                claim
            }
        };
        for output in derivation.outputs.keys() {
            self.builder.store.put_claim_of_output(path, output, &claim)?;
        }
        Ok((claim, phase))
    }

    fn source(&self, path: &StorePath) -> Result<Node> {
        match self.plan.sources.get(path) {
            Some(Source::Path { path, selected }) => Ok(self.builder.store.ingest_source(path, selected.as_ref())?),
            Some(Source::Fetched(fetched)) => crate::fetch::tree::obtain(self.builder, fetched),
            Some(Source::Text(bytes)) => {
                let (blob, size) = (self.builder.store.put_blob(bytes, false)?, bytes.len() as u64);
                Ok(Node::File(store::File { blob, size, metadata: store::Metadata::root(0o644) }))
            }
            None => Err(Error::NotInPlan { path: path.to_string() }),
        }
    }
}

fn derivation<'a>(plan: &'a Plan, path: &StorePath) -> Result<&'a Derivation> {
    plan.derivations.get(path).ok_or_else(|| Error::NotInPlan { path: path.to_string() })
}

fn builtin_of(derivation: &Derivation) -> Result<&'static dyn Builtin> {
    let name = derivation.builder.strip_prefix(b"builtin:");
    let found = builtin::ALL.iter().find(|builtin| name == Some(builtin.name().as_bytes()));
    found.copied().ok_or_else(|| Error::NoBuilder {
        step: derivation.name.clone(),
        builder: String::from_utf8_lossy(&derivation.builder).into_owned(),
    })
}

fn enqueue(plan: &Plan, state: &mut State, path: StorePath) -> Result<()> {
    let download = derivation(plan, &path)?.builder == b"builtin:fetch";
    if download {
        state.downloads.push_back(path)
    } else {
        state.steps.push_back(path)
    }
    Ok(())
}

/// The key of a step: what it is made by, and what goes in by content. Store paths of inputs are names, and are replaced.
fn step_key(
    derivation: &Derivation,
    builtin: &dyn Builtin,
    parameters: &Value,
    inputs: &BTreeMap<String, Input>,
) -> StepKey {
    fn replace(value: &Value, inputs: &BTreeMap<String, Input>) -> Value {
        match value {
            Value::String(text) => Value::String(inputs.get(text).map_or_else(|| text.clone(), content)),
            Value::Array(items) => Value::Array(items.iter().map(|item| replace(item, inputs)).collect()),
            Value::Object(fields) => {
                Value::Object(fields.iter().map(|(name, value)| (name.clone(), replace(value, inputs))).collect())
            }
            value => value.clone(),
        }
    }
    let fixed = derivation.outputs.values().find_map(|output| output.fixed.as_ref());
    let fixed = fixed.map(|fixed| format!("{}:{}", fixed.algorithm.as_str(), store::digest::to_hex(&fixed.hash)));
    let description = serde_json::json!({
        "builtin": builtin.name(),
        "version": builtin.version(),
        "system": String::from_utf8_lossy(&derivation.system),
        "parameters": replace(parameters, inputs),
        "fixed": fixed,
    });
    StepKey::of(description.to_string().as_bytes())
}

fn content(input: &Input) -> String {
    match input {
        Input::Claim(Claim::Blob(id)) => format!("blob:{id}"),
        Input::Claim(Claim::Delta(id)) => format!("delta:{id}"),
        Input::Source(node) => {
            // A node has no id of its own; the tree that has nothing else does.
            let name = store::Name::new(*b"source").expect("a name");
            format!("source:{}", Tree { entries: BTreeMap::from([(name, node.clone())]), ..Tree::empty() }.id())
        }
    }
}
