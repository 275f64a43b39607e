//! Earlier artifacts as a cache of compressed pieces.
//!
//! What a piece becomes follows from its content alone, so an image that holds it already is copied from. Where it lies there
//! is remembered beside the store (`docs/formats/squashfs.md`), with the digest of the bytes as stored, what the file's inode said, and
//! the values that its digest was computed from. A file whose inode is as it was, which nobody has written to, is
//! copied from by the kernel, unread, as `cp` does (`data/again.rs`). What comes from any other is checked by its digest; a piece that
//! is not what it was is made anew. A damaged, replaced or foreign file therefore costs time and never shows in the result. What a
//! failing disk does to a file behind the kernel's back is copied along; the artifact's digest, which is that of the right bytes, tells.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use blake3::hazmat::ChainingValue;
use rustix::time::ClockId;

use super::data::{UNCOMPRESSED, Written};
use super::plan::{Key, PIECE_LENGTH, Piece, Plan};
use super::{BLOCK_SIZE, SUPERBLOCK_LENGTH};
use crate::encoding::{Reader, Writer};
use crate::format::digest_map::DigestMap;
use crate::format::hashing::Windows;
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

/// How much is copied at a time of what may not be needed.
const AHEAD: u64 = 4 << 20;
/// How long a clock is waited for.
const MOST_TICKS: usize = 30;

/// What tells whether a file was written to: device, inode, size, times of change. The last is set by the kernel alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct State([u64; 7]);

impl State {
    fn of(metadata: &std::fs::Metadata) -> Self {
        let words = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
        let [a, b, c, d] = words.map(i64::cast_unsigned);
        Self([metadata.dev(), metadata.ino(), metadata.size(), a, b, c, d])
    }

    /// What a file is known by, if whoever writes to it from now on will leave another time of change: the kernel's clock for
    /// these stands still for some milliseconds. It is waited for.
    fn settled(path: &Path) -> Result<Self> {
        for _ in 0..MOST_TICKS {
            let now = rustix::time::clock_gettime(ClockId::RealtimeCoarse);
            let metadata = path.metadata().map_err(Error::file("look at", path))?;
            if (metadata.ctime(), metadata.ctime_nsec()) < (now.tv_sec, now.tv_nsec) {
                return Ok(Self::of(&metadata));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // Its time is of another machine's clock. It is like no file, so that what comes from it is checked.
        Ok(Self::default())
    }
}

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

/// By what an artifact is known again.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Head {
    compression: Compression,
    /// What the formation is called: another version of it is likely to be much the same.
    name: String,
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
    pieces: Pieces,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Pieces {
    entries: DigestMap<Key, Entry>,
    /// What the artifact's digest is computed from: the number of the first window whose value is here, and the values.
    first: u64,
    windows: Vec<ChainingValue>,
}

impl Index {
    pub(super) fn new(
        compression: Compression,
        base: u64,
        name: &str,
        superblock: [u8; SUPERBLOCK_LENGTH],
        plan: &Plan,
        written: Vec<Written>,
        windows: &Windows,
    ) -> Self {
        let entry = |Written { start, sizes, digest, .. }: Written| Entry { start, sizes, digest };
        let keys = plan.pieces.iter().map(Piece::key);
        let entries = keys.zip(written.into_iter().map(entry)).collect();
        let (first, windows) = windows.values();
        let head = Head { compression, name: name.to_owned(), base, superblock, state: State::default() };
        Self { head, pieces: Pieces { entries, first, windows: windows.to_vec() } }
    }

    /// Notes that the artifact lies at `path` now. What was noted of that path is forgotten.
    pub(in crate::format) fn remember(&self, store: &Store, path: &Path) -> Result<()> {
        let path = std::path::absolute(path).map_err(Error::file("find", path))?;
        let state = State::settled(&path)?;
        let name = name_of(&path);
        store.put_cached(PIECES, &name, &self.pieces.encode(&self.head.superblock))?;
        store.put_cached(CACHE, &name, &Head { state, ..self.head.clone() }.encode(&path))
    }
}

impl Head {
    /// Of what decides the bytes of a piece. An index of another version is of no use.
    fn kind(compression: Compression) -> String {
        format!(
            "forge artifact index 3\nversion {VERSION}\n{} {compression}\nblock {BLOCK_SIZE}\n",
            compression.version()
        )
    }

    fn encode(&self, path: &Path) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.bytes(Self::kind(self.compression).as_bytes());
        writer.bytes(path.as_os_str().as_bytes());
        writer.bytes(self.name.as_bytes()).u64(self.base).bytes(&self.superblock);
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
        let name = reader.text("index: name")?;
        let base = reader.u64("index: base")?;
        let superblock = superblock(&mut reader)?;
        let mut state = State::default();
        for word in &mut state.0 {
            *word = reader.u64("index: state")?;
        }
        reader.end()?;
        Ok(Some((Self { compression, name, base, superblock, state }, path)))
    }

    /// Where in the image the data ends: the table of inodes comes next, which the superblock names behind four others.
    fn data_end(&self) -> u64 {
        let at = SUPERBLOCK_LENGTH - 4 * size_of::<u64>();
        u64::from_le_bytes(self.superblock[at..at + 8].try_into().expect("eight bytes"))
    }

    /// Whether a file has the superblock where this says.
    fn is_of(&self, file: &File) -> bool {
        let mut superblock = [0; SUPERBLOCK_LENGTH];
        file.read_exact_at(&mut superblock, self.base).is_ok() && superblock == self.superblock
    }
}

impl Pieces {
    fn encode(&self, superblock: &[u8]) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.bytes(superblock);
        let mut sorted: Vec<_> = self.entries.iter().collect();
        sorted.sort_unstable_by_key(|(key, entry)| (entry.start, **key));
        writer.count(sorted.len());
        for ((digest, offset), entry) in sorted {
            writer.digest(digest).u64(*offset).u64(entry.start).digest(&entry.digest);
            writer.count(entry.sizes.len());
            for size in &entry.sizes {
                writer.u32(*size);
            }
        }
        writer.u64(self.first).count(self.windows.len());
        for value in &self.windows {
            writer.digest(value);
        }
        with_check(writer)
    }

