//! A run in a container of Docker or Podman: the same words, carried out by forge inside.
//!
//! What means something here is translated here: the formation is found (and built), its checkout made, paths become mounts. All else
//! is handed on as words of `forge run`, and forge inside decides as it would anywhere.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use executor::backend::runner::{Container, Engine, Kind, Mount, Power, Reach};
use executor::{Network, Published};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use store::directory::Ownership;
use store::{Formation, FormationId, Limits, Port, Store};

use super::exchange::Exchange;
use super::{
    Verb, checkout, contained, environment as variables, mounts, network, options as values, variables_of_files,
    writable,
};
use crate::args::runner::{BackendChoice, WhereOptions};
use crate::args::{BoundOptions, RunArguments, RunOptions};
use crate::context::{Context, absolute};
use crate::engines;
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;
use crate::runner_image;

/// Where the store is in the container.
const STORE: &str = "/forge/store";

/// The first port of the container that stands for one of the program. Who has no power over the network may not take one below 1024,
/// and two of the host may lead to one of the program.
const BETWEEN: u16 = 10_000;

/// Runs a formation in a container; its exit status.
pub fn run(
    store: &Store,
    (id, formation): (FormationId, &Formation),
    options: &RunOptions,
    verb: &Verb<'_>,
    choice: BackendChoice,
    context: &Context,
) -> Result<ExitCode> {
    let engine = engines::engine(choice, context)?;
    let exchange = Exchange::new(store, options)?;
    let mut container = container(store, &engine, (id, formation), options, &exchange, verb, context)?;
    let sign = contained::Sign::new(store);
    let begun = |place: &Path| Mount { source: place.to_owned(), target: contained::BEGUN.into(), read_only: false };
    container.mounts.extend(sign.place().map(begun));
    let _lease = checkout::hold(store, formation.root)?;
    for attempt in 0..2 {
        container.image = runner_image::ensure(store, &engine, &formation.platform, context)?;
        let status = wait(engine.start(&container)?)?;
        // With these engines say that they started nothing; and so does forge inside, in words of its own.
        let is_engines = (125..=127).contains(&status) && sign.is_missing();
        if !is_engines {
            exchange.bring_back(context)?;
            return Ok(ExitCode::from(status as u8));
        }
        // The engine may have lost the image since it was noted that it has it.
        if attempt > 0 || engine.image(&container.image)?.is_some() {
            let headline = format!("{} did not run the container", engine.kind.name());
            return Err(Failure::new(code::BUILD_FAILED, headline)
                .cause(format!("it ended with status {status}; its words are above"))
                .hint("FORGE_RUNNER_ENGINE says how it is called, FORGE_RUNNER_OPTIONS is added to its `run`; --backend native does without it"));
        }
        runner_image::forget(&engine, context);
    }
    Ok(ExitCode::from(code::RUN_FAILED))
}

/// Words for forge inside.
#[derive(Default)]
struct Words(Vec<OsString>);

impl Words {
    fn option(&mut self, name: &str, value: impl AsRef<OsStr>) {
        self.0.push(name.into());
        self.0.push(value.as_ref().to_owned());
    }

    fn options<T: AsRef<OsStr>>(&mut self, name: &str, values: impl IntoIterator<Item = T>) {
        values.into_iter().for_each(|value| self.option(name, value));
    }

    fn flag(&mut self, name: &str, wanted: bool) {
        self.0.extend(wanted.then(|| name.into()));
    }
}

