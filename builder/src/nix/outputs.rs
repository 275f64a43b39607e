//! From what a builder left to outputs: taken into the store, searched for references, and named.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use store::derivation::{FixedOutput, HashAlgorithm};
use store::digest::to_hex;
use store::nix::hash::{Hasher, NixHash};
use store::nix::info::{PathInfo, hash_part};
use store::nix::nar::DEEPEST;
use store::nix::path as names;
use store::{File, Metadata, Name, Node, Store, StorePath, Tree};

use super::inputs::part;
use super::references::{Finder, LENGTH, contains, replace};
use super::{Prepared, invalid, run};
use crate::{Builder, Error, Result};

/// What lies at a path that a builder was to make.
pub enum Found {
    /// This; its files are in the store now.
    Node(Node),
    /// Nothing.
    Nothing,
    /// Something with this in it.
    Unsupported(&'static str),
}

/// An output with its name.
#[derive(Debug, Clone)]
pub struct Made {
    /// What lies there.
    pub node: Node,
    /// What is known of it.
    pub info: PathInfo,
}

/// An entry on disk.
enum Entry {
    File { path: PathBuf, executable: bool },
    Directory(BTreeMap<Name, Entry>),
    Symlink(Vec<u8>),
}

/// Takes a file, directory or link into the store. The disk loses it.
pub fn take(store: &Store, path: &Path) -> Result<Found> {
    let entry = match read(path, 0)? {
        Ok(Some(entry)) => entry,
        Ok(None) => return Ok(Found::Nothing),
        Err(what) => return Ok(Found::Unsupported(what)),
    };
    let mut files = Vec::new();
    list(&entry, &mut files);
    let kept: BTreeMap<PathBuf, (store::BlobId, u64)> = files
        .into_par_iter()
        .map(|(path, executable)| Ok((path.clone(), store.adopt_blob(&path, executable)?)))
        .collect::<Result<_>>()?;
    Ok(Found::Node(put(store, entry, &kept)?))
}

/// Reads what is there. `DEEPEST` bounds the recursion. The inner error says what cannot be kept.
fn read(path: &Path, depth: usize) -> Result<Result<Option<Entry>, &'static str>> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(Ok(None));
        }
        Err(error) => return Err(Error::file("look at", path)(error)),
    };
    let kind = metadata.file_type();
    if kind.is_file() {
        let executable = metadata.mode() & 0o100 != 0;
        return Ok(Ok(Some(Entry::File { path: path.to_owned(), executable })));
    }
    if kind.is_symlink() {
        let target = fs::read_link(path).map_err(Error::file("read", path))?;
        return Ok(Ok(Some(Entry::Symlink(target.into_os_string().into_vec()))));
    }
    if !kind.is_dir() {
        return Ok(match () {
            () if kind.is_fifo() => Err("a named pipe"),
            () if kind.is_socket() => Err("a socket"),
            // Overlayfs's mark of something that was taken away.
            () if kind.is_char_device() && metadata.rdev() == 0 => Ok(None),
            () => Err("a device"),
        });
    }
    if depth >= DEEPEST {
        return Ok(Err("directories that nest too deep for a Nix archive"));
    }
    run::open_up(path, metadata.mode())?;
    let mut entries = BTreeMap::new();
    for entry in fs::read_dir(path).map_err(Error::file("read the directory", path))? {
        let entry = entry.map_err(Error::file("read the directory", path))?;
        let Ok(name) = Name::new(entry.file_name().into_vec()) else { return Ok(Err("a name that is none")) };
        match read(&entry.path(), depth + 1)? {
            Ok(Some(found)) => _ = entries.insert(name, found),
            Ok(None) => {}
            Err(what) => return Ok(Err(what)),
        }
    }
    Ok(Ok(Some(Entry::Directory(entries))))
}

fn list(entry: &Entry, files: &mut Vec<(PathBuf, bool)>) {
    match entry {
        Entry::File { path, executable } => files.push((path.clone(), *executable)),
        Entry::Directory(entries) => entries.values().for_each(|entry| list(entry, files)),
        Entry::Symlink(_) => {}
    }
}

fn put(store: &Store, entry: Entry, kept: &BTreeMap<PathBuf, (store::BlobId, u64)>) -> Result<Node> {
    Ok(match entry {
        Entry::File { path, executable } => {
            let (blob, size) = kept[&path];
            Node::File(File { blob, size, metadata: Metadata::root(if executable { 0o555 } else { 0o444 }) })
        }
        Entry::Symlink(target) => Node::Symlink { target, uid: 0, gid: 0 },
        Entry::Directory(entries) => {
            let entries = entries.into_iter().map(|(name, entry)| Ok((name, put(store, entry, kept)?)));
            let tree = Tree { metadata: Metadata::root(0o555), entries: entries.collect::<Result<_>>()? };
            Node::Directory(store.put_tree(&tree)?)
        }
    })
}

