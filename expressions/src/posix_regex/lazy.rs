//! Columns as bits, each computed once and then known by the byte that led to it.
//!
//! Whether a node gets anywhere from a position depends on the next byte and on the same question one position later, and on
//! nothing else. So there are few different columns, and going through a text from its end is one step in a table for each byte.
//! Where only the end of the text will do, that is all that is needed to walk the way that counts. Otherwise it says where
//! matches begin, and how far each goes is computed for its own stretch of the text.

use std::collections::HashMap;

use super::Captures;
use super::program::{Node, Program};
use super::way::{At, Way, fill};

/// A column: whether each node gets anywhere.
type Bits = Box<[u64]>;

/// As many bytes of columns are kept; then all are forgotten.
const MOST_BYTES: usize = 8 << 20;

/// Not computed yet.
const UNKNOWN: u32 = u32::MAX;

/// The columns of one expression.
#[derive(Debug, Clone)]
pub(super) struct Lazy {
    /// Only the end of the text will do.
    whole: bool,
    /// Bytes that are in the same sets are one.
    classes: Box<[u8; 256]>,
    /// One byte of each class.
    examples: Vec<u8>,
    columns: Vec<Bits>,
    numbers: HashMap<Bits, u32>,
    /// By column and class: the column one position before.
    steps: Vec<u32>,
    /// The column at the end of a text.
    last: u32,
    /// The columns of the text at hand, by position.
    trail: Vec<u32>,
}

#[inline]
fn bit(bits: &[u64], index: u32) -> bool {
    bits[index as usize / 64] >> (index % 64) & 1 == 1
}

impl Lazy {
    pub(super) fn new(program: &Program, whole: bool) -> Self {
        let mut classes = Box::new([0; 256]);
        let mut known: HashMap<Vec<bool>, u8> = HashMap::new();
        let mut examples = Vec::new();
        for byte in 0..=u8::MAX {
            let signature: Vec<bool> = program.sets.iter().map(|set| set.0[usize::from(byte)]).collect();
            let class = *known.entry(signature).or_insert_with(|| {
                examples.push(byte);
                (examples.len() - 1) as u8
            });
            classes[usize::from(byte)] = class;
        }
        let (columns, numbers, steps, trail) = (Vec::new(), HashMap::new(), Vec::new(), Vec::new());
        Self { whole, classes, examples, columns, numbers, steps, last: UNKNOWN, trail }
    }

    /// Computes a column from the one after it, and the byte between.
    fn compute(&self, program: &Program, later: Option<(&[u64], u8)>, is_start: bool) -> Bits {
        let mut bits = vec![0u64; program.nodes.len().div_ceil(64)].into_boxed_slice();
        let is_end = later.is_none();
        for (index, node) in program.nodes.iter().enumerate() {
            let is_set = match *node {
                Node::Byte(set, next) => later
                    .is_some_and(|(later, byte)| program.sets[set as usize].0[usize::from(byte)] && bit(later, next)),
                Node::Either(first, second) | Node::Prefer(first, second) => bit(&bits, first) || bit(&bits, second),
                Node::Open(_, next) | Node::Close(_, next) => bit(&bits, next),
                Node::Start(next) => is_start && bit(&bits, next),
                Node::End(next) => is_end && bit(&bits, next),
                Node::Accept => is_end || !self.whole,
            };
            bits[index / 64] |= u64::from(is_set) << (index % 64);
        }
        bits
    }

    fn number(&mut self, bits: Bits) -> u32 {
        if let Some(number) = self.numbers.get(&bits) {
            return *number;
        }
        let number = self.columns.len() as u32;
        self.columns.push(bits.clone());
        self.numbers.insert(bits, number);
        self.steps.resize(self.columns.len() * self.examples.len(), UNKNOWN);
        number
    }

    fn is_full(&self, program: &Program) -> bool {
        self.columns.len() * (program.nodes.len() / 4 + 4 * self.examples.len() + 64) > MOST_BYTES
    }

    /// Goes through a text from its end; `visit` hears whether the expression gets anywhere from each position. Gives the column
    /// at the start of the text, or nothing if there are too many columns.
    fn scan(&mut self, program: &Program, text: &[u8], mut visit: impl FnMut(usize, bool, u32)) -> Option<Bits> {
        if self.is_full(program) {
            (self.last, self.trail) = (UNKNOWN, Vec::new());
            self.columns.clear();
            self.numbers.clear();
            self.steps.clear();
        }
        if text.is_empty() {
            return Some(self.compute(program, None, true));
        }
        if self.last == UNKNOWN {
            let bits = self.compute(program, None, false);
            self.last = self.number(bits);
        }
        let mut column = self.last;
        visit(text.len(), bit(&self.columns[column as usize], program.start), column);
        for position in (1..text.len()).rev() {
            let class = usize::from(self.classes[usize::from(text[position])]);
            let step = column as usize * self.examples.len() + class;
            column = match self.steps[step] {
                UNKNOWN => {
                    if self.is_full(program) {
                        return None;
                    }
                    let later = &self.columns[column as usize];
                    let bits = self.compute(program, Some((later, self.examples[class])), false);
                    let number = self.number(bits);
                    self.steps[step] = number;
                    number
                }
                known => known,
            };
            visit(position, bit(&self.columns[column as usize], program.start), column);
        }
        // The start of the text is a place of its own.
        Some(self.compute(program, Some((&self.columns[column as usize], text[0])), true))
    }

