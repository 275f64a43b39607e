//! What the language's own fetchers bring: from a server and a git repository on this machine, locked, and refused when it is
//! not what was expected.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::world::{World, have};

mod programs;

/// A server of one body, which can be told to go away.
struct Server {
    address: String,
    gone: Arc<AtomicBool>,
}

impl Server {
    fn of(body: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let gone = Arc::new(AtomicBool::new(false));
        let is_gone = Arc::clone(&gone);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let _ = stream.read(&mut [0; 4096]);
                if is_gone.load(Ordering::Relaxed) {
                    continue;
                }
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
            }
        });
        Self { address, gone }
    }

    fn goes_away(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}

/// A tar archive with `source/greeting`.
fn archive(greeting: &str) -> Vec<u8> {
    let mut header = [0u8; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, "source/greeting");
    put(100, "0000644\0");
    put(124, &format!("{:011o}\0", greeting.len()));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().copied().map(u32::from).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = [&header[..], greeting.as_bytes()].concat();
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}

fn formation(value: &str) -> String {
    format!(
        "{{ forge }}:\nforge.formation {{\n  name = \"fetched\";\n  layers = [ (forge.files {{ \"/a\" = {value}; }}) ];\n}}\n"
    )
}

const ZEROS: &str = "0000000000000000000000000000000000000000000000000000";

/// An expression that wants something from elsewhere: refused with `--locked` until the lock answers, then the same for ever.
#[track_caller]
fn locks(world: &World, value: &str) -> String {
    world.write("runtime.expr", &formation(value));
    let refused = world.forge(["build", "-q", "--locked"]);
    assert!(refused.code == Some(15) && refused.stderr.contains("not locked"), "{refused:?}");
    assert!(!world.path("project/forge.lock").exists());
    world.forge(["lock", "-q"]).ok();
    let lock = fs::read_to_string(world.path("project/forge.lock")).unwrap();
    let id = world.forge(["build", "-q", "--locked"]).id();
    assert_eq!(fs::read_to_string(world.path("project/forge.lock")).unwrap(), lock);
    id
}

#[test]
fn what_a_server_has_is_locked_and_then_needs_no_server() {
    let world = World::new();
    let server = Server::of(archive("hello"));
    let address = &server.address;
    let file = locks(&world, &format!("builtins.fetchurl \"{address}/file.tar\""));
    fs::remove_file(world.path("project/forge.lock")).unwrap();
    let tree = locks(&world, &format!("builtins.fetchTarball \"{address}/file.tar\""));
    assert_ne!(file, tree);
    server.goes_away();
    assert_eq!(world.forge(["build", "-q", "--locked"]).id(), tree);
}

#[test]
fn files_outside_the_project_are_not_asked_for() {
    let world = World::new();
    let outside = world.path("secret");
    fs::write(&outside, "secret").unwrap();
    fs::write(world.path("project/own"), "own").unwrap();
    std::os::unix::fs::symlink(&outside, world.path("project/link")).unwrap();
    let address = |path: &Path| format!("file://{}", path.display());
    let [own, link] = ["project/own", "project/link"].map(|path| address(&world.path(path)));
    let secret = address(&outside);
    for value in [
        format!("forge.fetchurl {{ url = \"{secret}\"; }}"),
        format!("builtins.fetchurl \"{secret}\""),
        format!("builtins.fetchurl \"{link}\""),
        format!("builtins.fetchTarball \"{secret}\""),
        format!("\"${{fetchTree {{ type = \"file\"; url = \"{secret}\"; }}}}\""),
    ] {
        world.write("runtime.expr", &formation(&value));
        let refused = world.forge(["build", "-q"]);
        assert!(
            refused.code == Some(1) && refused.stderr.contains("is forbidden in pure evaluation"),
            "{value}: {refused:?}"
        );
        assert!(!world.path("project/forge.lock").exists());
    }
    locks(&world, &format!("builtins.fetchurl \"{own}\""));
    // Whoever knows its hash knows what is in it.
    let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    world.write("runtime.expr", &formation(&format!("forge.fetchurl {{ url = \"{secret}\"; sha256 = \"{hash}\"; }}")));
    world.forge(["build", "-q"]).ok();
}

