//! A pack: many objects in one file, most of them as differences from others (gitformat-pack(5)), and its index.
//!
//! Nothing in it is believed: sizes are bounded, and whoever reads an object compares its name with its bytes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

use super::object::{Kind, ObjectId};

/// The largest object that is read: they are held in memory.
pub const LARGEST: u64 = 2 << 30;
/// How far differences may lead on; git itself makes at most 4095.
const LONGEST_CHAIN: usize = 10_000;
/// Bytes of objects that are remembered, because the next ones are differences from them.
const REMEMBERED: usize = 64 << 20;

/// What is wrong with a file of git's.
pub fn bad(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

/// A pack on disk.
pub struct Pack {
    file: File,
    index: File,
    fanout: Vec<u32>,
    remembered: RefCell<(usize, HashMap<u64, Object>)>,
}

/// An object's kind and bytes.
pub type Object = (Kind, Rc<Vec<u8>>);

/// An object as it stands in a pack.
pub enum Packed {
    /// Whole.
    Whole(Kind),
    /// A difference from what lies this much before it.
    Before(u64),
    /// A difference from an object.
    From(ObjectId),
}

impl Pack {
    /// Opens the pack that an index is of.
    pub fn open(index: &Path) -> io::Result<Self> {
        let file = File::open(index.with_extension("pack"))?;
        let index = File::open(index)?;
        let mut head = [0; 8 + 1024];
        index.read_exact_at(&mut head, 0)?;
        if head[..8] != *b"\xfftOc\0\0\0\x02" {
            return Err(bad("the index of a pack is of a version that is not known"));
        }
        let fanout: Vec<u32> = head[8..].chunks_exact(4).map(|bytes| u32::from_be_bytes(word(bytes))).collect();
        if !fanout.is_sorted() {
            return Err(bad("the index of a pack is damaged"));
        }
        Ok(Self { file, index, fanout, remembered: RefCell::default() })
    }

    /// Where an object lies.
    pub fn find(&self, id: ObjectId) -> io::Result<Option<u64>> {
        const NAMES: u64 = 8 + 1024;
        let first = usize::from(id.as_bytes()[0]);
        let mut low = if first == 0 { 0 } else { self.fanout[first - 1] };
        let mut high = self.fanout[first];
        let count = u64::from(self.fanout[255]);
        while low < high {
            let middle = low + (high - low) / 2;
            let mut name = [0; 20];
            self.index.read_exact_at(&mut name, NAMES + 20 * u64::from(middle))?;
            match name.cmp(id.as_bytes()) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => {
                    let mut offset = [0; 4];
                    self.index.read_exact_at(&mut offset, NAMES + 24 * count + 4 * u64::from(middle))?;
                    let offset = u32::from_be_bytes(offset);
                    if offset & 0x8000_0000 == 0 {
                        return Ok(Some(u64::from(offset)));
                    }
                    let mut large = [0; 8];
                    let place = NAMES + 28 * count + 8 * u64::from(offset & 0x7fff_ffff);
                    self.index.read_exact_at(&mut large, place)?;
                    return Ok(Some(u64::from_be_bytes(large)));
                }
            }
        }
        Ok(None)
    }

    /// Reads what lies at a place. `other` finds objects by name, for differences from them.
    pub fn read(&self, offset: u64, other: &dyn Fn(ObjectId) -> io::Result<Option<Object>>) -> io::Result<Object> {
        let mut differences = Vec::new();
        let mut at = offset;
        let mut object = loop {
            if let Some(object) = self.remembered.borrow().1.get(&at) {
                break object.clone();
            }
            if differences.len() > LONGEST_CHAIN {
                return Err(bad("an object of a pack is a difference from a difference without end"));
            }
            let mut reader = BufReader::new(From { file: &self.file, offset: at });
            let (packed, size) = header(&mut reader)?;
            let content = inflate(&mut reader, size)?;
            match packed {
                Packed::Whole(kind) => break (kind, Rc::new(content)),
                Packed::Before(distance) => {
                    differences.push((at, content));
                    at = at.checked_sub(distance).ok_or_else(|| bad("a difference leads out of its pack"))?;
                }
                Packed::From(id) => {
                    differences.push((at, content));
                    match self.find(id)? {
                        Some(found) => at = found,
                        None => break other(id)?.ok_or_else(|| bad(format!("object {id} is missing")))?,
                    }
                }
            }
        };
        while let Some((at, difference)) = differences.pop() {
            object = (object.0, Rc::new(apply(&object.1, &difference)?));
            self.remember(at, &object);
        }
        Ok(object)
    }

    fn remember(&self, at: u64, object: &Object) {
        let mut remembered = self.remembered.borrow_mut();
        let (size, objects) = &mut *remembered;
        *size += object.1.len() + 64;
        if *size > REMEMBERED {
            objects.clear();
            *size = object.1.len() + 64;
        }
        objects.insert(at, object.clone());
    }
}

