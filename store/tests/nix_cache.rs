//! Nix binary caches, judged by Nix itself: what it writes is fetched, what is served here it takes.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};

use sha2::{Digest, Sha256};
use store::http::{Client, Patience};
use store::nix::cache::{Caches, Fetched, serve};
use store::nix::info::PathInfo;
use store::signing::{NamedKey, NamedPublicKey};
use store::{Error, Node, Store, StorePath};

/// Whether Nix is here.
fn have_nix() -> bool {
    let found = Command::new("nix").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("skipped: no `nix` here");
    }
    found
}

struct World {
    directory: tempfile::TempDir,
    store: Store,
    client: Client,
    interrupt: AtomicI32,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("store")).unwrap();
        let client = Client::new(Default::default(), Patience::default());
        Self { directory, store, client, interrupt: AtomicI32::new(0) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn caches(&self, addresses: &[&str], trusted: &[NamedPublicKey]) -> Caches<'_> {
        Caches {
            client: &self.client,
            addresses: addresses.iter().map(|address| (*address).to_owned()).collect(),
            trusted: trusted.to_vec(),
            interrupt: &self.interrupt,
            dead: Mutex::default(),
        }
    }

    /// Nix with a store of its own below the directory, so that /nix is left alone.
    fn nix(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("PATH", std::env::var("PATH").unwrap());
        command.env("HOME", self.path("home")).env("NIX_CONF_DIR", self.path("home")).env("NIX_REMOTE", self.root());
        // Nix wants its users only for builds.
        let output = command.args(["--option", "build-users-group", ""]).output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    fn root(&self) -> String {
        self.path("nix").display().to_string()
    }
}

/// A directory with one of everything.
fn content(top: &Path) {
    fs::create_dir_all(top.join("bin")).unwrap();
    fs::write(top.join("bin/tool"), "#!/bin/sh\necho tool\n").unwrap();
    fs::set_permissions(top.join("bin/tool"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(top.join("large"), vec![7; 300_000]).unwrap();
    std::os::unix::fs::symlink("bin/tool", top.join("link")).unwrap();
}

#[test]
fn what_nix_puts_into_a_cache_is_fetched_in_every_compression() {
    if !have_nix() {
        return;
    }
    let world = World::new();
    content(&world.path("source"));
    let added = match world.nix("nix-store", &["--add", world.path("source").to_str().unwrap()]) {
        Ok(added) => added,
        Err(words) => {
            eprintln!("skipped: nix has no store of its own here: {words}");
            return;
        }
    };
    let path = StorePath::parse(&added).unwrap();
    let (secret, public) = (world.path("secret"), world.path("public"));
    let key = |path: &Path| path.display().to_string();
    world.nix("nix-store", &["--generate-binary-cache-key", "test-1", &key(&secret), &key(&public)]).unwrap();
    let trusted = NamedPublicKey::parse(&fs::read_to_string(public).unwrap()).unwrap();
    for compression in ["none", "xz", "zstd", "bzip2"] {
        let cache = world.path(compression);
        let to = format!("file://{}?compression={compression}&secret-key={}", cache.display(), key(&secret));
        world.nix("nix", &["--extra-experimental-features", "nix-command", "copy", "--to", &to, &added]).unwrap();
        let address = format!("file://{}", cache.display());
        let other = World::new();
        assert_eq!(other.caches(&[&address], &[]).about(0).unwrap().priority, 50);
        let fetched = other
            .caches(&[&address], std::slice::from_ref(&trusted))
            .fetch(&other.store, std::slice::from_ref(&path))
            .unwrap();
        assert_eq!((fetched.here, fetched.archives), (BTreeSet::from([path.clone()]), 1), "{compression}");
        let (delta, info) = other.store.store_path(&path).unwrap().unwrap();
        let (_, node) = other.store.node_of_store_delta(delta).unwrap().unwrap();
        let own = world.nix("nix-store", &["--query", "--size", &added]).unwrap();
        assert_eq!(info.nar_size.to_string(), own);
        let Node::Directory(root) = node else { panic!("a directory") };
        assert_eq!(other.store.content_at(root, b"bin/tool", 100).unwrap().unwrap(), b"#!/bin/sh\necho tool\n");
        // Again it is here.
        let again = other.caches(&["file:///nowhere"], &[]).fetch(&other.store, std::slice::from_ref(&path)).unwrap();
        assert_eq!((again.here.len(), again.archives), (1, 0));
    }
}

/// Two paths, the first of which refers to the second and to itself, as the store knows them.
fn two(store: &Store) -> [StorePath; 2] {
    let path = |digit: &str, name: &str| StorePath::parse(&format!("/nix/store/{}-{name}", digit.repeat(32))).unwrap();
    let paths = [path("1", "above"), path("2", "below")];
    for (path, references) in [(&paths[1], vec![]), (&paths[0], paths.to_vec())] {
        let source = tempfile::tempdir().unwrap();
        content(source.path());
        fs::write(source.path().join("refers"), format!("{references:?}")).unwrap();
        let node = store.ingest_source(source.path(), None).unwrap();
        let (mut hasher, mut nar_size) = (Sha256::new(), 0);
        store
            .write_nar(&node, &mut |bytes| {
                nar_size += bytes.len() as u64;
                hasher.update(bytes);
                Ok(())
            })
            .unwrap();
        let references = references.into_iter().collect();
        let info =
            PathInfo { path: path.clone(), nar_hash: hasher.finalize().into(), nar_size, references, deriver: None };
        store.put_store_path(&node, &info).unwrap();
    }
    paths
}

/// Serves what `answer` gives for a path; ends with the process.
fn listen(answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || while one(&stream, &*answer).is_some() {});
        }
    });
    address
}

