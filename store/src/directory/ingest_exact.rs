//! Taking in a directory as it is: owners, modes and attributes are kept, because the caller asked for that.
//!
//! What a checkout of an ordinary user's says by marks ([`Marks`]) is taken for what it stands for, so that a checkout gives
//! the tree that it was made from. Sockets are left out, and said.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use rustix::fs::{AtFlags, FileType, Stat};

use super::ingest::Known;
use super::place::Place;
use super::{Marks, Store};
use crate::format::Dropped;
use crate::{File, Metadata, Name, Node, Result, Tree, TreeId};

/// What lies in a directory.
struct Found {
    metadata: Metadata,
    /// Still to be looked into, in the order in which the next level has them.
    directories: Vec<(Name, Place)>,
    others: BTreeMap<Name, Node>,
}

impl Store {
    /// Takes in a directory with the owners, modes and attributes that it has; says what had to be left out.
    pub fn ingest_exact(&self, path: &Path) -> Result<(TreeId, Dropped)> {
        let (known, batch) = (Known::of(self, path), self.batch());
        let mut dropped = Dropped::default();
        // Level by level down to find what is there, and up again to name it.
        let mut levels: Vec<Vec<Found>> = Vec::new();
        let mut level = vec![Place::open(path)?];
        while !level.is_empty() {
            let looked: Vec<(Found, Dropped)> =
                level.par_iter().map(|place| self.look_exactly(place, &known)).collect::<Result<_>>()?;
            let mut found = Vec::new();
            for (one, left_out) in looked {
                found.push(one);
                dropped.extend(left_out);
            }
            level = found.iter().flat_map(|found| found.directories.iter().map(|(_, place)| place.clone())).collect();
            levels.push(found);
        }
        let mut below: Vec<TreeId> = Vec::new();
        for level in levels.into_iter().rev() {
            let mut next = below.into_iter();
            let trees = level.into_iter().map(|found| {
                let mut entries = found.others;
                for ((name, _), id) in found.directories.into_iter().zip(&mut next) {
                    entries.insert(name, Node::Directory(id));
                }
                Tree { metadata: found.metadata, entries }
            });
            let trees: Vec<Tree> = trees.collect();
            below = trees.par_iter().map(|tree| self.put_tree(tree)).collect::<Result<_>>()?;
        }
        batch.finish()?;
        known.keep(self)?;
        Ok((below.swap_remove(0), dropped))
    }

    fn look_exactly(&self, place: &Place, known: &Known) -> Result<(Found, Dropped)> {
        let mut dropped = Dropped::default();
        let stat = stat(place)?;
        let metadata = Marks::of(&place.reached())?.metadata_of(&stat);
        let mut found = Found { metadata, directories: Vec::new(), others: BTreeMap::new() };
        for (name, _) in place.entries()? {
            let child = place.join(&name)?;
            let stat = self::stat(&child)?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            let node = match kind {
                FileType::Directory => {
                    found.directories.push((name, child));
                    continue;
                }
                FileType::Symlink => {
                    let target = rustix::fs::readlinkat(child.base(), child.relative(), Vec::new())
                        .map_err(child.failed("read the link"))?;
                    Node::Symlink { target: target.into_bytes(), uid: stat.st_uid, gid: stat.st_gid }
                }
                FileType::Socket => {
                    dropped.add("socket", child.shown().as_os_str().as_encoded_bytes());
                    continue;
                }
                _ => {
                    let marks = Marks::of(&child.reached())?;
                    let marked = marks.device;
                    let metadata = marks.metadata_of(&stat);
                    match kind {
                        FileType::Fifo => Node::Fifo(metadata),
                        FileType::RegularFile => match marked {
                            Some(number) => {
                                let (block, major, minor) = (number.block, number.major, number.minor);
                                Node::Device { block, major, minor, metadata }
                            }
                            None => {
                                let executable = metadata.mode & 0o100 != 0;
                                let (blob, size) = self.ingest_file(&child, &stat, executable, Some(known))?;
                                Node::File(File { blob, size, metadata })
                            }
                        },
                        kind => {
                            let block = kind == FileType::BlockDevice;
                            let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
                            if (major, minor) == (0, 0) {
                                let path = child.shown();
                                dropped.add("device 0:0 (a whiteout)", path.as_os_str().as_encoded_bytes());
                                continue;
                            }
                            Node::Device { block, major, minor, metadata }
                        }
                    }
                }
            };
            found.others.insert(name, node);
        }
        Ok((found, dropped))
    }
}

