//! Downloads from servers that are honest, weak, or lying.

use std::sync::atomic::Ordering;

use sha2::{Digest, Sha256};

use super::loopback::{Loopback, Page};
use super::*;
use crate::world::World;

fn content() -> Vec<u8> {
    (0..3_000_000u32).map(|number| (number / 7) as u8).collect()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn fetch(world: &World, url: &str, sha256: Option<[u8; 32]>, size: Option<u64>) -> Result<(BlobId, [u8; 32])> {
    let builder = world.builder();
    builder.fetcher.fetch(&builder, &Wanted { url, sha256, size })
}

#[test]
fn a_file_is_fetched_once() {
    let (world, server, bytes) = (World::new(), Loopback::start(), content());
    let url = server.put("/file", Page::Bytes(bytes.clone()));
    let digest = sha256(&bytes);
    let (blob, actual) = fetch(&world, &url, None, None).unwrap();
    assert_eq!((blob, actual), (BlobId::of(&bytes), digest));
    // What is known by its digest is not asked for again, wherever it was to come from.
    assert_eq!(fetch(&world, "http://127.0.0.1:1/other", Some(digest), Some(bytes.len() as u64)).unwrap().0, blob);
    assert_eq!(server.asked().len(), 1);
    assert!(server.asked()[0].to_ascii_lowercase().contains("accept-encoding: identity"));
    let wrong = fetch(&world, &url, Some(digest), Some(1));
    assert!(matches!(wrong, Err(Error::Mismatch { .. })), "{wrong:?}");
}

#[test]
fn a_lie_is_caught_and_not_kept() {
    let (world, server) = (World::new(), Loopback::start());
    let wanted = sha256(b"something good");
    for page in
        [Page::Bytes(b"something else".to_vec()), Page::Unsized(b"something else".to_vec()), Page::Bytes(Vec::new())]
    {
        let url = server.put("/file", page);
        let Err(Error::Mismatch { expected, actual, .. }) = fetch(&world, &url, Some(wanted), None) else { panic!() };
        assert!(expected.starts_with("sha256:") && actual.starts_with("sha256:") && actual != expected);
    }
    for (page, size) in [
        (Page::Bytes(b"something good".to_vec()), 5),
        (Page::Unsized(b"something good".to_vec()), 5),
        (Page::Unsized(b"something good".to_vec()), 50),
    ] {
        let url = server.put("/file", page);
        let wrong = fetch(&world, &url, Some(wanted), Some(size));
        assert!(matches!(wrong, Err(Error::Mismatch { .. })), "{wrong:?}");
    }
    assert_eq!(world.blobs(), 0);
}

#[test]
fn a_cut_transfer_is_taken_up_again() {
    let (world, server, bytes) = (World::new(), Loopback::start(), content());
    let digest = Some(sha256(&bytes));
    // Every answer is cut, and each brings enough to be worth going on.
    let url = server.put("/cut", Page::Cut(bytes.clone(), 1_200_000));
    assert_eq!(fetch(&world, &url, digest, None).unwrap().0, BlobId::of(&bytes));
    assert_eq!(server.asked().len(), 3);
    assert!(server.asked()[1].to_ascii_lowercase().contains("range: bytes=1200000-"));
    // A server that knows no ranges gives the whole again.
    let (world, url) = (World::new(), server.put("/once", Page::CutOnce(bytes.clone(), 1_200_000)));
    assert_eq!(fetch(&world, &url, digest, None).unwrap().0, BlobId::of(&bytes));
}

#[test]
fn a_transfer_that_brings_nothing_is_given_up() {
    let (world, server, bytes) = (World::new(), Loopback::start(), content());
    let url = server.put("/cut", Page::Cut(bytes.clone(), 10));
    let Err(Error::Fetch { tried, gone, .. }) = fetch(&world, &url, Some(sha256(&bytes)), None) else { panic!() };
    assert!(!gone && tried.len() == 1, "{tried:?}");
    // Without a digest, nobody could tell whether two halves are of one file.
    let Err(Error::Fetch { .. }) = fetch(&world, &url, None, None) else { panic!() };
    assert_eq!(world.blobs(), 0);
}

#[test]
fn a_server_in_trouble_is_asked_again_and_others_are_not() {
    let (world, server) = (World::new(), Loopback::start());
    let url = server.put("/flaky", Page::Flaky(503, 2, b"late".to_vec()));
    assert_eq!(fetch(&world, &url, None, None).unwrap().0, BlobId::of(b"late"));
    assert_eq!(server.asked().len(), 3);
    let Err(Error::Fetch { gone: true, tried, .. }) = fetch(&world, &server.url("/absent"), None, None) else {
        panic!()
    };
    assert_eq!(tried, [(server.url("/absent"), "404 Not Found".to_owned())]);
    server.put("/secret", Page::Status(403));
    let Err(Error::Fetch { gone: false, .. }) = fetch(&world, &server.url("/secret"), None, None) else { panic!() };
    assert_eq!(server.asked().len(), 5);
}

#[test]
fn every_place_is_tried_and_named() {
    let (world, server) = (World::new(), Loopback::start());
    server.put("/lie", Page::Bytes(b"lie".to_vec()));
    let good = server.put("/good", Page::Bytes(b"good".to_vec()));
    let builder = world.builder();
    let wanted = Wanted { url: "debian:suite/file", sha256: Some(sha256(b"good")), size: None };
    let places = |paths: &[&str]| -> Vec<Place> {
        let url = |path: &&str| if path.starts_with("http") { (*path).to_owned() } else { server.url(path) };
        paths.iter().map(|path| Place::new(url(path))).collect()
    };
    // Nobody listens on port 1, and a password is not for other eyes.
    let dead = "http://me:secret@127.0.0.1:1/x";
    let failed = builder.fetcher.fetch_from(&builder, &wanted, &places(&[dead, "/absent"]));
    let Err(Error::Fetch { tried, gone: false, .. }) = failed else { panic!("{failed:?}") };
    assert_eq!(tried.len(), 2);
    assert_eq!(tried[0].0, "http://me:***@127.0.0.1:1/x");
    let failed = builder.fetcher.fetch_from(&builder, &wanted, &places(&["/lie", "/absent"]));
    assert!(matches!(failed, Err(Error::Mismatch { .. })), "{failed:?}");
    let found = builder.fetcher.fetch_from(&builder, &wanted, &places(&["/lie", "/absent", &good]));
    assert_eq!(found.unwrap().0, BlobId::of(b"good"));
}

#[test]
fn redirects_are_followed_and_end() {
    let (world, server, other) = (World::new(), Loopback::start(), Loopback::start());
    let goal = other.put("/goal", Page::Bytes(b"goal".to_vec()));
    server.put("/middle", Page::Redirect(goal.clone()));
    server.put("/start", Page::Redirect("middle".to_owned()));
    let start = server.url("/start").replace("http://", "http://me:secret@");
    assert_eq!(fetch(&world, &start, None, None).unwrap().0, BlobId::of(b"goal"));
    // The password went to the host it was for.
    assert!(server.asked().iter().all(|head| head.to_ascii_lowercase().contains("authorization: basic")));
    assert!(!other.asked()[0].to_ascii_lowercase().contains("authorization"));
    server.put("/round", Page::Redirect("/round".to_owned()));
    let Err(Error::Fetch { tried, .. }) = fetch(&world, &server.url("/round"), None, None) else { panic!() };
    assert!(tried[0].1.contains("redirects"));
    server.put("/file", Page::Redirect("file:///etc/passwd".to_owned()));
    assert!(matches!(fetch(&world, &server.url("/file"), None, None), Err(Error::Fetch { .. })));
}

#[test]
fn an_interrupt_ends_a_transfer() {
    let (world, server) = (World::new(), Loopback::start());
    let url = server.put("/flaky", Page::Status(503));
    let interrupt = std::sync::Arc::clone(&world.interrupt);
    let setter = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        interrupt.store(2, Ordering::SeqCst);
    });
    let ended = fetch(&world, &url, None, None);
    assert!(matches!(ended, Err(Error::Interrupted { signal: 2 })), "{ended:?}");
    setter.join().unwrap();
}

