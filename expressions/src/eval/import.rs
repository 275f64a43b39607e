//! Reading expressions: whole texts, and files that are read once.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::Evaluator;
use crate::ast::Tree;
use crate::code::Code;
use crate::compile::Compiler;
use crate::error::{Finding, Severity, SourceText};
use crate::failure::{Failure, Result, Sort};
use crate::parser;
use crate::places::PlaceId;
use crate::symbols::Symbol;
use crate::value::{Scope, Set, Value};
use crate::{Message, heap, paths};

impl Evaluator {
    /// Reads and evaluates a text.
    pub fn eval_text(&self, name: PathBuf, bytes: Vec<u8>, directory: &[u8]) -> Result<Value> {
        let code = self.read_text(name, bytes, directory, None)?;
        self.eval(&code, Scope::new(0, None))
    }

    /// Evaluates a tree in which more names than usual mean something.
    pub fn eval_with(&self, tree: &Tree, names: &[(Symbol, Value)]) -> Result<Value> {
        let symbols: Vec<Symbol> = names.iter().map(|(name, _)| *name).collect();
        let code = self.compile(tree, Some(&symbols))?;
        let scope = Scope::new(names.len(), None);
        for (slot, (_, value)) in (0..).zip(names) {
            scope.set(slot, *value);
        }
        self.eval(&code, scope)
    }

    /// The tree of the inside of a set.
    pub fn parse_bindings(&self, text: &Arc<SourceText>, directory: &[u8]) -> Result<Tree> {
        let home = self.sources.home.as_ref().filter(|_| self.sources.impure);
        let home = home.map(|home| home.as_os_str().as_bytes());
        match parser::parse_bindings(text, &self.symbols, directory, home, self.settings.lints) {
            Ok((tree, _)) => Ok(tree),
            Err(finding) => Err(Failure::of(Sort::Parse(finding.clone()), finding.message)),
        }
    }

    fn read_text(&self, name: PathBuf, bytes: Vec<u8>, directory: &[u8], extra: Option<&[Symbol]>) -> Result<Code> {
        let text = Arc::new(SourceText { name, bytes });
        let tree = self.parse_and_warn(&text, directory)?;
        self.compile(&tree, extra)
    }

    /// The tree of a text, and what is worth a warning.
    pub fn parse(&self, text: &Arc<SourceText>, directory: &[u8]) -> Result<(Tree, Vec<Finding>)> {
        let home = self.sources.home.as_ref().filter(|_| self.sources.impure);
        let home = home.map(|home| home.as_os_str().as_bytes());
        parser::parse(text, &self.symbols, directory, home, self.settings.lints).map_err(|finding| {
            let message = finding.message.clone();
            Failure::of(Sort::Parse(finding), message)
        })
    }

    fn parse_and_warn(&self, text: &Arc<SourceText>, directory: &[u8]) -> Result<Tree> {
        let (tree, warnings) = self.parse(text, directory)?;
        warnings.into_iter().for_each(|warning| self.say(Message::Warning(warning)));
        Ok(tree)
    }

    /// The tree of a text whose names all mean something.
    pub fn check_text(&self, name: PathBuf, bytes: Vec<u8>, directory: &[u8]) -> Result<Tree> {
        let text = Arc::new(SourceText { name, bytes });
        let tree = self.parse_and_warn(&text, directory)?;
        self.compile(&tree, None)?;
        Ok(tree)
    }

    /// Code, unless a name means nothing.
    pub fn compile(&self, tree: &Tree, extra: Option<&[Symbol]>) -> Result<Code> {
        let mut compiler = Compiler::new(&self.symbols, &self.places, &self.globals, tree);
        let code = heap::permanently(|| compiler.whole(extra));
        if compiler.too_deep {
            return Err(Failure::of(Sort::Depth, "the expression is nested too deeply"));
        }
        let mut undefined = compiler.undefined.into_iter();
        let Some(first) = undefined.next() else { return Ok(code) };
        let message = |name: Symbol| format!("undefined variable '{}'", self.symbols.text(name));
        let mut failure = Failure::new(message(first.name)).at(first.place).suggesting(first.suggestions);
        failure.more = undefined
            .map(|other| Finding {
                severity: Severity::Error,
                message: message(other.name),
                place: self.places.get(other.place),
                trace: Vec::new(),
                hint: crate::report::did_you_mean(&other.suggestions),
            })
            .collect();
        Err(failure)
    }

