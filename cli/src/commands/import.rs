//! `forge import`: an artifact, an archive or a directory becomes a formation of the store.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use store::directory::Record;
use store::format::oci::Wanted;
use store::format::{Artifact, Bounds, Dropped, FileName, Imported};
use store::formation::{is_name, is_variant};
use store::{Formation, FormationId, Store};

use crate::args::ImportArguments;
use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::{registries, units};

/// What the command line says instead of the artifact.
#[derive(Debug, Default)]
pub struct Wishes<'a> {
    name: Option<&'a str>,
    version: Option<&'a str>,
    variant: Option<&'a str>,
    platform: Option<&'a str>,
}

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
            (true, true) => {
                let (root, dropped) = store.ingest_exact(path)?;
                Imported { dropped, ..Imported::bare(root) }
            }
            // Of an image for several platforms, one is chosen rather than called another.
            (false, false) if store::format::of(&artifact)?.name() == "oci" => {
                let wanted = Wanted { platform: wishes.platform.take(), image: arguments.image.as_deref() };
                store::format::oci::read_wanted(&store, &artifact, &bounded(artifact.size()), &wanted)?
            }
            (false, _) if arguments.image.is_some() => {
                let failure = Failure::new(code::USAGE, format!("--image: `{}` is no OCI image", path.display()));
                return Err(failure.hint("an OCI layout or archive, or one of `docker save`, can hold several"));
            }
            (false, _) => store::format::read(&store, &artifact, &bounded(artifact.size()))?,
        }
    };
    let dropped = imported.dropped.clone();
    let id = keep(&store, imported, path, &wishes)?;
    let formation = store.formation(id)?;
    store.set_root(&formation.name, id)?;
    if let Some(tag) = &arguments.tag {
        store.set_root(tag, id)?;
    }
    if !context.global.quiet && reference.is_none() {
        eprint!("{}", dropped_text(&dropped));
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

/// Opens what the command line names.
pub fn open(path: &Path) -> Result<Artifact> {
    match Artifact::open(path) {
        Err(store::Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Err(Failure::new(code::NOT_FOUND, format!("there is no `{}`", path.display())))
        }
        artifact => Ok(artifact?),
    }
}

impl Wishes<'_> {
    fn check(&self) -> Result<()> {
        let wrong = |option: &str, text: &str, wanted: &str| {
            Failure::new(code::USAGE, format!("{option} `{text}`: {wanted} is expected"))
        };
        match (self.name, self.variant, self.platform) {
            (Some(name), ..) if !is_name(name) => {
                Err(wrong("--name", name, "a name of letters, digits, `.`, `_`, `+` and `-` that is no digest"))
            }
            (_, Some(variant), _) if !is_variant(variant) => {
                Err(wrong("--variant", variant, "a word of letters, digits, `.`, `_` and `+`"))
            }
            (.., Some(platform)) if !platform.starts_with("linux/") || platform.len() < 7 => {
                Err(wrong("--platform", platform, "linux/ARCHITECTURE"))
            }
            _ => Ok(()),
        }
    }
}

/// Keeps what was read as a formation: the one that it carries, or one that is made of what it says and what is wished for.
pub fn keep(store: &Store, imported: Imported, path: &Path, wishes: &Wishes<'_>) -> Result<FormationId> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let file_name = absolute.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let named = if path == Path::new("-") { FileName::default() } else { FileName::parse(&file_name) };
    let said_name = imported.name.filter(|name| is_name(name));
    let file_says = named.name.clone();
    let mut formation = imported.formation.unwrap_or_else(|| Formation {
        name: said_name.unwrap_or(if file_says.is_empty() { "imported".to_owned() } else { file_says }),
        version: imported.version.unwrap_or(named.version),
        variant: named.variant,
        platform: imported.platform.or(named.platform).unwrap_or_else(super::run::this_platform),
        root: imported.root,
        launch: imported.launch,
    });
    let replace = |value: &mut String, wish: Option<&str>| {
        if let Some(wish) = wish {
            wish.clone_into(value);
        }
    };
    replace(&mut formation.name, wishes.name);
    replace(&mut formation.version, wishes.version);
    replace(&mut formation.variant, wishes.variant);
    replace(&mut formation.platform, wishes.platform);
    let record = Record { layers: imported.layers, ..Record::default() };
    Ok(store.put_formation(&formation, &record)?)
}

/// What was left out, a line for each kind.
pub fn dropped_text(dropped: &Dropped) -> String {
    let mut text = String::new();
    for (kind, (count, path)) in &dropped.0 {
        let path = String::from_utf8_lossy(path).escape_debug().to_string();
        let _ = match count {
            1 => writeln!(text, "forge: left out: {kind} `{path}`"),
            count => writeln!(text, "forge: left out: {kind}, {count} times, first `{path}`"),
        };
    }
    text
}

/// The formation that an artifact holds. The first time it is read as a whole; then its file is known until it changes.
pub fn known(store: &Store, artifact: &Artifact, context: &Context) -> Result<FormationId> {
    wait_for_the_clock(artifact)?;
    let look = || artifact.file().map(std::fs::File::metadata).transpose();
    let before = look()?;
    if let Some(metadata) = &before
        && let Some(id) = store.claim_of_file(metadata)?
    {
        let formation = store.formation(id)?;
        if store.has_tree(formation.root) {
            return Ok(id);
        }
    }
    let imported = store::format::read(store, artifact, &Bounds::for_size(artifact.size()))?;
    if !context.global.quiet {
        eprint!("{}", dropped_text(&imported.dropped));
    }
    let id = keep(store, imported, artifact.path(), &Wishes::default())?;
    // What changed meanwhile was not read as it is now.
    if let (Some(before), Some(after)) = (before, look()?)
        && same_state(&before, &after)
    {
        store.put_claim_of_file(&after, id, &artifact.path().display().to_string())?;
    }
    Ok(id)
}

/// Lets the clock of the file system go on if the file was changed only now: what is written after it was read has a later time
/// of change then, and is told apart.
fn wait_for_the_clock(artifact: &Artifact) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    use std::time::{Duration, SystemTime};
    // A tick of Linux's coarse clock is 10 ms at most.
    const TICKS: Duration = Duration::from_millis(25);
    let Some(file) = artifact.file() else { return Ok(()) };
    let metadata = file.metadata()?;
    let changed = Duration::new(metadata.ctime().unsigned_abs(), metadata.ctime_nsec().unsigned_abs() as u32);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    if now.saturating_sub(changed) < TICKS {
        std::thread::sleep(TICKS);
    }
    Ok(())
}

fn same_state(before: &std::fs::Metadata, after: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    let state = |metadata: &std::fs::Metadata| {
        (metadata.len(), metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec())
    };
    state(before) == state(after)
}
