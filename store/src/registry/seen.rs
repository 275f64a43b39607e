//! In which repositories a blob was seen: a registry gives it from one to another without its being sent (cross-repository mount).
//!
//! Only a hint, and kept where what may be lost is kept: a registry that no longer has the blob asks for it.

use super::Reference;
use crate::format::oci::descriptor::Digest;
use crate::{Result, Store};

const KIND: &str = "registry-blobs";
/// Of one blob; the latest stay.
const MOST_PLACES: usize = 16;

fn name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm(), digest.hex())
}

fn places(store: &Store, digest: &Digest) -> Result<Vec<String>> {
    let bytes = store.read_cached(KIND, &name(digest))?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect())
}

/// Remembers that a repository has a blob.
pub(super) fn note(store: &Store, reference: &Reference, digest: &Digest) -> Result<()> {
    let place = reference.bare().to_string();
    let mut places = places(store, digest)?;
    if places.first() == Some(&place) {
        return Ok(());
    }
    places.retain(|known| *known != place);
    places.insert(0, place);
    places.truncate(MOST_PLACES);
    store.put_cached(KIND, &name(digest), places.join("\n").as_bytes())
}

/// Another repository of the same registry that had a blob.
pub(super) fn elsewhere(store: &Store, reference: &Reference, digest: &Digest) -> Result<Option<String>> {
    let known = places(store, digest)?.into_iter().filter_map(|place| place.parse::<Reference>().ok());
    let mut others = known.filter(|place| place.host == reference.host && place.repository != reference.repository);
    Ok(others.next().map(|place| place.repository))
}
