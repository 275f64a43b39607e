use serde_json::json;

use super::*;
use crate::fetch::loopback::{Loopback, Page};
use crate::world::World;

fn request(parameters: Value) -> LockRequest {
    let parameters =
        parameters.as_object().unwrap().iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    LockRequest { kind: "tree".to_owned(), parameters }
}

fn archive() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_mtime(1_700_000_000);
    header.set_size(5);
    tar.append_data(&mut header, "top/a", &b"words"[..]).unwrap();
    tar.into_inner().unwrap()
}

fn hash_of(entry: &LockEntry) -> [u8; 32] {
    let text = entry.records[0]["narHash"].as_str().unwrap();
    NixHash::parse(text.as_bytes(), None).unwrap().as_bytes().try_into().unwrap()
}

#[test]
fn what_is_known_by_its_hash_is_not_asked_for_again() {
    let world = World::new();
    let builder = world.builder();
    let server = Loopback::start();
    let url = server.put("/a.tar", Page::Bytes(archive()));
    let request = request(json!({ "type": "tarball", "url": url }));
    let entry = Trees.resolve(&builder, &request).unwrap();
    assert_eq!(entry.records[0]["lastModified"], json!(1_700_000_000));
    let asked = server.asked().len();
    let fetched = Fetched { request, recursive: true, sha256: hash_of(&entry) };
    let place = lay_out(&builder, &fetched).unwrap();
    assert_eq!(std::fs::read(place.join("a")).unwrap(), b"words");
    assert_eq!(server.asked().len(), asked);
    // In another store it is fetched, and compared.
    let world = World::new();
    let builder = world.builder();
    assert!(obtain(&builder, &fetched).is_ok() && server.asked().len() > asked);
    let wrong = Fetched { sha256: [7; 32], ..fetched };
    assert!(matches!(obtain(&builder, &wrong), Err(Error::Mismatch { .. })));
}

#[test]
fn a_file_is_a_tree_of_its_own() {
    let world = World::new();
    let builder = world.builder();
    let server = Loopback::start();
    let url = server.put("/a", Page::Bytes(b"words".to_vec()));
    let request = request(json!({ "type": "file", "url": url }));
    let entry = Trees.resolve(&builder, &request).unwrap();
    let place = lay_out(&builder, &Fetched { request, recursive: true, sha256: hash_of(&entry) }).unwrap();
    assert_eq!(std::fs::read(place).unwrap(), b"words");
    // A plain download is known by the hash of its bytes.
    let sha256: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(b"words").into();
    let plain = LockRequest { kind: "url".to_owned(), parameters: BTreeMap::from([("url".to_owned(), json!(url))]) };
    let place = lay_out(&builder, &Fetched { request: plain, recursive: false, sha256 }).unwrap();
    assert_eq!(std::fs::read(place).unwrap(), b"words");
}

#[test]
fn forges_keep_archives_where_they_always_did() {
    let archive = |kind, host| forge(kind, host, "me", "it", "12").archive;
    assert_eq!(archive("github", None), "https://github.com/me/it/archive/12.tar.gz");
    assert_eq!(archive("github", Some("host.example")), "https://host.example/me/it/archive/12.tar.gz");
    assert_eq!(archive("gitlab", None), "https://gitlab.com/api/v4/projects/me%2fit/repository/archive.tar.gz?sha=12");
    assert_eq!(archive("sourcehut", None), "https://git.sr.ht/me/it/archive/12.tar.gz");
}

#[test]
fn what_is_asked_wrongly_is_an_error() {
    let world = World::new();
    let builder = world.builder();
    for wrong in [
        json!({}),
        json!({ "type": "path", "path": "/etc" }),
        json!({ "type": "tarball" }),
        json!({ "type": "git", "url": "file:///nowhere", "rev": "zz" }),
        json!({ "type": "tarball", "url": "ftp://host.example/x" }),
        json!({ "type": "file", "url": "file:///nowhere/at/all" }),
        json!({ "type": "file", "url": "file:///" }),
    ] {
        assert!(Trees.resolve(&builder, &request(wrong.clone())).is_err(), "{wrong}");
    }
}
