//! Lets a build step in a namespace with one user believe that it is root, and records what it makes of that.
//!
//! `docs/why/supervisor.md` tells why. The step's command puts [`install_filter`]'s filter on itself before it executes; its calls
//! about owners, users and devices then wait for the [`Supervisor`], which runs in the first process of the sandbox: in its
//! namespaces, under its root and with its capabilities, so that every path means the same to both.
//!
//! This is no security boundary: a task can change its memory after the supervisor has read it, and gains nothing but a wrong
//! record in its own result. What confines a step is its namespaces.
//!
//! How the pieces fit, for whoever starts a sandbox:
//! 1. The first process reads `DIR/owners` if it is there and keeps a descriptor to write it; it becomes pid 1 with /proc mounted,
//!    makes a [`Handover`], and forks the command's process.
//! 2. That one calls [`Handover::give`] and executes. Between the two it must not expect a call that the filter asks about to come
//!    back before pid 1 has the listener.
//! 3. Pid 1 takes the listener with [`Handover::take`], makes a [`Supervisor`] of it and polls [`Supervisor::fd`] beside whatever
//!    else it waits for: when it is readable, [`Supervisor::handle_one`]; when it hangs up, the last task is gone. It keeps its
//!    capabilities, CAP_SYS_PTRACE among them: tasks may hide their memory even from their own user.
//! 4. What [`Supervisor::owners`] says is then written to `DIR/owners`, while the root is still mounted.
//!
//! Pid 1 allocates memory. If it is forked from a process with threads, that must be by libc's `fork`, which leaves the
//! allocator's locks free in the child; not by a bare `clone`.

mod acl;
mod attributes;
mod create;
mod execute;
mod filter;
mod handover;
mod identity;
mod marks;
mod status;
mod sys;
mod task;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

pub use filter::install_filter;
pub use handover::Handover;

use crate::owners::Owners;
use identity::Identities;
use marks::Marks;
use sys::{Call, Result};
use task::Answer;

/// Answers the calls of one step.
#[derive(Debug)]
pub struct Supervisor {
    listener: OwnedFd,
    marks: Marks,
    identities: Identities,
    /// Whether any task ever took another root.
    has_moved: bool,
}

impl Supervisor {
    /// A supervisor of the tasks behind this listener. `owners` is what is recorded of symbolic links and pipes of the layers below.
    ///
    /// Makes `/proc` this process's working directory, and changes its file mode creation mask from now on.
    pub fn new(listener: OwnedFd, owners: Owners) -> io::Result<Self> {
        rustix::process::chdir("/proc")?;
        sys::wake_in_turn(listener.as_fd());
        Ok(Self { listener, marks: Marks::new(owners), identities: Identities::new(), has_moved: false })
    }

    /// Readable when a call waits; hung up when the last task is gone.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// What is recorded of files that cannot carry their record, and are still there. To be asked before the root is unmounted.
    pub fn owners(&self) -> Owners {
        self.marks.owners()
    }

    /// Answers the call that waits. Blocks if none does.
    pub fn handle_one(&mut self) -> io::Result<()> {
        let mut call = match sys::receive(self.listener.as_fd()) {
            // The task died between making the call and now; or a signal came.
            Err(Errno::NOENT | Errno::INTR) => return Ok(()),
            other => other?,
        };
        call.is_elsewhere = self.has_moved && task::is_elsewhere(call.task);
        let answer = self.decide(&call);
        let listener = self.listener.as_fd();
        let sent = match answer {
            Ok(Answer::LetThrough) => sys::let_through(listener, call.id),
            Ok(Answer::Return(value)) => sys::answer(listener, call.id, Ok(value)),
            Ok(Answer::Descriptor { fd, close_on_exec }) => {
                match sys::hand_out(listener, call.id, fd.as_fd(), close_on_exec) {
                    // Its table of descriptors is full, for instance.
                    Err(errno) if errno != Errno::NOENT => sys::answer(listener, call.id, Err(errno)),
                    other => other,
                }
            }
            Err(errno) => sys::answer(listener, call.id, Err(errno)),
        };
        match sent {
            // The task has died meanwhile.
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn decide(&mut self, call: &Call) -> Result<Answer> {
        match call.number {
            libc::SYS_fstat | libc::SYS_newfstatat | libc::SYS_statx => self.tell_status(call),
            libc::SYS_openat => self.open(call),
            libc::SYS_openat2 => self.open_2(call),
            libc::SYS_fchown | libc::SYS_fchownat => self.change_owner(call),
            libc::SYS_getuid | libc::SYS_geteuid | libc::SYS_getgid | libc::SYS_getegid => self.identities.tell(call),
            libc::SYS_getresuid | libc::SYS_getresgid | libc::SYS_getgroups => self.identities.tell(call),
            libc::SYS_setuid | libc::SYS_setgid | libc::SYS_setreuid | libc::SYS_setregid => {
                self.identities.change(call)
            }
            libc::SYS_setresuid | libc::SYS_setresgid | libc::SYS_setgroups => self.identities.change(call),
            libc::SYS_setfsuid | libc::SYS_setfsgid => self.identities.change(call),
            libc::SYS_mkdirat => self.make_directory(call),
            libc::SYS_symlinkat => self.make_symlink(call),
            libc::SYS_mknodat => self.make_node(call),
            sys::SYS_RENAMEAT | libc::SYS_renameat2 => self.rename(call),
            libc::SYS_linkat => self.link(call),
            libc::SYS_listxattr | libc::SYS_llistxattr | libc::SYS_flistxattr => self.list_attributes(call),
            libc::SYS_setxattr | libc::SYS_lsetxattr | libc::SYS_fsetxattr => self.handle_attribute(call),
            libc::SYS_getxattr | libc::SYS_lgetxattr | libc::SYS_fgetxattr => self.handle_attribute(call),
            libc::SYS_removexattr | libc::SYS_lremovexattr | libc::SYS_fremovexattr => self.handle_attribute(call),
            libc::SYS_prctl => self.identities.note_keeping(call),
            libc::SYS_chroot | libc::SYS_pivot_root | libc::SYS_unshare | libc::SYS_setns => {
                self.has_moved = true;
                Ok(Answer::LetThrough)
            }
            libc::SYS_execve | libc::SYS_execveat => self.execute(call),
            _ => self.decide_legacy(call),
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn decide_legacy(&mut self, call: &Call) -> Result<Answer> {
        match call.number {
            libc::SYS_stat | libc::SYS_lstat => self.tell_status(call),
            libc::SYS_open | libc::SYS_creat => self.open(call),
            libc::SYS_chown | libc::SYS_lchown => self.change_owner(call),
            libc::SYS_mkdir => self.make_directory(call),
            libc::SYS_symlink => self.make_symlink(call),
            libc::SYS_mknod => self.make_node(call),
            libc::SYS_rename => self.rename(call),
            libc::SYS_link => self.link(call),
            _ => Ok(Answer::LetThrough),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn decide_legacy(&mut self, _call: &Call) -> Result<Answer> {
        Ok(Answer::LetThrough)
    }

    /// Between looking at a task and acting for it: its number must not have gone to another.
    fn check_waiting(&self, call: &Call) -> Result<()> {
        if sys::still_waits(self.listener.as_fd(), call.id) { Ok(()) } else { Err(Errno::INTR) }
    }
}
