//! Packing again after a small change.
//!
//! What is new is made first, so that every piece has its place before a byte is written. Then the kernel copies the rest in long
//! ranges (`copy_file_range(2)`), while other threads make the tables and hash what does not lie where it lay. The values
//! that an earlier artifact's digest was computed from hold for what has not moved.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use blake3::hazmat::ChainingValue;
use rayon::prelude::*;
use rustix::io::Errno;

use super::line::Buffer;
use super::{Target, Worker, Written, check_files};
use crate::format::hashing::{WINDOW, Windows, value_of};
use crate::format::squashfs::plan::{PIECE_LENGTH, Piece, Plan};
use crate::format::squashfs::previous::{Ahead, Found, Previous};
use crate::format::{Compression, write_failed};
use crate::{Error, Result, Store};

/// How many bytes of files may be new: what they become is held in memory.
const MOST_NEW: u64 = 32 << 20;
/// How much is copied by one call: in between, a failure elsewhere is noticed.
const CALL: u64 = 16 << 20;
/// How much is read at a time where the kernel does not copy.
const BUFFER: usize = 1 << 20;

/// Bytes that lie behind one another in the new file.
struct Stretch<'a> {
    /// Where in the file.
    at: u64,
    length: u64,
    content: Content<'a>,
}

enum Content<'a> {
    /// In the file of an earlier artifact, from this byte on.
    Copied(&'a Previous, u64),
    /// Compressed just now.
    Made(Buffer),
}

/// The data of an image of which every byte has its place.
pub(in crate::format::squashfs) struct Arrangement<'a> {
    /// How all pieces lie.
    pub written: Vec<Written>,
    /// Where in the image they end.
    pub end: u64,
    stretches: Vec<Stretch<'a>>,
}

impl<'a> Arrangement<'a> {
    /// Makes what no untouched artifact has, and gives everything its place; nothing if there is too much to make, or nothing to copy.
    pub fn new(
        store: &Store,
        plan: &Plan,
        compression: Compression,
        previous: &'a [Previous],
        target: &Target<'_>,
    ) -> Result<Option<Self>> {
        let find = |piece: &Piece| {
            let key = piece.key();
            previous.iter().filter_map(|previous| previous.find(&key)).find(Found::is_untouched)
        };
        let found: Vec<Option<Found<'a>>> = plan.pieces.par_iter().map(find).collect();
        let missing: Vec<usize> = (0..found.len()).filter(|number| found[*number].is_none()).collect();
        let new: u64 = missing.iter().map(|number| length(&plan.pieces[*number])).sum();
        if missing.len() == found.len() || new > MOST_NEW {
            return Ok(None);
        }
        let each = missing.len().div_ceil(rayon::current_num_threads()).max(1);
        let make = |numbers: &[usize]| {
            let mut worker = Worker::new(store, plan, compression)?;
            let make = |number: &usize| {
                let mut buffer = Buffer::default();
                let written = worker.pack(*number, &mut buffer)?;
                Ok((written, buffer))
            };
            numbers.iter().map(make).collect::<Result<Vec<_>>>()
        };
        let made: Vec<Vec<(Written, Buffer)>> = missing.par_chunks(each).map(make).collect::<Result<_>>()?;
        let mut made = made.into_iter().flatten();

        let mut arrangement =
            Self { written: Vec::with_capacity(found.len()), end: target.start, stretches: Vec::new() };
        for found in found {
            let (mut written, content) = match found {
                Some(found) => {
                    let (sizes, digest) = (found.entry.sizes.clone(), found.entry.digest);
                    let content = Content::Copied(found.previous, found.position());
                    (Written { sizes, digest, copied: true, ..Written::default() }, content)
                }
                None => {
                    let (written, buffer) = made.next().expect("what is missing was made");
                    (written, Content::Made(buffer))
                }
            };
            written.start = arrangement.end;
            let length = written.length();
            arrangement.add(Stretch { at: target.base + arrangement.end, length, content });
            arrangement.end += length;
            arrangement.written.push(written);
        }
        check_files(store, plan, &arrangement.written)?;
        Ok(Some(arrangement))
    }

    /// Puts bytes behind the others.
    fn add(&mut self, stretch: Stretch<'a>) {
        if let (Some(last), Content::Copied(previous, from)) = (self.stretches.last_mut(), &stretch.content)
            && let Content::Copied(last_previous, last_from) = &last.content
            && std::ptr::eq(*previous, *last_previous)
            && last_from + last.length == *from
        {
            last.length += stretch.length;
        } else if stretch.length > 0 {
            self.stretches.push(stretch);
        }
    }

