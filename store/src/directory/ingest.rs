//! Taking in sources: files of a project, as root would have them.
//!
//! Owners, times and attributes are the machine's and stay outside; of the mode only the owner's execute bit counts. Who wants
//! them kept says so ([`Store::ingest_exact`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Seek};
use std::path::Path;

use rayon::prelude::*;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use super::Store;
use super::objects::hash;
use super::place::Place;
use super::sparse::Holes;
use crate::{BlobId, Error, File, Metadata, Name, Node, Result, Tree};

mod known;

pub(super) use known::Known;

/// Sources up to this length are read at once, larger ones piece by piece.
const AT_ONCE: u64 = 16 << 20;

impl Store {
    /// Takes in a file, symlink or directory of the project: root:root, modes 0644 or 0755. `selected` as in
    /// [`crate::derivation::Source`]; the directories on the way to a selected path are taken along.
    pub fn ingest_source(&self, path: &Path, selected: Option<&BTreeSet<Vec<u8>>>) -> Result<Node> {
        let metadata = fs::symlink_metadata(path).map_err(Error::file("look at", path))?;
        if metadata.is_dir() {
            let known = Known::of(self, path);
            let batch = self.batch();
            let node = self.ingest_directory(Place::open(path)?, selected, &known)?;
            batch.finish()?;
            known.keep(self)?;
            return Ok(node);
        }
        // A name in an open directory, like every other; `/` and `..` are directories.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let name =
            Name::new(name).map_err(|_| Error::Unsupported { path: path.to_owned(), reason: "it has no name" })?;
        match self.ingest_entry(&Place::open(parent)?.join(&name)?, None)? {
            Some(node) => Ok(node),
            None => Err(Error::Unsupported { path: path.to_owned(), reason: "it is being replaced" }),
        }
    }

    fn ingest_directory(&self, root: Place, selected: Option<&BTreeSet<Vec<u8>>>, known: &Known) -> Result<Node> {
        // Level by level down to find what is there, and up again to name it.
        let mut levels: Vec<Vec<Found>> = Vec::new();
        let mut level = vec![(root, Vec::new())];
        while !level.is_empty() {
            let found: Vec<Found> = level
                .par_iter()
                .map(|(place, path)| self.look_into(place, path, selected, known))
                .collect::<Result<_>>()?;
            level = found
                .iter()
                .flat_map(|found| found.directories.iter().map(|(_, place, path)| (place.clone(), path.clone())))
                .collect();
            levels.push(found);
        }
        let mut below: Vec<Node> = Vec::new();
        for level in levels.into_iter().rev() {
            // The directories of this level's directories are the next level, in the same order.
            let mut next = below.into_iter();
            let trees: Vec<Tree> = level
                .into_iter()
                .map(|found| {
                    let mut entries = found.others;
                    for ((name, _, _), node) in found.directories.into_iter().zip(&mut next) {
                        entries.insert(name, node);
                    }
                    Tree { metadata: Metadata::root(0o755), entries }
                })
                .collect();
            below = trees.par_iter().map(|tree| self.put_tree(tree).map(Node::Directory)).collect::<Result<_>>()?;
        }
        Ok(below.swap_remove(0))
    }

    fn look_into(
        &self,
        place: &Place,
        path: &[u8],
        selected: Option<&BTreeSet<Vec<u8>>>,
        known: &Known,
    ) -> Result<Found> {
        let mut found = Found { directories: Vec::new(), others: BTreeMap::new() };
        let mut others = Vec::new();
        for (name, mut kind) in place.entries()? {
            let mut below = path.to_vec();
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend(name.as_bytes());
            let child = place.join(&name)?;
            if kind == FileType::Unknown {
                let stat = rustix::fs::statat(child.base(), child.relative(), AtFlags::SYMLINK_NOFOLLOW);
                kind = FileType::from_raw_mode(stat.map_err(child.failed("look at"))?.st_mode);
            }
            match kind {
                FileType::Directory if takes_directory(selected, &below) => {
                    found.directories.push((name, child, below))
                }
                FileType::Directory => {}
                _ if selected.is_none_or(|selected| selected.contains(&below)) => others.push((name, child)),
                _ => {}
            }
        }
        let ingest = |(name, child): (Name, Place)| match self.ingest_entry(&child, Some(known))? {
            Some(node) => Ok((name, node)),
            None => Err(Error::Unsupported { path: child.shown(), reason: "it is being replaced" }),
        };
        found.others = others.into_par_iter().map(ingest).collect::<Result<_>>()?;
        Ok(found)
    }

