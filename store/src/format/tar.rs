//! A tar stream: what every tool reads.
//!
//! POSIX.1-2001 (pax): a `ustar` header per entry, sorted by path, and an extended header only for what that cannot say (long
//! or large values, extended attributes). A global header's `comment` carries the formation's encoding in hexadecimal.
//! Reading takes what anyone wrote, compressed or not: [`read`] and [`unpack`].

use std::io::{Read, Write};
use std::os::unix::fs::FileExt;

use super::{
    Artifact, Bounds, Format, Growing, Imported, Inspection, Links, Options, TIME, compression, read_full, unpacked,
    write_failed,
};
use crate::digest::{from_hex, to_hex};
use crate::{BlobId, Error, Formation, FormationId, Metadata, Name, Node, Result, Store, TreeId};

pub mod read;
pub mod unpack;

/// `tar`
pub struct Tar;

/// What the comment of our archives begins with; the formation's encoding in hexadecimal follows.
const COMMENT: &str = "forge formation ";
/// How much of a content is read at a time: it is hashed and passed on while it is in the processor's cache.
const PART: usize = 128 * 1024;

impl Format for Tar {
    fn name(&self) -> &'static str {
        "tar"
    }

    fn extension(&self) -> &'static str {
        "tar"
    }

    fn pack(&self, store: &Store, formation: FormationId, _: &Options, output: &mut dyn Write) -> Result<()> {
        let formation = store.formation(formation)?;
        let mut packer = Packer::new(store, output);
        let comment = format!("{COMMENT}{}", to_hex(&formation.encode()));
        let records = record(b"comment", comment.as_bytes());
        packer.extended(b'g', &records)?;
        packer.directory(&mut Vec::new(), formation.root)?;
        // Two empty blocks end an archive.
        packer.write(&[0; 1024])
    }

    fn recognises(&self, artifact: &Artifact) -> bool {
        if compression(artifact.head()).is_none() {
            return read::is_header(artifact.head());
        }
        let mut block = [0; 512];
        let first = unpacked(artifact.reader()).and_then(|(_, mut reader)| read_full(&mut reader, &mut block));
        first.is_ok() && read::is_header(&block)
    }

    fn inspect(&self, artifact: &Artifact) -> Result<Inspection> {
        let from = artifact.path().display().to_string();
        let (kind, reader) = unpacked(artifact.reader()).map_err(|error| unpack::unreadable(&from, error))?;
        let mut archive = read::Archive::new(reader);
        match archive.next() {
            Ok(_) => {}
            Err(read::Problem::Damaged(reason)) => return Err(artifact.bad("tar", reason)),
            Err(read::Problem::Read(error)) => return Err(unpack::unreadable(&from, error)),
        }
        let formation = formation(archive.comment(), &from)?;
        let (size, compression) = (artifact.size(), kind.unwrap_or("none").to_owned());
        Ok(Inspection { format: "tar", size, compression, formation, ..Inspection::default() })
    }

    fn read(&self, store: &Store, artifact: &Artifact, bounds: &Bounds) -> Result<Imported> {
        read_stream(store, &mut artifact.reader(), &artifact.path().display().to_string(), bounds)
    }
}

/// Takes in an archive, compressed or not, as it comes. `from` is for messages.
pub fn read_stream(store: &Store, reader: &mut dyn Read, from: &str, bounds: &Bounds) -> Result<Imported> {
    let (_, reader) = unpacked(reader).map_err(|error| unpack::unreadable(from, error))?;
    let mut archive = read::Archive::new(reader);
    let mut unpacker = unpack::Unpacker::new(store, from, bounds, Growing::new(Links::Refuse));
    unpacker.all(&mut archive)?;
    let (growing, dropped) = unpacker.finish()?;
    let formation = formation(archive.comment(), from)?;
    Ok(Imported { formation, dropped, ..Imported::bare(growing.finish(store)?) })
}

/// The formation that a comment has the encoding of.
fn formation(comment: Option<&[u8]>, from: &str) -> Result<Option<Formation>> {
    let Some(text) = comment.and_then(|comment| comment.strip_prefix(COMMENT.as_bytes())) else { return Ok(None) };
    let bad = |reason: String| Error::Archive { from: from.to_owned(), format: "tar", reason };
    let encoded = std::str::from_utf8(text).ok().and_then(from_hex);
    let encoded = encoded.ok_or_else(|| bad("what it says of its formation is cut short".to_owned()))?;
    let decoded = Formation::decode(&encoded);
    Ok(Some(decoded.map_err(|error| bad(format!("what it says of its formation is damaged: {error}")))?))
}

