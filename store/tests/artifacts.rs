//! What others read of the artifacts we write: `unsquashfs`, the kernel, backhand, `tar`. Where a reader is missing the test says so.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use store::directory::Record;
use store::format::{self, Options};
use store::{File, Formation, FormationId, Launch, Metadata, Name, Node, Store, Tree, TreeId};

/// Sizes around what squashfs treats differently: nothing, a fragment, a block, a block and a fragment, several blocks.
const SIZES: [usize; 8] = [0, 1, 4095, 131_071, 131_072, 131_073, 262_144, 1_000_003];

fn name(text: &[u8]) -> Name {
    Name::new(text).unwrap()
}

/// Bytes that do not compress to nothing, different for each seed.
fn content(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8 & 0x3f
    };
    (0..size).map(|_| step()).collect()
}

fn file(store: &Store, bytes: &[u8], mode: u16) -> Node {
    let blob = store.put_blob(bytes, mode & 0o111 != 0).unwrap();
    Node::File(File { blob, size: bytes.len() as u64, metadata: Metadata::root(mode) })
}

fn directory(store: &Store, metadata: Metadata, entries: BTreeMap<Name, Node>) -> TreeId {
    store.put_tree(&Tree { metadata, entries }).unwrap()
}

/// One of everything.
fn everything(store: &Store) -> TreeId {
    let mut sizes = BTreeMap::new();
    for (number, size) in SIZES.into_iter().enumerate() {
        sizes.insert(name(size.to_string().as_bytes()), file(store, &content(size, number as u64), 0o644));
    }
    let mut sparse = content(131_072, 99);
    sparse.extend(vec![0; 3 * 131_072]);
    sparse.extend(b"end");
    sizes.insert(name(b"sparse"), file(store, &sparse, 0o600));
    sizes.insert(name(b"zeros"), file(store, &vec![0; 2 * 131_072], 0o644));
    sizes.insert(name(b"twin"), file(store, &content(1_000_003, 7), 0o444));
    let mut many = BTreeMap::new();
    for number in 0..1500 {
        many.insert(
            name(format!("entry-{number:05}").as_bytes()),
            file(store, format!("{number}\n").as_bytes(), 0o644),
        );
    }
    let mut attributes = Metadata::root(0o755);
    attributes.attributes.insert(b"user.note".to_vec(), b"hello".to_vec());
    attributes.attributes.insert(b"security.capability".to_vec(), {
        // cap_net_raw+ep, revision 2.
        let mut capability = 0x0200_0001_u32.to_le_bytes().to_vec();
        capability.extend([0x00, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        capability
    });
    let blob = store.put_blob(b"#!/bin/sh\n", true).unwrap();
    let capable = Node::File(File { blob, size: 10, metadata: attributes });
    let special = BTreeMap::from([
        (name(b"fifo"), Node::Fifo(Metadata::root(0o620))),
        (name(b"null"), Node::Device { block: false, major: 1, minor: 3, metadata: Metadata::root(0o666) }),
        (name(b"disk"), Node::Device { block: true, major: 259, minor: 70_000, metadata: Metadata::root(0o660) }),
        (name(b"link"), Node::Symlink { target: b"../sizes/1".to_vec(), uid: 0, gid: 0 }),
        (name(b"long"), Node::Symlink { target: vec![b'x'; 250], uid: 0, gid: 0 }),
        (name(b"capable"), capable),
        (name(b"setuid"), file(store, b"x", 0o4755)),
        (name(b"n\xc3\xa4me with \xff and \n"), file(store, b"bytes", 0o644)),
        (name(&[b'l'; 255]), file(store, b"long name", 0o644)),
    ]);
    let owned = Metadata { uid: 70_000, gid: 42, ..Metadata::root(0o2750) };
    directory(
        store,
        Metadata::root(0o755),
        BTreeMap::from([
            (name(b"sizes"), Node::Directory(directory(store, Metadata::root(0o755), sizes))),
            (name(b"many"), Node::Directory(directory(store, Metadata::root(0o755), many))),
            (name(b"special"), Node::Directory(directory(store, owned, special))),
            (name(b"empty"), Node::Directory(directory(store, Metadata::root(0o1777), BTreeMap::new()))),
        ]),
    )
}

fn formation(store: &Store, root: TreeId) -> FormationId {
    let launch = Launch { command: vec![b"/bin/true".to_vec()], ..Launch::default() };
    let (name, version, platform) = ("everything".to_owned(), "1".to_owned(), "linux/amd64".to_owned());
    let variant = String::new();
    store.put_formation(&Formation { name, version, variant, platform, root, launch }, &Record::default()).unwrap()
}

struct World {
    directory: tempfile::TempDir,
    store: Store,
    formation: FormationId,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("store")).unwrap();
        let formation = formation(&store, everything(&store));
        Self { directory, store, formation }
    }

    fn pack(&self, format: &str) -> Vec<u8> {
        let format = format::ALL.iter().find(|known| known.name() == format).unwrap();
        let mut bytes = Vec::new();
        format.pack(&self.store, self.formation, &Options::default(), &mut bytes).unwrap();
        bytes
    }

    fn write(&self, format: &str) -> std::path::PathBuf {
        let path = self.directory.path().join(format!("artifact.{format}"));
        fs::write(&path, self.pack(format)).unwrap();
        path
    }
}

