//! Blobs, trees and deltas: what is named by the digest of its content.
//!
//! What is decoded is hashed first. A blob's bytes are hashed when they are read as a whole and when they enter a checkout;
//! whoever opens one as a file hashes it as it reads.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::lease::Use;
use super::packs::SMALL;
use super::sparse::{self, Holes};
use super::{Store, failed, object_path};
use crate::{BlobId, Delta, DeltaId, Error, Node, Result, Tree, TreeId};

/// Sizes of a tree, all below it included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
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
pub(super) struct Recent(Mutex<Halves>);

#[derive(Debug, Default)]
struct Halves {
    newer: HashMap<TreeId, Arc<Tree>>,
    older: HashMap<TreeId, Arc<Tree>>,
    /// How much the newer half holds: its trees and their entries.
    weight: usize,
}

impl Recent {
    /// A few dozen megabytes, which the trees of a whole distribution fit in.
    const HALF: usize = 100_000;

    fn get(&self, id: TreeId) -> Option<Arc<Tree>> {
        let halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        halves.newer.get(&id).or_else(|| halves.older.get(&id)).cloned()
    }

    fn insert(&self, id: TreeId, tree: &Arc<Tree>) {
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if halves.newer.insert(id, Arc::clone(tree)).is_none() {
            halves.weight += 1 + tree.entries.len();
        }
        if halves.weight > Self::HALF {
            halves.older = std::mem::take(&mut halves.newer);
            halves.weight = 0;
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

/// Where an object lies.
pub(super) fn use_path(one: Use, program: bool) -> String {
    match one {
        Use::Blob(id) => blob_path(id, program),
        Use::Tree(id) => object_path("trees", &id.to_string()),
        Use::Delta(id) => object_path("deltas", &id.to_string()),
        Use::Formation(id) => object_path("formations", &id.to_string()),
    }
}

impl Store {
    /// Keeps some bytes. May be repeated.
    pub fn put_blob(&self, bytes: &[u8], executable: bool) -> Result<BlobId> {
        let id = BlobId::of(bytes);
        self.note(Use::Blob(id));
        if !self.blob_is_whole(id, bytes.len() as u64)? && !self.pack(Use::Blob(id), bytes, executable)? {
            self.write_loose(Use::Blob(id), bytes, executable)?;
        }
        self.has_written();
        Ok(id)
    }

    /// Keeps what a reader gives, and says how long it was. `executable` only says which inode is written first.
    pub fn put_blob_from(&self, mut reader: &mut dyn Read, executable: bool) -> Result<(BlobId, u64)> {
        // What is short is hashed before a file is made for it: it may be here, or go into a pack.
        let mut start = Vec::new();
        let read = (&mut reader).take(SMALL + 1).read_to_end(&mut start);
        read.map_err(Error::file("read what is written to", self.full("blobs")))?;
        if start.len() as u64 <= SMALL {
            return Ok((self.put_blob(&start, executable)?, start.len() as u64));
        }
        let temporary = self.temporary()?;
        let mut hasher = blake3::Hasher::new();
        let mut full = false;
        let size = pump(&mut (&start[..]).chain(reader), &mut |bytes| {
            hasher.update(bytes);
            sparse::write(&temporary.file, bytes).inspect_err(|_| full = true)
        });
        // Which of the two ends failed is not to be told from the error itself.
        let action = if full { "write" } else { "read what is written to" };
        let size = size.map_err(|source| temporary.failed(action, source))?;
        let id = BlobId::from_bytes(*hasher.finalize().as_bytes());
        self.note(Use::Blob(id));
        if !self.blob_is_whole(id, size)? {
            temporary.set_mode(blob_mode(executable))?;
            temporary.place(&blob_path(id, executable))?;
            self.write_ahead(size);
        }
        self.has_written();
        Ok((id, size))
    }

    /// Keeps a file of the scratch directory by moving it: the path is gone afterwards.
    ///
    /// The caller promises that nobody still has it open for writing (the sandbox that made it has ended); one that others may
    /// write to must be copied instead ([`Store::put_blob_from`]). A file with further links or of another owner is copied.
    pub fn adopt_blob(&self, path: &Path, executable: bool) -> Result<(BlobId, u64)> {
        self.adopt(path, executable, None)
    }

    /// The same of a file that the caller wrote itself, and hashed on the way.
    pub(crate) fn adopt_hashed(&self, path: &Path, id: BlobId, size: u64, executable: bool) -> Result<(BlobId, u64)> {
        self.adopt(path, executable, Some((id, size)))
    }

    fn adopt(&self, path: &Path, executable: bool, known: Option<(BlobId, u64)>) -> Result<(BlobId, u64)> {
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
        let copied = |mut file: fs::File| {
            let kept = self.put_blob_from(&mut file, executable)?;
            fs::remove_file(path).map_err(Error::file("remove", path))?;
            Ok(kept)
        };
        if before.st_nlink != 1 || before.st_uid != rustix::process::geteuid().as_raw() {
            return copied(file);
        }
        let (id, size) = match known {
            Some((id, size)) if before.st_size.unsigned_abs() == size => (id, size),
            _ => hash(&file).map_err(Error::file("read", path))?,
        };
        self.note(Use::Blob(id));
        if self.blob_is_whole(id, size)? {
            fs::remove_file(path).map_err(Error::file("remove", path))?;
        } else {
            match super::inodes::remove_attributes(&file) {
                // Capabilities that were set in a user namespace are not for its owner to take away outside.
                Err(Errno::PERM) => {
                    file.rewind().map_err(Error::file("read", path))?;
                    return copied(file);
                }
                result => result.map_err(failed("remove the attributes of", path))?,
            }
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
        match self.read_packed(Use::Blob(id))? {
            Some(bytes) => self.memory_file(&bytes),
            None => Err(Error::NotFound { kind: "blob", id: id.to_string() }),
        }
    }

    /// The same, looking first where a blob of this kind was most likely put.
    pub(crate) fn open_blob_of(&self, id: BlobId, executable: bool) -> Result<fs::File> {
        match self.open_file(&blob_path(id, executable))? {
            Some(file) => Ok(file),
            None => self.open_blob(id),
        }
    }

    /// What a blob's bytes hash to.
    pub(crate) fn hash_blob(&self, id: BlobId) -> Result<BlobId> {
        let file = self.open_blob(id)?;
        Ok(hash(&file).map_err(Error::file("read", self.full(&blob_path(id, false))))?.0)
    }

    /// The bytes of a blob, checked.
    pub fn blob(&self, id: BlobId) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let loose = match self.open_file(&blob_path(id, false))? {
            Some(file) => Some(file),
            None => self.open_file(&blob_path(id, true))?,
        };
        match loose {
            Some(mut file) => {
                file.read_to_end(&mut bytes).map_err(Error::file("read", self.full(&blob_path(id, false))))?;
            }
            None => {
                let packed = self.read_packed(Use::Blob(id))?;
                bytes = packed.ok_or_else(|| Error::NotFound { kind: "blob", id: id.to_string() })?;
            }
        }
        match BlobId::of(&bytes) {
            actual if actual == id => Ok(bytes),
            actual => Err(self.mismatch(&blob_path(id, false), &actual.to_string(), &id.to_string())),
        }
    }

    /// Whether the blob is here; then it stays as long as this store is open.
    pub fn has_blob(&self, id: BlobId) -> bool {
        self.note(Use::Blob(id));
        self.is_stored(Use::Blob(id))
    }

    /// The length of a blob, if it is here.
    pub fn blob_size(&self, id: BlobId) -> Result<Option<u64>> {
        self.note(Use::Blob(id));
        match self.size_of(&blob_path(id, false))? {
            Some(size) => Ok(Some(size)),
            None => match self.size_of(&blob_path(id, true))? {
                Some(size) => Ok(Some(size)),
                None => self.packed_size(Use::Blob(id)),
            },
        }
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
        Ok(self.packed_size(Use::Blob(id))? == Some(size))
    }

    /// Keeps a tree. Its blobs and subtrees must be here already.
    pub fn put_tree(&self, tree: &Tree) -> Result<TreeId> {
        let encoded = tree.encode();
        let id = Tree::id_of(&encoded);
        // Not every value of the type is a tree (a mode above 07777, an attribute that is left out): it would not read back.
        Tree::decode(&encoded).map_err(|source| Error::Decode { from: id.to_string(), kind: "tree", source })?;
        self.note(Use::Tree(id));
        self.put_encoding(Use::Tree(id), &encoded)?;
        self.rescue(Use::Tree(id))?;
        Ok(id)
    }

    /// Reads a tree; recent ones are remembered.
    pub fn tree(&self, id: TreeId) -> Result<Arc<Tree>> {
        if let Some(tree) = self.trees.get(id) {
            return Ok(tree);
        }
        let tree = Arc::new(self.read_tree(id)?);
        self.trees.insert(id, &tree);
        Ok(tree)
    }

    /// Reads a tree from the disk, and remembers it not.
    pub(super) fn read_tree(&self, id: TreeId) -> Result<Tree> {
        let (relative, bytes) = self.read_object("tree", "trees", &id.to_string())?;
        let actual = Tree::id_of(&bytes);
        if actual != id {
            return Err(self.mismatch(&relative, &actual.to_string(), &id.to_string()));
        }
        let from = || self.full(&relative).display().to_string();
        Tree::decode(&bytes).map_err(|source| Error::Decode { from: from(), kind: "tree", source })
    }

    /// Whether a tree is here, and so all below it; then it stays as long as this store is open.
    pub fn has_tree(&self, id: TreeId) -> bool {
        self.has(Use::Tree(id))
    }

    /// Whether a delta is here, and so its tree.
    pub fn has_delta(&self, id: DeltaId) -> bool {
        self.has(Use::Delta(id))
    }

    /// Whether an object is here, with all that it names, and stays as long as this store is open.
    pub(super) fn has(&self, one: Use) -> bool {
        if let Use::Blob(id) = one {
            return self.has_blob(id);
        }
        self.note(one);
        self.is_stored(one) && !self.is_doomed(one)
    }

    /// Whether an object is here, be it that a collection has given it up.
    pub(super) fn is_stored(&self, one: Use) -> bool {
        self.is_loose(one) || self.packed_size(one).is_ok_and(|size| size.is_some())
    }

    /// Whether an object is a file of its own.
    pub(super) fn is_loose(&self, one: Use) -> bool {
        self.is_there(&use_path(one, false)) || (matches!(one, Use::Blob(_)) && self.is_there(&use_path(one, true)))
    }

    /// Writes a tree or delta, unless it is there.
    pub(super) fn put_encoding(&self, object: Use, bytes: &[u8]) -> Result<()> {
        // A crash of the machine may leave a file shorter than it was; such a one is written again.
        let here = match self.size_of(&use_path(object, false))? {
            Some(size) => size == bytes.len() as u64,
            None => self.packed_size(object)?.is_some() || self.pack(object, bytes, false)?,
        };
        if !here {
            self.write_loose(object, bytes, false)?;
        }
        self.has_written();
        Ok(())
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
        self.note(Use::Delta(id));
        self.put_encoding(Use::Delta(id), &delta.encode())?;
        self.rescue(Use::Delta(id))?;
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
        if let Some(bytes) = self.read_if_there(&relative)? {
            return Ok((relative, bytes));
        }
        let digest = crate::digest::from_hex(id).and_then(|bytes| bytes.try_into().ok());
        let object = digest.and_then(|digest| Use::from_parts(kind, digest));
        match object.map(|object| self.read_packed(object)).transpose()?.flatten() {
            Some(bytes) => Ok((relative, bytes)),
            None => Err(Error::NotFound { kind, id: id.to_owned() }),
        }
    }

    pub(super) fn mismatch(&self, relative: &str, actual: &str, expected: &str) -> Error {
        let from = self.full(relative).display().to_string();
        Error::Mismatch { from, actual: actual.to_owned(), expected: expected.to_owned() }
    }
}

pub(super) fn blob_mode(executable: bool) -> u16 {
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

/// The id and length of a file, whose holes are not read.
pub(super) fn hash(file: &fs::File) -> io::Result<(BlobId, u64)> {
    let mut hasher = blake3::Hasher::new();
    let size = pump(&mut Holes::new(file), &mut |bytes| {
        hasher.update(bytes);
        Ok(())
    })?;
    Ok((BlobId::from_bytes(*hasher.finalize().as_bytes()), size))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::super::FILE_TIME;
    use super::super::testing::{name, world};
    use super::*;
    use crate::Metadata;

    #[test]
    fn blobs_are_kept_once_whichever_way_they_come() {
        let world = world();
        let store = &world.store;
        let scratch = store.scratch().unwrap();
        let bytes = vec![7; 600 * 1024];
        let id = store.put_blob(&bytes, false).unwrap();
        assert_eq!(store.put_blob_from(&mut &bytes[..], true).unwrap(), (id, bytes.len() as u64));
        let path = scratch.path().join("file");
        fs::write(&path, &bytes).unwrap();
        assert_eq!(store.adopt_blob(&path, true).unwrap(), (id, bytes.len() as u64));
        assert!(!path.exists() && store.has_blob(id) && store.blob(id).unwrap() == bytes);
        let metadata = fs::metadata(world.blob_path(id, false)).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.mtime(), metadata.nlink()), (0o644, FILE_TIME, 1));
        assert!(!world.blob_path(id, true).exists());
        assert!(matches!(store.open_blob(BlobId::of(b"nowhere")), Err(Error::NotFound { kind: "blob", .. })));
    }

    #[test]
    fn an_adopted_file_loses_what_is_not_content() {
        let world = world();
        let scratch = world.store.scratch().unwrap();
        let path = scratch.path().join("file");
        fs::write(&path, "content").unwrap();
        rustix::fs::lsetxattr(&path, "user.forge.owner", b"1:2", rustix::fs::XattrFlags::empty()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        let (id, size) = world.store.adopt_blob(&path, true).unwrap();
        let kept = world.blob_path(id, true);
        assert_eq!((id, size), (BlobId::of(b"content"), 7));
        assert_eq!(fs::metadata(&kept).unwrap().mode() & 0o7777, 0o755);
        assert_eq!(super::super::Marks::of(&kept).unwrap(), super::super::Marks::default());
    }

    #[test]
    fn a_file_with_another_link_is_copied_and_what_is_no_file_is_refused() {
        let world = world();
        let scratch = world.store.scratch().unwrap();
        let path = |text: &str| scratch.path().join(text);
        fs::write(path("file"), "content").unwrap();
        fs::hard_link(path("file"), path("other")).unwrap();
        let (id, _) = world.store.adopt_blob(&path("file"), false).unwrap();
        fs::write(path("other"), "changed").unwrap();
        assert_eq!(world.store.blob(id).unwrap(), b"content");
        symlink("other", path("link")).unwrap();
        assert!(world.store.adopt_blob(&path("link"), false).is_err());
        assert!(world.store.adopt_blob(scratch.path(), false).is_err());
    }

    #[test]
    fn a_file_cut_short_by_a_crash_is_written_again() {
        let world = world();
        let id = world.store.put_blob(b"precious", false).unwrap();
        let tree = world.tree(0o755, []);
        let tree_path = world.store.path().join(object_path("trees", &tree.to_string()));
        fs::write(world.blob_path(id, false), "").unwrap();
        fs::write(&tree_path, "").unwrap();
        world.store.put_blob(b"precious", false).unwrap();
        world.tree(0o755, []);
        assert_eq!(world.store.blob(id).unwrap(), b"precious");
        assert!(world.store.tree(tree).is_ok());
    }

    #[test]
    fn a_changed_tree_is_not_believed() {
        let world = world();
        let (tree, other) = (world.tree(0o755, []), world.tree(0o700, []));
        let path = |id: TreeId| world.store.path().join(object_path("trees", &id.to_string()));
        fs::copy(path(other), path(tree)).unwrap();
        assert!(matches!(world.store.tree(tree), Err(Error::Mismatch { .. })));
    }

    #[test]
    fn an_extent_counts_every_entry_also_of_a_subtree_that_is_there_often() {
        let world = world();
        let mut id = world.tree(0o755, [("a", world.file("12345", 0o644)), ("b", Node::Fifo(Metadata::root(0o600)))]);
        // Each level has the one below twice: 2^60 files, but 61 trees.
        for _ in 0..60 {
            id = world.tree(0o755, [("l", Node::Directory(id)), ("r", Node::Directory(id))]);
        }
        let extent = world.store.extent(id).unwrap();
        assert_eq!(extent, Extent { bytes: 5 << 60, files: 2 << 60, directories: (1 << 61) - 1 });
    }

    #[test]
    fn a_tree_that_would_not_read_back_is_not_kept() {
        let world = world();
        let mut tree = Tree::empty();
        tree.entries.insert(name("x"), Node::Symlink { target: Vec::new(), uid: 0, gid: 0 });
        assert!(matches!(world.store.put_tree(&tree), Err(Error::Decode { .. })));
    }
}
