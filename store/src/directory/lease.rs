//! What running processes use: kept from collection without keeping anybody out.
//!
//! A process notes every object that it puts, or finds present and relies on, in a file of its own below `leases/`, which it
//! has locked: the kernel frees the lock however the process ends. *First it notes, then it looks*; and it notes in the *room*,
//! a lock that any number of processes share, and that collection takes for itself while it reads the notes and deletes a slice.
//! So either collection sees the note before it deletes, or who noted sees that the object is gone and writes it again.
//!
//! The room is flock(2) on the store's directory. It is shared for about a microsecond at a time; so that a collection's turn
//! comes, it first closes the *gate* (`gc/gate`), at which newcomers wait. That the gate is there at all says that a collection
//! is on its way: notes are left behind then, also by a process that ends well, until it is over.
//!
//! The protocol, and why it holds, is in `docs/why/collection.md`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::scratch::Locked;
use super::{Store, failed};
use crate::{Error, Result, TreeId};

/// What stands at the start of a lease.
const HEADER: &[u8] = b"forge lease 1\n";
/// A kind and a digest.
pub(super) const RECORD: usize = 33;
/// How many notes are remembered as written already; then they are forgotten, and some are written twice.
const REMEMBERED: usize = 200_000;

/// An object that a process uses.
pub(super) use crate::peer::ObjectId as Use;

/// How it is written down: a letter for the kind, and the digest.
pub(super) fn record(one: Use) -> [u8; RECORD] {
    let mut record = [one.kind().as_bytes()[0]; RECORD];
    record[1..].copy_from_slice(one.as_bytes());
    record
}

pub(super) fn parse(record: &[u8]) -> Option<Use> {
    let (kind, digest) = record.split_first()?;
    let kind = ["blob", "tree", "delta", "formation"].into_iter().find(|name| name.as_bytes()[0] == *kind)?;
    Use::from_parts(kind, digest.try_into().ok()?)
}

/// What this process noted.
#[derive(Debug, Default)]
pub(super) struct Notes(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    /// Nothing yet.
    #[default]
    None,
    Open {
        locked: Locked,
        noted: HashSet<Use>,
    },
    /// Nothing can be noted (the disk is full, or read-only): the room stays shared instead, and no slice is deleted meanwhile.
    Staying,
}

impl Drop for State {
    fn drop(&mut self) {
        if let Self::Open { locked, .. } = self {
            leave(locked);
        }
    }
}

/// Keeps trees and their checkouts from being collected, without keeping the store open.
#[derive(Debug)]
pub struct Lease {
    /// None on a read-only file system, where nothing is deleted either.
    locked: Option<Locked>,
    /// Instead, what was noted while the store was open.
    _notes: Option<Notes>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(locked) = &self.locked {
            leave(locked);
        }
    }
}

/// Takes a lease away; unless a collection is on its way, which may not have read it yet.
fn leave(locked: &Locked) {
    let store = locked.path().parent().and_then(Path::parent);
    if store.is_none_or(|store| !store.join(GATE).exists()) {
        locked.remove();
    }
}

/// Closed by a collection while it waits for the room; there while one is on its way.
pub(super) const GATE: &str = "gc/gate";

impl Store {
    /// Keeps these trees and their checkouts as long as the lease lives, also when this store is closed before: a run that
    /// may take weeks holds what it runs on, and lets others collect the rest.
    pub fn hold(&self, trees: &[TreeId]) -> Result<Lease> {
        let mut state = self.notes.0.lock().unwrap_or_else(PoisonError::into_inner);
        let staying = matches!(*state, State::Staying);
        let uses: Vec<Use> = trees.iter().copied().map(Use::Tree).collect();
        let locked = match self.in_room(staying, || self.new_lease(&uses)) {
            Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::ReadOnlyFilesystem => None,
            locked => Some(locked?),
        };
        if let State::Open { noted, .. } = &mut *state {
            noted.extend(uses);
        }
        Ok(Lease { locked, _notes: None })
    }

