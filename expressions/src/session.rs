//! An evaluation that goes on: names are bound, and what is asked next sees them. `forge repl` is the terminal in front of it.
//!
//! Nothing is printed and no terminal read here. A session stays on the thread with the deep stack that it was begun on.

mod document;
mod print;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use store::lock::Lock;

pub use self::document::Documentation;
pub use self::print::{Piece, Style};
use crate::ast::Tree;
use crate::builtins::to_json;
use crate::error::{Error, Finding, Place, Severity, SourceText};
use crate::eval::Evaluator;
use crate::failure::{Failure, Result, Sort};
use crate::library::library;
use crate::locking::Question;
use crate::places::PlaceId;
use crate::plan::{Argument, given, supply_with};
use crate::settings::Settings;
use crate::sources::Sources;
use crate::stack::{self, Interrupter};
use crate::symbols::Symbol;
use crate::value::{Context, Value, View};
use crate::{Listener, paths, report, show};

/// What a session works with.
#[derive(Clone)]
pub struct Environment {
    /// Where relative paths start; absolute.
    pub directory: PathBuf,
    /// What can be read.
    pub sources: Sources,
    /// For which system, for instance `x86_64-linux`.
    pub system: String,
    /// Answers what the library asks.
    pub lock: Lock,
    /// `--arg` and `--argstr`, by name.
    pub arguments: Vec<(String, Argument)>,
    /// Hears traces and warnings.
    pub listener: Option<Listener>,
}

/// Names and their values, and the evaluator that knows them.
pub struct Session {
    environment: Environment,
    evaluator: Evaluator,
    names: BTreeMap<Symbol, Value>,
    loaded: Vec<Load>,
    last: Vec<String>,
}

/// What was brought into scope, to be brought again by [`Session::reload`].
#[derive(Debug, Clone, PartialEq, Eq)]
enum Load {
    File(PathBuf),
    Text(String),
}

/// What a text is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// Blanks and comments.
    Nothing,
    /// The beginning of something.
    Incomplete,
    /// An expression.
    Expression,
    /// `a = 1`, `inherit (a) b;`
    Bindings,
    /// None of these.
    Wrong(Error),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Something is wrong with what was asked.
    Wrong(Error),
    /// The lock does not answer these.
    Unlocked(Vec<Question>),
    /// Somebody interrupted.
    Interrupted,
}

/// Begins a session and gives it to somebody.
pub fn begin<T: Send>(environment: Environment, work: impl FnOnce(Session) -> T + Send) -> T {
    stack::deep(move || work(Session::new(environment)))
}

impl Session {
    fn new(environment: Environment) -> Self {
        let evaluator = evaluator(&environment);
        let mut session = Self { environment, evaluator, names: BTreeMap::new(), loaded: Vec::new(), last: Vec::new() };
        session.bind_library();
        session
    }

    fn bind_library(&mut self) {
        // The library is forge's own: it can be had.
        if let Ok(value) = library(&self.evaluator) {
            self.names.insert(self.evaluator.symbols.intern(b"forge"), value);
        }
    }

    /// Interrupts what the session is doing, from another thread.
    pub fn interrupter(&self) -> Interrupter {
        stack::interrupter()
    }

    /// What a text is; nothing is evaluated.
    pub fn read(&self, text: &str) -> Reading {
        if self.is_blank(text) {
            return Reading::Nothing;
        }
        let failure = match self.parse(text) {
            Ok(_) => return Reading::Expression,
            Err(failure) => failure,
        };
        let of_bindings = match self.parse_bindings(text) {
            Ok(_) => return Reading::Bindings,
            Err(failure) => failure,
        };
        if ends_early(&failure) || ends_early(&of_bindings) {
            return Reading::Incomplete;
        }
        // Whichever got further says more.
        let at = |failure: &Failure| match &failure.sort {
            Sort::Parse(finding) => finding.place.as_ref().map_or(0, |place| place.start),
            _ => 0,
        };
        let chosen = if at(&of_bindings) > at(&failure) { of_bindings } else { failure };
        Reading::Wrong(report::error(&self.evaluator, *chosen))
    }

    /// Whether there is nothing but blanks and comments.
    fn is_blank(&self, text: &str) -> bool {
        text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    }

    /// The value of an expression in pieces that can be coloured: its outermost part, or `whole`, where a string stands as it is.
    pub fn show(&mut self, text: &str, whole: bool) -> std::result::Result<Vec<Piece>, Trouble> {
        self.attempt(|session| {
            let value = session.value(text)?;
            print::pieces(&session.evaluator, &value, whole)
        })
    }

