//! Linux namespaces, by our own launcher.
//!
//! This file is the launcher's side: it makes everything ready, forks, maps ids, passes signals and time on, and says what came of
//! it. `child.rs` is the way from the fork to the command, `root.rs` the file system it sees.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::process::Pid;

use super::Backend;
use crate::owners::Owners;
use crate::{Ending, Error, Outcome, Result, Sandbox, Streams, Writable};

pub mod check;
pub mod supervisor;

mod cgroup;
mod child;
mod init;
mod message;
mod program;
mod root;
mod seccomp;
mod sys;
mod terminal;
mod userns;

pub use userns::has_every_user;

use cgroup::Cgroups;
use child::Prepared;
use message::{Channel, Failure, Kind, Order, Report};
use program::Program;
use terminal::Forwarding;
use userns::UserNamespace;

/// Runs on this kernel, without a daemon.
#[derive(Debug, Default)]
pub struct Native {}

/// What `Sandbox::require` may name. The first ones every run has, or it fails.
const ALWAYS: [&str; 7] = ["mount", "pid", "ipc", "uts", "cgroup", "seccomp", "capabilities"];
const SOMETIMES: [&str; 5] = ["user", "network", "memory", "cpu", "pids"];

/// How long a command may take to end after its time is over.
const GRACE_AFTER_TIME: Duration = Duration::from_secs(2);
/// How long a command may take to end after an interrupt.
const GRACE_AFTER_INTERRUPT: Duration = Duration::from_secs(10);
/// How often the interrupt is looked at.
const LOOK: Duration = Duration::from_millis(50);

impl Backend for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    /// The thread that calls this must live until it returns, as it does by itself: the kernel ends the sandbox with it.
    fn run(&self, sandbox: &Sandbox) -> Result<Outcome> {
        let start = Instant::now();
        check_required(sandbox)?;
        let namespace = UserNamespace::of(sandbox);
        let maps = namespace.maps(sandbox).map_err(setup("read the ids of this user namespace"))?;
        let program = Program::new(sandbox)?;
        let streams = open_streams(&sandbox.streams)?;
        if let Writable::Kept(directory) = &sandbox.root.writable {
            for name in ["upper", "work"] {
                let path = directory.join(name);
                match fs::create_dir(&path) {
                    Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(Error::File { action: "create", path, source });
                    }
                    _ => {}
                }
            }
        }
        let (owners, owners_file) = open_owners(sandbox)?;
        let mut cgroups = Cgroups::new(&sandbox.limits);
        let (mut missing, process_limit) = judge_limits(sandbox, &cgroups)?;
        if namespace == UserNamespace::First
            && matches!(sandbox.root.writable, Writable::Temporary)
            && !check::has_attributes_on_tmpfs()
        {
            missing.push("root: a directory of a layer cannot be removed (before Linux 6.6)".to_owned());
        }
        let shares_terminal = streams.is_none() && terminal::is_shared();
        let (inside, channel) = Channel::pair().map_err(setup("make a socket pair"))?;
        let prepared = Prepared {
            sandbox,
            namespace,
            privileged: userns::is_privileged(),
            namespace_required: sandbox.require.iter().any(|name| name == "user"),
            program,
            streams,
            shares_terminal,
            cgroups: std::mem::take(&mut cgroups.joins),
            process_limit,
            filter: seccomp::filter(),
            owners,
            owners_file,
            channel: inside,
        };
        let forwarding = match sandbox.streams {
            Streams::Inherit => Forwarding::begin(shares_terminal).map_err(setup("watch for signals"))?,
            Streams::File(_) | Streams::Files(..) => None,
        };
        let Some(outer) = sys::fork().map_err(setup("start a process"))? else { child::outer(prepared) };
        // Our copies of the sandbox's descriptors: while they are open, its end would not be seen.
        drop(prepared);
        let mut run = Run {
            sandbox,
            namespace,
            maps,
            channel,
            forwarding,
            outer: Some(outer),
            inner: None,
            start,
            kill_at: None,
            timed_out: false,
            interrupted: 0,
            failure: None,
            ended: None,
            missing,
            made: Vec::new(),
        };
        let result = run.wait();
        let inner_status = run.collect();
        run.tidy();
        result.map_err(setup("wait for the sandbox"))?;
        run.conclude(inner_status, cgroups.memory_kills())
    }
}

