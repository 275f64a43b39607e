//! `forge run` and `forge shell`: find or build the formation, describe the sandbox, and become its command's exit status.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use executor::{Backend, Bind, Ending, Network, Outcome, RootFs, Sandbox, Streams, Writable};
use store::directory::Ownership;
use store::formation::Identity;
use store::{Formation, FormationId, Launch, Limits, Port, Store};

use crate::args::{ExpressionArguments, NetworkChoice, RunArguments, RunOptions, ShellArguments, Target};
use crate::context::{Context, absolute};
use crate::error::{Failure, Result, code};
use crate::{render, units};

/// `forge run`
pub fn run(arguments: &RunArguments, context: &Context) -> Result<ExitCode> {
    let words = Words { entrypoint: arguments.entrypoint.clone(), arguments: arguments.command.clone() };
    execute(&arguments.target, &|launch| words.command(launch), context)
}

/// What the command line says is to be run.
struct Words {
    entrypoint: Option<OsString>,
    arguments: Vec<OsString>,
}

impl Words {
    /// As container engines put it together: entrypoint, then arguments, which the formation's command stands in for. With
    /// another entrypoint the command, which was meant for the first one, does not count.
    fn command(&self, launch: &Launch) -> Vec<OsString> {
        let words = |words: &[Vec<u8>]| words.iter().cloned().map(OsString::from_vec).collect::<Vec<_>>();
        let mut command = match &self.entrypoint {
            Some(program) if program.is_empty() => Vec::new(),
            Some(program) => vec![program.clone()],
            None => words(&launch.entrypoint),
        };
        match self.arguments.is_empty() && self.entrypoint.is_none() {
            true => command.extend(words(&launch.command)),
            false => command.extend(self.arguments.iter().cloned()),
        }
        command
    }
}

/// `forge shell`
pub fn shell(arguments: &ShellArguments, context: &Context) -> Result<ExitCode> {
    if arguments.failed_step {
        return shell_of_step(&arguments.target.formation, context);
    }
    let command =
        vec!["/bin/sh".into(), "-c".into(), "if command -v bash >/dev/null; then exec bash; else exec sh; fi".into()];
    execute(&arguments.target, &|_| command.clone(), context)
}

/// Enters the directory of a failed step, as its command saw it and left it.
fn shell_of_step(given: &str, context: &Context) -> Result<ExitCode> {
    let store = context.store()?;
    let mut found = builder::kept::find(&store, given)?;
    if found.is_empty() {
        let names: std::collections::BTreeSet<String> =
            builder::kept::find(&store, "")?.into_iter().map(|(_, kept)| kept.name).collect();
        let failure = Failure::new(code::NOT_FOUND, format!("no directory of a failed step `{given}` was kept"));
        return Err(match names.is_empty() {
            true => failure.hint("`forge build --keep-failed` keeps them"),
            false => failure.hint(format!("kept are: {}", names.into_iter().collect::<Vec<_>>().join(", "))),
        });
    }
    let (_, kept) = found.swap_remove(0);
    let mut sandbox = kept.sandbox(&store, kept.shell(&store)?)?;
    if let Some(term) = context.variable("TERM") {
        sandbox.environment.insert("TERM".into(), term.clone());
    }
    let _lease = store.hold(&[kept.root])?;
    if !context.global.quiet {
        let command: Vec<_> = kept.command.iter().map(|word| word.to_string_lossy()).collect();
        eprintln!("forge: step `{}`, whose command was: {}", kept.name, command.join(" "));
    }
    let outcome = context.backend.run(&sandbox)?;
    Ok(report(&outcome, &sandbox.limits, &BTreeSet::new(), context))
}

/// The formation that was meant: an expression's file is built first, an artifact's is taken in.
fn formation(store: &Store, target: &Target, context: &Context) -> Result<FormationId> {
    let given = target.formation.as_str();
    if crate::registries::is_meant(given) {
        return crate::registries::formation(store, given, Some(&this_platform()), context);
    }
    let path = Path::new(given);
    let suffix = path.extension().unwrap_or_default();
    let like_artifact = given.contains('/') || ARTIFACTS.iter().any(|known| suffix == *known);
    if like_artifact
        && let Ok(artifact) = store::format::Artifact::open(path)
        && store::format::of(&artifact).is_ok()
    {
        return super::import::known(store, &artifact, context);
    }
    let like_path = given.contains('/')
        || [".", ".."].contains(&given)
        || path.extension().is_some_and(|suffix| suffix == "expr" || suffix == "nix");
    if !like_path {
        return Ok(store.find(given)?);
    }
    let (file, attribute) = (path.to_owned(), target.attribute.clone());
    let expression = ExpressionArguments { file, attribute, arg: Vec::new(), argstr: Vec::new() };
    Ok(super::build::build(store, &expression, &target.build, context)?.id)
}

/// Suffixes of files that are taken for artifacts without a slash in their path.
const ARTIFACTS: [&str; 4] = ["sif", "squashfs", "sqfs", "tar"];

