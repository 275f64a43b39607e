//! Images from anywhere: read as a whole, within bounds that are soon reached.
#![no_main]

use std::io::Write;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use store::format::Bounds;
use store::format::squashfs::read::Image;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut file) = tempfile::tempfile() else { return };
    if file.write_all(bytes).is_err() {
        return;
    }
    let bounds = Bounds { bytes: 4 << 20, entries: 1000, depth: 32 };
    let Ok(image) = Image::open(file, Path::new("image"), 0, bytes.len() as u64) else { return };
    let _ = image.inspect();
    let _ = image.check(&bounds);
});