    /// Takes in what is not a directory; none if it became one.
    fn ingest_entry(&self, place: &Place, known: Option<&Known>) -> Result<Option<Node>> {
        let stat = rustix::fs::statat(place.base(), place.relative(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(place.failed("look at"))?;
        let refused = |reason| Error::Unsupported { path: place.shown(), reason };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(place.base(), place.relative(), Vec::new())
                    .map_err(place.failed("read the link"))?;
                return Ok(Some(Node::Symlink { target: target.into_bytes(), uid: 0, gid: 0 }));
            }
            FileType::Directory => return Ok(None),
            FileType::Socket => return Err(refused("it is a socket")),
            FileType::Fifo => return Err(refused("it is a named pipe")),
            _ => return Err(refused("it is a device")),
        }
        let executable = stat.st_mode & 0o100 != 0;
        let (blob, size) = self.ingest_file(place, &stat, executable, known)?;
        let metadata = Metadata::root(if executable { 0o755 } else { 0o644 });
        Ok(Some(Node::File(File { blob, size, metadata })))
    }

    /// Takes in a regular file, unless it is known to be as it was.
    pub(super) fn ingest_file(
        &self,
        place: &Place,
        stat: &Stat,
        executable: bool,
        known: Option<&Known>,
    ) -> Result<(BlobId, u64)> {
        if let Some(known) = known
            && let Some(blob) = known.find(stat)
            && self.has_blob(blob)
        {
            known.add(stat, blob);
            return Ok((blob, stat.st_size.unsigned_abs()));
        }
        // Should it be a fifo by now, opening must not wait for somebody to write to it.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(place.base(), place.relative(), flags, Mode::empty());
        let mut file = fs::File::from(file.map_err(place.failed("open"))?);
        // Another file may lie there since we looked.
        let stat = rustix::fs::fstat(&file).map_err(place.failed("look at"))?;
        let failed = |source| Error::file("read", place.shown())(source);
        let length = stat.st_size.unsigned_abs();
        let (blob, size) = if length <= AT_ONCE {
            let mut bytes = Vec::with_capacity(length as usize + 1);
            file.by_ref().take(AT_ONCE + 1).read_to_end(&mut bytes).map_err(failed)?;
            if bytes.len() as u64 > AT_ONCE {
                file.rewind().map_err(failed)?;
                self.put_blob_from(&mut file, executable)?
            } else {
                (self.put_blob(&bytes, executable)?, bytes.len() as u64)
            }
        } else if stat.st_blocks.unsigned_abs() * 512 < length / 2 {
            // Mostly holes: what is to be written is little, and hashing the zeros is what takes the time.
            self.put_blob_from(&mut Holes::new(&file), executable)?
        } else {
            // Reading it twice is cheaper than writing it again on every build.
            let (blob, size) = hash(&file).map_err(failed)?;
            if self.has_blob(blob) { (blob, size) } else { self.put_blob_from(&mut Holes::new(&file), executable)? }
        };
        // One that grew while it was read is not what its inode said.
        if let Some(known) = known.filter(|_| size == length) {
            known.add(&stat, blob);
        }
        Ok((blob, size))
    }
}

/// What lies in a directory: its directories, still to be looked into, with their paths from the top; and all else.
struct Found {
    directories: Vec<(Name, Place, Vec<u8>)>,
    others: BTreeMap<Name, Node>,
}

