//! What Nix lets its users set about the language.

/// What is done about something that is allowed but not liked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lint {
    /// Nothing.
    #[default]
    Ignore,
    /// A warning.
    Warn,
    /// It is an error.
    Fatal,
}

/// What may not be liked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lints {
    /// `http://…` without quotes.
    pub urls: Lint,
    /// `a/b` without `./`.
    pub short_paths: Lint,
    /// `/a/b` and `~/a`.
    pub absolute_paths: Lint,
}

/// What is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What may not be liked.
    pub lints: Lints,
    /// How many calls may be nested.
    pub max_call_depth: usize,
    /// `builtins.warn` ends the evaluation.
    pub abort_on_warn: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { lints: Lints::default(), max_call_depth: 10_000, abort_on_warn: false }
    }
}

impl Settings {
    /// Sets something by Nix's name for it; what is not known here is as in Nix a thing of the store, and ignored.
    pub fn set(&mut self, name: &str, value: &str) {
        let lint = match value {
            "warn" => Lint::Warn,
            "fatal" => Lint::Fatal,
            _ => Lint::Ignore,
        };
        match name {
            "lint-url-literals" => self.lints.urls = lint,
            "lint-short-path-literals" => self.lints.short_paths = lint,
            "lint-absolute-path-literals" => self.lints.absolute_paths = lint,
            "abort-on-warn" => self.abort_on_warn = value == "true",
            "max-call-depth" => self.max_call_depth = value.parse().unwrap_or(self.max_call_depth),
            _ => {}
        }
    }
}
