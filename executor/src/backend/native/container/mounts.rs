//! The root of a container as its configuration wants it: config.md "Mounts", config-linux.md "Devices", "Masked Paths", "Readonly Paths".
//!
//! Each target is resolved inside the root and mounted onto by descriptor, each in the order of the configuration.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, LinuxNamespaceType, Mount, Spec};
use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::mount::{MountAttrFlags, UnmountFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::super::cgroup::Hierarchies;
use super::super::message::{Doing, Failure};
use super::super::root::{self, Builder};
use super::super::sys;
use super::process::write;

type Result<T, E = Failure> = std::result::Result<T, E>;

/// Files of the host, each a mount that is not attached anywhere yet.
pub struct Sources {
    root: OwnedFd,
    binds: Vec<Option<OwnedFd>>,
    devices: Vec<(PathBuf, OwnedFd)>,
    null: OwnedFd,
}

/// A root that is ready to be entered.
pub struct Root {
    builder: Builder,
    /// A /proc of our own, attached nowhere.
    pub proc: OwnedFd,
    terminal: Option<root::Terminal>,
}

/// Devices that every container has: config-linux.md, "Default Devices".
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// What the words of a mount's options mean.
#[derive(Default)]
struct Options {
    set: u64,
    recursive_set: u64,
    clear: u64,
    propagation: u64,
    bind: bool,
    recursive: bool,
    data: Vec<(String, Option<String>)>,
}

impl Options {
    fn of(mount: &Mount) -> Self {
        let mut options = Self { bind: mount.typ().as_deref() == Some("bind"), ..Self::default() };
        let flag = |flag: MountAttrFlags| u64::from(flag.bits());
        for word in mount.options().iter().flatten() {
            let attribute = match word.trim_start_matches('r') {
                "o" | "ro" => MountAttrFlags::MOUNT_ATTR_RDONLY,
                "nosuid" => MountAttrFlags::MOUNT_ATTR_NOSUID,
                "nodev" => MountAttrFlags::MOUNT_ATTR_NODEV,
                "noexec" => MountAttrFlags::MOUNT_ATTR_NOEXEC,
                "noatime" => MountAttrFlags::MOUNT_ATTR_NOATIME,
                "nodiratime" => MountAttrFlags::MOUNT_ATTR_NODIRATIME,
                "nosymfollow" => MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW,
                _ => MountAttrFlags::empty(),
            };
            match word.as_str() {
                "bind" => options.bind = true,
                "rbind" => (options.bind, options.recursive) = (true, true),
                "rw" => options.clear |= flag(MountAttrFlags::MOUNT_ATTR_RDONLY),
                "suid" => options.clear |= flag(MountAttrFlags::MOUNT_ATTR_NOSUID),
                "dev" => options.clear |= flag(MountAttrFlags::MOUNT_ATTR_NODEV),
                "exec" => options.clear |= flag(MountAttrFlags::MOUNT_ATTR_NOEXEC),
                "strictatime" => options.set |= flag(MountAttrFlags::MOUNT_ATTR_STRICTATIME),
                "relatime" | "atime" | "diratime" | "norelatime" | "nostrictatime" | "defaults" | "async" => {}
                "sync" | "dirsync" | "mand" | "nomand" | "lazytime" | "tmpcopyup" | "copy-symlink" => {}
                "private" | "rprivate" => options.propagation = libc::MS_PRIVATE,
                "slave" | "rslave" => options.propagation = libc::MS_SLAVE,
                "shared" | "rshared" => options.propagation = libc::MS_SHARED,
                "unbindable" | "runbindable" => options.propagation = libc::MS_UNBINDABLE,
                "rro" | "rnosuid" | "rnodev" | "rnoexec" | "rnoatime" => options.recursive_set |= flag(attribute),
                "ro" | "nosuid" | "nodev" | "noexec" | "noatime" | "nodiratime" | "nosymfollow" => {
                    options.set |= flag(attribute);
                }
                word => options.data.push(match word.split_once('=') {
                    Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                    None => (word.to_owned(), None),
                }),
            }
        }
        options
    }

    fn apply(&self, mount: &OwnedFd) -> io::Result<()> {
        if self.set != 0 || self.clear != 0 {
            sys::change_mount(mount.as_fd(), self.set, self.clear & !self.set, 0, false)?;
        }
        if self.recursive_set != 0 {
            sys::change_mount(mount.as_fd(), self.recursive_set, 0, 0, true)?;
        }
        if self.propagation != 0 {
            sys::change_mount(mount.as_fd(), 0, 0, self.propagation, self.recursive)?;
        }
        Ok(())
    }
}

/// Opens everything of the host.
pub fn open(spec: &Spec, bundle: &Path) -> Result<Sources> {
    let none = MountAttrFlags::empty();
    let path = spec.root().as_ref().map_or_else(|| PathBuf::from("rootfs"), |root| root.path().clone());
    let path = bundle.join(path);
    let root = root::clone_tree(&path, none, true).doing(format!("open the root `{}`", path.display()))?;
    let mut binds = Vec::new();
    for mount in spec.mounts().iter().flatten() {
        let options = Options::of(mount);
        let source = match (&options, mount.source()) {
            (options, Some(source)) if options.bind => {
                let source = bundle.join(source);
                let tree = root::clone_tree(&source, none, options.recursive);
                Some(tree.doing(format!("open `{}`", source.display()))?)
            }
            _ => None,
        };
        binds.push(source);
    }
    let mut devices = Vec::new();
    for name in DEVICES {
        let path = Path::new("/dev").join(name);
        let tree = root::clone_tree(&path, none, false).doing(format!("open `{}`", path.display()))?;
        devices.push((path, tree));
    }
    for device in spec.linux().iter().flat_map(|linux| linux.devices().iter().flatten()) {
        // Where it cannot be made, the host's own stands in, if it is the same.
        if let Ok(tree) = root::clone_tree(device.path(), none, false)
            && !devices.iter().any(|(known, _)| known == device.path())
        {
            devices.push((device.path().clone(), tree));
        }
    }
    let null = root::clone_tree(Path::new("/dev/null"), none, false).doing("open `/dev/null`")?;
    // What masks must be the null device, whatever lies at that path: CVE-2025-31133.
    let status = rustix::fs::fstat(&null).doing("look at `/dev/null`")?;
    if status.st_rdev != rustix::fs::makedev(1, 3) {
        return Err(Failure::refused("find the null device", "something else is at `/dev/null`"));
    }
    Ok(Sources { root, binds, devices, null })
}

/// Builds the root; the host's files can still be reached by path afterwards.
pub fn build(spec: &Spec, sources: Sources) -> Result<Root> {
    let linux = spec.linux().as_ref();
    let propagation = match linux.and_then(|linux| linux.rootfs_propagation().as_deref()) {
        Some("slave" | "rslave" | "shared" | "rshared") => libc::MS_SLAVE,
        _ => libc::MS_PRIVATE,
    };
    let host = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).doing("open `/`")?;
    sys::change_mount(host.as_fd(), 0, 0, propagation, true).doing("keep our mounts from the host")?;
    let scratch = root::mounts::tmpfs("0755", None, MountAttrFlags::empty()).doing("make a tmpfs")?;
    root::mounts::move_mount(&scratch, &host).doing("mount a tmpfs over `/`")?;
    rustix::process::fchdir(&scratch).doing("enter the tmpfs")?;
    root::mounts::attach_new(&scratch, "root", &sources.root).doing("mount the root")?;
    let mut builder = Builder::new(sources.root);
    let proc = root::mounts::new_mount("proc", &[], MountAttrFlags::empty()).doing("make a mount of /proc")?;
    for (mount, source) in spec.mounts().iter().flatten().zip(sources.binds) {
        one(&mut builder, mount, source, spec)?;
    }
    devices(&mut builder, spec, sources.devices)?;
    let terminal = match spec.process().as_ref().and_then(|process| process.terminal()) {
        Some(true) => Some(terminal(&mut builder, spec)?),
        _ => None,
    };
    for (name, value) in linux.iter().flat_map(|linux| linux.sysctl().iter().flatten()) {
        let path = format!("sys/{}", name.replace('.', "/"));
        if path.split('/').any(|part| part == ".." || part.is_empty()) {
            return Err(Failure::refused(format!("set the kernel's `{name}`"), "there is no such name"));
        }
        write(&proc, &path, value.as_bytes()).doing(format!("set the kernel's `{name}`"))?;
    }
    if spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false) {
        let read_only = u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits());
        sys::change_mount(builder.root().as_fd(), read_only, 0, 0, false).doing("make the root read-only")?;
    }
    let covered = |choose: fn(&oci_spec::runtime::Linux) -> &Option<Vec<String>>| {
        linux.and_then(|linux| choose(linux).as_deref()).unwrap_or_default()
    };
    for path in covered(|linux| linux.readonly_paths()) {
        builder.make_read_only(Path::new(path))?;
    }
    let mut masks = root::Masks::new(sources.null).doing("make an empty tmpfs")?;
    for path in covered(|linux| linux.masked_paths()) {
        builder.mask(Path::new(path), &mut masks)?;
    }
    Ok(Root { builder, proc, terminal })
}

