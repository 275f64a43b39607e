//! `stat` and its kin, and `chown`: reading and changing the pretended owner.
//!
//! Nine of ten calls are `stat`, and nearly all of them are about files that nothing is recorded of. Those cost one look at the
//! names of the file's attributes; the kernel then answers as if nobody had asked.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Gid, Uid, chownat};
use rustix::io::Errno;

use super::Supervisor;
use super::sys::{self, Call, Result};
use super::task::{Answer, Place};

/// Where a task wants its answer, and in which form.
#[derive(Debug, Clone, Copy)]
enum Form {
    Stat { address: u64 },
    Statx { address: u64, flags: i32, mask: u32 },
}

impl Supervisor {
    /// `stat`, `lstat`, `fstat`, `newfstatat`, `statx`.
    pub(super) fn tell_status(&mut self, call: &Call) -> Result<Answer> {
        let [first, second, third, fourth, fifth, _] = call.arguments;
        let form = Form::Stat { address: second };
        match call.number {
            libc::SYS_fstat => self.status_of(call, &Place::descriptor(call, first)?, true, form),
            libc::SYS_newfstatat => {
                let form = Form::Stat { address: third };
                self.status_at(call, first, second, fourth as i32, form)
            }
            libc::SYS_statx => {
                let form = Form::Statx { address: fifth, flags: third as i32, mask: fourth as u32 };
                self.status_at(call, first, second, third as i32, form)
            }
            #[cfg(target_arch = "x86_64")]
            number => {
                let place = Place::read_from_cwd(call, first)?;
                self.status_of(call, &place, number == libc::SYS_stat, form)
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => Ok(Answer::LetThrough),
        }
    }

    fn status_at(&mut self, call: &Call, descriptor: u64, path: u64, flags: i32, form: Form) -> Result<Answer> {
        // Since Linux 6.11 the path may be a null pointer with this flag.
        let place = match path {
            0 if flags & libc::AT_EMPTY_PATH != 0 => Place::descriptor(call, descriptor)?,
            _ => Place::read(call, descriptor, path)?,
        };
        if place.is_empty() && flags & libc::AT_EMPTY_PATH == 0 {
            return Ok(Answer::LetThrough);
        }
        self.status_of(call, &place, flags & libc::AT_SYMLINK_NOFOLLOW == 0, form)
    }

    fn status_of(&mut self, call: &Call, place: &Place, follow: bool, form: Form) -> Result<Answer> {
        // Device nodes of the host belong to a user that is not mapped, unless root runs the step.
        let is_device = place.path().starts_with(b"/dev/");
        // What a descriptor names is a link of /proc's: it is always followed.
        let text_follows = follow || place.is_empty();
        if let Some(text) = place.text()
            && !is_device
            && self.marks.is_unmarked(&text, text_follows)
        {
            return Ok(Answer::LetThrough);
        }
        // What cannot be opened, the kernel refuses by itself.
        let Ok(fd) = place.open(follow) else { return Ok(Answer::LetThrough) };
        let mut stat = sys::stat(fd.as_fd())?;
        (stat.st_uid, stat.st_gid) = self.marks.owner(fd.as_fd(), stat.st_mode);
        let device = self.marks.device(fd.as_fd(), stat.st_mode);
        let kind = device.map(|device| if device.block { libc::S_IFBLK } else { libc::S_IFCHR });
        let mode = kind.map_or(stat.st_mode, |kind| stat.st_mode & !libc::S_IFMT | kind);
        match form {
            Form::Stat { address } => {
                stat.st_mode = mode;
                if let Some(device) = device {
                    stat.st_rdev = libc::makedev(device.major, device.minor);
                }
                sys::write_memory(call.task, address, sys::bytes_of(&stat))?;
            }
            Form::Statx { address, flags, mask } => {
                let mut extended = sys::statx(fd.as_fd(), flags & !libc::AT_SYMLINK_NOFOLLOW, mask)?;
                (extended.stx_uid, extended.stx_gid) = (stat.st_uid, stat.st_gid);
                extended.stx_mode = mode as u16;
                if let Some(device) = device {
                    (extended.stx_rdev_major, extended.stx_rdev_minor) = (device.major, device.minor);
                }
                sys::write_memory(call.task, address, sys::bytes_of(&extended))?;
            }
        }
        Ok(Answer::Return(0))
    }

    /// `chown`, `lchown`, `fchown`, `fchownat`.
    pub(super) fn change_owner(&mut self, call: &Call) -> Result<Answer> {
        let [first, second, third, fourth, fifth, _] = call.arguments;
        let (place, follow, user, group) = match call.number {
            libc::SYS_fchown => (Place::descriptor(call, first)?, true, second, third),
            libc::SYS_fchownat => {
                let flags = fifth as i32;
                if flags & !(libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH) != 0 {
                    return Err(Errno::INVAL);
                }
                let place = Place::read(call, first, second)?;
                if place.is_empty() && flags & libc::AT_EMPTY_PATH == 0 {
                    return Err(Errno::NOENT);
                }
                (place, flags & libc::AT_SYMLINK_NOFOLLOW == 0, third, fourth)
            }
            #[cfg(target_arch = "x86_64")]
            number => {
                let place = Place::read_from_cwd(call, first)?;
                if place.is_empty() {
                    return Err(Errno::NOENT);
                }
                (place, number == libc::SYS_chown, second, third)
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => return Ok(Answer::LetThrough),
        };
        let fd = match place.open(follow) {
            // A number that is no descriptor has no name in /proc.
            Err(Errno::NOENT) if place.is_empty() => return Err(Errno::BADF),
            other => other?,
        };
        let stat = sys::stat(fd.as_fd())?;
        let owner = self.marks.owner(fd.as_fd(), stat.st_mode);
        let (user, group) = (user as u32, group as u32);
        let wanted = |id: u32, old: u32| if id == u32::MAX { old } else { id };
        let new = (wanted(user, owner.0), wanted(group, owner.1));
        let identity = self.identities.of(call.task)?;
        if !identity.is_privileged() {
            let may_group = group == u32::MAX || group == owner.1 || identity.is_in_group(group);
            if identity.file_user() != owner.0 || new.0 != owner.0 || !may_group {
                return Err(Errno::PERM);
            }
        }
        self.check_waiting(call)?;
        // For real too, as far as it goes: set-id bits and capabilities are lost, the change time moves, and a file that is
        // read-only or not the caller's is refused as it should be.
        let nobody_or_root = |id: u32| (id != u32::MAX).then_some(0);
        let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
        let (real_user, real_group) =
            (nobody_or_root(user).map(Uid::from_raw), nobody_or_root(group).map(Gid::from_raw));
        chownat(&fd, "", real_user, real_group, flags)?;
        if new != owner {
            self.marks.set_owner(fd.as_fd(), stat.st_mode, new)?;
        }
        Ok(Answer::Return(0))
    }
}
