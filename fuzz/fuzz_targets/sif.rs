//! SIFs from anywhere: what they say of themselves, who signed them, and their image, within bounds that are soon reached.
#![no_main]

use std::io::Write;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use store::Store;
use store::format::{Artifact, Bounds, Format, sif};
use store::signing::Trust;

fuzz_target!(|bytes: &[u8]| {
    static STORE: OnceLock<(tempfile::TempDir, Store)> = OnceLock::new();
    let (_, store) = STORE.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(directory.path().join("store")).expect("a store");
        (directory, store)
    });
    let Ok(mut file) = tempfile::NamedTempFile::new() else { return };
    if file.write_all(bytes).is_err() {
        return;
    }
    let Ok(artifact) = Artifact::open(file.path()) else { return };
    let _ = sif::Sif.inspect(&artifact);
    let signatures = sif::signature::verify(&artifact, &Trust::default(), 1_800_000_000);
    assert!(signatures.is_err(), "nobody is trusted");
    let bounds = Bounds { bytes: 1 << 16, entries: 100, depth: 32 };
    let _ = sif::Sif.read(store, &artifact, &bounds);
});
