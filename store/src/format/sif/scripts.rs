//! What Apptainer looks for in an image: a definition, labels, environment and scripts, for `inspect` as objects beside the file
//! system, for `run` as files in it.
//!
//! Apptainer 1.4 reads nothing but `/.singularity.d` when it runs an image, so that directory is put into the root and taken
//! out again when the image is read ([`restored`]); the formation's tree is the same before and after. A root that has such a
//! directory of its own (it came out of somebody else's SIF) keeps it, below ours, as `.original`.

use crate::{File, Formation, FormationId, Launch, Metadata, Name, Node, Result, Store, Tree, TreeId};

/// Where Apptainer looks.
pub const DIRECTORY: &[u8] = b".singularity.d";
/// The script that `apptainer run` starts, and the command of a formation that came out of somebody else's SIF.
pub const RUN_SCRIPT: &[u8] = b"/.singularity.d/runscript";
/// What the root had at [`DIRECTORY`], if anything.
const ORIGINAL: &[u8] = b".original";

/// Everything that is derived from a formation for Apptainer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scripts {
    /// As `apptainer inspect --deffile` shows it.
    pub definition: String,
    /// A JSON object.
    pub labels: String,
    environment: Vec<u8>,
    run: Option<Vec<u8>>,
}

impl Scripts {
    /// Of a formation; whether its root has a shell decides how the run script is written.
    pub fn new(formation: &Formation, id: FormationId, has_shell: bool) -> Self {
        let mut labels = formation.launch.labels.clone();
        for (label, value) in [("title", &formation.name), ("version", &formation.version)] {
            labels.entry(format!("org.opencontainers.image.{label}")).or_insert_with(|| value.clone());
        }
        labels.insert("forge.formation".to_owned(), id.to_string());
        Self {
            definition: format!("bootstrap: forge\nfrom: {}@{id}\n", formation.name),
            labels: serde_json::to_string(&labels).expect("texts have a JSON form"),
            environment: environment_script(&formation.launch),
            run: run_script(&formation.launch, has_shell),
        }
    }

    /// The object that `apptainer inspect` reads: with it, nothing of the image is run to answer.
    pub fn metadata(&self) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\n').to_owned();
        let labels: serde_json::Value = serde_json::from_str(&self.labels).expect("it was written above");
        let mut attributes = serde_json::json!({
            "environment": { format!("/{}/env/90-environment.sh", DIRECTORY.escape_ascii()): text(&self.environment) },
            "labels": labels,
            "deffile": text(self.definition.as_bytes()),
        });
        if let Some(script) = &self.run {
            attributes["runscript"] = text(script).into();
            attributes["startscript"] = text(script).into();
        }
        serde_json::json!({ "data": { "attributes": attributes }, "type": "container" }).to_string()
    }

    /// The formation's root with these scripts in it.
    pub fn added_to(&self, store: &Store, root: TreeId, launch: &Launch) -> Result<TreeId> {
        let mut tree = Tree::clone(&*store.tree(root)?);
        let original = tree.entries.remove(DIRECTORY);
        let mut directory = match &original {
            Some(Node::Directory(original)) => Tree::clone(&*store.tree(*original)?),
            _ => Tree::empty(),
        };
        let mut environment = match directory.entries.get(&b"env"[..]) {
            Some(Node::Directory(id)) => Tree::clone(&*store.tree(*id)?),
            _ => Tree::empty(),
        };
        let file = |content: &[u8], mode: u16| -> Result<Node> {
            let blob = store.put_blob(content, mode & 0o111 != 0)?;
            Ok(Node::File(File { blob, size: content.len() as u64, metadata: Metadata::root(mode) }))
        };
        // What an image brings along may set more than forge could read of it, and is sourced first.
        let own = if environment.entries.contains_key(&b"90-environment.sh"[..]) { "94" } else { "90" };
        environment.entries.insert(name(format!("{own}-environment.sh")), file(&self.environment, 0o755)?);
        environment.entries.entry(name("99-base.sh")).or_insert(file(BASE_SCRIPT, 0o755)?);
        directory.entries.insert(name("env"), Node::Directory(store.put_tree(&environment)?));
        if !directory.entries.contains_key(&b"actions"[..]) {
            let nothing = file(b"#!/bin/sh\nexit 0\n", 0o755)?;
            let entries = [(name("start"), nothing.clone()), (name("test"), nothing)].into();
            let actions = store.put_tree(&Tree { entries, ..Tree::empty() })?;
            // What Apptainer goes on to execute where there is no script to start or to test.
            directory.entries.insert(name("actions"), Node::Directory(actions));
        }
        directory.entries.insert(name("labels.json"), file(self.labels.as_bytes(), 0o644)?);
        directory.entries.insert(name("Singularity"), file(self.definition.as_bytes(), 0o644)?);
        // Apptainer mounts the host's drivers here when it is asked to.
        directory.entries.entry(name("libs")).or_insert(Node::Directory(store.put_tree(&Tree::empty())?));
        let keeps_its_own = launch.entrypoint.is_empty()
            && launch.command == [RUN_SCRIPT]
            && directory.entries.contains_key(&b"runscript"[..]);
        if !keeps_its_own {
            for script in ["runscript", "startscript"] {
                match &self.run {
                    Some(run) => _ = directory.entries.insert(name(script), file(run, 0o755)?),
                    None => _ = directory.entries.remove(script.as_bytes()),
                }
            }
        }
        match original {
            Some(original) => _ = directory.entries.insert(name(ORIGINAL), original),
            None => _ = directory.entries.remove(ORIGINAL),
        }
        tree.entries.insert(name(DIRECTORY), Node::Directory(store.put_tree(&directory)?));
        store.put_tree(&tree)
    }
}

