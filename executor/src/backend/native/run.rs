//! One run, as its launcher sees it: answers the sandbox, watches the clock, and says what came of it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::process::{Pid, PidfdFlags};

use super::cgroup::{Cgroups, Counts};
use super::message::{Channel, Failure, Kind, Order, Report};
use super::publish::{Forwarder, Listeners};
use super::relay::{News, Relay};
use super::terminal::Forwarding;
use super::userns::{self, UserNamespace};
use super::{setup, sys};
use crate::outcome::Counted;
use crate::{Ending, Error, Network, Outcome, Result, Sandbox, Writable};

/// How long a command may take to end after its time is over.
const GRACE_AFTER_TIME: Duration = Duration::from_secs(2);
/// How long a command may take to end after an interrupt.
const GRACE_AFTER_INTERRUPT: Duration = Duration::from_secs(10);
/// After so long without anything to do, a process that waits keeps only what it needs for that in memory.
pub(super) const REST: Duration = Duration::from_millis(200);
/// How often the interrupt is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// One run, as its launcher sees it.
pub struct Run<'a> {
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
    ended: Option<(i32, Counted)>,
    missing: Vec<String>,
    made: Vec<PathBuf>,
    relay: Option<Relay>,
    too_much_output: bool,
    listeners: Listeners,
    /// Sockets of the sandbox that the caller answers, as far as they have come.
    doors: Vec<OwnedFd>,
    privileged: bool,
    /// The process that forwards ports.
    forwarder: Option<Forwarder>,
    refusals: Refusals,
}

/// Whether a sandbox goes on asking for more processes than it may have.
#[derive(Debug, Default)]
struct Refusals {
    /// How many there had been when it was looked, and when that was.
    last: Option<(u64, Instant)>,
    /// Since when there were new ones at every look.
    since: Option<Instant>,
    /// They went on for too long.
    too_long: bool,
}

impl Refusals {
    /// How often they are looked at.
    const LOOK: Duration = Duration::from_millis(500);

    /// Notes how many there have been; says whether they have gone on for longer than `most`.
    fn go_on(&mut self, count: impl FnOnce() -> u64, most: Duration, now: Instant) -> bool {
        if self.too_long || self.last.is_some_and(|(_, at)| now - at < Self::LOOK) {
            return false;
        }
        let count = count();
        let more = self.last.is_some_and(|(last, _)| count > last);
        self.last = Some((count, now));
        self.since = if more { self.since.or(Some(now)) } else { None };
        self.too_long = self.since.is_some_and(|since| now - since >= most);
        self.too_long
    }
}

/// The processes of a sandbox that were just started; none, if that failed, which is on the channel.
#[derive(Debug, Clone, Copy, Default)]
pub struct Processes {
    /// A fork of ours that starts process 1, as our child.
    pub outer: Option<Pid>,
    /// Process 1.
    pub inner: Option<Pid>,
}

/// Who has something to say while a sandbox runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// A process of the sandbox.
    Channel,
    /// Somebody who sends us signals.
    Signals,
    /// The relay, which has news.
    Alarm,
    /// The first process, by its end.
    First,
}

impl<'a> Run<'a> {
    /// Of a sandbox whose first process was just started.
    pub fn new(
        sandbox: &'a Sandbox,
        namespace: UserNamespace,
        maps: (String, String),
        channel: Channel,
        processes: Processes,
        start: Instant,
    ) -> Self {
        Self {
            sandbox,
            namespace,
            maps,
            channel,
            forwarding: None,
            outer: processes.outer,
            inner: processes.inner,
            start,
            kill_at: None,
            timed_out: false,
            interrupted: 0,
            failure: None,
            ended: None,
            missing: Vec::new(),
            made: Vec::new(),
            relay: None,
            too_much_output: false,
            listeners: Listeners::default(),
            doors: Vec::new(),
            privileged: false,
            forwarder: None,
            refusals: Refusals::default(),
        }
    }

    /// What goes between the sandbox and the caller's side.
    pub fn with(
        mut self,
        forwarding: Option<Forwarding>,
        relay: Relay,
        listeners: Listeners,
        privileged: bool,
    ) -> Self {
        (self.forwarding, self.relay, self.listeners, self.privileged) =
            (forwarding, Some(relay), listeners, privileged);
        self
    }

