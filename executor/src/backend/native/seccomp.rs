//! Which system calls a command may make: what Docker's default profile allows a container without capabilities, with a few more
//! doors closed (io_uring, TIOCSTI, AF_ALG).
//!
//! What is allowed are the calls that have a name in `names.rs` (each was judged) and no rule here; a number without a name does not
//! exist for the command, as on an older kernel. The filter is a binary search over ranges of numbers: 8 comparisons instead of hundreds,
//! which the kernel also repeats for every call number when the filter is installed (10 times slower to install as a linear list).

use libc::{c_long, sock_filter};

mod names;
pub mod profile;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Allow,
    /// Fails with this errno.
    Fail(i32),
    /// Fails with the errno if any of these bits is set in an argument's lower half.
    FailOnBits {
        argument: u32,
        bits: u32,
        errno: i32,
    },
    /// Fails with the errno if an argument's lower half is one of these.
    FailOnValues {
        argument: u32,
        values: &'static [u32],
        errno: i32,
    },
    /// Fails with EPERM unless the argument's lower half is one of these.
    OnlyValues {
        argument: u32,
        values: &'static [u32],
    },
}

const EPERM: Rule = Rule::Fail(libc::EPERM);
const ENOSYS: Rule = Rule::Fail(libc::ENOSYS);

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// CLONE_NEW* without CLONE_NEWTIME, whose bit is part of the exit signal in clone(2).
const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

const RULES: &[(c_long, Rule)] = &[
    // The mount table and the root.
    (libc::SYS_mount, EPERM),
    (libc::SYS_umount2, EPERM),
    (libc::SYS_pivot_root, EPERM),
    (libc::SYS_open_tree, EPERM),
    (libc::SYS_move_mount, EPERM),
    (libc::SYS_fsopen, EPERM),
    (libc::SYS_fsconfig, EPERM),
    (libc::SYS_fsmount, EPERM),
    (libc::SYS_fspick, EPERM),
    (libc::SYS_mount_setattr, EPERM),
    (OPEN_TREE_ATTR, EPERM),
    (libc::SYS_swapon, EPERM),
    (libc::SYS_swapoff, EPERM),
    (libc::SYS_quotactl, EPERM),
    (libc::SYS_quotactl_fd, EPERM),
    // A handle reaches any file of a file system, whatever the root (CVE-2014-9357 "shocker").
    (libc::SYS_open_by_handle_at, EPERM),
    // Namespaces: power over new ones opens kernel code that is otherwise closed. clone3 passes its flags by pointer, where no filter
    // can see them; ENOSYS makes the C library fall back to clone, EPERM would not.
    (libc::SYS_clone3, ENOSYS),
    (libc::SYS_clone, Rule::FailOnBits { argument: 0, bits: NAMESPACES, errno: libc::EPERM }),
    (libc::SYS_unshare, Rule::FailOnBits { argument: 0, bits: NAMESPACES | 0x80, errno: libc::EPERM }),
    (libc::SYS_setns, EPERM),
    // The kernel, its modules, clocks and logs.
    (libc::SYS_bpf, EPERM),
    (libc::SYS_perf_event_open, EPERM),
    (libc::SYS_userfaultfd, EPERM),
    (libc::SYS_fanotify_init, EPERM),
    (libc::SYS_init_module, EPERM),
    (libc::SYS_finit_module, EPERM),
    (libc::SYS_delete_module, EPERM),
    (libc::SYS_kexec_load, EPERM),
    (KEXEC_FILE_LOAD, EPERM),
    (libc::SYS_reboot, EPERM),
    (libc::SYS_syslog, EPERM),
    (libc::SYS_acct, EPERM),
    (libc::SYS_settimeofday, EPERM),
    (libc::SYS_clock_settime, EPERM),
    (libc::SYS_lookup_dcookie, EPERM),
    (libc::SYS_nfsservctl, ENOSYS),
    (libc::SYS_vhangup, EPERM),
    (libc::SYS_kcmp, EPERM),
    // Keyrings are not divided by namespace.
    (libc::SYS_add_key, EPERM),
    (libc::SYS_request_key, EPERM),
    (libc::SYS_keyctl, EPERM),
    // What a ring does, no filter sees.
    (libc::SYS_io_uring_setup, ENOSYS),
    (libc::SYS_io_uring_enter, ENOSYS),
    (libc::SYS_io_uring_register, ENOSYS),
    // Typing into the caller's terminal: CVE-2017-5226. TIOCLINUX pastes on the console.
    (libc::SYS_ioctl, Rule::FailOnValues { argument: 1, values: &[0x5412, 0x541c], errno: libc::EPERM }),
    // AF_VSOCK reaches the hypervisor from within any network namespace; AF_ALG is code of the kernel with a history.
    (libc::SYS_socket, Rule::FailOnValues { argument: 0, values: &[38, 40], errno: libc::EAFNOSUPPORT }),
    // PER_LINUX, PER_LINUX32, UNAME26 with either, and the question; as Docker.
    (libc::SYS_personality, Rule::OnlyValues { argument: 0, values: &[0, 8, 0x20000, 0x20008, u32::MAX] }),
    // Not listed by Docker either: kernel services that were never there, and calls whose place is inside the kernel's own code.
    #[cfg(target_arch = "x86_64")]
    (335, ENOSYS),
    #[cfg(target_arch = "x86_64")]
    (174, ENOSYS),
    #[cfg(target_arch = "x86_64")]
    (177, ENOSYS),
    #[cfg(target_arch = "x86_64")]
    (178, ENOSYS),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_iopl, EPERM),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_ioperm, EPERM),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_modify_ldt, EPERM),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_uselib, ENOSYS),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_ustat, ENOSYS),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_sysfs, ENOSYS),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS__sysctl, ENOSYS),
];

