//! `file://DIR`: a directory of plain objects on any file system, also one that many machines share (NFS).
//!
//! ```text
//! DIR/format                  "forge peer 1\n"
//! DIR/blobs/ab/cdef…          the bytes of a blob; DIR/trees/…, deltas/…, formations/… the encodings
//! DIR/records/ID.json         what is known of a formation
//! DIR/names/NAME              a formation's id
//! DIR/realisations/ab/cdef…   signed claims
//! DIR/fetched/ab/cdef…        the blob with this SHA-256
//! DIR/incoming/…              what is being written
//! ```
//!
//! No database and no locks: a file is written under a name that nobody else uses, and renamed. What names others is written after
//! them, so that whoever reads at any time finds everything below what he finds.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::closure::{BlobUse, Closure, by_height};
use super::incoming::{Incoming, MOST_OBJECT_BYTES, MOST_RECORD_BYTES, Outline};
use super::{About, Error, Moved, ObjectId, Peer, Realisation, Result, Subject, Watch};
use crate::digest::to_hex;
use crate::directory::Record;
use crate::formation::is_name;
use crate::http::percent_decode;
use crate::{BlobId, FileHash, FormationId, Store};

const FORMAT: &str = "forge peer 1\n";
/// A larger blob is not read as a whole.
const WHOLE: u64 = 4 << 20;
/// More signed claims than this one file does not hold.
const MOST_CLAIM_BYTES: u64 = 64 << 10;
/// What a writer left that died is removed after so long, in seconds.
const STALE: u64 = 24 * 3600;

/// A directory of plain objects.
pub struct Folder {
    name: String,
    path: PathBuf,
    next: AtomicU64,
}

impl Folder {
    /// The directory of a `file://` address; none if its path is not absolute. It need not be there yet.
    pub fn new(name: String, path: &str) -> Option<Self> {
        use std::os::unix::ffi::OsStringExt as _;
        let path = PathBuf::from(std::ffi::OsString::from_vec(percent_decode(path)));
        path.is_absolute().then(|| Self { name, path, next: AtomicU64::new(0) })
    }

    /// Fails if it is not there, or something else.
    fn check(&self) -> Result<()> {
        let format = self.path.join("format");
        match fs::read(&format) {
            Ok(found) if found == FORMAT.as_bytes() => Ok(()),
            Ok(found) if found.starts_with(b"forge store") => Err(Error::Protocol {
                peer: self.name.clone(),
                reason: "it is somebody's store: `forge serve` there shares it".to_owned(),
            }),
            Ok(_) => Err(Error::Protocol { peer: self.name.clone(), reason: "its `format` is unknown".to_owned() }),
            Err(error) => Err(self.unreachable(&format, &error)),
        }
    }

    /// Makes it if it is not there.
    fn ensure(&self) -> Result<()> {
        let format = self.path.join("format");
        if !format.exists() {
            let fail = |error: io::Error| self.unreachable(&self.path, &error);
            fs::create_dir_all(&self.path).map_err(fail)?;
            let mut names = fs::read_dir(&self.path).map_err(fail)?.flatten().map(|entry| entry.file_name());
            if names.any(|name| name != "incoming" && name != "format") {
                let reason = "the directory is not empty, and no peer".to_owned();
                return Err(Error::Refused { peer: self.name.clone(), reason });
            }
            self.write("format", FORMAT.as_bytes())?;
        }
        self.check()
    }

