//! `builtin:node-modules`: unpacked packages where a lock wants them, the links to their programs, and npm's own record.

use std::collections::BTreeMap;

use serde_json::Value;
use store::directory::Claim;
use store::{File, Metadata, Name, Node, RelativePath, Store};

use super::package::set_executable;
use crate::builtin::{Builtin, Job};
use crate::draft::{Draft, DraftError};
use crate::{Error, Result};

/// Parameters: `directory` (where it all lies), `lock` (the blob of a package-lock.json), `packages` (each with `path`, `package`,
/// `bin`), `links` (by path: `target` and `bin`; workspaces).
pub struct Modules;

#[derive(serde::Deserialize)]
struct Placed {
    path: String,
    package: String,
    bin: Value,
}

#[derive(serde::Deserialize)]
struct Link {
    target: String,
    bin: Value,
}

impl Builtin for Modules {
    fn name(&self) -> &'static str {
        "node-modules"
    }

    fn phase(&self) -> &'static str {
        "install"
    }

    fn build(&self, job: &Job<'_>) -> Result<Claim> {
        let store = job.builder.store;
        let directory: String = job.parameter("directory")?;
        let mut packages: Vec<Placed> = job.parameter("packages")?;
        let links: BTreeMap<String, Link> = job.parameter("links")?;
        // What lies deeper comes later.
        packages.sort_by(|one, other| one.path.cmp(&other.path));
        let mut draft = Draft::passing();
        let about = |error: DraftError| error.about("lock", "package-lock.json");
        let top = parse(directory.trim_start_matches('/'))?;
        let whole = |path: &str| Ok::<_, Error>(RelativePath([top.0.clone(), parse(path)?.0].concat()));
        for placed in &packages {
            job.builder.check_interrupt()?;
            let path = whole(&placed.path)?;
            // A directory on the way is npm's, and says so itself; what lies above is the formation's.
            for depth in top.0.len() + 1..path.0.len() {
                let passed = draft.directory(store, &path.0[..depth]).map_err(about)?;
                passed.metadata = Metadata::root(0o755);
                passed.passed = false;
            }
            let tree = store.delta(job.delta(&placed.package)?)?.tree;
            draft.replace(store, &path.0, Node::Directory(tree)).map_err(about)?;
        }
        for (path, link) in &links {
            let target = relative(path, &link.target)?;
            let node = Node::Symlink { target, uid: 0, gid: 0 };
            draft.replace(store, &whole(path)?.0, node).map_err(about)?;
            programs(&mut draft, store, &top, path, &link.bin, true)?;
        }
        // Of two programs with one name that of the first package is linked to, in npm's order.
        packages.sort_by_cached_key(|placed| collation(&placed.path));
        for placed in &packages {
            programs(&mut draft, store, &top, &placed.path, &placed.bin, false)?;
        }
        if !packages.is_empty() {
            let lock = store.blob(job.blob(&job.parameter::<String>("lock")?)?)?;
            let installed: Vec<&str> =
                packages.iter().map(|placed| placed.path.as_str()).chain(links.keys().map(String::as_str)).collect();
            let text = hidden_lock(&lock, &installed).map_err(|reason| Error::Invalid {
                what: "lock",
                name: "package-lock.json".to_owned(),
                reason,
            })?;
            let blob = store.put_blob(text.as_bytes(), false)?;
            let file = File { blob, size: text.len() as u64, metadata: Metadata::root(0o644) };
            let path = whole("node_modules/.package-lock.json")?;
            draft.replace(store, &path.0, Node::File(file)).map_err(about)?;
        }
        Ok(Claim::Delta(draft.delta(store)?))
    }
}

fn parse(path: &str) -> Result<RelativePath> {
    RelativePath::parse(path.as_bytes()).map_err(|error| Error::Invalid {
        what: "lock",
        name: "package-lock.json".to_owned(),
        reason: format!("`{path}`: {error}"),
    })
}

/// What a link at one path says to lead to another, both below one directory.
fn relative(from: &str, to: &str) -> Result<Vec<u8>> {
    let (from, to) = (parse(from)?, parse(to)?);
    let up = from.0.len().saturating_sub(1);
    Ok([b"../".repeat(up), to.to_bytes()].concat())
}

