//! The system calls that `rustix` does not wrap. The only unsafe code of the launcher.
//!
//! Nothing here decides anything: each function is one call or one short, fixed sequence, and returns what the kernel said.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use rustix::process::Pid;

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

/// As [`fork`], for a process with one thread; the child becomes a sibling of the caller.
pub fn fork_sibling() -> io::Result<Option<Pid>> {
    let flags = (libc::CLONE_PARENT | libc::SIGCHLD) as libc::c_ulong;
    // SAFETY: without CLONE_VM and with a null stack this is `fork`; arguments that are zero are unused in any order. The caller has
    // one thread, so that no lock of the C library is held by another.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, 0usize, 0usize, 0usize) })?;
    Ok(Pid::from_raw(pid as i32))
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

fn close_range(first: u32, last: u32, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: only called in a child that owns a copy of the descriptor table; owners of closed descriptors in the copied memory are
    // never dropped there, as the child ends by `exec` or `_exit`.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// Sets attributes (`MOUNT_ATTR_…`) and propagation of a mount given by descriptor, and of those below it.
pub fn mount_setattr(mount: BorrowedFd<'_>, set: u64, propagation: u64, recursive: bool) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation, userns_fd: 0 };
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

/// What a process and the children it waited for have used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time, user and system.
    pub cpu: Duration,
    /// Largest resident set of any one process, in bytes.
    pub peak_memory: u64,
}

fn usage(usage: &libc::rusage) -> Usage {
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    Usage { cpu: time(usage.ru_utime) + time(usage.ru_stime), peak_memory: usage.ru_maxrss as u64 * 1024 }
}

/// What the children of this process have used.
pub fn children_usage() -> Usage {
    // SAFETY: an all-zero rusage is valid, and the call fills it.
    let mut raw: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid for the call. It cannot fail with these arguments.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut raw) };
    usage(&raw)
}

/// Waits for a child, or for any (`None`). Gives its pid and raw status, or nothing if `block` is not set and none has ended.
pub fn wait(pid: Option<Pid>, block: bool) -> io::Result<Option<(Pid, i32)>> {
    let which = pid.map_or(-1, |pid| pid.as_raw_nonzero().get());
    let options = libc::__WALL | if block { 0 } else { libc::WNOHANG };
    loop {
        let mut status = 0;
        // SAFETY: the pointer is valid for the call.
        match check(unsafe { libc::waitpid(which, &raw mut status, options) }) {
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

/// Puts every signal back to its default action and unblocks all. What the caller of forge had ignored (`nohup`) may stay so;
/// not SIGPIPE, which Rust programs ignore on their own account.
pub fn reset_signals(keep_ignored: bool) {
    for signal in 1..=64 {
        if keep_ignored && signal != libc::SIGPIPE && is_ignored(signal) {
            continue;
        }
        // The bare call, as the C library hides two signals that a careless parent may have ignored.
        let default = [0u64; 4];
        let none = std::ptr::null_mut::<u64>();
        // SAFETY: an all-zero action of the kernel (at most 32 bytes) is SIG_DFL without flags; SIGKILL and SIGSTOP fail, harmlessly.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, 8usize) };
    }
    // SAFETY: an all-zero set is valid and is made empty; the old mask is not wanted.
    unsafe {
        let mut empty: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut empty);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, std::ptr::null_mut());
    }
}

fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: an all-zero sigaction is valid and is filled by the call.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Blocks every signal in this process, and gives a descriptor that is readable when a child has ended.
pub fn watch_children() -> io::Result<OwnedFd> {
    // SAFETY: all-zero sets are valid and are filled before use; the descriptor is new and owned by nobody else. SIGCHLD gets its
    // default action so that ended children can be waited for, whatever the parent had set.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut()))?;
        let mut children: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut children);
        libc::sigaddset(&raw mut children, libc::SIGCHLD);
        let fd = check(libc::signalfd(-1, &raw const children, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
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

/// Lets no program ever gain a capability by executing a file that carries some: empties the bounding set.
pub fn drop_bounding_set() -> io::Result<()> {
    for capability in 0..64 {
        // SAFETY: prctl takes integers here.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability as libc::c_ulong, 0, 0, 0) } != 0 {
            let error = io::Error::last_os_error();
            // EINVAL: past the last one that this kernel knows.
            return if error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}

/// Gives up every capability that this process has or may hand on.
pub fn drop_capabilities() -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    let nothing = [0u32; 6];
    // SAFETY: prctl takes integers here; capset reads a header and two data words of 12 bytes each, all zero.
    unsafe {
        check(libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0, 0, 0))?;
        check(libc::syscall(libc::SYS_capset, &raw const header, nothing.as_ptr()))?;
    }
    Ok(())
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
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request))?;
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request)).map(drop)
    }
}

/// Signals that are passed on to a command which shares its streams with this process.
const PASSED: [libc::c_int; 8] = [
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGTSTP,
    libc::SIGCONT,
];

/// Where the handler writes; -1 while nobody listens. The whole process has one, as signals are the whole process's.
static SIGNAL_PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn note_signal(signal: libc::c_int, information: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo with SA_SIGINFO. Only async-signal-safe calls follow, and errno is put back.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        // What the terminal sends comes from the kernel itself.
        let from_kernel = u8::from((*information).si_code == libc::SI_KERNEL);
        let bytes = [signal as u8, from_kernel];
        libc::write(SIGNAL_PIPE.load(Ordering::Relaxed), bytes.as_ptr().cast(), 2);
        *errno = before;
    }
}

/// While it lives, signals sent to this process are written to a pipe, two bytes each: number, and whether the kernel sent it.
pub struct SignalWatch {
    before: Vec<(libc::c_int, libc::sigaction)>,
    _pipe: OwnedFd,
}

impl SignalWatch {
    /// Writes to `pipe`, which should not block. Gives nothing if another watch lives already. A signal that this process
    /// ignores (`nohup`) stays ignored.
    pub fn new(pipe: OwnedFd) -> Option<Self> {
        SIGNAL_PIPE.compare_exchange(-1, pipe.as_raw_fd(), Ordering::SeqCst, Ordering::SeqCst).ok()?;
        let mut before = Vec::new();
        for signal in PASSED {
            if is_ignored(signal) {
                continue;
            }
            // SAFETY: all-zero sigactions are valid; the handler has the signature that SA_SIGINFO asks for and is async-signal-safe.
            unsafe {
                let mut old: libc::sigaction = std::mem::zeroed();
                let mut new: libc::sigaction = std::mem::zeroed();
                new.sa_sigaction = note_signal as *const () as usize;
                new.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
                if libc::sigaction(signal, &raw const new, &raw mut old) == 0 {
                    before.push((signal, old));
                }
            }
        }
        Some(Self { before, _pipe: pipe })
    }
}

impl Drop for SignalWatch {
    fn drop(&mut self) {
        for (signal, old) in &self.before {
            // SAFETY: puts back what the kernel itself reported before.
            unsafe { libc::sigaction(*signal, &raw const *old, std::ptr::null_mut()) };
        }
        SIGNAL_PIPE.store(-1, Ordering::SeqCst);
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
