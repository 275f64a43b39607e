//! A formation as an OCI image: which bytes there are, wherever they go.
//!
//! What comes out is a list of contents, each with its descriptor, in the order in which a registry takes them (what is referred
//! to before what refers), and an index over them. A directory, a tar and a registry are filled from the same list.

use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{channel, sync_channel};
use std::thread;

use serde_json::json;

use super::config::{self, FORMATION_LABEL};
use super::descriptor::{Annotations, Descriptor, Index, Manifest, Platform, media, to_json};
use super::layer::Layer;
use super::squeeze::{Squeezed, squeeze};
use crate::directory::LayerRecord;
use crate::format::{Compression, Options};
use crate::{BlobId, DeltaId, Error, Formation, FormationId, Result, Store};

/// How much of a blob is read at a time.
const PART: usize = 1 << 20;

/// Something that has a descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// What it is, its digest and size.
    pub descriptor: Descriptor,
    /// Where its bytes are.
    pub source: Source,
}

/// Where bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Here.
    Bytes(Vec<u8>),
    /// In the store, compressed.
    Blob(BlobId),
    /// The same, compressed a moment ago and hashed on the way there.
    Made(BlobId),
}

impl Content {
    fn of(media_type: &str, bytes: Vec<u8>) -> Self {
        Self { descriptor: Descriptor::of(media_type, &bytes), source: Source::Bytes(bytes) }
    }

    /// Its bytes as they lie here, not compared with the digest: whoever gets them does that.
    pub fn reader(&self, store: &Store) -> Result<Box<dyn Read>> {
        match &self.source {
            Source::Bytes(bytes) => Ok(Box::new(io::Cursor::new(bytes.clone()))),
            Source::Blob(blob) | Source::Made(blob) => Ok(Box::new(store.open_blob(*blob)?)),
        }
    }

    /// Gives its bytes to `take`; fails if they are not what the descriptor says (a damaged store). What is read is hashed
    /// while `take` has what came before. What was hashed a moment ago is not hashed again: only its length is looked at.
    pub fn each(&self, store: &Store, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<()> {
        let written = crate::format::write_failed;
        let (blob, mut hasher) = match &self.source {
            Source::Bytes(bytes) => return take(bytes).map_err(written),
            Source::Blob(blob) => (*blob, Some(self.descriptor.digest.hasher())),
            Source::Made(blob) => (*blob, None),
        };
        let mut file = store.open_blob(blob)?;
        let mut left = self.descriptor.size;
        let (actual, taken) = thread::scope(|scope| {
            let (filled, arriving) = sync_channel::<Vec<u8>>(2);
            let (emptied, spare) = channel::<Vec<u8>>();
            let reader = scope.spawn(move || -> io::Result<_> {
                loop {
                    let mut buffer = spare.try_recv().unwrap_or_default();
                    buffer.resize(PART, 0);
                    let length = file.read(&mut buffer)?;
                    buffer.truncate(length);
                    if let Some(hasher) = &mut hasher {
                        hasher.update(&buffer);
                    }
                    // Whoever takes no more has failed, and says so.
                    if length == 0 || filled.send(buffer).is_err() {
                        return Ok(hasher.map(|hasher| hasher.finish()));
                    }
                }
            });
            let taken = arriving.into_iter().try_for_each(|buffer| {
                // No more goes out than was announced.
                let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                left -= length as u64;
                take(&buffer[..length])?;
                let _ = emptied.send(buffer);
                Ok(())
            });
            (reader.join(), taken)
        });
        taken.map_err(written)?;
        let actual = actual.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let actual = actual.map_err(Error::file("read", store.path()))?;
        let actual = match actual {
            Some(actual) if actual != self.descriptor.digest => actual.to_string(),
            None if left > 0 => format!("{left} bytes less"),
            _ => return Ok(()),
        };
        let from = format!("compressed layer {blob} of the store");
        Err(Error::Mismatch { from, actual, expected: self.descriptor.digest.to_string() })
    }
}

/// One formation as an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Layers (each once), configuration, manifest.
    pub contents: Vec<Content>,
    /// Of the manifest, with platform.
    pub manifest: Descriptor,
    /// What the formation is called in a registry or an engine: a repository and a tag.
    pub reference: (String, String),
}

