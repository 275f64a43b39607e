//! What artifacts become: formations of the store. Import, run, inspect, diff and registries all come here.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::Path;

use store::directory::Record;
use store::format::{Artifact, Bounds, Dropped, FileName, Imported};
use store::formation::{is_name, is_variant};
use store::{Formation, FormationId, Store};

use crate::context::{Context, this_platform};
use crate::error::{Failure, Result, code};
use crate::words;

/// What the command line says instead of the artifact.
#[derive(Debug, Default)]
pub struct Wishes<'a> {
    /// Its name.
    pub name: Option<&'a str>,
    /// Its version.
    pub version: Option<&'a str>,
    /// Its variant.
    pub variant: Option<&'a str>,
    /// Its platform.
    pub platform: Option<&'a str>,
}

/// Opens what the command line names.
pub fn open(path: &Path) -> Result<Artifact> {
    match Artifact::open(path) {
        Err(store::Error::File { source, .. }) if source.kind() == ErrorKind::NotFound => {
            Err(Failure::new(code::NOT_FOUND, format!("there is no `{}`", path.display())))
        }
        // It has nothing to do with the store.
        Err(store::Error::File { source, .. }) => {
            let code = if source.kind() == ErrorKind::PermissionDenied { code::REFUSED } else { code::USAGE };
            Err(Failure::new(code, format!("cannot open `{}`", path.display())).cause(source.to_string()))
        }
        artifact => Ok(artifact?),
    }
}

impl Wishes<'_> {
    /// Refuses what a formation cannot be called.
    pub fn check(&self) -> Result<()> {
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
        platform: imported.platform.or(named.platform).unwrap_or_else(this_platform),
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
        words::show(&dropped_text(&imported.dropped));
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
