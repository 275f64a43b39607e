//! Reads an expression: recursive descent, with operators by their precedence.
//!
//! What is a program to Nix 2.34 is one here, with the same meaning. The first mistake ends the reading.

mod attributes;
mod formals;
mod strings;

use std::sync::Arc;

use crate::ast::{Expression, Formals, Kind, Lambda, Name, Operator, Span};
use crate::error::{Finding, Place, Severity, SourceText};
use crate::lexer::{Lexer, Token};
use crate::settings::{Lint, Lints};
use crate::symbols::{Symbol, Symbols, known};
use crate::{paths, stack};

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
    /// `a or` as the last thing read: `or` may yet be taken for a function's name.
    warnings: Vec<Finding>,
    lints: Lints,
    /// How deeply what is being read is nested.
    depth: usize,
    /// How many operators came late in a long row of them.
    late: usize,
}

/// Nesting beyond this is refused: no person writes it, and a program that does would use up memory for stack.
const DEEPEST: usize = 20_000;

/// Operators in a row nest to the left without the parser noticing: from here on they are counted,
const LONG_ROW: usize = 100;

/// and so many of those are too many.
const MOST_LATE: usize = 200_000;

/// Binding strength and whether the operator may be repeated and groups to the right.
#[derive(Clone, Copy, PartialEq)]
enum Grouping {
    Left,
    Right,
    None,
}

const NOT: u8 = 7;
const NEGATION: u8 = 12;

fn binary(token: Token) -> Option<(u8, Grouping)> {
    let Token::Sign(sign) = token else { return None };
    Some(match sign {
        "->" => (1, Grouping::Right),
        "||" => (2, Grouping::Left),
        "&&" => (3, Grouping::Left),
        "==" | "!=" => (4, Grouping::None),
        "<" | ">" | "<=" | ">=" => (5, Grouping::None),
        "//" => (6, Grouping::Right),
        "+" | "-" => (8, Grouping::Left),
        "*" | "/" => (9, Grouping::Left),
        "++" => (10, Grouping::Right),
        "?" => (11, Grouping::None),
        _ => return None,
    })
}

