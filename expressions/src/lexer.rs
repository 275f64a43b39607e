//! Cuts the text of an expression into tokens, straight from the bytes.
//!
//! As in Nix, the longest token wins: `a/b` is a path, `a:b` a URI, `a / b` a division. Texts and paths with
//! interpolations have their own rules; the parser asks for their pieces with [`Lexer::string_piece`] and its siblings.

use crate::ast::Span;

/// One token outside of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// Keywords.
    If,
    /// `then`
    Then,
    /// `else`
    Else,
    /// `assert`
    Assert,
    /// `with`
    With,
    /// `let`
    Let,
    /// `in`
    In,
    /// `rec`
    Rec,
    /// `inherit`
    Inherit,
    /// `or`
    Or,
    /// Anything made of signs.
    Sign(&'static str),
    /// A byte that begins nothing.
    Unknown(u8),
    /// The end of the text.
    End,
}

/// A piece of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Characters; whether they count for the indentation.
    Text(Vec<u8>, bool),
    /// `${`
    Interpolation,
    /// The closing quote.
    Close,
    /// The end of the whole text, too early.
    End,
}

/// Longest first, where one begins another.
const SIGNS: &[&str] = &[
    "...", "==", "!=", "<=", ">=", "&&", "||", "->", "//", "++", "<|", "|>", "${", "{", "}", "(", ")", "[", "]", ";",
    ":", ",", ".", "=", "<", ">", "+", "-", "*", "/", "!", "?", "@",
];

/// A place in the text.
#[derive(Debug, Clone, Copy)]
pub struct Lexer<'a> {
    bytes: &'a [u8],
    offset: usize,
}

fn is_identifier_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

fn is_identifier_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_'-".contains(&byte)
}

fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-+".contains(&byte)
}

fn is_uri_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"%/?:@&=+$,-_.!~*'".contains(&byte)
}

fn count(bytes: &[u8], test: impl Fn(u8) -> bool) -> usize {
    bytes.iter().take_while(|byte| test(**byte)).count()
}

/// The length of `(/SEGMENT)+/?`, or 0.
fn segments(bytes: &[u8]) -> usize {
    let mut length = 0;
    while bytes.get(length) == Some(&b'/') {
        let segment = count(&bytes[length + 1..], is_path_byte);
        if segment == 0 {
            // A slash at the end belongs to the path, if there is a path.
            return if length > 0 { length + 1 } else { 0 };
        }
        length += 1 + segment;
    }
    length
}

fn path_length(bytes: &[u8]) -> usize {
    let first = count(bytes, is_path_byte);
    match segments(&bytes[first..]) {
        0 => 0,
        rest => first + rest,
    }
}

/// The length of the part before an interpolation that follows a slash directly, as in `a/${b}`.
fn path_before_interpolation(bytes: &[u8]) -> usize {
    let first = count(bytes, is_path_byte);
    if bytes[first..].starts_with(b"/${") { first + 1 } else { 0 }
}

fn float_length(bytes: &[u8]) -> usize {
    let whole = count(bytes, |byte| byte.is_ascii_digit());
    if bytes.get(whole) != Some(&b'.') {
        return 0;
    }
    let fraction = count(&bytes[whole + 1..], |byte| byte.is_ascii_digit());
    let good = if whole > 0 && bytes[0] != b'0' { true } else { (whole == 0 || whole == 1) && fraction > 0 };
    if !good {
        return 0;
    }
    let mut length = whole + 1 + fraction;
    if matches!(bytes.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
        let digits = count(&bytes[(length + 1 + sign).min(bytes.len())..], |byte| byte.is_ascii_digit());
        if digits > 0 {
            length += 1 + sign + digits;
        }
    }
    length
}

