//! Who a task believes it is: its pretended users, groups and supplementary groups, and what `set*id` makes of them.
//!
//! Really every task is 0:0 in its namespace. What it pretends must follow it through `fork`, `vfork`, `exec` and the death of its
//! parent, and must not pass to another task that gets its number. The kernel has one place that does exactly that: resource
//! limits. So every identity that comes up gets a number, and a process carries the number of its own as the distance of the
//! soft limit on real-time processor use (`RLIMIT_RTTIME`) below the hard one. That limit means nothing to a process without a
//! real-time policy, the distance is a few microseconds, and the filter keeps the process from setting it.
//!
//! Limits belong to processes, identities to threads. A thread that differs from its process is remembered by its number.

use std::collections::HashMap;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::sys::{self, Call, Result};
use super::task::{self, Answer};

/// What the kernel calls credentials, without capabilities: those are had by whoever has user 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Identity {
    user: Ids,
    group: Ids,
    groups: Vec<u32>,
    /// It asked to keep its capabilities when it ceases to be root (`PR_SET_KEEPCAPS`, `SECBIT_NO_SETUID_FIXUP`)…
    keeps: bool,
    /// …and has, until it executes: it may still change its groups, for instance (`setpriv` does it in this order).
    kept: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Ids {
    real: u32,
    effective: u32,
    saved: u32,
    file: u32,
}

/// What `-1` means to most calls: leave it as it is.
const KEEP: u32 = u32::MAX;

impl Ids {
    fn has(&self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }

    fn has_root(&self) -> bool {
        self.has(0)
    }

    /// `setuid(2)`.
    fn set(&mut self, id: u32, privileged: bool) -> Result<()> {
        if id == KEEP {
            return Err(Errno::INVAL);
        }
        if privileged {
            (self.real, self.saved) = (id, id);
        } else if id != self.real && id != self.saved {
            return Err(Errno::PERM);
        }
        (self.effective, self.file) = (id, id);
        Ok(())
    }

    /// `setreuid(2)`.
    fn set_two(&mut self, real: u32, effective: u32, privileged: bool) -> Result<()> {
        let old = *self;
        if real != KEEP {
            if !privileged && real != old.real && real != old.effective {
                return Err(Errno::PERM);
            }
            self.real = real;
        }
        if effective != KEEP {
            if !privileged && !old.has(effective) {
                return Err(Errno::PERM);
            }
            self.effective = effective;
        }
        if real != KEEP || (effective != KEEP && effective != old.real) {
            self.saved = self.effective;
        }
        self.file = self.effective;
        Ok(())
    }

    /// `setresuid(2)`.
    fn set_three(&mut self, ids: [u32; 3], privileged: bool) -> Result<()> {
        let old = *self;
        if !privileged && ids.iter().any(|id| *id != KEEP && !old.has(*id)) {
            return Err(Errno::PERM);
        }
        for (field, id) in [&mut self.real, &mut self.effective, &mut self.saved].into_iter().zip(ids) {
            if id != KEEP {
                *field = id;
            }
        }
        self.file = self.effective;
        Ok(())
    }

    /// `setfsuid(2)`, which never fails and tells the old one.
    fn set_file(&mut self, id: u32, privileged: bool) -> u32 {
        let old = self.file;
        if id != KEEP && (privileged || id == old || self.has(id)) {
            self.file = id;
        }
        old
    }
}

impl Identity {
    /// The user that files are made and owned as.
    pub(super) fn file_user(&self) -> u32 {
        self.user.file
    }

    /// The group that files are made as.
    pub(super) fn file_group(&self) -> u32 {
        self.group.file
    }

    /// Whether it may do what only root may.
    pub(super) fn is_privileged(&self) -> bool {
        self.user.effective == 0 || self.kept
    }

    /// Whether it may give its files to this group.
    pub(super) fn is_in_group(&self, group: u32) -> bool {
        self.group.file == group || self.groups.contains(&group)
    }

    /// What it becomes by executing a program, set-id to these owners or not.
    fn after_exec(&self, set_user: Option<u32>, set_group: Option<u32>) -> Self {
        let mut after = Self { keeps: false, kept: false, ..self.clone() };
        for (ids, set) in [(&mut after.user, set_user), (&mut after.group, set_group)] {
            let effective = set.unwrap_or(ids.effective);
            *ids = Ids { real: ids.real, effective, saved: effective, file: effective };
        }
        after
    }

