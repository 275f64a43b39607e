//! Addresses as flake references write them: taken apart, put together, and refused where Nix refuses them.

use std::collections::BTreeMap;

/// An address in its parts; percent signs are read, and written anew.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Url {
    /// As it was written.
    pub scheme: String,
    /// What follows two slashes: `user@host:port`. None if there are no slashes.
    pub authority: Option<String>,
    /// Between slashes; one that begins with a slash has an empty first segment.
    pub path: Vec<Vec<u8>>,
    /// `?name=value&…`; of several with one name the first counts.
    pub query: BTreeMap<String, String>,
    /// `#…`
    pub fragment: String,
}

/// Why a text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoUrl {
    /// It does not look like one.
    Form,
    /// It does, but for this query.
    Query,
}

impl Url {
    /// Reads an address as people write it.
    pub fn parse_lenient(text: &str) -> Result<Self, NoUrl> {
        let (before, query) = text.split('#').next().unwrap_or_default().split_once('?').unwrap_or((text, ""));
        if !before.contains('#') && parse_query(query).is_none() {
            let whole = Self::read(&text.replacen(query, "", 1)).is_some();
            return Err(if whole { NoUrl::Query } else { NoUrl::Form });
        }
        Self::read(text).ok_or(NoUrl::Form)
    }

    /// Reads an address without anything that should have been encoded; none if it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        if text.contains([' ', '"', '^']) {
            return None;
        }
        Self::read(text)
    }

    fn read(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once(':')?;
        let mut letters = scheme.bytes();
        let good = letters.next().is_some_and(|byte| byte.is_ascii_alphabetic())
            && letters.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        if !good {
            return None;
        }
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => {
                let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                (Some(read_authority(authority)?), path)
            }
            None => (None, rest),
        };
        is_made_of(path, b"!$&'()*+,;=:@/").then_some(())?;
        let path = path.split('/').map(decode).collect::<Option<_>>()?;
        let fragment = fragment.replace('^', "%5E");
        let fragment = String::from_utf8(lenient(&fragment)?).ok()?;
        Some(Self { scheme: scheme.to_owned(), authority, path, query: parse_query(query)?, fragment })
    }

    /// The segments that are not empty.
    pub fn segments(&self) -> Option<Vec<String>> {
        let segments = self.path.iter().filter(|segment| !segment.is_empty());
        segments.map(|segment| String::from_utf8(segment.clone()).ok()).collect()
    }

    /// The path with single slashes, percent signs read.
    pub fn file_path(&self) -> Option<String> {
        let last = self.path.len().saturating_sub(1);
        let kept = self.path.iter().enumerate();
        let kept = kept.filter(|(at, segment)| *at == 0 || *at == last || !segment.is_empty());
        let segments: Option<Vec<String>> = kept.map(|(_, segment)| String::from_utf8(segment.clone()).ok()).collect();
        match segments?.join("/") {
            empty if empty.is_empty() => Some("/".to_owned()),
            path => Some(path),
        }
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:", self.scheme)?;
        if let Some(authority) = &self.authority {
            write!(formatter, "//{authority}")?;
        }
        let segments: Vec<String> = self.path.iter().map(|segment| encode(segment, b":@")).collect();
        formatter.write_str(&segments.join("/"))?;
        for (number, (name, value)) in self.query.iter().enumerate() {
            let sign = if number == 0 { '?' } else { '&' };
            let (name, value) = (encode(name.as_bytes(), QUERY), encode(value.as_bytes(), QUERY));
            write!(formatter, "{sign}{name}={value}")?;
        }
        if self.fragment.is_empty() {
            return Ok(());
        }
        write!(formatter, "#{}", encode(self.fragment.as_bytes(), b"!$&'()*+,;=:@/?^\" "))
    }
}

/// What stands in a query beside letters and digits.
const QUERY: &[u8] = b":@/?";

/// `name=value&…`; a word without `=` says nothing.
pub fn parse_query(text: &str) -> Option<BTreeMap<String, String>> {
    let mut query = BTreeMap::new();
    for word in text.split('&') {
        let Some((name, value)) = word.split_once('=') else { continue };
        let name = String::from_utf8(lenient(name)?).ok()?;
        let value = String::from_utf8(lenient(value)?).ok()?;
        query.entry(name).or_insert(value);
    }
    Some(query)
}

/// `user@host:port`; percent signs of a host's name are read. Brackets stand around an address that has colons.
fn read_authority(text: &str) -> Option<String> {
    let (user, host) = match text.split_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, text),
    };
    let name_end = if host.starts_with('[') { host.find(']')? + 1 } else { host.find(':').unwrap_or(host.len()) };
    let (name, port) = host.split_at(name_end);
    let port_is_good = match port.strip_prefix(':') {
        Some(digits) => digits.is_empty() || number(digits).is_some_and(|port| port <= 65535),
        None => port.is_empty(),
    };
    let others: &[u8] = if name.starts_with('[') { b"[]:" } else { b"!$&'()*+,;=" };
    let user_is_good = user.is_none_or(|user| is_made_of(user, b"!$&'()*+,;=:"));
    if !port_is_good || !user_is_good || !is_made_of(name, others) {
        return None;
    }
    let name = String::from_utf8(decode(name)?).ok()?;
    let user = user.map(|user| format!("{user}@")).unwrap_or_default();
    Some(format!("{user}{name}{}", if port == ":" { "" } else { port }))
}

/// Digits only.
pub fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn is_made_of(text: &str, others: &[u8]) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte) || others.contains(&byte))
}

/// People write blanks and quotes into queries and fragments.
fn lenient(text: &str) -> Option<Vec<u8>> {
    is_made_of(text, b"!$&'()*+,;=:@/? \"").then(|| decode(text)).flatten()
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if *byte != b'%' {
            decoded.push(*byte);
            continue;
        }
        let digit = |at: usize| rest.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        decoded.push(u8::try_from(digit(0)? * 16 + digit(1)?).ok()?);
        rest = &rest[2..];
    }
    Some(decoded)
}

/// Letters, digits, `-._~` and `others` stand for themselves.
fn encode(bytes: &[u8], others: &[u8]) -> String {
    let mut encoded = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) || others.contains(byte) {
            encoded.push(char::from(*byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
