//! System calls that nobody wraps safely: seccomp notifications, another task's memory and limits, `stat` as the kernel lays it out.
//!
//! The only unsafe code beside `native/sys.rs`. Every function here is safe to call with any value.

use std::ffi::CStr;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

/// The result of a call made on behalf of a task: what is refused is refused to the task with the same error.
pub(super) type Result<T, E = Errno> = std::result::Result<T, E>;

/// Numbers that libc's tables lack on some architecture.
#[cfg(target_arch = "x86_64")]
pub(super) const SYS_RENAMEAT: i64 = 264;
#[cfg(target_arch = "x86_64")]
pub(super) const SYS_SETRLIMIT: i64 = 160;
#[cfg(target_arch = "aarch64")]
pub(super) const SYS_RENAMEAT: i64 = 38;
#[cfg(target_arch = "aarch64")]
pub(super) const SYS_SETRLIMIT: i64 = 164;

/// One system call that waits for an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    /// Names the notification.
    pub(super) id: u64,
    /// The thread, as this process's pid namespace numbers it.
    pub(super) task: u32,
    /// System call number.
    pub(super) number: i64,
    /// Its registers.
    pub(super) arguments: [u64; 6],
    /// Whether the task has another root than the supervisor (`chroot`).
    pub(super) is_elsewhere: bool,
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn check(returned: i64) -> Result<i64> {
    if returned < 0 { Err(last_errno()) } else { Ok(returned) }
}

/// Puts a filter on this thread and gives its listener.
pub(super) fn install(program: &[libc::sock_filter], flags: libc::c_ulong) -> Result<OwnedFd> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: `program` points to `len` instructions, which the kernel copies and checks before the call returns.
    let returned =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    let descriptor = i32::try_from(check(returned)?).map_err(|_| Errno::BADF)?;
    // SAFETY: with SECCOMP_FILTER_FLAG_NEW_LISTENER, what is returned is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Takes the next call that waits; `ENOENT` if its task has died meanwhile.
pub(super) fn receive(listener: BorrowedFd<'_>) -> Result<Call> {
    let mut notification = MaybeUninit::<libc::seccomp_notif>::zeroed();
    // SAFETY: the request's number holds the size of the structure; the kernel writes no more. It wants it zeroed, and it is.
    check(i64::from(unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, notification.as_mut_ptr())
    }))?;
    // SAFETY: any bytes are a valid `seccomp_notif`, and it was zeroed to begin with.
    let notification = unsafe { notification.assume_init() };
    Ok(Call {
        id: notification.id,
        task: notification.pid,
        number: i64::from(notification.data.nr),
        arguments: notification.data.args,
        is_elsewhere: false,
    })
}

fn respond(listener: BorrowedFd<'_>, mut response: libc::seccomp_notif_resp) -> Result<()> {
    // SAFETY: the kernel reads one structure of the size in the request's number.
    check(i64::from(unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response) }))?;
    Ok(())
}

/// Lets a call return this value or error.
pub(super) fn answer(listener: BorrowedFd<'_>, id: u64, answer: Result<i64>) -> Result<()> {
    let (val, error) = match answer {
        Ok(value) => (value, 0),
        Err(errno) => (0, -errno.raw_os_error()),
    };
    respond(listener, libc::seccomp_notif_resp { id, val, error, flags: 0 })
}

/// Lets the kernel carry the call out as if nothing had been between.
pub(super) fn let_through(listener: BorrowedFd<'_>, id: u64) -> Result<()> {
    let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
    respond(listener, libc::seccomp_notif_resp { id, val: 0, error: 0, flags })
}

/// Whether the call still waits, so that its task's number cannot have gone to another.
pub(super) fn still_waits(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the kernel reads eight bytes.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) == 0 }
}

/// Gives the task a copy of a descriptor and lets its call return the copy's number, in one step.
pub(super) fn hand_out(listener: BorrowedFd<'_>, id: u64, fd: BorrowedFd<'_>, close_on_exec: bool) -> Result<()> {
    let request = libc::seccomp_notif_addfd {
        id,
        flags: libc::SECCOMP_ADDFD_FLAG_SEND as u32,
        srcfd: u32::try_from(fd.as_raw_fd()).map_err(|_| Errno::BADF)?,
        newfd: 0,
        newfd_flags: if close_on_exec { libc::O_CLOEXEC as u32 } else { 0 },
    };
    // SAFETY: the kernel reads one structure of the size in the request's number; `fd` is open for the whole call.
    check(i64::from(unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw const request)
    }))?;
    Ok(())
}

