//! squashfs 4.0, written by our own code (`Documentation/filesystems/squashfs.rst` of the kernel describes the format).
//!
//! The image is a function of the formation: entries in the order of their names, equal blobs stored once, all times
//! [`TIME`](super::TIME), zstd at a fixed level by the vendored library. The root directory's extended attribute
//! `user.forge.formation` holds the formation's encoding. ACLs, which squashfs cannot name, are kept as `user.forge.posix_acl_…`.
//! How the image is laid out is drawn in `docs/formats/squashfs.md`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};

use super::{Artifact, Bounds, Format, Imported, Inspection, Options, TIME, write_failed};
use crate::{BlobId, FormationId, Metadata, Name, Node, Result, Store, Tree, TreeId};

mod data;
pub mod read;
mod table;

use data::{Content, DataWriter};
use table::{Attributes, MetadataWriter, write_indexed};

/// Block size of the squashfs we write. It shows in the bytes: a new value gives every artifact a new id.
pub const BLOCK_SIZE: usize = 128 * 1024;
/// zstd level of every block. It shows in the bytes too.
pub const LEVEL: i32 = 3;

const MAGIC: u32 = 0x7371_7368;
const ZSTD: u16 = 6;
const SUPERBLOCK_LENGTH: usize = 96;
/// Bit flags of the superblock: exportable over NFS; the compressor's options follow the superblock.
const EXPORTABLE: u16 = 0x80;
const COMPRESSOR_OPTIONS: u16 = 0x400;
const NO_ATTRIBUTES: u16 = 0x200;
/// "No such table", "no attributes", "no fragment".
const NONE_64: u64 = u64::MAX;
const NONE_32: u32 = u32::MAX;

/// `squashfs`
pub struct Squashfs;

impl Format for Squashfs {
    fn name(&self) -> &'static str {
        "squashfs"
    }

    fn extension(&self) -> &'static str {
        "squashfs"
    }

    fn pack(&self, store: &Store, formation: FormationId, options: &Options, output: &mut dyn Write) -> Result<()> {
        let formation = store.formation(formation)?;
        let mut file = image(store, formation.root, &formation.encode(), options)?;
        file.seek(SeekFrom::Start(0)).map_err(write_failed)?;
        std::io::copy(&mut BufReader::with_capacity(1 << 20, file), output).map_err(write_failed)?;
        Ok(())
    }

    fn recognises(&self, artifact: &Artifact) -> bool {
        read::is_magic(artifact.head())
    }

    fn inspect(&self, artifact: &Artifact) -> Result<Inspection> {
        Ok(Inspection { size: artifact.size(), ..read::Image::of(artifact)?.inspect()? })
    }

    fn read(&self, store: &Store, artifact: &Artifact, bounds: &Bounds) -> Result<Imported> {
        read::Image::of(artifact)?.extract(store, bounds)
    }
}

/// Writes an image of a tree to a file that vanishes when closed. The superblock comes first and is known last, so that a
/// pipe cannot be written to directly.
pub(super) fn image(store: &Store, root: TreeId, formation: &[u8], _options: &Options) -> Result<File> {
    let scratch = store.scratch()?;
    let path = scratch.path().join("image");
    let open = File::options().read(true).write(true).create_new(true).open(&path);
    let file = open.map_err(crate::Error::file("create", &path))?;
    let data = DataWriter::new(store, file.try_clone().map_err(write_failed)?, start());
    let mut image = Image {
        store,
        data,
        inodes: MetadataWriter::default(),
        directories: MetadataWriter::default(),
        ids: BTreeMap::new(),
        attributes: Attributes::default(),
        references: Vec::new(),
    };
    let mut files = Vec::new();
    image.list_files(root, &mut files)?;
    image.data.write_all(&files)?;
    let root = image.root(root, formation)?;
    image.finish(file, root)
}

/// Where the data begins: behind the superblock and the compressor's options.
fn start() -> u64 {
    (SUPERBLOCK_LENGTH + 2 + 4) as u64
}

/// A reference to an inode: where its metadata block starts and where in it the inode does.
#[derive(Debug, Clone, Copy)]
struct Reference {
    block: u32,
    offset: u16,
}

