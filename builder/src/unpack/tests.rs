use std::io::Write;

use store::nix::hash::{HashAlgorithm, HashFormat};

use super::*;
use crate::world::World;

/// A tar archive in the making.
struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// An entry; its name and target are written as they are.
    fn put(mut self, name: &str, kind: tar::EntryType, mode: u32, content: &[u8], target: &str) -> Self {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_mtime(1_700_000_000);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, name: &str, mode: u32, content: &[u8]) -> Self {
        self.put(name, tar::EntryType::Regular, mode, content, "")
    }

    fn directory(self, name: &str) -> Self {
        self.put(name, tar::EntryType::Directory, 0o755, b"", "")
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn unpacked_as(bytes: &[u8]) -> std::result::Result<(String, i64), String> {
    let world = World::new();
    let builder = world.builder();
    let blob = builder.store.put_blob(bytes, false).unwrap();
    let unpacked = unpack(&builder, blob, "archive").map_err(|error| error.to_string())?;
    let hash = builder.store.nar_hash(&Node::Directory(unpacked.tree), HashAlgorithm::Sha256).unwrap();
    Ok((hash.to_text(HashFormat::Sri, true), unpacked.modified))
}

/// What `example` holds, laid out on disk and hashed as Nix hashes it.
fn expected() -> String {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path();
    std::fs::create_dir_all(top.join("d/empty")).unwrap();
    std::fs::write(top.join("a"), "words\n").unwrap();
    std::fs::write(top.join("d/x"), "run\n").unwrap();
    std::fs::set_permissions(top.join("d/x"), std::fs::Permissions::from_mode(0o755)).unwrap();
    symlink("../a", top.join("d/l")).unwrap();
    let files = &store::nix::nar::Disk;
    store::nix::nar::hash_archive(files, top, HashAlgorithm::Sha256, &mut |_, _| Ok(true))
        .unwrap()
        .to_text(HashFormat::Sri, true)
}

fn example() -> Vec<u8> {
    Tar::new()
        .directory("top/")
        .file("top/a", 0o664, b"words\n")
        .directory("top/d/empty")
        .file("top/d/x", 0o4711, b"run\n")
        .put("top/d/l", tar::EntryType::Symlink, 0o777, b"", "../a")
        .bytes()
}

#[test]
fn one_tree_comes_out_whatever_it_was_packed_with() {
    let tar = example();
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&tar).unwrap();
        encoder.finish().unwrap()
    };
    let xz = liblzma::encode_all(&tar[..], 1).unwrap();
    let zstd = zstd::encode_all(&tar[..], 1).unwrap();
    for bytes in [tar, gzip, xz, zstd] {
        assert_eq!(unpacked_as(&bytes), Ok((expected(), 1_700_000_000)));
    }
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let time = zip::DateTime::from_date_and_time(2023, 11, 14, 22, 13, 20).unwrap();
    let options = |mode| zip::write::SimpleFileOptions::default().unix_permissions(mode).last_modified_time(time);
    zip.start_file("top/a", options(0o644)).unwrap();
    zip.write_all(b"words\n").unwrap();
    zip.add_directory("top/d/empty", options(0o755)).unwrap();
    zip.start_file("top/d/x", options(0o700)).unwrap();
    zip.write_all(b"run\n").unwrap();
    zip.add_symlink("top/d/l", "../a", options(0o777)).unwrap();
    let zip = zip.finish().unwrap().into_inner();
    assert_eq!(unpacked_as(&zip), Ok((expected(), 1_700_000_000)));
}

#[test]
fn only_a_single_directory_is_looked_into() {
    let hash = |tar: Tar| unpacked_as(&tar.bytes()).unwrap().0;
    let flat = hash(Tar::new().file("a", 0o644, b"1").file("b", 0o644, b"2"));
    assert_eq!(hash(Tar::new().file("t/a", 0o644, b"1").file("t/b", 0o644, b"2")), flat);
    assert_eq!(hash(Tar::new().directory("./").file("./t/a", 0o644, b"1").file("./t/b", 0o644, b"2")), flat);
    // Only once.
    let twice = hash(Tar::new().file("t/u/a", 0o644, b"1").file("t/u/b", 0o644, b"2"));
    assert_ne!(twice, flat);
    assert_eq!(twice, hash(Tar::new().file("other/u/a", 0o644, b"1").file("other/u/b", 0o644, b"2")));
}

