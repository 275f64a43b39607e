//! A layer being read over those below it: what its entries make, what its whiteouts hide, what it merely passes through.
//!
//! All of this happens in memory and in the store: no path of a layer is ever a path of this machine. A way that leads through a
//! symbolic link, of this layer or of those below, is followed inside the root, as containerd and umoci unpack (Docker and Podman
//! unpack each layer by itself and would put a directory in the link's place); one that leads through a file or to nowhere is refused.
//! A whiteout hides what is below, never what its own layer has, wherever it stands in the stream.
//!
//! Directories lie side by side in one list and refer to each other by number, so that nothing here recurses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::format::tar::unpack::Growth;
use crate::{Delta, Error, Metadata, Name, Node, RelativePath, Result, Store, Tree, TreeId};

/// How many symbolic links a path may lead through, as in Linux (`path_resolution(7)`).
const MOST_LINKS: usize = 40;

/// A layer over a tree.
pub struct View<'a> {
    store: &'a Store,
    directories: Vec<Directory>,
    /// Why the tree below could not be read.
    pub failure: Option<Error>,
}

#[derive(Default)]
struct Directory {
    /// None if it is merely passed through, or was never said to be there.
    metadata: Option<Metadata>,
    /// The same directory below, unless something hides it.
    lower: Option<TreeId>,
    opaque: bool,
    removed: BTreeSet<Name>,
    entries: BTreeMap<Name, Entry>,
}

#[derive(Clone)]
enum Entry {
    Directory(usize),
    Other(Node),
}

/// A directory as it shows.
#[derive(Clone, Copy)]
enum Place {
    Here(usize),
    Below(TreeId),
}

impl<'a> View<'a> {
    /// Nothing yet over the sum of the layers below.
    pub fn new(store: &'a Store, below: Option<TreeId>) -> Self {
        Self { store, directories: vec![Directory { lower: below, ..Directory::default() }], failure: None }
    }

