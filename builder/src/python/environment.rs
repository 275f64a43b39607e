//! `builtin:python-environment`: all wheels as one delta, with bytecode.
//!
//! Two wheels that bring different files of the same name are refused, because which one came last would decide. Bytecode is
//! made by the interpreter below, for all wheels at once, and kept wheel by wheel: a wheel more compiles that wheel alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use executor::Bind;
use store::digest::StepKey;
use store::directory::Claim;
use store::{DeltaId, Name, Node, Store, StorePath, TreeId};

use crate::builtin::{Builtin, Job};
use crate::draft::{Draft, find, names};
use crate::python::PythonVersion;
use crate::python::layout::Places;
use crate::step::{Command, run_step};
use crate::{Error, Result};

/// Parameters: `layers` (what lies below, lowest first), `wheels`, `python`, `bytecode`.
pub struct Environment;

/// Which sources of a wheel are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Bytecode {
    /// What a program imports: not the tests that many projects ship inside their packages, which are half of all sources.
    Modules,
    /// Everything.
    All,
    /// Nothing.
    None,
}

impl Bytecode {
    /// Whether a source is compiled. `path` begins below the directory of packages.
    fn wants(self, path: &[u8]) -> bool {
        let in_tests = || path.split(|byte| *byte == b'/').any(|name| name == b"tests");
        path.ends_with(b".py") && (self == Self::All || self == Self::Modules && !in_tests())
    }
}

/// Compiles the files that a list names.
const COMPILE: &str = include_str!("compile.py");
/// Counts what the bytecode depends on beside its key.
const BYTECODE_VERSION: u32 = 2;

impl Builtin for Environment {
    fn name(&self) -> &'static str {
        "python-environment"
    }

    fn phase(&self) -> &'static str {
        "compile"
    }

    fn build(&self, job: &Job<'_>) -> Result<Claim> {
        let python = PythonVersion::parse(&job.parameter::<String>("python")?)?;
        let deltas = |name: &str| -> Result<Vec<(String, DeltaId)>> {
            let paths: Vec<String> = job.parameter(name)?;
            paths.into_iter().map(|path| Ok((people_s_name(&path), job.delta(&path)?))).collect()
        };
        let layers: Vec<DeltaId> = deltas("layers")?.into_iter().map(|(_, layer)| layer).collect();
        let wheels = deltas("wheels")?;
        check_conflicts(job, &wheels)?;
        let wheels: Vec<DeltaId> = wheels.into_iter().map(|(_, wheel)| wheel).collect();
        let bytecode = bytecode(job, &layers, &wheels, python, job.parameter("bytecode")?)?;
        let all: Vec<DeltaId> = wheels.into_iter().chain(bytecode).collect();
        Ok(Claim::Delta(job.builder.store.squash(&all)?))
    }

    fn version(&self) -> u32 {
        BYTECODE_VERSION
    }
}

/// `numpy-2.1.0` of a store path.
fn people_s_name(path: &str) -> String {
    StorePath::parse(path).map_or_else(|| path.to_owned(), |path| path.name().to_owned())
}

/// Every path that is no directory, and every directory, must be the same wherever it comes from.
fn check_conflicts(job: &Job<'_>, wheels: &[(String, DeltaId)]) -> Result<()> {
    let store = job.builder.store;
    let mut seen: BTreeMap<Vec<u8>, (Option<Node>, &str)> = BTreeMap::new();
    let mut conflict = None;
    for (name, wheel) in wheels {
        job.builder.check_interrupt()?;
        walk(store, store.delta(*wheel)?.tree, &mut Vec::new(), &mut |path, node| {
            // Directories agree if both are directories; what is in them is looked at for itself.
            let node = (!matches!(node, Node::Directory(_))).then(|| node.clone());
            match seen.get(path) {
                Some((earlier, other)) if *earlier != node => {
                    conflict.get_or_insert_with(|| (path.to_vec(), (*other).to_owned(), name.clone()));
                }
                Some(_) => {}
                None => _ = seen.insert(path.to_vec(), (node, name)),
            }
        })?;
    }
    match conflict {
        None => Ok(()),
        Some((path, one, other)) => Err(Error::Invalid {
            what: "wheel",
            name: other,
            reason: format!("`/{}` is in {one} too, with another content", String::from_utf8_lossy(&path)),
        }),
    }
}

/// Calls `each` for everything below a tree, with its path without slash in front.
fn walk(store: &Store, tree: TreeId, path: &mut Vec<u8>, each: &mut dyn FnMut(&[u8], &Node)) -> Result<()> {
    let length = path.len();
    for (name, node) in &store.tree(tree)?.entries {
        if length > 0 {
            path.push(b'/');
        }
        path.extend(name.as_bytes());
        each(path, node);
        if let Node::Directory(id) = node {
            walk(store, *id, path, each)?;
        }
        path.truncate(length);
    }
    Ok(())
}

