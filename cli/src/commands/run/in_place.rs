//! A SIF or squashfs that runs where it lies: the kernel mounts it for the run, and nothing goes into the store.
//!
//! Only for root, and only if its author is trusted: a file system that an enemy wrote is read by the kernel then. Trusted is what
//! `forge export` packed here, by its digest, and what `--trust` is said of. A run that has to look into the root beforehand (for a
//! user, or lines of /etc/hosts) takes the other way, by a checkout.
//!
//! By `--fuse` a program of its own reads the file for the kernel: slower, and for everybody who may use /dev/fuse.

use std::path::Path;

use executor::backend::native::image::{MountedImage, ServedImage};
use executor::{Backend, RootFs, Writable};
use store::directory::Scratch;
use store::format::{Artifact, sif};
use store::{Formation, Store, TreeId};

use super::exchange::Exchange;
use super::{Choose, check_platform, describe, network, report};
use crate::args::Target;
use crate::args::runner::BackendChoice;
use crate::context::{Context, absolute, this_platform};
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;
use crate::words::say;

/// A squashfs that files of are there.
enum Image {
    Mounted(MountedImage),
    Served(ServedImage),
}

impl Image {
    fn path(&self) -> &Path {
        match self {
            Self::Mounted(image) => image.path(),
            Self::Served(image) => image.path(),
        }
    }
}

fn serve(artifact: &Artifact, offset: u64, scratch: &Scratch, context: &Context) -> Result<ServedImage> {
    let program = context.program("squashfuse").ok_or_else(|| {
        let failure = Failure::new(code::NOT_FOUND, "--fuse: there is no `squashfuse` here");
        failure.hint("Debian: `apt-get install squashfuse`; without --fuse the file is unpacked once")
    })?;
    let file = absolute(artifact.path())?;
    Ok(ServedImage::new(&program, &file, offset, scratch.path())?)
}

/// Runs an artifact in place, if that is asked for and possible; nothing if it is to be run the other way.
pub fn run(store: &Store, target: &Target, command: Choose<'_>, context: &Context) -> Result<Option<ExitCode>> {
    let options = &target.options;
    let asked = &options.whereabouts;
    let is_here = asked.backend.unwrap_or_default() == BackendChoice::Native && asked.runtime.is_none();
    let looks = asked.measure || asked.require_parity;
    let plain = is_here && !looks && options.writable.is_none() && options.add_host.is_empty();
    let like_file = target.formation.contains(['/', '.']);
    if asked.fuse && !plain {
        let failure = Failure::new(code::USAGE, "--fuse is for a plain run on this kernel");
        return Err(failure.hint("without --fuse the file is unpacked once, and everything can be asked for"));
    }
    if !like_file || !plain || !(asked.fuse || executor::backend::native::has_every_user()) {
        return Ok(None);
    }
    let Ok(artifact) = Artifact::open(target.formation.as_ref()) else { return Ok(None) };
    let (offset, length) = match store::format::of(&artifact).map(|format| format.name()) {
        Ok("sif") => sif::partition(&artifact)?,
        Ok("squashfs") => (0, artifact.size()),
        _ => return Ok(None),
    };
    let Some(file) = artifact.file() else { return Ok(None) };
    if !(asked.fuse || asked.trust || store.was_packed_here(file)?) {
        return Ok(None);
    }
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
    let mounted = match asked.fuse {
        true => Image::Served(serve(&artifact, offset, &scratch, context)?),
        false => match MountedImage::new(file, offset, length, scratch.path()) {
            // Nobody asked for it: where there are no loop devices it is unpacked.
            Err(_) if !asked.trust => return Ok(None),
            mounted => Image::Mounted(mounted?),
        },
    };
    let writable = if options.read_only { Writable::No } else { Writable::Temporary };
    sandbox.root = RootFs { layers: vec![mounted.path().to_owned()], writable };
    let exchange = Exchange::new(store, options)?;
    exchange.show(&mut sandbox);
    let outcome = context.backend.run(&sandbox)?;
    drop(mounted);
    exchange.bring_back(context)?;
    for missing in &outcome.missing {
        if !context.global.quiet {
            say!("forge: {missing}");
        }
    }
    Ok(Some(report(&outcome, &sandbox, &network::ports(&formation, options)?, context)))
}
