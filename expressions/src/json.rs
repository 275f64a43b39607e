//! JSON as `builtins.fromJSON` reads and `builtins.toJSON` writes it.
//!
//! Reading gives one [`Event`] at a time and keeps its own stack, so that depth costs memory and nothing else. Messages are
//! those of the C++ library that Nix uses, with what was read since the last string or number began.

mod write;

use std::borrow::Cow;

pub use write::{JsonWriteError, float_onto, string_onto};

/// Why a text is not JSON that Nix has a value for. The words are Nix's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON.
    #[error("[json.exception.parse_error.101] parse error at line {line}, column {column}: {message}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// Bytes of the line that were read.
        column: usize,
        /// What was expected, and what was there.
        message: String,
    },
    /// A number beyond the largest float.
    #[error("[json.exception.out_of_range.406] number overflow parsing '{number}'")]
    Overflow {
        /// As it is written.
        number: String,
    },
    /// A number between the largest integer of the language and the largest of 64 bits; still larger ones become floats.
    #[error("unsigned json number {number} outside of Nix integer range")]
    Unsigned {
        /// The number.
        number: u64,
    },
    /// A string with a null byte.
    #[error("input string '{string}' cannot be represented as Nix string because it contains null bytes")]
    NullByte {
        /// The string, with a picture in place of every null byte.
        string: String,
    },
}

/// What comes next in a text. Keys of an object come one before each value; of equal keys the last counts.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Boolean(bool),
    /// A number without fraction and exponent.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// A string, decoded.
    String(Cow<'a, [u8]>),
    /// The name of the value that follows.
    Key(Cow<'a, [u8]>),
    /// `[`
    StartArray,
    /// `]`
    EndArray,
    /// `{`
    StartObject,
    /// `}`
    EndObject,
}

/// A text that is being read.
#[derive(Debug)]
pub struct JsonReader<'a> {
    text: &'a [u8],
    /// Where the next token begins.
    offset: usize,
    /// Where the last string or number began: messages quote from there.
    quote: usize,
    /// What is open: an object, or else an array.
    open: Vec<bool>,
    expects: Expects,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    Value,
    /// A value or `]`.
    First,
    /// A key or `}`.
    FirstKey,
    /// `,` or what closes, or the end of the text.
    Separator,
    Nothing,
}

#[derive(Debug, Clone, PartialEq)]
enum Token<'a> {
    Null,
    Boolean(bool),
    Integer(i64),
    Unsigned(u64),
    Float(f64),
    String(Cow<'a, [u8]>),
    Mark(u8),
    End,
}

impl Token<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Null => "null literal",
            Self::Boolean(true) => "true literal",
            Self::Boolean(false) => "false literal",
            Self::Integer(_) | Self::Unsigned(_) | Self::Float(_) => "number literal",
            Self::String(_) => "string literal",
            Self::Mark(b'[') => "'['",
            Self::Mark(b']') => "']'",
            Self::Mark(b'{') => "'{'",
            Self::Mark(b'}') => "'}'",
            Self::Mark(b':') => "':'",
            Self::Mark(_) => "','",
            Self::End => "end of input",
        }
    }
}

/// A token that is none: what is wrong, and one past the last byte that was looked at.
struct BadToken {
    message: &'static str,
    detail: Option<String>,
    end: usize,
}

const ANY_VALUE: &str = "'[', '{', or a literal";