/// The container of a run, but for its image.
fn container(
    store: &Store,
    engine: &Engine,
    (id, formation): (FormationId, &Formation),
    options: &RunOptions,
    exchange: &Exchange,
    verb: &Verb<'_>,
    context: &Context,
) -> Result<Container> {
    let shown = vec![Mount { source: store.path().to_owned(), target: STORE.into(), read_only: true }];
    let mut draft = Draft { words: Words::default(), mounts: shown, devices: Vec::new() };
    draft.begin(verb, options, context);
    draft.files(options, exchange, context)?;
    let reach = draft.network(formation, options)?;
    draft.settings(options);
    draft.command(id, verb);
    // The values of these do not stand in the list of processes.
    // Forge inside does it again, and would name files as it is shown them.
    variables(formation, options, None, context)?;
    let of_files = variables_of_files(options)?;
    let named = options.env.iter().chain(&of_files).filter(|text| !text.contains('=')).map(OsString::from);
    // Podman has a terminal of its own mind where the caller has none.
    let terminal = if context.variable("TERM").is_some() { "TERM" } else { "TERM=" };
    let environment: Vec<OsString> = named.chain([terminal.into()]).collect();
    let power = power(engine);
    // The checkout is made where there is room for it: the container sees the store and cannot write to it.
    if options.writable.is_some() {
        store.checkout(formation.root, writable::OWNERSHIP)?;
    } else {
        store
            .checkout_to_run(formation.root, if power == Power::Root { Ownership::Exact } else { Ownership::Caller })?;
    }
    let limits = values::limits(&formation.launch.limits, &options.bounds)?;
    refuse_what_is_no_text(&draft, &environment, engine, context)?;
    let has_groups = !engine.options.iter().any(|option| option == "--cgroups=disabled");
    Ok(Container {
        image: String::new(),
        platform: formation.platform.clone(),
        power,
        mounts: draft.mounts,
        resources: resources(),
        devices: draft.devices,
        environment,
        reach,
        limits: if has_groups { limits } else { Limits::default() },
        swap: values::bounds(&options.bounds)?.swap.unwrap_or_default(),
        terminal: io::stdin().is_terminal() && io::stdout().is_terminal(),
        arguments: draft.words.0,
    })
}

/// What forge inside is told, and what it is shown for that.
struct Draft {
    words: Words,
    mounts: Vec<Mount>,
    devices: Vec<PathBuf>,
}

impl Draft {
    /// The verb, and what holds for any.
    fn begin(&mut self, verb: &Verb<'_>, options: &RunOptions, context: &Context) {
        let words = &mut self.words;
        words.0.push(match verb {
            Verb::Run(_) | Verb::Words(_) => "run".into(),
            Verb::Shell => "shell".into(),
        });
        words.option("--backend", "native");
        words.option("--store", STORE);
        words.option("--color", if context.color() { "always" } else { "never" });
        words.flag("--quiet", context.global.quiet);
        words.flag("--json", context.global.json);
        words.flag("--contained", true);
        words.flag("--measure", options.whereabouts.measure);
    }

    /// Shows something of this host; gives where it is inside.
    fn show(&mut self, source: PathBuf, kind: &str, read_only: bool) -> PathBuf {
        let target = PathBuf::from(format!("/forge/{kind}/{}", self.mounts.len()));
        self.mounts.push(Mount { source, target: target.clone(), read_only });
        target
    }

    /// What is named by paths of this host.
    fn files(&mut self, options: &RunOptions, exchange: &Exchange, context: &Context) -> Result<()> {
        let wanted = mounts::of(options, Network::None, false)?;
        wanted.say_what_is_left_out(context);
        for bind in wanted.binds.into_iter().chain(exchange.binds.iter().cloned()) {
            let mut text = self.show(bind.source, "binds", bind.read_only).into_os_string();
            text.push(":");
            text.push(&bind.target);
            text.push(if bind.read_only { ":ro" } else { ":rw" });
            self.words.option("--bind", text);
        }
        for memory in wanted.memory {
            let mut text = memory.target.into_os_string();
            let size = memory.size.map(|size| format!("size={size},")).unwrap_or_default();
            text.push(format!(":{size}mode={:o}", memory.mode));
            self.words.option("--tmpfs", text);
        }
        for device in wanted.devices {
            let mut text = device.source.clone().into_os_string();
            text.push(":");
            text.push(&device.target);
            self.words.option("--device", text);
            self.devices.push(device.source);
        }
        for path in &options.env_file {
            let shown = self.show(absolute(path)?, "variables", true);
            self.words.option("--env-file", shown);
        }
        if let Some(directory) = &options.writable {
            let shown = self.show(writable::make(directory)?, "writable", false);
            self.words.option("--writable", shown);
        }
        Ok(())
    }

