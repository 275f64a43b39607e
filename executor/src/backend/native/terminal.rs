//! The caller's terminal and signals, for a command that has the caller's own streams.
//!
//! The command stays in the caller's session and process group, as any program started from a shell: Ctrl-C, Ctrl-Z and a resize
//! reach it from the terminal itself, and `forge run … | less` shares the terminal as every pipeline does. What the terminal sends to
//! the whole group is not sent a second time. Typing into the terminal (TIOCSTI) is refused by the seccomp filter.

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

/// While it lives, signals sent to this process go to the command; at its end the terminal is the caller's again.
pub struct Forwarding {
    signals: OwnedFd,
    _watch: SignalWatch,
    shares_terminal: bool,
    foreground: Option<Pid>,
}

impl Forwarding {
    /// Begins to forward, unless another run of this process does so already.
    pub fn begin(shares_terminal: bool) -> io::Result<Option<Self>> {
        let (signals, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let Some(watch) = SignalWatch::new(writer) else { return Ok(None) };
        let foreground = rustix::termios::tcgetpgrp(io::stdin()).ok();
        let foreground = foreground.filter(|group| *group == rustix::process::getpgrp());
        Ok(Some(Self { signals, _watch: watch, shares_terminal, foreground }))
    }

    /// Passes on what has come. Stops this process where the command was stopped, so that a shell sees it. Says whether the caller's
    /// terminal has another size now.
    pub fn pass_on(&self, channel: &Channel) -> bool {
        let mut bytes = [0; 2];
        let mut resized = false;
        while let Ok(2) = rustix::io::read(&self.signals, &mut bytes) {
            let [signal, from_kernel] = bytes;
            resized |= i32::from(signal) == libc::SIGWINCH;
            let has_it_already = self.shares_terminal && from_kernel == 1;
            // In a session of its own nobody could make it go on, so that the kernel would ignore SIGTSTP there: setpgid(2), orphaned
            // process groups. But we can.
            let stop = i32::from(signal) == libc::SIGTSTP && !self.shares_terminal;
            if !has_it_already {
                channel.order(Order::Signal(if stop { libc::SIGSTOP as u8 } else { signal }));
            }
            if i32::from(signal) == libc::SIGTSTP {
                let _ = sys::kill(rustix::process::getpid().as_raw_nonzero().get(), libc::SIGSTOP);
            }
        }
        resized
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
