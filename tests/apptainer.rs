//! Apptainer judges our SIFs: it runs them with their environment, scripts and labels, lists and verifies them; and we read what it
//! builds and signs. Where it is missing, or may not run anything, the tests say so.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::world::{World, have, is_root};

/// Runs Apptainer with a home of its own, so that nobody's keys and caches are touched.
fn apptainer(world: &World, arguments: &[&str]) -> Output {
    let mut command = Command::new("apptainer");
    command.args(arguments).current_dir(world.path("project"));
    for name in ["HOME", "APPTAINER_CONFIGDIR", "APPTAINER_CACHEDIR", "APPTAINER_TMPDIR"] {
        command.env(name, world.path("home"));
    }
    command.output().expect("apptainer starts")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn said(world: &World, arguments: &[&str]) -> String {
    let output = apptainer(world, arguments);
    assert!(output.status.success(), "apptainer {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    text(&output)
}

/// A tree with a shell, as a directory of the project.
fn tree(world: &World) -> Option<PathBuf> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).is_file());
    let Some(busybox) = busybox else {
        eprintln!("skipped: no busybox");
        return None;
    };
    let tree = world.path("project/tree");
    for directory in ["bin", "etc", "srv", "tmp", "dev", "proc", "sys", "root", "home", "var/tmp"] {
        fs::create_dir_all(tree.join(directory)).unwrap();
    }
    for file in ["passwd", "group", "resolv.conf", "hosts", "localtime"] {
        fs::write(tree.join("etc").join(file), "").unwrap();
    }
    fs::copy(busybox, tree.join("bin/busybox")).unwrap();
    fs::set_permissions(tree.join("bin/busybox"), fs::Permissions::from_mode(0o755)).unwrap();
    for applet in ["sh", "cat", "echo", "env", "pwd", "sleep", "test"] {
        std::os::unix::fs::symlink("busybox", tree.join("bin").join(applet)).unwrap();
    }
    fs::write(tree.join("srv/data"), "the data\n").unwrap();
    Some(tree)
}

/// A formation with settings, packed as a SIF of its default name.
fn packed(world: &World) -> Option<(String, PathBuf)> {
    tree(world)?;
    world.write(
        "runtime.expr",
        r#"{ forge }:
forge.formation {
  name = "judged";
  version = "1.2";
  variant = "lean";
  layers = [ (forge.files { "/" = ./tree; }) ];
  environment = { COLOUR = "blue"; QUOTED = "it's \"so\" $HOME"; };
  labels."org.example.team" = "search";
  entrypoint = [ "sh" "-c" "echo \"$COLOUR\" in \"$(pwd)\": \"$@\"" "entry" ];
  command = [ "own" "words" ];
  directory = "/srv";
}
"#,
    );
    let id = world.build("runtime.expr");
    world.forge(["export", &id, "--format", "sif"]).ok();
    let path = world.path("project/judged-1.2-lean-linux-amd64.sif");
    assert!(path.is_file() || cfg!(not(target_arch = "x86_64")), "named by the convention");
    path.is_file().then_some((id, path))
}

