//! Reads an expression: recursive descent, with operators by their precedence.
//!
//! What is a program to Nix 2.34 is one here, with the same meaning. The first mistake ends the reading.

mod application;
mod attributes;
mod formals;
mod operators;
mod strings;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use crate::ast::{Attribute, Formal, Formals, Kind, LONGEST, Lambda, List};
use crate::ast::{Name, Node, Part, Span, Text, Tree};
use crate::error::{Finding, Place, Severity, SourceText};
use crate::lexer::{Lexer, Token};
use crate::settings::{Lint, Lints};
use crate::stack;
use crate::symbols::{Symbol, Symbols, known};

pub use application::{OR_AS_A_NAME, PARENTHESES};

/// A finding, and no tree.
pub type Result<T> = std::result::Result<T, Box<Finding>>;

/// What a text is read with.
pub struct Parser<'a> {
    text: &'a Arc<SourceText>,
    symbols: &'a Symbols,
    /// What relative paths are relative to.
    directory: &'a [u8],
    /// What `~` stands for, if anything.
    home: Option<&'a [u8]>,
    lexer: Lexer<'a>,
    token: Token,
    span: Span,
    tree: Tree,
    warnings: Vec<Finding>,
    lints: Lints,
    /// How deeply what is being read is nested.
    depth: usize,
    /// How many operators came late in a long row of them.
    late: usize,
    /// There are zero bytes somewhere.
    has_nul: bool,
    /// Of what is being read: lists that are not whole yet, the innermost at the end.
    open: Open,
    /// What is where in large sets.
    indices: HashMap<attributes::Set, HashMap<Symbol, u32>>,
}

#[derive(Default)]
struct Open {
    nodes: Vec<Node>,
    names: Vec<Name>,
    parts: Vec<Part>,
    pieces: Vec<strings::Unstripped>,
    entries: Vec<Attribute>,
    formals: Vec<Formal>,
}

/// Nesting beyond this is refused: no person writes it, and a program that does would use up memory for stack.
const DEEPEST: usize = 20_000;

/// Reads a whole text; also gives what is worth a warning.
pub fn parse(
    text: &Arc<SourceText>,
    symbols: &Symbols,
    directory: &[u8],
    home: Option<&[u8]>,
    lints: Lints,
) -> Result<(Tree, Vec<Finding>)> {
    read(text, symbols, directory, home, lints, Parser::expression)
}

/// Reads `a = 1; inherit b;`, the inside of a set, as that set.
pub fn parse_bindings(
    text: &Arc<SourceText>,
    symbols: &Symbols,
    directory: &[u8],
    home: Option<&[u8]>,
    lints: Lints,
) -> Result<(Tree, Vec<Finding>)> {
    read(text, symbols, directory, home, lints, |parser| {
        let attributes = parser.attributes(Token::End, false)?;
        Ok(parser.add(Kind::Attributes(attributes), Span::default()))
    })
}

fn read<'a>(
    text: &'a Arc<SourceText>,
    symbols: &'a Symbols,
    directory: &'a [u8],
    home: Option<&'a [u8]>,
    lints: Lints,
    root: impl FnOnce(&mut Parser<'a>) -> Result<Node>,
) -> Result<(Tree, Vec<Finding>)> {
    let mut parser = Parser {
        text,
        symbols,
        directory,
        home,
        lexer: Lexer::new(&text.bytes),
        token: Token::End,
        span: Span::default(),
        tree: Tree::new(Arc::clone(text)),
        warnings: Vec::new(),
        lints,
        depth: 0,
        late: 0,
        has_nul: text.bytes.contains(&0),
        open: Open::default(),
        indices: HashMap::new(),
    };
    if text.bytes.len() > LONGEST {
        return Err(parser.error(Span::default(), "a text of more than 512 MiB cannot be read"));
    }
    parser.advance();
    parser.tree.root = root(&mut parser)?;
    match parser.token {
        Token::End => Ok((parser.tree, parser.warnings)),
        _ => Err(parser.unexpected(Some("end of file"))),
    }
}

fn token_name(token: Token) -> String {
    match token {
        Token::Identifier => "identifier".into(),
        Token::Integer => "integer".into(),
        Token::Float => "floating-point literal".into(),
        Token::Path => "path".into(),
        Token::HomePath => "'~/…' path".into(),
        Token::SearchPath => "'<…>' path".into(),
        Token::Uri => "URI".into(),
        Token::Quote => "'\"'".into(),
        Token::IndentedQuote => "start of an indented string".into(),
        Token::Unknown(_) => "invalid token".into(),
        Token::End => "end of file".into(),
        _ => format!("'{}'", token.sign().unwrap_or_default()),
    }
}

