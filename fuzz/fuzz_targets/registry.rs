//! What registries and Nix's binary caches say: references, challenges, `.narinfo`, `nix-cache-info`. The quick part of it is among the
//! tests of `store`.
#![no_main]

use store::nix::cache::{CacheInfo, NarInfo};
use store::registry::{Challenge, Reference};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(info) = NarInfo::parse(bytes) {
        assert_eq!(NarInfo::parse(info.to_text().as_bytes()).unwrap(), info);
        let _ = (info.fingerprint(), info.signed_by(&[]), info.proves_itself());
    }
    let _ = CacheInfo::parse(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Challenge::parse(text);
        if let Ok(reference) = text.parse::<Reference>() {
            assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
        }
    }
});