    fn unreachable(&self, path: &Path, error: &io::Error) -> Error {
        let (peer, reason) = (self.name.clone(), format!("`{}`: {error}", path.display()));
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Error::Refused { peer, reason },
            _ => Error::Unreachable { peer, reason },
        }
    }

    fn object(id: ObjectId) -> String {
        spread(&format!("{}s", id.kind()), &to_hex(id.as_bytes()))
    }

    fn has(&self, id: ObjectId) -> bool {
        self.path.join(Self::object(id)).exists()
    }

    /// Whether a blob is there in its whole length.
    fn has_blob(&self, used: &BlobUse) -> bool {
        let found = fs::metadata(self.path.join(Self::object(ObjectId::Blob(used.id))));
        found.is_ok_and(|found| used.size.is_none_or(|size| size == found.len()))
    }

    /// A small file; none if it is not there.
    fn read(&self, relative: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let path = self.path.join(relative);
        let mut bytes = Vec::new();
        let read = fs::File::open(&path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes));
        match read {
            Ok(_) if bytes.len() as u64 > most => Err(Error::Protocol {
                peer: self.name.clone(),
                reason: format!("`{relative}` has more than {most} bytes"),
            }),
            Ok(_) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.unreachable(&path, &error)),
        }
    }

    /// Writes a file that nobody sees half-written.
    fn write(&self, relative: &str, bytes: &[u8]) -> Result<()> {
        self.write_from(relative, &mut &*bytes)?;
        Ok(())
    }

    fn write_from(&self, relative: &str, reader: &mut dyn Read) -> Result<u64> {
        let path = self.path.join(relative);
        let fail = |error: io::Error| self.unreachable(&path, &error);
        let incoming = self.path.join("incoming");
        fs::create_dir_all(&incoming).map_err(fail)?;
        // Other machines write too: numbers of processes say nothing there.
        let random = super::random_name().map_err(fail)?;
        let temporary = incoming.join(format!("{random}-{}", self.next.fetch_add(1, Ordering::Relaxed)));
        let written = fs::File::options().write(true).create_new(true).open(&temporary).and_then(|mut file| {
            let count = io::copy(reader, &mut file)?;
            file.flush()?;
            if relative.starts_with("names") || relative.starts_with("formations") {
                file.sync_data()?;
            }
            Ok(count)
        });
        let placed = written.and_then(|count| {
            if fs::rename(&temporary, &path).is_err() {
                fs::create_dir_all(path.parent().unwrap_or(&self.path))?;
                fs::rename(&temporary, &path)?;
            }
            Ok(count)
        });
        placed.map_err(|error| {
            let _ = fs::remove_file(&temporary);
            fail(error)
        })
    }

    /// Tells the disk to write out what was put, before what names it is. A file system that cannot does so at every close (NFS).
    fn sync(&self) {
        if let Ok(directory) = fs::File::open(&self.path) {
            let _ = rustix::fs::syncfs(&directory);
        }
    }

    /// Removes what writers left that died long ago.
    fn clean(&self) {
        for entry in fs::read_dir(self.path.join("incoming")).into_iter().flatten().flatten() {
            let age = entry.metadata().and_then(|found| found.modified()).ok().and_then(|time| time.elapsed().ok());
            if age.is_some_and(|age| age.as_secs() > STALE) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Brings one blob into the store.
    fn take_blob(&self, store: &Store, used: &BlobUse) -> Result<()> {
        let (object, relative) = (ObjectId::Blob(used.id), Self::object(ObjectId::Blob(used.id)));
        let path = self.path.join(&relative);
        let file = match fs::File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::missing(&self.name, object)),
            file => file.map_err(|error| self.unreachable(&path, &error))?,
        };
        let length = file.metadata().map_err(|error| self.unreachable(&path, &error))?.len();
        if used.size.is_some_and(|size| size != length) {
            return Err(Error::lie(&self.name, object));
        }
        let kept = if length <= WHOLE {
            let mut bytes = Vec::with_capacity(length as usize);
            file.take(WHOLE + 1).read_to_end(&mut bytes).map_err(|error| self.unreachable(&path, &error))?;
            // Hashed before it is kept: what is wrong leaves no trace.
            if BlobId::of(&bytes) != used.id {
                return Err(Error::lie(&self.name, object));
            }
            store.put_blob(&bytes, used.executable)?
        } else {
            store.put_blob_from(&mut file.take(length), used.executable)?.0
        };
        if kept == used.id { Ok(()) } else { Err(Error::lie(&self.name, object)) }
    }

    /// Gives one blob of the store. What is damaged here is not given.
    fn give_blob(&self, store: &Store, used: &BlobUse) -> Result<u64> {
        let relative = Self::object(ObjectId::Blob(used.id));
        if used.size.is_some_and(|size| size <= WHOLE) {
            let bytes = store.blob(used.id)?;
            self.write(&relative, &bytes)?;
            return Ok(bytes.len() as u64);
        }
        if store.hash_blob(used.id)? != used.id {
            // Says so with the path.
            store.blob(used.id)?;
        }
        self.write_from(&relative, &mut store.open_blob(used.id)?)
    }

    fn realisations_of(&self, subject: &Subject) -> Result<Vec<Realisation>> {
        let relative = realisation_path(subject);
        let Some(bytes) = self.read(&relative, MOST_CLAIM_BYTES)? else { return Ok(Vec::new()) };
        let text = String::from_utf8_lossy(&bytes);
        Ok(text.split("\n\n").filter_map(|part| Realisation::parse(&format!("{}\n", part.trim_end()))).collect())
    }
}

