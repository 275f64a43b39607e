//! An expression as nodes that a table is computed over.
//!
//! The C++ library lets a repetition begin at most two rounds at one place of the text, so that empty rounds end. Where rounds
//! may be empty, nodes are doubled for every count that they can be reached with; then no node can reach itself without
//! taking a byte, and nodes are sorted so that each comes after those that it leads to.

use std::collections::HashMap;

use super::Fault;
use super::parse::{ByteSet, Count, Expression};

/// One place in an expression; numbers are indices of nodes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Node {
    /// Takes a byte of a set (an index) and goes on.
    Byte(u32, u32),
    /// Tries both; the one that goes further counts, the first of equals.
    Either(u32, u32),
    /// Tries the first, and only if that leads nowhere the second.
    Prefer(u32, u32),
    /// A group begins.
    Open(u32, u32),
    /// A group ends.
    Close(u32, u32),
    /// Only at the start of the text.
    Start(u32),
    /// Only at the end of the text.
    End(u32),
    /// The expression has matched.
    Accept,
}

/// An expression, ready to be matched.
#[derive(Debug, Clone)]
pub(super) struct Program {
    /// Sorted: all but `Byte` lead to nodes before them.
    pub(super) nodes: Vec<Node>,
    /// The sets of `Byte`.
    pub(super) sets: Vec<ByteSet>,
    /// Where it begins.
    pub(super) start: u32,
    /// How many groups, with the whole as group 0.
    pub(super) groups: usize,
}

/// As many nodes as the C++ library allows.
const MOST_NODES: usize = 100_000;

impl Program {
    pub(super) fn new(expression: &Expression, groups: usize) -> Result<Self, Fault> {
        let mut draft = Draft { nodes: Vec::new(), sets: Vec::new(), known_sets: HashMap::new(), loose: 0 };
        let accept = draft.push(Rough::Plain(Node::Accept))?;
        let close = draft.push(Rough::Plain(Node::Close(0, accept)))?;
        let inner = draft.expression(expression, close)?;
        let start = draft.push(Rough::Plain(Node::Open(0, inner)))?;
        let (nodes, start) = unroll(&draft.nodes, start)?;
        Ok(Self { nodes, sets: draft.sets, start, groups })
    }
}

/// A node before rounds that may be empty are counted.
#[derive(Debug, Clone, Copy)]
enum Rough {
    Plain(Node),
    /// A repetition that may be reached again without a byte taken.
    Counted {
        more: u32,
        next: u32,
        /// It is in no other such repetition: who leaves it does not come back at the same place.
        outermost: bool,
    },
}

struct Draft {
    nodes: Vec<Rough>,
    sets: Vec<ByteSet>,
    known_sets: HashMap<[bool; 256], u32>,
    /// How many repetitions with rounds that may be empty are around.
    loose: usize,
}

impl Draft {
    fn push(&mut self, node: Rough) -> Result<u32, Fault> {
        if self.nodes.len() >= MOST_NODES {
            return Err(Fault::TooLarge);
        }
        self.nodes.push(node);
        Ok((self.nodes.len() - 1) as u32)
    }

    /// Adds nodes for an expression that go on at `next`; gives the first.
    fn expression(&mut self, expression: &Expression, next: u32) -> Result<u32, Fault> {
        match expression {
            Expression::Empty => Ok(next),
            Expression::Byte(set) => {
                let sets = &mut self.sets;
                let set = *self.known_sets.entry(set.0).or_insert_with(|| {
                    sets.push((**set).clone());
                    (sets.len() - 1) as u32
                });
                self.push(Rough::Plain(Node::Byte(set, next)))
            }
            Expression::Start => self.push(Rough::Plain(Node::Start(next))),
            Expression::End => self.push(Rough::Plain(Node::End(next))),
            Expression::Group(group, inner) => {
                let close = self.push(Rough::Plain(Node::Close(*group as u32, next)))?;
                let inner = self.expression(inner, close)?;
                self.push(Rough::Plain(Node::Open(*group as u32, inner)))
            }
            Expression::Sequence(parts) => parts.iter().rev().try_fold(next, |next, part| self.expression(part, next)),
            Expression::Alternatives(alternatives) => {
                let mut chain = None;
                for alternative in alternatives.iter().rev() {
                    let first = self.expression(alternative, next)?;
                    chain = Some(match chain {
                        None => first,
                        Some(rest) => self.push(Rough::Plain(Node::Either(first, rest)))?,
                    });
                }
                Ok(chain.unwrap_or(next))
            }
            Expression::Repeat(inner, count) => self.repeat(inner, *count, next),
        }
    }

