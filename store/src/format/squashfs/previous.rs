//! Earlier artifacts as a cache of compressed pieces.
//!
//! What a piece becomes follows from its content alone, so an image that holds it already is copied from. Where it lies there
//! is remembered in an index beside the store (`docs/formats/squashfs.md`), with the digest of the bytes as stored: what is
//! copied is hashed, and a piece that is not what it was is made anew. A damaged, replaced or foreign file therefore costs
//! time and never shows in the result.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::data::{UNCOMPRESSED, Written};
use super::plan::{Key, PIECE_LENGTH, Piece, Plan};
use super::{BLOCK_SIZE, SUPERBLOCK_LENGTH};
use crate::encoding::{Reader, Writer};
use crate::format::{Compression, Options, VERSION};
use crate::{DecodeError, Error, Result, Store};

/// Names that the store keeps indexes under.
const CACHE: &str = "artifacts";
/// How many artifacts are looked at, the latest first.
const MOST: usize = 8;

/// Where a piece lies in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    start: u64,
    pub sizes: Vec<u32>,
    pub digest: [u8; 32],
}

impl Entry {
    fn length(&self) -> u64 {
        self.sizes.iter().map(|size| u64::from(size & !UNCOMPRESSED)).sum()
    }
}

/// What the pieces of an image are, and where they lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    compression: Compression,
    /// Where the image begins in the artifact.
    base: u64,
    /// By which the artifact is known again.
    superblock: [u8; SUPERBLOCK_LENGTH],
    entries: HashMap<Key, Entry>,
}

impl Index {
    pub(super) fn new(
        compression: Compression,
        base: u64,
        superblock: [u8; SUPERBLOCK_LENGTH],
        plan: &Plan,
        written: Vec<Written>,
    ) -> Self {
        let entry = |written: Written| Entry { start: written.start, sizes: written.sizes, digest: written.digest };
        let keys = plan.pieces.iter().map(Piece::key);
        let entries = keys.zip(written.into_iter().map(entry)).collect();
        Self { compression, base, superblock, entries }
    }

    /// Of what decides the bytes of a piece. An index of another version is of no use.
    fn kind(compression: Compression) -> String {
        format!(
            "forge artifact index 1\nversion {VERSION}\n{} {compression}\nblock {BLOCK_SIZE}\n",
            compression.version()
        )
    }

    fn encode(&self, path: &Path) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.bytes(Self::kind(self.compression).as_bytes());
        writer.bytes(path.as_os_str().as_bytes());
        writer.u64(self.base).bytes(&self.superblock);
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_unstable_by_key(|(key, entry)| (entry.start, **key));
        writer.count(entries.len());
        for ((digest, offset), entry) in entries {
            writer.digest(digest).u64(*offset).u64(entry.start).digest(&entry.digest).count(entry.sizes.len());
            for size in &entry.sizes {
                writer.u32(*size);
            }
        }
        let mut bytes = writer.finish();
        let digest = *blake3::hash(&bytes).as_bytes();
        bytes.extend(digest);
        bytes
    }

    /// The index and the path of its artifact, if it is of this compression.
    fn decode(bytes: &[u8], compression: Compression) -> Result<Option<(Self, PathBuf)>, DecodeError> {
        let Some((bytes, digest)) = bytes.split_last_chunk::<32>() else {
            return Err(Reader::new(bytes).bad("index: length"));
        };
        let mut reader = Reader::new(bytes);
        if reader.bytes("index: kind")? != Self::kind(compression).as_bytes() {
            return Ok(None);
        }
        if blake3::hash(bytes) != *digest {
            return Err(reader.bad("index: check sum"));
        }
        let path = PathBuf::from(OsStr::from_bytes(reader.bytes("index: path")?));
        let base = reader.u64("index: base")?;
        let superblock = reader.bytes("index: superblock")?.try_into();
        let superblock = superblock.map_err(|_| reader.bad("index: superblock"))?;
        let mut entries = HashMap::new();
        for _ in 0..reader.u32("index: entries")? {
            let key = (reader.digest("index: key")?, reader.u64("index: offset")?);
            let (start, digest) = (reader.u64("index: start")?, reader.digest("index: digest")?);
            let mut sizes = Vec::new();
            for _ in 0..reader.u32("index: sizes")? {
                sizes.push(reader.u32("index: size")?);
            }
            let bounds = sizes.iter().all(|size| (size & !UNCOMPRESSED) as usize <= BLOCK_SIZE);
            if !bounds || !(1..=PIECE_LENGTH as usize / BLOCK_SIZE).contains(&sizes.len()) {
                return Err(reader.bad("index: sizes"));
            }
            entries.insert(key, Entry { start, sizes, digest });
        }
        reader.end()?;
        Ok(Some((Self { compression, base, superblock, entries }, path)))
    }

    /// Notes that the artifact lies at `path` now. What was noted of that path is forgotten.
    pub(in crate::format) fn remember(&self, store: &Store, path: &Path) -> Result<()> {
        let path = std::path::absolute(path).map_err(Error::file("find", path))?;
        store.put_cached(CACHE, &name_of(&path), &self.encode(&path))
    }
}

