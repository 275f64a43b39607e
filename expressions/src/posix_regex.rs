//! Regular expressions of `builtins.match` and `builtins.split`: POSIX extended ones, as Nix's C++ library understands them.
//!
//! That library tries every way through an expression, alternatives from left to right and repetitions greedily, and keeps the
//! way that goes furthest, the first of equals; but what follows a repetition is not tried without a round of it once a way with
//! one was found. The outcome depends only on the position and the place in the expression, so it is computed
//! column by column from the end of the text: the time is proportional to expression times text, for every input.
//!
//! Columns are few, and mostly known already ([`lazy`]). Where they are not, a whole table would be too large for long texts:
//! only every so many-th column is kept, and those between are computed again when the way is walked from the front ([`table`]).

mod lazy;
mod parse;
mod program;
mod table;
mod way;

use std::cell::RefCell;
use std::ops::Range;

use lazy::Lazy;
use program::Program;
use table::Table;

/// What each group matched: the whole at 0, then the groups in the order of their opening parentheses.
pub type Captures = Vec<Option<Range<usize>>>;

/// Why there is no match to speak of. The words are Nix's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegexError {
    /// The expression is malformed.
    #[error("invalid regular expression '{pattern}'")]
    Invalid {
        /// The expression.
        pattern: String,
    },
    /// The expression, or the expression on this text, is too large.
    #[error("memory limit exceeded by regular expression '{pattern}'")]
    TooLarge {
        /// The expression.
        pattern: String,
    },
}

/// What is wrong, before anybody says with which pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Invalid,
    TooLarge,
}

impl Fault {
    fn with(self, pattern: &[u8]) -> RegexError {
        let pattern = String::from_utf8_lossy(pattern).into_owned();
        match self {
            Self::Invalid => RegexError::Invalid { pattern },
            Self::TooLarge => RegexError::TooLarge { pattern },
        }
    }
}

/// An expression that was read.
#[derive(Debug, Clone)]
pub struct Regex {
    pattern: Vec<u8>,
    program: Program,
    whole: RefCell<Lazy>,
    parts: RefCell<Lazy>,
}

impl Regex {
    /// Reads an expression.
    pub fn new(pattern: &[u8]) -> Result<Self, RegexError> {
        let program = parse::parse(pattern).and_then(|(expression, groups)| Program::new(&expression, groups));
        match program {
            Ok(program) => {
                let [whole, parts] = [true, false].map(|whole| RefCell::new(Lazy::new(&program, whole)));
                Ok(Self { pattern: pattern.to_vec(), program, whole, parts })
            }
            Err(fault) => Err(fault.with(pattern)),
        }
    }

    /// How many groups it has, the whole not counted.
    pub fn group_count(&self) -> usize {
        self.program.groups - 1
    }

    /// What the groups matched if the expression matches the whole text.
    pub fn match_full(&self, text: &[u8]) -> Result<Option<Captures>, RegexError> {
        if let Some(found) = self.whole.borrow_mut().match_full(&self.program, text) {
            return Ok(found);
        }
        self.match_by_table(text)
    }

    fn match_by_table(&self, text: &[u8]) -> Result<Option<Captures>, RegexError> {
        let mut table = Table::new(&self.program, text, true).map_err(|fault| fault.with(&self.pattern))?;
        Ok(table.matches_at(0).then(|| table.walk(0, false)))
    }

    /// All matches in a text from left to right, none within another. An empty one is followed by a longer one at the same
    /// place, if there is one.
    pub fn find_all(&self, text: &[u8]) -> Result<Vec<Captures>, RegexError> {
        if let Some(found) = self.parts.borrow_mut().find_all(&self.program, text) {
            return Ok(found);
        }
        self.find_all_by_table(text)
    }

    fn find_all_by_table(&self, text: &[u8]) -> Result<Vec<Captures>, RegexError> {
        let mut table = Table::new(&self.program, text, false).map_err(|fault| fault.with(&self.pattern))?;
        let mut found: Vec<Captures> = Vec::new();
        let mut start = 0;
        while let Some(position) = (start..=text.len()).find(|position| table.matches_at(*position)) {
            let mut captures = table.walk(position, false);
            loop {
                let whole = captures[0].clone().expect("the whole has matched");
                found.push(captures);
                start = whole.end;
                if !whole.is_empty() {
                    break;
                }
                if start == text.len() {
                    return Ok(found);
                }
                if !table.matches_without_being_empty_at(start) {
                    start += 1;
                    break;
                }
                captures = table.walk(start, true);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
