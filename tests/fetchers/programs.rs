//! What is fetched by programs of this machine: repositories behind `ssh`, for which a stand-in is on the path that carries out here what
//! it is to have carried out on the host, and Mercurial's, by `hg` itself.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Server, begin, git};
use crate::world::{Ran, World, have};

/// A directory with a program `ssh`, to be put before the path.
fn stand_in(world: &World) -> PathBuf {
    let bin = world.path("bin");
    fs::create_dir(&bin).unwrap();
    // `FIRST`: a host that lets no variable through, so that git speaks the first version of its protocol.
    let script = "#!/bin/sh\nfor word; do :; done\necho \"$*\" >> \"${0%/*}/calls\"\n[ -z \"$FIRST\" ] || unset GIT_PROTOCOL\nexec sh -c \"$word\"\n";
    fs::write(bin.join("ssh"), script).unwrap();
    fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    bin
}

fn path_with(bin: &Path) -> String {
    format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default())
}

#[test]
fn a_repository_behind_ssh_is_spoken_to_in_both_versions_of_gits_protocol() {
    if !have("git") {
        return;
    }
    let world = World::new();
    let bin = stand_in(&world);
    let repository = world.path("it's here");
    let first = begin(&repository);
    fs::write(repository.join("greeting"), "second").unwrap();
    git(&repository, &["commit", "-q", "-a", "-m", "second"]);
    git(&repository, &["tag", "-a", "-m", "words", "v2"]);
    let second = git(&repository, &["rev-parse", "HEAD"]);
    let address = format!("ssh://git@host.example:2222{}", repository.display()).replace(' ', "%20");
    for speaks_first in ["", "1"] {
        let eval = |expression: &str| {
            let mut command = world.command(["eval", "--strict", "-E", expression]);
            // A store of its own, so that nothing is there from the other version.
            command.env("FORGE_STORE", world.path(format!("store{speaks_first}")));
            Ran::of(command.env("PATH", path_with(&bin)).env("FIRST", speaks_first).output().unwrap())
        };
        for (what, revision, content) in [
            (format!("builtins.fetchGit {{ url = \"{address}\"; ref = \"main\"; }}"), &second, "second"),
            (format!("builtins.fetchGit {{ url = \"{address}\"; ref = \"refs/tags/v2\"; }}"), &second, "second"),
            (format!("builtins.fetchTree \"git+{address}?ref=main&shallow=1\""), &second, "second"),
            (
                format!("builtins.fetchGit {{ url = \"{address}\"; rev = \"{first}\"; allRefs = true; }}"),
                &first,
                "first",
            ),
        ] {
            let read =
                eval(&format!("let found = {what}; in [ found.rev (builtins.readFile (found + \"/greeting\")) ]"));
            assert_eq!(read.ok().stdout.trim(), format!("[ \"{revision}\" \"{content}\" ]"), "{what}");
        }
        let nowhere = eval("(builtins.fetchGit \"ssh://host.example/nowhere\").rev");
        assert!(
            nowhere.code != Some(0) && nowhere.stderr.contains("does not appear to be a git repository"),
            "{nowhere:?}"
        );
        let odd = eval("(builtins.fetchGit \"ssh://-oProxyCommand=x/nowhere\").rev");
        assert!(odd.code != Some(0) && !odd.stderr.contains("ProxyCommand=x git"), "{odd:?}");
    }
    let calls = fs::read_to_string(bin.join("calls")).unwrap();
    assert!(calls.contains("-o SendEnv=GIT_PROTOCOL -p 2222 git@host.example git-upload-pack '"), "{calls}");
    assert!(!calls.contains("ProxyCommand"), "{calls}");
    let mut command = world.command(["eval", "-E", &format!("(builtins.fetchGit \"{address}\").rev")]);
    let missing = Ran::of(command.env("PATH", world.path("out")).output().unwrap());
    assert!(
        missing.code == Some(10) && missing.stderr.contains("there is no program `ssh` on this machine"),
        "{missing:?}"
    );
    assert!(missing.stderr.contains("hint: install it"), "{missing:?}");
}

