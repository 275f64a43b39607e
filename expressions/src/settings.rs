//! What Nix lets its users set about the language.

use std::collections::BTreeSet;

use crate::failure::{Failure, Result};

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

/// What may not be liked, and what may be written only if it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lints {
    /// `|>` and `<|` are operators.
    pub pipes: bool,
    /// `http://…` without quotes.
    pub urls: Lint,
    /// `a/b` without `./`.
    pub short_paths: Lint,
    /// `/a/b` and `~/a`.
    pub absolute_paths: Lint,
}

/// What Nix calls experimental, by its names, and forge knows: on or off.
pub const FEATURES: &[&str] =
    &["dynamic-derivations", "fetch-closure", "fetch-tree", "flakes", "parse-toml-timestamps", "pipe-operators"];

/// What is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What may not be liked.
    pub lints: Lints,
    /// How many calls may be nested.
    pub max_call_depth: usize,
    /// `builtins.warn` ends the evaluation.
    pub abort_on_warn: bool,
    /// Of [`FEATURES`], those that are on.
    pub features: BTreeSet<&'static str>,
    /// Whether `getFlake` may ask registries what a name stands for.
    pub use_registries: bool,
    /// Where the registry is that everybody shares: an address, an absolute path, or nothing for none.
    pub flake_registry: String,
    /// What stands for what before any registry is asked: flake references.
    pub overridden_flakes: Vec<(String, String)>,
}

/// Where Nix looks, unless it is told otherwise.
const FLAKE_REGISTRY: &str = "https://channels.nixos.org/flake-registry.json";

impl Default for Settings {
    fn default() -> Self {
        Self {
            lints: Lints::default(),
            max_call_depth: 10_000,
            abort_on_warn: false,
            features: BTreeSet::new(),
            use_registries: true,
            flake_registry: FLAKE_REGISTRY.to_owned(),
            overridden_flakes: Vec::new(),
        }
    }
}

impl Settings {
    /// What forge's own commands allow: references and fetching, which the lock keeps pure.
    pub fn forge() -> Self {
        Self { features: BTreeSet::from(["fetch-tree", "flakes"]), ..Self::default() }
    }

    /// Whether a feature is on; one may bring another along.
    pub fn has(&self, feature: &str) -> bool {
        self.features.contains(feature) || feature == "fetch-tree" && self.features.contains("flakes")
    }

    /// Refuses what wants a feature that is off.
    pub fn needs(&self, feature: &str) -> Result<()> {
        if self.has(feature) {
            return Ok(());
        }
        Err(Failure::new(format!(
            "experimental Nix feature '{feature}' is disabled; add '--extra-experimental-features {feature}' to enable it"
        )))
    }

    fn allow(&mut self, names: &str) {
        let known = |name: &str| FEATURES.iter().find(|known| **known == name);
        self.features.extend(names.split_whitespace().filter_map(known));
        self.lints.pipes = self.has("pipe-operators");
    }

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
            "experimental-features" => {
                self.features.clear();
                self.allow(value);
            }
            "extra-experimental-features" => self.allow(value),
            "use-registries" => self.use_registries = value == "true",
            "flake-registry" => value.clone_into(&mut self.flake_registry),
            "max-call-depth" => self.max_call_depth = value.parse().unwrap_or(self.max_call_depth),
            _ => {}
        }
    }
}
