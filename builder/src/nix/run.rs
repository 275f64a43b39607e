//! Runs a Nix builder: its inputs in /nix/store, its own directory, nothing else; as one user that is not root.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use executor::{Bind, RootFs, Sandbox, Streams, Writable};
use store::derivation::STORE_DIRECTORY;
use store::nix::info::base_name;
use store::{File, Metadata, Name, Node, Store, Tree, TreeId};

use super::environment::{DIRECTORY, surroundings, words};
use super::outputs::{self, Found};
use super::{Prepared, invalid, lay_out};
use crate::hosts::{ATTRIBUTE, Hosts};
use crate::kept::Kept;
use crate::step::{self, limits, place, run_sandbox};
use crate::{Builder, Error, Result};

/// Who a builder is.
const USER: (u32, u32) = (1000, 100);
/// The host name that Nix gives its builders.
const HOST_NAME: &str = "localhost";

const FILES: [(&str, &str); 3] = [
    (
        "passwd",
        "root:x:0:0:Nix build user:/build:/noshell\n\
         nixbld:x:1000:100:Nix build user:/build:/noshell\n\
         nobody:x:65534:65534:Nobody:/:/noshell\n",
    ),
    ("group", "root:x:0:\nnixbld:!:100:\nnogroup:x:65534:\n"),
    ("hosts", "127.0.0.1 localhost\n::1 localhost\n"),
];

/// Runs the builder; gives what it left, by output.
pub fn run(builder: &Builder<'_>, prepared: &Prepared) -> Result<BTreeMap<String, Node>> {
    builder.check_interrupt()?;
    let store = builder.store;
    let name = prepared.derivation.name.as_str();
    let around = surroundings(builder, prepared)?;
    let scratch = store.scratch()?;
    let place = place(builder, &scratch)?;
    let changes = place.join("changes");
    let upper = changes.join("upper");
    let work = upper.join(DIRECTORY.trim_start_matches('/'));
    fs::create_dir_all(&work).map_err(Error::file("create", &work))?;
    for (file, bytes) in &around.files {
        let path = work.join(file);
        fs::write(&path, bytes).map_err(Error::file("write", path))?;
    }
    let again = builder.work.as_ref().is_some_and(|work| work.elsewhere.is_some());
    let root = root(store, prepared, true)?;
    // Inputs that many steps have are laid out once, and shown one by one; unless the order in which they are listed is to differ.
    let (layers, binds) = match again {
        true => (vec![lay_out(store, root)?], Vec::new()),
        false => (vec![lay_out(store, self::root(store, prepared, false)?)?], binds(store, prepared)?),
    };
    let mut command = vec![OsString::from_vec(prepared.derivation.builder.clone())];
    command.extend(around.arguments);
    let kept = Kept {
        derivation: prepared.path.to_string(),
        name: name.to_owned(),
        root,
        changes: changes.clone(),
        environment: around.variables.clone(),
        directory: PathBuf::from(DIRECTORY),
        user: USER,
        command: command.clone(),
    };
    let log = place.join("log");
    let (doorkeeper, doors, contents) = step::attend(builder, &hosts(prepared)?, &log)?;
    let sandbox = Sandbox {
        root: RootFs { layers, writable: Writable::Kept(changes) },
        binds,
        command,
        environment: around.variables,
        directory: PathBuf::from(DIRECTORY),
        user: USER,
        groups: Vec::new(),
        hostname: HOST_NAME.to_owned(),
        doors,
        contents,
        limits: limits(None),
        stop_signal: None,
        streams: Streams::File(log.clone()),
        pretend_root: false,
        one_user: true,
        require: Vec::new(),
        interrupt: Some(Arc::clone(&builder.interrupt)),
        ..Sandbox::default()
    };
    let ran = run_sandbox(builder, name, sandbox, &place, &log);
    drop(doorkeeper);
    let result = ran.and_then(|()| collect(builder, prepared, &upper));
    match result {
        Err(error) if builder.keep_failed && !matches!(error, Error::Interrupted { .. }) => {
            Err(kept.keep(builder, scratch, &place, error))
        }
        result => result,
    }
}

