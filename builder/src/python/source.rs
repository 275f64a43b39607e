//! Source distributions: what building one needs is locked with it (PEP 517, PEP 518), and `builtin:python-source` builds it in the
//! sandbox and lays out the wheel that comes of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use executor::Bind;
use serde_json::Value;
use store::directory::Claim;
use store::{DeltaId, Node};

use crate::builtin::{Builtin, Job};
use crate::draft::{find, names};
use crate::fetch::Wanted;
use crate::python::lockfile::{Choice, resolved};
use crate::python::{PythonVersion, resolver, wheel};
use crate::step::{Command, run_step};
use crate::{Builder, Error, Result, unpack};

/// Parameters: `source` (a blob), `file` (its name), `python`, `layers` (what lies below), `wheels` (what building needs).
pub struct Source;

const BUILD: &str = include_str!("build.py");
/// What a project that says nothing is built with (PEP 517, "build-system table").
const DEFAULT: &[&str] = &["setuptools>=40.8.0", "wheel"];

impl Builtin for Source {
    fn name(&self) -> &'static str {
        "python-source"
    }

    fn phase(&self) -> &'static str {
        "build"
    }

    fn build(&self, job: &Job<'_>) -> Result<Claim> {
        let store = job.builder.store;
        let python = PythonVersion::parse(&job.parameter::<String>("python")?)?;
        let deltas = |name: &str| -> Result<Vec<DeltaId>> {
            job.parameter::<Vec<String>>(name)?.iter().map(|path| job.delta(path)).collect()
        };
        let mut layers = deltas("layers")?;
        layers.push(store.squash(&deltas("wheels")?)?);
        let file: String = job.parameter("file")?;
        let blob = job.blob(&job.parameter::<String>("source")?)?;
        let scratch = store.scratch()?;
        let (source, script) = (scratch.path().join("source"), scratch.path().join("build.py"));
        let mut copy = std::fs::File::create(&source).map_err(Error::file("create", &source))?;
        std::io::copy(&mut store.open_blob(blob)?, &mut copy).map_err(Error::file("write", &source))?;
        std::fs::write(&script, BUILD).map_err(Error::file("write", &script))?;
        let shown = format!("/run/forge/{}", if file.ends_with(".zip") { "source.zip" } else { "source.tar" });
        let bind = |source: PathBuf, target: &str| Bind { source, target: PathBuf::from(target), read_only: true };
        let binds = vec![bind(source, &shown), bind(script, "/run/forge/build.py")];
        let interpreter = format!("/usr/bin/python{python}");
        let words = [interpreter.as_str(), "-B", "/run/forge/build.py", &shown];
        let mut command = Command { binds, ..Command::new(&layers, words) };
        // What hashes in an order of its own would write in that order.
        command.environment.insert("PYTHONHASHSEED".into(), "0".into());
        let made = run_step(job.builder, job.name, &command)?;
        let out = find(store, store.delta(made)?.tree, &names("build/out"))?;
        let Some(Node::Directory(out)) = out else { return Err(nothing(job.name)) };
        let out = store.tree(out)?;
        let mut wheels = out.entries.iter().filter(|(name, _)| name.as_bytes().ends_with(b".whl"));
        let (Some((name, Node::File(built))), None) = (wheels.next(), wheels.next()) else {
            return Err(nothing(job.name));
        };
        let name = name.to_string();
        let going_on = || job.builder.check_interrupt();
        Ok(Claim::Delta(wheel::install(store, store.open_blob(built.blob)?, &name, python, &going_on)?))
    }
}

fn nothing(step: &str) -> Error {
    let reason = "building it gave no wheel".to_owned();
    Error::Invalid { what: "source distribution", name: step.to_owned(), reason }
}

/// To records of packages, those of whatever building them needs, each with `for`: the package that needs it.
pub fn with_build_requirements(
    builder: &Builder<'_>,
    mut records: Vec<BTreeMap<String, Value>>,
    choice: &Choice<'_>,
) -> Result<Vec<BTreeMap<String, Value>>> {
    let mut known: BTreeMap<Vec<String>, Vec<BTreeMap<String, Value>>> = BTreeMap::new();
    let mut needed = Vec::new();
    for record in &records {
        let text = |field: &str| record.get(field).and_then(Value::as_str).unwrap_or_default();
        let (name, file) = (text("name"), text("file"));
        if file.ends_with(".whl") {
            continue;
        }
        let wanted = build_requirements(builder, name, file, text("sha256"), choice)?;
        if !known.contains_key(&wanted) {
            let found = if wanted.is_empty() { Vec::new() } else { resolved(builder, &wanted, choice)? };
            if let Some(source) = found
                .iter()
                .find(|record| record.get("file").and_then(Value::as_str).is_some_and(|file| !file.ends_with(".whl")))
            {
                let needs = source.get("name").and_then(Value::as_str).unwrap_or_default();
                let reason = format!("building it needs `{needs}`, which has no wheel");
                return Err(Error::Invalid { what: "source distribution", name: file.to_owned(), reason });
            }
            known.insert(wanted.clone(), found);
        }
        needed.extend(known[&wanted].iter().map(|record| {
            let mut record = record.clone();
            record.insert("for".to_owned(), Value::from(name));
            record
        }));
    }
    records.extend(needed);
    Ok(records)
}

/// What a source distribution says that building it needs.
fn build_requirements(
    builder: &Builder<'_>,
    name: &str,
    file: &str,
    sha256: &str,
    choice: &Choice<'_>,
) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Project {
        #[serde(rename = "build-system")]
        build_system: Option<BuildSystem>,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct BuildSystem {
        #[serde(default)]
        requires: Vec<String>,
        build_backend: Option<String>,
    }
    let digest = store::digest::from_hex(sha256).and_then(|bytes| bytes.try_into().ok());
    let url = format!("python:{name}/{file}");
    let (blob, _) = builder.fetcher.fetch(builder, &Wanted { url: &url, sha256: digest, size: None })?;
    let unpacked = unpack::unpack(builder, blob, file)?;
    let default = || DEFAULT.iter().map(|text| (*text).to_owned()).collect();
    let Some(Node::File(project)) = find(builder.store, unpacked.tree, &names("pyproject.toml"))? else {
        return Ok(default());
    };
    let text = String::from_utf8_lossy(&builder.store.blob(project.blob)?).into_owned();
    let bad = |reason: String| Error::Invalid { what: "source distribution", name: file.to_owned(), reason };
    let project: Project = toml::from_str(&text).map_err(|error| bad(error.message().to_owned()))?;
    let Some(system) = project.build_system else { return Ok(default()) };
    let mut wanted = Vec::new();
    for text in &system.requires {
        let requirement = resolver::checked(text)?;
        if choice.holds_requirement(&requirement) {
            wanted.push(requirement);
        }
    }
    // setuptools asks for it while it builds, unless it is new enough to do without.
    if system.build_backend.as_deref().is_none_or(|backend| backend.starts_with("setuptools")) {
        for text in DEFAULT {
            let project = text.split('>').next().unwrap_or(text);
            if !wanted.iter().any(|wanted| wanted.starts_with(project)) {
                wanted.push((*text).to_owned());
            }
        }
    }
    wanted.sort();
    wanted.dedup();
    Ok(wanted)
}