    /// The value of an expression as JSON.
    pub fn json(&mut self, text: &str) -> std::result::Result<Vec<u8>, Trouble> {
        self.attempt(|session| {
            let value = session.value(text)?;
            to_json(&session.evaluator, &value, PlaceId::NONE, &mut Context::new(), false)
        })
    }

    /// What kind of value an expression has: `an integer`.
    pub fn kind(&mut self, text: &str) -> std::result::Result<String, Trouble> {
        self.attempt(|session| Ok(session.value(text)?.kind().into_owned()))
    }

    /// Binds names: `a = 1`, `a.b = 1; inherit (a) b;`. What they stand for is evaluated when it is asked for.
    pub fn bind(&mut self, text: &str) -> std::result::Result<(), Trouble> {
        self.attempt(|session| {
            let tree = session.parse_bindings(text)?;
            let value = session.evaluate(&tree)?;
            session.add_set(&value).map(|_| ())
        })
    }

    /// Brings the attributes of an expression's value into scope; gives their names.
    pub fn add(&mut self, text: &str) -> std::result::Result<Vec<String>, Trouble> {
        self.attempt(|session| {
            let value = session.value(text)?;
            let names = session.add_set(&value)?;
            session.last.clone_from(&names);
            Ok(names)
        })
    }

    /// Brings the attributes of a file's value into scope, functions being called with what is known; gives their names.
    pub fn load(&mut self, file: &Path) -> std::result::Result<Vec<String>, Trouble> {
        let file = self.environment.directory.join(file);
        let names = self.attempt(|session| session.load_now(&Load::File(file.clone())))?;
        if !self.loaded.contains(&Load::File(file.clone())) {
            self.loaded.push(Load::File(file));
        }
        Ok(names)
    }

    /// The same of a text, which is loaded again with the files.
    pub fn load_text(&mut self, text: &str) -> std::result::Result<Vec<String>, Trouble> {
        let load = Load::Text(text.to_owned());
        let names = self.attempt(|session| session.load_now(&load))?;
        self.loaded.push(load);
        Ok(names)
    }

    fn load_now(&mut self, load: &Load) -> Result<Vec<String>> {
        let value = match load {
            Load::File(file) => self.evaluator.import(&paths::normal(file.as_os_str().as_bytes()))?,
            Load::Text(text) => self.value(text)?,
        };
        let arguments = given(&self.evaluator, &self.environment.arguments, &self.environment.directory)?;
        let value = supply_with(&self.evaluator, arguments, value)?;
        let names = self.add_set(&value)?;
        self.last.clone_from(&names);
        Ok(names)
    }

    /// Forgets all names, and loads again, from what the files are now, what was loaded; says of each what came of it.
    pub fn reload(&mut self) -> Vec<(String, std::result::Result<Vec<String>, Trouble>)> {
        self.evaluator = evaluator(&self.environment);
        self.names.clear();
        self.last.clear();
        self.bind_library();
        let loads = self.loaded.clone();
        let results = loads.into_iter().map(|load| {
            let result = self.attempt(|session| session.load_now(&load));
            let what = match load {
                Load::File(file) => file.display().to_string(),
                Load::Text(text) => text,
            };
            (what, result)
        });
        results.collect()
    }

    /// The names that were brought into scope last; none if nothing was.
    pub fn last_loaded(&self) -> &[String] {
        &self.last
    }

    /// What could stand where a text ends: where the last word begins, and what could be there instead of it.
    pub fn complete(&mut self, text: &str) -> (usize, Vec<String>) {
        let is_part = |character: char| character.is_ascii_alphanumeric() || "_'-.".contains(character);
        let start = text.char_indices().rev().take_while(|(_, character)| is_part(*character)).last();
        let start = start.map_or(text.len(), |(offset, _)| offset);
        let word = &text[start..];
        let Some((path, last)) = word.rsplit_once('.') else {
            let evaluator = &self.evaluator;
            let globals = evaluator.globals.keys().map(|name| evaluator.symbols.text(*name));
            let globals = globals.filter(|name| word.starts_with("__") || !name.starts_with("__"));
            let mut names: Vec<String> = self.names.keys().map(|name| evaluator.symbols.text(*name)).collect();
            names.extend(globals);
            names.retain(|name| name.starts_with(word) && crate::text::identifier(name.as_bytes()) == *name);
            names.sort_unstable();
            names.dedup();
            return (start, names);
        };
        let names = self.attempt(|session| {
            let value = session.value(path)?;
            let View::Set(set) = value.view() else { return Ok(Vec::new()) };
            let names =
                show::sorted(&session.evaluator, &set).into_iter().map(|(name, _)| crate::text::identifier(&name));
            Ok(names.filter(|name| name.starts_with(last)).map(|name| format!("{path}.{name}")).collect())
        });
        (start, names.unwrap_or_default())
    }

