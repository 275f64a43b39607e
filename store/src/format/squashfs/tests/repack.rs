//! Packing again after a change: what an earlier artifact holds is copied, and the bytes are those of packing from nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::super::Squashfs;
use crate::directory::Record;
use crate::format::{Compression, Format, Options, Packed};
use crate::{Error, File, Formation, FormationId, Launch, Metadata, Name, Node, Store, Tree};
use proptest::prelude::*;

/// A file of a root that is edited: its path is its number.
type Files = BTreeMap<u16, (u64, usize)>;

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

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn formation(&self, files: &Files) -> FormationId {
        let node = |(seed, size): &(u64, usize)| {
            let bytes = content(*seed, *size);
            let blob = self.store.put_blob(&bytes, false).unwrap();
            Node::File(File { blob, size: bytes.len() as u64, metadata: Metadata::root(0o644) })
        };
        let entry = |(number, file): (&u16, &(u64, usize))| (Name::new(format!("{number:05}")).unwrap(), node(file));
        let tree = Tree { metadata: Metadata::root(0o755), entries: files.iter().map(entry).collect() };
        let root = self.store.put_tree(&tree).unwrap();
        let launch = Launch { command: vec![b"true".to_vec()], ..Launch::default() };
        let [name, version, variant, platform] = ["repacked", "1", "", "linux/amd64"].map(str::to_owned);
        self.store
            .put_formation(&Formation { name, version, variant, platform, root, launch }, &Record::default())
            .unwrap()
    }

    /// Packs into a file, which the store remembers.
    fn pack(&self, id: FormationId, name: &str, options: &Options) -> crate::Result<(Vec<u8>, Packed)> {
        let path = self.path(name);
        let _ = fs::remove_file(&path);
        let file = fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let packed = Squashfs.pack_file(&self.store, id, options, &file)?;
        packed.remember(&self.store, &path).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(packed.digest(&file).unwrap().as_bytes(), blake3::hash(&bytes).as_bytes(), "as it was written");
        Ok((bytes, packed))
    }
}

/// Bytes that compress somewhat, different for each seed. Seed 0 is zeros.
fn content(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    if seed > 0 {
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes.iter_mut().for_each(|byte| *byte &= 0x1f);
    }
    bytes
}

fn remembered() -> Options {
    Options { remembered: true, ..Options::default() }
}

/// A few dozen small files, and some around a block and around what is compressed at a time.
fn files() -> Files {
    let sizes = [131_071, 131_072, 131_073, 300_000, 1 << 20, (1 << 20) + 1, 2_500_000];
    let sizes = sizes.into_iter().chain((0..120).map(|number| number * 977 % 20_000));
    sizes.enumerate().map(|(number, size)| (number as u16 * 10, (number as u64 + 1, size))).collect()
}

#[test]
fn after_one_change_almost_everything_is_copied_and_nothing_unchanged_is_read() {
    let world = World::new();
    let mut files = files();
    let first = world.formation(&files);
    world.pack(first, "first", &remembered()).unwrap();
    // What has not changed need not even be there any more.
    fs::remove_dir_all(world.store.path().join("blobs")).unwrap();
    files.insert(205, (1000, 777));
    let fresh = World::new();
    let (expected, nothing) = fresh.pack(fresh.formation(&files), "fresh", &Options::default()).unwrap();
    let changed = fresh.formation(&files);
    let formation = fresh.store.formation(changed).unwrap();
    world.store.put_tree(&fresh.store.tree(formation.root).unwrap()).unwrap();
    world.store.put_formation(&formation, &Record::default()).unwrap();
    for number in (0..400).filter_map(|number| files.get(&number)) {
        world.store.put_blob(&content(number.0, number.1), false).unwrap();
    }
    let (bytes, packed) = world.pack(changed, "second", &remembered()).unwrap();
    assert!(bytes == expected);
    assert_eq!((nothing.copied, packed.length), (0, bytes.len() as u64));
    let made = packed.length - packed.copied;
    assert!(made < 300_000, "{made} of {} bytes were not copied", packed.length);
    // The same once more: nothing is read at all.
    fs::remove_dir_all(world.store.path().join("blobs")).unwrap();
    assert!(world.pack(changed, "third", &remembered()).unwrap().0 == expected);
}

