//! A tree out of the entries of an archive.
//!
//! Later entries win, hard links become equal entries, and what no tree can hold is noted. Paths that lead out (`..`), or
//! through what is not a directory, are refused. Small files are written side by side, a few megabytes at a time.

use std::collections::BTreeMap;
use std::io::Read;

use rayon::prelude::*;

use super::read::{Archive, Entry, Kind, Problem};
use crate::format::{Bounds, Dropped, Growing};
use crate::tree::{LONGEST_TARGET, fits_attribute, keeps_attribute};
use crate::{BlobId, Error, File, Metadata, Node, RelativePath, Result, Store};

/// Files up to this size are hashed first, and written only if the store lacks them.
const SMALL: u64 = 1 << 20;
/// How much waits to be written.
const WAITING: usize = 16 << 20;

/// What entries are put into: a tree that grows, or a layer over others.
pub trait Growth {
    /// Puts anything but a directory at a path; what was there is gone.
    fn put(&mut self, path: &RelativePath, node: Node) -> Result<(), &'static str>;
    /// Makes a directory, or gives the one that is there another mode and owner.
    fn put_directory(&mut self, path: &RelativePath, metadata: Metadata) -> Result<(), &'static str>;
    /// What lies at a path, if it is no directory.
    fn get(&mut self, path: &RelativePath) -> Option<Node>;
}

impl Growth for Growing {
    fn put(&mut self, path: &RelativePath, node: Node) -> Result<(), &'static str> {
        Self::put(self, path, node)
    }

    fn put_directory(&mut self, path: &RelativePath, metadata: Metadata) -> Result<(), &'static str> {
        Self::put_directory(self, path, metadata)
    }

    fn get(&mut self, path: &RelativePath) -> Option<Node> {
        Self::get(self, path).cloned()
    }
}

/// Makes a tree of entries; several archives may follow each other, as layers do.
pub struct Unpacker<'a, G = Growing> {
    store: &'a Store,
    /// Where the bytes come from, for messages.
    from: String,
    bounds: Bounds,
    /// The tree so far. Between entries it may be changed.
    pub growing: G,
    /// What was left out.
    pub dropped: Dropped,
    waiting: Vec<Vec<u8>>,
    waiting_bytes: usize,
}

/// A path for a message, which is to stay one that people read.
fn shown(path: &[u8]) -> String {
    const MOST: usize = 200;
    let rest = if path.len() > MOST { "…" } else { "" };
    format!("{}{rest}", path[..path.len().min(MOST)].escape_ascii())
}

impl<'a, G: Growth> Unpacker<'a, G> {
    /// Begins with a tree that is there already, or an empty one. `bounds` hold for all archives together.
    pub fn new(store: &'a Store, from: impl Into<String>, bounds: &Bounds, growing: G) -> Self {
        let (dropped, waiting) = (Dropped::default(), Vec::new());
        Self { store, from: from.into(), bounds: *bounds, growing, dropped, waiting, waiting_bytes: 0 }
    }

    /// Takes in all entries that are left of an archive.
    pub fn all<R: Read>(&mut self, archive: &mut Archive<R>) -> Result<()> {
        while let Some(entry) = archive.next().map_err(|problem| self.problem(problem))? {
            self.entry(archive, entry)?;
        }
        Ok(())
    }

    /// Takes in the entry that the archive gave last.
    pub fn entry<R: Read>(&mut self, archive: &mut Archive<R>, entry: Entry) -> Result<()> {
        let path = self.path(&entry.path)?;
        let text = entry.attributes.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        let bytes = entry.size.saturating_add((text + entry.target.len()) as u64);
        let within = self.bounds.take(bytes, path.0.len());
        within.map_err(|reason| self.bad(format!("`{}`: {reason}", shown(&entry.path))))?;
        let metadata = self.metadata(&entry);
        let put = match entry.kind {
            Kind::Directory => self.growing.put_directory(&path, metadata),
            Kind::File => {
                let blob = self.blob(archive, &entry)?;
                self.growing.put(&path, Node::File(File { blob, size: entry.size, metadata }))
            }
            Kind::HardLink => {
                let target = self.path(&entry.target)?;
                match self.growing.get(&target) {
                    Some(node) => self.growing.put(&path, node),
                    None => Err("it is a link to a directory or to what is not there"),
                }
            }
            Kind::Symlink if entry.target.is_empty() || entry.target.contains(&0) => Err("it leads to no path"),
            Kind::Symlink if entry.target.len() > LONGEST_TARGET => Err("it leads to a path longer than Linux has"),
            Kind::Symlink => {
                if !metadata.attributes.is_empty() {
                    self.dropped.add("attribute of a symbolic link", &entry.path);
                }
                let Metadata { uid, gid, .. } = metadata;
                self.growing.put(&path, Node::Symlink { target: entry.target.clone(), uid, gid })
            }
            Kind::Fifo => self.growing.put(&path, Node::Fifo(metadata)),
            Kind::Device { .. } if entry.device == (0, 0) => {
                self.dropped.add("device 0:0 (a whiteout)", &entry.path);
                Ok(())
            }
            Kind::Device { block } => {
                let (major, minor) = entry.device;
                self.growing.put(&path, Node::Device { block, major, minor, metadata })
            }
            // A volume's label is no entry.
            Kind::Other(b'V') => Ok(()),
            Kind::Other(letter) => {
                self.dropped.add(format!("entry of kind `{}`", letter.escape_ascii()), &entry.path);
                Ok(())
            }
        };
        put.map_err(|reason| self.bad(format!("`{}`: {reason}", shown(&entry.path))))
    }

