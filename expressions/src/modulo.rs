//! Names of derivations and of their outputs.
//!
//! An output's path is made from the hash of its derivation *modulo* fixed outputs: every input derivation is replaced by its
//! own hash of this kind, and a fixed output by what it must be, so that where a download comes from changes nothing downstream.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use store::StorePath;
use store::derivation::{Derivation, HashAlgorithm, Output};
use store::digest::to_hex;

use crate::aterm::{algorithm_text, write, write_with_inputs};
use crate::nix_hash::NixHash;
use crate::store_path::{self, StorePathError};

/// What stands for a derivation in the hash of those that use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Modulo {
    /// It is named by what goes into it: the hash of that.
    Inputs(NixHash),
    /// Its only output, `out`, is fixed: the hash of what it must be.
    Fixed(NixHash),
    /// Paths are not known before something is built.
    Deferred,
}

/// Why a derivation cannot be named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModuloError {
    /// An input derivation that was not finished before.
    #[error("derivation '{derivation}' uses '{input}', which is not known here")]
    UnknownInput {
        /// The name of the derivation.
        derivation: String,
        /// The input.
        input: StorePath,
    },
    /// A fixed output beside others, or under another name than `out`.
    #[error("multiple outputs are not supported in fixed-output derivations")]
    SeveralFixed,
    /// An input derivation does not have this output.
    #[error("no hash for output '{output}' of derivation '{derivation}'")]
    UnknownOutput {
        /// The output that is asked for.
        output: String,
        /// The derivation that asks.
        derivation: String,
    },
    /// The name of the derivation or of an output does not make a store path.
    #[error(transparent)]
    Path(#[from] StorePathError),
}

/// The derivations that have been named so far. Inputs come before those that use them.
#[derive(Debug, Default)]
pub struct Namer {
    known: HashMap<StorePath, Modulo>,
}

impl Namer {
    /// Fills in the outputs' paths, in the outputs and in the environment, and gives path and text of the `.drv` file.
    ///
    /// An output is fixed (it has a hash), floating (it has a hash function and an empty hash), or named by what goes into it.
    pub fn finish(&mut self, derivation: &mut Derivation) -> Result<(StorePath, Vec<u8>), ModuloError> {
        self.fill_in(derivation)?;
        let modulo = self.modulo(derivation)?;
        let text = write(derivation);
        let path = path_of_text(derivation, &text)?;
        self.known.insert(path.clone(), modulo);
        Ok((path, text))
    }

    /// What stands for a derivation that was finished.
    pub fn known(&self, path: &StorePath) -> Option<&Modulo> {
        self.known.get(path)
    }

    fn fill_in(&self, derivation: &mut Derivation) -> Result<(), ModuloError> {
        let is_named_by_inputs = |output: &Output| output.fixed.is_none();
        if derivation.outputs.values().any(is_named_by_inputs) {
            for (name, output) in &mut derivation.outputs {
                output.path = None;
                derivation.environment.insert(name.clone().into_bytes(), Vec::new());
            }
            let Some(hash) = self.hash_with_inputs(derivation)? else { return Ok(()) };
            for (name, output) in &mut derivation.outputs {
                let path = store_path::output_path(name, &hash, &derivation.name)?;
                derivation.environment.insert(name.clone().into_bytes(), path.as_str().into());
                output.path = Some(path);
            }
            return Ok(());
        }
        let is_only = derivation.outputs.len() == 1 && derivation.outputs.contains_key("out");
        for (name, output) in &mut derivation.outputs {
            let Some(fixed) = &output.fixed else { continue };
            let value = match NixHash::from_bytes(fixed.algorithm, fixed.hash.clone()) {
                Some(_) if !is_only => return Err(ModuloError::SeveralFixed),
                Some(hash) => {
                    let path = store_path::fixed_output_path(derivation.name.as_bytes(), fixed.recursive, &hash)?;
                    output.path.insert(path).as_str().to_owned()
                }
                None => {
                    output.path = None;
                    store_path::placeholder(name.as_bytes())
                }
            };
            derivation.environment.insert(name.clone().into_bytes(), value.into_bytes());
        }
        Ok(())
    }

    /// What stands for a derivation with all paths filled in.
    fn modulo(&self, derivation: &Derivation) -> Result<Modulo, ModuloError> {
        if let Some(Output { path: Some(path), fixed: Some(fixed) }) = derivation.outputs.get("out") {
            let text = format!("fixed:out:{}:{}:{path}", algorithm_text(fixed), to_hex(&fixed.hash));
            return Ok(Modulo::Fixed(NixHash::of(HashAlgorithm::Sha256, text.as_bytes())));
        }
        if derivation.outputs.values().any(|output| output.path.is_none()) {
            return Ok(Modulo::Deferred);
        }
        Ok(self.hash_with_inputs(derivation)?.map_or(Modulo::Deferred, Modulo::Inputs))
    }

    /// The hash of a derivation whose inputs are replaced by what stands for them; none if one of them is deferred.
    fn hash_with_inputs(&self, derivation: &Derivation) -> Result<Option<NixHash>, ModuloError> {
        // Two inputs may stand for the same thing; then their outputs are taken together.
        let mut inputs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (input, outputs) in &derivation.input_derivations {
            let unknown = || ModuloError::UnknownInput { derivation: derivation.name.clone(), input: input.clone() };
            match self.known.get(input).ok_or_else(unknown)? {
                Modulo::Deferred => return Ok(None),
                Modulo::Inputs(hash) => {
                    inputs.entry(to_hex(hash.as_bytes())).or_default().extend(outputs.iter().cloned());
                }
                Modulo::Fixed(hash) => {
                    if let Some(output) = outputs.iter().find(|output| *output != "out") {
                        let (output, derivation) = (output.clone(), derivation.name.clone());
                        return Err(ModuloError::UnknownOutput { output, derivation });
                    }
                    inputs.entry(to_hex(hash.as_bytes())).or_default().extend(outputs.iter().cloned());
                }
            }
        }
        let text = write_with_inputs(derivation, inputs.iter().map(|(hash, outputs)| (hash.as_str(), outputs)));
        Ok(Some(NixHash::of(HashAlgorithm::Sha256, &text)))
    }
}

/// The path of the `.drv` file of a derivation with all paths filled in.
pub fn derivation_path(derivation: &Derivation) -> Result<StorePath, StorePathError> {
    path_of_text(derivation, &write(derivation))
}

fn path_of_text(derivation: &Derivation, text: &[u8]) -> Result<StorePath, StorePathError> {
    let references = derivation.input_sources.iter().chain(derivation.input_derivations.keys()).cloned().collect();
    store_path::text_path(format!("{}.drv", derivation.name).as_bytes(), text, &references)
}

#[cfg(test)]
mod tests;
