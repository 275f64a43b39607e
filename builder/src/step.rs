//! How one step becomes a delta: its layers are merged and checked out, its command runs over them in a sandbox as if it were
//! root, and what it left is scanned.
//!
//! Everything a step can see is fixed here: host name, paths, user, locale, environment. The wall clock is real; what it leaves
//! in the tree is normalised, because trees have no times.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use executor::bounds::{Bounds, Resource, ResourceLimit};
use executor::{Bind, Content, Doors, Ending, Network, Outcome, RootFs, Sandbox, Streams, Writable};
use store::directory::{Ownership, Scratch};
use store::{DeltaId, Limits, TreeId};

use crate::hosts::Hosts;
use crate::hosts::doorkeeper::Doorkeeper;
use crate::kept::Kept;
use crate::{Builder, Error, Result, check, memory, scan};

/// What every program in a step finds in its environment. 315619200 is 1980-01-02 00:00 UTC, the time that every file shows.
pub const ENVIRONMENT: &[(&str, &str)] = &[
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("LANG", "C.UTF-8"),
    ("LC_ALL", "C.UTF-8"),
    ("TZ", "UTC"),
    ("TERM", "dumb"),
    ("SOURCE_DATE_EPOCH", "315619200"),
];

/// The host name inside every step.
pub const HOST_NAME: &str = "forge";

/// Processes and threads of one step: enough for a build on many cores, too few to take a machine down.
pub const MOST_PROCESSES: u64 = 8192;
/// What asks for more of them for so long on end is a program that starts copies of itself.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// Open files of a process of a step, whoever builds: as many as the kernel gives the first process of a machine, and how many a
/// program may ask for, where the caller may.
const OPEN_FILES: (u64, u64) = (1024, 524_288);

/// A command in a step.
#[derive(Debug, Clone)]
pub struct Command<'a> {
    /// What it runs over, lowest first.
    pub layers: &'a [DeltaId],
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// Added to [`ENVIRONMENT`].
    pub environment: BTreeMap<OsString, OsString>,
    /// Working directory; must be there.
    pub directory: PathBuf,
    /// Files of the host, for tools and for inputs that are not layers.
    pub binds: Vec<Bind>,
    /// Closed for every step but a resolver's.
    pub network: Network,
    /// What of a closed network is reached all the same, by a step whose result is known beforehand.
    pub hosts: Hosts,
    /// How long it may take, in milliseconds; as long as it wants, if none is given.
    pub timeout_millis: Option<u64>,
}

impl<'a> Command<'a> {
    /// A program with its arguments over these layers, in their root directory, with nothing else of the host.
    pub fn new(layers: &'a [DeltaId], command: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self {
            layers,
            command: command.into_iter().map(Into::into).collect(),
            environment: BTreeMap::new(),
            directory: PathBuf::from("/"),
            binds: Vec::new(),
            network: Network::None,
            hosts: Hosts::default(),
            timeout_millis: None,
        }
    }
}

/// Runs a command over its layers; gives what it changed.
pub fn run_step(builder: &Builder<'_>, name: &str, command: &Command<'_>) -> Result<DeltaId> {
    let lower = builder.store.merge(command.layers)?;
    let scratch = builder.store.scratch()?;
    let place = place(builder, &scratch)?;
    let log = place.join("log");
    let described = describe(builder, name, command, lower, &place);
    match run(builder, name, command, lower, &place, Streams::File(log.clone()), &log) {
        Ok(()) => scan::scan(builder.store, &place.join("changes"), lower),
        Err(error) if builder.keep_failed && matches!(error, Error::Step { .. }) => {
            Err(described.keep(builder, scratch, &place, error))
        }
        Err(error) => Err(error),
    }
}

/// Runs a command over its layers for what it prints or writes into its binds; its changes to the root are thrown away.
pub fn run_tool(builder: &Builder<'_>, name: &str, command: &Command<'_>) -> Result<Vec<u8>> {
    Ok(run_tool_and_hear(builder, name, command)?.0)
}

