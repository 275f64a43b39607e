//! How one step becomes a delta: its layers are merged and checked out, its command runs over them in a sandbox as if it were
//! root, and what it left is scanned.
//!
//! Everything a step can see is fixed here: host name, paths, user, locale, environment. The wall clock is real; what it leaves
//! in the tree is normalised, because trees have no times.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use executor::{Bind, Ending, Network, RootFs, Sandbox, Streams, Writable};
use store::directory::Ownership;
use store::{DeltaId, Limits};

use crate::{Builder, Error, Result, scan};

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
}

impl<'a> Command<'a> {
    /// A shell script over these layers.
    pub fn new(layers: &'a [DeltaId], command: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self {
            layers,
            command: command.into_iter().map(Into::into).collect(),
            environment: BTreeMap::new(),
            directory: PathBuf::from("/"),
            binds: Vec::new(),
            network: Network::None,
        }
    }
}

/// Runs a command over its layers; gives what it changed.
pub fn run_step(builder: &Builder<'_>, name: &str, command: &Command<'_>) -> Result<DeltaId> {
    let lower = builder.store.merge(command.layers)?;
    let scratch = builder.store.scratch()?;
    let outcome = run(builder, name, command, scratch.path());
    if outcome.is_err() && builder.keep_failed {
        let kept = scratch.keep();
        return outcome.map(|_| unreachable!("the outcome is an error")).map_err(|error| with_kept(error, kept));
    }
    outcome?;
    scan::scan(builder.store, &scratch.path().join("changes"), lower)
}

/// Runs a command over its layers for what it prints or writes into its binds; its changes to the root are thrown away.
pub fn run_tool(builder: &Builder<'_>, name: &str, command: &Command<'_>) -> Result<Vec<u8>> {
    let scratch = builder.store.scratch()?;
    run(builder, name, command, scratch.path())?;
    let path = scratch.path().join("stdout");
    std::fs::read(&path).map_err(Error::file("read", path))
}

fn run(builder: &Builder<'_>, name: &str, command: &Command<'_>, scratch: &Path) -> Result<()> {
    builder.check_interrupt()?;
    let root = builder.store.merge(command.layers)?;
    let checkout = builder.store.checkout(root, Ownership::Caller)?;
    let changes = scratch.join("changes");
    std::fs::create_dir(&changes).map_err(Error::file("create", &changes))?;
    scan::prepare(builder.store, &changes, root)?;
    let mut environment: BTreeMap<OsString, OsString> =
        ENVIRONMENT.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
    environment.extend(command.environment.clone());
    let (stdout, stderr) = (scratch.join("stdout"), scratch.join("stderr"));
    let sandbox = Sandbox {
        root: RootFs { layers: vec![checkout], writable: Writable::Kept(changes) },
        binds: command.binds.clone(),
        command: command.command.clone(),
        environment,
        directory: command.directory.clone(),
        user: (0, 0),
        groups: Vec::new(),
        hostname: "forge".to_owned(),
        network: command.network,
        limits: Limits::default(),
        stop_signal: None,
        streams: Streams::Files(stdout.clone(), stderr.clone()),
        pretend_root: true,
        require: Vec::new(),
        interrupt: Some(Arc::clone(&builder.interrupt)),
    };
    let outcome = builder.backend.run(&sandbox)?;
    builder.check_interrupt()?;
    let ending = match outcome.ending {
        Ending::Exited(0) => return Ok(()),
        Ending::Exited(status) => format!("exit status {status}"),
        Ending::Signalled(signal) => format!("signal {signal}"),
        Ending::TimedOut => "its time was over".to_owned(),
        Ending::OutOfMemory => "it ran out of memory".to_owned(),
    };
    let mut log = tail(&stdout);
    log.push_str(&tail(&stderr));
    Err(Error::Step { step: name.to_owned(), ending, log, kept: None })
}

/// The last 16 KiB of what a command printed.
fn tail(path: &Path) -> String {
    const LENGTH: u64 = 16 * 1024;
    let read = || {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LENGTH)))?;
        let mut bytes = Vec::new();
        file.take(LENGTH).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

fn with_kept(error: Error, path: PathBuf) -> Error {
    match error {
        Error::Step { step, ending, log, .. } => Error::Step { step, ending, log, kept: Some(path) },
        error => error,
    }
}