#[test]
fn a_damaged_earlier_artifact_never_shows_in_a_new_one() {
    let world = World::new();
    let id = world.formation(&files());
    let (expected, _) = world.pack(id, "first", &remembered()).unwrap();
    let damaged = |at: &[u64]| {
        let file = fs::File::options().write(true).open(world.path("first")).unwrap();
        for position in at {
            let byte = expected[*position as usize] ^ 0xff;
            file.write_all_at(&[byte], *position).unwrap();
        }
        let (bytes, packed) = world.pack(id, "second", &remembered()).unwrap();
        assert!(bytes == expected, "damage at {at:?} shows");
        fs::remove_file(world.path("second")).unwrap();
        fs::write(world.path("first"), &expected).unwrap();
        packed.copied
    };
    let whole = damaged(&[]);
    // The last byte of the superblock makes it another image; the first of the data only damages a piece.
    assert_eq!(damaged(&[95]), 0);
    assert_eq!(damaged(&[102]), whole);
    let length = expected.len() as u64;
    for position in (0..20).map(|part| 102 + part * (length - 102) / 20) {
        damaged(&[position, length - 1]);
    }
    // Cut short.
    for length in [50, 96, 5000, expected.len() / 2] {
        fs::write(world.path("first"), &expected[..length]).unwrap();
        assert!(world.pack(id, "second", &remembered()).unwrap().0 == expected, "{length}");
        fs::remove_file(world.path("second")).unwrap();
        fs::write(world.path("first"), &expected).unwrap();
    }
}

#[test]
fn what_a_disk_did_to_an_artifact_that_nobody_wrote_to_is_told_by_the_digest() {
    let world = World::new();
    let id = world.formation(&files());
    let (expected, first) = world.pack(id, "first", &remembered()).unwrap();
    let position = expected.len() / 2;
    let file = fs::File::options().write(true).open(world.path("first")).unwrap();
    file.write_all_at(&[expected[position] ^ 0x40], position as u64).unwrap();
    // As if that had been so from the beginning: its inode is noted as it is now.
    first.remember(&world.store, &world.path("first")).unwrap();
    let second = fs::File::options().read(true).write(true).create_new(true).open(world.path("second")).unwrap();
    let packed = Squashfs.pack_file(&world.store, id, &remembered(), &second).unwrap();
    let bytes = fs::read(world.path("second")).unwrap();
    let digest = |bytes: &[u8]| *blake3::hash(bytes).as_bytes();
    let said = packed.digest(&second).unwrap();
    assert!(said.as_bytes() == &digest(&expected) && said.as_bytes() != &digest(&bytes));
    // Unless it is asked to copy nothing.
    assert!(world.pack(id, "third", &Options::default()).unwrap().0 == expected);
}

#[test]
fn what_moves_is_hashed_and_what_is_longer_before_is_cut() {
    let world = World::new();
    // In the middle, at the front and at the end: more, less, and as much as before.
    let large = |seed: u64| (seed, 1_500_000);
    let mut files: Files = (0..8).map(|number| (number * 10, large(u64::from(number) + 1))).collect();
    world.pack(world.formation(&files), "0", &remembered()).unwrap();
    let edits: [&dyn Fn(&mut Files); 6] = [
        &|files| _ = files.insert(35, (100, 50_000)),
        &|files| _ = files.insert(0, large(101)),
        &|files| _ = files.remove(&40),
        &|files| drop(files.split_off(&50)),
        &|files| _ = files.insert(60, (102, 300_000)),
        &|_| (),
    ];
    for (round, edit) in edits.into_iter().enumerate() {
        edit(&mut files);
        let id = world.formation(&files);
        let (expected, _) = world.pack(id, "fresh", &Options::default()).unwrap();
        fs::remove_file(world.path("fresh")).unwrap();
        let (bytes, packed) = world.pack(id, &format!("{}", round + 1), &remembered()).unwrap();
        assert!(bytes == expected && packed.copied > 2_000_000, "round {round}: {} copied", packed.copied);
    }
}

#[test]
fn an_artifact_that_is_written_to_while_it_is_copied_is_not_believed() {
    use super::super::data::{Arrangement, Target};
    use super::super::plan::Plan;
    use super::super::previous::{Ahead, Previous};
    let world = World::new();
    let id = world.formation(&files());
    world.pack(id, "first", &remembered()).unwrap();
    let tree = world.store.tree(world.store.formation(id).unwrap().root).unwrap();
    let plan = Plan::new(&world.store, &tree).unwrap();
    let previous = Previous::all(&world.store, &remembered(), &plan).unwrap();
    let file = tempfile::tempfile().unwrap();
    let target = Target { file: &file, base: 0, start: 102 };
    let compression = Compression::default();
    let arrange = || Arrangement::new(&world.store, &plan, compression, &previous, &target).unwrap().unwrap();
    arrange().write(&target, &Ahead::default()).unwrap();
    let arrangement = arrange();
    fs::File::options().write(true).open(world.path("first")).unwrap().write_all_at(b"x", 200).unwrap();
    assert!(matches!(arrangement.write(&target, &Ahead::default()), Err(Error::StaleIndex)));
}

