//! The inodes that checkouts share by hard link, and the marks on what the caller may not own.
//!
//! Links share mode, owner and attributes, so there is one inode for each combination of these. Root's own 0644 and 0755
//! without attributes are the blobs themselves; every other combination lies below `checkouts/inodes`, under a digest of it.
//! A blob's bytes are hashed when it gets its first link, and whenever they are copied; later links trust that.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode, Uid, XattrFlags};
use rustix::io::Errno;

use super::lease::Use;
use super::objects::{blob_path, hash, pump};
use super::sparse::{self, Holes};
use super::{DEVICE_ATTRIBUTE, OWNER_ATTRIBUTE, Ownership, Store, failed, file_times, object_path};
use crate::encoding::Writer;
use crate::tree::keeps_attribute;
use crate::{BlobId, Error, File, Metadata, Result};

/// In front of the name of an attribute that only a privileged process may set (`security.capability`, ACLs), on files and
/// directories of an [`Ownership::Caller`] checkout. `user.*` attributes stand there as they are.
pub const ATTRIBUTE_PREFIX: &str = "user.forge.attribute.";

/// A device's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceNumber {
    /// A block device rather than a character device.
    pub block: bool,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// What the extended attributes of a file say that lies in an [`Ownership::Caller`] checkout, or in what a build step left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Marks {
    /// User and group, where they are not 0:0.
    pub owner: Option<(u32, u32)>,
    /// The device that an empty file stands for.
    pub device: Option<DeviceNumber>,
    /// What belongs into [`Metadata::attributes`], be it really there or marked.
    pub attributes: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Marks {
    /// Sorts a file's extended attributes. Marks that are malformed count for nothing: programs may write any.
    pub fn new(attributes: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Self {
        let mut marks = Self::default();
        let mut real = Vec::new();
        for (name, value) in attributes {
            if name == OWNER_ATTRIBUTE.as_bytes() {
                marks.owner = numbers(&value);
            } else if name == DEVICE_ATTRIBUTE.as_bytes() {
                let block = value.starts_with(b"b ");
                let number = if block { Some(&value[2..]) } else { value.strip_prefix(b"c ") }.and_then(numbers);
                let known = number.filter(|number| *number != (0, 0));
                marks.device = known.map(|(major, minor)| DeviceNumber { block, major, minor });
            } else if let Some(name) = name.strip_prefix(ATTRIBUTE_PREFIX.as_bytes()) {
                if keeps_attribute(name) {
                    marks.attributes.insert(name.to_vec(), value);
                }
            } else if keeps_attribute(&name) {
                real.push((name, value));
            }
        }
        // What a program really set is newer than the mark that a copy of the lower file brought along.
        marks.attributes.extend(real);
        marks
    }

    /// Reads the marks of what lies at `path`, a symlink itself rather than what it points to.
    pub fn of(path: &Path) -> Result<Self> {
        Ok(Self::new(attributes_of(path).map_err(failed("read the attributes of", path))?))
    }

    /// The metadata that these marks stand for.
    pub fn metadata(self, mode: u16) -> Metadata {
        let (uid, gid) = self.owner.unwrap_or_default();
        Metadata { mode, uid, gid, attributes: self.attributes }
    }
}

/// `12:34` in decimal.
fn numbers(value: &[u8]) -> Option<(u32, u32)> {
    let (first, second) = std::str::from_utf8(value).ok()?.split_once(':')?;
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    Some((number(first)?, number(second)?))
}

fn attributes_of(path: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Errno> {
    let mut attributes = BTreeMap::new();
    let names = match listed(|buffer| rustix::fs::llistxattr(path, buffer)) {
        // Nothing to find on such a file system.
        Err(Errno::OPNOTSUPP) => Vec::new(),
        names => names?,
    };
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match listed(|buffer| rustix::fs::lgetxattr(path, name, buffer)) {
            Ok(value) => _ = attributes.insert(name.to_vec(), value),
            // Listed, but not for us to read (`trusted.*`), or gone since.
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS) if !keeps_attribute(name) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(attributes)
}

/// Reads with a buffer that suffices: 64 KiB is the most that Linux gives.
fn listed(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut small = [0; 512];
    match read(&mut small) {
        Ok(length) => return Ok(small[..length].to_vec()),
        Err(Errno::RANGE) => {}
        Err(errno) => return Err(errno),
    }
    let mut buffer = vec![0; 64 * 1024];
    let length = read(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

/// Takes every attribute from a file that becomes a blob.
pub(super) fn remove_attributes(file: &fs::File) -> Result<(), Errno> {
    let names = match listed(|buffer| rustix::fs::flistxattr(file, buffer)) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        names => names?,
    };
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match rustix::fs::fremovexattr(file, name) {
            Ok(()) | Err(Errno::NODATA) => {}
            // A security module's label is not for us to take; it is not the file's content either.
            Err(_) if name.starts_with(b"security.") && name != b"security.capability" => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Gives a new file or directory of a checkout its owner, attributes, mode and time, or marks where it may not have them.
///
/// The order matters: a change of owner takes set-id bits and capabilities away, and a mode may forbid to set attributes.
pub(super) fn dress(
    file: impl AsFd,
    path: &dyn Fn() -> std::path::PathBuf,
    metadata: &Metadata,
    device: Option<DeviceNumber>,
    ownership: Ownership,
) -> Result<()> {
    let file = file.as_fd();
    let set = |name: &[u8], value: &[u8]| {
        rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()).map_err(|errno| match errno {
            Errno::OPNOTSUPP if ownership == Ownership::Caller => Error::NoAttributes { path: path() },
            errno => failed("set an extended attribute of", path())(errno),
        })
    };
    match ownership {
        Ownership::Exact => {
            let (uid, gid) = owner(metadata.uid, metadata.gid, path)?;
            rustix::fs::fchown(file, Some(uid), Some(gid))
                .map_err(|errno| failed("change the owner of", path())(errno))?;
            for (name, value) in &metadata.attributes {
                set(name, value)?;
            }
        }
        Ownership::Caller => {
            if (metadata.uid, metadata.gid) != (0, 0) {
                let owner = format!("{}:{}", metadata.uid, metadata.gid);
                set(OWNER_ATTRIBUTE.as_bytes(), owner.as_bytes())?;
            }
            if let Some(DeviceNumber { block, major, minor }) = device {
                let kind = if block { 'b' } else { 'c' };
                set(DEVICE_ATTRIBUTE.as_bytes(), format!("{kind} {major}:{minor}").as_bytes())?;
            }
            for (name, value) in &metadata.attributes {
                match name.starts_with(b"user.") {
                    true => set(name, value)?,
                    false => set(&[ATTRIBUTE_PREFIX.as_bytes(), name].concat(), value)?,
                }
            }
        }
        Ownership::Unnoted => {}
    }
    rustix::fs::fchmod(file, Mode::from_raw_mode(u32::from(metadata.mode)))
        .map_err(|errno| failed("change the mode of", path())(errno))?;
    rustix::fs::futimens(file, &file_times()).map_err(|errno| failed("set the time of", path())(errno))
}

/// A user and group as the system calls take them: 2³²-1 stands for "no change" there.
pub(super) fn owner(uid: u32, gid: u32, path: &dyn Fn() -> std::path::PathBuf) -> Result<(Uid, Gid)> {
    if uid == u32::MAX || gid == u32::MAX {
        return Err(Error::Unsupported { path: path(), reason: "no file can have the owner 4294967295" });
    }
    Ok((Uid::from_raw(uid), Gid::from_raw(gid)))
}

impl Store {
    /// The path, relative to the store, of an inode with the content, mode, owner and attributes of `file`; made if missing.
    pub(super) fn inode(&self, file: &File, ownership: Ownership) -> Result<String> {
        let metadata = &file.metadata;
        let plain = (metadata.uid, metadata.gid) == (0, 0) && metadata.attributes.is_empty();
        if plain && matches!(metadata.mode, 0o644 | 0o755) {
            let executable = metadata.mode == 0o755;
            let path = blob_path(file.blob, executable);
            let look = || rustix::fs::statat(&self.directory, &path, AtFlags::SYMLINK_NOFOLLOW);
            let mut stat = look();
            if stat.is_err_and(|errno| errno == Errno::NOENT) {
                let temporary = self.temporary()?;
                self.copy_blob(file, &temporary.file)?;
                temporary.set_mode(metadata.mode)?;
                temporary.place(&path)?;
                self.has_written();
                stat = look();
            }
            let stat = stat.map_err(failed("look at", self.full(&path)))?;
            if ownership != Ownership::Exact || (stat.st_uid, stat.st_gid) == (0, 0) {
                if stat.st_size.unsigned_abs() != file.size {
                    return Err(self.wrong_size(&path, stat.st_size.unsigned_abs(), file));
                }
                if stat.st_nlink == 1 {
                    let bytes = self.open_file(&path)?.ok_or_else(|| not_found(file.blob))?;
                    let (actual, size) = hash(&bytes).map_err(Error::file("read", self.full(&path)))?;
                    self.check(file, &path, actual, size)?;
                }
                return Ok(path);
            }
        }
        let path = inode_path(file, ownership);
        if self.size_of(&path)? != Some(file.size) {
            let temporary = self.temporary()?;
            self.copy_blob(file, &temporary.file)?;
            dress(&temporary.file, &|| self.full(&temporary.relative), metadata, None, ownership)?;
            temporary.place(&path)?;
            self.has_written();
        }
        Ok(path)
    }

    /// Copies a blob's bytes, by reference where the file system can, and hashes them.
    pub(super) fn copy_blob(&self, file: &File, to: &fs::File) -> Result<()> {
        let path = blob_path(file.blob, false);
        if !self.is_loose(Use::Blob(file.blob))
            && let Some(bytes) = self.read_packed(Use::Blob(file.blob))?
        {
            self.check(file, &path, BlobId::of(&bytes), bytes.len() as u64)?;
            return (&mut &*to).write_all(&bytes).map_err(Error::file("copy", self.full(&path)));
        }
        let source = self.open_blob(file.blob)?;
        let (actual, size) = if rustix::fs::ioctl_ficlone(to, &source).is_ok() {
            hash(&source).map_err(Error::file("read", self.full(&path)))?
        } else {
            copy(&source, to).map_err(Error::file("copy", self.full(&path)))?
        };
        self.check(file, &path, actual, size)
    }

    fn check(&self, file: &File, path: &str, actual: BlobId, size: u64) -> Result<()> {
        if actual != file.blob {
            return Err(self.mismatch(path, &actual.to_string(), &file.blob.to_string()));
        }
        if size == file.size { Ok(()) } else { Err(self.wrong_size(path, size, file)) }
    }

    /// The bytes may be right, but the tree that named them is not.
    fn wrong_size(&self, path: &str, size: u64, file: &File) -> Error {
        self.mismatch(path, &format!("a length of {size} bytes"), &format!("{} bytes of {}", file.size, file.blob))
    }
}

/// Where the inode of a file in a checkout lies, if it is not a blob itself.
pub(super) fn inode_path(file: &File, ownership: Ownership) -> String {
    object_path("checkouts/inodes", &crate::digest::to_hex(&inode_key(file, ownership)))
}

fn not_found(id: BlobId) -> Error {
    Error::NotFound { kind: "blob", id: id.to_string() }
}

fn copy(from: &fs::File, to: &fs::File) -> std::io::Result<(BlobId, u64)> {
    let mut hasher = blake3::Hasher::new();
    let size = pump(&mut Holes::new(from), &mut |bytes| {
        hasher.update(bytes);
        sparse::write(to, bytes)
    })?;
    Ok((BlobId::from_bytes(*hasher.finalize().as_bytes()), size))
}

fn inode_key(file: &File, ownership: Ownership) -> [u8; 32] {
    let mut writer = Writer::default();
    let kind = match ownership {
        Ownership::Caller => 0,
        Ownership::Exact => 1,
        Ownership::Unnoted => 2,
    };
    writer.u8(kind).digest(file.blob.as_bytes()).u64(file.size);
    crate::tree::write_metadata(&mut writer, &file.metadata);
    blake3::derive_key("forge 2026-11-21 inode v1", &writer.finish())
}
