//! The way from the launcher to the command: two processes, each with less power than the one before.
//!
//! 1. [`inner`], process 1 of the new namespaces and the launcher's own child, joins the cgroups, builds the root and gives up its power.
//! 2. [`command`] takes the streams, installs the seccomp filter and becomes the program. It has the memory of process 1, which
//!    waits meanwhile: nothing is copied.
//!
//! A launcher with several threads cannot make process 1 itself, as another thread may hold a lock that process 1 would wait for: then
//! [`outer`], a fork by the C library, stands in between, and ends at once.
//!
//! All die with the launcher: each has it, or process 1, as parent and asks for SIGKILL on the parent's death; and process 1
//! notices when the launcher's end of the channel closes.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::panic::AssertUnwindSafe;

use rustix::event::EventfdFlags;
use rustix::fs::{Mode, OFlags};
use rustix::process::{DumpableBehavior, Pid, Resource, Rlimit, Signal};

use super::cgroup::Joins;
use super::init::Init;
use super::message::{Channel, Doing, Failure, Kind, Order, Report};
use super::program::Program;
use super::root::{self, Entered, Sources, Terminal};
use super::supervisor::{Handover, Supervisor};
use super::sys::Child;
use super::terminal::Sharing;
use super::userns::{self, UserNamespace};
use super::{init, sys};
use crate::owners::Owners;
use crate::{Network, Sandbox};

type Result<T, E = Failure> = std::result::Result<T, E>;

/// Everything the sandbox's processes need, made ready by the launcher.
pub struct Prepared<'a> {
    /// What was asked for.
    pub sandbox: &'a Sandbox,
    /// When the user namespace is made.
    pub namespace: UserNamespace,
    /// Whether the launcher has power of its own.
    pub privileged: bool,
    /// Whether the user namespace may be left out.
    pub namespace_required: bool,
    /// What is executed.
    pub program: Program,
    /// stdin, stdout and stderr where they are not the launcher's own.
    pub streams: Option<[OwnedFd; 3]>,
    /// How the command stands to the launcher's terminal.
    pub sharing: Sharing,
    /// The cgroups of the limits, to be joined.
    pub cgroups: Joins,
    /// Bound on processes by rlimit, process 1 included, where there is no cgroup for it.
    pub process_limit: Option<u64>,
    /// Bound on the private memory of each process by rlimit, where there is no cgroup for it.
    pub memory_limit: Option<u64>,
    /// The command's end of a terminal of its own, once there is one.
    pub terminal: Option<OwnedFd>,
    /// The seccomp filter.
    pub filter: Vec<libc::sock_filter>,
    /// What is recorded of owners in the layers below, for a supervisor.
    pub owners: Owners,
    /// Where the supervisor's record goes.
    pub owners_file: Option<File>,
    /// The way to the launcher.
    pub channel: Channel,
    /// Signals that came for the command before there was one.
    pub early: Vec<u8>,
}

/// The number of the capability to send signals to other users' processes.
const CAP_KILL: u32 = 5;

/// Runs in a fresh fork of the launcher.
pub fn outer(mut prepared: Prepared<'_>) -> ! {
    // A panic must not unwind into the launcher's own callers, of which this process has a copy.
    let _ = std::panic::catch_unwind(AssertUnwindSafe(|| match prepared.outer() {
        Ok(()) => sys::exit(0),
        Err(failure) => prepared.channel.report(&Report::Failed(failure)),
    }));
    sys::exit(1)
}

