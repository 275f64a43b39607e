//! Bounds on memory, processor and processes, by cgroups of version 2 or 1, whichever this user may change.
//!
//! A run has a cgroup of its own in each hierarchy that it needs, beside or below the caller's. It is removed at the end. What a
//! killed launcher left is removed by the next run: the name says whose it was.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bounds::Presence;
use rustix::fs::{Mode, OFlags};

use super::small;
use crate::Sandbox;

mod bounds;

/// The cgroups of one run.
#[derive(Debug, Default)]
pub struct Cgroups {
    directories: Vec<PathBuf>,
    /// What process 1 joins.
    pub joins: Joins,
    /// Where each controller counts: its cgroup, and whether that is of version 2.
    counted: Vec<(&'static str, PathBuf, bool)>,
    /// What was asked for and could not be bounded: `memory`, `cpu`, `pids`, `cores` or `io`, and why.
    pub missing: Vec<(&'static str, String)>,
}

/// How process 1 joins the cgroups of a run.
#[derive(Debug, Default)]
pub struct Joins {
    /// Of version 1: written `0` by a process that joins.
    files: Vec<File>,
    /// Of version 2: a process is started in it, which costs nothing, while joining waits for a grace period of the whole machine.
    second: Option<(OwnedFd, File)>,
}

impl Joins {
    /// The cgroup that process 1 is started in.
    pub fn entered(&self) -> Option<BorrowedFd<'_>> {
        self.second.as_ref().map(|(directory, _)| directory.as_fd())
    }

    /// Process 1 cannot be started in it: it joins. False if there is nothing that it could join in this way.
    pub fn enter_later(&mut self) -> bool {
        let second = self.second.take();
        let had = second.is_some();
        self.files.extend(second.map(|(_, file)| file));
        had
    }

    /// Joins all that this process was not started in.
    pub fn join(&mut self) -> io::Result<()> {
        for file in self.files.drain(..) {
            // `0` is the writer itself; writing a pid instead waits for a grace period of the whole machine.
            rustix::io::write(&file, b"0")?;
        }
        self.second = None;
        Ok(())
    }

    /// To be written `0` by a process that joins, for whoever is started by others.
    pub fn into_files(mut self) -> Vec<File> {
        self.enter_later();
        self.files
    }

    /// What must stay open until then.
    pub fn files(&self) -> impl Iterator<Item = &File> {
        self.files.iter()
    }
}

/// What the kernel has counted for a run.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    /// How many of its processes were killed for want of memory.
    pub memory_kills: u64,
    /// How often a process was not started, as there were enough.
    pub refused_processes: u64,
    /// The most bytes of memory that were in use at a time, files that were read and written included.
    pub peak_memory: Option<u64>,
}

/// Process 1 is not the command's.
pub const OWN_PROCESSES: u64 = 1;

/// What a process that joins writes to.
const VERSION_1: &str = "tasks";
const VERSION_2: &str = "cgroup.procs";

impl Cgroups {
    /// Makes what the limits need. What cannot be had is in `missing`.
    pub fn new(sandbox: &Sandbox) -> Self {
        let mut cgroups = Self::default();
        let bounds = bounds::of(sandbox, &mut cgroups.missing);
        if bounds.is_empty() {
            return cgroups;
        }
        let hierarchies = Hierarchies::read().unwrap_or_default();
        let name = Owner::this().name(NEXT.fetch_add(1, Ordering::Relaxed));
        let mut second: Option<PathBuf> = None;
        for bound in bounds {
            if let Some(parent) = hierarchies.version_1(bound.controller_1) {
                match cgroups.add(&parent, &name, VERSION_1, &bound.version_1) {
                    Ok(directory) => cgroups.counted.push((bound.what, directory, false)),
                    Err(error) => cgroups.missing.push((bound.what, refusal(&parent, &error))),
                }
                continue;
            }
            // Version 2 has one tree for all: the cgroup is made once, and bounded by each controller.
            let made = match &second {
                Some(directory) => write(directory, &bound.version_2).map(|()| directory.clone()),
                None => match hierarchies.version_2(bound.controller_2) {
                    Ok(parent) => cgroups.add(&parent, &name, VERSION_2, &bound.version_2),
                    Err(why) => {
                        cgroups.missing.push((bound.what, why));
                        continue;
                    }
                },
            };
            match made {
                Ok(directory) => {
                    cgroups.counted.push((bound.what, directory.clone(), true));
                    second = Some(directory);
                }
                Err(error) => cgroups.missing.push((bound.what, error.to_string())),
            }
        }
        cgroups
    }

