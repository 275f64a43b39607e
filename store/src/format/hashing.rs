//! BLAKE3 of a file, taken while the file is written, so that nothing is read again to be named.
//!
//! BLAKE3 is a tree: a file falls into windows whose values can be taken in any order and are joined at the end. Nearly all of an
//! artifact is written front to back and hashed as it comes; only the windows of what is known last (a superblock at the very
//! beginning) are read once it is there.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use super::write_failed;
use crate::{ArtifactId, Result};

/// Bytes of a window: a power of two, so that it is a subtree of BLAKE3's.
pub(super) const WINDOW: u64 = 1 << 20;

/// From this size on, what is written is hashed by another thread.
const APART: usize = 256 << 10;

/// The values of the windows so far.
#[derive(Debug, Clone)]
pub(super) struct Windows {
    /// The number of the first window that is whole in what comes in order; those before are read at the end.
    first: u64,
    values: Vec<ChainingValue>,
    /// Of the window that is not full yet.
    hasher: Option<Hasher>,
    position: u64,
}

impl Windows {
    /// For what is written in order from here on.
    pub fn from(start: u64) -> Self {
        Self { first: start.div_ceil(WINDOW), values: Vec::new(), hasher: None, position: start }
    }

    /// The same, when the values of the whole windows that come first are known; what follows them is to come.
    pub fn after(start: u64, values: Vec<ChainingValue>) -> Self {
        let first = start.div_ceil(WINDOW);
        let position = if values.is_empty() { start } else { (first + values.len() as u64) * WINDOW };
        Self { first, values, hasher: None, position }
    }

    /// Where what comes next belongs.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The number of the first window that has a value, and the values so far.
    pub fn values(&self) -> (u64, &[ChainingValue]) {
        (self.first, &self.values)
    }

    /// What is written next.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (number, offset) = (self.position / WINDOW, self.position % WINDOW);
            let taken = (bytes.len() as u64).min(WINDOW - offset) as usize;
            if number >= self.first {
                let hasher = self.hasher.get_or_insert_with(|| hasher_at(number));
                hasher.update(&bytes[..taken]);
                if offset + taken as u64 == WINDOW {
                    self.values.push(hasher.finalize_non_root());
                    self.hasher = None;
                }
            }
            self.position += taken as u64;
            bytes = &bytes[taken..];
        }
    }

    /// The digest of the whole file, which what came in order is the end of.
    pub fn finish(mut self, file: &File) -> Result<ArtifactId> {
        let length = self.position;
        if length <= WINDOW {
            let mut hasher = Hasher::new();
            read(file, 0, length, &mut hasher)?;
            return Ok(ArtifactId::from_bytes(*hasher.finalize().as_bytes()));
        }
        let mut values = Vec::with_capacity(self.values.len() + self.first as usize + 1);
        for number in 0..self.first.min(length.div_ceil(WINDOW)) {
            let mut hasher = hasher_at(number);
            read(file, number * WINDOW, (length - number * WINDOW).min(WINDOW), &mut hasher)?;
            values.push(hasher.finalize_non_root());
        }
        values.append(&mut self.values);
        values.extend(self.hasher.map(|hasher| hasher.finalize_non_root()));
        Ok(ArtifactId::from_bytes(root_of(&values)))
    }
}

/// The value of a whole window.
pub(super) fn value_of(number: u64, bytes: &[u8]) -> ChainingValue {
    hasher_at(number).update(bytes).finalize_non_root()
}

fn hasher_at(number: u64) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(number * WINDOW);
    hasher
}

fn read(file: &File, mut position: u64, length: u64, hasher: &mut Hasher) -> Result<()> {
    let mut buffer = vec![0; 128 * 1024];
    let end = position + length;
    while position < end {
        let part = &mut buffer[..(end - position).min(128 * 1024) as usize];
        file.read_exact_at(part, position).map_err(write_failed)?;
        hasher.update(part);
        position += part.len() as u64;
    }
    Ok(())
}

/// BLAKE3 of a file from the values of its parts, of which there are two or more, all but the last of one power of two of bytes.
pub(super) fn root_of(values: &[ChainingValue]) -> [u8; 32] {
    // As BLAKE3 splits: the left side has the largest power of two that leaves something to the right.
    fn split(values: &[ChainingValue]) -> (ChainingValue, ChainingValue) {
        let (left, right) = values.split_at(values.len().next_power_of_two() / 2);
        (value_of(left), value_of(right))
    }
    fn value_of(values: &[ChainingValue]) -> ChainingValue {
        if let [value] = values {
            return *value;
        }
        let (left, right) = split(values);
        merge_subtrees_non_root(&left, &right, Mode::Hash)
    }
    let (left, right) = split(values);
    *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()
}

/// A file that is written front to back, and hashed on the way.
pub(super) struct Hashed<'a> {
    pub file: &'a File,
    pub windows: Windows,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The kernel copies it meanwhile. Of little, waking another thread would cost more.
        if bytes.len() >= APART {
            let Self { file, windows } = self;
            let (written, ()) = rayon::join(|| file.write_all(bytes), || windows.update(bytes));
            return written.map(|()| bytes.len());
        }
        let written = self.file.write(bytes)?;
        self.windows.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_its_digest_wherever_the_ordered_part_begins_and_however_it_comes() {
        let content: Vec<u8> = (0..5 * WINDOW / 2 + 77).map(|number| ((number * 31) >> 7) as u8).collect();
        // Nothing; around one window; two; more.
        for length in [0, 1, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW, content.len() as u64] {
            let content = &content[..length as usize];
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(content, 0).unwrap();
            for start in [0, 102, WINDOW, WINDOW + 5000, length] {
                for part in [1000, 300_000, 3_000_000] {
                    let start = start.min(length);
                    let mut windows = Windows::from(start);
                    content[start as usize..].chunks(part).for_each(|part| windows.update(part));
                    let (first, values) = windows.values();
                    let mut known = Windows::after(start, values.to_vec());
                    known.update(&content[known.position() as usize..]);
                    let whole = content.chunks_exact(WINDOW as usize).enumerate().skip(first as usize);
                    let values = values.iter().copied();
                    assert!(values.eq(whole.map(|(number, bytes)| value_of(number as u64, bytes))));
                    for windows in [windows, known] {
                        let digest = windows.finish(&file).unwrap();
                        assert_eq!(digest.as_bytes(), blake3::hash(content).as_bytes(), "{length} from {start}");
                    }
                }
            }
        }
    }
}