#[test]
fn what_is_no_address_is_refused() {
    let world = World::new();
    for url in ["", "x", "ftp://host/x", "debian:", "debian:x", "debian:/x"] {
        assert!(matches!(fetch(&world, url, None, None), Err(Error::Invalid { .. })), "{url}");
    }
    assert!(matches!(fetch(&world, "http://", None, None), Err(Error::Fetch { .. })));
    let unset = fetch(&world, "debian:bookworm/pool/x.deb", None, None);
    assert!(matches!(unset, Err(Error::NotConfigured { .. })), "{unset:?}");
}

#[test]
fn a_file_of_this_machine_is_taken_by_its_digest() {
    let world = World::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a b");
    std::fs::write(&path, "words").unwrap();
    let url = format!("file://{}", path.display()).replace(' ', "%20");
    let (_, sha256) = fetch(&world, &url, None, None).unwrap();
    assert!(fetch(&world, &url, Some(sha256), None).is_ok());
    assert!(matches!(fetch(&world, &url, Some([7; 32]), None), Err(Error::Mismatch { .. })));
    let directory = format!("file://{}", directory.path().display());
    assert!(matches!(fetch(&world, &directory, None, None), Err(Error::Fetch { .. })));
}

#[test]
fn many_threads_share_a_fetcher() {
    let (world, server) = (World::new(), Loopback::start());
    for number in 0..20 {
        server.put(&format!("/{number}"), Page::Bytes(vec![number; 100_000]));
    }
    let builder = world.builder();
    std::thread::scope(|scope| {
        for number in 0..20u8 {
            let (builder, url) = (&builder, server.url(&format!("/{number}")));
            scope.spawn(move || {
                let wanted = Wanted { url: &url, sha256: None, size: Some(100_000) };
                assert_eq!(builder.fetcher.fetch(builder, &wanted).unwrap().0, BlobId::of(&[number; 100_000]));
            });
        }
    });
}

