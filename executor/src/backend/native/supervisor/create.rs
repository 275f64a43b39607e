//! Calls that make, rename or link files.
//!
//! What root makes in an ordinary directory is 0:0 without a record, so the kernel may carry that out by itself. The supervisor
//! makes the file only where there is something to record: for a task that pretends to be another user, in a set-group-id
//! directory that is recorded as another group's, and for devices. It then takes the task's mask for its own, refuses to replace
//! anything (`O_EXCL`), and answers no other call before the record is written, so that nobody sees the file without it.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::umask;

use super::Supervisor;
use super::acl::Acl;
use super::attributes;
use super::marks::{Device, Owner};
use super::sys::{self, Call, Result};
use super::task::{self, Answer, Place, read_string};

/// What the supervisor needs to know to make something for a task.
struct Making {
    parent: OwnedFd,
    name: CString,
    owner: Owner,
    /// Whether the pretended user may make something there at all.
    allowed: bool,
    /// What the directory hands on to what is made in it.
    default_acl: Option<Acl>,
}

impl Making {
    /// The mode to ask the kernel for, with this process's mask set so that it gives what the task should get.
    fn prepare(&self, call: &Call, mode: u64) -> Mode {
        let mode = mode as u32 & 0o7777;
        match &self.default_acl {
            // acl(5): the mask of the process does not count then.
            Some(acl) => {
                umask(Mode::empty());
                Mode::from_raw_mode(mode & 0o7000 | acl.clone().inherited(mode).mode())
            }
            None => {
                umask(task::umask(call.task));
                Mode::from_raw_mode(mode)
            }
        }
    }

    /// As the kernel does it: what is there already is said before what may not be done.
    fn check_allowed(&self) -> Result<()> {
        if self.allowed {
            return Ok(());
        }
        match look(&self.parent, &self.name) {
            Ok(_) => Err(Errno::EXIST),
            Err(_) => Err(Errno::ACCESS),
        }
    }
}

impl Supervisor {
    /// Whether (and as whose) the supervisor must make something at this place; none if the kernel does it as well.
    fn making(&mut self, call: &Call, place: &Place, always: bool) -> Result<Option<Making>> {
        let identity = self.identities.of(call.task)?;
        let (user, group) = (identity.file_user(), identity.file_group());
        let Ok(Some((parent, name))) = place.open_parent() else { return Ok(None) };
        let stat = sys::stat(parent.as_fd())?;
        let is_set_group = stat.st_mode & libc::S_ISGID != 0;
        // Root's files in an ordinary directory are the usual case, and need none of this.
        let directory_owner = match (user, is_set_group) {
            (0, false) => (0, 0),
            _ => self.marks.owner(parent.as_fd(), stat.st_mode),
        };
        let allowed = self.may_write(call.task, directory_owner, stat.st_mode)?;
        let owner = (user, if is_set_group { directory_owner.1 } else { group });
        let default_acl = attributes::default_acl(parent.as_fd());
        if owner == (0, 0) && default_acl.is_none() && !always {
            return Ok(None);
        }
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        self.check_waiting(call)?;
        Ok(Some(Making { parent, name, owner, allowed, default_acl }))
    }

    /// Whether a task may make entries in a directory, by its mode and pretended owner.
    fn may_write(&self, task: u32, owner: Owner, mode: u32) -> Result<bool> {
        let identity = self.identities.of(task)?;
        let shift = if identity.file_user() == owner.0 {
            6
        } else if identity.is_in_group(owner.1) {
            3
        } else {
            0
        };
        Ok(identity.file_user() == 0 || mode >> shift & 0o3 == 0o3)
    }

    /// `open`, `openat` and `creat`, where they may make a file.
    pub(super) fn open(&mut self, call: &Call) -> Result<Answer> {
        let [first, second, third, fourth, ..] = call.arguments;
        let (descriptor, path, flags, mode) = match call.number {
            libc::SYS_openat => (first, second, third, fourth),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => (libc::AT_FDCWD as u64, first, second, third),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_creat => {
                (libc::AT_FDCWD as u64, first, (libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC) as u64, second)
            }
            _ => return Ok(Answer::LetThrough),
        };
        let place = Place::read(call, descriptor, path)?;
        self.open_place(call, place, OFlags::from_bits_retain(flags as u32), mode, ResolveFlags::empty())
    }

