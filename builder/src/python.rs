//! Python: which index this machine uses, resolution by `uv`, the wheels that fit, and their installation.
//!
//! A lock request of kind `python` is answered by [`resolver::Python`]; its records name wheels by project and file, never by
//! address. [`wheel::Wheel`] lays one wheel out as `pip` does on Debian, and [`environment::Environment`] merges them and adds
//! bytecode.

pub mod archive;
pub mod environment;
pub mod index;
pub mod layout;
pub mod lockfile;
pub mod near;
pub mod pylock;
pub mod requirement;
pub mod resolver;
pub mod scripts;
pub mod source;
pub mod tags;
pub mod tool;
pub mod uv;
pub mod wheel;

use crate::{Error, Result};

/// A Python version as the lock and the library write it: `3.11`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PythonVersion {
    /// 3 in all that is supported.
    pub major: u32,
    /// 11 of 3.11.
    pub minor: u32,
}

impl PythonVersion {
    /// Reads `3.11`; a patch level is refused, because wheels and directories know none.
    pub fn parse(text: &str) -> Result<Self> {
        let parsed = text.split_once('.').and_then(|(major, minor)| {
            let digits = |part: &str| part.len() <= 3 && part.bytes().all(|byte| byte.is_ascii_digit());
            if !digits(major) || !digits(minor) {
                return None;
            }
            Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
        });
        parsed.filter(|version| version.major == 3).ok_or_else(|| Error::Invalid {
            what: "Python version",
            name: text.to_owned(),
            reason: "two numbers, the first of them 3, are expected, as in `3.11`".to_owned(),
        })
    }
}

impl std::fmt::Display for PythonVersion {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// A project's name as indexes compare it (PEP 503): lower case, runs of `-`, `_` and `.` as one `-`.
pub fn normalise(name: &str) -> String {
    let mut normal = String::with_capacity(name.len());
    for character in name.chars() {
        match character {
            '-' | '_' | '.' if normal.ends_with('-') => {}
            '-' | '_' | '.' => normal.push('-'),
            other => normal.push(other.to_ascii_lowercase()),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_indexes_do() {
        assert_eq!(normalise("Foo._-Bar"), "foo-bar");
        assert_eq!(normalise("ruamel.yaml"), "ruamel-yaml");
        assert_eq!(normalise("numpy"), "numpy");
    }

    #[test]
    fn a_python_version_is_two_numbers() {
        assert_eq!(PythonVersion::parse("3.11").unwrap().to_string(), "3.11");
        for bad in ["", "3", "3.11.2", "2.7", "3.x", "3.+1", "3.", "3.1111"] {
            assert!(PythonVersion::parse(bad).is_err(), "{bad}");
        }
    }
}
