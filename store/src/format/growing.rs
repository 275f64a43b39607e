//! A tree put together from paths, in the order in which an archive names them.
//!
//! Directories lie side by side in one list and refer to each other by number, so that nothing here recurses: an archive may
//! be as deep as its reader allows. A directory's number is greater than that of the one it is in.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Place;

use rayon::prelude::*;

use crate::{Metadata, Name, Node, RelativePath, Result, Store, Tree, TreeId};

/// What becomes of a path that leads through a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// It is refused.
    Refuse,
    /// The link is followed; `/` and `..` end at the root of this tree.
    Follow,
}

/// How many symbolic links a path may lead through, as in Linux (`path_resolution(7)`).
const MOST_LINKS: usize = 40;

/// A tree that grows.
#[derive(Debug, Clone)]
pub struct Growing {
    directories: Vec<Directory>,
    links: Links,
}

#[derive(Debug, Clone)]
struct Directory {
    metadata: Metadata,
    entries: BTreeMap<Name, Entry>,
}

#[derive(Debug, Clone)]
enum Entry {
    Directory(usize),
    /// Anything but a directory.
    Other(Node),
}

impl Growing {
    /// An empty directory of root's.
    pub fn new(links: Links) -> Self {
        Self { directories: vec![Directory::new()], links }
    }

    /// A tree of the store, to be changed.
    pub fn of(store: &Store, id: TreeId, links: Links) -> Result<Self> {
        let mut growing = Self::new(links);
        let mut waiting = vec![(0, id)];
        while let Some((number, id)) = waiting.pop() {
            let tree = store.tree(id)?;
            growing.directories[number].metadata = tree.metadata.clone();
            for (name, node) in &tree.entries {
                let entry = match node {
                    Node::Directory(id) => {
                        growing.directories.push(Directory::new());
                        waiting.push((growing.directories.len() - 1, *id));
                        Entry::Directory(growing.directories.len() - 1)
                    }
                    node => Entry::Other(node.clone()),
                };
                growing.directories[number].entries.insert(name.clone(), entry);
            }
        }
        Ok(growing)
    }

