//! In which order steps are built: what is here already is not made, the rest as parallel as the graph and the machine allow.
//!
//! A derivation is looked for twice. By its `.drv` path, here: the very same question was answered before, and nothing below it is
//! looked at. By its step key, once its inputs are known (`maker.rs`): the question differs, but what goes in is the same, so what
//! comes out is too (early cutoff). Only then is it made. Of what is ready, that begins first which the most steps must follow one
//! after the other.
//!
//! The thread that called watches: an interrupt, a failure (unless others go on with `keep_going`) and a disk that fills up end
//! what runs.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use store::directory::Claim;
use store::{Derivation, Plan, StorePath};

use crate::journal::Journal;
use crate::maker::{Made, Maker};
use crate::memory::Memory;
use crate::report::Event;
use crate::{Builder, Error, Result, STOP, disk, nix, survey};

/// Downloads that run at a time beside the steps that compute: they wait for others, not for this machine's cores.
const DOWNLOADS: usize = 8;
/// How often interrupts and the disk are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long what runs may take to end by itself after an interrupt.
const GRACE: Duration = Duration::from_millis(300);

/// An output of a derivation, by the path of its `.drv` and its name.
pub type OutputKey = (StorePath, String);

/// What outputs came out as, and how many steps of each phase were made for it.
#[derive(Debug, Clone, Default)]
pub struct Realised {
    /// In the order that was asked for.
    pub claims: Vec<Claim>,
    /// Steps that were made, by phase; the others were here.
    pub made: BTreeMap<String, usize>,
}

/// Makes some outputs of a plan's derivations.
pub fn realise_outputs(builder: &Builder<'_>, plan: &Plan, goals: &[(&StorePath, &str)]) -> Result<Realised> {
    nix::caches::from_caches(builder, plan, goals)?;
    crate::substitute::from_peers(builder, plan, goals)?;
    let mut schedule = Schedule::new(builder, plan, goals)?;
    builder.reporter.report(Event::Planned { steps: schedule.waiting.len(), known: schedule.known.len() });
    if !schedule.waiting.is_empty() {
        let downloads = schedule.waiting.keys().map(|path| &plan.derivations[path]).filter(|it| is_download(it));
        let mut needed: u64 = 0;
        for derivation in downloads {
            if !survey::is_here(builder, derivation)? {
                needed = needed.saturating_add(survey::parameters(derivation).size.unwrap_or_default());
            }
        }
        disk::check_room(builder.store.path(), needed)?;
        schedule.run()?;
    }
    let state = schedule.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    let claim = |(derivation, output): &(&StorePath, &str)| {
        let key = ((*derivation).clone(), (*output).to_owned());
        let found = state.claims.get(&key).or_else(|| schedule.known.get(&key));
        found
            .cloned()
            .ok_or_else(|| Error::NoOutput { step: derivation.name().to_owned(), output: (*output).to_owned() })
    };
    Ok(Realised { claims: goals.iter().map(claim).collect::<Result<_>>()?, made: state.made })
}

struct Schedule<'a> {
    maker: Maker<'a>,
    /// The caller's own sign that the user has interrupted; the maker's is set from it.
    interrupt: Arc<AtomicI32>,
    plan: &'a Plan,
    /// Outputs that were made before.
    known: HashMap<OutputKey, Claim>,
    /// Derivations to be made, and how many of their inputs are still to be made.
    waiting: BTreeMap<StorePath, usize>,
    /// Which waiting derivations use a waiting derivation.
    users: HashMap<StorePath, Vec<StorePath>>,
    /// How many waiting derivations follow each, one after the other.
    followers: HashMap<StorePath, usize>,
    memory: Memory,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    downloads: Queue,
    steps: Queue,
    waiting: BTreeMap<StorePath, usize>,
    /// Steps that are neither done nor given up.
    unfinished: usize,
    /// Steps that compute, at this moment.
    running: usize,
    claims: HashMap<OutputKey, Claim>,
    made: BTreeMap<String, usize>,
    failures: Vec<Error>,
    /// Steps that were not made because something they need has failed.
    given_up: BTreeSet<StorePath>,
    /// What runs is to end.
    stopping: bool,
}

/// What is ready, the most urgent first; of the equally urgent, the one that was ready last: it goes on where others have just ended.
#[derive(Default)]
struct Queue {
    /// How urgent, in which order it came, and which.
    ready: BinaryHeap<(usize, usize, StorePath)>,
    pushed: usize,
}

