//! Whatever lies among a store's packs: the first half of the bytes is a pack, the second its index. What is read hashes to its
//! name; a lease and a list of a killed collection are whatever they are.

#![no_main]

use libfuzzer_sys::fuzz_target;
use store::{BlobId, Store};

fuzz_target!(|bytes: &[u8]| {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("store");
    drop(Store::open(&path).expect("a store"));
    for name in ["packs", "leases", "gc"] {
        std::fs::create_dir(path.join(name)).expect("a directory");
    }
    let (pack, index) = bytes.split_at(bytes.len() / 2);
    std::fs::write(path.join("packs/a.pack"), pack).expect("a pack");
    std::fs::write(path.join("packs/a.index"), index).expect("an index");
    std::fs::write(path.join("leases/1-a.lock"), pack).expect("a lease");
    std::fs::write(path.join("gc/doomed"), index).expect("a list");
    let store = Store::open(&path).expect("a store");
    let id = BlobId::of(b"content");
    if let Ok(content) = store.blob(id) {
        assert_eq!(content, b"content");
    }
    let _ = store.has_tree(store::Tree::empty().id());
    let _ = store.verify();
    let _ = store.collect(false);
    let again = store.put_blob(b"content", false).expect("room on the disk");
    assert_eq!(store.blob(again).expect("it was just put"), b"content");
});
