//! What evaluations gave, kept with all that they asked of the world: while every answer stays the same, none is carried out again.
//!
//! Whatever is wrong with the cache is no error: a damaged entry counts as none, and where nothing can be written nothing is kept.
//! The bytes are drawn in `docs/formats/evaluation-cache.md`, why it is safe is told in `docs/why/evaluation-cache.md`.

mod encoding;
mod entry;
mod key;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use expressions::error::Error;
use expressions::frontend::{Invocation, Sink, nix_instantiate_to};
use expressions::sources::facts::{Answer, Checker, Facts, Stamp};
use expressions::{Evaluated, Format, Message, Outcome, Request, Unanswered};
use store::lock::Lock;

use entry::{Entry, Kept};
use key::Key;

/// Where evaluations are kept.
#[derive(Debug, Clone)]
pub struct EvaluationCache {
    /// None if nothing is kept.
    directory: Option<PathBuf>,
    environment: BTreeMap<OsString, OsString>,
}

/// All entries together are about as large as this at most.
const MOST_BYTES: u64 = 128 << 20;

/// A larger one is not kept.
const LARGEST_ENTRY: usize = 32 << 20;

/// What was changed so shortly before it was read may change again within one tick of the clock, and look as before.
const TICK: i128 = 1_000_000_000;

impl EvaluationCache {
    /// In `$XDG_CACHE_HOME` or `~/.cache`, unless it is not wanted.
    pub fn new(environment: &BTreeMap<OsString, OsString>, wanted: bool) -> Self {
        let variable = |name: &str| environment.get(&OsString::from(name)).filter(|value| !value.is_empty());
        let home = || variable("HOME").map(|home| Path::new(home).join(".cache"));
        let directory = variable("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
        let directory = directory.filter(|directory| wanted && directory.is_absolute());
        let directory = directory.map(|directory| directory.join("forge/evaluations"));
        Self { directory: directory.filter(|directory| is_ours(directory)), environment: environment.clone() }
    }

    /// Keeps nothing.
    pub fn none() -> Self {
        Self { directory: None, environment: BTreeMap::new() }
    }

    /// [`expressions::evaluate`], or what it gave before.
    pub fn evaluate(&self, request: &Request, lock: &Lock) -> Result<Evaluated, Error> {
        let key = || Key::of("plan").request(request, lock).finish();
        self.through(
            request,
            key,
            |request| expressions::evaluate(request, lock),
            &|kept| match kept {
                Kept::Plan(plan) => Some(Evaluated::Plan(plan)),
                _ => None,
            },
            &|evaluated| match evaluated {
                Evaluated::Plan(plan) => Some(Kept::Plan(plan.clone())),
                Evaluated::Unlocked(_) | Evaluated::Unread(_) => None,
            },
        )
    }

    /// [`expressions::eval_to`], or what it gave before.
    pub fn eval_to(
        &self,
        request: &Request,
        lock: &Lock,
        format: Format,
        strict: bool,
    ) -> Result<Outcome<Vec<u8>>, Error> {
        let key = || Key::of("value").text(&format!("{format:?} {strict}")).request(request, lock).finish();
        self.through(
            request,
            key,
            |request| expressions::eval_to(request, lock, format, strict),
            &|kept| match kept {
                Kept::Text(text) => Some(Outcome::Done(text)),
                _ => None,
            },
            &|outcome| match outcome {
                Outcome::Done(text) => Some(Kept::Text(text.clone())),
                Outcome::Unlocked(_) | Outcome::Unread(_) => None,
            },
        )
    }

    fn through<T>(
        &self,
        request: &Request,
        key: impl FnOnce() -> [u8; 32],
        evaluate: impl FnOnce(&Request) -> Result<T, Error>,
        found: &dyn Fn(Kept) -> Option<T>,
        kept: &dyn Fn(&T) -> Option<Kept>,
    ) -> Result<T, Error> {
        let Some((directory, key)) = self.directory.as_deref().map(|directory| (directory, key())) else {
            return evaluate(request);
        };
        let started = SystemTime::now();
        if let Some(entry) = self.look(directory, &key, started)
            && let Some(value) = found(entry.kept)
        {
            if let Some(listener) = &request.listener {
                entry.said.iter().for_each(|message| listener(message));
            }
            return Ok(value);
        }
        let (sources, recorder) = request.sources.recorded();
        let said = Arc::new(Mutex::new(Vec::new()));
        let (words, outer) = (Arc::clone(&said), request.listener.clone());
        let listener = Arc::new(move |message: &Message| {
            words.lock().unwrap_or_else(PoisonError::into_inner).push(message.clone());
            outer.iter().for_each(|listener| listener(message));
        });
        let value = evaluate(&Request { sources, listener: Some(listener), ..request.clone() })?;
        if let Some(kept) = kept(&value)
            && let Some(facts) = recorder.facts()
        {
            let said = std::mem::take(&mut *said.lock().unwrap_or_else(PoisonError::into_inner));
            keep(directory, &key, Entry { facts, said, kept }, started);
        }
        Ok(value)
    }

    /// [`nix_instantiate_to`], or what it printed before.
    pub fn nix_instantiate(&self, invocation: Invocation, sink: &Sink) -> Result<u8, Unanswered> {
        let Some(directory) = self.directory.as_deref() else { return nix_instantiate_to(&invocation, sink) };
        let started = SystemTime::now();
        let key = Key::of("nix-instantiate").invocation(&invocation).finish();
        if let Some(Entry { kept: Kept::Printed(printed), .. }) = self.look(directory, &key, started) {
            printed.iter().for_each(|(stream, bytes)| sink(*stream, bytes));
            return Ok(0);
        }
        let recorder = expressions::sources::facts::Recorder::default();
        let invocation = Invocation { recorder: Some(recorder.clone()), ..invocation };
        let printed = Arc::new(Mutex::new(Vec::new()));
        let (outer, pieces) = (Arc::clone(sink), Arc::clone(&printed));
        let listening: Sink = Arc::new(move |stream, bytes: &[u8]| {
            pieces.lock().unwrap_or_else(PoisonError::into_inner).push((stream, bytes.to_vec()));
            outer(stream, bytes);
        });
        let code = nix_instantiate_to(&invocation, &listening)?;
        if code == 0
            && let Some(facts) = recorder.facts()
        {
            let printed = std::mem::take(&mut *printed.lock().unwrap_or_else(PoisonError::into_inner));
            keep(directory, &key, Entry { facts, said: Vec::new(), kept: Kept::Printed(printed) }, started);
        }
        Ok(code)
    }

    /// The entry of a key, if all its answers are still the same.
    fn look(&self, directory: &Path, key: &[u8; 32], started: SystemTime) -> Option<Entry> {
        let path = directory.join(name(key));
        let bytes = fs::read(&path).ok()?;
        let mut entry = Entry::decode(key, &bytes)?;
        let checker = Checker::new(&self.environment);
        let mut trust = Trust::new(started);
        let mut renewed = false;
        for (question, answer) in &mut entry.facts {
            let now = checker.ask(question, answer).ok()?;
            match (&*answer, now) {
                (Answer::Digest(then, stamp), Answer::Digest(now, new)) if *then == now => {
                    // The same bytes, and they look otherwise than before.
                    if *stamp != new && new.is_some_and(|new| trust.allows(question.path(), &new)) {
                        *answer = Answer::Digest(now, new);
                        renewed = true;
                    }
                }
                (then, now) if *then == now => {}
                _ => return None,
            }
        }
        if renewed {
            write(directory, key, &entry);
        } else if let Ok(file) = fs::File::open(&path) {
            // What is used stays.
            let _ = file.set_modified(started);
        }
        Some(entry)
    }
}

/// Decides whether how a file looks says that its bytes are the same.
struct Trust {
    started: i128,
    devices: BTreeMap<u64, bool>,
}

impl Trust {
    fn new(started: SystemTime) -> Self {
        let since = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { started: i128::try_from(since.as_nanos()).unwrap_or(i128::MAX), devices: BTreeMap::new() }
    }