    fn repeat(&mut self, inner: &Expression, count: Count, next: u32) -> Result<u32, Fault> {
        match count {
            Count::Any => Ok(self.rounds(inner, next)?.0),
            Count::Some => Ok(self.rounds(inner, next)?.1),
            Count::Optional => self.optional(inner, next, next),
            Count::Between(least, most) => {
                let mut first = next;
                match most {
                    None => first = self.rounds(inner, next)?.0,
                    Some(most) => {
                        for _ in least..most {
                            first = self.optional(inner, first, next)?;
                        }
                    }
                }
                for _ in 0..least {
                    let before = self.nodes.len();
                    first = self.expression(inner, first)?;
                    // `(){1000000000}` adds nothing in any round.
                    if self.nodes.len() == before {
                        break;
                    }
                }
                Ok(first)
            }
        }
    }

    /// One more round that goes on at `after`, or else straight to `next`.
    fn optional(&mut self, inner: &Expression, after: u32, next: u32) -> Result<u32, Fault> {
        let more = self.expression(inner, after)?;
        self.push(match self.loose {
            0 => Rough::Plain(Node::Prefer(more, next)),
            _ => Rough::Counted { more, next, outermost: false },
        })
    }

    /// Rounds without end: the node that decides on another one, and the first node of a round.
    fn rounds(&mut self, inner: &Expression, next: u32) -> Result<(u32, u32), Fault> {
        let is_loose = may_be_empty(inner);
        let outermost = self.loose == 0;
        // The first node of a round is not known before what it comes back to.
        let decide = self.push(Rough::Plain(Node::Accept))?;
        self.loose += usize::from(is_loose);
        let more = self.expression(inner, decide)?;
        self.loose -= usize::from(is_loose);
        self.nodes[decide as usize] = match is_loose || !outermost {
            true => Rough::Counted { more, next, outermost },
            false => Rough::Plain(Node::Prefer(more, next)),
        };
        Ok((decide, more))
    }
}

fn may_be_empty(expression: &Expression) -> bool {
    match expression {
        Expression::Empty | Expression::Start | Expression::End => true,
        Expression::Byte(_) => false,
        Expression::Group(_, inner) => may_be_empty(inner),
        Expression::Sequence(parts) => parts.iter().all(may_be_empty),
        Expression::Alternatives(alternatives) => alternatives.iter().any(may_be_empty),
        Expression::Repeat(_, Count::Any | Count::Optional | Count::Between(0, _)) => true,
        Expression::Repeat(inner, _) => may_be_empty(inner),
    }
}

/// How many rounds of which repetition have begun at this place of the text; sorted, without zeros.
type Rounds = Vec<(u32, u8)>;

