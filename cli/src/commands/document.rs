//! `forge sbom` and `forge provenance`: what a formation is made of, and how it was made, as documents that others read.

use std::io::Write;
use std::path::Path;

use serde_json::Value;
use store::{FormationId, Store};

use crate::args::DocumentArguments;
use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;

/// `forge sbom`
pub fn sbom(arguments: &DocumentArguments, context: &Context) -> Result<ExitCode> {
    write(arguments, context, store::sbom::sbom)
}

/// `forge provenance`
pub fn provenance(arguments: &DocumentArguments, context: &Context) -> Result<ExitCode> {
    write(arguments, context, store::provenance::provenance)
}

fn write(
    arguments: &DocumentArguments,
    context: &Context,
    document: fn(&Store, FormationId) -> store::Result<Value>,
) -> Result<ExitCode> {
    let store = context.store()?;
    let id = store.find(&arguments.formation)?;
    let document = document(&store, id)?;
    let path = match arguments.output.as_deref() {
        None => return super::print_json(&document).map(|()| ExitCode::SUCCESS),
        Some(path) if path == Path::new("-") => return super::print_json(&document).map(|()| ExitCode::SUCCESS),
        Some(path) => path,
    };
    let failed = |error: std::io::Error| {
        let full = matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
        let code = if full { code::DISK_FULL } else { code::REFUSED };
        Failure::new(code, format!("cannot write `{}`", path.display())).cause(error.to_string())
    };
    // A half-written document is never seen under its name.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".forge-document").tempfile_in(directory).map_err(failed)?;
    let text = serde_json::to_string_pretty(&document).expect("a JSON value has a text");
    file.write_all(text.as_bytes()).and_then(|()| file.write_all(b"\n")).map_err(failed)?;
    file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644)).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(ExitCode::SUCCESS)
}
