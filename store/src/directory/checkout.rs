//! Trees laid out on disk.
//!
//! `checkouts/OWNERSHIP/ID/root` is made under a temporary name and renamed when all of it is there, so that a half-made one
//! is never seen; that it is there is the record of its completion, and is trusted. Directories are made level by level, the
//! lowest get their modes first, and no path is longer than Linux takes, however deep the tree.

use std::path::PathBuf;

use rayon::prelude::*;
use rustix::fs::{AtFlags, Dev, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::inodes::{DeviceNumber, dress, owner};
use super::lease::Use;
use super::place::{Place, remove_all};
use super::{Ownership, Store, failed, file_times};
use crate::{Error, File, Metadata, Name, Node, Result, TreeId};

impl Store {
    /// Lays a tree out on disk, once; later calls find it. Files are shared by hard link between checkouts.
    /// The directory has the tree's modes (its own included) and times of 1980-01-02 00:00 UTC.
    ///
    /// With [`Ownership::Caller`], fifos and symlinks belong to the caller without a mark: Linux lets them carry none.
    pub fn checkout(&self, id: TreeId, ownership: Ownership) -> Result<PathBuf> {
        let to = checkout_path(id, ownership);
        let root = self.full(&to).join("root");
        self.note(Use::Tree(id));
        if self.is_there(&to) {
            return Ok(root);
        }
        if ownership == Ownership::Exact && !rustix::process::geteuid().is_root() {
            return Err(Error::Unsupported { path: root, reason: "only root can give files their exact owners" });
        }
        let from = self.temporary_path()?;
        let temporary = self.full(&from);
        // The directory above the root stays accessible whatever mode the root has: the rename needs that.
        let made = super::ensure_directory(&temporary)
            .and_then(|()| super::ensure_directory(&temporary.join("root")))
            .and_then(|()| self.lay_out(id, &temporary.join("root"), ownership))
            .and_then(|()| self.sync());
        if let Err(error) = made {
            let _ = remove_all(&temporary);
            return Err(error);
        }
        match self.rename(&from, &to) {
            Ok(()) => Ok(root),
            // Another process was faster, with the same result.
            Err(Errno::EXIST | Errno::NOTEMPTY) => {
                remove_all(&temporary)?;
                Ok(root)
            }
            Err(errno) => {
                let _ = remove_all(&temporary);
                Err(failed("create", self.full(&to))(errno))
            }
        }
    }

    /// The same for what will only run: where owners cannot be noted, they are not. Says how it came out.
    pub fn checkout_to_run(&self, id: TreeId, ownership: Ownership) -> Result<(PathBuf, Ownership)> {
        let is_there = |ownership| self.is_there(&checkout_path(id, ownership));
        let unnoted = || Ok((self.checkout(id, Ownership::Unnoted)?, Ownership::Unnoted));
        if ownership == Ownership::Caller && !is_there(ownership) && is_there(Ownership::Unnoted) {
            return unnoted();
        }
        match self.checkout(id, ownership) {
            Err(Error::NoAttributes { .. }) => unnoted(),
            checkout => Ok((checkout?, ownership)),
        }
    }

    fn lay_out(&self, id: TreeId, root: &std::path::Path, ownership: Ownership) -> Result<()> {
        let mut finished: Vec<Vec<(Place, Metadata)>> = Vec::new();
        let mut level = vec![(Place::open(root)?, id)];
        while !level.is_empty() {
            let made: Vec<Made> =
                level.into_par_iter().map(|(place, id)| self.fill(place, id, ownership)).collect::<Result<_>>()?;
            level = Vec::new();
            let mut directories = Vec::new();
            for Made { place, metadata, children } in made {
                directories.push((place, metadata));
                level.extend(children);
            }
            finished.push(directories);
        }
        // A directory's time and mode are set when nothing is to be made in it or below it any more.
        for directories in finished.into_iter().rev() {
            directories.into_par_iter().try_for_each(|(place, metadata)| {
                let directory = place.open_directory().map_err(place.failed("open"))?;
                dress(directory, &|| place.shown(), &metadata, None, ownership)
            })?;
        }
        Ok(())
    }

    /// Makes what a directory has in it; its subdirectories empty.
    fn fill(&self, place: Place, id: TreeId, ownership: Ownership) -> Result<Made> {
        let tree = self.tree(id)?;
        let make = |(name, node): (&Name, &Node)| {
            let child = place.join(name)?;
            Ok(self.make(&child, node, ownership)?.map(|id| (child, id)))
        };
        let children: Vec<Option<(Place, TreeId)>> = tree.entries.par_iter().map(make).collect::<Result<_>>()?;
        Ok(Made { place, metadata: tree.metadata.clone(), children: children.into_iter().flatten().collect() })
    }

    /// Makes one entry; gives the id of a subdirectory that is still to be filled.
    fn make(&self, place: &Place, node: &Node, ownership: Ownership) -> Result<Option<TreeId>> {
        let (base, path) = (place.base(), place.relative());
        match node {
            Node::Directory(id) => {
                rustix::fs::mkdirat(base, path, Mode::RWXU).map_err(place.failed("create"))?;
                return Ok(Some(*id));
            }
            Node::File(file) => self.make_file(place, file, ownership)?,
            Node::Symlink { target, uid, gid } => {
                rustix::fs::symlinkat(&target[..], base, path).map_err(place.failed("create"))?;
                if ownership == Ownership::Exact {
                    let (uid, gid) = owner(*uid, *gid, &|| place.shown())?;
                    rustix::fs::chownat(base, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                        .map_err(place.failed("change the owner of"))?;
                }
                rustix::fs::utimensat(base, path, &file_times(), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(place.failed("set the time of"))?;
            }
            Node::Fifo(metadata) => self.make_special(place, FileType::Fifo, 0, metadata, ownership)?,
            Node::Device { block, major, minor, metadata } if ownership == Ownership::Exact => {
                let kind = if *block { FileType::BlockDevice } else { FileType::CharacterDevice };
                self.make_special(place, kind, rustix::fs::makedev(*major, *minor), metadata, ownership)?;
            }
            Node::Device { block, major, minor, metadata } => {
                let number = DeviceNumber { block: *block, major: *major, minor: *minor };
                let file = self.new_file(place)?;
                dress(&file, &|| place.shown(), metadata, Some(number), ownership)?;
            }
        }
        Ok(None)
    }

    fn make_file(&self, place: &Place, file: &File, ownership: Ownership) -> Result<()> {
        let link = || {
            let inode = self.inode(file, ownership)?;
            Ok::<_, Error>(rustix::fs::linkat(
                &self.directory,
                &inode,
                place.base(),
                place.relative(),
                AtFlags::empty(),
            ))
        };
        let mut linked = link()?;
        // Who makes the same inode at the same time renames it over ours. linkat(2) then fails with ENOENT if it had found the
        // one that lost its name; the other is there by now.
        for _ in 0..LINK_ATTEMPTS {
            if linked != Err(Errno::NOENT) {
                break;
            }
            linked = link()?;
        }
        match linked {
            Ok(()) => Ok(()),
            // As many links as the file system has (65,000 for ext4), or none at all.
            Err(Errno::MLINK | Errno::XDEV | Errno::PERM | Errno::OPNOTSUPP) => {
                let copy = self.new_file(place)?;
                self.copy_blob(file, &copy)?;
                self.has_written();
                dress(&copy, &|| place.shown(), &file.metadata, None, ownership)
            }
            Err(errno) => Err(place.failed("create")(errno)),
        }
    }

    fn new_file(&self, place: &Place) -> Result<std::fs::File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        rustix::fs::openat(place.base(), place.relative(), flags, Mode::RUSR | Mode::WUSR)
            .map(Into::into)
            .map_err(place.failed("create"))
    }

    /// Makes a fifo or device. They are not opened: that would have effects.
    fn make_special(
        &self,
        place: &Place,
        kind: FileType,
        device: Dev,
        metadata: &Metadata,
        ownership: Ownership,
    ) -> Result<()> {
        let (base, path) = (place.base(), place.relative());
        rustix::fs::mknodat(base, path, kind, Mode::RUSR | Mode::WUSR, device).map_err(place.failed("create"))?;
        if ownership == Ownership::Exact {
            let (uid, gid) = owner(metadata.uid, metadata.gid, &|| place.shown())?;
            rustix::fs::chownat(base, path, Some(uid), Some(gid), AtFlags::empty())
                .map_err(place.failed("change the owner of"))?;
            for (name, value) in &metadata.attributes {
                rustix::fs::lsetxattr(place.shown(), &name[..], value, rustix::fs::XattrFlags::empty())
                    .map_err(place.failed("set an extended attribute of"))?;
            }
        }
        rustix::fs::chmodat(base, path, Mode::from_raw_mode(u32::from(metadata.mode)), AtFlags::empty())
            .and_then(|()| rustix::fs::utimensat(base, path, &file_times(), AtFlags::SYMLINK_NOFOLLOW))
            .map_err(place.failed("change the mode of"))
    }
}

/// How often a link is tried again whose source was replaced meanwhile.
const LINK_ATTEMPTS: usize = 100;

/// A directory whose entries are all there.
struct Made {
    place: Place,
    metadata: Metadata,
    children: Vec<(Place, TreeId)>,
}

fn checkout_path(id: TreeId, ownership: Ownership) -> String {
    format!("checkouts/{}/{id}", ownership.name())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

    use super::super::testing::{World, name, world};
    use super::super::{DEVICE_ATTRIBUTE, FILE_TIME, Marks, OWNER_ATTRIBUTE};
    use super::*;
    use crate::Tree;

    /// One of every kind of entry, with owners and modes that an ordinary user cannot give.
    fn everything(world: &World) -> TreeId {
        let owned = Metadata { mode: 0o4750, uid: 33, gid: 42, attributes: Default::default() };
        let attributes = [(b"user.note".to_vec(), b"x".to_vec()), (b"security.capability".to_vec(), capability())];
        let capable = Metadata { attributes: attributes.into(), ..Metadata::root(0o755) };
        let closed = world.tree(0o000, [("secret", world.file("s", 0o000))]);
        let device = Node::Device { block: false, major: 1, minor: 3, metadata: Metadata::root(0o666) };
        let owned_tree = Tree { metadata: owned.clone(), entries: Default::default() };
        let owned_tree = world.store.put_tree(&owned_tree).unwrap();
        let link = Node::Symlink { target: b"../\xff".to_vec(), uid: 7, gid: 8 };
        world.tree(
            0o555,
            [
                ("plain", world.file("same", 0o644)),
                ("program", world.file("same", 0o755)),
                ("owned", world.file_with("same", owned)),
                ("capable", world.file_with("same", capable)),
                ("closed", Node::Directory(closed)),
                ("owned-directory", Node::Directory(owned_tree)),
                ("link", link),
                ("fifo", Node::Fifo(Metadata::root(0o620))),
                ("null", device),
            ],
        )
    }

    /// cap_net_bind_service=ep, as `setcap` writes it.
    fn capability() -> Vec<u8> {
        [0x0200_0001_u32, 1 << 10, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn a_checkout_of_the_callers_shows_modes_and_marks_owners() {
        let world = world();
        let root = world.store.checkout(everything(&world), Ownership::Caller).unwrap();
        let look = |path: &str| std::fs::symlink_metadata(root.join(path)).unwrap();
        let me = rustix::process::geteuid().as_raw();
        for path in ["", "plain", "program", "owned", "capable", "closed", "owned-directory", "link", "fifo", "null"] {
            assert_eq!((look(path).mtime(), look(path).uid()), (FILE_TIME, me), "{path}");
        }
        let mode = |path| look(path).permissions().mode() & 0o7777;
        assert_eq!(
            ["", "plain", "program", "closed", "fifo", "null"].map(mode),
            [0o555, 0o644, 0o755, 0, 0o620, 0o666]
        );
        assert_eq!(mode("owned"), 0o4750);
        let owned = Marks::of(&root.join("owned")).unwrap();
        assert_eq!(owned.owner, Some((33, 42)));
        assert_eq!(Marks::of(&root.join("owned-directory")).unwrap().owner, Some((33, 42)));
        assert_eq!(Marks::of(&root.join("plain")).unwrap(), Marks::default());
        let capable = Marks::of(&root.join("capable")).unwrap().attributes;
        assert_eq!(capable[&b"security.capability".to_vec()], capability());
        assert_eq!(capable[&b"user.note".to_vec()], b"x");
        let null = Marks::of(&root.join("null")).unwrap().device.unwrap();
        assert_eq!((null.block, null.major, null.minor, look("null").is_file()), (false, 1, 3, true));
        assert!(look("fifo").file_type().is_fifo());
        assert_eq!(std::fs::read_link(root.join("link")).unwrap().as_os_str().as_encoded_bytes(), b"../\xff");
        assert!(OWNER_ATTRIBUTE.starts_with("user.forge.") && DEVICE_ATTRIBUTE.starts_with("user.forge."));
    }

    #[test]
    fn a_checkout_without_notes_is_enough_to_run() {
        let world = world();
        let id = everything(&world);
        let (root, ownership) = world.store.checkout_to_run(id, Ownership::Unnoted).unwrap();
        let mode = |path: &str| std::fs::symlink_metadata(root.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(["", "plain", "program", "closed", "owned"].map(mode), [0o555, 0o644, 0o755, 0, 0o4750]);
        for path in ["", "owned", "owned-directory", "capable", "null"] {
            assert_eq!(Marks::of(&root.join(path)).unwrap(), Marks::default(), "{path}");
        }
        assert_eq!(ownership, Ownership::Unnoted);
        // It is there: nothing else is tried, and a step that needs the notes gets a checkout of its own.
        assert_eq!(world.store.checkout_to_run(id, Ownership::Caller).unwrap(), (root.clone(), ownership));
        let noted = world.store.checkout(id, Ownership::Caller).unwrap();
        assert_eq!(Marks::of(&noted.join("owned")).unwrap().owner, Some((33, 42)));
        assert_eq!(world.store.checkout_to_run(id, Ownership::Caller).unwrap(), (noted, Ownership::Caller));
    }

    #[test]
    fn equal_files_of_an_unusual_mode_are_made_at_once() {
        for round in 0..20 {
            let world = world();
            let file = world.file(&round.to_string(), 0o664);
            let names: Vec<String> = (0..64).map(|number| format!("file-{number}")).collect();
            let entries = names.iter().map(|text| (name(text), file.clone())).collect();
            let id = world.store.put_tree(&Tree { entries, ..Tree::empty() }).unwrap();
            let root = world.store.checkout(id, Ownership::Caller).unwrap();
            assert_eq!(std::fs::read_dir(root).unwrap().count(), 64);
        }
    }

    #[test]
    fn an_exact_checkout_is_what_the_tree_says() {
        let world = world();
        let id = everything(&world);
        let checkout = world.store.checkout(id, Ownership::Exact);
        if !rustix::process::geteuid().is_root() {
            assert!(matches!(checkout, Err(Error::Unsupported { .. })));
            return;
        }
        let root = checkout.unwrap();
        let look = |path: &str| std::fs::symlink_metadata(root.join(path)).unwrap();
        assert_eq!((look("owned").uid(), look("owned").gid(), look("owned").mode() & 0o7777), (33, 42, 0o4750));
        assert_eq!((look("link").uid(), look("link").gid()), (7, 8));
        assert_eq!((look("owned-directory").uid(), look("plain").uid()), (33, 0));
        assert!(look("null").file_type().is_char_device());
        assert_eq!(look("null").rdev(), rustix::fs::makedev(1, 3));
        let capable = Marks::of(&root.join("capable")).unwrap();
        assert_eq!(capable.attributes[&b"security.capability".to_vec()], capability());
        assert_eq!(look("capable").mtime(), FILE_TIME);
    }

    #[test]
    fn checkouts_share_inodes_and_are_made_once() {
        let world = world();
        let file = world.file("shared", 0o644);
        let first = world.tree(0o755, [("a", file.clone()), ("b", file.clone())]);
        let second = world.tree(0o700, [("c", file)]);
        let first_root = world.store.checkout(first, Ownership::Caller).unwrap();
        let second_root = world.store.checkout(second, Ownership::Caller).unwrap();
        let inode = |path: PathBuf| std::fs::metadata(path).unwrap().ino();
        assert_eq!(inode(first_root.join("a")), inode(first_root.join("b")));
        assert_eq!(inode(first_root.join("a")), inode(second_root.join("c")));
        let again = world.store.checkout(first, Ownership::Caller).unwrap();
        assert_eq!(again, first_root);
        // Nothing temporary is left.
        let Node::File(file) = world.file("shared", 0o644) else { panic!() };
        assert_eq!(std::fs::metadata(world.blob_path(file.blob, false)).unwrap().nlink(), 4);
    }

    #[test]
    fn more_names_than_an_inode_may_have_links_are_laid_out() {
        let world = world();
        let Node::File(file) = world.file("shared", 0o644) else { panic!() };
        // ext4 allows 65,000 links, others more or fewer.
        let name = |number: u32| Name::new(number.to_string().into_bytes()).unwrap();
        let entries = (0..65_010).map(|number| (name(number), Node::File(file.clone()))).collect();
        let tree = world.store.put_tree(&Tree { metadata: Metadata::root(0o755), entries }).unwrap();
        let root = world.store.checkout(tree, Ownership::Caller).unwrap();
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 65_010);
        for number in [0, 32_000, 65_009] {
            assert_eq!(std::fs::read(root.join(number.to_string())).unwrap(), b"shared");
        }
    }

    #[test]
    fn damaged_bytes_never_enter_a_checkout() {
        let world = world();
        let Node::File(file) = world.file("precious", 0o644) else { panic!() };
        let id = world.tree(0o755, [("a", Node::File(file.clone()))]);
        std::fs::write(world.blob_path(file.blob, false), "precioux").unwrap();
        assert!(matches!(world.store.checkout(id, Ownership::Caller), Err(Error::Mismatch { .. })));
        assert!(matches!(world.store.blob(file.blob), Err(Error::Mismatch { .. })));
        // A tree that lies about a length is caught as well.
        let lie = Node::File(File { size: 5, ..file.clone() });
        world.store.put_blob(b"other", false).unwrap();
        std::fs::write(world.blob_path(file.blob, false), "precious").unwrap();
        let id = world.tree(0o755, [("a", lie)]);
        assert!(matches!(world.store.checkout(id, Ownership::Caller), Err(Error::Mismatch { .. })));
        assert_eq!(std::fs::read_dir(world.store.path().join("scratch")).unwrap().count(), 2);
    }

    #[test]
    fn two_at_once_both_succeed() {
        let world = world();
        let other = Store::open(world.store.path()).unwrap();
        let names: Vec<String> = (0..50).map(|number| format!("file-{number}")).collect();
        let entries = names.iter().map(|text| (name(text), world.file(text, 0o644))).collect();
        let id = world.store.put_tree(&Tree { metadata: Metadata::root(0o555), entries }).unwrap();
        let roots: Vec<PathBuf> = std::thread::scope(|scope| {
            let stores = [&world.store, &other, &world.store, &other];
            let threads = stores.map(|store| scope.spawn(move || store.checkout(id, Ownership::Caller).unwrap()));
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(roots.iter().all(|root| *root == roots[0]));
        assert_eq!(std::fs::read_dir(&roots[0]).unwrap().count(), 50);
        for entry in std::fs::read_dir(world.store.path().join("scratch")).unwrap() {
            let entry = entry.unwrap();
            assert!(entry.file_type().unwrap().is_file() || std::fs::read_dir(entry.path()).unwrap().count() == 0);
        }
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_laid_out_and_removed() {
        let world = world();
        // 40 names of 255 bytes: more than PATH_MAX twice over.
        let long = "d".repeat(255);
        let mut id = world.tree(0o500, [("end", world.file("end", 0o400))]);
        for _ in 0..40 {
            id = world.tree(0o500, [(&*long, Node::Directory(id))]);
        }
        let root = world.store.checkout(id, Ownership::Caller).unwrap();
        let mut place = Place::open(&root).unwrap();
        for _ in 0..40 {
            place = place.join(&name(&long)).unwrap();
        }
        assert_eq!(place.entries().unwrap().len(), 1);
        remove_all(&root).unwrap();
        assert!(!root.exists());
    }
}
