//! The archives that a `.deb` is made of: `ar` outside (deb(5)), compressed tar inside, read in one pass.
//!
//! Only what dpkg itself takes is read: old, ustar and GNU tar entries. Everything that a bad archive could make large (names,
//! number of entries, memory of a decompressor) is bounded here. What is wrong is told as [`io::ErrorKind::InvalidData`].

use std::io::{self, BufRead, Read};

use store::format::tar::read::Problem;
use store::format::tar::read::header::{self, checksum_is_right, path, text};

/// Longest path or link target. Linux takes no longer one (`PATH_MAX`).
const LONGEST_NAME: u64 = 4096;
/// Memory for a decompressor. `xz -9` and `zstd --ultra` without long windows stay below it.
const DECOMPRESSOR_MEMORY: u64 = 256 << 20;
/// Larger windows than 2^27 bytes are not read; that is also what `zstd` itself does without being told otherwise.
const ZSTD_WINDOW_LOG: u32 = 27;
const BLOCK: usize = 512;

/// What is wrong with an archive.
pub fn bad(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

/// An `ar` archive. Reading gives the bytes of the current member.
pub struct Ar<R> {
    reader: R,
    left: u64,
    padded: bool,
}

impl<R: BufRead> Ar<R> {
    /// Begins with the archive's magic.
    pub fn new(mut reader: R) -> io::Result<Self> {
        let mut magic = [0; 8];
        reader.read_exact(&mut magic).map_err(|_| bad("it is not an ar archive"))?;
        if magic != *b"!<arch>\n" {
            return Err(bad("it is not an ar archive"));
        }
        Ok(Self { reader, left: 0, padded: false })
    }

    /// Goes to the next member and gives its name.
    pub fn next_member(&mut self) -> io::Result<Option<String>> {
        io::copy(&mut Read::take(&mut *self, u64::MAX), &mut io::sink())?;
        // The padding of a last member is sometimes left out.
        if self.padded && !self.reader.fill_buf()?.is_empty() {
            self.reader.consume(1);
        }
        self.padded = false;
        if self.reader.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let mut header = [0; 60];
        self.reader.read_exact(&mut header).map_err(|_| bad("it ends within a header"))?;
        if header[58..] != *b"`\n" {
            return Err(bad("a header of the ar archive is damaged"));
        }
        let text = |range: std::ops::Range<usize>| {
            std::str::from_utf8(&header[range])
                .map(|text| text.trim_end_matches(' '))
                .map_err(|_| bad("a header is no text"))
        };
        let name = text(0..16)?.trim_end_matches('/').to_owned();
        let size = text(48..58)?;
        let digits = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_digit());
        self.left = size.parse().ok().filter(|_| digits).ok_or_else(|| bad("a size in the ar archive is no number"))?;
        self.padded = self.left % 2 == 1;
        Ok(Some(name))
    }
}

impl<R: Read> Read for Ar<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.reader.read(&mut buffer[..most])?;
        if count == 0 && most != 0 {
            return Err(bad("it ends within a member"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// What a member such as `data.tar.xz` holds, by the ending of its name; at most `limit` bytes of it.
pub fn decompress<'a>(member: &str, ending: &str, reader: impl Read + 'a, limit: u64) -> io::Result<Bounded<'a>> {
    let buffered = io::BufReader::with_capacity(64 * 1024, reader);
    let inner: Box<dyn Read + 'a> = match ending {
        "" => Box::new(buffered),
        ".gz" => Box::new(flate2::bufread::MultiGzDecoder::new(buffered)),
        ".xz" => {
            // Concatenated streams are one file (xz(1)).
            let stream =
                liblzma::stream::Stream::new_stream_decoder(DECOMPRESSOR_MEMORY, liblzma::stream::CONCATENATED)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(buffered, stream))
        }
        ".lzma" => {
            let stream = liblzma::stream::Stream::new_lzma_decoder(DECOMPRESSOR_MEMORY)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(buffered, stream))
        }
        ".zst" => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        _ => return Err(bad(format!("`{member}` is compressed in a way that is not known"))),
    };
    Ok(Bounded { inner, left: limit })
}

/// A reader that fails beyond a limit, rather than ending there.
pub struct Bounded<'a> {
    inner: Box<dyn Read + 'a>,
    left: u64,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| bad("it is too large when unpacked"))?;
        Ok(count)
    }
}

/// A tar archive. Reading gives the content of the current entry.
pub struct Tar<R> {
    reader: R,
    left: u64,
    padding: u64,
}

/// One entry of a tar archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As written: `./usr/bin/sh`, `./usr/bin/`.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// 07777 at most.
    pub mode: u16,
    /// Owner by number, and by name (may be empty).
    pub user: (u32, Vec<u8>),
    /// Group by number, and by name (may be empty).
    pub group: (u32, Vec<u8>),
}

