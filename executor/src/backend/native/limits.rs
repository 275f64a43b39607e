//! What must be had of isolation and limits, what can be had, and what stands in where it cannot.

use super::cgroup::{Cgroups, OWN_PROCESSES};
use crate::{Error, Result, Sandbox};

/// What `Sandbox::require` may name. The first ones every run has, or it fails.
const ALWAYS: [&str; 7] = ["mount", "pid", "ipc", "uts", "cgroup", "seccomp", "capabilities"];
const SOMETIMES: [&str; 8] = ["user", "network", "memory", "cpu", "cpus", "pids", "cores", "io"];

/// Refuses what cannot be had whatever the host.
pub fn check_required(sandbox: &Sandbox) -> Result<()> {
    let refuse = |what: &String, why: &str| Err(Error::Required { what: what.clone(), why: why.to_owned() });
    for what in &sandbox.require {
        let known = ALWAYS.contains(&what.as_str()) || SOMETIMES.contains(&what.as_str());
        if !known {
            return refuse(what, "this backend does not know it");
        }
        if what == "network" && sandbox.network == crate::Network::Host {
            return refuse(what, "the host's network was asked for");
        }
        if what == "capabilities" && !sandbox.capabilities.is_empty() {
            return refuse(what, "capabilities were asked for");
        }
        let limits = &sandbox.limits;
        let unset = match what.as_str() {
            "memory" => limits.memory.is_none(),
            "cpu" | "cpus" => limits.cpu_millis.is_none(),
            "pids" => limits.pids.is_none(),
            "cores" => sandbox.bounds.cores.is_none(),
            "io" => sandbox.bounds.io.is_none(),
            _ => false,
        };
        if unset {
            return refuse(what, "no limit was set");
        }
    }
    Ok(())
}

/// What becomes of limits that no cgroup holds.
#[derive(Debug, Default)]
pub struct Judged {
    /// In words.
    pub missing: Vec<String>,
    /// The rlimit that stands in for a bound on processes.
    pub processes: Option<u64>,
    /// The rlimit that does what little can be done for a bound on memory.
    pub memory: Option<u64>,
}

/// Judges what the cgroups could not have.
pub fn judge(sandbox: &Sandbox, cgroups: &Cgroups) -> Result<Judged> {
    let mut judged = Judged::default();
    for (what, why) in &cgroups.missing {
        // The rlimit counts the processes of one user in one user namespace, which is this sandbox alone (Linux 5.14). It does not
        // hold for root.
        if *what == "pids" && !rustix::process::geteuid().is_root() {
            judged.processes = sandbox.limits.pids.map(|count| count.saturating_add(OWN_PROCESSES));
            continue;
        }
        if sandbox.require.iter().any(|required| required == what || (required == "cpus" && *what == "cpu")) {
            return Err(Error::Required { what: (*what).to_owned(), why: why.clone() });
        }
        match *what {
            // It was for the host's sake. Programs that map more than there is must not fail for it.
            "memory" if sandbox.limits.memory.is_none() => {}
            // Each process by itself, and of each what it has privately: a program of one process is held to it, many together are not.
            "memory" => {
                judged.memory = sandbox.limits.memory;
                judged.missing.push(format!("memory: no limit for all processes together, one for each, as {why}"));
            }
            // It was asked of the scheduler as well, which the program may ask otherwise.
            "cores" => judged.missing.push(format!("cores: a wish that the program may undo, as {why}")),
            what => judged.missing.push(format!("{what}: no limit, as {why}")),
        }
    }
    Ok(judged)
}
