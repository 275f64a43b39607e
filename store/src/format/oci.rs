//! OCI images: what container engines and registries read.
//!
//! Written: a layout in one tar file (`oci`) or a directory (`oci-layout`), with the layers that the formation's record has, so
//! that formations over the same base share them. The bytes follow from the formation, its record and the compression; they
//! are drawn in `docs/formats/oci.md`. [`image()`] gives the contents alone, for whoever sends them elsewhere.

use std::io::Write;

use super::{Artifact, Bounds, Format, Imported, Inspection, Options};
use crate::{FormationId, Result, Store};

use open::{Arrangement, Parts};

pub mod config;
pub mod descriptor;
mod image;
mod layer;
mod layout;
pub(crate) mod open;
mod read;
mod squeeze;
#[cfg(test)]
mod tests;
mod view;

pub use image::{Collection, Content, Image, Source, collection, collection_of, image, referrer};
pub use layout::{write_archive, write_directory};
pub(crate) use read::Layer;
pub use read::{Wanted, read_layer};

/// `oci`
pub struct Oci;

impl Format for Oci {
    fn name(&self) -> &'static str {
        "oci"
    }

    fn extension(&self) -> &'static str {
        "oci.tar"
    }

    fn pack(&self, store: &Store, id: FormationId, options: &Options, output: &mut dyn Write) -> Result<()> {
        write_archive(store, &collection(store, &[id], options)?, output)
    }

    fn recognises(&self, artifact: &Artifact) -> bool {
        open::recognises(artifact)
    }

    fn inspect(&self, artifact: &Artifact) -> Result<Inspection> {
        inspect_wanted(artifact, &Wanted::default())
    }

    fn read(&self, store: &Store, artifact: &Artifact, bounds: &Bounds) -> Result<Imported> {
        read_wanted(store, artifact, bounds, &Wanted::default())
    }
}

/// What the image that is meant says of itself.
pub fn inspect_wanted(artifact: &Artifact, wanted: &Wanted<'_>) -> Result<Inspection> {
    let parts = Parts::open(artifact, None)?;
    let format = match (artifact.is_directory(), parts.arrangement) {
        (true, Arrangement::Layout) => "oci-layout",
        (false, Arrangement::Layout) => "oci",
        (_, Arrangement::Flat) => "dir",
        (_, Arrangement::Docker) => "docker-archive",
    };
    let found = parts.find(wanted)?;
    let mut inspection = found.inspection(format, &parts);
    if !artifact.is_directory() {
        inspection.size = artifact.size();
    }
    Ok(inspection)
}

/// Takes the image that is meant into the store.
pub fn read_wanted(store: &Store, artifact: &Artifact, bounds: &Bounds, wanted: &Wanted<'_>) -> Result<Imported> {
    let parts = Parts::open(artifact, Some(store))?;
    let found = parts.find(wanted)?;
    parts.import(store, &found, bounds)
}