/// By which paths sort as JavaScript's `localeCompare` has them: signs before digits before letters, case only at the end.
fn collation(path: &str) -> (Vec<usize>, String) {
    const SIGNS: &str = "_-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$";
    let rank = |letter: char| match SIGNS.find(letter) {
        Some(place) => place,
        None => SIGNS.len() + letter as usize,
    };
    (path.to_lowercase().chars().map(rank).collect(), path.to_owned())
}

/// Links a package's programs into the `.bin` beside it.
fn programs(
    draft: &mut Draft,
    store: &Store,
    top: &RelativePath,
    path: &str,
    bin: &Value,
    is_link: bool,
) -> Result<()> {
    let about = |error: DraftError| error.about("lock", "package-lock.json");
    let Some(end) = path.rfind("node_modules/").map(|at| at + "node_modules".len()) else { return Ok(()) };
    let (modules, inside) = (&path[..end], &path[end + 1..]);
    let named: Vec<(String, &str)> = match bin {
        Value::String(file) => vec![(inside.rsplit('/').next().unwrap_or(inside).to_owned(), file.as_str())],
        Value::Object(files) => files.iter().filter_map(|(name, file)| Some((name.clone(), file.as_str()?))).collect(),
        _ => Vec::new(),
    };
    for (name, file) in named {
        // As npm: what is no name, or leads out of the package, is passed over.
        let (Ok(name), Ok(file)) = (Name::new(name), RelativePath::parse(file.as_bytes())) else { continue };
        let program = RelativePath([top.0.clone(), parse(path)?.0, file.0.clone()].concat());
        if !is_link {
            if !matches!(draft.leaf(store, &program.0)?, Some(Node::File(_))) {
                continue;
            }
            set_executable(store, draft, &program).map_err(about)?;
            with_unix_line(draft, store, &program)?;
        }
        let place =
            RelativePath([top.0.clone(), parse(modules)?.0, vec![Name::new(*b".bin").expect("a name"), name]].concat());
        if draft.leaf(store, &place.0)?.is_some() {
            continue;
        }
        let directory = draft.directory(store, &place.0[..place.0.len() - 1]).map_err(about)?;
        (directory.metadata, directory.passed) = (Metadata::root(0o755), false);
        let target = [b"../", inside.as_bytes(), b"/", &file.to_bytes()[..]].concat();
        draft.replace(store, &place.0, Node::Symlink { target, uid: 0, gid: 0 }).map_err(about)?;
    }
    Ok(())
}

/// A first line `#!…` that ends as on Windows names no program on Linux; npm mends it.
fn with_unix_line(draft: &mut Draft, store: &Store, path: &RelativePath) -> Result<()> {
    let Some(Node::File(file)) = draft.leaf(store, &path.0)? else { return Ok(()) };
    let mut head = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(store.open_blob(file.blob)?, 2048), &mut head)
        .map_err(Error::file("read", store.path()))?;
    let Some(end) = head.iter().position(|byte| *byte == b'\n') else { return Ok(()) };
    if !head.starts_with(b"#!") || end < 3 || head[end - 1] != b'\r' {
        return Ok(());
    }
    let mut bytes = store.blob(file.blob)?;
    bytes.remove(end - 1);
    let (blob, size) = (store.put_blob(&bytes, true)?, bytes.len() as u64);
    let node = Node::File(File { blob, size, ..file });
    draft.replace(store, &path.0, node).map_err(|error| error.about("lock", "package-lock.json"))
}

