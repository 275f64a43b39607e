//! The digest of a checkout, taken from what lies on the disk now.
//!
//! A run trusts that a checkout is there under its name; who does not (`forge run --measure`, `forge parity`) asks here. Every byte,
//! name, mode, owner and attribute goes into the digest. Of a checkout that belongs to the caller, marks are taken for what they
//! stand for; fifos and symlinks can carry none, and their owners are the tree's.

use std::collections::BTreeMap;
use std::fs;

use rayon::prelude::*;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::objects::hash;
use super::place::Place;
use super::{Marks, Ownership, Store};
use crate::{Error, File, Metadata, Name, Node, Result, Tree, TreeId};

/// What a checkout is, against what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// Of what is there.
    pub tree: TreeId,
    /// The first paths that are not as the tree says, sorted; empty if all is.
    pub different: Vec<String>,
}

/// So many paths are told.
const MOST_TOLD: usize = 20;

/// A directory on the way.
struct Directory {
    place: Place,
    expected: Option<TreeId>,
}

struct Found {
    tree: Tree,
    /// In the order in which the next level has them.
    directories: Vec<(Name, Directory)>,
    different: Vec<String>,
}

impl Store {
    /// Reads the checkout of a tree, which must be there, and hashes everything in it.
    pub fn measure(&self, id: TreeId, ownership: Ownership) -> Result<Measured> {
        let (root, ownership) = self.checkout_to_run(id, ownership)?;
        let mut levels: Vec<Vec<Found>> = Vec::new();
        let mut level = vec![Directory { place: Place::open(&root)?, expected: Some(id) }];
        while !level.is_empty() {
            let found: Vec<Found> = level
                .par_iter()
                .map(|directory| self.measure_directory(directory, ownership))
                .collect::<Result<_>>()?;
            level = found
                .iter()
                .flat_map(|found| &found.directories)
                .map(|(_, next)| Directory { place: next.place.clone(), expected: next.expected })
                .collect();
            levels.push(found);
        }
        let mut different = Vec::new();
        let mut below: Vec<TreeId> = Vec::new();
        for level in levels.into_iter().rev() {
            let mut next = below.into_iter();
            below = Vec::with_capacity(level.len());
            for mut found in level {
                for ((name, _), id) in found.directories.into_iter().zip(&mut next) {
                    found.tree.entries.insert(name, Node::Directory(id));
                }
                below.push(found.tree.id());
                different.append(&mut found.different);
            }
        }
        let prefix = root.display().to_string();
        different.sort();
        different.truncate(MOST_TOLD);
        let short = |path: String| path.strip_prefix(&prefix).map_or_else(|| path.clone(), str::to_owned);
        let different =
            different.into_iter().map(short).map(|path| if path.is_empty() { "/".to_owned() } else { path });
        Ok(Measured { tree: below.swap_remove(0), different: different.collect() })
    }

    fn measure_directory(&self, directory: &Directory, ownership: Ownership) -> Result<Found> {
        let place = &directory.place;
        let expected = directory.expected.map(|id| self.tree(id)).transpose()?;
        let wanted = |name: &Name| expected.as_ref().and_then(|tree| tree.entries.get(name));
        let metadata = metadata_at(place, ownership, expected.as_ref().map(|tree| &tree.metadata))?;
        let mut found =
            Found { tree: Tree { metadata, entries: BTreeMap::new() }, directories: Vec::new(), different: Vec::new() };
        let told = |place: &Place| place.shown().display().to_string();
        if expected.as_ref().is_some_and(|tree| tree.metadata != found.tree.metadata) {
            found.different.push(told(place));
        }
        for (name, _) in place.entries()? {
            let child = place.join(&name)?;
            let want = wanted(&name);
            let stat = rustix::fs::statat(child.base(), child.relative(), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(child.failed("look at"))?;
            let exact = ownership == Ownership::Exact;
            let node = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let expected = match want {
                        Some(Node::Directory(id)) => Some(*id),
                        _ => None,
                    };
                    if expected.is_none() {
                        found.different.push(told(&child));
                    }
                    found.directories.push((name, Directory { place: child, expected }));
                    continue;
                }
                FileType::Symlink => {
                    let target = rustix::fs::readlinkat(child.base(), child.relative(), Vec::new())
                        .map_err(child.failed("read the link"))?;
                    let (uid, gid) = match want {
                        Some(Node::Symlink { uid, gid, .. }) if !exact => (*uid, *gid),
                        _ => (stat.st_uid, stat.st_gid),
                    };
                    Node::Symlink { target: target.into_bytes(), uid, gid }
                }
                FileType::Fifo => match want {
                    Some(Node::Fifo(metadata)) if !exact => {
                        Node::Fifo(Metadata { mode: (stat.st_mode & 0o7777) as u16, ..metadata.clone() })
                    }
                    _ => Node::Fifo(metadata_at(&child, ownership, None)?),
                },
                FileType::RegularFile => self.measure_file(&child, ownership, want)?,
                kind => {
                    let block = kind == FileType::BlockDevice;
                    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
                    Node::Device { block, major, minor, metadata: metadata_at(&child, ownership, None)? }
                }
            };
            if want != Some(&node) {
                found.different.push(told(&child));
            }
            found.tree.entries.insert(name, node);
        }
        let missing = expected.iter().flat_map(|tree| tree.entries.keys()).filter(|name| {
            !found.tree.entries.contains_key(*name) && !found.directories.iter().any(|(there, _)| there == *name)
        });
        let missing: Vec<String> = missing.map(|name| Ok(told(&place.join(name)?))).collect::<Result<_>>()?;
        found.different.extend(missing);
        Ok(found)
    }

    fn measure_file(&self, place: &Place, ownership: Ownership, want: Option<&Node>) -> Result<Node> {
        let marks = Marks::of(&place.reached())?;
        let device = marks.device;
        let told = match want {
            Some(Node::File(File { metadata, .. }) | Node::Device { metadata, .. }) => Some(metadata),
            _ => None,
        };
        let metadata = metadata_at(place, ownership, told)?;
        if let (Some(number), Ownership::Caller) = (device, ownership) {
            let (block, major, minor) = (number.block, number.major, number.minor);
            return Ok(Node::Device { block, major, minor, metadata });
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(place.base(), place.relative(), flags, Mode::empty());
        let file = fs::File::from(file.map_err(place.failed("open"))?);
        let (blob, size) = hash(&file).map_err(Error::file("read", place.shown()))?;
        if let (Some(Node::Device { block, major, minor, .. }), Ownership::Unnoted, 0) = (want, ownership, size) {
            return Ok(Node::Device { block: *block, major: *major, minor: *minor, metadata });
        }
        Ok(Node::File(File { blob, size, metadata }))
    }
}

