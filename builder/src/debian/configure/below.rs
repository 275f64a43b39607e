//! The root below: packages that an earlier step configured, and what dpkg's database there says of them.

use std::collections::BTreeMap;

use store::{DeltaId, Name, Node, RelativePath, Store, TreeId, paragraph};

use super::Package;
use crate::debian::control::{Control, control_path, merged_usr};
use crate::draft::{self, Draft, DraftError, find, names};
use crate::{Error, Result};

/// A root whose packages are configured.
pub struct Below {
    /// It, whole.
    pub delta: DeltaId,
    /// Its tree.
    pub root: TreeId,
    /// What dpkg notes of its packages, each with an empty line at its end, by qualified name.
    pub status: BTreeMap<String, String>,
    diversions: Vec<Diversion>,
    versions: BTreeMap<String, String>,
}

/// What others have at a path lies elsewhere (dpkg-divert(1)).
struct Diversion {
    from: RelativePath,
    to: RelativePath,
    /// The package that may use the path; `:` for the administrator.
    by: String,
}

impl Below {
    /// Reads what an earlier step made. `step` is for messages.
    pub fn read(store: &Store, step: &str, delta: DeltaId) -> Result<Self> {
        let root = store.delta(delta)?.tree;
        let text = |path: &str| match find(store, root, &names(path))? {
            Some(Node::File(file)) => Ok(Some(String::from_utf8_lossy(&store.blob(file.blob)?).into_owned())),
            _ => Ok::<_, Error>(None),
        };
        let bad = |reason: &str| Error::Invalid { what: "root", name: step.to_owned(), reason: reason.to_owned() };
        let database = text("var/lib/dpkg/status")?.ok_or_else(|| bad("what lies below has no dpkg database"))?;
        let (mut status, mut versions) = (BTreeMap::new(), BTreeMap::new());
        for paragraph in paragraph::paragraphs(&database) {
            let field = |name: &str| paragraph::field(paragraph, name).unwrap_or_default();
            if field("Status") != "install ok installed" {
                return Err(bad(&format!("package `{}` below is `{}`", field("Package"), field("Status"))));
            }
            let mut name = field("Package").to_owned();
            if field("Multi-Arch").eq_ignore_ascii_case("same") {
                name = format!("{name}:{}", field("Architecture"));
            }
            versions.insert(name.clone(), field("Version").to_owned());
            status.insert(name, format!("{}\n\n", paragraph.trim_end()));
        }
        let diversions = diversions(&text("var/lib/dpkg/diversions")?.unwrap_or_default());
        Ok(Self { delta, root, status, diversions, versions })
    }

    /// Notes whether a package is configured, and moves what others have diverted or lies behind a link.
    pub fn mark(&self, store: &Store, package: &mut Package) -> Result<()> {
        let Control { version, .. } = &package.control;
        package.configured = self.versions.get(&package.control.qualified()) == Some(version);
        if !package.configured {
            self.diversions.iter().try_for_each(|diversion| diversion.apply(store, package))?;
            for (from, to) in self.behind_links(store, package.tree)? {
                graft(store, package, &from, &to)?;
            }
            package.laid = package.delta;
        }
        Ok(())
    }

