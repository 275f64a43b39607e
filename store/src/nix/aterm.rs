//! The text of a `.drv` file: a derivation as an ATerm, which is what Nix hashes.
//!
//! Only `" \ newline return tab` are escaped, in builder, arguments and environment; outputs, paths and system stand as they are.
//! Nix never writes such a text in two ways, so a text that would be written otherwise is refused.

use std::collections::{BTreeMap, BTreeSet};

use crate::derivation::{Derivation, FixedOutput, Output};
use crate::digest::{from_hex, to_hex};

use super::hash::{hash_size, parse_algorithm};
use super::path as store_path;

/// Why bytes are not the text of a derivation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the text of a derivation: {expected} expected at byte {offset}")]
pub struct AtermError {
    /// What should have been there.
    pub expected: &'static str,
    /// Where reading stopped.
    pub offset: usize,
}

/// Writes a derivation. An output without path whose fixed hash is empty is a floating one, as Nix writes it.
pub fn write(derivation: &Derivation) -> Vec<u8> {
    let inputs = derivation.input_derivations.iter().map(|(path, outputs)| (path.as_str(), outputs));
    write_with_inputs(derivation, inputs)
}

/// Writes a derivation with other names for its input derivations, as Nix hashes a derivation.
pub fn write_with_inputs<'a>(
    derivation: &Derivation,
    inputs: impl Iterator<Item = (&'a str, &'a BTreeSet<String>)>,
) -> Vec<u8> {
    let mut text = Vec::with_capacity(1024);
    text.extend_from_slice(b"Derive(");
    list(&mut text, derivation.outputs.iter(), |text, (name, output)| {
        let (algorithm, hash) = match &output.fixed {
            Some(fixed) => (algorithm_text(fixed), to_hex(&fixed.hash)),
            None => (String::new(), String::new()),
        };
        let path = output.path.as_ref().map_or("", |path| path.as_str());
        tuple(text, [name.as_str(), path, &algorithm, &hash]);
    });
    text.push(b',');
    list(&mut text, inputs, |text, (path, outputs)| {
        text.push(b'(');
        plain(text, path.as_bytes());
        text.push(b',');
        list(text, outputs.iter(), |text, output| plain(text, output.as_bytes()));
        text.push(b')');
    });
    text.push(b',');
    list(&mut text, derivation.input_sources.iter(), |text, path| plain(text, path.as_str().as_bytes()));
    text.push(b',');
    plain(&mut text, &derivation.system);
    text.push(b',');
    escaped(&mut text, &derivation.builder);
    text.push(b',');
    list(&mut text, derivation.arguments.iter(), |text, argument| escaped(text, argument));
    text.push(b',');
    list(&mut text, derivation.environment.iter(), |text, (name, value)| {
        text.push(b'(');
        escaped(text, name);
        text.push(b',');
        escaped(text, value);
        text.push(b')');
    });
    text.push(b')');
    text
}

/// `r:` if the hash is of the archive, and the function's name.
pub fn algorithm_text(fixed: &FixedOutput) -> String {
    format!("{}{}", if fixed.recursive { "r:" } else { "" }, fixed.algorithm.as_str())
}

fn list<T>(text: &mut Vec<u8>, items: impl Iterator<Item = T>, write: impl Fn(&mut Vec<u8>, T)) {
    text.push(b'[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            text.push(b',');
        }
        write(text, item);
    }
    text.push(b']');
}

fn tuple(text: &mut Vec<u8>, fields: [&str; 4]) {
    text.push(b'(');
    for (index, field) in fields.into_iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        plain(text, field.as_bytes());
    }
    text.push(b')');
}

fn plain(text: &mut Vec<u8>, bytes: &[u8]) {
    text.push(b'"');
    text.extend_from_slice(bytes);
    text.push(b'"');
}

fn escaped(text: &mut Vec<u8>, bytes: &[u8]) {
    text.push(b'"');
    let mut copied = 0;
    for (index, byte) in bytes.iter().enumerate() {
        let escape = match byte {
            b'"' | b'\\' => *byte,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            _ => continue,
        };
        text.extend_from_slice(&bytes[copied..index]);
        text.extend_from_slice(&[b'\\', escape]);
        copied = index + 1;
    }
    text.extend_from_slice(&bytes[copied..]);
    text.push(b'"');
}

