//! Requirements: one line that asks for a project, as `requests[socks] ~= 2.0; python_version > '3.8'`, and the markers in them (PEP 508).
//!
//! The library panics at some of what it should refuse: that is refused here before.

use std::str::FromStr;

use pep440_rs::VersionSpecifiers;
use pep508_rs::{MarkerTree, Requirement, VerbatimUrl};

/// Reads a requirement. The error is a reason, in words.
pub fn parse(text: &str) -> Result<Requirement<VerbatimUrl>, String> {
    only_ascii(text)?;
    // Names of projects and extras that end in punctuation, where something follows.
    let is_part = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    let text = text.trim();
    let (name, rest) = text.split_at(text.find(|character| !is_part(character)).unwrap_or(text.len()));
    let extras = rest.trim_start().strip_prefix('[').and_then(|rest| rest.split(']').next()).unwrap_or_default();
    for name in extras.split(|character| !is_part(character)).chain([name]) {
        if name.starts_with(|first: char| first.is_ascii_alphanumeric()) && name.ends_with(['-', '_', '.']) {
            return Err(format!("`{name}` is no name: it must end in a letter or a digit"));
        }
    }
    Requirement::from_str(text).map_err(|error| error.message.to_string())
}

/// Reads a marker. The error is a reason, in words.
pub fn marker(text: &str) -> Result<MarkerTree, String> {
    only_ascii(text)?;
    MarkerTree::from_str(text).map_err(|error| error.message.to_string())
}

/// Reads what a version must be, as `requires-python` has it. The error is a reason, in words.
pub fn specifiers(text: &str) -> Result<VersionSpecifiers, String> {
    only_ascii(text)?;
    // The library draws the place below.
    let first = |error: String| error.lines().next().unwrap_or_default().trim_end_matches(':').to_owned();
    VersionSpecifiers::from_str(text).map_err(|error| first(error.to_string()))
}

/// The library takes numbers of characters for numbers of bytes.
fn only_ascii(text: &str) -> Result<(), String> {
    match text.chars().find(|character| !character.is_ascii()) {
        Some(character) => Err(format!("it has a character that is not ASCII, `{}`", character.escape_debug())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_end_in_punctuation_are_refused() {
        for bad in ["lock- x", "lock-", "a.>=1", "a_;", " a-[b]", "a[b-]", "a [ b, c. ]", "a[b-", "a[b_ ,c]", "a[b.\nc"]
        {
            let reason = parse(bad).unwrap_err();
            assert!(reason.contains("is no name"), "{bad}: {reason}");
        }
        for good in ["a-b", "a.b[c-d, e]>=1", " a ", "a[]", "a;python_version>'3'"] {
            assert!(parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn what_is_not_ascii_is_refused() {
        for bad in ["naïve", "a; os_name == 'é'", "a-\u{a0}", "a @ https://host/ϰ"] {
            assert!(parse(bad).unwrap_err().contains("not ASCII"), "{bad}");
        }
        assert!(marker("python_version >= '2.8' aϰ n:").unwrap_err().contains("not ASCII"));
        assert!(marker("python_version >=").is_err());
    }
}