/// Mode, owner and attributes: as they are, or as the marks say; where nothing is noted, owner and attributes as `told`.
fn metadata_at(place: &Place, ownership: Ownership, told: Option<&Metadata>) -> Result<Metadata> {
    let stat = rustix::fs::statat(place.base(), place.relative(), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(place.failed("look at"))?;
    if let (Ownership::Unnoted, Some(told)) = (ownership, told) {
        return Ok(Metadata { mode: (stat.st_mode & 0o7777) as u16, ..told.clone() });
    }
    let mut marks = Marks::of(&place.reached())?;
    if ownership == Ownership::Exact {
        marks.owner = Some((stat.st_uid, stat.st_gid));
    }
    Ok(marks.metadata((stat.st_mode & 0o7777) as u16))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::testing::{World, world};
    use super::*;

    fn ownerships() -> Vec<Ownership> {
        match rustix::process::geteuid().is_root() {
            true => vec![Ownership::Caller, Ownership::Exact, Ownership::Unnoted],
            false => vec![Ownership::Caller, Ownership::Unnoted],
        }
    }

    fn some(world: &World) -> TreeId {
        let owned = Metadata { mode: 0o640, uid: 33, gid: 5, attributes: BTreeMap::new() };
        let below = world.tree(0o755, [("file", world.file("content", 0o644))]);
        let link = Node::Symlink { target: b"below/file".to_vec(), uid: 7, gid: 8 };
        let device = Node::Device { block: false, major: 1, minor: 3, metadata: Metadata::root(0o666) };
        let entries = [
            ("below", Node::Directory(below)),
            ("owned", world.file_with("x", owned)),
            ("link", link),
            ("null", device),
            ("pipe", Node::Fifo(Metadata { uid: 9, ..Metadata::root(0o600) })),
        ];
        world.tree(0o755, entries)
    }

    #[test]
    fn a_checkout_measures_as_the_tree_that_it_was_made_from() {
        let world = world();
        let id = some(&world);
        for ownership in ownerships() {
            world.store.checkout(id, ownership).unwrap();
            let measured = world.store.measure(id, ownership).unwrap();
            assert_eq!(measured, Measured { tree: id, different: Vec::new() }, "{ownership:?}");
        }
    }

    #[test]
    fn whatever_is_changed_on_the_disk_is_told_by_its_path() {
        let world = world();
        let id = some(&world);
        let root = world.store.checkout(id, Ownership::Caller).unwrap();
        fs::remove_file(root.join("link")).unwrap();
        fs::write(root.join("below/more"), "").unwrap();
        fs::remove_file(root.join("below/file")).unwrap();
        fs::write(root.join("below/file"), "c0ntent").unwrap();
        fs::set_permissions(root.join("pipe"), fs::Permissions::from_mode(0o666)).unwrap();
        let measured = world.store.measure(id, Ownership::Caller).unwrap();
        assert_ne!(measured.tree, id);
        assert_eq!(measured.different, ["/below/file", "/below/more", "/link", "/pipe"]);
    }
}
