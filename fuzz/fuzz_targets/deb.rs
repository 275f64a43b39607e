//! Packages of Debian from anywhere: what is unpacked is the same a second time.
#![no_main]

use std::sync::OnceLock;

use builder::debian::package;
use store::Store;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static STORE: OnceLock<(tempfile::TempDir, Store)> = OnceLock::new();
    let (_, store) = STORE.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("store")).unwrap();
        (directory, store)
    });
    let unpack = || package::unpack(store, "fuzz", bytes, &|| Ok(()));
    if let Ok(delta) = unpack() {
        assert_eq!(unpack().unwrap(), delta);
    }
});
