//! Earlier artifacts as a cache of compressed pieces.
//!
//! What a piece becomes follows from its content alone, so an image that holds it already is copied from. Where it lies there
//! is remembered beside the store (`docs/formats/squashfs.md`), with the digest of the bytes as stored, a check sum, and what the
//! file's inode said. What is copied is checked: of a file whose inode is as it was, which nobody has written to, by the check sum,
//! which finds what a disk did; of any other by the digest. A piece that is not what it was is made anew. A damaged,
//! replaced or foreign file therefore costs time and never shows in the result.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::data::{UNCOMPRESSED, Written};
use super::plan::{Key, PIECE_LENGTH, Piece, Plan};
use super::{BLOCK_SIZE, SUPERBLOCK_LENGTH};
use crate::encoding::{Reader, Writer};
use crate::format::digest_map::DigestMap;
use crate::format::{Compression, Options, VERSION};
use crate::{DecodeError, Error, Result, Store};

/// What the store keeps of artifacts: where they are, by what they are known again; and of each, under the same name, its pieces.
const CACHE: &str = "artifacts";
const PIECES: &str = "artifact-pieces";
/// How many artifacts are looked at, the latest first.
const MOST: usize = 8;
/// Of so many remembered ones at most: the others may be gone.
const MOST_REMEMBERED: usize = 64;
/// When no more than one piece in so many is missing, no further artifact is looked at.
const FEW: usize = 50;

/// The check sum of a piece as stored.
pub(super) fn sum(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// What tells whether a file was written to: device, inode, size, times of change. The last is set by the kernel alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct State([u64; 7]);

impl State {
    fn of(metadata: &std::fs::Metadata) -> Self {
        let words = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
        let [a, b, c, d] = words.map(i64::cast_unsigned);
        Self([metadata.dev(), metadata.ino(), metadata.size(), a, b, c, d])
    }
}

/// Where a piece lies in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    start: u64,
    pub sizes: Vec<u32>,
    pub digest: [u8; 32],
    pub sum: u32,
}

impl Entry {
    fn length(&self) -> u64 {
        self.sizes.iter().map(|size| u64::from(size & !UNCOMPRESSED)).sum()
    }
}

/// By what an artifact is known again.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Head {
    compression: Compression,
    /// Where the image begins in the artifact.
    base: u64,
    superblock: [u8; SUPERBLOCK_LENGTH],
    /// Of the file when it was whole and in its place.
    state: State,
}

/// What the pieces of an image are, and where they lie.
#[derive(Debug, Clone)]
pub struct Index {
    head: Head,
    entries: DigestMap<Key, Entry>,
}

impl Index {
    pub(super) fn new(
        compression: Compression,
        base: u64,
        superblock: [u8; SUPERBLOCK_LENGTH],
        plan: &Plan,
        written: Vec<Written>,
    ) -> Self {
        let entry = |Written { start, sizes, digest, sum, .. }: Written| Entry { start, sizes, digest, sum };
        let keys = plan.pieces.iter().map(Piece::key);
        let entries = keys.zip(written.into_iter().map(entry)).collect();
        Self { head: Head { compression, base, superblock, state: State::default() }, entries }
    }

    /// Notes that the artifact lies at `path` now. What was noted of that path is forgotten.
    pub(in crate::format) fn remember(&self, store: &Store, path: &Path) -> Result<()> {
        let path = std::path::absolute(path).map_err(Error::file("find", path))?;
        let state = State::of(&path.metadata().map_err(Error::file("look at", &path))?);
        let name = name_of(&path);
        store.put_cached(PIECES, &name, &encode_pieces(&self.head.superblock, &self.entries))?;
        store.put_cached(CACHE, &name, &Head { state, ..self.head.clone() }.encode(&path))
    }
}

impl Head {
    /// Of what decides the bytes of a piece. An index of another version is of no use.
    fn kind(compression: Compression) -> String {
        format!(
            "forge artifact index 2\nversion {VERSION}\n{} {compression}\nblock {BLOCK_SIZE}\n",
            compression.version()
        )
    }

    fn encode(&self, path: &Path) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.bytes(Self::kind(self.compression).as_bytes());
        writer.bytes(path.as_os_str().as_bytes());
        writer.u64(self.base).bytes(&self.superblock);
        for word in self.state.0 {
            writer.u64(word);
        }
        with_check(writer)
    }

    /// The head and the path of its artifact, if it is of this compression.
    fn decode(bytes: &[u8], compression: Compression) -> Result<Option<(Self, PathBuf)>, DecodeError> {
        let mut reader = checked(bytes)?;
        if reader.bytes("index: kind")? != Self::kind(compression).as_bytes() {
            return Ok(None);
        }
        let path = PathBuf::from(OsStr::from_bytes(reader.bytes("index: path")?));
        let base = reader.u64("index: base")?;
        let superblock = superblock(&mut reader)?;
        let mut state = State::default();
        for word in &mut state.0 {
            *word = reader.u64("index: state")?;
        }
        reader.end()?;
        Ok(Some((Self { compression, base, superblock, state }, path)))
    }

    /// Whether a file has the superblock where this says.
    fn is_of(&self, file: &File) -> bool {
        let mut superblock = [0; SUPERBLOCK_LENGTH];
        file.read_exact_at(&mut superblock, self.base).is_ok() && superblock == self.superblock
    }
}

