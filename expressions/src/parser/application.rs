//! Calls, and selections by attribute paths.

use std::sync::Arc;

use super::{Parser, Result};
use crate::ast::{Kind, List, Name, Node, Span};
use crate::error::{Finding, Place, Severity};
use crate::lexer::Token;
use crate::symbols::known;

/// What is warned of where `or` is a function's name and an argument.
pub const OR_AS_A_NAME: &str =
    "this expression uses `or` as an identifier in a way that will change in a future Nix release";
/// What to do about it; the expression follows.
pub const PARENTHESES: &str = "wrap it in parentheses to keep its meaning: ";

/// Longer expressions are not shown, in bytes.
const LONGEST_SHOWN: usize = 4096;

/// A call in parentheses that is called again takes the further arguments, up to so many.
const MOST_ARGUMENTS: usize = 64;

impl Parser<'_> {
    #[inline]
    pub(super) fn starts_operand(&self) -> bool {
        matches!(
            self.token,
            Token::Identifier
                | Token::Integer
                | Token::Float
                | Token::Path
                | Token::HomePath
                | Token::SearchPath
                | Token::Uri
                | Token::Quote
                | Token::IndentedQuote
                | Token::Rec
                | Token::Let
                | Token::ParenthesisOpen
                | Token::BraceOpen
                | Token::BracketOpen
        )
    }

    pub(super) fn application(&mut self) -> Result<Node> {
        let start = self.span;
        let (function, _) = self.selection()?;
        if !self.starts_operand() {
            return Ok(function);
        }
        let open = self.open.nodes.len();
        let (mut callee, mut span) = (function, start);
        if let Kind::Call { function: inner, arguments } = self.tree.kind(function) {
            let given = self.tree.items(arguments);
            if given.len() < MOST_ARGUMENTS {
                self.open.nodes.extend(given);
                (callee, span) = (inner, self.tree.span(function));
            }
        }
        while self.starts_operand() {
            let argument_start = self.span;
            let (argument, odd) = self.selection()?;
            self.warn_of_or(odd, argument_start);
            self.open.nodes.push(argument);
        }
        let arguments = self.close_items(open);
        Ok(self.add(Kind::Call { function: callee, arguments }, span))
    }

    /// `f (a or)` without the parentheses means something else than it looks like.
    pub(super) fn warn_of_or(&mut self, odd: bool, start: Span) {
        if odd {
            let end = self.text.bytes[..self.span.start as usize].trim_ascii_end().len();
            let place = Some(Place { text: Arc::clone(self.text), start: start.start as usize, end });
            // Of long ones that contain one another the whole would be long beyond measure.
            let shown = self.text.bytes.get(start.start as usize..end).filter(|text| text.len() <= LONGEST_SHOWN);
            let shown = shown.map_or("…".into(), String::from_utf8_lossy);
            let hint = Some(format!("{PARENTHESES}({shown})"));
            let (severity, message, trace) = (Severity::Warning, OR_AS_A_NAME.to_owned(), Vec::new());
            self.warnings.push(Finding { severity, message, place, trace, hint });
        }
    }

    /// An operand with what is selected from it; and whether it is `a or`, a call of a function named `or`.
    pub(super) fn selection(&mut self) -> Result<(Node, bool)> {
        let start = self.span;
        let from = self.simple()?;
        if self.is(Token::Dot) {
            self.advance();
            let path = self.attribute_path()?;
            let mut fallback = None;
            if self.token == Token::Or {
                self.advance();
                let fallback_start = self.span;
                // A row of these nests without an expression between.
                let (expression, odd) = self.deeper(Self::selection)?;
                self.warn_of_or(odd, fallback_start);
                fallback = Some(expression);
            }
            return Ok((self.add(Kind::Select { from, path, fallback }, start), false));
        }
        if self.token == Token::Or {
            let or = self.add(Kind::Variable(known::OR), start);
            self.advance();
            let arguments = self.tree.add_items(&[or]);
            return Ok((self.add(Kind::Call { function: from, arguments }, start), true));
        }
        Ok((from, false))
    }

    pub(super) fn attribute_path(&mut self) -> Result<List<Name>> {
        let first = self.attribute_name()?;
        if !self.is(Token::Dot) {
            return Ok(self.tree.add_names(&[first]));
        }
        let start = self.open.names.len();
        self.open.names.push(first);
        self.more_names()?;
        let list = self.tree.add_names(&self.open.names[start..]);
        self.open.names.truncate(start);
        Ok(list)
    }

    /// `.b.c`
    pub(super) fn more_names(&mut self) -> Result<()> {
        while self.is(Token::Dot) {
            self.advance();
            let name = self.attribute_name()?;
            self.open.names.push(name);
        }
        Ok(())
    }

    pub(super) fn attribute_name(&mut self) -> Result<Name> {
        let name = match self.token {
            Token::Identifier => Name::Static(self.symbol()),
            Token::Or => Name::Static(known::OR),
            Token::Quote => {
                let expression = self.string()?;
                return Ok(self.name_of(expression));
            }
            Token::DollarBrace => {
                self.advance();
                let expression = self.expression()?;
                self.expect(Token::BraceClose)?;
                return Ok(self.name_of(expression));
            }
            _ => return Err(self.unexpected(Some("identifier or 'or' or '${' or '\"'"))),
        };
        self.advance();
        Ok(name)
    }

    pub(super) fn name_of(&self, expression: Node) -> Name {
        match self.tree.kind(expression) {
            Kind::String(name) => Name::Static(self.symbols.intern(self.tree.text(name))),
            _ => Name::Dynamic(expression),
        }
    }
}
