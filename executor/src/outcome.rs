//! What came of running a command.

use std::collections::BTreeMap;
use std::time::Duration;

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// It exited with this status.
    Exited(i32),
    /// This signal ended it.
    Signalled(i32),
    /// Its wall time was over.
    TimedOut,
    /// The kernel killed it, or a process of it, for its memory limit, and it did not end well.
    OutOfMemory,
    /// It printed more than it was to print.
    TooMuchOutput,
}

/// What came of running a command.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// From start to end.
    pub wall: Duration,
    /// Processor time, user and system.
    pub cpu: Duration,
    /// Most memory: of all its processes together with the files they read and wrote, where a cgroup counts it; else of any one process
    /// (`getrusage`'s maxrss; a small process shows what the launcher itself had when it forked).
    pub peak_memory: u64,
    /// What was asked for and could not be given on this machine, in words (`limits: no cgroup …`).
    pub missing: Vec<String>,
    /// What was given, by name: `network` is `own`, `memory` is `cgroup v2`, `seccomp` is `filter`, …
    pub isolation: BTreeMap<&'static str, String>,
    /// Limits that were met, whether or not they ended it: `memory`, `pids`, `time`, `output`; and resource limits that ended it, by
    /// their names: `cpu`, `fsize`.
    pub met: Vec<&'static str>,
    /// What the kernel counted.
    pub usage: Counted,
}

/// What the kernel counted of all processes that were waited for: getrusage(2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counted {
    /// Processor time in the program.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
    /// Largest resident set of any one process, in bytes.
    pub largest_process: u64,
    /// Pages that had to be read from a disk.
    pub major_faults: u64,
    /// Pages that were there already.
    pub minor_faults: u64,
}

impl Default for Ending {
    fn default() -> Self {
        Self::Exited(0)
    }
}
