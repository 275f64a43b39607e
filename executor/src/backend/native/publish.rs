//! Ports of a closed network that the host's side reaches: without an interface, an address or a route.
//!
//! Sockets belong for ever to the network namespace that they were made in. So a small process of ours holds listening sockets made on the
//! host's side, enters the sandbox's network namespace, and for each connection that it accepts it makes a socket there and passes bytes
//! on. It is in none of the sandbox's other namespaces and cgroups, where the command could reach it, and keeps no power: no capability,
//! no further privileges, and for root another user.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{DumpableBehavior, Pid, Resource, Rlimit, Signal, getrlimit, setrlimit};
use store::formation::Protocol;

use super::sys;
use crate::{Error, Published, Result};

mod datagrams;
mod streams;

/// One port.
#[derive(Debug)]
enum Listener {
    Streams(TcpListener, u16),
    Datagrams(UdpSocket, u16),
}

/// The process that passes on.
#[derive(Debug)]
pub struct Forwarder {
    pid: Pid,
    /// Written to when every process inside has gone. That it is closed would not be seen while another thread's fork has it.
    lasts: OwnedFd,
}

/// Open files that are no connections: streams, namespaces, the way to the launcher, and some in passing.
const OWN_FILES: usize = 32;
/// How long those outside may take to accept what a run wrote last.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Sockets of the host's side, bound before the run begins: that a port is taken is known at once, and nobody is turned away who comes
/// early.
#[derive(Debug, Default)]
pub struct Listeners(Vec<Listener>);

impl Listeners {
    /// Binds all.
    pub fn bind(published: &[Published]) -> Result<Self> {
        let mut listeners = Vec::new();
        for port in published {
            let address = port.listens_on();
            let listener = match port.inside.protocol {
                Protocol::Tcp => TcpListener::bind(address).and_then(|socket| {
                    socket.set_nonblocking(true)?;
                    Ok(Listener::Streams(socket, port.inside.number))
                }),
                Protocol::Udp => UdpSocket::bind(address).and_then(|socket| {
                    socket.set_nonblocking(true)?;
                    Ok(Listener::Datagrams(socket, port.inside.number))
                }),
            };
            listeners.push(listener.map_err(|source| Error::Port { address, source })?);
        }
        Ok(Self(listeners))
    }