fn have(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap().status.success();
    if !found {
        eprintln!("skipped: no `{program}` here");
    }
    found
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

/// Compares what a reader laid out with what went in.
fn compare(root: &Path) {
    for (number, size) in SIZES.into_iter().enumerate() {
        let bytes = fs::read(root.join("sizes").join(size.to_string())).unwrap();
        assert!(bytes == content(size, number as u64), "sizes/{size} differs");
    }
    let sparse = fs::read(root.join("sizes/sparse")).unwrap();
    assert_eq!((sparse.len(), &sparse[4 * 131_072..]), (4 * 131_072 + 3, &b"end"[..]));
    assert!(sparse[131_072..4 * 131_072].iter().all(|byte| *byte == 0));
    assert_eq!(fs::read(root.join("sizes/zeros")).unwrap(), vec![0; 2 * 131_072]);
    assert_eq!(fs::read_dir(root.join("many")).unwrap().count(), 1500);
    assert_eq!(fs::read(root.join("many/entry-01499")).unwrap(), b"1499\n");
    assert_eq!(fs::read_link(root.join("special/link")).unwrap(), Path::new("../sizes/1"));
    assert_eq!(fs::read_link(root.join("special/long")).unwrap().as_os_str().len(), 250);
    let metadata = |path: &str| fs::symlink_metadata(root.join(path)).unwrap();
    assert_eq!(metadata("special/setuid").permissions().mode() & 0o7777, 0o4755);
    assert_eq!(metadata("empty").permissions().mode() & 0o7777, 0o1777);
    assert!(metadata("special/fifo").file_type().is_fifo());
    assert_eq!(metadata("special").mtime(), i64::from(format::TIME));
    if rustix::process::geteuid().is_root() {
        assert_eq!((metadata("special").uid(), metadata("special").gid()), (70_000, 42));
        assert!(metadata("special/null").file_type().is_char_device());
        let disk = metadata("special/disk").rdev();
        assert_eq!((rustix::fs::major(disk), rustix::fs::minor(disk)), (259, 70_000));
    }
    let names: Vec<_> = fs::read_dir(root.join("special")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let odd = std::os::unix::ffi::OsStrExt::from_bytes(&b"n\xc3\xa4me with \xff and \n"[..]);
    let odd: &std::ffi::OsStr = odd;
    assert!(names.iter().any(|name| name == odd), "{names:?}");
}

#[test]
fn unsquashfs_reads_our_squashfs() {
    let world = World::new();
    if !have("unsquashfs") || !is_root() {
        return;
    }
    let (image, out) = (world.write("squashfs"), world.directory.path().join("out"));
    let output = Command::new("unsquashfs").arg("-d").arg(&out).arg(&image).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    compare(&out);
}

#[test]
fn the_kernel_mounts_our_squashfs() {
    let world = World::new();
    if !is_root() {
        return;
    }
    let (image, out) = (world.write("squashfs"), world.directory.path().join("mount"));
    fs::create_dir(&out).unwrap();
    let mount = Command::new("mount").args(["-t", "squashfs", "-o", "loop,ro"]).arg(&image).arg(&out).output().unwrap();
    if !mount.status.success() {
        eprintln!("skipped: {}", String::from_utf8_lossy(&mount.stderr));
        return;
    }
    let result = std::panic::catch_unwind(|| {
        compare(&out);
        let mut value = [0; 64];
        let length = rustix::fs::getxattr(out.join("special/capable"), "user.note", &mut value).unwrap();
        assert_eq!(&value[..length], b"hello");
        let mut value = vec![0; 4096];
        let length = rustix::fs::getxattr(&out, "user.forge.formation", &mut value).unwrap();
        assert_eq!(Formation::id_of(&value[..length]), world.formation);
    });
    assert!(Command::new("umount").arg(&out).status().unwrap().success());
    result.unwrap();
}

#[test]
fn backhand_reads_our_squashfs() {
    let world = World::new();
    let image = world.pack("squashfs");
    let reader = backhand::FilesystemReader::from_reader(std::io::Cursor::new(&image)).unwrap();
    let mut checked = 0;
    for node in reader.files() {
        let Some(size) = node.fullpath.strip_prefix("/sizes").ok().and_then(|name| name.to_str()?.parse().ok()) else {
            continue;
        };
        let backhand::InnerNode::File(file) = &node.inner else { panic!("{:?} is no file", node.fullpath) };
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut reader.file(file).reader(), &mut bytes).unwrap();
        let number = SIZES.iter().position(|known| *known == size).unwrap();
        assert!(bytes == content(size, number as u64), "sizes/{size} differs");
        checked += 1;
    }
    assert_eq!(checked, SIZES.len());
}

#[test]
fn tar_reads_our_tar() {
    let world = World::new();
    if !is_root() {
        return;
    }
    let (archive, out) = (world.write("tar"), world.directory.path().join("out"));
    fs::create_dir(&out).unwrap();
    let output =
        Command::new("tar").args(["--numeric-owner", "-xpf"]).arg(&archive).arg("-C").arg(&out).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && words.is_empty(), "{words}");
    compare(&out);
}

