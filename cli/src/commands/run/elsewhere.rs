//! A run in a container of Docker or Podman: the same words, carried out by forge inside.
//!
//! What means something here is translated here: the formation is found (and built), its checkout made, paths become mounts. All else
//! is handed on as words of `forge run`, and forge inside decides as it would anywhere.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use executor::backend::runner::{Container, Engine, Kind, Mount, Power, Reach};
use executor::{Backend, Ending, Native, Network, Outcome, Published, Sandbox};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use store::directory::{Lease, Ownership};
use store::{Formation, FormationId, Limits, Store, TreeId};

use super::exchange::Exchange;
use super::{Verb, mounts, network, options as values};
use crate::args::runner::{BackendChoice, WhereOptions};
use crate::args::{BoundOptions, RunArguments, RunOptions};
use crate::context::{Context, absolute};
use crate::engines;
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;
use crate::runner_image;

/// Where the store is in the container.
const STORE: &str = "/forge/store";
/// Where the control groups are seen.
const GROUPS: &str = "/sys/fs/cgroup";

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
    let _lease = lease(store, formation.root)?;
    for attempt in 0..2 {
        container.image = runner_image::ensure(store, &engine, &formation.platform, context)?;
        let status = wait(engine.start(&container)?)?;
        // The engine may have lost the image since it was noted that it has it.
        let failed = status == i32::from(code::RUN_FAILED) && attempt == 0;
        if !failed || engine.image(&container.image)?.is_some() {
            exchange.bring_back(context)?;
            return Ok(ExitCode::from(status as u8));
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
        env_file,
        add_host,
        hostname,
        workdir,
        user,
        cap_add,
        cap_drop,
        tty,
        stop_signal,
        read_only,
        writable,
        whereabouts:
            WhereOptions {
                backend: _,
                // Refused together with a container.
                runtime: _,
                input: _,
                output: _,
                output_size: _,
                measure,
                trust: _,
                fuse: _,
                require_parity: _,
                contained: _,
            },
        bounds,
        habits: _,
        verbose: _,
    } = options;
    let mut words = Words(vec![match verb {
        Verb::Run(_) | Verb::Words(_) => "run".into(),
        Verb::Shell => "shell".into(),
    }]);
    words.option("--backend", "native");
    words.option("--store", STORE);
    words.option("--color", if context.color() { "always" } else { "never" });
    words.flag("--quiet", context.global.quiet);
    words.flag("--json", context.global.json);
    words.flag("--contained", true);
    words.flag("--measure", *measure);

    let mut mounts = vec![Mount { source: store.path().to_owned(), target: STORE.into(), read_only: true }];
    let mut show = |source: PathBuf, kind: &str, read_only: bool| {
        let target = PathBuf::from(format!("/forge/{kind}/{}", mounts.len()));
        mounts.push(Mount { source, target: target.clone(), read_only });
        target
    };
    let wanted = mounts::of(options, Network::None, false)?;
    for bind in wanted.binds.into_iter().chain(exchange.binds.iter().cloned()) {
        let mut text = show(bind.source, "binds", bind.read_only).into_os_string();
        text.push(":");
        text.push(&bind.target);
        text.push(if bind.read_only { ":ro" } else { ":rw" });
        words.option("--bind", text);
    }
    for memory in wanted.memory {
        let mut text = memory.target.into_os_string();
        let size = memory.size.map(|size| format!("size={size},")).unwrap_or_default();
        text.push(format!(":{size}mode={:o}", memory.mode));
        words.option("--tmpfs", text);
    }
    let mut devices = Vec::new();
    for device in wanted.devices {
        let mut text = device.source.clone().into_os_string();
        text.push(":");
        text.push(&device.target);
        words.option("--device", text);
        devices.push(device.source);
    }
    for path in env_file {
        words.option("--env-file", show(absolute(path)?, "variables", true));
    }
    if let Some(directory) = writable {
        words.option("--writable", show(absolute(directory)?, "writable", false));
    }
    words.options("--env", env);
    // The values of these do not stand in the list of processes.
    let named = env.iter().filter(|text| !text.contains('=')).map(OsString::from);
    let environment = named.chain(context.variable("TERM").map(|_| "TERM".into())).collect();

    let choice = network::choose(&formation.launch, options);
    let published = network::published(formation, options, choice)?;
    words.option("--network", if choice == Network::Host { "host" } else { "none" });
    for port in &published {
        // The engine brings it from the host's address to the container, forge from there to the program.
        let everywhere = Published { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), outside: port.inside.number, ..*port };
        words.option("--port", format!("{}:{}:{}", everywhere.address, everywhere.outside, everywhere.inside));
    }
    let reach = match (choice, published.is_empty()) {
        (Network::Host, _) => Reach::Host,
        (Network::None, true) => Reach::None,
        (Network::None, false) => {
            Reach::Published(published.iter().map(|port| format!("{}:{}", port.listens_on(), port.inside)).collect())
        }
    };
    words.options("--add-host", add_host);
    words.options("--hostname", hostname);
    words.options("--workdir", workdir);
    words.options("--user", user);
    words.options("--cap-add", cap_add);
    words.options("--cap-drop", cap_drop);
    words.options("--stop-signal", stop_signal);
    words.flag("--tty", *tty);
    words.flag("--read-only", *read_only);
    add_bounds(&mut words, bounds);

    let (entrypoint, command) = match verb {
        Verb::Run(RunArguments { entrypoint, command, .. }) => (entrypoint.clone(), command.as_slice()),
        Verb::Words(command) => (Some(OsString::new()), *command),
        Verb::Shell => (None, &[][..]),
    };
    words.options("--entrypoint", entrypoint);
    words.0.push(id.to_string().into());
    if !command.is_empty() {
        words.0.push("--".into());
        words.0.extend(command.iter().cloned());
    }

    let power = power(engine);
    // The checkout is made where there is room for it: the container sees the store and cannot write to it.
    store.checkout_to_run(formation.root, if power == Power::Root { Ownership::Exact } else { Ownership::Caller })?;
    let limits = values::limits(&formation.launch.limits, &options.bounds)?;
    let has_groups = !engine.options.iter().any(|option| option == "--cgroups=disabled");
    Ok(Container {
        image: String::new(),
        platform: formation.platform.clone(),
        power,
        mounts,
        resources: resources(),
        devices,
        environment,
        reach,
        limits: if has_groups { limits } else { Limits::default() },
        swap: values::bounds(&options.bounds)?.swap.unwrap_or_default(),
        terminal: io::stdin().is_terminal() && io::stdout().is_terminal(),
        arguments: words.0,
    })
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
    let over = Arc::new(AtomicBool::new(false));
    let pid = rustix::process::Pid::from_child(&child);
    let ended = Arc::clone(&over);
    let forwarder = std::thread::spawn(move || {
        for signal in signals.forever() {
            let typed = shared && (signal == SIGINT || signal == SIGQUIT);
            if let Some(signal) = rustix::process::Signal::from_named_raw(signal)
                && !typed
                && !ended.load(Ordering::SeqCst)
            {
                let _ = rustix::process::kill_process(pid, signal);
            }
        }
    });
    let status = child.wait().map_err(failed);
    over.store(true, Ordering::SeqCst);
    handle.close();
    let _ = forwarder.join();
    use std::os::unix::process::ExitStatusExt;
    let status = status?;
    Ok(status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(i32::from(code::RUN_FAILED)))
}

