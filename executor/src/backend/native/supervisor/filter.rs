//! Which system calls wait for the supervisor's answer.
//!
//! The filter stands beside whatever other filter the sandbox has: the kernel asks all of them and takes the strictest answer.
//! It is made of plain comparisons, so that the kernel can see once and for all which calls it lets through whatever their
//! arguments (Linux 5.11), and does not run it for those.

use std::os::fd::OwnedFd;

use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};
use rustix::io::Errno;

use super::sys;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;

/// libc gives it a different type on every C library.
const RLIMIT_RTTIME: u32 = 15;

/// System calls later than libc's tables. Numbers above 424 are the same on every architecture.
const SYS_SETXATTRAT: i64 = 463;
const SYS_REMOVEXATTRAT: i64 = 466;

/// Calls that are always asked about.
#[rustfmt::skip]
const ASKED: &[i64] = &[
    libc::SYS_fchown, libc::SYS_fchownat,
    libc::SYS_fstat, libc::SYS_newfstatat, libc::SYS_statx,
    libc::SYS_setuid, libc::SYS_setgid, libc::SYS_setreuid, libc::SYS_setregid, libc::SYS_setresuid, libc::SYS_setresgid,
    libc::SYS_setfsuid, libc::SYS_setfsgid, libc::SYS_setgroups,
    libc::SYS_getuid, libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getegid, libc::SYS_getresuid, libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_openat2, libc::SYS_mkdirat, libc::SYS_symlinkat, libc::SYS_mknodat, libc::SYS_linkat,
    sys::SYS_RENAMEAT, libc::SYS_renameat2,
    libc::SYS_setxattr, libc::SYS_lsetxattr, libc::SYS_fsetxattr, libc::SYS_getxattr, libc::SYS_lgetxattr, libc::SYS_fgetxattr,
    libc::SYS_listxattr, libc::SYS_llistxattr, libc::SYS_flistxattr,
    libc::SYS_removexattr, libc::SYS_lremovexattr, libc::SYS_fremovexattr,
    libc::SYS_execve, libc::SYS_execveat,
    libc::SYS_chroot, libc::SYS_pivot_root, libc::SYS_unshare, libc::SYS_setns,
];

/// Calls of x86-64 that newer architectures do without.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const ASKED_LEGACY: &[i64] = &[
    libc::SYS_chown, libc::SYS_lchown, libc::SYS_stat, libc::SYS_lstat, libc::SYS_creat, libc::SYS_mkdir, libc::SYS_symlink,
    libc::SYS_mknod, libc::SYS_link, libc::SYS_rename,
];
#[cfg(target_arch = "aarch64")]
const ASKED_LEGACY: &[i64] = &[];

/// Calls that do nothing and succeed. What a step leaves is read when it has ended, and a step whose machine has died is made
/// again; dpkg waits for the disk several times for each package, which is most of the time that configuring takes.
const NEEDLESS: &[i64] =
    &[libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_sync, libc::SYS_syncfs, libc::SYS_sync_file_range];

/// Calls that this kernel is said not to have: programs then use the ones above.
const UNKNOWN: std::ops::RangeInclusive<i64> = SYS_SETXATTRAT..=SYS_REMOVEXATTRAT;

fn load(offset: u32) -> sock_filter {
    sock_filter { code: (BPF_LD | BPF_W | BPF_ABS) as u16, jt: 0, jf: 0, k: offset }
}

fn load_number() -> sock_filter {
    load(0)
}

/// Where the lower half of an argument lies in `seccomp_data`, on a little-endian machine.
fn load_argument(index: u32) -> sock_filter {
    load(16 + 8 * index)
}

fn give(answer: u32) -> sock_filter {
    sock_filter { code: (BPF_RET | BPF_K) as u16, jt: 0, jf: 0, k: answer }
}

/// Skips the next `skip` instructions unless the accumulator equals `value`.
fn unless_equal_skip(value: u32, skip: u8) -> sock_filter {
    sock_filter { code: (BPF_JMP | BPF_JEQ | BPF_K) as u16, jt: 0, jf: skip, k: value }
}

