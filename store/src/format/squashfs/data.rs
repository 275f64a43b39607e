//! Writes the data of an image: pieces made by all threads at once, put behind one another in the order of the plan.
//!
//! A thread takes the next piece, reads, checks and compresses it (or copies it from an earlier artifact), and hands it in.
//! Where it lies is known as soon as all before it are made; then it is written and hashed (`line`). What the pieces become does
//! not depend on who made them.

use std::fs::File;
use std::os::unix::fs::FileExt;

use blake3::hazmat::{ChainingValue, HasherExt};

use super::BLOCK_SIZE;
use super::plan::{PIECE_LENGTH, Piece, Plan, Source};
use super::previous::{Found, Previous};
use crate::format::hashing::{Windows, root_of};
use crate::format::{Compression, Compressor};
use crate::{BlobId, Error, Result, Store};

mod again;
mod line;

pub(super) use again::Arrangement;
use line::{Buffer, Line, Made, Turn};

/// Bit of a block's size: it is stored as it is.
pub(super) const UNCOMPRESSED: u32 = 1 << 24;
/// How many jobs may be under way beside two for each thread: one that takes long does not stop the others.
const AHEAD: usize = 8;
/// How much is copied from an earlier artifact at a time: what is read is checked, written and hashed while it is still in the
/// processor's cache.
const COPY_LENGTH: u64 = 256 << 10;
static ZEROS: [u8; BLOCK_SIZE] = [0; BLOCK_SIZE];

/// A piece as it lies in the image.
#[derive(Debug, Clone, Default)]
pub(super) struct Written {
    pub start: u64,
    /// Of each block as stored; 0 stands for a block of zeros.
    pub sizes: Vec<u32>,
    /// BLAKE3 of its bytes as stored.
    pub digest: [u8; 32],
    /// Of a part of a file: what the file's digest is computed from.
    chaining: Option<ChainingValue>,
    /// Whether it was copied, rather than made from the store's blobs.
    pub copied: bool,
}

impl Written {
    /// How many bytes it takes.
    pub fn length(&self) -> u64 {
        self.sizes.iter().map(|size| u64::from(size & !UNCOMPRESSED)).sum()
    }
}

/// Pieces that one thread makes in a row.
struct Job<'a> {
    pieces: std::ops::Range<usize>,
    /// Where to copy them from; they lie there behind one another.
    found: Option<Vec<Found<'a>>>,
}

/// Where the data goes.
pub(super) struct Target<'a> {
    pub file: &'a File,
    /// Where in the file the image begins.
    pub base: u64,
    /// Where in the image the data begins.
    pub start: u64,
}

/// Writes all pieces; says how each lies, where the data ends, and what it hashes to.
pub(super) fn write(
    store: &Store,
    plan: &Plan,
    compression: Compression,
    previous: &[Previous],
    target: &Target<'_>,
) -> Result<(Vec<Written>, u64, Windows)> {
    let jobs = jobs(plan, previous);
    let threads = rayon::current_num_threads();
    let line = Line::new(target, jobs.len(), plan.pieces.len(), AHEAD + 2 * threads);
    rayon::scope(|scope| {
        for _ in 0..threads.min(jobs.len()) {
            scope.spawn(|_| {
                let worked = Worker::new(store, plan, compression).and_then(|mut worker| worker.work(&jobs, &line));
                if let Err(error) = worked {
                    line.fail(error);
                }
            });
        }
    });
    let (written, end, windows) = line.finish()?;
    check_files(store, plan, &written)?;
    Ok((written, end, windows))
}

/// What is copied is copied in long runs; everything else is a piece a job.
fn jobs<'a>(plan: &Plan, previous: &'a [Previous]) -> Vec<Job<'a>> {
    let mut jobs: Vec<Job<'a>> = Vec::new();
    let mut length = 0;
    for (number, piece) in plan.pieces.iter().enumerate() {
        let key = piece.key();
        let found = previous.iter().find_map(|previous| previous.find(&key));
        if let (Some(found), Some(Job { pieces, found: Some(row) })) = (&found, jobs.last_mut()) {
            let last = &row[row.len() - 1];
            if last.is_before(found) && length + found.length() <= COPY_LENGTH {
                length += found.length();
                pieces.end = number + 1;
                row.push(*found);
                continue;
            }
        }
        length = found.as_ref().map_or(0, Found::length);
        jobs.push(Job { pieces: number..number + 1, found: found.map(|found| vec![found]) });
    }
    jobs
}

