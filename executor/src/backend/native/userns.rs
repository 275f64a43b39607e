//! The user namespace: when it is made, which ids exist in it, and why a host may forbid it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;

use rustix::thread::CapabilitySet;

use super::small;
use crate::{Capabilities, Error, Network, Sandbox};

/// When the user namespace is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserNamespace {
    /// Before all other namespaces, which then belong to it: an ordinary user has no other way, and a build step is made alike for
    /// everybody. One user id exists in it, the caller's, under the id that the command wants.
    First,
    /// After everything is mounted: root's plain runs. All ids exist in it and mean what they mean outside, so that owners read
    /// exactly; and the mounts belong to the outside, where the command has no power over them.
    Last,
}

impl UserNamespace {
    /// What fits this sandbox and this process.
    pub fn of(sandbox: &Sandbox) -> Self {
        if sandbox.pretend_root || sandbox.one_user || !is_privileged() { Self::First } else { Self::Last }
    }

    /// Whether the network namespace is made only inside the user namespace, as capabilities over it count nowhere else.
    pub fn network_is_late(self, sandbox: &Sandbox) -> bool {
        self == Self::Last && sandbox.network == Network::None && sandbox.capabilities.meets(Capabilities::NETWORK)
    }

    /// The contents of `uid_map` and `gid_map`.
    pub fn maps(self, sandbox: &Sandbox) -> io::Result<(String, String)> {
        match self {
            Self::First => {
                let (uid, gid) = sandbox.user;
                let (uid, gid) = if sandbox.pretend_root { (0, 0) } else { (uid, gid) };
                let caller = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
                Ok((format!("{uid} {} 1", caller.0), format!("{gid} {} 1", caller.1)))
            }
            // In a container, not all ids may exist even for root: those that do are in its own map.
            Self::Last => {
                let (users, groups) = own_maps()?;
                Ok((identity(&users), identity(&groups)))
            }
        }
    }

    /// Writes the maps of a process that is in a new user namespace.
    pub fn map(self, pid: i32, maps: &(String, String)) -> io::Result<()> {
        let directory = Path::new("/proc").join(pid.to_string());
        if self == Self::First {
            // An ordinary user may map a group only once nobody can drop groups any more: user_namespaces(7).
            small::write(directory.join("setgroups"), "deny")?;
        }
        small::write(directory.join("uid_map"), &maps.0)?;
        small::write(directory.join("gid_map"), &maps.1)
    }
}

/// Whether this process may mount, and be any user, without a user namespace.
pub fn is_privileged() -> bool {
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::DAC_OVERRIDE;
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

/// Whether the launcher is in the user namespace that the kernel began with, whose number is fixed (`PROC_USER_INIT_INO`). It never
/// leaves the one that it is in, and is asked once.
pub fn is_initial() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| fs::metadata("/proc/self/ns/user").is_ok_and(|namespace| namespace.ino() == 0xEFFF_FFFD))
}

/// Whether groups cannot be dropped here: for whoever is root only in a namespace that an ordinary user made.
pub fn keeps_groups() -> bool {
    small::read_text("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny")
}

/// Whether this process may give a file to any user at all: root, and not in a user namespace that has only some of them.
pub fn has_every_user() -> bool {
    let whole = |map: &str| map.split_whitespace().eq(["0", "0", "4294967295"]);
    is_privileged() && own_maps().is_ok_and(|(users, groups)| whole(&users) && whole(&groups))
}

/// The maps of the launcher.
fn own_maps() -> io::Result<(String, String)> {
    // Where the kernel began, every id is itself.
    let map = |name: &str| match is_initial() {
        true => Ok("0 0 4294967295\n".to_owned()),
        false => small::read_text(format!("/proc/self/{name}")),
    };
    Ok((map("uid_map")?, map("gid_map")?))
}

fn identity(map: &str) -> String {
    let mut lines = String::new();
    for line in map.lines() {
        let mut fields = line.split_ascii_whitespace();
        if let (Some(inside), Some(_), Some(count)) = (fields.next(), fields.next(), fields.next()) {
            lines.push_str(&format!("{inside} {inside} {count}\n"));
        }
    }
    lines
}

/// The switch of this host that forbids user namespaces, as `sysctl` names it, if one is found.
pub fn switch() -> Option<&'static str> {
    let switches = [
        ("user.max_user_namespaces", "0"),
        ("kernel.unprivileged_userns_clone", "0"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1"),
    ];
    let is_set = |name: &str, forbidding: &str| {
        let path = Path::new("/proc/sys").join(name.replacen('.', "/", 1));
        fs::read_to_string(path).is_ok_and(|value| value.trim() == forbidding)
    };
    switches.into_iter().find(|(name, forbidding)| is_set(name, forbidding)).map(|(name, _)| name)
}

/// Whether this process is in a chroot, from within which the kernel makes no user namespace.
pub fn is_in_chroot() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    !mounts.is_empty() && mounts.lines().all(|line| line.split(' ').nth(4) != Some("/"))
}

/// The error for a user namespace that could not be made.
pub fn refused(source: io::Error) -> Error {
    Error::NoUserNamespaces { switch: switch().map(str::to_owned), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_kernel_began_every_id_is_itself() {
        if is_initial() {
            let whole: Vec<String> =
                ["uid_map", "gid_map"].map(|map| small::read_text(format!("/proc/self/{map}")).unwrap()).into();
            assert!(whole.iter().all(|map| map.split_whitespace().eq(["0", "0", "4294967295"])), "{whole:?}");
        }
        assert_eq!(is_initial(), fs::read_link("/proc/self/ns/user").unwrap().as_os_str() == "user:[4026531837]",);
    }

    #[test]
    fn every_id_that_exists_is_mapped_to_itself() {
        let map = "         0     100000      65536\n     65536       1000          1\n";
        assert_eq!(identity(map), "0 0 65536\n65536 65536 1\n");
    }
}
