//! A peer that is another forge, over HTTP.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{forget, project, refused, serve, whole};
use crate::world::{Ran, World, have};

const ANYBODY: [&str; 2] = ["--anonymous", "read,write"];

#[test]
fn a_formation_goes_over_http_and_comes_back() {
    let (server, world) = (World::new(), World::new());
    let served = serve(&server, &ANYBODY);
    let id = project(&world, "1");
    let receipt = world.forge(["push", "shared", &served.address, "--json"]).json();
    assert!(receipt["moved"].as_u64() > Some(20), "{receipt}");
    whole(&server, &id);
    let again = world.forge(["push", &id, &served.address, "--json"]).json();
    assert_eq!((&again["moved"], again["wire"].as_u64() < Some(4000)), (&0.into(), true), "{again}");
    for given in [id.as_str(), "shared", &id[..12]] {
        forget(&world);
        assert_eq!(world.forge(["pull", given, &served.address]).id(), id);
        whole(&world, &id);
    }
    refused(&world.forge(["pull", &"0".repeat(64), &served.address]), 11, "has no formation");
}

#[test]
fn what_changed_a_little_goes_as_a_difference_both_ways() {
    let (server, world, other) = (World::new(), World::new(), World::new());
    let served = serve(&server, &ANYBODY);
    let first = project(&world, "1");
    let whole_receipt = world.forge(["push", "shared", &served.address, "--json"]).json();
    other.forge(["pull", "shared", &served.address]).ok();
    let second = project(&world, "2");
    let receipt = world.forge(["push", "shared", &served.address, "--json"]).json();
    assert_eq!(receipt["differences"], 1, "{receipt}");
    assert!(receipt["wire"].as_u64() < whole_receipt["wire"].as_u64().map(|wire| wire / 10), "{receipt}");
    whole(&server, &second);
    let pulled = other.forge(["pull", "shared", &served.address, "--json"]).json();
    assert_eq!(pulled["differences"], 1, "{pulled}");
    assert!(pulled["wire"].as_u64() < whole_receipt["wire"].as_u64().map(|wire| wire / 10), "{pulled}");
    whole(&other, &first);
    whole(&other, &second);
    // A server that lost what the difference is against is given the whole.
    forget(&world);
    world.forge(["pull", &second, &served.address]).ok();
    whole(&world, &second);
}

#[test]
fn tokens_let_in_and_say_what_may_be_done() {
    let (server, world) = (World::new(), World::new());
    let tokens = server.path("tokens");
    let token = |name: &str, scopes: &str| {
        let ran = server.forge(["key", "token", name, "--scopes", scopes, "--tokens", &tokens.display().to_string()]);
        let file = world.path(format!("token-{name}"));
        fs::write(&file, &ran.ok().stdout).unwrap();
        file.display().to_string()
    };
    let (reader, writer) = (token("laptop", "read"), token("ci", "read,write"));
    assert!(!fs::read_to_string(&tokens).unwrap().contains("forge_"), "tokens are kept as digests");
    let served = serve(&server, &["--tokens", &tokens.display().to_string()]);
    let id = project(&world, "1");
    refused(&world.forge(["push", &id, &served.address]), 12, "refuses");
    world.forge(["remote", "add", "reader", &served.address, "--token-file", &reader]).ok();
    refused(&world.forge(["push", &id, "reader"]), 12, "may write");
    let about = world.forge(["remote", "test", "reader", "--json"]).json();
    assert_eq!(about["peers"][0]["about"]["write"], false, "{about}");
    world.forge(["remote", "add", "writer", &served.address, "--token-file", &writer]).ok();
    world.forge(["push", &id, "writer"]).ok();
    forget(&world);
    world.forge(["pull", &id, "reader"]).ok();
    fs::write(&reader, "forge_wrong").unwrap();
    refused(&world.forge(["pull", &id, "reader"]), 12, "not known");
    // A project must not send a file of the user's to whom it likes.
    world.write("forge.toml", &format!("[remotes.evil]\naddress = \"http://host\"\ntoken_file = \"{writer}\"\n"));
    refused(&world.forge(["remote", "list"]), 2, "names a token");
}

#[test]
fn nobody_writes_unless_that_was_said() {
    let (server, world) = (World::new(), World::new());
    let served = serve(&server, &[]);
    let id = project(&world, "1");
    refused(&world.forge(["push", &id, &served.address]), 12, "refuses");
    refused(&world.forge(["pull", &id, &served.address]), 11, "has no formation");
}