#[test]
fn a_hard_link_is_an_equal_file() {
    let link = Tar::new().file("a", 0o644, b"1").put("b", tar::EntryType::Link, 0o644, b"", "a").bytes();
    let plain = Tar::new().file("a", 0o644, b"1").file("b", 0o644, b"1").bytes();
    assert_eq!(unpacked_as(&link), unpacked_as(&plain));
}

#[test]
fn hostile_archives_are_refused() {
    let symlink = |target| Tar::new().put("l", tar::EntryType::Symlink, 0o777, b"", target);
    let cases = [
        ("a name that leads out", Tar::new().file("../x", 0o644, b"").bytes()),
        ("one that leads out later", Tar::new().file("a/../../x", 0o644, b"").bytes()),
        ("a file through a symlink", symlink("/tmp").file("l/x", 0o644, b"").bytes()),
        ("a link to outside", Tar::new().put("l", tar::EntryType::Link, 0o644, b"", "/etc/passwd").bytes()),
        ("a link that leads out", Tar::new().put("l", tar::EntryType::Link, 0o644, b"", "../x").bytes()),
        ("a symlink to nowhere", symlink("").bytes()),
        ("a fifo", Tar::new().put("f", tar::EntryType::Fifo, 0o644, b"", "").bytes()),
        ("a device", Tar::new().put("d", tar::EntryType::Char, 0o644, b"", "").bytes()),
        ("no archive", b"words, not an archive".to_vec()),
        ("nothing", Vec::new()),
        ("half an archive", example()[..1500].to_vec()),
    ];
    for (what, bytes) in cases {
        assert!(unpacked_as(&bytes).is_err(), "{what}");
    }
    // Deeper than any Nix archive: a name that long needs GNU's header.
    let mut deep = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o644);
    deep.append_data(&mut header, format!("{}x", "d/".repeat(70)), &b""[..]).unwrap();
    assert!(unpacked_as(&deep.into_inner().unwrap()).unwrap_err().contains("too deep"));
}

#[test]
fn a_bomb_is_refused_before_it_goes_off() {
    // A header that promises more than any disk holds, and nothing behind it.
    let mut header = tar::Header::new_gnu();
    header.set_path("bomb").unwrap();
    header.set_mode(0o644);
    header.set_size(1 << 50);
    header.set_cksum();
    let error = unpacked_as(header.as_bytes()).unwrap_err();
    assert!(error.contains("bytes") || error.contains("large"), "{error}");
}

#[test]
fn hostile_zips_are_refused() {
    let make = |name: &str, mode: Option<u32>, content: &[u8]| {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default();
        let options = mode.map_or(options, |mode| options.unix_permissions(mode));
        zip.start_file(name, options).unwrap();
        zip.write_all(content).unwrap();
        zip.finish().unwrap().into_inner()
    };
    assert!(unpacked_as(&make("a", None, b"x")).is_ok());
    for name in ["../x", "a/../../x", "a/./../../x"] {
        assert!(unpacked_as(&make(name, None, b"x")).is_err(), "{name}");
    }
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    zip.add_symlink("l", "/tmp", options).unwrap();
    zip.start_file("l/x", options).unwrap();
    let through = zip.finish().unwrap().into_inner();
    assert!(unpacked_as(&through).is_err());
    let whole = make("a", None, &b"words ".repeat(1000));
    for length in (0..whole.len()).step_by(7) {
        assert!(unpacked_as(&whole[..length]).is_err(), "{length}");
    }
    // Any byte changed: an error or something, never a panic.
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x41;
        let _ = unpacked_as(&changed);
    }
}