    /// Writes everything that does not lie there already, and hashes it.
    pub fn write(&self, target: &Target<'_>, ahead: &Ahead) -> Result<Windows> {
        let failed = AtomicBool::new(false);
        let (copied, windows) = rayon::join(
            || {
                let copied = self.copy(target.file, ahead, &failed);
                failed.fetch_or(copied.is_err(), Ordering::Relaxed);
                copied
            },
            || {
                let windows = self.hash(target, &failed);
                failed.fetch_or(windows.is_err(), Ordering::Relaxed);
                windows
            },
        );
        copied?;
        // Whoever wrote to one of them meanwhile has left a trace. What was copied may be theirs.
        let mut previous = self.stretches.iter().filter_map(|stretch| match stretch.content {
            Content::Copied(previous, _) => Some(previous),
            Content::Made(_) => None,
        });
        if !previous.all(Previous::is_as_it_was) {
            return Err(Error::StaleIndex);
        }
        windows
    }

    fn copy(&self, file: &File, ahead: &Ahead, failed: &AtomicBool) -> Result<()> {
        for stretch in &self.stretches {
            match &stretch.content {
                Content::Made(buffer) => file.write_all_at(buffer.filled(), stretch.at).map_err(write_failed)?,
                Content::Copied(previous, from) => {
                    let lies = if *from == stretch.at { previous.copied_until(ahead) } else { 0 };
                    let mut done = lies.saturating_sub(stretch.at).min(stretch.length);
                    while done < stretch.length && !failed.load(Ordering::Relaxed) {
                        let length = (stretch.length - done).min(CALL);
                        done += copy_range(&previous.file, from + done, file, stretch.at + done, length)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The values of all whole windows, and what comes behind them.
    fn hash(&self, target: &Target<'_>, failed: &AtomicBool) -> Result<Windows> {
        let (start, end) = (target.base + target.start, target.base + self.end);
        let (first, last) = (start.div_ceil(WINDOW), end / WINDOW);
        let value = |buffer: &mut Vec<u8>, number: u64| {
            if let Some(known) = self.known(number) {
                return Ok(known);
            }
            if failed.load(Ordering::Relaxed) {
                return Ok(ChainingValue::default());
            }
            buffer.resize(WINDOW as usize, 0);
            self.gather(number * WINDOW, buffer)?;
            Ok(value_of(number, buffer))
        };
        let values = (first..last).into_par_iter().map_init(Vec::new, value).collect::<Result<Vec<_>>>()?;
        let mut windows = Windows::after(start, values);
        let mut rest = vec![0; (end - windows.position()) as usize];
        self.gather(windows.position(), &mut rest)?;
        windows.update(&rest);
        Ok(windows)
    }

    /// The value of a window whose bytes all come from their place in an earlier artifact.
    fn known(&self, number: u64) -> Option<ChainingValue> {
        let stretch = &self.stretches[self.index_of(number * WINDOW)];
        let Content::Copied(previous, from) = stretch.content else { return None };
        let is_whole = (number + 1) * WINDOW <= stretch.at + stretch.length;
        (from == stretch.at && is_whole).then(|| previous.window(number)).flatten()
    }

    /// Which stretch has this byte of the file.
    fn index_of(&self, position: u64) -> usize {
        self.stretches.partition_point(|stretch| stretch.at <= position) - 1
    }

    /// Reads from where it comes from, written or not.
    fn gather(&self, position: u64, bytes: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while filled < bytes.len() {
            let stretch = &self.stretches[self.index_of(position + filled as u64)];
            let offset = position + filled as u64 - stretch.at;
            let length = (stretch.length - offset).min((bytes.len() - filled) as u64) as usize;
            let part = &mut bytes[filled..filled + length];
            match &stretch.content {
                Content::Made(buffer) => part.copy_from_slice(&buffer.filled()[offset as usize..][..length]),
                // It has been cut short, or cannot be read any more.
                Content::Copied(previous, from) => {
                    previous.file.read_exact_at(part, from + offset).map_err(|_| Error::StaleIndex)?;
                }
            }
            filled += length;
        }
        Ok(())
    }
}

/// How much is read to make a piece.
fn length(piece: &Piece) -> u64 {
    match piece {
        Piece::Blocks { source, offset } => (source.size - offset).min(PIECE_LENGTH),
        Piece::Fragment(members) => members.iter().map(|member| member.size).sum(),
    }
}

/// Copies from one file to another; says how much.
fn copy_range(from: &File, mut read: u64, to: &File, mut written: u64, length: u64) -> Result<u64> {
    match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut written), length as usize) {
        // The earlier artifact is shorter than it was.
        Ok(0) => Err(Error::StaleIndex),
        Ok(copied) => Ok(copied as u64),
        Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Err(write_failed(errno.into())),
        // File systems that do not copy, two of them, seccomp filters that do not know it; or the earlier artifact cannot be read.
        Err(_) => {
            let mut buffer = vec![0; BUFFER.min(length as usize)];
            from.read_exact_at(&mut buffer, read).map_err(|_| Error::StaleIndex)?;
            to.write_all_at(&buffer, written).map_err(write_failed)?;
            Ok(buffer.len() as u64)
        }
    }
}
