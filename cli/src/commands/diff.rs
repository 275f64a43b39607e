//! `forge diff`: how two formations, artifacts or directories differ: first the settings, then the paths.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use store::diff::{ContentChange, Difference};
use store::format::Imported;
use store::{Formation, FormationId, Node, Store, TreeId};

use crate::args::DiffArguments;
use crate::context::Context;
use crate::error::{Result, code};
use crate::exit::ExitCode;
use crate::{importing, render, settings};

/// Lines of a text's diff that are shown unasked.
const LINES: usize = 40;

/// One side.
struct Side {
    root: TreeId,
    /// None of a directory or a tar of others: these are compared by their files alone.
    settings: Option<Value>,
    id: Option<FormationId>,
}

impl Side {
    fn of(formation: &Formation) -> Self {
        Self { root: formation.root, settings: Some(settings::of(formation)), id: Some(formation.id()) }
    }
}

/// `forge diff`
pub fn run(arguments: &DiffArguments, context: &Context) -> Result<ExitCode> {
    // That something cannot be read is no answer, and the code of "they differ" would be one.
    compare(arguments, context).map_err(|mut failure| {
        if failure.code == code::NEGATIVE {
            failure.code = code::USAGE;
        }
        failure
    })
}

fn compare(arguments: &DiffArguments, context: &Context) -> Result<ExitCode> {
    let store = context.store()?;
    let (before, after) = (side(&store, &arguments.before, context)?, side(&store, &arguments.after, context)?);
    let changed_settings = compare_settings(&before, &after);
    let differences = store.differences(before.root, after.root)?;
    let same = changed_settings.is_empty() && differences.is_empty();
    if context.global.json {
        let paths = differences.iter().map(|difference| path_json(&store, difference)).collect::<Result<Vec<_>>>()?;
        let side = |side: &Side| json!({ "id": side.id.map(|id| id.to_string()), "root": side.root.to_string() });
        let changed = changed_settings
            .iter()
            .map(|(name, before, after)| json!({ "name": name, "before": parsed(before), "after": parsed(after) }));
        super::print_json(&json!({
            "schema": 1,
            "same": same,
            "before": side(&before),
            "after": side(&after),
            "settings": changed.collect::<Vec<_>>(),
            "paths": paths,
        }))?;
    } else if !context.global.quiet {
        let paint = render::Paint::new(context.color_on_stdout());
        let whole = context.global.verbose > 0;
        let mut text = String::new();
        for (name, before, after) in &changed_settings {
            for (sign, value) in [("-", before), ("+", after)] {
                if let Some(value) = value {
                    let _ = writeln!(text, "{}", painted(paint, sign, &format!("{sign} {name} = {value}")));
                }
            }
        }
        text.push_str(&paths_text(&store, &differences, whole, paint)?);
        super::print(&text)?;
    }
    Ok(if same { ExitCode::SUCCESS } else { ExitCode::from(code::NEGATIVE) })
}

/// What a word of the command line stands for: a file or directory if there is one by that path, else a formation.
fn side(store: &Store, given: &str, context: &Context) -> Result<Side> {
    if crate::registries::is_meant(given) {
        let id = crate::registries::formation(store, given, None, context)?;
        return Ok(Side::of(&store.formation(id)?));
    }
    let path = Path::new(given);
    if !given.contains('/') && !path.exists() {
        let id = store.find(given)?;
        return Ok(Side::of(&store.formation(id)?));
    }
    let artifact = importing::open(path)?;
    let imported = match artifact.is_directory() && store::format::of(&artifact).is_err() {
        true => Imported::bare(store.ingest_exact(path)?.0),
        false => store::format::read(store, &artifact, &store::format::Bounds::for_size(artifact.size()))?,
    };
    Ok(match (&imported.formation, &imported.platform) {
        (Some(formation), _) => Side::of(formation),
        // What others made has no name that would belong to it, but a way to be run.
        (None, Some(platform)) => {
            let settings = json!({ "platform": platform, "launch": settings::launch(&imported.launch) });
            Side { root: imported.root, settings: Some(settings), id: None }
        }
        (None, None) => Side { root: imported.root, settings: None, id: None },
    })
}

/// Settings that differ: name, and the value of either side as JSON; as far as both sides have such.
fn compare_settings(before: &Side, after: &Side) -> Vec<(String, Option<String>, Option<String>)> {
    let (Some(before), Some(after)) = (&before.settings, &after.settings) else { return Vec::new() };
    let both = |name: &str| before.get(name).is_some() && after.get(name).is_some();
    let (before, after) = (settings::flat(before), settings::flat(after));
    let names: BTreeSet<&String> =
        before.keys().chain(after.keys()).filter(|name| both(name.split('.').next().unwrap_or_default())).collect();
    let differing = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    differing.map(|name| (name.clone(), before.get(name).cloned(), after.get(name).cloned())).collect()
}

fn parsed(value: &Option<String>) -> Value {
    value.as_ref().map_or(Value::Null, |text| serde_json::from_str(text).expect("it was printed as JSON"))
}

fn painted(paint: render::Paint, sign: &str, line: &str) -> String {
    match sign {
        "-" => paint.removed(line),
        "+" => paint.added(line),
        _ => line.to_owned(),
    }
}

