//! Gives names their meaning: which scope and slot each one stands for, or which `with` may explain it.

use std::sync::Arc;

use crate::ast::{Attributes, Kind, Lambda, List, Name, Node, Operator, Origin, Part, Span, Tree};
use crate::builtins::Builtin;
use crate::code::{
    Arithmetic, ArithmeticCode, AssertCode, BinaryCode, CallCode, Code, ConcatenationCode, DynamicCode, FormalCode,
    FormalsCode, FromWithCode, HasCode, IfCode, LambdaCode, LetCode, MoreSelectCode, MoreSetCode, NameCode, SelectCode,
    SetCode, Where, WithCode,
};
use crate::fast_hash::FastMap;
use crate::heap::{self, Guess, Keys, Ref, Slice, View, place};
use crate::places::{PlaceId, Places};
use crate::symbols::{Symbol, Symbols, known};
use crate::value::Value;
use crate::{ast_print, stack};

/// A name that nothing explains.
pub struct Undefined {
    /// The name.
    pub name: Symbol,
    /// Where.
    pub place: PlaceId,
    /// Names that are visible there and look alike.
    pub suggestions: Vec<String>,
}

/// So many undefined names are told what may have been meant.
const MOST_SUGGESTED: usize = 100;

/// Names that are visible everywhere.
pub type Globals = FastMap<Symbol, Value>;

/// Turns a tree into code.
pub struct Compiler<'a> {
    symbols: &'a Symbols,
    places: &'a Places,
    globals: &'a Globals,
    tree: &'a Tree,
    /// What nothing explained.
    pub undefined: Vec<Undefined>,
    /// There was no room on the stack for all of it.
    pub too_deep: bool,
    /// How deep inside other code the code is that is being made.
    depth: u32,
    /// Of the code that is made next: it is the body of a function that has so many names.
    body_of: Option<u32>,
}

/// Calls and thunks look how much room is left on the stack. Code inside code that is neither does so once in so many levels.
const LOOKED_AFTER: u32 = 64;