    /// Hides what the layers below have at a path.
    pub fn white_out(&mut self, path: &RelativePath) -> Result<(), &'static str> {
        let Some((name, parent)) = path.0.split_last() else { return Err("it would remove the root") };
        let parent = self.resolve(parent)?;
        // What is not there need not be hidden, and nothing is made for it.
        let Some(place) = self.place_of(&parent)? else { return Ok(()) };
        let lower = match place {
            Place::Below(id) => Some(id),
            Place::Here(number) => self.directories[number].lower,
        };
        let Some(lower) = lower else { return Ok(()) };
        if !self.tree(lower)?.entries.contains_key(name) {
            return Ok(());
        }
        let parent = self.ensure(&parent)?;
        self.directories[parent].removed.insert(name.clone());
        if let Some(Entry::Directory(number)) = self.directories[parent].entries.get(name) {
            let number = *number;
            self.cut(number)?;
        }
        Ok(())
    }

    /// Hides all that the layers below have in a directory.
    pub fn make_opaque(&mut self, path: &RelativePath) -> Result<(), &'static str> {
        let path = self.resolve(&path.0)?;
        let number = self.ensure(&path)?;
        if self.directories[number].lower.is_some() {
            self.cut(number)?;
            self.directories[number].opaque = true;
        }
        Ok(())
    }

    /// The layer as a delta. Its files are in the store already.
    pub fn finish(self) -> Result<Delta> {
        let (mut removed, mut passed) = (BTreeSet::new(), BTreeSet::new());
        // From the root down, to leave out what was replaced; then up again, for a tree names those below it.
        let mut reached: Vec<(usize, RelativePath)> = vec![(0, RelativePath::default())];
        let mut next = 0;
        while let Some((number, path)) = reached.get(next).cloned() {
            next += 1;
            let directory = &self.directories[number];
            if directory.opaque {
                removed.insert(path.clone());
            }
            if directory.metadata.is_none() && directory.lower.is_some() {
                passed.insert(path.clone());
            }
            removed.extend(directory.removed.iter().map(|name| path.join(name)));
            for (name, entry) in &directory.entries {
                if let Entry::Directory(child) = entry {
                    reached.push((*child, path.join(name)));
                }
            }
        }
        let mut ids: Vec<Option<TreeId>> = vec![None; self.directories.len()];
        let mut directories = self.directories;
        for (number, _) in reached.iter().rev() {
            let directory = std::mem::take(&mut directories[*number]);
            let node = |entry| match entry {
                Entry::Directory(child) => Node::Directory(ids[child].expect("what is below was named before")),
                Entry::Other(node) => node,
            };
            let entries = directory.entries.into_iter().map(|(name, entry)| (name, node(entry))).collect();
            let metadata = directory.metadata.unwrap_or_else(|| Metadata::root(0o755));
            ids[*number] = Some(self.store.put_tree(&Tree { metadata, entries })?);
        }
        Ok(Delta { tree: ids[0].expect("the root was reached"), removed, passed })
    }

    fn tree(&mut self, id: TreeId) -> Result<Arc<Tree>, &'static str> {
        self.store.tree(id).map_err(|error| {
            self.failure.get_or_insert(error);
            "what lies below cannot be read"
        })
    }

    /// What shows under a name in a directory.
    fn entry(&mut self, place: Place, name: &Name) -> Result<Option<Result<Place, Node>>, &'static str> {
        let lower = match place {
            Place::Here(number) => {
                let directory = &self.directories[number];
                match directory.entries.get(name) {
                    Some(Entry::Directory(child)) => return Ok(Some(Ok(Place::Here(*child)))),
                    Some(Entry::Other(node)) => return Ok(Some(Err(node.clone()))),
                    None if directory.removed.contains(name) => None,
                    None => directory.lower,
                }
            }
            Place::Below(id) => Some(id),
        };
        let Some(lower) = lower else { return Ok(None) };
        Ok(match self.tree(lower)?.entries.get(name) {
            Some(Node::Directory(id)) => Some(Ok(Place::Below(*id))),
            Some(node) => Some(Err(node.clone())),
            None => None,
        })
    }

    /// The same directory without links on the way. What is not there yet stays as it was said.
    fn resolve(&mut self, path: &[Name]) -> Result<Vec<Name>, &'static str> {
        let mut places = vec![Place::Here(0)];
        let mut names: Vec<Name> = Vec::new();
        // Steps, the next one last: none is `..`; and whether it comes out of a link.
        let mut rest: Vec<(Option<Name>, bool)> = path.iter().rev().map(|name| (Some(name.clone()), false)).collect();
        let mut links = 0;
        while let Some((step, linked)) = rest.pop() {
            let Some(name) = step else {
                places.truncate(places.len().saturating_sub(1).max(1));
                names.pop();
                continue;
            };
            match self.entry(*places.last().expect("the root stays"), &name)? {
                Some(Ok(place)) => {
                    places.push(place);
                    names.push(name);
                }
                Some(Err(Node::Symlink { target, .. })) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err("it leads through too many symbolic links");
                    }
                    if target.first() == Some(&b'/') {
                        places.truncate(1);
                        names.clear();
                    }
                    let parts = target.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
                    let step = |part: &[u8]| match part {
                        b".." => Ok((None, true)),
                        part => match Name::new(part) {
                            Ok(name) => Ok((Some(name), true)),
                            Err(_) => Err("it leads through a symbolic link to nowhere"),
                        },
                    };
                    let steps = parts.map(step).collect::<Result<Vec<_>, _>>()?;
                    rest.extend(steps.into_iter().rev());
                }
                Some(Err(_)) => return Err("it leads through what is not a directory"),
                // What a link names must be there: it is not for us to make it up.
                None if linked => return Err("it leads through a symbolic link to nowhere"),
                None => {
                    names.push(name);
                    // Nothing is there, so nothing further on is a link.
                    for (step, _) in rest.into_iter().rev() {
                        names.extend(step);
                    }
                    return Ok(names);
                }
            }
        }
        Ok(names)
    }

    /// The directory at a resolved path, if it is there.
    fn place_of(&mut self, path: &[Name]) -> Result<Option<Place>, &'static str> {
        let mut place = Place::Here(0);
        for name in path {
            match self.entry(place, name)? {
                Some(Ok(next)) => place = next,
                _ => return Ok(None),
            }
        }
        Ok(Some(place))
    }

    /// The number of the directory at a resolved path: this layer passes through it now.
    fn ensure(&mut self, path: &[Name]) -> Result<usize, &'static str> {
        let mut at = 0;
        for name in path {
            at = match self.entry(Place::Here(at), name)? {
                Some(Ok(Place::Here(child))) => child,
                Some(Ok(Place::Below(id))) => self.add(at, name, Directory { lower: Some(id), ..Directory::default() }),
                None => self.add(at, name, Directory::default()),
                Some(Err(_)) => return Err("it leads through what is not a directory"),
            };
        }
        Ok(at)
    }

    fn add(&mut self, parent: usize, name: &Name, directory: Directory) -> usize {
        let number = self.directories.len();
        self.directories.push(directory);
        self.directories[parent].entries.insert(name.clone(), Entry::Directory(number));
        number
    }

    /// Takes a directory, and those below it, from what lies below the layer; what they had from there as metadata stays.
    fn cut(&mut self, number: usize) -> Result<(), &'static str> {
        let mut waiting = vec![number];
        while let Some(number) = waiting.pop() {
            if let Some(lower) = self.directories[number].lower.take() {
                let tree = self.tree(lower)?;
                self.directories[number].metadata.get_or_insert_with(|| tree.metadata.clone());
            }
            let directory = &mut self.directories[number];
            directory.removed.clear();
            waiting.extend(directory.entries.values().filter_map(|entry| match entry {
                Entry::Directory(child) => Some(*child),
                Entry::Other(_) => None,
            }));
        }
        Ok(())
    }
}