    /// Carries a call out that changes it; gives what the call returns.
    fn change(&mut self, call: &Call, groups: Option<Vec<u32>>) -> Result<i64> {
        let had_root = self.user.has_root();
        let returned = self.set(call, groups)?;
        if had_root && !self.user.has_root() {
            self.kept = self.keeps;
        }
        Ok(returned)
    }

    fn set(&mut self, call: &Call, groups: Option<Vec<u32>>) -> Result<i64> {
        let privileged = self.is_privileged();
        let [first, second, third] = [0, 1, 2].map(|index| call.arguments[index] as u32);
        match call.number {
            libc::SYS_setuid => self.user.set(first, privileged)?,
            libc::SYS_setgid => self.group.set(first, privileged)?,
            libc::SYS_setreuid => self.user.set_two(first, second, privileged)?,
            libc::SYS_setregid => self.group.set_two(first, second, privileged)?,
            libc::SYS_setresuid => self.user.set_three([first, second, third], privileged)?,
            libc::SYS_setresgid => self.group.set_three([first, second, third], privileged)?,
            libc::SYS_setfsuid => return Ok(i64::from(self.user.set_file(first, privileged))),
            libc::SYS_setfsgid => return Ok(i64::from(self.group.set_file(first, privileged))),
            _ if privileged => self.groups = groups.unwrap_or_default(),
            _ => return Err(Errno::PERM),
        }
        Ok(0)
    }
}

/// Makes this process, and so all that it starts, carry the number of root's identity.
pub(super) fn begin() -> Result<()> {
    let limit = getrlimit(Resource::Rttime);
    setrlimit(Resource::Rttime, Rlimit { current: limit.maximum, maximum: limit.maximum })
}

/// All identities that ever came up, and the threads that differ from their process.
#[derive(Debug)]
pub(super) struct Identities {
    /// By number. The first is root's, without supplementary groups.
    known: Vec<Identity>,
    numbers: HashMap<Identity, u64>,
    /// By thread: when it was started (against numbers used again), and its identity.
    threads: HashMap<u32, (u64, u64)>,
}

impl Identities {
    pub(super) fn new() -> Self {
        let root = Identity::default();
        Self { numbers: HashMap::from([(root.clone(), 0)]), known: vec![root], threads: HashMap::new() }
    }

    fn number(&self, task: u32) -> Result<u64> {
        if let Some((started, number)) = self.threads.get(&task)
            && task::started(task) == Some(*started)
        {
            return Ok(*number);
        }
        Self::number_of_process(task)
    }

    fn number_of_process(task: u32) -> Result<u64> {
        let (soft, hard) = sys::real_time_limit(task)?;
        Ok(hard.saturating_sub(soft))
    }

    /// Who a task pretends to be.
    pub(super) fn of(&self, task: u32) -> Result<&Identity> {
        let number = usize::try_from(self.number(task)?).unwrap_or(usize::MAX);
        // A number nobody gave out: the command had a limit of its own before the filter. Nothing was pretended then.
        Ok(self.known.get(number).unwrap_or(&self.known[0]))
    }

    fn intern(&mut self, identity: Identity) -> u64 {
        let next = self.known.len() as u64;
        let number = *self.numbers.entry(identity.clone()).or_insert(next);
        if number == next {
            self.known.push(identity);
        }
        number
    }

    /// Lets a thread be somebody else from now on.
    fn assign(&mut self, task: u32, identity: Identity) -> Result<()> {
        let number = self.intern(identity);
        let old = self.number(task)?;
        if number == old {
            return Ok(());
        }
        let leader = task::leader(task).unwrap_or(task);
        let others: Vec<u32> = task::threads(leader).into_iter().filter(|other| *other != task).collect();
        if task == leader || others.is_empty() {
            // The process's number is about to change; threads that go by it keep what they were.
            for other in others {
                if let (Ok(number), Some(started)) = (self.number(other), task::started(other)) {
                    self.threads.insert(other, (started, number));
                }
            }
            let (_, hard) = sys::real_time_limit(task)?;
            let soft = hard.checked_sub(number).ok_or(Errno::AGAIN)?;
            sys::set_real_time_limit(task, soft, hard)?;
            self.threads.remove(&task);
        } else {
            let started = task::started(task).ok_or(Errno::SRCH)?;
            self.threads.insert(task, (started, number));
        }
        // What is remembered of threads that are gone would otherwise pile up.
        if self.threads.len() > 1024 {
            self.threads.retain(|task, (started, _)| task::started(*task) == Some(*started));
        }
        Ok(())
    }

