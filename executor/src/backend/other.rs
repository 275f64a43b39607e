//! Another OCI runtime (crun, runc, youki) runs the sandbox, from a bundle that is made for the run.
//!
//! Its root is an overlay in a mount namespace of this process's own, so that checkouts stay as they are and nothing shows on the
//! host. Limits are held by our own cgroup, in which the runtime is started, wall time by our own clock. What another runtime cannot
//! be told (published ports, a bound on output) is refused.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, PidfdFlags};

use super::native::{Cgroups, Counts, check_required, image::MountedRoot, judge, setup, sys, terminal};
use super::{Backend, libcontainer};
use crate::{Bind, Ending, Error, Network, Outcome, Result, Sandbox, Streams, Writable, oci};

/// How long a program may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(2);
/// How often the interrupt is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Runs by another runtime.
#[derive(Debug)]
pub struct Other {
    /// The runtime's program.
    pub program: PathBuf,
    /// Words before those that every runtime takes.
    pub words: Vec<OsString>,
    /// An empty directory for this run: bundle, state and root.
    pub directory: PathBuf,
}

impl Backend for Other {
    fn name(&self) -> &'static str {
        "runtime"
    }

    /// From then on the calling process has a mount namespace of its own; an ordinary user's, which must have one thread, a user
    /// namespace too.
    fn run(&self, sandbox: &Sandbox) -> Result<Outcome> {
        let start = Instant::now();
        refuse(sandbox)?;
        let cgroups = Cgroups::new(sandbox);
        let judged = judge(sandbox, &cgroups)?;
        let mut missing = judged.missing;
        if judged.processes.is_some() {
            if sandbox.require.iter().any(|name| name == "pids") {
                let why = "no cgroup can hold it, and another runtime runs it".to_owned();
                return Err(Error::Required { what: "pids".to_owned(), why });
            }
            missing.push("pids: no limit, as no cgroup can hold it and another runtime runs it".to_owned());
        }
        if self.is_libcontainer() {
            missing.push("seccomp: none, which this build of libcontainer cannot".to_owned());
        }
        let size = sandbox.bounds.memory_files.or(sandbox.limits.memory);
        let mounted = MountedRoot::new(&sandbox.root, &self.directory, size)?;
        if !has_command(sandbox, mounted.path()) {
            return Err(Error::CommandNotFound { command: sandbox.command.first().cloned().unwrap_or_default() });
        }
        if cgroups.given().all(|(_, how)| how == "cgroup v1") {
            // crun (1.8) refuses the tree of version 2 beside those of version 1, of which it uses none here; nobody else sees this.
            let _ = rustix::mount::unmount("/sys/fs/cgroup/unified", UnmountFlags::DETACH);
        }
        let failed = |source| Error::File { action: "write", path: self.directory.clone(), source };
        let bundle = mounted.beside();
        let sandbox = &with_contents(sandbox, bundle).map_err(failed)?;
        let mut spec = oci::describe(sandbox, mounted.path(), mounted.is_users_own().then_some((0, 0)))?;
        if let Some(linux) = spec.linux_mut() {
            linux.set_resources(None);
        }
        let text = serde_json::to_vec(&spec).map_err(|error| failed(error.into()))?;
        fs::write(bundle.join("config.json"), text).map_err(failed)?;

        let id = format!("forge-{}", std::process::id());
        let mut command = self.command(bundle);
        command.arg("run").arg("--bundle").arg(bundle).arg(&id);
        redirect(&mut command, &sandbox.streams)?;
        let shares_terminal = terminal::is_shared();
        let signals = Signals::begin().map_err(setup("watch for signals"))?;
        let mut cgroups = cgroups;
        sys::end_with_us_in(&mut command, std::mem::take(&mut cgroups.joins).into_files());
        let mut child = command
            .spawn()
            .map_err(|source| Error::CannotExecute { command: self.program.clone().into_os_string(), source })?;
        let result = watch(&mut child, sandbox, start, &signals, shares_terminal);
        // It may have been killed itself, and its container be there still.
        let _ = self
            .command(bundle)
            .args(["delete", "--force", &id])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let (status, timed_out) = result.map_err(setup("wait for the other runtime"))?;
        drop(mounted);
        Ok(self.outcome(sandbox, status, timed_out, start, missing, &cgroups))
    }
}