struct From<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for From<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// What stands before an object in a pack; and its size, or that of the difference.
pub fn header(reader: &mut dyn Read) -> io::Result<(Packed, u64)> {
    let mut byte = one(reader)?;
    let kind = byte >> 4 & 7;
    let mut size = u64::from(byte & 15);
    let mut shift = 4;
    while byte & 0x80 != 0 {
        byte = one(reader)?;
        let part = u64::from(byte & 0x7f).checked_shl(shift).filter(|_| shift < 57);
        size |= part.ok_or_else(|| bad("an object of a pack is too large"))?;
        shift += 7;
    }
    let packed = match kind {
        1 => Packed::Whole(Kind::Commit),
        2 => Packed::Whole(Kind::Tree),
        3 => Packed::Whole(Kind::Blob),
        4 => Packed::Whole(Kind::Tag),
        6 => {
            let mut byte = one(reader)?;
            let mut distance = u64::from(byte & 0x7f);
            while byte & 0x80 != 0 {
                byte = one(reader)?;
                let further = distance.checked_add(1).and_then(|distance| distance.checked_mul(128));
                distance = further.ok_or_else(|| bad("a difference leads out of its pack"))? | u64::from(byte & 0x7f);
            }
            Packed::Before(distance)
        }
        7 => {
            let mut id = [0; 20];
            reader.read_exact(&mut id)?;
            Packed::From(ObjectId::from_bytes(&id).ok_or_else(|| bad("no name"))?)
        }
        _ => return Err(bad("a pack has an object of a kind that is not known")),
    };
    Ok((packed, size))
}

fn one(reader: &mut dyn Read) -> io::Result<u8> {
    let mut byte = [0];
    reader.read_exact(&mut byte)?;
    Ok(byte[0])
}

/// Exactly as many bytes as were announced.
pub fn inflate(reader: &mut dyn io::BufRead, size: u64) -> io::Result<Vec<u8>> {
    if size > LARGEST {
        return Err(bad(format!("an object has {size} bytes; more than {LARGEST} are not read")));
    }
    let mut content = Vec::new();
    let mut decoder = flate2::bufread::ZlibDecoder::new(reader);
    decoder.by_ref().take(size + 1).read_to_end(&mut content)?;
    if content.len() as u64 != size {
        return Err(bad("an object has another size than it says"));
    }
    Ok(content)
}

/// Carries out a difference: copies of the base, and new bytes.
pub fn apply(base: &[u8], difference: &[u8]) -> io::Result<Vec<u8>> {
    let damaged = || bad("a difference in a pack is damaged");
    let mut rest = difference;
    let mut number = || -> io::Result<u64> {
        let (mut value, mut shift) = (0_u64, 0);
        loop {
            let (byte, tail) = rest.split_first().ok_or_else(damaged)?;
            rest = tail;
            value |= u64::from(byte & 0x7f).checked_shl(shift).filter(|_| shift < 57).ok_or_else(damaged)?;
            shift += 7;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
    };
    let (from, to) = (number()?, number()?);
    if from != base.len() as u64 || to > LARGEST {
        return Err(damaged());
    }
    let mut content = Vec::new();
    while let Some((command, tail)) = rest.split_first() {
        rest = tail;
        let piece = if command & 0x80 != 0 {
            let mut part = |bits: u8, count: usize| -> io::Result<usize> {
                let mut value = 0;
                for bit in 0..count {
                    if bits >> bit & 1 != 0 {
                        let (byte, tail) = rest.split_first().ok_or_else(damaged)?;
                        rest = tail;
                        value |= usize::from(*byte) << (8 * bit);
                    }
                }
                Ok(value)
            };
            let (start, length) = (part(command & 15, 4)?, part(command >> 4 & 7, 3)?);
            let length = if length == 0 { 0x10000 } else { length };
            base.get(start..start.saturating_add(length)).ok_or_else(damaged)?
        } else {
            let length = usize::from(*command);
            let (piece, tail) = rest.split_at_checked(length).filter(|_| length > 0).ok_or_else(damaged)?;
            rest = tail;
            piece
        };
        if (content.len() + piece.len()) as u64 > to {
            return Err(damaged());
        }
        content.extend_from_slice(piece);
    }
    if content.len() as u64 == to { Ok(content) } else { Err(damaged()) }
}

/// Four bytes.
fn word(bytes: &[u8]) -> [u8; 4] {
    [bytes[0], bytes[1], bytes[2], bytes[3]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_copies_and_adds() {
        // 11 bytes from 5: three from the start, `xy`, all five, and one.
        let difference = [5, 11, 0x90, 3, 2, b'x', b'y', 0x90, 5, 1, b'!'];
        assert_eq!(apply(b"hello", &difference).unwrap(), b"helxyhello!");
        for length in 0..difference.len() {
            assert!(apply(b"hello", &difference[..length]).is_err(), "{length}");
        }
        for wrong in [&[4_u8, 1, 1, b'x'][..], &[5, 1, 0], &[5, 9, 0x91, 3, 9], &[5, 1, 2, b'x', b'y'], &[0xff; 12]] {
            assert!(apply(b"hello", wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn bytes_from_outside_are_errors_at_most() {
        let mut seed = 1_u32;
        for length in 0..200 {
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (seed >> 24) as u8
                })
                .collect();
            let _ = header(&mut &bytes[..]);
            let _ = apply(b"hello", &bytes);
            let _ = inflate(&mut &bytes[..], 10);
        }
        assert!(inflate(&mut &b""[..], u64::MAX).is_err());
    }
}