/// Skips the next `skip` instructions unless the accumulator has one of these bits.
fn unless_any_skip(bits: u32, skip: u8) -> sock_filter {
    sock_filter { code: (BPF_JMP | BPF_JSET | BPF_K) as u16, jt: 0, jf: skip, k: bits }
}

fn program() -> Vec<sock_filter> {
    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const ASK: u32 = libc::SECCOMP_RET_USER_NOTIF;
    const NOT_THERE: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    /// An error number of zero: the call does nothing and returns 0.
    const DONE: u32 = libc::SECCOMP_RET_ERRNO;
    // Another ABI (i386 on x86-64) numbers its calls differently: all that follows would be about the wrong ones.
    let mut program = vec![
        load(4),
        sock_filter { jt: 1, ..unless_equal_skip(ARCHITECTURE, 0) },
        give(libc::SECCOMP_RET_KILL_PROCESS),
    ];
    program.push(load_number());
    #[cfg(target_arch = "x86_64")]
    {
        /// The x32 ABI shares the architecture's number and sets this bit.
        const X32: u32 = 0x4000_0000;
        program.extend([unless_any_skip(X32, 1), give(NOT_THERE)]);
    }
    let mut with_flags = |number: i64, argument: u32| {
        // __O_TMPFILE without O_DIRECTORY, which it is always given with.
        const MAKES_A_FILE: u32 = (libc::O_CREAT | (libc::O_TMPFILE & !libc::O_DIRECTORY)) as u32;
        program.extend([
            unless_equal_skip(number as u32, 4),
            load_argument(argument),
            unless_any_skip(MAKES_A_FILE, 1),
            give(ASK),
            give(ALLOW),
        ]);
    };
    with_flags(libc::SYS_openat, 2);
    #[cfg(target_arch = "x86_64")]
    with_flags(libc::SYS_open, 1);
    for number in ASKED.iter().chain(ASKED_LEGACY) {
        program.extend([unless_equal_skip(*number as u32, 1), give(ASK)]);
    }
    program.extend([
        unless_equal_skip(libc::SYS_prctl as u32, 5),
        load_argument(0),
        sock_filter { jt: 1, ..unless_equal_skip(libc::PR_SET_KEEPCAPS as u32, 0) },
        unless_equal_skip(libc::PR_SET_SECUREBITS as u32, 1),
        give(ASK),
        give(ALLOW),
    ]);
    // io_uring carries out calls that no filter sees.
    let io_uring = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
    for number in UNKNOWN.chain(io_uring) {
        program.extend([unless_equal_skip(number as u32, 1), give(NOT_THERE)]);
    }
    for number in NEEDLESS {
        program.extend([unless_equal_skip(*number as u32, 1), give(DONE)]);
    }
    // The limit that carries the identity (see `identity.rs`) can be read, and set without effect.
    program.extend([
        unless_equal_skip(sys::SYS_SETRLIMIT as u32, 4),
        load_argument(0),
        unless_equal_skip(RLIMIT_RTTIME, 1),
        give(DONE),
        give(ALLOW),
        unless_equal_skip(libc::SYS_prlimit64 as u32, 8),
        load_argument(1),
        unless_equal_skip(RLIMIT_RTTIME, 6),
        load_argument(2),
        unless_any_skip(u32::MAX, 1),
        give(DONE),
        load(16 + 8 * 2 + 4),
        unless_any_skip(u32::MAX, 1),
        give(DONE),
    ]);
    program.push(give(ALLOW));
    program
}