/// The names that are visible at some point.
#[derive(Clone, Copy)]
enum Visible<'a> {
    Nothing,
    /// Names and slots, sorted.
    Names(&'a [(Symbol, u32)], &'a Visible<'a>),
    /// More names of the same scope as those around them.
    More(&'a [(Symbol, u32)], &'a Visible<'a>),
    With(PlaceId, &'a Visible<'a>),
}

impl<'a> Compiler<'a> {
    /// For one text.
    pub fn new(symbols: &'a Symbols, places: &'a Places, globals: &'a Globals, tree: &'a Tree) -> Self {
        places.text(Arc::clone(&tree.source));
        Self { symbols, places, globals, tree, undefined: Vec::new(), too_deep: false, depth: 0, body_of: None }
    }

    /// A whole text; `extra` are the names of a scope that is given to it (`scopedImport`), in order of their slots.
    pub fn whole(&mut self, extra: Option<&[Symbol]>) -> Code {
        match extra {
            None => self.code(self.tree.root, &Visible::Nothing),
            Some(names) => {
                let names = numbered(names.iter().copied());
                self.code(self.tree.root, &Visible::Names(&names, &Visible::Nothing))
            }
        }
    }

    fn place(&self, span: Span) -> PlaceId {
        // What is not written has no place.
        if span == Span::default() { PlaceId::NONE } else { self.places.add(span) }
    }

    fn code(&mut self, expression: Node, visible: &Visible) -> Code {
        if !stack::has_room() {
            self.too_deep = true;
            return Code::Constant(Value::NULL);
        }
        self.depth += 1;
        let code = self.code_inside(expression, visible);
        self.depth -= 1;
        match code {
            // These evaluate nothing that is inside them at once.
            Code::Constant(_) | Code::Variable(..) | Code::Lambda(_) | Code::List(_) => code,
            // Its attributes are looked into while it is not evaluated yet.
            Code::Set(set) if set.more.is_none_or(|more| more.dynamic.is_empty() && more.overrides.is_none()) => code,
            code if self.depth.is_multiple_of(LOOKED_AFTER) && self.depth > 0 => Code::Deep(place(code)),
            code => code,
        }
    }

    fn code_inside(&mut self, expression: Node, visible: &Visible) -> Code {
        let tree = self.tree;
        let span = tree.span(expression);
        let body_of = self.body_of.take();
        match tree.kind(expression) {
            Kind::Integer(integer) => Code::Constant(Value::integer(integer)),
            Kind::Float(float) => Code::Constant(Value::float(float)),
            Kind::String(text) => Code::Constant(Value::string(tree.text(text))),
            Kind::Path(path) => Code::Constant(Value::path(tree.text(path))),
            Kind::Variable(name) => self.variable(name, span, visible),
            Kind::Position => Code::Position(self.place(span)),
            Kind::Concatenation { forced, parts } => self.concatenation(forced, parts, span, visible),
            Kind::Select { from, path, fallback } => {
                let from = self.code(from, visible);
                let mut names = self.path(path, visible).into_iter();
                let name = names.next().unwrap_or(NameCode::Static(known::OR, Guess::default()));
                let fallback = fallback.map(|fallback| self.code(fallback, visible));
                let is_more = fallback.is_some() || names.len() > 0;
                let more = is_more.then(|| place(MoreSelectCode { path: Slice::new(names), fallback }));
                Code::Select(place(SelectCode { from, name, more, place: self.place(span) }))
            }
            Kind::Has { from, path } => {
                let from = self.code(from, visible);
                let path = Slice::new(self.path(path, visible));
                Code::Has(place(HasCode { from, path }))
            }
            Kind::Attributes(number) => {
                let attributes = tree.attributes(number);
                let names = if attributes.recursive { slots(attributes) } else { Vec::new() };
                let inside = Visible::Names(&names, visible);
                let inside = if attributes.recursive { &inside } else { visible };
                Code::Set(place(self.set(attributes, attributes.recursive, inside, visible, span)))
            }
            Kind::List(items) if tree.items(items).len() == 0 => Code::Constant(Value::list(Vec::new())),
            Kind::List(items) => {
                let items = Slice::new(tree.items(items).map(|item| self.code(item, visible)));
                Code::List(place(items))
            }
            Kind::Lambda(number) => Code::Lambda(place(self.lambda(tree.lambda(number), span, visible, body_of))),
            Kind::Call { function, arguments } => {
                let function = self.code(function, visible);
                let arguments: Vec<_> = tree.items(arguments).map(|argument| self.code(argument, visible)).collect();
                let place = self.place(span);
                arithmetic(function, &arguments, place).unwrap_or_else(|| {
                    Code::Call(heap::place(CallCode { function, arguments: Slice::new(arguments), place }))
                })
            }
            Kind::Let(number, body) => {
                let attributes = tree.attributes(number);
                let mut names = slots(attributes);
                let from = body_of;
                names.iter_mut().for_each(|(_, slot)| *slot += from.unwrap_or(0));
                let inside = match from {
                    Some(_) => Visible::More(&names, visible),
                    None => Visible::Names(&names, visible),
                };
                let set = self.set(attributes, true, &inside, visible, span);
                Code::Let(place(LetCode { set, from, body: self.code(body, &inside) }))
            }
            Kind::With(set, body) => {
                let set = self.code(set, visible);
                let place = self.place(span);
                let body = self.code(body, &Visible::With(place, visible));
                Code::With(heap::place(WithCode { set, body, place }))
            }
            Kind::If(condition, yes, no) => {
                let [condition, yes, no] = [condition, yes, no].map(|part| self.code(part, visible));
                Code::If(place(IfCode { condition, yes, no, place: self.place(span) }))
            }
            Kind::Assert(condition, body) => {
                let text = heap::bytes(ast_print::expression(self.symbols, tree, condition).as_bytes());
                let condition = self.code(condition, visible);
                let body = self.code(body, visible);
                Code::Assert(place(AssertCode { condition, text, body, place: self.place(span) }))
            }
            Kind::Not(operand) => Code::Not(place(self.code(operand, visible))),
            Kind::Binary(operator, left, right) => {
                let (left, right) = (self.code(left, visible), self.code(right, visible));
                let operands = (left.place(), right.place());
                Code::Binary(operator, place(BinaryCode { left, right, place: self.place(span), operands }))
            }
        }
    }

    fn concatenation(&mut self, forced: bool, parts: List<Part>, span: Span, visible: &Visible) -> Code {
        let parts: Vec<_> =
            self.tree.parts(parts).map(|part| (self.place(part.span), self.code(part.node, visible))).collect();
        let place = self.place(span);
        match parts[..] {
            [left, right] if !forced => {
                let operands = (left.0, right.0);
                Code::Add(heap::place(BinaryCode { left: left.1, right: right.1, place, operands }))
            }
            _ => Code::Concatenation(heap::place(ConcatenationCode { forced, parts: Slice::new(parts), place })),
        }
    }

    fn path(&mut self, path: List<Name>, visible: &Visible) -> Vec<NameCode> {
        let names = self.tree.names(path).map(|name| match name {
            Name::Static(name) => NameCode::Static(name, Guess::default()),
            Name::Dynamic(name) => {
                let text = format!("\"${{{}}}\"", ast_print::expression(self.symbols, self.tree, name));
                NameCode::Dynamic(place((self.code(name, visible), heap::bytes(text.as_bytes()))))
            }
        });
        names.collect()
    }

    fn variable(&mut self, name: Symbol, span: Span, visible: &Visible) -> Code {
        let place = self.place(span);
        let mut withs = Vec::new();
        let mut level = 0;
        let mut around = visible;
        loop {
            match around {
                Visible::Names(names, outer) => {
                    if let Ok(number) = names.binary_search_by_key(&name, |(name, _)| *name) {
                        return variable(level, names[number].1, place);
                    }
                    around = outer;
                }
                Visible::More(names, outer) => {
                    if let Ok(number) = names.binary_search_by_key(&name, |(name, _)| *name) {
                        return variable(level, names[number].1, place);
                    }
                    around = outer;
                    continue;
                }
                Visible::With(place, outer) => {
                    withs.push((level, *place));
                    around = outer;
                }
                Visible::Nothing => break,
            }
            level += 1;
        }
        if let Some(value) = self.globals.get(&name) {
            return Code::Constant(*value);
        }
        if withs.is_empty() {
            // What was meant is worked out for as many as anyone reads.
            let few = self.undefined.len() < MOST_SUGGESTED;
            let suggestions = if few { self.suggestions(name, visible) } else { Vec::new() };
            self.undefined.push(Undefined { name, place, suggestions });
        }
        Code::FromWith(heap::place(FromWithCode { name, withs: Slice::new(withs), place, guess: Guess::default() }))
    }

    fn suggestions(&self, name: Symbol, visible: &Visible) -> Vec<String> {
        let mut known: Vec<Symbol> = self.globals.keys().copied().collect();
        let mut around = visible;
        loop {
            match around {
                Visible::Names(names, outer) | Visible::More(names, outer) => {
                    known.extend(names.iter().map(|(name, _)| *name));
                    around = outer;
                }
                Visible::With(_, outer) => around = outer,
                Visible::Nothing => break,
            }
        }
        let known: Vec<String> = known.into_iter().map(|name| self.symbols.text(name)).collect();
        let shown = known.iter().map(String::as_str).filter(|name| !name.starts_with("__"));
        crate::failure::suggestions(&self.symbols.text(name), shown)
    }

    fn set(
        &mut self,
        attributes: &Attributes,
        recursive: bool,
        inside: &Visible,
        outside: &Visible,
        span: Span,
    ) -> SetCode {
        let sources: Vec<_> = attributes.sources.iter().map(|source| self.code(*source, inside)).collect();
        let mut sorted: Vec<_> = attributes.entries.iter().collect();
        sorted.sort_by_key(|entry| entry.name);
        let overrides = sorted.iter().position(|entry| recursive && entry.name == known::OVERRIDES);
        let entries = sorted.iter().map(|entry| {
            let (sees, code) = match entry.origin {
                Origin::Plain => (Where::Inside, self.code(entry.value, inside)),
                Origin::Inherited => {
                    (if recursive { Where::Outside } else { Where::Inside }, self.code(entry.value, outside))
                }
                Origin::InheritedFrom(source) => {
                    let from = variable(0, source, self.place(self.tree.span(entry.value)));
                    let name = NameCode::Static(entry.name, Guess::default());
                    let place = self.place(entry.span);
                    (Where::Sources, Code::Select(heap::place(SelectCode { from, name, more: None, place })))
                }
            };
            (sees, code)
        });
        let (each_sees, entries): (Vec<_>, Vec<_>) = entries.unzip();
        let entries = Slice::new(entries);
        let sees = match each_sees.first() {
            Some(first) if each_sees.iter().any(|sees| sees != first) => None,
            first => Some(first.copied().unwrap_or(Where::Inside)),
        };
        let dynamic = attributes.dynamic.iter().map(|(name, value, span)| {
            let name = self.code(*name, inside);
            DynamicCode { name, value: self.code(*value, inside), place: self.place(*span) }
        });
        let dynamic = Slice::new(dynamic);
        let sorted_names: Vec<_> = sorted.iter().map(|entry| entry.name).collect();
        let places: Vec<_> = sorted.iter().map(|entry| self.place(entry.span)).collect();
        let keys = Keys::common(&sorted_names, &places, self.place(span));
        let overrides = overrides.map(|number| number as u32);
        let is_more = sees.is_none() || !dynamic.is_empty() || !sources.is_empty() || overrides.is_some();
        let more = is_more.then(|| {
            let each_sees = if sees.is_none() { Slice::new(each_sees) } else { Slice::default() };
            place(MoreSetCode { dynamic, sources: Slice::new(sources), overrides, sees: each_sees })
        });
        SetCode { recursive, sees, keys, entries, more }
    }

    /// A function; where it is itself the body of one that has names, and wants no attributes, both have one scope.
    fn lambda(&mut self, lambda: &Lambda, span: Span, visible: &Visible, body_of: Option<u32>) -> LambdaCode {
        let place = self.place(span);
        let argument = lambda.argument.map(|(name, _)| name);
        let Some(formals) = lambda.formals else {
            let before = body_of.unwrap_or(0);
            let names: Vec<_> = argument.into_iter().map(|name| (name, before)).collect();
            let inside = if before > 0 { Visible::More(&names, visible) } else { Visible::Names(&names, visible) };
            let (body, slots) = self.body(lambda.body, &inside, before + 1);
            let first = first_argument(&body, before);
            return LambdaCode { name: lambda.name, argument, formals: None, slots, before, first, body, place };
        };
        let offset = u32::from(argument.is_some());
        let ellipsis = formals.ellipsis;
        let mut sorted: Vec<_> = self.tree.formals(formals).iter().collect();
        sorted.sort_by_key(|formal| formal.name);
        let mut names: Vec<_> = sorted.iter().zip(offset..).map(|(formal, slot)| (formal.name, slot)).collect();
        names.extend(argument.map(|name| (name, 0)));
        names.sort_unstable();
        let inside = Visible::Names(&names, visible);
        let formals = sorted.iter().map(|formal| FormalCode {
            name: formal.name,
            default: formal.default.map(|default| self.code(default, &inside)),
            place: self.place(formal.span),
            guess: Guess::default(),
        });
        let formals = heap::place(FormalsCode { list: Slice::new(formals), ellipsis });
        let (body, slots) = self.body(lambda.body, &inside, names.len() as u32);
        // It looks into its argument before anything else.
        let first = Some((0, 1));
        LambdaCode { name: lambda.name, argument, formals: Some(formals), slots, before: 0, first, body, place }
    }

    /// The body of a function with so many names, and how many slots its scope has: the names of a `let` lie behind its own.
    fn body(&mut self, body: Node, inside: &Visible, names: u32) -> (Ref<Code>, u32) {
        self.body_of = (names > 0).then_some(names);
        let code = place(self.code(body, inside));
        self.body_of = None;
        let more = match code.shallow() {
            Code::Let(code) if code.from.is_some() => code.set.entries.len() as u32,
            _ => 0,
        };
        (code, names + more)
    }
}

/// So many arguments of a call are worth a thought.
const MOST_ARGUMENTS: u8 = 8;

/// Which argument a function without formals evaluates first, its own being in this slot; see [`LambdaCode::first`].
fn first_argument(body: &Code, own: u32) -> Option<(u8, u8)> {
    if let Code::Lambda(inner) = body
        && let Some((number, wanted)) = inner.first
    {
        return (wanted < MOST_ARGUMENTS).then_some((number + 1, wanted + 1));
    }
    let (mut body, mut inside) = (*body, 0);
    // They all have one scope.
    while let Code::Lambda(inner) = body
        && inner.formals.is_none()
        && inside < MOST_ARGUMENTS
    {
        (body, inside) = (*inner.body, inside + 1);
    }
    (first_variable(&body)? == (0, own) && inside < MOST_ARGUMENTS).then_some((0, 1 + inside))
}

/// The variable that is evaluated before anything else whenever this code is.
fn first_variable(code: &Code) -> Option<(u32, u32)> {
    if !stack::has_room() {
        return None;
    }
    match code {
        Code::Variable(level, slot, _) => Some((u32::from(*level), *slot)),
        Code::Call(code) => match constant_function(&code.function) {
            Some(builtin) if builtin.arity <= code.arguments.len() => {
                let first = builtin.strict.trailing_zeros() as usize;
                first_variable(code.arguments.get(first)?)
            }
            Some(_) => None,
            None => first_variable(&code.function),
        },
        Code::Select(code) => first_variable(&code.from),
        Code::Has(code) => first_variable(&code.from),
        Code::If(code) => first_variable(&code.condition),
        Code::Assert(code) => first_variable(&code.condition),
        Code::Not(operand) => first_variable(operand),
        Code::Deep(code) => first_variable(code),
        Code::Add(code) => first_variable(&code.left),
        Code::Arithmetic(code) => first_variable(&code.operands[0]),
        Code::Binary(Operator::Update, code) => first_variable(&code.right),
        Code::Binary(_, code) => first_variable(&code.left),
        Code::Concatenation(code) => first_variable(&code.parts.first()?.1),
        Code::Let(code) if code.from.is_some() => first_variable(&code.body),
        Code::Let(code) => outside(first_variable(&code.body)?),
        Code::With(code) => outside(first_variable(&code.body)?),
        _ => None,
    }
}

/// A variable as it is counted one level further out.
fn outside((level, slot): (u32, u32)) -> Option<(u32, u32)> {
    Some((level.checked_sub(1)?, slot))
}

/// The builtin that is called, where that is certain: `map` or `builtins.map`.
fn constant_function(function: &Code) -> Option<&'static Builtin> {
    let value = match function {
        Code::Constant(value) => *value,
        Code::Select(code) => match (&code.from, code.only()) {
            (Code::Constant(from), Some(NameCode::Static(name, _))) => match from.known().view() {
                View::Set(set) => set.get(*name)?.value,
                _ => return None,
            },
            _ => return None,
        },
        _ => return None,
    };
    match value.view() {
        View::Builtin(builtin) => Some(builtin),
        _ => None,
    }
}