    /// Where what an expression stands for is written: a function, a file, or what has a place.
    pub fn place(&mut self, text: &str) -> std::result::Result<Option<Place>, Trouble> {
        self.attempt(|session| session.place_of(text))
    }

    /// What is written about a builtin, a function or an attribute.
    pub fn documentation(&mut self, text: &str) -> std::result::Result<Option<Documentation>, Trouble> {
        self.attempt(|session| session.document(text))
    }

    /// The `.drv` path of an expression's derivation.
    pub fn derivation(&mut self, text: &str) -> std::result::Result<Option<String>, Trouble> {
        self.attempt(|session| {
            let value = session.value(text)?;
            if !session.evaluator.is_derivation(&value)? {
                return Ok(None);
            }
            let path = crate::builtins::derivation_path(&session.evaluator, &value)?;
            Ok(Some(path.as_str().to_owned()))
        })
    }

    fn value(&self, text: &str) -> Result<Value> {
        self.evaluate(&self.parse(text)?)
    }

    fn evaluate(&self, tree: &Tree) -> Result<Value> {
        let names: Vec<(Symbol, Value)> = self.names.iter().map(|(name, value)| (*name, *value)).collect();
        self.evaluator.within_memory(|| self.evaluator.eval_with(tree, &names))
    }

    fn parse(&self, text: &str) -> Result<Tree> {
        let (tree, _) = self.evaluator.parse(&source(text), self.environment.directory.as_os_str().as_bytes())?;
        Ok(tree)
    }

    /// A semicolon at the end may be left out.
    fn parse_bindings(&self, text: &str) -> Result<Tree> {
        let parse = |text: &str| {
            self.evaluator.parse_bindings(&source(text), self.environment.directory.as_os_str().as_bytes())
        };
        parse(text).or_else(|failure| parse(&format!("{};", text.trim_end())).map_err(|_| failure))
    }

    fn add_set(&mut self, value: &Value) -> Result<Vec<String>> {
        let what = "while evaluating an attribute set to be merged in the global scope";
        let set = self.evaluator.force_set(value, PlaceId::NONE, what)?;
        let mut names = Vec::new();
        for (name, value) in show::sorted(&self.evaluator, &set) {
            self.names.insert(self.evaluator.symbols.intern(&name), value);
            names.push(crate::text::identifier(&name));
        }
        Ok(names)
    }

    /// Does something that may fail, be interrupted, or want an answer that the lock does not have.
    fn attempt<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> std::result::Result<T, Trouble> {
        let result = work(self);
        let missing = std::mem::take(&mut self.evaluator.locking.borrow_mut().missing);
        if stack::interrupted() {
            stack::resume();
            return Err(Trouble::Interrupted);
        }
        if !missing.is_empty() {
            return Err(Trouble::Unlocked(missing.into_values().collect()));
        }
        result.map_err(|failure| Trouble::Wrong(report::error(&self.evaluator, *failure)))
    }
}

fn evaluator(environment: &Environment) -> Evaluator {
    let (system, listener) = (Some(environment.system.clone()), environment.listener.clone());
    let evaluator = Evaluator::new(environment.sources.clone(), Settings::forge(), system, listener);
    evaluator.locking.borrow_mut().lock = environment.lock.clone();
    evaluator
}

fn source(text: &str) -> Arc<SourceText> {
    Arc::new(SourceText { name: PathBuf::from("«repl»"), bytes: text.as_bytes().to_vec() })
}

/// Whether a text could go on.
fn ends_early(failure: &Failure) -> bool {
    matches!(&failure.sort, Sort::Parse(finding) if finding.message.starts_with("syntax error, unexpected end of file"))
}

impl Trouble {
    /// Something that is wrong and has no place.
    pub fn new(message: impl Into<String>) -> Self {
        let (severity, message) = (Severity::Error, message.into());
        let finding = Finding { severity, message, place: None, trace: Vec::new(), hint: None };
        Self::Wrong(Error::new(vec![finding]))
    }
}

/// What a path of a file is called.
fn file_name(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests;
