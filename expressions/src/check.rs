//! What can be said of an expression without evaluating it: syntax, names that nothing explains, names that nobody uses.
//!
//! Files that it imports by a plain path are looked at, too.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::ast::{Attributes, Kind, List, Name, Node, Origin, Span, Tree};
use crate::error::{Finding, Place, Severity, SourceText};
use crate::eval::Evaluator;
use crate::symbols::{Symbol, Symbols};
use crate::{Sources, paths, report, stack};

/// Everything that is wrong or doubtful about a file and what it imports, in order of files and places.
pub fn check(file: &Path, sources: &Sources) -> Vec<Finding> {
    let sources = sources.clone();
    stack::deep(move || {
        let evaluator = Evaluator::new(sources, crate::settings::Settings::forge(), Some(String::new()), None);
        let mut waiting = vec![paths::normal(file.as_os_str().as_bytes())];
        let mut seen = BTreeSet::new();
        let mut findings = Vec::new();
        while let Some(path) = waiting.pop() {
            let bytes = evaluator.resolve_expression(&path).and_then(|path| {
                let bytes = evaluator.sources.read(Path::new(OsStr::from_bytes(&path)))?;
                Ok((path, bytes))
            });
            match bytes {
                Err(failure) => findings.extend(report::error(&evaluator, *failure).findings),
                Ok((path, bytes)) if seen.insert(path.clone()) => {
                    let directory = paths::directory(&path).to_vec();
                    let text = Arc::new(SourceText { name: PathBuf::from(OsString::from_vec(path)), bytes });
                    let mut imports = check_one(&evaluator, &text, &directory, &mut findings);
                    imports.reverse();
                    waiting.extend(imports);
                }
                Ok(_) => {}
            }
        }
        findings
    })
}

/// The same for one text; imports are not followed.
pub fn check_text(name: PathBuf, bytes: Vec<u8>, directory: &Path, sources: &Sources) -> Vec<Finding> {
    let sources = sources.clone();
    stack::deep(move || {
        let evaluator = Evaluator::new(sources, crate::settings::Settings::forge(), Some(String::new()), None);
        let mut findings = Vec::new();
        let text = Arc::new(SourceText { name, bytes });
        check_one(&evaluator, &text, &paths::normal(directory.as_os_str().as_bytes()), &mut findings);
        findings
    })
}

/// Gives the paths that the text imports.
fn check_one(
    evaluator: &Evaluator,
    text: &Arc<SourceText>,
    directory: &[u8],
    findings: &mut Vec<Finding>,
) -> Vec<Vec<u8>> {
    let (tree, warnings) = match evaluator.parse(text, directory) {
        Ok(parsed) => parsed,
        Err(failure) => {
            findings.extend(report::error(evaluator, *failure).findings);
            return Vec::new();
        }
    };
    let mut found = warnings;
    if let Err(failure) = evaluator.compile(&tree, None) {
        found.extend(report::error(evaluator, *failure).findings);
    }
    let symbols = &evaluator.symbols;
    let mut walk = Walk { symbols, text, tree: &tree, scopes: Vec::new(), findings: &mut found, imports: Vec::new() };
    walk.expression(tree.root);
    let imports = walk.imports;
    found.sort_by_key(|finding| finding.place.as_ref().map_or(0, |place| place.start));
    findings.append(&mut found);
    imports
}

/// A name that may be used or not.
struct Binding {
    span: Span,
    what: &'static str,
    used: bool,
}

struct Walk<'a> {
    symbols: &'a Symbols,
    text: &'a Arc<SourceText>,
    tree: &'a Tree,
    /// Innermost last.
    scopes: Vec<BTreeMap<Symbol, Binding>>,
    findings: &'a mut Vec<Finding>,
    imports: Vec<Vec<u8>>,
}

