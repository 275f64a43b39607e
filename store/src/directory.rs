//! The store's directory on disk: where objects, roots and claims lie.
//!
//! ```text
//! DIR/format                      "forge store 1\n"
//! DIR/blobs/ab/cdef…              a blob's bytes, mode 0644; `cdef….x` the same with mode 0755
//! DIR/trees/ab/cdef…              encoded trees; likewise deltas/, formations/
//! DIR/packs/NAME.pack, .index     many small blobs, trees and deltas in one file, and where each lies
//! DIR/records/<formation id>.json what is known of a formation beside its identity
//! DIR/claims/…                    which step or derivation gave what
//! DIR/cache/…                     what may be lost at any time and only saves work
//! DIR/building/KEY.lock           which steps are being made; locked by who makes them
//! DIR/roots/NAME                  a name's formation id
//! DIR/checkouts/…                 trees laid out on disk, and the inodes that they share
//! DIR/scratch/…                   what running processes are making; locked by them
//! DIR/leases/…                    what running processes use; locked by them
//! DIR/pins/ID                     a formation that is kept without a name
//! DIR/gc/…                        what a collection says to others while it is on its way
//! ```
//!
//! Plain files only; every object is written to a temporary name and renamed, so that a crash at any point leaves a valid
//! store and every step may be repeated. What refers to objects (a claim, a formation, a root, a checkout) is renamed into
//! place only after the file system has been told to write them out: once for thousands of objects, not once for each.
//! The whole directory is mode 0700. More in `docs/formats/store.md`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use crate::{BlobId, DeltaId, Error, Result};

mod building;
mod cached;
mod checkout;
mod claims;
mod collect;
mod doomed;
mod facts;
mod ingest;
mod ingest_exact;
mod inodes;
mod lease;
mod look;
mod measure;
mod merge;
mod objects;
mod packed;
mod packs;
mod place;
mod roots;
mod scratch;
mod shared;
pub(crate) mod sparse;
#[cfg(test)]
pub(crate) mod testing;
mod verify;
pub mod versioned;

pub use building::{Begin, Building};
pub use claims::Claimed;
pub use collect::{Collected, Keep};
pub use inodes::{ATTRIBUTE_PREFIX, DeviceNumber, Marks};
pub use lease::Lease;
pub use measure::Measured;
pub use objects::Extent;
pub use packs::Batch;
pub use place::remove_all;
pub use scratch::Scratch;
pub use verify::{Affected, Damage, Restore};

/// The time that every file of a checkout shows: 1980-01-02 00:00:00 UTC, the first whole day that every archive format has.
pub const FILE_TIME: i64 = 315_619_200;

/// How many bytes wait for the disk before it begins.
const AHEAD: u64 = 64 << 20;

/// What `DIR/format` says.
const FORMAT: &str = "forge store 1\n";

/// A store on this machine. Any number of threads and processes may share one.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// The directory itself: objects are reached relative to it.
    directory: OwnedFd,
    /// `DIR/format`, locked (shared) as long as this is open: a forge that knows no leases collects nothing meanwhile.
    _format: OwnedFd,
    /// What this process uses.
    notes: lease::Notes,
    /// What a collection has given up.
    doomed: doomed::Doomed,
    /// Where temporary files lie; made with the first of them.
    workspace: OnceLock<Scratch>,
    next_temporary: AtomicU64,
    /// Counts what was written; what `synced` has reached is on the disk.
    written: AtomicU64,
    synced: Mutex<u64>,
    /// Bytes since the disk was last told to begin ([`Store::write_ahead`]), and whether it is at it.
    ahead: AtomicU64,
    writing: Arc<AtomicBool>,
    trees: objects::Recent,
    packs: packs::Packs,
    /// What is to become a pack.
    pending: packs::Pending,
    /// Claims about store paths that are not written down yet: where, what, and a note.
    store_paths: Mutex<BTreeMap<String, (DeltaId, String)>>,
    cleaned: AtomicBool,
}

