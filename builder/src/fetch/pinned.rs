//! Files that are known by a hash, of whichever kind: looked for by it in the store and at peers, then asked for.
//!
//! SHA-256 is checked while the bytes arrive. npm's SHA-512 and its older SHA-1 are taken of what arrived; the store then
//! remembers which blob has it, so that it is found without any network the next time.

use std::io;

use store::derivation::HashAlgorithm;
use store::digest::to_hex;
use store::nix::hash::Hasher;
use store::{BlobId, FileHash};

use super::{Wanted, redact};
use crate::{Builder, Error, Result};

/// What is wanted, and where it may be.
#[derive(Debug, Clone, Copy)]
pub struct Pinned<'a> {
    /// Addresses, in the order in which they are asked (see [`super`]).
    pub urls: &'a [&'a str],
    /// Which hash.
    pub algorithm: HashAlgorithm,
    /// Its bytes.
    pub hash: &'a [u8],
    /// Its size, where that is known.
    pub size: Option<u64>,
}

/// Finds the file in the store, or fetches it.
pub fn fetch(builder: &Builder<'_>, pinned: &Pinned<'_>) -> Result<BlobId> {
    let sha256: Option<[u8; 32]> = match pinned.algorithm {
        HashAlgorithm::Sha256 => pinned.hash.try_into().ok(),
        _ => None,
    };
    // MD5 is nobody's name for a file.
    let known = FileHash::new(pinned.hash).filter(|hash| hash.algorithm() == pinned.algorithm);
    if sha256.is_none()
        && let Some(hash) = &known
    {
        if let Some(blob) = builder.store.blob_with_hash(hash)? {
            return Ok(blob);
        }
        if let Some(blob) = crate::substitute::file(builder, hash)? {
            return Ok(blob);
        }
    }
    let mut failed: Option<Error> = None;
    for url in pinned.urls {
        let wanted = Wanted { url, sha256, size: pinned.size };
        let blob = match builder.fetcher.fetch(builder, &wanted) {
            Ok((blob, _)) => blob,
            // What the first place said is what people want to know; that the second has not got it either says little.
            Err(error @ (Error::Fetch { .. } | Error::NotConfigured { .. })) => {
                failed.get_or_insert(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        if sha256.is_some() {
            return Ok(blob);
        }
        let mut hasher = Hasher::new(pinned.algorithm);
        io::copy(&mut builder.store.open_blob(blob)?, &mut hasher)
            .map_err(Error::file("read", builder.store.path()))?;
        let actual = hasher.finish();
        if actual.as_bytes() != pinned.hash {
            let text = |bytes: &[u8]| format!("{}:{}", pinned.algorithm.as_str(), to_hex(bytes));
            let (actual, expected) = (text(actual.as_bytes()), text(pinned.hash));
            return Err(Error::Mismatch { what: redact(url), actual, expected });
        }
        if let Some(hash) = &known {
            builder.store.put_blob_with_hash(hash, blob)?;
        }
        return Ok(blob);
    }
    Err(failed.unwrap_or_else(|| super::bad("", "nothing says where the file is")))
}
