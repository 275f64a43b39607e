//! Archives made by hand, and by GNU tar.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::format::testing::World;
use crate::format::{Bounds, Imported};
use crate::{BlobId, Error, Metadata, Name, Node, Tree};

/// A header with a right checksum.
fn header(path: &str, kind: u8, size: u64, target: &str) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    block[..path.len()].copy_from_slice(path.as_bytes());
    block[100..107].copy_from_slice(b"0000644");
    block[108..115].copy_from_slice(b"0000007");
    block[116..123].copy_from_slice(b"0000010");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[156] = kind;
    block[157..157 + target.len()].copy_from_slice(target.as_bytes());
    block[257..265].copy_from_slice(b"ustar\x0000");
    sign(&mut block);
    block
}

fn sign(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u64 = block[..BLOCK].iter().map(|byte| u64::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

fn with_content(mut header: Vec<u8>, content: &[u8]) -> Vec<u8> {
    header.extend(content);
    header.resize(header.len().next_multiple_of(BLOCK), 0);
    header
}

fn file(path: &str, content: &[u8]) -> Vec<u8> {
    with_content(header(path, b'0', content.len() as u64, ""), content)
}

fn pax(kind: u8, records: &[(&str, &[u8])]) -> Vec<u8> {
    let records: Vec<u8> =
        records.iter().flat_map(|(key, value)| super::super::record(key.as_bytes(), value)).collect();
    with_content(header("pax", kind, records.len() as u64, ""), &records)
}

fn archive(parts: &[Vec<u8>]) -> Vec<u8> {
    [&parts.concat()[..], &[0; 1024]].concat()
}

/// What a test reads, and where it lies.
fn read_in(world: &World, bytes: &[u8]) -> crate::Result<Imported> {
    let bounds = Bounds { bytes: 100 << 20, entries: 1000, depth: 50 };
    super::super::read_stream(&world.store, &mut &bytes[..], "test", &bounds)
}

fn read(parts: &[Vec<u8>]) -> (World, Tree, Imported) {
    let world = World::new();
    let imported = read_in(&world, &archive(parts)).unwrap();
    let root = Tree::clone(&*world.store.tree(imported.root).unwrap());
    (world, root, imported)
}

#[track_caller]
fn refused(parts: &[Vec<u8>], why: &str) {
    let error = read_in(&World::new(), &archive(parts)).unwrap_err();
    assert!(matches!(error, Error::Archive { .. }), "{error:?}");
    assert!(error.to_string().contains(why), "{error}");
}

fn blob(node: &Node) -> BlobId {
    let Node::File(file) = node else { panic!("not a file: {node:?}") };
    file.blob
}

#[test]
fn later_entries_win_and_links_are_equal_entries() {
    let (_world, root, _) = read(&[
        file("./a", b"one"),
        header("hard", b'1', 0, "a"),
        file("/a", b"two"),
        header("link", b'2', 0, "nowhere"),
        // V7: a directory is a file with a slash at its end.
        header("old/", 0, 0, ""),
        file("old/b", b"three"),
        header("link", b'6', 0, ""),
    ]);
    assert_eq!(blob(&root.entries[&b"a"[..]]), BlobId::of(b"two"));
    assert_eq!(blob(&root.entries[&b"hard"[..]]), BlobId::of(b"one"));
    let owner = Metadata { mode: 0o644, uid: 7, gid: 8, attributes: BTreeMap::new() };
    assert_eq!(root.entries[&b"link"[..]], Node::Fifo(owner));
    assert!(matches!(root.entries[&b"old"[..]], Node::Directory(_)));
}

#[test]
fn long_names_come_in_three_ways() {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
    let gnu = |kind| with_content(header("././@LongLink", kind, 241, ""), format!("{long}\0").as_bytes());
    let mut split = header(&"f".repeat(99), b'0', 0, "");
    split[345..345 + 150].copy_from_slice(&[b'd'; 150]);
    sign(&mut split);
    let (world, root, _) = read(&[
        [gnu(b'L'), file("short", b"gnu")].concat(),
        [gnu(b'K'), header("link", b'2', 0, "short")].concat(),
        [pax(b'x', &[("path", b"by/pax"), ("uid", b"4000000"), ("SCHILY.xattr.user.a", b"b\n")]), file("s", b"")]
            .concat(),
        split,
    ]);
    let down = |tree: &Tree, name: &str| match &tree.entries[name.as_bytes()] {
        Node::Directory(id) => Tree::clone(&*world.store.tree(*id).unwrap()),
        other => panic!("{other:?}"),
    };
    assert_eq!(blob(&down(&root, &"d".repeat(120)).entries["f".repeat(120).as_bytes()]), BlobId::of(b"gnu"));
    assert_eq!(root.entries[&b"link"[..]], Node::Symlink { target: long.into_bytes(), uid: 7, gid: 8 });
    assert!(down(&root, &"d".repeat(150)).entries.contains_key("f".repeat(99).as_bytes()));
    let Node::File(by_pax) = &down(&root, "by").entries[&b"pax"[..]] else { panic!("a file") };
    let attributes = BTreeMap::from([(b"user.a".to_vec(), b"b\n".to_vec())]);
    assert_eq!(by_pax.metadata, Metadata { mode: 0o644, uid: 4_000_000, gid: 8, attributes });
}

/// Found by fuzzing: the content of what is no file was given although its size is none.
#[test]
fn what_follows_a_directory_is_passed_and_is_no_content_of_it() {
    let listing = with_content(header("d/", b'D', 5, ""), b"Yfile");
    let bytes = archive(&[listing, file("d/f", b"f")]);
    let mut archive = Archive::new(&bytes[..]);
    let entry = archive.next().unwrap().unwrap();
    assert!(entry.kind == Kind::Directory && entry.size == 0, "{entry:?}");
    let mut content = Vec::new();
    archive.content().read_to_end(&mut content).unwrap();
    assert_eq!(content, b"");
    assert_eq!(archive.next().unwrap().unwrap().path, b"d/f");
}

#[test]
fn what_no_tree_can_hold_is_left_out_and_said() {
    let mut whiteout = header("whiteout", b'3', 0, "");
    whiteout[329..336].copy_from_slice(b"0000000");
    sign(&mut whiteout);
    let (_world, root, imported) = read(&[
        [pax(b'x', &[("SCHILY.xattr.security.selinux", b"x"), ("SCHILY.acl.access", b"user::rw-")]), file("a", b"")]
            .concat(),
        whiteout,
        header("volume", b'V', 0, ""),
        with_content(header("odd", b'Z', 3, ""), b"abc"),
        // A byte more than a name and a value of an attribute may have.
        [
            pax(b'x', &[(&format!("SCHILY.xattr.user.{}", "a".repeat(251)), b"x"), ("SCHILY.xattr.user.ok", b"x")]),
            file("b", b""),
        ]
        .concat(),
        [pax(b'x', &[("SCHILY.xattr.user.long", &[b'v'; 65_537])]), file("c", b"")].concat(),
    ]);
    assert_eq!(root.entries.len(), 3);
    let kept = |name: &str| {
        let Node::File(file) = &root.entries[&Name::new(name.as_bytes()).unwrap()] else { panic!("{name}") };
        file.metadata.attributes.len()
    };
    assert_eq!((kept("b"), kept("c")), (1, 0));
    let kinds: Vec<&str> = imported.dropped.0.keys().map(String::as_str).collect();
    let expected = [
        "ACL that is written as text",
        "attribute security.selinux",
        "attribute that is longer than Linux has",
        "device 0:0 (a whiteout)",
        "entry of kind `Z`",
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn hostile_archives_are_refused() {
    for path in ["../a", "a/../../b", "a/.."] {
        refused(&[file(path, b"x")], "no path below a root");
    }
    refused(&[header("l", b'2', 0, "/etc"), file("l/passwd", b"x")], "through a symbolic link");
    refused(&[file("f", b""), file("f/below", b"x")], "not a directory");
    refused(&[header("h", b'1', 0, "not/there")], "what is not there");
    refused(&[header("h", b'1', 0, "../../etc/passwd")], "no path below a root");
    refused(&[header("l", b'2', 0, "")], "leads to no path");
    let target = "d/".repeat(2048);
    refused(&[pax(b'x', &[("linkpath", target.as_bytes())]), header("l", b'2', 0, "x")], "longer than Linux has");
    refused(&[deep()], "too deep");
    // What is said of an absurd path is still one line.
    let absurd = [pax(b'x', &[("path", "d/".repeat(200_000).as_bytes())]), header("x", b'5', 0, "")].concat();
    let error = read_in(&World::new(), &archive(&[absurd])).unwrap_err().to_string();
    assert!(error.len() < 500 && error.contains("too deep"), "{error}");
    refused(&(0..1001).map(|number| file(&number.to_string(), b"")).collect::<Vec<_>>(), "more entries");
    refused(&[header("big", b'0', 1 << 30, "")], "more bytes");
    refused(&[header("long", b'L', 1 << 30, "")], "headers have no end");
    refused(&vec![pax(b'x', &[("a", b"b")]); 20_000], "headers have no end");
    refused(&[pax(b'x', &[("size", b"-1")]), file("a", b"")], "not a number");
    refused(&[with_content(header("pax", b'x', 9, ""), b"99 path=a")], "pax record");
    refused(&[header("m", b'M', 0, "")], "another volume");
    let mut wrong = file("a", b"x");
    wrong[0] = b'b';
    refused(&[wrong], "checksum");
}

fn deep() -> Vec<u8> {
    let path = "d/".repeat(60);
    [pax(b'x', &[("path", path.as_bytes())]), header("x", b'5', 0, "")].concat()
}

#[test]
fn cut_and_changed_archives_are_read_or_refused() {
    let good =
        archive(&[file("a", b"content"), pax(b'x', &[("path", b"b")]), header("l", b'2', 0, "a"), file("c", b"")]);
    let world = World::new();
    let whole = read_in(&world, &good).unwrap().root;
    // Only the two empty blocks at the end may be missing.
    for length in (0..good.len()).step_by(37) {
        let read = read_in(&world, &good[..length]);
        assert!(read.is_err() || length % BLOCK == 0 || length > good.len() - 1024, "{length}");
    }
    assert_eq!(read_in(&world, &good[..good.len() - 1024]).unwrap().root, whole);
    let mut state = 1_u64;
    for _ in 0..2000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut changed = good.clone();
        let at = (state >> 33) as usize % changed.len();
        changed[at] = (state >> 20) as u8;
        // So that more than the checksum is tried.
        for block in (0..changed.len()).step_by(BLOCK) {
            if is_header(&good[block..]) {
                sign(&mut changed[block..block + BLOCK]);
            }
        }
        let _ = read_in(&world, &changed);
    }
}

/// GNU tar's own archives, in every format that it has.
#[test]
fn archives_by_gnu_tar_are_read_in_every_format() {
    let version = Command::new("tar").arg("--version").output();
    if !version.is_ok_and(|output| output.stdout.starts_with(b"tar (GNU tar)")) {
        eprintln!("skipped: no GNU tar");
        return;
    }
    let sources = tempfile::tempdir().unwrap();
    let path = |text: &str| sources.path().join(text);
    let long = "n".repeat(90);
    fs::create_dir_all(path(&long)).unwrap();
    fs::write(path("file"), "content").unwrap();
    fs::write(path(&format!("{long}/{long}")), "deep").unwrap();
    fs::hard_link(path("file"), path("hard")).unwrap();
    std::os::unix::fs::symlink(Path::new(&long).join(&long), path("link")).unwrap();
    // Holes at the beginning, in the middle and at the end, and more of them than a header has room for.
    let mut sparse = fs::File::create(path("sparse")).unwrap();
    for piece in 1..60 {
        io::Seek::seek(&mut sparse, io::SeekFrom::Start(piece * 65_536)).unwrap();
        sparse.write_all(format!("piece {piece}").as_bytes()).unwrap();
    }
    sparse.set_len(61 * 65_536).unwrap();
    let world = World::new();
    let (expected, _) = world.store.ingest_exact(sources.path()).unwrap();
    let formats: [&[&str]; 7] = [
        &["--format=gnu"],
        &["--format=gnu", "--sparse"],
        &["--format=oldgnu", "--sparse"],
        &["--format=pax"],
        &["--format=pax", "--sparse", "--sparse-version=0.0"],
        &["--format=pax", "--sparse", "--sparse-version=0.1"],
        &["--format=pax", "--sparse", "--sparse-version=1.0"],
    ];
    for options in formats {
        let output = Command::new("tar")
            .args(options)
            .args(["--numeric-owner", "-cf", "-", "-C"])
            .arg(sources.path())
            .arg(".")
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "{options:?}: {}", String::from_utf8_lossy(&output.stderr));
        let imported = read_in(&world, &output.stdout).unwrap_or_else(|error| panic!("{options:?}: {error}"));
        assert_eq!(imported.root, expected, "{options:?}");
    }
}