/// Reads the text of a derivation of this name (the `.drv` file's, without hash and `.drv`).
pub fn read(name: &str, text: &[u8]) -> Result<Derivation, AtermError> {
    let mut reader = Reader { text, offset: 0 };
    reader.word(b"Derive(", "`Derive(`")?;
    let mut outputs = BTreeMap::new();
    reader.list(|reader| {
        reader.word(b"(", "`(`")?;
        let output = reader.name()?;
        reader.comma()?;
        let path = reader.path_or_nothing()?;
        reader.comma()?;
        let fixed = reader.fixed()?;
        reader.word(b")", "`)`")?;
        outputs.insert(output, Output { path, fixed });
        Ok(())
    })?;
    reader.comma()?;
    let mut input_derivations = BTreeMap::new();
    reader.list(|reader| {
        reader.word(b"(", "`(`")?;
        let path = reader.path()?;
        reader.comma()?;
        let mut outputs = BTreeSet::new();
        reader.list(|reader| {
            outputs.insert(reader.name()?);
            Ok(())
        })?;
        reader.word(b")", "`)`")?;
        input_derivations.insert(path, outputs);
        Ok(())
    })?;
    reader.comma()?;
    let mut input_sources = BTreeSet::new();
    reader.list(|reader| {
        input_sources.insert(reader.path()?);
        Ok(())
    })?;
    reader.comma()?;
    let system = reader.string()?;
    reader.comma()?;
    let builder = reader.string()?;
    reader.comma()?;
    let mut arguments = Vec::new();
    reader.list(|reader| {
        arguments.push(reader.string()?);
        Ok(())
    })?;
    reader.comma()?;
    let mut environment = BTreeMap::new();
    reader.list(|reader| {
        reader.word(b"(", "`(`")?;
        let name = reader.string()?;
        reader.comma()?;
        environment.insert(name, reader.string()?);
        reader.word(b")", "`)`")
    })?;
    reader.word(b")", "`)`")?;
    if reader.offset != text.len() {
        return Err(reader.error("the end"));
    }
    let name = name.to_owned();
    let derivation =
        Derivation { name, outputs, input_derivations, input_sources, system, builder, arguments, environment };
    // Lists out of order, doubled names and needless escapes have been swallowed so far.
    let canonical = write(&derivation);
    match canonical.iter().zip(text).position(|(canonical, found)| canonical != found) {
        None if canonical.len() == text.len() => Ok(derivation),
        different => Err(AtermError {
            expected: "the order and spelling that Nix writes",
            offset: different.unwrap_or(canonical.len().min(text.len())),
        }),
    }
}

struct Reader<'a> {
    text: &'a [u8],
    offset: usize,
}

impl Reader<'_> {
    fn error(&self, expected: &'static str) -> AtermError {
        AtermError { expected, offset: self.offset }
    }

    fn word(&mut self, word: &[u8], expected: &'static str) -> Result<(), AtermError> {
        if !self.text[self.offset..].starts_with(word) {
            return Err(self.error(expected));
        }
        self.offset += word.len();
        Ok(())
    }

    fn comma(&mut self) -> Result<(), AtermError> {
        self.word(b",", "`,`")
    }

    fn list(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), AtermError>) -> Result<(), AtermError> {
        self.word(b"[", "`[`")?;
        if self.word(b"]", "`]`").is_ok() {
            return Ok(());
        }
        loop {
            item(self)?;
            if self.comma().is_err() {
                return self.word(b"]", "`,` or `]`");
            }
        }
    }

    fn string(&mut self) -> Result<Vec<u8>, AtermError> {
        self.word(b"\"", "`\"`")?;
        let mut bytes = Vec::new();
        loop {
            let Some(byte) = self.text.get(self.offset) else { return Err(self.error("the end of a string")) };
            self.offset += 1;
            match byte {
                b'"' => return Ok(bytes),
                b'\\' => {
                    let Some(byte) = self.text.get(self.offset) else { return Err(self.error("an escape")) };
                    self.offset += 1;
                    bytes.push(match byte {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        _ => *byte,
                    });
                }
                _ => bytes.push(*byte),
            }
        }
    }

    fn name(&mut self) -> Result<String, AtermError> {
        let error = self.error("a name");
        String::from_utf8(self.string()?).map_err(|_| error)
    }

    fn path(&mut self) -> Result<crate::StorePath, AtermError> {
        let error = self.error("a store path");
        self.path_or_nothing()?.ok_or(error)
    }

    fn path_or_nothing(&mut self) -> Result<Option<crate::StorePath>, AtermError> {
        let error = self.error("a store path");
        match self.string()? {
            text if text.is_empty() => Ok(None),
            text => store_path::parse(&text).map(Some).map_err(|_| error),
        }
    }

    /// The last two fields of an output: hash function (with `r:`) and hash.
    fn fixed(&mut self) -> Result<Option<FixedOutput>, AtermError> {
        let error = self.error("a hash function");
        let method = self.string()?;
        self.comma()?;
        let hash_error = self.error("a hash");
        let hash = self.name()?;
        if method.is_empty() {
            return if hash.is_empty() { Ok(None) } else { Err(hash_error) };
        }
        let (recursive, algorithm) = match method.strip_prefix(b"r:") {
            Some(algorithm) => (true, algorithm),
            None => (false, &method[..]),
        };
        let algorithm = parse_algorithm(algorithm).map_err(|_| error)?;
        match from_hex(&hash) {
            Some(hash) if hash.is_empty() || hash.len() == hash_size(algorithm) => {
                Ok(Some(FixedOutput { recursive, algorithm, hash }))
            }
            _ => Err(hash_error),
        }
    }
}

#[cfg(test)]
mod tests;