impl<'a> Parser<'a> {
    fn advance(&mut self) {
        (self.token, self.span) = self.lexer.token();
    }

    fn place(&self, span: Span) -> Place {
        Place { text: Arc::clone(self.text), start: span.start as usize, end: span.end as usize }
    }

    fn error(&self, span: Span, message: impl Into<String>) -> Box<Finding> {
        let place = Some(self.place(span));
        let (severity, trace) = (Severity::Error, Vec::new());
        Box::new(Finding { severity, message: message.into(), place, trace, hint: None })
    }

    /// Says something about what is allowed but not liked.
    fn lint(&mut self, lint: Lint, span: Span, message: &dyn Fn(bool) -> String) -> Result<()> {
        match lint {
            Lint::Ignore => {}
            Lint::Fatal => return Err(self.error(span, message(true))),
            Lint::Warn => {
                let finding = self.error(span, message(false));
                self.warnings.push(Finding { severity: Severity::Warning, ..*finding });
            }
        }
        Ok(())
    }

    fn unexpected(&self, expected: Option<&str>) -> Box<Finding> {
        let expecting = expected.map(|expected| format!(", expecting {expected}")).unwrap_or_default();
        self.error(self.span, format!("syntax error, unexpected {}{expecting}", token_name(self.token)))
    }

    #[inline]
    fn is(&self, token: Token) -> bool {
        self.token == token
    }

    /// Goes past a sign or keyword that must be there.
    #[inline]
    fn expect(&mut self, token: Token) -> Result<()> {
        if self.token != token {
            return Err(self.unexpected(Some(&token_name(token))));
        }
        self.advance();
        Ok(())
    }

    #[inline]
    fn add(&mut self, kind: Kind, span: Span) -> Node {
        self.tree.add(kind, span)
    }

    /// What was put onto the open list since, as a list.
    fn close_items(&mut self, start: usize) -> List<Node> {
        let list = self.tree.add_items(&self.open.nodes[start..]);
        self.open.nodes.truncate(start);
        list
    }

    fn close_parts(&mut self, start: usize) -> List<Part> {
        let list = self.tree.add_parts(&self.open.parts[start..]);
        self.open.parts.truncate(start);
        list
    }

    /// The text that was made from here to the end of all made ones.
    fn made(&self, start: usize) -> Result<Text> {
        self.tree.made(start).ok_or_else(|| self.error(self.span, "the texts in this file are too long"))
    }

