//! Packs in a collection: what is dead goes from the index at once, and from the disk when a pack is mostly dead.
//!
//! One pack is a slice. What lives of a pack that is written anew is copied before the room is taken; should somebody note
//! something dead of it meanwhile, it keeps its pack, and only its index is written anew.

use std::collections::HashSet;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use super::super::lease::{Room, Use, record};
use super::super::packs::{Entry, HEADER, Pack, encode, index_path, pack_path};
use super::super::{Store, failed};
use super::mark::Marked;
use super::{Collected, count_of};
use crate::{Error, Result};

/// Packs shorter than this are joined, when there are [`MANY`].
const SHORT: u64 = 8 << 20;
const MANY: usize = 16;

/// A pack of which something is dead, or that is to be joined with others.
#[derive(Debug)]
pub(super) struct Sorted {
    pack: Arc<Pack>,
    live: Vec<Entry>,
    dead: Vec<Entry>,
    /// Of what lives, blobs that are files as well: a checkout needed their inodes.
    spare: Vec<Entry>,
}

impl Sorted {
    /// Sorts again what has been marked since.
    pub fn retain(&mut self, marked: &Marked<'_>) {
        let (live, dead) = self.dead.drain(..).partition(|entry| marked.has(entry.object));
        self.live.extend::<Vec<Entry>>(live);
        self.dead = dead;
    }

    pub fn dead(&self) -> impl Iterator<Item = Use> {
        self.dead.iter().map(|entry| entry.object)
    }

    /// Whether more of it is in vain than not.
    fn is_mostly_dead(&self) -> bool {
        let live: u64 = self.live.iter().map(|entry| u64::from(entry.length)).sum();
        live * 2 < self.pack.size()
    }

    pub fn collected(&self) -> Collected {
        self.dead.iter().fold(Collected::default(), |sum, entry| sum + count_of(entry.object, u64::from(entry.length)))
    }
}

impl Store {
    /// The packs that have to change, by groups that become one.
    pub(super) fn sort_packs(&self, marked: &Marked<'_>) -> Result<Vec<Vec<Sorted>>> {
        use rayon::prelude::*;
        let packs = self.all_packs()?;
        let many = packs.iter().filter(|pack| pack.size() < SHORT).count() >= MANY;
        let sort = |pack: &Arc<Pack>| {
            let entries = pack.entries().unwrap_or_default();
            let (live, dead): (Vec<Entry>, Vec<Entry>) =
                entries.into_iter().partition(|entry| marked.has(entry.object));
            let (spare, live): (Vec<Entry>, Vec<Entry>) =
                live.into_iter().partition(|entry| matches!(entry.object, Use::Blob(_)) && self.is_loose(entry.object));
            Sorted { pack: Arc::clone(pack), live, dead, spare }
        };
        let sorted: Vec<Sorted> = packs.par_iter().map(sort).collect();
        let (short, long): (Vec<Sorted>, Vec<Sorted>) =
            sorted.into_iter().partition(|one| many && one.pack.size() < SHORT);
        let mut groups: Vec<Vec<Sorted>> = Vec::new();
        groups.extend((!short.is_empty()).then_some(short));
        let changed = long.into_iter().filter(|one| !one.dead.is_empty() || one.is_mostly_dead());
        groups.extend(changed.map(|one| vec![one]));
        Ok(groups)
    }

    /// Deletes what is dead of a group, but for what is noted by the time the room is taken.
    pub(super) fn sweep_packs(
        &self,
        group: &[Sorted],
        room: &Room,
        noted: &mut dyn FnMut() -> Result<HashSet<Use>>,
    ) -> Result<Collected> {
        let anew = group.len() > 1 || group.iter().all(Sorted::is_mostly_dead);
        let any = group.iter().any(|one| !one.live.is_empty());
        let copied = if anew && any { Some(self.copy_live(group)?) } else { None };
        let _taken = room.take(self)?;
        let noted = noted()?;
        let late = group.iter().any(|one| one.dead().any(|object| noted.contains(&object)));
        let mut collected = Collected::default();
        match copied {
            Some((relative, entries)) if !late => _ = self.place_pack(&relative, &entries)?,
            Some((relative, _)) => self.unlink(&relative)?,
            None => {}
        }
        for one in group {
            collected = collected + one.collected();
            let kept: Vec<Entry> = one.dead.iter().copied().filter(|entry| noted.contains(&entry.object)).collect();
            if anew && !late || kept.is_empty() && one.live.is_empty() && one.spare.is_empty() {
                self.remove_pack(&one.pack.name)?;
                continue;
            }
            let entries: Vec<Entry> = [&one.live[..], &one.spare[..], &kept[..]].concat();
            let mut index = self.temporary()?;
            index.write(&encode(&entries))?;
            index.sync(&index_path(&one.pack.name))?;
            index.place(&index_path(&one.pack.name))?;
        }
        Ok(collected)
    }

    /// A pack without its index would be read through; an index without its pack is nothing.
    fn remove_pack(&self, name: &str) -> Result<()> {
        self.unlink(&pack_path(name))?;
        self.unlink(&index_path(name))
    }

    /// Writes what lives of a group, and is nowhere else, to a new pack that nobody sees yet.
    fn copy_live(&self, group: &[Sorted]) -> Result<(String, Vec<Entry>)> {
        let relative = self.temporary_path()?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, &relative, flags, Mode::RUSR | Mode::WUSR)
            .map_err(failed("create", self.full(&relative)))?;
        let file = std::fs::File::from(file);
        let (mut buffer, mut written, mut entries) = (HEADER.to_vec(), 0, Vec::new());
        let mut seen = HashSet::new();
        let write = |buffer: &mut Vec<u8>, written: &mut u64| {
            file.write_all_at(buffer, *written).map_err(Error::file("write", self.full(&relative)))?;
            *written += buffer.len() as u64;
            buffer.clear();
            Ok::<_, Error>(())
        };
        for one in group {
            let mut live: Vec<&Entry> = one.live.iter().filter(|entry| seen.insert(entry.object)).collect();
            // Read from front to end.
            live.sort_unstable_by_key(|entry| entry.offset);
            for entry in live {
                let bytes = one.pack.read(*entry)?;
                if entry.object.of_same_kind(&bytes) != entry.object {
                    // Damage is for `forge verify` to name, not for us to hide under a new name.
                    let hex = crate::digest::to_hex(entry.object.as_bytes());
                    return Err(self.mismatch(&pack_path(&one.pack.name), "another", &hex));
                }
                buffer.extend(record(entry.object));
                buffer.extend(entry.length.to_le_bytes());
                entries.push(Entry { offset: written + buffer.len() as u64, ..*entry });
                buffer.extend(bytes);
                if buffer.len() >= 4 << 20 {
                    write(&mut buffer, &mut written)?;
                }
            }
        }
        write(&mut buffer, &mut written)?;
        Ok((relative, entries))
    }
}
