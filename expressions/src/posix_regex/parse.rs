//! Reads the text of an expression.
//!
//! Bytes compare as signed ones in ranges, because the C++ library's do. An escape may stand only before a character that
//! means something. Braces always count.

use super::Fault;

/// What an expression is made of.
#[derive(Debug, Clone)]
pub(super) enum Expression {
    /// Matches the empty text.
    Empty,
    /// One byte of a set.
    Byte(Box<ByteSet>),
    /// `^`
    Start,
    /// `$`
    End,
    /// A group in parentheses, by number.
    Group(usize, Box<Expression>),
    /// One after another.
    Sequence(Vec<Expression>),
    /// One of them, tried in order.
    Alternatives(Vec<Expression>),
    /// Repeated at least and at most so often.
    Repeat(Box<Expression>, Count),
}

/// How often something is repeated.
#[derive(Debug, Clone, Copy)]
pub(super) enum Count {
    /// `*`
    Any,
    /// `+`
    Some,
    /// `?`
    Optional,
    /// `{3}`, `{3,}` and `{3,7}`
    Between(u32, Option<u32>),
}

/// A set of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ByteSet(pub(super) [bool; 256]);

impl ByteSet {
    fn of(test: impl Fn(u8) -> bool) -> Self {
        let mut set = [false; 256];
        (0..=255).for_each(|byte: u8| set[usize::from(byte)] = test(byte));
        Self(set)
    }

    fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte)] = true;
    }

    fn join(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine |= theirs);
    }
}

/// Parentheses and stacked quantifiers may nest this deep; the stack must hold as many calls.
const DEEPEST: usize = 500;

/// Names of the characters 0 to 127, for `[[.name.]]` and `[[=name=]]`.
const NAMES: &str = "NUL SOH STX ETX EOT ENQ ACK alert backspace tab newline vertical-tab form-feed carriage-return SO SI DLE \
    DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB ESC IS4 IS3 IS2 IS1 space exclamation-mark quotation-mark number-sign dollar-sign \
    percent-sign ampersand apostrophe left-parenthesis right-parenthesis asterisk plus-sign comma hyphen period slash zero one \
    two three four five six seven eight nine colon semicolon less-than-sign equals-sign greater-than-sign question-mark \
    commercial-at A B C D E F G H I J K L M N O P Q R S T U V W X Y Z left-square-bracket backslash right-square-bracket \
    circumflex underscore grave-accent a b c d e f g h i j k l m n o p q r s t u v w x y z left-curly-bracket vertical-line \
    right-curly-bracket tilde DEL";

/// Reads an expression, and says how many groups it has with the whole as group 0.
pub(super) fn parse(pattern: &[u8]) -> Result<(Expression, usize), Fault> {
    let mut parser = Parser { pattern, offset: 0, groups: 1 };
    let expression = parser.alternatives(0)?;
    if parser.offset < pattern.len() {
        return Err(Fault::Invalid);
    }
    Ok((expression, parser.groups))
}

