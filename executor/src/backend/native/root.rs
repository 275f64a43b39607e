//! What the command sees as `/`: layers under an overlay, private /proc, /dev, /sys and /tmp, and the binds.
//!
//! Layers may be hostile. Every path inside is resolved by `openat2` with `RESOLVE_IN_ROOT`, and mounted onto by descriptor: a
//! symlink at `/proc`, `/dev` or `/tmp` leads to a place inside the root or nowhere (the class of CVE-2025-31133 in runc and
//! CVE-2025-62161 in youki). What lies below /proc and /dev is reached from the descriptor of the new mount, never by path.
//!
//! One tmpfs, the scratch, has everything that lies in memory: what is written to the root, /dev, /dev/shm, /tmp. Parts of it are
//! mounted where they belong. Where the kernel takes layers by descriptor (Linux 6.15) it is attached nowhere itself; before, it
//! lies over the host's `/` in our own mount namespace, and with `pivot_root` the host's tree and the scratch go away together.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use super::message::{Doing, Failure};
use super::sys;
use super::userns::UserNamespace;
use crate::sandbox::Mount;
use crate::{Content, MemoryMount, Network, Sandbox, Streams, Writable};

use mounts::{COPY, attach_new, attach_new_file, clone_mount, move_mount, new_mount, tmpfs};

pub mod mounts;
mod overlay;

type Result<T, E = Failure> = std::result::Result<T, E>;

/// Files of the host that a root is put together from. All but the layers are mounts that are attached nowhere yet.
#[derive(Debug)]
pub struct Sources {
    /// Directories; such mounts, too, where they are the launcher's.
    layers: Vec<OwnedFd>,
    kept: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    binds: Vec<OwnedFd>,
    host_devices: Vec<OwnedFd>,
    /// Whether they are of the launcher's own namespaces, in whose mounts process 1 has no power: overlayfs takes them by path only.
    is_launchers: bool,
}

/// What there is once the root is the process's own.
pub struct Entered {
    /// What was made in a kept layer only to mount onto.
    pub made: Vec<MountPoint>,
    /// Both ends of the sandbox's own terminal: ours, and the command's.
    pub terminal: Option<Terminal>,
    /// The sandbox's /proc, whatever path leads to it.
    pub proc: OwnedFd,
    /// /proc/sys as it is below its read-only cover: only until the command is started.
    pub kernel_settings: Option<OwnedFd>,
}

/// A terminal of the sandbox's own.
pub struct Terminal {
    /// What shows what the command writes.
    pub near: OwnedFd,
    /// What the command has.
    pub far: OwnedFd,
}

/// A mount point that was made in a kept upper layer, and is not part of what the command changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPoint(pub PathBuf);

/// Devices that programs expect, with their numbers: `Documentation/admin-guide/devices.txt`. None gives access to anything of the host.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// As the OCI runtimes mask by default: what tells about the host or reaches into it; and whether each is a directory.
const MASKED: [(&str, bool); 10] = [
    ("acpi", true),
    ("asound", true),
    ("interrupts", false),
    ("kcore", false),
    ("keys", false),
    ("latency_stats", false),
    ("timer_list", false),
    ("timer_stats", false),
    ("sched_debug", false),
    ("scsi", true),
];

/// Parts of /proc that can be read and not written.
const READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// Opens everything of the host. Must happen in a mount namespace in which the caller has power: process 1, or the launcher for it.
pub fn open(sandbox: &Sandbox, is_launchers: bool) -> Result<Sources> {
    let closed = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let layer = |path: &PathBuf| {
        let layer = if is_launchers { copy_tree(CWD, path, false) } else { open_directory(CWD, path) };
        layer.doing(format!("open layer `{}`", path.display()))
    };
    let layers = sandbox.root.layers.iter().map(layer).collect::<Result<Vec<_>>>()?;
    let kept = match &sandbox.root.writable {
        Writable::Kept(path) => {
            Some(clone_tree(path, closed, false).doing(format!("open writable layer `{}`", path.display()))?)
        }
        Writable::No | Writable::Temporary => None,
    };
    let node = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mut binds = Vec::new();
    for bind in &sandbox.binds {
        let flags = if bind.read_only { closed | MountAttrFlags::MOUNT_ATTR_RDONLY } else { closed };
        binds.push(clone_tree(&bind.source, flags, true).doing(format!("open `{}`", bind.source.display()))?);
    }
    let mut host_devices = Vec::new();
    for device in &sandbox.devices {
        host_devices.push(clone_tree(&device.source, node, true).doing(format!("open `{}`", device.source.display()))?);
    }
    Ok(Sources { layers, kept, terminal: open_terminal(sandbox, node), binds, host_devices, is_launchers })
}

