//! `builtin:cargo-crate`, `builtin:cargo-vendor` and `builtin:cargo-record`: a crate unpacked; all of them as cargo's directory
//! source, with the configuration that leads there; and a record of them for the list of packages.

use std::collections::BTreeMap;

use serde_json::json;
use store::directory::Claim;
use store::{Name, Node, RelativePath};

use crate::builtin::{Builtin, Job};
use crate::draft::{Draft, find, names};
use crate::{Error, Result, unpack};

/// Parameters: `crate` (the blob), `name`, `version`, `sha256`.
pub struct Crate;

/// Parameter: `crates`, deltas of `cargo-crate`.
pub struct Vendor;

/// Parameters: `crates`, deltas of `cargo-crate`; `path`, where the record goes.
pub struct Record;

/// Where cargo finds the crates.
const VENDOR: &str = "build/vendor";
/// What leads it there.
const CONFIGURATION: (&str, &str) = (
    "build/cargo/config.toml",
    "[source.crates-io]\nreplace-with = \"vendored\"\n\n[source.vendored]\ndirectory = \"/build/vendor\"\n\n[net]\noffline = true\n",
);

impl Builtin for Crate {
    fn name(&self) -> &'static str {
        "cargo-crate"
    }

    fn phase(&self) -> &'static str {
        "unpack"
    }

    fn build(&self, job: &Job<'_>) -> Result<Claim> {
        let store = job.builder.store;
        let [name, version, sha256] = ["name", "version", "sha256"].map(|name| job.parameter::<String>(name));
        let (name, version, sha256) = (name?, version?, sha256?);
        let blob = job.blob(&job.parameter::<String>("crate")?)?;
        let unpacked = unpack::unpack(job.builder, blob, &format!("{name}-{version}.crate"))?;
        let about = |error: crate::draft::DraftError| error.about("crate", &name);
        let directory = Name::new(format!("{name}-{version}")).map_err(|error| Error::Invalid {
            what: "crate",
            name: name.clone(),
            reason: error.to_string(),
        })?;
        let mut draft = Draft::passing();
        draft.insert(store, std::slice::from_ref(&directory), Node::Directory(unpacked.tree)).map_err(about)?;
        let checksum = json!({ "files": {}, "package": sha256 }).to_string();
        draft.write(store, &format!("{directory}/.cargo-checksum.json"), 0o644, checksum.as_bytes()).map_err(about)?;
        Ok(Claim::Delta(draft.delta(store)?))
    }
}

impl Builtin for Vendor {
    fn name(&self) -> &'static str {
        "cargo-vendor"
    }

    fn phase(&self) -> &'static str {
        "install"
    }

    fn build(&self, job: &Job<'_>) -> Result<Claim> {
        let store = job.builder.store;
        let mut draft = Draft::passing();
        let about = |error: crate::draft::DraftError| error.about("crate", "vendored");
        draft.directory(store, &names(VENDOR)).map_err(about)?;
        for path in job.parameter::<Vec<String>>("crates")? {
            let tree = store.delta(job.delta(&path)?)?.tree;
            for (name, node) in &store.tree(tree)?.entries {
                let place: Vec<Name> = names(VENDOR).into_iter().chain([name.clone()]).collect();
                draft.replace(store, &place, node.clone()).map_err(about)?;
            }
        }
        draft.write(store, CONFIGURATION.0, 0o644, CONFIGURATION.1.as_bytes()).map_err(about)?;
        Ok(Claim::Delta(draft.delta(store)?))
    }
}

