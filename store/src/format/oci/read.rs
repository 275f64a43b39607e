//! An image, read: which manifest is meant, what it says, and its layers one over the other.

use std::collections::BTreeSet;
use std::io::Read;

use serde::Deserialize;

use super::config::{FORMATION_LABEL, ImageConfig};
use super::descriptor::{Descriptor, Digest, Index, Manifest, Platform, media};
use super::layer::{OPAQUE, WHITEOUT};
use super::open::{Arrangement, Checked, Parts};
use super::view::View;
use crate::digest::StepKey;
use crate::directory::{Claim, LayerRecord};
use crate::format::tar::read::Archive;
use crate::format::tar::unpack::{Unpacker, unreadable};
use crate::format::{Bounds, Dropped, Imported, Inspection, Part, unpacked};
use crate::{Delta, DeltaId, Error, Name, Result, Store, TreeId};

/// Indexes in indexes.
const DEEPEST_INDEX: usize = 4;
/// Manifests of all indexes, and indexes.
const MOST_MANIFESTS: usize = 1000;
/// Layers of an image; engines that stack them take some hundred.
const MOST_LAYERS: usize = 1000;

/// Which image of several is meant.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// For this platform (`linux/arm64`); else the only one, or that for this machine.
    pub platform: Option<&'a str>,
    /// Called so: a reference, the last part of one, a tag, or the digest of a manifest (of an image of Docker's, of its configuration).
    pub image: Option<&'a str>,
}

/// One image as it lies there, its configuration read and checked.
pub struct Found {
    /// How it is run.
    pub config: ImageConfig,
    /// Lowest first.
    pub layers: Vec<Layer>,
    /// What it is called: the last part of a repository, and a tag.
    pub reference: Option<(String, Option<String>)>,
    /// What the manifest is annotated with.
    pub title: Option<String>,
    /// Likewise.
    pub version: Option<String>,
    /// Of the manifest, if there is one.
    pub digest: Option<Digest>,
    /// Bytes of all parts.
    pub size: u64,
    /// The platforms of all images that lie there; empty if it is the only one of an archive of Docker's.
    pub images: Vec<String>,
}

/// A layer as it lies there.
pub enum Layer {
    /// Found by its digest.
    Part(Descriptor),
    /// Found by its name in an archive of Docker's.
    File(String),
}

#[derive(Deserialize)]
struct DockerImage {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags", default)]
    tags: Option<Vec<String>>,
    #[serde(rename = "Layers")]
    layers: Vec<String>,
}

