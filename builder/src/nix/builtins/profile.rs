//! `builtin:buildenv`: one directory of links into many packages, as profiles are made.
//!
//! Where two packages have a directory, it is made here and both are linked below it; where they have a file, the one with the
//! smaller priority number wins, and equal ones are a conflict.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use store::nix::nar::DEEPEST;
use store::{Metadata, Name, Node, Store, StorePath, Tree};

use super::{list, text};
use crate::nix::{Prepared, invalid};
use crate::{Error, Result};

/// A package to be linked.
struct Package {
    path: String,
    active: bool,
    priority: i64,
}

/// Something in the making.
enum Growing {
    Directory(BTreeMap<Name, Growing>),
    /// Where it leads, and how much it counts.
    Link(String, i64),
}

/// Builds the directory.
pub fn build(store: &Store, prepared: &Prepared) -> Result<Node> {
    let name = prepared.derivation.name.as_str();
    let mut packages = packages(name, &list(prepared, "derivations")?)?;
    packages.sort_by(|left, right| (left.priority, &left.path).cmp(&(right.priority, &right.path)));
    let mut profile = Profile { store, prepared, name, done: BTreeSet::new(), propagated: VecDeque::new() };
    let mut root = BTreeMap::new();
    for package in packages.iter().filter(|package| package.active) {
        profile.add(&package.path, package.priority, &mut root)?;
    }
    // What packages bring along counts less than any that was asked for, the earlier more than the later.
    let mut priority = 1000;
    while let Some(path) = profile.propagated.pop_front() {
        profile.add(&path, priority, &mut root)?;
        priority += 1;
    }
    let manifest = Name::new(*b"manifest.nix").expect("a name");
    root.insert(manifest, Growing::Link(text(prepared, "manifest")?.to_owned(), 0));
    put(store, Growing::Directory(root))
}

/// `ACTIVE PRIORITY COUNT PATH…`, again and again.
fn packages(name: &str, words: &[&str]) -> Result<Vec<Package>> {
    let bad = || invalid(name, "`derivations` is not `ACTIVE PRIORITY COUNT PATH…`");
    let mut words = words.iter();
    let mut packages = Vec::new();
    while let Some(active) = words.next() {
        let priority = words.next().and_then(|word| word.parse().ok()).ok_or_else(bad)?;
        let count: usize = words.next().and_then(|word| word.parse().ok()).ok_or_else(bad)?;
        for _ in 0..count {
            let path = (*words.next().ok_or_else(bad)?).to_owned();
            packages.push(Package { path, active: *active != "false", priority });
        }
    }
    Ok(packages)
}

struct Profile<'a> {
    store: &'a Store,
    prepared: &'a Prepared,
    name: &'a str,
    done: BTreeSet<String>,
    propagated: VecDeque<String>,
}

