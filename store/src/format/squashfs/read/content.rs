//! A file's content: its blocks, unpacked as they are read, and its end out of a fragment that it shares with others.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use super::inode::FileInode;
use super::{Cursor, Image};
use crate::{Error, Result};

/// Bit of a block's size: it is stored as it is.
const UNCOMPRESSED: u32 = 1 << 24;
/// Entries of the fragment table in a metadata block, of 16 bytes each.
const FRAGMENTS_IN_BLOCK: u32 = 512;
/// How many fragments are remembered. Who reads files in the order in which they lie needs one for each thread.
const REMEMBERED: usize = 16;

/// Fragments that were unpacked last.
#[derive(Debug, Default)]
pub(super) struct Fragments(Mutex<VecDeque<(u32, Arc<[u8]>)>>);

/// A file's content, from its beginning.
pub struct Content<'a> {
    image: &'a Image,
    file: FileInode,
    sizes: Cursor<'a>,
    /// Bytes that are not unpacked yet.
    left: u64,
    /// Where the next block lies.
    at: u64,
    /// Unpacked, and how much of the first was given.
    ready: VecDeque<Vec<u8>>,
    given: usize,
    /// How many blocks are unpacked at a time.
    batch: usize,
    error: Option<Error>,
}

/// A block to be unpacked.
struct Block {
    at: u64,
    size: u32,
    length: usize,
}

impl<'a> Content<'a> {
    pub(super) fn new(image: &'a Image, file: FileInode) -> Self {
        let sizes = Cursor::new(&image.metadata, file.sizes.0, file.sizes.1);
        let (left, at) = (file.size, file.start);
        Self { image, file, sizes, left, at, ready: VecDeque::new(), given: 0, batch: 1, error: None }
    }

    /// Unpacks on all cores, a few blocks for each at a time.
    #[must_use]
    pub fn in_parallel(mut self) -> Self {
        self.batch = 4 * rayon::current_num_threads();
        self
    }

    /// Bytes of the whole content.
    pub fn size(&self) -> u64 {
        self.file.size
    }

    /// What was wrong with the image, if reading failed for that.
    pub fn error(&mut self) -> Option<Error> {
        self.error.take()
    }

    /// Passes over some bytes; blocks that lie wholly in them are not unpacked.
    pub fn skip(&mut self, mut count: u64) -> Result<()> {
        let block_size = u64::from(self.image.superblock.block_size);
        while count >= block_size && self.left >= block_size && self.ready.is_empty() {
            self.next_block()?;
            count -= block_size;
        }
        let mut buffer = [0; 4096];
        while count > 0 {
            let wanted = count.min(buffer.len() as u64) as usize;
            match self.read(&mut buffer[..wanted]) {
                Ok(0) => return Ok(()),
                Ok(length) => count -= length as u64,
                Err(error) => return Err(self.error().unwrap_or_else(|| self.failed(error))),
            }
        }
        Ok(())
    }

    pub(super) fn failed(&self, source: io::Error) -> Error {
        Error::File { action: "read", path: self.image.region.path.clone(), source }
    }

    /// Takes the next block off the list; none if only the fragment is left.
    fn next_block(&mut self) -> Result<Option<Block>> {
        let block_size = u64::from(self.image.superblock.block_size);
        let length = self.left.min(block_size);
        if length < block_size && self.file.fragment.is_some() {
            return Ok(None);
        }
        let size = self.sizes.u32()?;
        let stored = size & !UNCOMPRESSED;
        if u64::from(stored) > block_size {
            return Err(self.image.region.bad(format!("a block has {stored} bytes")));
        }
        let block = Block { at: self.at, size, length: length as usize };
        let next = self.at.checked_add(stored.into());
        self.at = next.ok_or_else(|| self.image.region.bad("a block lies nowhere"))?;
        self.left -= length;
        Ok(Some(block))
    }

