//! What was probably meant where a text is no expression. A repaired text is as long as the one it was made from, so that
//! all places stay.

use crate::error::{Finding, Place};
use crate::report::syntax::{Opener, openers, walk};

/// Bytes that stand in for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    start: usize,
    bytes: Vec<u8>,
    /// What is not there any more.
    lost: Vec<u8>,
}

impl Repair {
    /// The text with it.
    pub fn applied(&self, text: &[u8]) -> Vec<u8> {
        let mut text = text.to_vec();
        let end = (self.start + self.bytes.len()).min(text.len());
        text[self.start..end].copy_from_slice(&self.bytes[..end - self.start]);
        text
    }

    /// Whether a finding may be there only because of it: a name that it took away.
    pub fn may_explain(&self, message: &str) -> bool {
        let Some(name) = message.split('\'').nth(1) else { return false };
        self.lost.windows(name.len().max(1)).any(|window| window == name.as_bytes())
    }
}

/// A repair for a mistake, if one is in sight.
pub fn of(finding: &Finding) -> Option<Repair> {
    let place = finding.place.as_ref().filter(|place| place.start < place.text.bytes.len())?;
    let text = &place.text.bytes;
    let Some(unexpected) = finding.message.strip_prefix("syntax error, unexpected ") else {
        return without_binding(place);
    };
    let (unexpected, expecting) = unexpected.split_once(", expecting ").unwrap_or((unexpected, ""));
    if unexpected == "end of file" || expecting == "end of file" {
        return None;
    }
    let inside = openers(&text[..place.start]).0.last().map(|opener| opener.sign);
    let small = match (unexpected, expecting) {
        ("','", _) if inside == Some("[") => replaced(place, b" "),
        ("','", _) if inside == Some("{") => replaced(place, b";"),
        ("':'", "'.' or '='") => replaced(place, b"="),
        ("'=='", "'.' or '='") => replaced(place, b"= "),
        ("'='", "'then'") if text.get(place.start + 1) == Some(&b' ') => replaced(place, b"=="),
        ("'='", expecting) if expecting.contains("';'") => semicolon_before(text, name_start(text, place.start)),
        (_, expecting) if expecting.contains("';'") => semicolon_before(text, place.start),
        _ => None,
    };
    small.or_else(|| without_binding(place))
}

fn replaced(place: &Place, bytes: &[u8]) -> Option<Repair> {
    Some(Repair { start: place.start, bytes: bytes.to_vec(), lost: Vec::new() })
}

/// A semicolon instead of the blank before an offset.
fn semicolon_before(text: &[u8], offset: usize) -> Option<Repair> {
    let start = offset.checked_sub(1)?;
    text[start].is_ascii_whitespace().then(|| Repair { start, bytes: b";".to_vec(), lost: Vec::new() })
}

/// Where the attribute path begins that ends at an offset.
fn name_start(text: &[u8], end: usize) -> usize {
    let before = text[..end].trim_ascii_end();
    let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || b"_'-.\"".contains(byte);
    before.len() - before.iter().rev().take_while(is_part).count()
}

/// Blanks instead of the attribute that a place is in.
fn without_binding(place: &Place) -> Option<Repair> {
    let text = &place.text.bytes;
    let offset = place.start;
    let mut separators = Vec::new();
    let (open, mismatch) = walk(&text[..offset], |at, open| {
        if text[at] == b';' {
            separators.push((at, open.len()));
        }
        true
    });
    if mismatch.is_some() {
        return None;
    }
    let depth = open.iter().rposition(|opener| matches!(opener.sign, "{" | "${")).map_or(0, |number| number + 1);
    let brace: Option<&Opener> = depth.checked_sub(1).map(|number| &open[number]);
    let inner = brace.map_or(0, |brace| brace.start + brace.sign.len());
    let separator = separators.iter().rev().find(|(at, open)| *open == depth && *at >= inner);
    let start = separator.map_or(inner, |(at, _)| at + 1);
    let start = start + after_let(&text[start..offset]);
    let mut end = None;
    walk(&text[offset..], |at, open| {
        // Brackets that were begun before and are not closed are forgotten.
        if open.is_empty() && matches!(text[offset + at], b';' | b'}') {
            end = Some(offset + at + usize::from(text[offset + at] == b';'));
        }
        end.is_none()
    });
    let end = end?;
    let lost = text[start..end].to_vec();
    let mut bytes: Vec<u8> = lost.iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }).collect();
    if brace.is_some_and(|brace| brace.sign == "${")
        && let Some(first) = bytes.first_mut()
    {
        // An interpolation wants an expression.
        *first = b'0';
    }
    // Nothing but blanks would be the same text again.
    (lost != bytes).then_some(Repair { start, bytes, lost })
}

/// The length of what ends in the last `let` of a stretch.
fn after_let(text: &[u8]) -> usize {
    let is_name = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || b"_'-".contains(byte));
    let found = text.windows(3).enumerate().rev().find(|(at, word)| {
        let before = at.checked_sub(1).and_then(|before| text.get(before));
        *word == b"let" && !is_name(before) && !is_name(text.get(at + 3))
    });
    found.map_or(0, |(at, _)| at + 3)
}
