//! Repositories as git makes them (where it is installed), and as this file makes them, object by object.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use store::nix::hash::{HashAlgorithm, HashFormat};
use store::{Node, Store};

use super::object::{Kind, ObjectId};
use super::*;
use crate::world::World;

/// A repository on disk that this file writes: loose objects only.
struct Made {
    directory: tempfile::TempDir,
}

impl Made {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let made = Self { directory };
        fs::create_dir_all(made.path().join("objects")).unwrap();
        fs::create_dir_all(made.path().join("refs/heads")).unwrap();
        fs::write(made.path().join("HEAD"), "ref: refs/heads/main\n").unwrap();
        made
    }

    fn path(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    fn url(&self) -> String {
        format!("file://{}", self.path().display())
    }

    fn put_as(&self, name: ObjectId, kind: &str, content: &[u8]) {
        let name = name.to_string();
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(format!("{kind} {}\0", content.len()).as_bytes()).unwrap();
        encoder.write_all(content).unwrap();
        fs::create_dir_all(self.path().join("objects").join(&name[..2])).unwrap();
        fs::write(self.path().join("objects").join(&name[..2]).join(&name[2..]), encoder.finish().unwrap()).unwrap();
    }

    fn put(&self, kind: Kind, content: &[u8]) -> ObjectId {
        let id = ObjectId::of(kind, content);
        self.put_as(id, kind.as_str(), content);
        id
    }

    fn tree(&self, entries: &[(&str, &str, ObjectId)]) -> ObjectId {
        let mut content = Vec::new();
        for (mode, name, id) in entries {
            content.extend(format!("{mode} {name}\0").as_bytes());
            content.extend(id.as_bytes());
        }
        self.put(Kind::Tree, &content)
    }

    fn commit(&self, tree: ObjectId, parents: &[ObjectId], time: i64) -> ObjectId {
        let parents: String = parents.iter().map(|parent| format!("parent {parent}\n")).collect();
        let who = format!("N <a@b> {time} +0000");
        let text = format!("tree {tree}\n{parents}author {who}\ncommitter {who}\n\nwords\n");
        let id = self.put(Kind::Commit, text.as_bytes());
        fs::write(self.path().join("refs/heads/main"), format!("{id}\n")).unwrap();
        id
    }
}

fn wanted(url: String) -> Wanted {
    let (reference, revision) = (None, None);
    let (submodules, shallow, export_ignore, uncommitted) = (false, false, true, false);
    Wanted { url, reference, revision, submodules, shallow, export_ignore, uncommitted }
}

fn names(store: &Store, tree: TreeId) -> Vec<String> {
    let tree = store.tree(tree).unwrap();
    tree.entries.keys().map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned()).collect()
}

fn nar_hash(store: &Store, tree: TreeId) -> String {
    store.nar_hash(&Node::Directory(tree), HashAlgorithm::Sha256).unwrap().to_text(HashFormat::Sri, true)
}

/// Two commits, the second with everything that a tree can have.
fn everything() -> (Made, ObjectId) {
    let made = Made::new();
    let first = made.commit(made.tree(&[]), &[], 1_700_000_000);
    let file = made.put(Kind::Blob, b"words\n");
    let link = made.put(Kind::Blob, b"../a");
    let attributes = made.put(Kind::Blob, b"/e export-ignore\n");
    let inner = made.tree(&[("120000", "l", link), ("100755", "x", file)]);
    let tree = made.tree(&[
        ("100644", ".gitattributes", attributes),
        ("100644", "a", file),
        ("40000", "d", inner),
        ("40000", "e", inner),
        ("160000", "m", first),
    ]);
    let second = made.commit(tree, &[first], 1_700_000_100);
    (made, second)
}

#[test]
fn a_commit_is_taken_as_it_is() {
    let world = World::new();
    let builder = world.builder();
    let (made, second) = everything();
    let found = obtain(&builder, &wanted(made.url())).unwrap();
    assert_eq!((found.revision, found.count, found.time, found.dirty), (second, Some(2), 1_700_000_100, false));
    assert_eq!(names(builder.store, found.tree), [".gitattributes", "a", "d"]);
    let tree = builder.store.tree(found.tree).unwrap();
    let Some(Node::Directory(inner)) = tree.entries.get(&Name::new(*b"d").unwrap()) else { panic!("d is a directory") };
    let inner = builder.store.tree(*inner).unwrap();
    let node = |name: &str| inner.entries.get(&Name::new(name).unwrap()).unwrap();
    assert!(matches!(node("l"), Node::Symlink { target, .. } if target == b"../a"));
    assert!(matches!(node("x"), Node::File(file) if file.metadata.mode == 0o755 && file.size == 6));
    let whole = obtain(&builder, &Wanted { export_ignore: false, shallow: true, ..wanted(made.url()) }).unwrap();
    assert_eq!(names(builder.store, whole.tree), [".gitattributes", "a", "d", "e"]);
    assert_eq!(whole.count, None);
}