/// The image of a formation. Compressed layers are kept in the store, and taken from there the next time (if they are to be
/// [`Options::remembered`]).
pub fn image(store: &Store, id: FormationId, options: &Options) -> Result<Image> {
    image_of(store, &store.formation(id)?, &store.record(id)?.layers, options)
}

/// The same for these layers, lowest first, whatever the store has on record.
fn image_of(store: &Store, formation: &Formation, layers: &[LayerRecord], options: &Options) -> Result<Image> {
    let id = formation.id();
    let mut contents: Vec<Content> = Vec::new();
    let (mut descriptors, mut diff_ids) = (Vec::new(), Vec::new());
    let layers = recorded(store, formation, layers)?;
    let squeezed = all_compressed(store, &layers, options)?;
    for ((squeezed, known), (_, label)) in squeezed.into_iter().zip(layers) {
        let suffix = match options.compression {
            Compression::Zstd(_) => "+zstd",
            Compression::Gzip(_) => "+gzip",
        };
        let descriptor = Descriptor::new(&format!("{}{suffix}", media::LAYER), squeezed.digest, squeezed.size);
        if contents.iter().all(|content| content.descriptor.digest != descriptor.digest) {
            let source = if known { Source::Blob(squeezed.blob) } else { Source::Made(squeezed.blob) };
            contents.push(Content { descriptor: descriptor.clone(), source });
        }
        descriptors.push(descriptor);
        diff_ids.push((squeezed.diff_id, label));
    }
    let config = Content::of(media::CONFIG, config::of_formation(formation, &diff_ids));
    let mut annotations = Annotations::from([
        (FORMATION_LABEL.to_owned(), id.to_string()),
        ("org.opencontainers.image.created".to_owned(), config::CREATED.to_owned()),
        ("org.opencontainers.image.title".to_owned(), formation.name.clone()),
    ]);
    if !formation.version.is_empty() {
        annotations.insert("org.opencontainers.image.version".to_owned(), formation.version.clone());
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: media::MANIFEST.to_owned(),
        artifact_type: None,
        config: config.descriptor.clone(),
        layers: descriptors,
        subject: None,
        annotations,
    };
    let manifest = Content::of(media::MANIFEST, to_json(&manifest));
    let descriptor = Descriptor { platform: Some(Platform::parse(&formation.platform)), ..manifest.descriptor.clone() };
    contents.extend([config, manifest]);
    Ok(Image { contents, manifest: descriptor, reference: reference(formation) })
}

/// The layers of a formation, lowest first, with what people call them. Where its record does not give its root there is one.
fn recorded(store: &Store, formation: &Formation, layers: &[LayerRecord]) -> Result<Vec<(Layer, String)>> {
    let whole = || Ok(vec![(Layer::whole(store, formation.root)?, "forge".to_owned())]);
    let mut deltas: Vec<(DeltaId, String)> = Vec::new();
    for record in layers {
        match record.delta.parse() {
            Ok(id) => deltas.push((id, format!("forge {}", record.label))),
            Err(_) => return whole(),
        }
    }
    let ids: Vec<DeltaId> = deltas.iter().map(|(id, _)| *id).collect();
    let gives_root = match store.merge(&ids) {
        // A record is beside the identity: what it lists may be gone, or never have been here.
        Err(Error::NotFound { .. }) => false,
        root => root? == formation.root,
    };
    if deltas.is_empty() || !gives_root {
        return whole();
    }
    let mut layers = Vec::with_capacity(deltas.len());
    for (index, (id, label)) in deltas.into_iter().enumerate() {
        let delta = store.delta(id)?;
        // The root itself went: nothing of what lies below is there any more.
        if delta.removed.contains(&crate::RelativePath::default()) {
            layers.clear();
        }
        layers.push(match layers.is_empty() {
            true => (Layer::whole(store, delta.tree)?, label),
            false => (Layer::over(store, &delta, store.merge(&ids[..index])?)?, label),
        });
    }
    Ok(layers)
}