/// Doubles nodes for every count of rounds that they can be reached with, and sorts them.
fn unroll(rough: &[Rough], start: u32) -> Result<(Vec<Node>, u32), Fault> {
    /// A node and the counts that it is reached with, and what of it was seen to.
    struct Open {
        key: (u32, Rounds),
        /// Where it leads without taking a byte.
        leads_to: Vec<(u32, Rounds)>,
        seen_to: usize,
    }
    let open = |key: (u32, Rounds)| {
        let (node, rounds) = (&rough[key.0 as usize], &key.1);
        let leads_to = match *node {
            Rough::Plain(Node::Accept | Node::Byte(..)) => Vec::new(),
            Rough::Plain(Node::Either(first, second) | Node::Prefer(first, second)) => {
                vec![(first, rounds.clone()), (second, rounds.clone())]
            }
            Rough::Plain(Node::Open(_, next) | Node::Close(_, next) | Node::Start(next) | Node::End(next)) => {
                vec![(next, rounds.clone())]
            }
            Rough::Counted { more, next, outermost } => {
                let left = if outermost { Rounds::new() } else { rounds.clone() };
                let more = begin_round(rounds, key.0).map(|rounds| (more, rounds));
                more.into_iter().chain([(next, left)]).collect()
            }
        };
        // What takes a byte, and what ends, does not care how it was reached.
        let leads_to = leads_to.into_iter().map(|key| without_needless_rounds(rough, key)).collect();
        Open { key, leads_to, seen_to: 0 }
    };

    let mut numbers: HashMap<(u32, Rounds), u32> = HashMap::new();
    let mut nodes = Vec::new();
    let mut places: Vec<u32> = vec![start];
    let mut is_place = vec![false; rough.len()];
    is_place[start as usize] = true;
    while let Some(place) = places.pop() {
        let key = (place, Rounds::new());
        if numbers.contains_key(&key) {
            continue;
        }
        let mut stack = vec![open(key)];
        while let Some(top) = stack.last_mut() {
            if let Some(key) = top.leads_to.get(top.seen_to) {
                top.seen_to += 1;
                if !numbers.contains_key(key) {
                    let key = key.clone();
                    stack.push(open(key));
                }
                continue;
            }
            let Some(Open { key, leads_to, .. }) = stack.pop() else { break };
            let number = |index: usize| numbers[&leads_to[index]];
            let node = match rough[key.0 as usize] {
                Rough::Plain(Node::Byte(set, next)) => {
                    if !std::mem::replace(&mut is_place[next as usize], true) {
                        places.push(next);
                    }
                    // The number of what follows the byte is filled in below.
                    Node::Byte(set, next)
                }
                Rough::Plain(Node::Accept) => Node::Accept,
                Rough::Plain(Node::Either(..)) => Node::Either(number(0), number(1)),
                Rough::Plain(Node::Prefer(..)) => Node::Prefer(number(0), number(1)),
                Rough::Plain(Node::Open(group, _)) => Node::Open(group, number(0)),
                Rough::Plain(Node::Close(group, _)) => Node::Close(group, number(0)),
                Rough::Plain(Node::Start(_)) => Node::Start(number(0)),
                Rough::Plain(Node::End(_)) => Node::End(number(0)),
                Rough::Counted { .. } if leads_to.len() == 2 => Node::Prefer(number(0), number(1)),
                Rough::Counted { .. } => Node::Prefer(number(0), number(0)),
            };
            if nodes.len() >= MOST_NODES {
                return Err(Fault::TooLarge);
            }
            numbers.insert(key, nodes.len() as u32);
            nodes.push(node);
        }
    }
    for node in &mut nodes {
        if let Node::Byte(_, next) = node {
            *next = numbers[&(*next, Rounds::new())];
        }
    }
    Ok((nodes, numbers[&(start, Rounds::new())]))
}

/// One more round of a repetition, unless two have begun here.
fn begin_round(rounds: &Rounds, node: u32) -> Option<Rounds> {
    let mut rounds = rounds.clone();
    match rounds.binary_search_by_key(&node, |(node, _)| *node) {
        Ok(at) if rounds[at].1 >= 2 => return None,
        Ok(at) => rounds[at].1 += 1,
        Err(at) => rounds.insert(at, (node, 1)),
    }
    Some(rounds)
}

fn without_needless_rounds(rough: &[Rough], (node, rounds): (u32, Rounds)) -> (u32, Rounds) {
    match rough[node as usize] {
        Rough::Plain(Node::Accept | Node::Byte(..)) => (node, Rounds::new()),
        _ => (node, rounds),
    }
}
