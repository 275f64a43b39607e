//! Bounds of one run that are no part of a formation, beside [`Limits`](store::Limits).

use std::collections::BTreeSet;
use std::time::Duration;

use crate::Ending;

/// What a run is held to. Absent is unbounded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bounds {
    /// Bytes of swap beside the limit of memory; where memory is limited and this is absent, none.
    pub swap: Option<u64>,
    /// The most bytes of memory that it takes where nothing limits it to less: for the host's sake, and so only where a cgroup can
    /// hold it. Swap is not bounded.
    pub host_memory: Option<u64>,
    /// How long it may be refused further processes on end before all of it is ended, where a cgroup counts that. A program that starts
    /// copies of itself would otherwise go on for ever, with all processors.
    pub refused_for: Option<Duration>,
    /// Weight against others where processors are scarce; 1024 is usual, as cgroups of version 1 count.
    pub cpu_shares: Option<u64>,
    /// The processors that it may run on, by number.
    pub cores: Option<BTreeSet<u32>>,
    /// Bytes a second that it may read from each disk, and as many written.
    pub io: Option<u64>,
    /// Bytes that it may print on stdout and stderr together.
    pub output: Option<u64>,
    /// Bytes of what lies in memory together: the root's writable layer, `/tmp`, `/dev/shm`; and of each further file system in memory.
    pub memory_files: Option<u64>,
    /// Resource limits of each process.
    pub resources: Vec<ResourceLimit>,
}

impl Bounds {
    /// The resource limit that ended a command, by how it ended and the processor time that it took: setrlimit(2) sends SIGXFSZ for a
    /// file that would be too large, SIGXCPU at the soft limit of time, and SIGKILL at the hard one. A shell that ran what was ended
    /// exits with 128 and the signal. What else is limited is refused to a program, and it may go on.
    pub fn ended_by(&self, ending: &Ending, cpu: Duration) -> Option<ResourceLimit> {
        let signal = match ending {
            Ending::Signalled(signal) => *signal,
            Ending::Exited(status @ 129..) => status - 128,
            Ending::Exited(_) | Ending::TimedOut | Ending::OutOfMemory | Ending::TooMuchOutput => return None,
        };
        // The kernel compares what it counts by clock ticks, of which the exact time, which it tells in the end, is a good part only
        // where a machine is crowded: seven eighths were seen.
        let has_used = |seconds: u64| cpu >= Duration::from_secs(seconds) / 2;
        let met = |limit: &&ResourceLimit| match (limit.resource, signal) {
            (Resource::Cpu, libc::SIGXCPU) => limit.soft.is_some(),
            (Resource::Cpu, libc::SIGKILL) => limit.hard.is_some_and(has_used),
            (Resource::Fsize, libc::SIGXFSZ) => limit.soft.is_some(),
            _ => false,
        };
        self.resources.iter().rfind(met).copied()
    }
}

/// A resource limit: setrlimit(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceLimit {
    /// Of what.
    pub resource: Resource,
    /// What holds; none is unlimited.
    pub soft: Option<u64>,
    /// How far the program itself may raise it.
    pub hard: Option<u64>,
}

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Address space, in bytes.
    As,
    /// Core file, in bytes.
    Core,
    /// Processor time, in seconds.
    Cpu,
    /// Private writable memory, in bytes.
    Data,
    /// Largest file that may be written, in bytes.
    Fsize,
    /// Locked memory, in bytes.
    Memlock,
    /// Bytes in POSIX message queues.
    Msgqueue,
    /// Nice value, as 20 minus it.
    Nice,
    /// Open files.
    Nofile,
    /// Processes of the user.
    Nproc,
    /// Resident set; without effect.
    Rss,
    /// Real-time priority.
    Rtprio,
    /// Pending signals.
    Sigpending,
    /// Stack, in bytes.
    Stack,
}

impl Resource {
    /// Each with the name that `ulimit` options and the OCI runtime specification have for it.
    pub const ALL: [(Self, &'static str); 14] = [
        (Self::As, "as"),
        (Self::Core, "core"),
        (Self::Cpu, "cpu"),
        (Self::Data, "data"),
        (Self::Fsize, "fsize"),
        (Self::Memlock, "memlock"),
        (Self::Msgqueue, "msgqueue"),
        (Self::Nice, "nice"),
        (Self::Nofile, "nofile"),
        (Self::Nproc, "nproc"),
        (Self::Rss, "rss"),
        (Self::Rtprio, "rtprio"),
        (Self::Sigpending, "sigpending"),
        (Self::Stack, "stack"),
    ];

    /// Its name, as `nofile`.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(resource, _)| *resource == self).map_or("", |(_, name)| name)
    }

    /// The one of this name: `nofile`, `NOFILE` or `RLIMIT_NOFILE`.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let name = name.strip_prefix("rlimit_").unwrap_or(&name);
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(resource, _)| *resource)
    }
}