    fn allows(&mut self, path: Option<&Path>, stamp: &Stamp) -> bool {
        let is_local = *self.devices.entry(stamp.device).or_insert_with(|| path.is_some_and(is_local));
        is_local && stamp.changed + TICK < self.started
    }
}

/// Whether a path is on a file system of this kernel's own, whose clock is ours and which misses no change.
fn is_local(path: &Path) -> bool {
    const BTRFS: u32 = 0x9123_683e;
    const EXT: u32 = 0xef53;
    const F2FS: u32 = 0xf2f5_2010;
    const OVERLAY: u32 = 0x794c_7630;
    const TMPFS: u32 = 0x0102_1994;
    const XFS: u32 = 0x5846_5342;
    const ZFS: u32 = 0x2fc1_2fc1;
    const BCACHEFS: u32 = 0xca45_1a4e;
    const SQUASHFS: u32 = 0x7371_7368;
    const EROFS: u32 = 0xe0f5_e1e2;
    let known = [BTRFS, EXT, F2FS, OVERLAY, TMPFS, XFS, ZFS, BCACHEFS, SQUASHFS, EROFS];
    rustix::fs::statfs(path).is_ok_and(|found| known.contains(&(found.f_type as u32)))
}

/// Makes the directory, and says whether nobody else can write to it.
fn is_ours(directory: &Path) -> bool {
    let _ = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    let user = rustix::process::geteuid().as_raw();
    fs::metadata(directory).is_ok_and(|found| found.is_dir() && found.uid() == user && found.mode() & 0o022 == 0)
}

fn name(key: &[u8; 32]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Keeps an evaluation that began at a time.
fn keep(directory: &Path, key: &[u8; 32], mut entry: Entry, started: SystemTime) {
    distrust(&mut entry.facts, started);
    write(directory, key, &entry);
}

/// Forgets how files looked that may have changed since without looking otherwise: their bytes will be compared.
fn distrust(facts: &mut Facts, started: SystemTime) {
    let mut trust = Trust::new(started);
    for (question, answer) in facts {
        if let Answer::Digest(_, stamp) = answer {
            *stamp = stamp.filter(|stamp| trust.allows(question.path(), stamp));
        }
    }
}

/// Writes an entry beside its place and renames it there; what goes wrong is nobody's loss.
fn write(directory: &Path, key: &[u8; 32], entry: &Entry) {
    let Some(bytes) = entry.encode(key).filter(|bytes| bytes.len() <= LARGEST_ENTRY) else { return };
    let written = tempfile::Builder::new().prefix(".new").tempfile_in(directory).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.persist(directory.join(name(key))).map_err(|error| error.error)
    });
    if written.is_ok() {
        prune(directory);
    }
}

/// Removes what was not used for longest, if there is too much.
fn prune(directory: &Path) {
    prune_to(directory, MOST_BYTES);
}

fn prune_to(directory: &Path, most: u64) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let looked_at = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let found = entry.metadata().ok()?;
        Some((found.modified().ok()?, found.len(), entry.path()))
    });
    let mut all: Vec<_> = looked_at.collect();
    let mut size: u64 = all.iter().map(|(_, size, _)| size).sum();
    if size <= most {
        return;
    }
    all.sort();
    for (_, length, path) in all {
        if size <= most / 4 * 3 {
            return;
        }
        if fs::remove_file(path).is_ok() {
            size -= length;
        }
    }
}

#[cfg(test)]
mod tests;