/// All layers compressed. At the end of one, less and less is left to do for its threads: so the next is begun meanwhile.
fn all_compressed(store: &Store, layers: &[(Layer, String)], options: &Options) -> Result<Vec<(Squeezed, bool)>> {
    let next = AtomicUsize::new(0);
    let some = || {
        let mut made = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some((layer, _)) = layers.get(number) else { return made };
            made.push((number, compressed(store, layer, options)));
        }
    };
    let mut made = thread::scope(|scope| {
        let is_alone = rayon::current_num_threads() < 2 || layers.len() < 2;
        let other = (!is_alone).then(|| scope.spawn(some));
        let mut made = some();
        let other = other.map_or(Ok(Vec::new()), thread::ScopedJoinHandle::join);
        made.extend(other.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        made
    });
    made.sort_by_key(|(number, _)| *number);
    made.into_iter().map(|(_, squeezed)| squeezed).collect()
}

/// A layer compressed, and whether it was known: as it was kept in the store, if that may be used, or made now.
fn compressed(store: &Store, layer: &Layer, options: &Options) -> Result<(Squeezed, bool)> {
    let compression = options.compression;
    let key = format!("{} {compression} {}", crate::digest::to_hex(&layer.key()), compression.version());
    let key = blake3::derive_key("forge 2026-11-21 compressed OCI layer v1", key.as_bytes());
    if options.remembered
        && let Some((blob, note)) = store.claim_of_layer(&key)?
        && let Some(squeezed) = from_note(blob, &note)
        && store.open_blob(blob)?.metadata().is_ok_and(|metadata| metadata.len() == squeezed.size)
    {
        return Ok((squeezed, true));
    }
    let squeezed = squeeze(store, compression, |output| layer.write(store, output))?;
    let Squeezed { blob, size, digest, diff_id } = squeezed;
    store.put_claim_of_layer(&key, blob, &format!("{digest} {size} {diff_id}"))?;
    Ok((squeezed, false))
}

fn from_note(blob: BlobId, note: &str) -> Option<Squeezed> {
    let mut words = note.split(' ');
    let (digest, size, diff_id) = (words.next()?, words.next()?, words.next()?);
    Some(Squeezed { blob, digest: digest.parse().ok()?, size: size.parse().ok()?, diff_id: diff_id.parse().ok()? })
}

/// Name and version by the rules of registries: a repository is of lower-case letters, digits and single `.`, `_`, `-` between
/// them; a tag of letters, digits, `_`, `.` and `-`, beginning with none of the last two.
fn reference(formation: &Formation) -> (String, String) {
    let mut repository = String::new();
    for character in formation.name.to_ascii_lowercase().chars() {
        match character {
            'a'..='z' | '0'..='9' => repository.push(character),
            _ if repository.ends_with(['.', '_', '-']) || repository.is_empty() => {}
            '.' | '_' => repository.push(character),
            _ => repository.push('-'),
        }
    }
    let repository = repository.trim_end_matches(['.', '_', '-']).to_owned();
    let repository = if repository.is_empty() { "formation".to_owned() } else { repository };
    let parts = [formation.version.as_str(), &formation.variant];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let allowed = |character: char| character.is_ascii_alphanumeric() || "_.-".contains(character);
    let tag: String =
        parts.join("-").chars().map(|character| if allowed(character) { character } else { '_' }).collect();
    let tag: String = tag.trim_start_matches(['.', '-']).chars().take(128).collect();
    (repository, if tag.is_empty() { "latest".to_owned() } else { tag })
}

/// Several images to be kept together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collection {
    /// Everything that is referred to, each once.
    pub contents: Vec<Content>,
    /// What stands in a layout's `index.json`.
    pub index: Index,
}

/// The images of formations: one, or an index over those of several platforms.
pub fn collection(store: &Store, ids: &[FormationId], options: &Options) -> Result<Collection> {
    let images = ids.iter().map(|id| Ok((*id, image(store, *id, options)?)));
    joined(store, images.collect::<Result<_>>()?, options)
}

/// The image of a formation that came to be by these layers, lowest first.
pub fn collection_of(
    store: &Store,
    formation: &Formation,
    layers: &[LayerRecord],
    options: &Options,
) -> Result<Collection> {
    joined(store, vec![(formation.id(), image_of(store, formation, layers, options)?)], options)
}