/// The root of the sandbox. Inputs that are directories are mounted onto it, unless they are to be `whole`.
fn root(store: &Store, prepared: &Prepared, whole: bool) -> Result<TreeId> {
    let name = |text: &str| Name::new(text.as_bytes()).expect("a name");
    let directory = |mode, entries| store.put_tree(&Tree { metadata: Metadata::root(mode), entries });
    let mut etc = BTreeMap::new();
    for (file, text) in FILES {
        let blob = store.put_blob(text.as_bytes(), false)?;
        let metadata = Metadata::root(0o444);
        etc.insert(name(file), Node::File(File { blob, size: text.len() as u64, metadata }));
    }
    let mut inputs = BTreeMap::new();
    for (path, input) in &prepared.inputs.paths {
        if whole || !matches!(input.node, Node::Directory(_)) {
            inputs.insert(name(base_name(path)), input.node.clone());
        }
    }
    let nix = BTreeMap::from([(name("store"), Node::Directory(directory(0o1775, inputs)?))]);
    let empty = |mode| Ok::<_, Error>(Node::Directory(directory(mode, BTreeMap::new())?));
    let mut entries = BTreeMap::from([
        (name("etc"), Node::Directory(directory(0o755, etc)?)),
        (name("nix"), Node::Directory(directory(0o755, nix)?)),
        (name("tmp"), empty(0o1777)?),
    ]);
    for mount_point in ["build", "dev", "proc", "sys"] {
        entries.insert(name(mount_point), empty(0o755)?);
    }
    Ok(directory(0o755, entries)?)
}

/// Each input that is a directory, at its store path.
fn binds(store: &Store, prepared: &Prepared) -> Result<Vec<Bind>> {
    let mut binds = Vec::new();
    for (path, input) in &prepared.inputs.paths {
        if let Node::Directory(tree) = input.node {
            let (source, target) = (lay_out(store, tree)?, PathBuf::from(path.as_str()));
            binds.push(Bind { source, target, read_only: true });
        }
    }
    Ok(binds)
}

/// What of the network is reached: by a fixed output, what it names; by others nothing.
fn hosts(prepared: &Prepared) -> Result<Hosts> {
    let mut hosts = Hosts::default();
    if prepared.fixed().is_none() {
        return Ok(hosts);
    }
    let derivation = &prepared.derivation;
    derivation.environment.values().chain(&derivation.arguments).for_each(|text| hosts.add_addresses(text));
    for word in words(prepared.variable(ATTRIBUTE).unwrap_or_default()) {
        let word = String::from_utf8_lossy(word);
        hosts.add_word(&word).map_err(|reason| invalid(&derivation.name, format!("`{ATTRIBUTE}`: {reason}")))?;
    }
    Ok(hosts)
}

/// Takes the outputs out of what the builder left.
fn collect(builder: &Builder<'_>, prepared: &Prepared, upper: &Path) -> Result<BTreeMap<String, Node>> {
    let mut found = BTreeMap::new();
    for (output, path) in &prepared.scratch {
        let below = path.as_str().trim_start_matches('/');
        let place = upper.join(below);
        let node = match outputs::take(builder.store, &place)? {
            Found::Node(node) => node,
            Found::Nothing => {
                let step = prepared.derivation.name.clone();
                let reason = format!("the builder ended well and left no output `{output}` at {path}");
                return Err(failed(builder, step, reason));
            }
            Found::Unsupported(what) => {
                let step = prepared.derivation.name.clone();
                let reason = format!("output `{output}` has {what}: only files, directories and links can be kept");
                return Err(failed(builder, step, reason));
            }
        };
        found.insert(output.clone(), node);
    }
    let others = others(prepared, &upper.join(STORE_DIRECTORY.trim_start_matches('/')));
    if !others.is_empty() {
        let text = format!(
            "step `{}` left {} in /nix/store, which is none of its outputs",
            prepared.derivation.name,
            others.join(", ")
        );
        builder.reporter.report(crate::Event::Note(&text));
    }
    Ok(found)
}

/// What lies in /nix/store beside the outputs.
fn others(prepared: &Prepared, directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let known = |name: &[u8]| {
        let of = |path: &store::StorePath| base_name(path).as_bytes() == name;
        prepared.scratch.values().any(of) || prepared.inputs.paths.keys().any(of)
    };
    let names = entries.flatten().map(|entry| entry.file_name()).filter(|name| !known(name.as_bytes()));
    names.map(|name| name.to_string_lossy().into_owned()).collect()
}

fn failed(builder: &Builder<'_>, step: String, ending: String) -> Error {
    let log = builder.work.as_ref().map(|work| work.log()).unwrap_or_default();
    Error::Step { step, ending, log: step::tail(&log), kept: None }
}

/// Lets the owner look into a directory that the builder has closed.
pub fn open_up(path: &Path, mode: u32) -> Result<()> {
    if mode & 0o700 == 0o700 {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o777 | 0o700))
        .map_err(Error::file("change the mode of", path))
}
