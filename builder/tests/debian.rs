//! Real packages, from the mirror of this machine, configured with their real maintainer scripts: twice, and by root and an
//! ordinary user. Without a mirror or without namespaces it says that it was skipped.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use builder::builtin::{Builtin, Input, Job};
use builder::debian::{configure::Configure, package};
use builder::fetch::{Fetcher, Wanted};
use builder::{Builder, Error, Event, Machine, Reporter};
use rayon::prelude::*;
use serde_json::{Value, json};
use store::directory::Claim;
use store::lock::LockRequest;
use store::{BlobId, DeltaId, Metadata, Name, Node, Store, TreeId};

struct Quiet;

impl Reporter for Quiet {
    fn report(&self, _event: Event<'_>) {}
}

/// A package's archive, and whether it is configured before the others.
type Deb = (BlobId, bool);

fn with_builder<T>(store: &Store, work: impl FnOnce(&Builder<'_>) -> T) -> T {
    let machine = Machine {
        environment: std::env::vars().collect(),
        root: "/".into(),
        home: std::env::var_os("HOME").map(Into::into),
        ..Machine::default()
    };
    let (fetcher, backend) = (Fetcher::new(&machine).unwrap(), executor::Native::default());
    work(&Builder {
        store,
        backend: &backend,
        machine: &machine,
        reporter: &Quiet,
        fetcher: &fetcher,
        jobs: 2,
        cores: None,
        keep_going: false,
        keep_failed: false,
        interrupt: Arc::default(),
        work: None,
        peers: None,
        made: None,
    })
}

/// The packages that a wish stands for, fetched.
fn packages(builder: &Builder<'_>, wish: &[&str]) -> Result<Vec<Deb>, Error> {
    let parameters = json!({"suite": "bookworm", "architecture": "amd64", "packages": wish});
    let Value::Object(parameters) = parameters else { unreachable!("it is an object") };
    let request = LockRequest { kind: "debian".to_owned(), parameters: parameters.into_iter().collect() };
    let entry = builder::resolve::resolve(builder, &request)?;
    let fetch = |record: &BTreeMap<String, Value>| {
        let text = |field: &str| record[field].as_str().unwrap();
        let url = format!("debian:{}/{}", text("suite"), text("file"));
        let hex = text("sha256");
        let digest = std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap());
        let wanted = Wanted { url: &url, sha256: Some(digest), size: record["size"].as_u64() };
        let essential = record.get("essential").is_some_and(|it| *it == true);
        builder.fetcher.fetch(builder, &wanted).map(|(blob, _)| (blob, essential))
    };
    entry.records.par_iter().map(fetch).collect()
}

/// The configured root that these packages give, made in one step, or the essential ones first.
fn configured(builder: &Builder<'_>, debs: &[Deb], in_one: bool) -> TreeId {
    let unpack = |(blob, essential): &Deb| {
        let reader = BufReader::new(builder.store.open_blob(*blob).unwrap());
        (package::unpack(builder.store, &blob.to_string(), reader, &|| Ok(())).unwrap(), *essential)
    };
    let deltas: Vec<_> = debs.par_iter().map(unpack).collect();
    let all = deltas.iter().map(|(delta, _)| *delta).collect::<Vec<_>>();
    let essential = deltas.iter().filter(|(_, essential)| *essential).map(|(delta, _)| *delta).collect::<Vec<_>>();
    let below = (!in_one).then(|| configure(builder, &essential, None));
    builder.store.delta(configure(builder, &all, below)).unwrap().tree
}

fn configure(builder: &Builder<'_>, deltas: &[DeltaId], below: Option<DeltaId>) -> DeltaId {
    let named = deltas.iter().enumerate().map(|(at, delta)| (at.to_string(), *delta));
    let named: BTreeMap<_, _> = named.chain(below.map(|below| ("below".to_owned(), below))).collect();
    let inputs = named.iter().map(|(name, delta)| (name.clone(), Input::Claim(Claim::Delta(*delta)))).collect();
    let paths: Vec<_> = (0..deltas.len()).map(|at| at.to_string()).collect();
    let below = below.map(|_| "below");
    let parameters = json!({"suite": "bookworm", "architecture": "amd64", "packages": paths, "below": below});
    let job = Job { builder, name: "debian", parameters: &parameters, inputs: &inputs, fixed: None };
    match Configure.build(&job) {
        Ok(Claim::Delta(delta)) => delta,
        Err(Error::Step { ending, log, .. }) => panic!("{ending}\n{log}"),
        other => panic!("{other:?}"),
    }
}

fn open(directory: &Path) -> Store {
    Store::open(directory.join("store")).unwrap()
}

/// For a child process: configures the packages that lie in this directory, and writes the id of what came out beside them.
const DIRECTORY: &str = "FORGE_TEST_PACKAGES";

#[test]
fn as_the_user_who_runs_this() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let directory = Path::new(&directory);
    let mut files: Vec<_> =
        std::fs::read_dir(directory.join("packages")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let tree = with_builder(&open(directory), |builder| {
        let put = |file: &PathBuf| builder.store.put_blob(&std::fs::read(file).unwrap(), false).unwrap();
        let debs: Vec<Deb> = files.iter().map(|file| (put(file), false)).collect();
        configured(builder, &debs, true)
    });
    std::fs::write(directory.join("tree"), tree.to_string()).unwrap();
}

/// Does the same in one step as another user, who owns nothing but a store of his own.
fn as_ordinary_user(store: &Store, debs: &[Deb]) -> String {
    const NOBODY: u32 = 65534;
    let directory = tempfile::tempdir().unwrap();
    let (files, program) = (directory.path().join("packages"), directory.path().join("program"));
    std::fs::create_dir(&files).unwrap();
    for (at, (package, _)) in debs.iter().enumerate() {
        std::fs::write(files.join(format!("{at:04}")), store.blob(*package).unwrap()).unwrap();
    }
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let mut command = Command::new(program);
    command.args(["--exact", "as_the_user_who_runs_this", "--nocapture"]).env(DIRECTORY, directory.path());
    let output = command.env("HOME", directory.path()).current_dir("/").uid(NOBODY).gid(NOBODY).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
    std::fs::read_to_string(directory.path().join("tree")).unwrap()
}

fn find(store: &Store, tree: TreeId, path: &str) -> Option<Node> {
    path.split('/').try_fold(Node::Directory(tree), |node, name| match node {
        Node::Directory(id) => store.tree(id).unwrap().entries.get(&Name::new(name).unwrap()).cloned(),
        _ => None,
    })
}

fn text(store: &Store, tree: TreeId, path: &str) -> String {
    match find(store, tree, path) {
        Some(Node::File(file)) => String::from_utf8(store.blob(file.blob).unwrap()).unwrap(),
        other => panic!("{path}: {other:?}"),
    }
}

/// What everyone may expect of a configured root.
fn check(store: &Store, tree: TreeId, count: usize) {
    let status = text(store, tree, "var/lib/dpkg/status");
    assert_eq!(status.matches("\nStatus: install ok installed\n").count(), count);
    assert_eq!(status.matches("\nStatus: ").count(), count);
    assert!(text(store, tree, "etc/passwd").starts_with("root:x:0:0:root:/root:/bin/bash\n"));
    assert!(matches!(find(store, tree, "bin"), Some(Node::Symlink { target, .. }) if target == b"usr/bin"));
    let Some(Node::Directory(tmp)) = find(store, tree, "tmp") else { panic!("no /tmp") };
    let tmp = store.tree(tmp).unwrap();
    assert_eq!((&tmp.metadata, tmp.entries.len()), (&Metadata::root(0o1777), 0));
    let Some(Node::File(shadow)) = find(store, tree, "etc/shadow") else { panic!("no /etc/shadow") };
    assert_eq!((shadow.metadata.mode, shadow.metadata.gid), (0o640, 42));
    for gone in ["usr/sbin/policy-rc.d", "var/lib/dpkg/forge", "var/lib/dpkg/status.d", "var/lib/dpkg/status-old"] {
        assert_eq!(find(store, tree, gone), None, "{gone}");
    }
    for (name, node) in &store.tree(tree).unwrap().entries {
        if let (b"dev" | b"proc" | b"run" | b"sys", Node::Directory(id)) = (name.as_bytes(), node) {
            assert!(store.tree(*id).unwrap().entries.is_empty(), "{name}");
        }
    }
}

fn builds_alike(wish: &[&str]) {
    if std::env::var_os(DIRECTORY).is_some() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let debs = match with_builder(&store, |builder| packages(builder, wish)) {
        Ok(debs) => debs,
        Err(error @ (Error::Fetch { .. } | Error::NotConfigured { .. })) => {
            return eprintln!("skipped: no Debian mirror answers here: {error}");
        }
        Err(error) => panic!("{error}"),
    };
    let tree = with_builder(&store, |builder| configured(builder, &debs, false));
    check(&store, tree, debs.len());
    // In one step, others first, and as another user where that can be.
    let mut other = debs.clone();
    other.reverse();
    if rustix::process::geteuid().is_root() {
        assert_eq!(as_ordinary_user(&store, &other), tree.to_string());
    } else {
        eprintln!("skipped: only root can build as another user too");
        assert_eq!(with_builder(&store, |builder| configured(builder, &other, true)), tree);
    }
}

#[test]
fn python_is_configured_alike_by_everyone() {
    builds_alike(&["python3", "passwd"]);
}

/// A minute or two: `cargo test -- --ignored`.
#[test]
#[ignore = "slow"]
fn a_larger_set_is_configured_alike_by_everyone() {
    let large = ["python3-pip", "git", "openssh-client", "openssh-server", "man-db", "openjdk-17-jre-headless"];
    builds_alike(
        &[&large[..], &["postgresql", "nginx-light", "build-essential", "ssl-cert", "dbus", "locales"]].concat(),
    );
}
