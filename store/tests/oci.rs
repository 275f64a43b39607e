//! What others make of our OCI images, and what we read of theirs: skopeo, umoci, podman, containerd. Where one is missing the test says so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

use store::directory::{LayerRecord, Record};
use store::format::oci::{self, Oci};
use store::format::{self, Artifact, Bounds, Compression, Format, Imported, Options};
use store::{Delta, File, Formation, FormationId, Launch, Metadata, Name, Node, RelativePath, Store, Tree, TreeId};

struct World {
    directory: tempfile::TempDir,
    store: Store,
    id: FormationId,
}

fn tree<const N: usize>(store: &Store, metadata: Metadata, entries: [(&str, Node); N]) -> Node {
    let entries = entries.into_iter().map(|(name, node)| (Name::new(name).unwrap(), node)).collect();
    Node::Directory(store.put_tree(&Tree { metadata, entries }).unwrap())
}

fn file(store: &Store, text: &str, metadata: Metadata) -> Node {
    let blob = store.put_blob(text.as_bytes(), metadata.mode & 0o100 != 0).unwrap();
    Node::File(File { blob, size: text.len() as u64, metadata })
}

fn id_of(node: &Node) -> TreeId {
    let Node::Directory(id) = node else { panic!("a directory") };
    *id
}

impl World {
    /// A formation of two layers with one of everything that they may have.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("store")).unwrap();
        let plain = |text: &str| file(&store, text, Metadata::root(0o644));
        let root = Metadata::root;
        let mut noted = root(0o640);
        noted.attributes.insert(b"user.note".to_vec(), b"hello".to_vec());
        let lower = tree(
            &store,
            root(0o755),
            [
                ("bin", Node::Symlink { target: b"usr/bin".to_vec(), uid: 0, gid: 0 }),
                (
                    "etc",
                    tree(
                        &store,
                        root(0o755),
                        [("gone", plain("x")), ("passwd", plain("root:x:0:0::/:/bin/sh\ndaemon:x:1:1::/:/bin/sh\n"))],
                    ),
                ),
                ("opaque", tree(&store, root(0o755), [("old", plain("old"))])),
                ("tmp", tree(&store, root(0o1777), [])),
                (
                    "usr",
                    tree(
                        &store,
                        root(0o755),
                        [("bin", tree(&store, root(0o755), [("tool", file(&store, "#!\n", root(0o4755)))]))],
                    ),
                ),
                ("private", tree(&store, Metadata { uid: 5, gid: 6, ..root(0o700) }, [("a", plain("a"))])),
            ],
        );
        let upper = tree(
            &store,
            root(0o755),
            [
                ("etc", tree(&store, root(0o755), [("new", file(&store, "new", noted))])),
                ("opaque", tree(&store, root(0o750), [("new", plain("new"))])),
                (
                    "private",
                    tree(
                        &store,
                        root(0o755),
                        [("b", file(&store, "b", Metadata { uid: 1000, gid: 7, ..root(0o600) }))],
                    ),
                ),
                ("long".repeat(60).as_str(), plain("a name that a ustar header cannot hold")),
            ],
        );
        let path = |text: &str| RelativePath::parse(text.as_bytes()).unwrap();
        let delta = Delta {
            tree: id_of(&upper),
            removed: BTreeSet::from(["etc/gone", "opaque"].map(path)),
            passed: BTreeSet::from(["", "etc", "private"].map(path)),
        };
        let deltas = [Delta::whole(id_of(&lower)), delta].map(|delta| store.put_delta(&delta).unwrap());
        let layer = |delta: &store::DeltaId| LayerRecord {
            label: "layer".to_owned(),
            delta: delta.to_string(),
            size: 0,
            files: 0,
        };
        let record = Record { layers: deltas.iter().map(layer).collect(), ..Record::default() };
        let launch = Launch {
            entrypoint: vec![b"/bin/tool".to_vec()],
            command: vec![b"word".to_vec()],
            environment: BTreeMap::from([(b"PATH".to_vec(), b"/bin".to_vec()), (b"A".to_vec(), b"b c".to_vec())]),
            user: Some("daemon:4".parse().unwrap()),
            directory: Some(b"/tmp".to_vec()),
            ports: BTreeSet::from(["80", "53/udp"].map(|port| port.parse().unwrap())),
            stop_signal: Some("SIGQUIT".parse().unwrap()),
            labels: BTreeMap::from([("org.example.team".to_owned(), "search".to_owned())]),
            ..Launch::default()
        };
        let formation = Formation {
            name: "judged".to_owned(),
            version: "1.0".to_owned(),
            variant: String::new(),
            platform: format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
            root: store.merge(&deltas).unwrap(),
            launch,
        };
        let id = store.put_formation(&formation, &record).unwrap();
        Self { directory, store, id }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn archive(&self, name: &str, compression: Compression) -> PathBuf {
        let options = Options { compression, ..Options::default() };
        let path = self.path(name);
        Oci.pack(&self.store, self.id, &options, &mut fs::File::create(&path).unwrap()).unwrap();
        path
    }

