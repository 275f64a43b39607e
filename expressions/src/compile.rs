//! Gives names their meaning: which scope and slot each one stands for, or which `with` may explain it.

use std::collections::HashMap;
use std::rc::Rc;

use crate::ast::{Attributes, Expression, Formals, Kind, Lambda, Name, Origin, Span};
use crate::code::{
    Code, ConcatenationCode, EntryCode, FormalCode, FormalsCode, LambdaCode, NameCode, SelectCode, SetCode, Where,
};
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

/// Names that are visible everywhere.
pub type Globals = HashMap<Symbol, Value>;

/// Turns a tree into code.
pub struct Compiler<'a> {
    symbols: &'a Symbols,
    places: &'a Places,
    globals: &'a Globals,
    text: u32,
    /// What nothing explained.
    pub undefined: Vec<Undefined>,
    /// There was no room on the stack for all of it.
    pub too_deep: bool,
}

/// The names that are visible at some point.
#[derive(Clone, Copy)]
enum Visible<'a> {
    Nothing,
    /// Names and slots, sorted.
    Names(&'a [(Symbol, u32)], &'a Visible<'a>),
    With(PlaceId, &'a Visible<'a>),
}

impl<'a> Compiler<'a> {
    /// For one text.
    pub fn new(symbols: &'a Symbols, places: &'a Places, globals: &'a Globals, text: u32) -> Self {
        Self { symbols, places, globals, text, undefined: Vec::new(), too_deep: false }
    }

    /// A whole text; `extra` are the names of a scope that is given to it (`scopedImport`), in order of their slots.
    pub fn whole(&mut self, expression: &Expression, extra: Option<&[Symbol]>) -> Rc<Code> {
        match extra {
            None => self.code(expression, &Visible::Nothing),
            Some(names) => {
                let names = numbered(names.iter().copied());
                self.code(expression, &Visible::Names(&names, &Visible::Nothing))
            }
        }
    }

    fn place(&self, span: Span) -> PlaceId {
        // What is not written has no place.
        if span == Span::default() { PlaceId::NONE } else { self.places.add(self.text, span) }
    }

    fn code(&mut self, expression: &Expression, visible: &Visible) -> Rc<Code> {
        let span = expression.span;
        if !stack::has_room() {
            self.too_deep = true;
            return Rc::new(Code::Constant(Value::Null));
        }
        Rc::new(match &expression.kind {
            Kind::Integer(integer) => Code::Constant(Value::Integer(*integer)),
            Kind::Float(float) => Code::Constant(Value::Float(*float)),
            Kind::String(text) => Code::Constant(Value::string(text.clone())),
            Kind::Path(path) => Code::Constant(Value::path(path.clone())),
            Kind::Variable(name) => self.variable(*name, span, visible),
            Kind::Position => Code::Position(self.place(span)),
            Kind::Concatenation { forced, parts } => {
                let parts = parts.iter().map(|(span, part)| (self.place(*span), self.code(part, visible))).collect();
                Code::Concatenation(Box::new(ConcatenationCode { forced: *forced, parts, place: self.place(span) }))
            }
            Kind::Select { from, path, fallback } => {
                let from = self.code(from, visible);
                let path = self.path(path, visible);
                let fallback = fallback.as_ref().map(|fallback| self.code(fallback, visible));
                Code::Select(Box::new(SelectCode { from, path, fallback, place: self.place(span) }))
            }
            Kind::Has { from, path } => {
                let from = self.code(from, visible);
                Code::Has(from, self.path(path, visible))
            }
            Kind::Attributes(attributes) => {
                let names = if attributes.recursive { slots(attributes) } else { Vec::new() };
                let inside = Visible::Names(&names, visible);
                let inside = if attributes.recursive { &inside } else { visible };
                Code::Set(Box::new(self.set(attributes, attributes.recursive, inside, visible, span)))
            }
            Kind::List(items) if items.is_empty() => Code::Constant(Value::list(Vec::new())),
            Kind::List(items) => Code::List(items.iter().map(|item| self.code(item, visible)).collect()),
            Kind::Lambda(lambda) => Code::Lambda(Rc::new(self.lambda(lambda, span, visible))),
            Kind::Call { function, arguments } => {
                let function = self.code(function, visible);
                let arguments = arguments.iter().map(|argument| self.code(argument, visible)).collect();
                Code::Call(function, arguments, self.place(span))
            }
            Kind::Let(attributes, body) => {
                let names = slots(attributes);
                let inside = Visible::Names(&names, visible);
                let set = self.set(attributes, true, &inside, visible, span);
                Code::Let(Box::new(set), self.code(body, &inside))
            }
            Kind::With(set, body) => {
                let set = self.code(set, visible);
                let place = self.place(span);
                Code::With(set, self.code(body, &Visible::With(place, visible)), place)
            }
            Kind::If(parts) => {
                let parts = [&parts[0], &parts[1], &parts[2]].map(|part| self.code(part, visible));
                Code::If(Box::new(parts), self.place(span))
            }
            Kind::Assert(condition, body) => {
                let text = ast_print::expression(self.symbols, condition);
                let condition = self.code(condition, visible);
                Code::Assert(condition, self.code(body, visible), self.place(span), text.into())
            }
            Kind::Not(operand) => Code::Not(self.code(operand, visible)),
            Kind::Binary(operator, left, right) => {
                let left = self.code(left, visible);
                Code::Binary(*operator, left, self.code(right, visible), self.place(span))
            }
        })
    }