impl Drop for Store {
    fn drop(&mut self) {
        // What was not written down is looked for, or made, again.
        let _ = self.put_claims(&[]);
    }
}

/// What one output of a derivation or step turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// A single file, for instance a download.
    Blob(BlobId),
    /// A delta to be merged into a root.
    Delta(DeltaId),
}

/// One layer in the record of how a formation's root came to be.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LayerRecord {
    /// What people call it.
    pub label: String,
    /// The delta's id, in hexadecimal.
    pub delta: String,
    /// Bytes in its files, each counted once per entry.
    pub size: u64,
    /// Entries that are not directories.
    pub files: u64,
}

/// Something that was fetched for a formation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct FetchRecord {
    /// Its file name.
    pub name: String,
    /// Relative to a mirror or an index where it is of one (`debian:bookworm/pool/…`, `python:numpy/…`), else an address.
    pub url: String,
    /// The hash that it had to have: `sha256`, `sha512`, `sha1`, `md5`; `nar-` in front if it is of a NAR.
    pub algorithm: String,
    /// Its digits, in hexadecimal.
    pub digest: String,
}

/// A step that led to a formation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct StepRecord {
    /// The `.drv` path: a digest of the step and of everything that leads to it.
    pub derivation: String,
    /// What makes it, for instance `builtin:wheel`.
    pub builder: String,
    /// `.drv` paths of steps, and store paths of sources, that go in; sorted.
    pub inputs: Vec<String>,
}

/// What is known of a formation beside its identity.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Record {
    /// Lowest first.
    pub layers: Vec<LayerRecord>,
    /// When it was first built here, in seconds since 1970.
    pub built: u64,
    /// What was fetched for it; sorted.
    #[serde(default)]
    pub fetched: Vec<FetchRecord>,
    /// How it was made, by the path of the derivation; empty if it was not built but came from elsewhere.
    #[serde(default)]
    pub steps: Vec<StepRecord>,
    /// What it was built from, word by word, where that was not an expression: Joblet's `runtime.yaml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Who owns the files of a checkout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ownership {
    /// As the tree says; only root can make it.
    Exact,
    /// Everything belongs to the caller; what the tree says otherwise is noted in [`OWNER_ATTRIBUTE`].
    Caller,
    /// Everything belongs to the caller, and nothing is noted: enough to run, on a file system that has no such attributes.
    Unnoted,
}

impl Ownership {
    /// Every kind, with the name of its directory below `checkouts`.
    const ALL: [(Self, &'static str); 3] =
        [(Self::Caller, "caller"), (Self::Exact, "exact"), (Self::Unnoted, "unnoted")];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(known, _)| *known == self).map_or("", |(_, name)| name)
    }
}

/// On files and directories of an [`Ownership::Caller`] checkout, and of what a build step leaves: `UID:GID` in decimal,
/// where the tree's owner is not 0:0.
pub const OWNER_ATTRIBUTE: &str = "user.forge.owner";
/// On an empty regular file that stands for a device: `c MAJOR:MINOR` or `b MAJOR:MINOR` in decimal.
pub const DEVICE_ATTRIBUTE: &str = "user.forge.device";