    /// What the groups matched if the expression matches the whole text. Nothing if that has to be found out otherwise.
    pub(super) fn match_full(&mut self, program: &Program, text: &[u8]) -> Option<Option<Captures>> {
        let mut trail = std::mem::take(&mut self.trail);
        trail.clear();
        trail.resize(text.len() + 1, 0);
        let first = self.scan(program, text, |position, _, column| trail[position] = column);
        self.trail = trail;
        let first = first?;
        if !bit(&first, program.start) {
            return Some(None);
        }
        let (mut way, mut column) = (Way::new(program, 0), &first[..]);
        loop {
            if let Some(captures) = way.go_on(program, |_, first, _| bit(column, first)) {
                return Some(Some(captures));
            }
            column = &self.columns[self.trail[way.position] as usize];
        }
    }

    /// All matches, as [`super::Regex::find_all`] has them. Nothing if that has to be found out otherwise.
    pub(super) fn find_all(&mut self, program: &Program, text: &[u8]) -> Option<Vec<Captures>> {
        let mut begins = vec![0u64; text.len() / 64 + 1];
        let first = self.scan(program, text, |position, is_match, _| {
            begins[position / 64] |= u64::from(is_match) << (position % 64);
        })?;
        begins[0] = begins[0] & !1 | u64::from(bit(&first, program.start));
        let mut stretch = Stretch::new(program, text);
        let mut found = Vec::new();
        let mut start = 0;
        while let Some(position) = next_set(&begins, start, text.len()) {
            let mut captures = stretch.walk(position, false)?;
            // The first walk finds what the bits promise.
            while let Some(groups) = captures {
                let whole = groups[0].clone()?;
                found.push(groups);
                start = whole.end;
                if !whole.is_empty() {
                    break;
                }
                if start == text.len() {
                    return Some(found);
                }
                captures = stretch.walk(start, true)?;
                if captures.is_none() {
                    start += 1;
                }
            }
        }
        Some(found)
    }
}

/// The first bit that is set from a position on, up to and with the last.
fn next_set(bits: &[u64], start: usize, last: usize) -> Option<usize> {
    if start > last {
        return None;
    }
    let mut index = start / 64;
    let mut word = bits[index] & (u64::MAX << (start % 64));
    while word == 0 {
        index += 1;
        word = *bits.get(index)?;
    }
    let position = index * 64 + word.trailing_zeros() as usize;
    (position <= last).then_some(position)
}

/// How far nodes get, for as much of a text as a match can reach.
struct Stretch<'a> {
    program: &'a Program,
    text: &'a [u8],
    /// How many positions may still be looked at: each is meant to be looked at a few times, not again for every match.
    left: usize,
    reached: Vec<bool>,
    next: Vec<bool>,
    /// Column after column, from the start of the stretch: the end of the match and one, or 0.
    columns: Vec<u32>,
}

impl<'a> Stretch<'a> {
    fn new(program: &'a Program, text: &'a [u8]) -> Self {
        let width = program.nodes.len();
        let (reached, next) = (vec![false; width], vec![false; width]);
        Self { program, text, left: 8 * text.len() + 1024, reached, next, columns: Vec::new() }
    }

    /// How far any way from a position leads before all ways are at an end.
    fn reach(&mut self, start: usize) -> Option<usize> {
        self.reached.fill(false);
        self.reached[self.program.start as usize] = true;
        let mut position = start;
        loop {
            self.left = self.left.checked_sub(1)?;
            let byte = self.text.get(position).copied();
            let mut goes_on = false;
            self.next.fill(false);
            for (index, node) in self.program.nodes.iter().enumerate().rev() {
                if !self.reached[index] {
                    continue;
                }
                match *node {
                    Node::Byte(set, next) => {
                        if byte.is_some_and(|byte| self.program.sets[set as usize].0[usize::from(byte)]) {
                            self.next[next as usize] = true;
                            goes_on = true;
                        }
                    }
                    Node::Either(first, second) | Node::Prefer(first, second) => {
                        self.reached[first as usize] = true;
                        self.reached[second as usize] = true;
                    }
                    Node::Open(_, next) | Node::Close(_, next) | Node::Start(next) | Node::End(next) => {
                        self.reached[next as usize] = true;
                    }
                    Node::Accept => {}
                }
            }
            if !goes_on {
                return Some(position);
            }
            std::mem::swap(&mut self.reached, &mut self.next);
            position += 1;
        }
    }

    /// The groups of the match at a position, if there is one (with `not_empty`, of at least one byte); nothing if that would
    /// take too long, or too much memory.
    fn walk(&mut self, start: usize, not_empty: bool) -> Option<Option<Captures>> {
        let end = self.reach(start)?;
        let width = self.program.nodes.len();
        let count = end - start + 1;
        if count.checked_mul(width)? > 4 << 20 {
            return None;
        }
        self.columns.clear();
        self.columns.resize((count + 1) * width, 0);
        for position in (start..=end).rev() {
            let (column, later) = self.columns[(position - start) * width..].split_at_mut(width);
            let accepted = if not_empty && position == start { 0 } else { (position - start) as u32 + 1 };
            let at = At { byte: self.text.get(position).copied(), is_start: position == 0, accepted };
            fill(self.program, at, later, column);
        }
        if self.columns[self.program.start as usize] == 0 {
            return Some(None);
        }
        let mut way = Way::new(self.program, start);
        loop {
            let column = &self.columns[(way.position - start) * width..][..width];
            if let Some(captures) = way.go_furthest(self.program, column) {
                return Some(Some(captures));
            }
        }
    }
}
