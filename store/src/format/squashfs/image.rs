//! Inodes and directories of an image, and the tables behind its data.

use std::collections::BTreeMap;

use super::data::Written;
use super::plan::{Place, Plan};
use super::table::{Attributes, METADATA_BLOCK, MetadataWriter};
use super::walk::{Step, walk};
use super::{NONE_32, unpackable};
use crate::format::{Compression, TIME};
use crate::tree::LONGEST_TARGET;
use crate::{Metadata, Name, Node, Result, Store, Tree};

/// Most entries that one header of a listing may stand for (the kernel's SQUASHFS_DIR_COUNT).
const MOST_LISTED: usize = 256;

/// A reference to an inode: where its metadata block starts and where in it the inode does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reference {
    block: u32,
    offset: u16,
}

impl Reference {
    pub fn encode(self) -> u64 {
        u64::from(self.block) << 16 | u64::from(self.offset)
    }
}

/// What a directory listing says of an entry.
struct Listed {
    name: Name,
    reference: Reference,
    number: u32,
    /// The basic inode type, also for extended ones.
    kind: u16,
}

/// A directory whose entries are being written.
struct Open {
    number: u32,
    subdirectories: u32,
    listing: Vec<Listed>,
}

/// Where a listing lies, and what is found in it where.
struct Listing {
    block: u32,
    offset: u16,
    length: u32,
    /// Encoded entries, for names whose header lies in another block than the one before.
    index: Vec<u8>,
    index_count: u16,
}

/// What there is beside the data.
pub(super) struct Image<'a> {
    plan: &'a Plan,
    written: &'a [Written],
    pub inodes: MetadataWriter,
    pub directories: MetadataWriter,
    /// Owner or group → its place in the table of ids.
    pub ids: BTreeMap<u32, u16>,
    pub attributes: Attributes,
    /// By inode number from 1: for the export table.
    pub references: Vec<Reference>,
}

impl<'a> Image<'a> {
    pub fn new(plan: &'a Plan, written: &'a [Written], compression: Compression) -> Result<Self> {
        Ok(Self {
            plan,
            written,
            inodes: MetadataWriter::new(compression)?,
            directories: MetadataWriter::new(compression)?,
            ids: BTreeMap::new(),
            attributes: Attributes::default(),
            references: Vec::new(),
        })
    }

    /// Writes all inodes below a tree, and its own last.
    pub fn tree(&mut self, store: &Store, root: &Tree) -> Result<Reference> {
        let mut open = vec![self.open()];
        walk(store, root, &mut |step| {
            let (name, reference, number, kind) = match step {
                Step::Enter => {
                    open.push(self.open());
                    return Ok(());
                }
                Step::Leaf(name, node) => {
                    let number = self.reserve();
                    let (reference, kind) = self.leaf(node, number)?;
                    (name, reference, number, kind)
                }
                Step::Leave(name, tree) => {
                    let directory = open.pop().expect("it was entered");
                    let parent = open.last_mut().expect("the root is left last");
                    parent.subdirectories += 1;
                    let number = directory.number;
                    (name, self.directory(tree, &directory, parent.number)?, number, 1)
                }
            };
            self.references[number as usize - 1] = reference;
            let listed = Listed { name: name.clone(), reference, number, kind };
            open.last_mut().expect("the root is left last").listing.push(listed);
            Ok(())
        })?;
        let directory = open.pop().expect("the root");
        // The root's parent is, as mksquashfs has it, one past the last inode; nobody looks.
        let reference = self.directory(root, &directory, self.references.len() as u32 + 1)?;
        self.references[directory.number as usize - 1] = reference;
        Ok(reference)
    }

    fn open(&mut self) -> Open {
        Open { number: self.reserve(), subdirectories: 0, listing: Vec::new() }
    }

    /// The next inode number. That there are not too many was seen to.
    fn reserve(&mut self) -> u32 {
        self.references.push(Reference { block: 0, offset: 0 });
        self.references.len() as u32
    }

