//! What the tests of formats share: a store of the test's own, trees of every kind, and formations.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tempfile::TempDir;

use crate::directory::Record;
use crate::{File, Formation, FormationId, Launch, Limits, Metadata, Name, Node, Store, Tree, TreeId, User};

pub struct World {
    pub store: Store,
    pub directory: TempDir,
}

impl World {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { store: Store::open(directory.path().join("store")).unwrap(), directory }
    }

    pub fn formation(&self, root: TreeId) -> FormationId {
        let environment = BTreeMap::from([(b"A".to_vec(), b"1\n'\xff".to_vec())]);
        let launch = Launch {
            command: vec![b"sh".to_vec(), b"-c".to_vec(), b"true".to_vec()],
            environment,
            user: Some(User::ids(7, 8)),
            limits: Limits { pids: Some(3), ..Limits::default() },
            ..Launch::default()
        };
        let (name, version, platform) = ("test".to_owned(), "1.0".to_owned(), "linux/amd64".to_owned());
        let variant = String::new();
        let formation = Formation { name, version, variant, platform, root, launch };
        self.store.put_formation(&formation, &Record::default()).unwrap()
    }

    /// Keeps a described directory and all below it.
    pub fn keep(&self, described: &Described) -> TreeId {
        let Described::Directory(metadata, entries) = described else { panic!("a root is a directory") };
        let node = |described: &Described| match described {
            Described::Directory(..) => Node::Directory(self.keep(described)),
            Described::File(metadata, content) => {
                let blob = self.store.put_blob(content, metadata.mode & 0o100 != 0).unwrap();
                Node::File(File { blob, size: content.len() as u64, metadata: metadata.clone() })
            }
            Described::Other(node) => node.clone(),
        };
        let entries = entries.iter().map(|(name, described)| (name.clone(), node(described))).collect();
        self.store.put_tree(&Tree { metadata: metadata.clone(), entries }).unwrap()
    }
}

/// A tree as a test makes it up.
#[derive(Debug, Clone)]
pub enum Described {
    Directory(Metadata, BTreeMap<Name, Described>),
    File(Metadata, Vec<u8>),
    Other(Node),
}

fn name() -> impl Strategy<Value = Name> {
    let short = prop::collection::vec(any::<u8>(), 1..6);
    let long = prop::collection::vec(prop::sample::select(b"ab\xff \n".to_vec()), 90..=255);
    let fine = |bytes: Vec<u8>| Name::new(bytes).ok();
    prop_oneof![5 => short, 1 => long].prop_filter_map("not a name", fine)
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let id = || prop_oneof![4 => Just(0_u32), 1 => 0..70_000_u32, 1 => Just(u32::MAX - 1), 1 => Just(2_097_152)];
    let name = prop::sample::select(vec![
        &b"user.a"[..],
        b"user.\xff =%3D%\n",
        b"security.capability",
        b"system.posix_acl_access",
        b"system.posix_acl_default",
    ]);
    let value = prop::collection::vec(any::<u8>(), 0..40);
    let attribute = (name.prop_map(<[u8]>::to_vec), value);
    let attributes =
        prop_oneof![4 => Just(BTreeMap::new()), 1 => prop::collection::btree_map(attribute.0, attribute.1, 1..4)];
    (0..=0o7777_u16, id(), id(), attributes).prop_map(|(mode, uid, gid, attributes)| Metadata {
        mode,
        uid,
        gid,
        attributes,
    })
}

/// Contents around the sizes of blocks, with and without zeros; some equal to others.
fn content() -> impl Strategy<Value = Vec<u8>> {
    const BLOCK: usize = 128 * 1024;
    let sizes = prop::sample::select(vec![0, 1, 511, 512, 513, 4096, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 100]);
    let zeros = sizes.clone().prop_map(|size| vec![0; size]);
    let made = (sizes, 0..4_u8).prop_map(|(size, seed)| {
        let mut state = u64::from(seed) * 2 + 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 60) as u8
        };
        (0..size).map(|_| next()).collect()
    });
    // Zeros in the middle: a block that is not stored.
    let hole = (0..3_u8).prop_map(|seed| [vec![seed; 10], vec![0; 3 * BLOCK], vec![seed]].concat());
    prop_oneof![3 => prop::collection::vec(any::<u8>(), 0..100), 3 => made, 1 => zeros, 1 => hole]
}

fn leaf() -> impl Strategy<Value = Described> {
    let symlink = prop_oneof![prop::collection::vec(1..=255_u8, 1..20), prop::collection::vec(1..=255_u8, 99..300)];
    let symlink = (symlink, 0..1000_u32, 0..1000_u32).prop_map(|(target, uid, gid)| Node::Symlink { target, uid, gid });
    let numbers = (0..4096_u32, 0..(1_u32 << 20)).prop_filter("a whiteout", |numbers| *numbers != (0, 0));
    let device = (any::<bool>(), numbers, metadata());
    let device = device.prop_map(|(block, (major, minor), metadata)| Node::Device { block, major, minor, metadata });
    prop_oneof![
        5 => (metadata(), content()).prop_map(|(metadata, content)| Described::File(metadata, content)),
        1 => symlink.prop_map(Described::Other),
        1 => metadata().prop_map(|metadata| Described::Other(Node::Fifo(metadata))),
        1 => device.prop_map(Described::Other),
    ]
}

/// Directories with everything that a tree can have in them.
pub fn trees() -> impl Strategy<Value = Described> {
    let directory = |entries: BTreeMap<Name, Described>, metadata| Described::Directory(metadata, entries);
    let below = leaf().prop_recursive(5, 20, 6, move |inner| {
        (prop::collection::btree_map(name(), inner, 0..6), metadata())
            .prop_map(move |(entries, metadata)| directory(entries, metadata))
    });
    (prop::collection::btree_map(name(), below, 0..8), metadata())
        .prop_map(move |(entries, metadata)| directory(entries, metadata))
}