fn takes_directory(selected: Option<&BTreeSet<Vec<u8>>>, path: &[u8]) -> bool {
    let Some(selected) = selected else { return true };
    let start = [path, b"/"].concat();
    selected.contains(path) || selected.range(start.clone()..).next().is_some_and(|next| next.starts_with(&start))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::super::testing::{name, world};
    use super::*;

    fn sources() -> tempfile::TempDir {
        let sources = tempfile::tempdir().unwrap();
        let path = |text: &str| sources.path().join(text);
        fs::create_dir_all(path("a/b")).unwrap();
        fs::create_dir(path("empty")).unwrap();
        fs::write(path("a/b/deep"), "deep").unwrap();
        fs::write(path("program"), "program").unwrap();
        fs::set_permissions(path("program"), fs::Permissions::from_mode(0o711)).unwrap();
        fs::set_permissions(path("a"), fs::Permissions::from_mode(0o700)).unwrap();
        symlink("../nowhere", path("link")).unwrap();
        fs::write(sources.path().join(OsStr::from_bytes(b"\xff\n")), vec![1; (1 << 20) + 1]).unwrap();
        sources
    }

    fn file(content: &[u8], mode: u16) -> Node {
        let size = content.len() as u64;
        Node::File(File { blob: BlobId::of(content), size, metadata: Metadata::root(mode) })
    }

    #[test]
    fn sources_enter_as_roots_with_two_modes() {
        let (world, sources) = (world(), sources());
        let node = world.store.ingest_source(sources.path(), None).unwrap();
        let b = world.tree(0o755, [("deep", file(b"deep", 0o644))]);
        let mut tree = Tree::empty();
        let entries = [
            (name("a"), Node::Directory(world.tree(0o755, [("b", Node::Directory(b))]))),
            (name("empty"), Node::Directory(Tree::empty().id())),
            (name("link"), Node::Symlink { target: b"../nowhere".to_vec(), uid: 0, gid: 0 }),
            (name("program"), file(b"program", 0o755)),
            (Name::new(&b"\xff\n"[..]).unwrap(), file(&vec![1; (1 << 20) + 1], 0o644)),
        ];
        tree.entries.extend(entries);
        assert_eq!(node, Node::Directory(tree.id()));
        assert!(world.store.verify().unwrap().is_empty());
        assert_eq!(world.store.extent(tree.id()).unwrap().bytes, (1 << 20) + 1 + 11);
    }

    #[test]
    fn only_the_selected_are_taken_and_the_way_to_them() {
        let (world, sources) = (world(), sources());
        let selected = BTreeSet::from([b"a/b/deep".to_vec(), b"a/nowhere".to_vec()]);
        let node = world.store.ingest_source(sources.path(), Some(&selected)).unwrap();
        let b = world.tree(0o755, [("deep", file(b"deep", 0o644))]);
        let a = world.tree(0o755, [("b", Node::Directory(b))]);
        assert_eq!(node, Node::Directory(world.tree(0o755, [("a", Node::Directory(a))])));
    }

    #[test]
    fn single_files_and_symlinks_enter_too() {
        let (world, sources) = (world(), sources());
        let ingest = |text: &str| world.store.ingest_source(&sources.path().join(text), None);
        assert_eq!(ingest("program").unwrap(), file(b"program", 0o755));
        assert!(matches!(ingest("link").unwrap(), Node::Symlink { .. }));
        assert!(matches!(ingest("nowhere"), Err(Error::File { .. })));
    }

    #[test]
    fn what_no_tree_can_hold_is_refused_by_name() {
        let (world, sources) = (world(), sources());
        let socket = sources.path().join("a/socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        let Err(Error::Unsupported { path, reason }) = world.store.ingest_source(sources.path(), None) else {
            panic!("a socket was taken in");
        };
        assert_eq!((path, reason), (socket.clone(), "it is a socket"));
        fs::remove_file(&socket).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, sources.path().join("fifo"), Mode::RUSR).unwrap();
        assert!(matches!(world.store.ingest_source(sources.path(), None), Err(Error::Unsupported { .. })));
    }
}
