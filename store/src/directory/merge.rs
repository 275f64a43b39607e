//! What deltas add up to, found by digest: a directory is read only where two of them have it.
//!
//! A delta is applied by removing its `removed` paths and then laying its tree over what is left: directories unite, anything
//! else takes the place of what was there. `passed` directories leave the metadata that they find.

use std::collections::{BTreeMap, BTreeSet};

use super::Store;
use crate::{Delta, DeltaId, Error, Metadata, Name, Node, RelativePath, Result, Tree, TreeId};

impl Store {
    /// The tree that these deltas, lowest first, add up to. Whole subtrees that only one of them has are taken by id.
    pub fn merge(&self, deltas: &[DeltaId]) -> Result<TreeId> {
        match deltas {
            [] => self.put_tree(&Tree::empty()),
            [delta] => Ok(self.delta(*delta)?.tree),
            _ => {
                if let Some(id) = self.sum_here("merges", "tree ", deltas)? {
                    return Ok(id);
                }
                let id = Sum::of(self, deltas)?.finish()?.tree;
                self.put_claim_of_sum("merges", deltas, &format!("tree {id}"))?;
                Ok(id)
            }
        }
    }

    /// The delta that these deltas, lowest first, add up to (so that another may be put under it).
    pub fn squash(&self, deltas: &[DeltaId]) -> Result<DeltaId> {
        match deltas {
            // A root that was merely passed through changes nothing.
            [] => {
                let nothing = Delta::whole(self.put_tree(&Tree::empty())?);
                self.put_delta(&Delta { passed: BTreeSet::from([RelativePath::default()]), ..nothing })
            }
            [delta] => Ok(*delta),
            _ => {
                if let Some(id) = self.sum_here("squashes", "delta ", deltas)? {
                    return Ok(id);
                }
                let id = self.put_delta(&Sum::of(self, deltas)?.finish()?)?;
                self.put_claim_of_sum("squashes", deltas, &format!("delta {id}"))?;
                Ok(id)
            }
        }
    }

    fn sum_here<Id: std::str::FromStr>(
        &self,
        kind: &'static str,
        start: &str,
        deltas: &[DeltaId],
    ) -> Result<Option<Id>> {
        let claim = self.claim_of_sum(kind, deltas)?;
        Ok(claim.and_then(|claim| claim.strip_prefix(start)?.parse().ok()))
    }
}

/// No absolute path is longer (PATH_MAX over the shortest name), so no program could use what lies deeper.
const DEEPEST: usize = 2048;

/// A directory entry of the sum.
enum Slot {
    /// As it was in one delta, not looked into.
    Taken(Node),
    /// A directory that something was done to.
    Open(Box<Open>),
}

struct Open {
    metadata: Metadata,
    entries: BTreeMap<Name, Slot>,
}

impl Slot {
    fn is_directory(&self) -> bool {
        matches!(self, Self::Open(_) | Self::Taken(Node::Directory(_)))
    }

    /// The directory here, read if it was not yet; none if this is something else.
    fn open(&mut self, store: &Store) -> Result<Option<&mut Open>> {
        if let Self::Taken(Node::Directory(id)) = self {
            let tree = store.tree(*id)?;
            let taken = |(name, node): (&Name, &Node)| (name.clone(), Self::Taken(node.clone()));
            let entries = tree.entries.iter().map(taken).collect();
            *self = Self::Open(Box::new(Open { metadata: tree.metadata.clone(), entries }));
        }
        match self {
            Self::Open(open) => Ok(Some(open)),
            Self::Taken(_) => Ok(None),
        }
    }
}

/// What the deltas so far add up to.
struct Sum<'a> {
    store: &'a Store,
    root: Slot,
    removed: BTreeSet<RelativePath>,
    passed: BTreeSet<RelativePath>,
}

impl<'a> Sum<'a> {
    fn of(store: &'a Store, deltas: &[DeltaId]) -> Result<Self> {
        let first = store.delta(deltas[0])?;
        let root = Slot::Taken(Node::Directory(first.tree));
        let mut sum = Self { store, root, removed: first.removed, passed: first.passed };
        for delta in &deltas[1..] {
            sum.add(&store.delta(*delta)?)?;
        }
        Ok(sum)
    }

