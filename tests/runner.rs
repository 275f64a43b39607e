//! A run in a container: the same words, the same result. With podman where it is installed; docker's part with a program of its name
//! that writes down how it was called.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::world::{Ran, World};

/// A machine whose control groups are not podman's runs it all the same.
const OPTIONS: &str = "--cgroups=disabled";

/// A world with a formation of busybox, if podman can run anything at all.
fn world() -> Option<World> {
    if !Command::new("podman").arg("--version").output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no podman");
        return None;
    }
    let world = World::new();
    let Some(busybox) = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).is_file()) else {
        eprintln!("skipped: no busybox");
        return None;
    };
    let tree = world.path("tree");
    fs::create_dir_all(tree.join("bin")).unwrap();
    fs::copy(busybox, tree.join("bin/busybox")).unwrap();
    for applet in ["sh", "cat", "id", "env", "ls", "sleep", "echo"] {
        std::os::unix::fs::symlink("busybox", tree.join("bin").join(applet)).unwrap();
    }
    world.forge(["import", "--name", "box", tree.to_str().unwrap()]).id();
    let image = forge(&world, &["runner", "build"]);
    if image.code != Some(0) {
        eprintln!("skipped: podman cannot load the runner image here: {}", image.stderr);
        return None;
    }
    let first = forge(&world, &["run", "--backend", "runner:podman", "box", "--", "echo", "ready"]);
    if matches!(first.code, Some(125 | 126)) && first.stderr.starts_with("Error:") {
        eprintln!("skipped: podman runs nothing here: {}", first.stderr);
        return None;
    }
    assert_eq!((first.code, first.stdout.as_str()), (Some(0), "ready\n"), "{}", first.stderr);
    Some(world)
}

/// With a podman of this world's own: nothing stays in the machine's.
fn forge(world: &World, arguments: &[&str]) -> Ran {
    let mut command = world.command(arguments);
    settle(world, &mut command);
    Ran::of(command.output().unwrap())
}

fn settle(world: &World, command: &mut Command) {
    let (root, run) = (world.path("podman"), world.path("podman-run"));
    command.env(
        "FORGE_RUNNER_ENGINE",
        format!("podman --root={} --runroot={} --storage-driver=vfs", root.display(), run.display()),
    );
    command.env("FORGE_RUNNER_OPTIONS", OPTIONS);
}

#[test]
fn a_run_in_a_container_gives_what_a_run_here_gives() {
    let Some(world) = world() else { return };
    let here = |arguments: &[&str]| world.forge(["run"].iter().chain(arguments));
    let there = |arguments: &[&str]| forge(&world, &[&["run", "--backend", "runner:podman"], arguments].concat());
    fs::write(world.path("out/from"), "content").unwrap();
    let bind = format!("{}:/out", world.path("out").display());
    for arguments in [
        &["box", "--", "sh", "-c", "echo out; echo err >&2; exit 7"][..],
        &["-e", "A=1", "box", "--", "env"],
        &["--user", "12:34", "--workdir", "/bin", "box", "--", "sh", "-c", "id -u; id -g; pwd; ls /"],
        &["--read-only", "box", "--", "sh", "-c", "echo x > /x"],
        &["-B", &bind, "box", "--", "sh", "-c", "cat /out/from; echo back > /out/to"],
        &["box", "--", "sh", "-c", "kill -9 $$"],
        &["box", "--", "/nonexistent"],
        &["--timeout", "1s", "box", "--", "sleep", "20"],
    ] {
        let (here, there) = (here(arguments), there(arguments));
        assert_eq!((there.code, &there.stdout), (here.code, &here.stdout), "{arguments:?}: {}", there.stderr);
    }
    assert_eq!(fs::read_to_string(world.path("out/to")).unwrap(), "back\n");
    fs::write(world.path("project/x"), "in").unwrap();
    let exchanged =
        there(&["--input", "x", "--output", "../out/o", "box", "--", "sh", "-c", "cat /input/x > /output/y"]);
    assert_eq!(exchanged.code, Some(0), "{}", exchanged.stderr);
    assert_eq!(fs::read_to_string(world.path("out/o/y")).unwrap(), "in");
    let parity = forge(&world, &["parity", "--on", "native,runner:podman", "--json", "box", "--", "echo", "same"]);
    let report: serde_json::Value = serde_json::from_str(&parity.stdout).expect(&parity.stderr);
    assert_eq!(
        (parity.code, &report["same"]),
        (Some(0), &serde_json::Value::Bool(true)),
        "{:#}",
        report["differences"]
    );
    // What is kept is the same wherever it is made, and a directory for it too.
    let kept = world.path("out/kept");
    let kept = kept.to_str().unwrap();
    assert_eq!(there(&["--writable", kept, "box", "--", "sh", "-c", "echo kept > /new"]).code, Some(0));
    assert_eq!(here(&["--writable", kept, "box", "--", "cat", "/new"]).ok().stdout, "kept\n");
    let ports = ["-p", "28180:80", "-p", "28181:80"];
    let listens = there(&[&ports[..], &["box", "--", "echo", "listens"]].concat());
    assert_eq!(listens.stdout, "listens\n", "{}", listens.stderr);
    forge_inside_refuses_a_formation_that_was_changed_on_the_disk(&world);
}