    fn directory(&mut self, tree: &Tree, directory: &Open, parent: u32) -> Result<Reference> {
        let number = directory.number;
        let listing = self.listing(&directory.listing)?;
        let attributes = self.attributes.add(&tree.metadata);
        // An empty directory has 3 bytes: `.` and `..` are not written, and counted.
        let size = listing.length + 3;
        let links = directory.subdirectories + 2;
        let mut inode;
        if attributes == NONE_32 && listing.index_count == 0 && u16::try_from(size).is_ok() {
            inode = self.inode_header(1, &tree.metadata, number)?;
            inode.extend(listing.block.to_le_bytes());
            inode.extend(links.to_le_bytes());
            inode.extend((size as u16).to_le_bytes());
            inode.extend(listing.offset.to_le_bytes());
            inode.extend(parent.to_le_bytes());
        } else {
            inode = self.inode_header(8, &tree.metadata, number)?;
            inode.extend(links.to_le_bytes());
            inode.extend(size.to_le_bytes());
            inode.extend(listing.block.to_le_bytes());
            inode.extend(parent.to_le_bytes());
            inode.extend(listing.index_count.to_le_bytes());
            inode.extend(listing.offset.to_le_bytes());
            inode.extend(attributes.to_le_bytes());
            inode.extend(&listing.index);
        }
        self.write_inode(&inode)
    }

    /// Writes a directory's listing: runs of entries whose inodes share a metadata block and lie close in number. The index
    /// says with which name each block of the listing begins, so that a look-up in a large directory reads one of them.
    fn listing(&mut self, entries: &[Listed]) -> Result<Listing> {
        let (block, offset) = self.directories.position();
        let mut length = 0_u64;
        let (mut index, mut index_count) = (Vec::new(), 0_u16);
        let mut indexed = block;
        let mut rest = entries;
        while let Some(first) = rest.first() {
            let (here, _) = self.directories.position();
            if here != indexed && index_count < u16::MAX {
                let name = first.name.as_bytes();
                index.extend((length as u32).to_le_bytes());
                index.extend(here.to_le_bytes());
                index.extend((name.len() as u32 - 1).to_le_bytes());
                index.extend(name);
                index_count += 1;
                indexed = here;
            }
            let run = run_length(rest);
            let mut bytes = Vec::new();
            bytes.extend((run as u32 - 1).to_le_bytes());
            bytes.extend(first.reference.block.to_le_bytes());
            bytes.extend(first.number.to_le_bytes());
            for entry in &rest[..run] {
                bytes.extend(entry.reference.offset.to_le_bytes());
                bytes.extend((entry.number.wrapping_sub(first.number) as u16).to_le_bytes());
                bytes.extend(entry.kind.to_le_bytes());
                bytes.extend((entry.name.as_bytes().len() as u16 - 1).to_le_bytes());
                bytes.extend(entry.name.as_bytes());
            }
            length += bytes.len() as u64;
            if length > u64::from(u32::MAX) - 3 {
                return Err(unpackable(first.name.as_bytes(), "its directory's names take more than 4 GiB"));
            }
            self.directories.write(&bytes)?;
            rest = &rest[run..];
        }
        Ok(Listing { block, offset, length: length as u32, index, index_count })
    }

    /// Writes the inode of anything but a directory; gives its basic type.
    fn leaf(&mut self, node: &Node, number: u32) -> Result<(Reference, u16)> {
        let (inode, kind) = match node {
            Node::Directory(_) => unreachable!("directories are written by `directory`"),
            Node::File(file) => (self.file(file, number)?, 2),
            Node::Symlink { target, uid, gid } => {
                if target.len() > LONGEST_TARGET {
                    return Err(unpackable(target, "a symlink to more than 4095 bytes"));
                }
                let metadata = Metadata { uid: *uid, gid: *gid, ..Metadata::root(0o777) };
                let mut inode = self.inode_header(3, &metadata, number)?;
                inode.extend(1_u32.to_le_bytes());
                inode.extend((target.len() as u32).to_le_bytes());
                inode.extend(target);
                (inode, 3)
            }
            Node::Fifo(metadata) => (self.special(6, metadata, number, None)?, 6),
            Node::Device { block, major, minor, metadata } => {
                let kind = if *block { 4 } else { 5 };
                if *major >= 1 << 12 || *minor >= 1 << 20 {
                    let device = format!("{major}:{minor}");
                    return Err(unpackable(device.as_bytes(), "a device number beyond 4095:1048575"));
                }
                // As the kernel's new_encode_dev packs it.
                let device = minor & 0xff | major << 8 | (minor & !0xff) << 12;
                (self.special(kind, metadata, number, Some(device))?, kind)
            }
        };
        Ok((self.write_inode(&inode)?, kind))
    }