/// The terminal on stdin, if the command gets it: its own name is in the host's /dev/pts, and `ttyname` finds `/dev/console` instead.
fn open_terminal(sandbox: &Sandbox, flags: MountAttrFlags) -> Option<OwnedFd> {
    let Streams::Inherit = sandbox.streams else { return None };
    let stdin = io::stdin();
    let stdin = stdin.as_fd();
    let name = rustix::termios::ttyname(stdin, Vec::new()).ok()?;
    let mount = clone_tree(Path::new(OsStr::from_bytes(name.to_bytes())), flags, false).ok()?;
    let (ours, theirs) = (rustix::fs::fstat(stdin).ok()?, rustix::fs::fstat(&mount).ok()?);
    (ours.st_rdev == theirs.st_rdev).then_some(mount)
}

impl Sources {
    /// All of them.
    pub fn files(&self) -> impl Iterator<Item = &OwnedFd> {
        let Self { layers, kept, terminal, binds, host_devices, is_launchers: _ } = self;
        layers.iter().chain(kept).chain(terminal).chain(binds).chain(host_devices)
    }
}

/// A copy of a mount, or of a part of one, that is attached nowhere.
pub fn clone_tree(path: &Path, flags: MountAttrFlags, recursive: bool) -> io::Result<OwnedFd> {
    let tree = copy_tree(CWD, path, recursive)?;
    sys::mount_setattr(tree.as_fd(), u64::from(flags.bits()), libc::MS_PRIVATE, true)?;
    Ok(tree)
}

/// The same, with the attributes that it has; of the directory itself if the path is empty.
fn copy_tree(directory: impl AsFd, path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let directory = directory.as_fd();
    let clone = COPY | OpenTreeFlags::AT_EMPTY_PATH;
    let whole = clone | OpenTreeFlags::AT_RECURSIVE;
    match rustix::mount::open_tree(directory, path, if recursive { whole } else { clone }) {
        // Something is mounted below that an ordinary user may not uncover.
        Err(Errno::INVAL) if !recursive => Ok(rustix::mount::open_tree(directory, path, whole)?),
        result => Ok(result?),
    }
}

fn open_directory(directory: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, path, flags, Mode::empty())?)
}

/// Builds the root and makes it the process's own.
pub fn enter(sandbox: &Sandbox, sources: Sources, namespace: UserNamespace) -> Result<Entered> {
    // Without this our mounts would show up on the host, and pivot_root(2) refuses a shared mount.
    let host = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).doing("open `/`")?;
    sys::mount_setattr(host.as_fd(), 0, libc::MS_PRIVATE, true).doing("make the host's mounts private")?;

    let size = sandbox.bounds.memory_files.or(sandbox.limits.memory).map(|bytes| bytes.to_string());
    let mut scratch = Scratch::new(size.as_deref(), namespace)?;
    let root = overlay::mount(sandbox, &sources, &mut scratch, &host, namespace)?;
    let mut builder = Builder { kept: sources.kept.is_some(), root, made: Vec::new() };
    let (proc, kernel_settings) = builder.proc(&scratch)?;
    let terminal = builder.dev(sandbox, &sources, namespace, &scratch)?;
    builder.sys(sandbox, namespace, &scratch)?;
    let tmp = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    builder.attach(&scratch.part("tmp", tmp).doing("make /tmp")?, "/tmp", FileType::Directory)?;
    for mount in sandbox.mounts() {
        match mount {
            Mount::Memory(memory) => builder.memory(memory, size.as_deref())?,
            Mount::Content(index, content) => builder.content(content, &scratch.mount, index)?,
            Mount::Device(index, device) => builder.bind(&sources.host_devices[index], &device.target)?,
            Mount::Bind(index, bind) => builder.bind(&sources.binds[index], &bind.target)?,
        }
    }
    if let Writable::No = sandbox.root.writable {
        let read_only = u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits());
        sys::mount_setattr(builder.root.as_fd(), read_only, 0, false).doing("make the root read-only")?;
    }

    scratch.go_with(&host, &sources);
    rustix::process::fchdir(&builder.root).doing("enter the root")?;
    // pivot_root(".", ".") stacks the old root over the new one, and needs no directory for it: pivot_root(2), NOTES.
    rustix::process::pivot_root(".", ".").doing("pivot_root")?;
    // What lies uppermost at `.` is the scratch tmpfs, if it is attached, then the host's root.
    if scratch.attached {
        rustix::mount::unmount(".", UnmountFlags::DETACH).doing("unmount the scratch tmpfs")?;
    }
    rustix::mount::unmount(".", UnmountFlags::DETACH).doing("unmount the host's root")?;
    rustix::process::chdir("/").doing("enter the root")?;
    Ok(Entered { made: builder.made, terminal, proc, kernel_settings })
}

