//! What comes from peers: streams of objects, questions, answers, signed claims.
#![no_main]

use std::sync::OnceLock;

use store::Store;
use store::peer::message::{Below, Lacking, Lacks, decode_items, encode_items};
use store::peer::{Realisation, Subject, answer};

fn store() -> &'static Store {
    static STORE: OnceLock<(tempfile::TempDir, Store)> = OnceLock::new();
    let (_, store) = STORE.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(directory.path().join("store")).expect("a store");
        (directory, store)
    });
    store
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = answer::take(store(), &mut &*bytes, &|_| Ok(()));
    let _ = answer::take(store(), &mut [b"forge objects 1\n", bytes].concat().as_slice(), &|_| Ok(()));
    if let Ok(below) = Below::decode(bytes) {
        assert_eq!(below.encode(), bytes);
    }
    if let Ok(lacks) = Lacks::decode(bytes) {
        assert_eq!(Lacks::decode(&lacks.encode()).unwrap(), lacks);
    }
    if let Ok(lacking) = Lacking::decode(bytes) {
        assert_eq!(Lacking::decode(&lacking.encode()).unwrap(), lacking);
    }
    if let Ok(items) = decode_items(bytes) {
        assert_eq!(decode_items(&encode_items(&items)).unwrap(), items);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Some(realisation) = Realisation::parse(text) {
            assert_eq!(Realisation::parse(&realisation.to_text()), Some(realisation));
        }
        if let Some(subject) = Subject::parse(text) {
            assert_eq!(Subject::parse(&subject.to_string()), Some(subject));
        }
    }
});
