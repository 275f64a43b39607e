//! The attributes of a set: `a.b = 1; a.c = 2;` is one `a`, and nothing is defined twice.

use super::{Parser, Result};
use crate::ast::{Attribute, Attributes, Expression, Kind, Name, Origin, Span};
use crate::error::Finding;
use crate::lexer::Token;
use crate::symbols::{Symbol, known};

/// Each component is a set in a set.
const DEEPEST_PATH: usize = 1000;

impl Parser<'_> {
    /// `{ … }`
    pub(super) fn braces(&mut self) -> Result<Attributes> {
        self.expect("{")?;
        let attributes = self.attributes(|parser| parser.is("}"))?;
        self.expect("}")?;
        Ok(attributes)
    }

    pub(super) fn attributes(&mut self, at_end: impl Fn(&Self) -> bool) -> Result<Attributes> {
        let mut attributes = Attributes::default();
        while !at_end(self) {
            if self.token == Token::Inherit {
                self.inherit(&mut attributes)?;
                continue;
            }
            let start = self.span;
            let begins = matches!(self.token, Token::Identifier | Token::Or | Token::Quote | Token::Sign("${"));
            if !begins {
                return Err(self.unexpected(Some("'inherit'").filter(|_| attributes.is_empty())));
            }
            let path = self.attribute_path()?;
            if path.len() > DEEPEST_PATH {
                return Err(self.error(start, "the attribute path is too long"));
            }
            if !self.is("=") {
                return Err(self.unexpected(Some("'.' or '='")));
            }
            self.advance();
            let value = self.expression()?;
            self.expect(";")?;
            self.define(&mut attributes, path, start, value)?;
        }
        Ok(attributes)
    }

    fn inherit(&mut self, attributes: &mut Attributes) -> Result<()> {
        self.advance();
        let mut source = None;
        if self.is("(") {
            self.advance();
            let start = self.span;
            attributes.sources.push(self.expression()?);
            source = Some((attributes.sources.len() - 1, start));
            self.expect(")")?;
        }
        while !self.is(";") {
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
                Token::Quote | Token::Sign("${") => match self.attribute_name()? {
                    Name::Static(name) => name,
                    Name::Dynamic(_) => return Err(self.error(span, "dynamic attributes not allowed in inherit")),
                },
                _ => return Err(self.unexpected(None)),
            };
            if let Some(number) = attributes.find(name) {
                let earlier = attributes.entries[number].span;
                return Err(self.duplicate(&self.symbols.text(name), span, earlier));
            }
            let (origin, value) = match source {
                None => (Origin::Inherited, Expression { kind: Kind::Variable(name), span }),
                // Which source it is says the origin; the place is the source's.
                Some((number, start)) => {
                    (Origin::InheritedFrom(number), Expression { kind: Kind::Variable(name), span: start })
                }
            };
            attributes.push(Attribute { name, span, origin, value });
        }
        self.advance();
        Ok(())
    }

    fn duplicate(&self, name: &str, span: Span, earlier: Span) -> Box<Finding> {
        let place = self.place(earlier);
        let (line, column) = place.line_and_column();
        let message = format!("attribute '{name}' already defined at {}:{line}:{column}", place.text.name.display());
        self.error(span, message)
    }

    /// `path = value;`
    fn define(&self, attributes: &mut Attributes, mut path: Vec<Name>, span: Span, value: Expression) -> Result<()> {
        let mut attributes = attributes;
        let Some(last) = path.pop() else { return Ok(()) };
        let empty = || Expression { kind: Kind::Attributes(Box::default()), span: Span::default() };
        for depth in 0..path.len() {
            let nested = match &path[depth] {
                Name::Static(name) => {
                    let number = match attributes.find(*name) {
                        Some(number) => number,
                        None => {
                            let (origin, value) = (Origin::Plain, empty());
                            attributes.push(Attribute { name: *name, span, origin, value });
                            attributes.entries.len() - 1
                        }
                    };
                    let entry = &mut attributes.entries[number];
                    let earlier = entry.span;
                    match &mut entry.value.kind {
                        Kind::Attributes(nested) => nested,
                        _ => return Err(self.duplicate(&self.path_text(&path[..=depth]), span, earlier)),
                    }
                }
                Name::Dynamic(name) => {
                    attributes.dynamic.push((name.clone(), empty(), span));
                    match attributes.dynamic.last_mut() {
                        Some((_, Expression { kind: Kind::Attributes(nested), .. }, _)) => nested,
                        _ => return Ok(()),
                    }
                }
            };
            attributes = nested;
        }
        match last {
            Name::Static(name) => {
                let mut names: Vec<Name> = path;
                names.push(Name::Static(name));
                self.insert(attributes, &mut names, Attribute { name, span, origin: Origin::Plain, value })
            }
            Name::Dynamic(name) => {
                attributes.dynamic.push((name, value, span));
                Ok(())
            }
        }
    }

    fn path_text(&self, path: &[Name]) -> String {
        let names = path.iter().map(|name| match name {
            Name::Static(name) => crate::ast_print::symbol(self.symbols, *name),
            Name::Dynamic(name) => format!("\"${{{}}}\"", crate::ast_print::expression(self.symbols, name)),
        });
        names.collect::<Vec<_>>().join(".")
    }

    /// Adds an attribute; one that is there already is merged with it if both are sets. `path` ends in the attribute's name.
    fn insert(&self, attributes: &mut Attributes, path: &mut Vec<Name>, mut entry: Attribute) -> Result<()> {
        let Some(number) = attributes.find(entry.name) else {
            entry.value.set_name(entry.name);
            attributes.push(entry);
            return Ok(());
        };
        let earlier = &mut attributes.entries[number];
        let (Kind::Attributes(old), Kind::Attributes(new)) = (&mut earlier.value.kind, entry.value.kind) else {
            return Err(self.duplicate(&self.path_text(path), entry.span, earlier.span));
        };
        let offset = old.sources.len();
        let new: Attributes = *new;
        // In Nix's order: that of the names' first appearance.
        let mut entries = new.entries;
        entries.sort_by_key(|entry| entry.name);
        for mut entry in entries {
            if let Origin::InheritedFrom(source) = &mut entry.origin {
                *source += offset;
            }
            let name: Symbol = entry.name;
            path.push(Name::Static(name));
            self.insert(old, path, entry)?;
            path.pop();
        }
        old.dynamic.extend(new.dynamic);
        old.sources.extend(new.sources);
        Ok(())
    }
}
