//! How files are downloaded: by digest from the store if they are here, else from wherever the address leads.
//!
//! | address | leads to |
//! |---|---|
//! | `https://…`, `http://…` | that place, and where it redirects to |
//! | `file:///…` | a file of this machine |
//! | `debian:SUITE/FILE` | FILE below every mirror of this machine that has SUITE, in the order configured |
//! | `oci:HOST/REPOSITORY` | a layer of an image in that repository, by its SHA-256 |
//! | `python:PROJECT/FILENAME` | wherever a Python index of this machine says that FILENAME of PROJECT lies |
//! | `npm:NAME/-/FILENAME` | that path below the npm registry of this machine that NAME's scope has |
//! | `cargo:NAME/VERSION` | where the crate registry of this machine says that its crates are |
//!
//! Bytes are hashed while they stream into the store; what has another digest than was asked for is never kept. A cut connection is
//! taken up again where it was cut; what a server lied about then shows in the digest.

mod gate;
#[cfg(test)]
pub(crate) mod loopback;
pub mod pinned;
pub(crate) mod program;
pub mod resolver;
mod transfer;
pub mod tree;

pub(crate) use store::http::percent_decode;
pub use store::http::{Answer, Client, Parts, Place, join, percent_encode, redact, split};

use sha2::{Digest, Sha256};
use store::{BlobId, FileHash};

use crate::{Builder, Error, Machine, Result, debian, node, python, rust};
use store::http::{Failure, Patience};
use transfer::Transfer;

/// Keeps connections, and what was learnt of the mirrors, for the length of a command.
pub struct Fetcher {
    client: Client,
    gate: gate::Gate,
}

/// What is to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// An address (see the schemes in this file's head).
    pub url: &'a str,
    /// Its SHA-256, where it is known: then the store is asked first, and other bytes are refused.
    pub sha256: Option<[u8; 32]>,
    /// Its size in bytes, where it is known.
    pub size: Option<u64>,
}

/// A small file that is read and not kept, for instance a page of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Where it came from in the end, after redirects. May hold a password: [`redact`] before showing.
    pub url: String,
    /// Its media type, as the server names it.
    pub media_type: Option<String>,
}

/// The largest [`Document`] that is read into memory.
const DOCUMENT_LIMIT: u64 = 256 << 20;

impl Fetcher {
    /// A fetcher that honours the machine's proxies and certificates.
    pub fn new(machine: &Machine) -> Result<Self> {
        Ok(Self { client: Client::new(machine.environment.clone(), Patience::default()), gate: gate::Gate::default() })
    }

    /// Fetches a file into the store; gives its id and SHA-256.
    pub fn fetch(&self, builder: &Builder<'_>, wanted: &Wanted<'_>) -> Result<(BlobId, [u8; 32])> {
        builder.check_interrupt()?;
        if let Some(sha256) = wanted.sha256
            && let Some(blob) = known(builder, &sha256)?
        {
            check_size(builder, wanted, blob)?;
            return Ok((blob, sha256));
        }
        if let Some(path) = local_path(wanted.url) {
            return local(builder, wanted, &path);
        }
        if let Some(repository) = wanted.url.strip_prefix("oci:") {
            let blob = crate::oci::fetch(builder, wanted, repository)?;
            let sha256 = wanted.sha256.unwrap_or_default();
            builder.store.put_blob_with_hash(&FileHash::from(sha256), blob)?;
            return Ok((blob, sha256));
        }
        if let Some(sha256) = wanted.sha256
            && let Some(blob) = crate::substitute::file(builder, &FileHash::from(sha256))?
        {
            check_size(builder, wanted, blob)?;
            return Ok((blob, sha256));
        }
        self.fetch_from(builder, wanted, &places(builder, wanted.url)?)
    }

    /// Fetches a file into the store from the first of these places that has it. `wanted.url` is what it is called.
    pub fn fetch_from(
        &self,
        builder: &Builder<'_>,
        wanted: &Wanted<'_>,
        places: &[Place],
    ) -> Result<(BlobId, [u8; 32])> {
        let mut tried: Vec<(String, Failure)> = Vec::new();
        for place in places {
            let failure = match Transfer::start(builder, &self.client, &self.gate, wanted, place) {
                Err(failure) => failure,
                Ok(mut transfer) => match builder.store.put_blob_from(&mut transfer, false) {
                    Ok((blob, _)) => {
                        let sha256 = transfer.digest();
                        builder.store.put_blob_with_hash(&FileHash::from(sha256), blob)?;
                        return Ok((blob, sha256));
                    }
                    // Without a failure of the transfer it was the store's: a full disk is no matter of the next mirror.
                    Err(error) => transfer.failure().ok_or(error)?,
                },
            };
            if matches!(failure, Failure::Interrupted) {
                builder.check_interrupt()?;
            }
            tried.push((redact(&place.url), failure));
        }
        Err(refusal(wanted, tried))
    }

    /// Reads a small file. `accept` is the media types wanted, as the header has them.
    pub fn document(&self, builder: &Builder<'_>, place: &Place, accept: Option<&str>) -> Result<Document> {
        let wanted = Wanted { url: &place.url, sha256: None, size: None };
        let fail = |failure: Failure| match builder.check_interrupt() {
            Err(interrupted) => interrupted,
            Ok(()) => refusal(&wanted, vec![(redact(&place.url), failure)]),
        };
        let mut transfer =
            Transfer::start_document(builder, &self.client, &self.gate, &wanted, place, accept).map_err(fail)?;
        let mut bytes = Vec::new();
        let read = std::io::Read::read_to_end(&mut std::io::Read::take(&mut transfer, DOCUMENT_LIMIT + 1), &mut bytes);
        if let Err(error) = read {
            return Err(fail(transfer.failure().unwrap_or_else(|| Failure::lasting(error.to_string()))));
        }
        if bytes.len() as u64 > DOCUMENT_LIMIT {
            return Err(fail(Failure::lasting(format!("it is longer than {DOCUMENT_LIMIT} bytes"))));
        }
        Ok(Document { bytes, url: transfer.url().to_owned(), media_type: transfer.media_type().map(str::to_owned) })
    }
}

