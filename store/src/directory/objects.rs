//! Blobs, trees and deltas: what is named by the digest of its content.
//!
//! What is decoded is hashed first. A blob's bytes are hashed when they are read as a whole and when they enter a checkout;
//! whoever opens one as a file hashes it as it reads.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::{Store, failed, object_path};
use crate::{BlobId, Delta, DeltaId, Error, Node, Result, Tree, TreeId};

/// Sizes of a tree, all below it included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extent {
    /// Bytes in files, each counted once per entry.
    pub bytes: u64,
    /// Entries that are not directories.
    pub files: u64,
    /// Directories, the root included.
    pub directories: u64,
}

/// Trees read of late. When the newer half is full, the older half is forgotten.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<[HashMap<TreeId, Arc<Tree>>; 2]>);

impl Recent {
    /// Entries (of directories) in each half: a few dozen megabytes.
    const HALF: usize = 100_000;

    fn get(&self, id: TreeId) -> Option<Arc<Tree>> {
        let halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        halves.iter().find_map(|half| half.get(&id)).cloned()
    }

    fn insert(&self, id: TreeId, tree: &Arc<Tree>) {
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        halves[0].insert(id, Arc::clone(tree));
        // The map's length alone would let a few large directories take all memory; summing is rare enough.
        let count = halves[0].len();
        if count % 1024 == 0 && count + halves[0].values().map(|tree| tree.entries.len()).sum::<usize>() > Self::HALF {
            halves[1] = std::mem::take(&mut halves[0]);
        }
    }
}

/// Where a blob lies.
pub(super) fn blob_path(id: BlobId, executable: bool) -> String {
    let mut path = object_path("blobs", &id.to_string());
    if executable {
        path.push_str(".x");
    }
    path
}

impl Store {
    /// Keeps some bytes. May be repeated.
    pub fn put_blob(&self, bytes: &[u8], executable: bool) -> Result<BlobId> {
        let id = BlobId::of(bytes);
        if !self.blob_is_whole(id, bytes.len() as u64)? {
            let mut temporary = self.temporary()?;
            temporary.write(bytes)?;
            temporary.set_mode(blob_mode(executable))?;
            temporary.place(&blob_path(id, executable))?;
        }
        self.has_written();
        Ok(id)
    }

    /// Keeps what a reader gives, and says how long it was. `executable` only says which inode is written first.
    pub fn put_blob_from(&self, reader: &mut dyn Read, executable: bool) -> Result<(BlobId, u64)> {
        let mut temporary = self.temporary()?;
        let mut hasher = blake3::Hasher::new();
        let size = pump(reader, &mut |bytes| {
            hasher.update(bytes);
            temporary.file.write_all(bytes)
        })
        .map_err(|source| temporary.failed("write", source))?;
        let id = BlobId::from_bytes(*hasher.finalize().as_bytes());
        if !self.blob_is_whole(id, size)? {
            temporary.set_mode(blob_mode(executable))?;
            temporary.place(&blob_path(id, executable))?;
        }
        self.has_written();
        Ok((id, size))
    }

