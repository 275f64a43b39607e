//! Indexes that answer in either form, need passwords, or have nothing.

use sha2::{Digest, Sha256};

use super::*;
use crate::fetch::Wanted;
use crate::fetch::loopback::{Loopback, Page};
use crate::world::World;

const FILE: &str = "hello_world-1.0-py3-none-any.whl";

fn world(index: String) -> World {
    World::on(|root| crate::Machine { root: root.to_owned(), python_index: Some(index), ..crate::Machine::default() })
}

fn fetch(world: &World) -> Result<(store::BlobId, [u8; 32])> {
    let builder = world.builder();
    let url = format!("python:hello-world/{FILE}");
    let sha256 = Some(Sha256::digest(b"a wheel").into());
    builder.fetcher.fetch(&builder, &Wanted { url: &url, sha256, size: None })
}

#[test]
fn a_wheel_is_found_through_its_project_s_page() {
    let server = Loopback::start();
    server.put(&format!("/files/{FILE}"), Page::Bytes(b"a wheel".to_vec()));
    let html = format!("<a href=\"../../files/{FILE}#sha256=00\">{FILE}</a>");
    server.put("/simple/hello-world/", Page::Bytes(html.into_bytes()));
    let (blob, _) = fetch(&world(server.url("/simple"))).unwrap();
    assert_eq!(blob, store::BlobId::of(b"a wheel"));
    assert!(server.asked()[0].to_ascii_lowercase().contains("accept: application/vnd.pypi.simple.v1+json"));

    let json = format!(
        r#"{{"meta":{{"api-version":"1.0"}},"files":[{{"filename":"{FILE}","url":"/files/{FILE}","hashes":{{}}}}]}}"#
    );
    server.put("/simple/hello-world/", Page::Bytes(json.into_bytes()));
    assert!(fetch(&world(server.url("/simple/"))).is_ok());
}

#[test]
fn extra_indexes_are_asked_first_and_may_have_nothing() {
    let (server, extra) = (Loopback::start(), Loopback::start());
    server.put(&format!("/files/{FILE}"), Page::Bytes(b"a wheel".to_vec()));
    let html = format!("<a href=\"/files/{FILE}\">{FILE}</a>");
    server.put("/simple/hello-world/", Page::Bytes(html.into_bytes()));
    let world = World::on(|root| crate::Machine {
        root: root.to_owned(),
        environment: [("PIP_INDEX_URL", server.url("/simple")), ("PIP_EXTRA_INDEX_URL", extra.url("/simple"))]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        ..crate::Machine::default()
    });
    assert!(fetch(&world).is_ok());
    assert_eq!(extra.asked().len(), 1);
}

#[test]
fn what_an_index_has_not_is_gone_and_its_password_is_kept() {
    let server = Loopback::start();
    let index = server.url("/simple").replace("http://", "http://me:secret@");
    let failed = |expected_gone: bool| {
        let Err(Error::Fetch { what, tried, gone }) = fetch(&world(index.clone())) else { panic!() };
        assert_eq!((what, gone), (format!("python:hello-world/{FILE}"), expected_gone));
        assert!(!format!("{tried:?}").contains("secret"));
        tried.into_iter().map(|(_, answer)| answer).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(failed(true), "404 Not Found");
    server.put("/simple/hello-world/", Page::Bytes(b"<a href=\"other-1.0-py3-none-any.whl\">x</a>".to_vec()));
    assert_eq!(failed(true), "it no longer lists this file");
    assert!(server.asked()[0].contains("uthorization: Basic "));
    server.put("/simple/hello-world/", Page::Status(403));
    assert_eq!(failed(false), "403 Forbidden");
}
