//! An image of a registry becomes a formation: the same readers as for a layout on disk, with parts that come from there.
//!
//! Layers are fetched side by side into scratch files, whole and checked before anything is made of them, and taken in one over
//! the other. A layer that was taken in before, over the same tree, is not fetched again.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use super::seen;
use super::session::Session;
use super::{Error, Reference};
use crate::directory::Scratch;
use crate::format::oci::Wanted;
use crate::format::oci::config::FORMATION_LABEL;
use crate::format::oci::descriptor::{Descriptor, Digest, Index, to_json};
use crate::format::oci::open::{Elsewhere, Parts};
use crate::format::{Bounds, Imported, Inspection};
use crate::{Error as StoreError, Result, Store};

/// How many layers are on their way at a time: what Docker and Podman do.
const SIDE_BY_SIDE: usize = 3;

/// Bytes of all layers that are fetched unasked.
const MOST_BYTES: u64 = 64 << 30;

/// What was pulled.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// What it holds.
    pub imported: Imported,
    /// Of what the reference named: a manifest, or an index over several.
    pub digest: Digest,
    /// Of the manifest that was chosen.
    pub manifest: Digest,
    /// Bytes that were fetched.
    pub fetched: u64,
}

/// Takes an image into the store: the one for a platform, else the only one or that for this machine.
pub fn pull(
    store: &Store,
    session: &Session<'_>,
    reference: &Reference,
    platform: Option<&str>,
    bounds: Option<Bounds>,
) -> Result<Pulled> {
    let scratch = store.scratch()?;
    let remote = Remote::new(session, reference, Some(&scratch))?;
    let digest = remote.top.digest;
    thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| remote.work());
        }
        // However this ends, nobody waits for more.
        let _end = End(&remote);
        let parts = Parts::elsewhere(reference.to_string(), &remote);
        let found = parts.find(&Wanted { platform, image: None })?;
        let given = bounds.is_some();
        // What a registry says of a size has cost it nothing: it counts up to what is sane for an image.
        let bounds = bounds.unwrap_or_else(|| Bounds::for_size(found.size.min(MOST_BYTES)));
        let most = if given { bounds.bytes } else { MOST_BYTES };
        if found.size > most {
            return Err(parts.bad(format!("its layers have {} bytes, and {most} are allowed", found.size)));
        }
        let imported = parts.import(store, &found, &bounds)?;
        let state = remote.state.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in &found.layers {
            if let crate::format::oci::Layer::Part(descriptor) = layer {
                seen::note(store, session.reference(), &descriptor.digest)?;
            }
        }
        Ok(Pulled { imported, digest, manifest: found.digest.unwrap_or(digest), fetched: state.fetched })
    })
}

/// What an image says of itself; its layers are not fetched.
pub fn inspect(session: &Session<'_>, reference: &Reference, platform: Option<&str>) -> Result<Inspection> {
    let remote = Remote::new(session, reference, None)?;
    let parts = Parts::elsewhere(reference.to_string(), &remote);
    let found = parts.find(&Wanted { platform, image: None })?;
    let mut inspection = found.inspection("registry", &parts);
    inspection.facts.insert("digest".to_owned(), remote.top.digest.to_string());
    if let Some(manifest) = found.digest {
        for (index, referrer) in session.referrers(&manifest)?.iter().take(100).enumerate() {
            let kind = referrer.artifact_type.as_deref().unwrap_or("document");
            let kind: String = kind.chars().filter(|character| !character.is_control()).collect();
            inspection.facts.insert(format!("attached {}", index + 1), format!("{kind} {}", referrer.digest));
        }
    }
    Ok(inspection)
}

/// An image as a lock pins it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Of what the reference named.
    pub digest: Digest,
    /// Of the manifest that was chosen.
    pub manifest: Digest,
    /// How it wants to be run: the `config` of its configuration, in one line of JSON.
    pub settings: String,
    /// Lowest first.
    pub layers: Vec<DescribedLayer>,
}

/// A layer as a lock pins it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescribedLayer {
    /// Of its bytes.
    pub digest: Digest,
    /// How many they are.
    pub size: u64,
    /// Of what they are before they were compressed.
    pub diff_id: Digest,
}

/// What a lock must know of an image.
pub fn describe(session: &Session<'_>, reference: &Reference, platform: Option<&str>) -> Result<Described> {
    let remote = Remote::new(session, reference, None)?;
    let parts = Parts::elsewhere(reference.to_string(), &remote);
    let mut found = parts.find(&Wanted { platform, image: None })?;
    // It says of the image what is no longer true of a formation that has it as a base.
    found.config.config.labels.remove(FORMATION_LABEL);
    let mut layers = Vec::new();
    for (layer, diff_id) in found.layers.iter().zip(&found.config.rootfs.diff_ids) {
        if let crate::format::oci::Layer::Part(Descriptor { digest, size, .. }) = layer {
            layers.push(DescribedLayer { digest: *digest, size: *size, diff_id: *diff_id });
        }
    }
    Ok(Described {
        digest: remote.top.digest,
        manifest: found.digest.unwrap_or(remote.top.digest),
        settings: String::from_utf8_lossy(&to_json(&found.config.config)).into_owned(),
        layers,
    })
}

