//! How far each node gets from each position of a text.

use super::program::Program;
use super::way::{At, Way, fill};
use super::{Captures, Fault};

/// How far nodes get from one position: the end of the match and one, or 0 where there is none.
type Column = Box<[u32]>;

/// Numbers that may be kept at once: 256 MiB.
const MOST_NUMBERS: usize = 64 << 20;

pub(super) struct Table<'a> {
    program: &'a Program,
    text: &'a [u8],
    /// Only the end of the text will do.
    whole: bool,
    /// Columns between two that are kept.
    stride: usize,
    /// The columns at multiples of the stride, and the last.
    kept: Vec<Column>,
    /// The columns of one stretch, computed again; which stretch.
    stretch: Option<(usize, Vec<Column>)>,
    /// Whether the start node gets anywhere, by position.
    matches: Vec<u64>,
    /// A column in which the match may not be empty; at which position.
    not_empty: Option<(usize, Column)>,
}

impl<'a> Table<'a> {
    pub(super) fn new(program: &'a Program, text: &'a [u8], whole: bool) -> Result<Self, Fault> {
        let width = program.nodes.len();
        let stride = text.len().isqrt().max(1);
        let kept = text.len() / stride + stride + 3;
        if text.len() >= u32::MAX as usize - 1 || kept.saturating_mul(width) > MOST_NUMBERS {
            return Err(Fault::TooLarge);
        }
        let matches = vec![0; text.len() / 64 + 1];
        let mut table =
            Self { program, text, whole, stride, kept: Vec::new(), stretch: None, matches, not_empty: None };
        let mut later: Column = vec![0; width].into();
        let mut column = later.clone();
        for position in (0..=text.len()).rev() {
            table.compute(position, &later, &mut column, false);
            if column[program.start as usize] != 0 {
                table.matches[position / 64] |= 1 << (position % 64);
            }
            if position % stride == 0 || position == text.len() {
                table.kept.push(column.clone());
            }
            std::mem::swap(&mut later, &mut column);
        }
        table.kept.reverse();
        Ok(table)
    }

    /// Fills in a column from the one after it.
    fn compute(&self, position: usize, later: &Column, column: &mut Column, not_empty: bool) {
        let is_end = position == self.text.len();
        let accepted = if not_empty || self.whole && !is_end { 0 } else { position as u32 + 1 };
        let at = At { byte: self.text.get(position).copied(), is_start: position == 0, accepted };
        fill(self.program, at, later, column);
    }

    /// Whether the expression matches from a position.
    pub(super) fn matches_at(&self, position: usize) -> bool {
        self.matches[position / 64] >> (position % 64) & 1 == 1
    }

    /// Whether it matches from a position with at least one byte.
    pub(super) fn matches_without_being_empty_at(&mut self, position: usize) -> bool {
        let mut column = self.column(position).clone();
        if position < self.text.len() {
            let later = self.column(position + 1).clone();
            self.compute(position, &later, &mut column, true);
        } else {
            column.fill(0);
        }
        let matches = column[self.program.start as usize] != 0;
        self.not_empty = Some((position, column));
        matches
    }

    /// A column, computed again if it is not one of those at hand.
    fn column(&mut self, position: usize) -> &Column {
        if position == self.text.len() {
            return &self.kept[self.kept.len() - 1];
        }
        let wanted = position / self.stride;
        if self.stretch.as_ref().is_none_or(|(stretch, _)| *stretch != wanted) {
            let first = wanted * self.stride;
            let end = (first + self.stride).min(self.text.len());
            let mut columns = vec![self.kept[wanted].clone(); end - first];
            // From the column after the stretch backwards; the first is one of those that were kept.
            let mut later = self.kept[wanted + 1].clone();
            for position in (first + 1..end).rev() {
                let mut column = std::mem::take(&mut columns[position - first]);
                self.compute(position, &later, &mut column, false);
                later.copy_from_slice(&column);
                columns[position - first] = column;
            }
            self.stretch = Some((wanted, columns));
        }
        let first = wanted * self.stride;
        match &self.stretch {
            Some((_, columns)) => &columns[position - first],
            None => &self.kept[wanted],
        }
    }

    /// Walks the way that counts, from a position where there is a match, and notes the groups.
    pub(super) fn walk(&mut self, start: usize, not_empty: bool) -> Captures {
        let program = self.program;
        let mut way = Way::new(program, start);
        loop {
            let special = self.not_empty.take().filter(|(at, _)| not_empty && *at == way.position);
            let column = match &special {
                Some((_, column)) => column,
                None => self.column(way.position),
            };
            if let Some(captures) = way.go_furthest(program, column) {
                return captures;
            }
        }
    }
}