fn hg(directory: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("hg");
    let output =
        command.args(arguments).current_dir(directory).env("HGRCPATH", "").env("HGUSER", "A").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn a_mercurial_repository_is_fetched_at_its_commit() {
    let world = World::new();
    let repository = world.path("repository");
    fs::create_dir(&repository).unwrap();
    let address = format!("file://{}", repository.display());
    let mut command = world.command(["eval", "-E", &format!("(builtins.fetchMercurial \"{address}\").rev")]);
    let missing = Ran::of(command.env("PATH", world.path("out")).output().unwrap());
    assert!(
        missing.code == Some(10) && missing.stderr.contains("there is no program `hg` on this machine"),
        "{missing:?}"
    );
    if !have("hg") {
        return;
    }
    hg(&repository, &["init"]);
    fs::create_dir(repository.join("sub")).unwrap();
    fs::write(repository.join("sub/greeting"), "first").unwrap();
    fs::write(repository.join("tool"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(repository.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("sub/greeting", repository.join("link")).unwrap();
    hg(&repository, &["commit", "-q", "--addremove", "-m", "first"]);
    let first = hg(&repository, &["log", "-r", ".", "--template", "{node}"]);
    fs::write(repository.join("sub/greeting"), "second").unwrap();
    hg(&repository, &["commit", "-q", "-m", "second"]);
    let second = hg(&repository, &["log", "-r", ".", "--template", "{node}"]);
    let eval = |expression: &str| world.forge(["eval", "--json", "-E", expression]);
    let found = eval(&format!("removeAttrs (builtins.fetchMercurial \"{address}\") [ \"outPath\" ]"));
    let expected = serde_json::json!({ "rev": second, "shortRev": second[..12], "revCount": 1 });
    assert_eq!(found.ok().json(), expected);
    let named = eval(&format!("(builtins.fetchMercurial {{ url = \"{address}\"; rev = \"default\"; }}).branch"));
    assert_eq!(named.ok().json(), "default");
    let tree = format!("builtins.fetchTree {{ type = \"hg\"; url = \"{address}\"; rev = \"{first}\"; }}");
    let read = eval(&format!(
        "let found = {tree}; in [ (builtins.readFile (found + \"/link\")) (builtins.attrNames (builtins.readDir found)) ]"
    ));
    assert_eq!(read.ok().json(), serde_json::json!(["first", ["link", "sub", "tool"]]));
    // A build takes it to the lock, and a tree that was changed since is none that a lock could hold.
    world.write("runtime.expr", &super::formation(&format!("builtins.fetchMercurial \"{address}\"")));
    let id = world.forge(["build", "-q"]).id();
    assert!(fs::read_to_string(world.path("project/forge.lock")).unwrap().contains(&second));
    fs::write(repository.join("sub/greeting"), "changed").unwrap();
    assert_eq!(world.forge(["build", "-q", "--locked"]).id(), id);
    fs::remove_file(world.path("project/forge.lock")).unwrap();
    let refused = world.forge(["build", "-q"]);
    assert!(refused.code != Some(0) && refused.stderr.contains("changes that are not committed"), "{refused:?}");
    let changed = format!(
        "let found = builtins.fetchMercurial \"{address}\"; in found.rev + builtins.readFile (found + \"/link\")"
    );
    let changed = world.forge(["nix-instantiate", "--eval", "-E", &changed]);
    assert_eq!(changed.ok().stdout.trim(), format!("\"{}changed\"", "0".repeat(40)));
    let none = eval(&format!("(builtins.fetchMercurial {{ url = \"{address}\"; rev = \"nope\"; }}).rev"));
    assert!(none.code != Some(0) && none.stderr.contains("nope"), "{none:?}");
}

/// What a name stands for, by a registry that says that `NAME` is this directory.
fn registry(name: &str, path: &Path) -> String {
    format!(
        "{{\"version\": 2, \"flakes\": [{{\"from\": {{\"type\": \"indirect\", \"id\": \"{name}\"}}, \"to\": {{\"type\": \"path\", \"path\": \"{}\"}}}}]}}",
        path.display()
    )
}

/// Each of these was asked of Nix 2.34.8, too.
#[test]
fn names_of_flakes_are_looked_up_where_nix_looks_them_up() {
    let world = World::new();
    let directory = world.write("named/flake.nix", "{ outputs = _: { x = 1; }; }").parent().unwrap().to_owned();
    let server = Server::of(registry("shared", &directory).into_bytes());
    let file = world.write("registry.json", &registry("filed", &directory));
    fs::create_dir_all(world.path("home/.config/nix")).unwrap();
    fs::write(world.path("home/.config/nix/registry.json"), registry("mine", &directory)).unwrap();
    let eval = |options: &[&str], expression: &str| {
        let flakes = ["nix-instantiate", "--extra-experimental-features", "flakes", "--eval", "-E", expression];
        world.forge(flakes.iter().chain(options))
    };
    let shared = ["--option", "flake-registry", &server.address];
    let filed = ["--option", "flake-registry", file.to_str().unwrap()];
    let none = ["--option", "flake-registry", ""];
    let tree = |name: &str| {
        format!("builtins.readFile ((builtins.fetchTree \"flake:{name}\").outPath + \"/flake.nix\") != \"\"")
    };
    let flake = |name: &str| format!("(builtins.getFlake \"{name}\").x");
    assert_eq!(eval(&shared, &tree("shared")).ok().stdout.trim(), "true");
    assert_eq!(eval(&filed, &tree("filed")).ok().stdout.trim(), "true");
    assert_eq!(eval(&shared, &flake("shared")).ok().stdout.trim(), "1");
    assert_eq!(eval(&none, &flake("mine")).ok().stdout.trim(), "1");
    let over = [&none[..], &["--override-flake", "other", "mine"]].concat();
    assert_eq!(eval(&over, &flake("other")).ok().stdout.trim(), "1");
    for (options, expression, words) in [
        (&none[..], tree("mine"), "cannot find flake 'flake:mine' in the flake registries"),
        (&filed, tree("unknown"), "cannot find flake 'flake:unknown' in the flake registries"),
        (
            &["--no-use-registries"],
            flake("mine"),
            "'flake:mine' is an indirect flake reference, but registry lookups are not allowed",
        ),
        (
            &["--option", "flake-registry", directory.join("flake.nix").to_str().unwrap()],
            tree("x"),
            "is no registry of flakes",
        ),
    ] {
        let refused = eval(options, &expression);
        assert!(refused.code == Some(1) && refused.stderr.contains(words), "{expression}: {refused:?}");
    }
    server.goes_away();
    let gone = [&shared[..], &["--option", "eval-cache", "false"]].concat();
    let mut command =
        world.command(["nix-instantiate", "--extra-experimental-features", "flakes", "--eval", "-E", &tree("shared")]);
    let gone = Ran::of(command.args(gone).env("FORGE_STORE", world.path("other")).output().unwrap());
    assert!(gone.code != Some(0) && gone.stderr.contains("cannot fetch `http://127.0.0.1:"), "{gone:?}");
}
