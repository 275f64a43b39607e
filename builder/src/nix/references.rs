//! Store paths in bytes: which of them are there, and putting others in their place.
//!
//! A path is recognised by its hash part alone, 32 digits: programs take paths apart and put them together, but not those.

use std::collections::{BTreeMap, BTreeSet};

use store::derivation::STORE_DIRECTORY;

/// Length of a hash part.
pub const LENGTH: usize = 32;

/// Which bytes are digits of Nix's base 32.
const DIGIT: [bool; 256] = {
    let mut table = [false; 256];
    let digits = b"0123456789abcdfghijklmnpqrsvwxyz";
    let mut at = 0;
    while at < digits.len() {
        table[digits[at] as usize] = true;
        at += 1;
    }
    table
};

/// Looks for hash parts in a stream.
#[derive(Debug)]
pub struct Finder<'a> {
    wanted: &'a BTreeSet<[u8; LENGTH]>,
    found: BTreeSet<[u8; LENGTH]>,
    /// The last bytes of what came before: a hash part may lie across.
    tail: Vec<u8>,
}

impl<'a> Finder<'a> {
    /// Nothing is found yet.
    pub fn new(wanted: &'a BTreeSet<[u8; LENGTH]>) -> Self {
        Self { wanted, found: BTreeSet::new(), tail: Vec::new() }
    }

    /// More bytes of the stream.
    pub fn update(&mut self, bytes: &[u8]) {
        let mut edge = std::mem::take(&mut self.tail);
        edge.extend_from_slice(&bytes[..bytes.len().min(LENGTH - 1)]);
        self.search(&edge);
        if bytes.len() >= LENGTH {
            self.search(bytes);
            self.tail = bytes[bytes.len() - (LENGTH - 1)..].to_vec();
        } else {
            let all = edge.len().saturating_sub(LENGTH - 1);
            self.tail = edge[all..].to_vec();
        }
    }

    fn search(&mut self, bytes: &[u8]) {
        positions(bytes, |part| {
            if self.wanted.contains(part) {
                self.found.insert(*part);
            }
        });
    }

    /// Which were there.
    pub fn finish(self) -> BTreeSet<[u8; LENGTH]> {
        self.found
    }
}

/// Every place where 32 digits follow each other. Where one of a window is none, all windows that have it are passed over.
fn positions(bytes: &[u8], mut visit: impl FnMut(&[u8; LENGTH])) {
    let mut start = 0;
    while start + LENGTH <= bytes.len() {
        let window: &[u8; LENGTH] = bytes[start..start + LENGTH].try_into().expect("so many bytes");
        match window.iter().rposition(|byte| !DIGIT[usize::from(*byte)]) {
            Some(other) => start += other + 1,
            None => {
                visit(window);
                start += 1;
            }
        }
    }
}

/// Puts other texts in the place of some. None may be part of another.
pub fn replace(bytes: &[u8], rewrites: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
    let Some(shortest) = rewrites.keys().map(Vec::len).min().filter(|length| *length > 0) else {
        return bytes.to_vec();
    };
    let first: BTreeSet<u8> = rewrites.keys().filter_map(|key| key.first().copied()).collect();
    let mut result = Vec::with_capacity(bytes.len());
    let mut at = 0;
    'bytes: while at < bytes.len() {
        if bytes.len() - at >= shortest && first.contains(&bytes[at]) {
            for (from, to) in rewrites {
                if bytes[at..].starts_with(from) {
                    result.extend_from_slice(to);
                    at += from.len();
                    continue 'bytes;
                }
            }
        }
        result.push(bytes[at]);
        at += 1;
    }
    result
}

/// Whether one of some texts is in a text.
pub fn contains(bytes: &[u8], texts: &BTreeMap<Vec<u8>, Vec<u8>>) -> bool {
    texts.keys().any(|text| !text.is_empty() && bytes.windows(text.len()).any(|window| window == text.as_slice()))
}

/// A text with `…` for the hash part of every store path in it.
pub fn without_hashes(text: &str) -> String {
    let prefix = format!("{STORE_DIRECTORY}/");
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(&prefix) {
        let (before, after) = rest.split_at(at + prefix.len());
        result.push_str(before);
        let is_path =
            after.as_bytes().get(..LENGTH).is_some_and(|part| part.iter().all(|byte| DIGIT[usize::from(*byte)]));
        if is_path {
            result.push('…');
            rest = &after[LENGTH..];
        } else {
            rest = after;
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(byte: u8) -> [u8; LENGTH] {
        [byte; LENGTH]
    }

    #[test]
    fn a_hash_part_is_found_wherever_it_lies_and_however_the_stream_is_cut() {
        let wanted = BTreeSet::from([part(b'a'), *b"0123456789abcdfghijklmnpqrsvwxyz", part(b'z')]);
        let mut stream = b"text \xff /nix/store/".to_vec();
        stream.extend_from_slice(b"0123456789abcdfghijklmnpqrsvwxyz-name");
        stream.extend([b'z'; 31]);
        stream.push(b'e');
        stream.extend([b'a'; 40]);
        for size in [1, 2, 5, 31, 32, 33, 1000] {
            let mut finder = Finder::new(&wanted);
            stream.chunks(size).for_each(|chunk| finder.update(chunk));
            let found = finder.finish();
            assert_eq!(found, BTreeSet::from([part(b'a'), *b"0123456789abcdfghijklmnpqrsvwxyz"]), "{size}");
        }
    }

    #[test]
    fn texts_are_replaced_and_hashes_left_out() {
        let rewrites = BTreeMap::from([(b"/one".to_vec(), b"/1".to_vec()), (b"two".to_vec(), b"zwei".to_vec())]);
        assert_eq!(replace(b"x/one/two/tw", &rewrites), b"x/1/zwei/tw");
        assert_eq!(replace(b"", &rewrites), b"");
        assert_eq!(replace(b"same", &BTreeMap::new()), b"same");
        assert!(contains(b"a two", &rewrites) && !contains(b"a tw o", &rewrites));
        let hash = "0".repeat(32);
        assert_eq!(without_hashes(&format!("a /nix/store/{hash}-b:/nix/store/x")), "a /nix/store/…-b:/nix/store/x");
    }
}
