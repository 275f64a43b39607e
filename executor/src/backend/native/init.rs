//! Process 1 of the sandbox: passes signals on to the command, collects every process that ends, and reports the command's end.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::process::Pid;

use super::message::{Channel, Order, Report};
use super::sys;

/// Waits for the command's end, then ends everything else and reports. Does not return: when this process ends, so does whatever is
/// left in its pid namespace.
pub fn run(command: Pid, channel: &Channel, children: &OwnedFd) -> ! {
    loop {
        if let Some(status) = collect(command) {
            // A background process may outlive its parent, not the sandbox. They are waited for so that what they used counts.
            let _ = sys::kill(-1, libc::SIGKILL);
            while let Ok(Some(_)) = sys::wait(None, true) {}
            channel.report(&Report::Ended(status, sys::children_usage()));
            sys::exit(0);
        }
        let mut waited = [
            PollFd::from_borrowed_fd(channel.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(children.as_fd(), PollFlags::IN),
        ];
        if rustix::event::poll(&mut waited, None).is_err() {
            continue;
        }
        let (orders, ended) = (!waited[0].revents().is_empty(), !waited[1].revents().is_empty());
        if ended {
            // Which children it was, `collect` asks; the descriptor only needs to be emptied (a signalfd_siginfo is 128 bytes).
            let _ = rustix::io::read(children, &mut [0u8; 128]);
        }
        if orders {
            match channel.next_order() {
                Ok(Some(Order::Signal(signal))) => {
                    let _ = sys::kill(command.as_raw_nonzero().get(), i32::from(signal));
                }
                Ok(Some(Order::Continue)) => {}
                // The launcher has gone: so must we.
                Ok(None) | Err(_) => sys::exit(1),
            }
        }
    }
}

/// Collects all children that have ended. Gives the command's status if it was among them.
fn collect(command: Pid) -> Option<i32> {
    let mut ended = None;
    while let Ok(Some((pid, status))) = sys::wait(None, false) {
        if pid == command {
            ended = Some(status);
        }
    }
    ended
}
