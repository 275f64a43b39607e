//! As much as the format holds, and a clear error for more.

use std::collections::BTreeMap;

use super::super::Squashfs;
use crate::directory::Record;
use crate::format::{Artifact, Bounds, Compression, Format, Options};
use crate::{Error, File, Formation, FormationId, Launch, Metadata, Name, Node, Store, Tree, TreeId};

struct World {
    directory: tempfile::TempDir,
    store: Store,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("store")).unwrap();
        Self { directory, store }
    }

    fn tree(&self, entries: impl IntoIterator<Item = (Vec<u8>, Node)>) -> TreeId {
        let entries = entries.into_iter().map(|(name, node)| (Name::new(name).unwrap(), node)).collect();
        self.store.put_tree(&Tree { metadata: Metadata::root(0o755), entries }).unwrap()
    }

    fn formation(&self, root: TreeId) -> FormationId {
        let [name, version, variant, platform] = ["limits", "1", "", "linux/amd64"].map(str::to_owned);
        let formation = Formation { name, version, variant, platform, root, launch: Launch::default() };
        self.store.put_formation(&formation, &Record::default()).unwrap()
    }

    /// Packs a root and reads it back.
    fn round(&self, root: TreeId, options: &Options) -> crate::Result<TreeId> {
        let path = self.directory.path().join("artifact");
        let mut file = std::fs::File::create(&path).unwrap();
        Squashfs.pack(&self.store, self.formation(root), options, &mut file)?;
        let artifact = Artifact::open(&path).unwrap();
        let bounds = Bounds::for_size(artifact.size());
        Ok(crate::format::read(&self.store, &artifact, &bounds).unwrap().root)
    }

    fn refused(&self, node: Node) -> &'static str {
        match self.round(self.tree([(b"entry".to_vec(), node)]), &Options::default()) {
            Err(Error::Unpackable { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn both_compressions_are_read_back() {
    let world = World::new();
    let file = |bytes: &[u8]| {
        let blob = world.store.put_blob(bytes, false).unwrap();
        Node::File(File { blob, size: bytes.len() as u64, metadata: Metadata::root(0o644) })
    };
    let mut noise = vec![0; 300_000];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let root = world.tree([
        (b"noise".to_vec(), file(&noise)),
        (b"text".to_vec(), file(&b"to be or not to be ".repeat(100_000))),
        (b"small".to_vec(), file(b"x")),
        (b"zeros".to_vec(), file(&vec![0; 2_000_000])),
        // A last block of zeros, shorter than a block.
        (b"zeros at the end".to_vec(), file(&[vec![1; 131_072], vec![0; 5000]].concat())),
    ]);
    for compression in [Compression::Zstd(1), Compression::Zstd(19), Compression::Gzip(1), Compression::Gzip(9)] {
        assert_eq!(world.round(root, &Options { compression, ..Options::default() }).unwrap(), root, "{compression}");
    }
}

#[test]
fn owners_are_counted_in_sixteen_bits() {
    let world = World::new();
    let with_owners = |count: u32| {
        let fifo = |uid| Node::Fifo(Metadata { uid, gid: uid, ..Metadata::root(0o644) });
        // The root's own is 0.
        world.tree((1..count).map(|uid| (uid.to_string().into_bytes(), fifo(uid))))
    };
    let most = with_owners(65_535);
    assert_eq!(world.round(most, &Options::default()).unwrap(), most);
    let error = world.round(with_owners(65_536), &Options::default()).unwrap_err();
    assert_eq!(error.to_string(), "squashfs cannot hold this: more than 65535 different owners and groups");
}

#[test]
fn what_linux_cannot_have_is_refused() {
    let world = World::new();
    let symlink = |length| Node::Symlink { target: vec![b'x'; length], uid: 0, gid: 0 };
    let device = |major, minor| Node::Device { block: false, major, minor, metadata: Metadata::root(0o600) };
    assert!(world.refused(symlink(4096)).contains("4095"));
    assert!(world.refused(device(4096, 0)).contains("device"));
    assert!(world.refused(device(0, 1 << 20)).contains("device"));
    let last = world.tree([(b"a".to_vec(), symlink(4095)), (b"b".to_vec(), device(4095, (1 << 20) - 1))]);
    assert_eq!(world.round(last, &Options::default()).unwrap(), last);
    // 2^60 paths, but 61 trees.
    let mut id = world.tree([]);
    for _ in 0..60 {
        id = world.tree([(b"l".to_vec(), Node::Directory(id)), (b"r".to_vec(), Node::Directory(id))]);
    }
    assert!(matches!(world.round(id, &Options::default()), Err(Error::Unpackable { .. })));
}

#[test]
fn a_deep_tree_needs_no_deep_stack() {
    let world = World::new();
    let mut id = world.tree([]);
    for _ in 0..4000 {
        id = world.tree([(b"d".to_vec(), Node::Directory(id))]);
    }
    let (world, root) = (&world, id);
    let narrow = std::thread::Builder::new().stack_size(256 * 1024);
    std::thread::scope(|scope| {
        let pack =
            move || Squashfs.pack(&world.store, world.formation(root), &Options::default(), &mut std::io::sink());
        narrow.spawn_scoped(scope, pack).unwrap().join().unwrap().unwrap();
    });
}

#[test]
fn long_names_and_many_attributes_are_kept() {
    let world = World::new();
    let attribute = |number: u32| (format!("user.{number:0200}").into_bytes(), vec![b'v'; 3000 + number as usize]);
    let fifo = |number: u32| {
        let attributes = BTreeMap::from([attribute(number), attribute(number / 2)]);
        Node::Fifo(Metadata { attributes, ..Metadata::root(0o644) })
    };
    // 255 bytes each: a run of a listing is as long as a block long before it has 256 entries.
    let root = world.tree((0..1000).map(|number| (format!("{number:0255}").into_bytes(), fifo(number))));
    assert_eq!(world.round(root, &Options::default()).unwrap(), root);
}
