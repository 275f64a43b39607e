//! Names that nobody uses, and files that are imported.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ast::{Attributes, Kind, List, Name, Node, Origin, Span, Tree};
use crate::error::{Finding, Place, Severity, SourceText};
use crate::eval::Evaluator;
use crate::stack;
use crate::symbols::Symbol;

/// What was found.
pub struct Names {
    /// About names that are not used.
    pub findings: Vec<Finding>,
    /// Paths that are imported.
    pub imports: Vec<Vec<u8>>,
    /// Every path that stands in the text as such.
    pub paths: Vec<Vec<u8>>,
}

/// Looks at all names of a tree.
pub fn look(evaluator: &Evaluator, text: &Arc<SourceText>, tree: &Tree) -> Names {
    let found = Names { findings: Vec::new(), imports: Vec::new(), paths: Vec::new() };
    let mut walk = Walk { evaluator, text, tree, scopes: Vec::new(), found };
    walk.expression(tree.root);
    walk.found
}

/// What a function's argument is called that it takes as a whole: unlike one of several, it can be called otherwise.
const WHOLE: &str = "parameter";

/// A name that may be used or not.
struct Binding {
    span: Span,
    what: &'static str,
    used: bool,
}

enum Scope {
    Names(BTreeMap<Symbol, Binding>),
    /// Of a `with`: whether a name may come from there.
    With(bool),
}

struct Walk<'a> {
    evaluator: &'a Evaluator,
    text: &'a Arc<SourceText>,
    tree: &'a Tree,
    /// Innermost last.
    scopes: Vec<Scope>,
    found: Names,
}

impl Walk<'_> {
    fn uses(&mut self, name: Symbol) {
        for scope in self.scopes.iter_mut().rev() {
            if let Scope::Names(names) = scope
                && let Some(binding) = names.get_mut(&name)
            {
                binding.used = true;
                return;
            }
        }
        if self.evaluator.globals.contains_key(&name) {
            return;
        }
        for scope in &mut self.scopes {
            if let Scope::With(used) = scope {
                *used = true;
            }
        }
    }

    fn warn(&mut self, span: Span, message: String, hint: Option<&str>) {
        let place = Some(Place { text: Arc::clone(self.text), start: span.start as usize, end: span.end as usize });
        let (severity, hint) = (Severity::Warning, hint.map(str::to_owned));
        self.found.findings.push(Finding { severity, message, place, trace: Vec::new(), hint });
    }

    fn within(&mut self, scope: BTreeMap<Symbol, Binding>, walk: impl FnOnce(&mut Self)) {
        self.scopes.push(Scope::Names(scope));
        walk(self);
        let Some(Scope::Names(names)) = self.scopes.pop() else { return };
        for (name, binding) in names {
            let name = self.evaluator.symbols.text(name);
            // A name that begins so says that it is not meant to be used.
            if binding.used || binding.what.is_empty() || name.starts_with('_') {
                continue;
            }
            let hint = (binding.what == WHOLE).then_some("a name that begins with `_` may be unused");
            self.warn(binding.span, format!("{} `{name}` is not used", binding.what), hint);
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
            Kind::Integer(_) | Kind::Float(_) | Kind::String(_) | Kind::Position => {}
            Kind::Path(path) => self.found.paths.push(tree.text(path).to_vec()),
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
                    scope.insert(name, Binding { span, what: WHOLE, used: false });
                }
                for formal in formals {
                    scope.insert(formal.name, Binding { span: formal.span, what: "argument", used: false });
                }
                self.within(scope, |walk| {
                    formals.iter().filter_map(|formal| formal.default).for_each(|default| walk.expression(default));
                    walk.expression(lambda.body);
                    walk.excuse(lambda.argument.map(|(name, _)| name));
                });
            }
            Kind::Call { function, arguments } => {
                if self.is_import(function)
                    && let Some(Kind::Path(path)) = tree.items(arguments).next().map(|first| tree.kind(first))
                {
                    self.found.imports.push(tree.text(path).to_vec());
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
            Kind::With(set, body) => {
                self.expression(set);
                self.scopes.push(Scope::With(false));
                self.expression(body);
                if let Some(Scope::With(false)) = self.scopes.pop() {
                    let span = tree.span(expression);
                    self.warn(span, "nothing is taken from the set of this `with`".to_owned(), None);
                }
            }
            Kind::Assert(first, second) | Kind::Binary(_, first, second) => {
                self.expression(first);
                self.expression(second);
            }
            Kind::If(condition, yes, no) => [condition, yes, no].into_iter().for_each(|part| self.expression(part)),
            Kind::Not(operand) => self.expression(operand),
        }
    }

    /// Where the whole argument is used, its parts are.
    fn excuse(&mut self, whole: Option<Symbol>) {
        let Some(Scope::Names(names)) = self.scopes.last_mut() else { return };
        if whole.and_then(|whole| names.get(&whole)).is_some_and(|binding| binding.used) {
            names.values_mut().for_each(|binding| binding.used = true);
        }
    }

    /// `import` or `builtins.import`
    fn is_import(&self, function: Node) -> bool {
        let is = |name: Symbol| &self.evaluator.symbols.bytes(name)[..] == b"import";
        match self.tree.kind(function) {
            Kind::Variable(name) => is(name),
            Kind::Select { path, .. } => {
                self.tree.names(path).next_back().is_some_and(|name| matches!(name, Name::Static(name) if is(name)))
            }
            _ => false,
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