#[test]
fn names_of_all_kinds_lead_to_their_commit() {
    let world = World::new();
    let builder = world.builder();
    let (made, second) = everything();
    let text = format!("object {second}\ntype commit\ntag v1\ntagger N <a@b> 1 +0000\n\nwords\n");
    let tag = made.put(Kind::Tag, text.as_bytes());
    let first = made.commit(made.tree(&[]), &[], 1_700_000_000);
    fs::write(made.path().join("packed-refs"), format!("# pack-refs with: peeled\n{tag} refs/tags/v1\n^{second}\n"))
        .unwrap();
    let found = |name: &str| {
        let wanted = Wanted { reference: Some(name.to_owned()), ..wanted(made.url()) };
        obtain(&builder, &wanted).map(|found| found.revision).map_err(|error| error.to_string())
    };
    assert_eq!(found("v1"), Ok(second));
    assert_eq!(found("refs/tags/v1"), Ok(second));
    assert_eq!(found("main"), Ok(first));
    assert_eq!(found("HEAD"), Ok(first));
    for none in ["nope", "../../etc/passwd", "refs/heads", "objects"] {
        assert!(found(none).unwrap_err().contains("has no branch, tag or reference"), "{none}");
    }
    let by_name = |id| obtain(&builder, &Wanted { revision: Some(id), ..wanted(made.url()) });
    assert_eq!(by_name(second).unwrap().revision, second);
    assert!(by_name(ObjectId::of(Kind::Blob, b"nowhere")).unwrap_err().to_string().contains("has no commit"));
}

#[test]
fn what_is_damaged_is_refused() {
    let world = World::new();
    let builder = world.builder();
    let fails = |made: &Made, reason: &str| {
        let error = obtain(&builder, &wanted(made.url())).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    };
    // A file with another content than its name says.
    let (made, _) = everything();
    made.put_as(ObjectId::of(Kind::Blob, b"words\n"), "blob", b"other\n");
    fails(&made, "is damaged: its content has the name");
    // Names that lead out.
    for name in ["..", ".", "a/b", ""] {
        let made = Made::new();
        let file = made.put(Kind::Blob, b"x");
        made.commit(made.tree(&[("100644", name, file)]), &[], 1);
        fails(&made, "is not a file name");
    }
    // Directories without end are not possible; very many of them are.
    let made = Made::new();
    let mut tree = made.tree(&[]);
    for _ in 0..70 {
        tree = made.tree(&[("40000", "d", tree)]);
    }
    made.commit(tree, &[], 1);
    fails(&made, "nest too deep");
    // An object that says it is as large as a disk.
    let made = Made::new();
    let id = ObjectId::of(Kind::Blob, b"large");
    made.commit(made.tree(&[("100644", "large", id)]), &[], 1);
    let name = id.to_string();
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(b"blob 9000000000000\0").unwrap();
    fs::create_dir_all(made.path().join("objects").join(&name[..2])).unwrap();
    fs::write(made.path().join("objects").join(&name[..2]).join(&name[2..]), encoder.finish().unwrap()).unwrap();
    fails(&made, "too many to be read");
    // No repository at all.
    let error = obtain(&builder, &wanted("file:///nowhere".to_owned())).unwrap_err().to_string();
    assert!(error.contains("there is none at this path"), "{error}");
    let error = obtain(&builder, &wanted("rsync://host.example/x".to_owned())).unwrap_err().to_string();
    assert!(error.contains("`rsync:` is not spoken"), "{error}");
}

