//! What a command in a sandbox left behind, as a delta.
//!
//! The upper layer of an overlay says more than what changed: a file that was only opened for writing lies there as it was, a
//! directory that was removed and made again hides what is below it. The delta says what is different in the end and
//! nothing else, so that two ways to the same tree give one delta. Three passes: walk (no file is read), take the files' bytes in
//! parallel, put the directories together from the lowest up. None of them recurses: a step may leave any depth.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use executor::owners::{Kind, Owners};
use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use store::directory::{ATTRIBUTE_PREFIX, Marks};
use store::{BlobId, Delta, DeltaId, File, Metadata, Name, Node, RelativePath, Store, Tree, TreeId};

use crate::{Error, Result};

/// Reads the upper layer that a `pretend_root` sandbox left in `directory` (`Writable::Kept`) over `lower`.
///
/// Ownership and devices come from the supervisor's marks. What equals the lower is no change; a directory that has the
/// lower's metadata was passed through. Everything is kept in the store; `directory` may lose files to it.
pub fn scan(store: &Store, directory: &Path, lower: TreeId) -> Result<DeltaId> {
    let mut walk = Walk::new(store, directory)?;
    walk.all(directory, lower)?;
    let take = |(spot, executable): (Spot, bool)| Ok(store.adopt_blob(&spot.path, executable)?);
    let blobs: Vec<(BlobId, u64)> = walk.files.into_par_iter().map(take).collect::<Result<_>>()?;
    put_together(store, walk.directories, &blobs)
}

/// The same of a directory that is gone on from: nothing of it is moved, and modes are what they were.
pub fn scan_and_leave(store: &Store, directory: &Path, lower: TreeId) -> Result<DeltaId> {
    let mut walk = Walk::new(store, directory)?;
    let read = walk.all(directory, lower).and_then(|()| {
        let copy = |(spot, executable): &(Spot, bool)| {
            let mut file = spot.open_whatever_its_mode()?;
            Ok(store.put_blob_from(&mut file, *executable)?)
        };
        walk.files.par_iter().map(copy).collect::<Result<Vec<(BlobId, u64)>>>()
    });
    // The lowest first: below a directory that is closed again nothing can be reached.
    for (spot, mode) in walk.opened.iter().rev() {
        rustix::fs::chmodat(CWD, &spot.path, *mode, AtFlags::empty()).map_err(spot.failed("change the mode of"))?;
    }
    put_together(store, walk.directories, &read?)
}

/// Writes into `directory` what a supervisor cannot see of `lower` laid out for the caller: who owns its symbolic links and pipes.
/// To be called before a step; writes nothing where everything is root's.
pub fn prepare(store: &Store, directory: &Path, lower: TreeId) -> Result<()> {
    let mut owners = Owners::default();
    let mut waiting = vec![(RelativePath::default(), lower)];
    while let Some((path, id)) = waiting.pop() {
        for (name, node) in &store.tree(id)?.entries {
            let (kind, uid, gid) = match node {
                Node::Directory(id) => {
                    waiting.push((path.join(name), *id));
                    continue;
                }
                Node::Symlink { uid, gid, .. } => (Kind::Symlink, *uid, *gid),
                Node::Fifo(metadata) => (Kind::Fifo, metadata.uid, metadata.gid),
                Node::File(_) | Node::Device { .. } => continue,
            };
            if (uid, gid) != (0, 0) {
                owners.0.insert(path.join(name).to_bytes(), executor::owners::Entry { uid, gid, kind });
            }
        }
    }
    if owners.0.is_empty() {
        return Ok(());
    }
    let table = directory.join("owners");
    fs::write(&table, owners.encode()).map_err(Error::file("write", table))
}

fn invalid(path: &Path, reason: &str) -> Error {
    Error::Invalid { what: "result of a step", name: path.display().to_string(), reason: reason.to_owned() }
}

/// A path that the kernel takes however deep it is: where the path grows long, the directory it names is held open and
/// named through `/proc`.
#[derive(Debug, Clone)]
struct Spot {
    path: PathBuf,
    _anchor: Option<Arc<OwnedFd>>,
}

impl Spot {
    /// Where a new short path begins: one more name always fits into PATH_MAX.
    const LONGEST: usize = 3072;

