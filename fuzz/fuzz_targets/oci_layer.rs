//! A layer over another one: the first half of the bytes is the lower. The quick part of it is in `store/src/format/oci/tests.rs`.
#![no_main]

use std::sync::OnceLock;

use store::Store;
use store::format::Bounds;
use store::format::oci::{descriptor::Digest, read_layer};
use store::format::unpacked;

/// One store for all runs: what was kept does no harm.
fn store() -> &'static Store {
    static STORE: OnceLock<(tempfile::TempDir, Store)> = OnceLock::new();
    let make = || {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("store")).unwrap();
        (directory, store)
    };
    &STORE.get_or_init(make).1
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let bounds = Bounds { bytes: 1 << 20, entries: 1000, depth: 64 };
    let mut below = None;
    for mut layer in [&bytes[..bytes.len() / 2], &bytes[bytes.len() / 2..]] {
        // The digest fits what it unpacks to, as far as it can be unpacked: or nothing would be kept.
        let mut plain = Vec::new();
        if let Ok((_, reader)) = unpacked(layer) {
            let _ = std::io::copy(&mut std::io::Read::take(reader, 4 << 20), &mut plain);
        }
        if let Ok((delta, ..)) = read_layer(store(), &mut layer, "fuzz", below, &bounds, Digest::of(&plain)) {
            below = Some(delta.tree);
        }
    }
});