    /// The tree and what was left out; everything is in the store now but the directories.
    pub fn finish(mut self) -> Result<(G, Dropped)> {
        self.write()?;
        Ok((self.growing, self.dropped))
    }

    /// How much may still come.
    pub fn left(&self) -> Bounds {
        self.bounds
    }

    /// Reads a path as an archive has it: `a/b`, `./a/b`, `/a/b`, `a/b/`.
    pub fn path(&self, path: &[u8]) -> Result<RelativePath> {
        let parsed = RelativePath::parse(path);
        parsed.map_err(|_| self.bad(format!("`{}` is no path below a root", shown(path))))
    }

    /// The error for a problem of the archive.
    pub fn problem(&self, problem: Problem) -> Error {
        match problem {
            Problem::Damaged(reason) => self.bad(reason),
            Problem::Read(error) => unreadable(&self.from, error),
        }
    }

    /// The error that says what is wrong with it.
    pub fn bad(&self, reason: impl Into<String>) -> Error {
        Error::Archive { from: self.from.clone(), format: "tar", reason: reason.into() }
    }

    fn metadata(&mut self, entry: &Entry) -> Metadata {
        let mut attributes = BTreeMap::new();
        for (name, value) in &entry.attributes {
            if !fits_attribute(name, value) {
                self.dropped.add("attribute that is longer than Linux has", &entry.path);
            } else if keeps_attribute(name) && !name.contains(&0) {
                attributes.insert(name.clone(), value.clone());
            } else {
                self.dropped.add(format!("attribute {}", name.escape_ascii()), &entry.path);
            }
        }
        for what in &entry.dropped {
            self.dropped.add(*what, &entry.path);
        }
        Metadata { mode: entry.mode, uid: entry.uid, gid: entry.gid, attributes }
    }

    fn blob<R: Read>(&mut self, archive: &mut Archive<R>, entry: &Entry) -> Result<BlobId> {
        let mut content = archive.content();
        if entry.size > SMALL {
            let mut failure = None;
            let mut watched = Watched { reader: &mut content, failure: &mut failure };
            let kept = self.store.put_blob_from(&mut watched, entry.mode & 0o100 != 0);
            return match (kept, failure) {
                (_, Some(error)) => Err(unreadable(&self.from, error)),
                (kept, None) => Ok(kept?.0),
            };
        }
        let mut bytes = Vec::with_capacity(entry.size as usize);
        content.read_to_end(&mut bytes).map_err(|error| unreadable(&self.from, error))?;
        let blob = BlobId::of(&bytes);
        self.waiting_bytes += bytes.len() + size_of::<Vec<u8>>();
        self.waiting.push(bytes);
        if self.waiting_bytes > WAITING {
            self.write()?;
        }
        Ok(blob)
    }

    fn write(&mut self) -> Result<()> {
        self.waiting_bytes = 0;
        let store = self.store;
        std::mem::take(&mut self.waiting).into_par_iter().try_for_each(|bytes| store.put_blob(&bytes, false).map(drop))
    }
}

/// Hands on what a reader gives, and remembers why it failed.
struct Watched<'a> {
    reader: &'a mut dyn Read,
    failure: &'a mut Option<std::io::Error>,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.reader.read(buffer).map_err(|error| {
            let kind = error.kind();
            if kind != std::io::ErrorKind::Interrupted {
                *self.failure = Some(error);
            }
            kind.into()
        })
    }
}

/// Bytes that could not be had: of a broken stream the archive is to blame, of anything else the machine.
pub(in crate::format) fn unreadable(from: &str, error: std::io::Error) -> Error {
    use std::io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    if matches!(error.kind(), InvalidData | InvalidInput | Other | UnexpectedEof) {
        return Error::Archive { from: from.to_owned(), format: "tar", reason: error.to_string() };
    }
    Error::File { action: "read", path: from.into(), source: error }
}
