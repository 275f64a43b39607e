//! squashfs 4.0, written by our own code (`Documentation/filesystems/squashfs.rst` of the kernel describes the format).
//!
//! The image is a function of the formation and the compression: entries in the order of their names, equal blobs stored
//! once, all times [`TIME`](super::TIME), blocks compressed by the vendored library. The root directory's extended attribute
//! `user.forge.formation` holds the formation's encoding. ACLs, which squashfs cannot name, are kept as `user.forge.posix_acl_…`.
//! How the image is laid out is drawn in `docs/formats/squashfs.md`.
//!
//! An image is planned from its trees alone (`plan`), its data written by all threads (`data`) or copied from earlier artifacts
//! (`previous`), then its inodes and tables (`image`, `table`).

use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use super::{Artifact, Bounds, Compression, Format, Imported, Inspection, Options, Packed, TIME, write_failed};
use crate::{Error, FormationId, Result, Store, Tree, TreeId};

mod data;
mod image;
mod plan;
mod previous;
pub mod read;
mod table;
#[cfg(test)]
mod tests;
mod walk;

use data::Target;
use image::Image;
use plan::Plan;
use previous::Previous;
use table::write_indexed;

pub use previous::Index;
pub(crate) use previous::forget_lost;

/// Block size of the squashfs we write. It shows in the bytes: a new value gives every artifact a new id.
pub const BLOCK_SIZE: usize = 128 * 1024;