fn one(builder: &mut Builder, mount: &Mount, source: Option<OwnedFd>, spec: &Spec) -> Result<()> {
    let (options, target) = (Options::of(mount), mount.destination());
    let what = || format!("mount `{}`", target.display());
    let kind = mount.typ().as_deref().unwrap_or(if source.is_some() { "bind" } else { "none" });
    if mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
        return Err(Failure::refused(what(), "its ids are mapped, which forge does not know"));
    }
    let new = match source {
        Some(source) => source,
        None if kind == "cgroup" || kind == "cgroup2" => cgroup(spec).doing(what())?,
        None => {
            let source = mount.source().as_ref().and_then(|source| source.to_str()).unwrap_or(kind);
            root::mounts::new_mount_of(kind, source, &options.data).doing(what())?
        }
    };
    options.apply(&new).doing(format!("{}: set its options", what()))?;
    let status = rustix::fs::fstat(&new).doing(what())?;
    let file_type = FileType::from_raw_mode(status.st_mode);
    let file_type = if file_type == FileType::Directory { file_type } else { FileType::RegularFile };
    builder.attach(&new, target, file_type)
}

/// The container's own cgroups: of version 2 a mount of their own, of version 1 a directory for each controller.
fn cgroup(spec: &Spec) -> io::Result<OwnedFd> {
    let has_own = spec.linux().iter().flat_map(|linux| linux.namespaces().iter().flatten());
    let has_own = has_own.into_iter().any(|namespace| namespace.typ() == LinuxNamespaceType::Cgroup);
    let hierarchies = Hierarchies::read()?;
    let first = hierarchies.directories_1();
    if first.is_empty() {
        if has_own {
            return root::mounts::new_mount("cgroup2", &[], MountAttrFlags::empty());
        }
        let own = hierarchies.directory_2().ok_or(io::ErrorKind::NotFound)?;
        return root::clone_tree(&own, MountAttrFlags::empty(), true);
    }
    let all = root::mounts::tmpfs("0755", None, MountAttrFlags::empty())?;
    for (name, directory) in first {
        let tree = root::clone_tree(&directory, MountAttrFlags::empty(), true)?;
        root::mounts::attach_new(&all, &name, &tree)?;
    }
    Ok(all)
}