fn forge_inside_refuses_a_formation_that_was_changed_on_the_disk(world: &World) {
    let run = |more: &[&str]| {
        forge(world, &[&["run", "--backend", "runner:podman"], more, &["box", "--", "echo", "ran"]].concat())
    };
    let measured = run(&["--measure"]);
    assert_eq!((measured.code, measured.stdout.as_str()), (Some(0), "ran\n"), "{}", measured.stderr);
    for kind in ["exact", "caller"] {
        let Ok(checkouts) = fs::read_dir(world.store().join("checkouts").join(kind)) else { continue };
        for checkout in checkouts {
            let bin = checkout.unwrap().path().join("root/bin");
            if bin.is_dir() {
                fs::write(bin.join("more"), "evil").unwrap();
            }
        }
    }
    let refused = run(&["--measure"]);
    assert_eq!(refused.code, Some(125), "{}", refused.stderr);
    assert!(refused.stdout.is_empty() && refused.stderr.contains("/bin/more"), "{}", refused.stderr);
    // Here too.
    let here = world.forge(["run", "--measure", "box", "--", "echo", "ran"]);
    assert!(here.code == Some(125) && here.stderr.contains("/bin/more"), "{}", here.stderr);
}

#[test]
fn an_engine_that_is_not_there_or_does_not_answer_is_said_with_its_cure() {
    let world = World::new();
    fs::create_dir_all(world.path("tree/bin")).unwrap();
    world.forge(["import", "--name", "box", world.path("tree").to_str().unwrap()]).id();
    let run = |engine: &str, script: &str| {
        let directory = world.path("engines");
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        if !script.is_empty() {
            let path = directory.join(engine);
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut command = world.command(["run", "--backend", &format!("runner:{engine}"), "box", "--", "x"]);
        Ran::of(command.env("PATH", directory).output().unwrap())
    };
    let missing = run("docker", "");
    assert!(
        missing.stderr.contains("`docker` is not installed here") && missing.stderr.contains("hint:"),
        "{missing:?}"
    );
    let silent = run(
        "docker",
        "echo 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?' >&2; exit 1",
    );
    assert!(silent.stderr.contains("docker is installed and does not answer"), "{silent:?}");
    assert!(silent.stderr.contains("hint: systemctl start docker"), "{silent:?}");
    let refused =
        run("docker", "echo 'permission denied while trying to connect to the Docker daemon socket' >&2; exit 1");
    assert!(
        refused.stderr.contains("docker does not serve this user") && refused.stderr.contains("podman"),
        "{refused:?}"
    );
    for ran in [missing, silent, refused] {
        assert_eq!(ran.code, Some(125));
    }
    let wrong = world.forge(["run", "--backend", "vm", "box"]);
    assert!(wrong.code == Some(125) && wrong.stderr.contains("runner:docker"), "{wrong:?}");
}

/// No Docker here: a program of its name keeps what it was called with, has no image until one is loaded, and says which one it loaded.
const DOCKER: &str = r#"#!/bin/sh
here=$(dirname "$0")
printf '%s\n' "$*" >> "$here/calls"
case "$1" in
image) if [ -f "$here/id" ]; then cat "$here/id"; else echo "Error: No such image: $5" >&2; exit 1; fi ;;
load) tar -xOf "$4" manifest.json | sed 's,.*"Config":"blobs/sha256/\([0-9a-f]*\)".*,sha256:\1 linux/'"$ARCH"',' > "$here/id" ;;
run) echo from docker; exit ${STATUS:-9} ;;
esac
"#;

