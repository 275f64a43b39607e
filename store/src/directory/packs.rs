//! Packs: many small objects in one file, so that they do not cost the making of a file each.
//!
//! `packs/NAME.pack` has the objects' bytes, each behind its kind, digest and length; `packs/NAME.index` says where each lies.
//! A pack is there for others when both are; what it holds is then on the disk. An index may go at any time: it is made again
//! from the pack. How a pack comes to be is in [`write`], how it shrinks in `collect/packs.rs`; why there are packs, in
//! `docs/why/packs.md`.

use std::collections::HashMap;
use std::fs;
use std::io::{Seek, Write};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, MemfdFlags};
use rustix::io::Errno;

use super::lease::Use;
use super::{Store, failed};
use crate::{Error, Result};

mod index;
mod recover;
mod write;

pub(super) use index::{Entry, encode};
pub use write::Batch;
pub(super) use write::{Pending, SMALL};

/// What a pack begins with.
pub(super) const HEADER: &[u8; 16] = b"forge pack 0001\n";
/// In front of each object: its kind and digest, and its length.
pub(super) const FRAME: usize = super::lease::RECORD + 4;
/// A directory that was changed this short a time ago may change again without showing it by its time.
const SETTLED: Duration = Duration::from_millis(50);

/// A pack that is open. It stays readable when it is deleted.
#[derive(Debug)]
pub(super) struct Pack {
    pub name: String,
    data: fs::File,
    /// None while an index could not be read and was made in memory instead.
    index: Option<index::Index>,
    made: HashMap<Use, Entry>,
    /// The index's number: another one has taken its place if that is another.
    inode: u64,
}

impl Pack {
    /// Where an object lies in it.
    pub fn find(&self, object: Use) -> Option<Entry> {
        match &self.index {
            Some(index) => index.find(object),
            None => self.made.get(&object).copied(),
        }
    }

    /// Everything that it holds; none if its index is damaged.
    pub fn entries(&self) -> Option<Vec<Entry>> {
        match &self.index {
            Some(index) => index.entries(),
            None => Some(self.made.values().copied().collect()),
        }
    }

    /// The bytes of an object; not hashed.
    pub fn read(&self, entry: Entry) -> Result<Vec<u8>> {
        let failed = || Error::file("read", format!("{}.pack", self.name));
        // A damaged index must not make us ask for more memory than there are bytes.
        let length = self.data.metadata().map_err(failed())?.len();
        if entry.offset.checked_add(u64::from(entry.length)).is_none_or(|end| end > length) {
            return Err(failed()(std::io::ErrorKind::UnexpectedEof.into()));
        }
        let mut bytes = vec![0; entry.length as usize];
        self.data.read_exact_at(&mut bytes, entry.offset).map_err(failed())?;
        Ok(bytes)
    }

    pub fn size(&self) -> u64 {
        self.data.metadata().map_or(0, |metadata| metadata.len())
    }
}

/// The packs that are known.
#[derive(Debug, Default)]
pub(super) struct Packs(Mutex<Known>);

#[derive(Debug, Default, Clone)]
struct Known {
    packs: Arc<Vec<Arc<Pack>>>,
    /// When the directory was last changed, as far as that is known for good. The system gives nanoseconds in types that differ.
    changed: Option<(i64, u32)>,
}

pub(super) fn pack_path(name: &str) -> String {
    format!("packs/{name}.pack")
}

pub(super) fn index_path(name: &str) -> String {
    format!("packs/{name}.index")
}

