//! What a mistake of syntax probably is: which bracket was not closed, which sign was meant.

use crate::error::{Finding, Place};

/// A bracket or quote that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opener {
    /// Where.
    pub start: usize,
    /// Which.
    pub sign: &'static str,
}

impl Opener {
    fn closer(self) -> &'static str {
        match self.sign {
            "(" => ")",
            "[" => "]",
            "\"" => "\"",
            "''" => "''",
            _ => "}",
        }
    }
}

/// A finding of the parser with a place and a hint for people: what is not closed is shown where it was opened.
pub fn explained(mut finding: Finding) -> Finding {
    let Some(place) = finding.place.clone().filter(|place| place.start <= place.text.bytes.len()) else {
        return finding;
    };
    let Some(unexpected) = finding.message.strip_prefix("syntax error, unexpected ") else { return finding };
    let (unexpected, expecting) = unexpected.split_once(", expecting ").unwrap_or((unexpected, ""));
    let bytes = &place.text.bytes;
    let (open, mismatch) = openers(&bytes[..place.start.min(bytes.len())]);
    let inner = mismatch.or(open.last().copied());
    if unexpected == "end of file" {
        if let Some(opener) = inner {
            finding.message = format!("{}: this `{}` is not closed", finding.message, opener.sign);
            finding.place = Some(Place { start: opener.start, end: opener.start + opener.sign.len(), ..place });
            finding.hint = finding.hint.or_else(|| Some(format!("a `{}` is missing", opener.closer())));
        }
        return finding;
    }
    if finding.hint.is_none() {
        finding.hint = hint(unexpected, expecting, &place, inner);
    }
    finding
}

fn hint(unexpected: &str, expecting: &str, place: &Place, inner: Option<Opener>) -> Option<String> {
    let here = |opener: Opener| {
        let (line, column) = Place { start: opener.start, ..place.clone() }.line_and_column();
        format!("the `{}` of line {line}, column {column} is not closed before this", opener.sign)
    };
    let inside = inner.map(|opener| opener.sign);
    Some(match (unexpected, expecting) {
        ("','", _) if inside == Some("[") => "the items of a list have blanks between them, not commas".to_owned(),
        ("','", _) if inside == Some("{") => "each attribute ends in `;`, not in a comma".to_owned(),
        ("':'", "'.' or '='") => "an attribute is written `name = value;`".to_owned(),
        ("'=='", "'.' or '='") => "an attribute is defined with a single `=`; `==` compares".to_owned(),
        ("'='", "'then'") => "`==` compares".to_owned(),
        ("'='", expecting) if expecting.contains("';'") && assigns(place) => {
            let (line, what) = before_assignment(place);
            format!("the attribute before it wants a `;` at its end: {what} in line {line}")
        }
        ("'='", _) if matches!(inside, Some("(" | "[")) => {
            "a definition stands in a set: `{ name = value; }`; `==` compares".to_owned()
        }
        (_, "'.' or '='") if is_in_let(place) => "a `let` ends in `in`, which is missing before this".to_owned(),
        (_, "'else'") => "every `if … then …` has an `else`".to_owned(),
        ("';'" | "')'" | "']'" | "'}'" | "'in'", _) if inner.is_some_and(|opener| closes_other(unexpected, opener)) => {
            here(inner?)
        }
        ("'}'", expecting) if expecting.contains("';'") => "the last attribute wants a `;`, too".to_owned(),
        ("'in'", expecting) if expecting.contains("';'") => "the last definition wants a `;`, too".to_owned(),
        _ => return None,
    })
}

/// Whether a sign ends something around an opener rather than what it opened.
fn closes_other(unexpected: &str, opener: Opener) -> bool {
    let sign = unexpected.trim_matches('\'');
    match sign {
        ";" | "in" => matches!(opener.sign, "(" | "["),
        _ => sign != opener.closer(),
    }
}

/// Whether `name =` stands at a place, which is that of the sign.
fn assigns(place: &Place) -> bool {
    let before = place.text.bytes[..place.start].trim_ascii_end();
    before.last().is_some_and(|byte| byte.is_ascii_alphanumeric() || b"_'-\"".contains(byte))
}

