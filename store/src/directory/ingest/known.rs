//! What a source was when it was last taken in: a file whose inode says that nothing changed is not read again.
//!
//! `cache/sources/DIGEST`, by the path of the source, has for each file its device, inode, size and times of change, and the blob
//! that it was. The time of change of the inode is set by the kernel alone. A file that was changed so short a time before it was
//! read that a later change could have the same time is not remembered: it is read once more (git's rule of the racy index).

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::Stat;

use super::super::Store;
use crate::{BlobId, Result};

const HEADER: &[u8; 16] = b"forge sources 1\n";
const RECORD: usize = 5 * 8 + 2 * 4 + 32;
const CHECKSUM: usize = 32;
/// Coarser than the times of any file system that is in use, and than the clocks of hosts that share one should differ.
const RACY: Duration = Duration::from_secs(2);
/// Fewer files are read faster than looked up.
const FEW: usize = 32;

/// A file's inode, and what tells whether it changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State([u8; RECORD - 32]);

impl State {
    fn of(stat: &Stat) -> Self {
        let mut bytes = [0; RECORD - 32];
        let words = [
            stat.st_dev,
            stat.st_ino,
            stat.st_size.unsigned_abs(),
            stat.st_mtime.unsigned_abs(),
            stat.st_ctime.unsigned_abs(),
        ];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        for (place, part) in bytes[40..].chunks_exact_mut(4).zip([stat.st_mtime_nsec, stat.st_ctime_nsec]) {
            // Below a thousand million.
            place.copy_from_slice(&(part as u32).to_le_bytes());
        }
        Self(bytes)
    }

    fn inode(&self) -> [u8; 16] {
        let mut inode = [0; 16];
        inode.copy_from_slice(&self.0[..16]);
        inode
    }
}

/// What is known of a source.
#[derive(Debug)]
pub(in super::super) struct Known {
    name: String,
    path: Vec<u8>,
    before: HashMap<[u8; 16], (State, BlobId)>,
    after: Mutex<Vec<(State, BlobId)>>,
    /// Something was read that was not known.
    started: Duration,
}

impl Known {
    /// What is known of the source at this path.
    pub fn of(store: &Store, path: &Path) -> Self {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let path = path.as_os_str().as_encoded_bytes().to_vec();
        let name = crate::digest::to_hex(&blake3::hash(&path).as_bytes()[..16]);
        let bytes = store.read_cached("sources", &name).ok().flatten().unwrap_or_default();
        let before = decode(&bytes).filter(|(of, _)| *of == path).map(|(_, before)| before).unwrap_or_default();
        let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { name, path, before, after: Mutex::default(), started }
    }

    /// The blob that this file was and, as far as its inode says, still is.
    pub fn find(&self, stat: &Stat) -> Option<BlobId> {
        let state = State::of(stat);
        self.before.get(&state.inode()).filter(|(before, _)| *before == state).map(|(_, blob)| *blob)
    }

    /// Remembers what a file was. The look at its inode was before it was read.
    pub fn add(&self, stat: &Stat, blob: BlobId) {
        let time = |seconds: i64, part| Duration::new(seconds.unsigned_abs(), part as u32);
        let changed = time(stat.st_mtime, stat.st_mtime_nsec).max(time(stat.st_ctime, stat.st_ctime_nsec));
        if changed + RACY < self.started {
            self.after.lock().unwrap_or_else(PoisonError::into_inner).push((State::of(stat), blob));
        }
    }

    /// Keeps it for the next time.
    pub fn keep(self, store: &Store) -> Result<()> {
        let mut after = self.after.into_inner().unwrap_or_else(PoisonError::into_inner);
        let same = after.len() == self.before.len()
            && after.iter().all(|(state, blob)| self.before.get(&state.inode()) == Some(&(*state, *blob)));
        if same || after.len() < FEW {
            return Ok(());
        }
        after.sort_unstable_by_key(|(state, _)| state.0);
        let mut bytes = HEADER.to_vec();
        bytes.extend((self.path.len() as u32).to_le_bytes());
        bytes.extend(&self.path);
        for (state, blob) in after {
            bytes.extend(state.0);
            bytes.extend(blob.as_bytes());
        }
        let checksum = blake3::hash(&bytes);
        bytes.extend(checksum.as_bytes());
        store.put_cached("sources", &self.name, &bytes)
    }
}

type Before = HashMap<[u8; 16], (State, BlobId)>;

