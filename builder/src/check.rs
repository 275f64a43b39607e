//! Makes the steps of a plan again, elsewhere, and compares what they give: `forge build --check`.
//!
//! Elsewhere is what another machine could have been: other paths on the host, one core instead of all, files that directories list
//! in another order, a later time, other random numbers. What the sandbox fixes (host name, user, locale, paths inside) stays fixed:
//! it is the same on every machine. Downloads are pinned, and not made again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::thread::CpuSet;
use store::directory::Claim;
use store::{Metadata, Name, Node, Plan, RelativePath, Store, StorePath, Tree, TreeId};

use crate::journal::Journal;
use crate::maker::Maker;
use crate::schedule::{self, OutputKey, is_download, realise_outputs};
use crate::{Builder, Error, Result, builtin, nix};

pub mod cause;
pub mod elsewhere;

pub use cause::Cause;

/// Where a step is made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// Below the scratch directory: other and longer paths than the first time.
    pub directory: PathBuf,
}

impl Default for Elsewhere {
    fn default() -> Self {
        Self { directory: PathBuf::from("made/again/in-another-place-with-a-longer-path") }
    }
}

impl Elsewhere {
    /// How many cores a step is told of: another number than usual.
    pub fn cores(usual: usize) -> usize {
        if usual == 1 { 2 } else { 1 }
    }

    /// Does something on one core; what it starts stays there.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        let usual = rustix::thread::sched_getaffinity(None).ok();
        if let Some(usual) = &usual
            && let Some(last) = (0..CpuSet::MAX_CPU).rev().find(|core| usual.is_set(*core))
        {
            let mut one = CpuSet::new();
            one.set(last);
            let _ = rustix::thread::sched_setaffinity(None, &one);
        }
        let result = work();
        if let Some(usual) = usual {
            let _ = rustix::thread::sched_setaffinity(None, &usual);
        }
        result
    }
}

/// What came of making everything again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Steps that were made again.
    pub steps: usize,
    /// Outputs that came out otherwise.
    pub differing: Vec<Differing>,
}

/// An output that came out otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differing {
    /// The step's derivation.
    pub derivation: StorePath,
    /// The step's name.
    pub name: String,
    /// Which output.
    pub output: String,
    /// What differs.
    pub files: Vec<FileDifference>,
}

/// A path of an output that came out otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDifference {
    /// Below the output's root, without slash in front.
    pub path: Vec<u8>,
    /// `added`, `removed`, or what of it differs.
    pub aspects: Vec<String>,
    /// Why, as far as that can be seen.
    pub cause: Cause,
    /// What it was the first time and the second, where that can be shown.
    pub shown: Option<(String, String)>,
}

/// Makes everything that a plan's goals need, and all of it once more.
pub fn check(builder: &Builder<'_>, plan: &Plan, goals: &[(&StorePath, &str)]) -> Result<Checked> {
    let steps = steps_of(plan, goals)?;
    let outputs: Vec<OutputKey> = steps
        .iter()
        .flat_map(|path| plan.derivations[path].outputs.keys().map(|output| (path.clone(), output.clone())))
        .collect();
    let wanted: Vec<(&StorePath, &str)> = outputs.iter().map(|(path, output)| (path, output.as_str())).collect();
    let realised = realise_outputs(builder, plan, &wanted)?;
    let mut first: BTreeMap<OutputKey, Claim> = outputs.iter().cloned().zip(realised.claims).collect();
    // Downloads are inputs too; they are here, or what needs them could not have been made.
    for (path, derivation) in plan.derivations.iter().filter(|(_, derivation)| is_download(derivation)) {
        for output in derivation.outputs.keys() {
            if let Some(claim) = builder.store.claim_of_output(path, output)? {
                first.insert((path.clone(), output.clone()), claim);
            }
        }
    }
    // Another second than the one in which it may have been made just now, so that a time that was written down shows.
    std::thread::sleep(Duration::from_millis(1100));
    let began = SystemTime::now();
    let kept = kept(plan, goals);
    let (differing, failure) = (Mutex::default(), Mutex::default());
    let again = Again { builder, plan, first: &first, kept: &kept, began, differing, failure };
    again.run(&steps);
    let Again { differing, failure, .. } = again;
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let mut differing = differing.into_inner().unwrap_or_else(PoisonError::into_inner);
    differing.sort_by(|left, right| (&left.derivation, &left.output).cmp(&(&right.derivation, &right.output)));
    Ok(Checked { steps: steps.len(), differing })
}

/// The steps below some goals that are worth making again.
fn steps_of(plan: &Plan, goals: &[(&StorePath, &str)]) -> Result<Vec<StorePath>> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&StorePath> = goals.iter().map(|(path, _)| *path).collect();
    while let Some(path) = open.pop() {
        if found.insert(path.clone()) {
            open.extend(schedule::derivation(plan, path)?.input_derivations.keys());
        }
    }
    let pinned = |path: &StorePath| {
        let derivation = &plan.derivations[path];
        let fixed =
            |output: &store::derivation::Output| output.fixed.as_ref().is_some_and(|fixed| !fixed.hash.is_empty());
        is_download(derivation) || derivation.outputs.values().any(fixed)
    };
    Ok(found.into_iter().filter(|path| !pinned(path)).collect())
}

