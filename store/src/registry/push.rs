//! Formations go to a repository as an ordinary image: what is there is not sent, what a neighbour has is mounted, manifests come
//! last, so that a push that was cut leaves nothing that refers to what is not there.
//!
//! Beside the tag that people use each formation gets the tag `forge-ID`, by which it is found again without knowing another.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::fetch::fallback_tag;
use super::session::{ATTEMPTS, Body, Right, Session};
use super::{Error, Event, Reference, seen};
use crate::format::Options;
use crate::format::oci::config::FORMATION_LABEL;
use crate::format::oci::descriptor::{Annotations, Descriptor, Digest, Index, media, to_json};
use crate::format::oci::{self, Content};
use crate::http::Failure;
use crate::{FormationId, Result, Store};

/// How many blobs are looked for or sent at a time.
const SIDE_BY_SIDE: usize = 4;
/// What is not larger goes in one request.
const SMALL: u64 = 4 << 20;
/// What is sent at a time once a registry has said that more is too much.
const CHUNK: u64 = 16 << 20;

/// How a blob or manifest came to be in the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It was there.
    There,
    /// It was sent.
    Sent,
    /// Another repository of the registry had it.
    Mounted,
}

impl How {
    /// In one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::There => "there",
            Self::Sent => "sent",
            Self::Mounted => "mounted",
        }
    }
}

/// One blob or manifest of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedPart {
    /// What it is, its digest and size.
    pub descriptor: Descriptor,
    /// How it came to be there.
    pub how: How,
}

/// What a push did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Of the manifest, or of the index over several.
    pub digest: Digest,
    /// Under which tags it is found.
    pub tags: Vec<String>,
    /// Everything that it is made of.
    pub parts: Vec<PushedPart>,
}

impl Pushed {
    /// Bytes that were sent.
    pub fn sent(&self) -> u64 {
        self.parts.iter().filter(|part| part.how == How::Sent).map(|part| part.descriptor.size).sum()
    }
}

/// The tag by which a formation is found.
pub fn formation_tag(id: FormationId) -> String {
    format!("forge-{id}")
}

/// Sends formations: one, or several of different platforms under one index. Without a tag it is the formation's version,
/// with its name in front where the repository is called otherwise.
pub fn push(
    store: &Store,
    session: &Session<'_>,
    ids: &[FormationId],
    options: &Options,
    tag: Option<&str>,
) -> Result<Pushed> {
    let collection = oci::collection(store, ids, options)?;
    let (manifests, blobs): (Vec<&Content>, Vec<&Content>) = collection
        .contents
        .iter()
        .partition(|content| super::fetch::MANIFESTS.contains(&content.descriptor.media_type.as_str()));
    let Some(top) = collection.index.manifests.first() else { return Err(session.bad("nothing is to be sent").into()) };
    let tag = match tag {
        Some(tag) => tag.to_owned(),
        None => default_tag(session.reference(), top),
    };
    let mut parts = send_blobs(store, session, &blobs)?;
    let mut tags = BTreeSet::from([tag.clone()]);
    for content in manifests {
        let oci::Source::Bytes(bytes) = &content.source else { continue };
        let descriptor = &content.descriptor;
        let manifest: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
        let mut names = Vec::new();
        if descriptor.digest == top.digest {
            names.push(tag.clone());
        }
        let formation = manifest["annotations"][FORMATION_LABEL].as_str().and_then(|id| id.parse().ok());
        names.extend(formation.map(formation_tag));
        if names.is_empty() {
            names.push(descriptor.digest.to_string());
        }
        let mut how = How::There;
        for name in names {
            if session.put_manifest(&name, descriptor, bytes)? == How::Sent {
                how = How::Sent;
            }
            if name.starts_with("forge-") {
                tags.insert(name);
            }
        }
        parts.push(PushedPart { descriptor: descriptor.clone(), how });
    }
    Ok(Pushed { digest: top.digest, tags: tags.into_iter().collect(), parts })
}

