//! Images go and come: what is there is not sent, what is here is not fetched, what was cut goes on.

use super::*;

#[test]
fn a_pushed_formation_comes_back_as_the_same() {
    let shelf = Arc::new(Shelf::default());
    let answers = Arc::clone(&shelf);
    let server = Server::start(move |asked| answers.answer(asked));
    let world = World::new();
    let id = world.formation(b"hello", "linux/amd64");
    let address = format!("oci://{}/team/app", server.host);
    let pushed = world.push(&address, &[id]).unwrap();
    // The repository is called as the formation is: the tag is its version.
    assert_eq!(pushed.tags, ["1".to_owned(), formation_tag(id)]);
    assert!(pushed.parts.iter().all(|part| part.how == How::Sent), "{pushed:?}");
    let again = world.push(&address, &[id]).unwrap();
    assert!(again.parts.iter().all(|part| part.how == How::There), "{again:?}");
    assert_eq!((again.sent(), again.digest), (0, pushed.digest));
    // Elsewhere it would be mistaken for something else of this version.
    let elsewhere = world.push(&format!("oci://{}/shared", server.host), &[id]).unwrap();
    assert_eq!(elsewhere.tags, ["app-1".to_owned(), formation_tag(id)]);

    let world = world.emptied();
    for name in [":1".to_owned(), format!(":{}", formation_tag(id)), format!("@{}", pushed.digest)] {
        let pulled = world.pull(&format!("{address}{name}")).unwrap();
        assert_eq!(pulled.imported.formation.as_ref().map(Formation::id), Some(id), "{name}");
        assert_eq!((pulled.digest, pulled.manifest), (pushed.digest, pushed.digest));
    }
    // The layer was fetched once.
    let layer = pushed.parts.iter().find(|part| part.descriptor.media_type.contains("layer")).unwrap();
    assert_eq!(server.count("GET", &layer.descriptor.digest.to_string()), 1);
    assert!(matches!(world.pull(&format!("{address}:2")), Err(crate::Error::Registry(Error::NotFound { .. }))));
}

#[test]
fn several_platforms_go_under_one_index() {
    let shelf = Arc::new(Shelf::default());
    let answers = Arc::clone(&shelf);
    let server = Server::start(move |asked| answers.answer(asked));
    let world = World::new();
    let ids = ["linux/arm64", "linux/amd64"].map(|platform| world.formation(platform.as_bytes(), platform));
    let address = format!("oci://{}/app:both", server.host);
    let pushed = world.push(&address, &ids).unwrap();
    assert_eq!(pushed.tags.len(), 3);
    let world = world.emptied();
    for (platform, id) in ["linux/arm64", "linux/amd64"].into_iter().zip(ids) {
        let pulled = world.pull_platform(&address, Some(platform)).unwrap();
        assert_eq!(pulled.imported.formation.unwrap().id(), id);
        assert!(pulled.digest == pushed.digest && pulled.manifest != pushed.digest);
        // Each is found by its own id too.
        let own = world.pull(&format!("oci://{}/app:{}", server.host, formation_tag(id))).unwrap();
        assert_eq!(own.manifest, pulled.manifest);
    }
    let missing = world.pull_platform(&address, Some("linux/s390x")).unwrap_err().to_string();
    assert!(missing.contains("no image for linux/s390x, but for linux/amd64, linux/arm64"), "{missing}");
}

#[test]
fn what_a_neighbour_has_is_mounted() {
    let shelf = Arc::new(Shelf::default());
    let answers = Arc::clone(&shelf);
    // Blobs are seen only in the first repository.
    let server =
        Server::start(move |asked| match (asked.method.as_str(), asked.path.contains("/second/blobs/sha256")) {
            ("HEAD", true) => Reply::new(404, ""),
            _ => answers.answer(asked),
        });
    let world = World::new();
    let id = world.formation(b"hello", "linux/amd64");
    world.push(&format!("oci://{}/first:x", server.host), &[id]).unwrap();
    let pushed = world.push(&format!("oci://{}/second:x", server.host), &[id]).unwrap();
    let how: Vec<How> = pushed.parts.iter().map(|part| part.how).collect();
    assert_eq!(how, [How::Mounted, How::Mounted, How::Sent]);
}

