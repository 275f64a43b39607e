//! Values as `nix repl` prints them: over several lines where that reads better, what is inside as `{ ... }` unless all is
//! wanted, errors as values among others.

use std::collections::HashSet;

use crate::builtins::derivation_path;
use crate::eval::Evaluator;
use crate::failure::{Result, Sort};
use crate::places::PlaceId;
use crate::symbols::known;
use crate::value::{List, Set, Value, View};
use crate::{show, text};

/// What a piece of a shown value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Brackets, names, blanks.
    Plain,
    /// A number, a Boolean, null.
    Constant,
    /// A string.
    String,
    /// A path, a derivation.
    Path,
    /// A function.
    Function,
    /// A value that was shown before.
    Repeated,
    /// A value that there is not.
    Error,
}

/// A piece of a shown value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// What it is.
    pub style: Style,
    /// How it is written.
    pub text: String,
}

/// A value in pieces. What is wrong inside of it is shown inside; what is wrong with all of it is a failure.
pub fn pieces(evaluator: &Evaluator, value: &Value, whole: bool) -> Result<Vec<Piece>> {
    let value = evaluator.force(value, PlaceId::NONE)?;
    let mut printer = Printer { evaluator, pieces: Vec::new(), seen: HashSet::new(), whole };
    match value.view() {
        View::String(string) if whole => {
            printer.push(Style::Plain, String::from_utf8_lossy(&string.bytes).into_owned());
        }
        _ => printer.print(&value, 0, 0)?,
    }
    Ok(printer.pieces)
}

struct Printer<'a> {
    evaluator: &'a Evaluator,
    pieces: Vec<Piece>,
    seen: HashSet<usize>,
    whole: bool,
}

impl Printer<'_> {
    fn push(&mut self, style: Style, text: impl Into<String>) {
        let text = text.into();
        match self.pieces.last_mut() {
            Some(last) if last.style == style => last.text.push_str(&text),
            _ => self.pieces.push(Piece { style, text }),
        }
    }

    fn line(&mut self, indent: usize) {
        self.push(Style::Plain, format!("\n{}", " ".repeat(indent)));
    }

    /// An item of something, whose failure is a value like others.
    fn item(&mut self, value: &Value, depth: usize, indent: usize) -> Result<()> {
        let printed = match self.evaluator.force(value, PlaceId::NONE) {
            Ok(value) => self.print(&value, depth, indent),
            Err(failure) => Err(failure),
        };
        match printed {
            Err(failure) if !matches!(failure.sort, Sort::Interrupted) => {
                self.push(Style::Error, format!("«error: {}»", failure.message));
                Ok(())
            }
            printed => printed,
        }
    }

    fn print(&mut self, value: &Value, depth: usize, indent: usize) -> Result<()> {
        let _depth = self.evaluator.deeper(PlaceId::NONE)?;
        match value.view() {
            View::Null => self.push(Style::Constant, "null"),
            View::Boolean(boolean) => self.push(Style::Constant, if boolean { "true" } else { "false" }),
            View::Integer(integer) => self.push(Style::Constant, integer.to_string()),
            View::Float(float) => self.push(Style::Constant, text::float(float)),
            View::String(string) => self.push(Style::String, text::quoted(&string.bytes)),
            View::Path(path) => self.push(Style::Path, String::from_utf8_lossy(&path)),
            View::Set(set) => return self.set(value, &set, depth, indent),
            View::List(list) => return self.list(&list, depth, indent),
            _ => {
                let text = show::for_error(self.evaluator, value);
                self.push(Style::Function, text);
            }
        }
        Ok(())
    }

    fn set(&mut self, value: &Value, set: &Set, depth: usize, indent: usize) -> Result<()> {
        if !set.is_empty() && !self.seen.insert(set.address()) {
            self.push(Style::Repeated, "«repeated»");
            return Ok(());
        }
        if self.evaluator.is_derivation(value).unwrap_or(false) {
            let path = match set.get(known::DRV_PATH) {
                Some(_) => format!(" {}", derivation_path(self.evaluator, value)?),
                None => String::new(),
            };
            self.push(Style::Path, format!("«derivation{path}»"));
            return Ok(());
        }
        if set.is_empty() {
            self.push(Style::Plain, "{ }");
            return Ok(());
        }
        if depth > 0 && !self.whole {
            self.push(Style::Plain, "{ ... }");
            return Ok(());
        }
        let sorted = show::sorted(self.evaluator, set);
        let values: Vec<Value> = sorted.iter().map(|(_, value)| *value).collect();
        let lines = self.wants_lines(&values);
        self.push(Style::Plain, "{");
        for (name, value) in &sorted {
            self.space(lines, indent + 2);
            self.push(Style::Plain, format!("{} = ", text::identifier(name)));
            self.item(value, depth + 1, indent + 2)?;
            self.push(Style::Plain, ";");
        }
        self.space(lines, indent);
        self.push(Style::Plain, "}");
        Ok(())
    }

    fn list(&mut self, list: &List, depth: usize, indent: usize) -> Result<()> {
        if list.is_empty() {
            self.push(Style::Plain, "[ ]");
            return Ok(());
        }
        if depth > 0 && !self.whole {
            self.push(Style::Plain, "[ ... ]");
            return Ok(());
        }
        // A list within itself would have no end.
        if !self.seen.insert(list.address()) {
            self.push(Style::Repeated, "«repeated»");
            return Ok(());
        }
        let lines = self.wants_lines(list.values());
        self.push(Style::Plain, "[");
        for value in list.iter() {
            self.space(lines, indent + 2);
            self.item(&value, depth + 1, indent + 2)?;
        }
        self.space(lines, indent);
        self.push(Style::Plain, "]");
        Ok(())
    }

    fn space(&mut self, lines: bool, indent: usize) {
        match lines {
            true => self.line(indent),
            false => self.push(Style::Plain, " "),
        }
    }

    /// One plain thing stands on the line of its brackets.
    fn wants_lines(&self, values: &[Value]) -> bool {
        let [one] = values else { return true };
        let nested = |value: Value| match value.view() {
            View::Set(set) => !set.is_empty() || self.evaluator.is_derivation(&value).unwrap_or(false),
            View::List(_) => true,
            _ => false,
        };
        self.evaluator.force(one, PlaceId::NONE).is_ok_and(nested)
    }
}
