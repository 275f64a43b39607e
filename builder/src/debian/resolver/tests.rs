//! Locks against an archive of the test's own (`fixtures/debian/README.md`).

use super::*;
use crate::Machine;
use crate::fetch::loopback::{Loopback, Page};
use crate::world::World;

const PACKAGES: &[u8] = include_bytes!("../../../../fixtures/debian/Packages");
const IN_RELEASE: &[u8] = include_bytes!("../../../../fixtures/debian/InRelease");
const RELEASE: &[u8] = include_bytes!("../../../../fixtures/debian/Release");
const RELEASE_GPG: &[u8] = include_bytes!("../../../../fixtures/debian/Release.gpg");
const KEYS: &str = include_str!("../../../../fixtures/debian/keys.asc");
/// `sha256sum fixtures/debian/Packages`
const DIGEST: &str = "8cbeb5459d52ae2db28457c7c4ce3d875fabc53e294b455561cf7f61389ffdef";

fn put(server: &Loopback, path: &str, bytes: &[u8]) {
    server.put(&format!("/debian/dists/bookworm/{path}"), Page::Bytes(bytes.to_vec()));
}

/// A machine whose apt has this server as its only mirror.
fn world(server: &Loopback, options: &str) -> World {
    World::on(|root| {
        let directory = root.join("etc/apt/sources.list.d");
        std::fs::create_dir_all(&directory).unwrap();
        let key: String = KEYS.lines().map(|line| format!(" {}\n", if line.is_empty() { "." } else { line })).collect();
        let base = server.url("/debian");
        let source =
            format!("Types: deb\nURIs: {base}\nSuites: bookworm\nComponents: main\n{options}Signed-By:\n{key}");
        std::fs::write(directory.join("test.sources"), source).unwrap();
        Machine { root: root.to_owned(), ..Machine::default() }
    })
}