    fn path(&mut self, path: &[Name], visible: &Visible) -> Box<[NameCode]> {
        let names = path.iter().map(|name| match name {
            Name::Static(name) => NameCode::Static(*name),
            Name::Dynamic(name) => {
                let text = format!("\"${{{}}}\"", ast_print::expression(self.symbols, name));
                NameCode::Dynamic(self.code(name, visible), text.into())
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
                        return Code::Variable(level, names[number].1, place);
                    }
                    around = outer;
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
            return Code::Constant(value.clone());
        }
        if withs.is_empty() {
            let suggestions = self.suggestions(name, visible);
            self.undefined.push(Undefined { name, place, suggestions });
        }
        Code::FromWith(name, withs.into(), place)
    }

    fn suggestions(&self, name: Symbol, visible: &Visible) -> Vec<String> {
        let mut known: Vec<Symbol> = self.globals.keys().copied().collect();
        let mut around = visible;
        loop {
            match around {
                Visible::Names(names, outer) => {
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
        let sources: Vec<_> = attributes.sources.iter().map(|source| self.code(source, inside)).collect();
        let mut entries: Vec<_> = attributes.entries.iter().collect();
        entries.sort_by_key(|entry| entry.name);
        let overrides = entries.iter().position(|entry| recursive && entry.name == known::OVERRIDES);
        let entries = entries.iter().map(|entry| {
            let (sees, code) = match entry.origin {
                Origin::Plain => (Where::Inside, self.code(&entry.value, inside)),
                Origin::Inherited => (Where::Outside, self.code(&entry.value, outside)),
                Origin::InheritedFrom(source) => {
                    let from = Rc::new(Code::Variable(0, source as u32, self.place(entry.value.span)));
                    let path = Box::new([NameCode::Static(entry.name)]);
                    let place = self.place(entry.span);
                    (Where::Sources, Rc::new(Code::Select(Box::new(SelectCode { from, path, fallback: None, place }))))
                }
            };
            EntryCode { name: entry.name, place: self.place(entry.span), sees, code }
        });
        let entries = entries.collect();
        let dynamic = attributes.dynamic.iter().map(|(name, value, span)| {
            let name = self.code(name, inside);
            (name, self.code(value, inside), self.place(*span))
        });
        let dynamic = dynamic.collect();
        SetCode { recursive, entries, dynamic, sources, overrides, place: self.place(span) }
    }

    fn lambda(&mut self, lambda: &Lambda, span: Span, visible: &Visible) -> LambdaCode {
        let place = self.place(span);
        let argument = lambda.argument.map(|(name, _)| name);
        let offset = u32::from(argument.is_some());
        let Some(formals) = &lambda.formals else {
            let names: Vec<_> = argument.into_iter().map(|name| (name, 0)).collect();
            let body = self.code(&lambda.body, &Visible::Names(&names, visible));
            return LambdaCode { name: lambda.name, argument, formals: None, slots: 1, body, place };
        };
        let Formals { list, ellipsis } = formals;
        let mut sorted: Vec<_> = list.iter().collect();
        sorted.sort_by_key(|formal| formal.name);
        let mut names: Vec<_> = sorted.iter().zip(offset..).map(|(formal, slot)| (formal.name, slot)).collect();
        names.extend(argument.map(|name| (name, 0)));
        names.sort_unstable();
        let inside = Visible::Names(&names, visible);
        let formals = sorted.iter().map(|formal| FormalCode {
            name: formal.name,
            default: formal.default.as_ref().map(|default| self.code(default, &inside)),
            place: self.place(formal.span),
        });
        let formals = FormalsCode { list: formals.collect(), ellipsis: *ellipsis };
        let body = self.code(&lambda.body, &inside);
        LambdaCode { name: lambda.name, argument, formals: Some(formals), slots: names.len(), body, place }
    }
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