/// The paths, a line each; of a directory that only one side has, one line with how much is in it, unless `whole`.
fn paths_text(store: &Store, differences: &[Difference], whole: bool, paint: render::Paint) -> Result<String> {
    let mut text = String::new();
    let mut rest = differences.iter().peekable();
    while let Some(difference) = rest.next() {
        let sign = sign(difference);
        let node = difference.after.as_ref().or(difference.before.as_ref());
        let is_directory = matches!(node, Some(Node::Directory(_)));
        let mut line = format!("{sign} /{}", String::from_utf8_lossy(&difference.path).escape_debug());
        if is_directory && !difference.path.is_empty() {
            line.push('/');
        }
        let mut below = 0;
        if sign != "~" && is_directory && !whole {
            let start = [difference.path.as_slice(), b"/"].concat();
            while rest.next_if(|next| next.path.starts_with(&start)).is_some() {
                below += 1;
            }
        }
        if below > 0 {
            let _ = write!(line, "  ({below} below: -v lists them)");
        }
        if sign == "~" {
            let _ = write!(line, "  {}", aspects_text(store, difference)?);
        }
        text.push_str(&painted(paint, sign, &line));
        text.push('\n');
        match store.content_change(difference)? {
            Some(ContentChange::Text { diff }) => {
                let most = if whole { usize::MAX } else { LINES };
                for line in diff.lines().take(most) {
                    let shown = format!("    {}", line.replace(|c: char| c.is_control() && c != '\t', "·"));
                    let _ = writeln!(text, "{}", painted(paint, &line[..line.len().min(1)], &shown));
                }
                if let Some(more) = diff.lines().count().checked_sub(most).filter(|more| *more > 0) {
                    let _ = writeln!(text, "    … {more} more lines: -v shows all");
                }
            }
            Some(ContentChange::Elf { sections }) => {
                let size = |size: Option<u64>| size.map_or("none".to_owned(), |size| format!("{size} bytes"));
                for section in &sections {
                    let (before, after) = (size(section.before), size(section.after));
                    let change = if before == after { before } else { format!("{before} → {after}") };
                    let _ = writeln!(text, "    section {}  {change}", section.name);
                }
                if sections.is_empty() {
                    text.push_str("    only headers or padding differ\n");
                }
            }
            Some(ContentChange::Bytes { first: Some(first) }) => {
                let _ = writeln!(text, "    from byte {first} on");
            }
            Some(ContentChange::Bytes { first: None }) | None => {}
        }
    }
    Ok(text)
}

fn sign(difference: &Difference) -> &'static str {
    match (&difference.before, &difference.after) {
        (None, _) => "+",
        (_, None) => "-",
        _ => "~",
    }
}

/// `mode 0644 → 0755, size 3 → 4`
fn aspects_text(store: &Store, difference: &Difference) -> Result<String> {
    let (Some(before), Some(after)) = (&difference.before, &difference.after) else { return Ok(String::new()) };
    let (old, new) = (store.metadata_of(before)?, store.metadata_of(after)?);
    let mut words = Vec::new();
    for aspect in &difference.aspects {
        let values = match *aspect {
            "type" => Some((kind(before).to_owned(), kind(after).to_owned())),
            "mode" => Some((format!("{:04o}", old.mode), format!("{:04o}", new.mode))),
            "owner" => Some((format!("{}:{}", old.uid, old.gid), format!("{}:{}", new.uid, new.gid))),
            "size" => Some((file_size(before).to_string(), file_size(after).to_string())),
            "target" => Some((target(before), target(after))),
            _ => None,
        };
        words.push(match values {
            Some((before, after)) => format!("{aspect} {before} → {after}"),
            None => (*aspect).to_owned(),
        });
    }
    Ok(words.join(", "))
}

fn kind(node: &Node) -> &'static str {
    match node {
        Node::File(_) => "file",
        Node::Directory(_) => "directory",
        Node::Symlink { .. } => "symlink",
        Node::Fifo(_) => "fifo",
        Node::Device { block: true, .. } => "block device",
        Node::Device { block: false, .. } => "character device",
    }
}

fn file_size(node: &Node) -> u64 {
    if let Node::File(file) = node { file.size } else { 0 }
}

fn target(node: &Node) -> String {
    if let Node::Symlink { target, .. } = node { String::from_utf8_lossy(target).into_owned() } else { String::new() }
}

fn path_json(store: &Store, difference: &Difference) -> Result<Value> {
    let change = match sign(difference) {
        "+" => "added",
        "-" => "removed",
        _ => "changed",
    };
    let node = |node: &Option<Node>| -> Result<Value> {
        let Some(node) = node else { return Ok(Value::Null) };
        let metadata = store.metadata_of(node)?;
        let mut record = json!({
            "type": kind(node),
            "mode": format!("{:04o}", metadata.mode),
            "uid": metadata.uid,
            "gid": metadata.gid,
        });
        match node {
            Node::File(file) => {
                record["size"] = json!(file.size);
                record["blob"] = json!(file.blob.to_string());
            }
            Node::Directory(id) => record["tree"] = json!(id.to_string()),
            Node::Symlink { .. } => record["target"] = json!(target(node)),
            Node::Device { major, minor, .. } => record["device"] = json!(format!("{major}:{minor}")),
            Node::Fifo(_) => {}
        }
        Ok(record)
    };
    let content = match store.content_change(difference)? {
        None => Value::Null,
        Some(ContentChange::Text { diff }) => json!({ "text": diff }),
        Some(ContentChange::Elf { sections }) => {
            let section = |section: &store::diff::SectionChange| json!({ "name": section.name, "before": section.before, "after": section.after });
            json!({ "elf": sections.iter().map(section).collect::<Vec<_>>() })
        }
        Some(ContentChange::Bytes { first }) => json!({ "first": first }),
    };
    Ok(json!({
        "path": format!("/{}", String::from_utf8_lossy(&difference.path)),
        "change": change,
        "aspects": difference.aspects,
        "before": node(&difference.before)?,
        "after": node(&difference.after)?,
        "content": content,
    }))
}