#[test]
fn tls_is_spoken_with_a_certificate_that_is_trusted() {
    if !have("openssl") {
        return;
    }
    let (server, world) = (World::new(), World::new());
    let (certificate, key) = (world.path("cert.pem"), world.path("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success());
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let served =
        serve(&server, &["--certificate", &certificate, "--certificate-key", &key, "--anonymous", "read,write"]);
    assert!(served.address.starts_with("https://"));
    let id = project(&world, "1");
    let with_authority =
        |arguments: &[&str]| Ran::of(world.command(arguments).env("SSL_CERT_FILE", &certificate).output().unwrap());
    with_authority(&["push", &id, &served.address]).ok();
    forget(&world);
    assert_eq!(with_authority(&["pull", &id, &served.address]).id(), id);
    forget(&world);
    let stranger = world.forge(["pull", &id, &served.address]);
    refused(&stranger, 11, "does not answer");
}

#[test]
fn a_server_ends_gracefully() {
    let (server, world) = (World::new(), World::new());
    let mut served = serve(&server, &ANYBODY);
    let id = project(&world, "1");
    world.forge(["push", &id, &served.address]).ok();
    // One idle connection, and one in the middle of a request.
    let _idle = TcpStream::connect(served.host()).unwrap();
    let mut busy = TcpStream::connect(served.host()).unwrap();
    busy.write_all(
        format!("PUT /v1/names/later HTTP/1.1\r\nhost: h\r\ncontent-length: 64\r\n\r\n{}", &id[..20]).as_bytes(),
    )
    .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    served.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(300));
    busy.write_all(&id.as_bytes()[20..]).unwrap();
    let mut answer = String::new();
    busy.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let started = Instant::now();
    assert!(served.child.wait().unwrap().success());
    assert!(started.elapsed() < Duration::from_secs(60));
    assert_eq!(server.forge(["info", "later", "--json"]).json()["id"], id);
}

/// Sends bytes and gives what comes back.
fn raw(host: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // A server may have closed already.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_hostile_client_gets_errors_and_changes_nothing() {
    let (server, world) = (World::new(), World::new());
    let served = serve(&server, &["--anonymous", "read,write", "--silence", "1s", "--connections", "8"]);
    let id = project(&world, "1");
    world.forge(["push", &id, &served.address]).ok();
    let post = |path: &str, body: &[u8]| {
        let head = format!(
            "POST /v1/{path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        raw(served.host(), &[head.as_bytes(), body].concat())
    };
    let status = |answer: &str| answer.split(' ').nth(1).unwrap_or_default().to_owned();
    // Paths that lead elsewhere, and what is no request.
    for path in
        ["../../../../etc/passwd", "formations/../../format", "formations/%2e%2e%2fformat", "formations/", "names/x"]
    {
        let answer =
            raw(served.host(), format!("GET /v1/{path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").as_bytes());
        assert!(["400", "404"].contains(&status(&answer).as_str()), "{path}: {answer}");
    }
    for path in ["names/../x", "names/.x", "names/a%2fb", "names/"] {
        let head = format!("PUT /v1/{path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 64\r\n\r\n{id}");
        assert_eq!(status(&raw(served.host(), head.as_bytes())), "400", "{path}");
    }
    for garbage in [&b"\x00\x01\x02\r\n\r\n"[..], b"GET\r\n\r\n", &[b'a'; 40_000], b"GET / HTTP/9.9\r\n\r\n"] {
        assert!(["400", "431", ""].contains(&status(&raw(served.host(), garbage)).as_str()));
    }
    // Lists that say that they are endless, streams of nothing, bombs.
    for path in [
        "below",
        "lacks",
        "objects/get",
        "objects/put",
        "realisations/get",
        "realisations/put",
        "fetched/get",
        "fetched/put",
    ] {
        for body in [&b""[..], &[0xff; 64], b"forge objects 1\n", b"[1]", b"{}", b"\"x\"", b"[\"../x\"]"] {
            let answer = post(path, body);
            // An empty list is a list, and a stream that ends without an end is cut.
            assert!(["400", "404", "422", "200"].contains(&status(&answer).as_str()), "{path} {body:?}: {answer}");
        }
    }
    let too_long = raw(
        served.host(),
        b"POST /v1/below HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 999999999999\r\n\r\nx",
    );
    assert!(["400", "413"].contains(&status(&too_long).as_str()), "{too_long}");
    // Who says nothing is let go, and does not keep others out.
    let silent: Vec<TcpStream> = (0..20).filter_map(|_| TcpStream::connect(served.host()).ok()).collect();
    for mut stream in &silent {
        let _ = stream.write_all(b"POST /v1/below HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\n");
    }
    let about = b"GET /v1/about HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    let started = Instant::now();
    while status(&raw(served.host(), about)) != "200" {
        assert!(started.elapsed() < Duration::from_secs(30), "silent clients keep others out");
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(silent);
    forget(&world);
    assert_eq!(world.forge(["pull", "shared", &served.address]).id(), id);
    whole(&server, &id);
}
