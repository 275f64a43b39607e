//! Inodes: seven kinds, each in a short and a long form.

use super::Image;
use crate::Result;
use crate::tree::LONGEST_TARGET;

/// Where an inode or a listing begins: a metadata block, from the table's start, and how far in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    pub(super) block: u64,
    pub(super) offset: u16,
}

impl Reference {
    pub(super) fn decode(value: u64) -> Self {
        Self { block: value >> 16, offset: (value & 0xffff) as u16 }
    }
}

/// What is known of one file, directory or anything else, but for its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// What it is.
    pub kind: Kind,
    /// Permission, set-id and sticky bits.
    pub mode: u16,
    /// Owning user.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Hard links have the same.
    pub number: u32,
    pub(super) attributes: Option<u32>,
}

/// What an inode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory: where its listing begins, and its length.
    Directory {
        /// In the directory table.
        listing: Reference,
        /// In bytes.
        length: u32,
    },
    /// A regular file.
    File(FileInode),
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A device.
    Device {
        /// A block device rather than a character device.
        block: bool,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// Where the content of a file lies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileInode {
    /// Bytes of its content.
    pub size: u64,
    /// Of its first data block.
    pub(super) start: u64,
    /// The fragment that has its end, and where in it.
    pub(super) fragment: Option<(u32, u32)>,
    /// Where the sizes of its blocks are listed: in the image, and how far in that metadata block.
    pub(super) sizes: (u64, usize),
}

const NONE: u32 = u32::MAX;

pub(super) fn read(image: &Image, reference: Reference) -> Result<Inode> {
    let mut cursor = image.cursor(image.superblock.inode_table, reference)?;
    let bad = |reason: String| image.region.bad(reason);
    let number_of_kind = cursor.u16()?;
    let mode = cursor.u16()? & 0o7777;
    let owner = |index: u16| {
        let id = image.ids.get(usize::from(index)).copied();
        id.ok_or_else(|| bad(format!("owner {index} is not in the table of {}", image.ids.len())))
    };
    let (uid, gid) = (owner(cursor.u16()?)?, owner(cursor.u16()?)?);
    let _time = cursor.u32()?;
    let number = cursor.u32()?;
    let mut attributes = NONE;
    let kind = match number_of_kind {
        1 => {
            let (block, _links, length, offset) = (cursor.u32()?, cursor.u32()?, cursor.u16()?, cursor.u16()?);
            directory(block, offset, u32::from(length))
        }
        8 => {
            let (_links, length, block) = (cursor.u32()?, cursor.u32()?, cursor.u32()?);
            let (_parent, _index, offset) = (cursor.u32()?, cursor.u16()?, cursor.u16()?);
            attributes = cursor.u32()?;
            directory(block, offset, length)
        }
        2 => {
            let (start, fragment, offset, size) = (cursor.u32()?, cursor.u32()?, cursor.u32()?, cursor.u32()?);
            let fragment = (fragment != NONE).then_some((fragment, offset));
            Kind::File(FileInode { size: size.into(), start: start.into(), fragment, sizes: cursor.position() })
        }
        9 => {
            let (start, size, _sparse, _links) = (cursor.u64()?, cursor.u64()?, cursor.u64()?, cursor.u32()?);
            let (fragment, offset) = (cursor.u32()?, cursor.u32()?);
            attributes = cursor.u32()?;
            let fragment = (fragment != NONE).then_some((fragment, offset));
            Kind::File(FileInode { size, start, fragment, sizes: cursor.position() })
        }
        3 | 10 => {
            let (_links, length) = (cursor.u32()?, cursor.u32()?);
            if length as usize > LONGEST_TARGET {
                return Err(bad(format!("a symbolic link's target has {length} bytes")));
            }
            let target = cursor.bytes(length as usize)?;
            if target.is_empty() || target.contains(&0) {
                return Err(bad("a symbolic link's target is no path".to_owned()));
            }
            if number_of_kind == 10 {
                attributes = cursor.u32()?;
            }
            Kind::Symlink(target)
        }
        4 | 5 | 11 | 12 => {
            let (_links, device) = (cursor.u32()?, cursor.u32()?);
            if number_of_kind > 7 {
                attributes = cursor.u32()?;
            }
            // As the kernel's new_encode_dev packs it.
            let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00);
            Kind::Device { block: matches!(number_of_kind, 4 | 11), major, minor }
        }
        6 | 7 | 13 | 14 => {
            let _links = cursor.u32()?;
            if number_of_kind > 7 {
                attributes = cursor.u32()?;
            }
            if matches!(number_of_kind, 6 | 13) { Kind::Fifo } else { Kind::Socket }
        }
        other => return Err(bad(format!("there is no inode of kind {other}"))),
    };
    Ok(Inode { kind, mode, uid, gid, number, attributes: (attributes != NONE).then_some(attributes) })
}

fn directory(block: u32, offset: u16, length: u32) -> Kind {
    // `.` and `..` are not written, and counted as three bytes.
    Kind::Directory { listing: Reference { block: block.into(), offset }, length: length.saturating_sub(3) }
}

impl Kind {
    /// The number that a listing has for it.
    pub(super) fn in_listing(&self) -> u16 {
        match self {
            Self::Directory { .. } => 1,
            Self::File(_) => 2,
            Self::Symlink(_) => 3,
            Self::Device { block: true, .. } => 4,
            Self::Device { block: false, .. } => 5,
            Self::Fifo => 6,
            Self::Socket => 7,
        }
    }
}