impl Store {
    /// Where an object lies in a pack that is there now.
    pub(super) fn find_packed(&self, object: Use) -> Result<Option<(Arc<Pack>, Entry)>> {
        'again: loop {
            let known = self.packs.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for pack in known.packs.iter() {
                let Some(entry) = pack.find(object) else { continue };
                if pack.index.is_none() || self.inode_of(&index_path(&pack.name)) == Some(pack.inode) {
                    return Ok(Some((Arc::clone(pack), entry)));
                }
                // A collection has been here.
                self.list_packs()?;
                continue 'again;
            }
            let stat = match rustix::fs::statat(&self.directory, "packs", AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(failed("look at", self.full("packs"))(errno)),
            };
            if known.changed == Some((stat.st_mtime, stat.st_mtime_nsec as u32)) {
                return Ok(None);
            }
            self.list_packs()?;
            // Another thread may have found it before us.
            let now = Arc::clone(&self.packs.0.lock().unwrap_or_else(PoisonError::into_inner).packs);
            if Arc::ptr_eq(&known.packs, &now) {
                return Ok(None);
            }
        }
    }

    /// Every pack there is, each with an index that can be read.
    pub(super) fn all_packs(&self) -> Result<Vec<Arc<Pack>>> {
        self.list_packs()?;
        let packs = self.packs.0.lock().unwrap_or_else(PoisonError::into_inner).packs.to_vec();
        let damaged: Vec<_> = packs.iter().filter(|pack| pack.entries().is_none()).collect();
        if damaged.is_empty() {
            return Ok(packs);
        }
        // Without it, it is made again from the pack.
        damaged.into_iter().try_for_each(|pack| self.unlink(&index_path(&pack.name)))?;
        self.list_packs()?;
        Ok(self.packs.0.lock().unwrap_or_else(PoisonError::into_inner).packs.to_vec())
    }

    fn inode_of(&self, relative: &str) -> Option<u64> {
        rustix::fs::statat(&self.directory, relative, AtFlags::SYMLINK_NOFOLLOW).ok().map(|stat| stat.st_ino)
    }

    /// Looks which packs there are. As long as those stay the same, so does the list.
    fn list_packs(&self) -> Result<()> {
        let stat = rustix::fs::statat(&self.directory, "packs", AtFlags::SYMLINK_NOFOLLOW);
        let mut known = self.packs.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before: HashMap<&str, &Arc<Pack>> = known.packs.iter().map(|pack| (pack.name.as_str(), pack)).collect();
        let (mut packs, mut lacking) = (Vec::new(), Vec::new());
        let mut changed = false;
        let mut names: Vec<String> =
            self.names_in("packs")?.iter().filter_map(|name| name.strip_suffix(".pack").map(str::to_owned)).collect();
        names.sort_unstable();
        for name in names {
            match before.get(name.as_str()) {
                Some(pack) if pack.index.is_some() && self.inode_of(&index_path(&name)) == Some(pack.inode) => {
                    packs.push(Arc::clone(pack));
                }
                _ => {
                    changed = true;
                    match self.open_pack(name)? {
                        Some(pack) if pack.index.is_none() => lacking.push(pack),
                        pack => packs.extend(pack.map(Arc::new)),
                    }
                }
            }
        }
        if !lacking.is_empty() {
            self.recover_indexes(&mut lacking, &packs)?;
            packs.extend(lacking.into_iter().map(Arc::new));
        }
        changed |= packs.len() != known.packs.len();
        let settled = stat.ok().filter(|stat| {
            let time = Duration::new(stat.st_mtime.unsigned_abs(), stat.st_mtime_nsec as u32);
            let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + time);
            age.is_ok_and(|age| age > SETTLED)
        });
        let stamp = settled.map(|stat| (stat.st_mtime, stat.st_mtime_nsec as u32));
        let packs = if changed { Arc::new(packs) } else { Arc::clone(&known.packs) };
        *known = Known { packs, changed: stamp };
        Ok(())
    }

    /// Opens a pack; none if it went meanwhile, or is none.
    fn open_pack(&self, name: String) -> Result<Option<Pack>> {
        let Some(data) = self.open_file(&pack_path(&name))? else { return Ok(None) };
        let mut header = [0; HEADER.len()];
        if data.read_exact_at(&mut header, 0).is_err() || header != *HEADER {
            return Ok(None);
        }
        let index = self.open_file(&index_path(&name))?;
        let inode = index.as_ref().and_then(|file| rustix::fs::fstat(file).ok()).map_or(0, |stat| stat.st_ino);
        let index = index.and_then(index::Index::open);
        Ok(Some(Pack { name, data, index, made: HashMap::new(), inode }))
    }

    /// The bytes of an object that lies in a pack, or is about to; not hashed.
    pub(super) fn read_packed(&self, object: Use) -> Result<Option<Vec<u8>>> {
        if let Some(bytes) = self.read_pending(object)? {
            return Ok(Some(bytes));
        }
        match self.find_packed(object)? {
            Some((pack, entry)) => pack.read(entry).map(Some),
            None => Ok(None),
        }
    }

    /// The length of an object that lies in a pack, or is about to.
    pub(super) fn packed_size(&self, object: Use) -> Result<Option<u64>> {
        if let Some(length) = self.pending_size(object) {
            return Ok(Some(length));
        }
        Ok(self.find_packed(object)?.map(|(_, entry)| u64::from(entry.length)))
    }

    /// A file in memory with these bytes: for whoever wants to read a packed blob as a file.
    pub(super) fn memory_file(&self, bytes: &[u8]) -> Result<fs::File> {
        let made = || -> std::io::Result<fs::File> {
            let mut file = fs::File::from(rustix::fs::memfd_create("blob", MemfdFlags::CLOEXEC)?);
            file.write_all(bytes)?;
            file.rewind()?;
            Ok(file)
        };
        made().map_err(Error::file("make a file in memory for", &self.path))
    }
}

#[cfg(test)]
mod tests;
