//! What has been made gets its place, is written and is hashed, each in the order of the plan.
//!
//! No thread has an office of its own. Whoever is free does what is due: writes, if there is something to write and nobody else
//! writes (two writers of one file would only wait for each other in the kernel); hashes, if nobody else does; else makes
//! the next job. So all threads have work until the end, and what waits between them stays small.

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::fs::FileExt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::{Target, Written};
use crate::format::hashing::Windows;
use crate::format::write_failed;
use crate::{Error, Result};

/// Bytes, of which the first so many count. The rest is kept so that it need not be cleared again.
#[derive(Default)]
pub(super) struct Buffer {
    pub bytes: Vec<u8>,
    pub filled: usize,
}

impl Buffer {
    /// At least so much room behind what is filled.
    pub fn room(&mut self, length: usize) -> &mut [u8] {
        if self.bytes.len() < self.filled + length {
            self.bytes.resize(self.filled + length, 0);
        }
        &mut self.bytes[self.filled..]
    }

    pub fn filled(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

/// A job that is done.
pub(super) struct Made {
    pub buffer: Buffer,
    /// The number of its first piece.
    pub first: usize,
    /// One for each piece of the job, without their place.
    pub pieces: Vec<Written>,
}

/// What a thread is to do next.
pub(super) enum Turn {
    /// Make the job of this number, into this buffer.
    Make(usize, Buffer),
    /// Write this to this place of the image.
    Write(u64, Buffer),
    /// Hash what has been written there.
    Hash(Buffer, Box<Windows>),
}

/// What is in the making.
struct State {
    /// Jobs that somebody has made or makes.
    taken: usize,
    /// Jobs that have a place.
    placed: usize,
    /// Jobs that are written and hashed.
    done: usize,
    /// Where in the image the next job is put.
    position: u64,
    waiting: BTreeMap<usize, Made>,
    written: Vec<Written>,
    to_write: VecDeque<(u64, Buffer)>,
    is_written: bool,
    to_hash: VecDeque<Buffer>,
    /// None while somebody hashes.
    windows: Option<Box<Windows>>,
    spare: Vec<Buffer>,
    failed: Option<Error>,
}

/// The way of all jobs.
pub(super) struct Line<'a> {
    target: &'a Target<'a>,
    jobs: usize,
    /// How many jobs may be under way: with the length of a job this bounds the memory.
    ahead: usize,
    state: Mutex<State>,
    moved: Condvar,
}

impl<'a> Line<'a> {
    pub fn new(target: &'a Target<'a>, jobs: usize, pieces: usize, ahead: usize) -> Self {
        let state = State {
            taken: 0,
            placed: 0,
            done: 0,
            position: target.start,
            waiting: BTreeMap::new(),
            written: vec![Written::default(); pieces],
            to_write: VecDeque::new(),
            is_written: false,
            to_hash: VecDeque::new(),
            windows: Some(Box::new(Windows::from(target.base + target.start))),
            spare: Vec::new(),
            failed: None,
        };
        Self { target, jobs, ahead, state: Mutex::new(state), moved: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to do; nothing when all is done, or has failed.
    pub fn turn(&self) -> Option<Turn> {
        let mut state = self.state();
        loop {
            if state.failed.is_some() || state.done == self.jobs {
                return None;
            }
            if !state.is_written
                && let Some((position, buffer)) = state.to_write.pop_front()
            {
                state.is_written = true;
                return Some(Turn::Write(position, buffer));
            }
            if !state.to_hash.is_empty()
                && let Some(windows) = state.windows.take()
            {
                let buffer = state.to_hash.pop_front().expect("it is not empty");
                return Some(Turn::Hash(buffer, windows));
            }
            if state.taken < self.jobs && state.taken < state.done + self.ahead {
                let number = state.taken;
                state.taken += 1;
                let mut buffer = state.spare.pop().unwrap_or_default();
                buffer.filled = 0;
                return Some(Turn::Make(number, buffer));
            }
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes what was made of a job, and gives it its place if all before it have theirs.
    pub fn made(&self, number: usize, made: Made) {
        let mut guard = self.state();
        let state = &mut *guard;
        state.waiting.insert(number, made);
        while let Some(made) = state.waiting.remove(&state.placed) {
            state.to_write.push_back((state.position, made.buffer));
            for (number, mut piece) in made.pieces.into_iter().enumerate() {
                piece.start = state.position;
                state.position += piece.length();
                state.written[made.first + number] = piece;
            }
            state.placed += 1;
        }
        drop(guard);
        self.moved.notify_all();
    }

    pub fn write(&self, position: u64, buffer: Buffer) -> Result<()> {
        self.target.file.write_all_at(buffer.filled(), self.target.base + position).map_err(write_failed)?;
        let mut state = self.state();
        state.is_written = false;
        state.to_hash.push_back(buffer);
        drop(state);
        self.moved.notify_all();
        Ok(())
    }

    pub fn hash(&self, buffer: Buffer, mut windows: Box<Windows>) {
        windows.update(buffer.filled());
        let mut state = self.state();
        state.windows = Some(windows);
        state.spare.push(buffer);
        state.done += 1;
        drop(state);
        self.moved.notify_all();
    }

    pub fn fail(&self, error: Error) {
        self.state().failed.get_or_insert(error);
        self.moved.notify_all();
    }

    /// How all pieces lie, where they end, and the digests of what was written.
    pub fn finish(self) -> Result<(Vec<Written>, u64, Windows)> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        match (state.failed, state.windows) {
            (Some(error), _) => Err(error),
            (None, Some(windows)) => Ok((state.written, state.position, *windows)),
            (None, None) => unreachable!("whoever hashes gives it back or fails"),
        }
    }
}
