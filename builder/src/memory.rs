//! Whether the machine has memory for one more step at a time.
//!
//! A step starts beside others only while as much is free as it took the last time, and a reserve. What it will really take nobody
//! knows before: where it takes all but the reserve, the limit of its cgroup ends it and not the machine. What this process's own
//! cgroup is limited to (a container, a job of a CI) counts as the machine's.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use store::{Store, StorePath};

use crate::{Result, journal};

/// How many earlier builds are asked what steps took.
const EARLIER: usize = 8;
/// How long an answer of the kernel is good for.
const FRESH: Duration = Duration::from_millis(100);

/// What is known of memory while a plan is made.
#[derive(Debug, Default)]
pub struct Memory {
    /// Most memory that steps of this name took, in bytes.
    taken: HashMap<String, u64>,
    free: Mutex<Option<(Instant, Option<Free>)>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Free {
    total: u64,
    available: u64,
}

impl Memory {
    /// Asks the journal what steps took, if there is more than one to make.
    pub fn new(store: &Store, steps: usize) -> Result<Self> {
        let mut taken = HashMap::new();
        if steps > 1 {
            for entry in journal::read(store, EARLIER)? {
                taken.entry(entry.name).or_insert(entry.peak_memory);
            }
        }
        Ok(Self { taken, free: Mutex::default() })
    }

    /// Whether a step may start beside others.
    pub fn admits(&self, derivation: &StorePath) -> bool {
        let Some(free) = self.free() else { return true };
        let name = derivation.name();
        let wanted = self.taken.get(name.strip_suffix(".drv").unwrap_or(name)).copied().unwrap_or(0);
        admits(free, wanted)
    }

    fn free(&self) -> Option<Free> {
        let mut last = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        match *last {
            Some((time, free)) if time.elapsed() < FRESH => free,
            _ => {
                let free = Free::now();
                *last = Some((Instant::now(), free));
                free
            }
        }
    }
}

/// The most bytes that one step may take. None if the kernel does not say what there is.
pub fn most() -> Option<u64> {
    static MOST: OnceLock<Option<u64>> = OnceLock::new();
    *MOST.get_or_init(|| Free::now().map(|free| free.total - free.reserve()))
}

fn admits(free: Free, wanted: u64) -> bool {
    free.available >= wanted.saturating_add(free.reserve())
}

impl Free {
    fn now() -> Option<Self> {
        let read = |path: &Path| std::fs::read_to_string(path).ok();
        let host = parse(&read(Path::new("/proc/meminfo"))?)?;
        Some(read(Path::new("/proc/self/cgroup")).map_or(host, |own| host.within(&own, &read)))
    }

    /// What everybody else needs.
    fn reserve(&self) -> u64 {
        (self.total / 10).min(1 << 30)
    }

    /// As far as the cgroups of a process allow: `own` is its `/proc/PID/cgroup` (cgroups(7)), `read` reads a file.
    fn within(self, own: &str, read: &dyn Fn(&Path) -> Option<String>) -> Self {
        let mut free = self;
        for line in own.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            let (root, [most, taken, unused]) = match controllers.split(',').any(|name| name == "memory") {
                true => {
                    ("/sys/fs/cgroup/memory", ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"])
                }
                false if controllers.is_empty() => {
                    ("/sys/fs/cgroup", ["memory.max", "memory.current", "inactive_file"])
                }
                false => continue,
            };
            // In a container the path may be the host's, and what is mounted begins with the container's own cgroup.
            for cgroup in Path::new(path.trim_start_matches('/')).ancestors() {
                let place = Path::new(root).join(cgroup);
                let number = |file: &str| read(&place.join(file))?.trim().parse::<u64>().ok();
                let Some(most) = number(most) else { continue };
                // Files that were read are given up for whoever needs room.
                let stat = read(&place.join("memory.stat")).unwrap_or_default();
                let unused = stat.lines().find_map(|line| line.strip_prefix(unused)?.trim().parse().ok()).unwrap_or(0);
                let left = (most.saturating_add(unused)).saturating_sub(number(taken).unwrap_or(0));
                free = Self { total: free.total.min(most), available: free.available.min(left) };
            }
        }
        free
    }
}

/// `MemTotal:  123 kB`; proc_meminfo(5).
fn parse(text: &str) -> Option<Free> {
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(Free { total: bytes("MemTotal")?, available: bytes("MemAvailable")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_took_much_waits_for_room() {
        let text = "MemTotal:       16000000 kB\nMemFree:  1 kB\nMemAvailable:    3000000 kB\n";
        let free = parse(text).unwrap();
        assert_eq!(free, Free { total: 16_384_000_000, available: 3_072_000_000 });
        assert!(admits(free, 0) && admits(free, 1 << 30) && !admits(free, 2 << 30) && !admits(free, u64::MAX));
        assert!(!admits(Free { available: 1000, ..free }, 0));
        assert_eq!(parse("MemTotal: x kB\n"), None);
    }

    #[test]
    fn the_limit_of_a_container_is_what_there_is() {
        let host = Free { total: 16 << 30, available: 8 << 30 };
        let files = |files: &'static [(&str, &str)]| {
            move |path: &Path| {
                let found = files.iter().find(|(name, _)| Path::new("/sys/fs/cgroup").join(name) == path);
                found.map(|(_, text)| (*text).to_owned())
            }
        };
        let second = files(&[
            ("a/memory.max", "4294967296\n"),
            ("a/memory.current", "3221225472\n"),
            ("a/memory.stat", "anon 5\ninactive_file 1073741824\n"),
            ("a/b/memory.max", "max\n"),
        ]);
        assert_eq!(host.within("0::/a/b\n", &second), Free { total: 4 << 30, available: 2 << 30 });
        assert_eq!(host.within("0::/elsewhere\n", &second), host);
        let first = files(&[
            ("memory/memory.limit_in_bytes", "1073741824\n"),
            ("memory/memory.usage_in_bytes", "2147483648\n"),
            ("memory/docker/x/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        let inside = host.within("5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n", &first);
        assert_eq!(inside, Free { total: 1 << 30, available: 0 });
        assert_eq!(host.within("nonsense\n4:memory\n", &first), host);
    }
}