impl Queue {
    fn push(&mut self, path: StorePath, urgency: usize) {
        self.ready.push((urgency, self.pushed, path));
        self.pushed += 1;
    }

    fn first(&self) -> Option<&StorePath> {
        self.ready.peek().map(|(.., path)| path)
    }

    fn pop(&mut self) -> Option<StorePath> {
        self.ready.pop().map(|(.., path)| path)
    }
}

impl<'a> Schedule<'a> {
    fn new(builder: &Builder<'a>, plan: &'a Plan, goals: &[(&StorePath, &str)]) -> Result<Self> {
        let (known, paths) = unknown(builder, plan, goals)?;
        let mut waiting: BTreeMap<StorePath, usize> = paths.iter().map(|path| (path.clone(), 0)).collect();
        let mut users: HashMap<StorePath, Vec<StorePath>> = HashMap::new();
        for path in paths {
            let inputs = derivation(plan, &path)?.input_derivations.keys().filter(|input| waiting.contains_key(*input));
            let inputs: Vec<StorePath> = inputs.cloned().collect();
            waiting.insert(path.clone(), inputs.len());
            for input in inputs {
                users.entry(input).or_default().push(path.clone());
            }
        }
        let followers = followers(&waiting, &users);
        // What ends the steps of this schedule is not always the user: they hear of it by a sign of their own.
        let interrupt = Arc::clone(&builder.interrupt);
        let builder = Builder { interrupt: Arc::default(), ..builder.clone() };
        let memory = Memory::new(builder.store, waiting.len())?;
        let journal = Journal::new(builder.store, &plan.goal.name);
        let maker = Maker { builder, plan, journal, pending: Mutex::default(), sources: Mutex::default() };
        let (state, changed) = (Mutex::new(State::default()), Condvar::new());
        Ok(Self { maker, interrupt, plan, known, waiting, users, followers, memory, state, changed })
    }

