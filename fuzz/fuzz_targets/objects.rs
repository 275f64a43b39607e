//! Trees, deltas and formations from outside: what decodes encodes to the same bytes, and nothing else happens.

#![no_main]

use libfuzzer_sys::fuzz_target;
use store::{Delta, Formation, Tree};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(tree) = Tree::decode(bytes) {
        assert_eq!(tree.encode(), bytes);
    }
    if let Ok(delta) = Delta::decode(bytes) {
        assert_eq!(delta.encode(), bytes);
    }
    if let Ok(formation) = Formation::decode(bytes) {
        assert_eq!(formation.encode(), bytes);
    }
});
