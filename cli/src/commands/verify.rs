//! `forge verify`: hashes everything in the store again and names what is damaged; or verifies who signed an artifact.

use std::path::Path;
use std::process::ExitCode;

use store::format::{Artifact, sif};

use crate::args::VerifyArguments;
use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::keys;

/// `forge verify`
pub fn run(arguments: &VerifyArguments, context: &Context) -> Result<ExitCode> {
    match &arguments.file {
        Some(file) => signatures(file, arguments, context),
        None => whole_store(context),
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
                eprintln!("not counted: {} signature by {}: {reason}", signature.form, signature.signer);
            }
            Some(_) => {}
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn whole_store(context: &Context) -> Result<ExitCode> {
    let damaged = context.store()?.verify()?;
    if context.global.json {
        let record = |damage: &store::directory::Damage| serde_json::json!({ "path": damage.path.display().to_string(), "error": damage.error.to_string() });
        let damaged: Vec<_> = damaged.iter().map(record).collect();
        super::print_json(&serde_json::json!({ "schema": 1, "damaged": damaged }))?;
    } else {
        for damage in &damaged {
            super::print(&format!("{}: {}\n", damage.path.display(), damage.error))?;
        }
        if !context.global.quiet {
            eprintln!(
                "{}",
                if damaged.is_empty() {
                    "nothing is damaged"
                } else {
                    "`forge gc`, then a build, makes damaged objects again"
                }
            );
        }
    }
    Ok(if damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(code::DAMAGED) })
}
