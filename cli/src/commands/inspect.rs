//! `forge inspect`: what an artifact is and which formation it holds, without unpacking it.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use store::format::{Artifact, Bounds, Digests, Inspection, oci};

use crate::args::{InfoArguments, InspectArguments};
use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;
use crate::{importing, registries, render, settings};

/// `forge inspect`
pub fn run(arguments: &InspectArguments, context: &Context) -> Result<ExitCode> {
    if registries::is_meant(&arguments.subject) {
        return image(arguments, context);
    }
    let path = Path::new(&arguments.subject);
    if !arguments.subject.contains('/') && !path.exists() {
        if arguments.digest || arguments.verify {
            let failure = Failure::new(code::USAGE, format!("`{}` is no file", path.display()));
            return Err(failure.hint("--digest and --verify are for artifacts; `forge verify` looks at the store"));
        }
        return super::info::run(&InfoArguments { formation: arguments.subject.clone() }, context);
    }
    let artifact = importing::open(path)?;
    let format = store::format::of(&artifact)?;
    let inspection = match (&arguments.platform, format.name()) {
        (Some(platform), "oci") => {
            oci::inspect_wanted(&artifact, &oci::Wanted { platform: Some(platform), image: None })?
        }
        _ => format.inspect(&artifact)?,
    };
    let digests = if arguments.digest { Some(digests(&artifact)?) } else { None };
    let root = if arguments.verify {
        let store = context.store()?;
        Some(store::format::read(&store, &artifact, &Bounds::for_size(artifact.size()))?.root)
    } else {
        None
    };
    if context.global.json {
        let mut record = to_json(&inspection);
        if let Some((blake3, sha256)) = &digests {
            record["blake3"] = json!(blake3);
            record["sha256"] = json!(sha256);
        }
        if let Some(root) = root {
            record["verified"] = json!(inspection.formation.is_some());
            record["root"] = json!(root.to_string());
        }
        super::print_json(&record)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = to_text(&inspection);
    let mut line = |name: &str, value: &str| _ = writeln!(text, "{name:<12} {value}");
    if let Some((blake3, sha256)) = &digests {
        line("blake3", blake3);
        line("sha256", sha256);
    }
    if let Some(root) = root {
        line("root", &root.to_string());
        match inspection.formation {
            Some(_) => line("verified", "it holds the formation that it claims"),
            None => line("verified", "it can be read; it claims nothing that could be compared"),
        }
    }
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// An image of a registry: nothing but its manifest and configuration is fetched, unless it is to be verified.
fn image(arguments: &InspectArguments, context: &Context) -> Result<ExitCode> {
    let reference = registries::reference(&arguments.subject)?;
    let platform = arguments.platform.as_deref();
    let access = registries::access(context)?;
    let session = store::registry::Session::new(&access, &reference);
    let inspection = store::registry::inspect(&session, &reference, platform)?;
    let root = match arguments.verify {
        true => Some(store::registry::pull(&context.store()?, &session, &reference, platform, None)?.imported.root),
        false => None,
    };
    if context.global.json {
        let mut record = to_json(&inspection);
        if let Some(root) = root {
            record["verified"] = json!(inspection.formation.is_some());
            record["root"] = json!(root.to_string());
        }
        super::print_json(&record)?;
    } else {
        let mut text = to_text(&inspection);
        if let Some(root) = root {
            let _ = writeln!(text, "{:<12} {root}", "root");
        }
        super::print(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// BLAKE3 and SHA-256 of a file.
fn digests(artifact: &Artifact) -> Result<(String, String)> {
    let Some(file) = artifact.file() else {
        let failure = Failure::new(code::USAGE, "--digest: a directory has no digest of its own");
        return Err(failure.hint("the digests of an OCI layout are those of its manifests"));
    };
    let digests = Digests::of(file)?;
    Ok((digests.artifact.to_string(), store::digest::to_hex(&digests.sha256)))
}

fn to_json(inspection: &Inspection) -> Value {
    let part = |part: &store::format::Part| json!({ "kind": part.kind, "name": part.name, "offset": part.offset, "size": part.size, "detail": part.detail });
    let formation = inspection.formation.as_ref().map(|formation| {
        let mut record = settings::of(formation);
        record["id"] = json!(formation.id().to_string());
        record["root"] = json!(formation.root.to_string());
        record
    });
    json!({
        "schema": 1,
        "format": inspection.format,
        "size": inspection.size,
        "compression": inspection.compression,
        "formation": formation,
        "name": inspection.name,
        "version": inspection.version,
        "platform": inspection.platform,
        "launch": inspection.formation.is_none().then(|| settings::launch(&inspection.launch)),
        "parts": inspection.parts.iter().map(part).collect::<Vec<_>>(),
        "facts": inspection.facts,
    })
}

fn to_text(inspection: &Inspection) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{name:<12} {}", render::plain(value));
        }
    };
    let compressed = match inspection.compression.as_str() {
        "" | "none" => String::new(),
        compression => format!(", {compression}"),
    };
    line("format", &format!("{}{compressed}", inspection.format));
    line("size", &render::size(inspection.size));
    match &inspection.formation {
        Some(formation) => {
            line("formation", &format!("{} (claimed: --verify reads it)", formation.id()));
            line("name", &formation.name);
            line("version", &formation.version);
            line("variant", &formation.variant);
            line("platform", &formation.platform);
        }
        None => {
            line("formation", "none: forge did not make it");
            line("name", inspection.name.as_deref().unwrap_or_default());
            line("version", inspection.version.as_deref().unwrap_or_default());
            line("platform", inspection.platform.as_deref().unwrap_or_default());
        }
    }
    let launch = inspection.formation.as_ref().map_or(&inspection.launch, |formation| &formation.launch);
    for (name, value) in settings::lines(launch) {
        line(name, &value);
    }
    for part in &inspection.parts {
        let offset = part.offset.map(|offset| format!(" at {offset}")).unwrap_or_default();
        let detail = if part.detail.is_empty() { String::new() } else { format!(", {}", part.detail) };
        line("part", &format!("{} {}: {}{offset}{detail}", part.kind, part.name, render::size(part.size)));
    }
    for (name, value) in &inspection.facts {
        line(name, value);
    }
    text
}
