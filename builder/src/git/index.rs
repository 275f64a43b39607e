//! The index of a pack that has just come: which object lies where. Servers send packs without one.
//!
//! An object has no name in a pack; it is what its bytes hash to. So every object is worked out once, differences after what they
//! are differences from.

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufReader, Read};
use std::path::Path;

use sha1::{Digest, Sha1};

use super::object::{Kind, ObjectId};
use super::pack::{Packed, apply, bad, header, inflate};

/// Writes the index of a pack (gitformat-pack(5), version 2): names every object by its bytes.
pub fn index(path: &Path, go_on: &dyn Fn() -> bool) -> Result<(), Option<io::Error>> {
    let mut objects = scan(path).map_err(Some)?;
    objects.sort_unstable_by_key(|object| object.at);
    let mut named: HashMap<ObjectId, u64> = HashMap::new();
    let places: HashMap<u64, usize> = objects.iter().enumerate().map(|(number, object)| (object.at, number)).collect();
    let file = fs::File::open(path).map_err(Some)?;
    // Differences may be from objects that come later, so it is gone over until nothing is left or nothing changes.
    let mut left: Vec<usize> = (0..objects.len()).collect();
    let mut known: HashMap<u64, (Kind, ObjectId)> = HashMap::new();
    let mut recent = Recent::default();
    while !left.is_empty() {
        let before = left.len();
        let mut still = Vec::new();
        for number in left {
            if !go_on() {
                return Err(None);
            }
            match resolve(&file, &objects, &places, &named, number, &mut recent).map_err(Some)? {
                Some((kind, content)) => {
                    let id = ObjectId::of(kind, &content);
                    named.insert(id, objects[number].at);
                    known.insert(objects[number].at, (kind, id));
                }
                None => still.push(number),
            }
        }
        if still.len() == before {
            return Err(Some(bad("its pack has differences from objects that it lacks")));
        }
        left = still;
    }
    write_index(path, &objects, &known).map_err(Some)
}

/// Where an object of a pack lies, and the check sum of its bytes there.
struct Located {
    at: u64,
    crc: u32,
}

/// Goes through a pack from its start to its end.
fn scan(path: &Path) -> io::Result<Vec<Located>> {
    let mut reader =
        Counting { inner: BufReader::with_capacity(1 << 16, fs::File::open(path)?), at: 0, crc: flate2::Crc::new() };
    let mut head = [0; 12];
    reader.read_exact(&mut head)?;
    let count = u32::from_be_bytes([head[8], head[9], head[10], head[11]]);
    if head[..8] != *b"PACK\0\0\0\x02" {
        return Err(bad("what it gives is no pack"));
    }
    let mut objects = Vec::new();
    for _ in 0..count {
        let at = reader.at;
        reader.crc = flate2::Crc::new();
        let (_, size) = header(&mut reader)?;
        inflate(&mut reader, size)?;
        objects.push(Located { at, crc: reader.crc.sum() });
    }
    Ok(objects)
}

/// Knows where it is, and sums up what is read.
struct Counting<R> {
    inner: R,
    at: u64,
    crc: flate2::Crc,
}

impl<R: io::BufRead> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.crc.update(&buffer[..count]);
        self.at += count as u64;
        Ok(count)
    }
}

impl<R: io::BufRead> io::BufRead for Counting<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        if let Ok(buffer) = self.inner.fill_buf() {
            self.crc.update(&buffer[..count]);
        }
        self.at += count as u64;
        self.inner.consume(count);
    }
}

/// Objects that were worked out of late: the next ones are differences from them.
#[derive(Default)]
struct Recent {
    size: usize,
    objects: HashMap<u64, (Kind, std::rc::Rc<Vec<u8>>)>,
}

/// An object's bytes; none if it is a difference from one that has no name yet.
fn resolve(
    file: &fs::File,
    objects: &[Located],
    places: &HashMap<u64, usize>,
    named: &HashMap<ObjectId, u64>,
    number: usize,
    recent: &mut Recent,
) -> io::Result<Option<(Kind, std::rc::Rc<Vec<u8>>)>> {
    let mut at = objects[number].at;
    let mut differences: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut object = loop {
        if let Some(object) = recent.objects.get(&at) {
            break object.clone();
        }
        if differences.len() > objects.len() {
            return Err(bad("an object of its pack is a difference from itself"));
        }
        let mut reader = BufReader::new(Positioned { file, at });
        let (packed, size) = header(&mut reader)?;
        let content = inflate(&mut reader, size)?;
        match packed {
            Packed::Whole(kind) => break (kind, std::rc::Rc::new(content)),
            Packed::Before(distance) => {
                differences.push((at, content));
                let base = at.checked_sub(distance).filter(|base| places.contains_key(base));
                at = base.ok_or_else(|| bad("a difference leads out of its pack"))?;
            }
            Packed::From(id) => {
                differences.push((at, content));
                match named.get(&id) {
                    Some(base) => at = *base,
                    None => return Ok(None),
                }
            }
        }
    };
    while let Some((at, difference)) = differences.pop() {
        object = (object.0, std::rc::Rc::new(apply(&object.1, &difference)?));
        recent.size += object.1.len() + 64;
        if recent.size > 128 << 20 {
            recent.objects.clear();
            recent.size = object.1.len() + 64;
        }
        recent.objects.insert(at, object.clone());
    }
    Ok(Some(object))
}

struct Positioned<'a> {
    file: &'a fs::File,
    at: u64,
}

impl Read for Positioned<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = std::os::unix::fs::FileExt::read_at(self.file, buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

fn write_index(path: &Path, objects: &[Located], known: &HashMap<u64, (Kind, ObjectId)>) -> io::Result<()> {
    let mut entries: Vec<(ObjectId, &Located)> =
        objects.iter().filter_map(|object| Some((known.get(&object.at)?.1, object))).collect();
    entries.sort_by_key(|(id, _)| *id);
    let mut bytes = b"\xfftOc\0\0\0\x02".to_vec();
    for first in 0..=255_u8 {
        let count = entries.partition_point(|(id, _)| id.as_bytes()[0] <= first) as u32;
        bytes.extend(count.to_be_bytes());
    }
    entries.iter().for_each(|(id, _)| bytes.extend(id.as_bytes()));
    entries.iter().for_each(|(_, object)| bytes.extend(object.crc.to_be_bytes()));
    let mut large = Vec::new();
    for (_, object) in &entries {
        let offset = u32::try_from(object.at).ok().filter(|at| at & 0x8000_0000 == 0).unwrap_or_else(|| {
            large.push(object.at);
            0x8000_0000 | (large.len() - 1) as u32
        });
        bytes.extend(offset.to_be_bytes());
    }
    large.iter().for_each(|offset: &u64| bytes.extend(offset.to_be_bytes()));
    // The name of the pack, which nobody asks for here, and that of the index.
    bytes.extend([0; 20]);
    let name = Sha1::digest(&bytes);
    bytes.extend(name);
    fs::write(path.with_extension("idx"), bytes)
}
