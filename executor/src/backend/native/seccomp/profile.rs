//! A seccomp profile of the OCI runtime specification as a filter: config-linux.md, "Seccomp".

use std::collections::BTreeMap;

use libc::sock_filter;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator};

use super::{ARGUMENTS, load, names, spread, statement, whole};

/// What happens to one call: the first entry whose conditions all hold decides, else the last word does.
#[derive(Debug, Clone, PartialEq)]
struct Verdict {
    cases: Vec<(Vec<LinuxSeccompArg>, u32)>,
    otherwise: u32,
}

/// The filter of a profile. An error names what cannot be had.
pub fn compile(profile: &LinuxSeccomp) -> Result<Vec<sock_filter>, String> {
    let errno = profile.default_errno_ret();
    let default = action(profile.default_action(), errno)?;
    let mut verdicts: BTreeMap<u32, Verdict> = BTreeMap::new();
    for call in profile.syscalls().iter().flatten() {
        let action = action(call.action(), call.errno_ret())?;
        for name in call.names() {
            // Calls of other machines are named in every profile.
            let Some(number) = names::number(name) else { continue };
            let verdict = verdicts.entry(number).or_insert_with(|| Verdict { cases: Vec::new(), otherwise: default });
            match call.args().as_deref().unwrap_or_default() {
                [] => verdict.otherwise = action,
                conditions => verdict.cases.push((conditions.to_vec(), action)),
            }
        }
    }
    let otherwise = Verdict { cases: Vec::new(), otherwise: default };
    let program = whole(&spread(verdicts, otherwise), &judge);
    // BPF_MAXINSNS of the kernel.
    if program.len() > 4096 { Err(format!("a filter of {} instructions", program.len())) } else { Ok(program) }
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32, String> {
    use LinuxSeccompAction::*;
    Ok(match action {
        ScmpActAllow => libc::SECCOMP_RET_ALLOW,
        ScmpActErrno => libc::SECCOMP_RET_ERRNO | (errno.unwrap_or(libc::EPERM as u32) & 0xffff),
        ScmpActKill | ScmpActKillThread => libc::SECCOMP_RET_KILL_THREAD,
        ScmpActKillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        ScmpActTrap => libc::SECCOMP_RET_TRAP,
        ScmpActLog => libc::SECCOMP_RET_LOG,
        ScmpActTrace => libc::SECCOMP_RET_TRACE | (errno.unwrap_or(0) & 0xffff),
        ScmpActNotify => return Err("SCMP_ACT_NOTIFY, which wants a listener".to_owned()),
    })
}

fn judge(verdict: &Verdict, program: &mut Vec<sock_filter>) {
    for (conditions, action) in &verdict.cases {
        let checks: Vec<Vec<Step>> = conditions.iter().map(check).collect();
        let mut left: usize = checks.iter().map(Vec::len).sum::<usize>() + 1;
        for steps in checks {
            let count = steps.len();
            for (index, step) in steps.into_iter().enumerate() {
                left -= 1;
                let distance = |target: Target| match target {
                    Next => 0,
                    // To the check after this one.
                    Holds => count - index - 1,
                    // Past the answer of this case.
                    Fails => left,
                };
                program.push(sock_filter {
                    code: step.code as u16,
                    jt: distance(step.yes) as u8,
                    jf: distance(step.no) as u8,
                    k: step.k,
                });
            }
        }
        program.push(statement(libc::BPF_RET | libc::BPF_K, *action));
    }
    program.push(statement(libc::BPF_RET | libc::BPF_K, verdict.otherwise));
}

/// Where a step leads.
#[derive(Clone, Copy)]
enum Target {
    Next,
    Holds,
    Fails,
}
use Target::{Fails, Holds, Next};

struct Step {
    code: u32,
    k: u32,
    yes: Target,
    no: Target,
}

/// A comparison of 64 bits by halves of 32, the upper first.
fn check(condition: &LinuxSeccompArg) -> Vec<Step> {
    use LinuxSeccompOperator::*;
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    let at = ARGUMENTS + 8 * condition.index() as u32;
    let load = |offset: u32| {
        let load = load(offset);
        Step { code: u32::from(load.code), k: load.k, yes: Next, no: Next }
    };
    let compare = |how: u32, k: u32, yes, no| Step { code: libc::BPF_JMP | how | libc::BPF_K, k, yes, no };
    let and = |k: u32| Step { code: libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, k, yes: Next, no: Next };
    let (upper, lower) = halves(condition.value());
    let equal = libc::BPF_JEQ;
    match condition.op() {
        ScmpCmpEq => {
            vec![load(at + 4), compare(equal, upper, Next, Fails), load(at), compare(equal, lower, Next, Fails)]
        }
        ScmpCmpNe => {
            vec![load(at + 4), compare(equal, upper, Next, Holds), load(at), compare(equal, lower, Fails, Next)]
        }
        ScmpCmpMaskedEq => {
            let (two_upper, two_lower) = halves(condition.value_two().unwrap_or_default());
            vec![
                load(at + 4),
                and(upper),
                compare(equal, two_upper, Next, Fails),
                load(at),
                and(lower),
                compare(equal, two_lower, Next, Fails),
            ]
        }
        op @ (ScmpCmpGt | ScmpCmpGe | ScmpCmpLt | ScmpCmpLe) => {
            let greater = matches!(op, ScmpCmpGt | ScmpCmpGe);
            let (above, below) = if greater { (Holds, Fails) } else { (Fails, Holds) };
            // Greater, or (not less or equal): what the last comparison asks.
            let last = if matches!(op, ScmpCmpGt | ScmpCmpLe) { libc::BPF_JGT } else { libc::BPF_JGE };
            let (yes, no) = if greater { (Next, Fails) } else { (Fails, Next) };
            vec![
                load(at + 4),
                compare(libc::BPF_JGT, upper, above, Next),
                compare(equal, upper, Next, below),
                load(at),
                compare(last, lower, yes, no),
            ]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ARCHITECTURE, NUMBER};
    use super::*;

    /// What the filter answers, by the rules of classic BPF.
    fn answer(program: &[sock_filter], number: u32, arguments: [u64; 6]) -> u32 {
        let (mut accumulator, mut at) = (0, 0);
        loop {
            let instruction = &program[at];
            at += 1;
            match u32::from(instruction.code) {
                0x20 => {
                    accumulator = match instruction.k {
                        NUMBER => number,
                        4 => ARCHITECTURE,
                        offset => {
                            let argument = arguments[((offset - ARGUMENTS) / 8) as usize];
                            if (offset - ARGUMENTS) % 8 == 4 { (argument >> 32) as u32 } else { argument as u32 }
                        }
                    }
                }
                0x54 => accumulator &= instruction.k,
                0x05 => at += instruction.k as usize,
                0x06 => return instruction.k,
                code => {
                    let holds = match code & 0xf0 {
                        0x10 => accumulator == instruction.k,
                        0x20 => accumulator > instruction.k,
                        0x30 => accumulator >= instruction.k,
                        _ => panic!("unknown instruction {code:#x}"),
                    };
                    at += usize::from(if holds { instruction.jt } else { instruction.jf });
                }
            }
        }
    }

    fn profile(text: &str) -> Vec<sock_filter> {
        compile(&serde_json::from_str(text).unwrap()).unwrap()
    }

    #[test]
    fn names_decide_and_the_default_holds_for_the_rest() {
        let program = profile(
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
                "syscalls": [{"names": ["read", "write", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
                             {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]}"#,
        );
        let ask = |number: libc::c_long| answer(&program, number as u32, [0; 6]);
        assert_eq!(ask(libc::SYS_read), libc::SECCOMP_RET_ALLOW);
        assert_eq!(ask(libc::SYS_mount), libc::SECCOMP_RET_ERRNO | 13);
        assert_eq!(ask(libc::SYS_openat), libc::SECCOMP_RET_ERRNO | 38);
    }

    #[test]
    fn arguments_are_compared_by_all_their_64_bits() {
        let big = 0x1_0000_0005u64;
        type Holds = fn(u64, u64) -> bool;
        let operators: [(&str, Holds); 6] = [
            ("SCMP_CMP_EQ", |argument, value| argument == value),
            ("SCMP_CMP_NE", |argument, value| argument != value),
            ("SCMP_CMP_GT", |argument, value| argument > value),
            ("SCMP_CMP_GE", |argument, value| argument >= value),
            ("SCMP_CMP_LT", |argument, value| argument < value),
            ("SCMP_CMP_LE", |argument, value| argument <= value),
        ];
        for (operator, holds) in operators {
            for value in [0, 5, big] {
                let program = profile(&format!(
                    r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{{"names": ["socket"], "action": "SCMP_ACT_ALLOW",
                        "args": [{{"index": 1, "value": {value}, "op": "{operator}"}}]}}]}}"#
                ));
                for argument in [0, 4, 5, 6, big - 1, big, big + 1, 5 << 32, u64::MAX] {
                    let allowed = answer(&program, libc::SYS_socket as u32, [9, argument, 9, 9, 9, 9]);
                    let expected =
                        if holds(argument, value) { libc::SECCOMP_RET_ALLOW } else { libc::SECCOMP_RET_ERRNO | 1 };
                    assert_eq!(allowed, expected, "{argument} {operator} {value}");
                }
            }
        }
        let program = profile(
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["clone"], "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}]}"#,
        );
        assert_eq!(answer(&program, libc::SYS_clone as u32, [17; 6]), libc::SECCOMP_RET_ERRNO | 1);
        assert_eq!(answer(&program, libc::SYS_clone as u32, [0x1000_0000; 6]), libc::SECCOMP_RET_ALLOW);
    }

    #[test]
    fn what_wants_a_listener_is_refused() {
        let profile = serde_json::from_str(r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#).unwrap();
        assert!(compile(&profile).is_err());
    }
}
