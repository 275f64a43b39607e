//! A whole image, put into the store.
//!
//! First the directories are walked, and nothing but metadata is read: whatever is wrong with names, loops or sizes is found
//! before a byte is written. Then contents are unpacked, each once, in the order in which they lie: large files one after
//! the other on all cores, small ones side by side. Directories come last, the lowest first.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read;

use rayon::prelude::*;

use super::content::ContentKey;
use super::inode::FileInode;
use super::{Image, Inode, Kind};
use crate::format::{Bounds, Dropped, Growing, Imported, Links};
use crate::tree::{fits_attribute, keeps_attribute};
use crate::{BlobId, File, Metadata, Name, Node, Result, Store};

/// Files from this size on are unpacked on all cores.
const LARGE: u64 = 8 << 20;
/// Files up to this size are unpacked into memory, and not written again if they are in the store.
const SMALL: u64 = 1 << 20;
/// Bytes in targets and attributes, each counted once per entry: a bound on memory, for a few bytes of the image may stand
/// for many.
const MOST_TEXT: usize = 256 << 20;
/// How many sets of attributes are remembered.
const REMEMBERED: usize = 256;

impl Image {
    /// Puts everything into the store.
    pub fn extract(&self, store: &Store, bounds: &Bounds) -> Result<Imported> {
        let mut walk = Walk::new(self, bounds);
        walk.all()?;
        let Walk { mut growing, files, contents, dropped, .. } = walk;
        let blobs = self.unpack_all(store, &contents)?;
        for Found { directory, name, content, metadata } in files {
            let file = File { blob: blobs[content], size: contents[content].size, metadata };
            growing.add(directory, name, Node::File(file));
        }
        let root = growing.finish(store)?;
        Ok(Imported { formation: self.formation()?, dropped, ..Imported::bare(root) })
    }

    /// Reads everything and keeps nothing: whether the image is whole, as far as it can tell. Says how many files there are.
    pub fn check(&self, bounds: &Bounds) -> Result<usize> {
        let mut walk = Walk::new(self, bounds);
        walk.all()?;
        for file in &walk.contents {
            let mut content = super::Content::new(self, file.clone());
            let read = std::io::copy(&mut content, &mut std::io::sink());
            read.map_err(|error| content.error().unwrap_or_else(|| content.failed(error)))?;
        }
        Ok(walk.files.len())
    }

    fn unpack_all(&self, store: &Store, contents: &[FileInode]) -> Result<Vec<BlobId>> {
        let block_size = u64::from(self.superblock.block_size);
        let mut large = Vec::new();
        let mut by_start = Vec::new();
        // Those that share a fragment follow each other, so that it is unpacked once.
        let mut by_fragment: BTreeMap<Option<(u32, u32)>, Vec<usize>> = BTreeMap::new();
        for (number, file) in contents.iter().enumerate() {
            match file.fragment {
                _ if file.size >= LARGE => large.push(number),
                Some((fragment, _)) if file.size < block_size => {
                    by_fragment.entry(Some((fragment, 0))).or_default().push(number);
                }
                _ => by_start.push(number),
            }
        }
        by_start.sort_unstable_by_key(|number| contents[*number].start);
        let mut groups: Vec<Vec<usize>> = by_start.into_iter().map(|number| vec![number]).collect();
        groups.extend(by_fragment.into_values());

        let mut blobs = vec![BlobId::from_bytes([0; 32]); contents.len()];
        for number in large {
            let mut content = super::Content::new(self, contents[number].clone()).in_parallel();
            let kept = store.put_blob_from(&mut content, false);
            let (blob, _) = kept.map_err(|error| content.error().unwrap_or(error))?;
            blobs[number] = blob;
        }
        let unpack = |group: Vec<usize>| -> Result<Vec<(usize, BlobId)>> {
            group.into_iter().map(|number| Ok((number, self.unpack_small(store, &contents[number])?))).collect()
        };
        let done: Vec<Vec<(usize, BlobId)>> =
            groups.into_par_iter().with_max_len(8).map(unpack).collect::<Result<_>>()?;
        for (number, blob) in done.into_iter().flatten() {
            blobs[number] = blob;
        }
        Ok(blobs)
    }