    fn symbol(&mut self) -> Symbol {
        self.symbols.intern(self.lexer.slice(self.span))
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= DEEPEST || !stack::has_room() {
            return Err(self.error(self.span, "the expression is nested too deeply"));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// Functions, `let`, `if` and the like: whatever may stand where nothing is pending.
    fn expression(&mut self) -> Result<Node> {
        self.deeper(Self::whole_expression)
    }

    fn whole_expression(&mut self) -> Result<Node> {
        let start = self.span;
        match self.token {
            Token::Identifier if matches!(self.lexer.peek(), b':' | b'@') => {
                let argument = (self.symbol(), start);
                self.advance();
                if self.is(Token::Colon) {
                    self.advance();
                    return self.lambda(start, Some(argument), None);
                }
                self.advance();
                let formals = self.formals()?;
                self.expect(Token::Colon)?;
                self.check_formals(formals, Some(argument.0), start)?;
                self.lambda(start, Some(argument), Some(formals))
            }
            Token::BraceOpen if self.lexer.formals_follow() => {
                let formals = self.formals()?;
                let mut argument = None;
                if self.is(Token::At) {
                    self.advance();
                    if self.token != Token::Identifier {
                        return Err(self.unexpected(Some("identifier")));
                    }
                    argument = Some((self.symbol(), self.span));
                    self.advance();
                }
                self.expect(Token::Colon)?;
                self.check_formals(formals, argument.map(|(name, _)| name), start)?;
                self.lambda(start, argument, Some(formals))
            }
            Token::Assert => {
                self.advance();
                let condition = self.expression()?;
                self.expect(Token::Semicolon)?;
                let body = self.expression()?;
                Ok(self.add(Kind::Assert(condition, body), start))
            }
            Token::With => {
                self.advance();
                let set = self.expression()?;
                self.expect(Token::Semicolon)?;
                let body = self.expression()?;
                Ok(self.add(Kind::With(set, body), start))
            }
            Token::Let if self.lexer.peek() != b'{' => {
                self.advance();
                let attributes = self.attributes(Token::In, false)?;
                self.expect(Token::In)?;
                if !self.tree.attributes(attributes).dynamic.is_empty() {
                    return Err(self.error(start, "dynamic attributes not allowed in let"));
                }
                let body = self.expression()?;
                Ok(self.add(Kind::Let(attributes, body), start))
            }
            Token::If => {
                self.advance();
                let condition = self.expression()?;
                self.expect(Token::Then)?;
                let yes = self.expression()?;
                self.expect(Token::Else)?;
                let no = self.expression()?;
                Ok(self.add(Kind::If(condition, yes, no), start))
            }
            _ => {
                let expression = self.operators(0)?;
                if let Token::PipeLeft | Token::PipeRight = self.token {
                    if self.lints.pipes {
                        return self.pipe(expression);
                    }
                    let message = "experimental Nix feature 'pipe-operators' is disabled; add '--extra-experimental-features pipe-operators' to enable it";
                    return Err(self.error(self.span, message));
                }
                Ok(expression)
            }
        }
    }

    fn lambda(&mut self, span: Span, argument: Option<(Symbol, Span)>, formals: Option<Formals>) -> Result<Node> {
        let body = self.expression()?;
        let number = self.tree.add_lambda(Lambda { name: None, argument, formals, body });
        Ok(self.add(Kind::Lambda(number), span))
    }

    fn simple(&mut self) -> Result<Node> {
        let span = self.span;
        let kind = match self.token {
            Token::Identifier => match self.lexer.slice(span) {
                b"__curPos" => Kind::Position,
                _ => Kind::Variable(self.symbol()),
            },
            Token::Integer => {
                let digits = String::from_utf8_lossy(self.lexer.slice(span));
                let integer = digits.parse();
                Kind::Integer(integer.map_err(|_| self.error(span, format!("invalid integer '{digits}'")))?)
            }
            Token::Float => {
                let digits = String::from_utf8_lossy(self.lexer.slice(span));
                let float = digits.parse().ok().filter(|float: &f64| float.is_finite());
                // What is too small to be told from nothing is refused like what is too large.
                let vanished = float == Some(0.0) && digits.split(['e', 'E']).next().is_some_and(has_value);
                let float = float.filter(|float| !vanished && (*float == 0.0 || float.is_normal()));
                Kind::Float(float.ok_or_else(|| self.error(span, format!("invalid float '{digits}'")))?)
            }
            Token::Uri => {
                let lint = self.lints.urls;
                let text = self.lexer.slice(span);
                self.lint(lint, span, &|fatal| {
                    let what = if fatal { "disallowed" } else { "discouraged" };
                    let text = String::from_utf8_lossy(text);
                    format!("URL literals are {what}. Consider using a string literal \"{text}\" instead (lint-url-literals)")
                })?;
                Kind::String(self.tree.slice(span))
            }
            Token::SearchPath => {
                let name = self.tree.slice(Span { start: span.start + 1, end: span.end - 1 });
                let name = self.add(Kind::String(name), Span::default());
                let path = self.add(Kind::Variable(known::NIX_PATH), Span::default());
                self.advance();
                return Ok(self.call(span, known::FIND_FILE, &[path, name]));
            }
            Token::Quote => return self.string(),
            Token::IndentedQuote => return self.indented_string(),
            Token::Path | Token::HomePath => return self.path(),
            Token::ParenthesisOpen => {
                self.advance();
                let expression = self.expression()?;
                self.expect(Token::ParenthesisClose)?;
                return Ok(expression);
            }
            Token::BracketOpen => return self.deeper(Self::list),
            Token::Let if self.lexer.peek() == b'{' => {
                self.advance();
                let attributes = self.braces(true)?;
                let from = self.add(Kind::Attributes(attributes), span);
                let path = self.tree.add_names(&[Name::Static(known::BODY)]);
                return Ok(self.add(Kind::Select { from, path, fallback: None }, span));
            }
            Token::Rec => {
                self.advance();
                let attributes = self.braces(true)?;
                return Ok(self.add(Kind::Attributes(attributes), span));
            }
            Token::BraceOpen => {
                let attributes = self.braces(false)?;
                return Ok(self.add(Kind::Attributes(attributes), span));
            }
            _ => return Err(self.unexpected(None)),
        };
        self.advance();
        Ok(self.add(kind, span))
    }

    fn list(&mut self) -> Result<Node> {
        let span = self.span;
        self.advance();
        let open = self.open.nodes.len();
        while !self.is(Token::BracketClose) {
            if !self.starts_operand() {
                return Err(self.unexpected(None));
            }
            let start = self.span;
            let (item, odd) = self.selection()?;
            self.warn_of_or(odd, start);
            self.open.nodes.push(item);
        }
        self.advance();
        let items = self.close_items(open);
        Ok(self.add(Kind::List(items), span))
    }
}

/// Whether a number has a digit other than 0.
fn has_value(digits: &str) -> bool {
    digits.bytes().any(|byte| matches!(byte, b'1'..=b'9'))
}