fn encode_pieces(superblock: &[u8], entries: &DigestMap<Key, Entry>) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.bytes(superblock);
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort_unstable_by_key(|(key, entry)| (entry.start, **key));
    writer.count(sorted.len());
    for ((digest, offset), entry) in sorted {
        writer.digest(digest).u64(*offset).u64(entry.start).digest(&entry.digest).u32(entry.sum);
        writer.count(entry.sizes.len());
        for size in &entry.sizes {
            writer.u32(*size);
        }
    }
    with_check(writer)
}

/// The pieces, if they are those of the image with this superblock.
fn decode_pieces(bytes: &[u8], of: &[u8]) -> Result<DigestMap<Key, Entry>, DecodeError> {
    let mut reader = checked(bytes)?;
    if superblock(&mut reader)? != of {
        return Err(reader.bad("index: superblock"));
    }
    let mut entries = DigestMap::default();
    for _ in 0..reader.u32("index: entries")? {
        let key = (reader.digest("index: key")?, reader.u64("index: offset")?);
        let (start, digest) = (reader.u64("index: start")?, reader.digest("index: digest")?);
        let sum = reader.u32("index: sum")?;
        let mut sizes = Vec::new();
        for _ in 0..reader.u32("index: sizes")? {
            sizes.push(reader.u32("index: size")?);
        }
        let bounds = sizes.iter().all(|size| (size & !UNCOMPRESSED) as usize <= BLOCK_SIZE);
        if !bounds || !(1..=PIECE_LENGTH as usize / BLOCK_SIZE).contains(&sizes.len()) {
            return Err(reader.bad("index: sizes"));
        }
        entries.insert(key, Entry { start, sizes, digest, sum });
    }
    reader.end()?;
    Ok(entries)
}

fn superblock(reader: &mut Reader<'_>) -> Result<[u8; SUPERBLOCK_LENGTH], DecodeError> {
    let bytes = reader.bytes("index: superblock")?.try_into();
    bytes.map_err(|_| reader.bad("index: superblock"))
}

/// What was written, and its digest behind it.
fn with_check(writer: Writer) -> Vec<u8> {
    let mut bytes = writer.finish();
    let digest = *blake3::hash(&bytes).as_bytes();
    bytes.extend(digest);
    bytes
}

fn checked(bytes: &[u8]) -> Result<Reader<'_>, DecodeError> {
    match bytes.split_last_chunk::<32>() {
        Some((bytes, digest)) if blake3::hash(bytes) == *digest => Ok(Reader::new(bytes)),
        _ => Err(Reader::new(bytes).bad("index: check sum")),
    }
}

fn name_of(path: &Path) -> String {
    blake3::hash(path.as_os_str().as_bytes()).to_hex().to_string()
}

/// The path in the head of an index of any kind.
fn path_of(bytes: &[u8]) -> Option<PathBuf> {
    let mut reader = Reader::new(bytes);
    reader.bytes("index: kind").ok()?;
    Some(PathBuf::from(OsStr::from_bytes(reader.bytes("index: path").ok()?)))
}

/// Forgets artifacts that lie no longer where they were written.
pub(crate) fn forget_lost(store: &Store) -> Result<()> {
    for name in store.cached(CACHE)? {
        let path = store.read_cached(CACHE, &name)?.as_deref().and_then(path_of);
        if !path.is_some_and(|path| path.exists()) {
            store.drop_cached(CACHE, &name)?;
        }
    }
    let kept = store.cached(CACHE)?;
    for name in store.cached(PIECES)?.iter().filter(|name| !kept.contains(name)) {
        store.drop_cached(PIECES, name)?;
    }
    Ok(())
}

/// An artifact that the store remembers.
struct Remembered {
    head: Head,
    path: PathBuf,
    name: String,
}

/// An earlier artifact that can be copied from.
#[derive(Debug)]
pub(super) struct Previous {
    file: File,
    /// Whether its inode says that it is as it was written.
    is_untouched: bool,
    index: Index,
}