fn variable(level: u32, slot: u32, place: PlaceId) -> Code {
    match u16::try_from(level) {
        Ok(level) => Code::Variable(level, slot, place),
        Err(_) => Code::FarVariable(heap::place((level, slot, place))),
    }
}

/// A call of a builtin that mostly is arithmetic with integers.
fn arithmetic(function: Code, arguments: &[Code], place: PlaceId) -> Option<Code> {
    let (Code::Constant(function), &[left, right]) = (function, arguments) else { return None };
    let View::Builtin(builtin) = function.view() else { return None };
    let operation = match builtin.name {
        "lessThan" => Arithmetic::Less,
        "sub" => Arithmetic::Subtract,
        "mul" => Arithmetic::Multiply,
        "div" => Arithmetic::Divide,
        _ => return None,
    };
    Some(Code::Arithmetic(heap::place(ArithmeticCode { operation, builtin, operands: [left, right], place })))
}

/// Names with their slots, sorted by name.
fn numbered(names: impl Iterator<Item = Symbol>) -> Vec<(Symbol, u32)> {
    let mut names: Vec<_> = names.zip(0..).collect();
    names.sort_unstable();
    names
}

/// The names of a recursive set; slots are in order of the symbols.
fn slots(attributes: &Attributes) -> Vec<(Symbol, u32)> {
    let mut names: Vec<_> = attributes.entries.iter().map(|entry| entry.name).collect();
    names.sort_unstable();
    numbered(names.into_iter())
}
