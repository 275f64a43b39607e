//! `forge import`: an artifact, an archive or a directory becomes a formation of the store.

use std::path::Path;

use builder::joblet::Description;
use store::format::oci::Wanted;
use store::format::{Bounds, Imported};

use crate::args::ImportArguments;
use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;
use crate::importing::{Wishes, dropped_text, keep, open};
use crate::names::root_name;
use crate::words;
use crate::{registries, units};

/// `forge import joblet FILE`: prints the expression that does what a runtime.yaml says.
fn joblet(file: &Path, context: &Context) -> Result<ExitCode> {
    let file = crate::plan::expression_file(file)?;
    let turned = crate::joblet::expression(&file, context)?;
    if context.global.json {
        let note = |(line, note): &(Option<usize>, String)| serde_json::json!({ "line": line, "note": note });
        let notes: Vec<_> = turned.notes.iter().map(note).collect();
        super::print_json(&serde_json::json!({ "schema": 1, "expression": turned.text, "notes": notes }))?;
    } else {
        super::print(&turned.text)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A root with what Joblet's description of it says.
fn described(imported: Imported, description: Description) -> Imported {
    let bytes = |(name, value): (String, String)| (name.into_bytes(), value.into_bytes());
    let mut launch = imported.launch;
    launch.environment = description.environment.into_iter().map(bytes).collect();
    launch.labels = description.labels;
    if !description.language.is_empty() {
        // What the files themselves do not say.
        launch.labels.insert("forge.type".to_owned(), description.language);
    }
    if !description.description.is_empty() {
        launch.labels.insert("org.opencontainers.image.description".to_owned(), description.description);
    }
    Imported { name: Some(description.name), version: Some(description.version), launch, ..imported }
}

/// `forge import`
pub fn run(arguments: &ImportArguments, context: &Context) -> Result<ExitCode> {
    match &arguments.description {
        Some(file) if arguments.file == Path::new("joblet") => return joblet(file, context),
        Some(_) => {
            let failure = Failure::new(code::USAGE, "one artifact at a time");
            return Err(failure.hint("`forge import joblet runtime.yaml` turns a runtime of Joblet into an expression"));
        }
        None => {}
    }
    let tag = arguments.tag.as_deref().map(root_name).transpose()?;
    let store = context.store()?;
    let mut wishes = Wishes {
        name: arguments.name.as_deref(),
        version: arguments.version.as_deref(),
        variant: arguments.variant.as_deref(),
        platform: arguments.platform.as_deref(),
    };
    wishes.check()?;
    let most = match &arguments.max_size {
        None => None,
        Some(text) => Some(units::bytes(text).ok_or_else(|| {
            Failure::new(code::USAGE, format!("--max-size `{text}`: a size such as 100G is expected"))
        })?),
    };
    let bounded = |size| match (Bounds::for_size(size), most) {
        (bounds, Some(bytes)) => Bounds { bytes, ..bounds },
        (bounds, None) => bounds,
    };
    let path = arguments.file.as_path();
    let reference = match arguments.file.to_str().filter(|text| registries::is_meant(text)) {
        Some(text) => Some(registries::reference(text)?),
        None => None,
    };
    // What is called after its file is called after its repository.
    let path = reference.as_ref().map_or(path, |reference| Path::new(reference.name()));
    let imported = if let Some(reference) = &reference {
        if arguments.keep || arguments.image.is_some() {
            let failure = Failure::new(code::USAGE, "--keep and --image are for what lies here");
            return Err(failure.hint("a reference names one image, by its tag or digest"));
        }
        registries::pull(&store, reference, wishes.platform.take(), most, context)?.imported
    } else if path == Path::new("-") {
        let from = Path::new("standard input");
        store::format::read_stream(&store, &mut std::io::stdin().lock(), from, &bounded(0))?
    } else {
        let artifact = open(path)?;
        let plain = artifact.is_directory() && store::format::of(&artifact).is_err();
        match (arguments.keep, plain) {
            (true, false) => {
                let failure = Failure::new(code::USAGE, format!("--keep: `{}` is no plain directory", path.display()));
                return Err(failure.hint("an archive's owners and modes are always kept"));
            }
            (keep, true) if arguments.image.is_none() => {
                let installed = crate::joblet::installed(path)?;
                let source = installed.as_ref().map_or(path, |(root, _)| root);
                let imported = match keep {
                    true => {
                        let (root, dropped) = store.ingest_exact(source)?;
                        Imported { dropped, ..Imported::bare(root) }
                    }
                    false => store::format::read(&store, &open(source)?, &bounded(0))?,
                };
                match installed {
                    Some((_, description)) => described(imported, description),
                    None => imported,
                }
            }
            // Of an image for several platforms, one is chosen rather than called another.
            (false, false) if store::format::of(&artifact)?.name() == "oci" => {
                let wanted = Wanted { platform: wishes.platform.take(), image: arguments.image.as_deref() };
                store::format::oci::read_wanted(&store, &artifact, &bounded(artifact.size()), &wanted)?
            }
            _ if arguments.image.is_some() => {
                let failure = Failure::new(code::USAGE, format!("--image: `{}` is no OCI image", path.display()));
                return Err(failure.hint("an OCI layout or archive, or one of `docker save`, can hold several"));
            }
            _ => store::format::read(&store, &artifact, &bounded(artifact.size()))?,
        }
    };
    let dropped = imported.dropped.clone();
    let id = keep(&store, imported, path, &wishes)?;
    let formation = store.formation(id)?;
    store.set_root(&formation.name, id)?;
    if let Some(tag) = &tag {
        store.set_root(tag, id)?;
    }
    if !context.global.quiet && reference.is_none() {
        words::show(&dropped_text(&dropped));
    }
    if context.global.json {
        let left_out = |(kind, (count, path)): (&String, &(u64, Vec<u8>))| serde_json::json!({ "kind": kind, "count": count, "first": String::from_utf8_lossy(path) });
        super::print_json(&serde_json::json!({
            "schema": 1,
            "id": id.to_string(),
            "name": formation.name,
            "version": formation.version,
            "variant": formation.variant,
            "platform": formation.platform,
            "root": formation.root.to_string(),
            "dropped": dropped.0.iter().map(left_out).collect::<Vec<_>>(),
        }))?;
    } else {
        super::print(&format!("{id}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
