//! Registries that lie: errors are fine; wrong bytes, endless work and unbounded memory are not.

use super::*;

/// A registry whose `app:x` is a manifest with this configuration and these layers, as they say of themselves.
fn image(layers: Vec<Descriptor>, config: &serde_json::Value) -> (Arc<Shelf>, Server) {
    let shelf = Arc::new(Shelf::default());
    let config = config.to_string();
    shelf.put_blob(config.as_bytes());
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media::MANIFEST,
        "config": Descriptor::of(media::CONFIG, config.as_bytes()),
        "layers": layers,
    });
    shelf.put_manifest("app", "x", media::MANIFEST, manifest.to_string().as_bytes());
    let answers = Arc::clone(&shelf);
    let server = Server::start(move |asked| answers.answer(asked));
    (shelf, server)
}

fn config(diff_ids: &[Digest]) -> serde_json::Value {
    serde_json::json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids } })
}

fn pull_of(server: &Server) -> crate::Result<Pulled> {
    World::new().pull(&format!("oci://{}/app:x", server.host))
}

/// An empty tar.
const EMPTY: [u8; 1024] = [0; 1024];

#[test]
fn wrong_bytes_are_refused_wherever_they_are() {
    let layer = Descriptor::of(media::LAYER, &EMPTY);
    let good = || image(vec![layer.clone()], &config(&[layer.digest]));
    let (shelf, server) = good();
    shelf.put_blob(&EMPTY);
    pull_of(&server).unwrap();
    // The layer's bytes, as many as they should be.
    let (shelf, server) = good();
    let mut wrong = EMPTY;
    wrong[1000] = 1;
    shelf.blobs.lock().unwrap().insert(layer.digest.to_string(), wrong.to_vec());
    assert!(matches!(pull_of(&server), Err(crate::Error::Mismatch { .. })));
    // More and fewer than announced.
    for length in [1023, 1025] {
        let (shelf, server) = good();
        shelf.blobs.lock().unwrap().insert(layer.digest.to_string(), vec![0; length]);
        let error = pull_of(&server).unwrap_err().to_string();
        assert!(error.contains(&format!("{length} bytes")), "{error}");
    }
    // Unpacked, the layer is another one than the configuration says.
    let (shelf, server) = image(vec![layer.clone()], &config(&[Digest::of(b"other")]));
    shelf.put_blob(&EMPTY);
    assert!(matches!(pull_of(&server), Err(crate::Error::Mismatch { .. })));
    // The configuration.
    let (shelf, server) = good();
    let digest = Digest::of(config(&[layer.digest]).to_string().as_bytes());
    let length = config(&[layer.digest]).to_string().len();
    shelf.blobs.lock().unwrap().insert(digest.to_string(), vec![b'{'; length]);
    assert!(matches!(pull_of(&server), Err(crate::Error::Mismatch { .. })));
    // The manifest, by tag: it is not what the registry itself says.
    let (shelf, _) = good();
    let server = Server::start(move |asked| {
        let mut reply = shelf.answer(asked);
        if asked.path.contains("/manifests/") {
            reply.body.push(b' ');
        }
        reply
    });
    assert!(matches!(pull_of(&server), Err(crate::Error::Mismatch { .. })));
}

#[test]
fn a_server_that_never_ends_is_left() {
    let layer = Descriptor::of(media::LAYER, &EMPTY);
    // Chunks without a length: more than was announced.
    let (shelf, _) = image(vec![layer.clone()], &config(&[layer.digest]));
    let server = Server::start(move |asked| match asked.path.contains(&layer.digest.to_string()) {
        true => {
            let chunk = format!("{:x}\r\n{}\r\n", 4096, "x".repeat(4096)).repeat(64);
            Reply::new(200, chunk).with("transfer-encoding", "chunked")
        }
        false => shelf.answer(asked),
    });
    let error = pull_of(&server).unwrap_err().to_string();
    assert!(error.contains("more bytes"), "{error}");
    // A manifest without end.
    let server = Server::start(move |asked| match asked.path.contains("/manifests/") {
        true => Reply::new(200, vec![b' '; 5 << 20]),
        false => Reply::new(200, "{}"),
    });
    let error = pull_of(&server).unwrap_err().to_string();
    assert!(error.contains("more than 4194304 bytes"), "{error}");
}