impl Parts<'_> {
    fn json<T: serde::de::DeserializeOwned>(&self, what: &str, bytes: &[u8]) -> Result<T> {
        serde_json::from_slice(bytes).map_err(|error| self.bad(format!("{what}: {error}")))
    }

    /// The image that is asked for; where there is only one, that one if nothing is.
    pub fn find(&self, wanted: &Wanted<'_>) -> Result<Found> {
        let platform = wanted.platform.map(Platform::parse);
        let platform = platform.as_ref();
        let missing = |name: &str| self.bad(format!("it has no {name}"));
        match self.arrangement {
            Arrangement::Layout => {
                let index = self.whole_file("index.json")?.ok_or_else(|| missing("index.json"))?;
                self.choose(self.json("index.json", &index)?, wanted.image, platform)
            }
            Arrangement::Flat => {
                let bytes = self.whole_file("manifest.json")?.ok_or_else(|| missing("manifest.json"))?;
                let value: serde_json::Value = self.json("manifest.json", &bytes)?;
                match value.get("manifests").is_some() {
                    true => self.choose(self.json("manifest.json", &bytes)?, wanted.image, platform),
                    false => self.image(&Descriptor::of(media::MANIFEST, &bytes), &bytes, platform),
                }
            }
            Arrangement::Docker => {
                let bytes = self.whole_file("manifest.json")?.ok_or_else(|| missing("manifest.json"))?;
                self.docker(self.json("manifest.json", &bytes)?, wanted.image, platform)
            }
        }
    }

    fn choose(&self, index: Index, image: Option<&str>, platform: Option<&Platform>) -> Result<Found> {
        let mut images: Vec<(Descriptor, Platform)> = Vec::new();
        let mut waiting: Vec<(Descriptor, usize)> = index.manifests.into_iter().map(|entry| (entry, 0)).collect();
        waiting.reverse();
        let (mut seen, mut indexes) = (BTreeSet::new(), BTreeSet::new());
        while let Some((entry, depth)) = waiting.pop() {
            if seen.len() + indexes.len() > MOST_MANIFESTS || depth > DEEPEST_INDEX {
                return Err(self.bad("its indexes have no end"));
            }
            if entry.is_index() {
                // The same index a thousand times in each of a thousand is read once.
                if !indexes.insert((entry.digest, name_of(&entry))) {
                    continue;
                }
                let inner: Index = self.json("an index", &self.bytes(&entry, true)?)?;
                for mut below in inner.manifests.into_iter().rev() {
                    // What an index is called, its images are called.
                    for (name, value) in &entry.annotations {
                        below.annotations.entry(name.clone()).or_insert_with(|| value.clone());
                    }
                    waiting.push((below, depth + 1));
                }
                continue;
            }
            if !seen.insert(entry.digest) || entry.artifact_type.is_some() {
                continue;
            }
            let named = entry.platform.clone().filter(|platform| !platform.os.is_empty());
            // Attestations stand beside images, for a platform that none has.
            if named.as_ref().is_some_and(|platform| platform.os == "unknown") {
                continue;
            }
            let platform = match named {
                Some(platform) => platform,
                None => match self.platform_of(&entry)? {
                    Some(platform) => platform,
                    None => continue,
                },
            };
            images.push((entry, platform));
        }
        if let Some(image) = image {
            let names: Vec<String> = images.iter().filter_map(|(entry, _)| name_of(entry)).collect();
            images.retain(|(entry, _)| {
                name_of(entry).is_some_and(|name| is_called(&name, image)) || entry.digest.to_string() == image
            });
            if images.is_empty() {
                return Err(self.unknown(image, &names));
            }
        }
        let here = Platform::parse(&format!("linux/{}", architecture()));
        let wanted = platform.unwrap_or(&here);
        let fitting = || images.iter().filter(|(_, has)| has.fits(wanted));
        let chosen = match (images.as_slice(), platform) {
            ([only], None) => only,
            _ => {
                let mut fits = fitting();
                let first = fits.next().ok_or_else(|| {
                    let has: Vec<String> = images.iter().map(|(_, has)| has.to_string()).collect();
                    self.bad(format!(
                        "it has no image for {wanted}, but for {}",
                        if has.is_empty() { "none".to_owned() } else { has.join(", ") }
                    ))
                })?;
                // Several of one platform differ in name, or in a variant of the processor: then the plain one.
                let exact: Vec<_> = fitting().filter(|(_, has)| has.variant == wanted.variant).collect();
                match exact.as_slice() {
                    [] => first,
                    [one] => *one,
                    several => {
                        let names: Vec<String> = several.iter().filter_map(|(entry, _)| name_of(entry)).collect();
                        let names = if names.is_empty() { "no names".to_owned() } else { names.join(", ") };
                        return Err(self.bad(format!("it has several images for {wanted} ({names}): name one of them")));
                    }
                }
            }
        };
        let (entry, _) = chosen;
        let bytes = self.bytes(entry, true)?;
        let mut found = self.image(entry, &bytes, platform)?;
        found.images = images.iter().map(|(_, has)| has.to_string()).collect();
        Ok(found)
    }

    /// What the configuration says; nothing of what is no image.
    fn platform_of(&self, entry: &Descriptor) -> Result<Option<Platform>> {
        let manifest: Manifest = self.json("a manifest", &self.bytes(entry, true)?)?;
        if !is_image(&manifest) {
            return Ok(None);
        }
        let config: ImageConfig = self.json("a configuration", &self.bytes(&manifest.config, false)?)?;
        Ok(Some(config.platform()))
    }

    fn image(&self, entry: &Descriptor, bytes: &[u8], platform: Option<&Platform>) -> Result<Found> {
        let manifest: Manifest = self.json("the manifest", bytes)?;
        if manifest.schema_version != 2 || !is_image(&manifest) {
            return Err(self.bad("its manifest is not of an image"));
        }
        let config: ImageConfig = self.json("the configuration", &self.bytes(&manifest.config, false)?)?;
        self.check_platform(&config, platform)?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            let (layers, named) = (manifest.layers.len(), config.rootfs.diff_ids.len());
            return Err(self.bad(format!("the manifest has {layers} layers, and the configuration {named}")));
        }
        if manifest.layers.len() > MOST_LAYERS {
            return Err(self.bad(format!("it has {} layers, more than any tool takes", manifest.layers.len())));
        }
        for layer in &manifest.layers {
            let kind = layer.media_type.as_str();
            let known = [
                media::LAYER,
                media::DOCKER_LAYER,
                "application/vnd.oci.image.layer.nondistributable.v1.tar",
                "application/vnd.docker.image.rootfs.foreign.diff.tar",
            ];
            if !known.iter().any(|known| kind.starts_with(known)) || kind.contains("encrypted") {
                return Err(self.bad(format!("it has a layer of kind `{kind}`, which is not one of files")));
            }
        }
        let annotation = |name: &str| manifest.annotations.get(name).or(entry.annotations.get(name)).cloned();
        let sizes = manifest.layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add);
        Ok(Found {
            reference: name_of(entry).map(|name| split(&name)),
            title: annotation("org.opencontainers.image.title"),
            version: annotation("org.opencontainers.image.version"),
            digest: Some(entry.digest),
            size: sizes.saturating_add(manifest.config.size).saturating_add(bytes.len() as u64),
            config,
            layers: manifest.layers.into_iter().map(Layer::Part).collect(),
            images: Vec::new(),
        })
    }

    fn unknown(&self, image: &str, names: &[String]) -> Error {
        let names = if names.is_empty() { "none with a name".to_owned() } else { listed(names) };
        self.bad(format!("it has no image `{image}`, but {names}"))
    }

    fn docker(&self, mut images: Vec<DockerImage>, wanted: Option<&str>, platform: Option<&Platform>) -> Result<Found> {
        let names: Vec<String> = images.iter().flat_map(|image| image.tags.iter().flatten()).cloned().collect();
        if let Some(wanted) = wanted {
            let digits = wanted.strip_prefix("sha256:").unwrap_or(wanted);
            images.retain(|image| {
                let id = image.config.rsplit('/').next().unwrap_or_default();
                image.tags.iter().flatten().any(|tag| is_called(tag, wanted))
                    || id.strip_suffix(".json").unwrap_or(id) == digits
            });
            if images.is_empty() {
                return Err(self.unknown(wanted, &names));
            }
        }
        let [image] = images.as_slice() else {
            return Err(self.bad(format!("it has {} images ({}): name one of them", images.len(), listed(&names))));
        };
        let bytes = self.whole_file(&image.config)?;
        let bytes = bytes.ok_or_else(|| self.bad(format!("it has no `{}`", image.config)))?;
        // The name of the configuration is its digest, and that the image's id.
        let digits = image.config.rsplit('/').next().unwrap_or_default();
        if let Ok(expected) = format!("sha256:{}", digits.strip_suffix(".json").unwrap_or(digits)).parse::<Digest>() {
            self.compare(&image.config, Digest::of(&bytes), expected)?;
        }
        let config: ImageConfig = self.json("the configuration", &bytes)?;
        self.check_platform(&config, platform)?;
        if config.rootfs.diff_ids.len() != image.layers.len() {
            let (layers, named) = (image.layers.len(), config.rootfs.diff_ids.len());
            return Err(self.bad(format!("it has {layers} layers, and the configuration {named}")));
        }
        let mut size = bytes.len() as u64;
        for layer in &image.layers {
            size = size.saturating_add(self.file(layer)?.map_or(0, |(_, size)| size));
        }
        let reference = image.tags.iter().flatten().next().map(|tag| split(tag));
        let layers = image.layers.iter().cloned().map(Layer::File).collect();
        Ok(Found { config, layers, reference, title: None, version: None, digest: None, size, images: Vec::new() })
    }

    fn check_platform(&self, config: &ImageConfig, wanted: Option<&Platform>) -> Result<()> {
        let has = config.platform();
        if has.os != "linux" && !has.os.is_empty() {
            return Err(self.bad(format!("it is for {has}, and formations are for Linux")));
        }
        match wanted {
            Some(wanted) if !has.fits(wanted) => Err(self.bad(format!("it is for {has}, and not for {wanted}"))),
            _ => Ok(()),
        }
    }

    /// Takes all layers into the store, one over the other; every digest is checked before anything is made of them.
    pub fn import(&self, store: &Store, found: &Found, bounds: &Bounds) -> Result<Imported> {
        let (mut bounds, mut dropped) = (*bounds, Dropped::default());
        let mut deltas: Vec<DeltaId> = Vec::new();
        let mut records = Vec::new();
        let mut labels =
            found.config.history.iter().filter(|step| !step.empty_layer).map(|step| step.created_by.clone());
        let known = self.taken_before(store, found)?;
        for (index, (layer, diff_id)) in found.layers.iter().zip(&found.config.rootfs.diff_ids).enumerate() {
            let id = match known.get(index) {
                Some(id) => *id,
                None => {
                    let below = if deltas.is_empty() { None } else { Some(store.merge(&deltas)?) };
                    let before = dropped.0.len();
                    let (delta, left) = self.layer(store, layer, diff_id, below, &bounds, &mut dropped)?;
                    bounds = left;
                    let id = store.put_delta(&delta)?;
                    // What was left out is told every time; so what leaves something out is read every time.
                    if dropped.0.len() == before {
                        store.put_claim_of_step(&taken_key(diff_id, below), &Claim::Delta(id))?;
                    }
                    id
                }
            };
            let extent = store.extent(store.delta(id)?.tree)?;
            let label = labels.next().flatten().unwrap_or_default();
            let (size, files) = (extent.bytes, extent.files);
            records.push(LayerRecord { label: shortened(&label), delta: id.to_string(), size, files });
            deltas.push(id);
        }
        let root = store.merge(&deltas)?;
        let mut launch = found.config.launch(&mut dropped);
        // Ours is believed where it gives what is there; a label that was inherited is none of this image's.
        let formation = found.config.formation().filter(|formation| formation.root == root);
        launch.labels.remove(FORMATION_LABEL);
        let (name, version) = found.names();
        Ok(Imported {
            root,
            formation,
            name,
            version,
            platform: Some(found.config.platform().to_string()),
            launch,
            layers: records,
            dropped,
        })
    }

    /// The lowest layers of what is fetched that were taken in before, over the same trees; the others are asked for. What lies here
    /// is read all the same: whoever imports a file wants to know that it is whole.
    fn taken_before(&self, store: &Store, found: &Found) -> Result<Vec<DeltaId>> {
        let Some(place) = self.fetched() else { return Ok(Vec::new()) };
        let mut known: Vec<DeltaId> = Vec::new();
        for diff_id in &found.config.rootfs.diff_ids {
            let below = if known.is_empty() { None } else { Some(store.merge(&known)?) };
            match store.claim_of_step(&taken_key(diff_id, below))? {
                Some(Claim::Delta(id)) => known.push(id),
                _ => break,
            }
        }
        let wanted = found.layers[known.len()..].iter().filter_map(|layer| match layer {
            Layer::Part(descriptor) => Some(descriptor.clone()),
            Layer::File(_) => None,
        });
        place.expect(&wanted.collect::<Vec<_>>());
        Ok(known)
    }

    fn layer(
        &self,
        store: &Store,
        layer: &Layer,
        diff_id: &Digest,
        below: Option<TreeId>,
        bounds: &Bounds,
        dropped: &mut Dropped,
    ) -> Result<(Delta, Bounds)> {
        let (mut stream, digest) = match layer {
            Layer::Part(descriptor) => (self.stream(descriptor)?, Some(descriptor.digest)),
            Layer::File(name) => match self.file(name)? {
                Some((reader, _)) => (Checked::new(reader, diff_id), None),
                None => return Err(self.bad(format!("it has no `{name}`"))),
            },
        };
        let taken = read_layer(store, &mut stream, self.from(), below, bounds, *diff_id);
        // Of bytes that are not what they should be, that is the thing to say, and not what became of them.
        if let Some(expected) = digest {
            self.compare("a layer", stream.end().map_err(|error| unreadable(self.from(), error))?, expected)?;
        }
        let (delta, more, left) = taken?;
        dropped.extend(more);
        Ok((delta, left))
    }
}