fn request(kind: &str, extra: &[(&str, Value)]) -> LockRequest {
    let mut parameters = BTreeMap::from([
        ("suite".to_owned(), Value::from("bookworm")),
        ("architecture".to_owned(), Value::from("amd64")),
    ]);
    parameters.extend(extra.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    LockRequest { kind: kind.to_owned(), parameters }
}

fn lock(world: &World, packages: &[&str]) -> Result<LockEntry> {
    crate::resolve::resolve(&world.builder(), &request("debian", &[("packages", packages.to_vec().into())]))
}

#[test]
fn a_wish_becomes_records() {
    let server = Loopback::start();
    put(&server, "InRelease", IN_RELEASE);
    put(&server, &format!("main/binary-amd64/by-hash/SHA256/{DIGEST}"), PACKAGES);
    let world = world(&server, "");
    let entry = lock(&world, &["tool"]).unwrap();
    let names: Vec<_> = entry.records.iter().map(|record| record["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["base", "libbase", "tool"]);
    // What every root has, and what that depends on.
    let essential: Vec<_> = entry.records.iter().map(|record| record.contains_key("essential")).collect();
    assert_eq!(essential, [true, true, false]);
    let record = serde_json::to_string(&entry.records[2]).unwrap();
    assert_eq!(
        record,
        format!(
            r#"{{"architecture":"all","file":"pool/main/t/tool/tool_2.0-1_all.deb","name":"tool","sha256":"{}","size":300,"suite":"bookworm","version":"2.0-1"}}"#,
            "3".repeat(64)
        )
    );
    assert_eq!(world.notes().len(), 2, "{:?}", world.notes());
    // The index is known by its digest now; only whether it is still the one is asked.
    let before = server.asked().len();
    assert_eq!(lock(&world, &["tool"]).unwrap(), entry);
    assert!(server.asked()[before..].iter().all(|head| !head.contains("by-hash")));
    let with = request("debian", &[("packages", vec!["tool"].into()), ("recommends", true.into())]);
    assert_eq!(crate::resolve::resolve(&world.builder(), &with).unwrap().records.len(), 4);
}

#[test]
fn an_index_is_locked_by_digest() {
    let server = Loopback::start();
    put(&server, "InRelease", IN_RELEASE);
    let locked = |component: &str| {
        let request = request("debian-index", &[("component", component.into())]);
        crate::resolve::resolve(&world(&server, "").builder(), &request)
    };
    // This archive has its index uncompressed only.
    assert!(matches!(locked("main"), Err(Error::Invalid { .. })));
    assert!(matches!(locked("contrib"), Err(Error::Invalid { .. })));
}

#[test]
fn the_older_forms_of_an_archive_are_read() {
    let server = Loopback::start();
    put(&server, "Release", RELEASE);
    put(&server, "Release.gpg", RELEASE_GPG);
    // No files by digest, whatever its Release says.
    put(&server, "main/binary-amd64/Packages", PACKAGES);
    assert_eq!(lock(&world(&server, ""), &["tool"]).unwrap().records.len(), 3);
}

#[test]
fn a_suite_is_taken_as_it_was_at_a_time() {
    let server = Loopback::start();
    // Of today's mirror nothing is asked but what is known by its digest.
    let mut world = world(&server, "");
    let ask = |world: &World, time: &str| {
        let extra = [("packages", Value::from(vec!["tool"])), ("snapshot", Value::from(time))];
        crate::resolve::resolve(&world.builder(), &request("debian", &extra))
    };
    const TIME: &str = "20260711T120000Z";
    let unset = ask(&world, TIME);
    assert!(
        matches!(&unset, Err(Error::NotConfigured { settings, .. }) if settings[0].contains("FORGE_DEBIAN_SNAPSHOTS"))
    );
    world.machine.debian_snapshots = vec![server.url("/archive/debian/@SNAPSHOTID@")];
    assert!(matches!(ask(&world, TIME), Err(Error::Fetch { gone: true, .. })));
    let base = format!("/archive/debian/{TIME}/dists/bookworm");
    server.put(&format!("{base}/InRelease"), Page::Bytes(IN_RELEASE.to_vec()));
    server.put(&format!("{base}/main/binary-amd64/by-hash/SHA256/{DIGEST}"), Page::Bytes(PACKAGES.to_vec()));
    let records = ask(&world, TIME).unwrap().records;
    assert_eq!((records.len(), records[2]["suite"].as_str()), (3, Some("bookworm@20260711T120000Z")));
    // A package is looked for at the mirror, then as it was.
    let places = crate::debian::sources::places(&world.machine, "bookworm-security@20260711", "pool/x.deb").unwrap();
    let urls: Vec<String> = places.into_iter().map(|place| place.url).collect();
    assert_eq!(
        urls,
        [server.url("/debian-security/pool/x.deb"), server.url("/archive/debian-security/20260711/pool/x.deb")]
    );
    for time in ["yesterday", "2026-07-11", "20260711T12", "../x", "20260711/.."] {
        assert!(matches!(ask(&world, time), Err(Error::Invalid { .. })), "{time}");
    }
}

#[test]
fn a_bad_archive_is_refused() {
    let server = Loopback::start();
    put(&server, "main/binary-amd64/Packages", PACKAGES);
    // Absent.
    assert!(matches!(lock(&world(&server, ""), &["tool"]), Err(Error::Fetch { gone: true, .. })));
    // Not signed.
    put(&server, "Release", RELEASE);
    assert!(matches!(lock(&world(&server, ""), &["tool"]), Err(Error::Signature { .. })));
    // Not signed, and accepted.
    assert!(lock(&world(&server, "Trusted: yes\n"), &["tool"]).is_ok());
    // Signed, and changed since.
    let text = String::from_utf8(IN_RELEASE.to_vec()).unwrap();
    put(&server, "InRelease", text.replace("Origin: A", "Origin: B").as_bytes());
    let changed = lock(&world(&server, ""), &["tool"]);
    assert!(matches!(changed, Err(Error::Signature { .. })), "{changed:?}");
    assert!(lock(&world(&server, "Trusted: yes\n"), &["tool"]).is_ok());
    // Signed, and its index is another.
    put(&server, "InRelease", IN_RELEASE);
    put(&server, "main/binary-amd64/Packages", &PACKAGES[1..]);
    assert!(matches!(lock(&world(&server, ""), &["tool"]), Err(Error::Mismatch { .. })));
}

#[test]
fn requests_are_checked() {
    let server = Loopback::start();
    let world = world(&server, "");
    let resolve = |request| crate::resolve::resolve(&world.builder(), &request);
    let bad = LockRequest { kind: "debian".to_owned(), parameters: BTreeMap::new() };
    assert!(matches!(resolve(bad), Err(Error::Parameter { .. })));
    assert!(matches!(resolve(request("debian", &[("packages", 3.into())])), Err(Error::Parameter { .. })));
    for suite in ["", "../x", "a/b", "bookworm updates"] {
        let request = request("debian", &[("packages", vec!["tool"].into()), ("suite", suite.into())]);
        assert!(matches!(resolve(request), Err(Error::Invalid { .. })), "{suite}");
    }
}
