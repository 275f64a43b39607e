//! Whose a cgroup is: what a killed launcher left is removed by the next run, which reads it off the name.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::small;

/// Who made a cgroup: a process, told from a later one of the same number by its start. Numbers mean something in one pid namespace only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    namespace: String,
    pid: u32,
    start: String,
}

impl Owner {
    /// This process.
    pub fn this() -> Self {
        let pid = std::process::id();
        Self { namespace: pid_namespace(), pid, start: start_of(pid).unwrap_or_default() }
    }

    /// What the so manieth cgroup of it is called.
    pub fn name(&self, number: u64) -> String {
        format!("forge-{}-{}-{}-{number}", self.namespace, self.pid, self.start)
    }

    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix("forge-")?.split('-');
        let owner = Self {
            namespace: parts.next()?.to_owned(),
            pid: parts.next()?.parse().ok()?,
            start: parts.next()?.to_owned(),
        };
        parts.next()?;
        parts.next().is_none().then_some(owner)
    }

    fn is_gone(&self) -> bool {
        self.namespace == pid_namespace() && start_of(self.pid).as_ref() != Some(&self.start)
    }
}

fn pid_namespace() -> String {
    let link = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    link.to_string_lossy().chars().filter(char::is_ascii_digit).collect()
}

/// The 22nd field of `/proc/PID/stat`: proc(5). The second may contain blanks and parentheses.
fn start_of(pid: u32) -> Option<String> {
    let stat = small::read_text(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19).map(str::to_owned)
}

/// Removes the cgroups of launchers that were killed. Their processes died with them.
pub fn remove_stale(parent: &Path) {
    // A directory has two links, and one for each below it: there is none, as nearly always.
    if fs::metadata(parent).is_ok_and(|found| found.nlink() == 2) {
        return;
    }
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let owner = entry.file_name().to_str().and_then(Owner::parse);
        if owner.is_some_and(|owner| owner.is_gone()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_whose_it_was() {
        let owner = Owner::this();
        assert_eq!(Owner::parse(&owner.name(7)), Some(owner.clone()));
        assert!(!owner.is_gone());
        assert!(Owner { start: "1".to_owned(), ..owner.clone() }.is_gone());
        assert!(!Owner { namespace: "1".to_owned(), start: "1".to_owned(), ..owner }.is_gone());
        for name in ["forge-", "forge-1-2-3", "forge-1-x-3-4", "forge-1-2-3-4-5", "system.slice"] {
            assert_eq!(Owner::parse(name), None);
        }
    }
}
