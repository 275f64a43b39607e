//! Whether the machine has memory for one more step at a time.
//!
//! A step starts beside others only while as much is free as it took the last time, and a reserve. What it will really take nobody
//! knows before; where the memory does end, the limit of the sandbox ends the step and not the machine.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
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
                let free = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| parse(&text));
                *last = Some((Instant::now(), free));
                free
            }
        }
    }
}

fn admits(free: Free, wanted: u64) -> bool {
    let reserve = (free.total / 10).min(1 << 30);
    free.available >= wanted.saturating_add(reserve)
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
}
