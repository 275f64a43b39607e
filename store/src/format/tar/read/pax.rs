//! The records of pax headers: `LENGTH KEY=VALUE\n`, LENGTH counting all of it.

use std::collections::BTreeMap;

use super::{Result, damaged, sparse};

/// What pax headers said, the last for each key. GNU's first sparse format repeats keys; those are kept in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Records {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Of GNU's sparse format 0.0: offsets and lengths in turn.
    pairs: Vec<u64>,
}

/// What the key of an extended attribute begins with.
const ATTRIBUTE: &[u8] = b"SCHILY.xattr.";

/// The key of an attribute. A key ends at the first `=`, so that GNU tar writes `%3D` and, for `%` itself, `%25`.
pub(in crate::format::tar) fn attribute_key(name: &[u8]) -> Vec<u8> {
    let mut key = ATTRIBUTE.to_vec();
    for byte in name {
        match byte {
            b'=' => key.extend(b"%3D"),
            b'%' => key.extend(b"%25"),
            byte => key.push(*byte),
        }
    }
    key
}

fn decoded(key: &[u8]) -> Vec<u8> {
    let (mut name, mut rest) = (Vec::with_capacity(key.len()), key);
    while let Some((first, others)) = rest.split_first() {
        let (byte, length) = match rest.get(..3) {
            Some(b"%3D") => (b'=', 2),
            Some(b"%25") => (b'%', 2),
            _ => (*first, 0),
        };
        name.push(byte);
        rest = &others[length..];
    }
    name
}

/// What the records say about holes.
#[derive(Debug, Default)]
pub(super) struct Sparse {
    pub name: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub map: Option<Vec<(u64, u64)>>,
    /// The map comes before the content.
    pub in_content: bool,
}

impl Records {
    pub fn parse(&mut self, mut text: &[u8]) -> Result<()> {
        while !text.is_empty() {
            let bad = || super::Problem::Damaged("a pax record is none".to_owned());
            let blank = text.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
            let length = decimal(&text[..blank]).and_then(|length| usize::try_from(length).ok()).ok_or_else(bad)?;
            let record = text.get(blank + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(bad)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            if matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes") {
                self.pairs.push(decimal(value).ok_or_else(bad)?);
            } else {
                self.values.insert(key.to_vec(), value.to_vec());
            }
            text = &text[length..];
        }
        Ok(())
    }

    /// These, and what they do not say, of a global header.
    pub fn with(&self, own: Self) -> Self {
        if self.values.is_empty() {
            return own;
        }
        let mut values = self.values.clone();
        values.extend(own.values);
        // An empty value takes the global one away; an attribute's may be empty.
        values.retain(|key, value| !value.is_empty() || key.starts_with(ATTRIBUTE));
        Self { values, pairs: own.pairs }
    }

    pub fn take(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        self.values.remove(key).filter(|value| !value.is_empty())
    }

    pub fn number(&mut self, key: &[u8]) -> Result<Option<u64>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match decimal(&value) {
            Some(number) => Ok(Some(number)),
            None => damaged(format!("`{}` in a pax header is not a number", key.escape_ascii())),
        }
    }

    /// A time; its fraction is cut off.
    pub fn seconds(&mut self, key: &[u8]) -> Option<i64> {
        let value = self.take(key)?;
        let whole = value.split(|byte| *byte == b'.').next()?;
        std::str::from_utf8(whole).ok()?.parse().ok()
    }

    pub fn sparse(&mut self) -> Result<Sparse> {
        let name = self.take(b"GNU.sparse.name");
        let size = match self.number(b"GNU.sparse.realsize")? {
            Some(size) => Some(size),
            None => self.number(b"GNU.sparse.size")?,
        };
        let version = (self.number(b"GNU.sparse.major")?, self.number(b"GNU.sparse.minor")?);
        let listed = self.take(b"GNU.sparse.map");
        let pairs = std::mem::take(&mut self.pairs);
        let map = match (version, listed) {
            ((Some(1), Some(0)), _) => return Ok(Sparse { name, size, map: None, in_content: true }),
            ((Some(major), _), _) if major > 0 => return damaged("its sparse files are of a format to come"),
            (_, Some(list)) => {
                let numbers = list.split(|byte| *byte == b',').map(decimal);
                let Some(numbers) = numbers.collect::<Option<Vec<u64>>>() else {
                    return damaged("a map of holes is none");
                };
                Some(sparse::pairs(&numbers)?)
            }
            _ if !pairs.is_empty() => Some(sparse::pairs(&pairs)?),
            _ => None,
        };
        Ok(Sparse { name, size, map, in_content: false })
    }

    /// Extended attributes, and what was said beside them that cannot be kept.
    pub fn attributes(self) -> (BTreeMap<Vec<u8>, Vec<u8>>, Vec<&'static str>) {
        let mut attributes = BTreeMap::new();
        let mut dropped = Vec::new();
        for (key, value) in self.values {
            if let Some(name) = key.strip_prefix(ATTRIBUTE) {
                attributes.insert(decoded(name), value);
            } else if key.starts_with(b"SCHILY.acl.") {
                dropped.push("ACL that is written as text");
            }
        }
        (attributes, dropped)
    }
}

/// A decimal number; some writers put a fraction behind times, none behind what is read here.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    if digits { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}
