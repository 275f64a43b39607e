//! Wheels made in the test, honest and hostile.

use std::io::{Cursor, Write};

use store::{Node, RelativePath};
use zip::write::SimpleFileOptions;

use super::*;
use crate::Error;

const PYTHON: PythonVersion = PythonVersion { major: 3, minor: 11 };
const WHEEL_FILE: &str = "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";

/// A wheel in the making: files with their modes, in order.
struct Making {
    files: Vec<(String, Vec<u8>, u32)>,
    record: Option<String>,
}

impl Making {
    fn new() -> Self {
        Self { files: Vec::new(), record: None }
            .with("hello-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: hello\nVersion: 1.0\n")
            .with("hello-1.0.dist-info/WHEEL", WHEEL_FILE)
    }

    fn with(self, name: &str, text: &str) -> Self {
        self.with_mode(name, text, 0o100644)
    }

    fn with_mode(mut self, name: &str, text: &str, mode: u32) -> Self {
        self.files.retain(|(earlier, _, _)| earlier != name);
        self.files.push((name.to_owned(), text.as_bytes().to_vec(), mode));
        self
    }

    /// With a RECORD of its own instead of a true one.
    fn with_record(mut self, record: impl FnOnce(String) -> String) -> Self {
        self.record = Some(record(self.true_record()));
        self
    }

    fn true_record(&self) -> String {
        let mut record = String::new();
        for (name, bytes, _) in &self.files {
            let sha256: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(bytes).into();
            record += &record_line(name, Some((&sha256, bytes.len() as u64)));
        }
        record + "hello-1.0.dist-info/RECORD,,\n"
    }

    fn bytes(&self) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes, mode) in &self.files {
            let options = SimpleFileOptions::default().unix_permissions(*mode);
            writer.start_file(name.as_str(), options).unwrap();
            writer.write_all(bytes).unwrap();
        }
        let record = self.record.clone().unwrap_or_else(|| self.true_record());
        writer.start_file("hello-1.0.dist-info/RECORD", SimpleFileOptions::default()).unwrap();
        writer.write_all(record.as_bytes()).unwrap();
        writer.finish().unwrap().into_inner()
    }
}

fn install_bytes(store: &Store, bytes: Vec<u8>) -> Result<DeltaId> {
    install(store, Cursor::new(bytes), "hello-1.0-py3-none-any.whl", PYTHON, &|| Ok(()))
}

fn new_store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("store")).unwrap();
    (directory, store)
}

