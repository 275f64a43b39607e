//! `forge run` and `forge shell`: find or build the formation, describe the sandbox, and become its command's exit status.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use executor::{Backend, Ending, Other, Outcome, Resource, ResourceLimit, RootFs, Sandbox, Streams, Writable};
use store::directory::Ownership;
use store::formation::Identity;
use store::{Formation, FormationId, Launch, Port, Store};

use crate::args::runner::BackendChoice;
use crate::args::{ExpressionArguments, FunctionArguments, RunArguments, RunOptions, ShellArguments, Target};
use crate::context::{Context, this_platform};
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;
use crate::words::say;
use crate::{importing, render, transfer, volumes};

mod checkout;
mod contained;
mod container;
mod exchange;
mod gpus;
mod in_place;
mod mounts;
mod network;
mod options;
mod other;
mod uploads;
mod writable;

pub use writable::{OF as KEPT_OF, lock as lock_kept};

/// `forge run`
pub fn run(arguments: &RunArguments, context: &Context) -> Result<ExitCode> {
    let words = Words { entrypoint: arguments.entrypoint.clone(), arguments: arguments.command.clone() };
    execute(&arguments.target, &|launch| words.command(launch), &Verb::Run(arguments), context)
}

/// Which command was typed: in a container, it is typed again.
pub(super) enum Verb<'a> {
    /// `forge run`
    Run(&'a RunArguments),
    /// `forge run` of these words and no others.
    Words(&'a [OsString]),
    /// `forge shell`
    Shell,
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
    execute(&arguments.target, &|_| command.clone(), &Verb::Shell, context)
}

/// Enters the directory of a failed step, as its command saw it and left it.
fn shell_of_step(given: &str, context: &Context) -> Result<ExitCode> {
    let store = context.store()?;
    let mut found = builder::kept::find(&store, given)?;
    if found.is_empty() {
        let names: BTreeSet<String> = builder::kept::find(&store, "")?.into_iter().map(|(_, kept)| kept.name).collect();
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
        say!("forge: step `{}`, whose command was: {}", kept.name, command.join(" "));
    }
    let outcome = context.backend.run(&sandbox)?;
    Ok(report(&outcome, &sandbox, &BTreeSet::new(), context))
}

/// The formation that was meant: an expression's file is built first, an artifact's is taken in.
pub(super) fn formation(store: &Store, target: &Target, context: &Context) -> Result<FormationId> {
    let given = target.formation.as_str();
    if crate::registries::is_meant(given) {
        return crate::registries::formation(store, given, Some(&this_platform()), context);
    }
    let path = Path::new(given);
    let suffix = path.extension().unwrap_or_default();
    let has_suffix = ARTIFACTS.iter().any(|known| suffix == *known);
    if has_suffix || given.contains('/') {
        match store::format::Artifact::open(path) {
            Ok(artifact) => match store::format::of(&artifact) {
                Ok(_) => return importing::known(store, &artifact, context),
                // By its name it is nothing else.
                Err(error) if has_suffix => return Err(error.into()),
                Err(_) => {}
            },
            Err(_) if has_suffix && !path.exists() && (given.contains('/') || store.find(given).is_err()) => {
                return Err(Failure::new(code::NOT_FOUND, format!("there is no file `{given}`")));
            }
            Err(_) => {}
        }
    }
    let like_path = given.contains('/')
        || [".", ".."].contains(&given)
        || path.extension().is_some_and(|suffix| crate::plan::SUFFIXES.iter().any(|known| suffix == *known));
    if !like_path {
        return match store.find(given) {
            // A digest proves what comes; a name at a peer proves nothing.
            Err(error @ store::Error::NotFound { .. }) => match given.parse() {
                Ok(id) => transfer::missing(store, id, error, context),
                Err(_) => Err(error.into()),
            },
            found => Ok(found?),
        };
    }
    let (file, attribute) = (path.to_owned(), target.attribute.clone());
    let expression = ExpressionArguments { file, attribute, arguments: FunctionArguments::default() };
    Ok(super::build::build(store, &expression, &target.build, context)?.id)
}

/// Suffixes of files that are taken for artifacts without a slash in their path.
const ARTIFACTS: [&str; 4] = ["sif", "squashfs", "sqfs", "tar"];

/// What a formation with these launch settings is to run.
pub(super) type Choose<'a> = &'a dyn Fn(&Launch) -> Vec<OsString>;

/// What a run would be: for others to carry out.
pub fn described(
    target: &Target,
    entrypoint: Option<OsString>,
    arguments: &[OsString],
    context: &Context,
) -> Result<(FormationId, Sandbox)> {
    options::refuse_habits(&target.options.habits)?;
    if let Some(directory) = &target.options.writable {
        let failure = Failure::new(code::USAGE, "--writable: a bundle has a root of its own, which can be written to");
        return Err(
            failure.hint(format!("make a formation of the changes first: forge commit {} NAME", directory.display()))
        );
    }
    let words = Words { entrypoint, arguments: arguments.to_vec() };
    let settled = volumes::settled(&target.options, context)?;
    let options = settled.as_ref().map_or(&target.options, |(options, _)| options);
    let store = context.store()?;
    let id = formation(&store, target, context)?;
    let formation = store.formation(id)?;
    let (sandbox, _) = prepare(&store, id, &formation, options, &|launch| words.command(launch), context)?;
    Ok((id, sandbox))
}

pub(super) fn execute(target: &Target, command: Choose<'_>, verb: &Verb<'_>, context: &Context) -> Result<ExitCode> {
    if target.options.whereabouts.contained {
        contained::begin();
    }
    options::refuse_habits(&target.options.habits)?;
    match volumes::settled(&target.options, context)? {
        Some((options, held)) => execute_settled(&Target { options, ..target.clone() }, &held, command, verb, context),
        None => execute_settled(target, &volumes::Held::default(), command, verb, context),
    }
}

/// The same, when no volume is named any more.
fn execute_settled(
    target: &Target,
    volumes: &volumes::Held,
    command: Choose<'_>,
    verb: &Verb<'_>,
    context: &Context,
) -> Result<ExitCode> {
    let runtime = other::find(&target.options.whereabouts, context)?;
    let store = context.store()?;
    if let Some(code) = in_place::run(&store, target, command, context)? {
        return Ok(code);
    }
    let id = formation(&store, target, context)?;
    let formation = store.formation(id)?;
    check_platform(&formation)?;
    let whereabouts = &target.options.whereabouts;
    if whereabouts.require_parity {
        super::parity::require(id, context)?;
    }
    let choice = whereabouts.backend.unwrap_or_default();
    if choice != BackendChoice::Native {
        return container::run(&store, (id, &formation), &target.options, verb, choice, context);
    }
    let (mut sandbox, _kept) = prepare(&store, id, &formation, &target.options, command, context)?;
    if executor::backend::native::has_every_user() {
        volumes.give(sandbox.user)?;
    }
    let exchange = exchange::Exchange::new(&store, &target.options)?;
    exchange.show(&mut sandbox);
    if whereabouts.measure {
        checkout::measure(&store, formation.root, ownership())?;
    }
    let place = runtime.as_ref().map(|_| store.scratch()).transpose()?;
    // A run may take weeks: it holds what it runs on, and leaves the rest of the store to others.
    let _lease = checkout::close_and_hold(store, formation.root)?;
    let outcome = match (runtime, &place) {
        (Some((program, words)), Some(place)) => {
            Other { program, words, directory: place.path().to_owned() }.run(&sandbox)?
        }
        _ if whereabouts.contained => contained::run(&mut sandbox, &context.backend)?,
        _ => context.backend.run(&sandbox)?,
    };
    for missing in &outcome.missing {
        if !context.global.quiet {
            say!("forge: {missing}");
        }
    }
    exchange.bring_back(context)?;
    Ok(report(&outcome, &sandbox, &network::ports(&formation, &target.options)?, context))
}

/// The sandbox of a run, with its root; and what must stay open as long as it runs.
fn prepare(
    store: &Store,
    id: FormationId,
    formation: &Formation,
    options: &RunOptions,
    command: Choose<'_>,
    context: &Context,
) -> Result<(Sandbox, Option<File>)> {
    // What is wrong with the options is said before anything is laid out on disk.
    let sandbox = describe(store, formation, options, command, context)?;
    if let Some(directory) = &options.writable {
        let (sandbox, file) = writable::keep(store, id, formation, options, directory, sandbox)?;
        return Ok((sandbox, Some(file)));
    }
    let (checkout, _) = store.checkout_to_run(formation.root, ownership())?;
    let writable = if options.read_only { Writable::No } else { Writable::Temporary };
    Ok((Sandbox { root: RootFs { layers: vec![checkout], writable }, ..sandbox }, None))
}

/// The sandbox of a run without its root: the formation's launch settings, with what the command line changes.
fn describe(
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
    let network = network::choose(launch, options);
    let contents = network::hosts(store, formation, options, network)?;
    let mounts = mounts::of(options, network, !contents.is_empty())?;
    mounts.say_what_is_left_out(context);
    let identity = identity(store, formation, options)?;
    let capabilities = options::capabilities(launch, options)?;
    let directory = options.workdir.clone();
    let directory = directory.or_else(|| launch.directory.as_ref().map(|path| PathBuf::from(OsStr::from_bytes(path))));
    Ok(Sandbox {
        binds: mounts.binds,
        memory_mounts: mounts.memory,
        devices: mounts.devices,
        contents,
        published: network::published(formation, options, network)?,
        command,
        environment: environment(formation, options, identity.home, context)?,
        directory: directory.unwrap_or_else(|| PathBuf::from("/")),
        user: (identity.uid, identity.gid),
        groups: identity.groups,
        hostname: network::hostname(formation, options)?,
        network,
        limits: options::limits(&launch.limits, &options.bounds)?,
        bounds: options::bounds(&options.bounds)?,
        capabilities,
        stop_signal: match &options.stop_signal {
            Some(text) => Some(text.parse().map_err(|_| bad("--stop-signal", text, "a name such as SIGINT"))?),
            None => launch.stop_signal,
        }
        .map(store::Signal::number),
        streams: if options.tty { Streams::Terminal } else { Streams::Inherit },
        require: options.bounds.require.clone(),
        interrupt: Some(Arc::clone(&context.interrupt)),
        ..Sandbox::default()
    })
}

/// Whether a checkout's files have the owners that the tree says.
fn ownership() -> Ownership {
    if executor::backend::native::has_every_user() { Ownership::Exact } else { Ownership::Caller }
}

/// The ids to run with, by the formation's own `/etc/passwd` and `/etc/group`.
fn identity(store: &Store, formation: &Formation, options: &RunOptions) -> Result<Identity> {
    let user = match &options.user {
        Some(text) => Some(text.parse().map_err(|_| bad("--user", text, "USER or USER:GROUP, names or numbers,"))?),
        None => formation.launch.user.clone(),
    };
    let Some(user): Option<store::User> = user else {
        return Ok(Identity { home: Some(b"/root".to_vec()), ..Identity::default() });
    };
    // A file that is larger is none of users.
    let read =
        |path: &str| Ok::<_, Failure>(store.content_at(formation.root, path.as_bytes(), 16 << 20)?.unwrap_or_default());
    user.resolve(&read("/etc/passwd")?, &read("/etc/group")?).map_err(|error| {
        Failure::new(code::CANNOT_EXECUTE, error.to_string()).hint("--user UID:GID wants no name to be known")
    })
}

fn bad(option: &str, text: &str, wanted: &str) -> Failure {
    Failure::new(code::USAGE, format!("{option} `{text}`: {wanted} is expected"))
}

fn environment(
    formation: &Formation,
    options: &RunOptions,
    home: Option<Vec<u8>>,
    context: &Context,
) -> Result<BTreeMap<OsString, OsString>> {
    let own = formation.launch.environment.iter();
    let mut environment: BTreeMap<OsString, OsString> =
        own.map(|(name, value)| (OsString::from_vec(name.clone()), OsString::from_vec(value.clone()))).collect();
    // What every formation of root's has is root's home, and not that of whom the caller names.
    let is_roots = |home: &OsString| home == "/root" && formation.launch.user.is_none() && options.user.is_some();
    if environment.get(OsStr::new("HOME")).is_none_or(is_roots) {
        environment.insert("HOME".into(), OsString::from_vec(home.unwrap_or_else(|| b"/".to_vec())));
    }
    if let Some(term) = context.variable("TERM") {
        environment.entry("TERM".into()).or_insert_with(|| term.clone());
    }
    for line in variables_of_files(options)? {
        set_variable(&mut environment, "--env-file", &line, context)?;
    }
    for text in &options.env {
        set_variable(&mut environment, "--env", text, context)?;
    }
    Ok(environment)
}

/// The lines of `--env-file` that say something.
fn variables_of_files(options: &RunOptions) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for path in &options.env_file {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::new(code::NOT_FOUND, format!("--env-file: cannot read `{}`", path.display()))
                .cause(error.to_string())
        })?;
        let said = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.extend(said.map(str::to_owned));
    }
    Ok(lines)
}