    fn join(&self, name: &Name) -> Result<Self> {
        let path = self.path.join(name.as_os_str());
        if path.as_os_str().len() <= Self::LONGEST {
            return Ok(Self { path, _anchor: self._anchor.clone() });
        }
        let directory = rustix::fs::openat(CWD, &self.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let directory = Arc::new(directory.map_err(|errno| self.failed("open")(errno))?);
        let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name.as_os_str());
        Ok(Self { path, _anchor: Some(directory) })
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(Errno) -> Error {
        let path = self.path.clone();
        move |errno| Error::file(action, path)(errno.into())
    }

    fn stat(&self) -> Result<Stat> {
        rustix::fs::statat(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW).map_err(self.failed("look at"))
    }

    fn attribute(&self, name: &str) -> Option<Vec<u8>> {
        let mut value = [0; 16];
        let length = rustix::fs::lgetxattr(&self.path, name, &mut value).ok()?;
        Some(value[..length].to_vec())
    }

    /// Its mode may forbid its owner to read it; it has that mode again afterwards.
    fn open_whatever_its_mode(&self) -> Result<fs::File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let open = || rustix::fs::openat(CWD, &self.path, flags, Mode::empty());
        let opened = match open() {
            Err(Errno::ACCESS) => {
                let mode = Mode::from_raw_mode(self.stat()?.st_mode & 0o7777);
                let change = |mode| rustix::fs::chmodat(CWD, &self.path, mode, AtFlags::empty());
                change(mode | Mode::RUSR).and_then(|()| open()).and_then(|opened| change(mode).map(|()| opened))
            }
            opened => opened,
        };
        Ok(opened.map_err(self.failed("open"))?.into())
    }

    fn names(&self) -> Result<BTreeSet<Name>> {
        let read = || {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let directory = rustix::fs::openat(CWD, &self.path, flags, Mode::empty())?;
            let mut names = BTreeSet::new();
            for entry in Dir::new(directory)? {
                // `.` and `..` are no names.
                names.extend(Name::new(entry?.file_name().to_bytes()));
            }
            Ok(names)
        };
        read().map_err(self.failed("read the directory"))
    }
}

/// A directory of the upper layer.
struct Directory {
    spot: Spot,
    path: RelativePath,
    metadata: Metadata,
    /// The lower's directory of the same path.
    lower: Option<Arc<Tree>>,
    /// Whether it hides all that the lower has in it.
    opaque: bool,
    found: BTreeMap<Name, Found>,
    /// What the lower has in it and is gone.
    removed: BTreeSet<Name>,
}

/// A block device rather than a character device; its major and minor number.
type DeviceNumber = (bool, u32, u32);

/// An entry of the upper layer.
enum Found {
    /// Which directory.
    Directory(usize),
    /// Which file, and its metadata.
    File(usize, Metadata),
    Other(Node),
}

struct Walk<'a> {
    store: &'a Store,
    owners: Owners,
    /// Every one comes after the one that it lies in.
    directories: Vec<Directory>,
    /// Where they lie, and whether they are executable.
    files: Vec<(Spot, bool)>,
    /// Directories that even their owner could not enter, and the modes that they had.
    opened: Vec<(Spot, Mode)>,
}

