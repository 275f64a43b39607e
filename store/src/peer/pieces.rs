//! Large blobs go in pieces of 1 MiB, each of which proves itself: BLAKE3 is a tree of hashes, and the hashes of the pieces, which are
//! sent first, give the blob's id. So a wrong byte is found within a piece, and a transfer that was cut goes on at the last one.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use blake3::hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};
use rustix::fs::FlockOperation;

use crate::directory::sparse;
use crate::{BlobId, Error, Result, Store};

/// Bytes of a piece; a power of two of BLAKE3's chunks. It is part of the protocol.
pub const PIECE: u64 = 1 << 20;
/// A transfer that was cut so long ago, in seconds, is not gone on with.
const STALE: u64 = 14 * 24 * 3600;

/// How many pieces a blob of this size has. One of a single piece goes as a whole.
pub(super) fn count(size: u64) -> u64 {
    size.div_ceil(PIECE)
}

/// The hash of a piece, by its place.
pub(super) fn hash(index: u64, bytes: &[u8]) -> ChainingValue {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(index * PIECE);
    hasher.update(bytes);
    hasher.finalize_non_root()
}

/// The id of a blob of this size (more than one piece) whose pieces have these hashes.
pub(super) fn id_of(hashes: &[ChainingValue], size: u64) -> Option<BlobId> {
    fn below(hashes: &[ChainingValue], size: u64) -> ChainingValue {
        match hashes {
            [one] => *one,
            many => {
                let left = left_subtree_len(size);
                let (before, behind) = many.split_at((left / PIECE) as usize);
                merge_subtrees_non_root(&below(before, left), &below(behind, size - left), Mode::Hash)
            }
        }
    }
    if size <= PIECE || hashes.len() as u64 != count(size) {
        return None;
    }
    let left = left_subtree_len(size);
    let (before, behind) = hashes.split_at((left / PIECE) as usize);
    let root = merge_subtrees_root(&below(before, left), &below(behind, size - left), Mode::Hash);
    Some(BlobId::from_bytes(*root.as_bytes()))
}

/// The hashes of the pieces of what a reader gives; `tick` is called after each, for whoever must show a sign of life.
pub(super) fn hashes(
    reader: &mut dyn Read,
    size: u64,
    tick: &mut dyn FnMut() -> io::Result<()>,
) -> io::Result<Vec<ChainingValue>> {
    let mut piece = Vec::new();
    let mut hashes = Vec::new();
    for index in 0..count(size) {
        piece.clear();
        reader.take(PIECE).read_to_end(&mut piece)?;
        if piece.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hashes.push(hash(index, &piece));
        tick()?;
    }
    Ok(hashes)
}

/// A blob that comes piece by piece. What came stays when the process ends, and the next one goes on with it.
pub(super) struct Partial<'a> {
    store: &'a Store,
    id: BlobId,
    size: u64,
    hashes: Vec<ChainingValue>,
    path: PathBuf,
    file: fs::File,
    /// Pieces that are here.
    here: u64,
}

fn directory(store: &Store) -> PathBuf {
    store.path().join("cache/partial")
}

/// How many pieces of a blob are here from before.
pub(super) fn here(store: &Store, id: BlobId) -> u64 {
    fs::metadata(directory(store).join(id.to_string())).map_or(0, |found| found.len() / PIECE)
}

impl<'a> Partial<'a> {
    /// Begins, or goes on. None if the hashes are not of this blob.
    pub fn open(store: &'a Store, id: BlobId, size: u64, hashes: Vec<ChainingValue>) -> Result<Option<Self>> {
        if id_of(&hashes, size) != Some(id) {
            return Ok(None);
        }
        let directory = directory(store);
        fs::create_dir_all(&directory).map_err(Error::file("create", &directory))?;
        remove_stale(&directory);
        let mut path = directory.join(id.to_string());
        let open = |path: &PathBuf| {
            let options = fs::File::options().read(true).write(true).create(true).truncate(false).open(path);
            options.map_err(Error::file("create", path))
        };
        let mut file = open(&path)?;
        // Another process may be at it, or may have finished it and moved the file away while we opened it.
        let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        let same = || {
            use std::os::unix::fs::MetadataExt as _;
            let (ours, theirs) = (file.metadata().ok()?, fs::symlink_metadata(&path).ok()?);
            Some((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()))
        };
        if !locked || same() != Some(true) {
            path = directory.join(format!("{id}.{}", super::random_name().map_err(Error::file("name", &path))?));
            file = open(&path)?;
        }
        let mut partial = Self { store, id, size, hashes, path, file, here: 0 };
        partial.check()?;
        Ok(Some(partial))
    }

    /// Looks which pieces are here and good; what comes behind them is cut off.
    fn check(&mut self) -> Result<()> {
        let mut piece = Vec::new();
        while self.here < count(self.size) {
            piece.clear();
            let length = self.length(self.here);
            let read = (&mut self.file).take(length).read_to_end(&mut piece);
            read.map_err(Error::file("read", &self.path))?;
            if piece.is_empty() || hash(self.here, &piece) != self.hashes[self.here as usize] {
                break;
            }
            self.here += 1;
        }
        self.file.set_len((self.here * PIECE).min(self.size)).map_err(Error::file("write", &self.path))?;
        self.file.seek(SeekFrom::End(0)).map_err(Error::file("write", &self.path))?;
        Ok(())
    }

