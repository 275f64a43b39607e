//! Where the parts of an image lie: a layout (a directory or a tar), skopeo's `dir:`, an archive of `docker save`.
//!
//! Nothing here is believed: sizes are bounded, and every part is hashed as it is read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::descriptor::{Descriptor, Digest, Hasher};
use crate::format::tar::read::{Archive, Kind};
use crate::format::{Artifact, compression, unpacked};
use crate::{Error, Result, Store};

/// Indexes, manifests and configurations are read into memory; registries take manifests of 4 MiB.
const MOST_JSON: u64 = 8 << 20;
/// Entries of an archive: images have some hundred layers at most.
const MOST_ENTRIES: usize = 100_000;

/// How the parts are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrangement {
    /// `index.json` and `blobs/ALGORITHM/HEX`.
    Layout,
    /// `manifest.json` is the manifest, and parts lie beside it under their digits: what `skopeo copy` calls `dir:`.
    Flat,
    /// `manifest.json` is a list of file names: what `docker save` writes.
    Docker,
}

/// Files by name: of a directory, of a tar, or of a registry.
pub struct Parts<'a> {
    from: String,
    /// How they are found.
    pub arrangement: Arrangement,
    place: Place<'a>,
}

enum Place<'a> {
    Directory(PathBuf),
    Archive { file: File, files: BTreeMap<Vec<u8>, (u64, u64)> },
    Elsewhere(&'a dyn Elsewhere),
}

/// Where parts are fetched from when they are asked for. What it gives is compared with its digest here too.
pub trait Elsewhere: Sync {
    /// The index of a layout that has just what is meant.
    fn index(&self) -> Vec<u8>;
    /// A manifest, index or configuration.
    fn small(&self, descriptor: &Descriptor, is_manifest: bool) -> Result<Vec<u8>>;
    /// These layers will be asked for, in this order.
    fn expect(&self, layers: &[Descriptor]);
    /// A layer; waits for it.
    fn layer(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + '_>>;
}

/// Whether an artifact has parts of an image.
pub fn recognises(artifact: &Artifact) -> bool {
    if artifact.is_directory() {
        return arrangement_of(artifact.path()).is_some();
    }
    if compression(artifact.head()).is_some() {
        // What can only be read front to back is judged by its first entry.
        let Ok((_, reader)) = unpacked(artifact.reader()) else { return false };
        return matches!(Archive::new(reader).next(), Ok(Some(entry)) if is_part(&entry.path));
    }
    match artifact.file().map(|file| list(file, artifact.size())) {
        Some(Ok(files)) => arrangement(&|name| files.contains_key(name.as_bytes())).is_some(),
        _ => false,
    }
}

fn is_part(path: &[u8]) -> bool {
    let path = path.strip_prefix(b"./").unwrap_or(path);
    let hex = path.len() > 64 && path[..64].iter().all(u8::is_ascii_hexdigit) && matches!(path[64], b'.' | b'/');
    hex || path.starts_with(b"blobs/")
        || [&b"oci-layout"[..], b"index.json", b"manifest.json", b"blobs"].contains(&path)
}

fn arrangement(has: &dyn Fn(&str) -> bool) -> Option<Arrangement> {
    // Docker's archives of today are layouts too.
    match () {
        () if has("index.json") && has("oci-layout") => Some(Arrangement::Layout),
        () if has("manifest.json") && has("version") => Some(Arrangement::Flat),
        () if has("manifest.json") => Some(Arrangement::Docker),
        () => None,
    }
}

fn arrangement_of(directory: &Path) -> Option<Arrangement> {
    arrangement(&|name| directory.join(name).is_file())
}

impl<'a> Parts<'a> {
    /// Parts that are fetched. `from` is for messages.
    pub fn elsewhere(from: String, place: &'a dyn Elsewhere) -> Self {
        Self { from, arrangement: Arrangement::Layout, place: Place::Elsewhere(place) }
    }

    /// Where they are fetched from, if they are.
    pub fn fetched(&self) -> Option<&'a dyn Elsewhere> {
        match self.place {
            Place::Elsewhere(place) => Some(place),
            _ => None,
        }
    }

