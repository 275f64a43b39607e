//! How Nix names store objects: a kind, a hash and a name are hashed once more, and folded to 160 bits.
//!
//! The store directory is always `/nix/store`, so names agree with everybody else's.

use std::collections::BTreeSet;

use crate::StorePath;
use crate::derivation::{HashAlgorithm, STORE_DIRECTORY};

use super::hash::{HashFormat, NixHash, fold, to_nix32};

/// The longest name, without the hash.
pub const LONGEST_NAME: usize = 211;

/// What is wrong with the name of a store object. The words are Nix's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No name at all.
    #[error("name must not be empty")]
    Empty,
    /// Longer than [`LONGEST_NAME`].
    #[error("name '{name}' must be no longer than {LONGEST_NAME} characters")]
    Long {
        /// What was given.
        name: String,
    },
    /// `.` or `..`.
    #[error("name '{name}' is not valid")]
    Dots {
        /// What was given.
        name: String,
    },
    /// Begins with `.-` or `..-`.
    #[error("name '{name}' is not valid: first dash-separated component must not be '{component}'")]
    FirstComponent {
        /// What was given.
        name: String,
        /// The dots.
        component: &'static str,
    },
    /// A character outside `A-Za-z0-9+-._?=`.
    #[error("name '{name}' contains illegal character '{character}'")]
    Character {
        /// What was given.
        name: String,
        /// The first such character.
        character: char,
    },
}

/// Why a text is not a store path, or no store path can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorePathError {
    /// It would have this base name.
    #[error("path '{base_name}' is not a valid store path: {source}")]
    Name {
        /// Hash, dash and name.
        base_name: String,
        /// What is wrong with the name.
        source: NameError,
    },
    /// Not directly in the store directory.
    #[error("path '{path}' is not in the Nix store")]
    Elsewhere {
        /// What was given.
        path: String,
    },
    /// Shorter than a hash and a dash.
    #[error("'{base_name}' is too short to be a valid store path")]
    Short {
        /// What was given, without the store directory.
        base_name: String,
    },
    /// Something else than a dash after the hash.
    #[error("'{base_name}' can't name a store path because the hash part is not followed by a '-'")]
    NoDash {
        /// What was given, without the store directory.
        base_name: String,
    },
    /// The hash has a character that is no digit.
    #[error("store path '{base_name}' contains illegal base-32 character '{character}'")]
    Digit {
        /// What was given, without the store directory.
        base_name: String,
        /// The first such character.
        character: char,
    },
}

/// Whether a store object may have this name.
pub fn check_name(name: &[u8]) -> Result<(), NameError> {
    let text = || String::from_utf8_lossy(name).into_owned();
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > LONGEST_NAME {
        return Err(NameError::Long { name: text() });
    }
    if matches!(name, b"." | b"..") {
        return Err(NameError::Dots { name: text() });
    }
    for (start, component) in [(&b".-"[..], "."), (b"..-", "..")] {
        if name.starts_with(start) {
            return Err(NameError::FirstComponent { name: text(), component });
        }
    }
    match name.iter().position(|byte| !byte.is_ascii_alphanumeric() && !b"+-._?=".contains(byte)) {
        Some(at) => {
            let character = String::from_utf8_lossy(&name[at..]).chars().next().unwrap_or(char::REPLACEMENT_CHARACTER);
            Err(NameError::Character { name: text(), character })
        }
        None => Ok(()),
    }
}

/// Reads a store path that is written out in full, with nothing below it.
pub fn parse(path: &[u8]) -> Result<StorePath, StorePathError> {
    let text = String::from_utf8_lossy(path);
    let base_name = text.strip_prefix(STORE_DIRECTORY).and_then(|rest| rest.strip_prefix('/'));
    let Some(base_name) = base_name.filter(|base_name| !base_name.contains('/')).map(str::to_owned) else {
        return Err(StorePathError::Elsewhere { path: text.into_owned() });
    };
    let bytes = base_name.as_bytes();
    if bytes.len() < 33 {
        return Err(StorePathError::Short { base_name });
    }
    if bytes[32] != b'-' {
        return Err(StorePathError::NoDash { base_name });
    }
    let is_digit = |byte: &u8| byte.is_ascii_digit() || byte.is_ascii_lowercase() && !b"eotu".contains(byte);
    if let Some(at) = bytes[..32].iter().position(|byte| !is_digit(byte)) {
        let character = String::from_utf8_lossy(&bytes[at..]).chars().next().unwrap_or(char::REPLACEMENT_CHARACTER);
        return Err(StorePathError::Digit { base_name, character });
    }
    match check_name(&bytes[33..]) {
        Ok(()) => Ok(checked(&base_name)),
        Err(source) => Err(StorePathError::Name { base_name, source }),
    }
}