struct Parser<'a> {
    pattern: &'a [u8],
    offset: usize,
    groups: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.pattern.get(self.offset).copied()
    }

    fn next(&mut self) -> Result<u8, Fault> {
        let byte = self.peek().ok_or(Fault::Invalid)?;
        self.offset += 1;
        Ok(byte)
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.offset += usize::from(there);
        there
    }

    fn alternatives(&mut self, depth: usize) -> Result<Expression, Fault> {
        if depth > DEEPEST {
            return Err(Fault::TooLarge);
        }
        let mut alternatives = vec![self.sequence(depth)?];
        while self.take(b'|') {
            alternatives.push(self.sequence(depth)?);
        }
        Ok(if alternatives.len() == 1 { alternatives.remove(0) } else { Expression::Alternatives(alternatives) })
    }

    /// Ends before `|`, `)` or the end; before a quantifier that nothing precedes too, which whoever called will not expect.
    fn sequence(&mut self, depth: usize) -> Result<Expression, Fault> {
        let mut parts = Vec::new();
        while let Some(byte) = self.peek() {
            let atom = match byte {
                b'|' | b')' | b'*' | b'+' | b'?' | b'{' => break,
                b'^' | b'$' => {
                    self.offset += 1;
                    parts.push(if byte == b'^' { Expression::Start } else { Expression::End });
                    continue;
                }
                _ => self.atom(depth)?,
            };
            parts.push(self.quantified(atom, depth)?);
        }
        Ok(match parts.len() {
            0 => Expression::Empty,
            1 => parts.remove(0),
            _ => Expression::Sequence(parts),
        })
    }

    fn atom(&mut self, depth: usize) -> Result<Expression, Fault> {
        let set = match self.next()? {
            b'.' => ByteSet::of(|byte| byte != 0),
            b'(' => {
                let group = self.groups;
                self.groups += 1;
                let inner = self.alternatives(depth + 1)?;
                return if self.take(b')') {
                    Ok(Expression::Group(group, Box::new(inner)))
                } else {
                    Err(Fault::Invalid)
                };
            }
            b'[' => self.bracket()?,
            b'\\' => match self.next()? {
                escaped if b".[\\()*+?{|^$".contains(&escaped) => ByteSet::of(|byte| byte == escaped),
                _ => return Err(Fault::Invalid),
            },
            0 => return Err(Fault::Invalid),
            ordinary => ByteSet::of(|byte| byte == ordinary),
        };
        Ok(Expression::Byte(Box::new(set)))
    }

    fn quantified(&mut self, atom: Expression, depth: usize) -> Result<Expression, Fault> {
        let mut expression = atom;
        let mut stacked = depth;
        loop {
            let count = match self.peek() {
                Some(b'*') => Count::Any,
                Some(b'+') => Count::Some,
                Some(b'?') => Count::Optional,
                Some(b'{') => {
                    self.offset += 1;
                    let least = self.number()?.ok_or(Fault::Invalid)?;
                    let most = if self.take(b',') { self.number()? } else { Some(least) };
                    if self.peek() != Some(b'}') || most.is_some_and(|most| most < least) {
                        return Err(Fault::Invalid);
                    }
                    Count::Between(least, most)
                }
                _ => return Ok(expression),
            };
            self.offset += 1;
            stacked += 1;
            if stacked > DEEPEST {
                return Err(Fault::TooLarge);
            }
            expression = Expression::Repeat(Box::new(expression), count);
        }
    }

    fn number(&mut self) -> Result<Option<u32>, Fault> {
        let start = self.offset;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.offset += 1;
        }
        let digits = str::from_utf8(&self.pattern[start..self.offset]).map_err(|_| Fault::Invalid)?;
        match digits.parse::<i32>() {
            _ if digits.is_empty() => Ok(None),
            Ok(number) => u32::try_from(number).map(Some).map_err(|_| Fault::Invalid),
            Err(_) => Err(Fault::Invalid),
        }
    }

    /// What stands between brackets, the first of which was read.
    fn bracket(&mut self) -> Result<ByteSet, Fault> {
        let negated = self.take(b'^');
        let mut set = ByteSet([false; 256]);
        let mut last = Last::Nothing;
        let mut is_first = true;
        loop {
            let token = self.bracket_token(is_first)?;
            match token {
                Token::End => break,
                Token::Byte(byte) | Token::Symbol(byte) => {
                    set.insert(byte);
                    last = Last::Byte(byte);
                }
                Token::Dash if is_first => {
                    set.insert(b'-');
                    last = Last::Byte(b'-');
                }
                Token::Class(class) => {
                    set.join(&class);
                    last = Last::Class;
                }
                Token::Dash => match (self.bracket_token(false)?, last) {
                    (Token::End, _) => {
                        set.insert(b'-');
                        break;
                    }
                    (to @ (Token::Byte(_) | Token::Dash), Last::Byte(from)) => {
                        let to = if let Token::Byte(byte) = to { byte } else { b'-' };
                        let (from, to) = (from.cast_signed(), to.cast_signed());
                        if from > to {
                            return Err(Fault::Invalid);
                        }
                        set.join(&ByteSet::of(|byte| (from..=to).contains(&byte.cast_signed())));
                        last = Last::Nothing;
                    }
                    _ => return Err(Fault::Invalid),
                },
            }
            is_first = false;
        }
        Ok(if negated { ByteSet::of(|byte| !set.0[usize::from(byte)]) } else { set })
    }

    fn bracket_token(&mut self, is_first: bool) -> Result<Token, Fault> {
        match self.next()? {
            b'-' => Ok(Token::Dash),
            b']' if !is_first => Ok(Token::End),
            b'[' => match self.peek().ok_or(Fault::Invalid)? {
                kind @ (b'.' | b':' | b'=') => {
                    self.offset += 1;
                    let start = self.offset;
                    while self.next()? != kind {}
                    let name = &self.pattern[start..self.offset - 1];
                    if self.next()? != b']' {
                        return Err(Fault::Invalid);
                    }
                    named(kind, name)
                }
                _ => Ok(Token::Byte(b'[')),
            },
            byte => Ok(Token::Byte(byte)),
        }
    }
}

/// What was read last within brackets: only a byte may begin a range.
#[derive(Clone, Copy)]
enum Last {
    Nothing,
    Byte(u8),
    Class,
}

enum Token {
    End,
    Dash,
    Byte(u8),
    /// `[.a.]`: may begin a range, but not end one.
    Symbol(u8),
    Class(Box<ByteSet>),
}

/// `[:alpha:]`, `[.hyphen.]` or `[=a=]`, without the marks.
fn named(kind: u8, name: &[u8]) -> Result<Token, Fault> {
    if kind == b':' {
        return class(&name.to_ascii_lowercase()).map(|set| Token::Class(Box::new(set))).ok_or(Fault::Invalid);
    }
    let character = NAMES.split_ascii_whitespace().position(|known| known.as_bytes() == name);
    let character = character.and_then(|position| u8::try_from(position).ok()).ok_or(Fault::Invalid)?;
    Ok(match kind {
        b'.' => Token::Symbol(character),
        _ => Token::Class(Box::new(ByteSet::of(|byte| byte.eq_ignore_ascii_case(&character)))),
    })
}

fn class(name: &[u8]) -> Option<ByteSet> {
    let test: fn(u8) -> bool = match name {
        b"alnum" => |byte: u8| byte.is_ascii_alphanumeric(),
        b"alpha" => |byte| byte.is_ascii_alphabetic(),
        b"blank" => |byte| matches!(byte, b' ' | b'\t'),
        b"cntrl" => |byte| byte.is_ascii_control(),
        b"digit" | b"d" => |byte| byte.is_ascii_digit(),
        b"graph" => |byte| byte.is_ascii_graphic(),
        b"lower" => |byte| byte.is_ascii_lowercase(),
        b"print" => |byte| byte.is_ascii_graphic() || byte == b' ',
        b"punct" => |byte| byte.is_ascii_punctuation(),
        b"space" | b"s" => |byte| matches!(byte, b' ' | b'\t'..=b'\r'),
        b"upper" => |byte| byte.is_ascii_uppercase(),
        b"xdigit" => |byte| byte.is_ascii_hexdigit(),
        b"w" => |byte| byte.is_ascii_alphanumeric() || byte == b'_',
        _ => return None,
    };
    Some(ByteSet::of(test))
}