    fn unpack_small(&self, store: &Store, file: &FileInode) -> Result<BlobId> {
        let mut content = super::Content::new(self, file.clone());
        if file.size > SMALL {
            let kept = store.put_blob_from(&mut content, false);
            return Ok(kept.map_err(|error| content.error().unwrap_or(error))?.0);
        }
        let mut bytes = Vec::with_capacity(file.size as usize);
        let read = content.read_to_end(&mut bytes);
        read.map_err(|error| content.error().unwrap_or_else(|| content.failed(error)))?;
        store.put_blob(&bytes, false)
    }
}

/// A file of the tree, whose content is still to be unpacked.
struct Found {
    directory: usize,
    name: Name,
    content: usize,
    metadata: Metadata,
}

struct Walk<'a> {
    image: &'a Image,
    bounds: &'a Bounds,
    growing: Growing,
    /// Of each directory: the one it is in, and its name there.
    places: Vec<Option<(usize, Name)>>,
    files: Vec<Found>,
    contents: Vec<FileInode>,
    known: HashMap<ContentKey, usize>,
    attributes: HashMap<u32, BTreeMap<Vec<u8>, Vec<u8>>>,
    dropped: Dropped,
    entries: u64,
    bytes: u64,
    text: usize,
}

impl<'a> Walk<'a> {
    fn new(image: &'a Image, bounds: &'a Bounds) -> Self {
        Self {
            image,
            bounds,
            growing: Growing::new(Links::Refuse),
            places: vec![None],
            files: Vec::new(),
            contents: Vec::new(),
            known: HashMap::new(),
            attributes: HashMap::new(),
            dropped: Dropped::default(),
            entries: 0,
            bytes: 0,
            text: 0,
        }
    }

    fn all(&mut self) -> Result<()> {
        let root = self.image.root()?;
        if !matches!(root.kind, Kind::Directory { .. }) {
            return Err(self.image.region.bad("its root is no directory"));
        }
        let metadata = self.metadata(&root, 0, None)?;
        self.growing.set_metadata(0, metadata);
        // A directory has one name; whatever has two would be there again and again, or lie in itself.
        let mut visited = HashSet::from([self.image.superblock.root]);
        let mut waiting = vec![(0, root, 0)];
        while let Some((directory, inode, depth)) = waiting.pop() {
            if depth > self.bounds.depth {
                return Err(self.image.region.bad(format!("it is more than {} directories deep", self.bounds.depth)));
            }
            let mut listing = self.image.listing(&inode)?;
            while let Some(listed) = listing.next()? {
                self.entries += 1;
                if self.entries > self.bounds.entries {
                    return Err(self.image.region.bad(format!("it has more than {} entries", self.bounds.entries)));
                }
                let inode = self.image.inode(listed.reference)?;
                if inode.kind.in_listing() != listed.kind {
                    return Err(self.image.region.bad(format!("`{}` is of two kinds", listed.name)));
                }
                if self.growing.has(directory, &listed.name) {
                    return Err(self.image.region.bad(format!("`{}` is there twice", listed.name)));
                }
                if matches!(inode.kind, Kind::Directory { .. }) {
                    if !visited.insert(listed.reference) {
                        return Err(self.image.region.bad(format!("directory `{}` is there twice", listed.name)));
                    }
                    let metadata = self.metadata(&inode, directory, Some(&listed.name))?;
                    let number = self.growing.add_directory(directory, listed.name.clone(), metadata);
                    self.places.resize(number + 1, None);
                    self.places[number] = Some((directory, listed.name));
                    waiting.push((number, inode, depth + 1));
                } else {
                    self.other(directory, listed.name, inode)?;
                }
            }
        }
        Ok(())
    }