/// The same, and what it said beside.
pub fn run_tool_and_hear(builder: &Builder<'_>, name: &str, command: &Command<'_>) -> Result<(Vec<u8>, String)> {
    let lower = builder.store.merge(command.layers)?;
    let scratch = builder.store.scratch()?;
    let place = place(builder, &scratch)?;
    let (stdout, stderr) = (place.join("stdout"), place.join("stderr"));
    let streams = Streams::Files(stdout.clone(), stderr.clone());
    run(builder, name, command, lower, &place, streams, &stderr)?;
    let said = std::fs::read(&stderr).map_err(Error::file("read", stderr))?;
    let answer = std::fs::read(&stdout).map_err(Error::file("read", stdout))?;
    Ok((answer, String::from_utf8_lossy(&said).into_owned()))
}

/// Where a step's files lie while it is made.
pub(crate) fn place(builder: &Builder<'_>, scratch: &Scratch) -> Result<PathBuf> {
    match &builder.work {
        Some(work) => work.place(scratch),
        None => Ok(scratch.path().to_owned()),
    }
}

fn environment(command: &Command<'_>) -> BTreeMap<OsString, OsString> {
    let mut environment: BTreeMap<OsString, OsString> =
        ENVIRONMENT.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
    environment.extend(command.environment.clone());
    environment
}

/// What is written down of a step whose directory is kept.
fn describe(builder: &Builder<'_>, name: &str, command: &Command<'_>, root: TreeId, place: &Path) -> Kept {
    Kept {
        derivation: builder.work.as_ref().map(|work| work.derivation.to_string()).unwrap_or_default(),
        name: name.to_owned(),
        root,
        changes: place.join("changes"),
        environment: environment(command),
        directory: command.directory.clone(),
        user: (0, 0),
        command: command.command.clone(),
    }
}

fn run(
    builder: &Builder<'_>,
    name: &str,
    command: &Command<'_>,
    root: TreeId,
    place: &Path,
    streams: Streams,
    log: &Path,
) -> Result<()> {
    builder.check_interrupt()?;
    let checkout = builder.store.checkout(root, Ownership::Caller)?;
    let changes = place.join("changes");
    std::fs::create_dir(&changes).map_err(Error::file("create", &changes))?;
    scan::prepare(builder.store, &changes, root)?;
    let (_doorkeeper, doors, contents) = attend(builder, &command.hosts, log)?;
    let sandbox = Sandbox {
        root: RootFs { layers: vec![checkout], writable: Writable::Kept(changes) },
        binds: command.binds.clone(),
        command: command.command.clone(),
        environment: environment(command),
        directory: command.directory.clone(),
        user: (0, 0),
        groups: Vec::new(),
        hostname: HOST_NAME.to_owned(),
        network: command.network,
        doors,
        contents,
        limits: limits(command.timeout_millis),
        stop_signal: None,
        streams,
        pretend_root: true,
        require: Vec::new(),
        interrupt: Some(Arc::clone(&builder.interrupt)),
        ..Sandbox::default()
    };
    run_sandbox(builder, name, sandbox, place, log)
}

/// Sees to it that a command reaches the hosts that it names, for as long as the first of what this gives is there.
pub(crate) fn attend(
    builder: &Builder<'_>,
    hosts: &Hosts,
    log: &Path,
) -> Result<(Option<Doorkeeper>, Option<Doors>, Vec<Content>)> {
    if hosts.is_empty() {
        return Ok((None, None, Vec::new()));
    }
    let (doorkeeper, doors, contents) = Doorkeeper::start(builder, hosts, log)?;
    Ok((Some(doorkeeper), Some(doors), contents))
}

/// A time as people write it: `20m`, `1.5s`.
fn duration(millis: u64) -> String {
    match millis {
        millis if millis % 3_600_000 == 0 => format!("{}h", millis / 3_600_000),
        millis if millis % 60_000 == 0 => format!("{}m", millis / 60_000),
        millis => format!("{}s", millis as f64 / 1000.0),
    }
}

/// An amount of memory as people write it: `22.5 GiB`.
fn amount(bytes: u64) -> String {
    match bytes {
        bytes if bytes >= 1 << 30 => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
        bytes => format!("{} MiB", bytes >> 20),
    }
}

/// What bounds every step.
pub(crate) fn limits(timeout_millis: Option<u64>) -> Limits {
    Limits { pids: Some(MOST_PROCESSES), timeout_millis, ..Limits::default() }
}

