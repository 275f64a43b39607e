//! Wheels from anywhere: what is laid out of one lies below the root, and is the same a second time.
#![no_main]

use std::io::Cursor;
use std::sync::OnceLock;

use builder::python::{PythonVersion, wheel};
use store::Store;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static STORE: OnceLock<(tempfile::TempDir, Store)> = OnceLock::new();
    let (_, store) = STORE.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("store")).unwrap();
        (directory, store)
    });
    let python = PythonVersion { major: 3, minor: 11 };
    let install = || wheel::install(store, Cursor::new(bytes), "hello-1.0-py3-none-any.whl", python, &|| Ok(()));
    if let Ok(delta) = install() {
        assert_eq!(install().unwrap(), delta);
    }
});