    /// Passes on what is to be counted, from the first file to the second of each pair, and waits for the end; nothing is left
    /// afterwards.
    pub fn end(mut self, counted: Vec<(OwnedFd, OwnedFd)>, missing: Vec<String>, cgroups: &Cgroups) -> Result<Outcome> {
        self.missing = missing;
        let result = self.count(counted).and_then(|()| self.wait(cgroups));
        // Here rather than later: process 1, the last that is left, waits for the kernel while it ends.
        let early = self.ended.is_some().then(|| cgroups.counts());
        let inner_status = self.collect();
        let was_ended = self.was_ended();
        let passed = match &mut self.relay {
            Some(relay) => relay.finish(was_ended, self.forwarding.as_ref()),
            None => Ok(()),
        };
        self.tidy();
        result.map_err(setup("wait for the sandbox"))?;
        let counts = early.unwrap_or_else(|| cgroups.counts());
        let outcome = self.conclude(inner_status, cgroups, counts)?;
        match (&outcome.ending, passed) {
            // Nothing else would tell that it is incomplete.
            (Ending::Exited(0), Err(source)) => Err(Error::Output { source }),
            _ => Ok(outcome),
        }
    }

    fn count(&mut self, counted: Vec<(OwnedFd, OwnedFd)>) -> io::Result<()> {
        let Some(relay) = &mut self.relay else { return Ok(()) };
        let result = counted.into_iter().try_for_each(|(from, to)| relay.count(from, to));
        result.inspect_err(|_| self.kill())
    }