struct Worker<'a> {
    store: &'a Store,
    plan: &'a Plan,
    compressor: Compressor,
    input: Vec<u8>,
}

impl<'a> Worker<'a> {
    fn new(store: &'a Store, plan: &'a Plan, compression: Compression) -> Result<Self> {
        Ok(Self { store, plan, compressor: Compressor::new(compression)?, input: Vec::new() })
    }

    fn work(&mut self, jobs: &[Job<'_>], line: &Line<'_>) -> Result<()> {
        while let Some(turn) = line.turn() {
            match turn {
                Turn::Make(number, buffer) => line.made(number, self.make(&jobs[number], buffer)?),
                Turn::Write(position, buffer) => line.write(position, buffer)?,
                Turn::Hash(buffer, windows) => line.hash(buffer, windows),
            }
        }
        Ok(())
    }

    fn make(&mut self, job: &Job<'_>, mut buffer: Buffer) -> Result<Made> {
        let mut pieces = Vec::with_capacity(job.pieces.len());
        match &job.found {
            None => pieces.push(self.pack(job.pieces.start, &mut buffer)?),
            Some(row) => {
                let length: u64 = row.iter().map(Found::length).sum();
                let room = &mut buffer.room(length as usize)[..length as usize];
                // An earlier artifact that has been cut short, or cannot be read any more, is no help and no harm.
                let is_read = row[0].read(room).is_ok();
                for (number, found) in job.pieces.clone().zip(row) {
                    let (start, length) = (buffer.filled, found.length() as usize);
                    if is_read && found.is(&buffer.bytes[start..start + length]) {
                        buffer.filled += length;
                        let (sizes, digest) = (found.entry.sizes.clone(), found.entry.digest);
                        pieces.push(Written { sizes, digest, copied: true, ..Written::default() });
                    } else {
                        pieces.push(self.repair(number, found, &mut buffer)?);
                    }
                }
            }
        }
        Ok(Made { buffer, first: job.pieces.start, pieces })
    }

    /// Makes a piece anew that was found damaged, in the middle of those that are read already.
    fn repair(&mut self, number: usize, found: &Found<'_>, buffer: &mut Buffer) -> Result<Written> {
        let mut anew = Buffer::default();
        let written = self.pack(number, &mut anew)?;
        if written.digest != found.entry.digest || anew.filled != found.length() as usize {
            return Err(Error::StaleIndex);
        }
        buffer.bytes[buffer.filled..][..anew.filled].copy_from_slice(anew.filled());
        buffer.filled += anew.filled;
        // It is what was written before, and its content was checked then.
        Ok(Written { copied: true, ..written })
    }

    /// Reads a piece from the store, checks and compresses it.
    fn pack(&mut self, number: usize, buffer: &mut Buffer) -> Result<Written> {
        let mut input = std::mem::take(&mut self.input);
        let start = buffer.filled;
        let (mut sizes, mut chaining) = (Vec::new(), None);
        match &self.plan.pieces[number] {
            Piece::Blocks { source, offset } => {
                let length = (source.size - offset).min(PIECE_LENGTH) as usize;
                let content = room(&mut input, length);
                self.read(source, *offset, content)?;
                if source.size <= PIECE_LENGTH {
                    check(source, BlobId::of(content))?;
                } else {
                    let mut hasher = blake3::Hasher::new();
                    hasher.set_input_offset(*offset).update(content);
                    chaining = Some(hasher.finalize_non_root());
                }
                for block in content.chunks(BLOCK_SIZE) {
                    let zeros = *block == ZEROS[..block.len()];
                    sizes.push(if zeros { 0 } else { self.compress(block, buffer)? });
                }
            }
            Piece::Fragment(members) => {
                let length = members.iter().map(|member| member.size).sum::<u64>() as usize;
                let content = room(&mut input, length);
                let mut rest = &mut *content;
                for member in members {
                    let (own, others) = rest.split_at_mut(member.size as usize);
                    self.read(member, 0, own)?;
                    check(member, BlobId::of(own))?;
                    rest = others;
                }
                sizes.push(self.compress(content, buffer)?);
            }
        }
        self.input = input;
        let digest = *blake3::hash(&buffer.filled()[start..]).as_bytes();
        Ok(Written { sizes, digest, chaining, ..Written::default() })
    }

    fn read(&self, source: &Source, offset: u64, content: &mut [u8]) -> Result<()> {
        let file = self.store.open_blob_of(source.blob, source.executable)?;
        file.read_exact_at(content, offset).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => mismatch(source.blob, "a shorter content".to_owned()),
            _ => Error::File { action: "read", path: format!("blob {}", source.blob).into(), source: error },
        })
    }

    /// Appends a block, smaller if it can be; gives its size with the flag.
    fn compress(&mut self, block: &[u8], buffer: &mut Buffer) -> Result<u32> {
        let room = buffer.room(self.compressor.room(block.len()));
        let size = match self.compressor.pack(block, room)? {
            Some(length) => length as u32,
            None => {
                room[..block.len()].copy_from_slice(block);
                block.len() as u32 | UNCOMPRESSED
            }
        };
        buffer.filled += (size & !UNCOMPRESSED) as usize;
        Ok(size)
    }
}