impl<'a> JsonReader<'a> {
    /// Begins to read.
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, offset: 0, quote: 0, open: Vec::new(), expects: Expects::Value }
    }

    /// What comes next; nothing at the end of the text.
    pub fn next_event(&mut self) -> Result<Option<Event<'a>>, JsonError> {
        if self.offset == 0 && self.expects == Expects::Value && self.open.is_empty() {
            self.begin()?;
        }
        if self.expects == Expects::Nothing {
            return Ok(None);
        }
        if self.expects == Expects::Separator {
            let Some(is_object) = self.open.last().copied() else {
                let token = self.token("value", Some("end of input"))?;
                return match token {
                    Token::End => {
                        self.expects = Expects::Nothing;
                        Ok(None)
                    }
                    token => Err(self.unexpected(&token, "value", "end of input")),
                };
            };
            let (context, close) = if is_object { ("object", "'}'") } else { ("array", "']'") };
            match self.token(context, Some(close))? {
                Token::Mark(b',') if is_object => {
                    let token = self.token("object key", Some("string literal"))?;
                    return self.key(token).map(Some);
                }
                Token::Mark(b',') => self.expects = Expects::Value,
                Token::Mark(b'}') if is_object => return Ok(Some(self.close(Event::EndObject))),
                Token::Mark(b']') if !is_object => return Ok(Some(self.close(Event::EndArray))),
                token => return Err(self.unexpected(&token, context, close)),
            }
        }
        if self.expects == Expects::FirstKey {
            return match self.token("object key", Some("string literal"))? {
                Token::Mark(b'}') => Ok(Some(self.close(Event::EndObject))),
                token => self.key(token).map(Some),
            };
        }
        let may_close = self.expects == Expects::First;
        self.expects = Expects::Separator;
        match self.token("value", None)? {
            Token::Null => Ok(Some(Event::Null)),
            Token::Boolean(boolean) => Ok(Some(Event::Boolean(boolean))),
            Token::Integer(integer) => Ok(Some(Event::Integer(integer))),
            Token::Unsigned(number) => match i64::try_from(number) {
                Ok(integer) => Ok(Some(Event::Integer(integer))),
                Err(_) => Err(JsonError::Unsigned { number }),
            },
            Token::Float(float) if float.is_finite() => Ok(Some(Event::Float(float))),
            Token::Float(_) => {
                let number = String::from_utf8_lossy(&self.text[self.quote..self.offset]).into_owned();
                Err(JsonError::Overflow { number })
            }
            Token::String(string) => without_null_byte(string).map(|string| Some(Event::String(string))),
            Token::Mark(b'[') => {
                self.open.push(false);
                self.expects = Expects::First;
                Ok(Some(Event::StartArray))
            }
            Token::Mark(b'{') => {
                self.open.push(true);
                self.expects = Expects::FirstKey;
                Ok(Some(Event::StartObject))
            }
            Token::Mark(b']') if may_close => Ok(Some(self.close(Event::EndArray))),
            token => Err(self.unexpected(&token, "value", ANY_VALUE)),
        }
    }

    /// Skips a byte order mark.
    fn begin(&mut self) -> Result<(), JsonError> {
        const MARK: &[u8] = b"\xef\xbb\xbf";
        if self.text.is_empty() {
            let message =
                "attempting to parse an empty input; check that your input string or stream contains the expected JSON";
            return Err(JsonError::Syntax { line: 1, column: 1, message: message.into() });
        }
        if self.text.starts_with(MARK) {
            self.offset = MARK.len();
        } else if self.text[0] == MARK[0] {
            let same = self.text.iter().zip(MARK).take_while(|(found, mark)| found == mark).count();
            let message = "invalid BOM; must be 0xEF 0xBB 0xBF if given";
            return Err(self.bad(BadToken { message, detail: None, end: same + 1 }, "value", None));
        }
        Ok(())
    }

    fn close(&mut self, event: Event<'a>) -> Event<'a> {
        self.open.pop();
        self.expects = Expects::Separator;
        event
    }

    fn key(&mut self, token: Token<'a>) -> Result<Event<'a>, JsonError> {
        let Token::String(key) = token else { return Err(self.unexpected(&token, "object key", "string literal")) };
        let key = without_null_byte(key)?;
        match self.token("object separator", Some("':'"))? {
            Token::Mark(b':') => {
                self.expects = Expects::Value;
                Ok(Event::Key(key))
            }
            token => Err(self.unexpected(&token, "object separator", "':'")),
        }
    }

    /// Line and column when the bytes before `end` were read. The end of the text counts as one more.
    fn place(&self, end: usize) -> (usize, usize) {
        let read = &self.text[..end.min(self.text.len())];
        let line = read.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = read.iter().rev().take_while(|byte| **byte != b'\n').count() + end - read.len();
        (line, column)
    }

    fn unexpected(&self, token: &Token<'_>, context: &str, expected: &str) -> JsonError {
        let message =
            format!("syntax error while parsing {context} - unexpected {}; expected {expected}", token.name());
        let end = self.offset + usize::from(*token == Token::End);
        let (line, column) = self.place(end);
        JsonError::Syntax { line, column, message }
    }

    fn bad(&self, bad: BadToken, context: &str, expected: Option<&str>) -> JsonError {
        let mut quoted = Vec::new();
        for byte in &self.text[self.quote..bad.end.min(self.text.len())] {
            match byte {
                0..=0x1f => quoted.extend_from_slice(format!("<U+{byte:04X}>").as_bytes()),
                _ => quoted.push(*byte),
            }
        }
        let detail = bad.detail.as_deref().unwrap_or_default();
        let mut message = format!("syntax error while parsing {context} - {}{detail}; last read: '", bad.message);
        message.push_str(&String::from_utf8_lossy(&quoted));
        message.push('\'');
        if let Some(expected) = expected {
            message.push_str("; expected ");
            message.push_str(expected);
        }
        let (line, column) = self.place(bad.end);
        JsonError::Syntax { line, column, message }
    }

    fn token(&mut self, context: &str, expected: Option<&str>) -> Result<Token<'a>, JsonError> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.text.get(self.offset) {
            self.offset += 1;
        }
        let token = match self.text.get(self.offset) {
            None | Some(0) => Ok(Token::End),
            Some(mark @ (b'[' | b']' | b'{' | b'}' | b':' | b',')) => {
                self.offset += 1;
                Ok(Token::Mark(*mark))
            }
            Some(b't') => self.literal(b"true", Token::Boolean(true)),
            Some(b'f') => self.literal(b"false", Token::Boolean(false)),
            Some(b'n') => self.literal(b"null", Token::Null),
            Some(b'"') => self.string().map(Token::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) => Err(BadToken { message: "invalid literal", detail: None, end: self.offset + 1 }),
        };
        token.map_err(|bad| self.bad(bad, context, expected))
    }

    fn literal(&mut self, word: &[u8], token: Token<'a>) -> Result<Token<'a>, BadToken> {
        let found = &self.text[self.offset..];
        let same = found.iter().zip(word).take_while(|(found, word)| found == word).count();
        if same < word.len() {
            return Err(BadToken { message: "invalid literal", detail: None, end: self.offset + same + 1 });
        }
        self.offset += same;
        Ok(token)
    }

    fn number(&mut self) -> Result<Token<'a>, BadToken> {
        self.quote = self.offset;
        let text = self.text;
        let mut at = self.offset;
        let digits = |at: &mut usize, message: &'static str| {
            let start = *at;
            while text.get(*at).is_some_and(u8::is_ascii_digit) {
                *at += 1;
            }
            if *at == start { Err(BadToken { message, detail: None, end: start + 1 }) } else { Ok(()) }
        };
        let is_negative = text[at] == b'-';
        at += usize::from(is_negative);
        if text.get(at) == Some(&b'0') {
            at += 1;
        } else {
            digits(&mut at, "invalid number; expected digit after '-'")?;
        }
        let mut is_integer = true;
        if text.get(at) == Some(&b'.') {
            is_integer = false;
            at += 1;
            digits(&mut at, "invalid number; expected digit after '.'")?;
        }
        if let Some(b'e' | b'E') = text.get(at) {
            is_integer = false;
            at += 1;
            if let Some(b'+' | b'-') = text.get(at) {
                at += 1;
                digits(&mut at, "invalid number; expected digit after exponent sign")?;
            } else {
                digits(&mut at, "invalid number; expected '+', '-', or digit after exponent")?;
            }
        }
        self.offset = at;
        let number = str::from_utf8(&text[self.quote..at]).unwrap_or_default();
        let integer = match is_negative {
            _ if !is_integer => None,
            true => number.parse().ok().map(Token::Integer),
            false => number.parse().ok().map(Token::Unsigned),
        };
        // Digits, a point and an exponent are always a float.
        Ok(integer.unwrap_or_else(|| Token::Float(number.parse().unwrap_or(f64::NAN))))
    }

    fn string(&mut self) -> Result<Cow<'a, [u8]>, BadToken> {
        self.quote = self.offset;
        let text = self.text;
        let start = self.offset + 1;
        let mut at = start;
        let mut decoded: Option<Vec<u8>> = None;
        // What was copied so far, or need not be.
        let mut copied = start;
        let bad = |message: &'static str, end: usize| Err(BadToken { message, detail: None, end });
        loop {
            let Some(byte) = text.get(at) else { return bad("invalid string: missing closing quote", at + 1) };
            match byte {
                b'"' => {
                    self.offset = at + 1;
                    return Ok(match decoded {
                        None => Cow::Borrowed(&text[start..at]),
                        Some(mut decoded) => {
                            decoded.extend_from_slice(&text[copied..at]);
                            Cow::Owned(decoded)
                        }
                    });
                }
                b'\\' => {
                    let decoded = decoded.get_or_insert_default();
                    decoded.extend_from_slice(&text[copied..at]);
                    at = self.escape(at + 1, decoded)?;
                    copied = at;
                }
                0..=0x1f => {
                    let escape = match byte {
                        8 => " or \\b",
                        9 => " or \\t",
                        10 => " or \\n",
                        12 => " or \\f",
                        13 => " or \\r",
                        _ => "",
                    };
                    let name = CONTROLS[usize::from(*byte)];
                    let detail = format!(" U+{byte:04X} ({name}) must be escaped to \\u{byte:04X}{escape}");
                    let message = "invalid string: control character";
                    return Err(BadToken { message, detail: Some(detail), end: at + 1 });
                }
                0x20..=0x7f => at += 1,
                _ => {
                    let following: &[(u8, u8)] = match byte {
                        0xc2..=0xdf => &[(0x80, 0xbf)],
                        0xe0 => &[(0xa0, 0xbf), (0x80, 0xbf)],
                        0xed => &[(0x80, 0x9f), (0x80, 0xbf)],
                        0xe1..=0xef => &[(0x80, 0xbf), (0x80, 0xbf)],
                        0xf0 => &[(0x90, 0xbf), (0x80, 0xbf), (0x80, 0xbf)],
                        0xf1..=0xf3 => &[(0x80, 0xbf), (0x80, 0xbf), (0x80, 0xbf)],
                        0xf4 => &[(0x80, 0x8f), (0x80, 0xbf), (0x80, 0xbf)],
                        _ => return bad("invalid string: ill-formed UTF-8 byte", at + 1),
                    };
                    at += 1;
                    for (low, high) in following {
                        if !text.get(at).is_some_and(|byte| (low..=high).contains(&byte)) {
                            return bad("invalid string: ill-formed UTF-8 byte", at + 1);
                        }
                        at += 1;
                    }
                }
            }
        }
    }

    /// Decodes what follows a backslash; gives where the string goes on.
    fn escape(&self, at: usize, decoded: &mut Vec<u8>) -> Result<usize, BadToken> {
        const UNPAIRED: &str = "invalid string: surrogate U+D800..U+DBFF must be followed by U+DC00..U+DFFF";
        let bad = |message: &'static str, end: usize| Err(BadToken { message, detail: None, end });
        let byte = match self.text.get(at) {
            Some(byte @ (b'"' | b'\\' | b'/')) => *byte,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                let mut point = self.hexadecimal(at + 1)?;
                let mut end = at + 5;
                if (0xd800..0xdc00).contains(&point) {
                    for (offset, mark) in [b'\\', b'u'].iter().enumerate() {
                        if self.text.get(end + offset) != Some(mark) {
                            return bad(UNPAIRED, end + offset + 1);
                        }
                    }
                    let low = self.hexadecimal(end + 2)?;
                    end += 6;
                    if !(0xdc00..0xe000).contains(&low) {
                        return bad(UNPAIRED, end);
                    }
                    point = 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00);
                }
                let Some(character) = char::from_u32(point) else {
                    return bad("invalid string: surrogate U+DC00..U+DFFF must follow U+D800..U+DBFF", end);
                };
                decoded.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(end);
            }
            _ => return bad("invalid string: forbidden character after backslash", at + 1),
        };
        decoded.push(byte);
        Ok(at + 1)
    }

    fn hexadecimal(&self, at: usize) -> Result<u32, BadToken> {
        let mut point = 0;
        for at in at..at + 4 {
            let digit = self.text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
            let message = "invalid string: '\\u' must be followed by 4 hex digits";
            point = point * 16 + digit.ok_or(BadToken { message, detail: None, end: at + 1 })?;
        }
        Ok(point)
    }
}

/// Names of the control characters.
const CONTROLS: [&str; 32] = [
    "NUL", "SOH", "STX", "ETX", "EOT", "ENQ", "ACK", "BEL", "BS", "HT", "LF", "VT", "FF", "CR", "SO", "SI", "DLE",
    "DC1", "DC2", "DC3", "DC4", "NAK", "SYN", "ETB", "CAN", "EM", "SUB", "ESC", "FS", "GS", "RS", "US",
];

fn without_null_byte(string: Cow<'_, [u8]>) -> Result<Cow<'_, [u8]>, JsonError> {
    if string.contains(&0) {
        let string = String::from_utf8_lossy(&string).replace('\0', "␀");
        return Err(JsonError::NullByte { string });
    }
    Ok(string)
}

#[cfg(test)]
mod tests;
