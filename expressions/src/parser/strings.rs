//! Texts and paths: pieces, interpolations, and the indentation that is taken away.

use super::{Parser, Result};
use crate::ast::{Expression, Kind, Span};
use crate::lexer::{Piece, Token};

enum Part {
    Text(Vec<u8>, bool),
    Value(Expression),
}

impl Parser<'_> {
    /// What is inside `${ }`, after the opening; the lexer is behind the closing brace afterwards, without having gone on.
    fn interpolation(&mut self) -> Result<Expression> {
        self.advance();
        let expression = self.expression()?;
        if !self.is("}") {
            return Err(self.unexpected(Some("'}'")));
        }
        // The token is the brace itself, so the lexer stands right behind it.
        Ok(expression)
    }

    fn refuse_nul(&self, text: &[u8], span: Span) -> Result<()> {
        if !text.contains(&0) {
            return Ok(());
        }
        let shown = String::from_utf8_lossy(text).replace('\0', "␀");
        let message =
            format!("input string '{shown}' cannot be represented as Nix string because it contains null bytes");
        Err(self.error(span, message))
    }

    fn early_end(&mut self, expected: Option<&str>) -> Box<crate::error::Finding> {
        (self.token, self.span) = (Token::End, Span { start: self.lexer.offset() as u32, ..self.span });
        self.span.end = self.span.start;
        self.unexpected(expected)
    }

    pub(super) fn string(&mut self) -> Result<Expression> {
        let open = self.span;
        let mut parts = Vec::new();
        let mut first = None;
        let mut interpolated = false;
        loop {
            let (piece, span) = self.lexer.string_piece();
            first.get_or_insert(span);
            match piece {
                Piece::Close => break,
                Piece::End => {
                    let only_text =
                        parts.iter().all(|(_, part): &(_, Expression)| matches!(part.kind, Kind::String(_)));
                    return Err(self.early_end(Some("'\"'").filter(|_| only_text && !parts.is_empty())));
                }
                Piece::Text(text, _) => {
                    self.refuse_nul(&text, span)?;
                    parts.push((span, Expression { kind: Kind::String(text), span }));
                }
                Piece::Interpolation => {
                    interpolated = true;
                    parts.push((span, self.interpolation()?));
                }
            }
        }
        self.advance();
        if let [(_, Expression { kind: Kind::Concatenation { .. } | Kind::String(_), .. })] = &parts[..] {
            // An interpolation alone is no plain text, even of a plain text.
            if interpolated {
                return Ok(Expression {
                    kind: Kind::Concatenation { forced: true, parts },
                    span: first.unwrap_or(open),
                });
            }
        }
        Ok(join(parts, first.unwrap_or(open), open))
    }

    pub(super) fn indented_string(&mut self) -> Result<Expression> {
        let open = self.span;
        let mut parts = Vec::new();
        loop {
            let (piece, span) = self.lexer.indented_piece();
            match piece {
                Piece::Close => break,
                Piece::End => return Err(self.early_end(None)),
                Piece::Text(text, indentation) => {
                    self.refuse_nul(&text, span)?;
                    parts.push((span, Part::Text(text, indentation)));
                }
                Piece::Interpolation => parts.push((span, Part::Value(self.interpolation()?))),
            }
        }
        self.advance();
        Ok(join(strip(parts), open, open))
    }

    pub(super) fn path(&mut self) -> Result<Expression> {
        let start = self.span;
        let text = self.lexer.slice(start);
        let lints = self.lints;
        let shown = String::from_utf8_lossy(text);
        if self.token == Token::HomePath && self.home.is_some() {
            self.lint(lints.absolute_paths, start, &|_| {
                format!("home path literals are not portable. Consider replacing path literal '{shown}' by a string, relative path, or parameter (lint-absolute-path-literals)")
            })?;
        } else if text.starts_with(b"/") {
            self.lint(lints.absolute_paths, start, &|_| {
                format!("absolute path literals are not portable. Consider replacing path literal '{shown}' by a string, relative path, or parameter (lint-absolute-path-literals)")
            })?;
        } else if !text.starts_with(b".") && self.token == Token::Path {
            self.lint(lints.short_paths, start, &|_| {
                format!("relative path literal '{shown}' should be prefixed with '.' for clarity: './{shown}' (lint-short-path-literals)")
            })?;
        }
        let path = match (self.token, self.home) {
            (Token::HomePath, Some(home)) => {
                // What is behind the home directory is taken as it stands.
                [home, &text[1..]].concat()
            }
            (Token::HomePath, None) => {
                let text = String::from_utf8_lossy(text);
                return Err(self.error(start, format!("the path '{text}' can not be resolved in pure mode")));
            }
            _ => self.absolute(text),
        };
        let mut parts = vec![(start, Expression { kind: Kind::Path(path), span: start })];
        let mut slash = text.ends_with(b"/");
        loop {
            let (piece, span) = self.lexer.path_piece();
            match piece {
                Piece::Interpolation => {
                    slash = false;
                    parts.push((span, self.interpolation()?));
                }
                // `a/b//c` is no path: what follows the first piece is an interpolation, or nothing.
                Piece::Text(..) if parts.len() == 1 => {
                    return Err(self.error(span, "syntax error, unexpected end of path, expecting '${'"));
                }
                Piece::Text(text, _) => {
                    slash = text.ends_with(b"/");
                    parts.push((span, Expression { kind: Kind::String(text), span }));
                }
                Piece::Close | Piece::End if slash => {
                    let end = Span { start: span.start, end: span.start + 1 };
                    return Err(self.error(end, "path has a trailing slash"));
                }
                Piece::Close | Piece::End => break,
            }
        }
        self.advance();
        match parts.pop() {
            Some((_, path)) if parts.is_empty() => Ok(path),
            last => {
                parts.extend(last);
                Ok(Expression { kind: Kind::Concatenation { forced: false, parts }, span: start })
            }
        }
    }
}