impl Other {
    fn is_libcontainer(&self) -> bool {
        self.words.iter().any(|word| word == libcontainer::WORD)
    }

    fn command(&self, bundle: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.words).arg("--root").arg(bundle.join("state"));
        // The limits are held already. Of others it is known under no such word.
        if self.program.file_name().is_some_and(|name| name.to_string_lossy().contains("crun")) {
            command.arg("--cgroup-manager=disabled");
        }
        command
    }

    fn outcome(
        &self,
        sandbox: &Sandbox,
        status: std::process::ExitStatus,
        timed_out: bool,
        start: Instant,
        missing: Vec<String>,
        cgroups: &Cgroups,
    ) -> Outcome {
        use std::os::unix::process::ExitStatusExt;
        let usage = sys::children_usage();
        let Counts { memory_kills, refused_processes, peak_memory } = cgroups.counts();
        let ending = match (status.code(), status.signal()) {
            _ if timed_out => Ending::TimedOut,
            (Some(0), _) => Ending::Exited(0),
            _ if memory_kills > 0 => Ending::OutOfMemory,
            (Some(code), _) => Ending::Exited(code),
            (None, signal) => Ending::Signalled(signal.unwrap_or(libc::SIGKILL)),
        };
        let cpu = usage.user + usage.system;
        let resource = sandbox.bounds.ended_by(&ending, cpu).map(|limit| (limit.resource.name(), true));
        let met = [("time", timed_out), ("memory", memory_kills > 0), ("pids", refused_processes > 0)];
        let met = met.into_iter().chain(resource);
        let mut isolation: BTreeMap<&'static str, String> =
            cgroups.given().map(|(what, how)| (what, how.to_owned())).collect();
        let runtime = if self.is_libcontainer() { Path::new(libcontainer::NAME) } else { &self.program };
        isolation.insert("runtime", runtime.display().to_string());
        isolation.insert("network", if sandbox.network == Network::Host { "host" } else { "own" }.to_owned());
        Outcome {
            ending,
            wall: start.elapsed(),
            cpu,
            peak_memory: peak_memory.unwrap_or(usage.largest_process),
            missing,
            isolation,
            met: met.filter(|(_, is_met)| *is_met).map(|(name, _)| name).collect(),
            usage,
        }
    }
}

/// What another runtime cannot be told.
fn refuse(sandbox: &Sandbox) -> Result<()> {
    check_required(sandbox)?;
    let reasons = [
        ("published ports", !sandbox.published.is_empty()),
        ("a bound on output", sandbox.bounds.output.is_some()),
        ("a directory that keeps what is written", matches!(sandbox.root.writable, Writable::Kept(_))),
        ("the supervisor of build steps", sandbox.pretend_root),
    ];
    match reasons.into_iter().find(|(_, is_asked)| *is_asked) {
        Some((what, _)) => Err(Error::NotByOthers { what }),
        None => Ok(()),
    }
}

/// Whether the command may be in the root. The other runtime would say that it is not with a status that a program may give, too. What is
/// shown of the host may hold anything.
fn has_command(sandbox: &Sandbox, root: &Path) -> bool {
    let Some(command) = sandbox.command.first() else { return false };
    let default = OsString::from(oci::DEFAULT_PATH);
    let path = sandbox.environment.get(OsStr::new("PATH")).unwrap_or(&default);
    let places: Vec<PathBuf> = match command.as_encoded_bytes().contains(&b'/') {
        true => vec![sandbox.directory.join(command)],
        false => std::env::split_paths(path).map(|place| sandbox.directory.join(place).join(command)).collect(),
    };
    let Ok(root) = fs::File::open(root) else { return true };
    let is_there = |place: &PathBuf| {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let opened = rustix::fs::openat2(&root, place, flags, Mode::empty(), ResolveFlags::IN_ROOT);
        !matches!(opened, Err(Errno::NOENT | Errno::NOTDIR))
    };
    let is_shown = |bind: &Bind| bind.source.is_dir() || places.contains(&bind.target);
    places.iter().any(is_there) || sandbox.binds.iter().any(is_shown)
}