    /// Directories of a package where the root below has a link to a directory, and that directory. dpkg follows such links.
    fn behind_links(&self, store: &Store, tree: TreeId) -> Result<Vec<(RelativePath, RelativePath)>> {
        let mut found = Vec::new();
        let mut open = vec![(RelativePath::default(), tree, self.root)];
        while let Some((path, tree, below)) = open.pop() {
            let below = store.tree(below)?;
            for (name, node) in &store.tree(tree)?.entries {
                let Node::Directory(id) = node else { continue };
                let path = path.join(name);
                match below.entries.get(name) {
                    Some(Node::Directory(below)) => open.push((path, *id, *below)),
                    Some(Node::Symlink { .. }) => {
                        if let Some(to) = self.led_to(store, &path)? {
                            found.push((path, to));
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(found)
    }

    /// The directory that a link of the root below leads to.
    fn led_to(&self, store: &Store, link: &RelativePath) -> Result<Option<RelativePath>> {
        const MOST: usize = 40; // Of Linux.
        let parts = |path: &[u8]| path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect::<Vec<_>>();
        let (mut at, mut left, mut links) = (Vec::new(), parts(&link.to_bytes()), 0);
        while let Some(part) = left.pop() {
            match &part[..] {
                b"" | b"." => continue,
                b".." => {
                    at.pop();
                    continue;
                }
                name => match Name::new(name) {
                    Ok(name) => at.push(name),
                    Err(_) => return Ok(None),
                },
            }
            if let Some(Node::Symlink { target, .. }) = find(store, self.root, &at)? {
                links += 1;
                if links > MOST {
                    return Ok(None);
                }
                at.pop();
                if target.starts_with(b"/") {
                    at.clear();
                }
                left.extend(parts(&target));
            }
        }
        let found = find(store, self.root, &at)?;
        Ok(matches!(found, Some(Node::Directory(_))).then(|| RelativePath(at)))
    }
}

/// Moves what a package has in a directory into another one, which may be there.
fn graft(store: &Store, package: &mut Package, from: &RelativePath, to: &RelativePath) -> Result<()> {
    let Some(Node::Directory(moved)) = find(store, package.tree, &from.0)? else { return Ok(()) };
    let about = |error: DraftError| error.about("package", &package.control.package);
    let mut tree = Draft::open(store, package.tree)?;
    tree.remove(store, &from.0).map_err(about)?;
    let mut open = vec![(to.clone(), moved)];
    while let Some((place, id)) = open.pop() {
        for (name, node) in &store.tree(id)?.entries {
            let path = place.join(name);
            match (node, find(store, package.tree, &path.0)?) {
                (Node::Directory(id), Some(Node::Directory(_))) => open.push((path, *id)),
                _ => tree.insert(store, &path.0, node.clone()).map_err(about)?,
            }
        }
    }
    let mut delta = store.delta(package.delta)?;
    let below = |path: &RelativePath| path.0.strip_prefix(&from.0[..]).map(<[Name]>::to_vec);
    let moved = |path: &RelativePath| below(path).map(|rest| RelativePath([&to.0[..], &rest].concat()));
    let passed = delta.passed.iter().map(|path| moved(path).unwrap_or_else(|| path.clone())).collect();
    delta.passed = passed;
    for end in 1..=to.0.len() {
        delta.passed.extend(on_the_way(store, package, to, end)?);
    }
    delta.tree = tree.tree(store)?;
    (package.tree, package.delta) = (delta.tree, store.put_delta(&delta)?);
    Ok(())
}

/// The first names of a path, where a package has nothing there.
fn on_the_way(store: &Store, package: &Package, path: &RelativePath, end: usize) -> Result<Option<RelativePath>> {
    let there = find(store, package.tree, &path.0[..end])?;
    Ok(there.is_none().then(|| RelativePath(path.0[..end].to_vec())))
}

impl Diversion {
    /// As dpkg would while it unpacks. It diverts no directories.
    fn apply(&self, store: &Store, package: &mut Package) -> Result<()> {
        let about = |error: DraftError| error.about("package", &package.control.package);
        let node = draft::leaf(store, package.tree, &self.from.0)?;
        let Some(node) = node.filter(|_| package.control.package != self.by) else { return Ok(()) };
        let mut delta = store.delta(package.delta)?;
        for end in 1..self.to.0.len() {
            delta.passed.extend(on_the_way(store, package, &self.to, end)?);
        }
        let mut tree = Draft::open(store, package.tree)?;
        tree.remove(store, &self.from.0).map_err(about)?;
        tree.insert(store, &self.to.0, node).map_err(about)?;
        delta.tree = tree.tree(store)?;
        (package.tree, package.delta) = (delta.tree, store.put_delta(&delta)?);
        Ok(())
    }
}

/// dpkg's file of diversions: three lines each. A path that is none is nobody's.
fn diversions(text: &str) -> Vec<Diversion> {
    let lines: Vec<&str> = text.lines().collect();
    // `/lib32` itself is diverted so that nobody makes a directory of it; what packages have in it is not meant.
    let place = |line: &str| {
        let path = control_path(line)?;
        Some(if path.0.len() > 1 { RelativePath(merged_usr(&path.0)) } else { path })
    };
    let read = |lines: &[&str]| match lines {
        [from, to, by] => Some(Diversion { from: place(from)?, to: place(to)?, by: (*by).to_owned() }),
        _ => None,
    };
    lines.chunks(3).filter_map(read).collect()
}