#[test]
fn documents_are_found_with_and_without_the_referrers_api() {
    for referrers in [true, false] {
        let shelf = Arc::new(Shelf { referrers, ..Shelf::default() });
        let answers = Arc::clone(&shelf);
        let server = Server::start(move |asked| answers.answer(asked));
        let world = World::new();
        let id = world.formation(b"hello", "linux/amd64");
        let reference: Reference = format!("oci://{}/app", server.host).parse().unwrap();
        let session = Session::new(&world.access, &reference);
        assert!(session.referrers(&Digest::of(b"nothing")).unwrap().is_empty());
        let attach = vec![crate::format::Attachment::Sbom];
        let options = Options { attach, remembered: true, ..Options::default() };
        for _ in 0..2 {
            let pushed = push(&world.store, &session, &[id], &options, None).unwrap();
            let kinds: Vec<Option<String>> =
                session.referrers(&pushed.digest).unwrap().into_iter().map(|referrer| referrer.artifact_type).collect();
            let expected = [Some(crate::sbom::MEDIA_TYPE.to_owned())];
            assert_eq!(kinds, expected, "{referrers}");
        }
        let inspection = inspect(&session, &reference.tagged("1"), None).unwrap();
        assert_eq!(inspection.formation.unwrap().id(), id);
        assert!(inspection.facts.contains_key("attached 1"), "{:?}", inspection.facts);
    }
}

#[test]
fn a_large_layer_goes_on_where_it_was_cut() {
    // More than goes in one request.
    let content = noise(5 << 20);
    let shelf = Arc::new(Shelf::default());
    let answers = Arc::clone(&shelf);
    let (patches, gets) = (Mutex::new(0), Mutex::new(0));
    let server = Server::start(move |asked| {
        let first = |count: &Mutex<u32>| {
            let mut count = count.lock().unwrap();
            *count += 1;
            *count == 1
        };
        if asked.method == "PATCH" && first(&patches) {
            // The line breaks after 3 MiB were kept.
            let mut half = asked.clone();
            half.body.truncate(3 << 20);
            answers.answer(&half);
            return Reply::default();
        }
        let reply = answers.answer(asked);
        let large = reply.body.len() > 4 << 20;
        match asked.method == "GET" && large && first(&gets) {
            true => Reply { cut: Some(2 << 20), ..reply },
            false => reply,
        }
    });
    let world = World::new();
    let id = world.formation(&content, "linux/amd64");
    let address = format!("oci://{}/app:x", server.host);
    world.push(&address, &[id]).unwrap();
    let sent: Vec<usize> =
        server.asked().iter().filter(|asked| asked.method == "PATCH").map(|asked| asked.body.len()).collect();
    assert!(sent.len() == 2 && sent[1] < sent[0] - (2 << 20), "{sent:?}");
    let world = world.emptied();
    assert_eq!(world.pull(&address).unwrap().imported.formation.unwrap().id(), id);
    let ranges: Vec<String> =
        server.asked().iter().map(|asked| asked.header("range").to_owned()).filter(|range| !range.is_empty()).collect();
    assert_eq!(ranges, [format!("bytes={}-", 2 << 20)]);
}

#[test]
fn a_registry_that_stumbles_is_asked_again_and_one_that_takes_less_gets_less() {
    let content = noise(20 << 20);
    let shelf = Arc::new(Shelf::default());
    let answers = Arc::clone(&shelf);
    let count = Mutex::new(0);
    let server = Server::start(move |asked| {
        let mut count = count.lock().unwrap();
        *count += 1;
        match *count {
            1 | 3 => Reply::new(503, "").with("retry-after", "0"),
            _ if asked.body.len() > 17 << 20 => Reply::new(413, ""),
            _ => answers.answer(asked),
        }
    });
    let world = World::new();
    let id = world.formation(&content, "linux/amd64");
    world.push(&format!("oci://{}/app:x", server.host), &[id]).unwrap();
    let ranges: Vec<String> = server.asked().iter().map(|asked| asked.header("content-range").to_owned()).collect();
    assert!(ranges.iter().any(|range| range.starts_with("16777216-")), "{ranges:?}");
}

#[test]
fn a_damaged_layer_is_not_told_as_the_registrys_fault() {
    let shelf = Arc::new(Shelf::default());
    let answers = Arc::clone(&shelf);
    let server = Server::start(move |asked| answers.answer(asked));
    let world = World::new();
    let id = world.formation(b"hello", "linux/amd64");
    let image = crate::format::oci::image(&world.store, id, &Options::default()).unwrap();
    let Some(crate::format::oci::Source::Made(blob)) = image.contents.first().map(|content| &content.source) else {
        panic!("a layer")
    };
    let hex = blob.to_string();
    let path = world.store.path().join(format!("blobs/{}/{}", &hex[..2], &hex[2..]));
    if !path.exists() {
        // Small blobs may lie elsewhere; then there is no file to damage.
        return;
    }
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = world.push(&format!("oci://{}/app:x", server.host), &[id]).unwrap_err();
    assert!(matches!(&error, crate::Error::Mismatch { from, .. } if from.contains("of the store")), "{error}");
    assert_eq!(server.count("PUT", "/manifests/"), 0);
    drop(world.directory);
}