impl Profile<'_> {
    fn add(&mut self, path: &str, priority: i64, into: &mut BTreeMap<Name, Growing>) -> Result<()> {
        if !self.done.insert(path.to_owned()) {
            return Ok(());
        }
        if !matches!(self.look(path)?, Some(Node::Directory(_))) {
            return Err(invalid(self.name, format!("`{path}` is no directory among its inputs")));
        }
        self.link(path, priority, into, 0)?;
        let list = format!("{path}/nix-support/propagated-user-env-packages");
        if let Some(Node::File(file)) = self.look(&list)?
            && file.size < 1 << 20
        {
            let text = String::from_utf8_lossy(&self.store.blob(file.blob)?).into_owned();
            let new = text.split_ascii_whitespace().filter(|path| !self.done.contains(*path)).map(str::to_owned);
            self.propagated.extend(new.collect::<Vec<_>>());
        }
        Ok(())
    }

    /// Links what is in a directory. `DEEPEST` bounds the recursion.
    fn link(&self, source: &str, priority: i64, into: &mut BTreeMap<Name, Growing>, depth: usize) -> Result<()> {
        if depth > DEEPEST {
            return Err(invalid(self.name, format!("`{source}` nests too deep")));
        }
        let Some(Node::Directory(id)) = self.look(source)? else { return Ok(()) };
        for name in self.store.tree(id)?.entries.keys() {
            let from = format!("{source}/{}", String::from_utf8_lossy(name.as_bytes()));
            // What belongs to one package alone, or is made from all.
            let own = [
                "/propagated-build-inputs",
                "/nix-support",
                "/perllocal.pod",
                "/info/dir",
                "/log",
                "/manifest.nix",
                "/manifest.json",
            ];
            if own.iter().any(|own| from.ends_with(own)) {
                continue;
            }
            // A link that leads nowhere is passed over.
            let Some(node) = self.look(&from)? else { continue };
            let is_directory = matches!(node, Node::Directory(_));
            let conflict = |reason: String| Error::Conflict { path: from.clone(), reason };
            match into.get_mut(name) {
                None => _ = into.insert(name.clone(), Growing::Link(from.clone(), priority)),
                Some(Growing::Directory(entries)) if is_directory => self.link(&from, priority, entries, depth + 1)?,
                Some(Growing::Directory(_)) => {
                    return Err(conflict("it is a file here and a directory in another package".to_owned()));
                }
                Some(Growing::Link(other, other_priority)) if is_directory => {
                    if !matches!(self.look(other)?, Some(Node::Directory(_))) {
                        return Err(conflict(format!("it is a directory here and a file at {other}")));
                    }
                    // Both are shown: the link becomes a directory with what it led to.
                    let mut entries = BTreeMap::new();
                    self.link(other, *other_priority, &mut entries, depth + 1)?;
                    self.link(&from, priority, &mut entries, depth + 1)?;
                    into.insert(name.clone(), Growing::Directory(entries));
                }
                Some(Growing::Link(other, other_priority)) => {
                    if *other_priority == priority {
                        return Err(conflict(format!("{other} is there too, with the same priority {priority}")));
                    }
                    if matches!(self.look(other)?, Some(Node::Directory(_))) {
                        return Err(conflict(format!("it is a file here and a directory at {other}")));
                    }
                    if *other_priority > priority {
                        into.insert(name.clone(), Growing::Link(from.clone(), priority));
                    }
                }
            }
        }
        Ok(())
    }

    /// What a path leads to, over links from one input to another.
    fn look(&self, path: &str) -> Result<Option<Node>> {
        let mut path = path.to_owned();
        for _ in 0..40 {
            let whole = path.splitn(5, '/').take(4).collect::<Vec<_>>().join("/");
            let Some(input) = StorePath::parse(&whole).and_then(|path| self.prepared.inputs.paths.get(&path)) else {
                return Ok(None);
            };
            match self.step(&whole, &input.node, &path[whole.len()..])? {
                Step::Node(node) => return Ok(node),
                Step::Elsewhere(next) => path = next,
            }
        }
        Ok(None)
    }

    fn step(&self, whole: &str, node: &Node, below: &str) -> Result<Step> {
        let mut node = node.clone();
        let mut here = whole.to_owned();
        let mut parts = below.split('/').filter(|part| !part.is_empty());
        loop {
            if let Node::Symlink { target, .. } = &node {
                let rest: String = parts.map(|part| format!("/{part}")).collect();
                let target = String::from_utf8_lossy(target);
                let parent = here.rsplit_once('/').map_or("", |(parent, _)| parent);
                let target = if target.starts_with('/') { target.into_owned() } else { format!("{parent}/{target}") };
                return Ok(Step::Elsewhere(normal(&format!("{target}{rest}"))));
            }
            let Some(part) = parts.next() else { return Ok(Step::Node(Some(node))) };
            let Node::Directory(id) = node else { return Ok(Step::Node(None)) };
            let Ok(name) = Name::new(part.as_bytes()) else { return Ok(Step::Node(None)) };
            match self.store.tree(id)?.entries.get(&name) {
                Some(next) => node = next.clone(),
                None => return Ok(Step::Node(None)),
            }
            here = format!("{here}/{part}");
        }
    }
}

enum Step {
    Node(Option<Node>),
    Elsewhere(String),
}

/// Without `.` and `..`.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn put(store: &Store, growing: Growing) -> Result<Node> {
    Ok(match growing {
        Growing::Link(target, _) => Node::Symlink { target: target.into_bytes(), uid: 0, gid: 0 },
        Growing::Directory(entries) => {
            let entries = entries.into_iter().map(|(name, growing)| Ok((name, put(store, growing)?)));
            let tree = Tree { metadata: Metadata::root(0o555), entries: entries.collect::<Result<_>>()? };
            Node::Directory(store.put_tree(&tree)?)
        }
    })
}