impl Builtin for Record {
    fn name(&self) -> &'static str {
        "cargo-record"
    }

    fn phase(&self) -> &'static str {
        "install"
    }

    fn build(&self, job: &Job<'_>) -> Result<Claim> {
        #[derive(serde::Deserialize)]
        struct Manifest {
            package: Option<BTreeMap<String, toml::Value>>,
        }
        let store = job.builder.store;
        let mut records = Vec::new();
        for path in job.parameter::<Vec<String>>("crates")? {
            let tree = store.delta(job.delta(&path)?)?.tree;
            for node in store.tree(tree)?.entries.values() {
                let Node::Directory(tree) = node else { continue };
                let text = |path: &str| -> Result<String> {
                    match find(store, *tree, &names(path))? {
                        Some(Node::File(file)) => Ok(String::from_utf8_lossy(&store.blob(file.blob)?).into_owned()),
                        _ => Ok(String::new()),
                    }
                };
                let manifest: Option<Manifest> = toml::from_str(&text("Cargo.toml")?).ok();
                let about = manifest.and_then(|manifest| manifest.package).unwrap_or_default();
                let field = |name: &str| about.get(name).and_then(toml::Value::as_str).unwrap_or_default().to_owned();
                let checksum: serde_json::Value =
                    serde_json::from_str(&text(".cargo-checksum.json")?).unwrap_or_default();
                records.push(json!({
                    "ecosystem": "cargo",
                    "name": field("name"),
                    "version": field("version"),
                    "licence": field("license"),
                    "homepage": field("repository"),
                    "sha256": checksum.get("package").cloned().unwrap_or_default(),
                }));
            }
        }
        let given: String = job.parameter("path")?;
        let path = RelativePath::parse(given.as_bytes());
        let path = path.map_err(|error| Error::Conflict { path: given.clone(), reason: error.to_string() })?;
        let text = serde_json::to_string_pretty(&records).unwrap_or_default() + "\n";
        let blob = store.put_blob(text.as_bytes(), false)?;
        let file = store::File { blob, size: text.len() as u64, metadata: store::Metadata::root(0o644) };
        let mut draft = Draft::passing();
        draft.insert(store, &path.0, Node::File(file)).map_err(|error| error.about("crate", "record"))?;
        Ok(Claim::Delta(draft.delta(store)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin::Input;
    use crate::world::World;

    #[test]
    fn a_crate_is_laid_out_with_its_checksum_and_recorded_with_its_licence() {
        let world = World::new();
        let builder = world.builder();
        let store = builder.store;
        let manifest = "[package]\nname = \"a\"\nversion = \"1.0.0\"\nlicense = \"MIT\"\n";
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(manifest.len() as u64);
        archive.append_data(&mut header, "a-1.0.0/Cargo.toml", manifest.as_bytes()).unwrap();
        let blob = store.put_blob(&archive.into_inner().unwrap(), false).unwrap();
        let made = |builtin: &dyn Builtin, parameters: serde_json::Value, inputs: &[(&str, Claim)]| {
            let inputs = inputs.iter().map(|(name, claim)| ((*name).to_owned(), Input::Claim(claim.clone()))).collect();
            let job = Job { builder: &builder, name: "a", parameters: &parameters, inputs: &inputs, fixed: None };
            builtin.build(&job).unwrap()
        };
        let parameters = json!({ "crate": "c", "name": "a", "version": "1.0.0", "sha256": "aa" });
        let unpacked = made(&Crate, parameters, &[("c", Claim::Blob(blob))]);
        let vendor = made(&Vendor, json!({ "crates": ["u"] }), &[("u", unpacked.clone())]);
        let record = made(&Record, json!({ "crates": ["u"], "path": "/r.json" }), &[("u", unpacked)]);
        let text = |claim: &Claim, path: &str| {
            let Claim::Delta(delta) = claim else { panic!() };
            let tree = store.delta(*delta).unwrap().tree;
            let Some(Node::File(file)) = find(store, tree, &names(path)).unwrap() else { panic!("{path}") };
            String::from_utf8(store.blob(file.blob).unwrap()).unwrap()
        };
        assert_eq!(text(&vendor, "build/vendor/a-1.0.0/.cargo-checksum.json"), r#"{"files":{},"package":"aa"}"#);
        assert!(text(&vendor, "build/cargo/config.toml").contains("/build/vendor"));
        assert!(text(&record, "r.json").contains(r#""licence": "MIT""#));
    }
}
