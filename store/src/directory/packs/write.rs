//! How a pack comes to be.
//!
//! While a [`Batch`] is open, small blobs, and all trees and deltas, go into a pack that nobody else sees. It is published as a
//! whole, when the disk has it: so whoever sees a tree in it sees what lies below the tree. Until then it is read by this
//! process like everything else. A batch of a few objects is not worth a pack: they become files.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

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
/// The same while something is fetched: so much has to be fetched again at most by the next process if this one is killed.
const PART: u64 = 32 << 20;

/// While this lives, small objects that are put go into packs; when it is finished, they are there for all.
#[must_use = "what is put is there for others when the batch is finished"]
#[derive(Debug)]
pub struct Batch<'a> {
    store: &'a Store,
    in_parts: bool,
    finished: bool,
}

impl Batch<'_> {
    /// Publishes what was put.
    pub fn finish(mut self) -> Result<()> {
        self.finished = true;
        self.store.end_batch(self.in_parts)
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if !self.finished {
            // Something failed, and is being reported; what was put may be referred to by what is put next.
            let _ = self.store.end_batch(self.in_parts);
        }
    }
}

/// What is to become a pack.
#[derive(Debug, Default)]
pub(in super::super) struct Pending {
    state: Mutex<State>,
    /// A part has been written, or published.
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// How many batches are open.
    open: usize,
    /// How many of them want what they put published in parts.
    in_parts: usize,
    entries: Vec<(Entry, bool)>,
    places: HashMap<Use, Entry>,
    /// Made with the first write.
    file: Option<(String, Arc<fs::File>)>,
    /// Where the buffer begins in the file.
    length: u64,
    /// What comes after that.
    buffer: Vec<u8>,
    /// Parts that are being written by some thread, or could not be, with their places; others go on filling the buffer meanwhile.
    parts: Vec<(u64, Arc<Vec<u8>>)>,
    /// How many threads write.
    writers: usize,
    /// A part that is being published while the next one is filled. One at a time, so that nothing is seen before what lies below it.
    leaving: Option<Leaving>,
    /// What a collection gave up and was put again meanwhile, in which order: for others it is whole when all of this is published.
    rescues: HashMap<Use, usize>,
}

/// A written pack that is not there for others yet.
#[derive(Debug)]
struct Leaving {
    relative: String,
    entries: Arc<Vec<Entry>>,
    places: HashMap<Use, Entry>,
    file: Arc<fs::File>,
    /// Whether a thread is at it; else that failed, and whoever publishes next tries again.
    busy: bool,
}

impl State {
    /// Where an object lies that is not there for others yet; and the file, if it is the pack that is leaving.
    fn find(&self, object: Use) -> Option<(Entry, Option<&fs::File>)> {
        let leaving = || self.leaving.as_ref().and_then(|it| Some((*it.places.get(&object)?, Some(&*it.file))));
        self.places.get(&object).map(|entry| (*entry, None)).or_else(leaving)
    }

    fn is_busy(&self) -> bool {
        self.writers > 0 || self.leaving.as_ref().is_some_and(|leaving| leaving.busy)
    }

    fn read(&self, entry: Entry) -> std::io::Result<Vec<u8>> {
        let length = entry.length as usize;
        let part = self.parts.iter().find(|(at, part)| (*at..*at + part.len() as u64).contains(&entry.offset));
        match (entry.offset.checked_sub(self.length), part, &self.file) {
            (Some(from), ..) => Ok(self.buffer[from as usize..from as usize + length].to_vec()),
            (None, Some((at, part)), _) => {
                let from = (entry.offset - at) as usize;
                Ok(part[from..from + length].to_vec())
            }
            (None, None, Some((_, file))) => {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, entry.offset)?;
                Ok(bytes)
            }
            (None, None, None) => Err(std::io::ErrorKind::NotFound.into()),
        }
    }

    /// What comes after it was published.
    fn next(&mut self) -> Self {
        let rescues = std::mem::take(&mut self.rescues);
        Self { open: self.open, in_parts: self.in_parts, rescues, ..Self::default() }
    }

    /// Makes the buffer a part, to be written.
    fn cut(&mut self) -> (u64, Arc<Vec<u8>>) {
        let part = Arc::new(std::mem::take(&mut self.buffer));
        let at = self.length;
        self.length += part.len() as u64;
        self.parts.push((at, Arc::clone(&part)));
        (at, part)
    }
}