    fn run(&mut self) -> Result<()> {
        {
            let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
            state.waiting = self.waiting.clone();
            state.unfinished = self.waiting.len();
            for (path, _) in self.waiting.iter().filter(|(_, inputs)| **inputs == 0) {
                enqueue(self.plan, state, path.clone(), self.followers[path])?;
            }
        }
        let schedule = &*self;
        std::thread::scope(|scope| {
            let downloads =
                schedule.waiting.keys().filter(|path| is_download(&schedule.plan.derivations[*path])).count();
            for _ in 0..DOWNLOADS.min(downloads) {
                scope.spawn(move || schedule.work(true));
            }
            for _ in 0..schedule.maker.builder.jobs.clamp(1, schedule.waiting.len().max(1)) {
                scope.spawn(move || schedule.work(false));
            }
            schedule.watch();
        });
        let written_down = self.maker.write_down(true);
        let _ = self.maker.journal.flush();
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut failures = std::mem::take(&mut state.failures);
        if let Some(Error::Interrupted { signal }) = failures.first()
            && *signal > 0
        {
            return Err(Error::Interrupted { signal: *signal });
        }
        // What was ended for another's sake is no news.
        if failures.len() > 1 {
            let stopped = |error: &Error| matches!(error, Error::Interrupted { signal } if *signal <= 0);
            failures.retain(|error| !stopped(error));
        }
        let not_made = state.given_up.len();
        match (failures.len(), failures.pop()) {
            (_, None) if state.unfinished == 0 => written_down,
            (_, None) => Err(Error::Interrupted { signal: self.interrupt.load(Ordering::Relaxed).abs() }),
            (1, Some(failure)) if not_made == 0 || !self.maker.builder.keep_going => Err(failure),
            (_, Some(last)) => {
                failures.push(last);
                Err(Error::Steps { failures, not_made })
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the end, and sees to it that it comes when it must.
    fn watch(&self) {
        let mut disk = disk::Watch::new(self.maker.builder.store.path());
        let mut interrupted: Option<Instant> = None;
        let mut state = self.lock();
        while state.unfinished > 0 && !(state.stopping && state.running == 0) {
            let signal = self.interrupt.load(Ordering::Relaxed);
            if signal != 0 && interrupted.is_none() {
                interrupted = Some(Instant::now());
                state.failures.insert(0, Error::Interrupted { signal: signal.abs() });
                self.stop(&mut state, signal.abs());
            }
            if interrupted.is_some_and(|since| since.elapsed() >= GRACE) {
                self.maker.builder.interrupt.store(-signal.abs(), Ordering::Relaxed);
            }
            if !state.stopping
                && state.running > 0
                && let Some(left) = disk.is_filling_up()
            {
                state.failures.insert(0, Error::DiskFull { path: self.maker.builder.store.path().to_owned(), left });
                self.stop(&mut state, STOP);
            }
            drop(state);
            let written_down = self.maker.write_down(false);
            state = self.lock();
            if let Err(error) = written_down {
                state.failures.push(error);
                self.stop(&mut state, STOP);
            }
            if state.unfinished > 0 && !(state.stopping && state.running == 0) {
                state = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Nothing begins any more, and what runs is told to end; at once, if the number is negative.
    fn stop(&self, state: &mut State, signal: i32) {
        state.stopping = true;
        self.maker.builder.interrupt.store(signal, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// One thread: takes what is ready until nothing is left or everything is to end.
    fn work(&self, downloads: bool) {
        loop {
            let mut state = self.lock();
            let path = loop {
                if state.unfinished == 0 || state.stopping {
                    return;
                }
                let running = state.running;
                let queue = if downloads { &mut state.downloads } else { &mut state.steps };
                match queue.first() {
                    // Alone, a step gets what there is.
                    Some(path) if downloads || running == 0 || self.memory.admits(path) => {
                        break queue.pop().expect("it was there a moment ago");
                    }
                    Some(_) => {
                        state = self.changed.wait_timeout(state, LOOK * 4).unwrap_or_else(PoisonError::into_inner).0;
                    }
                    None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            };
            state.running += 1;
            let inputs = self.input_claims(&state, &path);
            drop(state);
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.maker.make(&path, &inputs)));
            let mut state = self.lock();
            state.running -= 1;
            match result {
                Ok(Ok(made)) => self.done(&mut state, &path, made),
                Ok(Err(error)) => self.failed(&mut state, &path, error),
                Err(panic) => {
                    // The other threads must not wait for ever for a step that will never be done.
                    self.failed(&mut state, &path, Error::Interrupted { signal: 0 });
                    self.stop(&mut state, STOP);
                    drop(state);
                    std::panic::resume_unwind(panic);
                }
            }
            let (left, steps) = (state.unfinished, self.waiting.len());
            drop(state);
            self.maker.builder.reporter.report(Event::Progress { done: steps - left, steps });
            self.changed.notify_all();
        }
    }

    fn done(&self, state: &mut State, path: &StorePath, made: Made) {
        state.claims.extend(made.claims.into_iter().map(|(output, claim)| ((path.clone(), output), claim)));
        if let Some(phase) = made.phase {
            *state.made.entry(phase.to_owned()).or_default() += 1;
        }
        state.unfinished -= 1;
        for user in self.users.get(path).into_iter().flatten() {
            let left = state.waiting.get_mut(user).expect("a user waits");
            *left -= 1;
            if *left == 0 && !state.given_up.contains(user) {
                enqueue(self.plan, state, user.clone(), self.followers[user]).expect("the plan has what it waits for");
            }
        }
    }

    fn failed(&self, state: &mut State, path: &StorePath, error: Error) {
        state.failures.push(error);
        state.unfinished -= 1;
        if !self.maker.builder.keep_going && !state.stopping {
            self.stop(state, STOP);
        }
        // Whatever needs it will never be ready.
        let mut open: Vec<&StorePath> = self.users.get(path).into_iter().flatten().collect();
        while let Some(user) = open.pop() {
            if state.given_up.insert(user.clone()) {
                state.unfinished -= 1;
                open.extend(self.users.get(user).into_iter().flatten());
            }
        }
    }

    fn input_claims(&self, state: &State, path: &StorePath) -> BTreeMap<OutputKey, Claim> {
        let mut inputs = BTreeMap::new();
        for (input, outputs) in &self.plan.derivations[path].input_derivations {
            for output in outputs {
                let key = (input.clone(), output.clone());
                let claim = state.claims.get(&key).or_else(|| self.known.get(&key)).expect("inputs are made first");
                inputs.insert(key, claim.clone());
            }
        }
        inputs
    }
}

/// Walks from the goals down, as far as nothing is known: gives the outputs that were made before, and the derivations to be made.
pub(crate) fn unknown(
    builder: &Builder<'_>,
    plan: &Plan,
    goals: &[(&StorePath, &str)],
) -> Result<(HashMap<OutputKey, Claim>, BTreeSet<StorePath>)> {
    let (mut known, mut unknown) = (HashMap::new(), BTreeSet::new());
    let mut open: Vec<OutputKey> = goals.iter().map(|(path, output)| ((*path).clone(), (*output).to_owned())).collect();
    let mut seen: BTreeSet<OutputKey> = open.iter().cloned().collect();
    while let Some(key) = open.pop() {
        let (path, output) = &key;
        let wanted = derivation(plan, path)?;
        if let Some(claim) = builder.store.claim_of_output(path, output)?
            && (!nix::is_nix(wanted) || nix::info::is_whole(builder.store, &claim)?)
        {
            known.insert(key, claim);
            continue;
        }
        if !unknown.insert(path.clone()) {
            continue;
        }
        for (input, outputs) in &wanted.input_derivations {
            for output in outputs {
                let key = (input.clone(), output.clone());
                if seen.insert(key.clone()) {
                    open.push(key);
                }
            }
        }
    }
    Ok((known, unknown))
}

/// A derivation of the plan.
pub(crate) fn derivation<'a>(plan: &'a Plan, path: &StorePath) -> Result<&'a Derivation> {
    plan.derivations.get(path).ok_or_else(|| Error::NotInPlan { path: path.to_string() })
}

/// Whether a step waits for others rather than for this machine.
pub(crate) fn is_download(derivation: &Derivation) -> bool {
    matches!(derivation.builder.as_slice(), b"builtin:fetch" | b"builtin:fetchurl")
}

fn enqueue(plan: &Plan, state: &mut State, path: StorePath, urgency: usize) -> Result<()> {
    let queue = if is_download(derivation(plan, &path)?) { &mut state.downloads } else { &mut state.steps };
    queue.push(path, urgency);
    Ok(())
}

/// For each waiting derivation, the longest chain of others that wait for it. `waiting`: how many inputs of each wait too.
fn followers(
    waiting: &BTreeMap<StorePath, usize>,
    users: &HashMap<StorePath, Vec<StorePath>>,
) -> HashMap<StorePath, usize> {
    let users = |path: &StorePath| users.get(path).into_iter().flatten();
    let mut inputs = waiting.clone();
    let mut order: Vec<StorePath> =
        waiting.iter().filter(|(_, inputs)| **inputs == 0).map(|(path, _)| path.clone()).collect();
    let mut ready = order.clone();
    while let Some(path) = ready.pop() {
        for user in users(&path) {
            let left = inputs.get_mut(user).expect("a user waits");
            *left -= 1;
            if *left == 0 {
                order.push(user.clone());
                ready.push(user.clone());
            }
        }
    }
    let mut followers: HashMap<StorePath, usize> = HashMap::new();
    for path in order.into_iter().rev() {
        let longest = users(&path).filter_map(|user| followers.get(user)).max().map_or(0, |most| most + 1);
        followers.insert(path, longest);
    }
    followers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> StorePath {
        StorePath::parse(&format!("/nix/store/{}-{name}", "0".repeat(32))).unwrap()
    }

    #[test]
    fn what_the_longest_chain_waits_for_comes_first() {
        let uses = [("goal", "one"), ("goal", "chain"), ("chain", "two"), ("chain", "three")];
        let mut users: HashMap<StorePath, Vec<StorePath>> = HashMap::new();
        let mut waiting: BTreeMap<StorePath, usize> = BTreeMap::new();
        for (user, input) in uses {
            users.entry(path(input)).or_default().push(path(user));
            waiting.entry(path(input)).or_default();
            *waiting.entry(path(user)).or_default() += 1;
        }
        let followers = followers(&waiting, &users);
        let mut queue = Queue::default();
        for name in ["one", "two", "three"] {
            queue.push(path(name), followers[&path(name)]);
        }
        // Of equal ones the last: `chain` is ready now, and goes on before `one` begins.
        let mut order = vec![queue.pop().unwrap(), queue.pop().unwrap()];
        queue.push(path("chain"), followers[&path("chain")]);
        assert_eq!(queue.first(), Some(&path("chain")));
        order.extend(std::iter::from_fn(|| queue.pop()));
        assert_eq!(order, ["three", "two", "chain", "one"].map(path));
        assert_eq!(followers[&path("goal")], 0);
    }
}