    fn add(&mut self, delta: &Delta) -> Result<()> {
        for path in &delta.removed {
            forget_below(&mut self.passed, path);
            remove(self.store, &mut self.root, path)?;
            self.removed.insert(path.clone());
        }
        if delta.removed.contains(&RelativePath::default()) {
            // The root itself went: what is there now is this delta's alone.
            self.root = Slot::Taken(Node::Directory(delta.tree));
            return Ok(());
        }
        let Self { store, root, removed, passed } = self;
        Layer { store, delta, removed, passed }.lay_over(root, delta.tree, &mut RelativePath::default())
    }

    fn finish(mut self) -> Result<Delta> {
        let tree = write(self.store, self.root, 0)?;
        // What lies below a removed path went with it, and nothing lower is left there to have metadata of its own.
        let all = self.removed.clone();
        let covered = |path: &RelativePath, from: usize| {
            (from..path.0.len()).any(|length| all.contains(&RelativePath(path.0[..length].to_vec())))
        };
        self.removed.retain(|path| !covered(path, 0));
        self.passed.retain(|path| !covered(path, 0) && !all.contains(path));
        Ok(Delta { tree, removed: self.removed, passed: self.passed })
    }
}

fn remove(store: &Store, root: &mut Slot, path: &RelativePath) -> Result<()> {
    let Some((last, way)) = path.0.split_last() else { return Ok(()) };
    let mut slot = root;
    for name in way {
        let Some(open) = slot.open(store)? else { return Ok(()) };
        let Some(next) = open.entries.get_mut(name) else { return Ok(()) };
        slot = next;
    }
    if let Some(open) = slot.open(store)? {
        open.entries.remove(last);
    }
    Ok(())
}

/// Drops a path and all below it from a set.
fn forget_below(paths: &mut BTreeSet<RelativePath>, path: &RelativePath) {
    let below: Vec<RelativePath> = below(paths, path).cloned().collect();
    for path in below {
        paths.remove(&path);
    }
}

/// A path of the set and all below it: they follow one another.
fn below<'a>(paths: &'a BTreeSet<RelativePath>, path: &'a RelativePath) -> impl Iterator<Item = &'a RelativePath> {
    paths.range(path..).take_while(|other| other.0.starts_with(&path.0))
}

/// A delta that is being laid over the sum.
struct Layer<'a> {
    store: &'a Store,
    delta: &'a Delta,
    removed: &'a mut BTreeSet<RelativePath>,
    passed: &'a mut BTreeSet<RelativePath>,
}

impl Layer<'_> {
    /// Unites the directory `upper` with the one in `slot`.
    fn lay_over(&mut self, slot: &mut Slot, upper: TreeId, path: &mut RelativePath) -> Result<()> {
        if matches!(slot, Slot::Taken(Node::Directory(lower)) if *lower == upper) {
            // The same below and above. Where one of them owns the metadata, the sum does.
            let owned: Vec<RelativePath> =
                below(self.passed, path).filter(|path| !self.delta.passed.contains(*path)).cloned().collect();
            for path in owned {
                self.passed.remove(&path);
            }
            return Ok(());
        }
        let tree = self.store.tree(upper)?;
        let Some(open) = slot.open(self.store)? else { return Ok(()) };
        if !self.delta.passed.contains(path) {
            open.metadata = tree.metadata.clone();
            self.passed.remove(path);
        }
        for (name, node) in &tree.entries {
            path.0.push(name.clone());
            match (open.entries.get_mut(name), node) {
                (Some(lower), Node::Directory(id)) if lower.is_directory() => {
                    let depth = path.0.len();
                    deeper(depth, || self.lay_over(lower, *id, path))?;
                }
                (lower, node) => {
                    match (&lower, node) {
                        (None, Node::Directory(_)) => {
                            self.passed.extend(below(&self.delta.passed, path).cloned());
                        }
                        // A directory over a file: what a still lower delta has in a directory here does not shine through.
                        (Some(_), Node::Directory(_)) => _ = self.removed.insert(path.clone()),
                        _ => forget_below(self.passed, path),
                    }
                    open.entries.insert(name.clone(), Slot::Taken(node.clone()));
                }
            }
            path.0.pop();
        }
        Ok(())
    }
}

/// Writes the directories that were changed, the lowest first.
fn write(store: &Store, slot: Slot, depth: usize) -> Result<TreeId> {
    let open = match slot {
        Slot::Taken(Node::Directory(id)) => return Ok(id),
        Slot::Taken(_) => unreachable!("only directories are written"),
        Slot::Open(open) => *open,
    };
    let mut entries = BTreeMap::new();
    for (name, slot) in open.entries {
        let node = match slot {
            Slot::Taken(node) => node,
            open => Node::Directory(deeper(depth + 1, || write(store, open, depth + 1))?),
        };
        entries.insert(name, node);
    }
    store.put_tree(&Tree { metadata: open.metadata, entries })
}

