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
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

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
use previous::{Ahead, Guess, Previous};
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
        let mut file = image(store, formation.root, &formation.name, &formation.encode(), options)?;
        file.seek(SeekFrom::Start(0)).map_err(write_failed)?;
        std::io::copy(&mut BufReader::with_capacity(1 << 20, file), output).map_err(write_failed)?;
        Ok(())
    }

    fn pack_file(&self, store: &Store, id: FormationId, options: &Options, file: &File) -> Result<Packed> {
        let formation = store.formation(id)?;
        image_at(store, formation.root, &formation.name, &formation.encode(), options, file, 0)
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
pub(super) fn image(store: &Store, root: TreeId, name: &str, formation: &[u8], options: &Options) -> Result<File> {
    let scratch = store.scratch()?;
    let path = scratch.path().join("image");
    let open = File::options().read(true).write(true).create_new(true).open(&path);
    let file = open.map_err(Error::file("create", &path))?;
    image_at(store, root, name, formation, options, &file, 0)?;
    Ok(file)
}

/// Writes an image of a tree into a file, from `base` on, where nothing is yet. `name` is what the formation is called,
/// `formation` the encoding that the image carries, if any.
pub(super) fn image_at(
    store: &Store,
    root: TreeId,
    name: &str,
    formation: &[u8],
    options: &Options,
    file: &File,
    base: u64,
) -> Result<Packed> {
    let guess = Guess::new(store, options, name, base)?;
    let mut tree = Tree::clone(&*store.tree(root)?);
    if !formation.is_empty() {
        tree.metadata.attributes.insert(b"user.forge.formation".to_vec(), formation.to_vec());
    }
    let is_planned = AtomicBool::new(false);
    let (planned, ahead) = thread::scope(|scope| {
        let ahead = guess.as_ref().map(|guess| scope.spawn(|| guess.copy(file, &is_planned)));
        let planned = planned(store, root, &tree, options);
        is_planned.store(true, Ordering::Relaxed);
        (planned, ahead.and_then(|ahead| ahead.join().ok()).unwrap_or_default())
    });
    let (plan, previous) = planned?;
    let job = Job { store, root: &tree, name, plan: &plan, compression: options.compression, file, base };
    match job.write(&previous, &ahead) {
        // It says of a piece what is not so. Nothing that it says is believed any more.
        Err(Error::StaleIndex) => job.write(&[], &Ahead::default()),
        written => written,
    }
}

/// Decides what the image consists of, and what of that can be copied.
fn planned(store: &Store, root: TreeId, tree: &Tree, options: &Options) -> Result<(Plan, Vec<Previous>)> {
    walk::read_ahead(store, tree)?;
    let extent = store.extent(root)?;
    if extent.files.saturating_add(extent.directories) > MOST_INODES {
        return Err(unpackable(b"", "more than 4294967294 entries"));
    }
    let plan = Plan::new(store, tree)?;
    let previous = Previous::all(store, options, &plan)?;
    Ok((plan, previous))
}

/// An image to be written into a file, from `base` on.
struct Job<'a> {
    store: &'a Store,
    root: &'a Tree,
    /// What the formation is called.
    name: &'a str,
    plan: &'a Plan,
    compression: Compression,
    file: &'a File,
    base: u64,
}

/// What follows the data, and what stands before it.
struct Tables {
    bytes: Vec<u8>,
    /// With the compressor's options behind it.
    superblock: Vec<u8>,
}

impl Job<'_> {
    fn write(&self, previous: &[Previous], ahead: &Ahead) -> Result<Packed> {
        let Self { store, plan, compression, file, base, .. } = *self;
        let start = (SUPERBLOCK_LENGTH + compressor_options(compression).len()) as u64;
        let target = Target { file, base, start };
        let (written, end, mut windows, tables) =
            match data::Arrangement::new(store, plan, compression, previous, &target)? {
                Some(arrangement) => {
                    let (windows, tables) = rayon::join(
                        || arrangement.write(&target, ahead),
                        || self.tables(&arrangement.written, arrangement.end),
                    );
                    (arrangement.written, arrangement.end, windows?, tables?)
                }
                None => {
                    let (written, end, windows) = data::write(store, plan, compression, previous, &target)?;
                    let tables = self.tables(&written, end)?;
                    (written, end, windows, tables)
                }
            };
        let Tables { bytes, superblock } = tables;
        let length = end + bytes.len() as u64;
        file.write_all_at(&bytes, base + end).map_err(write_failed)?;
        windows.update(&bytes);
        file.write_all_at(&superblock, base).map_err(write_failed)?;
        if file.metadata().map_err(write_failed)?.len() > base + length {
            // More was copied ahead than there is now.
            file.set_len(base + length).map_err(write_failed)?;
        }
        let known_by = superblock[..SUPERBLOCK_LENGTH].try_into().expect("the superblock is as long as it says");
        let copied = written.iter().filter(|piece| piece.copied).map(data::Written::length).sum();
        let index = Index::new(compression, base, self.name, known_by, plan, written, &windows);
        Ok(Packed { length, copied, index: Some(index), windows: Some(windows) })
    }

    /// For data whose pieces lie like this, up to `end`.
    fn tables(&self, written: &[data::Written], end: u64) -> Result<Tables> {
        let Self { plan, compression, .. } = *self;
        let mut image = Image::new(plan, written, compression)?;
        let root = image.tree(self.store, self.root)?;

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

        let mut superblock = Vec::with_capacity(SUPERBLOCK_LENGTH);
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
        // The compressor's options are a metadata block, not compressed, behind the superblock.
        superblock.extend(compressor_options(compression));
        Ok(Tables { bytes: tables, superblock })
    }
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