#[test]
fn absurd_sizes_and_counts_are_refused_before_anything_is_fetched() {
    let digest = Digest::of(&EMPTY);
    let huge = Descriptor::new(media::LAYER, digest, u64::MAX / 2);
    let (_, server) = image(vec![huge], &config(&[digest]));
    let error = pull_of(&server).unwrap_err().to_string();
    assert!(error.contains("bytes") && server.count("GET", &digest.to_string()) == 0, "{error}");
    let many = vec![Descriptor::of(media::LAYER, &EMPTY); 2000];
    let (_, server) = image(many, &config(&vec![digest; 2000]));
    let error = pull_of(&server).unwrap_err().to_string();
    assert!(error.contains("2000 layers"), "{error}");
    // What the user allows counts.
    let layer = Descriptor::of(media::LAYER, &EMPTY);
    let (_, server) = image(vec![layer.clone()], &config(&[layer.digest]));
    let world = World::new();
    let reference: Reference = format!("oci://{}/app:x", server.host).parse().unwrap();
    let bounds = Bounds { bytes: 10, ..Bounds::for_size(0) };
    let error =
        pull(&world.store, &Session::new(&world.access, &reference), &reference, None, Some(bounds)).unwrap_err();
    assert!(error.to_string().contains("10 are allowed"), "{error}");
}

#[test]
fn indexes_without_end_are_left_soon() {
    let shelf = Arc::new(Shelf::default());
    // Each index has the one below it a thousand times.
    let mut below = Descriptor::of(media::INDEX, &to_json(&Index::new(Vec::new())));
    shelf.put_manifest("app", "x", media::INDEX, &to_json(&Index::new(Vec::new())));
    for _ in 0..4 {
        let bytes = to_json(&Index::new(vec![below; 1000]));
        shelf.put_manifest("app", "x", media::INDEX, &bytes);
        below = Descriptor::of(media::INDEX, &bytes);
    }
    let answers = Arc::clone(&shelf);
    let server = Server::start(move |asked| answers.answer(asked));
    assert!(pull_of(&server).is_err());
    assert!(server.asked().len() < 20, "{}", server.asked().len());
    // Each index has a thousand others.
    let all: Vec<Descriptor> = (0..1500)
        .map(|number| {
            let bytes = format!(r#"{{"schemaVersion":2,"manifests":[],"annotations":{{"n":"{number}"}}}}"#);
            shelf.put_manifest("app", "y", media::INDEX, bytes.as_bytes());
            Descriptor::of(media::INDEX, bytes.as_bytes())
        })
        .collect();
    shelf.put_manifest("app", "x", media::INDEX, &to_json(&Index::new(all)));
    let error = pull_of(&server).unwrap_err().to_string();
    assert!(error.contains("no end"), "{error}");
}

#[test]
fn what_is_no_image_is_said() {
    let layer = Descriptor::of("application/vnd.example.chart.tar+gzip", &EMPTY);
    let (_, server) = image(vec![layer.clone()], &config(&[layer.digest]));
    assert!(pull_of(&server).unwrap_err().to_string().contains("which is not one of files"));
    for (manifest, word) in [
        (r#"{"schemaVersion":1,"fsLayers":[]}"#, "first schema"),
        ("[]", "manifest `x`"),
        ("", "manifest `x`"),
        (r#"{"schemaVersion":2,"config":{"digest":"sha256:../../../etc","size":1}}"#, "no digest"),
        (r#"{"schemaVersion":2,"config":{"digest":"md5:00","size":1},"layers":[]}"#, "no digest"),
        (
            r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":-1}]}"#,
            "index",
        ),
    ] {
        let server = Server::start(move |asked| match asked.path.contains("/manifests/") {
            true => Reply::new(200, manifest),
            false => Reply::new(200, "{}"),
        });
        let error = pull_of(&server).unwrap_err().to_string();
        assert!(error.contains(word), "{manifest}: {error}");
    }
}

#[test]
fn an_interrupt_ends_everything() {
    let layer = Descriptor::of(media::LAYER, &EMPTY);
    let (_, server) = image(vec![layer.clone()], &config(&[layer.digest]));
    let world = World::new();
    world.access.settings.interrupt.store(2, Ordering::Relaxed);
    let error = world.pull(&format!("oci://{}/app:x", server.host)).unwrap_err();
    assert!(matches!(error, crate::Error::Registry(Error::Interrupted)), "{error}");
    assert!(server.asked().is_empty());
}
