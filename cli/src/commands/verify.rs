//! `forge verify`: hashes everything in the store again and names what is damaged; or verifies who signed an artifact.

use std::path::Path;

use store::directory::Damage;
use store::format::{Artifact, sif};
use store::peer::ObjectId;

use crate::args::VerifyArguments;
use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;
use crate::keys;
use crate::words::say;

/// `forge verify`
pub fn run(arguments: &VerifyArguments, context: &Context) -> Result<ExitCode> {
    match &arguments.file {
        Some(file) => signatures(file, arguments, context),
        None => whole_store(arguments, context),
    }
}

fn signatures(file: &Path, arguments: &VerifyArguments, context: &Context) -> Result<ExitCode> {
    let trust = keys::trust(arguments.key.iter().chain(&arguments.keyring))?;
    let artifact = Artifact::open(file)?;
    let format = store::format::of(&artifact)?.name();
    if format != "sif" {
        let failure =
            Failure::new(code::USAGE, format!("`{}` is a {format}, which carries no signatures", file.display()));
        return Err(failure.hint("a SIF does: forge export FORMATION --format sif --sign KEY"));
    }
    let signatures = sif::signature::verify(&artifact, &trust, i64::from(keys::now()))?;
    if context.global.json {
        let record = |signature: &sif::signature::Signature| {
            serde_json::json!({
                "object": signature.object,
                "group": signature.group,
                "form": signature.form,
                "signer": signature.signer,
                "refused": signature.refused,
            })
        };
        let signatures: Vec<_> = signatures.iter().map(record).collect();
        super::print_json(&serde_json::json!({
            "schema": 1,
            "file": file.display().to_string(),
            "verified": true,
            "signatures": signatures,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    for signature in &signatures {
        match &signature.refused {
            None => super::print(&format!("good {} signature by {}\n", signature.form, signature.signer))?,
            Some(reason) if !context.global.quiet => {
                say!("not counted: {} signature by {}: {reason}", signature.form, signature.signer);
            }
            Some(_) => {}
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks peers for objects: for all at once, else for each by itself. What nobody has stays missing.
fn restore(
    group: &store::peer::Group<'_>,
    store: &store::Store,
    objects: &[ObjectId],
    context: &Context,
) -> store::Result<()> {
    let watch = store::peer::Watch { interrupt: &context.interrupt, progress: &|_, _| {} };
    let pull = |objects: &[ObjectId]| match group.pull(store, objects, &watch) {
        Err(store::peer::Error::Store(error)) => Err(error),
        pulled => Ok(matches!(pulled, Ok(Ok(_)))),
    };
    if !group.is_empty() && !pull(objects)? && objects.len() > 1 {
        for object in objects {
            pull(std::slice::from_ref(object))?;
        }
    }
    Ok(())
}

fn whole_store(arguments: &VerifyArguments, context: &Context) -> Result<ExitCode> {
    let store = context.store()?;
    let damaged = store.verify()?;
    let affected = store.affected(damaged.iter().filter_map(|damage| damage.object))?;
    let mut missing: Vec<ObjectId> = damaged.iter().filter_map(|damage| damage.object).collect();
    if !arguments.dry_run && !damaged.is_empty() {
        store.set_aside(&damaged)?;
        let group = if arguments.repair { Some(crate::peers::group(context)?) } else { None };
        let restore = |objects: &[ObjectId]| match &group {
            Some(group) => restore(group, &store, objects, context),
            None => Ok(()),
        };
        missing = store.heal(&affected, &restore)?;
    }
    let names = store.roots()?;
    let formations = |damage: &Damage| damage.object.and_then(|object| affected.formations.get(&object));
    let healed = |damage: &Damage| match damage.object {
        _ if arguments.dry_run => false,
        Some(object) => !missing.contains(&object),
        None => true,
    };
    if context.global.json {
        let record = |damage: &Damage| {
            serde_json::json!({
                "path": damage.path.display().to_string(),
                "object": damage.object.map(|object| object.to_string()),
                "error": damage.error.to_string(),
                "formations": formations(damage).into_iter().flatten().map(ToString::to_string).collect::<Vec<_>>(),
                "set_aside": !arguments.dry_run,
                "healed": healed(damage),
            })
        };
        let damaged: Vec<_> = damaged.iter().map(record).collect();
        super::print_json(&serde_json::json!({ "schema": 1, "damaged": damaged }))?;
    } else {
        for damage in &damaged {
            super::print(&format!("{}: {}\n", damage.path.display(), damage.error))?;
            for id in formations(damage).into_iter().flatten() {
                let called: Vec<&str> =
                    names.iter().filter(|(_, named)| *named == id).map(|(name, _)| name.as_str()).collect();
                super::print(&format!("  in formation {} {}\n", id.short(), called.join(" ")))?;
            }
            if damage.object.is_some() && healed(damage) {
                super::print("  healed\n")?;
            }
        }
    }
    let lost = damaged.iter().filter(|damage| !healed(damage)).count();
    if !context.global.quiet && !context.global.json {
        say!(
            "{}",
            match (damaged.len(), lost) {
                (0, _) => "nothing is damaged",
                (_, 0) => "all that was damaged is whole again",
                _ if arguments.dry_run => "`forge verify` sets it aside, `forge verify --repair` asks peers for it",
                _ if arguments.repair => "set aside and forgotten: the next `forge build` makes it again",
                _ => "set aside: `forge verify --repair` asks peers for it, `forge build` makes it again",
            }
        );
    }
    Ok(if lost == 0 { ExitCode::SUCCESS } else { ExitCode::from(code::DAMAGED) })
}