impl Store {
    /// Puts small objects into packs from now on: for whoever puts many.
    pub fn batch(&self) -> Batch<'_> {
        self.lock_pending().open += 1;
        Batch { store: self, in_parts: false, finished: false }
    }

    /// The same for whoever gets them over a line: what came is there for the next try, however this one ends.
    pub fn batch_in_parts(&self) -> Batch<'_> {
        let mut state = self.lock_pending();
        state.open += 1;
        state.in_parts += 1;
        Batch { store: self, in_parts: true, finished: false }
    }

    fn lock_pending(&self) -> MutexGuard<'_, State> {
        self.pending.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_batch(&self, in_parts: bool) -> Result<()> {
        let mut state = self.lock_pending();
        state.open -= 1;
        state.in_parts -= usize::from(in_parts);
        if state.open == 0 { self.publish(state).map(drop) } else { Ok(()) }
    }

    /// Leaves it to the open batch to say that this is whole again; false if none is open.
    pub(in super::super) fn rescue_with_batch(&self, one: Use) -> bool {
        let mut state = self.lock_pending();
        let number = state.rescues.len();
        if state.open > 0 {
            state.rescues.entry(one).or_insert(number);
        }
        state.open > 0
    }

    /// Whether this process has put it again, and nobody else can know yet.
    pub(in super::super) fn is_rescued_with_batch(&self, one: Use) -> bool {
        self.lock_pending().rescues.contains_key(&one)
    }

    /// Publishes what is pending; says whether all that was put so far is on the disk now.
    pub(in super::super) fn publish_pending(&self) -> Result<bool> {
        self.publish(self.lock_pending())
    }

    /// Puts an object into the pack that is being made, unless none is. The caller has looked that it is not here.
    pub(in super::super) fn pack(&self, object: Use, bytes: &[u8], executable: bool) -> Result<bool> {
        let mut state = self.lock_pending();
        let Ok(length) = u32::try_from(bytes.len()) else {
            self.publish(state)?;
            return Ok(false);
        };
        if state.open == 0 || (matches!(object, Use::Blob(_)) && u64::from(length) > SMALL) {
            return Ok(false);
        }
        if state.find(object).is_some() {
            return Ok(true);
        }
        if state.length == 0 && state.buffer.is_empty() {
            state.buffer.extend(HEADER);
        }
        let offset = state.length + (state.buffer.len() + FRAME) as u64;
        state.buffer.extend(record(object));
        state.buffer.extend(length.to_le_bytes());
        state.buffer.extend(bytes);
        let entry = Entry { object, offset, length };
        state.entries.push((entry, executable));
        state.places.insert(object, entry);
        if state.buffer.len() >= BUFFER {
            state = self.write_part(state)?;
        }
        if state.in_parts > 0 && state.length >= PART {
            self.publish_part(state)?;
        } else if state.length >= FULL {
            self.publish(state)?;
        }
        Ok(true)
    }

    pub(super) fn read_pending(&self, object: Use) -> Result<Option<Vec<u8>>> {
        let state = self.lock_pending();
        let Some((entry, leaving)) = state.find(object) else { return Ok(None) };
        let bytes = match leaving {
            None => state.read(entry),
            Some(file) => {
                let mut bytes = vec![0; entry.length as usize];
                file.read_exact_at(&mut bytes, entry.offset).map(|()| bytes)
            }
        };
        bytes.map(Some).map_err(Error::file("read a pack in", &self.path))
    }

    pub(super) fn pending_size(&self, object: Use) -> Option<u64> {
        self.lock_pending().find(object).map(|(entry, _)| u64::from(entry.length))
    }

    /// The file that a pack is written to.
    fn pack_file(&self, state: &mut State) -> Result<(String, Arc<fs::File>)> {
        if let Some((relative, file)) = &state.file {
            return Ok((relative.clone(), Arc::clone(file)));
        }
        let relative = self.temporary_path()?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, &relative, flags, Mode::RUSR | Mode::WUSR)
            .map_err(failed("create", self.full(&relative)))?;
        let file = Arc::new(fs::File::from(file));
        state.file = Some((relative.clone(), Arc::clone(&file)));
        Ok((relative, file))
    }

    /// Writes what the buffer holds, while other threads go on filling another.
    fn write_part<'a>(&'a self, mut state: MutexGuard<'a, State>) -> Result<MutexGuard<'a, State>> {
        let (relative, file) = self.pack_file(&mut state)?;
        let (at, part) = state.cut();
        state.writers += 1;
        drop(state);
        let written = file.write_all_at(&part, at);
        let mut state = self.lock_pending();
        state.writers -= 1;
        // What could not be written is tried again before anything is published.
        if written.is_ok() {
            state.parts.retain(|(other, _)| *other != at);
        }
        self.pending.written.notify_all();
        written.map_err(Error::file("write", self.full(&relative)))?;
        self.write_ahead(part.len() as u64);
        Ok(state)
    }

    /// Waits until no other thread writes or publishes.
    fn alone<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        while state.is_busy() {
            state = self.pending.written.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// Publishes what is pending while others go on putting: the disk may take its time.
    fn publish_part(&self, state: MutexGuard<'_, State>) -> Result<()> {
        let mut state = self.alone(state);
        if state.leaving.is_some() {
            return self.publish(state).map(drop);
        }
        // Another thread may have been here.
        if state.length < PART || state.entries.len() < FEW {
            return Ok(());
        }
        let (relative, file) = self.write_rest(&mut state)?;
        let all = self.written.load(Ordering::SeqCst);
        let entries = Arc::new(state.entries.iter().map(|(entry, _)| *entry).collect::<Vec<_>>());
        let next = state.next();
        let before = std::mem::replace(&mut *state, next);
        let (kept, name) = (Arc::clone(&entries), relative.clone());
        state.leaving = Some(Leaving { relative: name, entries: kept, places: before.places, file, busy: true });
        drop(state);
        let placed = self.place_pack(&relative, &entries);
        let mut state = self.lock_pending();
        match (&placed, &mut state.leaving) {
            (Err(_), Some(leaving)) => leaving.busy = false,
            (_, leaving) => *leaving = None,
        }
        self.pending.written.notify_all();
        drop(state);
        placed?;
        self.is_synced(all);
        Ok(())
    }

    /// Writes what is left of the pack that is being made.
    fn write_rest(&self, state: &mut State) -> Result<(String, Arc<fs::File>)> {
        let (relative, file) = self.pack_file(state)?;
        state.cut();
        for (at, part) in &state.parts {
            file.write_all_at(part, *at).map_err(Error::file("write", self.full(&relative)))?;
        }
        Ok((relative, file))
    }

    /// So much of what was written is on the disk.
    fn is_synced(&self, all: u64) {
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        *synced = (*synced).max(all);
    }

    fn publish(&self, state: MutexGuard<'_, State>) -> Result<bool> {
        let mut state = self.alone(state);
        let is_synced = self.publish_all(&mut state)?;
        let mut rescues: Vec<(Use, usize)> = state.rescues.drain().collect();
        drop(state);
        if !rescues.is_empty() {
            // After a crash, too, what lies below must be there.
            rustix::fs::syncfs(&self.directory).map_err(failed("sync", &self.path))?;
            rescues.sort_unstable_by_key(|(_, number)| *number);
            rescues.into_iter().try_for_each(|(one, _)| self.rescue_now(one))?;
        }
        Ok(is_synced)
    }

    fn publish_all(&self, state: &mut State) -> Result<bool> {
        if let Some(leaving) = &state.leaving {
            self.place_pack(&leaving.relative, &leaving.entries)?;
            state.leaving = None;
        }
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
            *state = state.next();
            return Ok(false);
        }
        let (relative, _) = self.write_rest(state)?;
        let all = self.written.load(Ordering::SeqCst);
        let entries: Vec<Entry> = state.entries.iter().map(|(entry, _)| *entry).collect();
        self.place_pack(&relative, &entries)?;
        *state = state.next();
        self.is_synced(all);
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
        self.write_ahead(bytes.len() as u64);
        Ok(())
    }
}