/// Writes entries one after the other.
pub(in crate::format) struct Packer<'a> {
    pub store: &'a Store,
    pub output: &'a mut dyn Write,
    /// For contents on their way.
    buffer: Vec<u8>,
}

/// One entry's header.
struct Entry<'a> {
    path: &'a [u8],
    kind: u8,
    metadata: &'a Metadata,
    size: u64,
    target: &'a [u8],
    device: (u32, u32),
}

impl<'a> Packer<'a> {
    pub fn new(store: &'a Store, output: &'a mut dyn Write) -> Self {
        Self { store, output, buffer: vec![0; PART] }
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.output.write_all(bytes).map_err(write_failed)
    }

    fn directory(&mut self, path: &mut Vec<u8>, id: TreeId) -> Result<()> {
        let tree = self.store.tree(id)?;
        self.directory_header(path, &tree.metadata)?;
        for (name, node) in &tree.entries {
            let length = path.len();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(Name::as_bytes(name));
            self.node(path, node)?;
            path.truncate(length);
        }
        Ok(())
    }

    /// A directory without what is in it.
    pub fn directory_header(&mut self, path: &[u8], metadata: &Metadata) -> Result<()> {
        let path = if path.is_empty() { b"./".to_vec() } else { [path, b"/"].concat() };
        self.header(&Entry { path: &path, kind: b'5', metadata, size: 0, target: b"", device: (0, 0) })
    }

    /// The header of a file of root's; so many bytes and [`Packer::pad`] are to follow.
    pub fn file(&mut self, path: &[u8], size: u64) -> Result<()> {
        let metadata = Metadata::root(0o644);
        self.header(&Entry { path, kind: b'0', metadata: &metadata, size, target: b"", device: (0, 0) })
    }

    pub fn node(&mut self, path: &mut Vec<u8>, node: &Node) -> Result<()> {
        let (target, device) = (&b""[..], (0, 0));
        match node {
            Node::Directory(id) => self.directory(path, *id),
            Node::File(file) => {
                let metadata = &file.metadata;
                self.header(&Entry { path, kind: b'0', metadata, size: file.size, target, device })?;
                let wrong = |actual: String| Error::Mismatch {
                    from: format!("blob {}", file.blob.short()),
                    actual,
                    expected: file.blob.to_string(),
                };
                let blob = self.store.open_blob_of(file.blob, metadata.mode & 0o111 != 0)?;
                let mut hasher = blake3::Hasher::new();
                let mut position = 0;
                while position < file.size {
                    let wanted = usize::try_from(file.size - position).unwrap_or(usize::MAX).min(PART);
                    let part = &mut self.buffer[..wanted];
                    blob.read_exact_at(part, position).map_err(|error| match error.kind() {
                        std::io::ErrorKind::UnexpectedEof => wrong("a shorter content".to_owned()),
                        _ => Error::File { action: "read", path: format!("blob {}", file.blob).into(), source: error },
                    })?;
                    hasher.update(part);
                    self.output.write_all(part).map_err(write_failed)?;
                    position += wanted as u64;
                }
                // Too late for whoever reads the pipe; but he learns that it failed, and a file gets no name.
                let actual = BlobId::from_bytes(*hasher.finalize().as_bytes());
                if actual != file.blob {
                    return Err(wrong(actual.to_string()));
                }
                self.pad(file.size)
            }
            Node::Symlink { target, uid, gid } => {
                let metadata = Metadata { uid: *uid, gid: *gid, ..Metadata::root(0o777) };
                self.header(&Entry { path, kind: b'2', metadata: &metadata, size: 0, target, device })
            }
            Node::Fifo(metadata) => self.header(&Entry { path, kind: b'6', metadata, size: 0, target, device }),
            Node::Device { block, major, minor, metadata } => {
                let kind = if *block { b'4' } else { b'3' };
                self.header(&Entry { path, kind, metadata, size: 0, target, device: (*major, *minor) })
            }
        }
    }

    /// Fills the last block of a content of this length.
    pub fn pad(&mut self, length: u64) -> Result<()> {
        let rest = (length % 512) as usize;
        if rest == 0 { Ok(()) } else { self.write(&[0; 512][rest..]) }
    }