/// What a formation with these launch settings is to run.
type Choose<'a> = &'a dyn Fn(&Launch) -> Vec<OsString>;

fn execute(target: &Target, command: Choose<'_>, context: &Context) -> Result<ExitCode> {
    let store = context.store()?;
    let id = formation(&store, target, context)?;
    let formation = store.formation(id)?;
    check_platform(&formation)?;
    let sandbox = prepare(&store, &formation, &target.options, command, context)?;
    // A run may take weeks: it holds what it runs on, and leaves the rest of the store to others.
    let _lease = store.hold(&[formation.root])?;
    drop(store);
    let outcome = context.backend.run(&sandbox)?;
    for missing in &outcome.missing {
        if !context.global.quiet {
            eprintln!("forge: {missing}");
        }
    }
    Ok(report(&outcome, &sandbox.limits, &ports(&formation, &target.options)?, context))
}

/// The platform of this machine.
pub(super) fn this_platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("linux/{architecture}")
}

fn check_platform(formation: &Formation) -> Result<()> {
    let here = this_platform();
    if formation.platform == here {
        return Ok(());
    }
    let headline = format!("the formation is for {} and this machine is {here}", formation.platform);
    Err(Failure::new(code::CANNOT_EXECUTE, headline)
        .hint("build its expression here: the same words give a formation for this machine"))
}

/// The sandbox of a run: the formation's launch settings, with what the command line changes.
fn prepare(
    store: &Store,
    formation: &Formation,
    options: &RunOptions,
    command: Choose<'_>,
    context: &Context,
) -> Result<Sandbox> {
    let launch = &formation.launch;
    let command = command(launch);
    if command.is_empty() {
        let failure = Failure::new(code::USAGE, format!("formation `{}` has no command", formation.name));
        return Err(failure.hint(format!("give one: forge run {} -- CMD", formation.name)));
    }
    let exact = executor::backend::native::has_every_user();
    let ownership = if exact { Ownership::Exact } else { Ownership::Caller };
    let checkout = store.checkout(formation.root, ownership)?;
    let network = match options.network {
        Some(NetworkChoice::None) => Network::None,
        Some(NetworkChoice::Host) => Network::Host,
        None if launch.network => Network::Host,
        None => Network::None,
    };
    if network == Network::None && !options.ports.is_empty() {
        let failure = Failure::new(code::USAGE, "--port: nothing outside reaches a port of a run without network");
        return Err(failure.hint("--network host gives it the host's"));
    }
    ports(formation, options)?;
    let identity = identity(store, formation, options)?;
    let mut binds = Vec::new();
    if network == Network::Host {
        // Names are resolved as on the host; a formation has no resolver of its own.
        for path in ["/etc/resolv.conf", "/etc/hosts"] {
            if Path::new(path).exists() {
                binds.push(Bind { source: path.into(), target: path.into(), read_only: true });
            }
        }
    }
    for text in &options.bind {
        binds.push(bind(text)?);
    }
    let directory = options.workdir.clone();
    let directory = directory.or_else(|| launch.directory.as_ref().map(|path| PathBuf::from(OsStr::from_bytes(path))));
    Ok(Sandbox {
        root: RootFs {
            layers: vec![checkout],
            writable: if options.read_only { Writable::No } else { Writable::Temporary },
        },
        binds,
        command,
        environment: environment(formation, options, context)?,
        directory: directory.unwrap_or_else(|| PathBuf::from("/")),
        user: (identity.uid, identity.gid),
        groups: identity.groups,
        hostname: formation.name.chars().take(63).collect(),
        network,
        limits: limits(&launch.limits, options)?,
        stop_signal: match &options.stop_signal {
            Some(text) => Some(text.parse().map_err(|_| bad("--stop-signal", text, "a name such as SIGINT"))?),
            None => launch.stop_signal,
        }
        .map(store::Signal::number),
        streams: Streams::Inherit,
        pretend_root: false,
        require: options.require.clone(),
        interrupt: Some(Arc::clone(&context.interrupt)),
    })
}

/// The ids to run with, by the formation's own `/etc/passwd` and `/etc/group`.
fn identity(store: &Store, formation: &Formation, options: &RunOptions) -> Result<Identity> {
    let user = match &options.user {
        Some(text) => Some(text.parse().map_err(|_| bad("--user", text, "USER or USER:GROUP, names or numbers,"))?),
        None => formation.launch.user.clone(),
    };
    let Some(user): Option<store::User> = user else { return Ok(Identity::default()) };
    // A file that is larger is none of users.
    let read =
        |path: &str| Ok::<_, Failure>(store.content_at(formation.root, path.as_bytes(), 16 << 20)?.unwrap_or_default());
    user.resolve(&read("/etc/passwd")?, &read("/etc/group")?).map_err(|error| {
        Failure::new(code::CANNOT_EXECUTE, error.to_string()).hint("--user UID:GID wants no name to be known")
    })
}

