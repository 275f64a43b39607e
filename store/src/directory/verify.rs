//! Hashing everything again.

use std::path::PathBuf;

use rayon::prelude::*;

use super::objects::hash;
use super::{Store, place::Place};
use crate::{BlobId, Error, Node, Result, Tree, TreeId};

/// An object that is not what its name says.
#[derive(Debug)]
pub struct Damage {
    /// Where it lies.
    pub path: PathBuf,
    /// What is wrong with it.
    pub error: Error,
}

impl Store {
    /// Hashes every object and every file of every checkout again, and lists what is damaged. Changes nothing.
    pub fn verify(&self) -> Result<Vec<Damage>> {
        let mut damaged =
            self.verify_kind("blobs", &|relative, id| self.verify_blob(relative, id.trim_end_matches(".x")))?;
        damaged.extend(self.verify_kind("trees", &|relative, id| {
            // Not by way of the trees that are remembered: the file is what is in question.
            let bytes = self.read_if_there(relative)?.unwrap_or_default();
            let actual = Tree::id_of(&bytes).to_string();
            if actual != id {
                return Err(self.mismatch(relative, &actual, id));
            }
            let from = relative.to_owned();
            Tree::decode(&bytes).map_err(|source| Error::Decode { from, kind: "tree", source }).map(drop)
        })?);
        let parse = |id: &str| Error::NotFound { kind: "object", id: id.to_owned() };
        damaged.extend(self.verify_kind("deltas", &|_, id| self.delta(id.parse().map_err(|_| parse(id))?).map(drop))?);
        damaged.extend(
            self.verify_kind("formations", &|_, id| self.formation(id.parse().map_err(|_| parse(id))?).map(drop))?,
        );
        for ownership in ["caller", "exact"] {
            for name in self.names_in(&format!("checkouts/{ownership}"))? {
                let root = self.full(&format!("checkouts/{ownership}/{name}/root"));
                let Ok(id) = name.parse::<TreeId>() else { continue };
                if let Err(error) = Place::open(&root).and_then(|place| self.verify_checkout(place, id)) {
                    damaged.push(Damage { path: root, error });
                }
            }
        }
        Ok(damaged)
    }

    fn verify_kind(&self, kind: &str, check: &(dyn Fn(&str, &str) -> Result<()> + Sync)) -> Result<Vec<Damage>> {
        let starts = self.names_in(kind)?;
        let verify = |start: &String| {
            let mut damaged = Vec::new();
            for rest in self.names_in(&format!("{kind}/{start}"))? {
                let relative = format!("{kind}/{start}/{rest}");
                if let Err(error) = check(&relative, &format!("{start}{rest}")) {
                    damaged.push(Damage { path: self.full(&relative), error });
                }
            }
            Ok(damaged)
        };
        let damaged: Vec<Vec<Damage>> = starts.par_iter().map(verify).collect::<Result<_>>()?;
        Ok(damaged.into_iter().flatten().collect())
    }

    fn verify_blob(&self, relative: &str, id: &str) -> Result<()> {
        let Some(mut file) = self.open_file(relative)? else { return Ok(()) };
        let (actual, _) = hash(&mut file).map_err(Error::file("read", self.full(relative)))?;
        if actual.to_string() == id { Ok(()) } else { Err(self.mismatch(relative, &actual.to_string(), id)) }
    }

    /// Whether the files of a checkout have the content that the tree says, and no name is missing or too many.
    ///
    /// What the caller may not read (a file of mode 0000, to an ordinary user) is passed over: it shares its inode's hash.
    fn verify_checkout(&self, root: Place, id: TreeId) -> Result<()> {
        let mut level = vec![(root, id)];
        while !level.is_empty() {
            let next: Vec<Vec<(Place, TreeId)>> =
                level.par_iter().map(|(place, id)| self.verify_directory(place, *id)).collect::<Result<_>>()?;
            level = next.into_iter().flatten().collect();
        }
        Ok(())
    }

    fn verify_directory(&self, place: &Place, id: TreeId) -> Result<Vec<(Place, TreeId)>> {
        let tree = self.tree(id)?;
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
                Node::File(file) => match self.hash_at(&child) {
                    Err(error) if unreadable(&error) => {}
                    actual => {
                        let actual = actual?;
                        if actual != file.blob {
                            let from = child.shown().display().to_string();
                            let (actual, expected) = (actual.to_string(), file.blob.to_string());
                            return Err(Error::Mismatch { from, actual, expected });
                        }
                    }
                },
                _ => {}
            }
        }
        Ok(children)
    }

    fn hash_at(&self, place: &Place) -> Result<BlobId> {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(place.base(), place.relative(), flags, Mode::empty());
        let mut file = std::fs::File::from(file.map_err(place.failed("open"))?);
        Ok(hash(&mut file).map_err(Error::file("read", place.shown()))?.0)
    }
}
