//! The root below: packages that an earlier step configured, and what dpkg's database there says of them.

use std::collections::BTreeMap;

use store::{DeltaId, Node, RelativePath, Store, TreeId, paragraph};

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

    /// Notes whether a package is configured, and moves what others have diverted.
    pub fn mark(&self, store: &Store, package: &mut Package) -> Result<()> {
        let Control { version, .. } = &package.control;
        package.configured = self.versions.get(&package.control.qualified()) == Some(version);
        if !package.configured {
            self.diversions.iter().try_for_each(|diversion| diversion.apply(store, package))?;
        }
        Ok(())
    }
}

impl Diversion {
    /// As dpkg would while it unpacks. It diverts no directories.
    fn apply(&self, store: &Store, package: &mut Package) -> Result<()> {
        let about = |error: DraftError| error.about("package", &package.control.package);
        let node = draft::leaf(store, package.tree, &self.from.0)?;
        let Some(node) = node.filter(|_| package.control.package != self.by) else { return Ok(()) };
        let mut delta = store.delta(package.delta)?;
        for end in 1..self.to.0.len() {
            if find(store, package.tree, &self.to.0[..end])?.is_none() {
                delta.passed.insert(RelativePath(self.to.0[..end].to_vec()));
            }
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