fn stat(place: &Place) -> Result<Stat> {
    rustix::fs::statat(place.base(), place.relative(), AtFlags::SYMLINK_NOFOLLOW).map_err(place.failed("look at"))
}

impl Marks {
    /// The metadata of a file, where marks say more than its inode.
    fn metadata_of(mut self, stat: &Stat) -> Metadata {
        self.owner = self.owner.or(Some((stat.st_uid, stat.st_gid)));
        // Mode bits fit: the type is cut off.
        self.metadata((stat.st_mode & 0o7777) as u16)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use rustix::fs::Mode;

    use super::super::testing::world;
    use super::super::{OWNER_ATTRIBUTE, Ownership};
    use super::*;

    #[test]
    fn owners_modes_and_attributes_are_kept_and_sockets_are_not() {
        let world = world();
        let sources = tempfile::tempdir().unwrap();
        let path = |text: &str| sources.path().join(text);
        fs::create_dir(path("directory")).unwrap();
        fs::write(path("directory/file"), "content").unwrap();
        fs::set_permissions(path("directory/file"), fs::Permissions::from_mode(0o2640)).unwrap();
        fs::set_permissions(path("directory"), fs::Permissions::from_mode(0o1700)).unwrap();
        symlink("directory", path("link")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), Mode::RUSR).unwrap();
        let _listener = UnixListener::bind(path("socket")).unwrap();
        rustix::fs::lsetxattr(path("directory"), OWNER_ATTRIBUTE, b"7:8", rustix::fs::XattrFlags::empty()).unwrap();
        let (id, dropped) = world.store.ingest_exact(sources.path()).unwrap();
        assert_eq!(dropped.0.keys().collect::<Vec<_>>(), ["socket"]);
        let root = world.store.tree(id).unwrap();
        let mine = fs::metadata(sources.path()).unwrap();
        let owned = |mode| Metadata { mode, uid: mine.uid(), gid: mine.gid(), attributes: BTreeMap::new() };
        assert_eq!(root.metadata, owned((mine.mode() & 0o7777) as u16));
        assert_eq!(root.entries[&b"pipe"[..]], Node::Fifo(owned(0o400)));
        let target = b"directory".to_vec();
        assert_eq!(root.entries[&b"link"[..]], Node::Symlink { target, uid: mine.uid(), gid: mine.gid() });
        let Node::Directory(below) = root.entries[&b"directory"[..]] else { panic!("it is a directory") };
        let below = world.store.tree(below).unwrap();
        assert_eq!(below.metadata, Metadata { mode: 0o1700, uid: 7, gid: 8, attributes: BTreeMap::new() });
        let Node::File(file) = &below.entries[&b"file"[..]] else { panic!("it is a file") };
        assert_eq!((file.metadata.clone(), world.store.blob(file.blob).unwrap()), (owned(0o2640), b"content".to_vec()));
    }

    #[test]
    fn a_checkout_gives_the_tree_that_it_was_made_from() {
        let world = world();
        let mut metadata = Metadata { mode: 0o640, uid: 33, gid: 5, attributes: BTreeMap::new() };
        let mine = rustix::process::geteuid().as_raw();
        metadata.attributes.insert(b"user.a".to_vec(), b"b".to_vec());
        let device = Node::Device { block: false, major: 1, minor: 3, metadata: Metadata::root(0o666) };
        let entries = [("file", world.file_with("x", metadata)), ("null", device)];
        let id = world.tree(0o755, entries);
        let ownership = if mine == 0 { Ownership::Exact } else { Ownership::Caller };
        // What an ordinary user owns is not root's, unless a mark says so; and root has no mark.
        let checkout = world.store.checkout(id, ownership).unwrap();
        let (read, dropped) = world.store.ingest_exact(&checkout).unwrap();
        if mine == 0 {
            assert_eq!((read, dropped), (id, Dropped::default()));
        }
        let Node::File(file) = &world.store.tree(read).unwrap().entries[&b"file"[..]] else { panic!("it is a file") };
        assert_eq!((file.metadata.uid, file.metadata.gid, file.metadata.mode), (33, 5, 0o640));
    }
}