/// The version, or name and version where the repository is not called as the formation is.
fn default_tag(reference: &Reference, top: &Descriptor) -> String {
    let called = top.annotations.get("org.opencontainers.image.ref.name").map(String::as_str).unwrap_or_default();
    let (name, tag) = called.split_once(':').unwrap_or((called, "latest"));
    match name == reference.name() || name.is_empty() {
        true => tag.to_owned(),
        false => format!("{name}-{tag}").chars().take(128).collect(),
    }
}

fn send_blobs(store: &Store, session: &Session<'_>, blobs: &[&Content]) -> Result<Vec<PushedPart>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let work = || -> Result<()> {
        while let Some((index, content)) =
            blobs.get(next.fetch_add(1, Ordering::Relaxed)).map(|content| (content.descriptor.digest, *content))
        {
            let how = session.put_blob(store, content)?;
            seen::note(store, session.reference(), &index)?;
            let part = PushedPart { descriptor: content.descriptor.clone(), how };
            done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(part);
        }
        Ok(())
    };
    // The first request finds out who answers and what must be shown; the others need not each do so.
    let results: Vec<Result<()>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..SIDE_BY_SIDE.min(blobs.len())).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    results.into_iter().collect::<Result<()>>()?;
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let place =
        |part: &PushedPart| blobs.iter().position(|content| content.descriptor.digest == part.descriptor.digest);
    done.sort_by_key(place);
    Ok(done)
}

