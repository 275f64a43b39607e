//! Cuts the text of an expression into tokens, straight from the bytes.
//!
//! As in Nix, the longest token wins: `a/b` is a path, `a:b` a URI, `a / b` a division. Texts and paths with
//! interpolations have their own rules; the parser asks for their pieces with [`Lexer::string_piece`] and its siblings.
//!
//! What is common is decided by one or two bytes; the rest, where several rules compete, by [`rules`].

mod rules;

use crate::ast::Span;
use rules::{count, is_identifier_part, is_path_byte};

/// One token outside of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the signs are written beside their names in `Token::sign`")]
pub enum Token {
    /// `abc`
    Identifier,
    /// `12`
    Integer,
    /// `1.2`
    Float,
    /// `./a`, or the beginning of a path with interpolations.
    Path,
    /// `~/a`, likewise.
    HomePath,
    /// `<a>`
    SearchPath,
    /// `a:b`
    Uri,
    /// `"`
    Quote,
    /// `''`, with the rest of the line if it is blank.
    IndentedQuote,
    If,
    Then,
    Else,
    Assert,
    With,
    Let,
    In,
    Rec,
    Inherit,
    Or,
    Ellipsis,
    Equal,
    NotEqual,
    LessOrEqual,
    GreaterOrEqual,
    And,
    Either,
    Arrow,
    Update,
    Append,
    PipeLeft,
    PipeRight,
    DollarBrace,
    BraceOpen,
    BraceClose,
    ParenthesisOpen,
    ParenthesisClose,
    BracketOpen,
    BracketClose,
    Semicolon,
    Colon,
    Comma,
    Dot,
    Assign,
    Less,
    Greater,
    Plus,
    Minus,
    Times,
    Slash,
    Not,
    Question,
    At,
    /// A byte that begins nothing.
    Unknown(u8),
    /// The end of the text.
    End,
}

impl Token {
    /// How a sign or keyword is written.
    pub fn sign(self) -> Option<&'static str> {
        Some(match self {
            Self::If => "if",
            Self::Then => "then",
            Self::Else => "else",
            Self::Assert => "assert",
            Self::With => "with",
            Self::Let => "let",
            Self::In => "in",
            Self::Rec => "rec",
            Self::Inherit => "inherit",
            Self::Or => "or",
            Self::Ellipsis => "...",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::LessOrEqual => "<=",
            Self::GreaterOrEqual => ">=",
            Self::And => "&&",
            Self::Either => "||",
            Self::Arrow => "->",
            Self::Update => "//",
            Self::Append => "++",
            Self::PipeLeft => "<|",
            Self::PipeRight => "|>",
            Self::DollarBrace => "${",
            Self::BraceOpen => "{",
            Self::BraceClose => "}",
            Self::ParenthesisOpen => "(",
            Self::ParenthesisClose => ")",
            Self::BracketOpen => "[",
            Self::BracketClose => "]",
            Self::Semicolon => ";",
            Self::Colon => ":",
            Self::Comma => ",",
            Self::Dot => ".",
            Self::Assign => "=",
            Self::Less => "<",
            Self::Greater => ">",
            Self::Plus => "+",
            Self::Minus => "-",
            Self::Times => "*",
            Self::Slash => "/",
            Self::Not => "!",
            Self::Question => "?",
            Self::At => "@",
            _ => return None,
        })
    }
}

/// A piece of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// Characters.
    Text {
        /// Where they are in the file.
        text: Span,
        /// They want [`unescape`].
        escaped: bool,
        /// They count for the indentation.
        indents: bool,
    },
    /// `${`
    Interpolation,
    /// The closing quote.
    Close,
    /// The end of the whole text, too early.
    End,
}

/// A place in the text.
#[derive(Debug, Clone, Copy)]
pub struct Lexer<'a> {
    bytes: &'a [u8],
    offset: usize,
    /// No path begins before this, as was found out already; else a long row of names with dots would be looked over again for each.
    no_path: usize,
    /// Likewise for URIs.
    no_uri: usize,
    /// No comment ends from here on.
    no_comment: bool,
}

fn keyword(word: &[u8]) -> Token {
    match word {
        b"if" => Token::If,
        b"then" => Token::Then,
        b"else" => Token::Else,
        b"assert" => Token::Assert,
        b"with" => Token::With,
        b"let" => Token::Let,
        b"in" => Token::In,
        b"rec" => Token::Rec,
        b"inherit" => Token::Inherit,
        b"or" => Token::Or,
        _ => Token::Identifier,
    }
}

