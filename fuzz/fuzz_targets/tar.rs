//! Archives from anywhere, compressed or not: taken apart, and made a tree in a store of their own.
#![no_main]

use std::io::Read;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use store::Store;
use store::format::tar::read::Archive;
use store::format::{Bounds, unpacked};

fuzz_target!(|bytes: &[u8]| {
    static STORE: OnceLock<(tempfile::TempDir, Store)> = OnceLock::new();
    let (_, store) = STORE.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(directory.path().join("store")).expect("a store");
        (directory, store)
    });
    let Ok((_, reader)) = unpacked(bytes) else { return };
    let mut archive = Archive::new(reader.take(4 << 20));
    while let Ok(Some(entry)) = archive.next() {
        let mut content = archive.content().take(4 << 20);
        let read = std::io::copy(&mut content, &mut std::io::sink());
        assert!(read.is_err() || read.is_ok_and(|read| read == entry.size.min(4 << 20)), "{entry:?}");
    }
    let bounds = Bounds { bytes: 1 << 16, entries: 100, depth: 32 };
    let _ = store::format::tar::read_stream(store, &mut &*bytes, "fuzz", &bounds);
});