/// `node_modules/.package-lock.json`: what of the lock is installed, by which npm sees that nothing is missing.
fn hidden_lock(lock: &[u8], installed: &[&str]) -> Result<String, String> {
    let lock: Value = serde_json::from_slice(lock).map_err(|error| error.to_string())?;
    let mut hidden = serde_json::Map::new();
    for name in ["name", "version"] {
        if let Some(value) = lock.get(name) {
            hidden.insert(name.to_owned(), value.clone());
        }
    }
    hidden.insert("lockfileVersion".to_owned(), Value::from(3));
    hidden.insert("requires".to_owned(), Value::from(true));
    let packages = lock.get("packages").and_then(Value::as_object).ok_or("it has no `packages`")?;
    let installed: std::collections::BTreeSet<&str> = installed.iter().copied().collect();
    // What a bundling package brings along is there, and so is a workspace that is linked to.
    let targets: Vec<&str> = packages
        .iter()
        .filter(|(path, about)| installed.contains(path.as_str()) && about.get("link") == Some(&Value::Bool(true)))
        .filter_map(|(_, about)| about.get("resolved")?.as_str())
        .collect();
    let is_there = |path: &str, about: &Value| {
        let bundled = about.get("inBundle") == Some(&Value::Bool(true));
        let within =
            || installed.iter().any(|known| path.strip_prefix(known).is_some_and(|rest| rest.starts_with('/')));
        installed.contains(path) || targets.contains(&path) || bundled && within()
    };
    let kept = packages.iter().filter(|(path, about)| is_there(path, about));
    let kept: serde_json::Map<String, Value> = kept.map(|(path, about)| (path.clone(), about.clone())).collect();
    hidden.insert("packages".to_owned(), Value::Object(kept));
    serde_json::to_string_pretty(&hidden).map(|text| text + "\n").map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin::Input;
    use crate::world::World;

    #[test]
    fn packages_lie_where_the_lock_says_with_links_to_their_programs() {
        let world = World::new();
        let builder = world.builder();
        let store = builder.store;
        let mut inputs = BTreeMap::new();
        for (name, file) in [("a", "cli.js"), ("b", "cli.js")] {
            let mut draft = Draft::new(Metadata::root(0o755));
            draft.write(store, file, 0o644, b"#!/usr/bin/env node\r\nok\r\n").unwrap();
            inputs.insert(name.to_owned(), Input::Claim(Claim::Delta(draft.delta(store).unwrap())));
        }
        let lock =
            br#"{ "name": "app", "lockfileVersion": 2, "packages": { "": {}, "node_modules/@s/a": { "version": "1" },
            "node_modules/@s/a/node_modules/b": { "version": "2" }, "node_modules/gone": { "version": "3" },
            "node_modules/w": { "resolved": "packages/w", "link": true }, "packages/w": {} }, "dependencies": {} }"#;
        inputs.insert("lock".to_owned(), Input::Claim(Claim::Blob(store.put_blob(lock, false).unwrap())));
        let parameters = serde_json::json!({
            "directory": "/app",
            "lock": "lock",
            "links": { "node_modules/w": { "target": "packages/w", "bin": {} } },
            "packages": [
                { "path": "node_modules/@s/a", "package": "a", "bin": { "a": "cli.js", "missing": "no.js", "../x": "cli.js" } },
                { "path": "node_modules/@s/a/node_modules/b", "package": "b", "bin": "cli.js" },
            ],
        });
        let job = Job { builder: &builder, name: "modules", parameters: &parameters, inputs: &inputs, fixed: None };
        let Ok(Claim::Delta(delta)) = Modules.build(&job) else { panic!() };
        let root = store.delta(delta).unwrap().tree;
        let text = |path: &str| match crate::draft::find(store, root, &crate::draft::names(path)).unwrap() {
            Some(Node::Symlink { target, .. }) => format!("-> {}", String::from_utf8(target).unwrap()),
            Some(Node::File(file)) => {
                format!("{:o} {}", file.metadata.mode, String::from_utf8(store.blob(file.blob).unwrap()).unwrap())
            }
            other => format!("{other:?}"),
        };
        assert_eq!(text("app/node_modules/.bin/a"), "-> ../@s/a/cli.js");
        assert_eq!(text("app/node_modules/@s/a/node_modules/.bin/b"), "-> ../b/cli.js");
        assert_eq!(text("app/node_modules/@s/a/cli.js"), "755 #!/usr/bin/env node\nok\r\n");
        assert_eq!(text("app/node_modules/w"), "-> ../packages/w");
        assert_eq!(text("app/node_modules/.bin/missing"), "None");
        insta::assert_snapshot!(text("app/node_modules/.package-lock.json"), @r#"
        644 {
          "name": "app",
          "lockfileVersion": 3,
          "requires": true,
          "packages": {
            "node_modules/@s/a": {
              "version": "1"
            },
            "node_modules/@s/a/node_modules/b": {
              "version": "2"
            },
            "node_modules/w": {
              "resolved": "packages/w",
              "link": true
            },
            "packages/w": {}
          }
        }
        "#);
    }
}