/// The parts of one image, fetched when they are asked for.
struct Remote<'a> {
    session: &'a Session<'a>,
    scratch: Option<&'a Scratch>,
    /// What the reference names, and its bytes.
    top: Descriptor,
    top_bytes: Vec<u8>,
    /// The index of a layout with that alone in it.
    index: Vec<u8>,
    /// The configuration that was fetched last.
    last: Mutex<Option<(Digest, Vec<u8>)>>,
    state: Mutex<State>,
    changed: Condvar,
    ended: AtomicBool,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Descriptor>,
    done: HashMap<Digest, Result<PathBuf>>,
    /// How often each is still wanted.
    uses: HashMap<Digest, usize>,
    fetched: u64,
}

/// Ends the workers when dropped.
struct End<'a, 'b>(&'a Remote<'b>);

impl Drop for End<'_, '_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
        let _state = self.0.state.lock();
        self.0.changed.notify_all();
    }
}

impl<'a> Remote<'a> {
    fn new(session: &'a Session<'a>, reference: &Reference, scratch: Option<&'a Scratch>) -> Result<Self> {
        let (top, top_bytes) = session.manifest(&reference.wanted())?;
        let mut entry = top.clone();
        // As a layout would call it: name and version of a foreign image come from here.
        let tag = reference.tag.as_ref().filter(|_| reference.digest.is_none()).map_or("latest", String::as_str);
        let name = format!("{}:{tag}", reference.name());
        entry.annotations.insert("org.opencontainers.image.ref.name".to_owned(), name);
        let index = to_json(&Index::new(vec![entry]));
        let (state, changed, ended) = (Mutex::default(), Condvar::new(), AtomicBool::new(false));
        Ok(Self { session, scratch, top, top_bytes, index, last: Mutex::default(), state, changed, ended })
    }

    /// Fetches what is waited for, until the end.
    fn work(&self) {
        loop {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let descriptor = loop {
                if self.ended.load(Ordering::Relaxed) {
                    return;
                }
                match state.waiting.pop_front() {
                    Some(descriptor) => break descriptor,
                    None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(state);
            let fetched = self.fetch(&descriptor);
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if fetched.is_ok() {
                state.fetched += descriptor.size;
            }
            state.done.insert(descriptor.digest, fetched);
            self.changed.notify_all();
        }
    }

    fn fetch(&self, descriptor: &Descriptor) -> Result<PathBuf> {
        let Some(scratch) = self.scratch else { return Err(self.session.bad("no layer is to be fetched").into()) };
        let path = scratch.path().join(descriptor.digest.hex());
        let mut file = File::create(&path).map_err(StoreError::file("create", &path))?;
        self.session.blob(descriptor, &mut |bytes| match self.ended.load(Ordering::Relaxed) {
            true => Err(io::ErrorKind::BrokenPipe.into()),
            false => file.write_all(bytes),
        })?;
        Ok(path)
    }
}

impl Elsewhere for Remote<'_> {
    fn index(&self) -> Vec<u8> {
        self.index.clone()
    }

    fn small(&self, descriptor: &Descriptor, is_manifest: bool) -> Result<Vec<u8>> {
        if descriptor.digest == self.top.digest {
            return Ok(self.top_bytes.clone());
        }
        if is_manifest {
            return Ok(self.session.manifest(&descriptor.digest.to_string())?.1);
        }
        // The configuration that said the platform is read once more.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((digest, bytes)) if *digest == descriptor.digest => return Ok(bytes.clone()),
            _ => {}
        }
        let mut bytes = Vec::new();
        self.session.blob(descriptor, &mut |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })?;
        *last = Some((descriptor.digest, bytes.clone()));
        Ok(bytes)
    }

    fn expect(&self, layers: &[Descriptor]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in layers {
            let uses = state.uses.entry(layer.digest).or_default();
            *uses += 1;
            if *uses == 1 {
                state.waiting.push_back(layer.clone());
            }
        }
        self.changed.notify_all();
    }

    fn layer(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + '_>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let std::collections::hash_map::Entry::Vacant(e) = state.uses.entry(descriptor.digest) {
            e.insert(1);
            state.waiting.push_back(descriptor.clone());
            self.changed.notify_all();
        }
        while !state.done.contains_key(&descriptor.digest) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let path = match &state.done[&descriptor.digest] {
            Ok(path) => path.clone(),
            // It is reported once; whoever asks again fetches again.
            Err(_) => match state.done.remove(&descriptor.digest) {
                Some(Err(error)) => return Err(error),
                _ => return Err(Error::Interrupted.into()),
            },
        };
        let file = File::open(&path).map_err(StoreError::file("open", &path))?;
        if let Some(uses) = state.uses.get_mut(&descriptor.digest) {
            *uses = uses.saturating_sub(1);
            if *uses == 0 {
                // It lives as long as it is open; a big image needs no more room than its layers on the way.
                let _ = std::fs::remove_file(&path);
                state.done.remove(&descriptor.digest);
                state.uses.remove(&descriptor.digest);
            }
        }
        Ok(Box::new(file))
    }
}