/// The path of the source, and what is known; none if a crash cut it short.
fn decode(bytes: &[u8]) -> Option<(Vec<u8>, Before)> {
    let (rest, checksum) = bytes.split_last_chunk::<CHECKSUM>()?;
    if blake3::hash(rest) != *checksum {
        return None;
    }
    let (length, rest) = rest.strip_prefix(HEADER)?.split_first_chunk::<4>()?;
    let (path, records) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let mut before = HashMap::with_capacity(records.len() / RECORD);
    for record in records.chunks_exact(RECORD) {
        let (state, blob) = record.split_last_chunk::<32>()?;
        let state = State(state.try_into().ok()?);
        before.insert(state.inode(), (state, BlobId::from_bytes(*blob)));
    }
    Some((path.to_vec(), before))
}

impl Store {
    /// Forgets sources that are gone.
    pub(in super::super) fn forget_sources(&self) -> Result<()> {
        use std::os::unix::ffi::OsStrExt;
        for name in self.cached("sources")? {
            let known = self.read_cached("sources", &name)?.and_then(|bytes| decode(&bytes));
            let there =
                known.is_some_and(|(path, _)| std::fs::symlink_metadata(std::ffi::OsStr::from_bytes(&path)).is_ok());
            if !there {
                self.drop_cached("sources", &name)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::super::testing::world;
    use crate::Node;

    #[test]
    fn an_unchanged_file_is_not_read_again_and_a_changed_one_is() {
        let world = world();
        let source = tempfile::tempdir().unwrap();
        let path = |number: usize| source.path().join(number.to_string());
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(100);
        for number in 0..100 {
            fs::write(path(number), format!("content {number}")).unwrap();
            fs::File::open(path(number)).unwrap().set_modified(old).unwrap();
        }
        let ingest = || world.store.ingest_source(source.path(), None).unwrap();
        // Changed a moment ago (the inode's time says so): nothing is remembered.
        let first = ingest();
        assert!(world.store.cached("sources").unwrap().is_empty());
        std::thread::sleep(super::RACY + std::time::Duration::from_millis(100));
        assert_eq!(ingest(), first);
        assert_eq!(world.store.cached("sources").unwrap().len(), 1);
        // What is remembered is believed: here it is a lie, so that it shows.
        let known = super::Known::of(&world.store, source.path());
        let lie = world.store.put_blob(b"a lie", false).unwrap();
        let stat = |number| rustix::fs::stat(path(number)).unwrap();
        for number in 0..100 {
            known.add(&stat(number), lie);
        }
        known.keep(&world.store).unwrap();
        assert_ne!(ingest(), first);
        // Touched, written with its old time set back, or replaced: it is read.
        fs::write(path(1), "content 1").unwrap();
        fs::File::open(path(1)).unwrap().set_modified(old).unwrap();
        fs::rename(path(2), path(1000)).unwrap();
        fs::write(path(2), "content 2").unwrap();
        let Node::Directory(now) = ingest() else { panic!() };
        let tree = world.store.tree(now).unwrap();
        let blob = |number: usize| {
            let Node::File(file) = &tree.entries[number.to_string().as_bytes()] else { panic!() };
            file.blob
        };
        assert_eq!(
            (blob(0), blob(1), blob(2)),
            (lie, crate::BlobId::of(b"content 1"), crate::BlobId::of(b"content 2"))
        );
        // What is known of a blob that has gone is not believed.
        world.store.collect(false).unwrap();
        let Node::Directory(id) = ingest() else { panic!() };
        assert_ne!(id, now);
        drop(source);
        world.store.collect(false).unwrap();
        assert!(world.store.cached("sources").unwrap().is_empty());
    }

    #[test]
    fn what_is_damaged_is_unknown() {
        let world = world();
        let source = tempfile::tempdir().unwrap();
        let known = super::Known::of(&world.store, source.path());
        for number in 0..50 {
            let path = source.path().join(number.to_string());
            fs::write(&path, "x").unwrap();
            let mut stat = rustix::fs::stat(&path).unwrap();
            (stat.st_ctime, stat.st_mtime) = (1000, 1000);
            known.add(&stat, crate::BlobId::of(b"x"));
        }
        let name = known.name.clone();
        known.keep(&world.store).unwrap();
        let bytes = world.store.read_cached("sources", &name).unwrap().unwrap();
        assert_eq!(super::Known::of(&world.store, source.path()).before.len(), 50);
        for position in (0..bytes.len()).step_by(7) {
            let mut changed = bytes.clone();
            changed[position] ^= 1;
            world.store.put_cached("sources", &name, &changed).unwrap();
            assert!(super::Known::of(&world.store, source.path()).before.is_empty(), "{position}");
            assert!(super::decode(&bytes[..position]).is_none());
        }
    }
}
