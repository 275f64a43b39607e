//! What is wrong with an expression, and where.

use std::path::PathBuf;
use std::sync::Arc;

/// A text that expressions are read from.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceText {
    /// The file, or a word in angle brackets (`<string>`, `<forge library>`).
    pub name: PathBuf,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl SourceText {
    /// The lines, which end in a line feed, a carriage return, or both.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = Some(&self.bytes[..]);
        std::iter::from_fn(move || {
            let text = rest?;
            let end = text.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            rest = end.map(|end| &text[end + if text[end..].starts_with(b"\r\n") { 2 } else { 1 }..]);
            Some(&text[..end.unwrap_or(text.len())])
        })
    }
}

/// A stretch of a text, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// In which text.
    pub text: Arc<SourceText>,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Place {
    /// Line and column of the first byte, both counted from 1; columns in bytes, as Nix counts them.
    pub fn line_and_column(&self) -> (usize, usize) {
        let mut start = 0;
        let mut line = 1;
        let before = &self.text.bytes[..self.start.min(self.text.bytes.len())];
        // Nearly always, and many bytes at a time: a file may have thousands of findings.
        if !before.contains(&b'\r') {
            let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let ends = before.iter().filter(|byte| **byte == b'\n').count();
            return (ends + 1, before.len() - start + 1);
        }
        for (offset, byte) in before.iter().enumerate() {
            // A carriage return ends a line, too, unless a line feed follows.
            if *byte == b'\n' || *byte == b'\r' && self.text.bytes.get(offset + 1) != Some(&b'\n') {
                (start, line) = (offset + 1, line + 1);
            }
        }
        let column = before.len() - start + 1;
        (line, column)
    }
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The expression cannot be evaluated.
    Error,
    /// It can, but hardly means what it says.
    Warning,
}

/// What was being evaluated when something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What: `while calling 'f'`.
    pub what: String,
    /// Where.
    pub place: Option<Place>,
    /// It is in a file of the project or was typed in, rather than in forge's library or elsewhere.
    pub own: bool,
}

/// Something found in an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// One headline, lower case, without period.
    pub message: String,
    /// Where.
    pub place: Option<Place>,
    /// What was being evaluated, innermost first.
    pub trace: Vec<Step>,
    /// Something the user can do.
    pub hint: Option<String>,
}

/// Why there is no plan: one finding, or several where reading goes on after the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// At least one.
    pub findings: Vec<Finding>,
    /// The expression itself is right, but what it fetches is not what it says that this is.
    pub is_mismatch: bool,
}

impl Error {
    /// Of findings in the expression.
    pub fn new(findings: Vec<Finding>) -> Self {
        Self { findings, is_mismatch: false }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.findings.first().map_or("nothing wrong", |finding| &finding.message))
    }
}

impl std::error::Error for Error {}
