//! Joblet's `runtime.yaml`: read, checked, and written as the expression that does the same.
//!
//! Nothing is installed here and nobody asked: [`read`] gives a [`Description`] or everything that is wrong with the text, each
//! thing with its place; [`expression`] writes it in the Nix language, and says what could not be turned.

mod expression;
mod hook;
mod languages;
mod read;
mod shell;
mod yaml;

pub use expression::{Turned, expression};
pub use read::read;

use std::collections::BTreeMap;

/// Of pip's options those that say how pip goes about it, not what it installs.
const HARMLESS_PIP_OPTIONS: &[&str] = &[
    "--no-cache-dir",
    "--upgrade",
    "-U",
    "--quiet",
    "-q",
    "--no-input",
    "--prefer-binary",
    "--disable-pip-version-check",
    "--no-warn-script-location",
    "--break-system-packages",
    "--root-user-action=ignore",
];

/// What a `runtime.yaml` says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Description {
    /// Its name: `^[a-z0-9][a-z0-9.-]{0,63}$`.
    pub name: String,
    /// Three numbers.
    pub version: String,
    /// In words.
    pub description: String,
    /// `python`, `java`, `node`, `go`, `rust`.
    pub language: String,
    /// As Debian's suites have it: `3.11`, `17`.
    pub language_version: String,
    /// Which suite has the language in that version.
    pub suite: &'static str,
    /// Packages of Debian that are the language.
    pub packages: Vec<String>,
    /// Requirements as pip takes them.
    pub pip: Vec<String>,
    /// Of pip's options those that forge cannot follow.
    pub pip_options: Vec<String>,
    /// Packages of npm: `name`, `name@range`.
    pub npm: Vec<String>,
    /// Patterns of system libraries.
    pub libraries: Vec<String>,
    /// Variables.
    pub environment: BTreeMap<String, String>,
    /// `requirements` and `platforms`, as labels of the formation.
    pub labels: BTreeMap<String, String>,
    /// Before the language's packages.
    pub pre_install: Option<Script>,
    /// After them.
    pub post_install: Option<Script>,
    /// How long a hook may take, as it is written: `20m`.
    pub hook_timeout: String,
}

/// A hook.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Script {
    /// Its text.
    pub text: String,
    /// The line of the file that it starts on, from 1.
    pub line: usize,
}

/// Something wrong or doubtful, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub message: String,
    /// Where, in bytes.
    pub start: usize,
    /// Until where.
    pub end: usize,
    /// What can be done.
    pub hint: Option<String>,
    /// Whether it can be passed over.
    pub warning: bool,
}
