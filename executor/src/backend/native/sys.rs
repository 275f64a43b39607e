//! The system calls that `rustix` does not wrap. The only unsafe code of the launcher.
//!
//! Nothing here decides anything: each function is one call or one short, fixed sequence, and returns what the kernel said.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::process::{Pid, Rlimit};

use crate::Resource;
use crate::outcome::Counted;

mod begin;
mod footprint;
mod signals;

pub use begin::begin_process;
pub use footprint::let_code_go;
pub use signals::{SignalWatch, reset_signals, watch_children};

fn check(result: impl TryInto<i64>) -> io::Result<i64> {
    match result.try_into() {
        Ok(-1) | Err(_) => Err(io::Error::last_os_error()),
        Ok(value) => Ok(value),
    }
}

/// Makes a child that is a copy of this process with only the calling thread. Gives `None` in the child.
///
/// This is the C library's `fork`, not the bare call: it takes the allocator's locks first, so that the child of a process with
/// many threads may still allocate. (glibc does so since 2.24, musl since 1.2.2.) Other locks that a thread held at that moment stay
/// held for ever in the child, hence it may not print, log or use what other threads use.
pub fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: the child keeps to the rule above: it works on values of its own, and ends by `exec` or `_exit`.
    let pid = check(unsafe { libc::fork() })?;
    Ok(Pid::from_raw(pid as i32))
}

/// Whether this process has one thread only. Where the C library does not say so, it has not.
pub fn has_one_thread() -> bool {
    #[cfg(target_env = "gnu")]
    {
        unsafe extern "C" {
            static __libc_single_threaded: libc::c_char;
        }
        // SAFETY: glibc (2.32) defines it; it is written by a thread that starts another, of which there is none if it is set.
        unsafe { (&raw const __libc_single_threaded).read_volatile() != 0 }
    }
    #[cfg(not(target_env = "gnu"))]
    false
}

/// Whose child a new process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Child {
    /// The caller's.
    Own,
    /// That of the caller's own parent.
    Sibling,
}

/// As [`fork`], for a process with one thread; the child is in the namespaces that the `CLONE_NEW…` flags name, and in this cgroup of
/// version 2.
pub fn start(namespaces: libc::c_int, child: Child, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Option<Pid>> {
    const CLONE_INTO_CGROUP: u64 = 1 << 33;
    let (parent, signal) = match child {
        Child::Own => (0, libc::SIGCHLD),
        // It has the signal of its sibling then: clone(2).
        Child::Sibling => (libc::CLONE_PARENT, 0),
    };
    // SAFETY: all zero is valid, and means nothing but what is set below.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = (namespaces | parent) as u32 as u64;
    arguments.exit_signal = signal as u64;
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM and with no stack this is `fork`. The structure lives for the call and its size is passed. The caller has
    // one thread, so that no lock of the C library is held by another.
    match check(unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) }) {
        // Filters that cannot look behind a pointer forbid it: those of container engines, with ENOSYS.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) && cgroup.is_none() => {
            let flags = (namespaces | parent | signal) as libc::c_ulong;
            // SAFETY: as above; arguments that are zero are unused in any order.
            let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, 0usize, 0usize, 0usize) })?;
            Ok(Pid::from_raw(pid as i32))
        }
        pid => Ok(Pid::from_raw(pid? as i32)),
    }
}