/// One run, as its launcher sees it.
struct Run<'a> {
    sandbox: &'a Sandbox,
    namespace: UserNamespace,
    maps: (String, String),
    channel: Channel,
    forwarding: Option<Forwarding>,
    /// The fork of ours that makes the namespaces, until it has ended.
    outer: Option<Pid>,
    /// Process 1 of the sandbox, until it has ended.
    inner: Option<Pid>,
    start: Instant,
    kill_at: Option<Instant>,
    timed_out: bool,
    interrupted: i32,
    failure: Option<Error>,
    ended: Option<(i32, sys::Usage)>,
    missing: Vec<String>,
    made: Vec<PathBuf>,
}

impl Run<'_> {
    /// Answers and passes on until every process of the sandbox has gone.
    fn wait(&mut self) -> io::Result<()> {
        loop {
            self.watch_clock();
            let timeout = self
                .next_look()
                .map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) });
            let mut waited = vec![PollFd::from_borrowed_fd(self.channel.as_fd(), PollFlags::IN)];
            waited.extend(
                self.forwarding.as_ref().map(|forwarding| PollFd::from_borrowed_fd(forwarding.as_fd(), PollFlags::IN)),
            );
            match rustix::event::poll(&mut waited, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    self.kill();
                    return Err(error.into());
                }
            }
            let ready: Vec<bool> = waited.iter().map(|fd| !fd.revents().is_empty()).collect();
            if ready.get(1) == Some(&true)
                && let Some(forwarding) = &self.forwarding
            {
                forwarding.pass_on(&self.channel);
            }
            if ready[0] {
                match self.channel.next_report() {
                    Ok(Some(report)) => self.hear(report)?,
                    Ok(None) => return Ok(()),
                    Err(error) => {
                        self.kill();
                        return Err(error);
                    }
                }
            }
        }
    }

    fn hear(&mut self, report: Report) -> io::Result<()> {
        match report {
            Report::Started(pid) => {
                self.inner = Pid::from_raw(pid);
                // The fork in between counts against the limit of processes until it has gone.
                if let Some(outer) = self.outer.take() {
                    // A caller that ignores SIGCHLD has no children to wait for.
                    let _ = sys::wait(Some(outer), true);
                }
                self.channel.order(Order::Continue);
            }
            Report::MapMe => {
                let Some(pid) = self.inner.or(self.outer) else { return Ok(()) };
                match self.namespace.map(pid.as_raw_nonzero().get(), &self.maps) {
                    Ok(()) => self.channel.order(Order::Continue),
                    Err(error) => {
                        self.failure = Some(userns::refused(error));
                        self.kill();
                    }
                }
            }
            Report::MountPoint(path) => self.made.push(path),
            Report::Missing(what) => self.missing.push(what),
            Report::Failed(failure) => {
                let error = self.explain(failure);
                self.failure.get_or_insert(error);
            }
            Report::Ended(status, usage) => self.ended = Some((status, usage)),
        }
        Ok(())
    }

    /// Looks at time limit and interrupt, and acts on what is due.
    fn watch_clock(&mut self) {
        let now = Instant::now();
        let limit = self.sandbox.limits.timeout_millis.map(Duration::from_millis);
        if !self.timed_out && limit.is_some_and(|limit| now - self.start >= limit) {
            self.timed_out = true;
            self.channel.order(Order::Signal(self.sandbox.stop_signal.unwrap_or(libc::SIGTERM as u8)));
            // A stopped command must run to hear of it.
            self.channel.order(Order::Signal(libc::SIGCONT as u8));
            self.kill_by(now + GRACE_AFTER_TIME);
        }
        let signal = self.sandbox.interrupt.as_ref().map_or(0, |interrupt| interrupt.load(Ordering::Relaxed));
        if signal != self.interrupted {
            self.interrupted = signal;
            match u8::try_from(signal) {
                Ok(signal @ 1..=64) => {
                    self.channel.order(Order::Signal(self.sandbox.stop_signal.unwrap_or(signal)));
                    self.kill_by(now + GRACE_AFTER_INTERRUPT);
                }
                _ => self.kill_by(now),
            }
        }
        if self.kill_at.is_some_and(|at| now >= at) {
            self.kill();
        }
    }

    fn kill_by(&mut self, time: Instant) {
        self.kill_at = Some(self.kill_at.map_or(time, |at| at.min(time)));
    }

    /// How long nothing can be due.
    fn next_look(&self) -> Option<Duration> {
        let now = Instant::now();
        let limit = self.sandbox.limits.timeout_millis.filter(|_| !self.timed_out);
        let deadline = limit.map(|limit| self.start + Duration::from_millis(limit));
        let dues = [
            deadline.map(|deadline| deadline.saturating_duration_since(now)),
            self.kill_at.map(|at| at.saturating_duration_since(now).max(Duration::from_millis(1))),
            // While signals are forwarded, they do not come this way.
            self.sandbox.interrupt.as_ref().filter(|_| self.forwarding.is_none()).map(|_| LOOK),
        ];
        dues.into_iter().flatten().min()
    }

    /// Ends the whole sandbox at once: with process 1, the kernel kills its pid namespace.
    fn kill(&self) {
        for pid in [self.outer, self.inner].into_iter().flatten() {
            let _ = sys::kill(pid.as_raw_nonzero().get(), libc::SIGKILL);
        }
    }

    /// Waits for our own children to be gone. Gives the status of process 1.
    fn collect(&mut self) -> Option<i32> {
        let outer = self.outer.take();
        if let Some(outer) = outer {
            let _ = sys::wait(Some(outer), true);
        }
        let inner = self.inner.take()?;
        sys::wait(Some(inner), true).ok().flatten().map(|(_, status)| status)
    }

    /// Takes what belongs to us and not to the command out of a kept layer.
    fn tidy(&mut self) {
        let Writable::Kept(directory) = &self.sandbox.root.writable else { return };
        // overlayfs leaves directories of mode 000 in there, which their owner cannot list.
        let work = directory.join("work");
        for name in ["work", "work/incompat", "work/incompat/volatile"] {
            let _ = rustix::fs::chmod(work.join(name), Mode::RWXU);
        }
        let _ = fs::remove_dir_all(&work);
        let Ok(upper) = rustix::fs::open(directory.join("upper"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) else {
            return;
        };
        for path in self.made.drain(..).rev() {
            let _ = remove_if_empty(&upper, &path);
        }
    }

    fn conclude(self, inner_status: Option<i32>, memory_kills: u64) -> Result<Outcome> {
        let usage = self.ended.map(|(_, usage)| usage).unwrap_or_default();
        // A command that was killed before it began has ended too; else a failure to begin is what the caller wants to know.
        if let (Some(error), false, 0) = (self.failure, self.timed_out, self.interrupted) {
            return Err(error);
        }
        let status = self.ended.map(|(status, _)| status).or(inner_status);
        let ending = match status {
            _ if self.timed_out => Ending::TimedOut,
            Some(0) => Ending::Exited(0),
            _ if memory_kills > 0 => Ending::OutOfMemory,
            Some(status) if libc::WIFEXITED(status) => Ending::Exited(libc::WEXITSTATUS(status)),
            Some(status) => Ending::Signalled(libc::WTERMSIG(status)),
            None => Ending::Signalled(libc::SIGKILL),
        };
        Ok(Outcome {
            ending,
            wall: self.start.elapsed(),
            cpu: usage.cpu,
            peak_memory: usage.peak_memory,
            missing: self.missing,
        })
    }

    fn explain(&self, failure: Failure) -> Error {
        let Failure { kind, errno, what } = failure;
        let command = self.sandbox.command.first().cloned().unwrap_or_default();
        let source = match errno {
            0 => io::Error::other(what.clone()),
            errno => io::Error::from_raw_os_error(errno),
        };
        match kind {
            Kind::NotFound => Error::CommandNotFound { command },
            Kind::CannotExecute => Error::CannotExecute { command, source },
            Kind::UserNamespace => userns::refused(source),
            // Ubuntu's AppArmor lets an ordinary user make the namespace, and then forbids all that is done in it.
            Kind::Setup
                if self.namespace == UserNamespace::First
                    && matches!(errno, libc::EPERM | libc::EACCES)
                    && what == child::MAKE_NAMESPACES =>
            {
                userns::refused(source)
            }
            Kind::Setup => Error::Setup { action: what, source },
        }
    }
}

