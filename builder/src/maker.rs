//! How one step is made: known by what goes in, or claimed so that nobody else makes it too, made, and written down.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use store::derivation::Source;
use store::digest::StepKey;
use store::directory::{Begin, Building, Claim, Claimed};
use store::peer::{Realisation, Subject};
use store::{Derivation, Node, Plan, StorePath};

use crate::builtin::{self, Builtin, Input, Job};
use crate::check::Elsewhere;
use crate::journal::{Entry, Happened, Journal};
use crate::key::{self, Fact};
use crate::report::{Event, Span};
use crate::schedule::{OutputKey, derivation};
use crate::work::Work;
use crate::{Builder, Error, Result, log, nix, substitute};

/// How often a step that another process makes is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// Makes steps of one plan.
pub(crate) struct Maker<'a> {
    pub builder: Builder<'a>,
    pub plan: &'a Plan,
    pub journal: Journal,
    /// What is done and not yet written down.
    pub pending: Mutex<Pending>,
    /// The sources that were taken in, each once.
    pub sources: Mutex<BTreeMap<StorePath, Node>>,
}

/// Steps that are done and not yet written down: many are, at the price of one.
#[derive(Default)]
pub(crate) struct Pending {
    steps: Vec<Done>,
    since: Option<Instant>,
}

/// One of them. Others who want the step wait until it is written down.
struct Done {
    path: StorePath,
    key: Option<StepKey>,
    claims: BTreeMap<String, Claim>,
    _building: Option<Building>,
}

/// How long a step that is done may wait to be written down, and how many may.
const PATIENCE: Duration = Duration::from_millis(100);
const MOST_PENDING: usize = 512;

/// What came of a step.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    /// By output.
    pub claims: BTreeMap<String, Claim>,
    /// Given if work was done for it.
    pub phase: Option<&'static str>,
}

/// A step whose inputs are here.
struct Step<'a> {
    path: &'a StorePath,
    derivation: &'a Derivation,
    key: StepKey,
    facts: Vec<Fact>,
    kind: Kind,
}

/// Who makes it.
enum Kind {
    /// A part of forge.
    Builtin(&'static dyn Builtin, BTreeMap<String, Input>, Value),
    /// A program, as Nix would run it.
    Nix(Box<nix::Prepared>),
}

impl Step<'_> {
    /// Whether it takes longer than to ask who has made it. What a download gives follows from its digest, and unpacking takes no time.
    fn is_worth_asking(&self) -> bool {
        matches!(self.kind, Kind::Builtin(..)) && !["fetch", "unpack"].contains(&self.kind.phase())
    }
}

impl Kind {
    fn phase(&self) -> &'static str {
        match self {
            Self::Builtin(builtin, ..) => builtin.phase(),
            Self::Nix(_) => "build",
        }
    }
}