fn one(stream: &TcpStream, answer: &dyn Fn(&str) -> Option<Vec<u8>>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut field = String::new();
    while reader.read_line(&mut field).ok()? > 2 {
        field.clear();
    }
    let (status, body) = match answer(&path) {
        Some(body) => (200, body),
        None => (404, Vec::new()),
    };
    let mut reply = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    if method != "HEAD" {
        reply.extend(body);
    }
    let mut stream = stream;
    stream.write_all(&reply).ok()
}

/// A store served as a cache.
fn served(store: Arc<Store>, key: Option<NamedKey>) -> String {
    listen(move |path| {
        let served = serve(&store, key.as_ref(), path).unwrap()?;
        let mut body = Vec::new();
        served.write(&store, &mut body).unwrap();
        assert_eq!(body.len() as u64, served.length);
        Some(body)
    })
}

#[test]
fn what_is_served_nix_takes_and_so_do_we() {
    let from = World::new();
    let paths = two(&from.store);
    let World { directory: _directory, store, .. } = from;
    let key = NamedKey::from_seed("forge-1", [3; 32]);
    let public = key.public();
    let address = served(Arc::new(store), Some(key));
    let to = World::new();
    let fetched = to.caches(&[&address], std::slice::from_ref(&public)).fetch(&to.store, &paths[..1]).unwrap();
    assert_eq!((fetched.here, fetched.archives), (BTreeSet::from([paths[0].clone()]), 2));
    assert_eq!(to.store.store_closure([&paths[0]]).unwrap().unwrap().len(), 2);
    if !have_nix() {
        return;
    }
    let nix = World::new();
    let copy = |keys: &str| {
        let arguments = [
            "--extra-experimental-features",
            "nix-command",
            "--option",
            "trusted-public-keys",
            keys,
            "copy",
            "--from",
            &address,
            paths[0].as_str(),
        ];
        nix.nix("nix", &arguments)
    };
    let refused = copy("").unwrap_err();
    if !refused.contains("signature") {
        eprintln!("skipped: nix has no store of its own here: {refused}");
        return;
    }
    copy(&public.to_string()).unwrap();
    let references = nix.nix("nix-store", &["--query", "--references", paths[0].as_str()]).unwrap();
    assert_eq!(references.lines().collect::<BTreeSet<_>>(), paths.iter().map(StorePath::as_str).collect());
    nix.nix("nix-store", &["--verify", "--check-contents"]).unwrap();
    let tool = fs::read(format!("{}{}/bin/tool", nix.root(), paths[1].as_str())).unwrap();
    assert_eq!(tool, b"#!/bin/sh\necho tool\n");
    // By itself, as a substituter.
    let nix = World::new();
    let arguments = [
        "--realise",
        paths[0].as_str(),
        "--option",
        "substituters",
        &address,
        "--option",
        "trusted-public-keys",
        &public.to_string(),
    ];
    assert_eq!(nix.nix("nix-store", &arguments).unwrap(), paths[0].as_str());
}