    /// Keeps a file of the scratch directory by moving it: the path is gone afterwards.
    ///
    /// The caller promises that nobody still has it open for writing (the sandbox that made it has ended); one that others may
    /// write to must be copied instead ([`Store::put_blob_from`]). A file with further links or of another owner is copied.
    pub fn adopt_blob(&self, path: &Path, executable: bool) -> Result<(BlobId, u64)> {
        // Its mode may forbid its owner to read it.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opened = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
            Err(Errno::ACCESS) => rustix::fs::chmodat(CWD, path, Mode::RUSR | Mode::WUSR, AtFlags::empty())
                .and_then(|()| rustix::fs::openat(CWD, path, flags, Mode::empty())),
            opened => opened,
        };
        let mut file = fs::File::from(opened.map_err(failed("open", path))?);
        let stat = |file: &fs::File| rustix::fs::fstat(file).map_err(failed("look at", path));
        let before = stat(&file)?;
        if !rustix::fs::FileType::from_raw_mode(before.st_mode).is_file() {
            return Err(Error::Unsupported { path: path.to_owned(), reason: "it is not a regular file" });
        }
        if before.st_nlink != 1 || before.st_uid != rustix::process::geteuid().as_raw() {
            let kept = self.put_blob_from(&mut file, executable)?;
            fs::remove_file(path).map_err(Error::file("remove", path))?;
            return Ok(kept);
        }
        let (id, size) = hash(&mut file).map_err(Error::file("read", path))?;
        if self.blob_is_whole(id, size)? {
            fs::remove_file(path).map_err(Error::file("remove", path))?;
        } else {
            super::inodes::remove_attributes(&file).map_err(failed("remove the attributes of", path))?;
            let mode = Mode::from_raw_mode(u32::from(blob_mode(executable)));
            rustix::fs::fchmod(&file, mode).map_err(failed("change the mode of", path))?;
            let after = stat(&file)?;
            let written = |stat: &Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
            if written(&before) != written(&after) {
                return Err(Error::Unsupported { path: path.to_owned(), reason: "it is being written to" });
            }
            rustix::fs::futimens(&file, &super::file_times()).map_err(failed("set the time of", path))?;
            let to = blob_path(id, executable);
            let from = std::path::absolute(path).map_err(Error::file("find", path))?;
            self.rename(&from, &to).map_err(failed("move into the store", path))?;
        }
        self.has_written();
        Ok((id, size))
    }

    /// Opens a blob for reading. What is read is not checked against the id: see [`Store::blob`].
    pub fn open_blob(&self, id: BlobId) -> Result<fs::File> {
        for executable in [false, true] {
            if let Some(file) = self.open_file(&blob_path(id, executable))? {
                return Ok(file);
            }
        }
        Err(Error::NotFound { kind: "blob", id: id.to_string() })
    }

    /// The bytes of a blob, checked.
    pub fn blob(&self, id: BlobId) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open_blob(id)?.read_to_end(&mut bytes).map_err(Error::file("read", self.full(&blob_path(id, false))))?;
        match BlobId::of(&bytes) {
            actual if actual == id => Ok(bytes),
            actual => Err(self.mismatch(&blob_path(id, false), &actual.to_string(), &id.to_string())),
        }
    }

    /// Whether the blob is here.
    pub fn has_blob(&self, id: BlobId) -> bool {
        self.is_there(&blob_path(id, false)) || self.is_there(&blob_path(id, true))
    }

    fn blob_is_whole(&self, id: BlobId, size: u64) -> Result<bool> {
        for executable in [false, true] {
            // A crash of the machine may leave a file shorter than it was; such a one is written again.
            let relative = blob_path(id, executable);
            match self.size_of(&relative)? {
                Some(found) if found == size => return Ok(true),
                Some(_) => rustix::fs::unlinkat(&self.directory, &relative, AtFlags::empty())
                    .map_err(failed("remove", self.full(&relative)))?,
                None => {}
            }
        }
        Ok(false)
    }

    /// Keeps a tree. Its blobs and subtrees must be here already.
    pub fn put_tree(&self, tree: &Tree) -> Result<TreeId> {
        let encoded = tree.encode();
        let id = Tree::id_of(&encoded);
        // Not every value of the type is a tree (a mode above 07777, an attribute that is left out): it would not read back.
        Tree::decode(&encoded).map_err(|source| Error::Decode { from: id.to_string(), kind: "tree", source })?;
        self.write_object(&object_path("trees", &id.to_string()), &encoded)?;
        Ok(id)
    }

    /// Reads a tree; recent ones are remembered.
    pub fn tree(&self, id: TreeId) -> Result<Arc<Tree>> {
        if let Some(tree) = self.trees.get(id) {
            return Ok(tree);
        }
        let (relative, bytes) = self.read_object("tree", "trees", &id.to_string())?;
        let actual = Tree::id_of(&bytes);
        if actual != id {
            return Err(self.mismatch(&relative, &actual.to_string(), &id.to_string()));
        }
        let from = || self.full(&relative).display().to_string();
        let tree = Tree::decode(&bytes).map_err(|source| Error::Decode { from: from(), kind: "tree", source })?;
        let tree = Arc::new(tree);
        self.trees.insert(id, &tree);
        Ok(tree)
    }

    /// Whether the tree itself is here; what it names is not looked at.
    pub fn has_tree(&self, id: TreeId) -> bool {
        self.is_there(&object_path("trees", &id.to_string()))
    }

    /// Size of a tree and all below it.
    pub fn extent(&self, id: TreeId) -> Result<Extent> {
        let mut known: HashMap<TreeId, Extent> = HashMap::new();
        let mut waiting = vec![id];
        while let Some(id) = waiting.last().copied() {
            if known.contains_key(&id) {
                waiting.pop();
                continue;
            }
            let tree = self.tree(id)?;
            let before = waiting.len();
            let mut extent = Extent { directories: 1, ..Extent::default() };
            for node in tree.entries.values() {
                match node {
                    Node::Directory(child) => match known.get(child) {
                        Some(child) => {
                            extent.bytes = extent.bytes.saturating_add(child.bytes);
                            extent.files = extent.files.saturating_add(child.files);
                            extent.directories = extent.directories.saturating_add(child.directories);
                        }
                        None => waiting.push(*child),
                    },
                    Node::File(file) => {
                        extent.bytes = extent.bytes.saturating_add(file.size);
                        extent.files = extent.files.saturating_add(1);
                    }
                    _ => extent.files = extent.files.saturating_add(1),
                }
            }
            if waiting.len() == before {
                known.insert(id, extent);
                waiting.pop();
            }
        }
        Ok(known[&id])
    }

    /// Keeps a delta. Its tree must be here already.
    pub fn put_delta(&self, delta: &Delta) -> Result<DeltaId> {
        let id = delta.id();
        self.write_object(&object_path("deltas", &id.to_string()), &delta.encode())?;
        Ok(id)
    }

    /// Reads a delta.
    pub fn delta(&self, id: DeltaId) -> Result<Delta> {
        let (relative, bytes) = self.read_object("delta", "deltas", &id.to_string())?;
        let from = || self.full(&relative).display().to_string();
        let actual = Delta::id_of(&bytes);
        if actual != id {
            return Err(self.mismatch(&relative, &actual.to_string(), &id.to_string()));
        }
        Delta::decode(&bytes).map_err(|source| Error::Decode { from: from(), kind: "delta", source })
    }

    pub(super) fn read_object(&self, kind: &'static str, directory: &str, id: &str) -> Result<(String, Vec<u8>)> {
        let relative = object_path(directory, id);
        match self.read_if_there(&relative)? {
            Some(bytes) => Ok((relative, bytes)),
            None => Err(Error::NotFound { kind, id: id.to_owned() }),
        }
    }

    pub(super) fn mismatch(&self, relative: &str, actual: &str, expected: &str) -> Error {
        let from = self.full(relative).display().to_string();
        Error::Mismatch { from, actual: actual.to_owned(), expected: expected.to_owned() }
    }
}

fn blob_mode(executable: bool) -> u16 {
    if executable { 0o755 } else { 0o644 }
}

/// Hands on what a reader gives, piece by piece, and says how much it was.
pub(super) fn pump(reader: &mut dyn Read, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<u64> {
    let mut buffer = vec![0; 256 * 1024];
    let mut size = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(size),
            Ok(length) => {
                take(&buffer[..length])?;
                size += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The id and length of what a reader gives.
pub(super) fn hash(reader: &mut dyn Read) -> io::Result<(BlobId, u64)> {
    let mut hasher = blake3::Hasher::new();
    let size = pump(reader, &mut |bytes| {
        hasher.update(bytes);
        Ok(())
    })?;
    Ok((BlobId::from_bytes(*hasher.finalize().as_bytes()), size))
}
