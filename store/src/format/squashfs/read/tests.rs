//! Images that others made.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::format::testing::World;
use crate::format::{Bounds, Dropped, Imported};
use crate::{Metadata as NodeMetadata, Name, Node, Store, TreeId};

/// A file with these bytes that has no name.
pub(super) fn file_with(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
    file
}

/// Whether a program of squashfs-tools is here.
fn have(program: &str) -> bool {
    let found = Command::new(program).arg("-version").output().is_ok();
    if !found {
        eprintln!("skipped: no {program}");
    }
    found
}

/// A directory with what an ordinary user can make: files around the size of a block, equal and sparse ones, links, a pipe.
fn sources() -> tempfile::TempDir {
    const BLOCK: usize = 128 * 1024;
    let sources = tempfile::tempdir().unwrap();
    let path = |text: &str| sources.path().join(text);
    let text: Vec<u8> = (0..30_000_u32).flat_map(|number| format!("line {number}\n").into_bytes()).collect();
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(2 * BLOCK + 77)
    .collect();
    fs::create_dir_all(path("a/b/c")).unwrap();
    fs::create_dir(path("empty")).unwrap();
    for size in [0, 1, 4095, BLOCK - 1, BLOCK, BLOCK + 1, text.len()] {
        fs::write(path(&format!("text-{size}")), &text[..size]).unwrap();
    }
    fs::write(path("noise"), &noise).unwrap();
    fs::write(path("a/equal"), &noise).unwrap();
    fs::write(path("a/zeros"), vec![0; 3 * BLOCK + 5]).unwrap();
    fs::write(path("a/sparse"), [&[0; 2 * BLOCK][..], b"end"].concat()).unwrap();
    fs::write(path("a/b/c/deep"), "deep").unwrap();
    fs::hard_link(path("a/b/c/deep"), path("a/link")).unwrap();
    fs::set_permissions(path("a/b/c/deep"), fs::Permissions::from_mode(0o4750)).unwrap();
    std::os::unix::fs::symlink("b/c/../c/deep", path("a/symlink")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), rustix::fs::Mode::RUSR).unwrap();
    // More entries than fit into a run, and into a block of metadata.
    for number in 0..300 {
        fs::write(path(&format!("empty/{number:0100}")), (number % 2).to_string()).unwrap();
    }
    // Where the file system takes none, the image has none.
    let flags = rustix::fs::XattrFlags::empty();
    let _ = rustix::fs::lsetxattr(path("noise"), "user.test", b"value", flags);
    let _ = rustix::fs::lsetxattr(path("a"), "user.long", &[b'x'; 3000], flags);
    sources
}

/// What lies in a directory on disk, as a tree of the store.
fn on_disk(store: &Store, path: &Path) -> TreeId {
    let mut entries = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let metadata = metadata_on_disk(&entry.path());
        let kind = entry.file_type().unwrap();
        let node = if kind.is_dir() {
            Node::Directory(on_disk(store, &entry.path()))
        } else if kind.is_symlink() {
            use std::os::unix::ffi::OsStringExt;
            let target = fs::read_link(entry.path()).unwrap().into_os_string().into_vec();
            Node::Symlink { target, uid: metadata.uid, gid: metadata.gid }
        } else if kind.is_file() {
            let (blob, size) = store.put_blob_from(&mut File::open(entry.path()).unwrap(), false).unwrap();
            Node::File(crate::File { blob, size, metadata })
        } else {
            Node::Fifo(metadata)
        };
        entries.insert(Name::new(entry.file_name().into_encoded_bytes()).unwrap(), node);
    }
    store.put_tree(&crate::Tree { metadata: metadata_on_disk(path), entries }).unwrap()
}

fn metadata_on_disk(path: &Path) -> NodeMetadata {
    use std::os::unix::fs::MetadataExt;
    let stat = fs::symlink_metadata(path).unwrap();
    let attributes = crate::directory::Marks::of(path).unwrap().attributes;
    NodeMetadata { mode: (stat.mode() & 0o7777) as u16, uid: stat.uid(), gid: stat.gid(), attributes }
}

fn extract(store: &Store, path: &Path) -> Result<Imported> {
    let artifact = Artifact::open(path)?;
    Image::of(&artifact)?.extract(store, &Bounds::for_size(artifact.size()))
}

/// Makes an image with these options; none if the tool does not know them.
fn made(image: &Path, sources: &Path, options: &[&str]) -> Option<()> {
    let _ = fs::remove_file(image);
    let output =
        Command::new("mksquashfs").arg(sources).arg(image).args(["-quiet", "-no-progress"]).args(options).output();
    let output = output.unwrap();
    if !output.status.success() {
        eprintln!("skipped: mksquashfs does not know {options:?}");
        return None;
    }
    Some(())
}

#[test]
fn images_by_mksquashfs_are_read_whatever_their_compression_and_options() {
    if !have("mksquashfs") {
        return;
    }
    let (world, sources) = (World::new(), sources());
    let expected = on_disk(&world.store, sources.path());
    let image = world.directory.path().join("image");
    let mut read = Vec::new();
    let compressions = ["gzip", "lzma", "lzo", "xz", "lz4", "zstd"].map(|name| vec!["-comp", name]);
    let options: [&[&str]; 16] = [
        &["-comp", "lz4", "-Xhc"],
        &["-comp", "xz", "-Xbcj", "x86"],
        &["-comp", "gzip", "-b", "4096"],
        &["-comp", "zstd", "-b", "1M", "-Xcompression-level", "19"],
        &["-noI"],
        &["-noD"],
        &["-noF"],
        &["-noX"],
        &["-noI", "-noId", "-noD", "-noF", "-noX"],
        &["-no-fragments"],
        &["-always-use-fragments"],
        &["-no-duplicates"],
        &["-no-exports"],
        &["-no-sparse"],
        &["-no-hardlinks"],
        &["-nopad"],
    ];
    for options in compressions.iter().map(Vec::as_slice).chain(options) {
        if made(&image, sources.path(), options).is_none() {
            continue;
        }
        let elsewhere = World::new();
        let imported = extract(&elsewhere.store, &image).unwrap_or_else(|error| panic!("{options:?}: {error}"));
        assert_eq!(imported.root, expected, "{options:?}");
        assert_eq!((imported.formation, imported.dropped), (None, Dropped::default()));
        let opened = Image::of(&Artifact::open(&image).unwrap()).unwrap();
        read.push(opened.superblock().codec.name());
    }
    read.sort_unstable();
    read.dedup();
    // Every squashfs-tools has this one; others say above that they were skipped.
    assert!(read.contains(&"gzip"), "{read:?}");
}
