//! What a collection is about to delete, said at once before it deletes piece by piece.
//!
//! That a tree is here means that all below it is: whole trees are skipped by their id. A collection deletes in no such order,
//! and may be killed half-way; so it first writes down every tree, delta and formation that will go (`gc/doomed`, renamed into
//! place when it is on the disk). From then on they count as gone, whether deleted yet or not. Who puts one again puts all below
//! it again, and says so (`gc/rescued/DIGEST`); the collection sees it in the lease and leaves it.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, Mode, OFlags};

use super::lease::{RECORD, Use, record};
use super::{Store, failed};
use crate::{Error, Result};

const DOOMED: &str = "gc/doomed";
const RESCUED: &str = "gc/rescued";

/// The list as it was read last.
#[derive(Debug, Default)]
pub(super) struct Doomed(Mutex<Option<Arc<List>>>);

#[derive(Debug)]
struct List {
    /// Sorted records.
    records: Vec<u8>,
    /// Which file it was. Open as long as this lives, so that no other file gets its number.
    inode: u64,
    _file: fs::File,
}

impl List {
    fn has(&self, record: &[u8; RECORD]) -> bool {
        let (mut low, mut high) = (0, self.records.len() / RECORD);
        while low < high {
            let middle = low.midpoint(high);
            match self.records[middle * RECORD..(middle + 1) * RECORD].cmp(record) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return true,
            }
        }
        false
    }
}

impl Store {
    /// Whether a collection has given this up: then it is not here, even if its file is.
    pub(super) fn is_doomed(&self, one: Use) -> bool {
        loop {
            let Some(inode) = self.doomed_inode() else { return false };
            let list = {
                let mut known = self.doomed.0.lock().unwrap_or_else(PoisonError::into_inner);
                if known.as_ref().is_none_or(|list| list.inode != inode) {
                    // Between the look and this the collection may have ended.
                    let Ok(Some(list)) = self.read_doomed() else { return false };
                    *known = Some(Arc::new(list));
                }
                known.clone()
            };
            let Some(list) = list.filter(|list| list.has(&record(one))) else { return false };
            if self.is_there(&rescued_path(one)) || self.is_rescued_with_batch(one) {
                return false;
            }
            // What was rescued from a list is forgotten with that list: the two looks must have been at the same one.
            if self.doomed_inode() == Some(list.inode) {
                return true;
            }
        }
    }

    /// Which file the list is.
    fn doomed_inode(&self) -> Option<u64> {
        rustix::fs::statat(&self.directory, DOOMED, AtFlags::SYMLINK_NOFOLLOW).ok().map(|stat| stat.st_ino)
    }

    fn read_doomed(&self) -> Result<Option<List>> {
        use std::io::Read;
        let Some(mut file) = self.open_file(DOOMED)? else { return Ok(None) };
        let inode = rustix::fs::fstat(&file).map_err(failed("look at", self.full(DOOMED)))?.st_ino;
        let mut records = Vec::new();
        file.read_to_end(&mut records).map_err(Error::file("read", self.full(DOOMED)))?;
        Ok(Some(List { records, inode, _file: file }))
    }

    /// Says that this is whole again, if it was given up. To be called when it and all below it has been put: what lies below may
    /// wait in an open batch, where nobody else sees it, and then so does this.
    pub(super) fn rescue(&self, one: Use) -> Result<()> {
        if self.is_doomed(one) && !self.rescue_with_batch(one) { self.rescue_now(one) } else { Ok(()) }
    }

    /// The same, when nothing that lies below waits. In the room: a collection that ends sees either this, or nothing of it, and then
    /// this its new list.
    pub(super) fn rescue_now(&self, one: Use) -> Result<()> {
        self.with_room(|| {
            if !self.is_doomed(one) {
                return Ok(());
            }
            super::ensure_directory(&self.full(RESCUED))?;
            let path = rescued_path(one);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
            let made = rustix::fs::openat(&self.directory, &path, flags, Mode::RUSR | Mode::WUSR);
            made.map(drop).map_err(failed("create", self.full(&path)))
        })
    }

    /// Of these, what an earlier collection gave up, could not delete because somebody had noted it, and nobody has put again. It does
    /// not come back by being noted once more: what lies below it is gone.
    pub(super) fn still_doomed(&self, among: impl Fn(Use) -> bool) -> Result<Vec<Use>> {
        let records = self.read_doomed()?.map_or(Vec::new(), |list| list.records);
        let uses = records.chunks_exact(RECORD).filter_map(super::lease::parse);
        Ok(uses.filter(|one| among(*one) && self.is_doomed(*one) && self.is_stored(*one)).collect())
    }

    /// Gives these up, instead of what an earlier collection may have left.
    pub(super) fn doom(&self, mut given_up: Vec<Use>) -> Result<()> {
        given_up.sort_unstable_by_key(|one| record(*one));
        // First: what was rescued from an earlier list may be given up by this one. What is not must stay rescued until the earlier
        // list is away, for nobody waits for us when he looks.
        for name in self.names_in(RESCUED)? {
            let again = given_up.binary_search_by_key(&name, |one| crate::digest::to_hex(&record(*one))).is_ok();
            if again {
                self.unlink(&format!("{RESCUED}/{name}"))?;
            }
        }
        let bytes: Vec<u8> = given_up.iter().flat_map(|one| record(*one)).collect();
        self.replace(DOOMED, &bytes)?;
        super::place::remove_all(&self.full(RESCUED))?;
        rustix::fs::syncfs(&self.directory).map_err(failed("sync", &self.path))
    }

    /// All are gone but, perhaps, these, which somebody noted meanwhile. Who puts one again says so; who only looked has found it given
    /// up, and what lies below it has gone: such a one stays given up until it is put again, or goes with the next collection.
    pub(super) fn end_doom_but(&self, mut noted: Vec<Use>) -> Result<()> {
        noted.retain(|one| self.is_stored(*one) && !self.is_there(&rescued_path(*one)));
        if noted.is_empty() { self.end_doom() } else { self.doom(noted) }
    }

    /// All of them are gone.
    pub(super) fn end_doom(&self) -> Result<()> {
        match fs::remove_file(self.full(DOOMED)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::file("remove", self.full(DOOMED))(error));
            }
            _ => {}
        }
        super::place::remove_all(&self.full(RESCUED))
    }
}

fn rescued_path(one: Use) -> String {
    format!("{RESCUED}/{}", crate::digest::to_hex(&record(one)))
}
