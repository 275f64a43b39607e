//! Builders that are part of forge: `builtin:NAME`.
//!
//! To add one, write a file, implement [`Builtin`], and add a line to [`ALL`]. A builtin is a function of its parameters
//! and inputs: same in, same delta out, on every machine.

use std::collections::BTreeMap;

use serde_json::Value;
use store::directory::Claim;

use crate::{Builder, Error, Result, debian};

pub mod closure;
pub mod fetch;
pub mod files;
pub mod image;
pub mod keep;
pub mod run;

/// One step to be made.
pub struct Job<'a> {
    /// Store, backend, reporter and the rest.
    pub builder: &'a Builder<'a>,
    /// The derivation's name, for people.
    pub name: &'a str,
    /// The derivation's `parameters` attribute, read as JSON. Store paths in it are keys of `inputs`.
    pub parameters: &'a Value,
    /// What each input store path came out as: outputs of derivations, and sources.
    pub inputs: &'a BTreeMap<String, Input>,
    /// What the output must be, for a fixed output.
    pub fixed: Option<&'a store::derivation::FixedOutput>,
}

/// An input of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// An output of a step.
    Claim(Claim),
    /// A source of the project: a file, directory or symlink.
    Source(store::Node),
    /// An output of a Nix derivation.
    Output {
        /// Where it is to be.
        path: store::StorePath,
        /// What lies there.
        node: store::Node,
        /// It and all that it refers to, in the order of their paths.
        closure: Vec<store::DeltaId>,
    },
}

/// A builder that is part of forge.
pub trait Builtin: Sync {
    /// The part after `builtin:`.
    fn name(&self) -> &'static str;
    /// The word shown while it works, and by which times are summed (`fetch`, `unpack`, `install`, `configure`, …).
    fn phase(&self) -> &'static str;
    /// Makes the step. Raise the number returned by [`Builtin::version`] when the same input would give something else, and the
    /// one in `expressions/lib/basics.nix`.
    fn build(&self, job: &Job<'_>) -> Result<Claim>;
    /// Part of the step's key.
    fn version(&self) -> u32 {
        1
    }
}

/// Every builtin.
#[rustfmt::skip]
pub const ALL: &[&dyn Builtin] = &[
    &fetch::Fetch,
    &files::Files,
    &closure::Closure,
    &image::Image,
    &run::Run,
    &keep::Keep,
    &debian::package::Package,
    &debian::configure::Configure,
    &crate::python::wheel::Wheel,
    &crate::python::environment::Environment,
    &crate::python::source::Source,
    &crate::node::package::Package,
    &crate::node::modules::Modules,
    &crate::oci::Layer,
    &crate::rust::vendor::Crate,
    &crate::rust::vendor::Vendor,
    &crate::rust::vendor::Record,
];

impl Job<'_> {
    /// A parameter by name, as the type the builtin wants.
    pub fn parameter<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T> {
        let value = self.parameters.get(name).cloned().unwrap_or(Value::Null);
        serde_json::from_value(value).map_err(|source| Error::Parameter {
            step: self.name.to_owned(),
            parameter: name.to_owned(),
            reason: source.to_string(),
        })
    }

    /// What an input store path came out as.
    pub fn input(&self, path: &str) -> Result<&Input> {
        self.inputs.get(path).ok_or_else(|| Error::Parameter {
            step: self.name.to_owned(),
            parameter: path.to_owned(),
            reason: "not an input of the step".to_owned(),
        })
    }

    /// The delta of an input.
    pub fn delta(&self, path: &str) -> Result<store::DeltaId> {
        match self.input(path)? {
            Input::Claim(Claim::Delta(id)) => Ok(*id),
            _ => Err(self.wrong_kind(path, "a layer")),
        }
    }

    /// The blob of an input that is a single file.
    pub fn blob(&self, path: &str) -> Result<store::BlobId> {
        match self.input(path)? {
            Input::Claim(Claim::Blob(id)) => Ok(*id),
            Input::Source(store::Node::File(file)) | Input::Output { node: store::Node::File(file), .. } => {
                Ok(file.blob)
            }
            _ => Err(self.wrong_kind(path, "a file")),
        }
    }

    fn wrong_kind(&self, path: &str, wanted: &str) -> Error {
        Error::Parameter {
            step: self.name.to_owned(),
            parameter: path.to_owned(),
            reason: format!("{wanted} is expected here"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer that an older forge kept by the path of a derivation must not be taken for this one's.
    #[test]
    fn the_library_knows_every_version() {
        let library = include_str!("../../expressions/lib/basics.nix");
        let (_, versions) = library.split_once("  versions = {\n").unwrap();
        let (versions, _) = versions.split_once("  };\n").unwrap();
        let mut known: Vec<String> = versions.lines().map(|line| line.trim().to_owned()).collect();
        known.sort();
        let raised = ALL.iter().filter(|builtin| builtin.version() > 1);
        let mut raised: Vec<_> = raised.map(|builtin| format!("{} = {};", builtin.name(), builtin.version())).collect();
        raised.sort();
        assert_eq!(known, raised);
    }
}