/// Asks the kernel to wake supervisor and task on one processor, each as the other goes to sleep (Linux 6.6): a call then takes
/// a fifth of the time. Where it is not known, nothing changes.
pub(super) fn wake_in_turn(listener: BorrowedFd<'_>) {
    const SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP: u64 = 1;
    // SAFETY: the argument of this request is the flags themselves, no pointer.
    unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP);
    }
}

/// Reads another task's memory; gives how many bytes were there, none being an error.
pub(super) fn read_memory(task: u32, address: u64, buffer: &mut [u8]) -> Result<usize> {
    if buffer.is_empty() {
        return Ok(0);
    }
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: buffer.len() };
    // SAFETY: the kernel writes at most `iov_len` bytes into `buffer`; the remote address is checked by it and never touched here.
    let read = unsafe { libc::process_vm_readv(task as libc::pid_t, &raw const local, 1, &raw const remote, 1, 0) };
    Ok(check(read as i64)? as usize)
}

/// Writes all of `bytes` into another task's memory.
pub(super) fn write_memory(task: u32, address: u64, bytes: &[u8]) -> Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: bytes.len() };
    // SAFETY: the kernel only reads `bytes`; the remote address is checked by it and never touched here.
    let written = unsafe { libc::process_vm_writev(task as libc::pid_t, &raw const local, 1, &raw const remote, 1, 0) };
    if check(written as i64)? as usize == bytes.len() { Ok(()) } else { Err(Errno::FAULT) }
}

/// The limit on a task's real-time processor use, soft and hard.
pub(super) fn real_time_limit(task: u32) -> Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one `rlimit`.
    let returned = unsafe {
        libc::syscall(libc::SYS_prlimit64, task, libc::RLIMIT_RTTIME, std::ptr::null::<libc::rlimit>(), &raw mut limit)
    };
    check(returned)?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Sets the limit on a task's real-time processor use.
pub(super) fn set_real_time_limit(task: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the kernel reads one `rlimit`.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            task,
            libc::RLIMIT_RTTIME,
            &raw const limit,
            std::ptr::null::<libc::rlimit>(),
        )
    };
    check(returned)?;
    Ok(())
}

/// `fstat`, in the kernel's own layout; works on `O_PATH` descriptors.
pub(super) fn stat(fd: BorrowedFd<'_>) -> Result<libc::stat> {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: on 64-bit Linux libc's `stat` is the kernel's, and the kernel writes one.
    check(unsafe { libc::syscall(libc::SYS_fstat, fd.as_raw_fd(), stat.as_mut_ptr()) })?;
    // SAFETY: it was zeroed, any bytes are valid, and the kernel has filled it.
    Ok(unsafe { stat.assume_init() })
}

/// `statx` of an open file, in the kernel's own layout.
pub(super) fn statx(fd: BorrowedFd<'_>, flags: i32, mask: u32) -> Result<libc::statx> {
    let mut stat = MaybeUninit::<libc::statx>::zeroed();
    let (empty, flags): (&CStr, i32) = (c"", flags | libc::AT_EMPTY_PATH);
    // SAFETY: the path is a C string, and the kernel writes one `statx`.
    let returned =
        unsafe { libc::syscall(libc::SYS_statx, fd.as_raw_fd(), empty.as_ptr(), flags, mask, stat.as_mut_ptr()) };
    check(returned)?;
    // SAFETY: it was zeroed, any bytes are valid, and the kernel has filled it.
    Ok(unsafe { stat.assume_init() })
}

/// Structures that are copied to a task byte by byte.
pub(super) trait Plain {}
impl Plain for libc::stat {}
impl Plain for libc::statx {}

/// The bytes of a structure.
pub(super) fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: both implementors come from `zeroed` memory that the kernel filled, so that every byte, padding too, is initialised.
    unsafe { std::slice::from_raw_parts((&raw const *value).cast(), size_of::<T>()) }
}
