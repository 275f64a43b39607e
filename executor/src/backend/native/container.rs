//! A container of the OCI runtime specification: everything up to its program, which then waits to be started.
//!
//! The same primitives as a run of our own, and the same care: every path of the root is resolved inside it and mounted onto by
//! descriptor, and what is written to /proc goes to a mount of our own. Unlike a run, a container outlives the process that creates it: an
//! orchestrator does, which is its parent then.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::AssertUnwindSafe;
use std::path::Path;

use oci_spec::runtime::{Hook, LinuxIdMapping, LinuxNamespaceType, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;

use super::message::{Channel, Doing, Failure, Kind, Order, Report};
use super::sys;
use crate::{Error, Result};

mod cgroups;
mod hooks;
mod mounts;
mod process;

pub use super::cgroup::remove as remove_cgroups;
pub use cgroups::Placed;
pub use hooks::run as run_hooks;

/// Sends a signal to a process.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    sys::kill(pid, signal)
}

/// What is to be created.
pub struct Wanted<'a> {
    /// Its configuration.
    pub spec: &'a Spec,
    /// Where it was read from; absolute.
    pub bundle: &'a Path,
    /// Its state as hooks see it, for a process number.
    pub state: &'a dyn Fn(i32) -> Vec<u8>,
    /// Whoever connects here starts the program.
    pub start: UnixListener,
    /// Where the near end of its terminal goes.
    pub console: Option<UnixStream>,
    /// How many descriptors from 3 on the program keeps.
    pub preserved: u32,
}

/// Creates the container in these cgroups; gives the number of its first process. If anything fails, nothing of it is left but the
/// cgroups.
pub fn create(wanted: Wanted<'_>, cgroups: &mut Placed) -> Result<i32> {
    let setup = |action: &'static str| move |source: io::Error| Error::Setup { action: action.to_owned(), source };
    let (inside, channel) = Channel::pair().map_err(setup("make a socket pair"))?;
    let (spec, state) = (wanted.spec, wanted.state);
    let mut container = Container { wanted, channel: inside, joins: cgroups.joins() };
    let Some(outer) = sys::fork().map_err(setup("start a process"))? else {
        let _ = std::panic::catch_unwind(AssertUnwindSafe(|| match container.outer() {
            Ok(()) => sys::exit(0),
            Err(failure) => container.channel.report(&Report::Failed(failure)),
        }));
        sys::exit(1)
    };
    drop(container);
    let mut creation = Creation { spec, state, channel, outer, inner: None };
    let result = creation.attend();
    if result.is_err() {
        // It may wait for a word that will not come.
        let _ = sys::kill(outer.as_raw_nonzero().get(), libc::SIGKILL);
    }
    let _ = sys::wait(Some(outer), true);
    if result.is_err()
        && let Some(inner) = creation.inner
    {
        let _ = sys::kill(inner.as_raw_nonzero().get(), libc::SIGKILL);
        let _ = sys::wait(Some(inner), true);
    }
    result
}

/// A container while it is being created, as its creator sees it.
struct Creation<'a> {
    spec: &'a Spec,
    state: &'a dyn Fn(i32) -> Vec<u8>,
    channel: Channel,
    outer: Pid,
    inner: Option<Pid>,
}

