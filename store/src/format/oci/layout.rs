//! An OCI image layout, as a directory or as one tar file: `oci-layout`, `index.json`, `blobs/sha256/…`.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::descriptor::to_json;
use super::image::Collection;
use crate::format::tar::Packer;
use crate::{Error, Metadata, Result, Store};

/// The content of the file that says what the directory is.
pub const MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Writes a layout to a directory, which is made if it is not there. What is in it already and whole stays; `index.json` comes
/// last, so that what it names is there.
pub fn write_directory(store: &Store, collection: &Collection, path: &Path) -> Result<()> {
    for content in &collection.contents {
        let descriptor = &content.descriptor;
        let directory = path.join("blobs").join(descriptor.digest.algorithm());
        fs::create_dir_all(&directory).map_err(Error::file("create", &directory))?;
        let file_path = directory.join(descriptor.digest.hex());
        let temporary = directory.join(format!(".{}", descriptor.digest.hex()));
        let mut file = File::create(&temporary).map_err(Error::file("create", &temporary))?;
        let written = content.each(store, &mut |bytes| file.write_all(bytes));
        let renamed =
            written.and_then(|()| fs::rename(&temporary, &file_path).map_err(Error::file("create", &file_path)));
        if renamed.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        renamed?;
    }
    for (name, bytes) in [("oci-layout", MARKER.to_vec()), ("index.json", to_json(&collection.index))] {
        let (temporary, path) = (path.join(format!(".{name}")), path.join(name));
        fs::write(&temporary, bytes).map_err(Error::file("write", &temporary))?;
        fs::rename(&temporary, &path).map_err(Error::file("create", &path))?;
    }
    Ok(())
}

/// Writes a layout as a tar: what says what it is comes first, so that a reader of a stream knows what to do with the rest.
pub fn write_archive(store: &Store, collection: &Collection, output: &mut dyn Write) -> Result<()> {
    let mut packer = Packer::new(store, output);
    packer.file(b"oci-layout", MARKER.len() as u64)?;
    packer.write(MARKER)?;
    packer.pad(MARKER.len() as u64)?;
    let index = to_json(&collection.index);
    packer.file(b"index.json", index.len() as u64)?;
    packer.write(&index)?;
    packer.pad(index.len() as u64)?;
    let mut contents: Vec<_> = collection.contents.iter().map(|content| (content.descriptor.digest, content)).collect();
    contents.sort_by_key(|(digest, _)| *digest);
    let mut last = "";
    for directory in ["blobs", "blobs/sha256"] {
        packer.directory_header(directory.as_bytes(), &Metadata::root(0o755))?;
    }
    for (digest, content) in contents {
        if !["sha256", last].contains(&digest.algorithm()) {
            last = digest.algorithm();
            packer.directory_header(format!("blobs/{last}").as_bytes(), &Metadata::root(0o755))?;
        }
        let size = content.descriptor.size;
        packer.file(format!("blobs/{}/{}", digest.algorithm(), digest.hex()).as_bytes(), size)?;
        let output = &mut packer.output;
        content.each(store, &mut |bytes| output.write_all(bytes))?;
        packer.pad(size)?;
    }
    packer.write(&[0; 1024])
}
