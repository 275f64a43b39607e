//! What lies at a store path is fetched from caches, with everything that it refers to: what each path is must be signed by a
//! trusted key, and each archive have the hash that was signed. What comes is kept only when what it refers to is here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::{CacheInfo, NarInfo, Unpacked, unpack};
use crate::format::unpacked;
use crate::http::{Client, Failure, Place};
use crate::nix::info::{PathInfo, hash_part};
use crate::signing::NamedPublicKey;
use crate::{Error, Node, Result, Store, StorePath};

/// Of the small texts.
const MOST_TEXT: u64 = 4 << 20;
/// Store paths that one wish may lead to; a desktop system has some ten thousand.
const MOST_PATHS: usize = 100_000;
/// Bytes of one archive that are taken.
const MOST_NAR: u64 = 64 << 30;
const SIDE_BY_SIDE: usize = 4;
const ATTEMPTS: u32 = 3;

/// Binary caches, in the order in which they are asked, and whose word counts.
pub struct Caches<'a> {
    /// Asks those on the network.
    pub client: &'a Client,
    /// `http://…`, `https://…` or `file:///…`
    pub addresses: Vec<String>,
    /// Keys of caches that are believed.
    pub trusted: Vec<NamedPublicKey>,
    /// Not zero once the user has interrupted.
    pub interrupt: &'a AtomicI32,
    /// Caches that did not answer: they are asked nothing more.
    pub dead: Mutex<BTreeSet<usize>>,
}

/// What came of asking for store paths.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fetched {
    /// What was asked for and is here now, with everything that it refers to.
    pub here: BTreeSet<StorePath>,
    /// How many archives were fetched.
    pub archives: usize,
    /// Their bytes, unpacked.
    pub bytes: u64,
    /// What should be said: caches that do not answer, or are not believed.
    pub notes: BTreeSet<String>,
}

/// Why a cache did not give something.
enum Absence {
    /// It has not got it.
    Missing,
    /// It cannot be asked.
    Dead(String),
}

