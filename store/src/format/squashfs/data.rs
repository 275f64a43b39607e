//! Writes the data of an image: pieces made by all threads at once, put behind one another in the order of the plan.
//!
//! A thread takes the next piece, reads, checks and compresses it (or copies it from an earlier artifact), and hands it in.
//! Where it lies is known as soon as all before it are made; whoever completes a row of them writes it. Nobody waits for
//! anybody else unless he is far ahead, and what the pieces become does not depend on who made them.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use blake3::hazmat::{ChainingValue, HasherExt};

use super::BLOCK_SIZE;
use super::plan::{PIECE_LENGTH, Piece, Plan, Source};
use super::previous::{Found, Previous};
use crate::format::{Compression, Compressor, write_failed};
use crate::{BlobId, Error, Result, Store};

/// Bit of a block's size: it is stored as it is.
pub(super) const UNCOMPRESSED: u32 = 1 << 24;
/// How far one thread may be ahead of the slowest: with the length of a job this bounds the memory.
const AHEAD: usize = 16;
/// How much is copied from an earlier artifact at a time: what is read is hashed and written while it is still in the cache
/// of the processor's core.
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

/// Writes all pieces; says how each lies, and where the data ends.
pub(super) fn write(
    store: &Store,
    plan: &Plan,
    compression: Compression,
    previous: &[Previous],
    target: &Target<'_>,
) -> Result<(Vec<Written>, u64)> {
    let jobs = jobs(plan, previous);
    let line = Line {
        target,
        state: Mutex::new(State {
            position: target.start,
            written: vec![Written::default(); plan.pieces.len()],
            ..State::default()
        }),
        moved: Condvar::new(),
    };
    let next = AtomicUsize::new(0);
    rayon::scope(|scope| {
        for _ in 0..rayon::current_num_threads().min(jobs.len()) {
            scope.spawn(|_| {
                let worked = Compressor::new(compression).and_then(|compressor| {
                    let mut worker = Worker { store, plan, compressor, input: Vec::new() };
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(job) = jobs.get(number) else { return Ok(()) };
                        let Some(buffer) = line.wait(number) else { return Ok(()) };
                        let made = worker.make(job, buffer)?;
                        line.hand_in(number, job, made)?;
                    }
                });
                if let Err(error) = worked {
                    line.fail(error);
                }
            });
        }
    });
    let state = line.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = state.failed {
        return Err(error);
    }
    check_files(store, plan, &state.written)?;
    Ok((state.written, state.position))
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
                row.push(found.clone());
                continue;
            }
        }
        length = found.as_ref().map_or(0, Found::length);
        jobs.push(Job { pieces: number..number + 1, found: found.map(|found| vec![found]) });
    }
    jobs
}

/// Bytes, of which the first so many count. The rest is kept so that it need not be cleared again.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    filled: usize,
}

impl Buffer {
    /// At least so much room behind what is filled.
    fn room(&mut self, length: usize) -> &mut [u8] {
        if self.bytes.len() < self.filled + length {
            self.bytes.resize(self.filled + length, 0);
        }
        &mut self.bytes[self.filled..]
    }

    fn filled(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

/// What is in the making, and what waits for those before it.
#[derive(Default)]
struct State {
    /// The first job that has no place yet.
    next: usize,
    position: u64,
    waiting: BTreeMap<usize, (usize, Made)>,
    written: Vec<Written>,
    spare: Vec<Buffer>,
    failed: Option<Error>,
}

struct Made {
    buffer: Buffer,
    /// One for each piece of the job, without their place.
    pieces: Vec<Written>,
}

struct Line<'a> {
    target: &'a Target<'a>,
    state: Mutex<State>,
    moved: Condvar,
}

impl Line<'_> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a job is not too far ahead; gives a buffer for it, or nothing if the image has failed.
    fn wait(&self, number: usize) -> Option<Buffer> {
        let mut state = self.state();
        while state.failed.is_none() && number >= state.next + AHEAD {
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.failed.is_some() {
            return None;
        }
        let mut buffer = state.spare.pop().unwrap_or_default();
        buffer.filled = 0;
        Some(buffer)
    }

    fn fail(&self, error: Error) {
        self.state().failed.get_or_insert(error);
        self.moved.notify_all();
    }

    /// Gives a job's pieces their place, and those that waited for it, and writes them.
    fn hand_in(&self, number: usize, job: &Job<'_>, made: Made) -> Result<()> {
        let mut ready = Vec::new();
        let mut guard = self.state();
        let state = &mut *guard;
        state.waiting.insert(number, (job.pieces.start, made));
        while let Some((first, mut made)) = state.waiting.remove(&state.next) {
            ready.push((state.position, made.buffer));
            for (number, piece) in made.pieces.iter_mut().enumerate() {
                piece.start = state.position;
                state.position += piece.length();
                state.written[first + number] = std::mem::take(piece);
            }
            state.next += 1;
        }
        drop(guard);
        if ready.is_empty() {
            return Ok(());
        }
        self.moved.notify_all();
        for (position, buffer) in &ready {
            self.target.file.write_all_at(buffer.filled(), self.target.base + position).map_err(write_failed)?;
        }
        let mut state = self.state();
        state.spare.extend(ready.into_iter().map(|(_, buffer)| buffer));
        Ok(())
    }
}

struct Worker<'a> {
    store: &'a Store,
    plan: &'a Plan,
    compressor: Compressor,
    input: Vec<u8>,
}

impl Worker<'_> {
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
                    let digest = *blake3::hash(&buffer.bytes[start..start + length]).as_bytes();
                    if is_read && digest == found.entry.digest {
                        buffer.filled += length;
                        let sizes = found.entry.sizes.clone();
                        pieces.push(Written { sizes, digest, copied: true, ..Written::default() });
                    } else {
                        pieces.push(self.repair(number, found, &mut buffer)?);
                    }
                }
            }
        }
        Ok(Made { buffer, pieces })
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

/// BLAKE3 of a file from the values of its pieces, of which there are two or more.
fn root_of(values: &[ChainingValue]) -> [u8; 32] {
    use blake3::hazmat::{Mode, merge_subtrees_non_root, merge_subtrees_root};
    // As BLAKE3 splits: the left side has the largest power of two that leaves something to the right.
    fn split(values: &[ChainingValue]) -> (ChainingValue, ChainingValue) {
        let (left, right) = values.split_at(values.len().next_power_of_two() / 2);
        (value_of(left), value_of(right))
    }
    fn value_of(values: &[ChainingValue]) -> ChainingValue {
        if let [value] = values {
            return *value;
        }
        let (left, right) = split(values);
        merge_subtrees_non_root(&left, &right, Mode::Hash)
    }
    let (left, right) = split(values);
    *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()
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