/// Puts the filter on the calling thread, which must be about to execute the step's command, and gives the descriptor that its
/// supervisor answers on.
///
/// The caller must be single-threaded (a filter is a thread's own and is inherited by what it starts) and have "no new
/// privileges" or CAP_SYS_ADMIN in its user namespace. After this, every call that the supervisor answers waits for it.
pub fn install_filter() -> std::io::Result<OwnedFd> {
    super::identity::begin()?;
    let program = program();
    let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    // A signal that comes while the supervisor works would make the task forget the call and repeat it, and what was made would
    // be in its way. Linux 5.19 lets only fatal signals do so.
    let killable = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    match sys::install(&program, listener | killable) {
        Err(Errno::INVAL) => Ok(sys::install(&program, listener)?),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;
    const ASKED_ABOUT: u32 = libc::SECCOMP_RET_USER_NOTIF;

    /// What the filter answers, by the rules of classic BPF.
    fn answer(architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut seen = [number, architecture, 0, 0].map(u32::to_le_bytes).concat();
        seen.extend(arguments.iter().flat_map(|argument| argument.to_le_bytes()));
        let program = program();
        let (mut accumulator, mut at) = (0, 0);
        loop {
            let instruction = program[at];
            at += 1;
            let holds = match u32::from(instruction.code) {
                code if code == BPF_LD | BPF_W | BPF_ABS => {
                    let offset = instruction.k as usize;
                    accumulator = u32::from_le_bytes(seen[offset..offset + 4].try_into().unwrap());
                    continue;
                }
                code if code == BPF_RET | BPF_K => return instruction.k,
                code if code == BPF_JMP | BPF_JEQ | BPF_K => accumulator == instruction.k,
                code if code == BPF_JMP | BPF_JSET | BPF_K => accumulator & instruction.k != 0,
                code => panic!("unknown instruction {code:#x}"),
            };
            at += usize::from(if holds { instruction.jt } else { instruction.jf });
        }
    }

    fn native(number: i64, arguments: [u64; 6]) -> u32 {
        answer(ARCHITECTURE, number as u32, arguments)
    }

    #[test]
    fn only_what_speaks_of_users_is_asked_about() {
        for number in [libc::SYS_read, libc::SYS_close, libc::SYS_mmap, libc::SYS_seccomp, libc::SYS_sendmsg] {
            assert_eq!(native(number, [u64::MAX; 6]), ALLOWED, "call {number}");
        }
        for number in ASKED.iter().chain(ASKED_LEGACY) {
            assert_eq!(native(*number, [0; 6]), ASKED_ABOUT, "call {number}");
        }
        let open = |flags: i32| native(libc::SYS_openat, [0, 0, flags as u64, 0, 0, 0]);
        assert_eq!(open(libc::O_RDWR | libc::O_DIRECTORY | libc::O_TRUNC), ALLOWED);
        assert_eq!(open(libc::O_WRONLY | libc::O_CREAT), ASKED_ABOUT);
        assert_eq!(open(libc::O_RDWR | libc::O_TMPFILE), ASKED_ABOUT);
        let prctl = |option: i32| native(libc::SYS_prctl, [option as u64, 0, 0, 0, 0, 0]);
        assert_eq!(prctl(libc::PR_SET_NAME), ALLOWED);
        assert_eq!([prctl(libc::PR_SET_KEEPCAPS), prctl(libc::PR_SET_SECUREBITS)], [ASKED_ABOUT; 2]);
    }

    #[test]
    fn the_limit_that_carries_the_identity_is_only_read() {
        let new = |pointer: u64| native(libc::SYS_prlimit64, [0, u64::from(RLIMIT_RTTIME), pointer, 0, 0, 0]);
        assert_eq!(new(0), ALLOWED);
        // A pointer may have a lower half of zeros.
        assert_eq!([new(8), new(1 << 32)], [libc::SECCOMP_RET_ERRNO; 2]);
        assert_eq!(native(libc::SYS_prlimit64, [0, 7, 8, 0, 0, 0]), ALLOWED);
        assert_eq!(native(sys::SYS_SETRLIMIT, [u64::from(RLIMIT_RTTIME), 8, 0, 0, 0, 0]), libc::SECCOMP_RET_ERRNO);
        assert_eq!(native(sys::SYS_SETRLIMIT, [7, 8, 0, 0, 0, 0]), ALLOWED);
    }

    #[test]
    fn ways_around_are_closed() {
        assert_eq!(answer(0x4000_0003, 5, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
        let unknown = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
        for number in UNKNOWN.chain([libc::SYS_io_uring_setup]) {
            assert_eq!(native(number, [0; 6]), unknown, "call {number}");
        }
        #[cfg(target_arch = "x86_64")]
        assert_eq!(native(0x4000_0000 | libc::SYS_chown, [0; 6]), unknown);
    }
}