fn uri_length(bytes: &[u8]) -> usize {
    if !bytes.first().is_some_and(u8::is_ascii_alphabetic) {
        return 0;
    }
    let scheme = count(bytes, |byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if bytes.get(scheme) != Some(&b':') {
        return 0;
    }
    match count(&bytes[scheme + 1..], is_uri_byte) {
        0 => 0,
        rest => scheme + 1 + rest,
    }
}

fn search_path_length(bytes: &[u8]) -> usize {
    let first = count(&bytes[1..], is_path_byte);
    if first == 0 {
        return 0;
    }
    let rest = segments(&bytes[1 + first..]);
    let end = 1 + first + rest;
    if bytes[end - 1] != b'/' && bytes.get(end) == Some(&b'>') { end + 1 } else { 0 }
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
pub fn unescape(raw: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(raw.len());
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
    text
}

impl<'a> Lexer<'a> {
    /// Begins at the front.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// Where it is.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Goes to another place.
    pub fn seek(&mut self, offset: usize) {
        self.offset = offset;
    }

    /// The bytes of a stretch.
    pub fn slice(&self, span: Span) -> &'a [u8] {
        &self.bytes[span.start as usize..span.end as usize]
    }

    fn span(&self, start: usize) -> Span {
        // Texts of more than 4 GiB are refused where they are read.
        Span { start: start as u32, end: self.offset as u32 }
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = &self.bytes[self.offset..];
            match rest {
                [b' ' | b'\t' | b'\r' | b'\n', ..] => self.offset += 1,
                [b'#', ..] => self.offset += count(rest, |byte| byte != b'\r' && byte != b'\n'),
                [b'/', b'*', comment @ ..] => match comment.windows(2).position(|pair| pair == b"*/") {
                    Some(length) => self.offset += length + 4,
                    None => return,
                },
                _ => return,
            }
        }
    }

    /// The next token outside of texts.
    pub fn token(&mut self) -> (Token, Span) {
        self.skip_blanks();
        let start = self.offset;
        let rest = &self.bytes[start..];
        let Some(&first) = rest.first() else { return (Token::End, self.span(start)) };
        let (mut token, mut length) = (Token::Unknown(first), 1);
        let mut offer = |candidate: Token, size: usize| {
            // The earlier rule wins among equally long ones.
            if size > length || size == length && matches!(token, Token::Unknown(_)) {
                (token, length) = (candidate, size);
            }
        };
        if is_identifier_start(first) {
            let size = count(rest, is_identifier_part);
            offer(keyword(&rest[..size]), size);
            offer(Token::Uri, uri_length(rest));
        }
        if first.is_ascii_digit() {
            offer(Token::Integer, count(rest, |byte| byte.is_ascii_digit()));
        }
        if first.is_ascii_digit() || first == b'.' {
            offer(Token::Float, float_length(rest));
        }
        if is_path_byte(first) || first == b'/' {
            offer(Token::Path, path_before_interpolation(rest));
            offer(Token::Path, path_length(rest));
        }
        if first == b'~' {
            let size = segments(&rest[1..]);
            offer(Token::HomePath, if size > 0 { size + 1 } else { 2 * usize::from(rest.starts_with(b"~/${")) });
        }
        if first == b'<' {
            offer(Token::SearchPath, search_path_length(rest));
        }
        if first == b'"' {
            offer(Token::Quote, 1);
        }
        if rest.starts_with(b"''") {
            let blank = count(&rest[2..], |byte| byte == b' ');
            let whole_line = rest.get(2 + blank) == Some(&b'\n');
            offer(Token::IndentedQuote, if whole_line { 3 + blank } else { 2 });
        }
        if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(sign.as_bytes())) {
            offer(Token::Sign(sign), sign.len());
        }
        self.offset += length;
        (token, self.span(start))
    }

    /// The next piece of a text in double quotes.
    pub fn string_piece(&mut self) -> (Piece, Span) {
        let start = self.offset;
        let rest = &self.bytes[start..];
        let mut length = 0;
        loop {
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
                [b'\\', _, ..] => length += 2,
                [b'$', b'\\', _, ..] => length += 3,
                [b'$', b'"', ..] => length += 1,
                // A dollar takes the next sign along: `$${` is no interpolation.
                [b'$', next, ..] if next != b'\\' => length += 2,
                // A backslash or dollar before the end of everything.
                [b'\\' | b'$', ..] => break,
                _ => length += 1,
            }
        }
        if length == 0 {
            self.offset = self.bytes.len();
            return (Piece::End, self.span(start));
        }
        self.offset += length;
        (Piece::Text(unescape(&rest[..length]), true), self.span(start))
    }

    /// The next piece of an indented text.
    pub fn indented_piece(&mut self) -> (Piece, Span) {
        let start = self.offset;
        let rest = &self.bytes[start..];
        let mut length = 0;
        loop {
            match rest[length..] {
                [b'$', next, ..] if next != b'{' && next != b'\'' => length += 2,
                [b'\'', next, ..] if next != b'\'' && next != b'$' => length += 2,
                [] | [b'$' | b'\'', ..] => break,
                _ => length += 1,
            }
        }
        let (piece, length) = match (length, rest) {
            (1.., _) => (Piece::Text(rest[..length].to_vec(), true), length),
            (_, [b'\'', b'\'', b'$', ..]) => (Piece::Text(b"$".to_vec(), false), 3),
            (_, [b'\'', b'\'', b'\'', ..]) => (Piece::Text(b"''".to_vec(), false), 3),
            (_, [b'\'', b'\'', b'\\', _, ..]) => (Piece::Text(unescape(&rest[2..4]), false), 4),
            (_, [b'\'', b'\'', ..]) => (Piece::Close, 2),
            (_, [b'$', b'{', ..]) => (Piece::Interpolation, 2),
            (_, [sign @ (b'$' | b'\''), ..]) => (Piece::Text(vec![*sign], false), 1),
            _ => (Piece::End, 0),
        };
        self.offset += length;
        (piece, self.span(start))
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
        match path_length(rest).max(segment).max(word) {
            0 => (Piece::Close, self.span(start)),
            length => {
                self.offset += length;
                (Piece::Text(rest[..length].to_vec(), true), self.span(start))
            }
        }
    }
}