fn setup(action: &str) -> impl FnOnce(io::Error) -> Error {
    let action = action.to_owned();
    |source| Error::Setup { action, source }
}

fn check_required(sandbox: &Sandbox) -> Result<()> {
    let refuse = |what: &String, why: &str| Err(Error::Required { what: what.clone(), why: why.to_owned() });
    for what in &sandbox.require {
        let known = ALWAYS.contains(&what.as_str()) || SOMETIMES.contains(&what.as_str());
        if !known {
            return refuse(what, "this backend does not know it");
        }
        if what == "network" && sandbox.network == crate::Network::Host {
            return refuse(what, "the host's network was asked for");
        }
        let limits = &sandbox.limits;
        let unset = match what.as_str() {
            "memory" => limits.memory.is_none(),
            "cpu" => limits.cpu_millis.is_none(),
            "pids" => limits.pids.is_none(),
            _ => false,
        };
        if unset {
            return refuse(what, "no limit was set");
        }
    }
    Ok(())
}

/// What of the limits is missing, in words; and the rlimit that stands in for one on processes.
fn judge_limits(sandbox: &Sandbox, cgroups: &Cgroups) -> Result<(Vec<String>, Option<u64>)> {
    let (mut missing, mut process_limit) = (Vec::new(), None);
    for (what, why) in &cgroups.missing {
        // The rlimit counts the processes of one user in one user namespace, which is this sandbox alone (Linux 5.14). It does not
        // hold for root.
        if *what == "pids" && !rustix::process::geteuid().is_root() {
            process_limit = sandbox.limits.pids.map(|count| count.saturating_add(cgroup::OWN_PROCESSES));
            continue;
        }
        if sandbox.require.iter().any(|required| required == what) {
            return Err(Error::Required { what: (*what).to_owned(), why: why.clone() });
        }
        missing.push(format!("{what}: no limit, as {why}"));
    }
    Ok((missing, process_limit))
}

