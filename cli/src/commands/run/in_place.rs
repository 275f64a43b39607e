//! A SIF or squashfs that runs where it lies: the kernel mounts it for the run, and nothing goes into the store.
//!
//! Only for root, and only if its author is trusted (`--trust`): a file system that an enemy wrote is read by the kernel then. A run
//! that has to look into the root beforehand (for a user, or lines of /etc/hosts) takes the other way, by a checkout.

use std::process::ExitCode;

use executor::backend::native::image::MountedImage;
use executor::{Backend, RootFs, Writable};
use store::format::{Artifact, sif};
use store::{Formation, Store, TreeId};

use super::exchange::Exchange;
use super::{Choose, check_platform, describe, network, report, this_platform};
use crate::args::Target;
use crate::context::Context;
use crate::error::Result;

/// Runs an artifact in place, if that is asked for and possible; nothing if it is to be run the other way.
pub fn run(store: &Store, target: &Target, command: Choose<'_>, context: &Context) -> Result<Option<ExitCode>> {
    let options = &target.options;
    let plain = !options.whereabouts.measure && options.writable.is_none() && options.add_host.is_empty();
    if !options.whereabouts.trust || !plain || !executor::backend::native::has_every_user() {
        return Ok(None);
    }
    let Ok(artifact) = Artifact::open(target.formation.as_ref()) else { return Ok(None) };
    let (offset, length) = match store::format::of(&artifact).map(|format| format.name()) {
        Ok("sif") => sif::partition(&artifact)?,
        Ok("squashfs") => (0, artifact.size()),
        _ => return Ok(None),
    };
    let Some(file) = artifact.file() else { return Ok(None) };
    let found = store::format::of(&artifact)?.inspect(&artifact)?;
    let formation = found.formation.unwrap_or_else(|| Formation {
        name: found.name.filter(|name| store::formation::is_name(name)).unwrap_or_else(|| "imported".to_owned()),
        version: found.version.unwrap_or_default(),
        variant: String::new(),
        platform: found.platform.unwrap_or_else(this_platform),
        // Not looked at: what is run is the mount.
        root: TreeId::from_bytes([0; 32]),
        launch: found.launch,
    });
    if options.user.is_some() || formation.launch.user.is_some() {
        return Ok(None);
    }
    check_platform(&formation)?;
    let mut sandbox = describe(store, &formation, options, command, context)?;
    let scratch = store.scratch()?;
    let mounted = MountedImage::new(file, offset, length, scratch.path())?;
    let writable = if options.read_only { Writable::No } else { Writable::Temporary };
    sandbox.root = RootFs { layers: vec![mounted.path().to_owned()], writable };
    let exchange = Exchange::new(store, options)?;
    exchange.show(&mut sandbox);
    let outcome = context.backend.run(&sandbox)?;
    drop(mounted);
    exchange.bring_back(context)?;
    for missing in &outcome.missing {
        if !context.global.quiet {
            eprintln!("forge: {missing}");
        }
    }
    Ok(Some(report(&outcome, &sandbox, &network::ports(&formation, options)?, context)))
}
