use std::fs;
use std::path::PathBuf;

use super::super::testing::{World, name, world};
use super::super::{Ownership, Record};
use super::*;
use crate::{BlobId, Formation, FormationId, Launch, Metadata, Node, Tree, TreeId};

/// A tree of so many small files, put in a batch; each content begins with `word`.
fn many(world: &World, word: &str, count: usize) -> TreeId {
    let batch = world.store.batch();
    let files = (0..count).map(|number| (name(&format!("f{number}")), world.file(&format!("{word} {number}"), 0o644)));
    let below = Tree { metadata: Metadata::root(0o755), entries: files.collect() };
    let below = world.store.put_tree(&below).unwrap();
    let id = world.tree(0o755, [("below", Node::Directory(below))]);
    batch.finish().unwrap();
    id
}

fn rooted(world: &World, called: &str, root: TreeId) -> FormationId {
    let (version, variant, platform) = (String::new(), String::new(), "linux/amd64".to_owned());
    let formation = Formation { name: called.to_owned(), version, variant, platform, root, launch: Launch::default() };
    let id = world.store.put_formation(&formation, &Record::default()).unwrap();
    world.store.set_root(called, id).unwrap();
    id
}

fn files(world: &World, suffix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(world.store.path().join("packs")) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == suffix)).collect()
}

fn loose(world: &World, kind: &str) -> usize {
    let Ok(starts) = fs::read_dir(world.store.path().join(kind)) else { return 0 };
    starts.map(|start| fs::read_dir(start.unwrap().path()).unwrap().count()).sum()
}

/// Everything below a tree can be read, by a store that knows nothing yet.
fn assert_whole(world: &World, root: TreeId, word: &str, count: usize) {
    let store = Store::open(world.store.path()).unwrap();
    assert_eq!(store.extent(root).unwrap().files, count as u64);
    for number in 0..count {
        let bytes = format!("{word} {number}");
        assert_eq!(store.blob(BlobId::of(bytes.as_bytes())).unwrap(), bytes.as_bytes());
    }
}

#[test]
fn many_small_objects_are_one_file_and_few_are_files() {
    let world = world();
    let root = many(&world, "packed", 500);
    assert_eq!((files(&world, "pack").len(), files(&world, "index").len()), (1, 1));
    assert_eq!((loose(&world, "blobs"), loose(&world, "trees")), (0, 0));
    assert_whole(&world, root, "packed", 500);
    // Once more: nothing new. A few more: files.
    many(&world, "packed", 500);
    let few = many(&world, "few", 10);
    assert_eq!((files(&world, "pack").len(), loose(&world, "blobs")), (1, 10));
    assert_whole(&world, few, "few", 10);
    // What is packed is opened, sized and checked out like everything else.
    let id = BlobId::of(b"packed 7");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut world.store.open_blob(id).unwrap(), &mut text).unwrap();
    assert_eq!((text.as_str(), world.store.blob_size(id).unwrap()), ("packed 7", Some(8)));
    let checkout = world.store.checkout(root, Ownership::Caller).unwrap();
    assert_eq!(fs::read(checkout.join("below/f7")).unwrap(), b"packed 7");
    assert!(world.store.verify().unwrap().is_empty());
}

#[test]
fn what_is_not_published_is_seen_by_its_process_alone() {
    let world = world();
    let other = Store::open(world.store.path()).unwrap();
    let batch = world.store.batch();
    let ids: Vec<BlobId> =
        (0..100_u32).map(|number| world.store.put_blob(&number.to_le_bytes(), false).unwrap()).collect();
    assert!(ids.iter().all(|id| world.store.has_blob(*id) && world.store.blob(*id).is_ok()));
    assert!(ids.iter().all(|id| !other.has_blob(*id)));
    // A claim or formation that is made meanwhile has all that it may refer to published first.
    rooted(&world, "empty", Tree::empty().id());
    assert!(ids.iter().all(|id| other.has_blob(*id)));
    batch.finish().unwrap();
    assert!(ids.iter().all(|id| other.blob(*id).is_ok()));
}