/// A root while it is put together.
pub struct Builder {
    root: OwnedFd,
    /// Mount points must be remembered, as the upper layer outlives the run.
    kept: bool,
    made: Vec<MountPoint>,
}

impl Builder {
    /// Of a mount that is attached somewhere.
    pub fn new(root: OwnedFd) -> Self {
        Self { root, kept: false, made: Vec::new() }
    }

    /// The root itself.
    pub fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// Whether nothing is at a path.
    pub fn is_missing(&self, path: &Path) -> bool {
        matches!(inside(&self.root, path), Err(Errno::NOENT))
    }

    /// Opens a path of the root; makes it if it is missing.
    pub fn make(&mut self, path: &Path, kind: FileType) -> Result<OwnedFd> {
        self.ensure(path, kind, 0)
    }

    /// Lets nobody write to what is at a path, if anything is.
    pub fn make_read_only(&mut self, path: &Path) -> Result<()> {
        let what = || format!("make `{}` read-only", path.display());
        let target = match inside(&self.root, path) {
            Ok(target) => target,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(error) => return Err(error).doing(what()),
        };
        let flags = COPY | OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE;
        let copy = rustix::mount::open_tree(&target, "", flags).doing(what())?;
        let read_only = u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits());
        sys::mount_setattr(copy.as_fd(), read_only, 0, true).doing(what())?;
        move_mount(&copy, &target).doing(what())
    }

    /// Lets nobody see what is at a path, if anything is: a file is the null device, a directory is empty.
    pub fn mask(&mut self, path: &Path, masks: &mut Masks) -> Result<()> {
        let what = || format!("mask `{}`", path.display());
        let target = match inside(&self.root, path) {
            Ok(target) => target,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(error) => return Err(error).doing(what()),
        };
        let status = rustix::fs::fstat(&target).doing(what())?;
        masks.put(&target, FileType::from_raw_mode(status.st_mode) == FileType::Directory).doing(what())
    }

    /// Gives it, and what is below its cover of the kernel's settings.
    fn proc(&mut self, scratch: &Scratch) -> Result<(OwnedFd, Option<OwnedFd>)> {
        let closed =
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let proc = new_mount("proc", &[], closed)
            .doing("mount /proc (the host's own /proc must not be partly covered, as it is in most containers)")?;
        self.attach(&proc, "/proc", FileType::Directory)?;
        let kernel_settings = below(&proc, "sys")?;
        let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY;
        // Names of a mount of our own making, which has no symlinks among these.
        let put = |mask: &OwnedFd, name: &str| {
            rustix::mount::move_mount(mask, "", &proc, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        };
        for (name, directory) in MASKED {
            // A mask that found nothing to cover would have to be unmounted by itself, which waits: see `Scratch::go_with`.
            if below(&proc, name)?.is_some() {
                let mask = scratch.mask(directory).doing(format!("mask `/proc/{name}`"))?;
                put(&mask, name).doing(format!("mask `/proc/{name}`"))?;
            }
        }
        for name in READ_ONLY {
            let copy = match rustix::mount::open_tree(&proc, name, COPY) {
                Ok(copy) => copy,
                Err(Errno::NOENT | Errno::ACCESS) => continue,
                Err(error) => return Err(error).doing(format!("copy `/proc/{name}`")),
            };
            sys::mount_setattr(copy.as_fd(), u64::from(read_only.bits()), 0, true)
                .doing(format!("make `/proc/{name}` read-only"))?;
            put(&copy, name).doing(format!("mount `/proc/{name}` read-only"))?;
        }
        Ok((proc, kernel_settings))
    }

    fn dev(
        &mut self,
        sandbox: &Sandbox,
        sources: &Sources,
        namespace: UserNamespace,
        scratch: &Scratch,
    ) -> Result<Option<Terminal>> {
        let closed = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let dev = scratch.part("dev", closed).doing("make /dev")?;
        self.attach(&dev, "/dev", FileType::Directory)?;
        if !scratch.has_nodes {
            for (name, ..) in DEVICES {
                let device = clone_tree(&Path::new("/dev").join(name), closed, false);
                let device = device.doing(format!("open `/dev/{name}`"))?;
                attach_new_file(&dev, name, &device).doing(format!("mount `/dev/{name}`"))?;
            }
        }
        if let Some(terminal) = &sources.terminal {
            attach_new_file(&dev, "console", terminal).doing("mount `/dev/console`")?;
        }
        let options = [("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
        // The group `tty`, where that id exists: not in a namespace with one group, and not in every container.
        let pts = match namespace {
            UserNamespace::Last => new_mount("devpts", &options, closed).ok(),
            UserNamespace::First => None,
        };
        let pts = pts.map_or_else(|| new_mount("devpts", &options[..2], closed), Ok).doing("make /dev/pts")?;
        attach_new(&dev, "pts", &pts).doing("mount `/dev/pts`")?;
        let terminal = match sandbox.streams {
            Streams::Terminal => Some(new_terminal(&dev, &pts, sandbox).doing("make a terminal")?),
            Streams::Inherit | Streams::File(_) | Streams::Files(..) => None,
        };
        let shm = scratch.part("shm", closed | MountAttrFlags::MOUNT_ATTR_NODEV).doing("make /dev/shm")?;
        attach_new(&dev, "shm", &shm).doing("mount `/dev/shm`")?;
        for (name, target) in [
            ("ptmx", "pts/ptmx"),
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
        ] {
            rustix::fs::symlinkat(target, &dev, name).doing(format!("link `/dev/{name}`"))?;
        }
        Ok(terminal)
    }

    /// The sysfs of a network namespace of our own, read-only; else an empty directory. A build step sees none: the hardware of the
    /// machine is not among its inputs.
    fn sys(&mut self, sandbox: &Sandbox, namespace: UserNamespace, scratch: &Scratch) -> Result<()> {
        let closed = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC
            | MountAttrFlags::MOUNT_ATTR_RDONLY;
        let real = match sandbox.network {
            // One that is made later (`UserNamespace::network_is_late`) cannot be shown.
            Network::None if !sandbox.pretend_root && !sandbox.one_user && !namespace.network_is_late(sandbox) => {
                new_mount("sysfs", &[], closed).ok()
            }
            Network::None | Network::Host => None,
        };
        let is_real = real.is_some();
        let empty = || scratch.part("empty", closed).doing("make an empty directory");
        let sys = real.map_or_else(empty, Ok)?;
        self.attach(&sys, "/sys", FileType::Directory)?;
        if is_real {
            for name in ["firmware", "devices/virtual/powercap"] {
                if let Some(target) = below(&sys, name)? {
                    move_mount(&empty()?, &target).doing(format!("mask `/sys/{name}`"))?;
                }
            }
        }
        Ok(())
    }

    fn memory(&mut self, mount: &MemoryMount, size: Option<&str>) -> Result<()> {
        let closed = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        let what = || format!("make a tmpfs for `{}`", mount.target.display());
        let own = mount.size.map(|bytes| bytes.to_string());
        let tmpfs = tmpfs(&format!("{:o}", mount.mode), own.as_deref().or(size), closed).doing(what())?;
        self.attach(&tmpfs, &mount.target, FileType::Directory)
    }

    /// A file of the scratch tmpfs, which lives on for as long as something of it is mounted.
    fn content(&mut self, content: &Content, scratch: &OwnedFd, index: usize) -> Result<()> {
        let what = || format!("make `{}`", content.target.display());
        let name = format!("content-{index}");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(scratch, &name, flags, Mode::from_raw_mode(0o644)).doing(what())?;
        std::fs::File::from(file).write_all(&content.bytes).doing(what())?;
        let mount = rustix::mount::open_tree(scratch, &name, COPY).doing(what())?;
        let closed = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        sys::mount_setattr(mount.as_fd(), u64::from(closed.bits()), 0, false).doing(what())?;
        self.attach(&mount, &content.target, FileType::RegularFile)
    }

    fn bind(&mut self, source: &OwnedFd, target: &Path) -> Result<()> {
        let status = rustix::fs::fstat(source).doing(format!("read the type of `{}`", target.display()))?;
        self.attach(source, target, FileType::from_raw_mode(status.st_mode))
    }

    /// Mounts onto a path of the root, which is made if it is missing.
    pub fn attach(&mut self, mount: &OwnedFd, path: impl AsRef<Path>, kind: FileType) -> Result<()> {
        let path = path.as_ref();
        let target = self.ensure(path, kind, 0)?;
        move_mount(mount, &target).doing(format!("mount `{}`", path.display()))
    }

    /// Opens a path of the root; makes it, and the directories above it, if it is missing.
    fn ensure(&mut self, path: &Path, kind: FileType, links: usize) -> Result<OwnedFd> {
        let what = || format!("make the mount point `{}`", path.display());
        match inside(&self.root, path) {
            Err(Errno::NOENT) => {}
            result => return result.doing(what()),
        }
        let name = path.file_name().ok_or(Errno::INVAL).doing(what())?;
        let parent_path = path.parent().unwrap_or(Path::new("/"));
        let parent = self.ensure(parent_path, FileType::Directory, links)?;
        let made = if kind == FileType::Directory {
            rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))
        } else {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        };
        match made {
            Ok(()) => {}
            // It is there and did not resolve: a symlink that leads to nothing yet, as `/etc/resolv.conf` often is.
            Err(Errno::EXIST) if links < 40 => {
                let target = rustix::fs::readlinkat(&parent, name, Vec::new()).doing(what())?;
                let target = parent_path.join(OsStr::from_bytes(target.as_bytes()));
                return self.ensure(&target, kind, links + 1);
            }
            Err(error) => return Err(error).doing(what()),
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = rustix::fs::openat(&parent, name, flags, Mode::empty()).doing(what())?;
        if self.kept {
            self.remember(target.as_fd()).doing(what())?;
        }
        Ok(target)
    }

    /// Notes where a mount point was made, by the kernel's own name for it: the path may have led through symlinks.
    fn remember(&mut self, target: BorrowedFd<'_>) -> io::Result<()> {
        let (root, path) = (name_of(self.root.as_fd())?, name_of(target)?);
        if let Ok(relative) = path.strip_prefix(&root) {
            self.made.push(MountPoint(relative.to_owned()));
        }
        Ok(())
    }
}

/// What lies in memory: one file system with one bound, of which parts are mounted.
pub struct Scratch {
    /// The whole of it.
    pub mount: OwnedFd,
    /// Whether it lies over the host's root, as older kernels want it.
    pub attached: bool,
    /// Whether `dev` has device nodes of its own: in a user namespace nobody can make them, and the host's are mounted.
    has_nodes: bool,
}

impl Scratch {
    fn new(size: Option<&str>, namespace: UserNamespace) -> Result<Self> {
        let mount = tmpfs("0755", size, MountAttrFlags::empty()).doing("make a tmpfs")?;
        for (name, mode) in [("work", 0o755), ("dev", 0o755), ("shm", 0o1777), ("tmp", 0o1777), ("empty", 0o555)] {
            rustix::fs::mkdirat(&mount, name, Mode::from_raw_mode(mode)).doing("make a directory of the tmpfs")?;
        }
        let mut scratch = Self { mount, attached: false, has_nodes: namespace == UserNamespace::Last };
        for (name, major, minor) in DEVICES {
            // In a container it may be forbidden to root as well.
            scratch.has_nodes = scratch.has_nodes && scratch.node(name, major, minor).is_ok();
        }
        if namespace == UserNamespace::Last && !scratch.has_nodes {
            for (name, ..) in DEVICES {
                let _ = rustix::fs::unlinkat(&scratch.mount, format!("dev/{name}"), AtFlags::empty());
            }
        }
        Ok(scratch)
    }

    /// A device that can be opened, which a file system that is mounted in a user namespace refuses.
    fn node(&self, name: &str, major: u32, minor: u32) -> io::Result<()> {
        let (mode, device) = (Mode::from_raw_mode(0o666), rustix::fs::makedev(major, minor));
        Ok(rustix::fs::mknodat(&self.mount, format!("dev/{name}"), FileType::CharacterDevice, mode, device)?)
    }

    /// Attaches it, if it is attached nowhere, to what goes away with the host's tree. Else it would go when it is closed, and the kernel
    /// waits for a grace period of the whole machine for each mount that goes by itself: 0.1 ms, more than all that is mounted takes.
    fn go_with(&self, host: &OwnedFd, sources: &Sources) {
        // The root is over the host's by now: what is attached there would lie over it.
        let identity = |fd: &OwnedFd| rustix::fs::fstat(fd).ok().map(|status| (status.st_dev, status.st_ino));
        if let Some(layer) = sources.layers.first()
            && !self.attached
            && identity(layer) != identity(host)
        {
            let _ = move_mount(&self.mount, layer);
        }
    }

    /// A part of it as a mount.
    fn part(&self, name: &str, flags: MountAttrFlags) -> io::Result<OwnedFd> {
        let part = rustix::mount::open_tree(&self.mount, name, COPY)?;
        sys::mount_setattr(part.as_fd(), u64::from(flags.bits()), 0, false)?;
        Ok(part)
    }

    /// What lies over what nobody is to see: a directory that is empty, or the null device.
    fn mask(&self, directory: bool) -> io::Result<OwnedFd> {
        let closed = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        match (directory, self.has_nodes) {
            (true, _) => {
                self.part("empty", closed | MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV)
            }
            (false, true) => self.part("dev/null", closed),
            (false, false) => clone_tree(Path::new("/dev/null"), closed, false),
        }
    }
}

/// A terminal of this `/dev/pts`, mounted at `/dev/console` too. Everything goes by descriptor from mounts of our own making: no path
/// of the root is followed, and what is mounted is the very terminal that was made (CVE-2025-52565).
fn new_terminal(dev: &OwnedFd, pts: &OwnedFd, sandbox: &Sandbox) -> io::Result<Terminal> {
    let terminal = terminal_of(pts, sandbox.user.0)?;
    attach_new_file(dev, "console", &clone_mount(&terminal.far)?)?;
    Ok(terminal)
}

/// A new terminal of a file system of terminals, which it must be.
pub fn terminal_of(pts: &OwnedFd, uid: u32) -> io::Result<Terminal> {
    const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
    if rustix::fs::fstatfs(pts)?.f_type != DEVPTS_SUPER_MAGIC {
        return Err(io::Error::other("what is mounted at /dev/pts is no file system of terminals"));
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let near = rustix::fs::openat(pts, "ptmx", flags, Mode::empty())?;
    rustix::pty::unlockpt(&near)?;
    let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY | rustix::pty::OpenptFlags::CLOEXEC;
    let far = rustix::pty::ioctl_tiocgptpeer(&near, flags)?;
    // An id that does not exist here cannot own it, and need not: then there is one user.
    let _ = rustix::fs::fchown(&far, Some(Uid::from_raw(uid)), None);
    Ok(Terminal { near, far })
}

/// What lies over what nobody is to see.
pub struct Masks {
    empty: OwnedFd,
    null: OwnedFd,
    /// A mount that is attached nowhere can be copied since Linux 6.15 only: so each is attached itself first, and then copied.
    attached: [bool; 2],
}

impl Masks {
    /// With this null device.
    pub fn new(null: OwnedFd) -> io::Result<Self> {
        let empty = tmpfs("0555", Some("4096"), MountAttrFlags::MOUNT_ATTR_RDONLY)?;
        Ok(Self { empty, null, attached: [false; 2] })
    }

    fn put(&mut self, target: &OwnedFd, directory: bool) -> io::Result<()> {
        let mask = if directory { &self.empty } else { &self.null };
        match std::mem::replace(&mut self.attached[usize::from(directory)], true) {
            false => move_mount(mask, target),
            true => move_mount(&clone_mount(mask)?, target),
        }
    }
}

fn name_of(fd: BorrowedFd<'_>) -> io::Result<PathBuf> {
    use std::os::fd::AsRawFd;
    let name = rustix::fs::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new())?;
    Ok(PathBuf::from(OsStr::from_bytes(name.as_bytes())))
}

fn inside(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        // EAGAIN: something was renamed meanwhile and the kernel cannot tell whether a `..` left the root: openat2(2).
        match rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Opens a part of a mount of our own making; `None` if this kernel does not have it.
fn below(mount: &OwnedFd, path: &str) -> Result<Option<OwnedFd>> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(mount, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::ACCESS) => Ok(None),
        Err(error) => Err(error).doing(format!("open `{path}` of a new mount")),
    }
}
