//! What the machine has: so that an expression that wants ever more memory fails, rather than the machine.

use std::sync::OnceLock;

/// Where nothing can be learned.
const USUAL: usize = 16 << 30;

/// How much memory there is for this process, in bytes.
pub fn memory() -> usize {
    static MEMORY: OnceLock<usize> = OnceLock::new();
    *MEMORY.get_or_init(|| {
        let whole = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
        let own = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
        match (whole, own) {
            (Some(whole), Some(own)) => std::cmp::min::<usize>(whole, own),
            (Some(known), None) | (None, Some(known)) => known,
            (None, None) => USUAL,
        }
    })
}

/// `MemTotal:       24689908 kB`
fn total(text: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_memory_of_a_machine_is_read() {
        assert_eq!(super::total("MemTotal:       24689908 kB\nMemFree: 1 kB\n"), Some(24_689_908 * 1024));
        assert_eq!(super::total("nothing of the kind"), None);
        assert!(super::memory() > 0);
    }
}