impl Maker<'_> {
    /// Makes a derivation whose inputs came out as these.
    pub fn make(&self, path: &StorePath, inputs: &BTreeMap<OutputKey, Claim>) -> Result<Made> {
        self.builder.check_interrupt()?;
        let step = self.prepare(path, inputs)?;
        if let Some(claims) = self.known(&step)? {
            return self.finish(&step, claims, Happened::Known, Duration::ZERO, None, None);
        }
        let building: Building = match self.begin(&step)? {
            Some(building) => building,
            // Another process has made it.
            None => match self.known(&step)? {
                Some(claims) => return self.finish(&step, claims, Happened::Known, Duration::ZERO, None, None),
                None => return Err(Error::NoOutput { step: step.derivation.name.clone(), output: "out".to_owned() }),
            },
        };
        // The one place where a step that is not known here might be known elsewhere: from here on it is made.
        if step.is_worth_asking()
            && let Some(claim) = substitute::step(&self.builder, &step.key)?
        {
            self.builder.store.put_claim_of_step(&step.key, &claim)?;
            let claims = step.derivation.outputs.keys().map(|output| (output.clone(), claim.clone())).collect();
            return self.finish(&step, claims, Happened::Known, Duration::ZERO, None, Some(building));
        }
        let work = Arc::new(Work::new(path.clone(), None));
        let started = Instant::now();
        match self.run(&step, &work) {
            Ok(claims) => self.finish(&step, claims, Happened::Built, started.elapsed(), Some(&work), Some(building)),
            Err(error) => {
                // What is only there to explain must not hide why it failed.
                let _ = self.write_log(&step, &work);
                if !matches!(error, Error::Interrupted { .. }) {
                    let _ = self.note(&step, &BTreeMap::new(), Happened::Failed, started.elapsed(), Some(&work));
                }
                Err(error)
            }
        }
    }

    /// Makes a step once more under other conditions; what it gives is compared and not kept as what the step gave.
    pub fn make_again(
        &self,
        path: &StorePath,
        inputs: &BTreeMap<OutputKey, Claim>,
        elsewhere: Elsewhere,
    ) -> Result<BTreeMap<String, Claim>> {
        self.builder.check_interrupt()?;
        let step = self.prepare(path, inputs)?;
        self.run(&step, &Arc::new(Work::new(path.clone(), Some(elsewhere))))
    }

    /// Finds out what goes in.
    fn prepare<'s>(&'s self, path: &'s StorePath, claims: &BTreeMap<OutputKey, Claim>) -> Result<Step<'s>> {
        let derivation = derivation(self.plan, path)?;
        if nix::is_nix(derivation) {
            let prepared = nix::prepare(self, path, derivation, claims)?;
            let (key, facts) = (prepared.key, prepared.facts());
            return Ok(Step { path, derivation, key, facts, kind: Kind::Nix(Box::new(prepared)) });
        }
        let builtin = builtin_of(derivation)?;
        let mut inputs = BTreeMap::new();
        for ((input, output), claim) in claims {
            inputs.extend(nix::as_input(self, input, output, claim)?);
        }
        for source in &derivation.input_sources {
            inputs.insert(source.as_str().to_owned(), Input::Source(self.source(source)?));
        }
        let text = derivation.environment.get(&b"parameters"[..]).map_or(&b"{}"[..], |text| text);
        let parameters: Value = serde_json::from_slice(text).map_err(|error| Error::Parameter {
            step: derivation.name.clone(),
            parameter: "parameters".to_owned(),
            reason: error.to_string(),
        })?;
        let (key, facts) = key::of_builtin(derivation, builtin, &parameters, &inputs);
        Ok(Step { path, derivation, key, facts, kind: Kind::Builtin(builtin, inputs, parameters) })
    }

    /// What the step gave before, if all of it is here.
    fn known(&self, step: &Step<'_>) -> Result<Option<BTreeMap<String, Claim>>> {
        let store = self.builder.store;
        if let Kind::Nix(prepared) = &step.kind {
            return prepared.known(store);
        }
        let Some(claim) = store.claim_of_step(&step.key)? else { return Ok(None) };
        Ok(Some(step.derivation.outputs.keys().map(|output| (output.clone(), claim.clone())).collect()))
    }

    /// Claims the making of the step; waits while another process makes it. None if that one has made it.
    fn begin(&self, step: &Step<'_>) -> Result<Option<Building>> {
        let mut said = false;
        loop {
            match self.builder.store.begin(&step.key)? {
                // It may have been made between our looking and claiming.
                Begin::Now(building) => return Ok(if self.known(step)?.is_none() { Some(building) } else { None }),
                Begin::Elsewhere(process) => {
                    if !said {
                        said = true;
                        self.builder.reporter.report(Event::Waiting { what: &step.derivation.name, process });
                    }
                }
            }
            std::thread::sleep(LOOK);
            self.builder.check_interrupt()?;
        }
    }

    fn run(&self, step: &Step<'_>, work: &Arc<Work>) -> Result<BTreeMap<String, Claim>> {
        let builder = Builder { work: Some(Arc::clone(work)), ..self.builder.clone() };
        let (phase, name) = (step.kind.phase(), step.derivation.name.as_str());
        // A download reports itself, with its size.
        let mut span =
            (!crate::schedule::is_download(step.derivation)).then(|| Span::start(builder.reporter, phase, name, None));
        let result = match &step.kind {
            Kind::Builtin(builtin, inputs, parameters) => {
                let fixed = step.derivation.outputs.values().find_map(|output| output.fixed.as_ref());
                let job = Job { builder: &builder, name, parameters, inputs, fixed };
                builtin
                    .build(&job)
                    .map(|claim| step.derivation.outputs.keys().map(|output| (output.clone(), claim.clone())).collect())
            }
            Kind::Nix(prepared) => prepared.build(&builder),
        };
        if let (Err(error), Some(span)) = (&result, &mut span) {
            span.fail(error);
        }
        result
    }

    fn finish(
        &self,
        step: &Step<'_>,
        claims: BTreeMap<String, Claim>,
        happened: Happened,
        took: Duration,
        work: Option<&Work>,
        building: Option<Building>,
    ) -> Result<Made> {
        let key = (happened == Happened::Built && matches!(step.kind, Kind::Builtin(..))).then_some(step.key);
        let done = Done { path: step.path.clone(), key, claims: claims.clone(), _building: building };
        {
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            pending.steps.push(done);
            pending.since.get_or_insert_with(Instant::now);
        }
        if let (Some(made), Happened::Built, Kind::Builtin(..)) = (self.builder.made, happened, &step.kind) {
            for (output, claim) in &claims {
                let output = Subject::Output(step.path.to_string(), output.clone());
                made(Realisation::new(output, claim.clone()));
                made(Realisation::new(Subject::Step(step.key), claim.clone()));
            }
        }
        self.write_down(false)?;
        if let Some(work) = work {
            self.write_log(step, work)?;
        }
        self.note(step, &claims, happened, took, work)?;
        Ok(Made { claims, phase: (happened == Happened::Built).then(|| step.kind.phase()) })
    }

    /// Writes down what was done, if it has waited long enough, or `now`.
    pub fn write_down(&self, now: bool) -> Result<()> {
        let steps = {
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            let is_due = pending.since.is_some_and(|since| since.elapsed() >= PATIENCE);
            if !(now || is_due || pending.steps.len() >= MOST_PENDING) {
                return Ok(());
            }
            pending.since = None;
            std::mem::take(&mut pending.steps)
        };
        if steps.is_empty() {
            return Ok(());
        }
        let mut claims = Vec::new();
        for done in &steps {
            let of_step = done.key.as_ref().zip(done.claims.values().next());
            claims.extend(of_step.map(|(key, claim)| (Claimed::Step(key), claim)));
            let of_output = |(output, claim)| (Claimed::Output(&done.path, output), claim);
            claims.extend(done.claims.iter().map(|(output, claim)| of_output((output.as_str(), claim))));
        }
        Ok(self.builder.store.put_claims(&claims)?)
    }

    /// Keeps what the step printed; one that runs no program has no log.
    fn write_log(&self, step: &Step<'_>, work: &Work) -> Result<()> {
        let text = work.log();
        let runs = matches!(step.kind, Kind::Nix(_)) || !text.is_empty();
        if runs { log::write(self.builder.store, step.path, &text) } else { Ok(()) }
    }

    fn note(
        &self,
        step: &Step<'_>,
        claims: &BTreeMap<String, Claim>,
        happened: Happened,
        took: Duration,
        work: Option<&Work>,
    ) -> Result<()> {
        let output = |(name, claim): (&String, &Claim)| (name.clone(), key::content(&Input::Claim(claim.clone())));
        self.journal.add(&Entry {
            derivation: step.path.to_string(),
            name: step.derivation.name.clone(),
            key: step.key.to_string(),
            happened,
            time: SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()),
            took: took.as_millis() as u64,
            peak_memory: work.map_or(0, |work| work.peak_memory.load(Ordering::Relaxed)),
            facts: step.facts.clone(),
            outputs: claims.iter().map(output).collect(),
        })
    }

    /// What a source of the plan is.
    pub fn source(&self, path: &StorePath) -> Result<Node> {
        let known = self.sources.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        if let Some(node) = known {
            return Ok(node);
        }
        let node = self.take_in(path)?;
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone(), node.clone());
        Ok(node)
    }

    fn take_in(&self, path: &StorePath) -> Result<Node> {
        match self.plan.sources.get(path) {
            Some(Source::Path { path, selected }) => Ok(self.builder.store.ingest_source(path, selected.as_ref())?),
            Some(Source::Fetched(fetched)) => crate::fetch::tree::obtain(&self.builder, fetched),
            Some(Source::Text(bytes)) => Ok(self.text(bytes)?),
            // A derivation as such: its own text.
            None => match self.plan.derivations.get(path) {
                Some(derivation) => self.text(&store::nix::aterm::write(derivation)),
                None => Err(Error::NotInPlan { path: path.to_string() }),
            },
        }
    }

    fn text(&self, bytes: &[u8]) -> Result<Node> {
        let (blob, size) = (self.builder.store.put_blob(bytes, false)?, bytes.len() as u64);
        Ok(Node::File(store::File { blob, size, metadata: store::Metadata::root(0o644) }))
    }
}

fn builtin_of(derivation: &Derivation) -> Result<&'static dyn Builtin> {
    let name = derivation.builder.strip_prefix(b"builtin:");
    let found = builtin::ALL.iter().find(|builtin| name == Some(builtin.name().as_bytes()));
    found.copied().ok_or_else(|| Error::NoBuilder {
        step: derivation.name.clone(),
        builder: String::from_utf8_lossy(&derivation.builder).into_owned(),
    })
}