/// Why these bytes are not a wheel.
fn refusal(bytes: Vec<u8>) -> String {
    let (_directory, store) = new_store();
    match install_bytes(&store, bytes) {
        Err(Error::Invalid { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

fn node(store: &Store, root: store::TreeId, path: &str) -> Option<Node> {
    let path = RelativePath::parse(path.as_bytes()).unwrap();
    let mut tree = store.tree(root).unwrap();
    let (last, way) = path.0.split_last().unwrap();
    for name in way {
        let Some(Node::Directory(id)) = tree.entries.get(name) else { return None };
        let id = *id;
        tree = store.tree(id).unwrap();
    }
    tree.entries.get(last).cloned()
}

fn text(store: &Store, root: store::TreeId, path: &str) -> String {
    let Some(Node::File(file)) = node(store, root, path) else { panic!("no file {path}") };
    String::from_utf8(store.blob(file.blob).unwrap()).unwrap()
}

fn mode(store: &Store, root: store::TreeId, path: &str) -> u16 {
    let Some(Node::File(file)) = node(store, root, path) else { panic!("no file {path}") };
    file.metadata.mode
}

#[test]
fn a_wheel_is_laid_out_as_pip_does_on_debian() {
    let (_directory, store) = new_store();
    let wheel = Making::new()
        .with("hello/__init__.py", "print('hello')\n")
        .with_mode("hello/tool.sh", "#!/bin/sh\n", 0o100775)
        .with("hello-1.0.dist-info/entry_points.txt", "[console_scripts]\nhello = hello.cli:main\n")
        .with("hello-1.0.dist-info/INSTALLER", "someone else\n")
        .with("hello-1.0.data/scripts/old", "#!python -s\nimport hello\n")
        .with("hello-1.0.data/scripts/native", "\x7fELF")
        .with("hello-1.0.data/scripts/hello", "#!python\nthe entry point is written instead\n")
        .with("hello-1.0.data/data/share/hello/table.csv", "a,b\n")
        .with("hello-1.0.data/data/man/man1/hello.1", ".TH\n")
        .with("hello-1.0.data/headers/hello.h", "int hello;\n")
        .with("hello-1.0.data/platlib/_hello.so", "ELF");
    let delta = store.delta(install_bytes(&store, wheel.bytes()).unwrap()).unwrap();
    let (tree, packages) = (delta.tree, "usr/local/lib/python3.11/dist-packages");

    assert_eq!(mode(&store, tree, &format!("{packages}/hello/__init__.py")), 0o644);
    assert_eq!(mode(&store, tree, &format!("{packages}/hello/tool.sh")), 0o755);
    assert_eq!(mode(&store, tree, &format!("{packages}/_hello.so")), 0o644);
    assert_eq!(text(&store, tree, "usr/local/bin/old"), "#!/usr/bin/python3.11\nimport hello\n");
    assert_eq!(mode(&store, tree, "usr/local/bin/native"), 0o755);
    assert!(text(&store, tree, "usr/local/bin/hello").contains("from hello.cli import main"));
    assert_eq!(mode(&store, tree, "usr/local/bin/hello"), 0o755);
    assert_eq!(text(&store, tree, "usr/local/share/hello/table.csv"), "a,b\n");
    assert_eq!(text(&store, tree, "usr/local/share/man/man1/hello.1"), ".TH\n");
    assert_eq!(text(&store, tree, "usr/local/include/python3.11/hello/hello.h"), "int hello;\n");
    assert_eq!(text(&store, tree, &format!("{packages}/hello-1.0.dist-info/INSTALLER")), "forge\n");

    let record = text(&store, tree, &format!("{packages}/hello-1.0.dist-info/RECORD"));
    let paths: Vec<&str> = record.lines().map(|line| line.split(',').next().unwrap()).collect();
    insta::assert_snapshot!(paths.join("\n"), @r"
    ../../../bin/hello
    ../../../bin/native
    ../../../bin/old
    ../../../include/python3.11/hello/hello.h
    ../../../share/hello/table.csv
    ../../../share/man/man1/hello.1
    _hello.so
    hello-1.0.dist-info/INSTALLER
    hello-1.0.dist-info/METADATA
    hello-1.0.dist-info/RECORD
    hello-1.0.dist-info/WHEEL
    hello-1.0.dist-info/entry_points.txt
    hello/__init__.py
    hello/tool.sh
    ");

    // `/usr/local` is somebody else's.
    let passed = |path: &str| delta.passed.contains(&RelativePath::parse(path.as_bytes()).unwrap());
    assert!(passed("") && passed("usr/local") && passed(packages) && passed("usr/local/bin"));
}

#[test]
fn the_same_wheel_gives_the_same_delta() {
    let wheel = Making::new().with("hello.py", "1\n");
    let ids = [0, 1].map(|_| {
        let (_directory, store) = new_store();
        install_bytes(&store, wheel.bytes()).unwrap()
    });
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn what_record_does_not_vouch_for_is_refused() {
    let wheel = || Making::new().with("hello.py", "print(1)\n");
    let forged = wheel().with_record(|record| record.replace("hello.py,sha256=", "hello.py,sha256=AAAA"));
    assert!(refusal(forged.bytes()).contains("RECORD has a digest"));
    let mut other = wheel().with_record(|record| record);
    other.files.last_mut().unwrap().1 = b"print(2)\n".to_vec();
    insta::assert_snapshot!(refusal(other.bytes()), @"`hello.py` has another digest than RECORD says");
    let missing = wheel().with_record(|record| {
        record.lines().filter(|line| !line.starts_with("hello.py")).map(|line| format!("{line}\n")).collect()
    });
    insta::assert_snapshot!(refusal(missing.bytes()), @"`hello.py` is not in its RECORD");
    let bare = wheel().with_record(|record| {
        let lines = record.lines().map(|line| if line.starts_with("hello.py") { "hello.py,," } else { line });
        lines.map(|line| format!("{line}\n")).collect()
    });
    insta::assert_snapshot!(refusal(bare.bytes()), @"`hello.py` has no digest in RECORD");
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in ["../evil.py", "/etc/passwd", "a/../../b", "a//b", "./a", "a\\b", "hello-1.0.data/scripts/../../x"] {
        let reason = refusal(Making::new().with(name, "x").bytes());
        assert!(reason.contains("elsewhere") || reason.contains("backslash"), "{name}: {reason}");
    }
    let link = Making::new().with_mode("hello/link", "/etc/passwd", 0o120777);
    let mut bytes = link.bytes();
    // The writer says "regular file" of whatever it writes; st_mode lies in the upper half of the external attributes.
    let regular = (0o100777u32 << 16).to_le_bytes();
    let at = bytes.windows(4).rposition(|window| window == regular).unwrap();
    bytes[at..at + 4].copy_from_slice(&(0o120777u32 << 16).to_le_bytes());
    insta::assert_snapshot!(refusal(bytes), @"`hello/link` is not a regular file");
}

#[test]
fn what_is_no_wheel_is_refused() {
    assert!(!refusal(Vec::new()).is_empty());
    assert!(!refusal(b"PK\x05\x06 and nothing".to_vec()).is_empty());
    let newer = Making::new().with("hello-1.0.dist-info/WHEEL", "Wheel-Version: 2.0\n");
    insta::assert_snapshot!(refusal(newer.bytes()), @"its format version is `2.0`, and 1.x is understood");
    let two = Making::new().with("other-1.0.dist-info/METADATA", "");
    insta::assert_snapshot!(refusal(two.bytes()), @"it has more than one `.dist-info` directory");
    let scheme = Making::new().with("hello-1.0.data/rootlib/x", "");
    insta::assert_snapshot!(refusal(scheme.bytes()), @"`hello-1.0.data/rootlib/x` is of an unknown scheme");
    let twice = Making::new().with("a", "1").with("hello-1.0.data/purelib/a", "2");
    assert!(refusal(twice.bytes()).contains("two files for"));
    let clash = Making::new().with("a", "1").with("hello-1.0.data/purelib/a/b", "2");
    assert!(refusal(clash.bytes()).contains("is there already"));
    let (_directory, store) = new_store();
    let other = install(&store, Cursor::new(Making::new().bytes()), "other-1.0-py3-none-any.whl", PYTHON, &|| Ok(()));
    assert!(matches!(other, Err(Error::Invalid { .. })));
}

#[test]
fn a_damaged_wheel_is_an_error_wherever_it_is_damaged() {
    let bytes = Making::new().with("hello.py", &"print(1)\n".repeat(20)).bytes();
    let (_directory, store) = new_store();
    let whole = install_bytes(&store, bytes.clone()).unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x41;
        // Times, versions and the like may change without harm; content may not.
        if let Ok(id) = install_bytes(&store, damaged) {
            let modes_only = store.delta(id).unwrap() != store.delta(whole).unwrap();
            assert!(!modes_only || at > bytes.len() / 2, "byte {at}");
        }
        if at % 7 == 0 {
            assert!(install_bytes(&store, bytes[..at].to_vec()).is_err(), "cut at {at}");
        }
    }
}

#[test]
fn how_a_file_is_kept_in_the_archive_makes_no_difference() {
    // Beyond what is inflated in one go.
    let text = "0123456789abcdef".repeat((33 << 20) / 16);
    let archive = |method| {
        let making = Making::new().with("hello/large.txt", &text).with("hello/empty", "");
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let record = ("hello-1.0.dist-info/RECORD".to_owned(), making.true_record().into_bytes(), 0o100644);
        for (name, bytes, mode) in making.files.iter().chain([&record]) {
            let options = SimpleFileOptions::default().unix_permissions(*mode).compression_method(method);
            writer.start_file(name.as_str(), options).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap().into_inner()
    };
    let (_directory, store) = new_store();
    let stored = install_bytes(&store, archive(zip::CompressionMethod::Stored)).unwrap();
    assert_eq!(install_bytes(&store, archive(zip::CompressionMethod::Deflated)).unwrap(), stored);
    let packages = "usr/local/lib/python3.11/dist-packages";
    assert!(self::text(&store, store.delta(stored).unwrap().tree, &format!("{packages}/hello/large.txt")) == text);
}

#[test]
fn a_file_of_another_size_than_the_archive_says_is_refused() {
    let size = 9 * 20u32;
    let said = |other: u32| {
        let mut bytes = Making::new().with("hello.py", &"print(1)\n".repeat(20)).bytes();
        let places: Vec<usize> = (0..bytes.len() - 4).filter(|at| bytes[*at..*at + 4] == size.to_le_bytes()).collect();
        // In front of the file and in the directory at the end.
        assert_eq!(places.len(), 2);
        for at in places {
            bytes[at..at + 4].copy_from_slice(&other.to_le_bytes());
        }
        refusal(bytes)
    };
    insta::assert_snapshot!(said(size + 1), @"`hello.py`: it is shorter than the archive says");
    insta::assert_snapshot!(said(size - 1), @"`hello.py`: it is longer than the archive says");
    insta::assert_snapshot!(said(0), @"`hello.py`: it is longer than the archive says");
    assert!(said(u32::MAX - 1).starts_with("`hello.py`"));
}

#[test]
fn the_file_name_tells_name_and_version() {
    let split = |file| name_and_version(file);
    assert_eq!(split("Foo_Bar-1.0-py3-none-any.whl"), Some(("foo-bar".into(), "1.0".into())));
    assert_eq!(split("a-1.0-1-py3-none-any.whl"), Some(("a".into(), "1.0".into())));
    for bad in ["a-1.0.tar.gz", "a.whl", "a-1-py3-none.whl", "-1-py3-none-any.whl", "a-1-2-3-4-5-6.whl"] {
        assert_eq!(split(bad), None, "{bad}");
    }
}

#[test]
fn an_interrupt_ends_the_work() {
    let (_directory, store) = new_store();
    let stopped = install(&store, Cursor::new(Making::new().bytes()), "hello-1.0-py3-none-any.whl", PYTHON, &|| {
        Err(Error::Interrupted { signal: 2 })
    });
    assert!(matches!(stopped, Err(Error::Interrupted { signal: 2 })));
}