    /// The same for whoever is done with the store: what was noted until now stays the lease, if it is little.
    pub fn close_and_hold(mut self, trees: &[TreeId]) -> Result<Lease> {
        const LITTLE: usize = 64;
        let is_enough = match &*self.notes.0.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Open { noted, .. } => {
                noted.len() <= LITTLE && trees.iter().all(|tree| noted.contains(&Use::Tree(*tree)))
            }
            State::None | State::Staying => false,
        };
        match is_enough {
            true => Ok(Lease { locked: None, _notes: Some(std::mem::take(&mut self.notes)) }),
            false => self.hold(trees),
        }
    }

    /// Notes that this process uses an object. To be called *before* looking whether it is there.
    pub(super) fn note(&self, one: Use) {
        self.note_all(&[one]);
    }

    /// The same for many at a time.
    pub(super) fn note_all(&self, uses: &[Use]) {
        let mut state = self.notes.0.lock().unwrap_or_else(PoisonError::into_inner);
        let written = match &mut *state {
            State::Staying => return,
            State::None => self.in_room(false, || self.new_lease(uses)).map(|locked| {
                *state = State::Open { locked, noted: uses.iter().copied().collect() };
            }),
            State::Open { locked, noted } => {
                let records: Vec<u8> =
                    uses.iter().filter(|one| !noted.contains(one)).flat_map(|one| record(*one)).collect();
                if records.is_empty() {
                    return;
                }
                self.in_room(false, || locked.write(&records)).map(|()| {
                    if noted.len() > REMEMBERED {
                        noted.clear();
                    }
                    noted.extend(uses);
                })
            }
        };
        if written.is_err() {
            // The lease that there may be stays: it is not `State::Open` any more, so forgetting it must not remove it.
            let before = std::mem::replace(&mut *state, State::Staying);
            std::mem::forget(before);
            self.enter();
        }
    }

    /// Forgets what this process noted: whoever collects knows what it does not need.
    pub(super) fn forget_notes(&self) {
        self.end_stay();
        *self.notes.0.lock().unwrap_or_else(PoisonError::into_inner) = State::None;
    }

    /// Leaves the room if this process stays in it. A collection that could not note something (the disk is full, which is why it was
    /// called) would wait for itself for ever.
    fn end_stay(&self) {
        let mut state = self.notes.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Staying) {
            let _ = rustix::fs::flock(&self.directory, FlockOperation::Unlock);
            *state = State::None;
        }
    }

    /// Does something that collection must see as a whole or not at all.
    pub(super) fn with_room<T>(&self, action: impl FnOnce() -> T) -> T {
        let state = self.notes.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.in_room(matches!(*state, State::Staying), action)
    }

    fn new_lease(&self, uses: &[Use]) -> Result<Locked> {
        let mut locked = Locked::new(&self.path.join("leases"))?;
        let mut bytes = HEADER.to_vec();
        bytes.extend(uses.iter().flat_map(|one| record(*one)));
        match locked.write(&bytes) {
            Ok(()) => Ok(locked),
            Err(error) => {
                locked.remove();
                Err(error)
            }
        }
    }

    /// The caller has `notes` locked: this process's threads share the one lock of `directory`.
    fn in_room<T>(&self, staying: bool, action: impl FnOnce() -> T) -> T {
        if staying {
            return action();
        }
        self.enter();
        let result = action();
        let _ = rustix::fs::flock(&self.directory, FlockOperation::Unlock);
        result
    }

    /// A file system without locks (some network ones) has a store all the same; it is only never collected.
    fn enter(&self) {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        if let Ok(gate) = rustix::fs::openat(&self.directory, GATE, flags, Mode::empty()) {
            let _ = lock(&gate, FlockOperation::LockShared);
        }
        let _ = lock(&self.directory, FlockOperation::LockShared);
    }

    /// What all processes note that was not read yet. `read` says how far each lease was.
    ///
    /// Only in the room that was taken by [`Room::take`]: else a lease may be made that is not listed yet while the one that it
    /// takes the place of is not there any more.
    pub(super) fn read_leases(&self, read: &mut HashMap<String, u64>) -> Result<Vec<Use>> {
        let mut uses = Vec::new();
        for name in self.names_in("leases")? {
            let Some(mut file) = self.open_file(&format!("leases/{name}"))? else { continue };
            let from = read.get(&name).copied().unwrap_or(0);
            let mut bytes = Vec::new();
            let path = || self.full("leases").join(&name);
            file.seek(SeekFrom::Start(from)).map_err(Error::file("read", path()))?;
            file.read_to_end(&mut bytes).map_err(Error::file("read", path()))?;
            let mut records = &bytes[..];
            if from == 0 {
                match records.strip_prefix(HEADER) {
                    Some(rest) => records = rest,
                    // Made by a forge that wrote lines.
                    None => {
                        let lines = String::from_utf8_lossy(&bytes);
                        uses.extend(lines.lines().filter_map(|line| line.parse().ok()).map(Use::Tree));
                        continue;
                    }
                }
            }
            let whole = records.len() - records.len() % RECORD;
            uses.extend(records[..whole].chunks_exact(RECORD).filter_map(parse));
            read.insert(name, from + (bytes.len() - records.len() + whole) as u64);
        }
        Ok(uses)
    }

    /// Removes the leases of processes that have ended.
    pub(super) fn remove_dead_leases(&self) -> Result<()> {
        for name in self.names_in("leases")? {
            let path = self.full("leases").join(&name);
            let file = match rustix::fs::openat(CWD, &path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
                Ok(file) => file,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(failed("open", path)(errno)),
            };
            if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::file("remove", path)(error));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

fn lock(file: impl AsFd, operation: FlockOperation) -> Result<(), Errno> {
    loop {
        match rustix::fs::flock(&file, operation) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// The one collection of a store, while it is on its way.
pub(super) struct Room {
    /// Locked by the one collection.
    _collecting: OwnedFd,
    gate: OwnedFd,
    directory: OwnedFd,
    gate_path: std::path::PathBuf,
}

impl Room {
    /// Waits for another collection's end, and makes the gate.
    pub fn of(store: &Store) -> Result<Self> {
        super::ensure_directory(&store.full("gc"))?;
        let open = |relative: &str| {
            let path = store.full(relative);
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
            rustix::fs::openat(CWD, &path, flags, Mode::RUSR | Mode::WUSR).map_err(failed("open", path))
        };
        let collecting = open("gc/collecting")?;
        lock(&collecting, FlockOperation::LockExclusive).map_err(failed("lock", store.full("gc/collecting")))?;
        let gate = open(GATE)?;
        // A description of its own: another thread of this process may share the room by the store's.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, &store.path, flags, Mode::empty());
        let directory = directory.map_err(failed("open", &store.path))?;
        Ok(Self { _collecting: collecting, gate, directory, gate_path: store.full(GATE) })
    }

    /// Waits until nobody else is in the room, and keeps all out until dropped. `store` is the one that collects.
    pub fn take(&self, store: &Store) -> Result<Taken<'_>> {
        store.end_stay();
        let failed = |errno| failed("lock", &self.gate_path)(errno);
        lock(&self.gate, FlockOperation::LockExclusive).map_err(failed)?;
        let taken = Taken { room: self };
        lock(&self.directory, FlockOperation::LockExclusive).map_err(failed)?;
        Ok(taken)
    }

    /// Takes the gate away: the collection is over.
    pub fn open(self) {
        let _ = fs::remove_file(&self.gate_path);
    }
}

/// Nobody notes anything, or acts in the room, while this lives.
pub(super) struct Taken<'a> {
    room: &'a Room,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.room.directory, FlockOperation::Unlock);
        let _ = rustix::fs::flock(&self.room.gate, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::world;
    use super::*;

    /// It waited for itself: found by a disk that was full.
    #[test]
    fn a_collection_that_can_note_nothing_ends() {
        let world = world();
        let tree = world.tree(0o755, [("a", world.file("a", 0o644))]);
        let stay = || {
            world.store.forget_notes();
            *world.store.notes.0.lock().unwrap() = State::Staying;
            world.store.enter();
        };
        stay();
        world.store.collect(false).unwrap();
        assert!(!world.store.has_tree(tree));
        let room = Room::of(&world.store).unwrap();
        stay();
        drop(room.take(&world.store).unwrap());
        // Somebody else's stay is waited for: here it is over before.
        stay();
        let other = Store::open(world.store.path()).unwrap();
        let leaves = std::thread::scope(|scope| {
            let waits = scope.spawn(|| room.take(&other).is_ok());
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!waits.is_finished());
            world.store.end_stay();
            waits.join().unwrap()
        });
        assert!(leaves);
    }
}
