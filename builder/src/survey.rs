//! What a build would do, without doing it: `forge build --dry-run`.

use store::{Derivation, FileHash, Plan, StorePath};

use crate::schedule::{is_download, unknown};
use crate::{Builder, Result, builtin};

/// What is here of a plan, and what is not.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// Outputs that were made before, and below which nothing was looked at.
    pub known: usize,
    /// Files that would be fetched, by name. One that is here already is none of them.
    pub fetched: Vec<Download>,
    /// Steps that would be made, by word and name. One whose inputs turn out to be those of an earlier one is not made after all.
    pub made: Vec<Step>,
}

/// A file that would be fetched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Download {
    /// Its name.
    pub name: String,
    /// Where from: an address, or a path that a mirror is asked for.
    pub url: String,
    /// Its size, where a lock knows it.
    pub size: Option<u64>,
}

/// A step that would be made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step {
    /// The word for it: `unpack`, `configure`, `run`, …
    pub phase: &'static str,
    /// Its name.
    pub name: String,
}

/// Looks at everything that a plan's goal leads to. Asks nobody: what peers have is not known.
pub fn survey(builder: &Builder<'_>, plan: &Plan) -> Result<Survey> {
    let goals: Vec<(&StorePath, &str)> =
        plan.goal.layers.iter().map(|layer| (&layer.derivation, layer.output.as_str())).collect();
    let (known, unknown) = unknown(builder, plan, &goals)?;
    let mut survey = Survey { known: known.len(), ..Survey::default() };
    for path in &unknown {
        let derivation = &plan.derivations[path];
        if !is_download(derivation) {
            survey.made.push(Step { phase: phase(derivation), name: derivation.name.clone() });
            continue;
        }
        if is_here(builder, derivation)? {
            survey.known += 1;
            continue;
        }
        let Parameters { url, size } = parameters(derivation);
        let url = url
            .or_else(|| derivation.environment.get(&b"url"[..]).map(|url| String::from_utf8_lossy(url).into_owned()));
        let (name, url) = (derivation.name.clone(), crate::fetch::redact(&url.unwrap_or_default()));
        survey.fetched.push(Download { name, url, size });
    }
    survey.fetched.sort();
    survey.made.sort();
    Ok(survey)
}

/// What forge's own downloads say of themselves; Nix's say neither so.
#[derive(Default, serde::Deserialize)]
pub(crate) struct Parameters {
    pub url: Option<String>,
    pub size: Option<u64>,
}

/// Of a derivation.
pub(crate) fn parameters(derivation: &Derivation) -> Parameters {
    let text = derivation.environment.get(&b"parameters"[..]);
    text.and_then(|text| serde_json::from_slice(text).ok()).unwrap_or_default()
}

/// Whether the file that a download must give is in the store, by its hash.
pub(crate) fn is_here(builder: &Builder<'_>, derivation: &Derivation) -> Result<bool> {
    let Some(fixed) = derivation.outputs.values().find_map(|output| output.fixed.as_ref()) else { return Ok(false) };
    let Some(hash) =
        FileHash::new(fixed.hash.clone()).filter(|hash| !fixed.recursive && hash.algorithm() == fixed.algorithm)
    else {
        return Ok(false);
    };
    Ok(builder.store.blob_with_hash(&hash)?.is_some())
}

fn phase(derivation: &Derivation) -> &'static str {
    let name = derivation.builder.strip_prefix(b"builtin:").unwrap_or_default();
    let found = builtin::ALL.iter().find(|builtin| builtin.name().as_bytes() == name);
    found.map_or("build", |builtin| builtin.phase())
}