/// Starts a child that has the caller's memory, not a copy of it; the caller goes on when the child has executed a program or ended.
/// What the child does must not leave by a panic. Only for a process with one thread.
pub fn start_in_our_memory(work: &mut dyn FnMut()) -> io::Result<Pid> {
    extern "C" fn enter(work: *mut libc::c_void) -> libc::c_int {
        // SAFETY: it is the pointer below, to a value that lives as long as the caller waits.
        let work = unsafe { &mut *work.cast::<&mut dyn FnMut()>() };
        work();
        127
    }
    // Pages that nothing is written to do not exist.
    const STACK: usize = 256 * 1024;
    let mut stack: Vec<u128> = Vec::with_capacity(STACK / size_of::<u128>());
    let mut work = work;
    // SAFETY: the stack grows downwards from its end, which is aligned, and outlives the child's use of it, as the caller waits for
    // `exec` or the end (CLONE_VFORK). Descriptors, signal handlers and the working directory are the child's own.
    let pid = check(unsafe {
        libc::clone(
            enter,
            stack.spare_capacity_mut().as_mut_ptr_range().end.cast(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            (&raw mut work).cast(),
        )
    })?;
    Pid::from_raw(pid as i32).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Lets a program that is to be started join cgroups, by writing `0` to these files, and end with the thread that starts it.
pub fn end_with_us_in(command: &mut std::process::Command, cgroups: Vec<std::fs::File>) {
    use std::os::unix::process::CommandExt;
    let begin = move || {
        for file in &cgroups {
            rustix::io::write(file, b"0")?;
        }
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        Ok(())
    };
    // SAFETY: between fork and exec it makes system calls on descriptors that were open before, and allocates nothing.
    unsafe { command.pre_exec(begin) };
}

/// Ends this process without running what the parent wanted run at its own end.
pub fn exit(status: i32) -> ! {
    // SAFETY: `_exit` takes any status and does not return.
    unsafe { libc::_exit(status) }
}

/// Leaves the namespaces named by the `CLONE_NEW…` flags for new ones.
pub fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: the flags are namespaces only; no memory is involved.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

/// Closes every descriptor from 3 on that is not in `keep`.
pub fn close_all_but(keep: &mut [RawFd]) -> io::Result<()> {
    keep.sort_unstable();
    let mut first: u32 = 3;
    for &fd in keep.iter().filter(|&&fd| fd >= 3) {
        let fd = fd as u32;
        if fd > first {
            close_range(first, fd - 1, 0)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, u32::MAX, 0)
}

/// Lets every descriptor from 3 on close at the next `exec`.
pub fn close_on_exec() -> io::Result<()> {
    close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// Lets a descriptor stay open at the next `exec`.
pub fn keep_at_exec(fd: RawFd) -> io::Result<()> {
    // SAFETY: fcntl takes integers here; a number that is no descriptor is an error.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }).map(drop)
}

fn close_range(first: u32, last: u32, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: only called in a child that owns a copy of the descriptor table; owners of closed descriptors in the copied memory are
    // never dropped there, as the child ends by `exec` or `_exit`.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// Sets attributes (`MOUNT_ATTR_…`) and propagation of a mount given by descriptor, and of those below it.
pub fn mount_setattr(mount: BorrowedFd<'_>, set: u64, propagation: u64, recursive: bool) -> io::Result<()> {
    change_mount(mount, set, 0, propagation, recursive)
}

/// The same, and takes attributes away.
pub fn change_mount(mount: BorrowedFd<'_>, set: u64, clear: u64, propagation: u64, recursive: bool) -> io::Result<()> {
    // The times of access are one field of several bits: it must be cleared to be set.
    let times = if set & libc::MOUNT_ATTR__ATIME != 0 { libc::MOUNT_ATTR__ATIME } else { 0 };
    let attributes = libc::mount_attr { attr_set: set, attr_clr: clear | times, propagation, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a NUL-terminated string, the structure is valid and its true size is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

fn usage(usage: &libc::rusage) -> Counted {
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    Counted {
        user: time(usage.ru_utime),
        system: time(usage.ru_stime),
        largest_process: usage.ru_maxrss as u64 * 1024,
        major_faults: usage.ru_majflt as u64,
        minor_faults: usage.ru_minflt as u64,
    }
}

/// What the children of this process have used.
pub fn children_usage() -> Counted {
    // SAFETY: an all-zero rusage is valid, and the call fills it.
    let mut raw: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid for the call. It cannot fail with these arguments.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut raw) };
    usage(&raw)
}

/// Waits for a child, or for any (`None`). Gives its pid and raw status, or nothing if `block` is not set and none has ended.
pub fn wait(pid: Option<Pid>, block: bool) -> io::Result<Option<(Pid, i32)>> {
    wait_with(pid, if block { 0 } else { libc::WNOHANG })
}

/// A child that has ended or was stopped since it was last asked, if there is one: its pid and raw status.
pub fn wait_also_stopped() -> io::Result<Option<(Pid, i32)>> {
    wait_with(None, libc::WNOHANG | libc::WUNTRACED)
}

fn wait_with(pid: Option<Pid>, options: libc::c_int) -> io::Result<Option<(Pid, i32)>> {
    let which = pid.map_or(-1, |pid| pid.as_raw_nonzero().get());
    loop {
        let mut status = 0;
        // SAFETY: the pointer is valid for the call.
        match check(unsafe { libc::waitpid(which, &raw mut status, options | libc::__WALL) }) {
            Ok(pid) => return Ok(Pid::from_raw(pid as i32).map(|pid| (pid, status))),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sends a signal to a process; 0 only asks whether it is there.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Takes this process's command line away from those who can see the process (`/proc/PID/cmdline`): it names paths and
/// variables of the caller. Its program's name stays. Where the kernel does not say where it lies, it stays as it is.
pub fn forget_arguments() {
    let Ok(status) = super::small::read_text("/proc/self/stat") else { return };
    // After the name, which may hold anything, fields from the third on: see proc(5), arg_start and arg_end.
    let fields: Vec<&str> = status.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let address = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<usize>().ok());
    let (Some(start), Some(end)) = (address(48), address(49)) else { return };
    const NAME: &[u8] = b"forge\0";
    if start == 0 || end.saturating_sub(start) < NAME.len() {
        return;
    }
    // SAFETY: the kernel put the arguments of this process there when it began, in memory that can be written and that lives as
    // long as the process. Only whoever asks for the process's arguments reads them, and of this one, a copy of the launcher that
    // has one thread, nobody does any more.
    unsafe {
        std::ptr::write_bytes(start as *mut u8, 0, end - start);
        std::ptr::copy_nonoverlapping(NAME.as_ptr(), start as *mut u8, NAME.len());
    }
}

/// Strings as `exec` takes them.
pub struct Strings {
    _owned: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Strings {
    /// Keeps the strings, and their addresses with a null at the end.
    pub fn new(owned: Vec<CString>) -> Self {
        let pointers = owned.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect();
        Self { _owned: owned, pointers }
    }
}

/// Becomes another program, or says why not.
pub fn execute(program: &CStr, arguments: &Strings, environment: &Strings) -> io::Error {
    // SAFETY: the program and both lists are NUL-terminated and live for the call.
    unsafe { libc::execve(program.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// Becomes this user and group for good, with these further groups and no others; where none are given, the caller's stay.
pub fn set_user(uid: u32, gid: u32, groups: Option<&[u32]>) -> io::Result<()> {
    // SAFETY: the list is as long as it is said to be, and outlives the call. The process has one thread, so the bare calls suffice.
    unsafe {
        if let Some(groups) = groups {
            check(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
        }
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
    }
    Ok(())
}

/// Lets no program ever gain a capability by executing a file that carries some: leaves in the bounding set only those whose bits are
/// set in `keep`.
pub fn limit_bounding_set(keep: u64) -> io::Result<()> {
    for capability in 0..64 {
        if keep >> capability & 1 == 1 {
            continue;
        }
        // SAFETY: prctl takes integers here.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability as libc::c_ulong, 0, 0, 0) } != 0 {
            let error = io::Error::last_os_error();
            // EINVAL: past the last one that this kernel knows.
            return if error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}

/// The sets of a process, each as bits.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sets {
    /// What it uses.
    pub effective: u64,
    /// What it may use.
    pub permitted: u64,
    /// What `exec` of a file with capabilities may leave.
    pub inheritable: u64,
}

/// Holds these capabilities and no others; the ambient ones with them, which `exec` of any file hands on.
pub fn hold_capabilities(sets: Sets, ambient: u64) -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    let Sets { effective, permitted, inheritable } = sets;
    let words = [effective as u32, permitted as u32, inheritable as u32];
    let upper = [effective, permitted, inheritable].map(|set| (set >> 32) as u32);
    let words = [words, upper].concat();
    // SAFETY: prctl takes integers here; capset reads a header and two data words of 12 bytes each.
    unsafe {
        check(libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0, 0, 0))?;
        check(libc::syscall(libc::SYS_capset, &raw const header, words.as_ptr()))?;
        for capability in (0..64).filter(|capability| ambient >> capability & 1 == 1) {
            let raise = libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong;
            check(libc::prctl(libc::PR_CAP_AMBIENT, raise, capability as libc::c_ulong, 0, 0))?;
        }
    }
    Ok(())
}

/// Whether capabilities stay when the user changes from root to another; `exec` takes it back.
pub fn keep_capabilities(keep: bool) -> io::Result<()> {
    // SAFETY: prctl takes integers here.
    check(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, libc::c_ulong::from(keep), 0, 0, 0) }).map(drop)
}

/// The number of the last capability that this kernel knows.
pub fn last_capability() -> u32 {
    // SAFETY: prctl takes integers here.
    let known = |number: u32| unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(number), 0, 0, 0) } >= 0;
    (0..64).rev().find(|number| known(*number)).unwrap_or(0)
}

/// Sets a resource limit of this process; `None` is unlimited.
pub fn limit_resource(resource: Resource, soft: Option<u64>, hard: Option<u64>) -> io::Result<()> {
    Ok(rustix::process::setrlimit(kernels(resource), Rlimit { current: soft, maximum: hard })?)
}

/// Lets the hard limit of a resource be this high, without changing the soft one.
pub fn raise_resource(resource: Resource, hard: Option<u64>) -> io::Result<()> {
    let Rlimit { current, maximum } = rustix::process::getrlimit(kernels(resource));
    let is_higher = maximum.is_some_and(|maximum| hard.is_none_or(|hard| hard > maximum));
    if is_higher { limit_resource(resource, current, hard) } else { Ok(()) }
}

fn kernels(resource: Resource) -> rustix::process::Resource {
    use rustix::process::Resource as Kernels;
    match resource {
        Resource::As => Kernels::As,
        Resource::Core => Kernels::Core,
        Resource::Cpu => Kernels::Cpu,
        Resource::Data => Kernels::Data,
        Resource::Fsize => Kernels::Fsize,
        Resource::Memlock => Kernels::Memlock,
        Resource::Msgqueue => Kernels::Msgqueue,
        Resource::Nice => Kernels::Nice,
        Resource::Nofile => Kernels::Nofile,
        Resource::Nproc => Kernels::Nproc,
        Resource::Rss => Kernels::Rss,
        Resource::Rtprio => Kernels::Rtprio,
        Resource::Sigpending => Kernels::Sigpending,
        Resource::Stack => Kernels::Stack,
    }
}

/// Lets this process and what it starts run on these processors only. Those that the machine does not have are left out by the kernel.
pub fn run_on(cores: impl Iterator<Item = u32>) -> io::Result<()> {
    // 4096 processors: what the kernel can be built for is 8192, and nobody has more.
    let mut mask = [0u64; 64];
    for core in cores {
        let word = mask.get_mut(core as usize / 64).ok_or(io::ErrorKind::InvalidInput)?;
        *word |= 1 << (core % 64);
    }
    // SAFETY: the kernel reads as many bytes as are said to be there.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(&mask), mask.as_ptr()) }).map(drop)
}

/// Lets this process and what it starts execute files below `root` only (landlock(7)), wherever else a path may lead: `/proc/self/exe`
/// of a process that has not executed anything yet is the launcher's own file (CVE-2019-5736). False where the kernel cannot do it.
pub fn execute_only_below(root: BorrowedFd<'_>) -> io::Result<bool> {
    const EXECUTE: u64 = 1;
    // Moving files between directories is refused by every ruleset that does not speak of it, which takes version 2 (Linux 5.19).
    const REFER: u64 = 1 << 13;
    const PATH_BENEATH: u32 = 1;
    #[repr(C)]
    struct Ruleset {
        handled: u64,
    }
    #[repr(C, packed)]
    struct Beneath {
        allowed: u64,
        parent: RawFd,
    }
    let ruleset = Ruleset { handled: EXECUTE | REFER };
    let rule = Beneath { allowed: EXECUTE | REFER, parent: root.as_raw_fd() };
    if landlock_version().is_none_or(|version| version < 2) {
        return Ok(false);
    }
    // SAFETY: the calls read structures that live for them and whose sizes are passed or fixed. The new descriptor is owned by nobody
    // else.
    unsafe {
        let fd =
            check(libc::syscall(libc::SYS_landlock_create_ruleset, &raw const ruleset, size_of::<Ruleset>(), 0u32))?;
        let fd = OwnedFd::from_raw_fd(fd as RawFd);
        check(libc::syscall(libc::SYS_landlock_add_rule, fd.as_raw_fd(), PATH_BENEATH, &raw const rule, 0u32))?;
        check(libc::syscall(libc::SYS_landlock_restrict_self, fd.as_raw_fd(), 0u32))?;
    }
    Ok(true)
}

/// Which version of landlock(7) the kernel has; none where it has none, or forbids it.
pub fn landlock_version() -> Option<u32> {
    const VERSION: u32 = 1;
    // SAFETY: no memory is involved.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<libc::c_void>(), 0usize, VERSION) };
    u32::try_from(version).ok()
}

/// Enters a namespace of this kind (`CLONE_NEW…`).
pub fn join_namespace(namespace: BorrowedFd<'_>, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::setns(namespace.as_raw_fd(), kind) }).map(drop)
}

/// The number of a loop device that nothing is attached to.
pub fn free_loop_device(control: BorrowedFd<'_>) -> io::Result<u32> {
    const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4c82;
    // SAFETY: the request takes nothing.
    check(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) }).map(|number| number as u32)
}

/// Attaches a part of a file to a loop device, read-only; it clears itself when nobody has it open or mounted any more.
pub fn configure_loop_device(device: BorrowedFd<'_>, file: BorrowedFd<'_>, offset: u64, length: u64) -> io::Result<()> {
    const LOOP_CONFIGURE: libc::c_ulong = 0x4c0a;
    const READ_ONLY_AND_AUTOCLEAR: u32 = 1 | 4;
    // struct loop_config of <linux/loop.h>: two numbers, then struct loop_info64, then 64 bytes that are reserved.
    let mut config = [0u8; 304];
    config[..4].copy_from_slice(&file.as_raw_fd().to_ne_bytes());
    config[8 + 24..8 + 32].copy_from_slice(&offset.to_ne_bytes());
    config[8 + 32..8 + 40].copy_from_slice(&length.to_ne_bytes());
    config[8 + 52..8 + 56].copy_from_slice(&READ_ONLY_AND_AUTOCLEAR.to_ne_bytes());
    // SAFETY: the kernel reads 304 bytes, which live for the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, config.as_ptr()) }).map(drop)
}

/// Makes this terminal the controlling one of this process's session, which must have none.
pub fn take_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the request takes an integer.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY as _, 0) }).map(drop)
}