    /// A fifo or device: type 6, 4 or 5; extended (13, 11, 12) if it has attributes.
    fn special(&mut self, kind: u16, metadata: &Metadata, number: u32, device: Option<u32>) -> Result<Vec<u8>> {
        let attributes = self.attributes.add(metadata);
        let extended = attributes != NONE_32;
        let mut inode = self.inode_header(if extended { kind + 7 } else { kind }, metadata, number)?;
        inode.extend(1_u32.to_le_bytes());
        inode.extend(device.into_iter().flat_map(u32::to_le_bytes));
        if extended {
            inode.extend(attributes.to_le_bytes());
        }
        Ok(inode)
    }

    fn file(&mut self, file: &crate::File, number: u32) -> Result<Vec<u8>> {
        let attributes = self.attributes.add(&file.metadata);
        let (mut start, mut pieces) = (0, &[][..]);
        let (mut fragment, mut offset) = (NONE_32, 0);
        match self.plan.places[&file.blob] {
            Place::Empty => {}
            Place::Pieces { first, count } => {
                pieces = &self.written[first..first + count];
                start = pieces[0].start;
            }
            Place::Fragment { number, offset: at } => (fragment, offset) = (number, at),
        }
        let blocks = || pieces.iter().flat_map(|piece| &piece.sizes);
        let sparse = self.sparse(file.size, blocks());
        let mut inode;
        if file.size > u64::from(u32::MAX) || start > u64::from(u32::MAX) || sparse > 0 || attributes != NONE_32 {
            inode = self.inode_header(9, &file.metadata, number)?;
            inode.extend(start.to_le_bytes());
            inode.extend(file.size.to_le_bytes());
            inode.extend(sparse.to_le_bytes());
            inode.extend(1_u32.to_le_bytes());
            inode.extend(fragment.to_le_bytes());
            inode.extend(offset.to_le_bytes());
            inode.extend(attributes.to_le_bytes());
        } else {
            inode = self.inode_header(2, &file.metadata, number)?;
            inode.extend((start as u32).to_le_bytes());
            inode.extend(fragment.to_le_bytes());
            inode.extend(offset.to_le_bytes());
            inode.extend((file.size as u32).to_le_bytes());
        }
        inode.extend(blocks().flat_map(|size| size.to_le_bytes()));
        Ok(inode)
    }

    /// Bytes in blocks of zeros.
    fn sparse<'b>(&self, size: u64, blocks: impl Iterator<Item = &'b u32>) -> u64 {
        let zeros = blocks.enumerate().filter(|(_, block)| **block == 0);
        zeros.map(|(number, _)| (size - number as u64 * super::BLOCK_SIZE as u64).min(super::BLOCK_SIZE as u64)).sum()
    }

    fn inode_header(&mut self, kind: u16, metadata: &Metadata, number: u32) -> Result<Vec<u8>> {
        let mut inode = Vec::with_capacity(64);
        inode.extend(kind.to_le_bytes());
        inode.extend(metadata.mode.to_le_bytes());
        inode.extend(self.id(metadata.uid)?.to_le_bytes());
        inode.extend(self.id(metadata.gid)?.to_le_bytes());
        inode.extend(TIME.to_le_bytes());
        inode.extend(number.to_le_bytes());
        Ok(inode)
    }

    fn id(&mut self, id: u32) -> Result<u16> {
        if let Some(index) = self.ids.get(&id) {
            return Ok(*index);
        }
        // The superblock counts them in 16 bits.
        let next = u16::try_from(self.ids.len()).ok().filter(|next| *next < u16::MAX);
        let next = next.ok_or_else(|| unpackable(b"", "more than 65535 different owners and groups"))?;
        self.ids.insert(id, next);
        Ok(next)
    }

    fn write_inode(&mut self, inode: &[u8]) -> Result<Reference> {
        let (block, offset) = self.inodes.position();
        self.inodes.write(inode)?;
        Ok(Reference { block, offset })
    }
}

/// How many entries go under one header.
fn run_length(entries: &[Listed]) -> usize {
    let first = &entries[0];
    let mut length = 12;
    let near = |entry: &&Listed| {
        let distance = i64::from(entry.number) - i64::from(first.number);
        length += 8 + entry.name.as_bytes().len();
        // No longer than a block, so that nearly every block has a header that the index can name.
        length <= METADATA_BLOCK && entry.reference.block == first.reference.block && i16::try_from(distance).is_ok()
    };
    entries.iter().take(MOST_LISTED).take_while(near).count()
}
