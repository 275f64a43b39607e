//! What is written about a value: comments `/** … */` before functions and attributes (Nix RFC 145), and a line on each builtin.

mod builtins;

use super::{Session, file_name};
use crate::code::LambdaCode;
use crate::error::Place;
use crate::failure::Result;
use crate::paths;
use crate::places::PlaceId;
use crate::symbols::known;
use crate::value::{Attribute, Value, View};

/// What is written about something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documentation {
    /// What it is: `function map`, `builtins.map f list`.
    pub title: String,
    /// Where it is defined, unless it is built in.
    pub place: Option<Place>,
    /// Markdown; empty where nothing is written.
    pub text: String,
}

impl Session {
    /// What is written about what an expression stands for.
    pub(super) fn document(&self, text: &str) -> Result<Option<Documentation>> {
        let value = match self.attribute(text)? {
            Some((name, attribute)) => {
                let value = self.evaluator.force(&attribute.value, attribute.place)?;
                if let Some(found) = self.document_value(&value)? {
                    return Ok(Some(found));
                }
                let Some(place) = self.evaluator.places.get(attribute.place) else { return Ok(None) };
                let text = comment_before(&place.text.bytes, place.start, false).unwrap_or_default();
                return Ok(Some(Documentation { title: format!("attribute `{name}`"), place: Some(place), text }));
            }
            None => self.value(text)?,
        };
        self.document_value(&value)
    }

    fn document_value(&self, value: &Value) -> Result<Option<Documentation>> {
        match value.view() {
            View::Builtin(builtin) => Ok(builtins::find(builtin.name)),
            View::Lambda(closure) => Ok(Some(self.document_function(&closure.code))),
            View::Set(set) => {
                let Some(functor) = set.get(known::FUNCTOR) else { return Ok(None) };
                let _depth = self.evaluator.deeper(functor.place)?;
                let function = self.evaluator.call(&functor.value, &[*value], functor.place)?;
                self.document_value(&function)
            }
            _ => Ok(None),
        }
    }

    fn document_function(&self, code: &LambdaCode) -> Documentation {
        let place = self.evaluator.places.get(code.place);
        let text = place.as_ref().and_then(|place| comment_before(&place.text.bytes, place.start, true));
        let title = match code.name {
            Some(name) => format!("function `{}`", self.evaluator.symbols.text(name)),
            None => "function".to_owned(),
        };
        Documentation { title, place, text: text.unwrap_or_default() }
    }

    /// The attribute that an expression such as `a.b` ends in, if it is one.
    fn attribute(&self, text: &str) -> Result<Option<(String, Attribute)>> {
        let Some((from, name)) = text.trim().rsplit_once('.') else { return Ok(None) };
        let is_name = |name: &str| {
            name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
                && name.chars().all(|sign| sign.is_ascii_alphanumeric() || "_'-".contains(sign))
        };
        if !is_name(name) || self.parse(from).is_err() {
            return Ok(None);
        }
        let View::Set(set) = self.value(from)?.view() else { return Ok(None) };
        let symbol = self.evaluator.symbols.intern(name.as_bytes());
        Ok(set.get(symbol).map(|attribute| (name.to_owned(), attribute)))
    }

    /// Where what an expression stands for is written.
    pub(super) fn place_of(&self, text: &str) -> Result<Option<Place>> {
        let attribute = self.attribute(text)?;
        let value = match &attribute {
            Some((_, attribute)) => self.evaluator.force(&attribute.value, attribute.place)?,
            None => self.value(text)?,
        };
        let of_attribute =
            || self.evaluator.places.get(attribute.as_ref().map_or(PlaceId::NONE, |(_, found)| found.place));
        Ok(match value.view() {
            View::Lambda(closure) => self.evaluator.places.get(closure.code.place),
            View::Path(path) => {
                let path = self.evaluator.resolve_expression(&paths::normal(&path))?;
                let bytes = self.evaluator.sources.read(&file_name(&path))?;
                let text = std::sync::Arc::new(crate::error::SourceText { name: file_name(&path), bytes });
                Some(Place { text, start: 0, end: 0 })
            }
            View::Set(set) => self.evaluator.places.get(set.place()).or_else(of_attribute),
            _ => of_attribute(),
        })
    }
}