#[test]
fn equal_formations_give_equal_bytes() {
    let (first, second) = (World::new(), World::new());
    assert_eq!(first.formation, second.formation);
    for format in format::ALL {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let one_thread = pool.install(|| first.pack(format.name()));
        assert!(one_thread == second.pack(format.name()), "{} differs", format.name());
    }
}

#[test]
fn an_empty_root_can_be_packed() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("store")).unwrap();
    let formation = formation(&store, store.put_tree(&Tree::empty()).unwrap());
    for format in format::ALL {
        let mut bytes = Vec::new();
        format.pack(&store, formation, &Options::default(), &mut bytes).unwrap();
        assert!(!bytes.is_empty());
    }
}

/// Enough that its listing has an index: names are looked up in one block of it, not in all before.
#[test]
fn the_kernel_finds_every_name_in_a_large_directory() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("store")).unwrap();
    let empty = file(&store, b"", 0o644);
    let entries = (0..100_000).map(|number: u32| (name(format!("entry-{number}").as_bytes()), empty.clone())).collect();
    let large = Node::Directory(self::directory(&store, Metadata::root(0o755), entries));
    let root = self::directory(&store, Metadata::root(0o755), BTreeMap::from([(name(b"large"), large)]));
    let image = directory.path().join("image");
    let mut bytes = Vec::new();
    let squashfs = format::ALL.iter().find(|format| format.name() == "squashfs").unwrap();
    squashfs.pack(&store, formation(&store, root), &Options::default(), &mut bytes).unwrap();
    fs::write(&image, bytes).unwrap();
    if have("unsquashfs") {
        let output = Command::new("unsquashfs").args(["-l"]).arg(&image).output().unwrap();
        let list = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(list.lines().filter(|line| line.contains("/large/entry-")).count(), 100_000);
    }
    let out = directory.path().join("mount");
    fs::create_dir(&out).unwrap();
    let mount = Command::new("mount").args(["-t", "squashfs", "-o", "loop,ro"]).arg(&image).arg(&out).output().unwrap();
    if !mount.status.success() {
        eprintln!("skipped: {}", String::from_utf8_lossy(&mount.stderr));
        return;
    }
    let result = std::panic::catch_unwind(|| {
        for number in (0..100_000).step_by(97).chain([99_999]) {
            assert!(out.join(format!("large/entry-{number}")).exists(), "entry-{number} is not found");
        }
        for missing in ["a", "entry-", "entry-5000x", "entry-100000", "z"] {
            assert!(!out.join("large").join(missing).exists());
        }
        assert_eq!(fs::read_dir(out.join("large")).unwrap().count(), 100_000);
    });
    assert!(Command::new("umount").arg(&out).status().unwrap().success());
    result.unwrap();
}

