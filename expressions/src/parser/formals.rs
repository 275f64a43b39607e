//! What attributes a function wants: `{ a, b ? 1, ... }`.

use super::{Parser, Result};
use crate::ast::{Formal, Formals, Span};
use crate::lexer::Token;
use crate::symbols::Symbol;

/// Up to this size, a list is searched from front to back.
const SMALL: usize = 16;

impl Parser<'_> {
    pub(super) fn formals(&mut self) -> Result<Formals> {
        self.expect(Token::BraceOpen)?;
        let start = self.open.formals.len();
        let mut ellipsis = false;
        loop {
            match self.token {
                Token::BraceClose => break,
                Token::Ellipsis => {
                    ellipsis = true;
                    self.advance();
                    break;
                }
                Token::Identifier => {
                    let (name, span) = (self.symbol(), self.span);
                    self.advance();
                    let mut default = None;
                    if self.is(Token::Question) {
                        self.advance();
                        default = Some(self.expression()?);
                    }
                    self.open.formals.push(Formal { name, span, default });
                    if !self.is(Token::Comma) {
                        break;
                    }
                    self.advance();
                }
                _ => return Err(self.unexpected(None)),
            }
        }
        if !self.is(Token::BraceClose) {
            let expected = if ellipsis { "'}'" } else { "'}' or ','" };
            return Err(self.unexpected(Some(expected)));
        }
        self.advance();
        let formals = self.tree.add_formals(&self.open.formals[start..], ellipsis);
        self.open.formals.truncate(start);
        Ok(formals)
    }

    pub(super) fn check_formals(&self, formals: Formals, argument: Option<Symbol>, span: Span) -> Result<()> {
        let list = self.tree.formals(formals);
        let duplicate = |name: Symbol, span: Span| {
            let message = format!("duplicate formal function argument '{}'", self.symbols.text(name));
            Err(self.error(span, message))
        };
        let doubled = if list.len() <= SMALL {
            let doubled =
                (1..list.len()).filter(|number| list[..*number].iter().any(|it| it.name == list[*number].name));
            doubled.map(|number| &list[number]).min_by_key(|formal| (formal.name, formal.span.start))
        } else {
            let mut seen = std::collections::HashSet::new();
            let doubled = list.iter().filter(|formal| !seen.insert(formal.name));
            doubled.min_by_key(|formal| (formal.name, formal.span.start))
        };
        // Nix names the one whose name was met first in the whole text.
        if let Some(formal) = doubled {
            return duplicate(formal.name, formal.span);
        }
        match argument {
            Some(argument) if list.iter().any(|formal| formal.name == argument) => duplicate(argument, span),
            _ => Ok(()),
        }
    }
}