const MAGIC: u32 = 0x7371_7368;
/// Numbers of compressors.
const GZIP: u16 = 1;
const ZSTD: u16 = 6;
const SUPERBLOCK_LENGTH: usize = 96;
/// Bit flags of the superblock: exportable over NFS; the compressor's options follow the superblock.
const EXPORTABLE: u16 = 0x80;
const COMPRESSOR_OPTIONS: u16 = 0x400;
const NO_ATTRIBUTES: u16 = 0x200;
/// "No such table", "no attributes", "no fragment".
const NONE_64: u64 = u64::MAX;
const NONE_32: u32 = u32::MAX;
/// Inodes are counted in 32 bits, and the root's parent is one more.
const MOST_INODES: u64 = u32::MAX as u64 - 1;

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

    fn pack_file(&self, store: &Store, id: FormationId, options: &Options, file: &File) -> Result<Packed> {
        let formation = store.formation(id)?;
        image_at(store, formation.root, &formation.encode(), options, file, 0)
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
pub(super) fn image(store: &Store, root: TreeId, formation: &[u8], options: &Options) -> Result<File> {
    let scratch = store.scratch()?;
    let path = scratch.path().join("image");
    let open = File::options().read(true).write(true).create_new(true).open(&path);
    let file = open.map_err(Error::file("create", &path))?;
    image_at(store, root, formation, options, &file, 0)?;
    Ok(file)
}

/// Writes an image of a tree into a file, from `base` on, where nothing is yet.
pub(super) fn image_at(
    store: &Store,
    root: TreeId,
    formation: &[u8],
    options: &Options,
    file: &File,
    base: u64,
) -> Result<Packed> {
    let tree = store.tree(root)?;
    walk::read_ahead(store, &tree)?;
    let extent = store.extent(root)?;
    if extent.files.saturating_add(extent.directories) > MOST_INODES {
        return Err(unpackable(b"", "more than 4294967294 entries"));
    }
    let mut root = Tree::clone(&tree);
    if !formation.is_empty() {
        root.metadata.attributes.insert(b"user.forge.formation".to_vec(), formation.to_vec());
    }
    let plan = Plan::new(store, &root)?;
    let previous = Previous::all(store, options, &plan)?;
    match write(store, &root, &plan, options.compression, &previous, file, base) {
        // It says of a piece what is not so. Nothing that it says is believed any more.
        Err(Error::StaleIndex) => write(store, &root, &plan, options.compression, &[], file, base),
        written => written,
    }
}

fn write(
    store: &Store,
    root: &Tree,
    plan: &Plan,
    compression: Compression,
    previous: &[Previous],
    file: &File,
    base: u64,
) -> Result<Packed> {
    // The compressor's options are a metadata block, not compressed, behind the superblock.
    let options = compressor_options(compression);
    let start = (SUPERBLOCK_LENGTH + options.len()) as u64;
    let target = Target { file, base, start };
    let (written, end, mut windows) = data::write(store, plan, compression, previous, &target)?;
    let mut image = Image::new(plan, &written, compression)?;
    let root = image.tree(store, root)?;

    let mut position = end;
    let mut tables = Vec::new();
    let mut append = |bytes: &[u8]| -> Result<u64> {
        let at = position;
        tables.extend_from_slice(bytes);
        position += bytes.len() as u64;
        Ok(at)
    };
    let Image { inodes, directories, ids, attributes, references, .. } = image;
    let inode_table = append(&inodes.finish()?)?;
    let directory_table = append(&directories.finish()?)?;
    let mut fragments = Vec::with_capacity(plan.fragments.len() * 16);
    for piece in plan.fragments.iter().map(|piece| &written[*piece]) {
        fragments.extend(piece.start.to_le_bytes());
        fragments.extend(piece.sizes[0].to_le_bytes());
        fragments.extend(0_u32.to_le_bytes());
    }
    let fragment_table = write_indexed(&fragments, compression, &mut append)?;
    let exports: Vec<u8> = references.iter().flat_map(|reference| reference.encode().to_le_bytes()).collect();
    let export_table = write_indexed(&exports, compression, &mut append)?;
    let mut numbered: Vec<(u16, u32)> = ids.iter().map(|(id, index)| (*index, *id)).collect();
    numbered.sort_unstable();
    let bytes: Vec<u8> = numbered.iter().flat_map(|(_, id)| id.to_le_bytes()).collect();
    let id_table = write_indexed(&bytes, compression, &mut append)?;
    let attribute_table = attributes.write(compression, &mut append)?;
    // The end: nothing is appended.
    let used = append(&[])?;
    // The kernel's loop device hides what does not fill a 4 KiB page.
    tables.resize(tables.len() + (used.next_multiple_of(4096) - used) as usize, 0);
    file.write_all_at(&tables, base + end).map_err(write_failed)?;
    windows.update(&tables);

    let mut superblock = Vec::with_capacity(start as usize);
    superblock.extend(MAGIC.to_le_bytes());
    superblock.extend((references.len() as u32).to_le_bytes());
    superblock.extend(TIME.to_le_bytes());
    superblock.extend((BLOCK_SIZE as u32).to_le_bytes());
    superblock.extend((plan.fragments.len() as u32).to_le_bytes());
    superblock.extend(number(compression).to_le_bytes());
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
    let known_by = superblock.as_slice().try_into().expect("the superblock is as long as it says");
    superblock.extend(options);
    file.write_all_at(&superblock, base).map_err(write_failed)?;

    let copied = written.iter().filter(|piece| piece.copied).map(data::Written::length).sum();
    let index = Index::new(compression, base, known_by, plan, written);
    Ok(Packed { length: used.next_multiple_of(4096), copied, index: Some(index), windows: Some(windows) })
}

fn number(compression: Compression) -> u16 {
    match compression {
        Compression::Gzip(_) => GZIP,
        Compression::Zstd(_) => ZSTD,
    }
}

/// Level, and for gzip the window's bits and no strategies, with the header of a metadata block.
fn compressor_options(compression: Compression) -> Vec<u8> {
    let mut options = u32::from(compression.level()).to_le_bytes().to_vec();
    if let Compression::Gzip(_) = compression {
        options.extend(15_u16.to_le_bytes());
        options.extend(0_u16.to_le_bytes());
    }
    [(options.len() as u16 | table::UNCOMPRESSED).to_le_bytes().as_slice(), &options].concat()
}

/// The error of something that squashfs, or Linux, cannot hold.
fn unpackable(what: &[u8], reason: &'static str) -> Error {
    Error::Unpackable { format: "squashfs", what: String::from_utf8_lossy(what).into_owned(), reason }
}