    /// Looks where everything is. What is compressed as a whole is unpacked to a file of the store's first.
    pub fn open(artifact: &Artifact, store: Option<&Store>) -> Result<Self> {
        let from = artifact.path().display().to_string();
        let missing = || artifact.bad("OCI", "it has neither index.json nor manifest.json");
        if artifact.is_directory() {
            let arrangement = arrangement_of(artifact.path()).ok_or_else(missing)?;
            return Ok(Self { from, arrangement, place: Place::Directory(artifact.path().to_owned()) });
        }
        let Some(file) = artifact.file() else { return Err(missing()) };
        let (file, size) = if compression(artifact.head()).is_some() {
            let Some(store) = store else {
                return Err(artifact.bad("OCI", "it is compressed as a whole: unpack it first, or import it"));
            };
            unpack_whole(artifact, store)?
        } else {
            (file.try_clone().map_err(Error::file("read", artifact.path()))?, artifact.size())
        };
        let files = list(&file, size).map_err(|reason| artifact.bad("OCI", reason))?;
        let arrangement = arrangement(&|name| files.contains_key(name.as_bytes())).ok_or_else(missing)?;
        Ok(Self { from, arrangement, place: Place::Archive { file, files } })
    }

    /// The error that says what is wrong.
    pub fn bad(&self, reason: impl Into<String>) -> Error {
        Error::Archive { from: self.from.clone(), format: "OCI", reason: reason.into() }
    }

    /// Where all of it came from, for messages.
    pub fn from(&self) -> &str {
        &self.from
    }

    /// A file by its name, and its size; none if it is not there.
    pub fn file(&self, name: &str) -> Result<Option<(Box<dyn Read + '_>, u64)>> {
        match &self.place {
            Place::Directory(directory) => {
                let path = directory.join(name);
                // A named pipe would be waited for.
                match fs::metadata(&path) {
                    Ok(metadata) if metadata.is_file() => {
                        let file = File::open(&path).map_err(Error::file("open", &path))?;
                        Ok(Some((Box::new(file), metadata.len())))
                    }
                    Ok(_) => Err(self.bad(format!("`{name}` is not a file"))),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(Error::file("look at", path)(error)),
                }
            }
            Place::Archive { file, files } => Ok(files.get(name.as_bytes()).map(|(offset, size)| {
                let range = Range { file, position: *offset, end: offset + size };
                (Box::new(range) as Box<dyn Read + '_>, *size)
            })),
            Place::Elsewhere(place) if name == "index.json" => {
                let index = place.index();
                let size = index.len() as u64;
                Ok(Some((Box::new(io::Cursor::new(index)), size)))
            }
            Place::Elsewhere(_) => Ok(None),
        }
    }

    /// Where a part with this digest is.
    fn name_of(&self, digest: &Digest, is_manifest: bool) -> String {
        match self.arrangement {
            Arrangement::Layout => format!("blobs/{}/{}", digest.algorithm(), digest.hex()),
            Arrangement::Flat if is_manifest => format!("{}.manifest.json", digest.hex()),
            Arrangement::Flat | Arrangement::Docker => digest.hex(),
        }
    }

    /// A part as a stream that is hashed as it is read: see [`Checked::end`].
    pub fn stream(&self, descriptor: &Descriptor) -> Result<Checked<Box<dyn Read + '_>>> {
        if let Place::Elsewhere(place) = self.place {
            return Ok(Checked::new(place.layer(descriptor)?, &descriptor.digest));
        }
        let name = self.name_of(&descriptor.digest, false);
        let Some((reader, size)) = self.file(&name)? else {
            return Err(self.bad(format!("{} is not in it", descriptor.digest)));
        };
        if size != descriptor.size {
            let digest = &descriptor.digest;
            return Err(self.bad(format!("{digest} has {size} bytes, and should have {}", descriptor.size)));
        }
        Ok(Checked::new(reader, &descriptor.digest))
    }

    /// A small part, whole and checked.
    pub fn bytes(&self, descriptor: &Descriptor, is_manifest: bool) -> Result<Vec<u8>> {
        let name = self.name_of(&descriptor.digest, is_manifest);
        let bytes = match self.place {
            Place::Elsewhere(_) if descriptor.size > MOST_JSON => {
                let size = descriptor.size;
                return Err(self.bad(format!("`{name}` has {size} bytes: more than can be a manifest")));
            }
            Place::Elsewhere(place) => Some(place.small(descriptor, is_manifest)?),
            _ => self.whole_file(&name)?,
        };
        let Some(bytes) = bytes else {
            return Err(self.bad(format!("{} is not in it", descriptor.digest)));
        };
        let mut hasher = descriptor.digest.hasher();
        hasher.update(&bytes);
        self.compare(&name, hasher.finish(), descriptor.digest)?;
        if bytes.len() as u64 != descriptor.size {
            return Err(self.bad(format!("`{name}` has {} bytes, and should have {}", bytes.len(), descriptor.size)));
        }
        Ok(bytes)
    }