impl Store {
    /// Opens the store at `path`, and makes it if there is none. Fails if a newer forge made it.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let path = std::path::absolute(&path).map_err(Error::file("find", &path))?;
        let format = path.join("format");
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let mut lease = rustix::fs::openat(CWD, &format, flags, Mode::empty());
        if matches!(lease, Err(Errno::NOENT)) {
            create(&path)?;
            lease = rustix::fs::openat(CWD, &format, flags, Mode::empty());
        }
        let lease = lease.map_err(failed("open", &format))?;
        let mut found = [0; 64];
        let length = rustix::io::read(&lease, &mut found).map_err(failed("read", &format))?;
        if found[..length] != *FORMAT.as_bytes() {
            let found = String::from_utf8_lossy(&found[..length]).trim_end().to_owned();
            return Err(Error::Format { path, found });
        }
        // A file system without locks (some network ones) has a store all the same; it is only never collected.
        match rustix::fs::flock(&lease, FlockOperation::LockShared) {
            Ok(()) | Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
            Err(errno) => return Err(failed("lock", format)(errno)),
        }
        let directory =
            rustix::fs::openat(CWD, &path, flags | OFlags::DIRECTORY, Mode::empty()).map_err(failed("open", &path))?;
        // What root puts into a user's store, that user could neither use nor remove.
        let owner = rustix::fs::fstat(&directory).map_err(failed("look at", &path))?.st_uid;
        if owner != rustix::process::geteuid().as_raw() {
            return Err(Error::Owner { path, owner });
        }
        Ok(Self {
            directory,
            path,
            _format: lease,
            notes: lease::Notes::default(),
            doomed: doomed::Doomed::default(),
            workspace: OnceLock::new(),
            next_temporary: AtomicU64::new(0),
            written: AtomicU64::new(0),
            synced: Mutex::new(0),
            ahead: AtomicU64::new(0),
            writing: Arc::default(),
            trees: objects::Recent::default(),
            packs: packs::Packs::default(),
            pending: packs::Pending::default(),
            store_paths: Mutex::default(),
            cleaned: AtomicBool::new(false),
        })
    }

    /// Where it is; absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells the disk to write out all that was put so far, unless that was done already. Many threads that want it at once
    /// wait for one call.
    fn sync(&self) -> Result<()> {
        self.publish_pending()?;
        let wanted = self.written.load(Ordering::SeqCst);
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        if *synced < wanted {
            let now = self.written.load(Ordering::SeqCst);
            rustix::fs::syncfs(&self.directory).map_err(failed("sync", &self.path))?;
            *synced = now;
        }
        Ok(())
    }

    /// To be told of so many bytes in files: from time to time the disk begins to write them, so that it has little left to do when
    /// somebody waits for it. Nothing relies on this.
    fn write_ahead(&self, bytes: u64) {
        let waiting = self.ahead.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if waiting < AHEAD || self.writing.swap(true, Ordering::SeqCst) {
            return;
        }
        self.ahead.store(0, Ordering::Relaxed);
        // Opened anew: the kernel tells an error of the disk once to each open description, and ours has to hear of it.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let begun = rustix::fs::openat(CWD, &self.path, flags, Mode::empty()).ok().and_then(|directory| {
            let writing = Arc::clone(&self.writing);
            let write = move || {
                let _ = rustix::fs::syncfs(directory);
                writing.store(false, Ordering::SeqCst);
            };
            std::thread::Builder::new().name("write-ahead".to_owned()).spawn(write).ok()
        });
        if begun.is_none() {
            self.writing.store(false, Ordering::SeqCst);
        }
    }

    /// Waits until what was renamed into a directory of the store is there for good.
    fn sync_directory(&self, relative: &str) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.directory, relative, flags, Mode::empty())
            .and_then(rustix::fs::fsync)
            .map_err(failed("sync", self.full(relative)))
    }

    /// To be called when an object has been written, or was found (another process may have written it a moment ago).
    fn has_written(&self) {
        self.written.fetch_add(1, Ordering::SeqCst);
    }

    fn full(&self, relative: &str) -> PathBuf {
        self.path.join(relative)
    }

    fn is_there(&self, relative: &str) -> bool {
        rustix::fs::statat(&self.directory, relative, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// The size of a file, if there is one.
    fn size_of(&self, relative: &str) -> Result<Option<u64>> {
        match rustix::fs::statat(&self.directory, relative, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat.st_size.unsigned_abs())),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(failed("look at", self.full(relative))(errno)),
        }
    }

    fn open_file(&self, relative: &str) -> Result<Option<fs::File>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::openat(&self.directory, relative, flags, Mode::empty()) {
            Ok(file) => Ok(Some(file.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(failed("open", self.full(relative))(errno)),
        }
    }

    fn read_if_there(&self, relative: &str) -> Result<Option<Vec<u8>>> {
        let Some(mut file) = self.open_file(relative)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(Error::file("read", self.full(relative)))?;
        Ok(Some(bytes))
    }

    /// A relative path that nobody else uses, on the store's file system.
    fn temporary_path(&self) -> Result<String> {
        let workspace = match self.workspace.get() {
            Some(workspace) => workspace,
            // Two threads may make one each; the second is dropped, which removes it.
            None => {
                let made = Scratch::new(&self.path)?;
                self.workspace.get_or_init(|| made)
            }
        };
        let name = workspace.path().file_name().unwrap_or_default().to_string_lossy();
        Ok(format!("scratch/{name}/{}", self.next_temporary.fetch_add(1, Ordering::Relaxed)))
    }

    /// A new file that goes again unless it is placed.
    fn temporary(&self) -> Result<Temporary<'_>> {
        let relative = self.temporary_path()?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, &relative, flags, Mode::RUSR | Mode::WUSR)
            .map_err(failed("create", self.full(&relative)))?;
        Ok(Temporary { store: self, relative, file: file.into(), placed: false })
    }

    /// Renames within the store, making the directory it goes to. `from` may be absolute.
    fn rename(&self, from: impl AsRef<Path>, to: &str) -> Result<(), Errno> {
        let from = from.as_ref();
        let renamed = rustix::fs::renameat(&self.directory, from, &self.directory, to);
        if renamed != Err(Errno::NOENT) {
            return renamed;
        }
        let mut end = 0;
        while let Some(slash) = to[end..].find('/') {
            match rustix::fs::mkdirat(&self.directory, &to[..end + slash], Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            end += slash + 1;
        }
        rustix::fs::renameat(&self.directory, from, &self.directory, to)
    }

    /// Writes a file that may have had another content, so that it has the old or the new one whatever happens.
    fn replace(&self, relative: &str, bytes: &[u8]) -> Result<()> {
        let mut temporary = self.temporary()?;
        temporary.write(bytes)?;
        temporary.sync(relative)?;
        temporary.place(relative)
    }
}