    fn length(&self, index: u64) -> u64 {
        PIECE.min(self.size - index * PIECE)
    }

    /// Which blob it is.
    pub fn id(&self) -> BlobId {
        self.id
    }

    /// Adds the next piece. False if it is another one than the next, or not what its hash says.
    pub fn add(&mut self, index: u64, bytes: &[u8]) -> Result<bool> {
        if index < self.here && index < count(self.size) {
            // It was on its way already.
            return Ok(hash(index, bytes) == self.hashes[index as usize]);
        }
        let fits = index == self.here && index < count(self.size) && bytes.len() as u64 == self.length(index);
        if !fits || hash(index, bytes) != self.hashes[index as usize] {
            return Ok(false);
        }
        sparse::write(&self.file, bytes).map_err(Error::file("write", &self.path))?;
        self.here += 1;
        Ok(true)
    }

    /// Moves the blob into the store, if all of it is here.
    pub fn finish(self, executable: bool) -> Result<bool> {
        if self.here < count(self.size) {
            return Ok(false);
        }
        // Under a name that nobody else opens any more, and closed, before it becomes a blob.
        let random = super::random_name().map_err(Error::file("name", &self.path))?;
        let whole = directory(self.store).join(format!("{}.{random}", self.id));
        fs::rename(&self.path, &whole).map_err(Error::file("move", &self.path))?;
        let (store, id, size) = (self.store, self.id, self.size);
        drop(self);
        // Every piece was hashed when it was written or found, and the hashes give the id.
        let (kept, _) = store.adopt_hashed(&whole, id, size, executable)?;
        Ok(kept == id)
    }
}

fn remove_stale(directory: &std::path::Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|found| found.modified()).ok().and_then(|time| time.elapsed().ok());
        // What has a random name belongs to one process, and is of no use to another.
        let limit = if entry.file_name().len() > 64 { 24 * 3600 } else { STALE };
        if age.is_some_and(|age| age.as_secs() > limit) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::testing::world;

    fn content(size: u64) -> Vec<u8> {
        (0..size).map(|at| (at * 31 % 251) as u8).collect()
    }

    #[test]
    fn the_hashes_of_pieces_give_the_id() {
        // Two pieces; a last one of one byte; numbers of pieces that are no powers of two.
        for size in [PIECE + 1, 2 * PIECE - 1, 2 * PIECE, 2 * PIECE + 1, 3 * PIECE, 5 * PIECE + 17, 7 * PIECE] {
            let bytes = content(size);
            let mut hashes = hashes(&mut bytes.as_slice(), size, &mut || Ok(())).unwrap();
            assert_eq!(id_of(&hashes, size), Some(BlobId::of(&bytes)), "{size}");
            assert_eq!(id_of(&hashes, size - PIECE), None);
            hashes.swap(0, 1);
            assert_ne!(id_of(&hashes, size), Some(BlobId::of(&bytes)));
        }
        assert_eq!(id_of(&[[0; 32]], PIECE), None);
        assert_eq!(id_of(&[], 0), None);
    }

    #[test]
    fn a_cut_transfer_goes_on_at_the_last_good_piece() {
        let world = world();
        let bytes = content(4 * PIECE + 5);
        let (id, size) = (BlobId::of(&bytes), bytes.len() as u64);
        let hashes = hashes(&mut bytes.as_slice(), size, &mut || Ok(())).unwrap();
        let pieces: Vec<&[u8]> = bytes.chunks(PIECE as usize).collect();
        let open = || Partial::open(&world.store, id, size, hashes.clone()).unwrap().unwrap();
        let mut partial = open();
        assert!(partial.add(0, pieces[0]).unwrap() && partial.add(1, pieces[1]).unwrap());
        assert!(!partial.add(3, pieces[3]).unwrap() && !partial.add(2, pieces[3]).unwrap());
        assert!(!partial.add(2, &pieces[2][1..]).unwrap());
        // Another process has it: this one begins for itself.
        assert_eq!(open().here, 0);
        drop(partial);
        assert_eq!(here(&world.store, id), 2);
        let path = directory(&world.store).join(id.to_string());
        let mut damaged = fs::read(&path).unwrap();
        damaged[PIECE as usize] ^= 1;
        fs::write(&path, damaged).unwrap();
        let mut partial = open();
        assert_eq!(partial.here, 1);
        for (index, piece) in pieces.iter().enumerate() {
            assert!(partial.add(index as u64, piece).unwrap());
        }
        assert!(partial.finish(false).unwrap());
        assert_eq!(world.store.blob(id).unwrap(), bytes);
        assert!(!path.exists());
    }

    #[test]
    fn hashes_of_another_blob_are_refused() {
        let world = world();
        let bytes = content(2 * PIECE);
        let hashes = hashes(&mut bytes.as_slice(), 2 * PIECE, &mut || Ok(())).unwrap();
        assert!(Partial::open(&world.store, BlobId::of(b"x"), 2 * PIECE, hashes.clone()).unwrap().is_none());
        // A wrong length with right hashes is known by its last piece, which no bytes can be.
        let mut partial = Partial::open(&world.store, BlobId::of(&bytes), 2 * PIECE - 1, hashes).unwrap().unwrap();
        let last = &bytes[PIECE as usize..];
        assert!(!partial.add(1, last).unwrap() && !partial.add(1, &last[..last.len() - 1]).unwrap());
    }
}
