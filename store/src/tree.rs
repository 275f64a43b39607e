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

/// Whether Linux has room for an extended attribute (`xattr(7)`): a tree with a longer one could never be laid out.
pub fn fits_attribute(name: &[u8], value: &[u8]) -> bool {
    name.len() <= 255 && value.len() <= 65_536
}

/// What a symbolic link leads to is a path, and no path is longer (`PATH_MAX` without its NUL).
pub const LONGEST_TARGET: usize = 4095;

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::digest::to_hex;

    /// One of every kind of entry, with every optional part.
    fn everything() -> Tree {
        let attributes =
            BTreeMap::from([(b"security.capability".to_vec(), vec![1, 0, 0, 2]), (b"user.a".to_vec(), vec![])]);
        let special = Metadata { mode: 0o4755, uid: 33, gid: u32::MAX, attributes };
        let file = |metadata| Node::File(File { blob: BlobId::of(b"hello\n"), size: 6, metadata });
        let entries = [
            (&b"block"[..], Node::Device { block: true, major: 8, minor: 1, metadata: Metadata::root(0o660) }),
            (b"directory", Node::Directory(Tree::empty().id())),
            (b"fifo", Node::Fifo(Metadata::root(0o600))),
            (b"file", file(Metadata::root(0o644))),
            (b"null", Node::Device { block: false, major: 1, minor: 3, metadata: Metadata::root(0o666) }),
            (b"special", file(special)),
            (b"symlink", Node::Symlink { target: b"file".to_vec(), uid: 1, gid: 2 }),
            (b"\xff", Node::Directory(Tree::empty().id())),
        ];
        let entries = entries.into_iter().map(|(name, node)| (Name::new(name).unwrap(), node)).collect();
        Tree { metadata: Metadata { mode: 0o1777, uid: 0, gid: 5, attributes: BTreeMap::new() }, entries }
    }

    /// These digests are in every store there is. A change here is a change of format.
    #[test]
    fn digests_are_pinned() {
        // As `docs/formats/tree.md` draws it: version, mode, owner, group, no attributes, no entries.
        assert_eq!(to_hex(&Tree::empty().encode()), "01ed0100000000000000000000000000000000");
        let digests = [Tree::empty(), everything()].map(|tree| tree.id().to_string());
        assert_eq!(
            digests,
            [
                "82f3bfb25c37485b8fa5984c46e24030e723bb86824ce24132fe8c1441d26217",
                "ff9eb82e250772191595de8989572d3e998c6c8b030ad6608bd4e80d86f8abf1"
            ]
        );
    }

    #[test]
    fn every_kind_of_entry_reads_back_and_no_cut_one_does() {
        let encoded = everything().encode();
        assert_eq!(Tree::decode(&encoded).unwrap(), everything());
        for length in 0..encoded.len() {
            assert!(Tree::decode(&encoded[..length]).is_err(), "{length}");
        }
        assert!(Tree::decode(&[&encoded[..], &[0]].concat()).is_err());
    }

    #[test]
    fn what_no_tree_can_hold_is_refused() {
        let refuses = |change: &dyn Fn(&mut Tree)| {
            let mut tree = everything();
            change(&mut tree);
            Tree::decode(&tree.encode()).is_err()
        };
        let put = |tree: &mut Tree, node| _ = tree.entries.insert(Name::new("x").unwrap(), node);
        assert!(refuses(&|tree| tree.metadata.mode = 0o10000));
        assert!(refuses(&|tree| _ = tree.metadata.attributes.insert(b"trusted.overlay.opaque".to_vec(), vec![])));
        assert!(refuses(&|tree| _ = tree.metadata.attributes.insert(b"user.forge.owner".to_vec(), vec![])));
        assert!(refuses(&|tree| put(tree, Node::Symlink { target: vec![], uid: 0, gid: 0 })));
        assert!(refuses(&|tree| put(tree, Node::Symlink { target: b"a\0".to_vec(), uid: 0, gid: 0 })));
        let whiteout = Node::Device { block: false, major: 0, minor: 0, metadata: Metadata::root(0) };
        assert!(refuses(&|tree| put(tree, whiteout.clone())));
        assert!(!refuses(&|_| {}));
    }

    #[test]
    fn entries_out_of_order_or_twice_are_refused() {
        let entry = |name: u8| [&[1, 0, 0, 0, name, b'd'][..], &[7; 32]].concat();
        let tree = |names: &[u8]| {
            let mut encoded = Tree::empty().encode();
            encoded.truncate(encoded.len() - 4);
            encoded.extend((names.len() as u32).to_le_bytes());
            encoded.extend(names.iter().flat_map(|name| entry(*name)));
            Tree::decode(&encoded)
        };
        assert!(tree(b"ab").is_ok());
        assert!(tree(b"ba").is_err() && tree(b"aa").is_err() && tree(b"/").is_err() && tree(b".").is_err());
    }

    #[test]
    fn a_hundred_thousand_entries_are_fine() {
        let mut tree = Tree::empty();
        for number in 0..100_000 {
            tree.entries.insert(Name::new(format!("file-{number}")).unwrap(), Node::Directory(Tree::empty().id()));
        }
        assert_eq!(Tree::decode(&tree.encode()).unwrap(), tree);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Bytes from outside: errors are fine, panics are not, and nothing has two encodings.
        #[test]
        fn what_decodes_encodes_to_the_same_bytes(
            noise in prop::collection::vec(any::<u8>(), 0..200),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let mut near = everything().encode();
            for (index, byte) in changes {
                let index = index.index(near.len());
                near[index] = byte;
            }
            for bytes in [noise, near] {
                if let Ok(tree) = Tree::decode(&bytes) {
                    prop_assert_eq!(tree.encode(), bytes);
                }
            }
        }
    }
}