    /// Puts anything but a directory at a path; what was there is gone. Directories on the way that are missing are made, root's
    /// and mode 0755. Fails, with words, if the way leads through something else.
    ///
    /// # Panics
    /// If `node` is a directory: see [`Growing::put_directory`].
    pub fn put(&mut self, path: &RelativePath, node: Node) -> Result<(), &'static str> {
        assert!(!matches!(node, Node::Directory(_)), "directories are put by put_directory");
        let Some((name, parent)) = path.0.split_last() else { return Err("the root is not a directory") };
        let parent = self.directory(parent)?;
        self.directories[parent].entries.insert(name.clone(), Entry::Other(node));
        Ok(())
    }

    /// Makes a directory, or gives the one that is there another mode and owner. Anything else that was there is gone.
    pub fn put_directory(&mut self, path: &RelativePath, metadata: Metadata) -> Result<(), &'static str> {
        let number = match path.0.split_last() {
            None => 0,
            Some((name, parent)) => {
                let parent = self.directory(parent)?;
                self.child(parent, name)
            }
        };
        self.directories[number].metadata = metadata;
        Ok(())
    }

    /// Gives a directory, by its number, another mode and owner. The root is number 0.
    pub(super) fn set_metadata(&mut self, directory: usize, metadata: Metadata) {
        self.directories[directory].metadata = metadata;
    }

    /// Puts anything but a directory into a directory, by its number.
    pub(super) fn add(&mut self, directory: usize, name: Name, node: Node) {
        self.directories[directory].entries.insert(name, Entry::Other(node));
    }

    /// Makes a directory in another, by its number; gives its own.
    pub(super) fn add_directory(&mut self, parent: usize, name: Name, metadata: Metadata) -> usize {
        let number = self.child(parent, &name);
        self.directories[number].metadata = metadata;
        number
    }

    /// Whether a directory, by its number, has an entry of this name.
    pub(super) fn has(&self, directory: usize, name: &Name) -> bool {
        self.directories[directory].entries.contains_key(name)
    }

    /// What lies at a path, if it is not a directory; links on the way are followed if they may be, one at the end is not.
    pub fn get(&self, path: &RelativePath) -> Option<&Node> {
        let (name, parent) = path.0.split_last()?;
        match self.directories[self.find(parent)?].entries.get(name)? {
            Entry::Other(node) => Some(node),
            Entry::Directory(_) => None,
        }
    }

    /// Whether there is a directory at a path.
    pub fn is_directory(&self, path: &RelativePath) -> bool {
        let Some((name, parent)) = path.0.split_last() else { return true };
        let parent = self.find(parent);
        parent.is_some_and(|parent| matches!(self.directories[parent].entries.get(name), Some(Entry::Directory(_))))
    }

    /// Removes what lies at a path, and all below it; says whether there was something.
    pub fn remove(&mut self, path: &RelativePath) -> bool {
        let Some((name, parent)) = path.0.split_last() else { return false };
        let parent = self.find(parent);
        parent.is_some_and(|parent| self.directories[parent].entries.remove(name).is_some())
    }

    /// Removes everything below a directory, if it is there.
    pub fn clear(&mut self, path: &RelativePath) {
        if let Some(number) = self.find(&path.0) {
            self.directories[number].entries.clear();
        }
    }

    /// Keeps the tree, the lowest directories first.
    pub fn finish(self, store: &Store) -> Result<TreeId> {
        let mut directories = self.directories;
        // Level by level down, for what was removed is not to be kept; and up again to name them.
        let mut levels = vec![vec![0]];
        loop {
            let below = levels.last().into_iter().flatten().flat_map(|number: &usize| {
                directories[*number].entries.values().filter_map(|entry| match entry {
                    Entry::Directory(child) => Some(*child),
                    Entry::Other(_) => None,
                })
            });
            let below: Vec<usize> = below.collect();
            if below.is_empty() {
                break;
            }
            levels.push(below);
        }
        let mut ids: Vec<Option<TreeId>> = vec![None; directories.len()];
        for level in levels.into_iter().rev() {
            let taken: Vec<(usize, Directory)> =
                level.into_iter().map(|number| (number, std::mem::take(&mut directories[number]))).collect();
            let keep = |(number, directory): (usize, Directory)| {
                let node = |entry| match entry {
                    Entry::Directory(child) => Node::Directory(ids[child].expect("a lower level is named before")),
                    Entry::Other(node) => node,
                };
                let entries = directory.entries.into_iter().map(|(name, entry)| (name, node(entry))).collect();
                Ok((number, store.put_tree(&Tree { metadata: directory.metadata, entries })?))
            };
            let kept: Vec<(usize, TreeId)> = taken.into_par_iter().map(keep).collect::<Result<_>>()?;
            for (number, id) in kept {
                ids[number] = Some(id);
            }
        }
        Ok(ids[0].expect("the root is the last to be named"))
    }

    /// The number of the directory at a path; the missing ones on the way are made.
    fn directory(&mut self, path: &[Name]) -> Result<usize, &'static str> {
        let mut at = 0;
        for (index, name) in path.iter().enumerate() {
            at = match self.directories[at].entries.get(name) {
                Some(Entry::Directory(child)) => *child,
                None => self.child(at, name),
                Some(Entry::Other(Node::Symlink { .. })) if self.links == Links::Follow => {
                    // What a link names must be there: it is not for us to make it up.
                    self.find(&path[..=index]).ok_or("it leads through a symbolic link to nowhere")?
                }
                Some(Entry::Other(Node::Symlink { .. })) => return Err("it leads through a symbolic link"),
                Some(Entry::Other(_)) => return Err("it leads through what is not a directory"),
            };
        }
        Ok(at)
    }

    /// The directory of this name in another; made if missing, also in place of what is not one.
    fn child(&mut self, parent: usize, name: &Name) -> usize {
        let next = self.directories.len();
        match self.directories[parent].entries.entry(name.clone()) {
            Place::Occupied(mut place) => match place.get() {
                Entry::Directory(child) => return *child,
                Entry::Other(_) => _ = place.insert(Entry::Directory(next)),
            },
            Place::Vacant(place) => _ = place.insert(Entry::Directory(next)),
        }
        self.directories.push(Directory::new());
        next
    }

    /// The number of the directory at a path, if it is there.
    fn find(&self, path: &[Name]) -> Option<usize> {
        // The way taken, for `..` of a link's target.
        let mut way = vec![0];
        let mut rest: Vec<Step> = path.iter().rev().map(|name| Step::Down(name.clone())).collect();
        let mut links = 0;
        while let Some(step) = rest.pop() {
            let name = match step {
                Step::Root => {
                    way.truncate(1);
                    continue;
                }
                Step::Up => {
                    way.truncate((way.len() - 1).max(1));
                    continue;
                }
                Step::Down(name) => name,
            };
            match self.directories[*way.last()?].entries.get(&name)? {
                Entry::Directory(child) => way.push(*child),
                Entry::Other(Node::Symlink { target, .. }) if self.links == Links::Follow && links < MOST_LINKS => {
                    links += 1;
                    let parts = target.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
                    let steps = parts.map(|part| match part {
                        b".." => Some(Step::Up),
                        part => Name::new(part).ok().map(Step::Down),
                    });
                    let mut steps = steps.collect::<Option<Vec<Step>>>()?;
                    if target.first() == Some(&b'/') {
                        steps.insert(0, Step::Root);
                    }
                    rest.extend(steps.into_iter().rev());
                }
                Entry::Other(_) => return None,
            }
        }
        way.last().copied()
    }
}

