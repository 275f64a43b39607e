//! What each bound is in files of cgroups: cgroups(7), and `cgroup-v1/` and `cgroup-v2.rst` in the kernel's documentation.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::OWN_PROCESSES;
use crate::{Sandbox, Writable};

/// One bound: what it is called, its controllers, and what is written where.
pub struct Bound {
    /// As `--require` names it.
    pub what: &'static str,
    /// The controller in version 1.
    pub controller_1: &'static str,
    /// The controller in version 2.
    pub controller_2: &'static str,
    /// Files and values, in the order that the kernel wants.
    pub version_1: Vec<Value>,
    /// The same for version 2.
    pub version_2: Vec<Value>,
}

/// File, value, and whether a kernel without that file will do.
pub type Value = (&'static str, String, Presence);

/// Whether a file must be there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Without it there is no bound.
    Needed,
    /// Not in every kernel.
    Optional,
}
use Presence::{Needed, Optional};

/// Stands for the value that the cgroup above has.
pub const AS_PARENT: &str = "<as above>";

/// Microseconds over which processor time is counted.
const PERIOD: u64 = 100_000;

const LEAST_SHARES: u64 = 2;
const MOST_SHARES: u64 = 262_144;

/// What version 2 has for the shares of version 1: OCI runtimes turn 2 to 262144 into 1 to 10000.
pub fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(LEAST_SHARES, MOST_SHARES) - LEAST_SHARES) * 9999 / (MOST_SHARES - LEAST_SHARES)
}

/// All bounds of a sandbox; what has no files at all goes to `missing`.
pub fn of(sandbox: &Sandbox, missing: &mut Vec<(&'static str, String)>) -> Vec<Bound> {
    let (limits, more) = (&sandbox.limits, &sandbox.bounds);
    let mut bounds = Vec::new();
    let mut add = |what, controllers: (&'static str, &'static str), version_1, version_2| {
        bounds.push(Bound { what, controller_1: controllers.0, controller_2: controllers.1, version_1, version_2 });
    };
    if let (None, Some(bytes)) = (limits.memory, more.host_memory) {
        let value = |file: &'static str| vec![(file, bytes.to_string(), Needed)];
        add("memory", ("memory", "memory"), value("memory.limit_in_bytes"), value("memory.max"));
    }
    if let Some(bytes) = limits.memory {
        let swap = more.swap.unwrap_or(0);
        // Without a bound on swap a hog would fill that instead. `memsw` counts both, and must be set last.
        let both = bytes.saturating_add(swap).to_string();
        add(
            "memory",
            ("memory", "memory"),
            vec![("memory.limit_in_bytes", bytes.to_string(), Needed), ("memory.memsw.limit_in_bytes", both, Optional)],
            vec![("memory.max", bytes.to_string(), Needed), ("memory.swap.max", swap.to_string(), Optional)],
        );
    }
    let (mut cpu_1, mut cpu_2) = (Vec::new(), Vec::new());
    if let Some(millis) = limits.cpu_millis {
        // The kernel refuses less than a millisecond in a period.
        let quota = (millis.saturating_mul(PERIOD) / 1000).max(1000);
        cpu_1.push(("cpu.cfs_period_us", PERIOD.to_string(), Needed));
        cpu_1.push(("cpu.cfs_quota_us", quota.to_string(), Needed));
        cpu_2.push(("cpu.max", format!("{quota} {PERIOD}"), Needed));
    }
    if let Some(shares) = more.cpu_shares {
        cpu_1.push(("cpu.shares", shares.clamp(LEAST_SHARES, MOST_SHARES).to_string(), Needed));
        cpu_2.push(("cpu.weight", weight(shares).to_string(), Needed));
    }
    if !cpu_1.is_empty() {
        add("cpu", ("cpu", "cpu"), cpu_1, cpu_2);
    }
    if let Some(count) = limits.pids {
        let count = (count.saturating_add(OWN_PROCESSES)).to_string();
        add("pids", ("pids", "pids"), vec![("pids.max", count.clone(), Needed)], vec![("pids.max", count, Needed)]);
    }
    if let Some(cores) = &more.cores {
        let list = cores.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        add(
            "cores",
            ("cpuset", "cpuset"),
            vec![("cpuset.mems", AS_PARENT.to_owned(), Needed), ("cpuset.cpus", list.clone(), Needed)],
            vec![("cpuset.cpus", list, Needed)],
        );
    }
    if let Some(bytes) = more.io {
        let disks = disks(sandbox);
        if disks.is_empty() {
            missing.push(("io", "none of its files lies on a disk that the kernel counts".to_owned()));
        } else {
            let both = |first: &'static str, second: &'static str| {
                let value = |file: &'static str| {
                    disks.iter().map(move |disk| (file, format!("{disk} {bytes}"), Needed)).collect::<Vec<_>>()
                };
                [value(first), value(second)].concat()
            };
            add(
                "io",
                ("blkio", "io"),
                both("blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device"),
                disks.iter().map(|disk| ("io.max", format!("{disk} rbps={bytes} wbps={bytes}"), Needed)).collect(),
            );
        }
    }
    bounds
}

/// The disks (not partitions, which have no bounds of their own) that files of a sandbox lie on, as `MAJOR:MINOR`.
fn disks(sandbox: &Sandbox) -> BTreeSet<String> {
    let mut places: Vec<&PathBuf> = sandbox.root.layers.iter().collect();
    places.extend(sandbox.binds.iter().map(|bind| &bind.source));
    if let Writable::Kept(directory) = &sandbox.root.writable {
        places.push(directory);
    }
    let device = |path: &PathBuf| {
        let device = path.metadata().ok()?.dev();
        let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
        // A file system without a disk of its own (btrfs, overlay, network) is not listed.
        let known = Path::new("/sys/dev/block").join(&number);
        if !known.exists() {
            return None;
        }
        match known.join("partition").exists() {
            true => Some(std::fs::read_to_string(known.join("../dev")).ok()?.trim().to_owned()),
            false => Some(number),
        }
    };
    places.into_iter().filter_map(device).collect()
}
