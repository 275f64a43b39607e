//! What [`super::lazy`] and [`super::table`] have in common: how far nodes get, as numbers, and walking the way that counts.

use super::Captures;
use super::program::{Node, Program};

/// Where in a text a column is.
#[derive(Clone, Copy)]
pub(super) struct At {
    /// The byte that follows.
    pub byte: Option<u8>,
    /// The start of the text.
    pub is_start: bool,
    /// What a node that accepts here gives: the end of the match and one, or 0 where it does not accept.
    pub accepted: u32,
}

/// Fills in how far each node gets, as the end of the match and one, or 0 where there is none, from the column after it.
#[inline]
pub(super) fn fill(program: &Program, at: At, later: &[u32], column: &mut [u32]) {
    for (index, node) in program.nodes.iter().enumerate() {
        column[index] = match *node {
            Node::Byte(set, next) => match at.byte {
                Some(byte) if program.sets[set as usize].0[usize::from(byte)] => later[next as usize],
                _ => 0,
            },
            Node::Either(first, second) => column[first as usize].max(column[second as usize]),
            Node::Prefer(first, second) => match column[first as usize] {
                0 => column[second as usize],
                end => end,
            },
            Node::Open(_, next) | Node::Close(_, next) => column[next as usize],
            Node::Start(next) if at.is_start => column[next as usize],
            Node::End(next) if at.byte.is_none() => column[next as usize],
            Node::Start(_) | Node::End(_) => 0,
            Node::Accept => at.accepted,
        };
    }
}

/// The way that counts, as far as it was walked.
pub(super) struct Way {
    pub(super) position: usize,
    node: u32,
    captures: Captures,
    opened: Vec<usize>,
}

impl Way {
    /// Begins where there is a match.
    pub(super) fn new(program: &Program, start: usize) -> Self {
        let (captures, opened) = (vec![None; program.groups], vec![start; program.groups]);
        Self { position: start, node: program.start, captures, opened }
    }

    /// Goes past the next byte, or to the end of the match: then what the groups matched. All nodes up to there are decided by
    /// one column: `takes_first` says, of a node that prefers its first way or takes the longer, whether that is its first.
    #[inline]
    pub(super) fn go_on(
        &mut self,
        program: &Program,
        takes_first: impl Fn(bool, u32, u32) -> bool,
    ) -> Option<Captures> {
        loop {
            self.node = match program.nodes[self.node as usize] {
                Node::Byte(_, next) => {
                    self.node = next;
                    self.position += 1;
                    return None;
                }
                Node::Either(first, second) if takes_first(false, first, second) => first,
                Node::Prefer(first, second) if takes_first(true, first, second) => first,
                Node::Either(_, second) | Node::Prefer(_, second) => second,
                Node::Open(group, next) => {
                    self.opened[group as usize] = self.position;
                    next
                }
                Node::Close(group, next) => {
                    self.captures[group as usize] = Some(self.opened[group as usize]..self.position);
                    next
                }
                Node::Start(next) | Node::End(next) => next,
                Node::Accept => return Some(std::mem::take(&mut self.captures)),
            };
        }
    }

    /// The same with a column of numbers.
    #[inline]
    pub(super) fn go_furthest(&mut self, program: &Program, column: &[u32]) -> Option<Captures> {
        self.go_on(program, |prefers, first, second| {
            let (first, second) = (column[first as usize], column[second as usize]);
            if prefers { first != 0 } else { first >= second }
        })
    }
}