/// `KIND/ab/cdef…`
fn spread(kind: &str, digest: &str) -> String {
    format!("{kind}/{}/{}", &digest[..2], &digest[2..])
}

fn realisation_path(subject: &Subject) -> String {
    spread("realisations", &blake3::hash(subject.to_string().as_bytes()).to_hex())
}

impl Outline for Folder {
    fn encodings(&self, ids: &[ObjectId]) -> Result<Vec<Option<Vec<u8>>>> {
        ids.par_iter().map(|id| self.read(&Self::object(*id), MOST_OBJECT_BYTES)).collect()
    }

    fn record(&self, id: FormationId) -> Result<Option<Record>> {
        let bytes = self.read(&format!("records/{id}.json"), MOST_RECORD_BYTES)?;
        let bad = |_| Error::Lie { peer: self.name.clone(), object: format!("the record of formation {id}") };
        bytes.map(|bytes| serde_json::from_slice(&bytes).map_err(bad)).transpose()
    }
}

impl Peer for Folder {
    fn name(&self) -> &str {
        &self.name
    }

    fn about(&self) -> Result<About> {
        self.check()?;
        let write = rustix::fs::access(&self.path, rustix::fs::Access::WRITE_OK).is_ok();
        Ok(About { kind: "folder".to_owned(), read: true, write })
    }

    fn find(&self, given: &str) -> Result<Option<FormationId>> {
        self.check()?;
        if let Ok(id) = given.parse::<FormationId>() {
            return Ok(self.has(ObjectId::Formation(id)).then_some(id));
        }
        if !is_name(given) {
            // A prefix of a digest.
            let digits = given.len() >= 6 && given.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            let names = digits.then(|| fs::read_dir(self.path.join("formations").join(&given[..2])).ok()).flatten();
            let names = names.into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
            let mut found = names.map(|name| format!("{}{name}", &given[..2])).filter(|name| name.starts_with(given));
            return Ok(match (found.next(), found.next()) {
                (Some(one), None) => one.parse().ok(),
                _ => None,
            });
        }
        let bytes = self.read(&format!("names/{given}"), 1024)?;
        Ok(bytes.and_then(|bytes| String::from_utf8_lossy(&bytes).trim_end().parse().ok()))
    }

    fn pull(&self, store: &Store, wanted: &[ObjectId], watch: &Watch<'_>) -> Result<Moved> {
        self.check()?;
        let mut incoming = Incoming::gather(store, &self.name, wanted, self)?;
        let lacking = incoming.lacking()?;
        let total = lacking.iter().map(|used| used.size.unwrap_or_default()).sum();
        let done = AtomicU64::new(0);
        let batch = store.batch_in_parts();
        lacking.par_iter().try_for_each(|used| {
            watch.check()?;
            self.take_blob(store, used)?;
            let size = used.size.unwrap_or_default();
            (watch.progress)(done.fetch_add(size, Ordering::Relaxed) + size, Some(total));
            Ok::<_, Error>(())
        })?;
        let came: HashSet<BlobId> = lacking.iter().map(|used| used.id).collect();
        let moved = incoming.keep(&came)?;
        batch.finish()?;
        Ok(Moved { wire: moved.bytes, ..moved })
    }