    /// The pieces, if they are those of the image with this superblock.
    fn decode(bytes: &[u8], of: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = checked(bytes)?;
        if superblock(&mut reader)? != of {
            return Err(reader.bad("index: superblock"));
        }
        let mut entries = DigestMap::default();
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
        let first = reader.u64("index: first window")?;
        let mut windows = Vec::new();
        for _ in 0..reader.u32("index: windows")? {
            windows.push(reader.digest("index: window")?);
        }
        reader.end()?;
        Ok(Self { entries, first, windows })
    }
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

impl Remembered {
    /// Those of this compression, the latest first. A damaged note is as good as none.
    fn all(store: &Store, compression: Compression) -> Result<Vec<Self>> {
        let mut remembered = Vec::new();
        for name in store.cached(CACHE)? {
            let bytes = store.read_cached(CACHE, &name)?;
            let head = bytes.and_then(|bytes| Head::decode(&bytes, compression).ok().flatten());
            remembered.extend(head.map(|(head, path)| Self { head, path, name }));
            if remembered.len() >= MOST_REMEMBERED {
                break;
            }
        }
        Ok(remembered)
    }

    /// Its file, if it lies where it was and is what it was.
    fn open(&self) -> Option<File> {
        // What was replaced meanwhile by a pipe is not waited for.
        let file = self.path.metadata().ok()?.is_file().then(|| File::open(&self.path).ok())??;
        self.head.is_of(&file).then_some(file)
    }
}

/// What is copied of an earlier artifact while the new one is still being planned: nearly always both begin alike.
#[derive(Debug)]
pub(super) struct Guess {
    file: File,
    state: State,
    range: std::ops::Range<u64>,
}

impl Guess {
    /// The latest artifact of a formation that is called the same, if its image begins at the same place of the file.
    pub fn new(store: &Store, options: &Options, name: &str, base: u64) -> Result<Option<Self>> {
        if !options.remembered {
            return Ok(None);
        }
        let remembered = Remembered::all(store, options.compression)?;
        let alike = |remembered: &Remembered| remembered.head.name == name && remembered.head.base == base;
        let guess = remembered.into_iter().filter(alike).find_map(|alike| {
            let file = alike.open()?;
            let range = base..base + alike.head.data_end();
            let is_untouched = file.metadata().is_ok_and(|metadata| State::of(&metadata) == alike.head.state);
            is_untouched.then_some(Self { file, state: alike.head.state, range })
        });
        Ok(guess)
    }

    /// Copies to the same place of another file until it is told to stop; says how far it came. What fails is done
    /// again by whoever knows what is needed.
    pub fn copy(&self, to: &File, stop: &AtomicBool) -> Ahead {
        let mut position = self.range.start;
        while position < self.range.end && !stop.load(Ordering::Relaxed) {
            let length = (self.range.end - position).min(AHEAD) as usize;
            let (mut read, mut written) = (position, position);
            match rustix::fs::copy_file_range(&self.file, Some(&mut read), to, Some(&mut written), length) {
                Ok(copied) if copied > 0 => position += copied as u64,
                _ => break,
            }
        }
        Ahead { state: self.state, until: position }
    }
}

/// How far an earlier artifact lies in the new one already.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    state: State,
    until: u64,
}

