//! The frames of a stream of objects: what one store writes and another reads, drawn in `docs/formats/peer.md`.
//!
//! Whatever comes is bounded before it is believed: no frame makes the reader take more memory than [`MOST_RAW`].

use std::io::{self, Read, Write};

/// What every stream begins with.
pub(super) const MAGIC: &[u8; 16] = b"forge objects 1\n";
/// A frame's content is never longer.
pub(super) const MOST_RAW: usize = 64 << 20;
const MOST_HEAD: usize = 64;
/// Memory is taken for so much before it came.
const AT_ONCE: usize = 2 << 20;
/// zstd's window of a difference: the file before and the file now lie in it.
const WINDOW_LOG: u32 = 27;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing follows.
    End = 0,
    /// Small objects, one behind the other.
    Objects = 1,
    /// The hashes of a large blob's pieces. Head: id, size.
    Pieces = 2,
    /// A piece. Head: id, index.
    Piece = 3,
    /// A blob as its difference from another. Head: id, id of the other.
    Difference = 4,
    /// Ids of what the sender has not got.
    Missing = 5,
    /// The sender lives.
    Wait = 6,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [Self::End, Self::Objects, Self::Pieces, Self::Piece, Self::Difference, Self::Missing, Self::Wait]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

const STORED: u8 = 0;
const ZSTD: u8 = 1;

/// A frame as it is on the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub kind: Kind,
    pub head: Vec<u8>,
    codec: u8,
    /// Bytes of the content.
    pub raw: usize,
    packed: Vec<u8>,
}

impl Frame {
    /// A frame with this content, compressed where that helps.
    pub fn new(kind: Kind, head: &[u8], content: &[u8], level: i32) -> io::Result<Self> {
        let packed = zstd::bulk::compress(content, level)?;
        let (codec, packed) = if packed.len() < content.len() { (ZSTD, packed) } else { (STORED, content.to_vec()) };
        Ok(Self { kind, head: head.to_vec(), codec, raw: content.len(), packed })
    }

    /// The same, as it is.
    pub fn stored(kind: Kind, head: &[u8], content: Vec<u8>) -> Self {
        Self { kind, head: head.to_vec(), codec: STORED, raw: content.len(), packed: content }
    }

    /// A frame whose content is compressed with `before` in front of it.
    pub fn difference(head: &[u8], content: &[u8], before: &[u8], level: i32) -> io::Result<Self> {
        let mut encoder = zstd::stream::write::Encoder::with_ref_prefix(Vec::new(), level, before)?;
        encoder.window_log(WINDOW_LOG)?;
        encoder.long_distance_matching(true)?;
        encoder.write_all(content)?;
        let packed = encoder.finish()?;
        Ok(Self { kind: Kind::Difference, head: head.to_vec(), codec: ZSTD, raw: content.len(), packed })
    }

    /// A frame without content.
    pub fn empty(kind: Kind) -> Self {
        Self { kind, head: Vec::new(), codec: STORED, raw: 0, packed: Vec::new() }
    }

