//! Mounts by descriptor: they are made attached nowhere, and then attached to an open directory or file. No path is looked up twice.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

/// A mount of its own of what is opened, attached nowhere: of that alone, without what is mounted below it.
pub const COPY: OpenTreeFlags = OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC);

/// A new file system.
pub fn new_mount(kind: &str, options: &[(&str, &str)], flags: MountAttrFlags) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(&context, *key, *value)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    Ok(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)?)
}

/// A new file system with options that somebody else wrote.
pub fn new_mount_of(kind: &str, source: &str, options: &[(String, Option<String>)]) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "source", source)?;
    for (key, value) in options {
        match value {
            Some(value) => rustix::mount::fsconfig_set_string(&context, key.as_str(), value.as_str())?,
            None => rustix::mount::fsconfig_set_flag(&context, key.as_str())?,
        }
    }
    rustix::mount::fsconfig_create(&context)?;
    Ok(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// A new file system in memory.
pub fn tmpfs(mode: &str, size: Option<&str>, flags: MountAttrFlags) -> io::Result<OwnedFd> {
    let mut options = vec![("mode", mode)];
    options.extend(size.map(|size| ("size", size)));
    new_mount("tmpfs", &options, flags)
}

/// A copy of an open directory or file, or of a mount as it is.
pub fn clone_mount(mount: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(rustix::mount::open_tree(mount, "", COPY | OpenTreeFlags::AT_EMPTY_PATH)?)
}

/// Attaches a mount.
pub fn move_mount(mount: &OwnedFd, target: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", target, "", flags)?)
}

/// Mounts onto a new directory.
pub fn attach_new(directory: &OwnedFd, name: &str, mount: &OwnedFd) -> io::Result<()> {
    rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(0o755))?;
    Ok(rustix::mount::move_mount(mount, "", directory, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Mounts onto a new file.
pub fn attach_new_file(directory: &OwnedFd, name: &str, mount: &OwnedFd) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    drop(rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o666))?);
    Ok(rustix::mount::move_mount(mount, "", directory, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}
