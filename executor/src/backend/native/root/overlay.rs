//! The layers of a root, put together by overlayfs.
//!
//! Where the kernel takes them by descriptor, no layer and no writable directory is ever attached to a mount table. Before Linux 6.15
//! they must be: then the scratch lies over the host's root, has them all in it, and they are named by paths relative to it.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags};

use super::{Result, Scratch, Sources, attach_new, copy_tree, move_mount, open_directory};
use crate::Sandbox;
use crate::backend::native::message::Doing;
use crate::backend::native::sys;
use crate::backend::native::userns::{self, UserNamespace};

/// What is always said, whatever the kernel's own defaults are.
const SETTINGS: [(&str, &str); 3] = [("index", "off"), ("xino", "off"), ("metacopy", "off")];

/// Mounts the overlay over `host`, which is the process's root, or into the scratch over it.
pub fn mount(
    sandbox: &Sandbox,
    sources: &Sources,
    scratch: &mut Scratch,
    host: &OwnedFd,
    namespace: UserNamespace,
) -> Result<OwnedFd> {
    make_upper(sources, scratch)?;
    // In a user namespace overlayfs may not use `trusted.overlay.*`; root's own runs may, which also works on a tmpfs of old kernels.
    let marks_for_users = !(namespace == UserNamespace::Last && userns::is_initial());
    // A try that fails halfway leaves a mark in the work directory which the next one refuses: it is not made where it must fail.
    if !sources.is_launchers
        && let Ok(root) = by_descriptors(sources, scratch, host, marks_for_users)
    {
        move_mount(&root, host).doing("mount the root over `/`")?;
        return Ok(root);
    }
    move_mount(&scratch.mount, host).doing("mount a tmpfs over `/`")?;
    scratch.attached = true;
    by_paths(sandbox, sources, scratch, marks_for_users)
}

/// Makes the writable directory, which gives the root its mode and owner: those of the topmost layer's.
fn make_upper(sources: &Sources, scratch: &Scratch) -> Result<()> {
    let top = sources.layers.last().ok_or(Errno::INVAL).doing("find a layer: a root needs one")?;
    let status = rustix::fs::fstat(top).doing("read the root's mode")?;
    let mode = Mode::from_raw_mode(status.st_mode & 0o7777);
    let directory = sources.kept.as_ref().unwrap_or(&scratch.mount);
    let made = match rustix::fs::mkdirat(directory, "upper", mode) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(error).doing("make the writable layer"),
    };
    if let Some(kept) = &sources.kept
        && let Err(error) = rustix::fs::mkdirat(kept, "work", Mode::from_raw_mode(0o755))
        && error != Errno::EXIST
    {
        return Err(error).doing("make the directory `work` of the writable layer");
    }
    let root_owns = rustix::process::geteuid().is_root() && status.st_uid == 0 && status.st_gid == 0;
    if !(made && root_owns) {
        let (user, group) = (Uid::from_raw(status.st_uid), Gid::from_raw(status.st_gid));
        let _ = rustix::fs::chownat(directory, "upper", Some(user), Some(group), AtFlags::empty());
        rustix::fs::chmodat(directory, "upper", mode, AtFlags::empty()).doing("set the root's mode")?;
    } else if status.st_mode & 0o6000 != 0 {
        rustix::fs::chmodat(directory, "upper", mode, AtFlags::empty()).doing("set the root's mode")?;
    }
    Ok(())
}

fn by_descriptors(sources: &Sources, scratch: &Scratch, host: &OwnedFd, marks_for_users: bool) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // The topmost first. The kernel notes the path that a layer has as seen from the process's root, and shows it to everybody inside
    // (`/proc/mounts`): where the store is, and whose, is no business of theirs. Seen from itself, a layer is `/`.
    let named = sources.layers.iter().rev().try_for_each(|layer| {
        make_root(layer)?;
        rustix::mount::fsconfig_set_fd(&context, "lowerdir+", layer.as_fd())
    });
    make_root(host)?;
    named?;
    let directory = sources.kept.as_ref().unwrap_or(&scratch.mount);
    for (key, name) in [("upperdir", "upper"), ("workdir", "work")] {
        let part = open_directory(directory, Path::new(name))?;
        rustix::mount::fsconfig_set_fd(&context, key, part.as_fd())?;
    }
    for (key, value) in SETTINGS {
        rustix::mount::fsconfig_set_string(&context, key, value)?;
    }
    // What is kept is never synced: it is read back at once, and thrown away if the machine falls over. Memory needs no flag for that.
    if sources.kept.is_some() {
        rustix::mount::fsconfig_set_flag(&context, "volatile")?;
    }
    match marks_for_users {
        true => rustix::mount::fsconfig_set_flag(&context, "userxattr")?,
        false => rustix::mount::fsconfig_set_string(&context, "redirect_dir", "off")?,
    }
    rustix::mount::fsconfig_create(&context)?;
    let closed = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, closed)?)
}

fn make_root(directory: &OwnedFd) -> rustix::io::Result<()> {
    rustix::process::fchdir(directory)?;
    rustix::process::chroot(".")
}

/// At `root` in the scratch, which is over `/`.
fn by_paths(sandbox: &Sandbox, sources: &Sources, scratch: &Scratch, marks_for_users: bool) -> Result<OwnedFd> {
    let scratch = &scratch.mount;
    rustix::process::fchdir(scratch).doing("enter the tmpfs")?;
    let closed = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mut lower = Vec::new();
    for (index, layer) in sources.layers.iter().enumerate() {
        let name = index.to_string();
        let what = || format!("mount layer `{}`", sandbox.root.layers[index].display());
        let copy = match sources.is_launchers {
            true => None,
            false => Some(copy_tree(layer, Path::new(""), false).doing(what())?),
        };
        let layer = copy.as_ref().unwrap_or(layer);
        sys::mount_setattr(layer.as_fd(), u64::from(closed.bits()), libc::MS_PRIVATE, true).doing(what())?;
        attach_new(scratch, &name, layer).doing(what())?;
        // overlayfs wants the topmost first.
        lower.insert(0, name);
    }
    let upper = match &sources.kept {
        Some(kept) => {
            attach_new(scratch, "kept", kept).doing("mount the writable layer")?;
            "kept/"
        }
        None => "",
    };
    let mut options = format!("lowerdir={},upperdir={upper}upper,workdir={upper}work,volatile", lower.join(":"));
    SETTINGS.iter().for_each(|(key, value)| options.push_str(&format!(",{key}={value}")));
    options.push_str(if marks_for_users { ",userxattr" } else { ",redirect_dir=off" });
    rustix::fs::mkdirat(scratch, "root", Mode::from_raw_mode(0o755)).doing("make the directory of the root")?;
    let options = CString::new(options).map_err(io::Error::from).doing("name the layers")?;
    rustix::mount::mount("overlay", "root", "overlay", MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str())
        .doing("mount the layers as an overlay")?;
    open_directory(scratch, Path::new("root")).doing("open the root")
}
