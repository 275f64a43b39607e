//! The rules that compete for the same bytes: names, numbers, paths and URIs. The longest wins, of equally long ones the first.

use super::{Lexer, Token, keyword};

/// What a byte may be part of.
const IDENTIFIER: u8 = 1;
const PATH: u8 = 2;
const URI: u8 = 4;
const SCHEME: u8 = 8;

static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let letter = (byte as u8).is_ascii_alphanumeric();
        classes[byte] = if letter { IDENTIFIER | PATH | URI | SCHEME } else { 0 };
        byte += 1;
    }
    let sets: [(&[u8], u8); 4] = [(b"_'-", IDENTIFIER), (b"._-+", PATH), (b"%/?:@&=+$,-_.!~*'", URI), (b"+-.", SCHEME)];
    let mut set = 0;
    while set < sets.len() {
        let mut number = 0;
        while number < sets[set].0.len() {
            classes[sets[set].0[number] as usize] |= sets[set].1;
            number += 1;
        }
        set += 1;
    }
    classes
};

#[inline]
fn is(byte: u8, class: u8) -> bool {
    CLASSES[byte as usize] & class != 0
}

#[inline]
pub(super) fn is_identifier_part(byte: u8) -> bool {
    is(byte, IDENTIFIER)
}

#[inline]
pub(super) fn is_path_byte(byte: u8) -> bool {
    is(byte, PATH)
}

#[inline]
pub(super) fn count(bytes: &[u8], test: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|byte| !test(*byte)).unwrap_or(bytes.len())
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

pub(super) fn path_length(bytes: &[u8]) -> usize {
    let first = count(bytes, is_path_byte);
    match segments(&bytes[first..]) {
        0 => 0,
        rest => first + rest,
    }
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

fn search_path_length(bytes: &[u8]) -> usize {
    let first = count(&bytes[1..], is_path_byte);
    if first == 0 {
        return 0;
    }
    let rest = segments(&bytes[1 + first..]);
    let end = 1 + first + rest;
    if bytes[end - 1] != b'/' && bytes.get(end) == Some(&b'>') { end + 1 } else { 0 }
}

impl Lexer<'_> {
    /// A path that begins here. A run of bytes that ends in none is none from any byte of it.
    fn path(&mut self, start: usize) -> usize {
        if start < self.no_path {
            return 0;
        }
        let rest = &self.bytes[start..];
        let first = count(rest, is_path_byte);
        match segments(&rest[first..]) {
            // An interpolation follows the slash directly, as in `a/${b}`.
            0 if rest[first..].starts_with(b"/${") => first + 1,
            0 => {
                self.no_path = start + first;
                0
            }
            length => first + length,
        }
    }

    fn uri(&mut self, start: usize) -> usize {
        if start < self.no_uri {
            return 0;
        }
        let rest = &self.bytes[start..];
        let scheme = count(rest, |byte| is(byte, SCHEME));
        if rest.get(scheme) == Some(&b':') {
            let length = count(&rest[scheme + 1..], |byte| is(byte, URI));
            if length > 0 {
                return scheme + 1 + length;
            }
        }
        self.no_uri = start + scheme;
        0
    }

    /// The token that begins here, and its length: by all rules.
    #[inline(never)]
    pub(super) fn contested(&mut self, start: usize) -> (Token, usize) {
        let bytes = self.bytes;
        let rest = &bytes[start..];
        let first = rest[0];
        let (mut token, mut length) = (Token::Unknown(first), 1);
        let mut offer = |candidate: Token, size: usize| {
            if size > length || size == length && matches!(token, Token::Unknown(_)) {
                (token, length) = (candidate, size);
            }
        };
        if first.is_ascii_alphabetic() || first == b'_' {
            let size = count(rest, is_identifier_part);
            offer(keyword(&rest[..size]), size);
        }
        if first.is_ascii_alphabetic() {
            offer(Token::Uri, self.uri(start));
        }
        if first.is_ascii_digit() {
            offer(Token::Integer, count(rest, |byte| byte.is_ascii_digit()));
        }
        if first.is_ascii_digit() || first == b'.' {
            offer(Token::Float, float_length(rest));
        }
        if is_path_byte(first) || first == b'/' {
            offer(Token::Path, self.path(start));
        }
        if first == b'~' {
            let size = segments(&rest[1..]);
            offer(Token::HomePath, if size > 0 { size + 1 } else { 2 * usize::from(rest.starts_with(b"~/${")) });
        }
        if first == b'<' {
            offer(Token::SearchPath, search_path_length(rest));
        }
        let (sign, size) = match rest {
            [b'.', b'.', b'.', ..] => (Token::Ellipsis, 3),
            [b'/', b'/', ..] => (Token::Update, 2),
            [b'+', b'+', ..] => (Token::Append, 2),
            [b'.', ..] => (Token::Dot, 1),
            [b'/', ..] => (Token::Slash, 1),
            [b'+', ..] => (Token::Plus, 1),
            [b'-', ..] => (Token::Minus, 1),
            [b'<', ..] => (Token::Less, 1),
            _ => (Token::Unknown(first), 0),
        };
        offer(sign, size);
        (token, length)
    }
}