/// Keeps a root from collection while it runs. In a store that cannot be written to nothing is collected by us, and who mounted it
/// so holds it.
pub fn lease(store: &Store, root: TreeId) -> Result<Option<Lease>> {
    if_writable(store.hold(&[root]))
}

/// The same, and closes the store.
pub fn close(store: Store, root: TreeId) -> Result<Option<Lease>> {
    if_writable(store.close_and_hold(&[root]))
}

fn if_writable(lease: store::Result<Lease>) -> Result<Option<Lease>> {
    match lease {
        Ok(lease) => Ok(Some(lease)),
        Err(store::Error::File { source, .. }) if source.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Hashes a checkout again; refuses one that is not what it should be.
pub fn measure(store: &Store, root: TreeId, ownership: Ownership) -> Result<()> {
    let measured = store.measure(root, ownership)?;
    if measured.tree == root {
        return Ok(());
    }
    let headline = format!("the formation on this disk has digest {}, expected {root}", measured.tree);
    let failure = Failure::new(code::MISMATCH, headline).detail(measured.different.join("\n"));
    Err(failure.hint("somebody or something changed it: `forge verify` looks at the whole store"))
}

/// What is left to set of the bounds, after those that the control group of this container keeps already. Looked at, not believed.
fn not_held(limits: &Limits, groups: &Path) -> Limits {
    let number = |paths: &[&str]| -> Option<u64> {
        paths.iter().find_map(|path| std::fs::read_to_string(groups.join(path)).ok()?.trim().parse().ok())
    };
    let mut left = limits.clone();
    let within = |bound: Option<u64>, limit: u64| bound.is_some_and(|bound| bound <= limit);
    if limits.memory.is_some_and(|limit| within(number(&["memory.max", "memory/memory.limit_in_bytes"]), limit)) {
        left.memory = None;
    }
    // The container's bound counts forge's own threads too.
    if limits.pids.is_some_and(|limit| within(number(&["pids.max", "pids/pids.max"]), limit.saturating_add(8))) {
        left.pids = None;
    }
    let cpu = || {
        let text = std::fs::read_to_string(groups.join("cpu.max")).ok();
        let words = text.and_then(|text| {
            let (quota, period) = text.trim().split_once(' ')?;
            Some((quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?))
        });
        let (quota, period) =
            words.or_else(|| Some((number(&["cpu/cpu.cfs_quota_us"])?, number(&["cpu/cpu.cfs_period_us"])?)))?;
        Some(quota.saturating_mul(1000) / period.max(1))
    };
    if limits.cpu_millis.is_some_and(|limit| within(cpu(), limit)) {
        left.cpu_millis = None;
    }
    left
}

/// Runs a sandbox in a container whose control group may keep the bounds already.
pub fn run_contained(sandbox: &mut Sandbox, backend: &Native) -> Result<Outcome> {
    let asked = sandbox.limits.clone();
    let left = not_held(&asked, Path::new(GROUPS));
    let is_held = |what: &String| match what.as_str() {
        "memory" => asked.memory.is_some() && left.memory.is_none(),
        "pids" => asked.pids.is_some() && left.pids.is_none(),
        "cpu" | "cpus" => asked.cpu_millis.is_some() && left.cpu_millis.is_none(),
        _ => false,
    };
    sandbox.require.retain(|what| !is_held(what));
    let memory_is_held = is_held(&"memory".to_owned());
    sandbox.limits = left;
    let outcome = backend.run(sandbox);
    sandbox.limits = asked;
    let mut outcome = outcome?;
    if memory_is_held && outcome.ending != Ending::Exited(0) && has_killed(Path::new(GROUPS)) {
        outcome.ending = Ending::OutOfMemory;
    }
    Ok(outcome)
}

/// Whether the container's control group killed something for its memory.
fn has_killed(groups: &Path) -> bool {
    ["memory.events", "memory/memory.oom_control"].iter().any(|path| {
        let text = std::fs::read_to_string(groups.join(path)).unwrap_or_default();
        let killed =
            |line: &str| line.split_once(' ').is_some_and(|(name, count)| name == "oom_kill" && count.trim() != "0");
        text.lines().any(killed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_held_only_if_the_control_group_says_so() {
        let groups = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = groups.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let limits = Limits { memory: Some(1000), cpu_millis: Some(500), pids: Some(10), timeout_millis: Some(1) };
        assert_eq!(not_held(&limits, groups.path()), limits);
        write("memory.max", "max\n");
        write("cpu.max", "max 100000\n");
        write("pids.max", "19\n");
        assert_eq!(not_held(&limits, groups.path()), limits);
        write("memory.max", "1000\n");
        write("cpu.max", "50000 100000\n");
        write("pids.max", "18\n");
        assert_eq!(not_held(&limits, groups.path()), Limits { timeout_millis: Some(1), ..Limits::default() });
        std::fs::remove_file(groups.path().join("memory.max")).unwrap();
        write("memory/memory.limit_in_bytes", "900\n");
        assert_eq!(not_held(&limits, groups.path()).memory, None);
    }
}
