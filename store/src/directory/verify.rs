//! Hashing everything again; what is damaged is named, set aside, and made good where it can be ([`heal`]).

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::inodes::inode_path;
use super::lease::Use;
use super::objects::hash;
use super::packs::{Entry, pack_path};
use super::{Ownership, Store, place::Place};
use crate::peer::ObjectId;
use crate::{BlobId, Delta, Error, Formation, Node, Result, Tree, TreeId};

mod heal;

pub use heal::{Affected, Restore};

/// Something that is not what its name says.
#[derive(Debug)]
pub struct Damage {
    /// Where it lies.
    pub path: PathBuf,
    /// What is wrong with it.
    pub error: Error,
    /// Which object it is; none if it is a checkout, which is made again from its objects, or what was noted of a formation.
    pub object: Option<ObjectId>,
    /// The path in the store, and those of inodes that must not be linked to again.
    relative: String,
    inodes: Vec<String>,
}

impl Store {
    /// Hashes every object and every file of every checkout again, and lists what is damaged, or missing in a formation. Changes
    /// nothing.
    pub fn verify(&self) -> Result<Vec<Damage>> {
        let mut damaged = Vec::new();
        for kind in ["blob", "tree", "delta", "formation"] {
            let directory = format!("{kind}s");
            let starts = self.names_in(&directory)?;
            let verify = |start: &String| {
                let mut damaged = Vec::new();
                for rest in self.names_in(&format!("{directory}/{start}"))? {
                    let relative = format!("{directory}/{start}/{rest}");
                    let digest = format!("{start}{}", rest.trim_end_matches(".x"));
                    let digest = crate::digest::from_hex(&digest).and_then(|bytes| bytes.try_into().ok());
                    // What has another name is nothing of ours.
                    let Some(object) = digest.and_then(|digest| ObjectId::from_parts(kind, digest)) else { continue };
                    if let Err(error) = self.verify_file(&relative, object) {
                        let (path, object, inodes) = (self.full(&relative), Some(object), Vec::new());
                        damaged.push(Damage { path, error, object, relative, inodes });
                    }
                }
                Ok(damaged)
            };
            let found: Vec<Vec<Damage>> = starts.par_iter().map(verify).collect::<Result<_>>()?;
            damaged.extend(found.into_iter().flatten());
        }
        damaged.extend(self.verify_packs()?);
        for name in self.names_in("records")? {
            let Some(id) = name.strip_suffix(".json").and_then(|id| id.parse().ok()) else { continue };
            if let Err(error @ Error::Record { .. }) = self.read_record(id) {
                let relative = format!("records/{name}");
                damaged.push(Damage { path: self.full(&relative), error, object: None, relative, inodes: Vec::new() });
            }
        }
        for (relative, object) in self.lost()? {
            let error = Error::NotFound { kind: object.kind(), id: crate::digest::to_hex(object.as_bytes()) };
            let (path, object, inodes) = (self.full(&relative), Some(object), Vec::new());
            damaged.push(Damage { path, error, object, relative, inodes });
        }
        for (ownership, name) in Ownership::ALL {
            for id in self.names_in(&format!("checkouts/{name}"))? {
                let relative = format!("checkouts/{name}/{id}");
                let Ok(id) = id.parse::<TreeId>() else { continue };
                // What a collection has given up, and was killed over: the next one takes it away, and nobody uses it until then.
                if self.is_doomed(Use::Tree(id)) {
                    continue;
                }
                let path = self.full(&relative).join("root");
                let (error, inodes) = self.verify_checkout(&path, id, ownership);
                // Gone meanwhile is not damaged.
                if let Some(error) = error.filter(|_| self.is_there(&relative)) {
                    damaged.push(Damage { path, error, object: None, relative, inodes });
                }
            }
        }
        Ok(damaged)
    }

    /// Hashes what lies in packs. An index that cannot be read is made again on the way.
    fn verify_packs(&self) -> Result<Vec<Damage>> {
        let mut damaged = Vec::new();
        for pack in self.all_packs()? {
            let relative = pack_path(&pack.name);
            let verify = |entry: &Entry| {
                let whole = pack.read(*entry).and_then(|bytes| self.verify_encoding(&relative, entry.object, &bytes));
                let (path, object, inodes) = (self.full(&relative), Some(entry.object), Vec::new());
                whole.err().map(|error| Damage { path, error, object, relative: relative.clone(), inodes })
            };
            damaged.par_extend(pack.entries().unwrap_or_default().par_iter().filter_map(verify));
        }
        Ok(damaged)
    }