/// By what is remembered which delta a layer is over the tree below.
fn taken_key(diff_id: &Digest, below: Option<TreeId>) -> StepKey {
    let below = below.map(|id| id.to_string()).unwrap_or_default();
    StepKey::of(format!("OCI layer {diff_id} over {below}").as_bytes())
}

/// Takes a layer, compressed or not, into the store as a delta over the tree below. Fails if what it unpacks to is not what its
/// configuration says (`diff_id`). Gives what no tree can hold of it, and how much may still come. `from` is for messages.
pub fn read_layer(
    store: &Store,
    reader: &mut dyn Read,
    from: &str,
    below: Option<TreeId>,
    bounds: &Bounds,
    diff_id: Digest,
) -> Result<(Delta, Dropped, Bounds)> {
    let failed = |error: std::io::Error| unreadable(from, error);
    let (_, plain) = unpacked(reader).map_err(failed)?;
    let mut plain = Checked::new(plain, &diff_id);
    let mut unpacker = Unpacker::new(store, from, bounds, View::new(store, below));
    take_in(&mut Archive::new(&mut plain), &mut unpacker)?;
    let actual = plain.end().map_err(failed)?;
    if actual != diff_id {
        let (actual, expected) = (actual.to_string(), diff_id.to_string());
        return Err(Error::Mismatch { from: format!("{from}: a layer, unpacked"), actual, expected });
    }
    let left = unpacker.left();
    let (mut view, dropped) = unpacker.finish()?;
    match view.failure.take() {
        Some(error) => Err(error),
        None => Ok((view.finish()?, dropped, left)),
    }
}

