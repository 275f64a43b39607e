//! Paths that several packages hold, and whose file lies there in the end.
//!
//! dpkg refuses to overwrite a file of another package unless the package says that it replaces the other, or one of them has
//! diverted the path to another name. Packages are merged by digest and all at once here, so the same is found out by walking
//! down where two of them have a directory; what only one has is not looked at. What a package of the root below has is taken
//! from there, where it is as its configuration left it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use store::{Name, Node, RelativePath, Store, Tree};

use super::{Below, Package};
use crate::draft::{Draft, find, names};
use crate::{Error, Result};

/// Puts into `draft`, which will lie over the packages, what is to be seen at paths that several of them hold: the file of the
/// package that replaces the others; and where one diverts the path in its preinst, the other's, with its own below
/// `ROOM/late`. Gives the packages that have something there, and paths that are to be taken away. Anything else is an error, as it
/// is for dpkg.
pub fn settle(
    store: &Store,
    packages: &[Package],
    below: Option<&Below>,
    draft: &mut Draft,
    room: &str,
) -> Result<Settled> {
    // As the layers lie: what was configured before is the lowest.
    let mut order: Vec<usize> = (0..packages.len()).collect();
    order.sort_by_key(|index| !packages[*index].configured);
    let trees = order.into_iter().map(|index| Ok((index, store.tree(store.delta(packages[index].laid)?.tree)?)));
    let trees = trees.collect::<store::Result<Vec<_>>>()?;
    let mut settling = Settling { store, packages, below, draft, room, settled: Settled::default() };
    settling.walk(&RelativePath::default(), &trees)?;
    Ok(settling.settled)
}

/// What is left to be done.
#[derive(Debug, Default)]
pub struct Settled {
    /// Packages whose files wait until their preinst has made room.
    pub late: BTreeSet<usize>,
    /// What a package of the root below had, may have, and has not any more.
    pub removed: BTreeSet<RelativePath>,
}

struct Settling<'a> {
    store: &'a Store,
    packages: &'a [Package],
    below: Option<&'a Below>,
    draft: &'a mut Draft,
    room: &'a str,
    settled: Settled,
}

impl Settling<'_> {
    /// `trees`: what packages, in the order of their layers, have as the directory `path`.
    fn walk(&mut self, path: &RelativePath, trees: &[(usize, Arc<Tree>)]) -> Result<()> {
        let mut holders: BTreeMap<&Name, Vec<(usize, &Node)>> = BTreeMap::new();
        for (index, tree) in trees {
            for (name, node) in &tree.entries {
                holders.entry(name).or_default().push((*index, node));
            }
        }
        for (name, holders) in holders {
            let first = holders[0].1;
            if holders.iter().all(|(_, node)| *node == first) {
                continue;
            }
            let path = path.join(name);
            let mut below = Vec::new();
            for (index, node) in &holders {
                if let Node::Directory(id) = node {
                    below.push((*index, self.store.tree(*id)?));
                }
            }
            if below.len() == holders.len() {
                self.walk(&path, &below)?;
            } else {
                self.decide(&path, holders)?;
            }
        }
        Ok(())
    }

    fn decide(&mut self, path: &RelativePath, mut holders: Vec<(usize, &Node)>) -> Result<()> {
        let packages = self.packages;
        let about = |error: crate::draft::DraftError| error.about("package", "several");
        let last = holders[holders.len() - 1].0;
        let diverting: Vec<_> = holders.iter().filter(|(index, _)| diverts(&packages[*index], path)).copied().collect();
        if let [(index, node)] = diverting[..] {
            holders.retain(|(holder, _)| *holder != index);
            let package = &packages[index].control.package;
            let place = names(&format!("{}/late/{package}", self.room)).into_iter().chain(path.0.iter().cloned());
            self.draft.insert(self.store, &place.collect::<Vec<_>>(), node.clone()).map_err(about)?;
            self.settled.late.insert(index);
        }
        let replaces_rest = |(index, node): &&(usize, &Node)| {
            let replaces = |(other, theirs): &(usize, &Node)| {
                other == index || theirs == node || packages[*index].replaces(&packages[*other])
            };
            holders.iter().all(replaces)
        };
        let Some((winner, node)) = holders.iter().find(replaces_rest) else {
            let (one, other) = (&packages[holders[0].0], &packages[holders[1].0]);
            return Err(Error::Invalid {
                what: "package",
                name: one.control.package.clone(),
                reason: format!("it holds `/{}`, which `{}` holds too", shown(path), other.control.package),
            });
        };
        if *winner != last {
            let below = self.below.filter(|_| packages[*winner].configured);
            // A script may have changed it since, or removed it.
            let node = match below {
                Some(below) => find(self.store, below.root, &path.0)?,
                None => Some((*node).clone()),
            };
            match node {
                Some(node) => self.draft.replace(self.store, &path.0, node).map_err(about)?,
                None => _ = self.settled.removed.insert(path.clone()),
            }
        }
        Ok(())
    }
}

impl Package {
    fn replaces(&self, other: &Self) -> bool {
        let names = std::iter::once(&other.control.package).chain(&other.control.provides);
        let mut names = names.map(|name| (name, &other.control.version));
        names.any(|(name, version)| self.control.replaces.iter().any(|relation| relation.meets(name, version)))
    }
}

/// Whether a package's preinst makes room at this path. It is a program; this looks for the words that such ones have. Packages that are
/// not essential are held back whole, and have nothing here.
fn diverts(package: &Package, path: &RelativePath) -> bool {
    let file_name = path.0.last().map(|name| String::from_utf8_lossy(name.as_bytes()));
    let mentions = |preinst: &str| file_name.is_some_and(|name| preinst.contains(&*name));
    package.diverts() && package.preinst.as_deref().is_some_and(mentions)
}

fn shown(path: &RelativePath) -> String {
    String::from_utf8_lossy(&path.to_bytes()).into_owned()
}