    /// Hashes the file of an object; one that has gone meanwhile is not damaged.
    fn verify_file(&self, relative: &str, object: ObjectId) -> Result<()> {
        let Some(file) = self.open_file(relative)? else { return Ok(()) };
        if let Use::Blob(id) = object {
            let (actual, _) = hash(&file).map_err(Error::file("read", self.full(relative)))?;
            return match actual == id {
                true => Ok(()),
                false => Err(self.mismatch(relative, &actual.to_string(), &id.to_string())),
            };
        }
        // Not by way of the trees that are remembered: the file is what is in question.
        let Some(bytes) = self.read_if_there(relative)? else { return Ok(()) };
        self.verify_encoding(relative, object, &bytes)
    }

    /// Whether these bytes are this tree, delta or formation.
    fn verify_encoding(&self, relative: &str, object: ObjectId, bytes: &[u8]) -> Result<()> {
        let actual = object.of_same_kind(bytes);
        if actual != object {
            let hex = |object: ObjectId| crate::digest::to_hex(object.as_bytes());
            return Err(self.mismatch(relative, &hex(actual), &hex(object)));
        }
        let decoded = match object {
            Use::Blob(_) => Ok(()),
            Use::Tree(_) => Tree::decode(bytes).map(drop),
            Use::Delta(_) => Delta::decode(bytes).map(drop),
            Use::Formation(_) => Formation::decode(bytes).map(drop),
        };
        let (from, kind) = (self.full(relative).display().to_string(), object.kind());
        decoded.map_err(|source| Error::Decode { from, kind, source })
    }

    /// Whether the files of a checkout have the content that the tree says, and no name is missing or too many; and which inodes
    /// are wrong.
    ///
    /// What the caller may not read (a file of mode 0000, to an ordinary user) is passed over: it shares its inode's hash.
    fn verify_checkout(
        &self,
        root: &std::path::Path,
        id: TreeId,
        ownership: Ownership,
    ) -> (Option<Error>, Vec<String>) {
        let check = CheckOf { store: self, ownership, found: Mutex::default() };
        let whole = Place::open(root).and_then(|place| {
            let mut level = vec![(place, id)];
            while !level.is_empty() {
                let next: Vec<Vec<(Place, TreeId)>> =
                    level.par_iter().map(|(place, id)| check.directory(place, *id)).collect::<Result<_>>()?;
                level = next.into_iter().flatten().collect();
            }
            Ok(())
        });
        let (first, inodes) = check.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        (whole.err().or(first), inodes)
    }
}

/// One checkout that is looked through.
struct CheckOf<'a> {
    store: &'a Store,
    ownership: Ownership,
    /// The first file that is not what it should be, and the inodes of all such.
    found: Mutex<(Option<Error>, Vec<String>)>,
}

impl CheckOf<'_> {
    fn directory(&self, place: &Place, id: TreeId) -> Result<Vec<(Place, TreeId)>> {
        let tree = self.store.tree(id)?;
        let unreadable = |error: &Error| matches!(error, Error::File { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied);
        let found = match place.entries() {
            Err(error) if unreadable(&error) => return Ok(Vec::new()),
            found => found?.len(),
        };
        if found != tree.entries.len() {
            let from = place.shown().display().to_string();
            let (actual, expected) = (format!("{found} entries"), format!("{} entries of {id}", tree.entries.len()));
            return Err(Error::Mismatch { from, actual, expected });
        }
        let mut children = Vec::new();
        for (name, node) in &tree.entries {
            let child = place.join(name)?;
            match node {
                Node::Directory(id) => children.push((child, *id)),
                Node::File(file) => match hash_at(&child) {
                    Err(error) if unreadable(&error) => {}
                    actual => {
                        let actual = actual?;
                        if actual != file.blob {
                            let from = child.shown().display().to_string();
                            let (actual, expected) = (actual.to_string(), file.blob.to_string());
                            let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
                            found.0.get_or_insert(Error::Mismatch { from, actual, expected });
                            found.1.push(inode_path(file, self.ownership));
                        }
                    }
                },
                _ => {}
            }
        }
        Ok(children)
    }
}

fn hash_at(place: &Place) -> Result<BlobId> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(place.base(), place.relative(), flags, Mode::empty());
    let file = std::fs::File::from(file.map_err(place.failed("open"))?);
    Ok(hash(&file).map_err(Error::file("read", place.shown()))?.0)
}
