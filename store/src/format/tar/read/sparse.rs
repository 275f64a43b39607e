//! Where the holes of a sparse file are.

use super::{BLOCK, Result, damaged, header, pax};

/// The most pieces of a sparse file.
const MOST_PIECES: usize = 1 << 20;

/// A content: pieces that are stored, in their order, and holes between them.
#[derive(Debug)]
pub(super) struct Segments {
    /// Where a piece begins in the content, and how long it is; the next one last.
    pieces: Vec<(u64, u64)>,
    at: u64,
    size: u64,
}

impl Segments {
    /// A content without holes.
    pub fn whole(size: u64) -> Self {
        Self { pieces: vec![(0, size)], at: 0, size }
    }

    /// A content of this size, of which these pieces are stored, one after the other.
    pub fn new(mut pieces: Vec<(u64, u64)>, size: u64, stored: u64) -> Result<Self> {
        let (mut end, mut sum) = (0, 0_u64);
        for (start, length) in &pieces {
            let next = start.checked_add(*length).filter(|next| *start >= end && *next <= size);
            let Some(next) = next else { return damaged("a map of holes is not in order") };
            end = next;
            sum += length;
        }
        if sum > stored {
            return damaged("a sparse file is shorter than its pieces");
        }
        pieces.reverse();
        Ok(Self { pieces, at: 0, size })
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many bytes come next, at most as many as wanted, and whether they are a hole.
    pub fn next(&mut self, wanted: usize) -> (usize, bool) {
        while self.pieces.last().is_some_and(|(start, length)| start + length <= self.at) {
            self.pieces.pop();
        }
        let (end, hole) = match self.pieces.last() {
            Some((start, _)) if *start > self.at => (*start, true),
            Some((start, length)) => (start + length, false),
            None => (self.size, true),
        };
        let length = usize::try_from(end - self.at).unwrap_or(usize::MAX);
        (length.min(wanted), hole)
    }

    pub fn advance(&mut self, length: usize) {
        self.at += length as u64;
    }
}

/// Offsets and lengths in turn.
pub(super) fn pairs(numbers: &[u64]) -> Result<Vec<(u64, u64)>> {
    if !numbers.len().is_multiple_of(2) || numbers.len() / 2 > MOST_PIECES {
        return damaged("a map of holes is none");
    }
    Ok(numbers.chunks(2).map(|pair| (pair[0], pair[1])).collect())
}

/// Pieces as GNU's headers list them: offset and length in twelve bytes each. Says whether the list may go on.
pub(super) fn old_list(list: &[u8], map: &mut Vec<(u64, u64)>) -> Result<bool> {
    for piece in list.chunks_exact(24) {
        if piece[0] == 0 {
            return Ok(false);
        }
        map.push((header::number(&piece[..12])?, header::number(&piece[12..])?));
    }
    if map.len() > MOST_PIECES { damaged("a sparse file has too many pieces") } else { Ok(true) }
}

/// Decimal numbers on lines: how many pieces there are, then an offset and a length for each.
#[derive(Debug, Default)]
pub(super) struct Lines {
    line: Vec<u8>,
    numbers: Vec<u64>,
}

impl Lines {
    /// Takes another block; gives the map when it is whole. What follows it in the block is padding.
    pub fn take(&mut self, block: &[u8; BLOCK]) -> Result<Option<Vec<(u64, u64)>>> {
        for byte in block {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let Some(number) = pax::decimal(&self.line) else { return damaged("a map of holes is none") };
            self.line.clear();
            self.numbers.push(number);
            let count = self.numbers[0];
            if count > MOST_PIECES as u64 {
                return damaged("a sparse file has too many pieces");
            }
            if self.numbers.len() as u64 == 1 + 2 * count {
                return pairs(&self.numbers[1..]).map(Some);
            }
        }
        if self.line.len() > 40 { damaged("a map of holes is none") } else { Ok(None) }
    }
}
