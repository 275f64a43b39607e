//! A directory's listing: runs of entries whose inodes lie in one metadata block.

use super::{Cursor, Image, Inode, Kind, Reference};
use crate::{Name, Result};

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: Name,
    /// Its inode.
    pub reference: Reference,
    /// The inode's kind, as a number.
    pub(super) kind: u16,
}

/// The entries of a directory, in their order in the image.
pub struct Listing<'a> {
    image: &'a Image,
    cursor: Cursor<'a>,
    /// Bytes still to be read.
    left: u32,
    /// Entries left of this run, and where their inodes are.
    run: u32,
    block: u64,
}

/// The most entries of a run.
const LONGEST_RUN: u32 = 256;

impl<'a> Listing<'a> {
    pub(super) fn new(image: &'a Image, directory: &Inode) -> Result<Self> {
        let Kind::Directory { listing, length } = directory.kind else {
            return Err(image.region.bad("what should be a directory is none"));
        };
        let cursor = image.cursor(image.superblock.directory_table, listing)?;
        Ok(Self { image, cursor, left: length, run: 0, block: 0 })
    }

    /// The next entry; none at the end.
    #[expect(clippy::should_implement_trait, reason = "an iterator of results would go on after an error")]
    pub fn next(&mut self) -> Result<Option<Listed>> {
        if self.run == 0 {
            if self.left == 0 {
                return Ok(None);
            }
            self.take(12)?;
            let count = self.cursor.u32()?;
            if count >= LONGEST_RUN {
                return Err(self.image.region.bad(format!("a directory has a run of {count} entries")));
            }
            self.run = count + 1;
            self.block = self.cursor.u32()?.into();
            let _number = self.cursor.u32()?;
        }
        self.take(8)?;
        let offset = self.cursor.u16()?;
        let _number = self.cursor.u16()?;
        let kind = self.cursor.u16()?;
        let length = u32::from(self.cursor.u16()?) + 1;
        self.take(length)?;
        if length > 256 {
            return Err(self.image.region.bad(format!("a name has {length} bytes")));
        }
        let name = self.cursor.bytes(length as usize)?;
        let name = Name::new(name).map_err(|error| self.image.region.bad(error.to_string()))?;
        self.run -= 1;
        Ok(Some(Listed { name, reference: Reference { block: self.block, offset }, kind }))
    }

    fn take(&mut self, length: u32) -> Result<()> {
        let left = self.left.checked_sub(length);
        self.left = left.ok_or_else(|| self.image.region.bad("a directory ends within an entry"))?;
        Ok(())
    }
}