    fn layout(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let collection = oci::collection(&self.store, &[self.id], &Options::default()).unwrap();
        oci::write_directory(&self.store, &collection, &path).unwrap();
        path
    }

    /// Reads an artifact into a store that has nothing else.
    fn read(&self, path: &Path) -> Imported {
        let store = Store::open(self.path(&format!("store-{}", path.file_name().unwrap().to_string_lossy()))).unwrap();
        let artifact = Artifact::open(path).unwrap();
        format::read(&store, &artifact, &Bounds::for_size(artifact.size())).unwrap()
    }

    #[track_caller]
    fn is_the_same(&self, path: &Path) {
        let imported = self.read(path);
        assert_eq!(imported.root, self.store.formation(self.id).unwrap().root, "{}", path.display());
        assert_eq!(imported.formation.map(|formation| formation.id()), Some(self.id), "{}", path.display());
    }
}

fn have(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("skipped: no {program}");
    }
    found
}

fn is_root(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: {what} as an ordinary user");
    }
    root
}

#[track_caller]
fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn skopeo_copies_our_images_and_we_read_what_it_writes() {
    if !have("skopeo") {
        return;
    }
    let world = World::new();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let zstd = text(&world.archive("zstd.tar", Compression::Zstd(3)));
    let gzip = text(&world.archive("gzip.tar", Compression::Gzip(6)));
    let layout = text(&world.layout("layout"));
    let inspected = run("skopeo", &["inspect", &format!("oci-archive:{zstd}")]);
    let inspected: serde_json::Value = serde_json::from_slice(&inspected.stdout).unwrap();
    assert_eq!(inspected["Labels"]["org.example.team"], "search");
    assert_eq!(inspected["Layers"].as_array().unwrap().len(), 2);
    let config = run("skopeo", &["inspect", "--config", &format!("oci:{layout}")]);
    let config: serde_json::Value = serde_json::from_slice(&config.stdout).unwrap();
    assert_eq!(config["config"]["User"], "daemon:4");
    assert_eq!(config["config"]["StopSignal"], "SIGQUIT");
    assert_eq!(config["config"]["ExposedPorts"], serde_json::json!({ "53/udp": {}, "80/tcp": {} }));
    let copies = [
        (format!("oci-archive:{zstd}"), "oci:", "copied", ""),
        (format!("oci-archive:{gzip}"), "oci-archive:", "copied.tar", ":a:b"),
        (format!("oci:{layout}"), "dir:", "copied-dir", ""),
        (format!("oci-archive:{gzip}"), "docker-archive:", "docker.tar", ":judged:1.0"),
        (format!("oci-archive:{zstd}"), "docker-archive:", "docker-zstd.tar", ":judged:1.0"),
    ];
    for (from, transport, name, tag) in copies {
        let to = world.path(name);
        // Without a policy of the machine's, skopeo trusts nobody.
        run("skopeo", &["--insecure-policy", "copy", "-q", &from, &format!("{transport}{}{tag}", to.display())]);
        world.is_the_same(&to);
    }
}

#[test]
fn umoci_unpacks_our_images_and_we_read_what_it_repacks() {
    if !have("umoci") || !is_root("umoci") {
        return;
    }
    let world = World::new();
    // It reads zstd since 0.5.
    let version = String::from_utf8(run("umoci", &["--version"]).stdout).unwrap();
    if version.contains("version 0.4") {
        eprintln!("skipped: {} reads no zstd", version.trim());
        return;
    }
    let layout = world.layout("layout");
    let image = format!("{}:judged:1.0", layout.display());
    let bundle = world.path("bundle");
    run("umoci", &["unpack", "--image", &image, bundle.to_str().unwrap()]);
    let root = bundle.join("rootfs");
    let mode = |path: &str| fs::symlink_metadata(root.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("tmp"), mode("private"), mode("usr/bin/tool"), mode("opaque")), (0o1777, 0o700, 0o4755, 0o750));
    let private = fs::metadata(root.join("private")).unwrap();
    assert_eq!((private.uid(), private.gid()), (5, 6));
    assert!(!root.join("etc/gone").exists() && !root.join("opaque/old").exists() && root.join("opaque/new").exists());
    let runtime: serde_json::Value = serde_json::from_slice(&fs::read(bundle.join("config.json")).unwrap()).unwrap();
    assert_eq!(runtime["process"]["args"], serde_json::json!(["/bin/tool", "word"]));
    assert_eq!(runtime["process"]["cwd"], "/tmp");

    // A layer of its own making, with a whiteout.
    fs::remove_file(root.join("etc/passwd")).unwrap();
    fs::write(root.join("etc/added"), "added").unwrap();
    run("umoci", &["repack", "--image", &format!("{}:changed", layout.display()), bundle.to_str().unwrap()]);
    let store = Store::open(world.path("other")).unwrap();
    let copy = world.path("changed");
    if have("skopeo") {
        let from = format!("oci:{}:changed", layout.display());
        run("skopeo", &["--insecure-policy", "copy", "-q", &from, &format!("oci:{}", copy.display())]);
        let artifact = Artifact::open(&copy).unwrap();
        let imported = format::read(&store, &artifact, &Bounds::for_size(0)).unwrap();
        // The label is inherited; what it stands for is not what is there.
        assert_eq!((imported.formation, imported.layers.len()), (None, 3));
        let look = |path: &str| store.look(imported.root, path.as_bytes()).unwrap();
        assert!(look("/etc/passwd").is_none() && look("/etc/added").is_some() && look("/etc/new").is_some());
        assert_eq!(imported.launch.entrypoint, [b"/bin/tool".to_vec()]);
    }
}

