//! Why an evaluation stopped. Kept small and without texts of places: `tryEval` throws most of them away.

use std::rc::Rc;

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
    /// Somebody did not want to wait for the end.
    Interrupted,
    /// What was fetched is not what the expression says that it is.
    Mismatch,
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
    /// How readily it is shown.
    pub shown: Shown,
}

/// How readily something is shown in a shortened trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// In any trace.
    Always,
    /// Unless it is far from what happened.
    Usually,
    /// In a full trace only.
    InFull,
}

/// What was being done, innermost last. Shared: what failed once remembers why, and may fail on behalf of many.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trace(Option<Rc<Link>>);

#[derive(Debug, PartialEq, Eq)]
struct Link {
    frame: Frame,
    inner: Trace,
}

impl Drop for Link {
    fn drop(&mut self) {
        // A long trace would be dropped link within link.
        let mut inner = self.inner.0.take();
        while let Some(mut link) = inner.and_then(Rc::into_inner) {
            inner = link.inner.0.take();
        }
    }
}

impl Trace {
    /// From what was begun first to what failed.
    pub fn outermost_first(&self) -> impl Iterator<Item = &Frame> {
        let mut next = self.0.as_deref();
        std::iter::from_fn(move || {
            let link = next?;
            next = link.inner.0.as_deref();
            Some(&link.frame)
        })
    }
}

/// Why an evaluation stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What sort.
    pub sort: Sort,
    /// One sentence.
    pub message: Rc<str>,
    /// Where.
    pub place: PlaceId,
    /// Around where, if it is not known better.
    pub around: PlaceId,
    /// What was being done.
    pub trace: Trace,
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
        let (place, message) = (PlaceId::NONE, message.into().into());
        Box::new(Self {
            sort,
            message,
            place,
            around: place,
            trace: Trace::default(),
            suggestions: Vec::new(),
            more: Vec::new(),
        })
    }

    /// Says where it happened.
    pub fn at(mut self: Box<Self>, place: PlaceId) -> Box<Self> {
        self.place = place;
        self
    }

    /// Says where it happened, roughly: the innermost such place is kept.
    #[cold]
    pub fn near(mut self: Box<Self>, place: PlaceId) -> Box<Self> {
        self.around = self.around.or(place);
        self
    }

    /// Says what was being done.
    pub fn during(self: Box<Self>, place: PlaceId, text: impl Into<String>) -> Box<Self> {
        self.push(Frame { place, text: text.into(), shown: Shown::Usually })
    }

    /// Says what was being done, by the user's own words.
    pub fn during_always(self: Box<Self>, place: PlaceId, text: impl Into<String>) -> Box<Self> {
        self.push(Frame { place, text: text.into(), shown: Shown::Always })
    }

    /// Says what was being done, for those who want to know it all.
    pub fn during_in_full(self: Box<Self>, place: PlaceId, text: impl Into<String>) -> Box<Self> {
        self.push(Frame { place, text: text.into(), shown: Shown::InFull })
    }

    fn push(mut self: Box<Self>, frame: Frame) -> Box<Self> {
        let inner = std::mem::take(&mut self.trace);
        self.trace = Trace(Some(Rc::new(Link { frame, inner })));
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
