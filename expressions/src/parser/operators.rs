//! Operators, by their precedence.

use super::{Parser, Result};
use crate::ast::{Kind, Node, Operator, Part, Span};
use crate::lexer::Token;
use crate::symbols::{Symbol, known};

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

#[inline]
fn binary(token: Token) -> Option<(u8, Grouping)> {
    Some(match token {
        Token::Arrow => (1, Grouping::Right),
        Token::Either => (2, Grouping::Left),
        Token::And => (3, Grouping::Left),
        Token::Equal | Token::NotEqual => (4, Grouping::None),
        Token::Less | Token::Greater | Token::LessOrEqual | Token::GreaterOrEqual => (5, Grouping::None),
        Token::Update => (6, Grouping::Right),
        Token::Plus | Token::Minus => (8, Grouping::Left),
        Token::Times | Token::Slash => (9, Grouping::Left),
        Token::Append => (10, Grouping::Right),
        Token::Question => (11, Grouping::None),
        _ => return None,
    })
}

impl Parser<'_> {
    /// Operators of at least this strength.
    pub(super) fn operation(&mut self, minimum: u8) -> Result<Node> {
        self.deeper(|parser| parser.operators(minimum))
    }

    pub(super) fn operators(&mut self, minimum: u8) -> Result<Node> {
        let start = self.span;
        let mut left = match self.token {
            Token::Not => {
                self.advance();
                let operand = self.operation(NOT)?;
                self.not(operand)
            }
            Token::Minus => {
                self.advance();
                let operand = self.operation(NEGATION)?;
                let zero = self.add(Kind::Integer(0), start);
                self.call(start, known::SUB, &[zero, operand])
            }
            _ => self.application()?,
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
            row += 1;
            self.late += usize::from(row > LONG_ROW);
            if self.late > MOST_LATE {
                return Err(self.error(self.span, "too many operators in a row"));
            }
            let (sign, operator) = (self.token, self.span);
            self.advance();
            previous = Some(strength);
            if sign == Token::Question {
                let path = self.attribute_path()?;
                let span = self.tree.span(left);
                left = self.add(Kind::Has { from: left, path }, span);
                continue;
            }
            let right_span = self.span;
            let right = self.operation(if grouping == Grouping::Right { strength } else { strength + 1 })?;
            left = self.combine(sign, operator, (left_span, left), (right_span, right));
            left_span = start;
        }
        Ok(left)
    }

    /// `a |> f |> g` and `g <| f <| a`; one cannot stand beside the other.
    pub(super) fn pipe(&mut self, first: Node) -> Result<Node> {
        let (sign, mut operands) = (self.token, vec![(self.span, first)]);
        while self.token == sign {
            self.late += usize::from(operands.len() > LONG_ROW);
            if self.late > MOST_LATE {
                return Err(self.error(self.span, "too many operators in a row"));
            }
            let operator = self.span;
            self.advance();
            operands.push((operator, self.operators(0)?));
        }
        let mut called = |span: Span, function: Node, argument: Node| {
            let arguments = self.tree.add_items(&[argument]);
            self.add(Kind::Call { function, arguments }, span)
        };
        if sign == Token::PipeRight {
            return Ok(operands[1..]
                .iter()
                .fold(first, |argument, (span, function)| called(*span, *function, argument)));
        }
        // Each is called with what comes of those behind it; the sign between lies with the later one.
        let last = operands.len() - 1;
        let from_behind = operands.windows(2).rev();
        Ok(from_behind.fold(operands[last].1, |argument, pair| called(pair[1].0, pair[0].1, argument)))
    }

    pub(super) fn not(&mut self, operand: Node) -> Node {
        let span = self.tree.span(operand);
        self.add(Kind::Not(operand), span)
    }

    pub(super) fn combine(
        &mut self,
        sign: Token,
        span: Span,
        (left_span, left): (Span, Node),
        (right_span, right): (Span, Node),
    ) -> Node {
        let operator = match sign {
            Token::Less => return self.call(span, known::LESS_THAN, &[left, right]),
            Token::Greater => return self.call(span, known::LESS_THAN, &[right, left]),
            Token::LessOrEqual => {
                let greater = self.call(span, known::LESS_THAN, &[right, left]);
                return self.not(greater);
            }
            Token::GreaterOrEqual => {
                let less = self.call(span, known::LESS_THAN, &[left, right]);
                return self.not(less);
            }
            Token::Minus => return self.call(span, known::SUB, &[left, right]),
            Token::Times => return self.call(span, known::MUL, &[left, right]),
            Token::Slash => return self.call(span, known::DIV, &[left, right]),
            Token::Plus => {
                let parts = [Part { span: left_span, node: left }, Part { span: right_span, node: right }];
                let parts = self.tree.add_parts(&parts);
                return self.add(Kind::Concatenation { forced: false, parts }, span);
            }
            Token::Equal => Operator::Equal,
            Token::NotEqual => Operator::NotEqual,
            Token::And => Operator::And,
            Token::Either => Operator::Or,
            Token::Arrow => Operator::Implies,
            Token::Update => Operator::Update,
            _ => Operator::ConcatenateLists,
        };
        self.add(Kind::Binary(operator, left, right), span)
    }

    pub(super) fn call(&mut self, span: Span, function: Symbol, arguments: &[Node]) -> Node {
        // The function's own place is unknown, as it is not written.
        let function = self.add(Kind::Variable(function), Span::default());
        let arguments = self.tree.add_items(arguments);
        self.add(Kind::Call { function, arguments }, span)
    }
}