    fn fill(&mut self) -> Result<()> {
        let mut blocks = Vec::new();
        while self.left > 0 && blocks.len() < self.batch {
            match self.next_block()? {
                Some(block) => blocks.push(block),
                None => break,
            }
        }
        let image = self.image;
        if blocks.len() == 1 {
            self.ready.push_back(image.unpack_block(&blocks[0])?);
        } else {
            let unpacked: Vec<Vec<u8>> =
                blocks.into_par_iter().map(|block| image.unpack_block(&block)).collect::<Result<_>>()?;
            self.ready.extend(unpacked);
        }
        if self.ready.is_empty() && self.left > 0 {
            let Some((number, offset)) = self.file.fragment else { unreachable!("only a fragment has no block") };
            let fragment = image.fragment(number)?;
            let start = offset as usize;
            let end = start.checked_add(self.left as usize);
            let tail = end.and_then(|end| fragment.get(start..end));
            let tail = tail.ok_or_else(|| image.region.bad(format!("a file ends outside of fragment {number}")))?;
            self.ready.push_back(tail.to_vec());
            self.left = 0;
        }
        Ok(())
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ready.is_empty()
            && self.left > 0
            && let Err(error) = self.fill()
        {
            let text = error.to_string();
            self.error = Some(error);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let Some(first) = self.ready.front() else { return Ok(0) };
        let here = &first[self.given..];
        let taken = here.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&here[..taken]);
        self.given += taken;
        if self.given == first.len() {
            self.ready.pop_front();
            self.given = 0;
        }
        Ok(taken)
    }
}

impl Image {
    fn unpack_block(&self, block: &Block) -> Result<Vec<u8>> {
        if block.size == 0 {
            // Nothing but zeros, and not stored.
            return Ok(vec![0; block.length]);
        }
        let unpacked = self.unpack(block.at, block.size, block.length)?;
        if unpacked.len() != block.length {
            let text = format!("the block at {} has {} bytes, not {}", block.at, unpacked.len(), block.length);
            return Err(self.region.bad(text));
        }
        Ok(unpacked)
    }

    /// Unpacks what is stored at a place, at most as long as said.
    fn unpack(&self, at: u64, size: u32, most: usize) -> Result<Vec<u8>> {
        let damaged = || self.region.bad(format!("the block at {at} is damaged"));
        // It was checked not to be more than a block.
        let mut stored = vec![0; (size & !UNCOMPRESSED) as usize];
        self.region.read(at, &mut stored)?;
        if size & UNCOMPRESSED != 0 {
            return if stored.len() <= most { Ok(stored) } else { Err(damaged()) };
        }
        let mut unpacked = vec![0; most];
        let length = self.superblock.codec.unpack(&stored, &mut unpacked).ok_or_else(damaged)?;
        unpacked.truncate(length);
        Ok(unpacked)
    }

    fn fragment(&self, number: u32) -> Result<Arc<[u8]>> {
        let lock = || self.recent_fragments.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, fragment)) = lock().iter().find(|(known, _)| *known == number) {
            return Ok(Arc::clone(fragment));
        }
        let table = self.superblock.fragment_table.filter(|_| number < self.superblock.fragments);
        let Some(table) = table else {
            return Err(self.region.bad(format!("there is no fragment {number} of {}", self.superblock.fragments)));
        };
        let start = super::pointer(&self.region, table, u64::from(number / FRAGMENTS_IN_BLOCK))?;
        let mut entry = Cursor::new(&self.metadata, start, (number % FRAGMENTS_IN_BLOCK) as usize * 16);
        let (at, size) = (entry.u64()?, entry.u32()?);
        let block_size = self.superblock.block_size;
        if size & !UNCOMPRESSED > block_size {
            return Err(self.region.bad(format!("fragment {number} has {size} bytes")));
        }
        let fragment: Arc<[u8]> = self.unpack(at, size, block_size as usize)?.into();
        let mut recent = lock();
        if recent.len() >= REMEMBERED {
            recent.pop_front();
        }
        recent.push_back((number, Arc::clone(&fragment)));
        Ok(fragment)
    }

    /// What a content is told by: the same start, sizes and fragment give the same bytes.
    pub(super) fn content_key(&self, file: &FileInode) -> Result<ContentKey> {
        let mut content = Content::new(self, file.clone());
        let mut hasher = blake3::Hasher::new();
        while content.left > 0 {
            match content.next_block()? {
                Some(block) => _ = hasher.update(&block.size.to_le_bytes()),
                None => break,
            }
        }
        let start = if content.at == file.start { 0 } else { file.start };
        Ok((start, file.size, file.fragment, *hasher.finalize().as_bytes()))
    }
}

/// Start, size, fragment, and a digest of the blocks' sizes.
pub(super) type ContentKey = (u64, u64, Option<(u32, u32)>, [u8; 32]);