    /// The network and its ports; gives what of it the container must reach.
    fn network(&mut self, formation: &Formation, options: &RunOptions) -> Result<Reach> {
        let choice = network::choose(&formation.launch, options);
        let published = network::published(formation, options, choice)?;
        self.words.option("--network", if choice == Network::Host { "host" } else { "none" });
        // The engine brings each from the host's address to a port of the container, forge from there to the program.
        for (port, between) in published.iter().zip(BETWEEN..) {
            self.words.option("--port", format!("{}:{between}:{}", Ipv4Addr::UNSPECIFIED, port.inside));
        }
        Ok(match (choice, published.is_empty()) {
            (Network::Host, _) => Reach::Host,
            (Network::None, true) => Reach::None,
            (Network::None, false) => {
                let port = |(port, number): (&Published, u16)| {
                    format!("{}:{}", port.listens_on(), Port { number, ..port.inside })
                };
                Reach::Published(published.iter().zip(BETWEEN..).map(port).collect())
            }
        })
    }

    /// What means the same inside.
    fn settings(&mut self, options: &RunOptions) {
        // Named one by one, so that an option that is new is not forgotten here.
        let RunOptions {
            bind: _,
            volume: _,
            mount: _,
            tmpfs: _,
            device: _,
            gpu: _,
            ports: _,
            publish_all: _,
            network: _,
            interactive: _,
            env,
            env_file: _,
            add_host,
            hostname,
            workdir,
            user,
            cap_add,
            cap_drop,
            tty,
            stop_signal,
            read_only,
            writable: _,
            whereabouts:
                WhereOptions {
                    backend: _,
                    // Refused together with a container.
                    runtime: _,
                    input: _,
                    output: _,
                    output_size: _,
                    measure: _,
                    trust: _,
                    fuse: _,
                    require_parity: _,
                    contained: _,
                },
            bounds,
            habits: _,
            verbose: _,
        } = options;
        let words = &mut self.words;
        words.options("--env", env);
        words.options("--add-host", add_host);
        words.options("--hostname", hostname);
        words.options("--workdir", workdir);
        words.options("--user", user);
        words.options("--cap-add", cap_add);
        words.options("--cap-drop", cap_drop);
        words.options("--stop-signal", stop_signal);
        words.flag("--tty", *tty);
        words.flag("--read-only", *read_only);
        add_bounds(words, bounds);
    }

    /// Which formation, and what is run of it.
    fn command(&mut self, id: FormationId, verb: &Verb<'_>) {
        let (entrypoint, command) = match verb {
            Verb::Run(RunArguments { entrypoint, command, .. }) => (entrypoint.clone(), command.as_slice()),
            Verb::Words(command) => (Some(OsString::new()), *command),
            Verb::Shell => (None, &[][..]),
        };
        self.words.options("--entrypoint", entrypoint);
        self.words.0.push(id.to_string().into());
        if !command.is_empty() {
            self.words.0.push("--".into());
            self.words.0.extend(command.iter().cloned());
        }
    }
}