/// Undoes the escapes of a text: `\n`, `\r`, `\t`, and `\` before anything else; line ends become `\n`.
pub fn unescape(raw: &[u8], text: &mut Vec<u8>) {
    let mut bytes = raw.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => text.push(match bytes.next() {
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(other) => other,
                None => b'\\',
            }),
            b'\r' => {
                text.push(b'\n');
                bytes.next_if_eq(&b'\n');
            }
            _ => text.push(byte),
        }
    }
}

impl<'a> Lexer<'a> {
    /// Begins at the front of a text of less than 4 GiB.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0, no_path: 0, no_uri: 0, no_comment: false }
    }

    /// Where it is.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The bytes of a stretch.
    #[inline]
    pub fn slice(&self, span: Span) -> &'a [u8] {
        &self.bytes[span.start as usize..span.end as usize]
    }

    #[inline]
    fn span(&self, start: usize) -> Span {
        Span { start: start as u32, end: self.offset as u32 }
    }

    #[inline]
    fn at(&self, offset: usize) -> u8 {
        // A zero byte begins nothing and is part of nothing, as is the end.
        self.bytes.get(offset).copied().unwrap_or(0)
    }

    #[inline]
    fn skip_blanks(&mut self) {
        loop {
            match self.at(self.offset) {
                b' ' | b'\t' | b'\r' | b'\n' => self.offset += 1,
                b'#' => {
                    let line = &self.bytes[self.offset..];
                    self.offset += line.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(line.len());
                }
                b'/' if self.at(self.offset + 1) == b'*' && !self.no_comment => {
                    let comment = &self.bytes[self.offset + 2..];
                    match comment.windows(2).position(|pair| pair == b"*/") {
                        Some(length) => self.offset += length + 4,
                        None => self.no_comment = true,
                    }
                }
                _ => return,
            }
        }
    }

    /// The next byte that is no blank and not in a comment; 0 at the end.
    #[inline]
    pub fn peek(&self) -> u8 {
        let mut lexer = *self;
        lexer.skip_blanks();
        lexer.at(lexer.offset)
    }

    /// Whether what follows an opening brace is what a function wants, not the attributes of a set.
    pub fn formals_follow(&self) -> bool {
        let mut lexer = *self;
        lexer.skip_blanks();
        match lexer.at(lexer.offset) {
            b'.' => lexer.bytes[lexer.offset..].starts_with(b"..."),
            b'}' => {
                lexer.offset += 1;
                matches!(lexer.peek(), b':' | b'@')
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                let length = count(&lexer.bytes[lexer.offset..], is_identifier_part);
                let word = &lexer.bytes[lexer.offset..][..length];
                lexer.offset += length;
                // None of these continues a path or URI, nor does a blank.
                matches!(lexer.peek(), b',' | b'?' | b'}') && keyword(word) == Token::Identifier
            }
            _ => false,
        }
    }

    /// The next token outside of texts.
    #[inline]
    pub fn token(&mut self) -> (Token, Span) {
        self.skip_blanks();
        let start = self.offset;
        let (first, second) = (self.at(start), self.at(start + 1));
        let (token, length) = match first {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                let rest = &self.bytes[start..];
                let length = 1 + count(&rest[1..], is_identifier_part);
                // A path or URI would go on with one of these.
                match self.at(start + length) {
                    b'.' | b'/' | b'+' | b':' => self.contested(start),
                    _ => (keyword(&rest[..length]), length),
                }
            }
            b'0'..=b'9' | b'~' => self.contested(start),
            b'.' if second == b'.' || second == b'/' || second.is_ascii_digit() || start >= self.no_path => {
                self.contested(start)
            }
            b'.' => (Token::Dot, 1),
            b'/' | b'-' | b'+' if is_path_byte(second) || second == b'$' || second == b'/' => self.contested(start),
            b'/' => (Token::Slash, 1),
            b'-' if second == b'>' => (Token::Arrow, 2),
            b'-' => (Token::Minus, 1),
            b'+' => (Token::Plus, 1),
            b'<' => match second {
                b'=' => (Token::LessOrEqual, 2),
                b'|' => (Token::PipeLeft, 2),
                _ if is_path_byte(second) => self.contested(start),
                _ => (Token::Less, 1),
            },
            b'{' => (Token::BraceOpen, 1),
            b'}' => (Token::BraceClose, 1),
            b'(' => (Token::ParenthesisOpen, 1),
            b')' => (Token::ParenthesisClose, 1),
            b'[' => (Token::BracketOpen, 1),
            b']' => (Token::BracketClose, 1),
            b';' => (Token::Semicolon, 1),
            b':' => (Token::Colon, 1),
            b',' => (Token::Comma, 1),
            b'=' if second == b'=' => (Token::Equal, 2),
            b'=' => (Token::Assign, 1),
            b'>' if second == b'=' => (Token::GreaterOrEqual, 2),
            b'>' => (Token::Greater, 1),
            b'*' => (Token::Times, 1),
            b'!' if second == b'=' => (Token::NotEqual, 2),
            b'!' => (Token::Not, 1),
            b'?' => (Token::Question, 1),
            b'@' => (Token::At, 1),
            b'&' if second == b'&' => (Token::And, 2),
            b'|' if second == b'|' => (Token::Either, 2),
            b'|' if second == b'>' => (Token::PipeRight, 2),
            b'$' if second == b'{' => (Token::DollarBrace, 2),
            b'"' => (Token::Quote, 1),
            b'\'' if second == b'\'' => {
                let blank = count(&self.bytes[start + 2..], |byte| byte == b' ');
                let whole_line = self.at(start + 2 + blank) == b'\n';
                (Token::IndentedQuote, if whole_line { 3 + blank } else { 2 })
            }
            _ if start >= self.bytes.len() => (Token::End, 0),
            _ => (Token::Unknown(first), 1),
        };
        self.offset += length;
        (token, self.span(start))
    }

    /// The next piece of a text in double quotes.
    pub fn string_piece(&mut self) -> (Piece, Span) {
        let start = self.offset;
        let rest = &self.bytes[start..];
        let mut length = 0;
        let mut escaped = false;
        loop {
            length += count(&rest[length..], |byte| !matches!(byte, b'"' | b'$' | b'\\' | b'\r'));
            match rest[length..] {
                [] => break,
                [b'"', ..] if length == 0 => {
                    self.offset += 1;
                    return (Piece::Close, self.span(start));
                }
                [b'$', b'{', ..] if length == 0 => {
                    self.offset += 2;
                    return (Piece::Interpolation, self.span(start));
                }
                [b'"', ..] | [b'$', b'{', ..] => break,
                [b'\\', _, ..] => (escaped, length) = (true, length + 2),
                [b'$', b'\\', _, ..] => (escaped, length) = (true, length + 3),
                [b'$', b'"', ..] => length += 1,
                // A dollar takes the next sign along: `$${` is no interpolation.
                [b'$', next, ..] if next != b'\\' => (escaped, length) = (escaped | (next == b'\r'), length + 2),
                // A backslash or dollar before the end of everything.
                [b'\\' | b'$', ..] => break,
                _ => (escaped, length) = (true, length + 1),
            }
        }
        if length == 0 {
            self.offset = self.bytes.len();
            return (Piece::End, self.span(start));
        }
        self.offset += length;
        let text = self.span(start);
        (Piece::Text { text, escaped, indents: true }, text)
    }

    /// The next piece of an indented text.
    pub fn indented_piece(&mut self) -> (Piece, Span) {
        let start = self.offset;
        let rest = &self.bytes[start..];
        let mut length = 0;
        loop {
            length += count(&rest[length..], |byte| !matches!(byte, b'\'' | b'$'));
            match rest[length..] {
                [b'$', next, ..] if next != b'{' && next != b'\'' => length += 2,
                [b'\'', next, ..] if next != b'\'' && next != b'$' => length += 2,
                _ => break,
            }
        }
        // How long, and which part of it is meant.
        let (length, from, escaped, indents) = match (length, rest) {
            (1.., _) => (length, 0, false, true),
            (_, [b'\'', b'\'', b'$', ..]) => (3, 2, false, false),
            (_, [b'\'', b'\'', b'\'', ..]) => (3, 1, false, false),
            (_, [b'\'', b'\'', b'\\', _, ..]) => (4, 2, true, false),
            (_, [b'\'', b'\'', ..]) => {
                self.offset += 2;
                return (Piece::Close, self.span(start));
            }
            (_, [b'$', b'{', ..]) => {
                self.offset += 2;
                return (Piece::Interpolation, self.span(start));
            }
            (_, [b'$' | b'\'', ..]) => (1, 0, false, false),
            _ => return (Piece::End, self.span(start)),
        };
        self.offset += length;
        (Piece::Text { text: self.span(start + from), escaped, indents }, self.span(start))
    }

    /// What follows the beginning of a path, without a blank between: a piece, an interpolation, or the end of the path.
    pub fn path_piece(&mut self) -> (Piece, Span) {
        let start = self.offset;
        let rest = &self.bytes[start..];
        if rest.starts_with(b"${") {
            self.offset += 2;
            return (Piece::Interpolation, self.span(start));
        }
        let word = count(rest, is_path_byte);
        let segment = if rest.get(word) == Some(&b'/') { word + 1 } else { 0 };
        match rules::path_length(rest).max(segment).max(word) {
            0 => (Piece::Close, self.span(start)),
            length => {
                self.offset += length;
                let text = self.span(start);
                (Piece::Text { text, escaped: false, indents: true }, text)
            }
        }
    }
}
