//! The attributes of a set: `a.b = 1; a.c = 2;` is one `a`, and nothing is defined twice.

use std::collections::HashMap;

use super::{Parser, Result};
use crate::ast::{Attribute, Attributes, Kind, Name, Node, Origin, Span};
use crate::error::Finding;
use crate::lexer::Token;
use crate::symbols::{Symbol, known};

/// Each component is a set in a set.
const DEEPEST_PATH: usize = 1000;

/// Sets up to this size are searched from front to back, which for so few is faster than hashing.
const SMALL: usize = 12;

/// A set that attributes are added to.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Set {
    /// The one being read: its entries are the open ones from here on.
    Open(usize),
    /// One that is whole, or was made for a path.
    Whole(u32),
}

impl Parser<'_> {
    /// `{ … }`
    pub(super) fn braces(&mut self, recursive: bool) -> Result<u32> {
        self.expect(Token::BraceOpen)?;
        let attributes = self.attributes(Token::BraceClose, recursive)?;
        self.advance();
        Ok(attributes)
    }

    /// Attributes, up to the token that ends them.
    pub(super) fn attributes(&mut self, end: Token, recursive: bool) -> Result<u32> {
        let open = self.open.entries.len();
        let mut others = Attributes { recursive, ..Attributes::default() };
        while self.token != end {
            let empty = || self.open.entries.len() == open && others.dynamic.is_empty() && others.sources.is_empty();
            match self.token {
                Token::Inherit => self.inherit(Set::Open(open), &mut others)?,
                Token::Identifier | Token::Or | Token::Quote | Token::DollarBrace => {
                    self.binding(Set::Open(open), &mut others)?;
                }
                _ => return Err(self.unexpected(Some("'inherit'").filter(|_| empty()))),
            }
        }
        others.entries = self.open.entries[open..].to_vec();
        self.open.entries.truncate(open);
        if others.entries.len() > SMALL {
            self.indices.remove(&Set::Open(open));
        }
        Ok(self.tree.add_attributes(others))
    }

    fn inherit(&mut self, set: Set, others: &mut Attributes) -> Result<()> {
        self.advance();
        let mut source = None;
        if self.is(Token::ParenthesisOpen) {
            self.advance();
            let start = self.span;
            others.sources.push(self.expression()?);
            source = Some((others.sources.len() as u32 - 1, start));
            self.expect(Token::ParenthesisClose)?;
        }
        while !self.is(Token::Semicolon) {
            let span = self.span;
            let name = match self.token {
                Token::Identifier => {
                    let name = self.symbol();
                    self.advance();
                    name
                }
                Token::Or => {
                    self.advance();
                    known::OR
                }
                Token::Quote | Token::DollarBrace => match self.attribute_name()? {
                    Name::Static(name) => name,
                    Name::Dynamic(_) => return Err(self.error(span, "dynamic attributes not allowed in inherit")),
                },
                _ => return Err(self.unexpected(None)),
            };
            if let Some(number) = self.find(set, name) {
                let earlier = self.entry(set, number).span;
                return Err(self.duplicate(&self.symbols.text(name), span, earlier));
            }
            let (origin, place) = match source {
                None => (Origin::Inherited, span),
                // Which source it is says the origin; the place is the source's.
                Some((number, start)) => (Origin::InheritedFrom(number), start),
            };
            let value = self.add(Kind::Variable(name), place);
            self.push(set, Attribute { name, span, origin, value });
        }
        self.advance();
        Ok(())
    }

    /// `path = value;`
    fn binding(&mut self, set: Set, others: &mut Attributes) -> Result<()> {
        let span = self.span;
        let open = self.open.names.len();
        let first = self.attribute_name()?;
        self.open.names.push(first);
        self.more_names()?;
        let length = self.open.names.len() - open;
        if length > DEEPEST_PATH {
            return Err(self.error(span, "the attribute path is too long"));
        }
        if !self.is(Token::Assign) {
            return Err(self.unexpected(Some("'.' or '='")));
        }
        self.advance();
        let value = self.expression()?;
        self.expect(Token::Semicolon)?;
        match first {
            Name::Static(name) if length == 1 => {
                self.insert(set, &mut Vec::new(), Attribute { name, span, origin: Origin::Plain, value })?;
            }
            Name::Dynamic(name) if length == 1 => others.dynamic.push((name, value, span)),
            _ => {
                let path = self.open.names[open..].to_vec();
                self.define(set, others, &path, span, value)?;
            }
        }
        self.open.names.truncate(open);
        Ok(())
    }

    /// `a.b = value;`
    fn define(&mut self, set: Set, others: &mut Attributes, path: &[Name], span: Span, value: Node) -> Result<()> {
        let mut set = set;
        let [outer @ .., last] = path else { return Ok(()) };
        for (depth, name) in outer.iter().enumerate() {
            set = Set::Whole(match *name {
                Name::Static(name) => match self.find(set, name) {
                    Some(number) => {
                        let entry = self.entry(set, number);
                        match self.tree.kind(entry.value) {
                            Kind::Attributes(nested) => nested,
                            _ => return Err(self.duplicate(&self.path_text(&path[..=depth]), span, entry.span)),
                        }
                    }
                    None => {
                        let (nested, value) = self.empty_set();
                        self.push(set, Attribute { name, span, origin: Origin::Plain, value });
                        nested
                    }
                },
                Name::Dynamic(name) => {
                    let (nested, value) = self.empty_set();
                    self.dynamic(set, others).push((name, value, span));
                    nested
                }
            });
        }
        match *last {
            Name::Static(name) => {
                self.insert(set, &mut outer.to_vec(), Attribute { name, span, origin: Origin::Plain, value })
            }
            Name::Dynamic(name) => {
                self.dynamic(set, others).push((name, value, span));
                Ok(())
            }
        }
    }

    fn empty_set(&mut self) -> (u32, Node) {
        let number = self.tree.add_attributes(Attributes::default());
        (number, self.add(Kind::Attributes(number), Span::default()))
    }

    fn dynamic<'a>(&'a mut self, set: Set, others: &'a mut Attributes) -> &'a mut Vec<(Node, Node, Span)> {
        match set {
            Set::Open(_) => &mut others.dynamic,
            Set::Whole(number) => &mut self.tree.attributes_mut(number).dynamic,
        }
    }

    fn entries(&self, set: Set) -> &[Attribute] {
        match set {
            Set::Open(start) => &self.open.entries[start..],
            Set::Whole(number) => &self.tree.attributes(number).entries,
        }
    }

    fn entry(&self, set: Set, number: usize) -> Attribute {
        self.entries(set)[number]
    }

    /// Which entry has this name.
    #[inline]
    fn find(&mut self, set: Set, name: Symbol) -> Option<usize> {
        let entries = self.entries(set);
        if entries.len() <= SMALL {
            return entries.iter().position(|entry| entry.name == name);
        }
        if let Some(index) = self.indices.get(&set) {
            return index.get(&name).map(|number| *number as usize);
        }
        let index: HashMap<_, _> = entries.iter().zip(0..).map(|(entry, number)| (entry.name, number)).collect();
        let found = index.get(&name).map(|number| *number as usize);
        self.indices.insert(set, index);
        found
    }

    /// Adds an entry whose name is not there yet.
    #[inline]
    fn push(&mut self, set: Set, entry: Attribute) {
        let number = self.entries(set).len();
        if number > SMALL
            && let Some(index) = self.indices.get_mut(&set)
        {
            index.insert(entry.name, number as u32);
        }
        match set {
            Set::Open(_) => self.open.entries.push(entry),
            Set::Whole(number) => self.tree.attributes_mut(number).entries.push(entry),
        }
    }

    /// Adds an attribute; one that is there already is merged with it if both are sets. `path` leads to the set.
    fn insert(&mut self, set: Set, path: &mut Vec<Name>, entry: Attribute) -> Result<()> {
        let Some(number) = self.find(set, entry.name) else {
            self.tree.set_name(entry.value, entry.name);
            self.push(set, entry);
            return Ok(());
        };
        path.push(Name::Static(entry.name));
        let earlier = self.entry(set, number);
        let (Kind::Attributes(old), Kind::Attributes(new)) =
            (self.tree.kind(earlier.value), self.tree.kind(entry.value))
        else {
            return Err(self.duplicate(&self.path_text(path), entry.span, earlier.span));
        };
        let new = std::mem::take(self.tree.attributes_mut(new));
        let offset = self.tree.attributes(old).sources.len() as u32;
        // In Nix's order: that of the names' first appearance.
        let mut entries = new.entries;
        entries.sort_by_key(|entry| entry.name);
        self.deeper(|parser| {
            entries.into_iter().try_for_each(|mut entry| {
                if let Origin::InheritedFrom(source) = &mut entry.origin {
                    *source += offset;
                }
                parser.insert(Set::Whole(old), path, entry)
            })
        })?;
        path.pop();
        let old = self.tree.attributes_mut(old);
        old.dynamic.extend(new.dynamic);
        old.sources.extend(new.sources);
        Ok(())
    }

    fn duplicate(&self, name: &str, span: Span, earlier: Span) -> Box<Finding> {
        let place = self.place(earlier);
        let (line, column) = place.line_and_column();
        let message = format!("attribute '{name}' already defined at {}:{line}:{column}", place.text.name.display());
        self.error(span, message)
    }

    fn path_text(&self, path: &[Name]) -> String {
        let names = path.iter().map(|name| match name {
            Name::Static(name) => crate::ast_print::symbol(self.symbols, *name),
            Name::Dynamic(name) => {
                format!("\"${{{}}}\"", crate::ast_print::expression(self.symbols, &self.tree, *name))
            }
        });
        names.collect::<Vec<_>>().join(".")
    }
}
