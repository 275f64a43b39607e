//! What is fetched from a repository: manifests and blobs, each checked by its digest, never more than was announced.
//!
//! A cut connection is taken up again where it was cut (`Range`); what a server lied about then shows in the digest.

use std::io::{self, Read};

use super::session::{ATTEMPTS, Body, Right, Session, bounded, small};
use super::{Error, Event};
use crate::format::oci::descriptor::{Descriptor, Digest, Index, media};
use crate::format::write_failed;
use crate::http::Answer;

/// Registries take manifests of 4 MiB.
pub(super) const MOST_MANIFEST: u64 = 4 << 20;
/// A line that is cut again and again, but brings this much in between, is worth asking on.
const PROGRESS: u64 = 1 << 20;

/// Everything that may stand where a manifest is asked for.
pub(super) const MANIFESTS: [&str; 4] = [media::MANIFEST, media::INDEX, media::DOCKER_MANIFEST, media::DOCKER_INDEX];

impl Session<'_> {
    /// A manifest or index by tag or digest: what it is, and its bytes.
    pub fn manifest(&self, wanted: &str) -> crate::Result<(Descriptor, Vec<u8>)> {
        let url = self.url(&format!("manifests/{wanted}"))?;
        let accept = [("accept", MANIFESTS.join(", "))];
        let answer = self.call(Right::Pull, "GET", &url, &accept, Body::None)?;
        if answer.status != 200 {
            return Err(self
                .refused(Right::Pull, format!("image `{}:{wanted}`", self.reference.repository), answer)
                .into());
        }
        let kind = media_type(&answer);
        let named: Option<Digest> = answer.header("docker-content-digest").and_then(|text| text.parse().ok());
        let bytes =
            bounded(answer, MOST_MANIFEST).map_err(|reason| self.bad(format!("manifest `{wanted}`: {reason}")))?;
        let asked: Option<Digest> = wanted.parse().ok();
        // Asked by tag, what it says of itself counts: else the digest that is told to others would not be the one it had.
        let expected = asked.or(named);
        let actual = digest_like(expected, &bytes);
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            return Err(self.lie(wanted, actual, expected));
        }
        let kind = self.kind_of(wanted, kind, &bytes)?;
        Ok((Descriptor::new(&kind, actual, bytes.len() as u64), bytes))
    }

    /// The digest that a tag names now, if the registry says it without giving the manifest.
    pub fn digest_of(&self, wanted: &str) -> crate::Result<Option<Digest>> {
        let url = self.url(&format!("manifests/{wanted}"))?;
        let accept = [("accept", MANIFESTS.join(", "))];
        let answer = self.call(Right::Pull, "HEAD", &url, &accept, Body::None)?;
        Ok(match answer.status {
            200 => answer.header("docker-content-digest").and_then(|text| text.parse().ok()),
            _ => None,
        })
    }

    /// What a manifest says of itself counts, and must agree with what the registry says.
    fn kind_of(&self, wanted: &str, said: Option<String>, bytes: &[u8]) -> Result<String, Error> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Document {
            media_type: Option<String>,
            manifests: Option<serde::de::IgnoredAny>,
            schema_version: u32,
        }
        let bad = |reason: &str| self.bad(format!("manifest `{wanted}`: {reason}"));
        let document: Document = serde_json::from_slice(bytes).map_err(|error| bad(&error.to_string()))?;
        if document.schema_version != 2 {
            return Err(bad(
                "it is of Docker's first schema, which has no digests of its content: push it again with a newer tool",
            ));
        }
        let known = |kind: &Option<String>| kind.clone().filter(|kind| MANIFESTS.contains(&kind.as_str()));
        let guess = if document.manifests.is_some() { media::INDEX } else { media::MANIFEST };
        Ok(known(&document.media_type).or_else(|| known(&said)).unwrap_or_else(|| guess.to_owned()))
    }

    fn lie(&self, what: &str, actual: Digest, expected: Digest) -> crate::Error {
        crate::Error::Mismatch {
            from: format!("{}, {what}", self.reference),
            actual: actual.to_string(),
            expected: expected.to_string(),
        }
    }

    /// Whether a blob is there.
    pub(super) fn has_blob(&self, right: Right, digest: &Digest) -> Result<bool, Error> {
        let answer = self.call(right, "HEAD", &self.url(&format!("blobs/{digest}"))?, &[], Body::None)?;
        match answer.status {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(self.refused(right, format!("blob {digest}"), answer)),
        }
    }

    /// Fetches a blob. What `take` was given is good only if this succeeds.
    pub fn blob(&self, descriptor: &Descriptor, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> crate::Result<()> {
        let name = descriptor.digest.to_string();
        let access = self.access;
        let mut hasher = descriptor.digest.hasher();
        let (mut received, mut resumed, mut attempt) = (0, 0, 0);
        let mut buffer = vec![0; 128 * 1024];
        access.tell(Event::Started { phase: "pull", what: &name, size: descriptor.size });
        'ask: loop {
            attempt += 1;
            let mut body = self.blob_from(descriptor, received)?;
            let reason = loop {
                access.check_interrupt()?;
                match body.read(&mut buffer) {
                    Ok(0) if received == descriptor.size => break 'ask,
                    Ok(0) => break "the connection was cut".to_owned(),
                    Ok(count) => {
                        received += count as u64;
                        if received > descriptor.size {
                            let expected = format!("{} bytes", descriptor.size);
                            let from = format!("{}, {name}", self.reference);
                            return Err(crate::Error::Mismatch { from, actual: "more bytes".to_owned(), expected });
                        }
                        hasher.update(&buffer[..count]);
                        take(&buffer[..count]).map_err(write_failed)?;
                        access.tell(Event::Advanced { what: &name, bytes: received });
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => break error.to_string(),
                }
            };
            if received > resumed + PROGRESS {
                attempt = 1;
            }
            resumed = received;
            if attempt >= ATTEMPTS {
                return Err(self.unreachable(format!("{reason} after {received} bytes of {name}")).into());
            }
            self.pause(attempt, None)?;
        }
        access.tell(Event::Finished { phase: "pull", what: &name });
        match hasher.finish() {
            actual if actual == descriptor.digest => Ok(()),
            actual => Err(self.lie(&name, actual, descriptor.digest)),
        }
    }

    /// Asks for a blob from some byte on. A server that gives the whole again is read over.
    fn blob_from(&self, descriptor: &Descriptor, from: u64) -> Result<Box<dyn Read + Send>, Error> {
        let digest = &descriptor.digest;
        let url = self.url(&format!("blobs/{digest}"))?;
        let range = (from > 0).then(|| ("range", format!("bytes={from}-")));
        let range: Vec<_> = range.into_iter().collect();
        let mut answer = self.call(Right::Pull, "GET", &url, &range, Body::None)?;
        match answer.status {
            206 if from > 0 => {
                let place = answer.header("content-range").unwrap_or_default();
                if !place.starts_with(&format!("bytes {from}-")) {
                    return Err(self.bad(format!("it gives another part of {digest} than was asked for")));
                }
                return Ok(answer.body);
            }
            200 => {}
            _ => return Err(self.refused(Right::Pull, format!("blob {digest}"), answer)),
        }
        let length = answer.header("content-length").and_then(|text| text.trim().parse::<u64>().ok());
        if let Some(length) = length.filter(|length| *length != descriptor.size) {
            return Err(self.bad(format!("{digest} has {length} bytes there, and should have {}", descriptor.size)));
        }
        let skipped = io::copy(&mut (&mut answer.body).take(from), &mut io::sink());
        match skipped {
            Ok(count) if count == from => Ok(answer.body),
            _ => Err(self.unreachable(format!("the connection was cut within {digest}"))),
        }
    }

    /// What refers to a manifest: SBOMs, provenance, signatures. A registry without that part of the specification keeps
    /// the list under a tag.
    pub fn referrers(&self, subject: &Digest) -> crate::Result<Vec<Descriptor>> {
        let url = self.url(&format!("referrers/{subject}"))?;
        let accept = [("accept", media::INDEX.to_owned())];
        let answer = self.call(Right::Pull, "GET", &url, &accept, Body::None)?;
        let bytes = match answer.status {
            200 => small(answer).map_err(|reason| self.bad(reason))?,
            404 | 400 | 405 => match self.manifest(&fallback_tag(subject)) {
                Ok((_, bytes)) => bytes,
                Err(crate::Error::Registry(Error::NotFound { .. })) => return Ok(Vec::new()),
                Err(error) => return Err(error),
            },
            _ => return Err(self.refused(Right::Pull, "referrers", answer).into()),
        };
        let index: Index = serde_json::from_slice(&bytes).map_err(|error| self.bad(format!("referrers: {error}")))?;
        Ok(index.manifests)
    }
}

/// The tag under which a registry without the referrers API keeps their list.
pub(super) fn fallback_tag(subject: &Digest) -> String {
    let tag = format!("{}-{}", subject.algorithm(), subject.hex());
    tag.chars().take(128).collect()
}

fn media_type(answer: &Answer) -> Option<String> {
    Some(answer.header("content-type")?.split(';').next().unwrap_or_default().trim().to_owned())
}

/// By the algorithm of another digest, else SHA-256.
fn digest_like(expected: Option<Digest>, bytes: &[u8]) -> Digest {
    match expected {
        Some(expected) => {
            let mut hasher = expected.hasher();
            hasher.update(bytes);
            hasher.finish()
        }
        None => Digest::of(bytes),
    }
}