/// Not in every C library's list.
#[cfg(target_arch = "x86_64")]
const KEXEC_FILE_LOAD: c_long = 320;
#[cfg(target_arch = "aarch64")]
const KEXEC_FILE_LOAD: c_long = 294;

/// `open_tree_attr` of Linux 6.15.
const OPEN_TREE_ATTR: c_long = 467;

/// More than the highest number that is named here.
const CALLS: usize = 512;

/// Offsets in `struct seccomp_data`: seccomp(2).
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The filter for this machine's calls. Those of other machines (32-bit, x32) do not exist for the command.
pub fn filter() -> Vec<sock_filter> {
    whole(&ranges(), &|rule, program| judge(*rule, program))
}

/// The names of the calls that are allowed whatever their arguments are, and of those whose arguments decide.
pub fn allowed_calls() -> (Vec<&'static str>, Vec<&'static str>) {
    let rule = |number: u32| RULES.iter().find(|(listed, _)| *listed == c_long::from(number)).map(|(_, rule)| *rule);
    let named = |wanted: fn(Option<Rule>) -> bool| {
        names::NAMES.iter().filter(|(_, number)| wanted(rule(*number))).map(|(name, _)| *name).collect()
    };
    let is_limited = |rule: Option<Rule>| rule.is_some_and(|rule| !matches!(rule, Rule::Fail(_) | Rule::Allow));
    (named(|rule| rule.is_none()), named(is_limited))
}

/// Rules over the whole range of numbers: each holds from its number up to the next one's.
fn ranges() -> Vec<(u32, Rule)> {
    // By number, as sorting them would take longer than all the rest: 0 is no call, 1 an allowed one, then come the rules.
    let mut which = [0u8; CALLS];
    for (_, number) in names::NAMES {
        which[*number as usize] = 1;
    }
    for (index, (number, _)) in RULES.iter().enumerate() {
        which[*number as usize] = index as u8 + 2;
    }
    let rules = which.into_iter().map(|which| match which {
        0 => ENOSYS,
        1 => Rule::Allow,
        rule => RULES[usize::from(rule) - 2].1,
    });
    spread((0..).zip(rules), ENOSYS)
}

