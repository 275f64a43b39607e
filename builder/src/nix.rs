//! Nix's own derivations: a program runs in a sandbox in which its inputs lie in /nix/store, and leaves its outputs there.
//!
//! Nothing is written to /nix on the host. An output becomes a delta that has it at its store path; what it refers to is found by
//! looking for the hash parts of everything it could know of. Outputs are named as Nix names them: by what goes in, by what they
//! must be, or (floating) by what came out. A floating input that came out as before leaves everything above it as it is; of others
//! only the name counts, as in Nix.

use std::collections::BTreeMap;
use std::sync::Arc;

use store::derivation::Output;
use store::digest::StepKey;
use store::directory::{Claim, Ownership};
use store::nix::path as names;
use store::{Derivation, Store, StorePath};

use crate::builtin::Input;
use crate::key::{Fact, content};
use crate::maker::Maker;
use crate::schedule::OutputKey;
use crate::{Builder, Error, Result, check};

mod builtins;
pub(crate) mod caches;
mod checks;
mod environment;
pub mod info;
mod inputs;
mod outputs;
mod references;
mod run;
mod structured;

use inputs::Inputs;

/// Part of every key: another way of making things, another number.
const VERSION: &str = "nix derivation v1";

/// Whether a derivation is made as Nix would make it; the others are forge's own.
pub fn is_nix(derivation: &Derivation) -> bool {
    match derivation.builder.strip_prefix(b"builtin:") {
        Some(name) => builtins::NAMES.contains(&name),
        None => true,
    }
}

/// A derivation whose inputs are here.
#[derive(Debug)]
pub struct Prepared {
    /// What it is made from.
    pub key: StepKey,
    /// The path of its file.
    path: StorePath,
    /// With all placeholders of other derivations' outputs replaced, and the paths of its own filled in.
    derivation: Derivation,
    /// Where each output lies while it is made.
    scratch: BTreeMap<String, StorePath>,
    inputs: Arc<Inputs>,
}

/// Makes a derivation ready: its inputs are looked up, its placeholders replaced.
pub(crate) fn prepare(
    maker: &Maker<'_>,
    path: &StorePath,
    derivation: &Derivation,
    claims: &BTreeMap<OutputKey, Claim>,
) -> Result<Prepared> {
    let (inputs, rewrites) = inputs::gather(maker, derivation, claims)?;
    let mut resolved = derivation.clone();
    let is_deferred = |output: &Output| output.path.is_none() && output.fixed.is_none();
    let is_floating = |output: &Output| output.fixed.as_ref().is_some_and(|fixed| fixed.hash.is_empty());
    let deferred = derivation.outputs.values().any(is_deferred);
    let by_content = !rewrites.is_empty() || deferred || derivation.outputs.values().any(is_floating);
    if !rewrites.is_empty() {
        for text in resolved.arguments.iter_mut().chain(resolved.environment.values_mut()) {
            *text = references::replace(text, &rewrites);
        }
        resolved.builder = references::replace(&resolved.builder, &rewrites);
    }
    if by_content {
        resolved.input_derivations.clear();
        resolved.input_sources.extend(inputs.direct.iter().cloned());
    }
    let bad_name = |error: names::StorePathError| invalid(&derivation.name, error.to_string());
    if deferred {
        for name in resolved.outputs.keys() {
            resolved.environment.insert(name.clone().into_bytes(), Vec::new());
        }
        let text = store::nix::aterm::write(&resolved);
        let hash = store::nix::hash::NixHash::of(store::derivation::HashAlgorithm::Sha256, &text);
        for (name, output) in &mut resolved.outputs {
            let path = names::output_path(name, &hash, &derivation.name).map_err(bad_name)?;
            resolved.environment.insert(name.clone().into_bytes(), path.as_str().into());
            output.path = Some(path);
        }
    }
    let mut scratch = BTreeMap::new();
    for (name, output) in &resolved.outputs {
        let place = match &output.path {
            Some(path) => path.clone(),
            None => names::scratch_path(path, name, &derivation.name).map_err(bad_name)?,
        };
        scratch.insert(name.clone(), place);
    }
    let key = StepKey::of(&[VERSION.as_bytes(), b"\0", &store::nix::aterm::write(&resolved)].concat());
    Ok(Prepared { key, path: path.clone(), derivation: resolved, scratch, inputs: Arc::new(inputs) })
}

impl Prepared {
    /// What went in, for people. Of store paths only the name is told: the hashes change with everything.
    pub fn facts(&self) -> Vec<Fact> {
        let text = |bytes: &[u8]| references::without_hashes(&String::from_utf8_lossy(bytes));
        let mut facts = vec![Fact::new("builder", text(&self.derivation.builder))];
        facts.push(Fact::new("system", String::from_utf8_lossy(&self.derivation.system)));
        for (number, argument) in self.derivation.arguments.iter().enumerate() {
            facts.push(Fact::new(format!("argument {}", number + 1), text(argument)));
        }
        for (name, value) in &self.derivation.environment {
            let name = String::from_utf8_lossy(name);
            if !self.derivation.outputs.contains_key(name.as_ref()) {
                facts.push(Fact::new(format!("variable {name}"), text(value)));
            }
        }
        for path in &self.inputs.direct {
            let node = self.inputs.paths.get(path).map(|input| content(&Input::Source(input.node.clone())));
            let fact = Fact::new(format!("input {}", path.name()), node.unwrap_or_default());
            facts.push(Fact { from: Some(path.to_string()), ..fact });
        }
        facts
    }