impl Prepared<'_> {
    fn outer(&mut self) -> Result<()> {
        die_with_parent()?;
        let pid = self.start(Child::Sibling)?;
        self.channel.report(&Report::Started(pid.as_raw_nonzero().get()));
        Ok(())
    }

    /// Starts process 1 from a process with one thread. Returns to the caller only.
    pub fn start(&mut self, child: Child) -> Result<Pid> {
        let mut namespaces = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        if self.sandbox.network == Network::None && !self.namespace.network_is_late(self.sandbox) {
            namespaces |= libc::CLONE_NEWNET;
        }
        let mut sources = None;
        if self.namespace == UserNamespace::First {
            namespaces |= libc::CLONE_NEWUSER;
            if self.privileged {
                // Root opens what only root may reach while it still is root; process 1 is one user among none.
                sources = Some(root::open(self.sandbox, true)?);
            }
        }
        let mut started = sys::start(namespaces, child, self.cgroups.entered());
        let cannot_enter = |error: &io::Error| error.raw_os_error() == Some(libc::ENOSYS);
        if started.as_ref().is_err_and(cannot_enter) && self.cgroups.enter_later() {
            started = sys::start(namespaces, child, None);
        }
        let started = started.map_err(|error| {
            // The user namespace is made first, and the others are in its power: Ubuntu's AppArmor lets an ordinary user have the one,
            // and then refuses the others.
            let is_refused = self.namespace == UserNamespace::First && is_refusal(&error);
            Failure::new(if is_refused { Kind::UserNamespace } else { Kind::Setup }, &error, "make the namespaces")
        })?;
        match started {
            Some(pid) => Ok(pid),
            None => {
                // A panic must not unwind into the launcher's own callers, of which this process has a copy.
                let _ = std::panic::catch_unwind(AssertUnwindSafe(|| {
                    let failure = match self.inner(sources, child) {
                        Ok(never) => match never {},
                        Err(failure) => failure,
                    };
                    self.channel.report(&Report::Failed(failure));
                }));
                sys::exit(1)
            }
        }
    }

    fn inner(&mut self, sources: Option<Sources>, child: Child) -> Result<std::convert::Infallible> {
        die_with_parent()?;
        self.close_others(sources.as_ref())?;
        self.cgroups.join().doing("join the cgroup of the limits")?;
        // For the ids to be mapped; and, where a fork in between says who we are, for that to be heard before anything of ours.
        if self.namespace == UserNamespace::First || child == Child::Sibling {
            self.wait()?;
        }
        // After joining, so that it is what the command sees as the root of its cgroups.
        sys::unshare(libc::CLONE_NEWCGROUP).doing("make the cgroup namespace")?;
        if let Some(cores) = &self.sandbox.bounds.cores {
            sys::run_on(cores.iter().copied()).doing("choose the processors")?;
        }
        rustix::process::umask(Mode::empty());
        let sources = sources.map_or_else(|| root::open(self.sandbox, false), Ok)?;
        let Entered { made, terminal, proc, kernel_settings } = root::enter(self.sandbox, sources, self.namespace)?;
        for point in made {
            self.channel.report(&Report::MountPoint(point.0));
        }
        if let Some(Terminal { near, far }) = terminal {
            self.channel.report_with(&Report::Terminal, &[near.as_fd()]).doing("hand over the terminal")?;
            self.terminal = Some(far);
        }
        rustix::system::sethostname(self.sandbox.hostname.as_bytes()).doing("set the host name")?;
        if !self.namespace.network_is_late(self.sandbox) {
            self.set_up_network(kernel_settings.as_ref())?;
        }
        rustix::process::umask(Mode::from_raw_mode(0o022));
        self.raise_limits();
        self.give_up_power(&proc, kernel_settings)?;
        drop(proc);
        die_with_parent()?;

        let children = sys::watch_children().doing("watch the command")?;
        let handover = match self.sandbox.pretend_root {
            true => Some(Handover::new().doing("make a socket pair")?),
            false => None,
        };
        let handover = match handover {
            // Process 1 answers for the command before it executes anything, and so must have a memory of its own.
            Some(handover) => {
                let Some(command) = sys::fork().doing("start the command")? else {
                    self.become_command(Some(handover));
                    sys::exit(127)
                };
                (command, Some(handover))
            }
            None => {
                let start = sys::start_in_our_memory(&mut || {
                    // A panic has been printed; it must not reach process 1, which shares the memory and not the stack.
                    let _ = std::panic::catch_unwind(AssertUnwindSafe(|| self.become_command(None)));
                });
                (start.doing("start the command")?, None)
            }
        };
        let (command, handover) = handover;
        // Process 1 needs none, nor may it be a way to them; but signals must reach a command that has become another user.
        if !self.sandbox.capabilities.is_empty() && !self.sandbox.pretend_root {
            let kill = self.sandbox.capabilities.bits() & 1 << CAP_KILL;
            let sets = sys::Sets { effective: kill, permitted: kill, inheritable: 0 };
            sys::hold_capabilities(sets, 0).doing("drop the capabilities of process 1")?;
        }
        self.let_streams_go().doing("close the streams of process 1")?;
        // Without a listener the command has failed, which it reports itself.
        let supervisor = match handover.map(Handover::take) {
            Some(Ok(listener)) => {
                Some(Supervisor::new(listener, std::mem::take(&mut self.owners)).doing("start the supervisor")?)
            }
            Some(Err(_)) | None => None,
        };
        let (early, owners) = (std::mem::take(&mut self.early), self.owners_file.take());
        let is_job = self.sharing == Sharing::Job;
        init::run(Init { command, is_job, channel: &self.channel, children, supervisor, owners, early })
    }

    /// A loopback, and ports below 1024 for everybody: there is nobody here to protect them from.
    fn set_up_network(&self, kernel_settings: Option<&OwnedFd>) -> Result<()> {
        if self.sandbox.network != Network::None {
            return Ok(());
        }
        sys::loopback_up().doing("turn the loopback on")?;
        let Some(kernel_settings) = kernel_settings else { return Ok(()) };
        let name = "net/ipv4/ip_unprivileged_port_start";
        // Not in every kernel, and not in every container: then they are closed as usual.
        if let Ok(file) = rustix::fs::openat(kernel_settings, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
            let _ = rustix::io::write(&file, b"0");
        }
        Ok(())
    }

    /// What goes beyond our own limits takes power that is given up after this. What cannot be had fails when it is set.
    fn raise_limits(&self) {
        for limit in &self.sandbox.bounds.resources {
            let _ = sys::raise_resource(limit.resource, limit.hard);
        }
    }

    /// Gives whoever forwards ports the namespaces that the command will be in, and waits until they are joined.
    fn publish(&mut self, proc: &OwnedFd) -> Result<()> {
        if self.sandbox.published.is_empty() {
            return Ok(());
        }
        let open = |name: &str| rustix::fs::openat(proc, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let (user, network) = (open("self/ns/user"), open("self/ns/net"));
        let (user, network) = (user.doing("open the user namespace")?, network.doing("open the network namespace")?);
        self.channel.report_with(&Report::Network, &[user.as_fd(), network.as_fd()]).doing("publish the ports")?;
        self.wait()
    }

    /// Makes the sockets that the caller answers, and hands them out.
    fn open_doors(&self) -> Result<()> {
        let Some(doors) = &self.sandbox.doors else { return Ok(()) };
        for index in 0..doors.count() {
            let socket = doors.open(index).doing("listen inside")?;
            self.channel.report_with(&Report::Door, &[socket.as_fd()]).doing("hand out a socket")?;
        }
        Ok(())
    }

    /// Says so where the command has not the further groups that it was to have.
    fn report_missing_groups(&self, missing: bool) {
        if missing && !self.sandbox.groups.is_empty() {
            self.channel.report(&Report::Missing("groups: an ordinary user has no further ones to give".to_owned()));
        }
    }

    /// From here on there is nothing that the command could gain from process 1 but the capabilities that it is to have.
    fn give_up_power(&mut self, proc: &OwnedFd, kernel_settings: Option<OwnedFd>) -> Result<()> {
        if self.namespace == UserNamespace::Last {
            match sys::unshare(libc::CLONE_NEWUSER) {
                Ok(()) => self.wait_for_map()?,
                Err(error)
                    if is_refusal(&error) && !self.namespace_required && self.sandbox.capabilities.is_empty() =>
                {
                    self.channel.report(&Report::Missing(format!("user: no user namespace ({error})")));
                }
                Err(error) => return Err(Failure::new(Kind::UserNamespace, &error, "make a user namespace")),
            }
        }
        if self.namespace.network_is_late(self.sandbox) {
            sys::unshare(libc::CLONE_NEWNET).doing("make the network namespace")?;
            self.set_up_network(kernel_settings.as_ref())?;
        }
        drop(kernel_settings);
        self.publish(proc)?;
        self.open_doors()?;
        // Those that this kernel has; it would refuse others.
        let kept = match self.sandbox.capabilities.bits() {
            0 => 0,
            bits => bits & (u64::MAX >> (63 - sys::last_capability())),
        };
        // Each needs capabilities that the next takes away.
        if !self.sandbox.pretend_root {
            sys::limit_bounding_set(kept).doing("limit the bounding set of capabilities")?;
            sys::keep_capabilities(kept != 0).doing("keep capabilities over the change of user")?;
        }
        if self.namespace == UserNamespace::Last {
            let (uid, gid) = self.sandbox.user;
            let keeps_groups = userns::keeps_groups();
            sys::set_user(uid, gid, (!keeps_groups).then_some(self.sandbox.every_group().as_slice()))
                .doing(format!("become user {uid}:{gid}"))?;
            self.report_missing_groups(keeps_groups);
        } else if self.namespace == UserNamespace::First {
            self.report_missing_groups(true);
        }
        if let Some(limit) = self.process_limit {
            let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
            rustix::process::setrlimit(Resource::Nproc, limit).doing("limit the number of processes")?;
        }
        rustix::thread::set_no_new_privs(true).doing("set no_new_privs")?;
        if !self.sandbox.pretend_root {
            let sets = sys::Sets { effective: kept, permitted: kept, inheritable: kept };
            sys::hold_capabilities(sets, kept).doing("drop the capabilities")?;
        }
        sys::forget_arguments();
        // The command may be the same user: it shall not trace us, nor reach our executable through /proc/1/exe (CVE-2019-5736).
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).doing("hide process 1")
    }

    fn become_command(&self, handover: Option<Handover>) {
        let failure = match self.command(handover) {
            Ok(never) => match never {},
            Err(failure) => failure,
        };
        self.channel.report(&Report::Failed(failure));
    }

    fn command(&self, handover: Option<Handover>) -> Result<std::convert::Infallible> {
        die_with_parent()?;
        if let Some([stdin, stdout, stderr]) = &self.streams {
            sys::set_stream(stdin.as_fd(), 0).doing("set stdin")?;
            sys::set_stream(stdout.as_fd(), 1).doing("set stdout")?;
            sys::set_stream(stderr.as_fd(), 2).doing("set stderr")?;
        }
        match self.sharing {
            Sharing::Not => _ = rustix::process::setsid().doing("make a session")?,
            Sharing::Group => {}
            Sharing::Job => {
                rustix::process::setpgid(None, None).doing("make a process group")?;
                sys::set_foreground(io::stdin().as_fd(), rustix::process::getpid()).doing("take the terminal")?;
            }
        }
        if let Some(terminal) = &self.terminal {
            sys::take_terminal(terminal.as_fd()).doing("take the terminal")?;
            for number in 0..3 {
                sys::set_stream(terminal.as_fd(), number).doing("set the streams")?;
            }
        }
        for limit in &self.sandbox.bounds.resources {
            sys::limit_resource(limit.resource, limit.soft, limit.hard)
                .doing(format!("set the resource limit `{}`", limit.resource.name()))?;
        }
        if let Some(bytes) = self.memory_limit {
            sys::limit_resource(crate::Resource::Data, Some(bytes), Some(bytes)).doing("limit the memory")?;
        }
        let directory = &self.sandbox.directory;
        let enter = || format!("enter the working directory `{}`", directory.display());
        rustix::process::chdir(directory).doing(enter())?;
        // A descriptor that leads out of the root would show here as a path that does not begin with a slash (CVE-2024-21626).
        let entered = rustix::process::getcwd(Vec::new()).doing(enter())?;
        if !entered.as_bytes().starts_with(b"/") {
            return Err(io::Error::from_raw_os_error(libc::EXDEV)).doing(enter());
        }
        sys::close_on_exec().doing("close what the command must not see")?;
        // A build step mounts, which landlock would forbid; it is an ordinary user's, who cannot write to what is not theirs.
        if !self.sandbox.pretend_root {
            let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).doing("open the root")?;
            if !sys::execute_only_below(root.as_fd()).doing("confine execution to the root")? {
                self.program.refuse_ourselves()?;
            }
        }
        sys::reset_signals(self.streams.is_none());
        sys::install_filter(&self.filter).doing("install the seccomp filter")?;
        if let Some(handover) = handover {
            handover.give().doing("install the filter of the supervisor")?;
        }
        Err(self.program.execute())
    }

    /// Other threads' files were copied along; a lock among them must not be held for the length of this run.
    fn close_others(&self, sources: Option<&Sources>) -> Result<()> {
        let mut keep: Vec<RawFd> = vec![self.channel.as_fd().as_raw_fd()];
        keep.extend(self.cgroups.files().map(AsRawFd::as_raw_fd));
        keep.extend(sources.into_iter().flat_map(Sources::files).map(AsRawFd::as_raw_fd));
        keep.extend(self.owners_file.iter().map(AsRawFd::as_raw_fd));
        keep.extend(self.streams.iter().flatten().map(AsRawFd::as_raw_fd));
        sys::close_all_but(&mut keep).doing("close what the sandbox must not hold")
    }

    /// Held open here, a pipe would not end when the command closes it.
    fn let_streams_go(&mut self) -> io::Result<()> {
        self.streams = None;
        self.terminal = None;
        // Any file will do that is nobody else's; there need not be a null device in the root.
        let nothing = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
        for number in 0..3 {
            sys::set_stream(nothing.as_fd(), number)?;
        }
        Ok(())
    }

    fn wait_for_map(&mut self) -> Result<()> {
        self.channel.report(&Report::MapMe);
        self.wait()?;
        // A new user namespace changes the credentials, which clears it.
        die_with_parent()
    }

    fn wait(&mut self) -> Result<()> {
        loop {
            match self.channel.next_order() {
                Ok(Some(Order::Continue)) => return Ok(()),
                Ok(Some(Order::Signal(signal))) => self.early.push(signal),
                // The launcher has gone.
                Ok(None) | Err(_) => sys::exit(1),
            }
        }
    }
}

fn die_with_parent() -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).doing("ask to end with the launcher")
}

fn is_refusal(error: &io::Error) -> bool {
    // ENOSPC: the limit of user namespaces is reached, which may be 0. EUSERS: so before Linux 4.9. EINVAL: not compiled in.
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSPC | libc::EUSERS | libc::EACCES | libc::EINVAL))
}