/// An engine keeps what it is told in JSON, and puts U+FFFD for what is not UTF-8.
fn refuse_what_is_no_text(draft: &Draft, environment: &[OsString], engine: &Engine, context: &Context) -> Result<()> {
    let words = draft.words.0.iter().map(OsString::as_os_str).map(|word| ("an argument", word));
    let values = environment.iter().filter_map(|name| context.environment.get(name.as_os_str()));
    let values = values.map(|value| ("a variable", value.as_os_str()));
    let paths = draft.mounts.iter().map(|mount| &mount.source).chain(&draft.devices);
    let paths = paths.map(|path| ("a path", path.as_os_str()));
    match words.chain(values).chain(paths).find(|(_, text)| text.to_str().is_none()) {
        Some((what, text)) => {
            let headline =
                format!("{} cannot be told of {what} that is not UTF-8: `{}`", engine.kind.name(), text.display());
            Err(Failure::new(code::USAGE, headline).hint("--backend native does it where Linux runs"))
        }
        None => Ok(()),
    }
}

/// The limits of this process that a program would have without an engine between. Elsewhere than on Linux they are another kernel's.
fn resources() -> Vec<String> {
    use rustix::process::{Resource, getrlimit};
    if !cfg!(target_os = "linux") {
        return Vec::new();
    }
    let value = |limit: Option<u64>| limit.map_or_else(|| "-1".to_owned(), |limit| limit.to_string());
    [("nofile", Resource::Nofile), ("nproc", Resource::Nproc)]
        .into_iter()
        .map(|(name, resource)| (name, getrlimit(resource)))
        .map(|(name, limit)| format!("{name}={}:{}", value(limit.current), value(limit.maximum)))
        .collect()
}

fn add_bounds(words: &mut Words, bounds: &BoundOptions) {
    let BoundOptions {
        memory,
        swap,
        cpus,
        cpu_shares,
        cpuset,
        pids,
        io,
        timeout,
        max_output,
        tmpfs_size,
        ulimit,
        require,
    } = bounds;
    for (name, value) in [
        ("--memory", memory),
        ("--swap", swap),
        ("--cpus", cpus),
        ("--cpuset-cpus", cpuset),
        ("--io", io),
        ("--timeout", timeout),
        ("--max-output", max_output),
        ("--tmpfs-size", tmpfs_size),
    ] {
        words.options(name, value);
    }
    words.options("--cpu-shares", cpu_shares.map(|number| number.to_string()));
    words.options("--pids", pids.map(|number| number.to_string()));
    words.options("--ulimit", ulimit);
    words.options("--require", require);
}

/// What forge inside needs to be who we are.
fn power(engine: &Engine) -> Power {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    match engine.kind {
        _ if uid.is_root() && executor::backend::native::has_every_user() => Power::Root,
        Kind::Podman => Power::Rootless,
        Kind::Docker => Power::User(uid.as_raw(), gid.as_raw()),
    }
}

/// Waits for the engine's program; meanwhile it gets the signals that we get.
fn wait(mut child: std::process::Child) -> Result<i32> {
    let failed =
        |error: io::Error| Failure::new(code::RUN_FAILED, "cannot wait for the engine").cause(error.to_string());
    // What is typed goes to the whole group, the engine included.
    let shared = io::stdin().is_terminal() || io::stdout().is_terminal() || io::stderr().is_terminal();
    let mut signals =
        signal_hook::iterator::Signals::new([SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2]).map_err(failed)?;
    let handle = signals.handle();
    let pid = rustix::process::Pid::from_child(&child);
    let forwarder = std::thread::spawn(move || {
        for signal in signals.forever() {
            let typed = shared && (signal == SIGINT || signal == SIGQUIT);
            if let Some(signal) = rustix::process::Signal::from_named_raw(signal)
                && !typed
            {
                let _ = rustix::process::kill_process(pid, signal);
            }
        }
    });
    // It is collected when nobody sends it signals any more: its number might be another's then.
    let _ = rustix::io::retry_on_intr(|| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT));
    handle.close();
    let _ = forwarder.join();
    let status = child.wait().map_err(failed);
    use std::os::unix::process::ExitStatusExt;
    let status = status?;
    Ok(status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(i32::from(code::RUN_FAILED)))
}