/// The formation's ports and those given beside them.
fn ports(formation: &Formation, options: &RunOptions) -> Result<BTreeSet<Port>> {
    let mut ports = formation.launch.ports.clone();
    for text in &options.ports {
        ports.insert(text.parse().map_err(|_| bad("--port", text, "PORT, PORT/tcp or PORT/udp"))?);
    }
    Ok(ports)
}

fn bad(option: &str, text: &str, wanted: &str) -> Failure {
    Failure::new(code::USAGE, format!("{option} `{text}`: {wanted} is expected"))
}

/// `SOURCE[:TARGET[:ro|rw]]`.
fn bind(text: &str) -> Result<Bind> {
    let mut parts: Vec<&str> = text.split(':').collect();
    let read_only = match parts.last() {
        Some(&"ro") if parts.len() > 1 => parts.pop().is_some(),
        Some(&"rw") if parts.len() > 1 => parts.pop().is_none(),
        _ => false,
    };
    let (source, target) = match parts.as_slice() {
        [source] if !source.is_empty() => (absolute(Path::new(source))?, absolute(Path::new(source))?),
        [source, target] if !source.is_empty() && target.starts_with('/') => {
            (absolute(Path::new(source))?, PathBuf::from(target))
        }
        _ => return Err(bad("--bind", text, "SOURCE[:TARGET[:ro]] with an absolute TARGET")),
    };
    if target.components().all(|part| !matches!(part, Component::Normal(_))) {
        let failure = Failure::new(code::USAGE, format!("--bind `{text}` would hide the formation"));
        return Err(failure.hint("choose a directory below `/`, for instance /host"));
    }
    if !source.exists() {
        let failure = Failure::new(code::NOT_FOUND, format!("--bind: there is no `{}`", source.display()));
        return Err(failure.hint(format!("make it first: mkdir -p {}", source.display())));
    }
    Ok(Bind { source, target, read_only })
}

fn environment(formation: &Formation, options: &RunOptions, context: &Context) -> Result<BTreeMap<OsString, OsString>> {
    let own = formation.launch.environment.iter();
    let mut environment: BTreeMap<OsString, OsString> =
        own.map(|(name, value)| (OsString::from_vec(name.clone()), OsString::from_vec(value.clone()))).collect();
    if let Some(term) = context.variable("TERM") {
        environment.entry("TERM".into()).or_insert_with(|| term.clone());
    }
    for text in &options.env {
        match text.split_once('=') {
            Some(("", _)) => return Err(bad("--env", text, "NAME=VALUE")),
            Some((name, value)) => _ = environment.insert(name.into(), value.into()),
            None => match context.environment.get(OsStr::new(text)) {
                Some(value) => _ = environment.insert(text.into(), value.clone()),
                None => return Err(bad("--env", text, "a variable of the caller, or NAME=VALUE,")),
            },
        }
    }
    Ok(environment)
}

fn limits(own: &Limits, options: &RunOptions) -> Result<Limits> {
    let mut limits = own.clone();
    if let Some(text) = &options.memory {
        limits.memory = Some(units::bytes(text).ok_or_else(|| bad("--memory", text, "a size such as 512M"))?);
    }
    if let Some(text) = &options.cpus {
        limits.cpu_millis = Some(units::thousandths(text).ok_or_else(|| bad("--cpus", text, "a number such as 1.5"))?);
    }
    if let Some(text) = &options.timeout {
        limits.timeout_millis = Some(units::millis(text).ok_or_else(|| bad("--timeout", text, "a time such as 90s"))?);
    }
    limits.pids = options.pids.or(limits.pids);
    for (option, value) in [("--memory", options.memory.as_ref().and(limits.memory)), ("--pids", options.pids)] {
        if value == Some(0) {
            return Err(bad(option, "0", "more than 0"));
        }
    }
    Ok(limits)
}

/// The exit status of a run, and one line naming the limit that ended it.
fn report(outcome: &Outcome, limits: &Limits, ports: &BTreeSet<Port>, context: &Context) -> ExitCode {
    if context.global.json {
        let ports: Vec<String> = ports.iter().map(Port::to_string).collect();
        let record = serde_json::json!({ "schema": 1, "outcome": outcome, "ports": ports });
        eprintln!("{record}");
    }
    match outcome.ending {
        Ending::Exited(status) => ExitCode::from(status as u8),
        Ending::Signalled(signal) => ExitCode::from((128 + signal) as u8),
        Ending::TimedOut => {
            let seconds = limits.timeout_millis.unwrap_or_default() as f64 / 1000.0;
            eprintln!("forge: ended by the time limit of {seconds} s");
            ExitCode::from(code::TIMED_OUT)
        }
        Ending::OutOfMemory => {
            eprintln!("forge: ended by the memory limit of {}", render::size(limits.memory.unwrap_or_default()));
            ExitCode::from(128 + 9)
        }
    }
}