#[test]
fn an_artifact_that_was_moved_is_found_when_it_is_named() {
    let world = World::new();
    let id = world.formation(&files());
    let (expected, _) = world.pack(id, "first", &remembered()).unwrap();
    fs::rename(world.path("first"), world.path("moved")).unwrap();
    assert_eq!(world.pack(id, "second", &Options { remembered: true, ..Options::default() }).unwrap().1.copied, 0);
    fs::remove_file(world.path("second")).unwrap();
    let from = |name: &str| Options { from: vec![world.path(name)], ..Options::default() };
    let (bytes, packed) = world.pack(id, "third", &from("moved")).unwrap();
    assert!(bytes == expected && packed.copied > packed.length * 9 / 10);
    fs::write(world.path("foreign"), vec![7; 10_000]).unwrap();
    assert!(matches!(world.pack(id, "fourth", &from("foreign")), Err(Error::Unremembered { .. })));
    assert!(matches!(world.pack(id, "fourth", &from("nowhere")), Err(Error::File { .. })));
    // Another level has other bytes.
    let other = Options { compression: Compression::Zstd(4), ..remembered() };
    assert_eq!(world.pack(id, "fifth", &other).unwrap().1.copied, 0);
}

#[test]
fn collection_forgets_artifacts_that_are_gone() {
    let world = World::new();
    let id = world.formation(&files());
    world.store.set_root("kept", id).unwrap();
    world.pack(id, "stays", &remembered()).unwrap();
    world.pack(id, "goes", &remembered()).unwrap();
    fs::remove_file(world.path("goes")).unwrap();
    let indexes = || fs::read_dir(world.store.path().join("cache/artifacts")).unwrap().count();
    assert_eq!(indexes(), 2);
    world.store.collect(true).unwrap();
    assert_eq!(indexes(), 2);
    world.store.collect(false).unwrap();
    assert_eq!(indexes(), 1);
}

#[test]
fn a_damaged_blob_is_never_packed() {
    let world = World::new();
    // In a fragment; in blocks of its own; in several pieces.
    for size in [100, 200_000, 2_500_000] {
        let id = world.formation(&Files::from([(1, (size as u64, size))]));
        let blob = crate::BlobId::of(&content(size as u64, size)).to_string();
        let path = world.store.path().join("blobs").join(&blob[..2]).join(&blob[2..]);
        let whole = fs::read(&path).unwrap();
        for damage in [[&whole[..size / 2], &[0xff], &whole[size / 2 + 1..]].concat(), whole[..size - 1].to_vec()] {
            fs::write(&path, damage).unwrap();
            let error = world.pack(id, "artifact", &Options::default()).unwrap_err();
            assert!(matches!(error, Error::Mismatch { .. }), "{error}");
        }
        fs::write(&path, whole).unwrap();
        world.pack(id, "artifact", &Options::default()).unwrap();
    }
}

/// Come, gone, changed, renamed, made equal to another, made of zeros.
fn edit() -> impl Strategy<Value = (u8, u16, u64, usize)> {
    let size = prop_oneof![8 => 0..30_000_usize, 2 => 100_000..300_000_usize, 1 => 1_000_000..1_200_000_usize];
    (0..6_u8, 0..1300_u16, 10_000..10_020_u64, size)
}

fn apply(files: &mut Files, (kind, number, seed, size): (u8, u16, u64, usize)) {
    let near = files.range(number..).next().map(|(number, file)| (*number, *file));
    match (kind, near) {
        (1, Some((near, _))) => drop(files.remove(&near)),
        (2, Some((near, _))) => drop(files.insert(near, (seed, size))),
        (3, Some((near, file))) => {
            files.remove(&near);
            files.insert(number, file);
        }
        (4, Some((_, file))) => drop(files.insert(number, file)),
        (5, _) => drop(files.insert(number, (0, size))),
        _ => drop(files.insert(number, (seed, size))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn repacked_after_any_edits_the_bytes_are_those_of_packing_from_nothing(
        edits in proptest::collection::vec(proptest::collection::vec(edit(), 1..6), 1..3),
    ) {
        let world = World::new();
        let mut files = files();
        world.pack(world.formation(&files), "0", &remembered()).unwrap();
        for (round, edits) in edits.into_iter().enumerate() {
            edits.into_iter().for_each(|edit| apply(&mut files, edit));
            let id = world.formation(&files);
            let (repacked, packed) = world.pack(id, &format!("{}", round + 1), &remembered()).unwrap();
            let mut fresh = Vec::new();
            Squashfs.pack(&world.store, id, &Options::default(), &mut fresh).unwrap();
            prop_assert!(repacked == fresh);
            prop_assert!(packed.copied > 0);
        }
    }
}