fn join(mut parts: Vec<(Span, Expression)>, span: Span, open: Span) -> Expression {
    match (parts.pop(), parts.is_empty()) {
        (None, _) => Expression { kind: Kind::String(Vec::new()), span: open },
        (Some((_, Expression { kind: Kind::String(text), .. })), true) => {
            Expression { kind: Kind::String(text), span: open }
        }
        (last, _) => {
            parts.extend(last);
            Expression { kind: Kind::Concatenation { forced: true, parts }, span }
        }
    }
}

/// The width of the common indentation: of lines that have something on them, which an escape or interpolation is.
fn indentation(parts: &[(Span, Part)]) -> usize {
    let mut smallest = usize::MAX;
    let mut current = Some(0);
    for (_, part) in parts {
        match part {
            Part::Text(text, true) => {
                for byte in text {
                    current = match (byte, current) {
                        (b'\n', _) => Some(0),
                        (b' ', Some(width)) => Some(width + 1),
                        (_, Some(width)) => {
                            smallest = smallest.min(width);
                            None
                        }
                        (_, None) => None,
                    };
                }
            }
            _ => smallest = smallest.min(current.take().unwrap_or(usize::MAX)),
        }
    }
    smallest
}

fn strip(parts: Vec<(Span, Part)>) -> Vec<(Span, Expression)> {
    let width = indentation(&parts);
    let count = parts.len();
    let mut stripped = Vec::with_capacity(count);
    let mut at_start = true;
    let mut dropped = 0;
    for (number, (span, part)) in parts.into_iter().enumerate() {
        let text = match part {
            Part::Value(value) => {
                (at_start, dropped) = (false, 0);
                stripped.push((span, value));
                continue;
            }
            Part::Text(text, _) => text,
        };
        let mut kept = Vec::with_capacity(text.len());
        for byte in text {
            match byte {
                b'\n' => (at_start, dropped) = (true, 0),
                b' ' if at_start => {
                    dropped += 1;
                    if dropped <= width {
                        continue;
                    }
                }
                _ => (at_start, dropped) = (false, 0),
            }
            kept.push(byte);
        }
        // A blank last line only holds the closing quotes.
        if number + 1 == count
            && let Some(line) = kept.iter().rposition(|byte| *byte == b'\n')
            && kept[line + 1..].iter().all(|byte| *byte == b' ')
        {
            kept.truncate(line + 1);
        }
        if !kept.is_empty() {
            stripped.push((span, Expression { kind: Kind::String(kept), span }));
        }
    }
    stripped
}