fn joined(store: &Store, mut images: Vec<(FormationId, Image)>, options: &Options) -> Result<Collection> {
    let platform = |manifest: &Descriptor| manifest.platform.as_ref().map(Platform::to_string);
    // The order in which they are given does not show.
    images.sort_by_key(|(_, image)| platform(&image.manifest));
    let mut contents: Vec<Content> = Vec::new();
    for content in images.iter().flat_map(|(_, image)| &image.contents) {
        if contents.iter().all(|known| known.descriptor.digest != content.descriptor.digest) {
            contents.push(content.clone());
        }
    }
    let Some((_, first)) = images.first() else { return Ok(Collection { contents, index: Index::new(Vec::new()) }) };
    let mut top = match images.as_slice() {
        [(_, image)] => image.manifest.clone(),
        images => {
            let manifests: Vec<Descriptor> = images.iter().map(|(_, image)| image.manifest.clone()).collect();
            if let Some(pair) = manifests.windows(2).find(|pair| platform(&pair[0]) == platform(&pair[1])) {
                let platform = platform(&pair[0]).unwrap_or_default();
                return Err(Error::SamePlatform { platform });
            }
            let content = Content::of(media::INDEX, to_json(&Index::new(manifests)));
            let descriptor = content.descriptor.clone();
            contents.push(content);
            descriptor
        }
    };
    let (repository, tag) = &first.reference;
    top.annotations.insert("org.opencontainers.image.ref.name".to_owned(), format!("{repository}:{tag}"));
    let mut index = vec![top];
    for (id, image) in &images {
        for attachment in &options.attach {
            let attached = referrer(&image.manifest, attachment.media_type(), attachment.document(store, *id)?);
            if let Some(manifest) = attached.last() {
                let artifact_type = Some(attachment.media_type().to_owned());
                index.push(Descriptor { artifact_type, ..manifest.descriptor.clone() });
            }
            for content in attached {
                if contents.iter().all(|known| known.descriptor.digest != content.descriptor.digest) {
                    contents.push(content);
                }
            }
        }
    }
    Ok(Collection { contents, index: Index::new(index) })
}

/// A manifest for something that belongs to another one, by the rules of OCI 1.1 for referrers: an SBOM, a signature. Gives the
/// contents to be put beside the image's, the manifest last.
pub fn referrer(subject: &Descriptor, artifact_type: &str, bytes: Vec<u8>) -> Vec<Content> {
    let empty = Content::of(media::EMPTY, to_json(&json!({})));
    let content = Content::of(artifact_type, bytes);
    let manifest = Manifest {
        schema_version: 2,
        media_type: media::MANIFEST.to_owned(),
        artifact_type: Some(artifact_type.to_owned()),
        config: empty.descriptor.clone(),
        layers: vec![content.descriptor.clone()],
        subject: Some(Descriptor::new(&subject.media_type, subject.digest, subject.size)),
        annotations: Annotations::new(),
    };
    let manifest = Content::of(media::MANIFEST, to_json(&manifest));
    vec![empty, content, manifest]
}

#[cfg(test)]
mod tests {
    use super::reference as of;
    use super::*;
    use crate::{Launch, Tree};

    #[test]
    fn a_reference_keeps_the_rules_of_registries() {
        let reference = |name: &str, version: &str, variant: &str| {
            let [name, version, variant, platform] = [name, version, variant, "linux/amd64"].map(str::to_owned);
            let (root, launch) = (Tree::empty().id(), Launch::default());
            let (repository, tag) = of(&Formation { name, version, variant, platform, root, launch });
            format!("{repository}:{tag}")
        };
        assert_eq!(reference("analysis", "1.0.0", ""), "analysis:1.0.0");
        assert_eq!(reference("Big+Name-", "1+2", "cuda"), "big-name:1_2-cuda");
        assert_eq!(reference("a..b__c", "", ""), "a.b_c:latest");
        assert_eq!(reference("a", ".-x", ""), "a:x");
        assert_eq!(reference("+", "", ""), "formation:latest");
    }
}
