//! Where cgroups can be made: the hierarchies of both versions, and where in them this process is.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::small;

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
pub fn is_usable(parent: &Path, controller: &str) -> bool {
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
}
