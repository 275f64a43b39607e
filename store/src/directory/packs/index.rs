//! What lies where in a pack (`docs/formats/store.md`).

use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use super::super::lease::{RECORD, Use, parse, record};

/// What an index begins with.
pub const HEADER: &[u8; 16] = b"forge pack ix 1\n";
/// Object, offset, length.
pub const ENTRY: usize = RECORD + 8 + 4;
const FANOUT: usize = 256;
const START: usize = HEADER.len() + FANOUT * 4;
const CHECKSUM: usize = 32;

/// An object in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub object: Use,
    /// Where its bytes begin.
    pub offset: u64,
    pub length: u32,
}

/// By digest first: the first byte chooses the bucket.
fn key(object: Use) -> [u8; RECORD] {
    let mut key = record(object);
    key.rotate_left(1);
    key
}

/// The index of these objects.
pub fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut sorted: Vec<([u8; RECORD], Entry)> = entries.iter().map(|entry| (key(entry.object), *entry)).collect();
    sorted.sort_unstable_by_key(|(key, _)| *key);
    sorted.dedup_by_key(|(key, _)| *key);
    let mut bytes = HEADER.to_vec();
    for first in 0..FANOUT {
        let end = sorted.partition_point(|(key, _)| usize::from(key[0]) <= first);
        // A pack has far fewer than 2^32 objects: it is closed at a gigabyte.
        bytes.extend((end as u32).to_le_bytes());
    }
    for (key, entry) in sorted {
        bytes.extend(key);
        bytes.extend(entry.offset.to_le_bytes());
        bytes.extend(entry.length.to_le_bytes());
    }
    let checksum = blake3::hash(&bytes);
    bytes.extend(checksum.as_bytes());
    bytes
}

fn entry(bytes: &[u8]) -> Option<Entry> {
    let mut key: [u8; RECORD] = bytes.get(..RECORD)?.try_into().ok()?;
    key.rotate_right(1);
    let object = parse(&key)?;
    let offset = u64::from_le_bytes(bytes.get(RECORD..RECORD + 8)?.try_into().ok()?);
    let length = u32::from_le_bytes(bytes.get(RECORD + 8..ENTRY)?.try_into().ok()?);
    Some(Entry { object, offset, length })
}

/// Every entry of an index, if it is one, whole and undamaged.
pub fn decode(bytes: &[u8]) -> Option<Vec<Entry>> {
    let (rest, checksum) = bytes.split_last_chunk::<CHECKSUM>()?;
    if blake3::hash(rest) != *checksum || !rest.starts_with(HEADER) {
        return None;
    }
    let entries = rest.get(START..)?;
    if entries.len() % ENTRY != 0 {
        return None;
    }
    entries.chunks_exact(ENTRY).map(entry).collect()
}

/// An index of which only what is asked for is read.
#[derive(Debug)]
pub struct Index {
    file: std::fs::File,
    /// The end of each bucket, in entries.
    ends: Vec<u32>,
    buckets: Vec<OnceLock<Vec<u8>>>,
}

impl Index {
    /// None if it is none, or was cut short. Its checksum is not looked at: objects prove themselves.
    pub fn open(file: std::fs::File) -> Option<Self> {
        let mut start = [0; START];
        file.read_exact_at(&mut start, 0).ok()?;
        let ends = start.strip_prefix(HEADER)?;
        let ends: Vec<u32> =
            ends.chunks_exact(4).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect();
        let last = *ends.last()?;
        let length = (START + CHECKSUM) as u64 + u64::from(last) * ENTRY as u64;
        if !ends.is_sorted() || file.metadata().ok()?.len() != length {
            return None;
        }
        Some(Self { file, ends, buckets: (0..FANOUT).map(|_| OnceLock::new()).collect() })
    }

    /// Where an object lies. One that cannot be read is not there.
    pub fn find(&self, object: Use) -> Option<Entry> {
        let key = key(object);
        let number = usize::from(key[0]);
        let bucket = match self.buckets[number].get() {
            Some(bucket) => bucket,
            None => {
                let from = if number == 0 { 0 } else { self.ends[number - 1] };
                let mut bytes = vec![0; (self.ends[number] - from) as usize * ENTRY];
                self.file.read_exact_at(&mut bytes, START as u64 + u64::from(from) * ENTRY as u64).ok()?;
                self.buckets[number].get_or_init(|| bytes)
            }
        };
        let (mut low, mut high) = (0, bucket.len() / ENTRY);
        while low < high {
            let middle = low.midpoint(high);
            let found = &bucket[middle * ENTRY..(middle + 1) * ENTRY];
            match found[..RECORD].cmp(&key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return entry(found),
            }
        }
        None
    }

    /// All of it; none if it is damaged.
    pub fn entries(&self) -> Option<Vec<Entry>> {
        let mut bytes = vec![0; self.file.metadata().ok()?.len() as usize];
        self.file.read_exact_at(&mut bytes, 0).ok()?;
        decode(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlobId, TreeId};

    fn entries(count: u32) -> Vec<Entry> {
        let one = |number: u32| {
            let digest = *blake3::hash(&number.to_le_bytes()).as_bytes();
            let object = if number.is_multiple_of(3) {
                Use::Tree(TreeId::from_bytes(digest))
            } else {
                Use::Blob(BlobId::from_bytes(digest))
            };
            Entry { object, offset: u64::from(number) << 20, length: number }
        };
        (0..count).map(one).collect()
    }

    fn open(bytes: &[u8]) -> Option<Index> {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, bytes).unwrap();
        Index::open(file)
    }

    #[test]
    fn what_is_in_an_index_is_found_and_nothing_else() {
        for count in [0, 1, 1000] {
            let all = entries(count);
            let bytes = encode(&all);
            assert_eq!(decode(&bytes).unwrap().len(), all.len());
            let index = open(&bytes).unwrap();
            assert!(all.iter().all(|entry| index.find(entry.object) == Some(*entry)));
            // The same digest of another kind is another object.
            let other = Use::Delta(crate::DeltaId::from_bytes(*blake3::hash(&0_u32.to_le_bytes()).as_bytes()));
            assert_eq!(index.find(other), None);
            assert_eq!(index.entries().unwrap().len(), all.len());
        }
    }

    #[test]
    fn no_change_of_an_index_is_more_than_an_error() {
        let bytes = encode(&entries(40));
        for position in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[position] ^= 0x55;
            assert_eq!(decode(&changed), None, "{position}");
            if let Some(index) = open(&changed) {
                assert!(index.entries().is_none());
                entries(40).iter().for_each(|entry| _ = index.find(entry.object));
            }
        }
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_none() && open(&bytes[..length]).is_none(), "{length}");
        }
    }

    #[test]
    fn the_bytes_of_an_index_are_pinned() {
        let digest = blake3::hash(&encode(&entries(5))).to_hex();
        assert_eq!(digest.as_str(), "a70d8227f08076618e673474d95a1764e78395cbe7e145ba37e511e05b9bb631");
    }
}