/// The root as it was before [`Scripts::added_to`].
pub fn restored(store: &Store, root: TreeId) -> Result<TreeId> {
    let mut tree = Tree::clone(&*store.tree(root)?);
    let added = tree.entries.remove(DIRECTORY);
    if let Some(Node::Directory(added)) = added
        && let Some(original) = store.tree(added)?.entries.get(ORIGINAL)
    {
        tree.entries.insert(name(DIRECTORY), original.clone());
    }
    store.put_tree(&tree)
}

fn name(text: impl AsRef<[u8]>) -> Name {
    Name::new(text.as_ref()).expect("a fixed name")
}

/// Apptainer passes what `--env` says only to an image that has this file; it also brings the host's drivers.
const BASE_SCRIPT: &[u8] = b"#!/bin/sh\n\
LD_LIBRARY_PATH=\"${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/.singularity.d/libs\"\n\
PS1=\"Apptainer> \"\n\
export LD_LIBRARY_PATH PS1\n";

fn environment_script(launch: &Launch) -> Vec<u8> {
    let mut script = b"#!/bin/sh\n".to_vec();
    for (name, value) in &launch.environment {
        // Under Apptainer the caller is who they are, and root's home is closed to them.
        let home_of_root = name == b"HOME" && value == b"/root";
        if is_shell_name(name) && !home_of_root {
            script.extend([b"export ", name.as_slice(), b"=", &quoted(value), b"\n"].concat());
        }
    }
    script
}

/// Whether a shell can set a variable of this name.
pub fn is_shell_name(name: &[u8]) -> bool {
    name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        && name.first().is_some_and(|byte| !byte.is_ascii_digit())
}

/// None if the formation says nothing: Apptainer then starts a shell.
fn run_script(launch: &Launch, has_shell: bool) -> Option<Vec<u8>> {
    let words = |words: &[Vec<u8>]| words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(&b' ');
    let (first, default) = match (launch.entrypoint.as_slice(), launch.command.as_slice()) {
        ([], []) => return None,
        ([], command) => (command, None),
        (entrypoint, []) => (entrypoint, None),
        (entrypoint, command) => (entrypoint, Some(command)),
    };
    let mut script = b"#!/bin/sh\n".to_vec();
    if let Some(directory) = launch.directory.as_ref().filter(|_| has_shell) {
        script.extend([b"cd ", quoted(directory).as_slice(), b" || exit\n"].concat());
    }
    if let Some(command) = default {
        // What is given takes the command's place behind the entrypoint.
        script.extend([b"[ $# -gt 0 ] || set -- ", words(command).as_slice(), b"\n"].concat());
    }
    if has_shell {
        script.extend([b"exec ", words(first).as_slice(), b" \"$@\"\n"].concat());
    } else {
        // Apptainer runs a script that has this very `eval` line in its own shell, so that none is needed inside. That shell
        // cannot change the directory of what it starts.
        script.extend([b"set -- ", words(first).as_slice(), b" \"$@\"\n"].concat());
        script.extend(b"SINGULARITY_OCI_RUN='-- \"$@\"'\n");
        script.extend(b"eval \"set ${SINGULARITY_OCI_RUN}\"\n");
        script.extend(b"exec \"$@\"\n");
    }
    Some(script)
}