/// A file under a name that nobody else uses; removed unless placed.
struct Temporary<'a> {
    store: &'a Store,
    relative: String,
    file: fs::File,
    placed: bool,
}

impl Temporary<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        sparse::write(&self.file, bytes).map_err(|source| self.failed("write", source))
    }

    /// Waits until it is on the disk; `relative` is where it will be.
    fn sync(&self, relative: &str) -> Result<()> {
        self.file.sync_data().map_err(Error::file("sync", self.store.full(relative)))
    }

    fn failed(&self, action: &'static str, source: io::Error) -> Error {
        Error::File { action, path: self.store.full(&self.relative), source }
    }

    /// Gives it the mode and the time of a file in a checkout.
    fn set_mode(&self, mode: u16) -> Result<()> {
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(u32::from(mode)))
            .and_then(|()| rustix::fs::futimens(&self.file, &file_times()))
            .map_err(|errno| self.failed("change the mode of", errno.into()))
    }

    fn place(mut self, relative: &str) -> Result<()> {
        self.store.rename(&self.relative, relative).map_err(failed("create", self.store.full(relative)))?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.placed {
            let _ = rustix::fs::unlinkat(&self.store.directory, &self.relative, AtFlags::empty());
        }
    }
}

fn create(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::file("create", path))?;
    // Somebody's home, given by mistake, is not made into a store.
    let mut entries = fs::read_dir(path).map_err(Error::file("read the directory", path))?;
    let foreign =
        entries.any(|entry| !entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("format")));
    let format = path.join("format");
    if foreign {
        // Unless another process made it one since we looked.
        return if format.exists() { Ok(()) } else { Err(Error::NotEmpty { path: path.to_owned() }) };
    }
    rustix::fs::chmodat(CWD, path, Mode::RWXU, AtFlags::empty()).map_err(failed("change the mode of", path))?;
    let temporary = path.join(format!("format.{}", random_name()?));
    fs::write(&temporary, FORMAT).map_err(Error::file("write", &temporary))?;
    // Never replaced: whoever has it open has locked that very file.
    match rustix::fs::linkat(CWD, &temporary, CWD, &format, AtFlags::empty()) {
        Ok(()) | Err(Errno::EXIST) => fs::remove_file(&temporary).map_err(Error::file("remove", &temporary)),
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::MLINK) => {
            fs::rename(&temporary, &format).map_err(Error::file("create", &format))
        }
        Err(errno) => Err(failed("create", format)(errno)),
    }
}