/// Names the outputs: by what the derivation says, or by what they are.
pub fn finish(
    builder: &Builder<'_>,
    prepared: &Prepared,
    found: BTreeMap<String, Node>,
) -> Result<BTreeMap<String, Made>> {
    let store = builder.store;
    // What an output can refer to: everything that its builder knew of.
    let mut known: BTreeMap<[u8; LENGTH], StorePath> =
        prepared.inputs.paths.keys().map(|path| (part(path), path.clone())).collect();
    known.extend(prepared.scratch.values().map(|path| (part(path), path.clone())));
    let wanted: BTreeSet<[u8; LENGTH]> = known.keys().copied().collect();
    let mut left: BTreeMap<String, (Node, Searched)> = BTreeMap::new();
    for (name, node) in found {
        let searched = search(store, &node, &wanted)?;
        left.insert(name, (node, searched));
    }
    // Outputs may refer to each other: those that are referred to are named first.
    let mut made: BTreeMap<String, Made> = BTreeMap::new();
    let mut renamed: BTreeMap<StorePath, StorePath> = BTreeMap::new();
    while !left.is_empty() {
        let pending: BTreeMap<[u8; LENGTH], &str> =
            left.keys().map(|name| (part(&prepared.scratch[name]), name.as_str())).collect();
        let is_free = |(name, (_, searched)): &(&String, &(Node, Searched))| {
            searched.parts.iter().all(|part| pending.get(part).is_none_or(|other| *other == name.as_str()))
        };
        // Outputs that are named by what goes in may refer to each other in a circle.
        let next = left
            .iter()
            .find(is_free)
            .or_else(|| left.iter().find(|(name, _)| prepared.derivation.outputs[*name].path.is_some()));
        let Some(name) = next.map(|(name, _)| name.clone()) else {
            return Err(invalid(&prepared.derivation.name, "its outputs refer to each other in a circle"));
        };
        let (node, searched) = left.remove(&name).expect("it was found a moment ago");
        let references: BTreeSet<StorePath> =
            searched.parts.iter().filter_map(|part| known.get(part).cloned()).collect();
        let done = name_one(store, prepared, &name, node, searched, references, &renamed, &wanted)?;
        if done.info.path != prepared.scratch[&name] {
            renamed.insert(prepared.scratch[&name].clone(), done.info.path.clone());
        }
        made.insert(name, done);
    }
    Ok(made)
}

#[expect(clippy::too_many_arguments, reason = "all of it is what is known of one output")]
fn name_one(
    store: &Store,
    prepared: &Prepared,
    name: &str,
    node: Node,
    searched: Searched,
    references: BTreeSet<StorePath>,
    renamed: &BTreeMap<StorePath, StorePath>,
    wanted: &BTreeSet<[u8; LENGTH]>,
) -> Result<Made> {
    let derivation = &prepared.derivation;
    let output = &derivation.outputs[name];
    let scratch = &prepared.scratch[name];
    let deriver = Some(prepared.path.clone());
    let info = |path: &StorePath, searched: &Searched, references| PathInfo {
        path: path.clone(),
        nar_hash: searched.hash,
        nar_size: searched.size,
        references,
        deriver: deriver.clone(),
    };
    let Some(fixed) = &output.fixed else {
        return Ok(Made { node, info: info(scratch, &searched, references) });
    };
    if let (Some(path), false) = (&output.path, fixed.hash.is_empty()) {
        check_fixed(store, &derivation.name, fixed, &node)?;
        if !references.is_empty() {
            let reason = "what is fixed by its hash refers to store paths, which the hash does not cover";
            return Err(invalid(&derivation.name, reason));
        }
        return Ok(Made { node, info: info(path, &searched, references) });
    }
    // Floating: outputs that it refers to have their names by now.
    let (mut node, mut references) = (node, references);
    let moved: BTreeMap<&StorePath, &StorePath> =
        renamed.iter().filter(|(from, _)| references.contains(*from)).collect();
    if !moved.is_empty() {
        let rewrites = moved.iter().map(|(from, to)| (hash_part(from).into(), hash_part(to).into())).collect();
        node = rewrite(store, &node, &rewrites)?;
        references = references.iter().map(|path| (*moved.get(path).unwrap_or(&path)).clone()).collect();
    }
    let refers_to_itself = references.remove(scratch);
    let hash = match fixed.recursive {
        true => hash_without(store, &node, fixed.algorithm, hash_part(scratch).as_bytes())?,
        false => hash_flat(store, &derivation.name, fixed.algorithm, &node)?,
    };
    if !fixed.recursive && (refers_to_itself || !references.is_empty()) {
        return Err(invalid(&derivation.name, "a single file that is named by its bytes cannot refer to store paths"));
    }
    let path_name = names::output_name(&derivation.name, name);
    let path = names::content_path(path_name.as_bytes(), fixed.recursive, &hash, &references, refers_to_itself)
        .map_err(|error| invalid(&derivation.name, error.to_string()))?;
    if refers_to_itself {
        let rewrites = BTreeMap::from([(hash_part(scratch).into(), hash_part(&path).into())]);
        node = rewrite(store, &node, &rewrites)?;
        references.insert(path.clone());
    }
    let searched = search(store, &node, wanted)?;
    Ok(Made { node, info: info(&path, &searched, references) })
}

