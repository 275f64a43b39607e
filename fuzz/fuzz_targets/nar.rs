//! Nix archives that come from elsewhere: what is taken is written again as the same bytes.
#![no_main]

use std::sync::OnceLock;

use store::Store;
use store::nix::cache::unpack;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static STORE: OnceLock<(tempfile::TempDir, Store)> = OnceLock::new();
    let (_, store) = STORE.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("store")).unwrap();
        (directory, store)
    });
    if let Ok(unpacked) = unpack(store, &mut &bytes[..], 1 << 20, "fuzz") {
        let mut again = Vec::new();
        let write = &mut |part: &[u8]| {
            again.extend_from_slice(part);
            Ok(())
        };
        store.write_nar(&unpacked.node, write).unwrap();
        assert!(again == bytes);
    }
});
