//! What this host gives to isolate a command, for `forge doctor`. Everything is tried, nothing is concluded from a version.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::cgroup::Cgroups;
use super::{sys, userns};
use crate::Sandbox;
use store::Limits;

/// Something a run may want of its host.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Capability {
    /// What it is called.
    pub name: &'static str,
    /// Whether it is to be had.
    pub available: bool,
    /// What was found.
    pub detail: String,
    /// What to do where it is not.
    pub cure: Option<String>,
}

/// Tries everything.
pub fn check() -> Vec<Capability> {
    let mut found =
        vec![kernel(), user_namespaces(), overlay(), overlay_in_memory(), seccomp(), notification(), landlock()];
    found.extend(limits());
    found.extend([fuse(), loop_devices(), kvm(), sub_ids()]);
    found
}

/// FUSE is asked for by nothing unless it is named: for an ordinary user who wants a SIF in place.
fn fuse() -> Capability {
    optional("FUSE", "/dev/fuse", "as root: modprobe fuse; chmod 666 /dev/fuse. Without it a SIF is unpacked once")
}

/// Loop devices are for root, who mounts a squashfs in place.
fn loop_devices() -> Capability {
    optional("loop devices", "/dev/loop-control", "run as root. Without them a SIF is unpacked once")
}

fn kvm() -> Capability {
    optional("KVM", "/dev/kvm", "as root: add this user to the group `kvm`. Nothing of forge needs it yet")
}

/// A device that nothing depends on: that it is missing is said, and is no fault.
fn optional(name: &'static str, path: &str, cure: &str) -> Capability {
    let opened = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty());
    let detail = match &opened {
        Ok(_) => format!("`{path}` can be opened"),
        Err(error) => format!("`{path}`: {} (nothing depends on it: {cure})", io::Error::from(*error)),
    };
    Capability { name, available: true, detail, cure: None }
}

/// Ranges of ids that an ordinary user may map: others need them, forge does not.
fn sub_ids() -> Capability {
    let user = rustix::process::getuid().as_raw();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(user)).then(|| name.to_owned())
    });
    let text = fs::read_to_string("/etc/subuid").unwrap_or_default();
    let number = user.to_string();
    let own = text
        .lines()
        .find(|line| line.split(':').next().is_some_and(|first| Some(first) == name.as_deref() || first == number));
    let detail = match own {
        Some(line) => format!("`{line}` in /etc/subuid"),
        None => "none in /etc/subuid: not needed, one id is mapped".to_owned(),
    };
    Capability { name: "sub-ids", available: true, detail, cure: None }
}

fn kernel() -> Capability {
    let release = release();
    let available = release.is_none_or(|release| release >= (5, 15));
    let name = rustix::system::uname();
    let detail = format!("Linux {}", name.release().to_string_lossy());
    Capability { name: "kernel", available, detail, cure: (!available).then(|| "Linux 5.15 or newer".to_owned()) }
}