/// What is known of a store path that no builder made.
pub fn describe(store: &Store, path: &StorePath, node: &Node, references: BTreeSet<StorePath>) -> Result<PathInfo> {
    let searched = search(store, node, &BTreeSet::new())?;
    let (nar_hash, nar_size) = (searched.hash, searched.size);
    Ok(PathInfo { path: path.clone(), nar_hash, nar_size, references, deriver: None })
}

/// What one pass over an output's archive finds.
#[derive(Debug, Clone)]
struct Searched {
    parts: BTreeSet<[u8; LENGTH]>,
    hash: [u8; 32],
    size: u64,
}

fn search(store: &Store, node: &Node, wanted: &BTreeSet<[u8; LENGTH]>) -> Result<Searched> {
    let (mut finder, mut hasher, mut size) = (Finder::new(wanted), Hasher::new(HashAlgorithm::Sha256), 0);
    store.write_nar(node, &mut |bytes| {
        finder.update(bytes);
        hasher.update(bytes);
        size += bytes.len() as u64;
        Ok(())
    })?;
    let hash = hasher.finish().into_bytes().try_into().expect("a SHA-256 has 32 bytes");
    Ok(Searched { parts: finder.finish(), hash, size })
}

/// The hash of an archive in which a hash part counts as zeros, and where it was counts too.
fn hash_without(store: &Store, node: &Node, algorithm: HashAlgorithm, part: &[u8]) -> Result<NixHash> {
    let mut hasher = Hasher::new(algorithm);
    let (mut tail, mut position, mut places): (Vec<u8>, u64, Vec<u64>) = (Vec::new(), 0, Vec::new());
    let mut take = |bytes: &[u8], is_last: bool, hasher: &mut Hasher, places: &mut Vec<u64>| {
        tail.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(found) = tail[at..].windows(part.len()).position(|window| window == part) {
            let start = at + found;
            places.push(position + start as u64);
            tail[start..start + part.len()].fill(0);
            at = start + part.len();
        }
        let keep = if is_last { 0 } else { (part.len() - 1).min(tail.len().saturating_sub(at)) };
        let ready = tail.len() - keep;
        hasher.update(&tail[..ready]);
        position += ready as u64;
        tail.drain(..ready);
    };
    store.write_nar(node, &mut |bytes| {
        take(bytes, false, &mut hasher, &mut places);
        Ok(())
    })?;
    take(&[], true, &mut hasher, &mut places);
    for place in places {
        hasher.update(format!("|{place}").as_bytes());
    }
    Ok(hasher.finish())
}

fn hash_flat(store: &Store, name: &str, algorithm: HashAlgorithm, node: &Node) -> Result<NixHash> {
    match node {
        Node::File(file) if file.metadata.mode & 0o111 == 0 => {
            let mut hasher = Hasher::new(algorithm);
            let mut blob = store.open_blob(file.blob)?;
            std::io::copy(&mut blob, &mut hasher).map_err(Error::file("read", store.path()))?;
            Ok(hasher.finish())
        }
        _ => Err(invalid(
            name,
            "its output is to be a regular file that cannot be executed, as its bytes alone are hashed",
        )),
    }
}

fn check_fixed(store: &Store, name: &str, fixed: &FixedOutput, node: &Node) -> Result<()> {
    let actual = match fixed.recursive {
        true => store.nar_hash(node, fixed.algorithm)?,
        false => hash_flat(store, name, fixed.algorithm, node)?,
    };
    if actual.as_bytes() == fixed.hash {
        return Ok(());
    }
    let text = |bytes: &[u8]| format!("{}:{}", fixed.algorithm.as_str(), to_hex(bytes));
    Err(Error::Mismatch { what: name.to_owned(), actual: text(actual.as_bytes()), expected: text(&fixed.hash) })
}

/// The same with other texts in its files, names and links.
fn rewrite(store: &Store, node: &Node, rewrites: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Node> {
    Ok(match node {
        Node::File(file) => {
            let bytes = store.blob(file.blob)?;
            if !contains(&bytes, rewrites) {
                return Ok(node.clone());
            }
            let bytes = replace(&bytes, rewrites);
            let blob = store.put_blob(&bytes, file.metadata.mode & 0o100 != 0)?;
            Node::File(File { blob, size: bytes.len() as u64, metadata: file.metadata.clone() })
        }
        Node::Directory(id) => {
            let tree = store.tree(*id)?;
            let mut entries = BTreeMap::new();
            for (name, node) in &tree.entries {
                let name = Name::new(replace(name.as_bytes(), rewrites)).unwrap_or_else(|_| name.clone());
                entries.insert(name, rewrite(store, node, rewrites)?);
            }
            Node::Directory(store.put_tree(&Tree { metadata: tree.metadata.clone(), entries })?)
        }
        Node::Symlink { target, uid, gid } => Node::Symlink { target: replace(target, rewrites), uid: *uid, gid: *gid },
        node => node.clone(),
    })
}