fn ensure_directory(path: &Path) -> Result<()> {
    match rustix::fs::mkdirat(CWD, path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(failed("create", path)(errno)),
    }
}

/// Sixteen digits that nobody else comes upon.
fn random_name() -> Result<String> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(failed("read random bytes for", "a name"))?;
    Ok(crate::digest::to_hex(&bytes))
}

/// `KIND/ab/cdef…` for a digest in hexadecimal.
fn object_path(kind: &str, digest: &str) -> String {
    format!("{kind}/{}/{}", &digest[..2], &digest[2..])
}

fn file_times() -> Timestamps {
    let time = Timespec { tv_sec: FILE_TIME, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

/// For `map_err`: a system call on `path` failed.
fn failed(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(Errno) -> Error {
    let path = path.into();
    move |errno| Error::File { action, path, source: errno.into() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::testing::world;
    use super::*;

    #[test]
    fn a_store_is_made_with_its_parents_and_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/store");
        let id = Store::open(&path).unwrap().put_blob(b"x", false).unwrap();
        assert!(Store::open(&path).unwrap().has_blob(id));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o700);
        // A process that died while it made a store leaves no more than this.
        let half = directory.path().join("half");
        fs::create_dir(&half).unwrap();
        fs::write(half.join("format.0123"), "for").unwrap();
        Store::open(&half).unwrap();
    }

    #[test]
    fn a_newer_store_and_what_is_no_store_are_refused() {
        let world = world();
        fs::write(world.store.path().join("format"), "forge store 2\n").unwrap();
        let error = Store::open(world.store.path()).unwrap_err();
        assert!(matches!(&error, Error::Format { found, .. } if found == "forge store 2"), "{error}");
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("letter"), "").unwrap();
        let mode = fs::metadata(home.path()).unwrap().permissions().mode();
        assert!(matches!(Store::open(home.path()), Err(Error::NotEmpty { .. })));
        assert_eq!(fs::metadata(home.path()).unwrap().permissions().mode(), mode);
        assert!(matches!(Store::open(home.path().join("letter")), Err(Error::File { .. })));
    }

    #[test]
    fn a_store_that_many_make_at_once_is_one_and_locked_by_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let stores: Vec<Store> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| Store::open(&path).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for store in &stores {
            assert_eq!(store.collect(true).unwrap(), Collected::default());
        }
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
    }

    #[test]
    fn another_users_store_is_refused() {
        let world = world();
        let path = world.store.path().to_owned();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
            assert!(matches!(Store::open(&path), Err(Error::Owner { owner: 12345, .. })));
            std::os::unix::fs::chown(&path, Some(0), None).unwrap();
        }
        Store::open(&path).unwrap();
    }

    #[test]
    fn many_threads_and_stores_put_the_same_objects() {
        let world = world();
        let other = Store::open(world.store.path()).unwrap();
        std::thread::scope(|scope| {
            for store in [&world.store, &other, &world.store, &other] {
                scope.spawn(move || {
                    for number in 0..200_u32 {
                        let id = store.put_blob(&number.to_le_bytes(), number % 2 == 0).unwrap();
                        assert_eq!(store.blob(id).unwrap(), number.to_le_bytes());
                    }
                    store.sync().unwrap();
                });
            }
        });
        assert!(world.store.verify().unwrap().is_empty());
    }
}
