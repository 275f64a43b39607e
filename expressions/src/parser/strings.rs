//! Texts and paths: pieces, interpolations, and the indentation that is taken away.

use super::{Parser, Result};
use crate::ast::{Kind, Node, Part, Span};
use crate::lexer::{Piece, Token, unescape};
use crate::paths;

/// A piece of an indented text, before its indentation is taken away.
#[derive(Clone, Copy)]
pub(super) enum Unstripped {
    /// Its place; where its bytes are in the file; whether they are escaped; whether they count for the indentation.
    Text(Span, Span, bool, bool),
    Value(Part),
}

impl Parser<'_> {
    /// What is inside `${ }`, after the opening; the lexer is behind the closing brace afterwards, without having gone on.
    fn interpolation(&mut self) -> Result<Node> {
        self.advance();
        let expression = self.expression()?;
        if !self.is(Token::BraceClose) {
            return Err(self.unexpected(Some("'}'")));
        }
        // The token is the brace itself, so the lexer stands right behind it.
        Ok(expression)
    }

    fn refuse_nul(&self, text: Span, escaped: bool, span: Span) -> Result<()> {
        if !self.has_nul || !self.lexer.slice(text).contains(&0) {
            return Ok(());
        }
        let mut plain = Vec::new();
        match escaped {
            true => unescape(self.lexer.slice(text), &mut plain),
            false => plain.extend_from_slice(self.lexer.slice(text)),
        }
        let shown = String::from_utf8_lossy(&plain).replace('\0', "␀");
        let message =
            format!("input string '{shown}' cannot be represented as Nix string because it contains null bytes");
        Err(self.error(span, message))
    }

    fn early_end(&mut self, expected: Option<&str>) -> Box<crate::error::Finding> {
        (self.token, self.span) = (Token::End, Span { start: self.lexer.offset() as u32, ..self.span });
        self.span.end = self.span.start;
        self.unexpected(expected)
    }

    /// A plain text.
    fn plain(&mut self, text: Span, escaped: bool, span: Span) -> Result<Node> {
        let text = if escaped {
            let start = self.tree.making().len();
            unescape(self.lexer.slice(text), self.tree.making());
            self.made(start)?
        } else {
            self.tree.slice(text)
        };
        Ok(self.add(Kind::String(text), span))
    }

    pub(super) fn string(&mut self) -> Result<Node> {
        let open = self.span;
        let start = self.open.parts.len();
        let mut first = None;
        let mut interpolated = false;
        loop {
            let (piece, span) = self.lexer.string_piece();
            match piece {
                Piece::Close => break,
                Piece::End => {
                    // A dollar or backslash at the end of everything is text, too.
                    let any = self.open.parts.len() > start || span.end > span.start;
                    let only_text = any && !interpolated;
                    return Err(self.early_end(Some("'\"'").filter(|_| only_text)));
                }
                Piece::Text { text, escaped, .. } => {
                    self.refuse_nul(text, escaped, span)?;
                    // Most texts are whole with their first piece.
                    let place = if self.open.parts.len() == start && !interpolated { open } else { span };
                    let node = self.plain(text, escaped, place)?;
                    self.open.parts.push(Part { span, node });
                }
                Piece::Interpolation => {
                    interpolated = true;
                    first = first.or(self.open.parts.get(start).map(|part| part.span)).or(Some(span));
                    let node = self.interpolation()?;
                    self.open.parts.push(Part { span, node });
                }
            }
        }
        self.advance();
        if !interpolated {
            // One piece, or none.
            let node = match self.open.parts.get(start) {
                Some(part) => part.node,
                None => {
                    let empty = self.tree.slice(Span { start: open.end, end: open.end });
                    self.add(Kind::String(empty), open)
                }
            };
            self.open.parts.truncate(start);
            return Ok(node);
        }
        // An interpolation alone is no plain text, even of a plain text.
        let parts = self.close_parts(start);
        Ok(self.add(Kind::Concatenation { forced: true, parts }, first.unwrap_or(open)))
    }

    pub(super) fn indented_string(&mut self) -> Result<Node> {
        let open = self.span;
        let start = self.open.pieces.len();
        loop {
            let (piece, span) = self.lexer.indented_piece();
            let piece = match piece {
                Piece::Close => break,
                Piece::End => return Err(self.early_end(None)),
                Piece::Text { text, escaped, indents } => {
                    self.refuse_nul(text, escaped, span)?;
                    Unstripped::Text(span, text, escaped, indents)
                }
                Piece::Interpolation => Unstripped::Value(Part { span, node: self.interpolation()? }),
            };
            self.open.pieces.push(piece);
        }
        self.advance();
        let first = self.open.parts.len();
        self.strip(start)?;
        self.open.pieces.truncate(start);
        let text = match self.open.parts[first..] {
            [] => Some(self.tree.slice(Span { start: open.end, end: open.end })),
            [Part { node, .. }] => match self.tree.kind(node) {
                Kind::String(text) => Some(text),
                _ => None,
            },
            _ => None,
        };
        let kind = match text {
            Some(text) => Kind::String(text),
            None => Kind::Concatenation { forced: true, parts: self.tree.add_parts(&self.open.parts[first..]) },
        };
        self.open.parts.truncate(first);
        Ok(self.add(kind, open))
    }

    /// The width of the common indentation: of lines that have something on them, which an escape or interpolation is.
    fn indentation(&self, start: usize) -> usize {
        let mut smallest = usize::MAX;
        // The width of the line so far, while there are only blanks on it.
        let mut current = Some(0);
        for piece in &self.open.pieces[start..] {
            let Unstripped::Text(_, text, _, true) = piece else {
                smallest = smallest.min(current.take().unwrap_or(usize::MAX));
                continue;
            };
            let mut rest = self.lexer.slice(*text);
            while !rest.is_empty() {
                if let Some(width) = current {
                    let blanks = rest.iter().position(|byte| *byte != b' ').unwrap_or(rest.len());
                    current = Some(width + blanks);
                    match rest.get(blanks) {
                        None => break,
                        Some(b'\n') => {}
                        Some(_) => {
                            smallest = smallest.min(width + blanks);
                            current = None;
                        }
                    }
                    rest = &rest[blanks..];
                }
                let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { break };
                rest = &rest[end + 1..];
                current = Some(0);
            }
        }
        smallest
    }

    /// Puts what is left of the pieces onto the open parts.
    fn strip(&mut self, start: usize) -> Result<()> {
        let width = self.indentation(start);
        let count = self.open.pieces.len();
        let mut line = Line { at_start: true, dropped: 0 };
        let mut plain = Vec::new();
        for number in start..count {
            let (span, text, escaped) = match self.open.pieces[number] {
                Unstripped::Value(part) => {
                    line = Line { at_start: false, dropped: 0 };
                    self.open.parts.push(part);
                    continue;
                }
                Unstripped::Text(span, text, escaped, _) => (span, text, escaped),
            };
            let mut bytes = self.lexer.slice(text);
            if escaped {
                plain.clear();
                unescape(bytes, &mut plain);
                bytes = &plain;
            }
            let made = self.tree.making();
            let from = made.len();
            line.strip(bytes, width, made);
            // A blank last line only holds the closing quotes.
            if number + 1 == count
                && let Some(end) = made[from..].iter().rposition(|byte| *byte == b'\n')
                && made[from + end + 1..].iter().all(|byte| *byte == b' ')
            {
                made.truncate(from + end + 1);
            }
            let length = made.len() - from;
            if length == 0 {
                continue;
            }
            // What stayed as it was need not be kept twice.
            let text = if !escaped && length == bytes.len() {
                made.truncate(from);
                self.tree.slice(text)
            } else {
                self.made(from)?
            };
            let node = self.add(Kind::String(text), span);
            self.open.parts.push(Part { span, node });
        }
        Ok(())
    }

    pub(super) fn path(&mut self) -> Result<Node> {
        let start = self.span;
        let text = self.lexer.slice(start);
        let lints = self.lints;
        let shown = || String::from_utf8_lossy(text).into_owned();
        if self.token == Token::HomePath && self.home.is_some() {
            self.lint(lints.absolute_paths, start, &|_| {
                format!("home path literals are not portable. Consider replacing path literal '{}' by a string, relative path, or parameter (lint-absolute-path-literals)", shown())
            })?;
        } else if text.starts_with(b"/") {
            self.lint(lints.absolute_paths, start, &|_| {
                format!("absolute path literals are not portable. Consider replacing path literal '{}' by a string, relative path, or parameter (lint-absolute-path-literals)", shown())
            })?;
        } else if !text.starts_with(b".") && self.token == Token::Path {
            self.lint(lints.short_paths, start, &|_| {
                let shown = shown();
                format!("relative path literal '{shown}' should be prefixed with '.' for clarity: './{shown}' (lint-short-path-literals)")
            })?;
        }
        let from = self.tree.making().len();
        match (self.token, self.home) {
            (Token::HomePath, Some(home)) => {
                // What is behind the home directory is taken as it stands.
                let made = self.tree.making();
                made.extend_from_slice(home);
                made.extend_from_slice(&text[1..]);
            }
            (Token::HomePath, None) => {
                let text = String::from_utf8_lossy(text);
                return Err(self.error(start, format!("the path '{text}' can not be resolved in pure mode")));
            }
            _ => {
                let path = paths::join(self.directory, text);
                let made = self.tree.making();
                made.extend_from_slice(&path);
                if text.len() > 1 && text.ends_with(b"/") {
                    made.push(b'/');
                }
            }
        }
        let path = self.made(from)?;
        let node = self.add(Kind::Path(path), start);
        let open = self.open.parts.len();
        self.open.parts.push(Part { span: start, node });
        let mut slash = text.ends_with(b"/");
        loop {
            let (piece, span) = self.lexer.path_piece();
            match piece {
                Piece::Interpolation => {
                    slash = false;
                    let node = self.interpolation()?;
                    self.open.parts.push(Part { span, node });
                }
                // `a/b//c` is no path: what follows the first piece is an interpolation, or nothing.
                Piece::Text { .. } if self.open.parts.len() == open + 1 => {
                    return Err(self.error(span, "syntax error, unexpected end of path, expecting '${'"));
                }
                Piece::Text { text, .. } => {
                    slash = self.lexer.slice(text).ends_with(b"/");
                    let node = self.plain(text, false, span)?;
                    self.open.parts.push(Part { span, node });
                }
                Piece::Close | Piece::End if slash => {
                    let end = Span { start: span.start, end: span.start + 1 };
                    return Err(self.error(end, "path has a trailing slash"));
                }
                Piece::Close | Piece::End => break,
            }
        }
        self.advance();
        if self.open.parts.len() == open + 1 {
            self.open.parts.truncate(open);
            return Ok(node);
        }
        let parts = self.close_parts(open);
        Ok(self.add(Kind::Concatenation { forced: false, parts }, start))
    }
}

/// Where in a line the stripping is.
struct Line {
    /// There were only blanks on it,
    at_start: bool,
    /// so many.
    dropped: usize,
}

impl Line {
    /// Copies a text without its indentation.
    fn strip(&mut self, mut rest: &[u8], width: usize, kept: &mut Vec<u8>) {
        while !rest.is_empty() {
            if self.at_start {
                let blanks = rest.iter().position(|byte| *byte != b' ').unwrap_or(rest.len());
                let before = self.dropped;
                self.dropped += blanks;
                let keep = self.dropped.saturating_sub(width.max(before));
                kept.extend_from_slice(&rest[blanks - keep..blanks]);
                rest = &rest[blanks..];
                match rest.first() {
                    None => return,
                    Some(b'\n') => self.dropped = 0,
                    Some(_) => (self.at_start, self.dropped) = (false, 0),
                }
            }
            match rest.iter().position(|byte| *byte == b'\n') {
                None => return kept.extend_from_slice(rest),
                Some(end) => {
                    kept.extend_from_slice(&rest[..=end]);
                    rest = &rest[end + 1..];
                    (self.at_start, self.dropped) = (true, 0);
                }
            }
        }
    }
}