impl<'a> Walk<'a> {
    fn new(store: &'a Store, directory: &Path) -> Result<Self> {
        let table = directory.join("owners");
        let owners = match fs::read(&table) {
            Ok(bytes) => Owners::parse(&bytes).map_err(|error| invalid(&table, &error.to_string()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Owners::default(),
            Err(error) => return Err(Error::file("read", table)(error)),
        };
        Ok(Self { store, owners, directories: Vec::new(), files: Vec::new(), opened: Vec::new() })
    }

    /// Reads every directory.
    fn all(&mut self, directory: &Path, lower: TreeId) -> Result<()> {
        self.add_root(&directory.join("upper"), lower)?;
        let mut next = 0;
        while next < self.directories.len() {
            self.fill(next)?;
            next += 1;
        }
        Ok(())
    }

    fn add_root(&mut self, path: &Path, lower: TreeId) -> Result<()> {
        let spot = Spot { path: path.to_owned(), _anchor: None };
        let stat = spot.stat()?;
        let lower = Some(self.store.tree(lower)?);
        self.add(spot, RelativePath::default(), &stat, lower)
    }

    fn add(&mut self, spot: Spot, path: RelativePath, stat: &Stat, lower: Option<Arc<Tree>>) -> Result<()> {
        // A program may have left a directory that even its owner cannot enter.
        if stat.st_mode & 0o700 != 0o700 {
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777 | 0o700);
            rustix::fs::chmodat(CWD, &spot.path, mode, AtFlags::empty()).map_err(spot.failed("change the mode of"))?;
            self.opened.push((spot.clone(), Mode::from_raw_mode(stat.st_mode & 0o7777)));
        }
        let metadata = self.metadata(&spot, &path, stat, Kind::Directory)?.0;
        // `user.` in a user namespace, `trusted.` where real root mounted the overlay; `x` says that a file in it is a whiteout.
        let opaque = ["user.overlay.opaque", "trusted.overlay.opaque"];
        let opaque = opaque.iter().any(|name| spot.attribute(name).is_some_and(|value| value == b"y"));
        let (found, removed) = (BTreeMap::new(), BTreeSet::new());
        self.directories.push(Directory { spot, path, metadata, lower, opaque, found, removed });
        Ok(())
    }

    /// Reads what is in a directory.
    fn fill(&mut self, index: usize) -> Result<()> {
        let Directory { spot, path, lower, opaque, .. } = &self.directories[index];
        let (spot, path, lower, opaque) = (spot.clone(), path.clone(), lower.clone(), *opaque);
        let mut found = BTreeMap::new();
        let mut hidden = BTreeSet::new();
        for name in spot.names()? {
            let spot = spot.join(&name)?;
            let path = path.join(&name);
            let stat = spot.stat()?;
            let entry = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let below = match lower.as_ref().and_then(|lower| lower.entries.get(&name)) {
                        Some(Node::Directory(id)) => Some(self.store.tree(*id)?),
                        _ => None,
                    };
                    self.add(spot, path, &stat, below)?;
                    Some(Found::Directory(self.directories.len() - 1))
                }
                FileType::RegularFile => self.file(&spot, &path, &stat)?,
                FileType::Symlink => {
                    let target = rustix::fs::readlinkat(CWD, &spot.path, Vec::new()).map_err(spot.failed("read"))?;
                    let (uid, gid) = self.owner(&path, Kind::Symlink);
                    Some(Found::Other(Node::Symlink { target: target.into_bytes(), uid, gid }))
                }
                FileType::Fifo => Some(Found::Other(Node::Fifo(self.metadata(&spot, &path, &stat, Kind::Fifo)?.0))),
                // A tree has no sockets: nobody listens any more.
                FileType::Socket => None,
                // Overlayfs's mark of a removed file.
                FileType::CharacterDevice if stat.st_rdev == 0 => None,
                // Real devices can only be made by what is not confined.
                _ => return Err(invalid(&spot.path, "a device that no step can have made")),
            };
            match entry {
                Some(entry) => _ = found.insert(name, entry),
                None => _ = hidden.insert(name),
            }
        }
        let lower_names = lower.iter().flat_map(|lower| lower.entries.iter());
        let is_removed = |(name, node): &(&Name, &Node)| match found.get(*name) {
            // A directory takes the place of something else: nothing of a still lower layer may show in it.
            Some(Found::Directory(_)) => !matches!(node, Node::Directory(_)),
            Some(_) => false,
            None => opaque || hidden.contains(*name),
        };
        let removed = lower_names.filter(is_removed).map(|(name, _)| name.clone()).collect();
        let directory = &mut self.directories[index];
        (directory.found, directory.removed) = (found, removed);
        Ok(())
    }

    /// A regular file: content, a device that it stands for, or (none) the mark of a removed file.
    fn file(&mut self, spot: &Spot, path: &RelativePath, stat: &Stat) -> Result<Option<Found>> {
        if stat.st_size == 0 && spot.attribute("user.overlay.whiteout").is_some() {
            return Ok(None);
        }
        let (metadata, device) = self.metadata(spot, path, stat, Kind::File)?;
        if let Some((block, major, minor)) = device {
            return Ok(Some(Found::Other(Node::Device { block, major, minor, metadata })));
        }
        self.files.push((spot.clone(), metadata.mode & 0o111 != 0));
        Ok(Some(Found::File(self.files.len() - 1, metadata)))
    }

    fn owner(&self, path: &RelativePath, kind: Kind) -> (u32, u32) {
        let entry = self.owners.0.get(&path.to_bytes()).filter(|entry| entry.kind == kind);
        entry.map_or((0, 0), |entry| (entry.uid, entry.gid))
    }

    /// The metadata of something that can carry marks, and the device that it stands for.
    fn metadata(
        &self,
        spot: &Spot,
        path: &RelativePath,
        stat: &Stat,
        kind: Kind,
    ) -> Result<(Metadata, Option<DeviceNumber>)> {
        // Attributes of a file are read by those alone who may read the file. Its other names must not find another mode.
        let change_mode = |mode| {
            let changed = rustix::fs::chmodat(CWD, &spot.path, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty());
            changed.map_err(spot.failed("change the mode of"))
        };
        let is_closed = FileType::from_raw_mode(stat.st_mode).is_file() && stat.st_mode & 0o400 == 0;
        if is_closed {
            change_mode(stat.st_mode | 0o400)?;
        }
        let mut marks = Marks::of(&spot.path)?;
        marks.owner = marks.owner.or_else(|| Some(self.owner(path, kind)));
        // A list of a step's own is marked; a real one came from the directory that the upper layer lies in.
        marks.attributes.retain(|name, _| {
            let mark = || [ATTRIBUTE_PREFIX.as_bytes(), name].concat();
            !name.starts_with(b"system.") || rustix::fs::lgetxattr(&spot.path, mark(), &mut [0; 0]).is_ok()
        });
        if is_closed {
            change_mode(stat.st_mode)?;
        }
        if let Some(capability) = marks.attributes.get_mut(&b"security.capability"[..]) {
            forget_namespace(capability);
        }
        let device = marks.device.map(|device| (device.block, device.major, device.minor));
        // Mode bits fit: the type is cut off.
        Ok((marks.metadata((stat.st_mode & 0o7777) as u16), device))
    }
}