/// Builds a path from what was just checked to be a digest and a name.
fn checked(base_name: &str) -> StorePath {
    let path = format!("{STORE_DIRECTORY}/{base_name}");
    StorePath::parse(&path).expect("the store accepts every name that `check_name` does")
}

/// The path of an object of some kind.
fn make(kind: &str, hash: &NixHash, name: &[u8]) -> Result<StorePath, StorePathError> {
    let hash = hash.to_text(HashFormat::Base16, true);
    let description = [kind.as_bytes(), b":", hash.as_bytes(), b":", STORE_DIRECTORY.as_bytes(), b":", name].concat();
    let digest = fold(NixHash::of(HashAlgorithm::Sha256, &description).as_bytes(), 20);
    let base_name = format!("{}-{}", to_nix32(&digest), String::from_utf8_lossy(name));
    match check_name(name) {
        Ok(()) => Ok(checked(&base_name)),
        Err(source) => Err(StorePathError::Name { base_name, source }),
    }
}

/// The path of a text that refers to other paths: `builtins.toFile`, and every `.drv`.
pub fn text_path(name: &[u8], text: &[u8], references: &BTreeSet<StorePath>) -> Result<StorePath, StorePathError> {
    let mut kind = String::from("text");
    for reference in references {
        kind.push(':');
        kind.push_str(reference.as_str());
    }
    make(&kind, &NixHash::of(HashAlgorithm::Sha256, text), name)
}

/// The path of an output of a derivation whose hash (modulo fixed outputs) is known.
pub fn output_path(output: &str, hash: &NixHash, name: &str) -> Result<StorePath, StorePathError> {
    make(&format!("output:{output}"), hash, output_name(name, output).as_bytes())
}

/// The path of content with this hash: `recursive` if the hash is of its NAR rather than of a single file's bytes.
/// Sources that an expression takes in are recursive and SHA-256.
pub fn fixed_output_path(name: &[u8], recursive: bool, hash: &NixHash) -> Result<StorePath, StorePathError> {
    if recursive && hash.algorithm() == HashAlgorithm::Sha256 {
        return make("source", hash, name);
    }
    let method = if recursive { "r:" } else { "" };
    let description = format!("fixed:out:{method}{}:", hash.to_text(HashFormat::Base16, true));
    make("output:out", &NixHash::of(HashAlgorithm::Sha256, description.as_bytes()), name)
}

/// The path of content that refers to other paths, or to itself where its own hash part was taken as zeros: what a floating output
/// is named by. Only the SHA-256 of an archive can refer to anything; others give the path of [`fixed_output_path`].
pub fn content_path(
    name: &[u8],
    recursive: bool,
    hash: &NixHash,
    references: &BTreeSet<StorePath>,
    refers_to_itself: bool,
) -> Result<StorePath, StorePathError> {
    if !(recursive && hash.algorithm() == HashAlgorithm::Sha256) {
        return fixed_output_path(name, recursive, hash);
    }
    let mut kind = String::from("source");
    for reference in references {
        kind.push(':');
        kind.push_str(reference.as_str());
    }
    if refers_to_itself {
        kind.push_str(":self");
    }
    make(&kind, hash, name)
}

/// Where a floating output lies while it is made: a path that follows from its derivation alone and is nobody else's.
pub fn scratch_path(derivation: &StorePath, output: &str, name: &str) -> Result<StorePath, StorePathError> {
    let kind = format!("rewrite:{derivation}:name:{output}");
    let hash = NixHash::from_bytes(HashAlgorithm::Sha256, vec![0; 32]).expect("32 bytes are a SHA-256");
    make(&kind, &hash, output_name(name, output).as_bytes())
}

/// The name of an output's path: that of the derivation, and the output's unless that is `out`.
pub fn output_name(name: &str, output: &str) -> String {
    if output == "out" { name.to_owned() } else { format!("{name}-{output}") }
}

/// What stands in a derivation for the path of its own output (`builtins.placeholder`).
pub fn placeholder(output: &[u8]) -> String {
    placeholder_of(&[b"nix-output:", output].concat())
}