/// The table of owners beside a kept layer: what it says of the layers below, and the file that will say it of the result.
fn open_owners(sandbox: &Sandbox) -> Result<(Owners, Option<File>)> {
    let Writable::Kept(directory) = &sandbox.root.writable else { return Ok((Owners::default(), None)) };
    if !sandbox.pretend_root {
        return Ok((Owners::default(), None));
    }
    let path = directory.join("owners");
    let read = || {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let owners = Owners::parse(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok((owners, Some(file)))
    };
    read().map_err(|source| Error::File { action: "read", path: path.clone(), source })
}

fn open_streams(streams: &Streams) -> Result<Option<[OwnedFd; 3]>> {
    let null = || -> Result<OwnedFd> {
        let path = PathBuf::from("/dev/null");
        let file = File::open(&path).map_err(|source| Error::File { action: "open", path, source })?;
        Ok(file.into())
    };
    let append = |path: &PathBuf| -> Result<OwnedFd> {
        let file = OpenOptions::new().append(true).create(true).mode(0o666).open(path);
        Ok(file.map_err(|source| Error::File { action: "open", path: path.clone(), source })?.into())
    };
    match streams {
        Streams::Inherit => Ok(None),
        Streams::File(path) => Ok(Some([null()?, append(path)?, append(path)?])),
        Streams::Files(stdout, stderr) => Ok(Some([null()?, append(stdout)?, append(stderr)?])),
    }
}

/// Removes an empty file or directory of an upper layer, whose contents may be hostile: no symlink is followed.
fn remove_if_empty(upper: &OwnedFd, path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let parent = rustix::fs::openat2(upper, parent, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    let status = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match rustix::fs::FileType::from_raw_mode(status.st_mode) {
        rustix::fs::FileType::Directory => rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)?,
        rustix::fs::FileType::RegularFile if status.st_size == 0 => {
            rustix::fs::unlinkat(&parent, name, AtFlags::empty())?;
        }
        _ => {}
    }
    Ok(())
}