/// Runs git, undisturbed by the machine's configuration; none if there is no git.
fn git(directory: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    command.current_dir(directory).args(["-c", "protocol.file.allow=always"]).args(arguments);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", directory);
    for (name, value) in [("NAME", "N"), ("EMAIL", "a@b"), ("DATE", "1700000100 +0000")] {
        command.env(format!("GIT_AUTHOR_{name}"), value).env(format!("GIT_COMMITTER_{name}"), value);
    }
    let output = command.output().ok()?;
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A work tree of git's own with a merge, a tag, a submodule and packs; none without git.
fn work_tree() -> Option<(tempfile::TempDir, PathBuf)> {
    let directory = tempfile::tempdir().unwrap();
    let (top, module) = (directory.path().join("top"), directory.path().join("module"));
    for path in [&top, &module] {
        fs::create_dir(path).unwrap();
        if git(path, &["--version"]).is_none() {
            eprintln!("skipped: no git");
            return None;
        }
        git(path, &["init", "-q", "-b", "main"])?;
    }
    fs::write(module.join("s.txt"), "s\n").unwrap();
    git(&module, &["add", "."])?;
    git(&module, &["commit", "-qm", "s"])?;
    let long: String = (0..5000).map(|number| format!("line {number}\n")).collect();
    fs::write(top.join("long"), &long).unwrap();
    fs::write(top.join("a"), "1\n").unwrap();
    git(&top, &["add", "."])?;
    git(&top, &["commit", "-qm", "one"])?;
    git(&top, &["tag", "-a", "v1", "-m", "v1"])?;
    git(&top, &["checkout", "-q", "-b", "side"])?;
    fs::write(top.join("long"), long.replace("line 77\n", "another\n")).unwrap();
    git(&top, &["commit", "-qam", "two"])?;
    git(&top, &["checkout", "-q", "main"])?;
    fs::write(top.join("c"), "3\n").unwrap();
    git(&top, &["add", "."])?;
    git(&top, &["commit", "-qm", "three"])?;
    git(&top, &["merge", "-q", "--no-edit", "side"])?;
    git(&top, &["submodule", "--quiet", "add", "../module", "sub/m"])?;
    git(&top, &["commit", "-qm", "module"])?;
    git(&top, &["gc", "-q", "--aggressive", "--prune=now"])?;
    Some((directory, top))
}

#[test]
fn what_git_packed_is_read_with_its_history_and_submodules() {
    let Some((directory, top)) = work_tree() else { return };
    let world = World::new();
    let builder = world.builder();
    let url = format!("file://{}", top.display());
    let found = obtain(&builder, &wanted(url.clone())).unwrap();
    assert_eq!(found.revision.to_string(), git(&top, &["rev-parse", "HEAD"]).unwrap());
    assert_eq!(found.count.unwrap().to_string(), git(&top, &["rev-list", "--count", "HEAD"]).unwrap());
    assert_eq!(names(builder.store, found.tree), [".gitmodules", "a", "c", "long", "sub"]);
    // Files are what git's own checkout gives.
    let clone = directory.path().join("clone");
    git(directory.path(), &["clone", "-q", "--recurse-submodules", "top", "clone"]).unwrap();
    fs::remove_dir_all(clone.join(".git")).unwrap();
    fs::remove_file(clone.join("sub/m/.git")).unwrap();
    let expected = builder.store.ingest_source(&clone, None).unwrap();
    let with_modules = obtain(&builder, &Wanted { submodules: true, ..wanted(url.clone()) }).unwrap();
    assert_eq!(Node::Directory(with_modules.tree), expected);
    let tagged = obtain(&builder, &Wanted { reference: Some("v1".to_owned()), ..wanted(url) }).unwrap();
    assert_eq!(names(builder.store, tagged.tree), ["a", "long"]);
    assert_eq!(tagged.count, Some(1));
}

#[test]
fn changes_are_taken_along_only_where_that_is_wished_for() {
    let Some((_directory, top)) = work_tree() else { return };
    let world = World::new();
    let builder = world.builder();
    let url = format!("file://{}", top.display());
    let clean = obtain(&builder, &wanted(url.clone())).unwrap();
    for version in ["2", "4"] {
        git(&top, &["update-index", "--index-version", version]).unwrap();
        fs::write(top.join("a"), "changed\n").unwrap();
        fs::write(top.join("new"), "new\n").unwrap();
        fs::write(top.join("staged"), "staged\n").unwrap();
        git(&top, &["add", "staged"]).unwrap();
        fs::remove_file(top.join("c")).unwrap();
        let error = obtain(&builder, &wanted(url.clone())).unwrap_err().to_string();
        assert!(error.contains("changes that are not committed"), "{error}");
        let dirty = obtain(&builder, &Wanted { uncommitted: true, ..wanted(url.clone()) }).unwrap();
        assert!(dirty.dirty && dirty.revision == clean.revision && dirty.count.is_none());
        assert_eq!(names(builder.store, dirty.tree), [".gitmodules", "a", "long", "staged"]);
        assert_ne!(nar_hash(builder.store, dirty.tree), nar_hash(builder.store, clean.tree));
        git(&top, &["reset", "-q", "--hard"]).unwrap();
        let again = obtain(&builder, &Wanted { uncommitted: true, ..wanted(url.clone()) }).unwrap();
        assert_eq!((again.tree, again.dirty), (clean.tree, false));
    }
}

/// Serves a repository by git's own `upload-pack`.
fn serve(top: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let top = top.clone();
            std::thread::spawn(move || _ = answer(stream, &top));
        }
    });
    format!("http://{address}/repository")
}