impl Reference {
    fn encode(self) -> u64 {
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

struct Image<'a> {
    store: &'a Store,
    data: DataWriter<'a>,
    inodes: MetadataWriter,
    directories: MetadataWriter,
    /// Owner or group → its place in the table of ids.
    ids: BTreeMap<u32, u16>,
    attributes: Attributes,
    /// By inode number from 1: for the export table.
    references: Vec<Reference>,
}

impl Image<'_> {
    /// Every blob below a tree, once, in the order of paths.
    fn list_files(&self, id: TreeId, files: &mut Vec<(BlobId, u64)>) -> Result<()> {
        for node in self.store.tree(id)?.entries.values() {
            match node {
                Node::File(file) => files.push((file.blob, file.size)),
                Node::Directory(id) => self.list_files(*id, files)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn root(&mut self, id: TreeId, formation: &[u8]) -> Result<Reference> {
        let mut tree = Tree::clone(&*self.store.tree(id)?);
        if !formation.is_empty() {
            tree.metadata.attributes.insert(b"user.forge.formation".to_vec(), formation.to_vec());
        }
        let number = self.reserve();
        // The root's parent is, as mksquashfs has it, one past the last inode; nobody looks.
        let listed = self.directory(&tree, number, None)?;
        Ok(listed)
    }

    /// The next inode number.
    fn reserve(&mut self) -> u32 {
        self.references.push(Reference { block: 0, offset: 0 });
        self.references.len() as u32
    }

    fn directory(&mut self, tree: &Tree, number: u32, parent: Option<u32>) -> Result<Reference> {
        let mut listing = Vec::with_capacity(tree.entries.len());
        let mut subdirectories = 0;
        for (name, node) in &tree.entries {
            let child = self.reserve();
            let (reference, kind) = match node {
                Node::Directory(id) => {
                    subdirectories += 1;
                    let tree = self.store.tree(*id)?;
                    (self.directory(&tree, child, Some(number))?, 1)
                }
                node => self.leaf(node, child)?,
            };
            self.references[child as usize - 1] = reference;
            listing.push(Listed { name: name.clone(), reference, number: child, kind });
        }
        let (block, offset, length) = self.listing(&listing)?;
        let parent = parent.unwrap_or(self.references.len() as u32 + 1);
        let attributes = self.attributes.add(&tree.metadata);
        // An empty directory has 3 bytes: `.` and `..` are not written, and counted.
        let size = length + 3;
        let mut inode;
        if attributes == NONE_32 && size <= usize::from(u16::MAX) {
            inode = self.inode_header(1, &tree.metadata, number)?;
            inode.extend(block.to_le_bytes());
            inode.extend((subdirectories + 2_u32).to_le_bytes());
            inode.extend((size as u16).to_le_bytes());
            inode.extend(offset.to_le_bytes());
            inode.extend(parent.to_le_bytes());
        } else {
            inode = self.inode_header(8, &tree.metadata, number)?;
            inode.extend((subdirectories + 2_u32).to_le_bytes());
            inode.extend((size as u32).to_le_bytes());
            inode.extend(block.to_le_bytes());
            inode.extend(parent.to_le_bytes());
            inode.extend(0_u16.to_le_bytes());
            inode.extend(offset.to_le_bytes());
            inode.extend(attributes.to_le_bytes());
        }
        let reference = self.write_inode(&inode)?;
        self.references[number as usize - 1] = reference;
        Ok(reference)
    }

    /// Writes a directory's listing: runs of at most 256 entries whose inodes share a metadata block and lie close in number.
    fn listing(&mut self, entries: &[Listed]) -> Result<(u32, u16, usize)> {
        let (block, offset) = self.directories.position();
        let mut length = 0;
        let mut rest = entries;
        while let Some(first) = rest.first() {
            let near = |entry: &Listed| {
                let distance = i64::from(entry.number) - i64::from(first.number);
                entry.reference.block == first.reference.block && i16::try_from(distance).is_ok()
            };
            let run = rest.iter().take(256).take_while(|entry| near(entry)).count();
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
            length += bytes.len();
            self.directories.write(&bytes)?;
            rest = &rest[run..];
        }
        Ok((block, offset, length))
    }

    /// Writes the inode of anything but a directory; gives its basic type.
    fn leaf(&mut self, node: &Node, number: u32) -> Result<(Reference, u16)> {
        let (inode, kind) = match node {
            Node::Directory(_) => unreachable!("directories are written by `directory`"),
            Node::File(file) => (self.file(file, number)?, 2),
            Node::Symlink { target, uid, gid } => {
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
        let content: Content = self.data.content(file.blob);
        let large = file.size > u64::from(u32::MAX) || content.start > u64::from(u32::MAX);
        let mut inode;
        if large || content.sparse > 0 || attributes != NONE_32 {
            inode = self.inode_header(9, &file.metadata, number)?;
            inode.extend(content.start.to_le_bytes());
            inode.extend(file.size.to_le_bytes());
            inode.extend(content.sparse.to_le_bytes());
            inode.extend(1_u32.to_le_bytes());
            inode.extend(content.fragment.to_le_bytes());
            inode.extend(content.offset.to_le_bytes());
            inode.extend(attributes.to_le_bytes());
        } else {
            inode = self.inode_header(2, &file.metadata, number)?;
            inode.extend((content.start as u32).to_le_bytes());
            inode.extend(content.fragment.to_le_bytes());
            inode.extend(content.offset.to_le_bytes());
            inode.extend((file.size as u32).to_le_bytes());
        }
        inode.extend(content.blocks.iter().flat_map(|size| size.to_le_bytes()));
        Ok(inode)
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
        let next = u16::try_from(self.ids.len()).map_err(|_| crate::Error::Unsupported {
            path: "squashfs".into(),
            reason: "more than 65,536 different owners",
        })?;
        Ok(*self.ids.entry(id).or_insert(next))
    }

    fn write_inode(&mut self, inode: &[u8]) -> Result<Reference> {
        let (block, offset) = self.inodes.position();
        self.inodes.write(inode)?;
        Ok(Reference { block, offset })
    }

    /// Writes the tables behind the data, and the superblock before it.
    fn finish(self, mut file: File, root: Reference) -> Result<File> {
        let (mut position, fragments) = self.data.finish()?;
        file.seek(SeekFrom::Start(position)).map_err(write_failed)?;
        let mut append = |bytes: &[u8]| -> Result<u64> {
            let at = position;
            file.write_all(bytes).map_err(write_failed)?;
            position += bytes.len() as u64;
            Ok(at)
        };
        let inode_table = append(&self.inodes.finish()?)?;
        let directory_table = append(&self.directories.finish()?)?;
        let fragment_count = fragments.len() as u32;
        let entries: Vec<u8> = fragments
            .iter()
            .flat_map(|fragment| [&fragment.start.to_le_bytes()[..], &fragment.size.to_le_bytes(), &[0; 4]].concat())
            .collect();
        let fragment_table = write_indexed(&entries, &mut append)?;
        let exports: Vec<u8> = self.references.iter().flat_map(|reference| reference.encode().to_le_bytes()).collect();
        let export_table = write_indexed(&exports, &mut append)?;
        let mut ids: Vec<(u16, u32)> = self.ids.iter().map(|(id, index)| (*index, *id)).collect();
        ids.sort_unstable();
        let bytes: Vec<u8> = ids.iter().flat_map(|(_, id)| id.to_le_bytes()).collect();
        let id_table = write_indexed(&bytes, &mut append)?;
        let attribute_table = self.attributes.write(&mut append)?;
        // The end: nothing is appended.
        let used = append(&[])?;
        // The kernel's loop device hides what does not fill a 4 KiB page.
        let padding = (4096 - used % 4096) % 4096;
        append(&vec![0; padding as usize])?;

        let mut superblock = Vec::with_capacity(start() as usize);
        superblock.extend(MAGIC.to_le_bytes());
        superblock.extend((self.references.len() as u32).to_le_bytes());
        superblock.extend(TIME.to_le_bytes());
        superblock.extend((BLOCK_SIZE as u32).to_le_bytes());
        superblock.extend(fragment_count.to_le_bytes());
        superblock.extend(ZSTD.to_le_bytes());
        superblock.extend((BLOCK_SIZE.trailing_zeros() as u16).to_le_bytes());
        let no_attributes = if attribute_table == NONE_64 { NO_ATTRIBUTES } else { 0 };
        superblock.extend((EXPORTABLE | COMPRESSOR_OPTIONS | no_attributes).to_le_bytes());
        superblock.extend((ids.len() as u16).to_le_bytes());
        superblock.extend(4_u16.to_le_bytes());
        superblock.extend(0_u16.to_le_bytes());
        superblock.extend(root.encode().to_le_bytes());
        for offset in [used, id_table, attribute_table, inode_table, directory_table, fragment_table, export_table] {
            superblock.extend(offset.to_le_bytes());
        }
        // The compressor's options: a metadata block, not compressed, with the level.
        superblock.extend((4_u16 | table::UNCOMPRESSED).to_le_bytes());
        superblock.extend((LEVEL as u32).to_le_bytes());
        file.seek(SeekFrom::Start(0)).map_err(write_failed)?;
        file.write_all(&superblock).map_err(write_failed)?;
        Ok(file)
    }
}

/// Fills a buffer as far as the reader goes.
fn read_full(reader: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