    /// Carries out a `set*id` or `setgroups` call.
    pub(super) fn change(&mut self, call: &Call) -> Result<Answer> {
        let groups = match call.number {
            libc::SYS_setgroups => Some(read_groups(call)?),
            _ => None,
        };
        let mut identity = self.of(call.task)?.clone();
        let returned = identity.change(call, groups)?;
        self.assign(call.task, identity)?;
        Ok(Answer::Return(returned))
    }

    /// `prctl`, where it is about keeping capabilities. The kernel then does it too.
    pub(super) fn note_keeping(&mut self, call: &Call) -> Result<Answer> {
        /// `linux/securebits.h`: SECBIT_KEEP_CAPS, SECBIT_NO_SETUID_FIXUP.
        const KEEPING: u64 = 1 << 4 | 1 << 2;
        let value = call.arguments[1];
        let keeps = if call.arguments[0] == libc::PR_SET_KEEPCAPS as u64 { value == 1 } else { value & KEEPING != 0 };
        let identity = Identity { keeps, ..self.of(call.task)?.clone() };
        self.assign(call.task, identity)?;
        Ok(Answer::LetThrough)
    }

    /// Answers a `get*id` or `getgroups` call.
    pub(super) fn tell(&self, call: &Call) -> Result<Answer> {
        let identity = self.of(call.task)?;
        let (user, group) = (&identity.user, &identity.group);
        let value = match call.number {
            libc::SYS_getuid => user.real,
            libc::SYS_geteuid => user.effective,
            libc::SYS_getgid => group.real,
            libc::SYS_getegid => group.effective,
            libc::SYS_getgroups => {
                let room = call.arguments[0] as u32 as usize;
                if room > i32::MAX as usize || (room != 0 && room < identity.groups.len()) {
                    return Err(Errno::INVAL);
                }
                if room != 0 {
                    let bytes: Vec<u8> = identity.groups.iter().flat_map(|group| group.to_ne_bytes()).collect();
                    sys::write_memory(call.task, call.arguments[1], &bytes)?;
                }
                identity.groups.len() as u32
            }
            number => {
                let ids = if number == libc::SYS_getresuid { user } else { group };
                for (address, id) in call.arguments.iter().zip([ids.real, ids.effective, ids.saved]) {
                    sys::write_memory(call.task, *address, &id.to_ne_bytes())?;
                }
                0
            }
        };
        Ok(Answer::Return(i64::from(value)))
    }

    /// A task is about to execute a program that is set-id to these owners, or not.
    pub(super) fn execute(&mut self, task: u32, set_user: Option<u32>, set_group: Option<u32>) -> Result<()> {
        let identity = self.of(task)?.after_exec(set_user, set_group);
        self.assign(task, identity)
    }

    /// Whether every task is root: then nothing changes by executing a program that is not set-id.
    pub(super) fn is_root_alone(&self) -> bool {
        self.known.len() == 1
    }
}

fn read_groups(call: &Call) -> Result<Vec<u32>> {
    /// NGROUPS_MAX.
    const MOST: usize = 65536;
    let count = call.arguments[0] as u32 as usize;
    if count > MOST {
        return Err(Errno::INVAL);
    }
    let mut bytes = vec![0; count * 4];
    if sys::read_memory(call.task, call.arguments[1], &mut bytes)? != bytes.len() {
        return Err(Errno::FAULT);
    }
    let mut groups: Vec<u32> =
        bytes.chunks_exact(4).map(|four| u32::from_ne_bytes([four[0], four[1], four[2], four[3]])).collect();
    // The kernel sorts them too, and `getgroups` shows it.
    groups.sort_unstable();
    Ok(groups)
}
