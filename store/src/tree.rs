//! What a tree is, and what is left out of it.
//!
//! A tree is one directory: its own metadata, then its entries sorted by name. There are no times, inode numbers, hard links
//! (they are equal entries), sockets or sparseness, and of extended attributes only those that change what a program may do
//! or see ([`keeps_attribute`]). The bytes are drawn in `docs/formats/tree.md`.

use std::collections::BTreeMap;

use crate::digest::{BlobId, TREE_CONTEXT, TreeId};
use crate::encoding::{DecodeError, Reader, Writer};
use crate::name::Name;

/// Permissions and ownership of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Metadata {
    /// Permission, set-id and sticky bits: 07777 at most. Always 0777 for a symlink.
    pub mode: u16,
    /// Owning user.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Extended attributes that [`keeps_attribute`] lets in, by full name.
    pub attributes: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Metadata {
    /// Owned by root, without attributes.
    pub fn root(mode: u16) -> Self {
        Self { mode, uid: 0, gid: 0, attributes: BTreeMap::new() }
    }
}

/// Whether an extended attribute belongs to a tree: capabilities, the user's own, and ACLs. Forge's own marks do not.
pub fn keeps_attribute(name: &[u8]) -> bool {
    (name == b"security.capability" || name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_"))
        && !name.starts_with(b"user.forge.")
        && !name.starts_with(b"user.overlay.")
}

/// A regular file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct File {
    /// Its content.
    pub blob: BlobId,
    /// Length of the content in bytes.
    pub size: u64,
    /// Its permissions and owner.
    pub metadata: Metadata,
}

/// What a name in a directory stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Node {
    /// A regular file.
    File(File),
    /// A directory; its metadata is part of the tree it names.
    Directory(TreeId),
    /// A symbolic link: its target (bytes, not empty, no NUL) and owner.
    Symlink {
        /// Where it points.
        target: Vec<u8>,
        /// Owning user.
        uid: u32,
        /// Owning group.
        gid: u32,
    },
    /// A named pipe.
    Fifo(Metadata),
    /// A character or block device, never 0:0 (that is overlayfs's whiteout).
    Device {
        /// A block device rather than a character device.
        block: bool,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
        /// Its permissions and owner.
        metadata: Metadata,
    },
}

/// One directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Of the directory itself.
    pub metadata: Metadata,
    /// Sorted by name, free of duplicates, because the map is.
    pub entries: BTreeMap<Name, Node>,
}

/// The version byte that starts every encoded tree.
const VERSION: u8 = 1;

impl Tree {
    /// An empty directory owned by root, mode 0755.
    pub fn empty() -> Self {
        Self { metadata: Metadata::root(0o755), entries: BTreeMap::new() }
    }

    /// The digest of the canonical encoding.
    pub fn id(&self) -> TreeId {
        Self::id_of(&self.encode())
    }

    /// The id of the tree with this encoding.
    pub fn id_of(encoded: &[u8]) -> TreeId {
        TreeId::from_bytes(blake3::derive_key(TREE_CONTEXT, encoded))
    }

    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u8(VERSION);
        write_metadata(&mut writer, &self.metadata);
        writer.count(self.entries.len());
        for (name, node) in &self.entries {
            writer.bytes(name.as_bytes());
            match node {
                Node::File(file) => {
                    writer.u8(b'f');
                    write_metadata(&mut writer, &file.metadata);
                    writer.u64(file.size).digest(file.blob.as_bytes());
                }
                Node::Directory(id) => {
                    writer.u8(b'd').digest(id.as_bytes());
                }
                Node::Symlink { target, uid, gid } => {
                    writer.u8(b'l').u32(*uid).u32(*gid).bytes(target);
                }
                Node::Fifo(metadata) => {
                    writer.u8(b'p');
                    write_metadata(&mut writer, metadata);
                }
                Node::Device { block, major, minor, metadata } => {
                    writer.u8(if *block { b'b' } else { b'c' });
                    write_metadata(&mut writer, metadata);
                    writer.u32(*major).u32(*minor);
                }
            }
        }
        writer.finish()
    }

    /// Reads an encoding; whatever is not the one canonical form is refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.u8("tree version")? != VERSION {
            return Err(DecodeError { what: "tree version", offset: 0 });
        }
        let metadata = read_metadata(&mut reader)?;
        let mut entries = BTreeMap::new();
        for _ in 0..reader.u32("entry count")? {
            let at = reader.bad("entry name");
            let name = Name::new(reader.bytes("entry name")?).map_err(|_| at.clone())?;
            if entries.last_key_value().is_some_and(|(last, _)| *last >= name) {
                return Err(at);
            }
            let kind = reader.u8("entry kind")?;
            let node = match kind {
                b'f' => {
                    let metadata = read_metadata(&mut reader)?;
                    let size = reader.u64("file size")?;
                    Node::File(File { blob: BlobId::from_bytes(reader.digest("blob id")?), size, metadata })
                }
                b'd' => Node::Directory(TreeId::from_bytes(reader.digest("tree id")?)),
                b'l' => {
                    let (uid, gid) = (reader.u32("owner")?, reader.u32("group")?);
                    let at = reader.bad("symlink target");
                    let target = reader.bytes("symlink target")?.to_vec();
                    if target.is_empty() || target.contains(&0) {
                        return Err(at);
                    }
                    Node::Symlink { target, uid, gid }
                }
                b'p' => Node::Fifo(read_metadata(&mut reader)?),
                b'c' | b'b' => {
                    let metadata = read_metadata(&mut reader)?;
                    let at = reader.bad("device number");
                    let (major, minor) = (reader.u32("device number")?, reader.u32("device number")?);
                    if (major, minor) == (0, 0) {
                        return Err(at);
                    }
                    Node::Device { block: kind == b'b', major, minor, metadata }
                }
                _ => return Err(reader.bad("entry kind")),
            };
            entries.insert(name, node);
        }
        reader.end()?;
        Ok(Self { metadata, entries })
    }
}

pub(crate) fn write_metadata(writer: &mut Writer, metadata: &Metadata) {
    writer.u16(metadata.mode).u32(metadata.uid).u32(metadata.gid).count(metadata.attributes.len());
    for (name, value) in &metadata.attributes {
        writer.bytes(name).bytes(value);
    }
}

fn read_metadata(reader: &mut Reader) -> Result<Metadata, DecodeError> {
    let at = reader.bad("mode");
    let mode = reader.u16("mode")?;
    if mode > 0o7777 {
        return Err(at);
    }
    let (uid, gid) = (reader.u32("owner")?, reader.u32("group")?);
    let mut attributes: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for _ in 0..reader.u32("attribute count")? {
        let at = reader.bad("attribute name");
        let name = reader.bytes("attribute name")?.to_vec();
        let sorted = attributes.last_key_value().is_none_or(|(last, _)| *last < name);
        if !sorted || name.contains(&0) || !keeps_attribute(&name) {
            return Err(at);
        }
        attributes.insert(name, reader.bytes("attribute value")?.to_vec());
    }
    Ok(Metadata { mode, uid, gid, attributes })
}
