//! `forge sign`: signs an artifact where it lies.

use store::format::{Artifact, sif};

use crate::args::SignArguments;
use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;
use crate::keys;

/// `forge sign`
pub fn run(arguments: &SignArguments, context: &Context) -> Result<ExitCode> {
    let file = &arguments.file;
    let format = store::format::of(&Artifact::open(file)?)?.name();
    if format != "sif" {
        let failure =
            Failure::new(code::USAGE, format!("`{}` is a {format}, which carries no signatures", file.display()));
        return Err(failure.hint("a SIF does: forge export FORMATION --format sif --sign KEY"));
    }
    let key = keys::secret(&arguments.key, &arguments.passphrase, context)?;
    sif::signature::sign(file, &key, keys::now())?;
    if context.global.json {
        super::print_json(&serde_json::json!({ "schema": 1, "file": file.display().to_string(), "signed": true }))?;
    } else {
        super::print(&format!("{}\n", file.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