impl Caches<'_> {
    /// Brings store paths here, as far as a cache has them. That none has is no error; that one lies is.
    pub fn fetch(&self, store: &Store, wanted: &[StorePath]) -> Result<Fetched> {
        let mut fetched = Fetched::default();
        for path in wanted {
            if store.store_closure([path])?.is_some() {
                fetched.here.insert(path.clone());
                continue;
            }
            let Some(order) = self.closure(store, path, &mut fetched.notes)? else { continue };
            for (info, node) in self.archives(store, &order)? {
                fetched.archives += 1;
                fetched.bytes += info.nar_size;
                store.put_store_path(&node, &info)?;
            }
            fetched.here.insert(path.clone());
        }
        Ok(fetched)
    }

    /// What must be fetched for a path, what is referred to first; nothing if some of it is in no cache.
    fn closure(
        &self,
        store: &Store,
        path: &StorePath,
        notes: &mut BTreeSet<String>,
    ) -> Result<Option<Vec<(usize, NarInfo)>>> {
        let mut found: BTreeMap<StorePath, (usize, NarInfo)> = BTreeMap::new();
        let mut open = vec![path.clone()];
        let mut order = Vec::new();
        // A path comes after what it refers to: it is looked at once on the way down, once on the way up.
        while let Some(next) = open.last().cloned() {
            self.check_interrupt()?;
            if let Some((_, info)) = found.get(&next) {
                open.pop();
                if !order.contains(&info.path) {
                    order.push(info.path.clone());
                }
                continue;
            }
            if store.store_path(&next)?.is_some() {
                open.pop();
                continue;
            }
            let Some(known) = self.info(&next, notes)? else { return Ok(None) };
            if found.len() >= MOST_PATHS {
                return Err(self.bad(known.0, format!("`{path}` refers to more than {MOST_PATHS} paths")));
            }
            open.extend(
                known
                    .1
                    .references
                    .iter()
                    .filter(|reference| !found.contains_key(reference) && **reference != next)
                    .cloned(),
            );
            found.insert(next, known);
        }
        Ok(Some(order.into_iter().filter_map(|path| found.remove(&path)).collect()))
    }

    /// What the first cache that is believed says of a path.
    fn info(&self, path: &StorePath, notes: &mut BTreeSet<String>) -> Result<Option<(usize, NarInfo)>> {
        for (index, address) in self.addresses.iter().enumerate() {
            if self.dead.lock().unwrap_or_else(PoisonError::into_inner).contains(&index) {
                continue;
            }
            let text = match self.text(index, &format!("{}.narinfo", hash_part(path))) {
                Ok(text) => text,
                Err(Absence::Missing) => continue,
                Err(Absence::Dead(reason)) => {
                    self.check_interrupt()?;
                    self.dead.lock().unwrap_or_else(PoisonError::into_inner).insert(index);
                    notes.insert(format!("cache `{}` does not answer: {reason}", crate::http::redact(address)));
                    continue;
                }
            };
            let info = NarInfo::parse(&text).map_err(|error| self.bad(index, format!("`{path}`: {error}")))?;
            if info.path != *path {
                return Err(self.bad(index, format!("asked for `{path}`, it tells of `{}`", info.path)));
            }
            if info.signed_by(&self.trusted).is_none() && !info.proves_itself() {
                notes.insert(format!(
                    "cache `{}` has `{path}`, which no trusted key has signed",
                    crate::http::redact(address)
                ));
                continue;
            }
            return Ok(Some((index, info)));
        }
        Ok(None)
    }

    /// Fetches archives side by side; gives them in their order.
    fn archives(&self, store: &Store, wanted: &[(usize, NarInfo)]) -> Result<Vec<(PathInfo, Node)>> {
        let next = AtomicUsize::new(0);
        let done: Mutex<Vec<Option<Result<Unpacked>>>> = Mutex::new(wanted.iter().map(|_| None).collect());
        thread::scope(|scope| {
            for _ in 0..SIDE_BY_SIDE.min(wanted.len()) {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some((cache, info)) = wanted.get(index) else { return };
                        let unpacked = self.archive(store, *cache, info);
                        if unpacked.is_err() {
                            // The others' work would be for nothing.
                            next.store(wanted.len(), Ordering::Relaxed);
                        }
                        done.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(unpacked);
                    }
                });
            }
        });
        let mut archives = Vec::new();
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        // The first failure is the one to be told, wherever it stands.
        let (good, failed): (Vec<_>, Vec<_>) = done.into_iter().partition(|one| matches!(one, Some(Ok(_))));
        if let Some(error) = failed.into_iter().flatten().find_map(Result::err) {
            return Err(error);
        }
        for (unpacked, (_, info)) in good.into_iter().flatten().zip(wanted) {
            let info = PathInfo {
                path: info.path.clone(),
                nar_hash: info.nar_hash,
                nar_size: info.nar_size,
                references: info.references.clone(),
                deriver: info.deriver.clone(),
            };
            archives.push((info, unpacked?.node));
        }
        Ok(archives)
    }

    /// One archive, compared with what was signed of it.
    fn archive(&self, store: &Store, cache: usize, info: &NarInfo) -> Result<Unpacked> {
        if info.nar_size > MOST_NAR {
            return Err(self.bad(cache, format!("`{}` has {} bytes", info.path, info.nar_size)));
        }
        let mut attempt = 1;
        loop {
            self.check_interrupt()?;
            let taken = match self.open(cache, &info.url) {
                Ok(file) => {
                    // Whatever the text calls it: streams say themselves how they are compressed.
                    let plain = unpacked(Watched { reader: file, interrupt: self.interrupt });
                    let plain = plain.map_err(|error| self.bad(cache, format!("`{}`: {error}", info.url)));
                    plain.and_then(|(_, mut plain)| unpack(store, &mut plain, info.nar_size, &info.url))
                }
                Err(Absence::Missing) => return Err(self.bad(cache, format!("it has not got `{}`", info.url))),
                Err(Absence::Dead(reason)) => Err(self.bad(cache, reason)),
            };
            match taken {
                Ok(unpacked) if unpacked.nar_hash == info.nar_hash && unpacked.nar_size == info.nar_size => {
                    return Ok(unpacked);
                }
                Ok(unpacked) => {
                    let text = |hash: &[u8]| format!("sha256:{}", crate::digest::to_hex(hash));
                    return Err(Error::Mismatch {
                        from: format!("{}/{}", crate::http::redact(&self.addresses[cache]), info.url),
                        actual: text(&unpacked.nar_hash),
                        expected: text(&info.nar_hash),
                    });
                }
                Err(error) if attempt >= ATTEMPTS => return Err(error),
                Err(_) => attempt += 1,
            }
        }
    }

    fn text(&self, cache: usize, name: &str) -> Result<Vec<u8>, Absence> {
        let mut text = Vec::new();
        let read = self.open(cache, name)?.take(MOST_TEXT).read_to_end(&mut text);
        read.map_err(|error| Absence::Dead(error.to_string()))?;
        Ok(text)
    }

    /// What a cache says of itself.
    pub fn about(&self, cache: usize) -> Result<CacheInfo> {
        let text = self.text(cache, "nix-cache-info").map_err(|absence| match absence {
            Absence::Missing => self.bad(cache, "it is no Nix binary cache: it has no `nix-cache-info`"),
            Absence::Dead(reason) => self.bad(cache, reason),
        })?;
        CacheInfo::parse(&text).map_err(|error| self.bad(cache, format!("`nix-cache-info`: {error}")))
    }

    fn open(&self, cache: usize, name: &str) -> Result<Box<dyn Read + Send>, Absence> {
        let address = self.addresses[cache].trim_end_matches('/');
        if let Some(directory) = address.strip_prefix("file://") {
            let path = PathBuf::from(directory).join(name.split('?').next().unwrap_or_default());
            return match File::open(&path) {
                Ok(file) => Ok(Box::new(file)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Absence::Missing),
                Err(error) => Err(Absence::Dead(error.to_string())),
            };
        }
        match self.client.get(&Place::new(format!("{address}/{name}")), &[]) {
            Ok(answer) => Ok(answer.body),
            // Object stores answer 403 for what is not there to those who may not list.
            Err(Failure::Status(403 | 404 | 410)) => Err(Absence::Missing),
            Err(failure) => Err(Absence::Dead(failure.to_string())),
        }
    }

    fn bad(&self, cache: usize, reason: impl Into<String>) -> Error {
        let from = crate::http::redact(&self.addresses[cache]);
        Error::Archive { from, format: "Nix", reason: reason.into() }
    }

    fn check_interrupt(&self) -> Result<()> {
        match self.interrupt.load(Ordering::Relaxed) {
            0 => Ok(()),
            _ => Err(Error::Registry(crate::registry::Error::Interrupted)),
        }
    }
}

/// Ends when the user interrupts.
struct Watched<'a> {
    reader: Box<dyn Read + Send>,
    interrupt: &'a AtomicI32,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.interrupt.load(Ordering::Relaxed) {
            0 => self.reader.read(buffer),
            _ => Err(std::io::Error::other("interrupted")),
        }
    }
}