#[test]
fn what_is_not_signed_or_not_as_signed_is_not_taken() {
    let from = World::new();
    let paths = two(&from.store);
    let World { directory: _directory, store, .. } = from;
    let store = Arc::new(store);
    let key = || NamedKey::from_seed("forge-1", [3; 32]);
    let trusted = [key().public()];
    let fetch = |address: &str, trusted: &[NamedPublicKey]| -> Result<Fetched, Error> {
        let to = World::new();
        let fetched = to.caches(&[address], trusted).fetch(&to.store, &paths[..1]);
        // What was not believed is not here.
        if !fetched.as_ref().is_ok_and(|fetched| !fetched.here.is_empty()) {
            assert_eq!(to.store.store_path(&paths[0]).unwrap(), None);
        }
        fetched
    };
    let good = served(Arc::clone(&store), Some(key()));
    assert_eq!(fetch(&good, &trusted).unwrap().archives, 2);
    // By nobody, by another, by one who is not trusted.
    let unsigned = served(Arc::clone(&store), None);
    for (address, trusted) in
        [(&unsigned, &trusted[..]), (&good, &[]), (&good, &[NamedKey::from_seed("forge-1", [4; 32]).public()])]
    {
        let fetched = fetch(address, trusted).unwrap();
        assert!(
            fetched.here.is_empty() && fetched.notes.iter().any(|note| note.contains("no trusted key")),
            "{fetched:?}"
        );
    }
    let changed = |change: fn(&str, Vec<u8>) -> Vec<u8>| {
        let store = Arc::clone(&store);
        listen(move |path| {
            let mut body = Vec::new();
            serve(&store, Some(&NamedKey::from_seed("forge-1", [3; 32])), path)
                .unwrap()?
                .write(&store, &mut body)
                .unwrap();
            Some(change(path, body))
        })
    };
    // A byte of an archive; a shorter one; a longer one.
    let byte = changed(|path, mut body| {
        if path.starts_with("/nar/") {
            let at = body.windows(8).position(|bytes| bytes == [7; 8]).unwrap();
            body[at] = 8;
        }
        body
    });
    assert!(matches!(fetch(&byte, &trusted), Err(Error::Mismatch { .. })));
    let short = changed(|path, body| if path.starts_with("/nar/") { body[..body.len() - 16].to_vec() } else { body });
    assert!(matches!(fetch(&short, &trusted), Err(Error::Archive { .. })));
    let long = changed(|path, body| if path.starts_with("/nar/") { [&body[..], &[0; 8]].concat() } else { body });
    assert!(matches!(fetch(&long, &trusted), Err(Error::Archive { .. })));
    // Another path's text; a text that is none.
    let other = changed(|path, body| match path.ends_with(".narinfo") {
        true => String::from_utf8(body).unwrap().replace("/nix/store/1", "/nix/store/3").into_bytes(),
        false => body,
    });
    assert!(matches!(fetch(&other, &trusted), Err(Error::Archive { .. })));
    let none = listen(|_| Some(vec![b'x'; 1000]));
    assert!(matches!(fetch(&none, &trusted), Err(Error::Archive { .. })));
    // One that does not answer is passed over, with words, and asked once.
    let to = World::new();
    let caches = to.caches(&["http://127.0.0.1:1", &good], &trusted);
    let fetched = caches.fetch(&to.store, &paths[..1]).unwrap();
    assert!(
        fetched.here.len() == 1 && fetched.notes.iter().any(|note| note.contains("does not answer")),
        "{fetched:?}"
    );
    // The user interrupts.
    to.interrupt.store(2, Ordering::Relaxed);
    let elsewhere = StorePath::parse(&format!("/nix/store/{}-x", "3".repeat(32))).unwrap();
    assert!(caches.fetch(&to.store, &[elsewhere]).is_err());
}