#[test]
fn apptainer_inspects_lists_and_runs_what_forge_packed() {
    let world = World::new();
    if !have("apptainer") {
        return;
    }
    let Some((id, path)) = packed(&world) else { return };
    let path = path.to_str().unwrap();
    // What it says of itself: nothing of it is run for that.
    let labels = said(&world, &["inspect", "--labels", path]);
    for label in ["org.example.team: search", &format!("forge.formation: {id}"), "image.version: 1.2"] {
        assert!(labels.contains(label), "{labels}");
    }
    assert!(said(&world, &["inspect", "--deffile", path]).contains(&format!("from: judged@{id}")));
    assert!(said(&world, &["inspect", "--environment", path]).contains("export COLOUR='blue'"));
    for script in ["--runscript", "--startscript"] {
        assert!(said(&world, &["inspect", script, path]).contains("cd '/srv'"), "{script}");
    }
    let all: serde_json::Value = serde_json::from_str(&said(&world, &["inspect", "--all", path])).unwrap();
    assert_eq!(all["data"]["attributes"]["labels"]["org.example.team"], "search");
    let list = said(&world, &["sif", "list", path]);
    for object in ["Def.FILE", "JSON.Labels", "FS (Squashfs/*System/amd64)"] {
        assert!(list.contains(object), "{list}");
    }
    let header = said(&world, &["sif", "header", path]);
    assert!(header.contains("amd64") && header.contains("1980-01-02 00:00:00"), "{header}");

    // What it runs. Privileges that a container of the tests may lack are not asked for.
    let run = |words: &[&str], more: &[&str]| {
        let mut arguments = words.to_vec();
        if is_root() {
            arguments.push("--no-privs");
        }
        arguments.extend(["--no-mount", "hostfs,bind-paths", "--cleanenv"]);
        arguments.push(path);
        arguments.extend(more);
        apptainer(&world, &arguments)
    };
    let first = run(&["exec"], &["cat", "/srv/data"]);
    if !first.status.success() {
        eprintln!("skipped: apptainer runs nothing here: {}", String::from_utf8_lossy(&first.stderr));
        return;
    }
    assert_eq!(text(&first), "the data\n");
    assert_eq!(text(&run(&["exec"], &["sh", "-c", "echo $COLOUR; echo \"$QUOTED\""])), "blue\nit's \"so\" $HOME\n");
    assert_eq!(text(&run(&["exec", "--env", "COLOUR=red"], &["sh", "-c", "echo $COLOUR"])), "red\n");
    assert_eq!(text(&run(&["run"], &[])), "blue in /srv: own words\n");
    assert_eq!(text(&run(&["run"], &["given"])), "blue in /srv: given\n");
    assert_eq!(run(&["exec"], &["sh", "-c", "exit 7"]).status.code(), Some(7));
}

#[test]
fn what_apptainer_built_is_read_and_keeps_its_way_to_run() {
    let world = World::new();
    if !have("apptainer") || !is_root() {
        eprintln!("skipped: no apptainer, or no root");
        return;
    }
    let Some(_) = tree(&world) else { return };
    world.write(
        "theirs.def",
        "Bootstrap: localimage\nFrom: tree\n\n%environment\n    export COLOUR=green\n\n%runscript\n    echo \"$COLOUR $@\"\n\n\
         %startscript\n    sleep 1\n\n%labels\n    org.example.team theirs\n",
    );
    let sif = world.path("project/theirs-3.1-linux-amd64.sif");
    let built = apptainer(&world, &["build", "--force", sif.to_str().unwrap(), "theirs.def"]);
    if !built.status.success() {
        eprintln!("skipped: apptainer builds nothing here: {}", String::from_utf8_lossy(&built.stderr));
        return;
    }
    let inspected = world.forge(["inspect", sif.to_str().unwrap(), "--json"]).json();
    assert!(inspected["formation"].is_null() && inspected["platform"] == "linux/amd64", "{inspected}");
    let id = world.forge(["import", sif.to_str().unwrap()]).id();
    let info = world.forge(["info", &id, "--json"]).json();
    assert_eq!((&info["name"], &info["version"]), (&"theirs".into(), &"3.1".into()));
    assert_eq!(info["launch"]["labels"]["org.example.team"], "theirs", "{info}");
    assert_eq!(world.forge(["run", &id, "--", "cat", "/srv/data"]).ok().stdout, "the data\n");
    assert_eq!(world.forge(["run", &id]).ok().stdout, "green \n");
    assert_eq!(world.forge(["run", sif.to_str().unwrap()]).ok().stdout, "green \n");
    // Packed again by us, it is still theirs to run.
    let again = world.path("out/again.sif");
    world.forge(["export", &id, "--format", "sif", "-o", again.to_str().unwrap()]).ok();
    let other = World::new();
    assert_eq!(other.forge(["import", again.to_str().unwrap()]).id(), id);
}