/// What an entry of a tar archive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file of this size.
    File(u64),
    /// Another name for an earlier entry.
    HardLink(Vec<u8>),
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A character or block device.
    Device {
        /// A block device rather than a character device.
        block: bool,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

impl<R: Read> Tar<R> {
    /// Begins.
    pub fn new(reader: R) -> Self {
        Self { reader, left: 0, padding: 0 }
    }

    /// Goes to the next entry.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let (mut long_path, mut long_target) = (None, None);
        loop {
            self.skip()?;
            let mut header = [0; BLOCK];
            self.reader.read_exact(&mut header).map_err(|error| ended(error, "a header"))?;
            // Two blocks of zeros end an archive; what they are followed by means nothing (tar(5)).
            if header.iter().all(|byte| *byte == 0) {
                let unfinished = long_path.is_some() || long_target.is_some();
                return if unfinished { Err(bad("a long name is followed by nothing")) } else { Ok(None) };
            }
            if !checksum_is_right(&header) {
                return Err(bad("the checksum of a tar header is wrong"));
            }
            let size = number(&header[124..136])?;
            self.left = size;
            // The next multiple of a block may be none that a number of 64 bits can hold.
            self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
            let kind = match header[156] {
                b'L' => {
                    long_path = Some(self.long_name(size)?);
                    continue;
                }
                b'K' => {
                    long_target = Some(self.long_name(size)?);
                    continue;
                }
                // Of anything that is no file, a size means nothing and no content follows.
                kind => kind,
            };
            let path = long_path.take().unwrap_or_else(|| path(&header));
            let target = long_target.take().unwrap_or_else(|| text(&header[157..257]));
            let kind = match kind {
                // Archives older than ustar know a directory by the slash.
                0 | b'0' | b'7' if path.ends_with(b"/") && size == 0 => Kind::Directory,
                0 | b'0' | b'7' if path.ends_with(b"/") => return Err(bad("it has a directory with content")),
                0 | b'0' | b'7' => Kind::File(size),
                b'1' => Kind::HardLink(target),
                b'2' => Kind::Symlink(target),
                b'3' | b'4' => {
                    let (major, minor) = (number(&header[329..337])?, number(&header[337..345])?);
                    let narrow = |number| u32::try_from(number).map_err(|_| bad("a device number is too large"));
                    Kind::Device { block: header[156] == b'4', major: narrow(major)?, minor: narrow(minor)? }
                }
                b'5' => Kind::Directory,
                b'6' => Kind::Fifo,
                other => return Err(bad(format!("tar entry type `{}` is not used in packages", other.escape_ascii()))),
            };
            if !matches!(kind, Kind::File(_)) {
                (self.left, self.padding) = (0, 0);
            }
            let id = |range: std::ops::Range<usize>| {
                u32::try_from(number(&header[range])?).map_err(|_| bad("an owner's number is too large"))
            };
            let user = (id(108..116)?, text(&header[265..297]));
            let group = (id(116..124)?, text(&header[297..329]));
            let mode = (number(&header[100..108])? & 0o7777) as u16;
            return Ok(Some(Entry { path, kind, mode, user, group }));
        }
    }

    /// Reads whatever follows the archive: only then have the decompressors compared their check sums.
    pub fn finish(mut self) -> io::Result<()> {
        io::copy(&mut self.reader, &mut io::sink()).map(|_| ())
    }

    /// Reads past what is left of the current entry.
    fn skip(&mut self) -> io::Result<()> {
        let rest = self.left.checked_add(self.padding).ok_or_else(|| bad("a size is too large"))?;
        let skipped = io::copy(&mut (&mut self.reader).take(rest), &mut io::sink())?;
        (self.left, self.padding) = (0, 0);
        if skipped == rest { Ok(()) } else { Err(bad("it ends within a file")) }
    }

    fn long_name(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > LONGEST_NAME {
            return Err(bad("a name is too long"));
        }
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        Ok(text(&bytes))
    }
}

impl<R: Read> Read for Tar<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.reader.read(&mut buffer[..most])?;
        if count == 0 && most != 0 {
            return Err(bad("it ends within a file"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

fn ended(error: io::Error, within: &str) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof { bad(format!("it ends within {within}")) } else { error }
}

/// A number of a tar header. dpkg takes no negative ones, which GNU's way of writing them (in base 256) has.
fn number(field: &[u8]) -> io::Result<u64> {
    if field[0] & 0xc0 == 0xc0 {
        return Err(bad("a number in a tar header is negative"));
    }
    header::number(field).map_err(|problem| match problem {
        Problem::Read(error) => error,
        Problem::Damaged(reason) => bad(reason),
    })
}