    /// Tells whoever listens.
    pub fn say(&self, message: Message) {
        if let Some(listener) = &self.listener {
            listener(&message);
        }
    }

    /// The file that an import of this path reads: a directory stands for its `default.nix`, a symlink for what it points to.
    pub fn resolve_expression(&self, path: &[u8]) -> Result<Vec<u8>> {
        let mut path = paths::normal(path);
        if self.made_text(&path).is_some() {
            return Ok(path);
        }
        for _ in 0..64 {
            let real = self.real_path(&path)?;
            match self.sources.link_target(&real)? {
                None => {
                    if self.sources.is_directory(&real)? {
                        path = paths::join(&path, b"default.nix");
                        let real = self.real_path(&path)?;
                        if self.sources.link_target(&real)?.is_some() {
                            continue;
                        }
                    }
                    return Ok(path);
                }
                Some(target) => path = paths::join(paths::directory(&path), &target),
            }
        }
        Err(Failure::new(format!("too many symbolic links at '{}'", String::from_utf8_lossy(&path))))
    }

    fn read_expression(&self, path: &[u8], extra: Option<&[Symbol]>) -> Result<Code> {
        let name = Path::new(OsStr::from_bytes(path)).to_owned();
        let (bytes, is_on_disk) = match self.made_text(path) {
            Some(text) => (text, false),
            None => {
                let real = self.real_path(path)?;
                (self.sources.read(&real)?, real == name)
            }
        };
        let code = self.read_text(name, bytes, paths::directory(path), extra)?;
        if is_on_disk {
            self.places.last_is_on_disk();
        }
        Ok(code)
    }

    /// `import path`
    pub fn import(&self, path: &[u8]) -> Result<Value> {
        if let Some(value) = self.import_derivation(path)? {
            return Ok(value);
        }
        let known = self.imports.borrow().get(path).cloned();
        let value = match known {
            Some(value) => value,
            None => {
                let resolved = self.resolve_expression(path)?;
                let by_file = self.imports.borrow().get(&resolved).cloned();
                let value = by_file.unwrap_or_else(|| {
                    let file = resolved.clone();
                    let work = move |evaluator: &Evaluator| {
                        let code = evaluator.read_expression(&file, None)?;
                        evaluator.eval(&code, Scope::new(0, None)).map_err(|failure| {
                            let file = String::from_utf8_lossy(&file);
                            failure.during(PlaceId::NONE, format!("while evaluating the file '{file}':"))
                        })
                    };
                    heap::permanently(|| self.native(Rc::new(work)))
                });
                let mut imports = self.imports.borrow_mut();
                imports.insert(resolved, value);
                imports.insert(path.to_vec(), value);
                value
            }
        };
        self.force(&value, PlaceId::NONE)
    }

    /// `scopedImport set path`
    pub fn scoped_import(&self, set: &Set, path: &[u8]) -> Result<Value> {
        if let Some(value) = self.import_derivation(path)? {
            return Ok(value);
        }
        let resolved = self.resolve_expression(path)?;
        let names: Vec<Symbol> = set.iter().map(|entry| entry.name).collect();
        let code = self.read_expression(&resolved, Some(&names))?;
        let scope = Scope::new(names.len(), None);
        for (slot, entry) in (0..).zip(set.iter()) {
            scope.set(slot, entry.value);
        }
        self.eval(&code, scope)
    }

    /// A function that is written in the language and part of the evaluator.
    pub fn internal(&self, name: &'static str, text: &'static str) -> Result<Value> {
        if let Some(value) = self.internal.borrow().get(name) {
            return Ok(*value);
        }
        let value = self.eval_text(PathBuf::from(name), text.as_bytes().to_vec(), b"/")?;
        heap::keep();
        self.internal.borrow_mut().insert(name, value);
        Ok(value)
    }
}