    fn add(&mut self, parent: &Path, name: &str, join: &str, values: &[bounds::Value]) -> io::Result<PathBuf> {
        remove_stale(parent);
        let directory = parent.join(name);
        // Version 1 may have several controllers in one hierarchy: `cpu,cpuacct`.
        if !self.directories.contains(&directory) {
            fs::create_dir(&directory)?;
            self.directories.push(directory.clone());
            write(&directory, values)?;
            let file = OpenOptions::new().write(true).open(directory.join(join))?;
            match join {
                VERSION_2 => {
                    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                    self.joins.second = Some((rustix::fs::open(&directory, flags, Mode::empty())?, file));
                }
                _ => self.joins.files.push(file),
            }
        } else {
            write(&directory, values)?;
        }
        Ok(directory)
    }

    /// What bounds each thing: `cgroup v1` or `cgroup v2`.
    pub fn given(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.counted.iter().map(|(what, _, second)| (*what, if *second { "cgroup v2" } else { "cgroup v1" }))
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        Counts {
            memory_kills: self.memory_kills(),
            refused_processes: self.refused_processes(),
            peak_memory: self.peak_memory(),
        }
    }

    /// How many processes of the run the kernel killed for want of memory.
    fn memory_kills(&self) -> u64 {
        self.number("memory", "memory.oom_control", "memory.events", "oom_kill").unwrap_or(0)
    }

    /// How often a process was not started, as there were enough.
    fn refused_processes(&self) -> u64 {
        self.number("pids", "pids.events", "pids.events", "max").unwrap_or(0)
    }

    /// The most bytes of memory that were in use at a time, files that were read and written included.
    fn peak_memory(&self) -> Option<u64> {
        self.number("memory", "memory.max_usage_in_bytes", "memory.peak", "")
    }