    fn push(&self, store: &Store, given: &[ObjectId], watch: &Watch<'_>) -> Result<Moved> {
        self.ensure()?;
        self.clean();
        // A tree is written after what is below it: one that is there is whole.
        let closure = Closure::of(store, given, &|id| self.has(ObjectId::Tree(id)))?;
        let mut moved = Moved::default();
        moved.had.extend(closure.passed.iter().copied().map(ObjectId::Tree));
        let there: Vec<bool> = closure.blobs.par_iter().map(|used| self.has_blob(used)).collect();
        let (had, lacking): (Vec<_>, Vec<_>) = closure.blobs.iter().zip(there).partition(|(_, there)| *there);
        moved.had.extend(had.iter().map(|(used, _)| ObjectId::Blob(used.id)));
        let total = lacking.iter().map(|(used, _)| used.size.unwrap_or_default()).sum();
        let bytes = AtomicU64::new(0);
        lacking.par_iter().try_for_each(|(used, _)| {
            watch.check()?;
            let count = self.give_blob(store, used)?;
            (watch.progress)(bytes.fetch_add(count, Ordering::Relaxed) + count, Some(total));
            Ok::<_, Error>(())
        })?;
        moved.moved.extend(lacking.iter().map(|(used, _)| ObjectId::Blob(used.id)));
        let trees = closure.trees.iter().map(|id| Ok((*id, store.tree(*id)?))).collect::<crate::Result<_>>()?;
        let written = Mutex::new(Vec::new());
        for group in by_height(&trees) {
            watch.check()?;
            group.par_iter().try_for_each(|id| {
                let encoded = trees[id].encode();
                self.write(&Self::object(ObjectId::Tree(*id)), &encoded)?;
                bytes.fetch_add(encoded.len() as u64, Ordering::Relaxed);
                written.lock().expect("no thread panicked").push(ObjectId::Tree(*id));
                Ok::<_, Error>(())
            })?;
        }
        moved.moved.extend(written.into_inner().expect("no thread panicked"));
        self.sync();
        for id in &closure.deltas {
            let object = ObjectId::Delta(*id);
            if self.has(object) {
                moved.had.push(object);
            } else {
                self.write(&Self::object(object), &store.delta(*id)?.encode())?;
                moved.moved.push(object);
            }
        }
        for id in &closure.formations {
            let object = ObjectId::Formation(*id);
            if self.has(object) {
                moved.had.push(object);
                continue;
            }
            let record = serde_json::to_vec_pretty(&store.record(*id)?).expect("a record is plain values");
            self.write(&format!("records/{id}.json"), &record)?;
            self.write(&Self::object(object), &store.formation(*id)?.encode())?;
            moved.moved.push(object);
        }
        moved.bytes = bytes.into_inner();
        moved.wire = moved.bytes;
        Ok(moved)
    }

    fn set_name(&self, name: &str, id: FormationId) -> Result<()> {
        if !is_name(name) {
            return Err(crate::Error::Malformed { given: name.to_owned() }.into());
        }
        self.write(&format!("names/{name}"), format!("{id}\n").as_bytes())
    }

    fn realisations(&self, subjects: &[Subject]) -> Result<Vec<Realisation>> {
        self.check()?;
        let found: Vec<Vec<Realisation>> =
            subjects.par_iter().map(|subject| self.realisations_of(subject)).collect::<Result<_>>()?;
        Ok(found.into_iter().flatten().collect())
    }

    fn put_realisations(&self, realisations: &[Realisation]) -> Result<()> {
        self.ensure()?;
        for realisation in realisations {
            let known = super::join_realisations(self.realisations_of(&realisation.subject)?, realisation.clone());
            self.write(&realisation_path(&realisation.subject), super::realisation_texts(&known).as_bytes())?;
        }
        Ok(())
    }

    fn fetched(&self, hashes: &[FileHash]) -> Result<Vec<Option<BlobId>>> {
        self.check()?;
        let find = |hash: &FileHash| {
            let bytes = self.read(&spread("fetched", &hash.to_string()), 1024)?;
            Ok(bytes.and_then(|bytes| String::from_utf8_lossy(&bytes).trim_end().parse().ok()))
        };
        hashes.par_iter().map(find).collect()
    }

    fn put_fetched(&self, fetched: &[(FileHash, BlobId)]) -> Result<()> {
        self.ensure()?;
        let put = |(hash, blob): &(FileHash, BlobId)| {
            self.write(&spread("fetched", &hash.to_string()), format!("{blob}\n").as_bytes())
        };
        fetched.par_iter().try_for_each(put)
    }
}