/// What stands in a derivation for an output of another one whose path is not known before it is built.
pub fn upstream_placeholder(derivation: &StorePath, output: &str) -> String {
    let base_name = &derivation.as_str()[STORE_DIRECTORY.len() + 1..];
    let (hash, name) = base_name.split_at(32);
    let name = name.trim_start_matches('-');
    let name = name.strip_suffix(".drv").unwrap_or(name);
    placeholder_of(format!("nix-upstream-output:{hash}:{}", output_name(name, output)).as_bytes())
}

fn placeholder_of(text: &[u8]) -> String {
    format!("/{}", NixHash::of(HashAlgorithm::Sha256, text).to_text(HashFormat::Nix32, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_named_as_nix_names_them() {
        // builtins.toFile "a" "text", and `r` that refers to two others; from Nix 2.34.8.
        let none = BTreeSet::new();
        let a = text_path(b"a", b"text", &none).unwrap();
        assert_eq!(a.as_str(), "/nix/store/znvscj76jsnvyjqabi70np3mf4lm3gy4-a");
        let b = text_path(b"b", b"x", &none).unwrap();
        let text = format!("ref {b} {a}");
        let r = text_path(b"r", text.as_bytes(), &[a, b].into()).unwrap();
        assert_eq!(r.as_str(), "/nix/store/bi8qif5gg7pb79n0h6vy3vznix8m2a2f-r");
    }

    #[test]
    fn fixed_outputs_are_named_by_their_hash() {
        let zeros = |algorithm| NixHash::parse_or_zeros(b"", Some(algorithm)).unwrap();
        let path = |recursive, algorithm| fixed_output_path(b"x", recursive, &zeros(algorithm)).unwrap().to_string();
        assert_eq!(path(false, HashAlgorithm::Sha256), "/nix/store/yplc6kklcg6k8aln037jq8jxq5v92wln-x");
        assert_eq!(path(true, HashAlgorithm::Sha256), "/nix/store/130c0ks0fyxky4j4qx02apy69hasc6nf-x");
    }

    #[test]
    fn placeholders_are_those_of_nix() {
        assert_eq!(placeholder(b"out"), "/1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9");
        assert_eq!(placeholder(b"dev"), "/02qcpld1y6xhs5gz9bchpxaw0xdhmsp5dv88lh25r2ss44kh8dxz");
        assert_eq!(placeholder(b""), "/171rf4jhx57xqz3p7swniwkig249cif71pa08p80mgaf0mqz5bmr");
    }

    #[test]
    fn bad_names_are_refused_in_the_words_of_nix() {
        let cases: [(&[u8], &str); 7] = [
            (b"", "name must not be empty"),
            (b"a b", "name 'a b' contains illegal character ' '"),
            (b".", "name '.' is not valid"),
            (b"..", "name '..' is not valid"),
            (b"..-x", "name '..-x' is not valid: first dash-separated component must not be '..'"),
            (b".-", "name '.-' is not valid: first dash-separated component must not be '.'"),
            (b"a\xff", "name 'a\u{fffd}' contains illegal character '\u{fffd}'"),
        ];
        for (name, message) in cases {
            assert_eq!(check_name(name).unwrap_err().to_string(), message);
        }
        for good in [&b".foo"[..], b"..x", b"...", b"-", &[b'a'; LONGEST_NAME]] {
            assert_eq!(check_name(good), Ok(()));
        }
        assert!(matches!(check_name(&[b'a'; LONGEST_NAME + 1]), Err(NameError::Long { .. })));
        let error = text_path(b"a b", b"text", &BTreeSet::new()).unwrap_err();
        let message = "path 'pssqhih2kb0dcqjfnpws4jzwzzhfri0v-a b' is not a valid store path: name 'a b' contains illegal character ' '";
        assert_eq!(error.to_string(), message);
    }

    #[test]
    fn only_what_lies_directly_in_the_store_is_a_store_path() {
        let good = "/nix/store/znvscj76jsnvyjqabi70np3mf4lm3gy4-a";
        assert_eq!(parse(good.as_bytes()).unwrap().as_str(), good);
        let bad: [&[u8]; 8] = [
            b"",
            b"/nix/store",
            b"/nix/store/",
            b"/nix/store/x",
            b"/nix/storeznvscj76jsnvyjqabi70np3mf4lm3gy4-a",
            b"/nix/store/znvscj76jsnvyjqabi70np3mf4lm3gy4-a/b",
            b"/nix/store/enot-in-the-alphabet-is-e-o-t-u-a-x",
            b"/nix/store/znvscj76jsnvyjqabi70np3mf4lm3gy4-\xff",
        ];
        for path in bad {
            assert!(parse(path).is_err(), "{:?}", String::from_utf8_lossy(path));
        }
    }
}