/// Calls on, with a new stack every now and then: trees may be deeper than one thread's stack allows.
fn deeper<T: Send>(depth: usize, call: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    if depth > DEEPEST {
        return Err(Error::Unsupported { path: "/".into(), reason: "the tree is more than 2048 directories deep" });
    }
    if !depth.is_multiple_of(128) {
        return call();
    }
    std::thread::scope(|scope| match scope.spawn(call).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{World, name, world};
    use super::*;

    /// A tree as a flat list, which is what merging means when nobody minds the time it takes.
    #[derive(Debug, Clone, PartialEq)]
    enum Entry {
        Directory(u16),
        Other(String),
    }

    type Flat = BTreeMap<RelativePath, Entry>;

    #[derive(Debug, Clone)]
    struct FlatDelta {
        entries: Flat,
        removed: BTreeSet<RelativePath>,
        passed: BTreeSet<RelativePath>,
    }

    fn apply(below: &mut Flat, delta: &FlatDelta) {
        let cut = |flat: &mut Flat, path: &RelativePath| flat.retain(|other, _| !other.0.starts_with(&path.0));
        for path in &delta.removed {
            cut(below, path);
        }
        for (path, entry) in &delta.entries {
            match (below.get(path), entry) {
                (Some(Entry::Directory(_)), Entry::Directory(_)) if delta.passed.contains(path) => continue,
                (Some(Entry::Directory(_)), Entry::Directory(_)) => {}
                _ => cut(below, path),
            }
            below.insert(path.clone(), entry.clone());
        }
    }

    fn flatten(store: &Store, id: TreeId, path: &RelativePath, flat: &mut Flat) {
        let tree = store.tree(id).unwrap();
        flat.insert(path.clone(), Entry::Directory(tree.metadata.mode));
        for (name, node) in &tree.entries {
            let path = path.join(name);
            match node {
                Node::Directory(id) => flatten(store, *id, &path, flat),
                Node::Symlink { target, .. } => {
                    flat.insert(path, Entry::Other(String::from_utf8(target.clone()).unwrap()));
                }
                _ => unreachable!("the test makes directories and symlinks"),
            }
        }
    }

    fn unflatten(store: &Store, flat: &Flat, path: &RelativePath) -> TreeId {
        let Entry::Directory(mode) = flat[path] else { unreachable!("a directory") };
        let mut tree = Tree { metadata: Metadata::root(mode), entries: BTreeMap::new() };
        for (child, entry) in
            flat.iter().filter(|(child, _)| child.0.split_last().is_some_and(|(_, way)| way == path.0))
        {
            let node = match entry {
                Entry::Directory(_) => Node::Directory(unflatten(store, flat, child)),
                Entry::Other(target) => Node::Symlink { target: target.clone().into_bytes(), uid: 0, gid: 0 },
            };
            tree.entries.insert(child.0[child.0.len() - 1].clone(), node);
        }
        store.put_tree(&tree).unwrap()
    }

    fn put(store: &Store, delta: &FlatDelta) -> DeltaId {
        let tree = unflatten(store, &delta.entries, &RelativePath::default());
        store.put_delta(&Delta { tree, removed: delta.removed.clone(), passed: delta.passed.clone() }).unwrap()
    }

    /// Three names and three levels, so that deltas meet at every place, in every combination.
    fn some_path() -> impl Strategy<Value = RelativePath> {
        let name = prop_oneof![Just("a"), Just("b"), Just("c")].prop_map(name);
        prop::collection::vec(name, 1..4).prop_map(RelativePath)
    }

    fn some_delta() -> impl Strategy<Value = FlatDelta> {
        let entry = prop_oneof![
            prop_oneof![Just(0o755), Just(0o700)].prop_map(Entry::Directory),
            prop_oneof![Just("x"), Just("y")].prop_map(|target| Entry::Other(target.to_owned())),
        ];
        let entries = prop::collection::vec((some_path(), entry), 0..6);
        let removed = prop::collection::btree_set(some_path(), 0..3);
        let passes = prop::collection::vec(any::<bool>(), 32);
        (entries, removed, passes, prop_oneof![Just(0o755), Just(0o711)]).prop_map(
            |(entries, removed, passes, mode)| {
                let mut flat = Flat::from([(RelativePath::default(), Entry::Directory(mode))]);
                for (path, entry) in entries {
                    // What lies above must be a directory; the last wish for a path counts.
                    for length in 1..path.0.len() {
                        let above = RelativePath(path.0[..length].to_vec());
                        if !matches!(flat.get(&above), Some(Entry::Directory(_))) {
                            flat.insert(above, Entry::Directory(0o755));
                        }
                    }
                    if matches!(entry, Entry::Other(_)) {
                        flat.retain(|other, _| !other.0.starts_with(&path.0));
                    }
                    flat.insert(path, entry);
                }
                let directories = flat.iter().filter(|(_, entry)| matches!(entry, Entry::Directory(_)));
                let passed =
                    directories.zip(passes).filter(|(_, passed)| *passed).map(|((path, _), _)| path.clone()).collect();
                FlatDelta { entries: flat, removed, passed }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn merging_by_digest_gives_what_merging_by_hand_gives(deltas in prop::collection::vec(some_delta(), 1..5)) {
            let world = SHARED.with(std::rc::Rc::clone);
            let store = &world.store;
            let ids: Vec<DeltaId> = deltas.iter().map(|delta| put(store, delta)).collect();
            let mut expected = Flat::new();
            deltas.iter().for_each(|delta| apply(&mut expected, delta));
            let mut merged = Flat::new();
            flatten(store, Sum::of(store, &ids).unwrap().finish().unwrap().tree, &RelativePath::default(), &mut merged);
            prop_assert_eq!(&merged, &expected);

            // However the upper ones are put together first, the result over the lowest is the same.
            if ids.len() > 1 {
                let squashed = Sum::of(store, &ids[1..]).unwrap().finish().unwrap();
                let squashed = store.put_delta(&squashed).unwrap();
                let mut merged = Flat::new();
                let sum = Sum::of(store, &[ids[0], squashed]).unwrap().finish().unwrap();
                flatten(store, sum.tree, &RelativePath::default(), &mut merged);
                prop_assert_eq!(&merged, &expected);
            }
        }
    }

    thread_local! {
        static SHARED: std::rc::Rc<World> = std::rc::Rc::new(world());
    }

    #[test]
    fn a_subtree_that_one_delta_has_is_not_read() {
        let world = world();
        // This tree is nowhere: reading it would fail.
        let unread = Node::Directory(Tree { metadata: Metadata::root(0o123), entries: BTreeMap::new() }.id());
        let left = Delta::whole(world.tree(0o755, [("left", unread.clone()), ("both", unread.clone())]));
        let right = Delta::whole(world.tree(0o755, [("right", unread.clone()), ("both", unread.clone())]));
        let ids = [left, right].map(|delta| world.store.put_delta(&delta).unwrap());
        let merged = world.store.tree(world.store.merge(&ids).unwrap()).unwrap();
        assert_eq!(merged.entries.values().collect::<Vec<_>>(), [&unread; 3]);
        // The second call reads the first one's claim.
        std::fs::remove_dir_all(world.store.path().join("deltas")).unwrap();
        assert_eq!(world.store.merge(&ids).unwrap(), merged.id());
    }

    #[test]
    fn nothing_and_one_delta_merge_too() {
        let world = world();
        assert_eq!(world.store.merge(&[]).unwrap(), Tree::empty().id());
        let tree = world.tree(0o700, [("a", world.file("a", 0o644))]);
        let delta = world.store.put_delta(&Delta::whole(tree)).unwrap();
        assert_eq!(world.store.merge(&[delta]).unwrap(), tree);
        let nothing = world.store.squash(&[]).unwrap();
        assert_eq!(world.store.merge(&[delta, nothing]).unwrap(), tree);
    }

    #[test]
    fn deep_trees_merge_and_too_deep_ones_are_refused() {
        let world = world();
        let deep = |depth: usize, last: &str| {
            let mut id = world.tree(0o755, [(last, world.file(last, 0o644))]);
            for _ in 0..depth {
                id = world.tree(0o755, [("d", Node::Directory(id))]);
            }
            world.store.put_delta(&Delta::whole(id)).unwrap()
        };
        let merged = world.store.merge(&[deep(300, "a"), deep(300, "b")]).unwrap();
        assert_eq!(world.store.extent(merged).unwrap().files, 2);
        let too_deep = world.store.merge(&[deep(2100, "a"), deep(2100, "b")]);
        assert!(matches!(too_deep, Err(Error::Unsupported { .. })));
    }
}
