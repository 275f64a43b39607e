//! Metadata of a squashfs: streams cut into blocks of 8 KiB, each compressed if that makes it smaller, and the tables that
//! are found through an index of such blocks.

use std::collections::BTreeMap;

use super::{NONE_32, NONE_64};
use crate::format::{Compression, Compressor};
use crate::{Metadata, Result};

/// How much of a table is compressed at a time.
pub(super) const METADATA_BLOCK: usize = 8192;
/// Bit of a metadata block's header: it is stored as it is.
pub(super) const UNCOMPRESSED: u16 = 0x8000;

/// A stream of metadata.
pub(super) struct MetadataWriter {
    compressor: Compressor,
    done: Vec<u8>,
    block: Vec<u8>,
    starts: Vec<u64>,
}

impl MetadataWriter {
    pub fn new(compression: Compression) -> Result<Self> {
        let compressor = Compressor::new(compression)?;
        Ok(Self { compressor, done: Vec::new(), block: Vec::new(), starts: Vec::new() })
    }

    /// Where the next byte will be: start of its block in the table, and offset in the block once unpacked.
    pub fn position(&self) -> (u32, u16) {
        (self.done.len() as u32, self.block.len() as u16)
    }

    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let taken = bytes.len().min(METADATA_BLOCK - self.block.len());
            self.block.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.block.len() == METADATA_BLOCK {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.starts.push(self.done.len() as u64);
        let header = self.done.len();
        let start = header + 2;
        self.done.resize(start + self.compressor.room(self.block.len()).max(self.block.len()), 0);
        let (length, flag) = match self.compressor.pack(&self.block, &mut self.done[start..])? {
            Some(length) => (length, 0),
            None => {
                self.done[start..start + self.block.len()].copy_from_slice(&self.block);
                (self.block.len(), UNCOMPRESSED)
            }
        };
        self.done[header..start].copy_from_slice(&(length as u16 | flag).to_le_bytes());
        self.done.truncate(start + length);
        self.block.clear();
        Ok(())
    }

    fn finish_with_starts(mut self) -> Result<(Vec<u8>, Vec<u64>)> {
        if !self.block.is_empty() {
            self.flush()?;
        }
        Ok((self.done, self.starts))
    }

    /// The whole table.
    pub fn finish(self) -> Result<Vec<u8>> {
        Ok(self.finish_with_starts()?.0)
    }
}

/// Appends bytes to the image and says where they begin.
pub(super) type Append<'a> = dyn FnMut(&[u8]) -> Result<u64> + 'a;

/// Writes a table and, behind it, the list of where its blocks start; gives the place of that list.
pub(super) fn write_indexed(bytes: &[u8], compression: Compression, append: &mut Append<'_>) -> Result<u64> {
    let mut writer = MetadataWriter::new(compression)?;
    writer.write(bytes)?;
    let (table, starts) = writer.finish_with_starts()?;
    let at = append(&table)?;
    let index: Vec<u8> = starts.iter().flat_map(|start| (at + start).to_le_bytes()).collect();
    append(&index)
}

/// Names and values of one node's attributes.
type AttributeSet = Vec<(Vec<u8>, Vec<u8>)>;

/// The extended attributes of an image; equal sets are stored once.
#[derive(Default)]
pub(super) struct Attributes {
    sets: Vec<AttributeSet>,
    known: BTreeMap<AttributeSet, u32>,
}

impl Attributes {
    /// The number of a node's set of attributes; `NONE_32` if it has none.
    pub fn add(&mut self, metadata: &Metadata) -> u32 {
        if metadata.attributes.is_empty() {
            return NONE_32;
        }
        let set: AttributeSet = metadata.attributes.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        *self.known.entry(set.clone()).or_insert_with(|| {
            self.sets.push(set);
            self.sets.len() as u32 - 1
        })
    }

    /// Writes the tables; gives the place of the header, or `NONE_64` if there are no attributes.
    pub fn write(self, compression: Compression, append: &mut Append<'_>) -> Result<u64> {
        if self.sets.is_empty() {
            return Ok(NONE_64);
        }
        let mut values = MetadataWriter::new(compression)?;
        let mut ids = Vec::new();
        for set in &self.sets {
            let (block, offset) = values.position();
            let mut bytes = Vec::new();
            for (name, value) in set {
                let (prefix, rest) = prefix(name);
                bytes.extend(prefix.to_le_bytes());
                bytes.extend((rest.len() as u16).to_le_bytes());
                bytes.extend(&rest);
                bytes.extend((value.len() as u32).to_le_bytes());
                bytes.extend(value);
            }
            values.write(&bytes)?;
            ids.extend((u64::from(block) << 16 | u64::from(offset)).to_le_bytes());
            ids.extend((set.len() as u32).to_le_bytes());
            ids.extend((bytes.len() as u32).to_le_bytes());
        }
        let values_at = append(&values.finish()?)?;
        let mut writer = MetadataWriter::new(compression)?;
        writer.write(&ids)?;
        let (table, starts) = writer.finish_with_starts()?;
        let ids_at = append(&table)?;
        let mut header = Vec::new();
        header.extend(values_at.to_le_bytes());
        header.extend((self.sets.len() as u32).to_le_bytes());
        header.extend(0_u32.to_le_bytes());
        header.extend(starts.iter().flat_map(|start| (ids_at + start).to_le_bytes()));
        append(&header)
    }
}

/// The number that stands for an attribute's prefix, and the rest of its name. squashfs has no number for `system.`.
fn prefix(name: &[u8]) -> (u16, Vec<u8>) {
    if let Some(rest) = name.strip_prefix(b"user.") {
        (0, rest.to_vec())
    } else if let Some(rest) = name.strip_prefix(b"security.") {
        (2, rest.to_vec())
    } else {
        let rest = name.strip_prefix(b"system.").unwrap_or(name);
        (0, [b"forge.", rest].concat())
    }
}