    fn header(&mut self, entry: &Entry<'_>) -> Result<()> {
        let (prefix, name) = split_path(entry.path);
        let mut records = Vec::new();
        if name.len() > 100 {
            records.extend(record(b"path", entry.path));
        }
        if entry.target.len() > 100 {
            records.extend(record(b"linkpath", entry.target));
        }
        for (key, value, digits) in [
            ("size", entry.size, 11),
            ("uid", u64::from(entry.metadata.uid), 7),
            ("gid", u64::from(entry.metadata.gid), 7),
        ] {
            if value >= 1 << (3 * digits) {
                records.extend(record(key.as_bytes(), value.to_string().as_bytes()));
            }
        }
        for (name, value) in &entry.metadata.attributes {
            records.extend(record(&read::attribute_key(name), value));
        }
        if !records.is_empty() {
            self.extended(b'x', &records)?;
        }
        self.block(entry, prefix, name)
    }

    fn extended(&mut self, kind: u8, records: &[u8]) -> Result<()> {
        let metadata = Metadata::root(0o644);
        let size = records.len() as u64;
        let entry = Entry { path: b"", kind, metadata: &metadata, size, target: b"", device: (0, 0) };
        self.block(&entry, b"", b"././@PaxHeader")?;
        self.write(records)?;
        self.pad(size)
    }

    /// The 512 bytes of a `ustar` header. What does not fit is in the extended header before it, and cut short here.
    fn block(&mut self, entry: &Entry<'_>, prefix: &[u8], name: &[u8]) -> Result<()> {
        let mut block = [0_u8; 512];
        let mut text = |offset: usize, length: usize, value: &[u8]| {
            let length = length.min(value.len());
            block[offset..offset + length].copy_from_slice(&value[..length]);
        };
        let octal = |value: u64, digits: usize| {
            let largest = (1 << (3 * digits)) - 1;
            format!("{:0digits$o}", if value > largest { 0 } else { value }).into_bytes()
        };
        text(0, 100, name);
        text(100, 8, &octal(u64::from(entry.metadata.mode), 7));
        text(108, 8, &octal(u64::from(entry.metadata.uid), 7));
        text(116, 8, &octal(u64::from(entry.metadata.gid), 7));
        text(124, 12, &octal(entry.size, 11));
        text(136, 12, &octal(u64::from(TIME), 11));
        text(148, 8, b"        ");
        text(156, 1, &[entry.kind]);
        text(157, 100, entry.target);
        text(257, 8, b"ustar\x0000");
        text(329, 8, &octal(u64::from(entry.device.0), 7));
        text(337, 8, &octal(u64::from(entry.device.1), 7));
        text(345, 155, prefix);
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        block[148..155].copy_from_slice(&[&octal(sum, 6)[..], b"\0"].concat());
        self.write(&block)
    }
}

/// `prefix` and `name` of a ustar header: split at a slash so that both fit, else all in `name`, which is then too long.
fn split_path(path: &[u8]) -> (&[u8], &[u8]) {
    if path.len() <= 100 {
        return (b"", path);
    }
    let fits = |at: &usize| path[*at] == b'/' && *at > 0 && path.len() - at - 1 <= 100 && *at + 1 < path.len();
    match (0..path.len().min(156)).find(fits) {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// A pax record: its own length in decimal, a blank, `key=value`, a line feed.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    if length.to_string().len() > rest.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_itself() {
        for length in [0, 1, 80, 86, 87, 88, 89, 90, 980, 985, 986, 987, 988, 989, 990, 10_000] {
            let record = record(b"path", &vec![b'x'; length]);
            let digits = record.iter().position(|byte| *byte == b' ').unwrap();
            assert_eq!(std::str::from_utf8(&record[..digits]).unwrap(), record.len().to_string());
        }
    }

    #[test]
    fn long_paths_are_split_where_both_parts_fit() {
        let path = [vec![b'a'; 90], vec![b'/'], vec![b'b'; 90]].concat();
        let (prefix, name) = split_path(&path);
        assert_eq!((prefix.len(), name.len()), (90, 90));
        assert_eq!(split_path(&[b'x'; 101]).1.len(), 101);
        assert_eq!(split_path(&[b'x'; 100]), (&b""[..], &[b'x'; 100][..]));
    }
}