#[test]
fn each_verifies_what_the_other_signed() {
    let world = World::new();
    if !have("apptainer") || !have("openssl") {
        return;
    }
    let Some((_, path)) = packed(&world) else { return };
    let path = path.to_str().unwrap();
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(world.path("project")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    openssl(&["genpkey", "-algorithm", "ed25519", "-out", "secret.pem"]);
    openssl(&["pkey", "-pubout", "-in", "secret.pem", "-out", "public.pem"]);
    // Theirs, by us.
    fs::copy(path, world.path("project/theirs.sif")).unwrap();
    said(&world, &["sign", "--key", "secret.pem", "theirs.sif"]);
    said(&world, &["verify", "--key", "public.pem", "theirs.sif"]);
    world.forge(["verify", "theirs.sif", "--key", "public.pem"]).ok();
    // Ours, by them: with ed25519, and with OpenPGP.
    fs::copy(path, world.path("project/ours.sif")).unwrap();
    world.forge(["sign", "ours.sif", "--key", "secret.pem"]).ok();
    said(&world, &["verify", "--key", "public.pem", "ours.sif"]);
    let key = |name: &str| format!("{}/../store/tests/keys/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::copy(path, world.path("project/pgp.sif")).unwrap();
    world.forge(["sign", "pgp.sif", "--key", &key("ed25519.sec.asc")]).ok();
    said(&world, &["key", "import", &key("ed25519.pub.asc")]);
    said(&world, &["verify", "--local", "pgp.sif"]);
    // What was changed after it was signed neither believes.
    let mut bytes = fs::read(world.path("project/pgp.sif")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(world.path("project/pgp.sif"), bytes).unwrap();
    assert!(!apptainer(&world, &["verify", "--local", "pgp.sif"]).status.success());
    assert_eq!(world.forge(["verify", "pgp.sif", "--key", &key("ed25519.pub.asc")]).code, Some(12));
}

/// Overlay and encrypted partitions of others: said, and read or refused in words.
#[test]
fn partitions_that_forge_cannot_use_are_named() {
    let world = World::new();
    if !have("apptainer") {
        return;
    }
    let Some((id, path)) = packed(&world) else { return };
    let path = path.to_str().unwrap();
    let overlay = apptainer(&world, &["overlay", "create", "--size", "64", path]);
    if overlay.status.success() {
        let inspected = world.forge(["inspect", path]).ok().stdout.clone();
        assert!(inspected.contains("overlay") && inspected.contains("ext3"), "{inspected}");
        // The formation in it is what it was; that there is more is said.
        let imported = World::new().forge(["import", path]);
        assert_eq!(imported.id(), id);
        assert!(imported.stderr.contains("overlay partition (ext3)"), "{}", imported.stderr);
    } else {
        eprintln!("skipped: no overlay: {}", String::from_utf8_lossy(&overlay.stderr));
    }
    let mut command = Command::new("apptainer");
    command.args(["build", "--encrypt", "secret.sif", "tree"]).current_dir(world.path("project"));
    command.env("APPTAINER_ENCRYPTION_PASSPHRASE", "word").env("HOME", world.path("home"));
    let built = command.output().unwrap();
    if !built.status.success() {
        eprintln!("skipped: no encrypted image: {}", String::from_utf8_lossy(&built.stderr));
        return;
    }
    assert!(world.forge(["inspect", "secret.sif"]).ok().stdout.contains("encrypted"));
    for words in [&["import", "secret.sif"][..], &["run", "./secret.sif"]] {
        let refused = world.forge(words);
        assert!(refused.code != Some(0) && refused.stderr.contains("is encrypted"), "{}", refused.stderr);
    }
}