    /// `openat2`.
    pub(super) fn open_2(&mut self, call: &Call) -> Result<Answer> {
        let [descriptor, path, how, size, ..] = call.arguments;
        let mut bytes = [0; 24];
        if size < bytes.len() as u64 || sys::read_memory(call.task, how, &mut bytes)? != bytes.len() {
            return Ok(Answer::LetThrough);
        }
        let word = |index: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[index * 8..index * 8 + 8]);
            u64::from_ne_bytes(word)
        };
        let (flags, mode, resolve) = (word(0), word(1), ResolveFlags::from_bits_retain(word(2)));
        let flags = OFlags::from_bits_retain(flags as u32);
        let makes = flags.contains(OFlags::CREATE) || flags.contains(OFlags::TMPFILE);
        if !makes {
            return Ok(Answer::LetThrough);
        }
        let place = Place::read(call, descriptor, path)?;
        self.open_place(call, place, flags, mode, resolve)
    }

    fn open_place(
        &mut self,
        call: &Call,
        place: Place,
        flags: OFlags,
        mode: u64,
        resolve: ResolveFlags,
    ) -> Result<Answer> {
        // Under restrictions on the way that a path takes, only a name without a way is sure to be where we look for it.
        if !resolve.is_empty() && place.path().contains(&b'/') {
            return Ok(Answer::LetThrough);
        }
        if flags.contains(OFlags::TMPFILE) {
            return self.open_unnamed(call, &place, flags, mode);
        }
        if flags.intersects(OFlags::PATH | OFlags::DIRECTORY) || place.wants_directory() {
            return Ok(Answer::LetThrough);
        }
        let mut place = place;
        // The last name may be a link to where the file is to be made.
        for _ in 0..40 {
            let Some(making) = self.making(call, &place, false)? else { return Ok(Answer::LetThrough) };
            if is_proc(making.parent.as_fd()) {
                return Ok(Answer::LetThrough);
            }
            match rustix::fs::readlinkat(&making.parent, &making.name, Vec::new()) {
                Ok(target) if !flags.intersects(OFlags::NOFOLLOW | OFlags::EXCL) && resolve.is_empty() => {
                    place = place.followed(making.parent, target.into_bytes());
                    continue;
                }
                // Nothing is there: it is for us to make.
                Err(Errno::NOENT) => {}
                _ => return Ok(Answer::LetThrough),
            }
            making.check_allowed()?;
            let ours = (flags - OFlags::TRUNC) | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
            let mode = making.prepare(call, mode);
            let fd = match rustix::fs::openat(&making.parent, &making.name, ours, mode) {
                // Somebody else was faster.
                Err(Errno::EXIST) => return Ok(Answer::LetThrough),
                other => other?,
            };
            self.record_open(&making, fd.as_fd(), libc::S_IFREG, mode)?;
            return Ok(Answer::Descriptor { fd, close_on_exec: flags.contains(OFlags::CLOEXEC) });
        }
        Err(Errno::LOOP)
    }

    /// A file without a name (`O_TMPFILE`), which may be given one later.
    fn open_unnamed(&mut self, call: &Call, place: &Place, flags: OFlags, mode: u64) -> Result<Answer> {
        let Ok(directory) = place.open(true) else { return Ok(Answer::LetThrough) };
        let stat = sys::stat(directory.as_fd())?;
        let identity = self.identities.of(call.task)?;
        let directory_owner = self.marks.owner(directory.as_fd(), stat.st_mode);
        let group = if stat.st_mode & libc::S_ISGID != 0 { directory_owner.1 } else { identity.file_group() };
        let owner = (identity.file_user(), group);
        if owner == (0, 0) {
            return Ok(Answer::LetThrough);
        }
        if !self.may_write(call.task, directory_owner, stat.st_mode)? {
            return Err(Errno::ACCESS);
        }
        self.check_waiting(call)?;
        umask(task::umask(call.task));
        let path = task::name_of(directory.as_fd());
        let mode = Mode::from_raw_mode(mode as u32 & 0o7777);
        let fd = rustix::fs::open(path, flags | OFlags::CLOEXEC, mode)?;
        self.marks.set_owner(fd.as_fd(), libc::S_IFREG, owner)?;
        Ok(Answer::Descriptor { fd, close_on_exec: flags.contains(OFlags::CLOEXEC) })
    }

    /// `mkdir`, `mkdirat`.
    pub(super) fn make_directory(&mut self, call: &Call) -> Result<Answer> {
        let [first, second, third, ..] = call.arguments;
        let (place, mode) = match call.number {
            libc::SYS_mkdirat => (Place::read(call, first, second)?, third),
            _ => (Place::read_from_cwd(call, first)?, second),
        };
        let Some(making) = self.making(call, &place, false)? else { return Ok(Answer::LetThrough) };
        making.check_allowed()?;
        let mode = making.prepare(call, mode & 0o1777);
        rustix::fs::mkdirat(&making.parent, &making.name, mode)?;
        self.record(&making, libc::S_IFDIR, mode)
    }

    /// `symlink`, `symlinkat`.
    pub(super) fn make_symlink(&mut self, call: &Call) -> Result<Answer> {
        let [first, second, third, ..] = call.arguments;
        let place = match call.number {
            libc::SYS_symlinkat => Place::read(call, second, third)?,
            _ => Place::read_from_cwd(call, second)?,
        };
        // A record of an earlier file must not stay for what comes now.
        let always = !self.marks.has_no_table();
        let Some(making) = self.making(call, &place, always)? else { return Ok(Answer::LetThrough) };
        if place.wants_directory() {
            return Ok(Answer::LetThrough);
        }
        making.check_allowed()?;
        let target = CString::new(read_string(call.task, first)?).map_err(|_| Errno::INVAL)?;
        rustix::fs::symlinkat(target, &making.parent, &making.name)?;
        self.record(&making, libc::S_IFLNK, Mode::empty())
    }

    /// `mknod`, `mknodat`.
    pub(super) fn make_node(&mut self, call: &Call) -> Result<Answer> {
        let [first, second, third, fourth, ..] = call.arguments;
        let (place, mode, device) = match call.number {
            libc::SYS_mknodat => (Place::read(call, first, second)?, third as u32, fourth),
            _ => (Place::read_from_cwd(call, first)?, second as u32, third),
        };
        let kind = mode & libc::S_IFMT;
        let is_device = matches!(kind, libc::S_IFCHR | libc::S_IFBLK);
        let always = is_device || !self.marks.has_no_table();
        // The call takes the old, 32-bit form of a device number.
        let (major, minor) = (libc::major(u64::from(device as u32)), libc::minor(u64::from(device as u32)));
        if is_device && !self.identities.of(call.task)?.is_privileged() {
            return Err(Errno::PERM);
        }
        // 0:0 is what overlayfs removes files with; it refuses to make one for real root too.
        if kind == libc::S_IFCHR && (major, minor) == (0, 0) {
            return Err(Errno::PERM);
        }
        let Some(making) = self.making(call, &place, always)? else { return Ok(Answer::LetThrough) };
        let file_type = match kind {
            libc::S_IFIFO => FileType::Fifo,
            libc::S_IFSOCK => FileType::Socket,
            0 | libc::S_IFREG | libc::S_IFCHR | libc::S_IFBLK => FileType::RegularFile,
            _ => return Ok(Answer::LetThrough),
        };
        if place.wants_directory() {
            return Ok(Answer::LetThrough);
        }
        making.check_allowed()?;
        let permissions = making.prepare(call, u64::from(mode));
        rustix::fs::mknodat(&making.parent, &making.name, file_type, permissions, 0)?;
        if is_device {
            let fd = look(&making.parent, &making.name)?;
            self.marks.set_device(fd.as_fd(), Device { block: kind == libc::S_IFBLK, major, minor })?;
        }
        self.record(&making, if is_device || kind == 0 { libc::S_IFREG } else { kind }, permissions)
    }

    /// Records whose it is, and who else may use it, of what was just made.
    fn record(&mut self, making: &Making, kind: u32, mode: Mode) -> Result<Answer> {
        let fd = look(&making.parent, &making.name)?;
        self.record_open(making, fd.as_fd(), kind, mode)?;
        Ok(Answer::Return(0))
    }

    fn record_open(&mut self, making: &Making, fd: BorrowedFd<'_>, kind: u32, mode: Mode) -> Result<()> {
        self.marks.set_owner(fd, kind, making.owner)?;
        match &making.default_acl {
            Some(acl) if kind != libc::S_IFLNK => attributes::inherit_acl(fd, kind, mode.as_raw_mode(), acl),
            _ => Ok(()),
        }
    }

    /// `rename`, `renameat`, `renameat2`.
    pub(super) fn rename(&mut self, call: &Call) -> Result<Answer> {
        if self.marks.has_no_table() {
            return Ok(Answer::LetThrough);
        }
        let [first, second, third, fourth, fifth, _] = call.arguments;
        let (from, to, flags) = match call.number {
            sys::SYS_RENAMEAT => (Place::read(call, first, second)?, Place::read(call, third, fourth)?, 0),
            libc::SYS_renameat2 => (Place::read(call, first, second)?, Place::read(call, third, fourth)?, fifth as u32),
            _ => (Place::read_from_cwd(call, first)?, Place::read_from_cwd(call, second)?, 0),
        };
        let Some((from, to)) = self.pair(&from, &to)? else { return Ok(Answer::LetThrough) };
        let (Some(old), Some(new)) = (from.path(), to.path()) else { return Ok(Answer::LetThrough) };
        if !self.marks.has_at_or_below(&old) && !self.marks.has_at_or_below(&new) {
            return Ok(Answer::LetThrough);
        }
        self.check_waiting(call)?;
        let flags = RenameFlags::from_bits_retain(flags);
        rustix::fs::renameat_with(&from.parent, &from.name, &to.parent, &to.name, flags)?;
        self.marks.rename(&old, &new, flags.contains(RenameFlags::EXCHANGE));
        Ok(Answer::Return(0))
    }

    /// `link`, `linkat`.
    pub(super) fn link(&mut self, call: &Call) -> Result<Answer> {
        if self.marks.has_no_table() {
            return Ok(Answer::LetThrough);
        }
        let [first, second, third, fourth, fifth, _] = call.arguments;
        let (from, to, flags) = match call.number {
            libc::SYS_linkat => (Place::read(call, first, second)?, Place::read(call, third, fourth)?, fifth as i32),
            _ => (Place::read_from_cwd(call, first)?, Place::read_from_cwd(call, second)?, 0),
        };
        // Following a link ends at a file that has its record with it, or at a descriptor.
        let Some((from, to)) = self.pair(&from, &to)? else { return Ok(Answer::LetThrough) };
        let (Some(old), Some(new)) = (from.path(), to.path()) else { return Ok(Answer::LetThrough) };
        let is_followed = flags & (libc::AT_SYMLINK_FOLLOW | libc::AT_EMPTY_PATH) != 0;
        if is_followed || !(self.marks.has_at_or_below(&old) || self.marks.has_at_or_below(&new)) {
            return Ok(Answer::LetThrough);
        }
        self.check_waiting(call)?;
        rustix::fs::linkat(&from.parent, &from.name, &to.parent, &to.name, AtFlags::empty())?;
        self.marks.link(&old, &new);
        Ok(Answer::Return(0))
    }

    fn pair(&self, from: &Place, to: &Place) -> Result<Option<(Named, Named)>> {
        let (Ok(Some(from)), Ok(Some(to))) = (from.open_parent(), to.open_parent()) else { return Ok(None) };
        Ok(Some((Named::new(from)?, Named::new(to)?)))
    }
}

/// A name in a directory.
struct Named {
    parent: OwnedFd,
    name: CString,
}

impl Named {
    fn new((parent, name): (OwnedFd, Vec<u8>)) -> Result<Self> {
        Ok(Self { parent, name: CString::new(name).map_err(|_| Errno::INVAL)? })
    }

    /// Its absolute path.
    fn path(&self) -> Option<Vec<u8>> {
        let mut path = task::path_of(self.parent.as_fd())?;
        if path != b"/" {
            path.push(b'/');
        }
        path.extend_from_slice(self.name.as_bytes());
        Some(path)
    }
}

fn look(parent: &OwnedFd, name: &CString) -> Result<OwnedFd> {
    rustix::fs::openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Whether a directory is one of /proc's, whose links lead where no path does.
fn is_proc(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::fstatfs(fd).is_ok_and(|stat| stat.f_type == rustix::fs::PROC_SUPER_MAGIC)
}
