//! Why an evaluation stopped. Kept small and without texts of places: `tryEval` throws most of them away.

use crate::error::Finding;
use crate::places::PlaceId;

/// A result, or why there is none.
pub type Result<T> = std::result::Result<T, Box<Failure>>;

/// What sort of failure it is; `tryEval` catches two of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sort {
    /// `throw`
    Throw,
    /// `assert`
    Assertion,
    /// `abort`
    Abort,
    /// Anything else that is wrong with the expression.
    Evaluation,
    /// A value needs itself; which one.
    InfiniteRecursion(usize),
    /// Deeper than the stack.
    Depth,
    /// A text is no expression.
    Parse(Box<Finding>),
}

/// What was being done when it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Where.
    pub place: PlaceId,
    /// What.
    pub text: String,
    /// Shown even in a shortened trace.
    pub always: bool,
}

/// Why an evaluation stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What sort.
    pub sort: Sort,
    /// One sentence.
    pub message: String,
    /// Where.
    pub place: PlaceId,
    /// Innermost first.
    pub trace: Vec<Frame>,
    /// Names that may have been meant.
    pub suggestions: Vec<String>,
    /// Of further mistakes of the same kind.
    pub more: Vec<Finding>,
}

impl Failure {
    /// Something is wrong with the expression.
    pub fn new(message: impl Into<String>) -> Box<Self> {
        Self::of(Sort::Evaluation, message)
    }

    /// A failure of a sort.
    pub fn of(sort: Sort, message: impl Into<String>) -> Box<Self> {
        let (place, message) = (PlaceId::NONE, message.into());
        Box::new(Self { sort, message, place, trace: Vec::new(), suggestions: Vec::new(), more: Vec::new() })
    }

    /// Says where it happened.
    pub fn at(mut self: Box<Self>, place: PlaceId) -> Box<Self> {
        self.place = place;
        self
    }

    /// Says what was being done.
    pub fn during(mut self: Box<Self>, place: PlaceId, text: impl Into<String>) -> Box<Self> {
        self.trace.push(Frame { place, text: text.into(), always: false });
        self
    }

    /// Says what was being done, by the user's own words.
    pub fn during_always(mut self: Box<Self>, place: PlaceId, text: impl Into<String>) -> Box<Self> {
        self.trace.push(Frame { place, text: text.into(), always: true });
        self
    }

    /// Says what may have been meant.
    pub fn suggesting(mut self: Box<Self>, suggestions: Vec<String>) -> Box<Self> {
        self.suggestions = suggestions;
        self
    }
}

/// Up to five names that are close to one that is not there.
pub fn suggestions<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut close: Vec<(usize, &str)> =
        known.map(|name| (distance(wanted, name), name)).filter(|(distance, _)| *distance <= 2).collect();
    close.sort_unstable();
    close.dedup();
    close.into_iter().take(5).map(|(_, name)| name.to_owned()).collect()
}

/// Levenshtein's distance.
pub fn distance(left: &str, right: &str) -> usize {
    if left.len().abs_diff(right.len()) > 8 {
        return left.len().abs_diff(right.len());
    }
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, character) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, other) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(character != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}