/// The comment that belongs to what begins at an offset: before it, before the arguments of a function that it is the result
/// of, or before the name that is defined as it.
fn comment_before(bytes: &[u8], offset: usize, is_function: bool) -> Option<String> {
    let mut before = bytes.get(..offset)?;
    let mut may_be_defined = is_function;
    loop {
        before = before.trim_ascii_end();
        match before {
            [rest @ .., b'('] => before = rest,
            [.., b'*', b'/'] => {
                let start = before.windows(2).rposition(|pair| pair == b"/*")?;
                let comment = &before[start..];
                let is_documentation = comment.len() > 5 && comment.starts_with(b"/**") && comment[3] != b'*';
                return is_documentation.then(|| undented(&comment[3..comment.len() - 2]));
            }
            [rest @ .., b':'] if is_function => before = before_argument(rest)?,
            [rest @ .., b'='] if may_be_defined && !rest.ends_with(b"=") => {
                before = before_name(rest);
                may_be_defined = false;
            }
            _ => return None,
        }
    }
}

fn is_name_byte(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_'-\".".contains(byte)
}

fn before_name(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.trim_ascii_end();
    let length = bytes.iter().rev().take_while(|byte| is_name_byte(byte)).count();
    &bytes[..bytes.len() - length]
}

/// `a`, `{ a, b }`, `{ a }@b` or `a@{ b }`
fn before_argument(bytes: &[u8]) -> Option<&[u8]> {
    let mut bytes = bytes.trim_ascii_end();
    loop {
        bytes = match bytes.last()? {
            b'}' => {
                let mut depth = 0_usize;
                let open = bytes.iter().rposition(|byte| {
                    depth = match byte {
                        b'}' => depth + 1,
                        b'{' => depth.saturating_sub(1),
                        _ => depth,
                    };
                    depth == 0
                })?;
                bytes[..open].trim_ascii_end()
            }
            byte if is_name_byte(byte) => before_name(bytes).trim_ascii_end(),
            _ => return None,
        };
        match bytes {
            [rest @ .., b'@'] => bytes = rest.trim_ascii_end(),
            _ => return Some(bytes),
        }
    }
}

/// A text without the blanks that all its lines begin with, and without blank lines around it.
fn undented(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    let blank = |line: &str| line.trim().is_empty();
    let indents = text.lines().skip(1).filter(|line| !blank(line)).map(|line| line.len() - line.trim_start().len());
    let indent = indents.min().unwrap_or_default();
    let lines = text.lines().enumerate().map(|(number, line)| match number {
        0 => line.trim(),
        _ => line.get(indent..).unwrap_or_default().trim_end(),
    });
    lines.collect::<Vec<_>>().join("\n").trim_matches('\n').to_owned()
}

#[cfg(test)]
mod tests {
    use super::comment_before;

    fn of(text: &str) -> Option<String> {
        comment_before(text.as_bytes(), text.find('^').unwrap(), true)
    }

    #[test]
    fn a_comment_belongs_to_what_follows() {
        assert_eq!(of("/** text */ ^").as_deref(), Some("text"));
        assert_eq!(of("{ /** text */ name.a = ( ^").as_deref(), Some("text"));
        assert_eq!(of("/** text */ a: { b ? { }, ... }@c: d@{ e }: ^").as_deref(), Some("text"));
        assert_eq!(of("/**\n    first\n\n      second\n  */\nname =\n  ^").as_deref(), Some("first\n\n  second"));
    }

    #[test]
    fn other_comments_say_nothing() {
        for text in [
            "^",
            "/* text */ ^",
            "/*** text */ ^",
            "/**/ ^",
            "/** a */ x ^",
            "*/ ^",
            "/** a */ b == ^",
            "{ : ^",
            "} : ^",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