impl Fetcher {
    /// Asks a place once, with these header fields, and sends a body if there is one: for protocols that are more than files.
    pub fn ask(
        &self,
        builder: &Builder<'_>,
        place: &Place,
        headers: &[(&str, String)],
        body: Option<&[u8]>,
    ) -> Result<Answer> {
        builder.check_interrupt()?;
        let answer = match body {
            Some(body) => self.client.post(place, headers, body),
            None => self.client.get(place, headers),
        };
        let wanted = Wanted { url: &place.url, sha256: None, size: None };
        answer.map_err(|failure| refusal(&wanted, vec![(redact(&place.url), failure)]))
    }
}

/// Every place failed. Wrong bytes are worse news than absent ones, and one mirror's absence does not excuse another's lie.
fn refusal(wanted: &Wanted<'_>, tried: Vec<(String, Failure)>) -> Error {
    let what = redact(wanted.url);
    if let Some((_, Failure::Lie { actual, expected })) =
        tried.iter().find(|(_, failure)| matches!(failure, Failure::Lie { .. }))
    {
        return Error::Mismatch { what, actual: actual.clone(), expected: expected.clone() };
    }
    let gone = !tried.is_empty() && tried.iter().all(|(_, failure)| failure.is_gone());
    Error::Fetch { what, tried: tried.into_iter().map(|(place, failure)| (place, failure.to_string())).collect(), gone }
}

/// The path of a `file:` address.
pub(crate) fn local_path(url: &str) -> Option<std::path::PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    let path = url.strip_prefix("file:")?;
    let path = path.strip_prefix("//").unwrap_or(path).split(['?', '#']).next().unwrap_or_default();
    Some(std::ffi::OsString::from_vec(percent_decode(path)).into())
}

/// Takes a file of this machine into the store.
fn local(builder: &Builder<'_>, wanted: &Wanted<'_>, path: &std::path::Path) -> Result<(BlobId, [u8; 32])> {
    let tried = |reason: String| Error::Fetch {
        what: wanted.url.to_owned(),
        tried: vec![(wanted.url.to_owned(), reason)],
        gone: false,
    };
    let file = std::fs::File::open(path).map_err(|error| tried(error.to_string()))?;
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err(tried("it is not a file".to_owned()));
    }
    let mut reader = Hashing { inner: file, hash: Sha256::new() };
    let (blob, _) = builder.store.put_blob_from(&mut reader, false)?;
    let sha256: [u8; 32] = reader.hash.finalize().into();
    if let Some(expected) = wanted.sha256.filter(|expected| *expected != sha256) {
        let text = |digest: &[u8]| format!("sha256:{}", store::digest::to_hex(digest));
        return Err(Error::Mismatch { what: wanted.url.to_owned(), actual: text(&sha256), expected: text(&expected) });
    }
    check_size(builder, wanted, blob)?;
    builder.store.put_blob_with_hash(&FileHash::from(sha256), blob)?;
    Ok((blob, sha256))
}

/// Hashes what is read.
struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: std::io::Read> std::io::Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

/// The blob with this SHA-256, if it is in the store.
pub fn known(builder: &Builder<'_>, sha256: &[u8; 32]) -> Result<Option<BlobId>> {
    Ok(builder.store.blob_with_hash(&FileHash::from(*sha256))?)
}

/// A size that the store's own copy contradicts is as wrong as one that a mirror contradicts.
fn check_size(builder: &Builder<'_>, wanted: &Wanted<'_>, blob: BlobId) -> Result<()> {
    let Some(expected) = wanted.size else { return Ok(()) };
    let file = builder.store.open_blob(blob)?;
    let actual = file.metadata().map_err(Error::file("look at", builder.store.path()))?.len();
    if actual == expected {
        return Ok(());
    }
    let bytes = |count: u64| format!("{count} bytes");
    Err(Error::Mismatch { what: redact(wanted.url), actual: bytes(actual), expected: bytes(expected) })
}

/// Where an address leads on this machine.
fn places(builder: &Builder<'_>, url: &str) -> Result<Vec<Place>> {
    let (scheme, rest) = url.split_once(':').unwrap_or(("", url));
    match scheme {
        "http" | "https" => Ok(vec![Place::new(url)]),
        "debian" => match rest.split_once('/') {
            Some((suite, file)) if !suite.is_empty() => debian::sources::places(builder.machine, suite, file),
            _ => Err(bad(url, "`debian:SUITE/FILE` is expected")),
        },
        "python" => match rest.split_once('/') {
            Some((project, file)) if !project.is_empty() => python::index::places(builder, project, file),
            _ => Err(bad(url, "`python:PROJECT/FILENAME` is expected")),
        },
        "npm" => node::registry::places(builder, rest),
        "cargo" => rust::registry::places(builder, rest),
        _ => Err(bad(url, "it begins with none of `https:`, `http:`, `file:`, `debian:`, `python:`, `npm:`, `cargo:`")),
    }
}

fn bad(url: &str, reason: &str) -> Error {
    Error::Invalid { what: "address", name: redact(url), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests;