#[test]
fn an_index_that_is_lost_or_damaged_comes_back() {
    let world = world();
    let first = many(&world, "first", 200);
    // The second has blobs of the first's pack below its trees.
    let batch = world.store.batch();
    let second = world.tree(0o700, [("both", Node::Directory(first))]);
    (0..200_u32).for_each(|number| _ = world.store.put_blob(&number.to_le_bytes(), false).unwrap());
    batch.finish().unwrap();
    for damage in [None, Some(&b"forge pack ix 1\n and nothing"[..])] {
        for index in files(&world, "index") {
            match damage {
                None => fs::remove_file(index).unwrap(),
                Some(bytes) => fs::write(index, bytes).unwrap(),
            }
        }
        assert_whole(&world, second, "first", 200);
        assert_eq!(files(&world, "index").len(), 2);
        assert!(Store::open(world.store.path()).unwrap().verify().unwrap().is_empty());
    }
}

#[test]
fn a_recovered_index_has_no_tree_of_which_something_is_missing() {
    let world = world();
    let root = many(&world, "gone", 100);
    rooted(&world, "gone", root);
    let pack = files(&world, "pack").pop().unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    let place = bytes.windows(7).position(|window| window == b"gone 42").unwrap();
    bytes[place] ^= 1;
    fs::write(&pack, bytes).unwrap();
    fs::remove_file(files(&world, "index").pop().unwrap()).unwrap();
    let store = Store::open(world.store.path()).unwrap();
    assert!(!store.has_tree(root) && store.has_blob(BlobId::of(b"gone 41")));
    assert!(!store.has_blob(BlobId::of(b"gone 42")));
    assert!(!store.verify().unwrap().is_empty());
    many(&world, "gone", 100);
    assert_whole(&world, root, "gone", 100);
}

#[test]
fn collection_shrinks_indexes_and_then_packs() {
    let world = world();
    let (kept, most) = (many(&world, "kept", 100), many(&world, "most", 400));
    let (kept_id, most_id) = (rooted(&world, "kept", kept), rooted(&world, "most", most));
    // One pack for two formations: what is dead of it goes from the index first.
    let batch = world.store.batch();
    let mixed: Vec<TreeId> = ["one", "two"].map(|word| many(&world, word, 150)).into();
    batch.finish().unwrap();
    rooted(&world, "one", mixed[0]);
    assert_eq!(files(&world, "pack").len(), 3);
    let planned = world.store.collect(true).unwrap();
    let collected = world.store.collect(false).unwrap();
    assert_eq!((planned, collected.blobs, collected.trees), (collected, 150, 2));
    assert_whole(&world, mixed[0], "one", 150);
    assert!(!world.store.has_tree(mixed[1]) && !world.store.has_blob(BlobId::of(b"two 3")));
    // A pack of which nothing lives goes.
    world.store.remove_root("most").unwrap();
    assert_eq!(world.store.collect(false).unwrap().blobs, 400);
    assert_eq!((files(&world, "pack").len(), files(&world, "index").len()), (2, 2));
    assert!(world.store.formation(most_id).is_err() && world.store.formation(kept_id).is_ok());
    assert_whole(&world, kept, "kept", 100);
    assert!(Store::open(world.store.path()).unwrap().verify().unwrap().is_empty());
    // What another process knows of packs that are gone is looked at again.
    many(&world, "two", 150);
    assert_whole(&world, mixed[1], "two", 150);
    assert_eq!(world.store.collect(false).unwrap().blobs, 150);
    assert_eq!(world.store.collect(true).unwrap(), super::super::Collected::default());
}

#[test]
fn many_short_packs_become_one() {
    let world = world();
    let roots: Vec<TreeId> = (0..18).map(|number| many(&world, &format!("p{number}"), 70)).collect();
    for (number, root) in roots.iter().enumerate() {
        rooted(&world, &format!("r{number}"), *root);
    }
    assert_eq!(files(&world, "pack").len(), 18);
    let other = Store::open(world.store.path()).unwrap();
    assert!(other.has_tree(roots[3]));
    world.store.collect(false).unwrap();
    assert_eq!(files(&world, "pack").len(), 1);
    for (number, root) in roots.iter().enumerate() {
        assert_whole(&world, *root, &format!("p{number}"), 70);
        assert!(other.has_tree(*root) && other.extent(*root).unwrap().files == 70);
    }
}