/// Takes in a layer's entries; those that stand for something removed are told by their names.
fn take_in(archive: &mut Archive<impl Read>, unpacker: &mut Unpacker<'_, View<'_>>) -> Result<()> {
    while let Some(entry) = archive.next().map_err(|problem| unpacker.problem(problem))? {
        // Not read as a path at once: with the mark before it, a name may be longer than any name that is kept.
        let parts = entry.path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
        let parts: Vec<&[u8]> = parts.collect();
        let Some((name, parent)) = parts.split_last().filter(|(name, _)| name.starts_with(WHITEOUT)) else {
            let taken = unpacker.entry(archive, entry);
            if let Some(error) = unpacker.growing.failure.take() {
                return Err(error);
            }
            taken?;
            continue;
        };
        let parent = unpacker.path(&parent.join(&b'/'))?;
        let hidden = match *name {
            OPAQUE => unpacker.growing.make_opaque(&parent),
            // Other notes of aufs, which mean nothing outside of it.
            note if note.starts_with(b".wh..wh.") => Ok(()),
            name => match Name::new(&name[WHITEOUT.len()..]) {
                Ok(name) => unpacker.growing.white_out(&parent.join(&name)),
                Err(_) => Err("it removes what has no name"),
            },
        };
        if let Err(reason) = hidden {
            let failure = unpacker.growing.failure.take();
            return Err(failure.unwrap_or_else(|| unpacker.bad(format!("`{}`: {reason}", entry.path.escape_ascii()))));
        }
    }
    Ok(())
}