fn room(input: &mut Vec<u8>, length: usize) -> &mut [u8] {
    if input.len() < length {
        input.resize(length, 0);
    }
    &mut input[..length]
}

/// Compares the digests of files that were read in several pieces with those they have names from.
fn check_files(store: &Store, plan: &Plan, written: &[Written]) -> Result<()> {
    for (number, piece) in plan.pieces.iter().enumerate() {
        let Piece::Blocks { source, offset: 0 } = piece else { continue };
        if source.size <= PIECE_LENGTH {
            continue;
        }
        let count = source.size.div_ceil(PIECE_LENGTH) as usize;
        let pieces = &written[number..number + count];
        // What is copied was checked when it was first written.
        if pieces.iter().all(|piece| piece.copied) {
            continue;
        }
        let values: Option<Vec<ChainingValue>> = pieces.iter().map(|piece| piece.chaining).collect();
        match values {
            Some(values) => check(source, BlobId::from_bytes(root_of(&values)))?,
            // An index without some of a file's pieces is none of ours. All the same:
            None => check(source, store.hash_blob(source.blob)?)?,
        }
    }
    Ok(())
}

fn check(source: &Source, actual: BlobId) -> Result<()> {
    if actual == source.blob { Ok(()) } else { Err(mismatch(source.blob, actual.to_string())) }
}

fn mismatch(blob: BlobId, actual: String) -> Error {
    Error::Mismatch { from: format!("blob {}", blob.short()), actual, expected: blob.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_same_digest_in_pieces() {
        let content: Vec<u8> = (0..7 * PIECE_LENGTH / 2).map(|number| ((number * 31) >> 7) as u8).collect();
        for length in [2 * PIECE_LENGTH, PIECE_LENGTH + 1, 3 * PIECE_LENGTH, 7 * PIECE_LENGTH / 2] {
            let content = &content[..length as usize];
            let value = |(number, piece): (usize, &[u8])| {
                let mut hasher = blake3::Hasher::new();
                hasher.set_input_offset(number as u64 * PIECE_LENGTH).update(piece);
                hasher.finalize_non_root()
            };
            let values: Vec<_> = content.chunks(PIECE_LENGTH as usize).enumerate().map(value).collect();
            assert_eq!(BlobId::from_bytes(root_of(&values)), BlobId::of(content), "{length}");
        }
    }
}