#[test]
fn another_content_than_was_expected_is_a_mismatch() {
    let world = World::new();
    let server = Server::of(archive("not that"));
    let address = &server.address;
    let wrong = format!("sha256-{}=", "A".repeat(43));
    for (value, file) in [
        (format!("builtins.fetchurl {{ url = \"{address}/f\"; sha256 = \"{ZEROS}\"; }}"), ""),
        (format!("builtins.fetchTarball {{ url = \"{address}/f.tar\"; sha256 = \"{ZEROS}\"; }}"), "/greeting"),
        (format!("fetchTree {{ type = \"tarball\"; url = \"{address}/f.tar\"; narHash = \"{wrong}\"; }}"), "/greeting"),
    ] {
        // Where the evaluation itself reads it, and where only a build does.
        let read = world.forge(["eval", "-E", &format!("builtins.readFile (\"${{{value}}}\" + \"{file}\")")]);
        assert_eq!(read.code, Some(102), "{value}: {read:?}");
        assert!(read.stderr.contains("sha256") && read.stdout.is_empty(), "{read:?}");
        world.write("runtime.expr", &formation(&value));
        let built = world.forge(["build", "-q"]);
        assert_eq!(built.code, Some(102), "{value}: {built:?}");
    }
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"])
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Makes a repository with one file; gives its commit.
fn begin(repository: &Path) -> String {
    fs::create_dir(repository).unwrap();
    git(repository, &["init", "-q"]);
    fs::write(repository.join("greeting"), "first").unwrap();
    git(repository, &["add", "greeting"]);
    git(repository, &["commit", "-q", "-m", "first"]);
    git(repository, &["rev-parse", "HEAD"])
}

#[test]
fn a_git_repository_is_locked_at_its_commit() {
    if !have("git") {
        return;
    }
    let world = World::new();
    let repository = world.path("repository");
    let first = begin(&repository);
    let address = format!("file://{}", repository.display());
    let by_branch = format!("builtins.fetchGit {{ url = \"{address}\"; ref = \"main\"; }}");
    let id = locks(&world, &by_branch);
    assert!(fs::read_to_string(world.path("project/forge.lock")).unwrap().contains(&first));
    // What is locked stays, though the branch goes on.
    fs::write(repository.join("greeting"), "second").unwrap();
    git(&repository, &["commit", "-q", "-a", "-m", "second"]);
    assert_eq!(world.forge(["build", "-q", "--locked"]).id(), id);
    fs::remove_file(world.path("project/forge.lock")).unwrap();
    assert_ne!(locks(&world, &by_branch), id);
    fs::remove_file(world.path("project/forge.lock")).unwrap();
    let tree = format!("type = \"git\"; url = \"{address}\"; rev = \"{first}\";");
    assert_eq!(locks(&world, &format!("fetchTree {{ {tree} }}")), id);
    let wrong = format!("fetchTree {{ {tree} narHash = \"sha256-{}=\"; }}", "A".repeat(43));
    let read = world.forge(["eval", "-E", &format!("builtins.readFile (\"${{{wrong}}}/greeting\")")]);
    assert!(read.code == Some(102) && read.stderr.contains("NAR hash mismatch"), "{read:?}");
    let read = world.forge([
        "nix-instantiate",
        "--option",
        "experimental-features",
        "flakes",
        "--eval",
        "-E",
        &format!("({wrong}).outPath"),
    ]);
    assert!(read.code == Some(102) && read.stderr.contains("NAR hash mismatch"), "{read:?}");
    // A part of a tree is as good as the whole.
    fs::remove_file(world.path("project/forge.lock")).unwrap();
    locks(&world, &format!("\"${{fetchTree {{ {tree} }}}}/greeting\""));
    world.write("runtime.expr", &formation(&format!("\"${{fetchTree {{ {tree} }}}}/farewell\"")));
    let built = world.forge(["build", "-q"]);
    assert!(built.code != Some(0) && built.stderr.contains("there is no `farewell`"), "{built:?}");
}

#[test]
fn what_only_a_users_own_machine_could_answer_is_refused_in_words() {
    let world = World::new();
    for (value, words) in [
        ("builtins.getFlake \"nixpkgs\"", "no registry is asked"),
        ("fetchTree \"flake:nixpkgs\"", "no registry is asked"),
        ("builtins.fetchGit \"git://example.org/a\"", "`git:` is not spoken"),
    ] {
        let read = world.forge(["eval", "-E", &format!("builtins.readDir ({value}).outPath")]);
        assert!(read.code != Some(0) && read.stderr.contains(words), "{value}: {read:?}");
    }
    // Where an evaluation need not be pure, the user's own registry says what a flake's name is.
    world.write("named/flake.nix", "{ outputs = _: { x = \"by name\"; }; }");
    let registry = format!(
        "{{\"version\": 2, \"flakes\": [{{\"from\": {{\"type\": \"indirect\", \"id\": \"named\"}}, \"to\": {{\"type\": \"path\", \"path\": \"{}\"}}}}]}}",
        world.path("project/named").display()
    );
    fs::create_dir_all(world.path("home/.config/nix")).unwrap();
    fs::write(world.path("home/.config/nix/registry.json"), registry).unwrap();
    let value = "(builtins.getFlake \"named\").x";
    assert_eq!(world.forge(["eval", "--impure", "-E", value]).ok().stdout.trim(), "\"by name\"");
    assert!(world.forge(["eval", "-E", value]).stderr.contains("no registry is asked"));
    if !have("git") {
        return;
    }
    let flake = world.path("flake");
    fs::create_dir(&flake).unwrap();
    git(&flake, &["init", "-q"]);
    fs::write(flake.join("flake.nix"), "{ inputs.other.url = \"github:a/b\"; outputs = { self, other }: { }; }")
        .unwrap();
    git(&flake, &["add", "flake.nix"]);
    git(&flake, &["commit", "-q", "-m", "flake"]);
    let value = format!("(builtins.getFlake \"git+file://{}?ref=main\").outPath", flake.display());
    let read = world.forge(["eval", "-E", &value]);
    assert!(read.code != Some(0) && read.stderr.contains("inputs that no flake.lock pins: other"), "{read:?}");
}