impl Found {
    /// What a foreign image is called, and its version.
    fn names(&self) -> (Option<String>, Option<String>) {
        let label = |name: &str| self.config.config.labels.get(name).cloned().filter(|text| !text.is_empty());
        let name = self.title.clone().or_else(|| label("org.opencontainers.image.title"));
        let name = self.reference.as_ref().map(|(name, _)| name.clone()).or(name);
        let tag = self.reference.as_ref().and_then(|(_, tag)| tag.clone()).filter(|tag| tag != "latest");
        let version = self.version.clone().or_else(|| label("org.opencontainers.image.version"));
        (name, tag.or(version))
    }

    /// What it says of itself.
    pub fn inspection(&self, format: &'static str, parts: &Parts) -> Inspection {
        let mut dropped = Dropped::default();
        let launch = self.config.launch(&mut dropped);
        let (name, version) = self.names();
        let mut inspection = Inspection {
            format,
            size: self.size,
            formation: self.config.formation(),
            name,
            version,
            platform: Some(self.config.platform().to_string()),
            launch,
            ..Inspection::default()
        };
        for (layer, diff_id) in self.layers.iter().zip(&self.config.rootfs.diff_ids) {
            let (name, size, kind) = match layer {
                Layer::Part(descriptor) => {
                    (descriptor.digest.to_string(), descriptor.size, descriptor.media_type.clone())
                }
                Layer::File(name) => {
                    (name.clone(), parts.file(name).ok().flatten().map_or(0, |(_, size)| size), "tar".to_owned())
                }
            };
            let compression =
                kind.rsplit(['+', '.']).next().filter(|end| ["gzip", "zstd"].contains(end)).unwrap_or("none");
            inspection.compression = compression.to_owned();
            let detail = format!("unpacked {diff_id}");
            inspection.parts.push(Part { kind: "layer".to_owned(), name, offset: None, size, detail });
        }
        if self.images.len() > 1 {
            inspection.facts.insert("images".to_owned(), self.images.join(", "));
        }
        inspection.facts.extend(self.digest.map(|digest| ("manifest".to_owned(), digest.to_string())));
        inspection
    }
}