/// The two numbers of the kernel's release.
pub fn release() -> Option<(u32, u32)> {
    let name = rustix::system::uname();
    let mut numbers = name.release().to_str().ok()?.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn user_namespaces() -> Capability {
    let name = "user namespaces";
    match in_user_namespace(|| Ok(())) {
        Ok(()) => Capability { name, available: true, detail: "can be made".to_owned(), cure: None },
        Err(error) => {
            let switch = userns::switch();
            let detail = match switch {
                Some(switch) => format!("{error}: `{switch}`"),
                None if userns::is_in_chroot() => format!("{error}: this is a chroot"),
                None => error.to_string(),
            };
            Capability { name, available: false, detail, cure: Some(cure(switch)) }
        }
    }
}

fn cure(switch: Option<&str>) -> String {
    match switch {
        Some("user.max_user_namespaces") => "as root: sysctl -w user.max_user_namespaces=15000".to_owned(),
        Some("kernel.unprivileged_userns_clone") => "as root: sysctl -w kernel.unprivileged_userns_clone=1".to_owned(),
        Some(switch) => format!("as root: sysctl -w {switch}=0, or an AppArmor profile with `userns,` for forge"),
        None if userns::is_in_chroot() => "run forge outside of the chroot".to_owned(),
        None => "in a container: let it make user namespaces (its seccomp profile), or run as root".to_owned(),
    }
}

fn overlay() -> Capability {
    let name = "overlay";
    // Loading the module takes root, but mounting it loads it.
    let result = in_user_namespace(|| mount_overlay("userxattr"));
    match result {
        Ok(()) => Capability { name, available: true, detail: "in a user namespace".to_owned(), cure: None },
        Err(error) => Capability {
            name,
            available: false,
            detail: format!("in a user namespace: {error}"),
            cure: Some("as root: modprobe overlay; Linux 5.15 or newer".to_owned()),
        },
    }
}

fn overlay_in_memory() -> Capability {
    let available = (userns::is_privileged() && userns::is_initial()) || has_attributes_on_tmpfs();
    let detail = if available { "complete" } else { "directories of the root cannot be removed and made again" };
    Capability {
        name: "writable root in memory",
        available,
        detail: detail.to_owned(),
        cure: (!available).then(|| "Linux 6.6 or newer, or run as root".to_owned()),
    }
}

/// Whether tmpfs carries `user.*` attributes, in which overlayfs notes that a directory hides what lies below: since Linux 6.6.
pub fn has_attributes_on_tmpfs() -> bool {
    release().is_none_or(|release| release >= (6, 6))
}

fn seccomp() -> Capability {
    let available = sys::has_filter_action(libc::SECCOMP_RET_ERRNO);
    let detail = if available { "filters can be installed" } else { "not in this kernel" };
    Capability { name: "seccomp", available, detail: detail.to_owned(), cure: None }
}

fn notification() -> Capability {
    let available = sys::has_filter_action(libc::SECCOMP_RET_USER_NOTIF);
    let detail = if available { "build steps can be supervised" } else { "not in this kernel, or forbidden here" };
    Capability { name: "seccomp notification", available, detail: detail.to_owned(), cure: None }
}

/// Whether the launcher's own file is kept from being executed inside by the kernel itself; without it each program is looked at, so
/// that it is missing is no fault.
fn landlock() -> Capability {
    let detail = match sys::landlock_version() {
        // The launcher wants what moves files between directories, too.
        Some(version @ 2..) => format!("version {version}: execution is confined to the root"),
        Some(version) => format!("version {version}, and 2 is needed: programs are looked at instead"),
        None => "not in this kernel, or forbidden here: programs are looked at instead".to_owned(),
    };
    Capability { name: "landlock", available: true, detail, cure: None }
}

/// Makes a cgroup with generous limits, and looks which of them took.
fn limits() -> Vec<Capability> {
    let limits = Limits { memory: Some(1 << 40), cpu_millis: Some(1000), pids: Some(1 << 20), ..Limits::default() };
    let cgroups = Cgroups::new(&Sandbox { limits, ..Sandbox::default() });
    let describe = |(name, controller): (&'static str, &str)| {
        let missing = cgroups.missing.iter().find(|(missing, _)| *missing == controller);
        let stands_in = controller == "pids" && !rustix::process::geteuid().is_root();
        match missing {
            None => Capability { name, available: true, detail: "by cgroup".to_owned(), cure: None },
            Some(_) if stands_in => Capability { name, available: true, detail: "by rlimit".to_owned(), cure: None },
            Some((_, why)) => {
                let cure = if Path::new("/run/systemd/system").exists() {
                    "run it as `systemd-run --user --scope -p Delegate=yes forge …`"
                } else {
                    "have root give this user a cgroup with the controller"
                };
                Capability { name, available: false, detail: why.clone(), cure: Some(cure.to_owned()) }
            }
        }
    };
    [("limit of memory", "memory"), ("limit of processor time", "cpu"), ("limit of processes", "pids")]
        .map(describe)
        .into()
}

/// Runs something in a child that is root in a user namespace and has mounts of its own.
fn in_user_namespace(work: fn() -> io::Result<()>) -> io::Result<()> {
    let Some(child) = sys::fork()? else {
        let ids = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let result = sys::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)
            .and_then(|()| fs::write("/proc/self/setgroups", "deny"))
            .and_then(|()| fs::write("/proc/self/uid_map", format!("0 {} 1", ids.0)))
            .and_then(|()| fs::write("/proc/self/gid_map", format!("0 {} 1", ids.1)))
            .and_then(|()| work());
        // An exit status has room for every errno that matters here.
        sys::exit(result.map_or_else(|error| error.raw_os_error().unwrap_or(libc::EIO), |()| 0))
    };
    match sys::wait(Some(child), true)? {
        Some((_, 0)) => Ok(()),
        Some((_, status)) if libc::WIFEXITED(status) => Err(io::Error::from_raw_os_error(libc::WEXITSTATUS(status))),
        _ => Err(io::ErrorKind::Interrupted.into()),
    }
}

fn mount_overlay(options: &str) -> io::Result<()> {
    use rustix::mount::{MountFlags, MountPropagationFlags};
    rustix::mount::mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    // Anywhere will do: nobody else sees it.
    let place = Path::new("/proc");
    rustix::mount::mount("tmpfs", place, "tmpfs", MountFlags::empty(), None)?;
    for name in ["lower", "upper", "work", "root"] {
        fs::create_dir(place.join(name))?;
    }
    let options = format!("lowerdir=/proc/lower,upperdir=/proc/upper,workdir=/proc/work,{options}");
    let options = std::ffi::CString::new(options)?;
    rustix::mount::mount("overlay", place.join("root"), "overlay", MountFlags::empty(), options.as_c_str())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_landlock_is_what_the_launcher_finds() {
        use std::os::fd::AsFd;
        let root = fs::File::open("/").unwrap();
        let Some(child) = sys::fork().unwrap() else {
            let confined = rustix::thread::set_no_new_privs(true)
                .map_err(io::Error::from)
                .and_then(|()| sys::execute_only_below(root.as_fd()));
            sys::exit(i32::from(!confined.unwrap_or(false)))
        };
        let (_, status) = sys::wait(Some(child), true).unwrap().unwrap();
        assert_eq!(landlock().detail.contains("confined"), status == 0, "{}", landlock().detail);
    }
}