/// Steps of which others only keep some paths, with these: the rest was for building, and may be different every time.
fn kept(plan: &Plan, goals: &[(&StorePath, &str)]) -> BTreeMap<StorePath, Vec<RelativePath>> {
    let mut kept: BTreeMap<StorePath, Vec<RelativePath>> = BTreeMap::new();
    let mut whole: BTreeSet<&StorePath> = goals.iter().map(|(path, _)| *path).collect();
    for derivation in plan.derivations.values() {
        for input in derivation.input_derivations.keys() {
            match builtin::keep::paths(derivation) {
                Some(paths) => kept.entry(input.clone()).or_default().extend(paths),
                None => _ = whole.insert(input),
            }
        }
    }
    kept.retain(|path, _| !whole.contains(path));
    kept
}

struct Again<'a> {
    builder: &'a Builder<'a>,
    plan: &'a Plan,
    first: &'a BTreeMap<OutputKey, Claim>,
    kept: &'a BTreeMap<StorePath, Vec<RelativePath>>,
    began: SystemTime,
    differing: Mutex<Vec<Differing>>,
    failure: Mutex<Option<Error>>,
}

impl Again<'_> {
    fn run(&self, steps: &[StorePath]) {
        let next = AtomicUsize::new(0);
        let maker = Maker {
            builder: self.builder.clone(),
            plan: self.plan,
            journal: Journal::new(self.builder.store, &self.plan.goal.name),
            pending: Mutex::default(),
            sources: Mutex::default(),
        };
        std::thread::scope(|scope| {
            for _ in 0..self.builder.jobs.clamp(1, steps.len().max(1)) {
                scope.spawn(|| {
                    while let Some(path) = steps.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                            return;
                        }
                        if let Err(error) = self.one(&maker, path) {
                            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                        }
                    }
                });
            }
        });
    }

    fn one(&self, maker: &Maker<'_>, path: &StorePath) -> Result<()> {
        let derivation = schedule::derivation(self.plan, path)?;
        let mut inputs = BTreeMap::new();
        for (input, outputs) in &derivation.input_derivations {
            for output in outputs {
                let key = (input.clone(), output.clone());
                let claim = match self.first.get(&key) {
                    Some(claim) => Some(claim.clone()),
                    None => self.builder.store.claim_of_output(input, output)?,
                };
                let claim =
                    claim.ok_or_else(|| Error::NoOutput { step: input.name().to_owned(), output: output.clone() })?;
                inputs.insert(key, claim);
            }
        }
        let again = maker.make_again(path, &inputs, Elsewhere::default())?;
        for (output, claim) in again {
            let Some(first) = self.first.get(&(path.clone(), output.clone())) else { continue };
            let mut files = compare(self.builder, first, &claim, self.began)?;
            if let Some(kept) = self.kept.get(path) {
                let kept: Vec<Vec<u8>> = kept.iter().map(RelativePath::to_bytes).collect();
                files.retain(|file| kept.iter().any(|kept| is_below(&file.path, kept)));
            }
            if !files.is_empty() {
                let (derivation, name) = (path.clone(), derivation.name.clone());
                let differing = Differing { derivation, name, output, files };
                self.differing.lock().unwrap_or_else(PoisonError::into_inner).push(differing);
            }
        }
        Ok(())
    }
}

/// Whether a path is another one, or lies below it.
fn is_below(path: &[u8], above: &[u8]) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// What differs between two results of one step.
fn compare(builder: &Builder<'_>, first: &Claim, second: &Claim, began: SystemTime) -> Result<Vec<FileDifference>> {
    if first == second {
        return Ok(Vec::new());
    }
    let store = builder.store;
    let (before, after) = (tree_of(store, first)?, tree_of(store, second)?);
    let judge = cause::Judge::new(store, builder.cores_told(), began);
    let mut files = judge.explain(&store.differences(before, after)?)?;
    if let (Claim::Delta(before), Claim::Delta(after)) = (first, second) {
        let (before, after) = (store.delta(*before)?, store.delta(*after)?);
        let lists = [("removed below", before.removed, after.removed), ("passed through", before.passed, after.passed)];
        for (aspect, before, after) in lists {
            for path in before.symmetric_difference(&after) {
                let (aspects, cause) = (vec![aspect.to_owned()], Cause::Unknown);
                files.push(FileDifference { path: path.to_bytes(), aspects, cause, shown: None });
            }
        }
    }
    Ok(files)
}

/// What a step gave, as a tree in which equal things have equal paths.
fn tree_of(store: &Store, claim: &Claim) -> Result<TreeId> {
    let alone = |node: Node| {
        let name = Name::new(*b"out").expect("a name");
        store.put_tree(&Tree { entries: BTreeMap::from([(name, node)]), ..Tree::empty() })
    };
    match claim {
        Claim::Blob(blob) => {
            let size = store.open_blob(*blob)?.metadata().map_err(Error::file("read", store.path()))?.len();
            Ok(alone(Node::File(store::File { blob: *blob, size, metadata: Metadata::root(0o644) }))?)
        }
        // What is floating is named by what came out: another content is at another path.
        Claim::Delta(delta) => match nix::info::output_of(store, claim)? {
            Some((_, node)) => Ok(alone(node)?),
            None => Ok(store.delta(*delta)?.tree),
        },
    }
}