    /// Starts the process that passes on, and waits until it is in the namespace. It dies with this one.
    pub fn serve(&self, user: &OwnedFd, network: &OwnedFd, privileged: bool) -> io::Result<Forwarder> {
        let (ready, told) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let (over, lasts) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let Some(pid) = sys::fork()? else {
            drop((ready, lasts));
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                self.enter(user.as_fd(), network.as_fd(), privileged, &[told.as_raw_fd(), over.as_raw_fd()])?;
                rustix::io::write(&told, b"+")?;
                drop(told);
                self.pass_on(over.as_fd())
            }));
            sys::exit(i32::from(!matches!(result, Ok(Ok(())))))
        };
        drop((told, over));
        let mut byte = [0];
        match rustix::io::retry_on_intr(|| rustix::io::read(&ready, &mut byte))? {
            1 => Ok(Forwarder { pid, lasts }),
            _ => {
                let _ = sys::wait(Some(pid), true);
                Err(io::Error::other("the process that forwards them could not enter the network namespace"))
            }
        }
    }

    fn enter(
        &self,
        user: BorrowedFd<'_>,
        network: BorrowedFd<'_>,
        privileged: bool,
        others: &[RawFd],
    ) -> io::Result<()> {
        let die_with_parent = || rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        die_with_parent()?;
        let mut keep: Vec<RawFd> = vec![user.as_raw_fd(), network.as_raw_fd()];
        keep.extend(others);
        keep.extend(self.0.iter().map(|listener| listener.fd().as_raw_fd()));
        sys::close_all_but(&mut keep)?;
        // What the caller reads to the end must not stay open here.
        let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())?;
        for number in 0..3 {
            sys::set_stream(null.as_fd(), number)?;
        }
        drop(null);
        rustix::process::setsid()?;
        sys::reset_signals(false);
        // An ordinary user has power over the network namespace in the user namespace alone that it belongs to.
        if !privileged {
            sys::join_namespace(user, libc::CLONE_NEWUSER)?;
        }
        sys::join_namespace(network, libc::CLONE_NEWNET)?;
        sys::limit_bounding_set(0)?;
        if privileged {
            const NOBODY: u32 = 65_534;
            sys::set_user(NOBODY, NOBODY, Some(&[]))?;
        }
        sys::hold_capabilities(sys::Sets::default(), 0)?;
        rustix::thread::set_no_new_privs(true)?;
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        // The change of user has cleared it.
        die_with_parent()?;
        Ok(())
    }

    /// Accepts and passes on for as long as the run lasts, and then what those inside wrote before they ended.
    fn pass_on(&self, over: BorrowedFd<'_>) -> io::Result<()> {
        let has_datagrams = self.0.iter().any(|listener| listener.datagrams().is_some());
        let others = self.0.len() + OWN_FILES + if has_datagrams { datagrams::MOST } else { 0 };
        let mut streams = streams::Streams::within(files()?.saturating_sub(others));
        let mut datagrams = datagrams::Datagrams::default();
        let mut deadline: Option<Instant> = None;
        loop {
            let mut polled = Vec::new();
            for listener in &self.0 {
                // Where there is no room for more, those who come wait in the kernel's queue.
                let wanted = matches!(listener, Listener::Datagrams(..)) || streams.has_room();
                let events = if wanted && deadline.is_none() { PollFlags::IN } else { PollFlags::empty() };
                polled.push(PollFd::from_borrowed_fd(listener.fd(), events));
            }
            let own = polled.len();
            let about = streams.wanted(&mut polled);
            let middle = polled.len();
            datagrams.wanted(&mut polled);
            let end = polled.len();
            let timeout = match deadline {
                None => {
                    polled.push(PollFd::from_borrowed_fd(over, PollFlags::IN));
                    datagrams.timeout()
                }
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() || streams.are_done() {
                        return Ok(());
                    }
                    Some(Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) })
                }
            };
            match rustix::event::poll(&mut polled, timeout.as_ref()) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let ready: Vec<PollFlags> = polled.iter().map(PollFd::revents).collect();
            drop(polled);
            let is_ready = |(index, events): (&usize, &PollFlags)| (!events.is_empty()).then_some(*index);
            streams.proceed(&about.iter().zip(&ready[own..middle]).filter_map(is_ready).collect());
            let sockets: Vec<Option<&UdpSocket>> = self.0.iter().map(Listener::datagrams).collect();
            datagrams.answers(&sockets, &ready[middle..end]);
            for (index, listener) in self.0.iter().enumerate() {
                if ready[index].is_empty() {
                    continue;
                }
                match listener {
                    Listener::Streams(socket, port) => streams.accept(socket, *port),
                    Listener::Datagrams(socket, port) => datagrams.questions(index, socket, *port),
                }
            }
            if ready.get(end).is_some_and(|events| !events.is_empty()) {
                // What the processes inside wrote lies in our sockets by now, and so does that they have gone.
                deadline = Some(Instant::now() + LAST_WORDS);
            }
        }
    }
}

/// How many files this process may have open: as many as it can be allowed.
fn files() -> io::Result<usize> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    Ok(limit.maximum.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX)))
}

impl Forwarder {
    /// Ends it, after every process inside has gone: at once, or when it has passed on what they wrote last.
    pub fn end(self, at_once: bool) {
        let Self { pid, lasts } = self;
        if at_once {
            let _ = sys::kill(pid.as_raw_nonzero().get(), libc::SIGKILL);
        }
        let _ = rustix::io::write(&lasts, b"-");
        let _ = sys::wait(Some(pid), true);
    }
}

impl Listener {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Streams(socket, _) => socket.as_fd(),
            Self::Datagrams(socket, _) => socket.as_fd(),
        }
    }

    fn datagrams(&self) -> Option<&UdpSocket> {
        match self {
            Self::Streams(..) => None,
            Self::Datagrams(socket, _) => Some(socket),
        }
    }
}
