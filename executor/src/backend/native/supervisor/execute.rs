//! What becomes of a task's pretended identity when it executes a program.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};

use super::Supervisor;
use super::sys::{self, Call, Result};
use super::task::{Answer, Place, name_of};

impl Supervisor {
    /// `execve`, `execveat`: a set-id program makes its recorded owner the effective user.
    ///
    /// It is the kernel that executes, afterwards. Should it fail on a program that is set-id, the task has the program's
    /// identity by mistake; the files that lead there (set-id, executable and broken) are not worth more.
    pub(super) fn execute(&mut self, call: &Call) -> Result<Answer> {
        let [first, second, _, _, fifth, _] = call.arguments;
        let (place, follow) = match call.number {
            libc::SYS_execveat => (Place::read(call, first, second), fifth as i32 & libc::AT_SYMLINK_NOFOLLOW == 0),
            _ => (Place::read_from_cwd(call, first), true),
        };
        // The kernel finds the same fault.
        let Ok(place) = place else { return Ok(Answer::LetThrough) };
        let (set_user, set_group) = self.set_ids(&place, follow).unwrap_or((None, None));
        if (set_user, set_group) != (None, None) || !self.identities.is_root_alone() {
            self.identities.execute(call.task, set_user, set_group)?;
        }
        Ok(Answer::LetThrough)
    }

    /// Whom a program is set-id to.
    fn set_ids(&self, place: &Place, follow: bool) -> Option<(Option<u32>, Option<u32>)> {
        const SET_ID: u32 = libc::S_ISUID | libc::S_ISGID;
        if let Some(text) = place.text() {
            let flags = if follow || place.is_empty() { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
            let stat = rustix::fs::statx(CWD, text, flags, StatxFlags::MODE).ok()?;
            if u32::from(stat.stx_mode) & SET_ID == 0 {
                return None;
            }
        }
        let fd = place.open(follow).ok()?;
        let mode = sys::stat(fd.as_fd()).ok()?.st_mode;
        if mode & libc::S_IFMT != libc::S_IFREG || mode & SET_ID == 0 || mode & 0o111 == 0 || is_script(fd.as_fd()) {
            return None;
        }
        let owner = self.marks.owner(fd.as_fd(), mode);
        // Set-group-id without execution by the group once meant mandatory locking.
        let has_group = mode & libc::S_ISGID != 0 && mode & libc::S_IXGRP != 0;
        Some(((mode & libc::S_ISUID != 0).then_some(owner.0), has_group.then_some(owner.1)))
    }
}

/// Set-id bits of a script mean nothing; those of its interpreter are not looked at either.
fn is_script(fd: std::os::fd::BorrowedFd<'_>) -> bool {
    let mut start = [0; 2];
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let read = rustix::fs::open(name_of(fd), flags, Mode::empty()).and_then(|file| rustix::io::read(file, &mut start));
    matches!(read, Ok(2)) && &start == b"#!"
}