    /// A number in a file of the cgroup: behind its key, or alone.
    fn number(&self, what: &str, version_1: &str, version_2: &str, key: &str) -> Option<u64> {
        let (_, directory, second) = self.counted.iter().find(|(counted, ..)| *counted == what)?;
        let text = small::read_text(directory.join(if *second { version_2 } else { version_1 })).ok()?;
        text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(2);
        for directory in self.directories.drain(..) {
            // A process that has been waited for may still be leaving its cgroup.
            while fs::remove_dir(&directory).is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY)) {
                if Instant::now() > deadline {
                    break;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

static NEXT: AtomicU64 = AtomicU64::new(0);

fn write(directory: &Path, values: &[bounds::Value]) -> io::Result<()> {
    for (file, value, presence) in values {
        let write = || {
            match value.as_str() {
                // A set that must not be empty, and is so in a new cgroup.
                bounds::AS_PARENT => {
                    small::write(directory.join(file), &small::read_text(directory.join("..").join(file))?)
                }
                value => small::write(directory.join(file), value),
            }
        };
        match write() {
            Err(_) if *presence == Presence::Optional => {}
            result => result?,
        }
    }
    Ok(())
}

fn refusal(parent: &Path, error: &io::Error) -> String {
    format!("no cgroup can be made in `{}` ({error})", parent.display())
}

/// Who made a cgroup: a process, told from a later one of the same number by its start. Numbers mean something in one pid namespace only.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owner {
    namespace: String,
    pid: u32,
    start: String,
}

impl Owner {
    fn this() -> Self {
        let pid = std::process::id();
        Self { namespace: pid_namespace(), pid, start: start_of(pid).unwrap_or_default() }
    }

    fn name(&self, number: u64) -> String {
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
fn remove_stale(parent: &Path) {
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

/// Where the cgroup file systems are mounted, and where in them this process is.
#[derive(Debug, Default)]
pub struct Hierarchies {
    /// Controllers (empty for version 2) and path.
    own: Vec<(Vec<String>, String)>,
    /// Read when it is asked for: the list of all mounts of a host is long.
    mounts: OnceLock<Mounts>,
}

#[derive(Debug, Default)]
struct Mounts {
    /// Mount point, root of the mount, and controllers.
    version_1: Vec<(PathBuf, String, Vec<String>)>,
    version_2: Option<(PathBuf, String)>,
}

/// Where every distribution mounts version 1, by the names of the controllers.
const USUAL: &str = "/sys/fs/cgroup";

impl Hierarchies {
    /// Reads `/proc/self/mountinfo` and `/proc/self/cgroup`: proc(5), cgroups(7).
    pub fn read() -> io::Result<Self> {
        Ok(Self { own: parse_own(&small::read_text("/proc/self/cgroup")?), mounts: OnceLock::new() })
    }

    fn mounts(&self) -> &Mounts {
        self.mounts.get_or_init(|| Mounts::parse(&small::read_text("/proc/self/mountinfo").unwrap_or_default()))
    }

    /// Our own cgroup in the version 1 hierarchy of a controller.
    pub fn version_1(&self, controller: &str) -> Option<PathBuf> {
        let has = |list: &[String]| list.iter().any(|name| name == controller);
        let (_, path) = self.own.iter().find(|(controllers, _)| has(controllers))?;
        let usual = below(&Path::new(USUAL).join(controller), "/", path);
        if rustix::fs::statfs(&usual).is_ok_and(|found| found.f_type == CGROUP_1_MAGIC) {
            return Some(usual);
        }
        let (point, root, _) = self.mounts().version_1.iter().find(|(_, _, options)| has(options))?;
        Some(below(point, root, path))
    }

    /// Our own cgroup in every hierarchy of version 1, by the name that its mount has.
    pub fn directories_1(&self) -> Vec<(String, PathBuf)> {
        let mut found = Vec::new();
        for (point, root, options) in &self.mounts().version_1 {
            let own = self.own.iter().find(|(controllers, _)| controllers.iter().any(|name| options.contains(name)));
            let (Some(name), Some((_, path))) = (point.file_name(), own) else { continue };
            found.push((name.to_string_lossy().into_owned(), below(point, root, path)));
        }
        found
    }

    /// Our own cgroup of version 2.
    pub fn directory_2(&self) -> Option<PathBuf> {
        let (point, root) = self.mounts().version_2.as_ref()?;
        let (_, path) = self.own.iter().find(|(controllers, _)| controllers.is_empty())?;
        Some(below(point, root, path))
    }

    /// Where the hierarchies of version 1 that have controllers are mounted.
    pub fn mounts_1(&self) -> impl Iterator<Item = &Path> {
        let has_controllers = |options: &[String]| {
            self.own
                .iter()
                .any(|(controllers, _)| controllers.iter().any(|name| options.contains(name) && !name.contains('=')))
        };
        self.mounts()
            .version_1
            .iter()
            .filter(move |(.., options)| has_controllers(options))
            .map(|(point, ..)| point.as_path())
    }

    /// Where the hierarchy of version 1 with this controller is mounted.
    pub fn mount_of(&self, controller: &str) -> Option<&Path> {
        let found = self.mounts().version_1.iter().find(|(.., options)| options.iter().any(|name| name == controller));
        found.map(|(point, ..)| point.as_path())
    }

    /// Where version 2 is mounted.
    pub fn mount_2(&self) -> Option<&Path> {
        self.mounts().version_2.as_ref().map(|(point, _)| point.as_path())
    }

    /// The nearest cgroup of version 2, from our own upwards, in which a child with this controller may be made.
    pub fn version_2(&self, controller: &str) -> Result<PathBuf, String> {
        let Some((point, root)) = &self.mounts().version_2 else {
            return Err("no cgroup file system is mounted".to_owned());
        };
        let path = self.own.iter().find(|(controllers, _)| controllers.is_empty()).map(|(_, path)| path.as_str());
        let own = below(point, root, path.unwrap_or("/"));
        for parent in own.ancestors().take_while(|parent| parent.starts_with(point)) {
            if is_usable(parent, controller) {
                return Ok(parent.to_owned());
            }
        }
        Err(format!("no cgroup from `{}` upwards gives this user the controller", own.display()))
    }
}

/// `CGROUP_SUPER_MAGIC` of <linux/magic.h>.
const CGROUP_1_MAGIC: rustix::fs::FsWord = 0x27_e0eb;

fn list(text: &str) -> Vec<String> {
    text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Of `/proc/self/cgroup`.
fn parse_own(text: &str) -> Vec<(Vec<String>, String)> {
    let line = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((list(fields.next()?), fields.next()?.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

impl Mounts {
    /// Of `/proc/self/mountinfo`.
    fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let Some((mount, kind)) = line.split_once(" - ") else { continue };
            let (mount, kind): (Vec<_>, Vec<_>) = (mount.split(' ').collect(), kind.split(' ').collect());
            let (Some(root), Some(point), Some(options)) = (mount.get(3), mount.get(4), kind.get(2)) else { continue };
            match kind[0] {
                "cgroup" => found.version_1.push((unescape(point), (*root).to_owned(), list(options))),
                "cgroup2" if found.version_2.is_none() => {
                    found.version_2 = Some((unescape(point), (*root).to_owned()));
                }
                _ => {}
            }
        }
        found
    }
}

/// Whether a cgroup hands on the controller, or can be made to, and lets us make and join children.
fn is_usable(parent: &Path, controller: &str) -> bool {
    let has = |file: &str| {
        let text = small::read_text(parent.join(file)).unwrap_or_default();
        text.split_ascii_whitespace().any(|name| name == controller)
    };
    let writable = |path: &Path| {
        use rustix::fs::{Access, AtFlags, CWD};
        rustix::fs::accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
    };
    // A process may only be moved by one who may write `cgroup.procs` of the nearest common ancestor: cgroups(7), delegation.
    if !writable(parent) || !writable(&parent.join("cgroup.procs")) {
        return false;
    }
    // The root has no type. Any other that is not a plain domain has children that no process can join (EOPNOTSUPP).
    let kind = small::read_text(parent.join("cgroup.type"));
    if kind.as_ref().is_ok_and(|kind| kind.trim() != "domain") {
        return false;
    }
    if has("cgroup.subtree_control") {
        return true;
    }
    // A cgroup with processes of its own cannot hand controllers on, unless it is the root. For memory the kernel says EBUSY; for
    // processes and processors it makes the cgroup a threaded one, which spoils it for everybody: cgroups(7), threaded mode.
    let has_processes = || small::read_text(parent.join("cgroup.procs")).is_ok_and(|text| !text.is_empty());
    has("cgroup.controllers")
        && !(kind.is_ok() && has_processes())
        && fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}")).is_ok()
}

fn below(point: &Path, root: &str, path: &str) -> PathBuf {
    let relative = path.strip_prefix(root.trim_end_matches('/')).unwrap_or(path);
    point.join(relative.trim_start_matches('/'))
}

/// mountinfo writes blanks, tabs, newlines and backslashes as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 4).filter(|digits| digits.iter().all(|digit| (b'0'..b'8').contains(digit)));
        match digits {
            Some(digits) if bytes[at] == b'\\' => {
                plain.push(digits.iter().fold(0u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0')));
                at += 4;
            }
            _ => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    PathBuf::from(std::ffi::OsStr::from_bytes(&plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found() {
        let mounts = "\
24 1 0:22 / /proc rw - proc proc rw
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 /docker/abc /sys/fs/cgroup/mem\\040ory rw shared:1 - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
";
        let own = "9:cpu,cpuacct:/a/b\n4:memory:/docker/abc/inner\n0::/user.slice/x\n";
        let mounts = OnceLock::from(Mounts::parse(mounts));
        let hierarchies = Hierarchies { own: parse_own(own), mounts };
        assert_eq!(hierarchies.version_1("cpu").unwrap(), Path::new("/sys/fs/cgroup/cpu,cpuacct/a/b"));
        assert_eq!(hierarchies.version_1("memory").unwrap(), Path::new("/sys/fs/cgroup/mem ory/inner"));
        assert_eq!(hierarchies.version_1("pids"), None);
        assert!(hierarchies.version_2("pids").unwrap_err().contains("/sys/fs/cgroup/unified/user.slice/x"));
    }

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