#[test]
fn a_proxy_of_the_environment_is_used_unless_exempt() {
    let proxy = Loopback::start();
    let on = |no_proxy: &str| {
        let environment = [("http_proxy", proxy.url("")), ("no_proxy", no_proxy.to_owned())];
        let environment = environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        World::on(|root| Machine { root: root.to_owned(), environment, ..Machine::default() })
    };
    let server = Loopback::start();
    let url = server.put("/file", Page::Bytes(b"direct".to_vec()));
    assert!(fetch(&on("localhost,127.0.0.1"), &url, None, None).is_ok());
    assert!(proxy.asked().is_empty());
    // Plain HTTP is asked of the proxy by the whole address, and a host name is the proxy's to look up.
    proxy.put("http://host.example:8080/file", Page::Bytes(b"by proxy".to_vec()));
    let world = on("other.example, .internal");
    assert_eq!(fetch(&world, "http://me:pass@host.example:8080/file", None, None).unwrap().0, BlobId::of(b"by proxy"));
    let head = proxy.asked()[0].to_ascii_lowercase();
    assert!(head.starts_with("get http://host.example:8080/file http/1.1"), "{head}");
    assert!(head.contains("host: host.example:8080") && head.contains("\r\nauthorization: basic "), "{head}");
    assert_eq!(head.matches("host:").count(), 1, "{head}");
}

#[test]
fn https_goes_through_a_proxys_tunnel() {
    let proxy = Loopback::start();
    let named = proxy.url("").replace("http://", "http://me:pass@");
    let environment = [("HTTPS_PROXY".to_owned(), named)].into();
    let world = World::on(|root| Machine { root: root.to_owned(), environment, ..Machine::default() });
    // This proxy knows no tunnels; that it was asked for one is the point.
    assert!(fetch(&world, "https://host.example/file", None, None).is_err());
    let head = proxy.asked()[0].to_ascii_lowercase();
    assert!(head.starts_with("connect host.example:443") && head.contains("proxy-authorization: basic"), "{head}");
}

#[test]
fn a_url_is_locked_by_size_and_digest() {
    let (world, server) = (World::new(), Loopback::start());
    let url = server.put("/file", Page::Bytes(b"content".to_vec()));
    let parameters = [("url".to_owned(), url.into())].into_iter().collect();
    let request = store::lock::LockRequest { kind: "url".to_owned(), parameters };
    let entry = crate::resolve::resolve(&world.builder(), &request).unwrap();
    assert_eq!(entry.records[0]["size"], 7);
    assert_eq!(entry.records[0]["sha256"], store::digest::to_hex(&sha256(b"content")));
}