    /// A small file, whole.
    pub fn whole_file(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some((reader, size)) = self.file(name)? else { return Ok(None) };
        if size > MOST_JSON {
            return Err(self.bad(format!("`{name}` has {size} bytes: more than can be a manifest")));
        }
        let mut bytes = Vec::with_capacity(size as usize);
        // It may have grown since.
        reader
            .take(MOST_JSON)
            .read_to_end(&mut bytes)
            .map_err(Error::file("read", Path::new(&self.from).join(name)))?;
        Ok(Some(bytes))
    }

    /// Fails if a digest is another than expected.
    pub fn compare(&self, what: &str, actual: Digest, expected: Digest) -> Result<()> {
        if actual == expected {
            return Ok(());
        }
        let (actual, expected) = (actual.to_string(), expected.to_string());
        Err(Error::Mismatch { from: format!("{}: {what}", self.from), actual, expected })
    }
}

/// The files of a tar by name, with place and size. Only headers are read; links between files count as the files.
fn list(file: &File, size: u64) -> Result<BTreeMap<Vec<u8>, (u64, u64)>, &'static str> {
    let mut files = BTreeMap::new();
    let mut links = Vec::new();
    let mut position = 0;
    loop {
        let range = Range { file, position, end: size };
        let mut archive = Archive::new(Counting { reader: range, count: 0 });
        let entry = match archive.next() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(_) if position == size && position > 0 => break,
            Err(_) => return Err("it is no tar archive, or cut short"),
        };
        let start = position + archive.into_inner().count;
        if files.len() + links.len() >= MOST_ENTRIES {
            return Err("it has too many entries");
        }
        let path = entry.path.strip_prefix(b"./").unwrap_or(&entry.path).to_vec();
        let end = start.checked_add(entry.size).filter(|end| *end <= size).ok_or("it is cut short")?;
        match entry.kind {
            Kind::File => _ = files.insert(path, (start, entry.size)),
            Kind::Symlink => links.push((path.clone(), beside(&path, &entry.target))),
            Kind::HardLink => links.push((path, entry.target)),
            _ => {}
        }
        position = end.next_multiple_of(512);
    }
    for (path, target) in links {
        if let Some(found) = files.get(&target).copied() {
            files.entry(path).or_insert(found);
        }
    }
    Ok(files)
}

/// `a/layer.tar` and `../b/layer.tar` are `b/layer.tar`.
fn beside(path: &[u8], target: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    parts.pop();
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

/// Unpacks an archive that is compressed as a whole into a file without a name.
fn unpack_whole(artifact: &Artifact, store: &Store) -> Result<(File, u64)> {
    let scratch = store.scratch()?;
    let path = scratch.path().join("archive");
    let mut file =
        File::options().read(true).write(true).create_new(true).open(&path).map_err(Error::file("create", &path))?;
    let most = crate::format::Bounds::for_size(artifact.size()).bytes;
    let unreadable = |error: io::Error| artifact.bad("OCI", error.to_string());
    let (_, reader) = unpacked(artifact.reader()).map_err(unreadable)?;
    let size = io::copy(&mut reader.take(most), &mut file).map_err(unreadable)?;
    if size == most {
        return Err(artifact.bad("OCI", "it holds more bytes than are allowed"));
    }
    // The file lives as long as it is open; its directory goes now.
    drop(scratch);
    Ok((file, size))
}

struct Range<'a> {
    file: &'a File,
    position: u64,
    end: u64,
}

impl Read for Range<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        let length = self.file.read_at(&mut buffer[..length], self.position)?;
        self.position += length as u64;
        Ok(length)
    }
}

struct Counting<R> {
    reader: R,
    count: u64,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.count += length as u64;
        Ok(length)
    }
}

/// Hashes what is read.
pub struct Checked<R> {
    reader: R,
    hasher: Hasher,
}

impl<R: Read> Checked<R> {
    /// By the algorithm of this digest.
    pub fn new(reader: R, digest: &Digest) -> Self {
        Self { reader, hasher: digest.hasher() }
    }

    /// Reads what is left, and gives the digest of all.
    pub fn end(mut self) -> io::Result<Digest> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(self.hasher.finish())
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        Ok(length)
    }
}