    /// Answers and passes on until every process of the sandbox has gone.
    fn wait(&mut self, cgroups: &Cgroups) -> io::Result<()> {
        self.map_first();
        // Told of the first process, which says who the next one is: if it is killed in between, nobody else would be heard of again.
        let first = self.outer.and_then(|outer| rustix::process::pidfd_open(outer, PidfdFlags::empty()).ok());
        let mut rests = false;
        loop {
            self.watch_clock();
            if let Some(most) = self.sandbox.bounds.refused_for
                && self.refusals.go_on(|| cgroups.counts().refused_processes, most, Instant::now())
            {
                self.kill();
            }
            let rest = (!rests).then(|| REST.saturating_sub(self.start.elapsed()));
            let look = [self.next_look(), rest].into_iter().flatten().min();
            let ready = match self.wait_for(first.as_ref(), look) {
                Ok(ready) => ready,
                Err(error) => {
                    self.kill();
                    return Err(error);
                }
            };
            if ready.is_empty() && !rests && self.start.elapsed() >= REST {
                sys::let_code_go();
                rests = true;
            }
            if ready.contains(&Source::First) && !ready.contains(&Source::Channel) {
                // It went without a word. Whoever it may have started ends with the channel.
                self.channel.close();
            }
            if ready.contains(&Source::Alarm) {
                for news in self.relay.as_ref().map(Relay::news).unwrap_or_default() {
                    match news {
                        News::TooMuch => {
                            self.too_much_output = true;
                            self.kill();
                        }
                        // As it is for whoever prints to a terminal that hangs up.
                        News::Gone => self.channel.order(Order::Signal(libc::SIGHUP as u8)),
                    }
                }
            }
            if ready.contains(&Source::Signals)
                && let Some(forwarding) = &self.forwarding
                && forwarding.pass_on(&self.channel)
                && let Some(relay) = &self.relay
            {
                relay.fit();
            }
            if ready.contains(&Source::Channel) {
                match self.channel.next_report() {
                    Ok(Some((report, fds))) => {
                        self.hear(report, fds)?;
                        // The last word: process 1 ends with it, which is waited for.
                        if self.ended.is_some() {
                            return Ok(());
                        }
                    }
                    Ok(None) => return Ok(()),
                    Err(error) => {
                        self.kill();
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Waits until somebody has something to say, or for so long; who it is. Nobody too if a signal came in between.
    fn wait_for(&self, first: Option<&OwnedFd>, most: Option<Duration>) -> io::Result<Vec<Source>> {
        let alarm = self.relay.as_ref().and_then(Relay::alarm);
        let sources = [
            (Source::Channel, Some(self.channel.as_fd())),
            (Source::Signals, self.forwarding.as_ref().map(AsFd::as_fd)),
            (Source::Alarm, alarm),
            (Source::First, first.filter(|_| self.outer.is_some()).map(AsFd::as_fd)),
        ];
        let sources = sources.into_iter().filter_map(|(source, fd)| Some((source, fd?)));
        let (names, mut waited): (Vec<Source>, Vec<PollFd<'_>>) =
            sources.map(|(source, fd)| (source, PollFd::from_borrowed_fd(fd, PollFlags::IN))).unzip();
        let most = most.map(|most| Timespec { tv_sec: most.as_secs() as i64, tv_nsec: i64::from(most.subsec_nanos()) });
        match rustix::event::poll(&mut waited, most.as_ref()) {
            Ok(_) => Ok(names
                .into_iter()
                .zip(&waited)
                .filter(|(_, fd)| !fd.revents().is_empty())
                .map(|(name, _)| name)
                .collect()),
            Err(rustix::io::Errno::INTR) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    fn hear(&mut self, report: Report, fds: Vec<OwnedFd>) -> io::Result<()> {
        match report {
            Report::Started(pid) => {
                self.inner = Pid::from_raw(pid);
                if let Some(outer) = self.outer.take() {
                    // A caller that ignores SIGCHLD has no children to wait for.
                    let _ = sys::wait(Some(outer), true);
                }
                match self.namespace {
                    UserNamespace::First => self.map_first(),
                    UserNamespace::Last => self.channel.order(Order::Continue),
                }
            }
            Report::MapMe => {
                let Some(inner) = self.inner else { return Ok(()) };
                self.map(inner);
            }
            Report::MountPoint(path) => self.made.push(path),
            Report::Missing(what) => self.missing.push(what),
            Report::Failed(failure) => {
                let error = self.explain(failure);
                self.failure.get_or_insert(error);
            }
            Report::Stopped(signal) => {
                if let Some(forwarding) = &self.forwarding {
                    forwarding.stop_too(signal, &self.channel);
                }
            }
            Report::Ended(status, usage) => self.ended = Some((status, usage)),
            // Of containers only.
            Report::Ready(_) => {}
            Report::Terminal => {
                let terminal = fds.into_iter().next().ok_or(io::ErrorKind::InvalidData)?;
                if let Some(relay) = &mut self.relay {
                    relay.join(terminal)?;
                }
            }
            Report::Door => {
                self.doors.extend(fds);
                if let Some(doors) = &self.sandbox.doors
                    && self.doors.len() == doors.count()
                {
                    doors.give(std::mem::take(&mut self.doors));
                }
            }
            Report::Network => {
                let [user, network] = fds.as_slice() else { return Err(io::ErrorKind::InvalidData.into()) };
                match self.listeners.serve(user, network, self.privileged) {
                    Ok(forwarder) => {
                        self.forwarder = Some(forwarder);
                        // Our own copies: a port is free again as soon as the forwarder has gone.
                        self.listeners = Listeners::default();
                        self.channel.order(Order::Continue);
                    }
                    Err(source) => {
                        self.failure = Some(Error::Setup { action: "publish the ports".to_owned(), source });
                        self.kill();
                    }
                }
            }
        }
        Ok(())
    }

    /// Maps the ids of a process that was started in a user namespace of its own, and waits for that.
    fn map_first(&mut self) {
        if let (UserNamespace::First, Some(inner)) = (self.namespace, self.inner) {
            self.map(inner);
        }
    }

    fn map(&mut self, inner: Pid) {
        match self.namespace.map(inner.as_raw_nonzero().get(), &self.maps) {
            Ok(()) => self.channel.order(Order::Continue),
            Err(error) => {
                self.failure = Some(userns::refused(error));
                self.kill();
            }
        }
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
            self.sandbox.bounds.refused_for.map(|_| Refusals::LOOK),
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
        let status = self.inner.take().and_then(|inner| sys::wait(Some(inner), true).ok().flatten());
        if let Some(forwarder) = self.forwarder.take() {
            forwarder.end(self.was_ended() || self.failure.is_some());
        }
        status.map(|(_, status)| status)
    }

    /// Whether it was we who ended it.
    fn was_ended(&self) -> bool {
        self.timed_out || self.too_much_output || self.refusals.too_long || self.interrupted != 0
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

    fn conclude(mut self, inner_status: Option<i32>, cgroups: &Cgroups, counts: Counts) -> Result<Outcome> {
        let usage = self.ended.map(|(_, usage)| usage).unwrap_or_default();
        // A command that was killed before it began has ended too; else a failure to begin is what the caller wants to know.
        if let (false, Some(error)) = (self.was_ended(), self.failure.take()) {
            return Err(error);
        }
        let Counts { memory_kills, refused_processes, peak_memory } = counts;
        let status = self.ended.map(|(status, _)| status).or(inner_status);
        let ending = match status {
            _ if self.too_much_output => Ending::TooMuchOutput,
            _ if self.timed_out => Ending::TimedOut,
            Some(0) => Ending::Exited(0),
            _ if memory_kills > 0 => Ending::OutOfMemory,
            Some(status) if libc::WIFEXITED(status) => Ending::Exited(libc::WEXITSTATUS(status)),
            Some(status) => Ending::Signalled(libc::WTERMSIG(status)),
            None => Ending::Signalled(libc::SIGKILL),
        };
        let cpu = usage.user + usage.system;
        let resource = self.sandbox.bounds.ended_by(&ending, cpu).map(|limit| (limit.resource.name(), true));
        let met = [
            ("time", self.timed_out),
            ("output", self.too_much_output),
            ("memory", memory_kills > 0),
            ("pids", refused_processes > 0),
        ];
        let met = met.into_iter().chain(resource);
        Ok(Outcome {
            ending,
            wall: self.start.elapsed(),
            cpu,
            peak_memory: peak_memory.unwrap_or(usage.largest_process),
            isolation: self.isolation(cgroups),
            missing: self.missing,
            met: met.filter(|(_, is_met)| *is_met).map(|(name, _)| name).collect(),
            usage,
        })
    }

    /// What was given.
    fn isolation(&self, cgroups: &Cgroups) -> BTreeMap<&'static str, String> {
        let sandbox = self.sandbox;
        let own = |name| (name, "own".to_owned());
        let mut isolation: BTreeMap<_, _> = ["mount", "pid", "ipc", "uts", "cgroup"].map(own).into();
        let has_user = !self.missing.iter().any(|missing| missing.starts_with("user:"));
        isolation.insert("user", if has_user { "own" } else { "host" }.to_owned());
        isolation.insert("network", if sandbox.network == Network::Host { "host" } else { "own" }.to_owned());
        isolation.insert("seccomp", if sandbox.pretend_root { "filter and supervisor" } else { "filter" }.to_owned());
        isolation.insert("privileges", "no new ones".to_owned());
        let capabilities =
            if sandbox.pretend_root { "those of its namespace".to_owned() } else { sandbox.capabilities.to_string() };
        isolation.insert("capabilities", capabilities);
        let root = match sandbox.root.writable {
            Writable::No => "read-only",
            Writable::Temporary => "read-only, written to in memory",
            Writable::Kept(_) => "read-only, changes kept apart",
        };
        isolation.insert("root", root.to_owned());
        isolation.extend(cgroups.given().map(|(what, how)| (what, how.to_owned())));
        let stands_in =
            |what: &str| !self.missing.iter().any(|missing| missing.starts_with(&format!("{what}: no limit, as")));
        for (what, asked) in [("pids", sandbox.limits.pids.is_some()), ("memory", sandbox.limits.memory.is_some())] {
            if asked && stands_in(what) {
                isolation.entry(what).or_insert_with(|| "rlimit".to_owned());
            }
        }
        isolation
    }

    fn explain(&self, failure: Failure) -> Error {
        let command = self.sandbox.command.first().cloned().unwrap_or_default();
        let source = failure.source();
        match failure.kind {
            Kind::NotFound => Error::CommandNotFound { command },
            Kind::CannotExecute => Error::CannotExecute { command, source },
            Kind::UserNamespace => userns::refused(source),
            Kind::Setup => Error::Setup { action: failure.what, source },
        }
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
