//! Indexes, manifests and configurations of OCI images. The quick part of it is in `store/src/format/oci/tests.rs`.
#![no_main]

use store::format::Dropped;
use store::format::oci::config::ImageConfig;
use store::format::oci::descriptor::{Index, Manifest, to_json};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(index) = serde_json::from_slice::<Index>(bytes) {
        assert_eq!(serde_json::from_slice::<Index>(&to_json(&index)).unwrap(), index);
    }
    let _ = serde_json::from_slice::<Manifest>(bytes);
    if let Ok(config) = serde_json::from_slice::<ImageConfig>(bytes) {
        let _ = (config.launch(&mut Dropped::default()), config.formation());
    }
});
