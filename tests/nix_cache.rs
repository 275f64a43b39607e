//! Nix binary caches from the command line: `forge serve` is one, for other forges and for Nix itself.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::world::{Ran, World, have};

/// A server that ends with the test.
struct Served(Child, String);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(world: &World) -> Served {
    let mut command = world.command(["serve", "--listen", "127.0.0.1:0", "--sign", "test-1"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    Served(child, line.trim().to_owned())
}

/// A project whose derivation is made by a program of its own: a static busybox.
fn project() -> World {
    let world = World::new();
    let found = Command::new("sh").args(["-c", "command -v busybox"]).output().unwrap();
    // It asks its own name which of its programs it is to be.
    fs::create_dir(world.path("project/bin")).unwrap();
    fs::copy(String::from_utf8(found.stdout).unwrap().trim(), world.path("project/bin/busybox")).unwrap();
    world.write(
        "greeting.expr",
        "derivation { name = \"greeting\"; system = \"x86_64-linux\"; builder = \"${./bin}/busybox\"; args = [ \"sh\" \"-c\" \"echo hello > $out\" ]; }",
    );
    world.write(
        "runtime.expr",
        "{ forge }: forge.formation { name = \"greeting\"; layers = [ (forge.closure (import ./greeting.expr)) ]; }",
    );
    world
}

#[test]
fn what_one_forge_built_others_and_nix_fetch() {
    if !cfg!(target_arch = "x86_64") || !have("busybox") {
        return;
    }
    let world = project();
    let public = world.forge(["key", "generate", "test-1"]).ok().stdout.trim().to_owned();
    let id = world.build("runtime.expr");
    let path = world.forge(["eval", "--raw", "greeting.expr", "-A", "outPath"]).ok().stdout.trim().to_owned();
    let served = serve(&world);
    let build = |trusted: &str| {
        let other = project();
        let mut command = other.command(["build", "--json"]);
        command.env("FORGE_NIX_CACHES", &served.1).env("FORGE_NIX_TRUSTED_KEYS", trusted);
        Ran::of(command.output().unwrap())
    };
    let fetched = build(&public);
    let record = fetched.ok().json();
    assert_eq!((&record["id"], &record["made"]["build"]), (&id.as_str().into(), &serde_json::Value::Null), "{record}");
    // Without trust it is made here, and that is said.
    let made = build("");
    let record = made.ok().json();
    assert_eq!((&record["id"], &record["made"]["build"]), (&id.as_str().into(), &1.into()), "{record}");
    assert!(made.stderr.contains("no trusted key has signed"), "{}", made.stderr);
    assert_eq!(build("nonsense").code, Some(2));

    if !have("nix-store") {
        return;
    }
    let home = World::new();
    let mut nix = Command::new("nix-store");
    nix.env_clear()
        .env("PATH", std::env::var("PATH").unwrap())
        .env("HOME", home.path("home"))
        .env("NIX_CONF_DIR", home.path("home"));
    nix.env("NIX_REMOTE", home.path("nix")).args(["--realise", &path, "--option", "build-users-group", ""]);
    nix.args(["--option", "substituters", &served.1, "--option", "trusted-public-keys", &public]);
    let output = nix.output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
    assert_eq!(fs::read_to_string(format!("{}{path}", home.path("nix").display())).unwrap(), "hello\n");
}
