//! Going through all that is below a tree, in the order of paths. Without recursion: a tree may be deeper than a stack.

use std::ops::Bound;
use std::sync::Arc;

use rayon::prelude::*;

use crate::{Name, Node, Result, Store, Tree, TreeId};

/// More entries than that the store does not remember.
const MOST_REMEMBERED: usize = 100_000;

/// What is met on the way.
pub(super) enum Step<'a> {
    /// A directory, before what is in it.
    Enter,
    /// Anything else.
    Leaf(&'a Name, &'a Node),
    /// The same directory, after what is in it.
    Leave(&'a Name, &'a Tree),
}

/// Visits everything below `root`, which itself is not visited.
pub(super) fn walk(store: &Store, root: &Tree, visit: &mut dyn FnMut(Step<'_>) -> Result<()>) -> Result<()> {
    struct Level {
        name: Name,
        tree: Arc<Tree>,
        last: Option<Name>,
    }
    let mut levels: Vec<Level> = Vec::new();
    let mut last_of_root: Option<Name> = None;
    loop {
        let (tree, last) = match levels.last_mut() {
            Some(level) => (&*level.tree, &mut level.last),
            None => (root, &mut last_of_root),
        };
        let from = last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut below = None;
        let mut reached = None;
        for (name, node) in tree.entries.range::<Name, _>((from, Bound::Unbounded)) {
            match node {
                Node::Directory(id) => {
                    below = Some((name.clone(), store.tree(*id)?));
                    reached = Some(name.clone());
                    break;
                }
                node => visit(Step::Leaf(name, node))?,
            }
        }
        match below {
            Some((name, tree)) => {
                *last = reached;
                visit(Step::Enter)?;
                levels.push(Level { name, tree, last: None });
            }
            None => match levels.pop() {
                Some(level) => visit(Step::Leave(&level.name, &level.tree))?,
                None => return Ok(()),
            },
        }
    }
}

/// Reads what is below a tree on all threads, so that the store remembers it: a directory is a file, and there are thousands.
pub(super) fn read_ahead(store: &Store, root: &Tree) -> Result<()> {
    let below = |tree: &Tree| -> Vec<TreeId> {
        let directory = |node: &Node| match node {
            Node::Directory(id) => Some(*id),
            _ => None,
        };
        tree.entries.values().filter_map(directory).collect()
    };
    let (mut level, mut entries) = (below(root), root.entries.len());
    while !level.is_empty() && entries < MOST_REMEMBERED {
        let trees: Vec<Arc<Tree>> = level.par_iter().map(|id| store.tree(*id)).collect::<Result<_>>()?;
        entries += trees.iter().map(|tree| 1 + tree.entries.len()).sum::<usize>();
        level = trees.iter().flat_map(|tree| below(tree)).collect();
        level.sort_unstable();
        level.dedup();
    }
    Ok(())
}