/// A world with that program, and the PATH to find it.
fn with_docker() -> (World, String) {
    let world = World::new();
    fs::create_dir_all(world.path("tree/bin")).unwrap();
    world.forge(["import", "--name", "box", world.path("tree").to_str().unwrap()]).id();
    let directory = world.path("engines");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("docker"), DOCKER).unwrap();
    fs::set_permissions(directory.join("docker"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap_or_default());
    (world, path)
}

#[test]
fn what_the_host_has_is_settled_before_an_engine_is_asked() {
    let (world, path) = with_docker();
    world.write("variables", "# of the caller\nOUTER\n");
    world.write("wrong", "=x\n");
    let run = |more: &[&str], status: &str| {
        let words = [&["run", "--backend", "runner:docker"], more, &["box", "--", "x"]].concat();
        let mut command = world.command(words);
        command.env("PATH", &path).env("OUTER", "hidden").env("STATUS", status);
        command.env("ARCH", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" });
        Ran::of(command.output().unwrap())
    };
    let ports = ["-p", "28080:80", "-p", "28081:80", "-p", "28080:80/udp"];
    let ran = run(&[&ports[..], &["--env-file", "variables", "--writable", "../out/new"]].concat(), "3");
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    assert!(world.path("out/new").is_dir());
    let calls = fs::read_to_string(world.path("engines/calls")).unwrap();
    let last = calls.lines().rfind(|call| call.starts_with("run ")).unwrap();
    for word in [
        "--publish=127.0.0.1:28080:10000/tcp",
        "--publish=127.0.0.1:28081:10001/tcp",
        "--publish=127.0.0.1:28080:10002/udp",
        "--port 0.0.0.0:10000:80/tcp",
        "--port 0.0.0.0:10001:80/tcp",
        "--port 0.0.0.0:10002:80/udp",
        "--env OUTER",
    ] {
        assert!(last.contains(word), "{word} in {last}");
    }
    for (wrong, said) in [
        (&["-p", "28080:80", "-p", "0.0.0.0:28080:81"][..], "is given twice"),
        (&["--env-file", "wrong"], "--env-file `=x`"),
        (&["--env-file", "missing"], "cannot read `missing`"),
    ] {
        let ran = run(wrong, "3");
        assert!(ran.code == Some(125) && ran.stderr.contains(said), "{wrong:?}: {}", ran.stderr);
        assert!(ran.stdout.is_empty(), "{wrong:?} went to the engine");
    }
    // What an engine says of its own failure is no error of forge's, and its status is none of the program's.
    for status in ["125", "126", "127"] {
        let failed = run(&[], status);
        assert_eq!(failed.code, Some(125), "{}", failed.stderr);
        assert!(failed.stderr.contains("error: docker did not run the container"), "{}", failed.stderr);
        assert!(failed.stderr.contains(&format!("status {status}")), "{}", failed.stderr);
        assert!(failed.stderr.contains("hint:"), "{}", failed.stderr);
    }
}

#[test]
fn docker_is_told_the_same_as_podman_in_its_own_words() {
    let (world, path) = with_docker();
    let directory = world.path("engines");
    let run = || {
        let mut command = world.command([
            "run",
            "--backend",
            "runner:docker",
            "-e",
            "SECRET",
            "--memory",
            "64M",
            "box",
            "--",
            "x",
            "y",
        ]);
        command.env("PATH", &path).env("SECRET", "hidden");
        command.env("ARCH", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" });
        Ran::of(command.output().unwrap())
    };
    let (first, second) = (run(), run());
    assert_eq!((first.code, first.stdout.as_str()), (Some(9), "from docker\n"), "{}", first.stderr);
    assert!(
        first.stderr.contains("the first time only") && !second.stderr.contains("the first time only"),
        "{second:?}"
    );
    let calls = fs::read_to_string(directory.join("calls")).unwrap();
    let calls: Vec<&str> = calls.lines().collect();
    assert_eq!(calls.iter().filter(|call| call.starts_with("load")).count(), 1, "{calls:#?}");
    // The second time it is only run.
    let last = calls.last().unwrap();
    assert!(calls[calls.len() - 2].starts_with("run "), "{calls:#?}");
    for word in [
        "--cap-drop=ALL",
        "--memory=67108864b",
        "systempaths=unconfined",
        "--env SECRET",
        "--backend native",
        "readonly",
    ] {
        assert!(last.contains(word), "{word} in {last}");
    }
    assert!(!last.contains("hidden") && !last.contains("privileged") && last.ends_with("-- x y"), "{last}");
    // An engine would pass on something else.
    use std::os::unix::ffi::OsStrExt;
    let odd = std::ffi::OsStr::from_bytes(b"\xff");
    let words = ["run", "--backend", "runner:docker", "box", "--", "x"].map(std::ffi::OsStr::new);
    let refused = Ran::of(world.command(words.iter().chain([&odd])).env("PATH", &path).output().unwrap());
    assert!(
        refused.code == Some(125) && refused.stderr.contains("docker cannot be told of an argument"),
        "{refused:?}"
    );
    // An engine that starts and runs nothing has measured nothing either; and that is one difference, not a hundred.
    let mut command = world.command(["parity", "--on", "native,runner:docker", "box", "--", "x"]);
    command.env("PATH", &path).env("ARCH", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" });
    let parity = Ran::of(command.output().unwrap());
    assert_eq!(parity.code, Some(1), "{}\n{}", parity.stdout, parity.stderr);
    assert!(parity.stdout.contains("runner:docker  nothing ran: status 9"), "{}", parity.stdout);
    assert_eq!(parity.stdout.matches("differs:").count(), 1, "{}", parity.stdout);
}

#[test]
fn a_project_does_not_choose_which_program_starts_containers() {
    let world = World::new();
    world.write("forge.toml", "[runner]\nengine = \"/tmp/evil docker\"\n");
    let ran = world.forge(["list"]);
    assert!(ran.code == Some(2) && ran.stderr.contains("says how containers are started"), "{ran:?}");
    fs::create_dir_all(world.path("home/.config/forge")).unwrap();
    fs::rename(world.path("project/forge.toml"), world.path("home/.config/forge/config.toml")).unwrap();
    let own = world.forge(["config", "show"]);
    assert!(own.code == Some(0) && own.stdout.contains("/tmp/evil docker"), "{own:?}");
}

#[test]
fn the_image_of_another_architecture_is_made_of_a_program_for_it() {
    let world = World::new();
    // elf(5): 64 bits, little-endian, for this machine; no program headers, or one that names an interpreter.
    let program = |name: &str, machine: u16, interpreter: bool| {
        let mut bytes = vec![0_u8; 128];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&1_u16.to_le_bytes());
        bytes[64..68].copy_from_slice(&(if interpreter { 3_u32 } else { 1 }).to_le_bytes());
        let path = world.path(name);
        fs::write(&path, bytes).expect("a file");
        path.to_str().expect("text").to_owned()
    };
    let (arm, amd, dynamic) = (program("arm", 183, false), program("amd", 62, false), program("dynamic", 183, true));
    let build = |binary: &str, platform: &str, file: &str| {
        world.forge(["runner", "build", "--binary", binary, "--platform", platform, "-o", file])
    };
    let made = [build(&arm, "linux/arm64", "arm.tar").id(), build(&amd, "linux/amd64", "amd.tar").id()];
    assert_eq!(world.forge(["info", &made[0], "--json"]).json()["platform"], "linux/arm64");
    let other = build(&arm, "linux/amd64", "x.tar");
    assert!(
        other.code == Some(2) && other.stderr.contains("a program for linux/arm64, not for linux/amd64"),
        "{other:?}"
    );
    let dynamic = build(&dynamic, "linux/arm64", "x.tar");
    assert!(dynamic.code == Some(2) && dynamic.stderr.contains("linked dynamically"), "{dynamic:?}");
    assert!(!world.path("project/x.tar").exists());
    // Both under one index, as a registry has them.
    world.forge(["export", &made[0], &made[1], "--format", "oci-layout", "-o", "both"]).ok();
    for (platform, id) in [("linux/arm64", &made[0]), ("linux/amd64", &made[1])] {
        assert_eq!(
            World::new().forge(["import", "--platform", platform, world.path("project/both").to_str().unwrap()]).id(),
            *id
        );
    }
}
