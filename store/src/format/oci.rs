//! OCI images: what container engines and registries read.
//!
//! Written: a layout in one tar file (`oci`) or a directory (`oci-layout`), with the layers that the formation's record has, so
//! that formations over the same base share them. The bytes follow from the formation, its record and the compression; they
//! are drawn in `docs/formats/oci.md`. [`image()`] gives the contents alone, for whoever sends them elsewhere.

use std::io::Write;

use super::{Format, Options};
use crate::{FormationId, Result, Store};

pub mod config;
pub mod descriptor;
mod image;
mod layer;
mod layout;
mod squeeze;

pub use image::{Collection, Content, Image, Source, collection, image, referrer};
pub use layout::{write_archive, write_directory};

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
}
