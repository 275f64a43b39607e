//! A tar stream, read: whoever wrote it. Old (V7), POSIX (ustar and pax) and GNU headers, long names, sparse members, attributes.
//!
//! [`Archive`] gives the entries one after the other, each with all that was said of it before; their names are as they were
//! written. [`Unpacker`](super::unpack::Unpacker) makes a tree of them. Sources of the format: POSIX.1-2017 `pax`, GNU tar's
//! manual ("Basic Tar Format", "Storing Sparse Files"), `tar(5)` of libarchive.

use std::collections::BTreeMap;
use std::io::{self, Read};

pub mod header;
mod pax;
mod sparse;

use header::Header;
use sparse::Segments;

pub(super) use header::is_header;
pub(super) use pax::attribute_key;

/// Blocks of an archive.
const BLOCK: usize = 512;
/// The most bytes of names and pax records before an entry, and of global headers in all, that are read into memory.
const LONGEST_EXTENSION: u64 = 8 << 20;
/// How much padding may follow the end.
const MOST_PADDING: u64 = 64 << 20;

/// Why an archive cannot be read.
#[derive(Debug)]
pub enum Problem {
    /// Its bytes could not be had, or not unpacked.
    Read(io::Error),
    /// It is not what it says.
    Damaged(String),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// A result of reading.
pub type Result<T> = std::result::Result<T, Problem>;

fn damaged<T>(reason: impl Into<String>) -> Result<T> {
    Err(Problem::Damaged(reason.into()))
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file; its content follows.
    File,
    /// Another name of an earlier entry.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A character device, or a block device.
    Device {
        /// Which of the two.
        block: bool,
    },
    /// Something that no tree has: the letter that stands for it.
    Other(u8),
}

/// One entry, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path; nothing about it was checked.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission, set-id and sticky bits.
    pub mode: u16,
    /// Owning user.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Bytes of its content; those of a sparse file with its holes.
    pub size: u64,
    /// Where a link leads.
    pub target: Vec<u8>,
    /// A device's numbers.
    pub device: (u32, u32),
    /// When it was changed last, in whole seconds since 1970.
    pub modified: i64,
    /// Extended attributes by their full names.
    pub attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Further things that were said, and that nothing here can keep: for instance `ACL`.
    pub dropped: Vec<&'static str>,
}

/// A stream of entries.
pub struct Archive<R> {
    reader: R,
    /// What a global header said of all entries that follow.
    global: pax::Records,
    /// Bytes of the entry's content that are still in the stream, and of the padding behind them.
    stored: u64,
    padding: u64,
    /// The content of the entry as it is given.
    segments: Segments,
    comment: Option<Vec<u8>>,
    started: bool,
    /// Bytes of global headers that may still come.
    global_left: u64,
}

impl<R: Read> Archive<R> {
    /// Reads an archive that is not compressed (see [`unpacked`](crate::format::unpacked)).
    pub fn new(reader: R) -> Self {
        let (global, segments) = (pax::Records::default(), Segments::whole(0));
        Self {
            reader,
            global,
            stored: 0,
            padding: 0,
            segments,
            comment: None,
            started: false,
            global_left: LONGEST_EXTENSION,
        }
    }

    /// The reader; what follows the last header that was read is still in it.
    pub fn into_inner(self) -> R {
        self.reader
    }

    /// The comment of the first global header, once an entry has been read.
    pub fn comment(&self) -> Option<&[u8]> {
        self.comment.as_deref()
    }

