//! What is mounted for one run before its sandbox is made: a squashfs in a file, so that nothing is unpacked; a directory in memory.
//!
//! The mount is made in a mount namespace of this process's own, over a loop device that clears itself: when the process ends,
//! however it ends, the kernel takes both away, and nobody else ever saw them.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::sys;
use crate::{Error, Result};

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

/// Gives this thread a mount namespace that nothing goes out of.
fn own_mounts() -> io::Result<()> {
    sys::unshare_mounts()?;
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
