//! What a derivation allows its outputs to refer to, and how large they may be.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use store::{Store, StorePath};

use super::environment::words;
use super::outputs::Made;
use super::{Prepared, invalid};
use crate::Result;

/// What is demanded of one output.
#[derive(Debug, Default)]
struct Demands {
    allowed_references: Option<Vec<String>>,
    allowed_requisites: Option<Vec<String>>,
    disallowed_references: Option<Vec<String>>,
    disallowed_requisites: Option<Vec<String>>,
    max_size: Option<u64>,
    max_closure_size: Option<u64>,
    ignore_self: bool,
}

/// Checks all outputs against what the derivation demands.
pub fn check(store: &Store, prepared: &Prepared, made: &BTreeMap<String, Made>) -> Result<()> {
    let of_path: BTreeMap<&StorePath, &Made> = made.values().map(|made| (&made.info.path, made)).collect();
    for (name, output) in made {
        let demands = demands(prepared, name)?;
        let direct = output.info.references.clone();
        let closure = closure(prepared, &of_path, &output.info.path);
        let judge = Judge { prepared, made, name, demands: &demands, path: &output.info.path };
        judge.only("allowedReferences", &demands.allowed_references, &direct)?;
        judge.only("allowedRequisites", &demands.allowed_requisites, &closure)?;
        judge.none("disallowedReferences", &demands.disallowed_references, &direct)?;
        judge.none("disallowedRequisites", &demands.disallowed_requisites, &closure)?;
        if let Some(most) = demands.max_size
            && output.info.nar_size > most
        {
            let reason = format!("output `{name}` has {} bytes, and may have {most}", output.info.nar_size);
            return Err(invalid(&prepared.derivation.name, reason));
        }
        if let Some(most) = demands.max_closure_size {
            let mut size = 0;
            for path in &closure {
                size += match of_path.get(path) {
                    Some(made) => made.info.nar_size,
                    None => store.store_path(path)?.map_or(0, |(_, info)| info.nar_size),
                };
            }
            if size > most {
                let reason = format!("output `{name}` has {size} bytes with all it refers to, and may have {most}");
                return Err(invalid(&prepared.derivation.name, reason));
            }
        }
    }
    Ok(())
}

/// An output with all that it leads to.
fn closure(prepared: &Prepared, made: &BTreeMap<&StorePath, &Made>, path: &StorePath) -> BTreeSet<StorePath> {
    let (mut found, mut open) = (BTreeSet::new(), vec![path.clone()]);
    while let Some(path) = open.pop() {
        if !found.insert(path.clone()) {
            continue;
        }
        match (made.get(&path), prepared.inputs.paths.get(&path)) {
            (Some(made), _) => open.extend(made.info.references.iter().cloned()),
            (None, Some(input)) => open.extend(input.references.iter().cloned()),
            (None, None) => {}
        }
    }
    found
}

fn demands(prepared: &Prepared, output: &str) -> Result<Demands> {
    let mut demands = Demands::default();
    let Some(text) = prepared.variable("__json") else {
        let list = |name: &str| {
            let text = prepared.variable(name)?;
            Some(words(text).map(|word| String::from_utf8_lossy(word).into_owned()).collect())
        };
        demands.allowed_references = list("allowedReferences");
        demands.allowed_requisites = list("allowedRequisites");
        demands.disallowed_references = list("disallowedReferences");
        demands.disallowed_requisites = list("disallowedRequisites");
        return Ok(demands);
    };
    let attributes: Value = serde_json::from_slice(text)
        .map_err(|error| invalid(&prepared.derivation.name, format!("its structured attributes: {error}")))?;
    let Some(checks) = attributes.get("outputChecks").and_then(|checks| checks.get(output)) else { return Ok(demands) };
    let list = |name: &str| -> Option<Vec<String>> {
        let items = checks.get(name)?.as_array()?;
        Some(items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect())
    };
    let number = |name: &str| checks.get(name).and_then(Value::as_u64);
    Ok(Demands {
        allowed_references: list("allowedReferences"),
        allowed_requisites: list("allowedRequisites"),
        disallowed_references: list("disallowedReferences"),
        disallowed_requisites: list("disallowedRequisites"),
        max_size: number("maxSize"),
        max_closure_size: number("maxClosureSize"),
        ignore_self: checks.get("ignoreSelfRefs").and_then(Value::as_bool).unwrap_or(false),
    })
}

struct Judge<'a> {
    prepared: &'a Prepared,
    made: &'a BTreeMap<String, Made>,
    name: &'a str,
    demands: &'a Demands,
    path: &'a StorePath,
}

impl Judge<'_> {
    /// What a list of store paths and names of outputs stands for.
    fn paths(&self, what: &str, list: &[String]) -> Result<BTreeSet<StorePath>> {
        let mut paths = BTreeSet::new();
        for item in list {
            let whole = item.splitn(5, '/').take(4).collect::<Vec<_>>().join("/");
            let output = self.made.get(item).map(|made| made.info.path.clone());
            // Where an output lies while it is made stands for where it ends up.
            let scratch = self.prepared.scratch.iter().find(|(_, path)| path.as_str() == whole);
            let scratch = scratch.and_then(|(name, _)| self.made.get(name)).map(|made| made.info.path.clone());
            let wrong = || {
                invalid(
                    &self.prepared.derivation.name,
                    format!("`{what}` has `{item}`, which is neither output nor store path"),
                )
            };
            paths.insert(output.or(scratch).or_else(|| StorePath::parse(&whole)).ok_or_else(wrong)?);
        }
        Ok(paths)
    }

    fn found(&self, references: &BTreeSet<StorePath>) -> BTreeSet<StorePath> {
        let mut found = references.clone();
        if self.demands.ignore_self {
            found.remove(self.path);
        }
        found
    }

    fn only(&self, what: &str, list: &Option<Vec<String>>, references: &BTreeSet<StorePath>) -> Result<()> {
        let Some(list) = list else { return Ok(()) };
        let mut allowed = self.paths(what, list)?;
        if what == "allowedRequisites" {
            // What everything leads to is itself.
            allowed.insert(self.path.clone());
        }
        let bad: Vec<String> =
            self.found(references).iter().filter(|path| !allowed.contains(*path)).map(StorePath::to_string).collect();
        self.refuse(what, &bad)
    }

    fn none(&self, what: &str, list: &Option<Vec<String>>, references: &BTreeSet<StorePath>) -> Result<()> {
        let Some(list) = list else { return Ok(()) };
        let disallowed = self.paths(what, list)?;
        let bad: Vec<String> =
            self.found(references).iter().filter(|path| disallowed.contains(*path)).map(StorePath::to_string).collect();
        self.refuse(what, &bad)
    }

    fn refuse(&self, what: &str, bad: &[String]) -> Result<()> {
        if bad.is_empty() {
            return Ok(());
        }
        let reason = format!("output `{}` refers to {}, which `{what}` does not allow", self.name, bad.join(", "));
        Err(invalid(&self.prepared.derivation.name, reason))
    }
}