/// What a step takes of memory at most, and what every process of it may have, whatever the caller's own limits are: programs look at
/// them. No core is left in the tree.
fn bounds() -> Bounds {
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let hard = most.map_or(OPEN_FILES.1, |most| most.min(OPEN_FILES.1));
    let limit = |resource, soft, hard| ResourceLimit { resource, soft: Some(soft), hard: Some(hard) };
    let files = limit(Resource::Nofile, OPEN_FILES.0.min(hard), hard);
    Bounds {
        resources: vec![files, limit(Resource::Core, 0, 0)],
        host_memory: memory::most(),
        refused_for: Some(REFUSED_FOR),
        ..Bounds::default()
    }
}

/// Runs what was described, here or elsewhere; keeps what it printed, and says how it ended if not well.
pub(crate) fn run_sandbox(
    builder: &Builder<'_>,
    name: &str,
    mut sandbox: Sandbox,
    place: &Path,
    log: &Path,
) -> Result<()> {
    sandbox.bounds = bounds();
    let elsewhere = builder.work.as_ref().and_then(|work| work.elsewhere.as_ref());
    let outcome: Outcome = match elsewhere {
        Some(elsewhere) => {
            sandbox.root.layers = check::elsewhere::lay_out(&sandbox.root.layers, &place.join("root"))?;
            elsewhere.run(|| builder.backend.run(&sandbox))?
        }
        None => builder.backend.run(&sandbox)?,
    };
    if let Some(work) = &builder.work {
        work.printed(log)?;
        work.used(outcome.peak_memory);
    }
    builder.check_interrupt()?;
    let ending = match outcome.ending {
        Ending::Exited(0) => return Ok(()),
        Ending::Exited(status) => format!("exit status {status}"),
        Ending::Signalled(signal) => format!("signal {signal}"),
        Ending::TimedOut => format!("timed out after {}", duration(sandbox.limits.timeout_millis.unwrap_or_default())),
        Ending::OutOfMemory => match sandbox.bounds.host_memory {
            Some(most) => format!("it ran out of memory, of which a step here has {}", amount(most)),
            None => "it ran out of memory".to_owned(),
        },
        Ending::TooMuchOutput => "it printed too much".to_owned(),
    };
    let is_many = outcome.met.contains(&"pids") && matches!(outcome.ending, Ending::Exited(_) | Ending::Signalled(_));
    let ending = if is_many { format!("{ending}, at the limit of {MOST_PROCESSES} processes") } else { ending };
    let text = match &builder.work {
        Some(work) => work.log(),
        None => std::fs::read(log).unwrap_or_default(),
    };
    Err(Error::Step { step: name.to_owned(), ending, log: tail(&text), kept: None })
}

/// The last 1 MiB of what a step printed: whoever wants more asks for its log.
pub(crate) fn tail(text: &[u8]) -> String {
    const LENGTH: usize = 1 << 20;
    String::from_utf8_lossy(&text[text.len().saturating_sub(LENGTH)..]).into_owned()
}

#[cfg(test)]
mod tests {
    use executor::Backend;

    use super::*;
    use crate::world::World;

    /// Fails every step, where a directory already has the name of the description of what is kept.
    struct Failing;

    impl Backend for Failing {
        fn name(&self) -> &'static str {
            "failing"
        }

        fn run(&self, sandbox: &Sandbox) -> executor::Result<Outcome> {
            let Writable::Kept(changes) = &sandbox.root.writable else { panic!("a step keeps its changes") };
            std::fs::create_dir(changes.with_file_name("step.json")).unwrap();
            Ok(Outcome { ending: Ending::Exited(3), ..Outcome::default() })
        }
    }

    #[test]
    fn a_step_fails_for_its_own_reason_where_its_files_cannot_be_kept() {
        let world = World::new();
        let builder = Builder { backend: &Failing, keep_failed: true, ..world.builder() };
        let error = run_step(&builder, "x-1", &Command::new(&[], ["/bin/false"])).unwrap_err();
        let Error::Step { ending, kept, .. } = error else { panic!("{error:?}") };
        assert_eq!((ending.as_str(), kept), ("exit status 3", None));
        let notes = world.notes();
        assert!(notes.len() == 1 && notes[0].starts_with("the files of step `x-1` are not kept: "), "{notes:?}");
    }
}