impl Growth for View<'_> {
    fn put(&mut self, path: &RelativePath, node: Node) -> Result<(), &'static str> {
        let Some((name, parent)) = path.0.split_last() else { return Err("the root is not a directory") };
        let parent = self.resolve(parent)?;
        let parent = self.ensure(&parent)?;
        self.directories[parent].entries.insert(name.clone(), Entry::Other(node));
        Ok(())
    }

    fn put_directory(&mut self, path: &RelativePath, metadata: Metadata) -> Result<(), &'static str> {
        let Some((name, parent)) = path.0.split_last() else {
            self.directories[0].metadata = Some(metadata);
            return Ok(());
        };
        let parent = self.resolve(parent)?;
        let parent = self.ensure(&parent)?;
        let number = match self.directories[parent].entries.get(name) {
            Some(Entry::Directory(number)) => *number,
            Some(Entry::Other(_)) => {
                // What was in this place below went with it.
                let number = self.add(parent, name, Directory::default());
                if let Some(lower) = self.directories[parent].lower
                    && self.tree(lower)?.entries.contains_key(name)
                {
                    self.directories[parent].removed.insert(name.clone());
                }
                number
            }
            None => {
                let lower = match self.entry(Place::Here(parent), name)? {
                    Some(Ok(Place::Below(id))) => Some(id),
                    _ => None,
                };
                self.add(parent, name, Directory { lower, ..Directory::default() })
            }
        };
        self.directories[number].metadata = Some(metadata);
        Ok(())
    }

    fn get(&mut self, path: &RelativePath) -> Option<Node> {
        let (name, parent) = path.0.split_last()?;
        let parent = self.resolve(parent).ok()?;
        let place = self.place_of(&parent).ok()??;
        self.entry(place, name).ok()??.err()
    }
}
