//! What attributes a function wants: `{ a, b ? 1, ... }`.

use super::{Parser, Result};
use crate::ast::{Formal, Formals, Span};
use crate::lexer::Token;
use crate::symbols::Symbol;

impl Parser<'_> {
    /// Whether the brace here opens what a function wants, not a set.
    pub(super) fn formals_follow(&self) -> bool {
        let mut lexer = self.lexer;
        match lexer.token().0 {
            Token::Sign("...") => true,
            Token::Sign("}") => matches!(lexer.token().0, Token::Sign(":" | "@")),
            Token::Identifier => matches!(lexer.token().0, Token::Sign("," | "?" | "}")),
            _ => false,
        }
    }

    pub(super) fn formals(&mut self) -> Result<Formals> {
        self.expect("{")?;
        let mut formals = Formals { list: Vec::new(), ellipsis: false };
        loop {
            match self.token {
                Token::Sign("}") => break,
                Token::Sign("...") => {
                    formals.ellipsis = true;
                    self.advance();
                    break;
                }
                Token::Identifier => {
                    let (name, span) = (self.symbol(), self.span);
                    self.advance();
                    let mut default = None;
                    if self.is("?") {
                        self.advance();
                        default = Some(self.expression()?);
                    }
                    formals.list.push(Formal { name, span, default });
                    if !self.is(",") {
                        break;
                    }
                    self.advance();
                }
                _ => return Err(self.unexpected(None)),
            }
        }
        if !self.is("}") {
            let expected = if formals.ellipsis { "'}'" } else { "',' or '}'" };
            return Err(self.unexpected(Some(expected)));
        }
        self.advance();
        Ok(formals)
    }

    pub(super) fn check_formals(&self, formals: &Formals, argument: Option<Symbol>, span: Span) -> Result<()> {
        let duplicate = |name: Symbol, span: Span| {
            let message = format!("duplicate formal function argument '{}'", self.symbols.text(name));
            Err(self.error(span, message))
        };
        let mut seen = std::collections::HashSet::new();
        // Nix names the one whose name was met first in the whole text.
        let doubled = formals.list.iter().filter(|formal| !seen.insert(formal.name));
        if let Some(formal) = doubled.min_by_key(|formal| (formal.name, formal.span.start)) {
            return duplicate(formal.name, formal.span);
        }
        match argument {
            Some(argument) if seen.contains(&argument) => duplicate(argument, span),
            _ => Ok(()),
        }
    }
}
