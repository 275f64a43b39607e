//! squashfs 4.0, read by our own code: whoever wrote the image, with whatever compression and options.
//!
//! [`Image`] looks into an image without unpacking it: the superblock, inodes, directories, attributes, one file's content.
//! `extract` puts all of it into the store. The image is not believed in anything: every offset is checked against the
//! image, every length against what it is unpacked into, and how much there may be at all against [`Bounds`](super::super::Bounds).
//! Times, inode numbers and the export table are not looked at; equal files and hard links become equal entries.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::{Artifact, Inspection, Part};
use crate::{Error, Formation, RelativePath, Result};

mod attributes;
mod codec;
mod content;
mod extract;
#[cfg(test)]
mod hostile;
mod inode;
mod listing;
mod lzo;
mod metadata;
mod superblock;
#[cfg(test)]
mod tests;

pub use codec::Codec;
pub use content::Content;
pub use inode::{Inode, Kind, Reference};
pub use listing::{Listed, Listing};
pub use superblock::Superblock;

use metadata::{Cursor, Metadata};
pub(super) use superblock::is_magic;

/// The root directory's attribute with the formation's encoding.
const FORMATION_ATTRIBUTE: &[u8] = b"user.forge.formation";

/// A squashfs, in a file of its own or in the middle of one.
#[derive(Debug)]
pub struct Image {
    region: Arc<Region>,
    superblock: Superblock,
    metadata: Metadata,
    /// Owners and groups.
    ids: Vec<u32>,
    attributes: Option<attributes::Table>,
    recent_fragments: content::Fragments,
}

/// Part of a file.
#[derive(Debug)]
struct Region {
    path: PathBuf,
    file: File,
    start: u64,
    length: u64,
}

impl Region {
    /// The error that says what is wrong with the image.
    fn bad(&self, reason: impl Into<String>) -> Error {
        Error::Archive { from: self.path.display().to_string(), format: "squashfs", reason: reason.into() }
    }

    /// Fills a buffer; what reaches over the end is an error.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.length);
        let at = end.and_then(|_| offset.checked_add(self.start));
        let Some(at) = at else { return Err(self.bad(format!("it ends before what begins at {offset} does"))) };
        self.file.read_exact_at(buffer, at).map_err(Error::file("read", &self.path))
    }
}

impl Image {
    /// Opens the image that begins at `start` of a file and is at most `length` long. `path` is for messages.
    pub fn open(file: File, path: &Path, start: u64, length: u64) -> Result<Self> {
        let mut region = Region { path: path.to_owned(), file, start, length };
        let mut bytes = [0; superblock::LENGTH];
        region.read(0, &mut bytes)?;
        let superblock = Superblock::parse(&bytes).map_err(|reason| region.bad(reason))?;
        if superblock.used > length {
            return Err(region.bad(format!("it is cut short: {} bytes of {}", length, superblock.used)));
        }
        // What comes after is padding.
        region.length = superblock.used;
        let region = Arc::new(region);
        let metadata = Metadata::new(Arc::clone(&region), superblock.codec);
        let ids = read_ids(&region, &metadata, &superblock)?;
        let attributes = attributes::Table::open(&region, &superblock)?;
        Ok(Self { region, superblock, metadata, ids, attributes, recent_fragments: content::Fragments::default() })
    }

    /// Opens the image that an artifact is.
    pub fn of(artifact: &Artifact) -> Result<Self> {
        let Some(file) = artifact.file() else { return Err(artifact.bad("squashfs", "it is a directory")) };
        let file = file.try_clone().map_err(Error::file("open", artifact.path()))?;
        Self::open(file, artifact.path(), 0, artifact.size())
    }

    /// What the first 96 bytes say.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// The root directory.
    pub fn root(&self) -> Result<Inode> {
        self.inode(self.superblock.root)
    }

    /// The inode at a place in the inode table.
    pub fn inode(&self, reference: Reference) -> Result<Inode> {
        inode::read(self, reference)
    }

