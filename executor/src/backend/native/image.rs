//! What is mounted for one run before its sandbox is made: a squashfs in a file, so that nothing is unpacked; a directory in memory.
//!
//! The mount is made in a mount namespace of this process's own, over a loop device that clears itself: when the process ends,
//! however it ends, the kernel takes both away, and nobody else ever saw them.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::{small, sys, userns};
use crate::{Error, Result, RootFs};

/// A mounted file; unmounted when dropped.
#[derive(Debug)]
pub struct MountedImage {
    path: PathBuf,
}

/// How often another process may take the device that was free a moment ago.
const ATTEMPTS: usize = 64;

impl MountedImage {
    /// Mounts `length` bytes of a file from `offset` on at a directory, read-only, without set-user-id and devices. Only root can. From
    /// then on the calling thread has a mount namespace of its own.
    ///
    /// The kernel reads the bytes as a file system: who mounts what an enemy wrote trusts the kernel to withstand it.
    pub fn new(file: &File, offset: u64, length: u64, path: &Path) -> Result<Self> {
        let failed = |action: &str| {
            let action = format!("{action} for `{}`", path.display());
            move |source: io::Error| Error::Setup { action, source }
        };
        own_mounts().map_err(failed("make a mount namespace"))?;
        let (device, name) = loop_device(file, offset, length).map_err(failed("attach a loop device"))?;
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount(name.as_path(), path, c"squashfs", flags, None)
            .map_err(|errno| failed("mount the squashfs")(errno.into()))?;
        // The mount holds the device from here on; the last one to let go clears it.
        drop(device);
        Ok(Self { path: path.to_owned() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for MountedImage {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.path, UnmountFlags::DETACH);
    }
}

/// A squashfs that a program reads for the kernel (FUSE), which so needs not trust it; unmounted when dropped, and with this process.
#[derive(Debug)]
pub struct ServedImage {
    path: PathBuf,
    server: Child,
}

/// How long a server may take until the files are there.
const SERVED_WITHIN: Duration = Duration::from_secs(20);

impl ServedImage {
    /// Lets `program`, which takes the words of squashfuse, show a file's squashfs from `offset` on at a directory. From then on the calling
    /// thread has a mount namespace of its own, and in that of an ordinary user, who is root in a user namespace then, the process
    /// must have one thread.
    pub fn new(program: &Path, file: &Path, offset: u64, path: &Path) -> Result<Self> {
        let failed = |source: io::Error| Error::Setup { action: format!("serve `{}` by FUSE", file.display()), source };
        own_user_and_mounts()?;
        let mut command = Command::new(program);
        command.args(["-f", "-o"]).arg(format!("ro,nosuid,nodev,offset={offset}")).arg(file).arg(path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        sys::end_with_us_in(&mut command, Vec::new());
        let mut served = Self { path: path.to_owned(), server: command.spawn().map_err(failed)? };
        let begun = Instant::now();
        while !is_served(path) {
            if let Some(status) = served.server.try_wait().map_err(failed)? {
                let mut said = String::new();
                let stderr = served.server.stderr.take();
                let _ = stderr.map(|stderr| stderr.take(4096).read_to_string(&mut said));
                let said = said.trim();
                let why = if said.is_empty() { status.to_string() } else { said.to_owned() };
                return Err(failed(io::Error::other(why)));
            }
            if begun.elapsed() > SERVED_WITHIN {
                return Err(failed(io::ErrorKind::TimedOut.into()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(served)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ServedImage {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.path, UnmountFlags::DETACH);
        // It ends when nothing is mounted any more, or now.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn is_served(path: &Path) -> bool {
    const FUSE_SUPER_MAGIC: rustix::fs::FsWord = 0x6573_5546;
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type == FUSE_SUPER_MAGIC)
}

/// A directory in memory with a bound, for one run; gone when dropped, and with this process.
#[derive(Debug)]
pub struct MemoryDirectory {
    path: PathBuf,
}

impl MemoryDirectory {
    /// Mounts it at a directory. Only root can. From then on the calling thread has a mount namespace of its own.
    pub fn new(path: &Path, most: u64) -> Result<Self> {
        let failed = |source: io::Error| Error::Setup { action: "make a directory in memory".to_owned(), source };
        own_mounts().map_err(failed)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        let options = std::ffi::CString::new(format!("mode=0777,size={most},nr_inodes=200000")).expect("no zero in it");
        rustix::mount::mount("tmpfs", path, "tmpfs", flags, options.as_c_str())
            .map_err(|errno| failed(errno.into()))?;
        Ok(Self { path: path.to_owned() })
    }
}

impl Drop for MemoryDirectory {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.path, UnmountFlags::DETACH);
    }
}

/// A root for another runtime: layers under a writable directory in memory, as one directory; gone when dropped, and with this process.
#[derive(Debug)]
pub struct MountedRoot {
    place: PathBuf,
    root: PathBuf,
    bundle: PathBuf,
    users_own: bool,
}

impl MountedRoot {
    /// Mounts it in a directory. From then on the calling thread has a mount namespace of its own, and in that of an ordinary user, who
    /// gets a user namespace too and is root in it, the process must have one thread.
    pub fn new(root: &RootFs, place: &Path, most: Option<u64>) -> Result<Self> {
        let failed = |source: io::Error| Error::Setup { action: "make a root for another runtime".to_owned(), source };
        let users_own = own_user_and_mounts()?;
        let size = most.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
        let options = std::ffi::CString::new(format!("mode=0755{size}")).expect("no zero in it");
        rustix::mount::mount("tmpfs", place, "tmpfs", MountFlags::empty(), options.as_c_str())
            .map_err(|errno| failed(errno.into()))?;
        let mounted =
            Self { place: place.to_owned(), root: place.join("root"), bundle: place.join("bundle"), users_own };
        mounted.fill(root).map_err(failed)?;
        Ok(mounted)
    }

    fn fill(&self, root: &RootFs) -> io::Result<()> {
        use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
        let (upper, work) = (self.place.join("upper"), self.place.join("work"));
        for path in [&upper, &work, &self.root] {
            std::fs::DirBuilder::new().mode(0o755).create(path)?;
        }
        // Where the runtime keeps its state nobody else may look.
        std::fs::DirBuilder::new().mode(0o700).create(&self.bundle)?;
        let top = root.layers.last().ok_or(io::ErrorKind::NotFound)?.metadata()?;
        let _ = std::os::unix::fs::chown(&upper, Some(top.uid()), Some(top.gid()));
        std::fs::set_permissions(&upper, std::fs::Permissions::from_mode(top.mode() & 0o7777))?;
        // overlayfs wants the topmost first, and takes `:` and `,` for itself.
        let mut options = b"lowerdir=".to_vec();
        for (index, layer) in root.layers.iter().rev().enumerate() {
            options.extend((index > 0).then_some(b':'));
            options.extend(escaped(layer));
        }
        for (key, path) in [(&b",upperdir="[..], &upper), (&b",workdir="[..], &work)] {
            options.extend(key);
            options.extend(escaped(path));
        }
        options.extend(if self.users_own { &b",volatile,userxattr"[..] } else { &b",volatile,redirect_dir=off"[..] });
        let options = std::ffi::CString::new(options)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        Ok(rustix::mount::mount("overlay", &self.root, "overlay", flags, options.as_c_str())?)
    }

    /// The root.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// An empty directory that nobody else can look into.
    pub fn beside(&self) -> &Path {
        &self.bundle
    }

    /// Whether this process is now root in a user namespace with one user.
    pub fn is_users_own(&self) -> bool {
        self.users_own
    }
}

impl Drop for MountedRoot {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.root, UnmountFlags::DETACH);
        let _ = rustix::mount::unmount(&self.place, UnmountFlags::DETACH);
    }
}

fn escaped(path: &Path) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    let bytes = path.as_os_str().as_bytes().iter();
    bytes.flat_map(|byte| matches!(byte, b'\\' | b':' | b',').then_some(b'\\').into_iter().chain([*byte])).collect()
}

/// Gives this process, which has one thread if it is an ordinary user's, the power to mount where nobody else sees it. Says whether that
/// took a user namespace.
fn own_user_and_mounts() -> Result<bool> {
    let failed = |source: io::Error| Error::Setup { action: "make a mount namespace".to_owned(), source };
    let users_own = !userns::is_privileged();
    if users_own && !sys::has_one_thread() {
        // Laying a formation out takes threads, and the kernel gives a user namespace to none of several.
        let action = "make a user namespace, as the formation was laid out only now: run it once more".to_owned();
        return Err(Error::Setup { action, source: io::ErrorKind::ResourceBusy.into() });
    }
    if users_own {
        let ids = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        sys::unshare(libc::CLONE_NEWUSER).map_err(userns::refused)?;
        small::write("/proc/self/setgroups", "deny").map_err(failed)?;
        small::write("/proc/self/uid_map", &format!("0 {} 1", ids.0)).map_err(failed)?;
        small::write("/proc/self/gid_map", &format!("0 {} 1", ids.1)).map_err(failed)?;
    }
    own_mounts().map_err(failed)?;
    Ok(users_own)
}

/// Gives this thread a mount namespace that nothing goes out of.
fn own_mounts() -> io::Result<()> {
    sys::unshare(libc::CLONE_NEWNS)?;
    Ok(rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

fn loop_device(file: &File, offset: u64, length: u64) -> io::Result<(File, PathBuf)> {
    let open = |path: &Path| rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let control = open(Path::new("/dev/loop-control"))?;
    let mut attempts = 0;
    loop {
        let number = sys::free_loop_device(control.as_fd())?;
        let name = PathBuf::from(format!("/dev/loop{number}"));
        let device = match open(&name) {
            // A private /dev, as in a container, has the devices of when it was made.
            Err(rustix::io::Errno::NOENT) => {
                return Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no `{}`", name.display())));
            }
            device => device?,
        };
        match sys::configure_loop_device(device.as_fd(), file.as_fd(), offset, length) {
            Ok(()) => return Ok((device.into(), name)),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && attempts < ATTEMPTS => attempts += 1,
            Err(error) => return Err(error),
        }
    }
}
