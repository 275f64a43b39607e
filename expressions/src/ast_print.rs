//! Writes an expression as Nix's `--parse` does: everything in parentheses, attributes in order of their names.

use std::fmt::Write as _;

use crate::ast::{Attributes, Expression, Kind, Name, Origin};
use crate::symbols::{Symbol, Symbols};
use crate::text;

/// The text of an expression.
pub fn expression(symbols: &Symbols, expression: &Expression) -> String {
    let mut printer = Printer { symbols, text: String::new() };
    printer.expression(expression);
    printer.text
}

/// A name, in quotes where it wants them.
pub fn symbol(symbols: &Symbols, symbol: Symbol) -> String {
    text::identifier(&symbols.bytes(symbol))
}

struct Printer<'a> {
    symbols: &'a Symbols,
    text: String,
}

impl Printer<'_> {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    fn symbol(&mut self, name: Symbol) {
        let text = symbol(self.symbols, name);
        self.push(&text);
    }

    fn joined(&mut self, start: &str, parts: &[&dyn Fn(&mut Self)], end: &str) {
        self.push(start);
        for part in parts {
            part(self);
        }
        self.push(end);
    }

    fn expression(&mut self, expression: &Expression) {
        match &expression.kind {
            Kind::Integer(integer) => _ = write!(self.text, "{integer}"),
            Kind::Float(float) => self.push(&text::float(*float)),
            Kind::String(text) => self.push(&text::quoted(text)),
            Kind::Path(path) => self.push(&String::from_utf8_lossy(path)),
            Kind::Variable(name) => self.symbol(*name),
            Kind::Position => self.push("__curPos"),
            Kind::Concatenation { parts, .. } => {
                self.push("(");
                for (number, (_, part)) in parts.iter().enumerate() {
                    self.push(if number > 0 { " + " } else { "" });
                    self.expression(part);
                }
                self.push(")");
            }
            Kind::Select { from, path, fallback } => {
                self.joined("(", &[&|printer| printer.expression(from)], ").");
                self.path(path);
                if let Some(fallback) = fallback {
                    self.joined(" or (", &[&|printer| printer.expression(fallback)], ")");
                }
            }
            Kind::Has { from, path } => {
                self.joined("((", &[&|printer| printer.expression(from)], ") ? ");
                self.path(path);
                self.push(")");
            }
            Kind::Attributes(attributes) => {
                self.push(if attributes.recursive { "rec { " } else { "{ " });
                self.attributes(attributes);
                self.push("}");
            }
            Kind::List(items) => {
                self.push("[ ");
                for item in items {
                    self.joined("(", &[&|printer| printer.expression(item)], ") ");
                }
                self.push("]");
            }
            Kind::Lambda(lambda) => {
                self.push("(");
                if let Some(formals) = &lambda.formals {
                    self.push("{ ");
                    let mut sorted: Vec<_> = formals.list.iter().collect();
                    sorted.sort_by_key(|formal| self.symbols.bytes(formal.name));
                    for (number, formal) in sorted.iter().enumerate() {
                        self.push(if number > 0 { ", " } else { "" });
                        self.symbol(formal.name);
                        if let Some(default) = &formal.default {
                            self.push(" ? ");
                            self.expression(default);
                        }
                    }
                    if formals.ellipsis {
                        self.push(if sorted.is_empty() { "..." } else { ", ..." });
                    }
                    self.push(" }");
                    self.push(if lambda.argument.is_some() { " @ " } else { "" });
                }
                if let Some((name, _)) = lambda.argument {
                    self.symbol(name);
                }
                self.joined(": ", &[&|printer| printer.expression(&lambda.body)], ")");
            }
            Kind::Call { function, arguments } => {
                self.push("(");
                self.expression(function);
                for argument in arguments {
                    self.push(" ");
                    self.expression(argument);
                }
                self.push(")");
            }
            Kind::Let(attributes, body) => {
                self.push("(let ");
                self.attributes(attributes);
                self.joined("in ", &[&|printer| printer.expression(body)], ")");
            }
            Kind::With(set, body) => {
                self.joined("(with ", &[&|printer| printer.expression(set)], "; ");
                self.joined("", &[&|printer| printer.expression(body)], ")");
            }
            Kind::If(parts) => {
                self.joined("(if ", &[&|printer| printer.expression(&parts[0])], " then ");
                self.joined("", &[&|printer| printer.expression(&parts[1])], " else ");
                self.joined("", &[&|printer| printer.expression(&parts[2])], ")");
            }
            Kind::Assert(condition, body) => {
                self.joined("assert ", &[&|printer| printer.expression(condition)], "; ");
                self.expression(body);
            }
            Kind::Not(operand) => self.joined("(! ", &[&|printer| printer.expression(operand)], ")"),
            Kind::Binary(operator, left, right) => {
                self.joined("(", &[&|printer| printer.expression(left)], " ");
                self.push(operator.as_str());
                self.joined(" ", &[&|printer| printer.expression(right)], ")");
            }
        }
    }

    fn path(&mut self, path: &[Name]) {
        for (number, name) in path.iter().enumerate() {
            self.push(if number > 0 { "." } else { "" });
            match name {
                Name::Static(name) => self.symbol(*name),
                Name::Dynamic(name) => self.joined("\"${", &[&|printer| printer.expression(name)], "}\""),
            }
        }
    }

    fn attributes(&mut self, attributes: &Attributes) {
        let mut sorted: Vec<_> = attributes.entries.iter().collect();
        sorted.sort_by_key(|entry| self.symbols.bytes(entry.name));
        let inherited: Vec<_> = sorted.iter().filter(|entry| entry.origin == Origin::Inherited).collect();
        if !inherited.is_empty() {
            self.push("inherit");
            for entry in inherited {
                self.push(" ");
                self.symbol(entry.name);
            }
            self.push("; ");
        }
        for (number, source) in attributes.sources.iter().enumerate() {
            let from: Vec<_> = sorted.iter().filter(|entry| entry.origin == Origin::InheritedFrom(number)).collect();
            if from.is_empty() {
                continue;
            }
            self.joined("inherit (", &[&|printer| printer.expression(source)], ")");
            for entry in from {
                self.push(" ");
                self.symbol(entry.name);
            }
            self.push("; ");
        }
        for entry in sorted.iter().filter(|entry| entry.origin == Origin::Plain) {
            self.symbol(entry.name);
            self.joined(" = ", &[&|printer| printer.expression(&entry.value)], "; ");
        }
        for (name, value, _) in &attributes.dynamic {
            self.joined("\"${", &[&|printer| printer.expression(name)], "}\" = ");
            self.joined("", &[&|printer| printer.expression(value)], "; ");
        }
    }
}
