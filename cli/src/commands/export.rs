//! `forge export`: packs a formation into a file.

use std::io::{BufWriter, IsTerminal, Write};
use std::path::Path;

use store::digest::to_hex;
use store::format::{Attachment, Digests, FileName, Options, oci, pack_in_order, sif};
use store::{FormationId, Store};

use crate::args::{AttachChoice, ExportArguments};
use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;
use crate::keys;
use crate::words::say;

/// `forge export`
pub fn run(arguments: &ExportArguments, context: &Context) -> Result<ExitCode> {
    let store = context.store()?;
    let mut ids = Vec::with_capacity(arguments.formations.len());
    for formation in &arguments.formations {
        ids.push(store.find(formation)?);
    }
    let id = ids[0];
    let attach = arguments.attach.iter().map(|what| match what {
        AttachChoice::Sbom => Attachment::Sbom,
        AttachChoice::Provenance => Attachment::Provenance,
    });
    let options = Options {
        compression: arguments.compression,
        remembered: !arguments.fresh,
        from: arguments.from.clone(),
        attach: attach.collect(),
    };
    if !options.attach.is_empty() && !arguments.format.starts_with("oci") {
        let failure = Failure::new(code::USAGE, format!("--attach: a {} holds no other documents", arguments.format));
        return Err(failure.hint("`forge sbom` and `forge provenance` write them to files of their own"));
    }
    if arguments.format == "oci-layout" {
        return layout(arguments, &store, &ids, &options, context);
    }
    let name = if arguments.format == "oci-archive" { "oci" } else { &arguments.format };
    let format = store::format::ALL.iter().find(|format| format.name() == name).expect("clap has checked it");
    if ids.len() > 1 && name != "oci" {
        let failure = Failure::new(code::USAGE, format!("a {name} holds one formation"));
        return Err(failure.hint("--format oci and --format oci-layout hold several, of several platforms"));
    }
    if arguments.sign.is_some() && name != "sif" {
        return Err(Failure::new(code::USAGE, format!("a {name} carries no signature")).hint("--format sif does"));
    }
    // A key that does not open is said before anything is packed.
    let key = arguments.sign.as_ref().map(|key| keys::secret(key, &arguments.passphrase, context)).transpose()?;
    let several =
        |output: &mut dyn Write| oci::write_archive(&store, &oci::collection(&store, &ids, &options)?, output);
    if arguments.output.as_deref() == Some(Path::new("-")) {
        if key.is_some() {
            return Err(Failure::new(code::USAGE, "what is signed is written to a file").hint("-o FILE names it"));
        }
        let stdout = std::io::stdout();
        if stdout.is_terminal() {
            return Err(Failure::new(code::USAGE, "an artifact is not for a terminal")
                .hint("redirect it, or give a file: -o FILE"));
        }
        let mut output = BufWriter::with_capacity(1 << 20, stdout.lock());
        match ids.len() {
            1 => format.pack(&store, id, &options, &mut output),
            _ => several(&mut output),
        }
        .map_err(closed)?;
        output.flush().map_err(|error| {
            Failure::new(code::DISK_FULL, "cannot write to standard output").cause(error.to_string())
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let path = match &arguments.output {
        Some(path) => path.clone(),
        None => FileName::default_for(&store.formation(id)?, format.extension()).into(),
    };
    if path.exists() && !arguments.force {
        return Err(
            Failure::new(code::USAGE, format!("`{}` is there already", path.display())).hint("--force replaces it")
        );
    }
    let failed = |error: std::io::Error| {
        let full = matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
        let code = if full { code::DISK_FULL } else { code::REFUSED };
        Failure::new(code, format!("cannot write `{}`", path.display())).cause(error.to_string())
    };
    // A half-written artifact is never seen under its name.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::Builder::new().prefix(".forge-export").tempfile_in(directory).map_err(failed)?;
    let packed = match ids.len() {
        1 => format.pack_file(&store, id, &options, file.as_file()),
        _ => pack_in_order(file.as_file(), several),
    };
    let packed = packed.map_err(|error| match error {
        store::Error::File { action: "write", source, .. } => failed(source),
        error => error.into(),
    })?;
    let unsigned = file.as_file().metadata().map_err(failed)?.len();
    if let Some(key) = &key {
        sif::signature::sign(file.path(), key, keys::now())?;
    }
    let signed = file.as_file().metadata().map_err(failed)?.len();
    let (artifact, sha256) = match (arguments.sha256, &key) {
        // SHA-256 of the whole takes longer than copying the file: it is for those who ask.
        (true, _) => Digests::of(file.as_file()).map(|digests| (digests.artifact, Some(to_hex(&digests.sha256))))?,
        (false, None) => (packed.digest(file.as_file())?, None),
        (false, Some(_)) => (Digests::of(file.as_file())?.artifact, None),
    };
    // Not synced, as `cp` and `mksquashfs` do not: should the machine fail now, the digests printed below tell.
    file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644)).map_err(failed)?;
    file.persist(&path).map_err(|error| failed(error.error))?;
    // What was packed here may be mounted here by the kernel. Without this note it is unpacked first.
    let _ = store.put_packed(artifact);
    if let Err(error) = packed.remember(&store, &path) {
        // It is only that the next one will take longer.
        say!("cannot remember what lies where in it: {error}");
    }
    if context.global.json {
        super::print_json(&serde_json::json!({
            "schema": 1,
            "id": id.to_string(),
            "format": format.name(),
            "compression": options.compression.to_string(),
            "file": path.display().to_string(),
            "size": packed.length + (signed - unsigned),
            "signed": key.is_some(),
            "copied": packed.copied,
            "blake3": artifact.to_string(),
            "sha256": sha256,
        }))?;
    } else {
        let sha256 = sha256.map(|sha256| format!("sha256 {sha256}\n")).unwrap_or_default();
        super::print(&format!("blake3 {artifact}\n{sha256}{}\n", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `--format oci-layout`: a directory, made beside its place and moved there when it is whole.
fn layout(
    arguments: &ExportArguments,
    store: &Store,
    ids: &[FormationId],
    options: &Options,
    context: &Context,
) -> Result<ExitCode> {
    let path = match &arguments.output {
        Some(path) if path == Path::new("-") => {
            return Err(
                Failure::new(code::USAGE, "a layout is a directory").hint("--format oci streams the same as a tar")
            );
        }
        Some(path) => path.clone(),
        None => FileName::default_for(&store.formation(ids[0])?, "oci").into(),
    };
    if path.symlink_metadata().is_ok() && !arguments.force {
        let failure = Failure::new(code::USAGE, format!("`{}` is there already", path.display()));
        return Err(failure.hint("--force replaces a layout that is there"));
    }
    if path.exists() && !path.join("oci-layout").is_file() {
        // --force is for artifacts, not for somebody's home.
        return Err(Failure::new(code::USAGE, format!("`{}` is there and no OCI layout", path.display())));
    }
    let failed = |error: std::io::Error| {
        Failure::new(code::REFUSED, format!("cannot write `{}`", path.display())).cause(error.to_string())
    };
    let collection = oci::collection(store, ids, options)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let made = tempfile::Builder::new().prefix(".forge-export").tempdir_in(parent).map_err(failed)?;
    oci::write_directory(store, &collection, made.path())?;
    std::fs::set_permissions(made.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).map_err(failed)?;
    if path.exists() {
        std::fs::remove_dir_all(&path).map_err(failed)?;
    }
    std::fs::rename(made.keep(), &path).map_err(failed)?;
    if context.global.json {
        let sizes = collection.contents.iter().map(|content| content.descriptor.size);
        super::print_json(&serde_json::json!({
            "schema": 1,
            "id": ids[0].to_string(),
            "format": "oci-layout",
            "file": path.display().to_string(),
            "size": sizes.sum::<u64>(),
        }))?;
    } else {
        super::print(&format!("{}\n", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Whoever read standard output has gone: the artifact is not whole, and that is not the disk's fault.
fn closed(error: store::Error) -> Failure {
    match &error {
        store::Error::File { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe => {
            Failure::new(code::NEGATIVE, "standard output was closed before the artifact's end")
        }
        _ => error.into(),
    }
}