    /// Takes in anything but a directory.
    fn other(&mut self, directory: usize, name: Name, inode: Inode) -> Result<()> {
        let metadata = self.metadata(&inode, directory, Some(&name))?;
        let node = match inode.kind {
            Kind::Directory { .. } => unreachable!("directories wait for their turn"),
            Kind::File(file) => {
                self.bytes = self.bytes.saturating_add(file.size);
                if self.bytes > self.bounds.bytes {
                    return Err(self.image.region.bad(format!("it holds more than {} bytes", self.bounds.bytes)));
                }
                let content = match self.image.content_key(&file)? {
                    key if self.known.contains_key(&key) => self.known[&key],
                    key => {
                        self.known.insert(key, self.contents.len());
                        self.contents.push(file);
                        self.contents.len() - 1
                    }
                };
                // Its place is taken, so that a second of that name is found.
                self.growing.add(directory, name.clone(), Node::Fifo(Metadata::root(0)));
                self.files.push(Found { directory, name, content, metadata });
                return Ok(());
            }
            Kind::Symlink(target) => {
                self.count_text(target.len())?;
                if !metadata.attributes.is_empty() {
                    self.drop("attribute of a symbolic link", directory, &name);
                }
                Node::Symlink { target, uid: metadata.uid, gid: metadata.gid }
            }
            Kind::Fifo => Node::Fifo(metadata),
            Kind::Device { major: 0, minor: 0, .. } => {
                self.drop("device 0:0 (a whiteout)", directory, &name);
                return Ok(());
            }
            Kind::Device { block, major, minor } => Node::Device { block, major, minor, metadata },
            Kind::Socket => {
                self.drop("socket", directory, &name);
                return Ok(());
            }
        };
        self.growing.add(directory, name, node);
        Ok(())
    }

    /// An inode's metadata as a tree has it.
    fn metadata(&mut self, inode: &Inode, directory: usize, name: Option<&Name>) -> Result<Metadata> {
        let mut attributes = BTreeMap::new();
        if let Some(number) = inode.attributes {
            if !self.attributes.contains_key(&number) {
                if self.attributes.len() >= REMEMBERED {
                    self.attributes.clear();
                }
                self.attributes.insert(number, self.image.attributes(inode)?);
            }
            let mut dropped = Vec::new();
            for (name, value) in &self.attributes[&number] {
                let name = full_name(name);
                if !fits_attribute(&name, value) {
                    dropped.push("attribute that is longer than Linux has".to_owned());
                } else if keeps_attribute(&name) {
                    attributes.insert(name, value.clone());
                } else if !name.starts_with(b"user.forge.") {
                    dropped.push(format!("attribute {}", name.escape_ascii()));
                }
            }
            for kind in dropped {
                match name {
                    Some(name) => self.drop(&kind, directory, name),
                    None => self.dropped.add(kind, b""),
                }
            }
            self.count_text(attributes.iter().map(|(name, value)| name.len() + value.len() + 64).sum())?;
        }
        Ok(Metadata { mode: inode.mode, uid: inode.uid, gid: inode.gid, attributes })
    }

    fn count_text(&mut self, length: usize) -> Result<()> {
        self.text += length;
        if self.text > MOST_TEXT {
            return Err(self.image.region.bad("its attributes and symbolic links have no end"));
        }
        Ok(())
    }

    fn drop(&mut self, kind: &str, directory: usize, name: &Name) {
        let mut names = vec![name.as_bytes()];
        let mut at = directory;
        while let Some((parent, name)) = &self.places[at] {
            names.push(name.as_bytes());
            at = *parent;
        }
        names.reverse();
        self.dropped.add(kind, &names.join(&b'/'));
    }
}

/// An attribute's name as the tree has it: squashfs has no number for `system.`, so that we write ACLs as the user's.
fn full_name(name: &[u8]) -> Vec<u8> {
    match name.strip_prefix(b"user.forge.posix_acl_") {
        Some(rest) => [b"system.posix_acl_", rest].concat(),
        None => name.to_vec(),
    }
}