/// The end of what precedes `name =`: its line, and the word there.
fn before_assignment(place: &Place) -> (usize, String) {
    let bytes = &place.text.bytes[..place.start];
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_'-.\"".contains(byte);
    let bytes = bytes.trim_ascii_end();
    let bytes = bytes[..bytes.len() - bytes.iter().rev().take_while(|byte| is_name(byte)).count()].trim_ascii_end();
    let line = Place { start: bytes.len().saturating_sub(1), ..place.clone() }.line_and_column().0;
    let word = bytes.len() - bytes.iter().rev().take_while(|byte| !byte.is_ascii_whitespace()).count();
    (line, format!("after `{}`", String::from_utf8_lossy(&bytes[word..])))
}

/// Whether the innermost thing that was begun before a place, and is not ended by a bracket, is a `let`.
fn is_in_let(place: &Place) -> bool {
    let bytes = &place.text.bytes[..place.start];
    let start = openers(bytes).0.last().map_or(0, |opener| opener.start);
    let mut depth = 0_i32;
    for word in bytes[start..].split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_') {
        match word {
            b"let" => depth += 1,
            b"in" => depth -= 1,
            _ => {}
        }
    }
    depth > 0
}

/// What is open at the end of a beginning; and what a bracket of another kind should have closed, if there was one.
pub fn openers(bytes: &[u8]) -> (Vec<Opener>, Option<Opener>) {
    walk(bytes, |_, _| true)
}

/// The same; is asked at each `;` and closing bracket, which is not closed yet, whether to go on.
pub fn walk(bytes: &[u8], mut go_on: impl FnMut(usize, &[Opener]) -> bool) -> (Vec<Opener>, Option<Opener>) {
    let mut open: Vec<Opener> = Vec::new();
    let mut offset = 0;
    while let Some(first) = bytes.get(offset) {
        let rest = &bytes[offset..];
        let sign = open.last().map_or("", |opener| opener.sign);
        let begins = match (sign, first) {
            ("\"" | "''", _) if rest.starts_with(b"${") => "${",
            ("\"", b'"') => {
                open.pop();
                offset += 1;
                continue;
            }
            ("\"", b'\\' | b'$') => {
                offset += 2;
                continue;
            }
            ("''", _) if rest.starts_with(b"''") => {
                offset += match rest.get(2) {
                    Some(b'$' | b'\'') => 3,
                    Some(b'\\') => 4,
                    _ => {
                        open.pop();
                        2
                    }
                };
                continue;
            }
            ("''", b'$') if rest.starts_with(b"$$") => {
                offset += 2;
                continue;
            }
            ("\"" | "''", _) => "",
            (_, b'#') => {
                offset += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
                continue;
            }
            _ if rest.starts_with(b"/*") => {
                let end = rest.windows(2).skip(2).position(|pair| pair == b"*/");
                offset += end.map_or(rest.len(), |length| length + 4);
                continue;
            }
            _ if rest.starts_with(b"''") => "''",
            _ if rest.starts_with(b"${") => "${",
            (_, b'"') => "\"",
            (_, b'{') => "{",
            (_, b'(') => "(",
            (_, b'[') => "[",
            (_, b';' | b'}' | b')' | b']') if !go_on(offset, &open) => break,
            (_, b'}' | b')' | b']') => {
                match open.pop() {
                    Some(opener) if opener.closer().as_bytes() != &rest[..1] => return (open, Some(opener)),
                    _ => offset += 1,
                }
                continue;
            }
            // A prime in a name begins no text.
            (_, byte) if byte.is_ascii_alphabetic() || *byte == b'_' => {
                let is_name = |byte: &&u8| byte.is_ascii_alphanumeric() || b"_'-".contains(byte);
                offset += rest.iter().take_while(is_name).count();
                continue;
            }
            _ => "",
        };
        if !begins.is_empty() {
            open.push(Opener { start: offset, sign: begins });
        }
        offset += begins.len().max(1);
    }
    (open, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(text: &str) -> Vec<&'static str> {
        openers(text.as_bytes()).0.into_iter().map(|opener| opener.sign).collect()
    }

    #[test]
    fn brackets_in_texts_and_comments_do_not_count() {
        let text = "{ a = \"{\"; # (\n b = '' ( ''' ''${ $${ ''; /* [ */ c = [ f' (x";
        assert_eq!(open(text), ["{", "[", "("]);
        assert_eq!(open("\"a ${ b { c \"d"), ["\"", "${", "{", "\""]);
        assert_eq!(open("'' ${x} '' + '' \""), ["''"]);
        assert_eq!(open("\"\\\" \\${ $"), ["\""]);
        assert_eq!(open(") } ] \"\" ''''"), Vec::<&str>::new());
        assert_eq!(openers(b"{ [ }").1, Some(Opener { start: 2, sign: "[" }));
    }
}