fn devices(builder: &mut Builder, spec: &Spec, mut host: Vec<(PathBuf, OwnedFd)>) -> Result<()> {
    let wanted: Vec<&LinuxDevice> = spec.linux().iter().flat_map(|linux| linux.devices().iter().flatten()).collect();
    let dev = builder.make(Path::new("/dev"), FileType::Directory)?;
    for (path, tree) in &host {
        if !wanted.iter().any(|device| device.path() == path) && builder.is_missing(path) {
            builder.attach(tree, path, FileType::RegularFile)?;
        }
    }
    for device in wanted {
        let what = || format!("make the device `{}`", device.path().display());
        if !builder.is_missing(device.path()) {
            continue;
        }
        let parent = device.path().parent().unwrap_or(Path::new("/"));
        let parent = builder.make(parent, FileType::Directory)?;
        let name = device.path().file_name().ok_or(rustix::io::Errno::INVAL).doing(what())?;
        let kind = match device.typ() {
            LinuxDeviceType::B => FileType::BlockDevice,
            LinuxDeviceType::P => FileType::Fifo,
            _ => FileType::CharacterDevice,
        };
        let mode = Mode::from_raw_mode(device.file_mode().unwrap_or(0o666));
        let number = rustix::fs::makedev(device.major() as u32, device.minor() as u32);
        match rustix::fs::mknodat(&parent, name, kind, mode, number) {
            Ok(()) => {
                let owner = (device.uid().unwrap_or(0), device.gid().unwrap_or(0));
                rustix::fs::chownat(
                    &parent,
                    name,
                    Some(Uid::from_raw(owner.0)),
                    Some(Gid::from_raw(owner.1)),
                    rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
                )
                .doing(what())?;
            }
            // In a user namespace nobody makes devices: the host's own, if there is one of that path.
            Err(rustix::io::Errno::PERM) => {
                let is_device = |path: &PathBuf| {
                    std::fs::metadata(path)
                        .is_ok_and(|found| found.file_type().is_char_device() || found.file_type().is_block_device())
                };
                let found = host.iter().position(|(path, _)| path == device.path() && is_device(path));
                let (_, tree) = host.swap_remove(found.ok_or(rustix::io::Errno::PERM).doing(what())?);
                builder.attach(&tree, device.path(), FileType::RegularFile)?;
            }
            Err(error) => return Err(error).doing(what()),
        }
    }
    for (name, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        match rustix::fs::symlinkat(target, &dev, name) {
            Ok(()) | Err(rustix::io::Errno::EXIST | rustix::io::Errno::ROFS) => {}
            Err(error) => return Err(error).doing(format!("link `/dev/{name}`")),
        }
    }
    Ok(())
}