#[test]
fn damage_in_a_pack_is_set_aside_and_mended() {
    let world = world();
    let root = many(&world, "whole", 100);
    rooted(&world, "whole", root);
    let pack = files(&world, "pack").pop().unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    let place = bytes.windows(8).position(|window| window == b"whole 42").unwrap();
    bytes[place] ^= 1;
    fs::write(&pack, bytes).unwrap();
    let blob = BlobId::of(b"whole 42");
    assert!(matches!(world.store.blob(blob), Err(Error::Mismatch { .. })));
    assert!(matches!(world.store.checkout(root, Ownership::Caller), Err(Error::Mismatch { .. })));
    let damaged = world.store.verify().unwrap();
    assert_eq!(damaged.iter().map(|damage| damage.object).collect::<Vec<_>>(), [Some(Use::Blob(blob))]);
    let affected = world.store.affected([Use::Blob(blob)]).unwrap();
    world.store.set_aside(&damaged).unwrap();
    assert!(!world.store.has_blob(blob) && world.store.has_blob(BlobId::of(b"whole 41")));
    let restore: super::super::Restore<'_> = &|_| world.store.put_blob(b"whole 42", false).map(drop);
    assert!(world.store.heal(&affected, restore).unwrap().is_empty());
    assert!(world.store.verify().unwrap().is_empty());
    assert_whole(&world, root, "whole", 100);
}

#[test]
fn whatever_lies_among_the_packs_is_an_error_at_most() {
    let world = world();
    let root = many(&world, "solid", 100);
    rooted(&world, "solid", root);
    let pack = files(&world, "pack").pop().unwrap();
    let index = files(&world, "index").pop().unwrap();
    let (pack_bytes, index_bytes) = (fs::read(&pack).unwrap(), fs::read(&index).unwrap());
    let mut seed = 7_u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    for round in 0..60 {
        let (path, bytes) = if round % 2 == 0 { (&pack, &pack_bytes) } else { (&index, &index_bytes) };
        let mut changed = bytes.clone();
        match round % 3 {
            0 => changed.truncate(random(bytes.len())),
            _ => (0..4).for_each(|_| changed[random(bytes.len())] = random(256) as u8),
        }
        fs::write(path, changed).unwrap();
        let store = Store::open(world.store.path()).unwrap();
        let _ = store.extent(root);
        let damaged = store.verify().unwrap();
        for number in 0..100 {
            let bytes = format!("solid {number}");
            if let Ok(read) = store.blob(BlobId::of(bytes.as_bytes())) {
                assert_eq!(read, bytes.as_bytes());
            }
        }
        store.set_aside(&damaged).unwrap();
        fs::write(&pack, &pack_bytes).unwrap();
        fs::write(&index, &index_bytes).unwrap();
    }
    assert_whole(&world, root, "solid", 100);
}

#[test]
fn what_comes_over_a_line_is_there_part_by_part() {
    let world = world();
    let other = Store::open(world.store.path()).unwrap();
    let batch = world.store.batch_in_parts();
    let content = |number: u32| [&number.to_le_bytes()[..], &[7; 60_000]].concat();
    let ids: Vec<BlobId> = (0..700).map(|number| world.store.put_blob(&content(number), false).unwrap()).collect();
    // Should this process be killed now, the next one need not fetch the first 32 MiB again.
    assert!(other.has_blob(ids[0]) && other.has_blob(ids[500]) && !other.has_blob(ids[699]));
    batch.finish().unwrap();
    assert!(ids.iter().all(|id| other.has_blob(*id)));
}

#[test]
fn while_a_part_is_published_others_go_on_putting_and_reading() {
    let world = world();
    let batch = world.store.batch_in_parts();
    let content = |who: u32, number: u32| [&who.to_le_bytes()[..], &number.to_le_bytes(), &[7; 60_000]].concat();
    let (threads, each) = (4_u32, 400_u32);
    std::thread::scope(|scope| {
        for who in 0..threads {
            let (store, content) = (&world.store, &content);
            scope.spawn(move || {
                for number in 0..each {
                    let id = store.put_blob(&content(who, number), false).unwrap();
                    // Whether it is still in memory, in the part that leaves, or there for all.
                    let earlier = content(who, number / 2);
                    assert_eq!(store.blob(BlobId::of(&earlier)).unwrap(), earlier);
                    assert_eq!(store.blob_size(id).unwrap(), Some(60_008));
                    assert_eq!(store.put_blob(&earlier, false).unwrap(), BlobId::of(&earlier));
                }
            });
        }
    });
    batch.finish().unwrap();
    let other = Store::open(world.store.path()).unwrap();
    let entries: usize = other.all_packs().unwrap().iter().map(|pack| pack.entries().unwrap().len()).sum();
    assert_eq!(entries, (threads * each) as usize, "each of them once");
    assert!(other.verify().unwrap().is_empty());
}