    /// A directory's entries, one after the other.
    pub fn listing(&self, directory: &Inode) -> Result<Listing<'_>> {
        Listing::new(self, directory)
    }

    /// What lies at a path; symbolic links are not followed.
    pub fn find(&self, path: &RelativePath) -> Result<Option<Inode>> {
        let mut inode = self.root()?;
        for name in &path.0 {
            if !matches!(inode.kind, Kind::Directory { .. }) {
                return Ok(None);
            }
            let mut listing = self.listing(&inode)?;
            let found = loop {
                match listing.next()? {
                    Some(listed) if listed.name == *name => break Some(listed),
                    Some(_) => {}
                    None => break None,
                }
            };
            let Some(found) = found else { return Ok(None) };
            inode = self.inode(found.reference)?;
        }
        Ok(Some(inode))
    }

    /// A file's content, from its beginning; none if it is not a file.
    pub fn content(&self, inode: &Inode) -> Option<Content<'_>> {
        match &inode.kind {
            Kind::File(file) => Some(Content::new(self, file.clone())),
            _ => None,
        }
    }

    /// An inode's extended attributes by their full names, all of them.
    pub fn attributes(&self, inode: &Inode) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        match (&self.attributes, inode.attributes) {
            (_, None) => Ok(BTreeMap::new()),
            (None, Some(_)) => Err(self.region.bad("an inode has attributes, and the image has none")),
            (Some(table), Some(number)) => table.read(self, number),
        }
    }

    /// The formation that the image claims to hold.
    pub fn formation(&self) -> Result<Option<Formation>> {
        let Some(encoded) = self.attributes(&self.root()?)?.remove(FORMATION_ATTRIBUTE) else { return Ok(None) };
        let formation = Formation::decode(&encoded);
        let bad = |error| self.region.bad(format!("what it says of its formation is damaged: {error}"));
        Ok(Some(formation.map_err(bad)?))
    }

    /// What the image says of itself.
    pub fn inspect(&self) -> Result<Inspection> {
        let superblock = &self.superblock;
        let mut facts = BTreeMap::new();
        let mut fact = |name: &str, value: String| _ = facts.insert(name.to_owned(), value);
        fact("block size", superblock.block_size.to_string());
        fact("entries", superblock.inodes.to_string());
        fact("fragments", superblock.fragments.to_string());
        fact("made", crate::format::time_text(superblock.time));
        let parts = vec![Part {
            kind: "file system".to_owned(),
            name: "squashfs 4.0".to_owned(),
            offset: Some(self.region.start),
            size: superblock.used,
            detail: superblock.codec.name().to_owned(),
        }];
        Ok(Inspection {
            format: "squashfs",
            size: superblock.used,
            compression: superblock.codec.name().to_owned(),
            formation: self.formation()?,
            parts,
            facts,
            ..Inspection::default()
        })
    }

    fn cursor(&self, table: u64, reference: Reference) -> Result<Cursor<'_>> {
        let at = table.checked_add(reference.block).ok_or_else(|| self.region.bad("a reference leads nowhere"))?;
        Ok(Cursor::new(&self.metadata, at, reference.offset.into()))
    }
}

/// The table of owners and groups: metadata blocks, found through a list of where they start.
fn read_ids(region: &Region, metadata: &Metadata, superblock: &Superblock) -> Result<Vec<u32>> {
    let mut ids = Vec::with_capacity(usize::from(superblock.ids));
    let mut cursor = None;
    for number in 0..u64::from(superblock.ids) {
        if number % 2048 == 0 {
            let start = pointer(region, superblock.id_table, number / 2048)?;
            cursor = Some(Cursor::new(metadata, start, 0));
        }
        let cursor = cursor.as_mut().expect("the first number starts a block");
        ids.push(cursor.u32()?);
    }
    Ok(ids)
}

/// The `number`th of a list of 64-bit places.
fn pointer(region: &Region, list: u64, number: u64) -> Result<u64> {
    let mut bytes = [0; 8];
    let at = number.checked_mul(8).and_then(|offset| list.checked_add(offset));
    region.read(at.unwrap_or(u64::MAX), &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