impl Previous {
    /// What can be copied from: the artifacts asked for, then those that the store remembers, until hardly a piece is missing.
    pub fn all(store: &Store, options: &Options, plan: &Plan) -> Result<Vec<Self>> {
        if options.from.is_empty() && !options.remembered {
            return Ok(Vec::new());
        }
        let mut remembered = Vec::new();
        for name in store.cached(CACHE)? {
            let bytes = store.read_cached(CACHE, &name)?;
            // A damaged index is as good as none.
            let head = bytes.and_then(|bytes| Head::decode(&bytes, options.compression).ok().flatten());
            remembered.extend(head.map(|(head, path)| Remembered { head, path, name }));
            if remembered.len() >= MOST_REMEMBERED {
                break;
            }
        }
        let mut chosen = Vec::new();
        for path in &options.from {
            // It may have been moved since it was written.
            let file = File::open(path).map_err(Error::file("open", path))?;
            let position = remembered.iter().position(|remembered| remembered.head.is_of(&file));
            let Some(position) = position else { return Err(Error::Unremembered { path: path.clone() }) };
            chosen.push((file, remembered.swap_remove(position)));
        }
        if options.remembered {
            let opened = |remembered: Remembered| {
                // What was replaced meanwhile by a pipe is not waited for.
                let path = &remembered.path;
                let file = path.metadata().ok()?.is_file().then(|| File::open(path).ok())??;
                remembered.head.is_of(&file).then_some((file, remembered))
            };
            chosen.extend(remembered.into_iter().filter_map(opened).take(MOST));
        }
        let mut all: Vec<Self> = Vec::new();
        let mut missing: Vec<Key> = plan.pieces.iter().map(Piece::key).collect();
        for (file, Remembered { head, name, .. }) in chosen {
            if missing.len() <= plan.pieces.len() / FEW {
                break;
            }
            let bytes = store.read_cached(PIECES, &name)?;
            let entries = bytes.and_then(|bytes| decode_pieces(&bytes, &head.superblock).ok());
            let Some(entries) = entries else { continue };
            let before = missing.len();
            missing.retain(|key| !entries.contains_key(key));
            if missing.len() < before {
                let is_untouched = file.metadata().is_ok_and(|metadata| State::of(&metadata) == head.state);
                all.push(Self { file, is_untouched, index: Index { head, entries } });
            }
        }
        Ok(all)
    }

    pub fn find(&self, key: &Key) -> Option<Found<'_>> {
        self.index.entries.get(key).map(|entry| Found { previous: self, entry })
    }
}

/// A piece in an earlier artifact.
#[derive(Debug, Clone)]
pub(super) struct Found<'a> {
    previous: &'a Previous,
    pub entry: &'a Entry,
}

impl Found<'_> {
    /// How many bytes it takes.
    pub fn length(&self) -> u64 {
        self.entry.length()
    }

    /// Whether the other follows it without a gap.
    pub fn is_before(&self, other: &Self) -> bool {
        std::ptr::eq(self.previous, other.previous) && self.entry.start + self.length() == other.entry.start
    }

    /// Reads from where it begins.
    pub fn read(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.previous.file.read_exact_at(bytes, self.previous.index.head.base + self.entry.start)
    }

    /// Whether these bytes, which were read there, are the piece.
    pub fn is(&self, bytes: &[u8]) -> bool {
        match self.previous.is_untouched {
            true => sum(bytes) == self.entry.sum,
            false => blake3::hash(bytes) == self.entry.digest,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const SUPERBLOCK: [u8; SUPERBLOCK_LENGTH] = [5; SUPERBLOCK_LENGTH];

    fn pieces() -> HashMap<Key, Entry> {
        let entry =
            |start, sizes: &[u32]| Entry { start, sizes: sizes.to_vec(), digest: [start as u8; 32], sum: start as u32 };
        HashMap::from([
            (([1; 32], 0), entry(98, &[7, 0, UNCOMPRESSED | 131_072])),
            (([2; 32], u64::MAX), entry(3, &[9])),
        ])
    }

    #[test]
    fn an_index_is_read_as_it_was_written_and_never_when_it_was_damaged() {
        let path = Path::new("/some/where");
        let compression = Compression::default();
        let head = Head { compression, base: 4096, superblock: SUPERBLOCK, state: State([1, 2, 3, 4, 5, 6, 7]) };
        let bytes = head.encode(path);
        assert_eq!(path_of(&bytes).as_deref(), Some(path));
        assert_eq!(Head::decode(&bytes, compression), Ok(Some((head, path.to_owned()))));
        assert_eq!(Head::decode(&bytes, Compression::Zstd(4)), Ok(None));
        damaged(&bytes, |bytes| matches!(Head::decode(bytes, compression), Ok(Some(_))));

        let bytes = encode_pieces(&SUPERBLOCK, &pieces().into_iter().collect());
        let read = decode_pieces(&bytes, &SUPERBLOCK).map(|entries| entries.into_iter().collect());
        assert_eq!(read, Ok(pieces()));
        assert!(decode_pieces(&bytes, &[6; SUPERBLOCK_LENGTH]).is_err(), "of another image");
        damaged(&bytes, |bytes| decode_pieces(bytes, &SUPERBLOCK).is_ok());
    }

    fn damaged(bytes: &[u8], is_read: impl Fn(&[u8]) -> bool) {
        for position in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[position] ^= 0x10;
            assert!(!is_read(&damaged), "a changed byte {position} went unnoticed");
            assert!(!is_read(&bytes[..position]), "{position} bytes are enough");
        }
    }
}