/// An earlier artifact that can be copied from.
#[derive(Debug)]
pub(super) struct Previous {
    pub file: File,
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
        let mut remembered = Remembered::all(store, options.compression)?;
        let mut chosen = Vec::new();
        for path in &options.from {
            // It may have been moved since it was written.
            let file = File::open(path).map_err(Error::file("open", path))?;
            let position = remembered.iter().position(|remembered| remembered.head.is_of(&file));
            let Some(position) = position else { return Err(Error::Unremembered { path: path.clone() }) };
            chosen.push((file, remembered.swap_remove(position)));
        }
        if options.remembered {
            let opened = |remembered: Remembered| Some((remembered.open()?, remembered));
            chosen.extend(remembered.into_iter().filter_map(opened).take(MOST));
        }
        let mut all: Vec<Self> = Vec::new();
        let mut missing: Vec<Key> = plan.pieces.iter().map(Piece::key).collect();
        for (file, Remembered { head, name, .. }) in chosen {
            if missing.len() <= plan.pieces.len() / FEW {
                break;
            }
            let bytes = store.read_cached(PIECES, &name)?;
            let Some(pieces) = bytes.and_then(|bytes| Pieces::decode(&bytes, &head.superblock).ok()) else { continue };
            let before = missing.len();
            missing.retain(|key| !pieces.entries.contains_key(key));
            if missing.len() < before {
                let mut previous = Self { file, is_untouched: false, index: Index { head, pieces } };
                previous.is_untouched = previous.is_as_it_was();
                all.push(previous);
            }
        }
        Ok(all)
    }

    /// Whether nobody has written to the file since it was noted.
    pub fn is_as_it_was(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| State::of(&metadata) == self.index.head.state)
    }

    pub fn find(&self, key: &Key) -> Option<Found<'_>> {
        self.index.pieces.entries.get(key).map(|entry| Found { previous: self, entry })
    }

    /// What the file's digest was computed from, of the window of this number.
    pub fn window(&self, number: u64) -> Option<ChainingValue> {
        let number = number.checked_sub(self.index.pieces.first)?;
        self.index.pieces.windows.get(usize::try_from(number).ok()?).copied()
    }

    /// Up to where the new file has the bytes of this one at their place.
    pub fn copied_until(&self, ahead: &Ahead) -> u64 {
        if ahead.state == self.index.head.state { ahead.until } else { 0 }
    }
}

/// A piece in an earlier artifact.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'a> {
    pub previous: &'a Previous,
    pub entry: &'a Entry,
}

impl Found<'_> {
    /// How many bytes it takes.
    pub fn length(&self) -> u64 {
        self.entry.length()
    }

    /// Whether it may be copied unread.
    pub fn is_untouched(&self) -> bool {
        self.previous.is_untouched
    }

    /// Where in the file it begins.
    pub fn position(&self) -> u64 {
        self.previous.index.head.base + self.entry.start
    }

    /// Whether the other follows it without a gap.
    pub fn is_before(&self, other: &Self) -> bool {
        std::ptr::eq(self.previous, other.previous) && self.entry.start + self.length() == other.entry.start
    }

    /// Reads from where it begins.
    pub fn read(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.previous.file.read_exact_at(bytes, self.position())
    }

    /// Whether these bytes, which were read there, are the piece.
    pub fn is(&self, bytes: &[u8]) -> bool {
        blake3::hash(bytes) == self.entry.digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUPERBLOCK: [u8; SUPERBLOCK_LENGTH] = [5; SUPERBLOCK_LENGTH];

    fn pieces() -> Pieces {
        let entry = |start, sizes: &[u32]| Entry { start, sizes: sizes.to_vec(), digest: [start as u8; 32] };
        let entries =
            [(([1; 32], 0), entry(98, &[7, 0, UNCOMPRESSED | 131_072])), (([2; 32], u64::MAX), entry(3, &[9]))];
        Pieces { entries: entries.into_iter().collect(), first: 1, windows: vec![[8; 32], [9; 32]] }
    }

    #[test]
    fn an_index_is_read_as_it_was_written_and_never_when_it_was_damaged() {
        let path = Path::new("/some/where");
        let compression = Compression::default();
        let head = Head {
            compression,
            name: "hello".to_owned(),
            base: 4096,
            superblock: SUPERBLOCK,
            state: State([1, 2, 3, 4, 5, 6, 7]),
        };
        let bytes = head.encode(path);
        assert_eq!(path_of(&bytes).as_deref(), Some(path));
        assert_eq!(Head::decode(&bytes, compression), Ok(Some((head, path.to_owned()))));
        assert_eq!(Head::decode(&bytes, Compression::Zstd(4)), Ok(None));
        damaged(&bytes, |bytes| matches!(Head::decode(bytes, compression), Ok(Some(_))));

        let bytes = pieces().encode(&SUPERBLOCK);
        assert_eq!(Pieces::decode(&bytes, &SUPERBLOCK), Ok(pieces()));
        assert!(Pieces::decode(&bytes, &[6; SUPERBLOCK_LENGTH]).is_err(), "of another image");
        damaged(&bytes, |bytes| Pieces::decode(bytes, &SUPERBLOCK).is_ok());
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