fn name_of(path: &Path) -> String {
    blake3::hash(path.as_os_str().as_bytes()).to_hex().to_string()
}

/// The path in an index of any kind.
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
    Ok(())
}

/// An earlier artifact that can be copied from.
#[derive(Debug)]
pub(super) struct Previous {
    file: File,
    index: Index,
}

impl Previous {
    /// What can be copied from: the artifacts asked for, then those that the store remembers.
    pub fn all(store: &Store, options: &Options) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        if options.from.is_empty() && !options.remembered {
            return Ok(all);
        }
        let mut indexes = Vec::new();
        for name in store.cached(CACHE)? {
            let bytes = store.read_cached(CACHE, &name)?;
            // A damaged index is as good as none.
            indexes.extend(bytes.and_then(|bytes| Index::decode(&bytes, options.compression).ok().flatten()));
            if indexes.len() >= 8 * MOST {
                break;
            }
        }
        for path in &options.from {
            // It may have been moved since it was written.
            let file = File::open(path).map_err(Error::file("open", path))?;
            let position = indexes.iter().position(|(index, _)| index.is_of(&file));
            let Some(position) = position else { return Err(Error::Unremembered { path: path.clone() }) };
            all.push(Self { file, index: indexes.swap_remove(position).0 });
        }
        if options.remembered {
            let opened = |(index, path): (Index, PathBuf)| {
                // What was replaced meanwhile by a pipe is not waited for.
                let file = path.metadata().ok()?.is_file().then(|| File::open(&path).ok())??;
                index.is_of(&file).then_some(Self { file, index })
            };
            all.extend(indexes.into_iter().filter_map(opened).take(MOST));
        }
        Ok(all)
    }

    pub fn find(&self, key: &Key) -> Option<Found<'_>> {
        self.index.entries.get(key).map(|entry| Found { previous: self, entry })
    }
}

impl Index {
    /// Whether a file has the superblock where this says.
    fn is_of(&self, file: &File) -> bool {
        let mut superblock = [0; SUPERBLOCK_LENGTH];
        file.read_exact_at(&mut superblock, self.base).is_ok() && superblock == self.superblock
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
        self.previous.file.read_exact_at(bytes, self.previous.index.base + self.entry.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        let entry = |start, sizes: &[u32]| Entry { start, sizes: sizes.to_vec(), digest: [start as u8; 32] };
        let entries =
            [(([1; 32], 0), entry(98, &[7, 0, UNCOMPRESSED | 131_072])), (([2; 32], u64::MAX), entry(3, &[9]))];
        let compression = Compression::default();
        Index { compression, base: 4096, superblock: [5; SUPERBLOCK_LENGTH], entries: HashMap::from(entries) }
    }

    #[test]
    fn an_index_is_read_as_it_was_written_and_never_when_it_was_damaged() {
        let path = Path::new("/some/where");
        let bytes = index().encode(path);
        assert_eq!(path_of(&bytes).as_deref(), Some(path));
        assert_eq!(Index::decode(&bytes, Compression::default()), Ok(Some((index(), path.to_owned()))));
        assert_eq!(Index::decode(&bytes, Compression::Zstd(4)), Ok(None));
        for position in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[position] ^= 0x10;
            let decoded = Index::decode(&damaged, Compression::default());
            assert!(!matches!(decoded, Ok(Some(_))), "a changed byte {position} went unnoticed");
            let decoded = Index::decode(&bytes[..position], Compression::default());
            assert!(!matches!(decoded, Ok(Some(_))), "{position} bytes are enough");
        }
    }
}