impl Creation<'_> {
    fn attend(&mut self) -> Result<i32> {
        let setup = |source: io::Error| Error::Setup { action: "create the container".to_owned(), source };
        loop {
            let Some((report, _)) = self.channel.next_report().map_err(setup)? else {
                return Err(setup(io::Error::other("its first process ended without a word")));
            };
            match report {
                Report::Started(pid) => {
                    self.inner = Pid::from_raw(pid);
                    self.channel.order(Order::Continue);
                }
                Report::MapMe => {
                    let pid = self.inner.unwrap_or(self.outer).as_raw_nonzero().get();
                    map(self.spec, pid).map_err(|source| Error::Setup { action: "map the ids".to_owned(), source })?;
                    self.channel.order(Order::Continue);
                }
                Report::Ready(1) => {
                    let pid = self.inner.map_or(0, |pid| pid.as_raw_nonzero().get());
                    let state = (self.state)(pid);
                    let hooks = self.spec.hooks().as_ref();
                    for hooks in [
                        hooks.and_then(|hooks| hooks.prestart().as_ref()),
                        hooks.and_then(|hooks| hooks.create_runtime().as_ref()),
                    ] {
                        run_hooks(hooks.map_or(&[][..], Vec::as_slice), &state)?;
                    }
                    self.channel.order(Order::Continue);
                }
                Report::Ready(_) => return Ok(self.inner.map_or(0, |pid| pid.as_raw_nonzero().get())),
                Report::Failed(failure) => {
                    let source = failure.source();
                    return Err(match failure.kind {
                        Kind::UserNamespace => super::userns::refused(source),
                        _ => Error::Setup { action: failure.what, source },
                    });
                }
                _ => {}
            }
        }
    }
}

/// Writes the maps of a process that is in a new user namespace.
fn map(spec: &Spec, pid: i32) -> io::Result<()> {
    let lines = |mappings: Option<&Vec<LinuxIdMapping>>| -> String {
        let line = |map: &LinuxIdMapping| format!("{} {} {}\n", map.container_id(), map.host_id(), map.size());
        mappings.into_iter().flatten().map(line).collect()
    };
    let linux = spec.linux().as_ref();
    let directory = Path::new("/proc").join(pid.to_string());
    let users = lines(linux.and_then(|linux| linux.uid_mappings().as_ref()));
    let groups = lines(linux.and_then(|linux| linux.gid_mappings().as_ref()));
    std::fs::write(directory.join("uid_map"), users)?;
    if !super::userns::is_privileged() {
        std::fs::write(directory.join("setgroups"), "deny")?;
    }
    std::fs::write(directory.join("gid_map"), groups)
}

/// What the processes on the way to the program work with.
struct Container<'a> {
    wanted: Wanted<'a>,
    channel: Channel,
    joins: Vec<File>,
}

