//! Process 1 of the sandbox: passes signals on to the command, collects every process that ends, answers for the supervisor of a
//! build step, and reports the command's end.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Pid;

use super::message::{Channel, Doing, Order, Report};
use super::run::REST;
use super::supervisor::Supervisor;
use super::sys;

/// What process 1 has to do with.
pub struct Init<'a> {
    /// The command's process.
    pub command: Pid,
    /// It is a job with a process group of its own.
    pub is_job: bool,
    /// The way to the launcher.
    pub channel: &'a Channel,
    /// Readable when a child has ended.
    pub children: OwnedFd,
    /// Answers the calls of a build step.
    pub supervisor: Option<Supervisor>,
    /// Where the supervisor's record of owners goes.
    pub owners: Option<File>,
    /// Signals that came before there was a command.
    pub early: Vec<u8>,
}

/// Waits for the command's end, then ends everything else and reports. Does not return: when this process ends, so does whatever is
/// left in its pid namespace.
pub fn run(mut init: Init<'_>) -> ! {
    for signal in std::mem::take(&mut init.early) {
        init.pass_on(signal);
    }
    let mut rests = false;
    let status = loop {
        if let Some(status) = init.wait(&mut rests) {
            break status;
        }
    };
    // A background process may outlive its parent, not the sandbox. They are waited for so that what they used counts.
    let _ = sys::kill(-1, libc::SIGKILL);
    while let Ok(Some(_)) = sys::wait(None, true) {}
    match init.write_owners().doing("write the table of owners") {
        Ok(()) => init.channel.report(&Report::Ended(status, sys::children_usage())),
        Err(failure) => init.channel.report(&Report::Failed(failure)),
    }
    sys::exit(0)
}

impl Init<'_> {
    /// Waits until something has happened, and answers it. Gives the command's status when it has ended.
    fn wait(&mut self, rests: &mut bool) -> Option<i32> {
        let mut waited = vec![
            PollFd::from_borrowed_fd(self.channel.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.children.as_fd(), PollFlags::IN),
        ];
        waited.extend(
            self.supervisor.as_ref().map(|supervisor| PollFd::from_borrowed_fd(supervisor.fd(), PollFlags::IN)),
        );
        let look = Timespec { tv_sec: 0, tv_nsec: i64::from(REST.subsec_nanos()) };
        match rustix::event::poll(&mut waited, (!*rests).then_some(&look)) {
            Ok(0) => {
                sys::let_code_go();
                *rests = true;
                return None;
            }
            Ok(_) => {}
            Err(_) => return None,
        }
        let events: Vec<PollFlags> = waited.iter().map(PollFd::revents).collect();
        if let (Some(supervisor), Some(event)) = (&mut self.supervisor, events.get(2))
            && event.contains(PollFlags::IN)
            && let Err(failure) = supervisor.handle_one().doing("answer a call of the command")
        {
            // No further call would be answered.
            self.channel.report(&Report::Failed(failure));
            sys::exit(1);
        }
        if !events[0].is_empty() {
            match self.channel.next_order() {
                Ok(Some(Order::Signal(signal))) => self.pass_on(signal),
                Ok(Some(Order::Continue)) => {}
                // The launcher has gone: so must we.
                Ok(None) | Err(_) => sys::exit(1),
            }
        }
        if events[1].is_empty() {
            return None;
        }
        // Which children it was, `collect` asks; the descriptor only needs to be emptied (a signalfd_siginfo is 128 bytes).
        let _ = rustix::io::read(&self.children, &mut [0u8; 128]);
        self.collect()
    }

    /// Collects all children that have ended. Gives the command's status if it was among them.
    fn collect(&self) -> Option<i32> {
        let mut ended = None;
        while let Ok(Some((pid, status))) = sys::wait_also_stopped() {
            let is_stopped = libc::WIFSTOPPED(status);
            if pid == self.command && !is_stopped {
                ended = Some(status);
            } else if pid == self.command && self.is_job {
                self.channel.report(&Report::Stopped(libc::WSTOPSIG(status) as u8));
            }
        }
        ended
    }

    fn pass_on(&self, signal: u8) {
        let command = self.command.as_raw_nonzero().get();
        // The terminal has stopped the whole group.
        let is_for_all = self.is_job && i32::from(signal) == libc::SIGCONT;
        let _ = sys::kill(if is_for_all { -command } else { command }, i32::from(signal));
    }

    fn write_owners(&mut self) -> io::Result<()> {
        let (Some(supervisor), Some(file)) = (&self.supervisor, &mut self.owners) else { return Ok(()) };
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(&supervisor.owners().encode())
    }
}
