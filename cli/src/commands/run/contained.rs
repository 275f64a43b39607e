//! A run inside a container of Docker or Podman, whose control group may keep the bounds already: what `container.rs` starts there.

use std::path::{Path, PathBuf};

use executor::backend::runner::OWN_PROCESSES;
use executor::{Backend, Ending, Native, Outcome, Sandbox};
use store::directory::Scratch;
use store::{Limits, Store};

use crate::error::Result;

/// Where the control groups are seen.
const GROUPS: &str = "/sys/fs/cgroup";

/// Where forge inside leaves the sign that it has begun.
pub const BEGUN: &str = "/forge/begun";

/// Tells the exit status of forge inside from that of an engine which started nothing.
pub struct Sign(Option<Scratch>);

impl Sign {
    /// None yet. In a store that cannot be written to there is no place for one.
    pub fn new(store: &Store) -> Self {
        Self(store.scratch().ok())
    }

    /// What [`BEGUN`] is outside.
    pub fn place(&self) -> Option<&Path> {
        self.0.as_ref().map(Scratch::path)
    }

    /// Whether forge inside has not begun, as far as that can be told.
    pub fn is_missing(&self) -> bool {
        self.place().is_some_and(|place| !place.join("sign").exists())
    }
}

/// Says that forge inside has begun. By hand, without forge outside, there is nobody to be told.
pub fn begin() {
    let _ = std::fs::write(Path::new(BEGUN).join("sign"), "");
}

/// What is left to set of the bounds, after those that the control group of this container keeps already. Looked at, not believed.
fn not_held(limits: &Limits, groups: &Path) -> Limits {
    let number = |paths: &[&str]| -> Option<u64> {
        paths.iter().find_map(|path| std::fs::read_to_string(groups.join(path)).ok()?.trim().parse().ok())
    };
    let mut left = limits.clone();
    let within = |bound: Option<u64>, limit: u64| bound.is_some_and(|bound| bound <= limit);
    if limits.memory.is_some_and(|limit| within(number(&["memory.max", "memory/memory.limit_in_bytes"]), limit)) {
        left.memory = None;
    }
    // The container's bound counts forge's own threads too.
    if limits
        .pids
        .is_some_and(|limit| within(number(&["pids.max", "pids/pids.max"]), limit.saturating_add(OWN_PROCESSES)))
    {
        left.pids = None;
    }
    let cpu = || {
        let text = std::fs::read_to_string(groups.join("cpu.max")).ok();
        let words = text.and_then(|text| {
            let (quota, period) = text.trim().split_once(' ')?;
            Some((quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?))
        });
        let (quota, period) =
            words.or_else(|| Some((number(&["cpu/cpu.cfs_quota_us"])?, number(&["cpu/cpu.cfs_period_us"])?)))?;
        Some(quota.saturating_mul(1000) / period.max(1))
    };
    if limits.cpu_millis.is_some_and(|limit| within(cpu(), limit)) {
        left.cpu_millis = None;
    }
    left
}

/// Runs a sandbox in a container whose control group may keep the bounds already.
pub fn run(sandbox: &mut Sandbox, backend: &Native) -> Result<Outcome> {
    let asked = sandbox.limits.clone();
    let left = not_held(&asked, Path::new(GROUPS));
    let is_held = |what: &String| match what.as_str() {
        "memory" => asked.memory.is_some() && left.memory.is_none(),
        "pids" => asked.pids.is_some() && left.pids.is_none(),
        "cpu" | "cpus" => asked.cpu_millis.is_some() && left.cpu_millis.is_none(),
        _ => false,
    };
    sandbox.require.retain(|what| !is_held(what));
    let [memory_is_held, pids_are_held] = ["memory", "pids"].map(|what| is_held(&what.to_owned()));
    sandbox.limits = left;
    let outcome = backend.run(sandbox);
    sandbox.limits = asked;
    let mut outcome = outcome?;
    // This also counts what forge's own threads were refused, which are fewer than it was given for them.
    if pids_are_held && !outcome.met.contains(&"pids") && has_refused(Path::new(GROUPS)) {
        outcome.met.push("pids");
    }
    if memory_is_held && outcome.ending != Ending::Exited(0) && has_killed(Path::new(GROUPS)) {
        outcome.ending = Ending::OutOfMemory;
    }
    Ok(outcome)
}

/// Whether the container's control group killed something for its memory.
fn has_killed(groups: &Path) -> bool {
    has_counted("oom_kill", &["memory.events", "memory/memory.oom_control"].map(|path| groups.join(path)))
}

/// Whether it refused to start a process.
fn has_refused(groups: &Path) -> bool {
    has_counted("max", &["pids.events", "pids/pids.events"].map(|path| groups.join(path)))
}

fn has_counted(name: &str, files: &[PathBuf]) -> bool {
    files.iter().any(|path| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().filter_map(|line| line.split_once(' ')).any(|(word, count)| word == name && count.trim() != "0")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_held_only_if_the_control_group_says_so() {
        let groups = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = groups.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let limits = Limits { memory: Some(1000), cpu_millis: Some(500), pids: Some(10), timeout_millis: Some(1) };
        assert_eq!(not_held(&limits, groups.path()), limits);
        write("memory.max", "max\n");
        write("cpu.max", "max 100000\n");
        write("pids.max", "19\n");
        assert_eq!(not_held(&limits, groups.path()), limits);
        write("memory.max", "1000\n");
        write("cpu.max", "50000 100000\n");
        write("pids.max", "18\n");
        assert_eq!(not_held(&limits, groups.path()), Limits { timeout_millis: Some(1), ..Limits::default() });
        write("pids.events", "max 0\n");
        assert!(!has_refused(groups.path()));
        write("pids/pids.events", "max 3\n");
        assert!(has_refused(groups.path()));
        std::fs::remove_file(groups.path().join("memory.max")).unwrap();
        write("memory/memory.limit_in_bytes", "900\n");
        assert_eq!(not_held(&limits, groups.path()).memory, None);
    }
}