fn is_image(manifest: &Manifest) -> bool {
    manifest.artifact_type.is_none()
        && [media::CONFIG, media::DOCKER_CONFIG, ""].contains(&manifest.config.media_type.as_str())
}

fn name_of(entry: &Descriptor) -> Option<String> {
    let names = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
    names.iter().find_map(|name| entry.annotations.get(*name)).cloned()
}

/// Whether an image of this name is meant: by the whole of it, by repository (with the tag `latest`, or any), by its last part
/// with or without the tag, or by the tag alone.
fn is_called(name: &str, wanted: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or_default();
    let untagged = |text: &str| match text.rfind(':') {
        Some(colon) if !text[colon..].contains('/') => text[..colon].to_owned(),
        _ => text.to_owned(),
    };
    let tag = split(name).1;
    name == wanted
        || last == wanted
        || untagged(name) == wanted
        || untagged(last) == wanted
        || tag.is_some_and(|tag| tag == wanted)
}

/// `registry:5000/team/name:tag` is `name` and `tag`; a tag alone is one too.
fn split(reference: &str) -> (String, Option<String>) {
    let reference = reference.split('@').next().unwrap_or_default();
    let last = reference.rsplit('/').next().unwrap_or_default();
    match last.split_once(':') {
        Some((name, tag)) => (name.to_owned(), Some(tag.to_owned())),
        None => (last.to_owned(), None),
    }
}

/// Names for a message, which is to stay one that people read.
fn listed(names: &[String]) -> String {
    const MOST: usize = 20;
    let first = names.iter().take(MOST).map(|name| shortened(name)).collect::<Vec<_>>().join(", ");
    if names.len() > MOST { format!("{first}, …") } else { first }
}

/// What people call a layer, in one line; ours begin with a word that says whose they are.
fn shortened(label: &str) -> String {
    let label = label.strip_prefix("forge ").unwrap_or(label);
    let words: Vec<&str> = label.split_whitespace().collect();
    let mut text: String = words.join(" ").chars().filter(|character| !character.is_control()).take(80).collect();
    if text.is_empty() {
        text.push_str("layer");
    }
    text
}

/// Of this machine, as Go names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}
