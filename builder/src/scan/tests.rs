//! An upper layer is made by hand, as overlayfs leaves it, and scanned.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use executor::owners::Entry;
use rustix::fs::XattrFlags;

use super::*;

struct World {
    store: Store,
    changes: tempfile::TempDir,
    lower: TreeId,
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn paths<const N: usize>(paths: [&str; N]) -> BTreeSet<RelativePath> {
    paths.into_iter().map(|path| RelativePath::parse(path.as_bytes()).unwrap()).collect()
}

fn set(path: &Path, attribute: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, attribute, value, XattrFlags::empty()).unwrap();
}

impl World {
    /// Over `etc/{passwd,group}` and `var/{mail -> spool, lib/a}`.
    fn new() -> (tempfile::TempDir, Self) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("store")).unwrap();
        let file = |text: &str| {
            let blob = store.put_blob(text.as_bytes(), false).unwrap();
            Node::File(File { blob, size: text.len() as u64, metadata: Metadata::root(0o644) })
        };
        let tree = |entries: Vec<(&str, Node)>| {
            let entries = entries.into_iter().map(|(text, node)| (name(text), node)).collect();
            store.put_tree(&Tree { metadata: Metadata::root(0o755), entries }).unwrap()
        };
        let link = Node::Symlink { target: b"spool".to_vec(), uid: 0, gid: 8 };
        let var = vec![("mail", link), ("lib", Node::Directory(tree(vec![("a", file("a"))])))];
        let etc = tree(vec![("passwd", file("root")), ("group", file("root"))]);
        let lower = tree(vec![("etc", Node::Directory(etc)), ("var", Node::Directory(tree(var)))]);
        let changes = tempfile::tempdir_in(directory.path()).unwrap();
        let world = Self { store, changes, lower };
        world.directory("");
        (directory, world)
    }

    fn upper(&self, path: &str) -> PathBuf {
        self.changes.path().join("upper").join(path)
    }

    fn directory(&self, path: &str) {
        fs::create_dir_all(self.upper(path)).unwrap();
        fs::set_permissions(self.upper(path), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn file(&self, path: &str, text: &str) {
        fs::write(self.upper(path), text).unwrap();
        fs::set_permissions(self.upper(path), fs::Permissions::from_mode(0o644)).unwrap();
    }

    /// As overlayfs writes it where there are no device nodes to be made; a real one is a device 0:0.
    fn whiteout(&self, path: &str) {
        self.file(path, "");
        set(&self.upper(path), "user.overlay.whiteout", b"y");
    }

    fn scan(&self) -> Delta {
        let id = scan(&self.store, self.changes.path(), self.lower).unwrap();
        self.store.delta(id).unwrap()
    }

    fn node(&self, delta: &Delta, path: &str) -> Option<Node> {
        let mut node = Node::Directory(delta.tree);
        for part in path.split('/') {
            let Node::Directory(id) = node else { return None };
            node = self.store.tree(id).unwrap().entries.get(part.as_bytes())?.clone();
        }
        Some(node)
    }
}

#[test]
fn what_was_only_touched_is_no_change() {
    let (_directory, world) = World::new();
    let untouched = world.scan();
    assert_eq!((untouched.removed.len(), untouched.passed.clone()), (0, paths([""])));
    // A file opened for writing, a directory made anew with all that it had, a removed path that never was below.
    world.directory("etc");
    world.file("etc/passwd", "root");
    world.directory("var/lib");
    set(&world.upper("var/lib"), "user.overlay.opaque", b"y");
    world.file("var/lib/a", "a");
    world.whiteout("var/lib/b");
    assert_eq!(world.scan().id(), untouched.id());
}

#[test]
fn what_was_removed_is_named_once() {
    let (_directory, world) = World::new();
    world.directory("etc");
    world.whiteout("etc/passwd");
    world.directory("var");
    world.whiteout("var/lib");
    let delta = world.scan();
    assert_eq!(delta.removed, paths(["etc/passwd", "var/lib"]));
    assert_eq!(delta.passed, paths(["", "etc", "var"]));
    // A directory that hides what it had says the same as its entries removed one by one.
    world.directory("etc");
    fs::remove_file(world.upper("etc/passwd")).ok();
    set(&world.upper("etc"), "user.overlay.opaque", b"y");
    world.file("etc/group", "root");
    assert_eq!(world.scan(), delta);
}

#[test]
fn a_change_of_kind_takes_the_place_of_what_was_there() {
    let (_directory, world) = World::new();
    world.directory("etc/passwd");
    world.directory("var");
    world.file("var/lib", "now a file");
    let delta = world.scan();
    assert!(matches!(world.node(&delta, "etc/passwd"), Some(Node::Directory(_))));
    assert!(matches!(world.node(&delta, "var/lib"), Some(Node::File(_))));
    assert_eq!(delta.removed, paths(["etc/passwd"]));
    let whole = world.store.put_delta(&Delta::whole(world.lower)).unwrap();
    let merged = world.store.merge(&[whole, delta.id()]).unwrap();
    let merged = Delta::whole(merged);
    assert!(matches!(world.node(&merged, "etc/passwd"), Some(Node::Directory(_))));
    assert!(matches!(world.node(&merged, "etc/group"), Some(Node::File(_))));
    assert!(matches!(world.node(&merged, "var/lib"), Some(Node::File(_))));
}

#[test]
fn marks_become_owners_devices_and_attributes() {
    let (_directory, world) = World::new();
    world.directory("var");
    world.file("var/log", "x");
    set(&world.upper("var/log"), "user.forge.owner", b"0:4");
    set(&world.upper("var/log"), "user.note", b"n");
    set(&world.upper("var/log"), "user.forge.attribute.security.capability", b"capable");
    world.file("var/null", "");
    set(&world.upper("var/null"), "user.forge.device", b"c 1:3");
    symlink("spool", world.upper("var/mail")).unwrap();
    symlink("x", world.upper("var/mine")).unwrap();
    let link = Entry { uid: 0, gid: 8, kind: Kind::Symlink };
    let owners = BTreeMap::from([(b"var/mail".to_vec(), link), (b"var/log".to_vec(), link)]);
    fs::write(world.changes.path().join("owners"), Owners(owners).encode()).unwrap();
    let delta = world.scan();
    let Some(Node::File(File { metadata, .. })) = world.node(&delta, "var/log") else { panic!("no file") };
    assert_eq!((metadata.uid, metadata.gid, metadata.attributes.len()), (0, 4, 2));
    assert_eq!(metadata.attributes[&b"security.capability".to_vec()], b"capable");
    let metadata = Metadata::root(0o644);
    assert_eq!(world.node(&delta, "var/null"), Some(Node::Device { block: false, major: 1, minor: 3, metadata }));
    assert_eq!(world.node(&delta, "var/mail"), None, "it is as it was");
    assert!(matches!(world.node(&delta, "var/mine"), Some(Node::Symlink { uid: 0, gid: 0, .. })));
    let prepared = tempfile::tempdir().unwrap();
    prepare(&world.store, prepared.path(), world.lower).unwrap();
    let table = Owners::parse(&fs::read(prepared.path().join("owners")).unwrap()).unwrap();
    assert_eq!(table.0, BTreeMap::from([(b"var/mail".to_vec(), link)]));
}

#[test]
fn a_directory_that_nobody_may_enter_is_read_and_keeps_its_mode() {
    let (_directory, world) = World::new();
    world.directory("closed");
    world.file("closed/file", "secret");
    fs::set_permissions(world.upper("closed/file"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(world.upper("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    let left = scan_and_leave(&world.store, world.changes.path(), world.lower).unwrap();
    let mode = |path: &str| fs::metadata(world.upper(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("closed"), 0);
    let delta = world.scan();
    assert_eq!(delta.id(), left);
    // What is not left is moved, and a directory is opened for that.
    assert_eq!((mode("closed"), world.upper("closed/file").exists()), (0o700, false));
    let Some(Node::Directory(id)) = world.node(&delta, "closed") else { panic!("no directory") };
    let tree = world.store.tree(id).unwrap();
    assert_eq!(tree.metadata, Metadata::root(0));
    let Node::File(File { metadata, blob, .. }) = &tree.entries[&b"file"[..]] else { panic!("no file") };
    assert_eq!((metadata.mode, *blob), (0, BlobId::of(b"secret")));
}

#[test]
fn paths_longer_than_the_kernel_takes_are_scanned() {
    let (_directory, world) = World::new();
    let long = "d".repeat(255);
    let mut at = rustix::fs::open(world.upper(""), OFlags::PATH, Mode::empty()).unwrap();
    for _ in 0..40 {
        rustix::fs::mkdirat(&at, &long, Mode::from_raw_mode(0o755)).unwrap();
        at = rustix::fs::openat(&at, &long, OFlags::PATH, Mode::empty()).unwrap();
    }
    let flags = OFlags::CREATE | OFlags::WRONLY;
    let file = rustix::fs::openat(&at, &long, flags, Mode::from_raw_mode(0o644)).unwrap();
    rustix::io::write(&file, b"deep").unwrap();
    drop(file);
    let delta = world.scan();
    let Some(Node::File(file)) = world.node(&delta, &vec![&long[..]; 41].join("/")) else { panic!("no file") };
    assert_eq!(file.blob, BlobId::of(b"deep"));
    assert_eq!(delta.passed, paths([""]));
}

#[test]
fn links_are_equal_entries_and_the_store_keeps_no_marks() {
    let (_directory, world) = World::new();
    world.file("one", "same");
    set(&world.upper("one"), "user.forge.owner", b"1:1");
    fs::hard_link(world.upper("one"), world.upper("two")).unwrap();
    let delta = world.scan();
    let one = world.node(&delta, "one").unwrap();
    assert_eq!(world.node(&delta, "two").unwrap(), one);
    let Node::File(File { blob, metadata, .. }) = one else { panic!("no file") };
    assert_eq!((metadata.uid, metadata.mode), (1, 0o644));
    let file = world.store.open_blob(blob).unwrap();
    assert_eq!(rustix::fs::flistxattr(&file, &mut [0; 64]).unwrap(), 0);
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o644);
}

#[test]
fn a_capability_of_a_namespace_becomes_roots() {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let mut capability = words(&[0x0300_0001, 1 << 13, 0, 0, 0, 1000]);
    forget_namespace(&mut capability);
    assert_eq!(capability, words(&[0x0200_0001, 1 << 13, 0, 0, 0]));
    let before = capability.clone();
    forget_namespace(&mut capability);
    assert_eq!(capability, before);
}

#[test]
fn a_damaged_table_is_an_error() {
    let (_directory, world) = World::new();
    fs::write(world.changes.path().join("owners"), b"nonsense").unwrap();
    let error = scan(&world.store, world.changes.path(), world.lower).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
}