/// Installs a seccomp filter for this thread and what it starts. Needs `no_new_privs`.
pub fn install_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the program, which lives for the call, and does not write to it.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) }).map(drop)
}

/// Whether this kernel has an action (`SECCOMP_RET_…`) for filters.
pub fn has_filter_action(action: u32) -> bool {
    // SAFETY: the kernel reads one u32, which lives for the call.
    unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) == 0 }
}

/// Turns the loopback of this network namespace on.
pub fn loopback_up() -> io::Result<()> {
    // SAFETY: the socket is new and owned here; the request is all-zero but for its name and flags, and lives for the calls.
    unsafe {
        let socket = check(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?;
        let socket = OwnedFd::from_raw_fd(socket as RawFd);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        // A new one has no other flag that could be changed.
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_LOOPBACK) as libc::c_short;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request)).map(drop)
    }
}

/// Makes a process group the terminal's foreground one, also from the background.
pub fn set_foreground(terminal: BorrowedFd<'_>, group: Pid) -> io::Result<()> {
    // SAFETY: the sets are filled before use and live for the calls. SIGTTOU is blocked meanwhile, as it would stop us otherwise.
    unsafe {
        let mut block: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut block);
        libc::sigaddset(&raw mut block, libc::SIGTTOU);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const block, &raw mut before);
        let result = check(libc::tcsetpgrp(terminal.as_raw_fd(), group.as_raw_nonzero().get()));
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        result.map(drop)
    }
}

/// Makes a descriptor this process's stdin (0), stdout (1) or stderr (2).
pub fn set_stream(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    assert!((0..3).contains(&number), "only the standard streams may be replaced");
    // SAFETY: the three standard descriptors are owned by nobody in Rust, so that replacing them breaks no owner.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(drop)
}