/// The bytecode of each wheel, from what was made before and one step for the others.
fn bytecode(
    job: &Job<'_>,
    layers: &[DeltaId],
    wheels: &[DeltaId],
    python: PythonVersion,
    which: Bytecode,
) -> Result<Vec<DeltaId>> {
    if which == Bytecode::None {
        return Ok(Vec::new());
    }
    let store = job.builder.store;
    let interpreter = interpreter(job, layers, python)?;
    let key = |wheel: &DeltaId| {
        let question = format!("python bytecode {BYTECODE_VERSION} ({which:?}) of {wheel} by {python} {interpreter}");
        StepKey::of(question.as_bytes())
    };
    let known = |wheel: &DeltaId| -> Result<Option<DeltaId>> {
        let claim = store.claim_of_step(&key(wheel))?;
        Ok(match claim {
            Some(Claim::Delta(id)) if store.delta(id).is_ok() => Some(id),
            _ => None,
        })
    };
    let mut missing = Vec::new();
    for wheel in wheels.iter().collect::<BTreeSet<_>>() {
        if known(wheel)?.is_none() {
            missing.push((*wheel, sources(store, *wheel, python, which)?));
        }
    }
    if missing.iter().any(|(_, sources)| !sources.is_empty()) {
        let all: Vec<DeltaId> = layers.iter().chain(wheels).copied().collect();
        let made = compile(job, &all, missing.iter().flat_map(|(_, sources)| sources), python)?;
        for (wheel, sources) in &missing {
            let delta = part(store, made, sources, python)?;
            store.put_claim_of_step(&key(wheel), &Claim::Delta(delta))?;
        }
    }
    // A wheel without Python files has nothing to compile.
    Ok(wheels.iter().map(known).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// What the bytecode depends on of the layers below: the interpreter and its own library.
fn interpreter(job: &Job<'_>, layers: &[DeltaId], python: PythonVersion) -> Result<String> {
    let store = job.builder.store;
    let root = store.merge(layers)?;
    let program = find(store, root, &names(&format!("usr/bin/python{python}")))?;
    let Some(Node::File(program)) = program else {
        return Err(Error::Parameter {
            step: job.name.to_owned(),
            parameter: "layers".to_owned(),
            reason: format!("they have no `/usr/bin/python{python}`"),
        });
    };
    match find(store, root, &names(&format!("usr/lib/python{python}")))? {
        Some(Node::Directory(library)) => Ok(format!("{} {library}", program.blob)),
        _ => Ok(format!("{} alone", program.blob)),
    }
}

/// The Python files of a wheel that are to be compiled, as paths without slash in front.
fn sources(store: &Store, wheel: DeltaId, python: PythonVersion, which: Bytecode) -> Result<Vec<Vec<u8>>> {
    let packages = Places::debian(python).packages;
    let mut found = Vec::new();
    if let Some(Node::Directory(tree)) = find(store, store.delta(wheel)?.tree, &names(&packages))? {
        let mut path = packages.into_bytes();
        let above = path.len();
        walk(store, tree, &mut path, &mut |path, node| {
            if matches!(node, Node::File(_)) && which.wants(&path[above..]) {
                found.push(path.to_vec());
            }
        })?;
    }
    Ok(found)
}

/// Runs the interpreter over everything, for the files named.
fn compile<'a>(
    job: &Job<'_>,
    layers: &[DeltaId],
    sources: impl Iterator<Item = &'a Vec<u8>>,
    python: PythonVersion,
) -> Result<DeltaId> {
    let scratch = job.builder.store.scratch()?;
    let mut list = Vec::new();
    for path in sources {
        list.push(b'/');
        list.extend(path);
        list.push(0);
    }
    let bind = |name: &str, bytes: &[u8]| -> Result<Bind> {
        let source = scratch.path().join(name);
        std::fs::write(&source, bytes).map_err(Error::file("write", &source))?;
        Ok(Bind { source, target: PathBuf::from(format!("/run/forge/{name}")), read_only: true })
    };
    let binds = vec![bind("compile.py", COMPILE.as_bytes())?, bind("files", &list)?];
    let interpreter = Places::debian(python).interpreter;
    let words = [interpreter.as_str(), "-I", "-S", "-W", "ignore", "/run/forge/compile.py", "/run/forge/files"];
    run_step(job.builder, job.name, &Command { binds, ..Command::new(layers, words) })
}

/// The bytecode of some files, out of what a step left.
fn part(store: &Store, made: DeltaId, sources: &[Vec<u8>], python: PythonVersion) -> Result<DeltaId> {
    let tree = store.delta(made)?.tree;
    let mut draft = Draft::passing();
    for source in sources {
        let path = cache_path(source, python)?;
        if let Some(node @ Node::File(_)) = find(store, tree, &path)? {
            draft
                .insert(store, &path, node)
                .map_err(|error| error.about("bytecode", &String::from_utf8_lossy(source)))?;
        }
    }
    Ok(draft.delta(store)?)
}

/// `a/__pycache__/b.cpython-311.pyc` of `a/b.py`.
fn cache_path(source: &[u8], python: PythonVersion) -> Result<Vec<Name>> {
    let (directory, file) = source.split_at(source.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1));
    let stem = file.strip_suffix(b".py").unwrap_or(file);
    let tag = format!(".cpython-{}{}.pyc", python.major, python.minor);
    let path = [directory, b"__pycache__/", stem, tag.as_bytes()].concat();
    let parsed = store::RelativePath::parse(&path).map_err(|error| Error::Invalid {
        what: "path",
        name: String::from_utf8_lossy(source).into_owned(),
        reason: error.to_string(),
    })?;
    Ok(parsed.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin::Input;
    use crate::world::World;

    /// Builds from layers that hold one text file each, by name.
    fn build(files: &[(&str, &str, &str)]) -> Result<Claim> {
        let world = World::new();
        let builder = world.builder();
        let mut inputs = BTreeMap::new();
        for (name, path, text) in files {
            let mut draft = Draft::passing();
            draft.write(builder.store, path, 0o644, text.as_bytes()).unwrap();
            let delta = draft.delta(builder.store).unwrap();
            inputs.insert((*name).to_owned(), Input::Claim(Claim::Delta(delta)));
        }
        let (layers, wheels): (Vec<&str>, Vec<&str>) =
            files.iter().map(|file| file.0).partition(|name| *name == "below");
        let parameters =
            serde_json::json!({ "layers": layers, "wheels": wheels, "python": "3.11", "bytecode": "modules" });
        let job = Job { builder: &builder, name: "packages", parameters: &parameters, inputs: &inputs, fixed: None };
        Environment.build(&job)
    }

    const BELOW: (&str, &str, &str) = ("below", "usr/bin/python3.11", "ELF");

    #[test]
    fn two_wheels_may_share_a_file_and_may_not_quarrel_over_one() {
        let path = "usr/local/lib/python3.11/dist-packages/tests.txt";
        assert!(build(&[BELOW, ("one", path, "same"), ("two", path, "same")]).is_ok());
        let Err(Error::Invalid { name, reason, .. }) = build(&[BELOW, ("one", path, "this"), ("two", path, "that")])
        else {
            panic!()
        };
        assert_eq!(name, "two");
        insta::assert_snapshot!(reason, @"`/usr/local/lib/python3.11/dist-packages/tests.txt` is in one too, with another content");
        let deeper = format!("{path}/more");
        assert!(matches!(build(&[BELOW, ("one", path, ""), ("two", &deeper, "")]), Err(Error::Invalid { .. })));
    }

    #[test]
    fn tests_inside_packages_are_compiled_if_all_is_wanted() {
        let compiled = |which: Bytecode| {
            let paths =
                ["/six.py", "/numpy/testing/x.py", "/tests.py", "/numpy/core/tests/x.py", "/tests/x.py", "/six.pyi"];
            paths.into_iter().filter(|path| which.wants(path.as_bytes())).collect::<Vec<_>>()
        };
        assert_eq!(compiled(Bytecode::Modules), ["/six.py", "/numpy/testing/x.py", "/tests.py"]);
        assert_eq!(compiled(Bytecode::All).len(), 5);
        assert_eq!(compiled(Bytecode::None), [""; 0]);
    }

    #[test]
    fn an_environment_needs_an_interpreter() {
        let Err(Error::Parameter { reason, .. }) = build(&[("below", "usr/bin/sh", ""), ("one", "usr/local/x", "")])
        else {
            panic!()
        };
        assert_eq!(reason, "they have no `/usr/bin/python3.11`");
    }

    #[test]
    fn bytecode_lies_where_python_looks() {
        let python = PythonVersion { major: 3, minor: 11 };
        let path = store::RelativePath(cache_path(b"usr/x/a.b.py", python).unwrap());
        assert_eq!(path.to_bytes(), b"usr/x/__pycache__/a.b.cpython-311.pyc");
    }
}