#[test]
fn podman_loads_our_images_and_saves_the_same_root() {
    if !have("podman") || !is_root("podman") {
        return;
    }
    let world = World::new();
    let (storage, runroot) = (world.path("storage"), world.path("runroot"));
    let podman = |arguments: &[&str]| {
        let place =
            ["--root", storage.to_str().unwrap(), "--runroot", runroot.to_str().unwrap(), "--storage-driver", "vfs"];
        Command::new("podman").args(place).args(arguments).output().unwrap()
    };
    for compression in [Compression::Zstd(3), Compression::Gzip(6)] {
        let archive = world.archive("archive.tar", compression);
        let loaded = podman(&["load", "-q", "-i", archive.to_str().unwrap()]);
        if !loaded.status.success() {
            // A machine in which podman cannot work at all (a container without rights) is not ours to judge.
            eprintln!("skipped: podman load: {}", String::from_utf8_lossy(&loaded.stderr));
            return;
        }
        assert!(String::from_utf8_lossy(&loaded.stdout).contains("localhost/judged:1.0"), "{loaded:?}");
        for format in ["oci-archive", "docker-archive", "oci-dir", "docker-dir"] {
            let saved = world.path(&format!("saved-{format}"));
            let _ = fs::remove_file(&saved);
            let _ = fs::remove_dir_all(&saved);
            let output =
                podman(&["save", "-q", "--format", format, "-o", saved.to_str().unwrap(), "localhost/judged:1.0"]);
            let words = String::from_utf8_lossy(&output.stderr);
            // Docker's own formats have no zstd, and Podman before 5 does not compress anew.
            if !output.status.success() && words.contains("zstd compression is not supported for docker images") {
                continue;
            }
            assert!(output.status.success(), "{format}: {words}");
            world.is_the_same(&saved);
        }
        podman(&["rmi", "-a", "-f"]);
    }
}

/// A containerd of this test's own.
struct Containerd {
    process: Child,
    socket: String,
}

impl Containerd {
    fn start(world: &World) -> Option<Self> {
        let [root, state, socket] =
            ["root", "state", "socket"].map(|name| world.path(&format!("containerd-{name}")).display().to_string());
        let settings = format!(
            "version = 2\nroot = \"{root}\"\nstate = \"{state}\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{socket}\"\n[ttrpc]\naddress = \"{socket}.ttrpc\"\n"
        );
        let file = world.path("containerd.toml");
        fs::write(&file, settings).unwrap();
        let log = fs::File::create(world.path("containerd.log")).unwrap();
        let mut command = Command::new("containerd");
        command.arg("-c").arg(file).stdout(log.try_clone().unwrap()).stderr(log);
        let mut started = Self { process: command.spawn().unwrap(), socket };
        // It answers when it is ready; if it ends instead, or never does, it cannot work here.
        for _ in 0..300 {
            if started.process.try_wait().unwrap().is_some() {
                break;
            }
            if started.ctr(&["version"]).status.success() {
                return Some(started);
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        eprintln!("skipped: containerd: {}", fs::read_to_string(world.path("containerd.log")).unwrap());
        None
    }

    fn ctr(&self, arguments: &[&str]) -> Output {
        Command::new("ctr").args(["--address", &self.socket, "--timeout", "60s"]).args(arguments).output().unwrap()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn containerd_imports_and_unpacks_our_images_and_we_read_what_it_exports() {
    if !have("containerd") || !is_root("containerd") {
        return;
    }
    let world = World::new();
    let Some(containerd) = Containerd::start(&world) else { return };
    let done = |arguments: &[&str]| {
        let output = containerd.ctr(arguments);
        assert!(output.status.success(), "ctr {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for compression in [Compression::Zstd(3), Compression::Gzip(6)] {
        let archive = world.archive("archive.tar", compression);
        done(&["images", "import", "--local", "--no-unpack", archive.to_str().unwrap()]);
        let listed = done(&["images", "ls"]);
        let line = listed.lines().find(|line| line.starts_with("judged:1.0 ")).expect(&listed);
        let digest = line.split_whitespace().nth(2).unwrap();
        // Its `native` snapshots are directories, which any file system can hold.
        done(&["snapshots", "--snapshotter", "native", "unpack", digest]);
        let exported = world.path("exported.tar");
        let exports_elsewhere = done(&["images", "export", "--help"]).contains("--local");
        let local: &[&str] = if exports_elsewhere { &["--local"] } else { &[] };
        done(&[&["images", "export"], local, &[exported.to_str().unwrap(), "judged:1.0"]].concat());
        world.is_the_same(&exported);
        done(&["images", "rm", "judged:1.0"]);
    }
}
