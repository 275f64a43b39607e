//! Images of registries as layers: what `forge.oci` asks of a lock, and how a layer of an image is taken in.
//!
//! The lock pins an image's manifest and every layer by digest; then building needs no registry: layers are files known by their
//! SHA-256, looked for in the store first, like every other download. Their address is `oci:HOST/REPOSITORY`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Write};

use serde_json::Value;
use store::directory::Claim;
use store::format::Bounds;
use store::format::oci::descriptor::{Descriptor, Digest};
use store::format::oci::read_layer;
use store::http::{Client, Patience};
use store::lock::{LockEntry, LockRequest};
use store::registry::{self, Access, Reference, SCHEME, Session};
use store::{BlobId, DeltaId};

use crate::builtin::{Builtin, Job};
use crate::fetch::Wanted;
use crate::report::Span;
use crate::resolve::{Resolver, parameter};
use crate::{Builder, Error, Result};

/// Answers locks of kind `oci`: `{image, platform}` → one record of the image, and one of each layer.
pub struct Image;

impl Resolver for Image {
    fn kind(&self) -> &'static str {
        "oci"
    }

    fn resolve(&self, builder: &Builder<'_>, request: &LockRequest) -> Result<LockEntry> {
        let (image, platform): (String, String) = (parameter(request, "image")?, parameter(request, "platform")?);
        let reference = reference(&image)?;
        let _span = Span::start(builder.reporter, "resolve", &image, None);
        let access = access(builder);
        let described = registry::describe(&Session::new(&access, &reference), &reference, Some(&platform));
        let described = described.map_err(|error| interrupted(builder, error))?;
        let text = |text: &str| Value::from(text.to_owned());
        let mut records = vec![BTreeMap::from([
            ("name".to_owned(), text(reference.name())),
            ("digest".to_owned(), text(&described.digest.to_string())),
            ("manifest".to_owned(), text(&described.manifest.to_string())),
            ("settings".to_owned(), text(&described.settings)),
        ])];
        for (index, layer) in described.layers.iter().enumerate() {
            let Digest::Sha256(sha256) = layer.digest else {
                let reason = format!("layer {} is not named by SHA-256", layer.digest);
                return Err(Error::Invalid { what: "image", name: image, reason });
            };
            records.push(BTreeMap::from([
                ("layer".to_owned(), Value::from(index)),
                ("sha256".to_owned(), text(&store::digest::to_hex(&sha256))),
                ("size".to_owned(), Value::from(layer.size)),
                ("unpacked".to_owned(), text(&layer.diff_id.to_string())),
            ]));
        }
        Ok(LockEntry { request: request.clone(), records })
    }
}

fn reference(image: &str) -> Result<Reference> {
    format!("{SCHEME}{image}").parse().map_err(|error| store::Error::Registry(error).into())
}

fn access(builder: &Builder<'_>) -> Access {
    Access {
        client: Client::new(builder.machine.environment.clone(), Patience::default()),
        settings: builder.machine.registries.clone(),
        listener: None,
    }
}

/// A registry's word for an interrupt has no signal.
fn interrupted(builder: &Builder<'_>, error: store::Error) -> Error {
    builder.check_interrupt().err().unwrap_or_else(|| error.into())
}

/// Fetches a layer, known by its SHA-256, of `HOST/REPOSITORY` into the store.
pub fn fetch(builder: &Builder<'_>, wanted: &Wanted<'_>, repository: &str) -> Result<BlobId> {
    let refused =
        |reason: &str| Error::Invalid { what: "address", name: wanted.url.to_owned(), reason: reason.to_owned() };
    let (Some(sha256), Some(size)) = (wanted.sha256, wanted.size) else {
        return Err(refused("of a registry only what is pinned by digest and size is fetched"));
    };
    let reference = reference(repository)?;
    let descriptor = Descriptor::new("", Digest::Sha256(sha256), size);
    let access = access(builder);
    let session = Session::new(&access, &reference);
    let label = format!("{} {}", reference.name(), &descriptor.digest.to_string()[..19]);
    let span = Span::start(builder.reporter, "fetch", label, Some(size));
    let scratch = builder.store.scratch()?;
    let path = scratch.path().join("layer");
    let mut file = File::create(&path).map_err(Error::file("create", &path))?;
    let mut received = 0;
    let fetched = session.blob(&descriptor, &mut |bytes| {
        received += bytes.len() as u64;
        span.advance(received);
        file.write_all(bytes)
    });
    fetched.map_err(|error| interrupted(builder, error))?;
    drop(file);
    Ok(builder.store.adopt_blob(&path, false)?.0)
}

/// `builtin:oci-layer`: one layer of an image, over those below it. Parameters: `layer` (a file), `unpacked` (its digest before it was
/// compressed), `layers` (what lies below, lowest first).
pub struct Layer;

impl Builtin for Layer {
    fn name(&self) -> &'static str {
        "oci-layer"
    }

    fn phase(&self) -> &'static str {
        "unpack"
    }

    fn build(&self, job: &Job<'_>) -> Result<Claim> {
        let store = job.builder.store;
        let (layer, unpacked): (String, String) = (job.parameter("layer")?, job.parameter("unpacked")?);
        let layers: Vec<String> = job.parameter("layers")?;
        let diff_id: Digest = unpacked.parse().map_err(|error: store::format::oci::descriptor::DigestError| {
            Error::Parameter { step: job.name.to_owned(), parameter: "unpacked".to_owned(), reason: error.to_string() }
        })?;
        let below = layers.iter().map(|path| job.delta(path)).collect::<Result<Vec<DeltaId>>>()?;
        let below = if below.is_empty() { None } else { Some(store.merge(&below)?) };
        let file = store.open_blob(job.blob(&layer)?)?;
        let size = file.metadata().map_err(Error::file("look at", store.path()))?.len();
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let (delta, dropped, _) = read_layer(store, &mut reader, job.name, below, &Bounds::for_size(size), diff_id)?;
        for (kind, (count, _)) in &dropped.0 {
            let note = format!("{}: left out: {kind}, {count} times", job.name);
            job.builder.reporter.report(crate::Event::Note(&note));
        }
        Ok(Claim::Delta(store.put_delta(&delta)?))
    }
}