/// A terminal of the container's own /dev/pts, which must be one.
fn terminal(builder: &mut Builder, spec: &Spec) -> Result<root::Terminal> {
    let pts = builder.make(Path::new("/dev/pts"), FileType::Directory)?;
    let (uid, size) =
        spec.process().as_ref().map_or((0, None), |process| (process.user().uid(), process.console_size()));
    let terminal = root::terminal_of(&pts, uid).doing("make a terminal")?;
    if let Some(size) = size {
        let (rows, columns) = (size.height() as u16, size.width() as u16);
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let _ = rustix::termios::tcsetwinsize(&terminal.near, size);
    }
    let console = root::mounts::clone_mount(&terminal.far).doing("open the terminal")?;
    builder.attach(&console, "/dev/console", FileType::RegularFile)?;
    Ok(terminal)
}

impl Root {
    /// Gives the near end of the terminal away: once, with its name, as conmon and containerd expect it.
    pub fn send_terminal(&mut self, to: &UnixStream) -> io::Result<()> {
        let Some(terminal) = &self.terminal else { return Ok(()) };
        let fds = [terminal.near.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        rustix::net::sendmsg(to, &[IoSlice::new(b"/dev/ptmx")], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Makes it the process's own. Gives the program's end of its terminal.
    pub fn enter(self, spec: &Spec) -> Result<Option<OwnedFd>> {
        let directory = spec.process().as_ref().map(|process| process.cwd().clone()).unwrap_or_else(|| "/".into());
        let mut builder = self.builder;
        if builder.is_missing(&directory) {
            // A root that cannot be written to says so when it is entered.
            let _ = builder.make(&directory, FileType::Directory);
        }
        rustix::process::fchdir(builder.root()).doing("enter the root")?;
        rustix::process::pivot_root(".", ".").doing("pivot_root")?;
        rustix::mount::unmount(".", UnmountFlags::DETACH).doing("unmount the scratch tmpfs")?;
        rustix::mount::unmount(".", UnmountFlags::DETACH).doing("unmount the host's root")?;
        rustix::process::chdir("/").doing("enter the root")?;
        let propagation = match spec.linux().as_ref().and_then(|linux| linux.rootfs_propagation().as_deref()) {
            Some("shared" | "rshared") => libc::MS_SHARED,
            Some("unbindable" | "runbindable") => libc::MS_UNBINDABLE,
            _ => 0,
        };
        if propagation != 0 {
            let root = rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).doing("open `/`")?;
            sys::change_mount(root.as_fd(), 0, 0, propagation, false).doing("set the propagation of the root")?;
        }
        Ok(self.terminal.map(|terminal| terminal.far))
    }
}