fn set_variable(
    environment: &mut BTreeMap<OsString, OsString>,
    option: &str,
    text: &str,
    context: &Context,
) -> Result<()> {
    match text.split_once('=') {
        Some(("", _)) => return Err(bad(option, text, "NAME=VALUE")),
        Some((name, value)) => _ = environment.insert(name.into(), value.into()),
        None => match context.environment.get(OsStr::new(text)) {
            Some(value) => _ = environment.insert(text.into(), value.clone()),
            None => return Err(bad(option, text, "a variable of the caller, or NAME=VALUE,")),
        },
    }
    Ok(())
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

/// A resource limit that ended a run.
fn in_words(limit: ResourceLimit, ending: &Ending) -> String {
    let held = if *ending == Ending::Signalled(libc::SIGKILL) { limit.hard } else { limit.soft };
    let held = held.unwrap_or_default();
    match limit.resource {
        Resource::Cpu => format!("ended by the limit of {held} s of processor time"),
        _ => format!("ended by the limit of {} for a file", render::size(held)),
    }
}

/// The exit status of a run, and one line naming the limit that ended it.
fn report(outcome: &Outcome, sandbox: &Sandbox, ports: &BTreeSet<Port>, context: &Context) -> ExitCode {
    let limits = &sandbox.limits;
    let (code, line) = match outcome.ending {
        Ending::Exited(status) => (status as u8, None),
        Ending::Signalled(signal) => ((128 + signal) as u8, None),
        Ending::TimedOut => {
            let seconds = limits.timeout_millis.unwrap_or_default() as f64 / 1000.0;
            (code::TIMED_OUT, Some(format!("ended by the time limit of {seconds} s")))
        }
        Ending::OutOfMemory => {
            let limit = render::size(limits.memory.unwrap_or_default());
            (code::KILLED, Some(format!("ended by the memory limit of {limit}")))
        }
        Ending::TooMuchOutput => {
            let limit = render::size(sandbox.bounds.output.unwrap_or_default());
            (code::KILLED, Some(format!("ended by the output limit of {limit}")))
        }
    };
    // It went on without the process that it could not start; that it did not end well may come from that.
    let short_of_processes = code != 0 && outcome.met.contains(&"pids");
    let line = line.or_else(|| {
        let count = limits.pids.unwrap_or_default();
        short_of_processes.then(|| format!("the limit of {count} processes was reached"))
    });
    let resource = sandbox.bounds.ended_by(&outcome.ending, outcome.cpu);
    let line = line.or_else(|| resource.map(|limit| in_words(limit, &outcome.ending)));
    if let Some(line) = line {
        say!("forge: {line}");
    }
    if context.global.json {
        let record = serde_json::json!({
            "schema": 1,
            "exit": code,
            "signal": if let Ending::Signalled(signal) = outcome.ending { Some(signal) } else { None },
            "ended_by": match outcome.ending {
                Ending::TimedOut => Some("time"),
                Ending::OutOfMemory => Some("memory"),
                Ending::TooMuchOutput => Some("output"),
                Ending::Exited(_) | Ending::Signalled(_) => resource.map(|limit| limit.resource.name()),
            },
            "outcome": outcome,
            "ports": ports.iter().map(Port::to_string).collect::<Vec<_>>(),
            "published": sandbox.published.iter().map(ToString::to_string).collect::<Vec<_>>(),
        });
        say!("{record}");
    }
    ExitCode::from(code)
}