impl Walk<'_> {
    fn uses(&mut self, name: Symbol) {
        if let Some(binding) = self.scopes.iter_mut().rev().find_map(|scope| scope.get_mut(&name)) {
            binding.used = true;
        }
    }

    fn within(&mut self, scope: BTreeMap<Symbol, Binding>, walk: impl FnOnce(&mut Self)) {
        self.scopes.push(scope);
        walk(self);
        for (name, binding) in self.scopes.pop().unwrap_or_default() {
            let name = self.symbols.text(name);
            // A name that begins so says that it is not meant to be used.
            if binding.used || binding.what.is_empty() || name.starts_with('_') {
                continue;
            }
            let (start, end) = (binding.span.start as usize, binding.span.end as usize);
            self.findings.push(Finding {
                severity: Severity::Warning,
                message: format!("{} `{name}` is not used", binding.what),
                place: Some(Place { text: Arc::clone(self.text), start, end }),
                trace: Vec::new(),
                hint: None,
            });
        }
    }

    fn path(&mut self, path: List<Name>) {
        for name in self.tree.names(path) {
            if let Name::Dynamic(name) = name {
                self.expression(name);
            }
        }
    }

    fn expression(&mut self, expression: Node) {
        if !stack::has_room() {
            // Whoever compiles it refuses it.
            return;
        }
        let tree = self.tree;
        match tree.kind(expression) {
            Kind::Integer(_) | Kind::Float(_) | Kind::String(_) | Kind::Path(_) | Kind::Position => {}
            Kind::Variable(name) => self.uses(name),
            Kind::Concatenation { parts, .. } => tree.parts(parts).for_each(|part| self.expression(part.node)),
            Kind::Select { from, path, fallback } => {
                self.expression(from);
                self.path(path);
                fallback.into_iter().for_each(|fallback| self.expression(fallback));
            }
            Kind::Has { from, path } => {
                self.expression(from);
                self.path(path);
            }
            Kind::Attributes(number) => {
                let attributes = tree.attributes(number);
                if attributes.recursive {
                    let scope = names(attributes, "");
                    self.within(scope, |walk| walk.attributes(attributes, true));
                } else {
                    self.attributes(attributes, false);
                }
            }
            Kind::List(items) => tree.items(items).for_each(|item| self.expression(item)),
            Kind::Lambda(number) => {
                let lambda = tree.lambda(number);
                let formals = lambda.formals.map_or(&[][..], |formals| tree.formals(formals));
                let mut scope = BTreeMap::new();
                if let Some((name, span)) = lambda.argument {
                    scope.insert(name, Binding { span, what: "", used: false });
                }
                for formal in formals {
                    scope.insert(formal.name, Binding { span: formal.span, what: "argument", used: false });
                }
                self.within(scope, |walk| {
                    formals.iter().filter_map(|formal| formal.default).for_each(|default| walk.expression(default));
                    walk.expression(lambda.body);
                });
            }
            Kind::Call { function, arguments } => {
                if let Kind::Variable(name) = tree.kind(function)
                    && let Some(Kind::Path(path)) = tree.items(arguments).next().map(|first| tree.kind(first))
                    && &self.symbols.bytes(name)[..] == b"import"
                {
                    self.imports.push(tree.text(path).to_vec());
                }
                self.expression(function);
                tree.items(arguments).for_each(|argument| self.expression(argument));
            }
            Kind::Let(number, body) => {
                let attributes = tree.attributes(number);
                let scope = names(attributes, "binding");
                self.within(scope, |walk| {
                    walk.attributes(attributes, true);
                    walk.expression(body);
                });
            }
            Kind::With(first, second) | Kind::Assert(first, second) | Kind::Binary(_, first, second) => {
                self.expression(first);
                self.expression(second);
            }
            Kind::If(condition, yes, no) => [condition, yes, no].into_iter().for_each(|part| self.expression(part)),
            Kind::Not(operand) => self.expression(operand),
        }
    }

    fn attributes(&mut self, attributes: &Attributes, recursive: bool) {
        attributes.sources.iter().for_each(|source| self.expression(*source));
        for entry in &attributes.entries {
            match entry.origin {
                Origin::Plain => self.expression(entry.value),
                Origin::InheritedFrom(_) => {}
                Origin::Inherited if recursive => {
                    // The name of the scope around, not this set's own.
                    let own = self.scopes.pop();
                    self.uses(entry.name);
                    self.scopes.extend(own);
                }
                Origin::Inherited => self.uses(entry.name),
            }
        }
        for (name, value, _) in &attributes.dynamic {
            self.expression(*name);
            self.expression(*value);
        }
    }
}

fn names(attributes: &Attributes, what: &'static str) -> BTreeMap<Symbol, Binding> {
    let names = attributes.entries.iter();
    names.map(|entry| (entry.name, Binding { span: entry.span, what, used: false })).collect()
}