fn answer(stream: TcpStream, top: &Path) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let (mut first, mut length) = (String::new(), 0);
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let mut command = Command::new("git");
        command.args(["upload-pack", "--stateless-rpc"]).env("GIT_PROTOCOL", "version=2");
        let mut answer = Vec::new();
        if first.starts_with("GET ") {
            command.arg("--advertise-refs");
            answer.extend(b"001e# service=git-upload-pack\n0000");
        }
        let mut child = command.arg(top).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        child.stdin.take().unwrap().write_all(&body)?;
        child.stdout.take().unwrap().read_to_end(&mut answer)?;
        child.wait()?;
        let mut stream = &stream;
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len())?;
        stream.write_all(&answer)?;
    }
}

#[test]
fn a_repository_elsewhere_is_fetched_by_gits_own_protocol() {
    let Some((_directory, top)) = work_tree() else { return };
    let world = World::new();
    let builder = world.builder();
    let local = obtain(&builder, &wanted(format!("file://{}", top.display()))).unwrap();
    let url = serve(top.clone());
    let whole = obtain(&builder, &wanted(url.clone())).unwrap();
    assert_eq!((whole.tree, whole.revision, whole.count), (local.tree, local.revision, local.count));
    let shallow = obtain(&builder, &Wanted { shallow: true, ..wanted(url.clone()) }).unwrap();
    assert_eq!((shallow.tree, shallow.count), (local.tree, None));
    let side = ObjectId::parse(&git(&top, &["rev-parse", "side~1"]).unwrap()).unwrap();
    let old = obtain(&builder, &Wanted { revision: Some(side), ..wanted(url.clone()) }).unwrap();
    assert_eq!((old.revision, old.count), (side, Some(1)));
    for (reference, expected) in [("side", "side"), ("v1", "v1^{commit}"), ("refs/tags/v1", "v1^{commit}")] {
        let found = obtain(&builder, &Wanted { reference: Some(reference.to_owned()), ..wanted(url.clone()) }).unwrap();
        assert_eq!(found.revision.to_string(), git(&top, &["rev-parse", expected]).unwrap());
    }
    let modules = obtain(&builder, &Wanted { reference: Some("nope".to_owned()), ..wanted(url.clone()) });
    assert!(modules.unwrap_err().to_string().contains("has no branch, tag or reference `nope`"));
    let none = ObjectId::of(Kind::Blob, b"nowhere");
    assert!(obtain(&builder, &Wanted { revision: Some(none), ..wanted(url) }).is_err());
}

#[test]
fn a_server_that_speaks_nonsense_is_refused() {
    let world = World::new();
    let builder = world.builder();
    let loopback = crate::fetch::loopback::Loopback::start();
    for text in ["", "<html>", "0000", "000eversion 1\n0000", "zzzz", "ffffshort"] {
        let page = crate::fetch::loopback::Page::Bytes(text.as_bytes().to_vec());
        loopback.put("/r/info/refs?service=git-upload-pack", page);
        assert!(obtain(&builder, &wanted(loopback.url("/r"))).is_err(), "{text}");
    }
}

#[test]
fn addresses_of_submodules_start_at_the_repository() {
    for (base, url, expected) in [
        ("https://host.example/a/b", "../c", "https://host.example/a/c"),
        ("https://host.example/a/b.git/", "./c", "https://host.example/a/b.git/c"),
        ("/srv/a", "../../c", "file:///c"),
        ("https://host.example/a", "https://other.example/x", "https://other.example/x"),
        ("https://host.example/a", "/srv/x", "file:///srv/x"),
    ] {
        assert_eq!(module_url(base, url), expected);
    }
    let text = b"[submodule \"x y\"]\n\tpath = sub/m\n\turl = ../m\n; words\n[submodule \"z\"]\n\tpath = z\n";
    let modules = read_modules(text);
    assert_eq!(modules.len(), 1);
    assert_eq!(modules[&b"sub/m"[..]], Module { name: "x y".to_owned(), url: "../m".to_owned() });
}