/// Lays an image out with a command, if it is here, and compares.
fn read_by(program: &str, arguments: &dyn Fn(&Path, &Path) -> Vec<std::ffi::OsString>) {
    let world = World::new();
    if !have(program) || !is_root() {
        return;
    }
    let (image, out) = (world.write("squashfs"), world.directory.path().join("out"));
    fs::create_dir(&out).unwrap();
    let output = Command::new(program).args(arguments(&image, &out)).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (number, size) in SIZES.into_iter().enumerate() {
        let bytes = fs::read(out.join("sizes").join(size.to_string())).unwrap();
        assert!(bytes == content(size, number as u64), "sizes/{size} differs");
    }
    assert_eq!(fs::read_dir(out.join("many")).unwrap().count(), 1500);
    assert_eq!(fs::read(out.join("many/entry-01499")).unwrap(), b"1499\n");
}

#[test]
fn seven_zip_reads_our_squashfs() {
    read_by("7z", &|image, out| {
        let target = std::ffi::OsString::from(format!("-o{}", out.display()));
        // What it cannot make (devices, names that are no text) it leaves out.
        vec!["x".into(), "-y".into(), target, image.into(), "sizes".into(), "many".into()]
    });
}

#[test]
fn squashfuse_reads_our_squashfs() {
    let world = World::new();
    if !have("squashfuse") || !is_root() || !Path::new("/dev/fuse").exists() {
        return;
    }
    let (image, out) = (world.write("squashfs"), world.directory.path().join("mount"));
    fs::create_dir(&out).unwrap();
    let mount = Command::new("squashfuse").arg(&image).arg(&out).output().unwrap();
    if !mount.status.success() {
        eprintln!("skipped: {}", String::from_utf8_lossy(&mount.stderr));
        return;
    }
    let result = std::panic::catch_unwind(|| compare(&out));
    assert!(Command::new("umount").arg(&out).status().unwrap().success());
    result.unwrap();
}

/// The same bytes on every machine and in every year. What differs is shown as the fixture would have to say it.
#[test]
fn the_bytes_are_those_that_were_written_down() {
    let world = World::new();
    let empty = formation(&world.store, world.store.put_tree(&Tree::empty()).unwrap());
    let mut actual = String::new();
    for (what, id) in [("empty", empty), ("everything", world.formation)] {
        for (format, compressions) in
            [("squashfs", &["zstd:3", "zstd:19", "gzip:9"][..]), ("sif", &["zstd:3"]), ("tar", &["zstd:3"])]
        {
            let writer = format::ALL.iter().find(|known| known.name() == format).unwrap();
            for compression in compressions {
                let options = Options { compression: compression.parse().unwrap(), ..Options::default() };
                let mut bytes = Vec::new();
                writer.pack(&world.store, id, &options, &mut bytes).unwrap();
                actual += &format!("\"{what} {format} {compression}\" = \"{}\"\n", store::BlobId::of(&bytes));
            }
        }
    }
    let fixture = include_str!("../../fixtures/artifacts/digests.toml");
    let expected: String =
        fixture.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    assert!(actual == expected, "the bytes have changed:\n{actual}");
}