/// A word for a shell: in single quotes, each single quote in it taken out of them and put into double ones. (In place of `"'"` one
/// often sees `\'`; Apptainer's own shell takes that for two characters.)
fn quoted(word: &[u8]) -> Vec<u8> {
    let mut text = vec![b'\''];
    for byte in word {
        match byte {
            b'\'' => text.extend(br#"'"'"'"#),
            byte => text.push(*byte),
        }
    }
    text.push(b'\'');
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn world() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("store")).unwrap();
        (directory, store)
    }

    fn scripts(launch: &Launch) -> Scripts {
        let (name, version, platform) = ("n".to_owned(), "1".to_owned(), "linux/amd64".to_owned());
        let (variant, root) = (String::new(), Tree::empty().id());
        let formation = Formation { name, version, variant, platform, root, launch: launch.clone() };
        Scripts::new(&formation, formation.id(), true)
    }

    #[test]
    fn a_word_is_quoted_for_the_shell() {
        assert_eq!(quoted(b"it's $HOME"), br#"'it'"'"'s $HOME'"#);
    }

    #[test]
    fn only_what_a_shell_can_name_is_exported() {
        let environment =
            [("A", "1"), ("a-b", "2"), ("1a", "3"), ("HOME", "/root")].map(|(name, value)| (name.into(), value.into()));
        let launch = Launch { environment: BTreeMap::from(environment), ..Launch::default() };
        assert_eq!(environment_script(&launch), b"#!/bin/sh\nexport A='1'\n");
    }

    #[test]
    fn a_root_without_a_shell_gets_a_script_that_apptainer_runs_itself() {
        let launch = Launch { command: vec![b"/prog".to_vec()], ..Launch::default() };
        let script = String::from_utf8(run_script(&launch, false).unwrap()).unwrap();
        assert!(script.contains("\neval \"set ${SINGULARITY_OCI_RUN}\"\n"), "{script}");
        assert_eq!(run_script(&launch, true).unwrap(), b"#!/bin/sh\nexec '/prog' \"$@\"\n");
        assert_eq!(run_script(&Launch::default(), true), None);
        let entrypoint = Launch { entrypoint: vec![b"/entry".to_vec()], ..launch };
        let expected = b"#!/bin/sh\n[ $# -gt 0 ] || set -- '/prog'\nexec '/entry' \"$@\"\n";
        assert_eq!(run_script(&entrypoint, true).unwrap(), expected);
    }

    /// Nothing, a directory of somebody else's, one of ours inside, and something that is no directory.
    #[test]
    fn what_was_added_is_taken_out_again() {
        let (_directory, store) = world();
        let blob = store.put_blob(b"theirs", true).unwrap();
        let theirs = Node::File(File { blob, size: 6, metadata: Metadata::root(0o755) });
        let tree = |entries: Vec<(&[u8], Node)>| {
            let entries = entries.into_iter().map(|(entry, node)| (name(entry), node)).collect();
            store.put_tree(&Tree { entries, ..Tree::empty() }).unwrap()
        };
        let env = tree(vec![(b"90-environment.sh", theirs.clone())]);
        let foreign = tree(vec![(b"runscript", theirs.clone()), (b"env", Node::Directory(env))]);
        let foreign = tree(vec![(DIRECTORY, Node::Directory(foreign)), (b"file", theirs.clone())]);
        let launch = Launch { command: vec![b"/prog".to_vec()], ..Launch::default() };
        let scripts = scripts(&launch);
        let again = scripts.added_to(&store, foreign, &launch).unwrap();
        for root in [tree(vec![]), foreign, again, tree(vec![(DIRECTORY, theirs.clone())])] {
            let added = scripts.added_to(&store, root, &launch).unwrap();
            assert_ne!(added, root);
            assert!(store.content_at(added, RUN_SCRIPT, 1000).unwrap().unwrap().ends_with(b"exec '/prog' \"$@\"\n"));
            assert_eq!(restored(&store, added).unwrap(), root);
        }
        // A formation whose command is the image's own script keeps it.
        let launch = Launch { command: vec![RUN_SCRIPT.to_vec()], ..Launch::default() };
        let added = scripts.added_to(&store, foreign, &launch).unwrap();
        assert_eq!(store.content_at(added, RUN_SCRIPT, 1000).unwrap().unwrap(), b"theirs");
        let theirs_too = b"/.singularity.d/env/90-environment.sh";
        assert_eq!(store.content_at(added, theirs_too, 1000).unwrap().unwrap(), b"theirs");
    }
}