impl Session<'_> {
    /// Puts a manifest under a tag or its digest, unless it is there.
    pub(super) fn put_manifest(&self, name: &str, descriptor: &Descriptor, bytes: &[u8]) -> Result<How> {
        if self.digest_of(name)? == Some(descriptor.digest) {
            return Ok(How::There);
        }
        let headers = [("content-type", descriptor.media_type.clone())];
        let url = self.url(&format!("manifests/{name}"))?;
        let answer = self.call(Right::Push, "PUT", &url, &headers, Body::Bytes(bytes))?;
        if !matches!(answer.status, 200..=202) {
            return Err(self.refused(Right::Push, format!("the manifest of `{name}`"), answer).into());
        }
        let keeps_referrers = answer.header("oci-subject").is_some();
        let document: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
        let subject = document["subject"]["digest"].as_str().and_then(|text| text.parse().ok());
        if let Some(subject) = subject.filter(|_| !keeps_referrers) {
            let kind = document["artifactType"].as_str().map(str::to_owned);
            self.note_referrer(&subject, Descriptor { artifact_type: kind, ..descriptor.clone() })?;
        }
        Ok(How::Sent)
    }

    /// Gives what one tag names another tag too.
    pub fn retag(&self, from: &str, to: &str) -> Result<()> {
        let (descriptor, bytes) = self.manifest(from)?;
        self.put_manifest(to, &descriptor, &bytes)?;
        Ok(())
    }

    /// Adds a referrer to the list that a registry without the referrers API has under a tag.
    fn note_referrer(&self, subject: &Digest, referrer: Descriptor) -> Result<()> {
        let mut list = match self.manifest(&fallback_tag(subject)) {
            Ok((_, bytes)) => {
                let index: Index =
                    serde_json::from_slice(&bytes).map_err(|error| self.bad(format!("referrers: {error}")))?;
                index.manifests
            }
            Err(crate::Error::Registry(Error::NotFound { .. })) => Vec::new(),
            Err(error) => return Err(error),
        };
        if list.iter().any(|known| known.digest == referrer.digest) {
            return Ok(());
        }
        list.push(Descriptor { annotations: Annotations::new(), ..referrer });
        let bytes = to_json(&Index::new(list));
        let descriptor = Descriptor::of(media::INDEX, &bytes);
        let url = self.url(&format!("manifests/{}", fallback_tag(subject)))?;
        let headers = [("content-type", descriptor.media_type)];
        let answer = self.call(Right::Push, "PUT", &url, &headers, Body::Bytes(&bytes))?;
        match answer.status {
            200..=202 => Ok(()),
            _ => Err(self.refused(Right::Push, "the list of referrers", answer).into()),
        }
    }

    /// Makes sure that a blob is in the repository.
    fn put_blob(&self, store: &Store, content: &Content) -> Result<How> {
        let digest = &content.descriptor.digest;
        if self.has_blob(Right::Push, digest)? {
            return Ok(How::There);
        }
        let from = seen::elsewhere(store, self.reference(), digest)?;
        self.upload(&content.descriptor, from.as_deref(), &mut || content.reader(store))
    }

    /// Sends a blob, or has it mounted. `open` gives its bytes from the beginning, each time it is called.
    pub(super) fn upload(
        &self,
        descriptor: &Descriptor,
        from: Option<&str>,
        open: &mut dyn FnMut() -> Result<Box<dyn Read>>,
    ) -> Result<How> {
        let mut attempt = 0;
        let mut chunk = u64::MAX;
        loop {
            attempt += 1;
            let Some(location) = self.begin_upload(&descriptor.digest, from.filter(|_| attempt == 1))? else {
                return Ok(How::Mounted);
            };
            let name = descriptor.digest.to_string();
            self.access.tell(Event::Started { phase: "push", what: &name, size: descriptor.size });
            let sent = self.send_all(descriptor, location, &mut chunk, open)?;
            self.access.tell(Event::Finished { phase: "push", what: &name });
            match sent {
                Sent::All => return Ok(How::Sent),
                Sent::Refused(error) => {
                    // Is it our copy that is not what it should be?
                    let mut hasher = descriptor.digest.hasher();
                    let mut reader = open()?;
                    let mut buffer = vec![0; 1 << 20];
                    loop {
                        let count = reader.read(&mut buffer).map_err(crate::Error::file("read", store_words()))?;
                        if count == 0 {
                            break;
                        }
                        hasher.update(&buffer[..count]);
                    }
                    let actual = hasher.finish();
                    if actual != descriptor.digest {
                        let (actual, expected) = (actual.to_string(), descriptor.digest.to_string());
                        return Err(crate::Error::Mismatch {
                            from: "a compressed layer of the store".to_owned(),
                            actual,
                            expected,
                        });
                    }
                    return Err(error.into());
                }
                Sent::Passing(error) if attempt >= ATTEMPTS => return Err(error.into()),
                Sent::Passing(_) => self.pause(attempt, None)?,
            }
        }
    }

    /// Where to send a blob; nothing if the registry has it from another repository.
    fn begin_upload(&self, digest: &Digest, from: Option<&str>) -> Result<Option<String>> {
        let mount = from.map(|from| format!("?mount={digest}&from={from}")).unwrap_or_default();
        let url = self.url(&format!("blobs/uploads/{mount}"))?;
        let mut headers = Vec::new();
        // A token for this repository alone does not read the other.
        if from.is_some()
            && let Ok(Some(authorization)) = self.authorization(Right::Push, from)
        {
            headers.push(("authorization", authorization));
        }
        let answer = match headers.is_empty() {
            true => self.call(Right::Push, "POST", &url, &[], Body::Bytes(&[]))?,
            false => {
                let answer = self.call_as(&url, &headers)?;
                match answer.status {
                    // Whoever may not read the neighbour sends the bytes.
                    201 | 202 => answer,
                    _ => return self.begin_upload(digest, None),
                }
            }
        };
        match answer.status {
            201 if from.is_some() => Ok(None),
            202 => {
                let location =
                    answer.header("location").ok_or_else(|| self.bad("it does not say where a blob is to be sent"))?;
                Ok(Some(self.follow(&url, location)?))
            }
            _ => Err(self.refused(Right::Push, "the beginning of an upload", answer).into()),
        }
    }

    /// Sends the bytes, in one piece or in several, from where the registry has them after a cut.
    fn send_all(
        &self,
        descriptor: &Descriptor,
        mut location: String,
        chunk: &mut u64,
        open: &mut dyn FnMut() -> Result<Box<dyn Read>>,
    ) -> Result<Sent> {
        let size = descriptor.size;
        let name = descriptor.digest.to_string();
        let with_digest = |location: &str| {
            let separator = if location.contains('?') { '&' } else { '?' };
            format!("{location}{separator}digest={}", descriptor.digest)
        };
        let kind = ("content-type", "application/octet-stream".to_owned());
        if size <= SMALL {
            let mut reader = open()?;
            return Ok(match self.send("PUT", &with_digest(&location), &[kind], &mut reader, size) {
                Ok(answer) if answer.status == 201 => Sent::All,
                Ok(answer) => self.not_sent(answer),
                Err(failure) => self.not_reached(failure)?,
            });
        }
        let (mut sent, mut cuts) = (0, 0);
        while sent < size {
            let length = (size - sent).min(*chunk);
            let mut reader = open()?;
            let skipped = io::copy(&mut (&mut reader).take(sent), &mut io::sink());
            skipped.map_err(crate::Error::file("read", store_words()))?;
            let mut part = Told { inner: reader.take(length), session: self, name: &name, sent };
            let headers = [kind.clone(), ("content-range", format!("{sent}-{}", sent + length - 1))];
            match self.send("PATCH", &location, &headers, &mut part, length) {
                Ok(answer) if matches!(answer.status, 202 | 201 | 204) => {
                    if let Some(next) = answer.header("location") {
                        location = self.follow(&location, next)?;
                    }
                    sent += length;
                    cuts = 0;
                }
                Ok(answer) if answer.status == 413 && *chunk > CHUNK => {
                    *chunk = CHUNK;
                    return Ok(Sent::Passing(self.refused(Right::Push, "an upload", answer)));
                }
                Ok(answer) => return Ok(self.not_sent(answer)),
                Err(failure) => {
                    let failed = self.not_reached(failure)?;
                    cuts += 1;
                    // What did arrive need not be sent again.
                    match self.arrived(&location)? {
                        Some((there, next)) if cuts < ATTEMPTS && there > 0 && there <= size => {
                            self.pause(cuts, None)?;
                            (sent, location) = (there, next);
                        }
                        _ => return Ok(failed),
                    }
                }
            }
        }
        let url = with_digest(&location);
        Ok(match self.send("PUT", &url, &[], &mut io::empty(), 0) {
            Ok(answer) if answer.status == 201 => Sent::All,
            Ok(answer) => self.not_sent(answer),
            Err(failure) => self.not_reached(failure)?,
        })
    }

    /// How many bytes of an upload the registry has, and where it goes on.
    fn arrived(&self, location: &str) -> Result<Option<(u64, String)>> {
        let Ok(answer) = self.call(Right::Push, "GET", location, &[], Body::None) else { return Ok(None) };
        let range = answer.header("range").and_then(|range| range.trim_start_matches("bytes=").strip_prefix("0-"));
        let last: Option<u64> = range.and_then(|last| last.trim().parse().ok());
        let next = match answer.header("location") {
            Some(next) => self.follow(location, next)?,
            None => location.to_owned(),
        };
        // `0-0` is written of one byte and of none.
        Ok(last.filter(|last| answer.status == 204 && *last > 0).map(|last| (last + 1, next)))
    }

    fn not_sent(&self, answer: crate::http::Answer) -> Sent {
        let status = answer.status;
        if status == 401 {
            self.renew(&answer);
        }
        let error = self.refused(Right::Push, "an upload", answer);
        match status {
            401 | 404 | 408 | 416 | 429 | 500..=599 => Sent::Passing(error),
            _ => Sent::Refused(error),
        }
    }

    fn not_reached(&self, failure: Failure) -> Result<Sent> {
        match failure {
            Failure::Interrupted => Err(Error::Interrupted.into()),
            failure => Ok(Sent::Passing(self.unreachable(failure.to_string()))),
        }
    }
}

enum Sent {
    All,
    /// Sending it again will not help.
    Refused(Error),
    /// It may.
    Passing(Error),
}

fn store_words() -> &'static str {
    "a compressed layer of the store"
}

/// Says how far it is, and ends when the user interrupts.
struct Told<'a, R> {
    inner: R,
    session: &'a Session<'a>,
    name: &'a str,
    sent: u64,
}

impl<R: Read> Read for Told<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.session.access.check_interrupt().map_err(|error| io::Error::other(error.to_string()))?;
        let count = self.inner.read(buffer)?;
        self.sent += count as u64;
        self.session.access.tell(Event::Advanced { what: self.name, bytes: self.sent });
        Ok(count)
    }
}