    /// What the outputs came out as before, if all of them are here.
    pub fn known(&self, store: &Store) -> Result<Option<BTreeMap<String, Claim>>> {
        let mut claims = BTreeMap::new();
        for (name, output) in &self.derivation.outputs {
            let claim = match &output.path {
                Some(path) => store.store_path(path)?.map(|(delta, _)| Claim::Delta(delta)),
                None => store.claim_of_step(&self.key_of(name))?,
            };
            match claim {
                Some(claim) if info::is_whole(store, &claim)? => _ = claims.insert(name.clone(), claim),
                _ => return Ok(None),
            }
        }
        Ok(Some(claims))
    }

    /// The key of one output.
    fn key_of(&self, output: &str) -> StepKey {
        StepKey::of(format!("{}!{output}", self.key).as_bytes())
    }

    /// Makes it.
    pub fn build(&self, builder: &Builder<'_>) -> Result<BTreeMap<String, Claim>> {
        self.check_system()?;
        let again = builder.work.as_ref().is_some_and(|work| work.elsewhere.is_some());
        let found = match self.derivation.builder.strip_prefix(b"builtin:") {
            Some(name) => BTreeMap::from([("out".to_owned(), builtins::build(builder, self, name)?)]),
            None => run::run(builder, self)?,
        };
        let made = outputs::finish(builder, self, found)?;
        checks::check(builder.store, self, &made)?;
        if !again {
            self.keep_sources(builder.store, &made)?;
        }
        let mut claims = BTreeMap::new();
        for (name, made) in made {
            // What is only compared must not take the place of what was made first.
            let delta = if again {
                builder.store.delta_at(&made.info.path, &made.node)?
            } else {
                let delta = builder.store.put_store_path(&made.node, &made.info)?;
                if self.derivation.outputs[&name].path.is_none() {
                    builder.store.put_claim_of_step(&self.key_of(&name), &Claim::Delta(delta))?;
                }
                delta
            };
            claims.insert(name, Claim::Delta(delta));
        }
        Ok(claims)
    }

    /// What outputs refer to must be known as store paths too: sources, and what forge's own steps gave.
    fn keep_sources(&self, store: &Store, made: &BTreeMap<String, outputs::Made>) -> Result<()> {
        let referred = made.values().flat_map(|made| &made.info.references);
        for path in self.inputs.closure(referred) {
            if store.store_path(&path)?.is_none() {
                let input = &self.inputs.paths[&path];
                let info = outputs::describe(store, &path, &input.node, input.references.clone())?;
                store.put_store_path(&input.node, &info)?;
            }
        }
        Ok(())
    }

    fn check_system(&self) -> Result<()> {
        let here = format!("{}-linux", std::env::consts::ARCH);
        let system = String::from_utf8_lossy(&self.derivation.system);
        // A processor of 64 bits runs what is for its smaller kin.
        let kin = here == "x86_64-linux" && system == "i686-linux";
        if system == here || system == "builtin" || kin {
            return Ok(());
        }
        let step = self.derivation.name.clone();
        Err(Error::System { step, wanted: system.into_owned(), here })
    }

    /// A text of the derivation that is to be there.
    fn variable(&self, name: &str) -> Option<&[u8]> {
        self.derivation.environment.get(name.as_bytes()).map(Vec::as_slice)
    }

    /// Whether an output is fixed, and as what.
    fn fixed(&self) -> Option<&store::derivation::FixedOutput> {
        self.derivation.outputs.values().find_map(|output| output.fixed.as_ref()).filter(|fixed| !fixed.hash.is_empty())
    }
}

/// An input of one of forge's own steps: by the path that stands for it, and by its placeholder where it is floating. What Nix's
/// derivations give is what lies at the store path.
pub(crate) fn as_input(
    maker: &Maker<'_>,
    input: &StorePath,
    output: &str,
    claim: &Claim,
) -> Result<Option<(String, Input)>> {
    let derivation = crate::schedule::derivation(maker.plan, input)?;
    let path = derivation.outputs.get(output).and_then(|output| output.path.as_ref());
    let name = path.map_or_else(|| names::upstream_placeholder(input, output), |path| path.as_str().to_owned());
    let store = maker.builder.store;
    let made = is_nix(derivation).then(|| info::output_of(store, claim)).transpose()?.flatten();
    let Some((path, node)) = made else { return Ok(Some((name, Input::Claim(claim.clone())))) };
    let missing = || Error::NoOutput { step: derivation.name.clone(), output: output.to_owned() };
    let closure = store.store_closure([&path])?.ok_or_else(missing)?.into_iter().map(|(delta, _)| delta).collect();
    Ok(Some((name, Input::Output { path, node, closure })))
}

fn invalid(name: &str, reason: impl Into<String>) -> Error {
    Error::Invalid { what: "derivation", name: name.to_owned(), reason: reason.into() }
}

/// Lays a tree out for a sandbox.
fn lay_out(store: &Store, tree: store::TreeId) -> Result<std::path::PathBuf> {
    Ok(store.checkout(tree, Ownership::Caller)?)
}

/// How many cores a step is told of: when it is made again elsewhere, another number.
fn cores(builder: &Builder<'_>) -> usize {
    let usual = builder.cores_told();
    match builder.work.as_ref().and_then(|work| work.elsewhere.as_ref()) {
        Some(_) => check::Elsewhere::cores(usual),
        None => usual,
    }
}
