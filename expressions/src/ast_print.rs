//! Writes an expression as Nix's `--parse` does: everything in parentheses, attributes in order of their names.

use std::fmt::Write as _;

use crate::ast::{Attributes, Kind, List, Name, Node, Origin, Tree};
use crate::symbols::{Symbol, Symbols};
use crate::{stack, text};

/// The text of an expression.
pub fn expression(symbols: &Symbols, tree: &Tree, expression: Node) -> String {
    let mut printer = Printer { symbols, tree, text: String::new() };
    printer.expression(expression);
    printer.text
}

/// A name, in quotes where it wants them.
pub fn symbol(symbols: &Symbols, symbol: Symbol) -> String {
    text::identifier(&symbols.bytes(symbol))
}

struct Printer<'a> {
    symbols: &'a Symbols,
    tree: &'a Tree,
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

    fn expression(&mut self, expression: Node) {
        if !stack::has_room() {
            // Whoever compiles it refuses it.
            return self.push("…");
        }
        let tree = self.tree;
        match tree.kind(expression) {
            Kind::Integer(integer) => _ = write!(self.text, "{integer}"),
            Kind::Float(float) => self.push(&text::float(float)),
            Kind::String(text) => self.push(&text::quoted(tree.text(text))),
            Kind::Path(path) => self.push(&String::from_utf8_lossy(tree.text(path))),
            Kind::Variable(name) => self.symbol(name),
            Kind::Position => self.push("__curPos"),
            Kind::Concatenation { parts, .. } => {
                self.push("(");
                for (number, part) in tree.parts(parts).enumerate() {
                    self.push(if number > 0 { " + " } else { "" });
                    self.expression(part.node);
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
                let attributes = tree.attributes(attributes);
                self.push(if attributes.recursive { "rec { " } else { "{ " });
                self.attributes(attributes);
                self.push("}");
            }
            Kind::List(items) => {
                self.push("[ ");
                for item in tree.items(items) {
                    self.joined("(", &[&|printer| printer.expression(item)], ") ");
                }
                self.push("]");
            }
            Kind::Lambda(number) => {
                let lambda = tree.lambda(number);
                self.push("(");
                if let Some(formals) = lambda.formals {
                    self.push("{ ");
                    let mut sorted: Vec<_> = tree.formals(formals).iter().collect();
                    sorted.sort_by_key(|formal| self.symbols.bytes(formal.name));
                    for (number, formal) in sorted.iter().enumerate() {
                        self.push(if number > 0 { ", " } else { "" });
                        self.symbol(formal.name);
                        if let Some(default) = formal.default {
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
                self.joined(": ", &[&|printer| printer.expression(lambda.body)], ")");
            }
            Kind::Call { function, arguments } => {
                self.push("(");
                self.expression(function);
                for argument in tree.items(arguments) {
                    self.push(" ");
                    self.expression(argument);
                }
                self.push(")");
            }
            Kind::Let(attributes, body) => {
                self.push("(let ");
                self.attributes(tree.attributes(attributes));
                self.joined("in ", &[&|printer| printer.expression(body)], ")");
            }
            Kind::With(set, body) => {
                self.joined("(with ", &[&|printer| printer.expression(set)], "; ");
                self.joined("", &[&|printer| printer.expression(body)], ")");
            }
            Kind::If(condition, yes, no) => {
                self.joined("(if ", &[&|printer| printer.expression(condition)], " then ");
                self.joined("", &[&|printer| printer.expression(yes)], " else ");
                self.joined("", &[&|printer| printer.expression(no)], ")");
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

    fn path(&mut self, path: List<Name>) {
        for (number, name) in self.tree.names(path).enumerate() {
            self.push(if number > 0 { "." } else { "" });
            match name {
                Name::Static(name) => self.symbol(name),
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
        for (number, source) in (0..).zip(&attributes.sources) {
            let from: Vec<_> = sorted.iter().filter(|entry| entry.origin == Origin::InheritedFrom(number)).collect();
            if from.is_empty() {
                continue;
            }
            self.joined("inherit (", &[&|printer| printer.expression(*source)], ")");
            for entry in from {
                self.push(" ");
                self.symbol(entry.name);
            }
            self.push("; ");
        }
        for entry in sorted.iter().filter(|entry| entry.origin == Origin::Plain) {
            self.symbol(entry.name);
            self.joined(" = ", &[&|printer| printer.expression(entry.value)], "; ");
        }
        for (name, value, _) in &attributes.dynamic {
            self.joined("\"${", &[&|printer| printer.expression(*name)], "}\" = ");
            self.joined("", &[&|printer| printer.expression(*value)], "; ");
        }
    }
}