    /// The next entry; none at the end. What was not read of the content of the one before is passed over.
    #[expect(clippy::should_implement_trait, reason = "an iterator of results would go on after an error")]
    pub fn next(&mut self) -> Result<Option<Entry>> {
        self.pass(self.stored)?;
        self.pass(self.padding)?;
        (self.stored, self.padding) = (0, 0);
        let mut records = pax::Records::default();
        let (mut long_path, mut long_target) = (None, None);
        let mut left = LONGEST_EXTENSION;
        loop {
            let Some(block) = self.block()? else {
                return if self.started { Ok(None) } else { damaged("it is empty") };
            };
            self.started = true;
            if block == [0; BLOCK] {
                self.pass_the_end()?;
                return Ok(None);
            }
            let header = Header::parse(&block)?;
            match header.kind {
                b'x' | b'X' => {
                    let text = self.extension(header.size, &mut left)?;
                    records.parse(&text)?;
                }
                b'g' => {
                    let mut left = self.global_left;
                    let text = self.extension(header.size, &mut left)?;
                    self.global_left = left;
                    self.global.parse(&text)?;
                    let comment = self.global.take(b"comment");
                    self.comment = self.comment.take().or(comment);
                }
                b'L' => long_path = Some(header::text(&self.extension(header.size, &mut left)?)),
                b'K' => long_target = Some(header::text(&self.extension(header.size, &mut left)?)),
                _ => {
                    let records = self.global.with(records);
                    return self.entry(&header, &block, records, long_path, long_target).map(Some);
                }
            }
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        block: &[u8; BLOCK],
        mut records: pax::Records,
        long_path: Option<Vec<u8>>,
        long_target: Option<Vec<u8>>,
    ) -> Result<Entry> {
        let sparse = records.sparse()?;
        let path = sparse.name.clone().or(records.take(b"path")).or(long_path);
        let path = path.unwrap_or_else(|| header.path.clone());
        let target = records.take(b"linkpath").or(long_target).unwrap_or_else(|| header.target.clone());
        let size = records.number(b"size")?.unwrap_or(header.size);
        let owner = |given: Option<u64>, plain: u64| match u32::try_from(given.unwrap_or(plain)) {
            Ok(id) => Ok(id),
            Err(_) => damaged(format!("`{}` has an owner that no system has", path.escape_ascii())),
        };
        let (uid, gid) = (owner(records.number(b"uid")?, header.uid)?, owner(records.number(b"gid")?, header.gid)?);
        let kind = match header.kind {
            // V7 had no letter for directories, only a slash at the end.
            b'0' | 0 | b'7' if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Device { block: false },
            b'4' => Kind::Device { block: true },
            // D: a directory of an incremental archive, with a list of what was in it.
            b'5' | b'D' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'M' => return damaged(format!("`{}` begins in another volume", path.escape_ascii())),
            other => Kind::Other(other),
        };
        // As GNU tar has it: the content of a link is not written, whatever its size is said to be.
        self.stored = if kind == Kind::HardLink { 0 } else { size };
        self.padding = (BLOCK as u64 - self.stored % BLOCK as u64) % BLOCK as u64;
        // What follows a directory, such as GNU tar's list of what was in it, is passed over.
        self.segments = if kind != Kind::File {
            Segments::whole(0)
        } else if header.kind == b'S' {
            self.old_sparse(block)?
        } else if sparse.in_content {
            self.sparse_in_content(sparse.size)?
        } else if let Some(map) = sparse.map {
            let size = sparse.size.unwrap_or(size);
            Segments::new(map, size, self.stored)?
        } else {
            Segments::whole(self.stored)
        };
        let size = self.segments.size();
        let modified = records.seconds(b"mtime").unwrap_or(header.modified);
        let (attributes, dropped) = records.attributes();
        let (mode, device) = (header.mode, header.device);
        Ok(Entry { path, kind, mode, uid, gid, size, target, device, modified, attributes, dropped })
    }

    /// The content of the entry that was read last.
    pub fn content(&mut self) -> Content<'_, R> {
        Content { archive: self }
    }

    /// GNU tar's oldest way to say where the holes are: in the header, and in blocks behind it.
    fn old_sparse(&mut self, block: &[u8; BLOCK]) -> Result<Segments> {
        let mut map = Vec::new();
        let mut more = sparse::old_list(&block[386..482], &mut map)? && block[482] != 0;
        while more {
            let Some(next) = self.block()? else { return damaged("it ends within a list of holes") };
            more = sparse::old_list(&next[..504], &mut map)? && next[504] != 0;
        }
        Segments::new(map, header::number(&block[483..495])?, self.stored)
    }

    /// Its newest way (1.0): as decimal numbers on lines of their own, before the content, filling whole blocks.
    fn sparse_in_content(&mut self, size: Option<u64>) -> Result<Segments> {
        let mut lines = sparse::Lines::default();
        loop {
            if self.stored < BLOCK as u64 {
                return damaged("it ends within a list of holes");
            }
            let Some(block) = self.block()? else { return damaged("it ends within a list of holes") };
            self.stored -= BLOCK as u64;
            if let Some(map) = lines.take(&block)? {
                let Some(size) = size else { return damaged("a sparse file has no size") };
                return Segments::new(map, size, self.stored);
            }
        }
    }

    /// A block; none at the end of the stream.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        match crate::format::read_full(&mut self.reader, &mut block)? {
            BLOCK => Ok(Some(block)),
            0 => Ok(None),
            _ => damaged("it ends within a block"),
        }
    }

    /// Text that stands in place of a content: a long name, or pax records.
    fn extension(&mut self, size: u64, left: &mut u64) -> Result<Vec<u8>> {
        // An empty one counts too: there may not be any number of them.
        *left = match left.checked_sub(size.saturating_add(BLOCK as u64)) {
            Some(left) => left,
            None => return damaged("its headers have no end"),
        };
        let mut text = vec![0; size as usize];
        if crate::format::read_full(&mut self.reader, &mut text)? < text.len() {
            return damaged("it ends within a header");
        }
        self.pass((BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64)?;
        Ok(text)
    }

    fn pass(&mut self, count: u64) -> Result<()> {
        let passed = io::copy(&mut (&mut self.reader).take(count), &mut io::sink())?;
        if passed < count { damaged("it ends within a content") } else { Ok(()) }
    }

    /// Reads what follows the last entry, so that a compressed stream is checked to its end.
    fn pass_the_end(&mut self) -> Result<()> {
        let passed = io::copy(&mut (&mut self.reader).take(MOST_PADDING), &mut io::sink())?;
        if passed == MOST_PADDING { damaged("it does not end") } else { Ok(()) }
    }
}

/// The content of an entry, with its holes filled.
pub struct Content<'a, R> {
    archive: &'a mut Archive<R>,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let archive = &mut *self.archive;
        let (length, hole) = archive.segments.next(buffer.len());
        if length == 0 {
            return Ok(0);
        }
        let buffer = &mut buffer[..length];
        if hole {
            buffer.fill(0);
            archive.segments.advance(length);
            return Ok(length);
        }
        let taken = archive.reader.read(buffer)?;
        if taken == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends within a content"));
        }
        archive.stored -= taken as u64;
        archive.segments.advance(taken);
        Ok(taken)
    }
}

#[cfg(test)]
mod tests;