/// A capability set inside a user namespace is stored with the user that is root there (version 3, `linux/capability.h`). In a
/// tree it is plain root's (version 2).
fn forget_namespace(capability: &mut Vec<u8>) {
    const REVISION: u32 = 0xff00_0000;
    let Some(first) = capability.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes)) else { return };
    if capability.len() == 24 && first & REVISION == 0x0300_0000 {
        capability.truncate(20);
        capability[..4].copy_from_slice(&(first & !REVISION | 0x0200_0000).to_le_bytes());
    }
}

/// Puts the directories together, the lowest first.
fn put_together(store: &Store, mut directories: Vec<Directory>, blobs: &[(BlobId, u64)]) -> Result<DeltaId> {
    let mut removed = BTreeSet::new();
    let mut passed = BTreeSet::new();
    // What became of directories that are done; none if they are as the lower has them.
    let mut done: Vec<Option<TreeId>> = vec![None; directories.len()];
    for index in (0..directories.len()).rev() {
        let Some(directory) = directories.pop() else { break };
        let Directory { path, metadata, lower, found, removed: gone, .. } = directory;
        let mut entries = BTreeMap::new();
        for (name, found) in found {
            let node = match found {
                Found::Directory(child) => match done[child] {
                    Some(id) => Node::Directory(id),
                    None => continue,
                },
                Found::File(file, metadata) => {
                    let (blob, size) = blobs[file];
                    Node::File(File { blob, size, metadata })
                }
                Found::Other(node) => node,
            };
            let before = lower.as_ref().and_then(|lower| lower.entries.get(&name));
            // A directory is compared by what changed in it, not as a whole: the lower's has more entries.
            if matches!(node, Node::Directory(_)) || before != Some(&node) {
                entries.insert(name, node);
            }
        }
        let is_passed = lower.as_ref().is_some_and(|lower| lower.metadata == metadata);
        if is_passed && entries.is_empty() && gone.is_empty() && index != 0 {
            continue;
        }
        removed.extend(gone.iter().map(|name| path.join(name)));
        if is_passed {
            passed.insert(path);
        }
        done[index] = Some(store.put_tree(&Tree { metadata, entries })?);
    }
    let Some(Some(tree)) = done.first().copied() else { return Err(invalid(Path::new("upper"), "no root")) };
    Ok(store.put_delta(&Delta { tree, removed, passed })?)
}

#[cfg(test)]
mod tests;
