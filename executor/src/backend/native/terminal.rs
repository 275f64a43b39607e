//! The caller's terminal and signals, for a command that has the caller's own streams.
//!
//! The command stays in the caller's session, as any program started from a shell: Ctrl-C, Ctrl-Z and a resize reach it from the
//! terminal itself. A part of a pipeline, `forge run … | less`, stays in the caller's process group too, as every pipeline has one; what
//! the terminal sends to the whole group is not sent a second time. A command that has the terminal for itself gets a process group of its
//! own in the foreground, as a shell does it for its jobs: a shell inside puts the group back that it found, which must be one that has
//! a number inside. Typing into the terminal (TIOCSTI) is refused by the seccomp filter.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::pipe::PipeFlags;
use rustix::process::Pid;

use super::message::{Channel, Order};
use super::sys::{self, SignalWatch};

/// Whether any of the caller's streams is a terminal.
pub fn is_shared() -> bool {
    rustix::termios::isatty(io::stdin())
        || rustix::termios::isatty(io::stdout())
        || rustix::termios::isatty(io::stderr())
}

/// How a command stands to the caller's terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// It has a session of its own.
    Not,
    /// It is in the caller's process group.
    Group,
    /// It is a job of its own, in the foreground.
    Job,
}

impl Sharing {
    /// With the streams that this process has.
    pub fn here() -> Self {
        let group = rustix::process::getpgrp();
        let is_alone = rustix::termios::isatty(io::stdout())
            && rustix::termios::tcgetpgrp(io::stdin()).ok() == Some(group)
            && group == rustix::process::getpid();
        match is_shared() {
            true if is_alone => Self::Job,
            true => Self::Group,
            false => Self::Not,
        }
    }
}

/// While it lives, signals sent to this process go to the command; at its end the terminal is the caller's again.
pub struct Forwarding {
    signals: OwnedFd,
    _watch: SignalWatch,
    sharing: Sharing,
    /// Our own process group, if it was in the foreground.
    foreground: Option<Pid>,
    /// The job's process group, as it is called here; known since it was first stopped.
    job: Cell<Option<Pid>>,
}

impl Forwarding {
    /// Begins to forward, unless another run of this process does so already.
    pub fn begin(sharing: Sharing) -> io::Result<Option<Self>> {
        let (signals, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let Some(watch) = SignalWatch::new(writer) else { return Ok(None) };
        let foreground = rustix::termios::tcgetpgrp(io::stdin()).ok();
        let foreground = foreground.filter(|group| *group == rustix::process::getpgrp());
        Ok(Some(Self { signals, _watch: watch, sharing, foreground, job: Cell::default() }))
    }

    /// Passes on what has come. Stops this process where the command is told to stop, so that a shell sees it. Says whether the
    /// caller's terminal has another size now.
    pub fn pass_on(&self, channel: &Channel) -> bool {
        let mut bytes = [0; 2];
        let mut resized = false;
        while let Ok(2) = rustix::io::read(&self.signals, &mut bytes) {
            let [signal, from_kernel] = bytes;
            resized |= i32::from(signal) == libc::SIGWINCH;
            // When a terminal hangs up, the kernel tells the leader of the session, and the group only where that is in the foreground.
            let is_from_terminal = from_kernel == 1 && i32::from(signal) != libc::SIGHUP;
            let has_it_already = self.sharing == Sharing::Group && is_from_terminal;
            // In a session of its own nobody could make it go on, so that the kernel would ignore SIGTSTP there: setpgid(2), orphaned
            // process groups. But we can.
            let stop = i32::from(signal) == libc::SIGTSTP && self.sharing == Sharing::Not;
            if i32::from(signal) == libc::SIGCONT {
                self.go_on();
            }
            if !has_it_already {
                channel.order(Order::Signal(if stop { libc::SIGSTOP as u8 } else { signal }));
            }
            // A job says itself when it has stopped.
            if i32::from(signal) == libc::SIGTSTP && self.sharing != Sharing::Job {
                let _ = sys::kill(rustix::process::getpid().as_raw_nonzero().get(), libc::SIGSTOP);
            }
        }
        resized
    }

    /// When there is no command any more: whether somebody has asked for the end since this was asked last.
    pub fn is_to_end(&self) -> bool {
        let (mut bytes, mut asked) = ([0; 2], false);
        while let Ok(2) = rustix::io::read(&self.signals, &mut bytes) {
            asked |= [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT].contains(&i32::from(bytes[0]));
        }
        asked
    }

    /// The command, a job, was stopped by this signal: so is this process, which the shell that started it waits for.
    pub fn stop_too(&self, signal: u8, channel: &Channel) {
        let front = rustix::termios::tcgetpgrp(io::stdin()).ok();
        let own = rustix::process::getpgrp();
        let wants_terminal = [libc::SIGTTIN, libc::SIGTTOU].contains(&i32::from(signal));
        if wants_terminal && front == Some(own) && self.job.get().is_some() {
            // The shell has made us the foreground again, and a job that went on in the background need not be told so.
            self.go_on();
            return channel.order(Order::Signal(libc::SIGCONT as u8));
        }
        // The first time it had the terminal.
        self.job.set(self.job.get().or(front.filter(|front| *front != own)));
        let _ = sys::kill(rustix::process::getpid().as_raw_nonzero().get(), libc::SIGSTOP);
    }

    /// Gives the terminal to the job, if the shell has given it to us.
    fn go_on(&self) {
        let stdin = io::stdin();
        if let Some(job) = self.job.get()
            && rustix::termios::tcgetpgrp(&stdin).ok() == Some(rustix::process::getpgrp())
        {
            let _ = sys::set_foreground(stdin.as_fd(), job);
        }
    }
}

impl AsFd for Forwarding {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        // A shell inside makes itself the foreground, and may be gone without putting it back.
        let stdin = io::stdin();
        let stdin = stdin.as_fd();
        if let Some(group) = self.foreground
            && rustix::termios::tcgetpgrp(stdin).ok() != Some(group)
        {
            let _ = sys::set_foreground(stdin, group);
        }
    }
}
