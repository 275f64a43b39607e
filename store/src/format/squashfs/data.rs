//! File contents of a squashfs: blocks of 128 KiB compressed on all cores and written in order, what is left of a file put
//! into fragments together with the ends of others. Equal blobs are stored once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};

use rayon::prelude::*;

use super::{BLOCK_SIZE, LEVEL, NONE_32, read_full};
use crate::format::write_failed;
use crate::{BlobId, Result, Store};

/// Bit of a block's size: it is stored as it is.
const UNCOMPRESSED: u32 = 1 << 24;
/// How many blocks are compressed at a time: 16 MiB of memory, enough to keep the cores of a large machine busy.
const BATCH: usize = 128;

/// Where the content of a blob lies.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    /// Start of its first block.
    pub start: u64,
    /// Size of each block as stored; 0 stands for a block of zeros.
    pub blocks: Vec<u32>,
    /// Number of the fragment that has its end, and where in it; `NONE_32` if it ends on a block.
    pub fragment: u32,
    pub offset: u32,
    /// Bytes in blocks of zeros.
    pub sparse: u64,
}

/// A fragment block as stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fragment {
    pub start: u64,
    pub size: u32,
}

/// What a block is part of.
enum Owner {
    /// The content with this number.
    Content(usize),
    Fragment,
}

pub(super) struct DataWriter<'a> {
    store: &'a Store,
    output: BufWriter<File>,
    position: u64,
    known: BTreeMap<BlobId, usize>,
    contents: Vec<Content>,
    fragments: Vec<Fragment>,
    /// The fragment being filled.
    open: Vec<u8>,
    batch: Vec<(Owner, Vec<u8>)>,
}

impl<'a> DataWriter<'a> {
    pub fn new(store: &'a Store, output: File, position: u64) -> Self {
        Self {
            store,
            output: BufWriter::with_capacity(1 << 20, output),
            position,
            known: BTreeMap::new(),
            contents: Vec::new(),
            fragments: Vec::new(),
            open: Vec::new(),
            batch: Vec::new(),
        }
    }

    /// Writes every blob of the list that was not written yet.
    pub fn write_all(&mut self, files: &[(BlobId, u64)]) -> Result<()> {
        self.output.seek(SeekFrom::Start(self.position)).map_err(write_failed)?;
        for (blob, size) in files {
            if !self.known.contains_key(blob) {
                self.known.insert(*blob, self.contents.len());
                self.write(*blob, *size)?;
            }
        }
        self.flush()
    }

    fn write(&mut self, blob: BlobId, size: u64) -> Result<()> {
        let number = self.contents.len();
        self.contents.push(Content { fragment: NONE_32, ..Content::default() });
        if size == 0 {
            return Ok(());
        }
        let mut file = self.store.open_blob(blob)?;
        let mut left = size;
        while left >= BLOCK_SIZE as u64 {
            let mut block = vec![0; BLOCK_SIZE];
            let read = read_full(&mut file, &mut block).map_err(write_failed)?;
            self.check_length(blob, read, BLOCK_SIZE)?;
            left -= BLOCK_SIZE as u64;
            self.push(Owner::Content(number), block)?;
        }
        if left > 0 {
            let mut tail = vec![0; left as usize];
            let read = read_full(&mut file, &mut tail).map_err(write_failed)?;
            self.check_length(blob, read, tail.len())?;
            if self.open.len() + tail.len() > BLOCK_SIZE {
                self.close_fragment()?;
            }
            // The fragment's number is that of the next to be closed.
            let (fragment, offset) = (self.closed_fragments(), self.open.len() as u32);
            let content = &mut self.contents[number];
            (content.fragment, content.offset) = (fragment, offset);
            self.open.extend_from_slice(&tail);
        }
        Ok(())
    }

    /// Fragments that are written or wait in the batch.
    fn closed_fragments(&self) -> u32 {
        let waiting = self.batch.iter().filter(|(owner, _)| matches!(owner, Owner::Fragment)).count();
        (self.fragments.len() + waiting) as u32
    }

    fn check_length(&self, blob: BlobId, read: usize, expected: usize) -> Result<()> {
        if read == expected {
            return Ok(());
        }
        let (actual, expected) = ("a shorter content".to_owned(), blob.to_string());
        Err(crate::Error::Mismatch { from: "the store".to_owned(), actual, expected })
    }

    fn close_fragment(&mut self) -> Result<()> {
        let block = std::mem::take(&mut self.open);
        if block.is_empty() { Ok(()) } else { self.push(Owner::Fragment, block) }
    }

    fn push(&mut self, owner: Owner, block: Vec<u8>) -> Result<()> {
        self.batch.push((owner, block));
        if self.batch.len() < BATCH { Ok(()) } else { self.flush() }
    }

    /// Compresses the batch on all cores and writes it in order.
    fn flush(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        let pack = |(owner, block): (Owner, Vec<u8>)| -> Result<_> {
            let zeros = matches!(owner, Owner::Content(_)) && block.iter().all(|byte| *byte == 0);
            if zeros {
                return Ok((owner, Vec::new(), 0));
            }
            let packed = zstd::bulk::compress(&block, LEVEL).map_err(write_failed)?;
            let smaller = packed.len() < block.len();
            let (bytes, flag) = if smaller { (packed, 0) } else { (block, UNCOMPRESSED) };
            let size = bytes.len() as u32 | flag;
            Ok((owner, bytes, size))
        };
        let packed: Vec<_> = batch.into_par_iter().map(pack).collect::<Result<_>>()?;
        for (owner, bytes, size) in packed {
            match owner {
                Owner::Content(number) => {
                    let content = &mut self.contents[number];
                    if content.blocks.is_empty() {
                        content.start = self.position;
                    }
                    if size == 0 {
                        content.sparse += BLOCK_SIZE as u64;
                    }
                    content.blocks.push(size);
                }
                Owner::Fragment => self.fragments.push(Fragment { start: self.position, size }),
            }
            self.output.write_all(&bytes).map_err(write_failed)?;
            self.position += bytes.len() as u64;
        }
        Ok(())
    }

    /// Where a blob's content lies.
    pub fn content(&self, blob: BlobId) -> Content {
        self.contents[self.known[&blob]].clone()
    }

    /// Writes what is left; gives the end of the data and the fragments.
    pub fn finish(mut self) -> Result<(u64, Vec<Fragment>)> {
        self.close_fragment()?;
        self.flush()?;
        self.output.flush().map_err(write_failed)?;
        Ok((self.position, self.fragments))
    }
}