/// Files that are made for the run lie beside the bundle, and are binds.
fn with_contents(sandbox: &Sandbox, bundle: &Path) -> io::Result<Sandbox> {
    let mut sandbox = sandbox.clone();
    for (index, content) in std::mem::take(&mut sandbox.contents).into_iter().enumerate() {
        let source = bundle.join(format!("content-{index}"));
        fs::write(&source, &content.bytes)?;
        sandbox.binds.push(Bind { source, target: content.target, read_only: false });
    }
    Ok(sandbox)
}

fn redirect(command: &mut Command, streams: &Streams) -> Result<()> {
    let open = |path: &PathBuf| {
        let file = fs::OpenOptions::new().create(true).append(true).open(path);
        file.map_err(|source| Error::File { action: "open", path: path.clone(), source })
    };
    match streams {
        Streams::Inherit | Streams::Terminal => {}
        Streams::File(path) => _ = command.stdin(Stdio::null()).stdout(open(path)?).stderr(open(path)?),
        Streams::Files(first, second) => _ = command.stdin(Stdio::null()).stdout(open(first)?).stderr(open(second)?),
    }
    Ok(())
}

/// Signals that come to this process while the other runtime runs, which hands them on.
pub(super) struct Signals {
    pipe: std::os::fd::OwnedFd,
    _watch: Option<sys::SignalWatch>,
}

impl Signals {
    pub(super) fn begin() -> io::Result<Self> {
        use rustix::pipe::{PipeFlags, pipe_with};
        let (pipe, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self { pipe, _watch: sys::SignalWatch::new(writer) })
    }

    /// Hands them to a process until it has ended.
    #[cfg(feature = "libcontainer")]
    pub(super) fn pass_on_until(&self, ended: &impl AsFd, pid: Pid) -> io::Result<()> {
        loop {
            let fds = [ended.as_fd(), self.pipe.as_fd()];
            let mut waited = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            match rustix::event::poll(&mut waited, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if !waited[0].revents().is_empty() {
                return Ok(());
            }
            let mut bytes = [0; 2];
            while let Ok(2) = rustix::io::read(&self.pipe, &mut bytes) {
                let _ = sys::kill(pid.as_raw_nonzero().get(), i32::from(bytes[0]));
            }
        }
    }
}

/// Waits for the runtime's end; says whether time was over.
fn watch(
    child: &mut Child,
    sandbox: &Sandbox,
    start: Instant,
    signals: &Signals,
    shares_terminal: bool,
) -> io::Result<(std::process::ExitStatus, bool)> {
    let pid = Pid::from_child(child).as_raw_nonzero().get();
    let ended = rustix::process::pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let limit = sandbox.limits.timeout_millis.map(Duration::from_millis);
    let (mut timed_out, mut interrupted, mut kill_at) = (false, 0, None);
    loop {
        let now = Instant::now();
        if !timed_out && limit.is_some_and(|limit| now - start >= limit) {
            timed_out = true;
            let _ = sys::kill(pid, sandbox.stop_signal.map_or(libc::SIGTERM, i32::from));
            kill_at.get_or_insert(now + GRACE);
        }
        let signal = sandbox.interrupt.as_ref().map_or(0, |interrupt| interrupt.load(Ordering::Relaxed));
        if signal != interrupted {
            interrupted = signal;
            let by = match signal {
                1.. => now + GRACE,
                // At once.
                _ => now,
            };
            let _ = sys::kill(pid, signal.abs());
            kill_at = Some(kill_at.map_or(by, |at: Instant| at.min(by)));
        }
        if kill_at.is_some_and(|at| now >= at) {
            // What it leaves is deleted by the caller.
            let _ = sys::kill(pid, libc::SIGKILL);
        }
        let mut waited = [
            PollFd::from_borrowed_fd(ended.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(signals.pipe.as_fd(), PollFlags::IN),
        ];
        let pause = Timespec { tv_sec: 0, tv_nsec: LOOK.as_nanos() as i64 };
        match rustix::event::poll(&mut waited, Some(&pause)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut bytes = [0; 2];
        while let Ok(2) = rustix::io::read(&signals.pipe, &mut bytes) {
            let [signal, from_kernel] = bytes;
            // What the terminal sends has reached the runtime already.
            if !(shares_terminal && from_kernel == 1) {
                let _ = sys::kill(pid, i32::from(signal));
            }
        }
        if let Some(status) = child.try_wait()? {
            return Ok((status, timed_out));
        }
    }
}