/// One step of a way.
enum Step {
    Root,
    Up,
    Down(Name),
}

impl Directory {
    fn new() -> Self {
        Self { metadata: Metadata::root(0o755), entries: BTreeMap::new() }
    }
}

impl Default for Directory {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlobId, File};

    fn path(text: &str) -> RelativePath {
        RelativePath::parse(text.as_bytes()).unwrap()
    }

    fn file(store: &Store, text: &str) -> Node {
        let blob: BlobId = store.put_blob(text.as_bytes(), false).unwrap();
        Node::File(File { blob, size: text.len() as u64, metadata: Metadata::root(0o644) })
    }

    fn link(target: &str) -> Node {
        Node::Symlink { target: target.into(), uid: 0, gid: 0 }
    }

    fn world() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("store")).unwrap();
        (directory, store)
    }

    #[test]
    fn what_is_put_later_wins_and_missing_directories_are_made() {
        let (_directory, store) = world();
        let mut growing = Growing::new(Links::Refuse);
        growing.put(&path("a/b/c"), file(&store, "one")).unwrap();
        growing.put(&path("a/b/c"), file(&store, "two")).unwrap();
        growing.put_directory(&path("a"), Metadata::root(0o700)).unwrap();
        growing.put(&path("gone/deep/file"), file(&store, "three")).unwrap();
        assert!(growing.remove(&path("gone/deep")) && !growing.remove(&path("gone/deep")));
        growing.put(&path("gone"), link("a")).unwrap();
        let root = store.tree(growing.clone().finish(&store).unwrap()).unwrap();
        let names: Vec<_> = root.entries.keys().map(|name| name.as_bytes().to_vec()).collect();
        assert_eq!(names, [b"a".to_vec(), b"gone".to_vec()]);
        let Node::Directory(a) = root.entries[&b"a"[..]] else { panic!("a is a directory") };
        assert_eq!(store.tree(a).unwrap().metadata, Metadata::root(0o700));
        assert_eq!(growing.get(&path("a/b/c")), Some(&file(&store, "two")));

        // A tree that is read back and put together again is the same tree.
        let id = growing.clone().finish(&store).unwrap();
        assert_eq!(Growing::of(&store, id, Links::Refuse).unwrap().finish(&store).unwrap(), id);

        growing.clear(&path(""));
        assert_eq!(growing.finish(&store).unwrap(), Tree::empty().id());
    }

    #[test]
    fn a_way_through_a_link_is_refused_or_stays_inside() {
        let (_directory, store) = world();
        let mut refusing = Growing::new(Links::Refuse);
        refusing.put(&path("link"), link("/etc")).unwrap();
        refusing.put(&path("file"), file(&store, "")).unwrap();
        assert!(refusing.put(&path("link/passwd"), file(&store, "x")).is_err());
        assert!(refusing.put(&path("file/below"), file(&store, "x")).is_err());
        assert!(refusing.put(&path(""), file(&store, "x")).is_err());

        let mut following = Growing::new(Links::Follow);
        following.put_directory(&path("usr/lib"), Metadata::root(0o755)).unwrap();
        following.put(&path("lib"), link("usr/lib")).unwrap();
        following.put(&path("usr/out"), link("../../../../usr/./lib")).unwrap();
        following.put(&path("absolute"), link("/lib")).unwrap();
        for (index, way) in ["lib", "usr/out", "absolute"].into_iter().enumerate() {
            following.put(&path(&format!("{way}/{index}")), file(&store, "x")).unwrap();
            assert!(following.get(&path(&format!("usr/lib/{index}"))).is_some(), "{way}");
        }
        for (name, target) in [("loop", "loop"), ("one", "two"), ("two", "one"), ("nowhere", "not/there")] {
            following.put(&path(name), link(target)).unwrap();
        }
        for way in ["loop/a", "one/a", "nowhere/a"] {
            assert!(following.put(&path(way), file(&store, "x")).is_err(), "{way}");
        }
    }

    #[test]
    fn thousands_of_levels_need_no_stack() {
        let (_directory, store) = world();
        let mut growing = Growing::new(Links::Refuse);
        let names = vec![Name::new("d").unwrap(); 2_000];
        growing.put_directory(&RelativePath(names.clone()), Metadata::root(0o700)).unwrap();
        let id = growing.finish(&store).unwrap();
        assert!(Growing::of(&store, id, Links::Refuse).unwrap().is_directory(&RelativePath(names)));
    }
}