/// Single numbers, ascending, as ranges; `otherwise` is what holds for the numbers between them.
fn spread<R: Clone + PartialEq>(rules: impl IntoIterator<Item = (u32, R)>, otherwise: R) -> Vec<(u32, R)> {
    let mut ranges = vec![(0, otherwise.clone())];
    for (number, rule) in rules {
        put(&mut ranges, number, rule);
        put(&mut ranges, number + 1, otherwise.clone());
    }
    ranges
}

fn put<R: PartialEq>(ranges: &mut Vec<(u32, R)>, number: u32, rule: R) {
    ranges.pop_if(|(start, _)| *start == number);
    if ranges.last().is_none_or(|(_, last)| *last != rule) {
        ranges.push((number, rule));
    }
}

/// Adds code that answers to a rule.
type Judge<'a, R> = &'a dyn Fn(&R, &mut Vec<sock_filter>);

/// Adds code that has the call's number in the accumulator, and always ends in an answer.
fn search<R>(ranges: &[(u32, R)], judge: Judge<'_, R>, program: &mut Vec<sock_filter>) {
    if let [(_, rule)] = ranges {
        return judge(rule, program);
    }
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    let at = program.len();
    program.push(jump(libc::BPF_JGE, upper[0].0, 0, 0));
    search(lower, judge, program);
    let below = program.len() - at - 1;
    match u8::try_from(below) {
        Ok(length) => program[at].jt = length,
        // A conditional jump reaches 255 instructions; an unconditional one any number.
        Err(_) => {
            program[at].jf = 1;
            program.insert(at + 1, statement(libc::BPF_JMP | libc::BPF_JA, below as u32));
        }
    }
    search(upper, judge, program);
}

fn judge(rule: Rule, program: &mut Vec<sock_filter>) {
    let mut one_of = |argument, values: &[u32], yes, no| {
        program.push(load(ARGUMENTS + 8 * argument));
        for (index, value) in values.iter().enumerate() {
            program.push(jump(libc::BPF_JEQ, *value, (values.len() - index) as u8, 0));
        }
        program.extend([answer(no), answer(yes)]);
    };
    match rule {
        Rule::Allow | Rule::Fail(_) => program.push(answer(rule)),
        Rule::FailOnBits { argument, bits, errno } => program.extend([
            load(ARGUMENTS + 8 * argument),
            jump(libc::BPF_JSET, bits, 0, 1),
            answer(Rule::Fail(errno)),
            answer(Rule::Allow),
        ]),
        Rule::FailOnValues { argument, values, errno } => one_of(argument, values, Rule::Fail(errno), Rule::Allow),
        Rule::OnlyValues { argument, values } => one_of(argument, values, Rule::Allow, EPERM),
    }
}

/// A program for this machine's calls; those of other machines do not exist.
fn whole<R>(ranges: &[(u32, R)], judge: Judge<'_, R>) -> Vec<sock_filter> {
    let mut program = vec![load(ARCH), jump(libc::BPF_JEQ, ARCHITECTURE, 1, 0), answer(ENOSYS), load(NUMBER)];
    search(ranges, judge, &mut program);
    program
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn load(offset: u32) -> sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn jump(condition: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: (libc::BPF_JMP | condition | libc::BPF_K) as u16, jt, jf, k }
}

