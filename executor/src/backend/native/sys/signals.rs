//! Signals of this process: which are heard, and by whom.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use super::check;

/// Puts every signal back to its default action and unblocks all. What the caller of forge had ignored (`nohup`) may stay so;
/// not SIGPIPE, which Rust programs ignore on their own account.
pub fn reset_signals(keep_ignored: bool) {
    for signal in 1..=64 {
        // The bare call, as the C library hides two signals that a careless parent may have ignored.
        let (default, mut before) = ([0u64; 4], [0u64; 4]);
        // SAFETY: an all-zero action of the kernel (at most 32 bytes) is SIG_DFL without flags, and one as large is filled; SIGKILL and
        // SIGSTOP fail, harmlessly.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), before.as_mut_ptr(), 8usize) };
        if keep_ignored && signal != libc::SIGPIPE && before[0] == libc::SIG_IGN as u64 {
            // SAFETY: as above; what is put back is what the kernel gave.
            unsafe {
                libc::syscall(libc::SYS_rt_sigaction, signal, before.as_ptr(), std::ptr::null_mut::<u64>(), 8usize)
            };
        }
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

/// Signals that are passed on to a command which shares its streams with this process.
const PASSED: [libc::c_int; 9] = [
    libc::SIGWINCH,
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
