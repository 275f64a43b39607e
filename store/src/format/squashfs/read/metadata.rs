//! Metadata: streams cut into blocks of 8 KiB, each compressed or not; the blocks that were unpacked last are remembered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Codec, Region};
use crate::Result;

/// The most that a block holds.
pub(super) const BLOCK: usize = 8192;
/// Bit of a block's header: it is stored as it is.
const UNCOMPRESSED: u16 = 0x8000;
/// When the newer half is full, the older is forgotten: twice 4 MiB.
const HALF: usize = 512;

/// Blocks of metadata, by where they begin.
#[derive(Debug)]
pub(super) struct Metadata {
    region: Arc<Region>,
    codec: Codec,
    recent: Mutex<Recent>,
}

#[derive(Debug, Default)]
struct Recent {
    newer: HashMap<u64, Block>,
    older: HashMap<u64, Block>,
}

#[derive(Debug, Clone)]
struct Block {
    bytes: Arc<[u8]>,
    /// Where the next one begins.
    next: u64,
}

impl Metadata {
    pub fn new(region: Arc<Region>, codec: Codec) -> Self {
        Self { region, codec, recent: Mutex::default() }
    }

    fn block(&self, at: u64) -> Result<Block> {
        let lock = || self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(block) = { lock().get(at) } {
            return Ok(block);
        }
        let mut header = [0; 2];
        self.region.read(at, &mut header)?;
        let header = u16::from_le_bytes(header);
        let length = usize::from(header & !UNCOMPRESSED);
        if length == 0 || length > BLOCK {
            return Err(self.region.bad(format!("the metadata block at {at} has {length} bytes")));
        }
        let mut stored = vec![0; length];
        self.region.read(at + 2, &mut stored)?;
        let bytes = if header & UNCOMPRESSED != 0 {
            stored
        } else {
            let mut unpacked = vec![0; BLOCK];
            let length = self.codec.unpack(&stored, &mut unpacked).filter(|length| *length > 0);
            let Some(length) = length else {
                return Err(self.region.bad(format!("the metadata block at {at} is damaged")));
            };
            unpacked.truncate(length);
            unpacked
        };
        let block = Block { bytes: bytes.into(), next: at + 2 + length as u64 };
        lock().insert(at, block.clone());
        Ok(block)
    }
}

impl Recent {
    fn get(&self, at: u64) -> Option<Block> {
        self.newer.get(&at).or_else(|| self.older.get(&at)).cloned()
    }

    fn insert(&mut self, at: u64, block: Block) {
        if self.newer.len() >= HALF {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(at, block);
    }
}

/// A place in a stream of metadata; reading goes on from block to block.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    metadata: &'a Metadata,
    /// The block that is read, once it is.
    block: Option<Block>,
    /// Where it begins, or the next does.
    at: u64,
    offset: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(metadata: &'a Metadata, at: u64, offset: usize) -> Self {
        Self { metadata, block: None, at, offset }
    }

    /// Where it is: the block in the image, and how far in it.
    pub fn position(&self) -> (u64, usize) {
        (self.at, self.offset)
    }

    /// Fills a buffer.
    pub fn read(&mut self, mut buffer: &mut [u8]) -> Result<()> {
        while !buffer.is_empty() {
            let block = match self.block.take() {
                Some(block) => block,
                None => self.metadata.block(self.at)?,
            };
            if self.offset > block.bytes.len() {
                return Err(self.metadata.region.bad(format!("a reference leads behind the block at {}", self.at)));
            }
            let here = &block.bytes[self.offset..];
            let taken = here.len().min(buffer.len());
            let (now, later) = buffer.split_at_mut(taken);
            now.copy_from_slice(&here[..taken]);
            buffer = later;
            self.offset += taken;
            if self.offset == block.bytes.len() {
                (self.at, self.offset) = (block.next, 0);
            } else {
                self.block = Some(block);
            }
        }
        Ok(())
    }

    /// As many bytes. The caller has bounded the number.
    pub fn bytes(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    pub fn u16(&mut self) -> Result<u16> {
        let mut bytes = [0; 2];
        self.read(&mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    pub fn u32(&mut self) -> Result<u32> {
        let mut bytes = [0; 4];
        self.read(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    pub fn u64(&mut self) -> Result<u64> {
        let mut bytes = [0; 8];
        self.read(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}