    /// Bytes on the line.
    pub fn length(&self) -> usize {
        14 + self.head.len() + self.packed.len()
    }

    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut start = [0; 14];
        start[0] = self.kind as u8;
        start[1] = self.codec;
        start[2..6].copy_from_slice(&(self.head.len() as u32).to_le_bytes());
        start[6..10].copy_from_slice(&(self.raw as u32).to_le_bytes());
        start[10..14].copy_from_slice(&(self.packed.len() as u32).to_le_bytes());
        out.write_all(&start)?;
        out.write_all(&self.head)?;
        out.write_all(&self.packed)
    }

    /// Reads a frame. What is longer than it may be is refused before it is read.
    pub fn read(input: &mut dyn Read) -> io::Result<Self> {
        let mut start = [0; 14];
        input.read_exact(&mut start)?;
        let number = |at: usize| u32::from_le_bytes(start[at..at + 4].try_into().expect("four bytes")) as usize;
        let (head, raw, packed) = (number(2), number(6), number(10));
        let kind = Kind::of(start[0]).ok_or_else(|| bad("a frame of an unknown kind"))?;
        if head > MOST_HEAD || raw > MOST_RAW || packed > zstd::zstd_safe::compress_bound(raw) || start[1] > ZSTD {
            return Err(bad("a frame that is too long"));
        }
        if start[1] == STORED && packed != raw {
            return Err(bad("a frame of two lengths"));
        }
        let mut frame = Self { kind, head: Vec::new(), codec: start[1], raw, packed: Vec::new() };
        // What was announced need not come: memory is taken as it does.
        for (bytes, length) in [(&mut frame.head, head), (&mut frame.packed, packed)] {
            bytes.reserve_exact(length.min(AT_ONCE));
            (&mut *input).take(length as u64).read_to_end(bytes)?;
            if bytes.len() != length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(frame)
    }

    /// The same, of a frame that is needed no longer.
    pub fn into_content(self, before: &[u8]) -> io::Result<Vec<u8>> {
        if self.codec == STORED { Ok(self.packed) } else { self.content(before) }
    }

    /// The content, in exactly the length that was announced.
    pub fn content(&self, before: &[u8]) -> io::Result<Vec<u8>> {
        if self.codec == STORED {
            return Ok(self.packed.clone());
        }
        let mut decoder = zstd::stream::read::Decoder::with_ref_prefix(self.packed.as_slice(), before)?;
        decoder.window_log_max(WINDOW_LOG)?;
        let mut content = Vec::new();
        decoder.take(self.raw as u64 + 1).read_to_end(&mut content)?;
        if content.len() != self.raw {
            return Err(bad("a frame of two lengths"));
        }
        Ok(content)
    }
}

pub(super) fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(frame: &Frame, before: &[u8]) -> Vec<u8> {
        let mut line = Vec::new();
        frame.write(&mut line).unwrap();
        assert_eq!(line.len(), frame.length());
        for length in 0..line.len() {
            assert!(Frame::read(&mut &line[..length]).is_err());
        }
        let read = Frame::read(&mut line.as_slice()).unwrap();
        assert_eq!(read, *frame);
        read.content(before).unwrap()
    }

    #[test]
    fn a_frame_reads_back_and_no_cut_one_does() {
        let content = b"content ".repeat(100);
        assert_eq!(round(&Frame::new(Kind::Objects, b"", &content, 3).unwrap(), b""), content);
        assert_eq!(round(&Frame::new(Kind::Piece, &[7; 40], b"x", 3).unwrap(), b""), b"x");
        assert_eq!(round(&Frame::empty(Kind::End), b""), b"");
        let before: Vec<u8> = (0..100_000_u32).flat_map(|number| number.wrapping_mul(number).to_le_bytes()).collect();
        let mut after = before.clone();
        after[200_000] ^= 1;
        let frame = Frame::difference(&[1; 64], &after, &before, 3).unwrap();
        assert!(frame.length() < 1000, "{}", frame.length());
        let mut line = Vec::new();
        frame.write(&mut line).unwrap();
        assert_eq!(Frame::read(&mut line.as_slice()).unwrap().content(&before).unwrap(), after);
        assert!(frame.content(&after[1..]).is_err() || frame.content(&after[1..]).unwrap() != after);
    }

    #[test]
    fn a_bomb_takes_no_memory() {
        let bomb = Frame::new(Kind::Objects, b"", &vec![0; MOST_RAW], 3).unwrap();
        assert!(bomb.length() < 10_000);
        // It says that it is small, or that it is larger than anything.
        for raw in [10_u32, u32::MAX] {
            let mut line = Vec::new();
            bomb.write(&mut line).unwrap();
            line[6..10].copy_from_slice(&raw.to_le_bytes());
            let read = Frame::read(&mut line.as_slice()).and_then(|frame| frame.content(b""));
            assert!(read.is_err());
        }
        let mut line = Frame::empty(Kind::Objects);
        line.raw = MOST_RAW;
        let mut start = Vec::new();
        line.write(&mut start).unwrap();
        start[10..14].copy_from_slice(&(MOST_RAW as u32).to_le_bytes());
        assert!(Frame::read(&mut start.as_slice()).is_err());
    }
}
