//! `builtin:image`: a formation packed into a file, as `forge export` packs it, so that an image is what a derivation gives.

use std::collections::BTreeMap;
use std::fs::File;

use serde_json::Value;
use store::directory::{Claim, LayerRecord, Record};
use store::format::{ALL, Options, oci};
use store::{Capabilities, DeltaId, Formation, Launch, Limits, Port, Signal, User};

use super::{Builtin, Job};
use crate::{Error, Result};

/// Parameters: `format`; `name`, `version`, `variant`, `platform`, `launch` as a formation of the language has them; `layers`, a list
/// of `{label, layer}`, lowest first.
pub struct Image;

impl Builtin for Image {
    fn name(&self) -> &'static str {
        "image"
    }

    fn phase(&self) -> &'static str {
        "image"
    }

    /// The bytes follow from the version of the artifacts' formats, too.
    fn version(&self) -> u32 {
        store::format::VERSION
    }

    fn build(&self, job: &Job<'_>) -> Result<Claim> {
        let store = job.builder.store;
        let wanted: String = job.parameter("format")?;
        let format = ALL.iter().find(|format| format.name() == wanted);
        let format = format.ok_or_else(|| wrong(job, "format", format!("`{wanted}` is no format of artifacts")))?;
        let described: Vec<BTreeMap<String, String>> = job.parameter("layers")?;
        let (mut deltas, mut layers): (Vec<DeltaId>, Vec<LayerRecord>) = Default::default();
        for layer in &described {
            let field = |name: &str| layer.get(name).cloned().unwrap_or_default();
            let delta = job.delta(&field("layer"))?;
            let extent = store.extent(store.delta(delta)?.tree)?;
            deltas.push(delta);
            layers.push(LayerRecord {
                label: field("label"),
                delta: delta.to_string(),
                size: extent.bytes,
                files: extent.files,
            });
        }
        let formation = Formation {
            name: job.parameter("name")?,
            version: job.parameter("version")?,
            variant: job.parameter("variant")?,
            platform: job.parameter("platform")?,
            root: store.merge(&deltas)?,
            launch: launch(job)?,
        };
        let options = Options { remembered: true, ..Options::default() };
        let scratch = store.scratch()?;
        let path = scratch.path().join("image");
        let mut file = File::create(&path).map_err(Error::file("make", &path))?;
        if format.name() == "oci" {
            // By these layers, whatever else is known of how such a root came to be.
            oci::write_archive(store, &oci::collection_of(store, &formation, &layers, &options)?, &mut file)?;
        } else {
            let id = formation.id();
            if store.formation(id).is_err() {
                store.put_formation(&formation, &Record { layers, ..Record::default() })?;
            }
            format.pack(store, id, &options, &mut file)?;
        }
        let mut file = File::open(&path).map_err(Error::file("open", &path))?;
        let (blob, _) = store.put_blob_from(&mut file, false)?;
        Ok(Claim::Blob(blob))
    }
}

/// The launch settings, as the library's `formation` writes them.
fn launch(job: &Job<'_>) -> Result<Launch> {
    let launch: BTreeMap<String, Value> = job.parameter("launch")?;
    let missing = Value::Null;
    let field = |name: &str| launch.get(name).unwrap_or(&missing);
    let bad = |name: &str| wrong(job, name, "this is no such setting".to_owned());
    let bytes = |text: String| text.into_bytes();
    let words = |name: &str| read::<Vec<String>>(field(name)).ok_or_else(|| bad(name));
    let limits: BTreeMap<String, Option<u64>> = read(field("limits")).ok_or_else(|| bad("limits"))?;
    let limit = |name: &str| limits.get(name).copied().flatten();
    let texts = |name: &str| read::<BTreeMap<String, String>>(field(name)).ok_or_else(|| bad(name));
    let text = |name: &str| read::<Option<String>>(field(name)).ok_or_else(|| bad(name));
    let mut capabilities = Capabilities::NONE;
    for name in words("capabilities")? {
        capabilities = capabilities.with(Capabilities::named(&name).ok_or_else(|| bad("capabilities"))?);
    }
    let parsed = |name: &str| -> Result<Vec<Port>> {
        words(name)?.iter().map(|text| text.parse().map_err(|_| bad(name))).collect()
    };
    Ok(Launch {
        entrypoint: words("entrypoint")?.into_iter().map(bytes).collect(),
        command: words("command")?.into_iter().map(bytes).collect(),
        environment: texts("environment")?.into_iter().map(|(name, value)| (bytes(name), bytes(value))).collect(),
        directory: text("directory")?.map(bytes),
        user: text("user")?.map(|text| text.parse::<User>().map_err(|_| bad("user"))).transpose()?,
        limits: Limits {
            memory: limit("memory"),
            cpu_millis: limit("cpu_millis"),
            pids: limit("pids"),
            timeout_millis: limit("timeout_millis"),
        },
        ports: parsed("ports")?.into_iter().collect(),
        network: read(field("network")).ok_or_else(|| bad("network"))?,
        stop_signal: text("stopSignal")?
            .map(|text| text.parse::<Signal>().map_err(|_| bad("stopSignal")))
            .transpose()?,
        capabilities,
        labels: texts("labels")?,
    })
}

fn read<T: serde::de::DeserializeOwned>(value: &Value) -> Option<T> {
    serde_json::from_value(value.clone()).ok()
}

fn wrong(job: &Job<'_>, parameter: &str, reason: String) -> Error {
    Error::Parameter { step: job.name.to_owned(), parameter: parameter.to_owned(), reason }
}