fn answer(rule: Rule) -> sock_filter {
    let action = match rule {
        Rule::Fail(errno) => libc::SECCOMP_RET_ERRNO | errno as u32,
        _ => libc::SECCOMP_RET_ALLOW,
    };
    statement(libc::BPF_RET | libc::BPF_K, action)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter answers, by the rules of classic BPF; and after how many instructions.
    fn run(program: &[sock_filter], architecture: u32, number: u32, arguments: [u64; 6]) -> (u32, usize) {
        let (mut accumulator, mut at, mut steps) = (0, 0, 0);
        loop {
            let instruction = &program[at];
            at += 1;
            steps += 1;
            match u32::from(instruction.code) {
                0x20 => {
                    accumulator = match instruction.k {
                        NUMBER => number,
                        ARCH => architecture,
                        offset => arguments[((offset - ARGUMENTS) / 8) as usize] as u32,
                    }
                }
                0x05 => at += instruction.k as usize,
                0x06 => return (instruction.k, steps),
                code => {
                    let holds = match code & 0xf0 {
                        0x10 => accumulator == instruction.k,
                        0x30 => accumulator >= instruction.k,
                        0x40 => accumulator & instruction.k != 0,
                        _ => panic!("unknown instruction {code:#x}"),
                    };
                    at += usize::from(if holds { instruction.jt } else { instruction.jf });
                }
            }
        }
    }

    fn verdict(number: c_long, arguments: [u64; 6]) -> Result<(), i32> {
        let (action, _) = run(&filter(), ARCHITECTURE, number as u32, arguments);
        if action == libc::SECCOMP_RET_ALLOW { Ok(()) } else { Err((action & 0xffff) as i32) }
    }

    #[test]
    fn every_number_gets_the_answer_of_the_list() {
        let program = filter();
        let mut longest = 0;
        for number in 0..2000 {
            let rule = RULES.iter().find(|(listed, _)| *listed == c_long::from(number)).map(|(_, rule)| *rule);
            let is_known = names::NAMES.iter().any(|(_, known)| *known == number);
            let (action, steps) = run(&program, ARCHITECTURE, number, [0; 6]);
            longest = longest.max(steps);
            let expected = match rule {
                None if is_known => libc::SECCOMP_RET_ALLOW,
                None => libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32,
                Some(Rule::Fail(errno)) => libc::SECCOMP_RET_ERRNO | errno as u32,
                Some(_) => libc::SECCOMP_RET_ALLOW,
            };
            assert_eq!(action, expected, "call {number}");
        }
        assert!(longest <= 20, "{longest} instructions for one call");
        assert!(program.len() < 400, "{} instructions", program.len());
    }

    #[test]
    fn arguments_decide_where_the_number_does_not() {
        assert_eq!(verdict(libc::SYS_ioctl, [0, 0x5412, 0, 0, 0, 0]), Err(libc::EPERM));
        // The kernel looks at 32 bits of an ioctl's number: CVE-2019-7303 and CVE-2023-1523.
        assert_eq!(verdict(libc::SYS_ioctl, [0, 0x1_0000_5412, 0, 0, 0, 0]), Err(libc::EPERM));
        assert_eq!(verdict(libc::SYS_ioctl, [0, 0x5413, 0, 0, 0, 0]), Ok(()));
        assert_eq!(verdict(libc::SYS_clone, [libc::CLONE_NEWUSER as u64 | 17, 0, 0, 0, 0, 0]), Err(libc::EPERM));
        assert_eq!(verdict(libc::SYS_clone, [libc::CLONE_VM as u64 | 17, 0, 0, 0, 0, 0]), Ok(()));
        assert_eq!(verdict(libc::SYS_socket, [40, 1, 0, 0, 0, 0]), Err(libc::EAFNOSUPPORT));
        assert_eq!(verdict(libc::SYS_socket, [2, 1, 0, 0, 0, 0]), Ok(()));
        assert_eq!(verdict(libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0, 0]), Ok(()));
        assert_eq!(verdict(libc::SYS_personality, [0x40_0000, 0, 0, 0, 0, 0]), Err(libc::EPERM));
    }

    #[test]
    fn calls_of_other_machines_do_not_exist() {
        let program = filter();
        let enosys = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
        assert_eq!(run(&program, 0x4000_0003, 21, [0; 6]).0, enosys);
        // x32: the same architecture, with a bit in the number.
        assert_eq!(run(&program, ARCHITECTURE, 0x4000_0000 | 39, [0; 6]).0, enosys);
    }
}