impl Container<'_> {
    /// Joins and makes the namespaces.
    fn outer(&mut self) -> Result<(), Failure> {
        let mut keep: Vec<RawFd> = vec![self.channel.as_fd().as_raw_fd(), self.wanted.start.as_raw_fd()];
        keep.extend(self.joins.iter().map(AsRawFd::as_raw_fd));
        keep.extend(self.wanted.console.iter().map(AsRawFd::as_raw_fd));
        keep.extend((3..3 + self.wanted.preserved).map(|fd| fd as RawFd));
        sys::close_all_but(&mut keep).doing("close what the container must not hold")?;
        for cgroup in &mut self.joins {
            cgroup.write_all(b"0").doing("join the cgroup")?;
        }
        self.joins.clear();
        // Opened while the host's files can be reached and we have power over them.
        let sources = mounts::open(self.wanted.spec, self.wanted.bundle)?;
        let mut made = 0;
        let mut joined = Vec::new();
        for namespace in self.wanted.spec.linux().iter().flat_map(|linux| linux.namespaces().iter().flatten()) {
            let kind = namespace.typ() as libc::c_int;
            match namespace.path() {
                Some(path) => {
                    let open = OFlags::RDONLY | OFlags::CLOEXEC;
                    let what = format!("open the namespace `{}`", path.display());
                    joined.push((kind, rustix::fs::open(path, open, Mode::empty()).doing(what)?));
                }
                None => made |= kind,
            }
        }
        if made & libc::CLONE_NEWNS == 0 {
            return Err(Failure::refused("create the container", "it has no mount namespace of its own"));
        }
        let user = LinuxNamespaceType::User as libc::c_int;
        // The user namespace first: the others belong to it.
        for (kind, fd) in joined.iter().filter(|(kind, _)| *kind == user) {
            sys::join_namespace(fd.as_fd(), *kind).doing("join the user namespace")?;
            become_root()?;
        }
        if made & user != 0 {
            sys::unshare(libc::CLONE_NEWUSER)
                .map_err(|error| Failure::new(Kind::UserNamespace, &error, "make a user namespace"))?;
            self.channel.report(&Report::MapMe);
            self.wait()?;
            become_root()?;
        }
        for (kind, fd) in joined.iter().filter(|(kind, _)| *kind != user) {
            sys::join_namespace(fd.as_fd(), *kind).doing("join a namespace")?;
        }
        drop(joined);
        sys::unshare(made & !user).doing("make the namespaces")?;
        match sys::start(0, sys::Child::Sibling, None).doing("start the first process")? {
            Some(pid) => {
                self.channel.report(&Report::Started(pid.as_raw_nonzero().get()));
                Ok(())
            }
            None => {
                let failure = match self.inner(sources, made) {
                    Ok(never) => match never {},
                    Err(failure) => failure,
                };
                self.channel.report(&Report::Failed(failure));
                sys::exit(1)
            }
        }
    }

    /// Builds the root, waits for the start, and becomes the program.
    fn inner(&mut self, sources: mounts::Sources, made: libc::c_int) -> Result<std::convert::Infallible, Failure> {
        self.wait()?;
        let spec = self.wanted.spec;
        rustix::process::umask(Mode::empty());
        if made & libc::CLONE_NEWNET != 0 {
            sys::loopback_up().doing("turn the loopback on")?;
        }
        if made & libc::CLONE_NEWUTS != 0
            && let Some(name) = spec.hostname()
        {
            rustix::system::sethostname(name.as_bytes()).doing("set the host name")?;
        }
        if let Some(name) = spec.domainname() {
            rustix::system::setdomainname(name.as_bytes()).doing("set the domain name")?;
        }
        let mut root = mounts::build(spec, sources)?;
        if let Some(console) = &self.wanted.console {
            root.send_terminal(console).doing("send the terminal")?;
        }
        self.channel.report(&Report::Ready(1));
        self.wait()?;
        let hooks = |choose: fn(&oci_spec::runtime::Hooks) -> &Option<Vec<Hook>>| {
            spec.hooks().as_ref().and_then(|hooks| choose(hooks).as_deref()).unwrap_or_default()
        };
        let state = (self.wanted.state)(own_number());
        run_hooks(hooks(|hooks| hooks.create_container()), &state).map_err(Failure::of)?;
        let process = process::Process::prepare(spec, &root.proc)?;
        let terminal = root.enter(spec)?;
        let process = process.confine(terminal, self.wanted.preserved)?;
        self.channel.report(&Report::Ready(2));
        let connection = self.wait_for_start().doing("wait for the start")?;
        let told = |failure: Failure| -> Failure {
            let _ = (&connection).write_all(format!("{}: {}", failure.what, failure.source()).as_bytes());
            failure
        };
        run_hooks(hooks(|hooks| hooks.start_container()), &state).map_err(Failure::of).map_err(told)?;
        Err(told(process.execute()))
    }

    /// Whoever says `go` starts the program, and is told if that fails; with the program its end of the connection is closed.
    fn wait_for_start(&self) -> io::Result<UnixStream> {
        use std::io::Read;
        loop {
            let (mut connection, _) = self.wanted.start.accept()?;
            let mut word = [0; 2];
            if connection.read_exact(&mut word).is_ok() && &word == b"go" {
                return Ok(connection);
            }
        }
    }

    fn wait(&self) -> Result<(), Failure> {
        match self.channel.next_order() {
            Ok(Some(Order::Continue)) => Ok(()),
            // The creator has gone.
            _ => sys::exit(1),
        }
    }
}

/// In a user namespace that was made or joined, the ids before it mean nothing.
fn become_root() -> Result<(), Failure> {
    let groups: Option<&[u32]> = (!super::userns::keeps_groups()).then_some(&[]);
    sys::set_user(0, 0, groups).doing("become root of the user namespace")
}

/// The number of this process where the runtime is: in the pid namespace of the /proc that is still the host's.
fn own_number() -> i32 {
    let link = std::fs::read_link("/proc/self").unwrap_or_default();
    link.to_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Bytes of a word of the configuration.
fn word(text: &str) -> OsString {
    std::ffi::OsStr::from_bytes(text.as_bytes()).to_owned()
}
