//! How a pack comes to be.
//!
//! While a [`Batch`] is open, small blobs, and all trees and deltas, go into a pack that nobody else sees. It is published as a
//! whole, when the disk has it: so whoever sees a tree in it sees what lies below the tree. Until then it is read by this
//! process like everything else. A batch of a few objects is not worth a pack: they become files.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};

use super::super::lease::{Use, record};
use super::super::{Store, failed, objects};
use super::{Entry, FRAME, HEADER, encode, index_path, pack_path};
use crate::{Error, Result};

/// Blobs up to this length go into packs: larger ones cost more to copy into a checkout than their file cost to make.
pub const SMALL: u64 = 64 << 10;
/// Fewer objects than this become files.
const FEW: usize = 64;
/// How much is written in one go.
const BUFFER: usize = 4 << 20;
/// A pack of this length is published, and another begun.
const FULL: u64 = 1 << 30;

/// While this lives, small objects that are put go into packs; when it is finished, they are there for all.
#[must_use = "what is put is there for others when the batch is finished"]
#[derive(Debug)]
pub struct Batch<'a> {
    store: &'a Store,
    finished: bool,
}

impl Batch<'_> {
    /// Publishes what was put.
    pub fn finish(mut self) -> Result<()> {
        self.finished = true;
        self.store.end_batch()
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if !self.finished {
            // Something failed, and is being reported; what was put may be referred to by what is put next.
            let _ = self.store.end_batch();
        }
    }
}

/// What is to become a pack.
#[derive(Debug, Default)]
pub(in super::super) struct Pending(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// How many batches are open.
    open: usize,
    entries: Vec<(Entry, bool)>,
    places: HashMap<Use, Entry>,
    /// Made with the first write.
    file: Option<(String, fs::File)>,
    written: u64,
    /// What comes after that.
    buffer: Vec<u8>,
}

impl State {
    fn read(&self, entry: Entry) -> std::io::Result<Vec<u8>> {
        let length = entry.length as usize;
        match (entry.offset.checked_sub(self.written), &self.file) {
            (Some(from), _) => Ok(self.buffer[from as usize..from as usize + length].to_vec()),
            (None, Some((_, file))) => {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, entry.offset)?;
                Ok(bytes)
            }
            (None, None) => Err(std::io::ErrorKind::NotFound.into()),
        }
    }
}

impl Store {
    /// Puts small objects into packs from now on: for whoever puts many.
    pub fn batch(&self) -> Batch<'_> {
        self.pending.0.lock().unwrap_or_else(PoisonError::into_inner).open += 1;
        Batch { store: self, finished: false }
    }

    fn end_batch(&self) -> Result<()> {
        let mut state = self.pending.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.open -= 1;
        if state.open == 0 { self.publish(&mut state).map(drop) } else { Ok(()) }
    }

    /// Publishes what is pending; says whether all that was put so far is on the disk now.
    pub(in super::super) fn publish_pending(&self) -> Result<bool> {
        self.publish(&mut self.pending.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts an object into the pack that is being made, unless none is. The caller has looked that it is not here.
    pub(in super::super) fn pack(&self, object: Use, bytes: &[u8], executable: bool) -> Result<bool> {
        let mut state = self.pending.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(length) = u32::try_from(bytes.len()) else {
            self.publish(&mut state)?;
            return Ok(false);
        };
        if state.open == 0 || (matches!(object, Use::Blob(_)) && u64::from(length) > SMALL) {
            return Ok(false);
        }
        if state.places.contains_key(&object) {
            return Ok(true);
        }
        if state.written == 0 && state.buffer.is_empty() {
            state.buffer.extend(HEADER);
        }
        let offset = state.written + (state.buffer.len() + FRAME) as u64;
        state.buffer.extend(record(object));
        state.buffer.extend(length.to_le_bytes());
        state.buffer.extend(bytes);
        let entry = Entry { object, offset, length };
        state.entries.push((entry, executable));
        state.places.insert(object, entry);
        if state.buffer.len() >= BUFFER {
            self.write_out(&mut state)?;
        }
        if state.written >= FULL {
            self.publish(&mut state)?;
        }
        Ok(true)
    }

    pub(super) fn read_pending(&self, object: Use) -> Result<Option<Vec<u8>>> {
        let state = self.pending.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = state.places.get(&object) else { return Ok(None) };
        state.read(*entry).map(Some).map_err(Error::file("read a pack in", &self.path))
    }

    pub(super) fn pending_size(&self, object: Use) -> Option<u64> {
        let state = self.pending.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.places.get(&object).map(|entry| u64::from(entry.length))
    }

    fn write_out(&self, state: &mut State) -> Result<()> {
        if state.file.is_none() {
            let relative = self.temporary_path()?;
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&self.directory, &relative, flags, Mode::RUSR | Mode::WUSR)
                .map_err(failed("create", self.full(&relative)))?;
            state.file = Some((relative, file.into()));
        }
        let Some((relative, file)) = &mut state.file else { return Ok(()) };
        file.write_all_at(&state.buffer, state.written).map_err(Error::file("write", self.full(relative)))?;
        state.written += state.buffer.len() as u64;
        state.buffer.clear();
        Ok(())
    }

    fn publish(&self, state: &mut State) -> Result<bool> {
        if state.entries.is_empty() {
            return Ok(false);
        }
        if state.entries.len() < FEW {
            // In the order in which they were put: what lies below a tree before the tree.
            for (entry, executable) in &state.entries {
                let bytes = state.read(*entry).map_err(Error::file("read a pack in", &self.path))?;
                self.write_loose(entry.object, &bytes, *executable)?;
            }
            if let Some((relative, _)) = &state.file {
                self.unlink(relative)?;
            }
            *state = State { open: state.open, ..State::default() };
            return Ok(false);
        }
        self.write_out(state)?;
        let Some((relative, _)) = &state.file else { return Ok(false) };
        let all = self.written.load(Ordering::SeqCst);
        let entries: Vec<Entry> = state.entries.iter().map(|(entry, _)| *entry).collect();
        self.place_pack(relative, &entries)?;
        *state = State { open: state.open, ..State::default() };
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        *synced = (*synced).max(all);
        Ok(true)
    }

    /// Gives a written pack its name and its index, when the disk has all that was written so far; gives the name.
    pub(in super::super) fn place_pack(&self, relative: &str, entries: &[Entry]) -> Result<String> {
        let name = super::super::random_name()?;
        let mut index = self.temporary()?;
        index.write(&encode(entries))?;
        rustix::fs::syncfs(&self.directory).map_err(failed("sync", &self.path))?;
        // The index first: one without its pack is nothing, a pack without its index would be read through.
        index.place(&index_path(&name))?;
        let to = pack_path(&name);
        self.rename(relative, &to).map_err(failed("create", self.full(&to)))?;
        self.sync_directory("packs")?;
        Ok(name)
    }

    /// Writes an object as a file of its own.
    pub(in super::super) fn write_loose(&self, object: Use, bytes: &[u8], executable: bool) -> Result<()> {
        let mut temporary = self.temporary()?;
        temporary.write(bytes)?;
        if let Use::Blob(_) = object {
            temporary.set_mode(objects::blob_mode(executable))?;
        }
        temporary.place(&objects::use_path(object, executable && matches!(object, Use::Blob(_))))?;
        self.has_written();
        Ok(())
    }
}