/// Reads a whole text; also gives what is worth a warning.
pub fn parse(
    text: &Arc<SourceText>,
    symbols: &Symbols,
    directory: &[u8],
    home: Option<&[u8]>,
    lints: Lints,
) -> Result<(Expression, Vec<Finding>)> {
    let lexer = Lexer::new(&text.bytes);
    let (token, span) = (Token::End, Span::default());
    let mut parser =
        Parser { text, symbols, directory, home, lexer, token, span, warnings: Vec::new(), lints, depth: 0, late: 0 };
    if u32::try_from(text.bytes.len()).is_err() {
        return Err(parser.error(Span::default(), "a text of more than 4 GiB cannot be read"));
    }
    parser.advance();
    let expression = parser.expression()?;
    match parser.token {
        Token::End => Ok((expression, parser.warnings)),
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
        Token::If => "'if'".into(),
        Token::Then => "'then'".into(),
        Token::Else => "'else'".into(),
        Token::Assert => "'assert'".into(),
        Token::With => "'with'".into(),
        Token::Let => "'let'".into(),
        Token::In => "'in'".into(),
        Token::Rec => "'rec'".into(),
        Token::Inherit => "'inherit'".into(),
        Token::Or => "'or'".into(),
        Token::Sign(sign) => format!("'{sign}'"),
        Token::Unknown(_) => "invalid token".into(),
        Token::End => "end of file".into(),
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

    fn is(&self, sign: &str) -> bool {
        matches!(self.token, Token::Sign(found) if found == sign)
    }

    /// Goes past a sign that must be there.
    fn expect(&mut self, sign: &str) -> Result<Span> {
        if !self.is(sign) {
            return Err(self.unexpected(Some(&format!("'{sign}'"))));
        }
        let span = self.span;
        self.advance();
        Ok(span)
    }

    fn expect_keyword(&mut self, token: Token) -> Result<()> {
        if self.token != token {
            return Err(self.unexpected(Some(&token_name(token))));
        }
        self.advance();
        Ok(())
    }

    /// The token after this one, without going there.
    fn peek(&self) -> Token {
        self.lexer.clone().token().0
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
    fn expression(&mut self) -> Result<Expression> {
        self.deeper(Self::whole_expression)
    }

    fn whole_expression(&mut self) -> Result<Expression> {
        let start = self.span;
        match self.token {
            Token::Identifier if matches!(self.peek(), Token::Sign(":" | "@")) => {
                let argument = (self.symbol(), start);
                self.advance();
                if self.is(":") {
                    self.advance();
                    return self.lambda(start, Some(argument), None);
                }
                self.advance();
                let formals = self.formals()?;
                self.expect(":")?;
                self.check_formals(&formals, Some(argument.0), start)?;
                self.lambda(start, Some(argument), Some(formals))
            }
            Token::Sign("{") if self.formals_follow() => {
                let formals = self.formals()?;
                let mut argument = None;
                if self.is("@") {
                    self.advance();
                    if self.token != Token::Identifier {
                        return Err(self.unexpected(Some("identifier")));
                    }
                    argument = Some((self.symbol(), self.span));
                    self.advance();
                }
                self.expect(":")?;
                self.check_formals(&formals, argument.map(|(name, _)| name), start)?;
                self.lambda(start, argument, Some(formals))
            }
            Token::Assert => {
                self.advance();
                let condition = Box::new(self.expression()?);
                self.expect(";")?;
                Ok(Expression { kind: Kind::Assert(condition, Box::new(self.expression()?)), span: start })
            }
            Token::With => {
                self.advance();
                let set = Box::new(self.expression()?);
                self.expect(";")?;
                Ok(Expression { kind: Kind::With(set, Box::new(self.expression()?)), span: start })
            }
            Token::Let if self.peek() != Token::Sign("{") => {
                self.advance();
                let attributes = self.attributes(|parser| parser.token == Token::In)?;
                self.expect_keyword(Token::In)?;
                if let Some((_, _, _)) = attributes.dynamic.first() {
                    return Err(self.error(start, "dynamic attributes not allowed in let"));
                }
                Ok(Expression { kind: Kind::Let(Box::new(attributes), Box::new(self.expression()?)), span: start })
            }
            Token::If => {
                self.advance();
                let condition = self.expression()?;
                self.expect_keyword(Token::Then)?;
                let yes = self.expression()?;
                self.expect_keyword(Token::Else)?;
                let no = self.expression()?;
                Ok(Expression { kind: Kind::If(Box::new([condition, yes, no])), span: start })
            }
            _ => {
                let expression = self.operation(0)?;
                if let Token::Sign("<|" | "|>") = self.token {
                    let message = "experimental Nix feature 'pipe-operators' is disabled; add '--extra-experimental-features pipe-operators' to enable it";
                    return Err(self.error(self.span, message));
                }
                Ok(expression)
            }
        }
    }

    fn lambda(&mut self, span: Span, argument: Option<(Symbol, Span)>, formals: Option<Formals>) -> Result<Expression> {
        let body = self.expression()?;
        Ok(Expression { kind: Kind::Lambda(Box::new(Lambda { name: None, argument, formals, body })), span })
    }

    /// Operators of at least this strength.
    fn operation(&mut self, minimum: u8) -> Result<Expression> {
        self.deeper(|parser| parser.operators(minimum))
    }

    fn operators(&mut self, minimum: u8) -> Result<Expression> {
        let start = self.span;
        let mut left = if self.is("!") {
            self.advance();
            let operand = self.operation(NOT)?;
            Expression { span: operand.span, kind: Kind::Not(Box::new(operand)) }
        } else if self.is("-") {
            self.advance();
            let operand = self.operation(NEGATION)?;
            let zero = Expression { kind: Kind::Integer(0), span: start };
            self.call(start, known::SUB, vec![zero, operand])
        } else {
            self.application()?
        };
        let mut left_span = start;
        let mut previous = None;
        let mut row = 0;
        while let Some((strength, grouping)) = binary(self.token) {
            if strength < minimum {
                break;
            }
            if grouping == Grouping::None && previous == Some(strength) {
                return Err(self.unexpected(None));
            }
            let Token::Sign(sign) = self.token else { break };
            row += 1;
            self.late += usize::from(row > LONG_ROW);
            if self.late > MOST_LATE {
                return Err(self.error(self.span, "too many operators in a row"));
            }
            let operator = self.span;
            self.advance();
            if sign == "?" {
                let path = self.attribute_path()?;
                left = Expression { span: left.span, kind: Kind::Has { from: Box::new(left), path } };
                previous = Some(strength);
                continue;
            }
            let right_span = self.span;
            let right = self.operation(if grouping == Grouping::Right { strength } else { strength + 1 })?;
            left = self.combine(sign, operator, (left_span, left), (right_span, right));
            left_span = start;
            previous = Some(strength);
        }
        Ok(left)
    }

    fn combine(
        &mut self,
        sign: &str,
        span: Span,
        (left_span, left): (Span, Expression),
        (right_span, right): (Span, Expression),
    ) -> Expression {
        let not = |operand: Expression| Expression { span: operand.span, kind: Kind::Not(Box::new(operand)) };
        let operator = match sign {
            "<" => return self.call(span, known::LESS_THAN, vec![left, right]),
            ">" => return self.call(span, known::LESS_THAN, vec![right, left]),
            "<=" => return not(self.call(span, known::LESS_THAN, vec![right, left])),
            ">=" => return not(self.call(span, known::LESS_THAN, vec![left, right])),
            "-" => return self.call(span, known::SUB, vec![left, right]),
            "*" => return self.call(span, known::MUL, vec![left, right]),
            "/" => return self.call(span, known::DIV, vec![left, right]),
            "+" => {
                let parts = vec![(left_span, left), (right_span, right)];
                return Expression { kind: Kind::Concatenation { forced: false, parts }, span };
            }
            "==" => Operator::Equal,
            "!=" => Operator::NotEqual,
            "&&" => Operator::And,
            "||" => Operator::Or,
            "->" => Operator::Implies,
            "//" => Operator::Update,
            _ => Operator::ConcatenateLists,
        };
        Expression { kind: Kind::Binary(operator, Box::new(left), Box::new(right)), span }
    }

    fn call(&self, span: Span, function: Symbol, arguments: Vec<Expression>) -> Expression {
        // The function's own place is unknown, as it is not written.
        let function = Expression { kind: Kind::Variable(function), span: Span::default() };
        Expression { kind: Kind::Call { function: Box::new(function), arguments }, span }
    }

    fn starts_operand(&self) -> bool {
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
                | Token::Sign("(" | "{" | "[")
        )
    }

    fn application(&mut self) -> Result<Expression> {
        let start = self.span;
        let (mut function, _) = self.selection()?;
        while self.starts_operand() {
            let argument_start = self.span;
            let (argument, odd) = self.selection()?;
            self.warn_of_or(odd, argument_start);
            function = match function {
                Expression { kind: Kind::Call { function, mut arguments }, span } => {
                    arguments.push(argument);
                    Expression { kind: Kind::Call { function, arguments }, span }
                }
                function => {
                    let kind = Kind::Call { function: Box::new(function), arguments: vec![argument] };
                    Expression { kind, span: start }
                }
            };
        }
        Ok(function)
    }

    /// `f (a or)` without the parentheses means something else than it looks like.
    fn warn_of_or(&mut self, odd: bool, start: Span) {
        if odd {
            let end = self.text.bytes[..self.span.start as usize].trim_ascii_end().len();
            let place = Some(Place { text: Arc::clone(self.text), start: start.start as usize, end });
            let message =
                "this expression uses `or` as an identifier in a way that will change in a future Nix release";
            let hint = Some("wrap it in parentheses to keep its meaning".to_owned());
            let (severity, trace) = (Severity::Warning, Vec::new());
            self.warnings.push(Finding { severity, message: message.into(), place, trace, hint });
        }
    }

    /// An operand with what is selected from it; and whether it is `a or`, a call of a function named `or`.
    fn selection(&mut self) -> Result<(Expression, bool)> {
        let start = self.span;
        let simple = self.simple()?;
        if self.is(".") {
            self.advance();
            let path = self.attribute_path()?;
            let mut fallback = None;
            if self.token == Token::Or {
                self.advance();
                let fallback_start = self.span;
                let (expression, odd) = self.selection()?;
                self.warn_of_or(odd, fallback_start);
                fallback = Some(Box::new(expression));
            }
            let kind = Kind::Select { from: Box::new(simple), path, fallback };
            return Ok((Expression { kind, span: start }, false));
        }
        if self.token == Token::Or {
            let or = Expression { kind: Kind::Variable(known::OR), span: start };
            self.advance();
            let kind = Kind::Call { function: Box::new(simple), arguments: vec![or] };
            return Ok((Expression { kind, span: start }, true));
        }
        Ok((simple, false))
    }

    fn attribute_path(&mut self) -> Result<Vec<Name>> {
        let mut path = vec![self.attribute_name()?];
        while self.is(".") {
            self.advance();
            path.push(self.attribute_name()?);
        }
        Ok(path)
    }

    fn attribute_name(&mut self) -> Result<Name> {
        let name = match self.token {
            Token::Identifier => Name::Static(self.symbol()),
            Token::Or => Name::Static(known::OR),
            Token::Quote => {
                let expression = self.string()?;
                return Ok(self.name_of(expression));
            }
            Token::Sign("${") => {
                self.advance();
                let expression = self.expression()?;
                self.expect("}")?;
                return Ok(self.name_of(expression));
            }
            _ => return Err(self.unexpected(Some("identifier or 'or' or '${' or '\"'"))),
        };
        self.advance();
        Ok(name)
    }

    fn name_of(&self, expression: Expression) -> Name {
        match expression.kind {
            Kind::String(name) => Name::Static(self.symbols.intern(&name)),
            _ => Name::Dynamic(expression),
        }
    }

    fn simple(&mut self) -> Result<Expression> {
        let span = self.span;
        let text = self.lexer.slice(span);
        let kind = match self.token {
            Token::Identifier if text == b"__curPos" => Kind::Position,
            Token::Identifier => Kind::Variable(self.symbol()),
            Token::Integer => {
                let digits = String::from_utf8_lossy(text);
                let integer = digits.parse();
                Kind::Integer(integer.map_err(|_| self.error(span, format!("invalid integer '{digits}'")))?)
            }
            Token::Float => {
                let digits = String::from_utf8_lossy(text);
                let float = digits.parse().ok().filter(|float: &f64| float.is_finite());
                // What is too small to be told from nothing is refused like what is too large.
                let vanished = float == Some(0.0) && digits.split(['e', 'E']).next().is_some_and(has_value);
                let float = float.filter(|float| !vanished && (*float == 0.0 || float.is_normal()));
                Kind::Float(float.ok_or_else(|| self.error(span, format!("invalid float '{digits}'")))?)
            }
            Token::Uri => {
                let lint = self.lints.urls;
                self.lint(lint, span, &|fatal| {
                    let what = if fatal { "disallowed" } else { "discouraged" };
                    let text = String::from_utf8_lossy(text);
                    format!("URL literals are {what}. Consider using a string literal \"{text}\" instead (lint-url-literals)")
                })?;
                Kind::String(text.to_vec())
            }
            Token::SearchPath => {
                let name = Expression { kind: Kind::String(text[1..text.len() - 1].to_vec()), span: Span::default() };
                let path = Expression { kind: Kind::Variable(known::NIX_PATH), span: Span::default() };
                self.advance();
                return Ok(self.call(span, known::FIND_FILE, vec![path, name]));
            }
            Token::Quote => return self.string(),
            Token::IndentedQuote => return self.indented_string(),
            Token::Path | Token::HomePath => return self.path(),
            Token::Sign("(") => {
                self.advance();
                let expression = self.expression()?;
                self.expect(")")?;
                return Ok(expression);
            }
            Token::Sign("[") => {
                self.advance();
                let mut items = Vec::new();
                while !self.is("]") {
                    if !self.starts_operand() {
                        return Err(self.unexpected(None));
                    }
                    let start = self.span;
                    let (item, odd) = self.selection()?;
                    self.warn_of_or(odd, start);
                    items.push(item);
                }
                Kind::List(items)
            }
            Token::Let if self.peek() == Token::Sign("{") => {
                self.advance();
                let mut attributes = self.braces()?;
                attributes.recursive = true;
                let from = Box::new(Expression { kind: Kind::Attributes(Box::new(attributes)), span });
                let path = vec![Name::Static(known::BODY)];
                return Ok(Expression { kind: Kind::Select { from, path, fallback: None }, span });
            }
            Token::Rec => {
                self.advance();
                let mut attributes = self.braces()?;
                attributes.recursive = true;
                return Ok(Expression { kind: Kind::Attributes(Box::new(attributes)), span });
            }
            Token::Sign("{") => {
                let attributes = self.braces()?;
                return Ok(Expression { kind: Kind::Attributes(Box::new(attributes)), span });
            }
            _ => return Err(self.unexpected(None)),
        };
        self.advance();
        Ok(Expression { kind, span })
    }

    fn absolute(&self, text: &[u8]) -> Vec<u8> {
        let mut path = paths::join(self.directory, text);
        if text.len() > 1 && text.ends_with(b"/") {
            path.push(b'/');
        }
        path
    }
}

/// Whether a number has a digit other than 0.
fn has_value(digits: &str) -> bool {
    digits.bytes().any(|byte| matches!(byte, b'1'..=b'9'))
}
