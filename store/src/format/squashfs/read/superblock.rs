//! The first 96 bytes of an image.

use super::{Codec, Reference};

pub(super) const LENGTH: usize = 96;

/// What the first 96 bytes of an image say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// How many inodes there are.
    pub inodes: u32,
    /// When the image was made, in seconds since 1970.
    pub time: u32,
    /// Bytes of a data block: a power of two, 4 KiB to 1 MiB.
    pub block_size: u32,
    /// How many fragment blocks there are.
    pub fragments: u32,
    /// How blocks are compressed.
    pub codec: Codec,
    /// Bits that say how it was made; nothing here depends on them.
    pub flags: u16,
    /// How many owners and groups there are.
    pub ids: u16,
    /// The root directory.
    pub root: Reference,
    /// Bytes of the image, without padding.
    pub used: u64,
    pub(super) id_table: u64,
    /// None if there are no attributes.
    pub(super) attribute_table: Option<u64>,
    pub(super) inode_table: u64,
    pub(super) directory_table: u64,
    /// None if there are no fragments.
    pub(super) fragment_table: Option<u64>,
}

/// `hsqs`, and `sqsh` as a big-endian machine wrote it.
const MAGIC: [u8; 4] = *b"hsqs";
const BIG_ENDIAN: [u8; 4] = *b"sqsh";

/// Whether this is how an image begins, also one that is too old to be read.
pub(in crate::format) fn is_magic(head: &[u8]) -> bool {
    head.starts_with(&MAGIC) || head.starts_with(&BIG_ENDIAN)
}

impl Superblock {
    /// Reads it; what cannot be so in any image is refused.
    pub(super) fn parse(bytes: &[u8; LENGTH]) -> Result<Self, String> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        if bytes[..4] == BIG_ENDIAN {
            let version = u16::from_be_bytes([bytes[28], bytes[29]]);
            return Err(format!("it is big-endian, of version {version}: only little-endian 4.0 is read"));
        }
        if bytes[..4] != MAGIC {
            return Err("it does not begin as one".to_owned());
        }
        let (major, minor) = (u16_at(28), u16_at(30));
        if (major, minor) != (4, 0) {
            return Err(format!("it is of version {major}.{minor}: only 4.0 is read"));
        }
        let codec = u16_at(20);
        let codec = Codec::from_number(codec).ok_or_else(|| format!("compression {codec} is not known"))?;
        let (block_size, log) = (u32_at(12), u16_at(22));
        if !(12..=20).contains(&log) || block_size != 1 << log {
            return Err(format!("{block_size} is not the size of a block"));
        }
        let there = |at: u64| (at != u64::MAX).then_some(at);
        let used = u64_at(40);
        let superblock = Self {
            inodes: u32_at(4),
            time: u32_at(8),
            block_size,
            fragments: u32_at(16),
            codec,
            flags: u16_at(24),
            ids: u16_at(26),
            root: Reference::decode(u64_at(32)),
            used,
            id_table: u64_at(48),
            attribute_table: there(u64_at(56)),
            inode_table: u64_at(64),
            directory_table: u64_at(72),
            fragment_table: there(u64_at(80)),
        };
        let tables = [Some(superblock.id_table), superblock.attribute_table, Some(superblock.inode_table)];
        let more = [Some(superblock.directory_table), superblock.fragment_table];
        match tables.into_iter().chain(more).flatten().find(|at| *at >= used || *at < LENGTH as u64) {
            Some(at) => Err(format!("a table begins at {at} of {used} bytes")),
            None => Ok(superblock),
        }
    }
}
