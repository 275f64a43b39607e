//! Files go into a run and come back; an artifact runs where it lies; what has not passed everywhere is refused.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::world::{Ran, World};

/// A world with a formation of busybox.
fn boxed(world: World) -> Option<World> {
    let Some(busybox) = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).is_file()) else {
        eprintln!("skipped: no busybox");
        return None;
    };
    let tree = world.path("project/tree");
    fs::create_dir_all(tree.join("bin")).unwrap();
    fs::copy(busybox, tree.join("bin/busybox")).unwrap();
    for applet in
        ["sh", "cat", "ls", "mkdir", "ln", "mkfifo", "chmod", "dd", "echo", "grep", "sleep", "id", "hostname", "true"]
    {
        std::os::unix::fs::symlink("busybox", tree.join("bin").join(applet)).unwrap();
    }
    world.forge(["import", "--name", "box", tree.to_str().unwrap()]).id();
    Some(world)
}

fn worlds() -> Vec<World> {
    [Some(World::new()), World::of_ordinary_user()].into_iter().flatten().filter_map(boxed).collect()
}

#[test]
fn volumes_outlive_runs_and_have_names() {
    for world in worlds() {
        let run =
            |words: &[&str], script: &str| world.forge([&["run"], words, &["box", "--", "sh", "-c", script]].concat());
        let made = run(&["-v", "data:/srv"], "echo one > /srv/x");
        assert!(made.ok().stderr.contains("volume data made"), "{}", made.stderr);
        assert_eq!(run(&["--volume=data"], "cat /volumes/data/x").ok().stdout, "one\n");
        let read_only = run(&["-v", "data:/srv:ro"], "cat /srv/x; echo two > /srv/x");
        assert!(read_only.code != Some(0) && read_only.stdout == "one\n", "{read_only:?}");
        let path = world.forge(["volume", "create", "other"]).ok().stdout.trim().to_owned();
        assert!(Path::new(&path).is_dir() && path.starts_with(world.path("home").to_str().unwrap()), "{path}");
        assert_eq!(world.forge(["volume", "create", "other"]).code, Some(1));
        let list = world.forge(["volume", "list"]).ok().stdout.clone();
        assert!(list.contains("\ndata ") && list.contains("\nother ") && list.contains(&path), "{list}");
        // One that a run shows stays.
        let mut run = world.command(["run", "-v", "data:/srv", "box", "--", "sh", "-c", "echo begun; cat"]);
        let mut run = run.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("forge starts");
        let mut begun = [0; 6];
        run.stdout.as_mut().unwrap().read_exact(&mut begun).expect("the program begins");
        let held = world.forge(["volume", "remove", "data"]);
        assert!(held.code == Some(15) && held.stderr.contains("is in use"), "{held:?}");
        drop(run.stdin.take());
        assert!(run.wait().expect("it ends").success());
        // What a process that was killed had begun to remove goes with the next.
        let begun = Path::new(&path).with_file_name(".removed-1-old");
        fs::rename(&path, &begun).expect("it is there");
        world.forge(["volume", "create", "other"]).ok();
        world.forge(["volume", "rm", "data", "other"]).ok();
        assert!(!Path::new(&path).exists() && !begun.exists());
        let gone = world.forge(["volume", "remove", "data"]);
        assert!(gone.code == Some(10) && gone.stderr.contains("`forge volume list`"), "{gone:?}");
        assert_eq!(world.forge(["volume", "list", "--json"]).json()["volumes"], serde_json::json!([]));
        assert_eq!(world.forge(["volume", "create", "../x"]).code, Some(2));
    }
    // An empty one is given to the user that the run has, or that could write nothing.
    let Some(world) = crate::world::is_root().then(World::new).and_then(boxed) else { return };
    let script = "echo mine > /srv/x; ls -n /srv/x";
    let mine = world.forge(["run", "-u", "55:66", "-v", "mine:/srv", "box", "--", "sh", "-c", script]);
    assert!(mine.ok().stdout.contains(" 55 ") && mine.stdout.contains(" 66 "), "{mine:?}");
}

#[test]
fn input_is_shown_and_output_comes_back() {
    for world in worlds() {
        world.write("table.csv", "a,b\n");
        let script = "cat /input/table.csv; mkdir -p /output/below; echo result > /output/below/x; echo run > /output/run; \
                      chmod 711 /output/run; chmod 0 /output/below/x; ! echo z > /input/table.csv 2>/dev/null";
        let ran =
            world.forge(["run", "--input", "table.csv", "--output", "../out/result", "box", "--", "sh", "-c", script]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "a,b\n"), "{}", ran.stderr);
        let out = world.path("out/result");
        assert_eq!(fs::read_to_string(out.join("below/x")).unwrap(), "result\n");
        assert_eq!(fs::metadata(out.join("run")).unwrap().permissions().mode() & 0o7777, 0o755);
        // What is there is not replaced.
        let again = world.forge(["run", "--output", "../out/result", "box", "--", "ls"]);
        assert!(again.code == Some(125) && again.stderr.contains("is not empty"), "{}", again.stderr);
        // The program's status stays its own, and its output comes back all the same.
        let failed =
            world.forge(["run", "--output", "../out/failed", "box", "--", "sh", "-c", "echo 1 > /output/log; exit 9"]);
        assert_eq!(failed.code, Some(9), "{}", failed.stderr);
        assert!(world.path("out/failed/log").is_file());
    }
}

#[test]
fn output_that_would_do_harm_does_not_come_back() {
    for world in worlds() {
        let run = |script: &str, more: &[&str]| {
            let _ = fs::remove_dir_all(world.path("out/o"));
            let start = ["run", "--output", "../out/o"];
            world.forge([&start[..], more, &["box", "--", "sh", "-c", script]].concat())
        };
        let links = run("ln -s /etc/passwd /output/link; mkfifo /output/pipe; echo ok > /output/file", &[]);
        assert_eq!(links.code, Some(0), "{}", links.stderr);
        assert!(links.stderr.contains("`link`") && links.stderr.contains("`pipe`"), "{}", links.stderr);
        let names: Vec<_> =
            fs::read_dir(world.path("out/o")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["file"]);
        let large = run(
            "for n in 1 2 3; do dd if=/dev/zero of=/output/$n bs=64k count=10 2>/dev/null; done; true",
            &["--output-size", "1M"],
        );
        // Root's is full before; an ordinary user's is counted.
        let size = |path: &str| fs::metadata(world.path("out/o").join(path)).map_or(0, |metadata| metadata.len());
        let came = size("1") + size("2") + size("3");
        assert!(came <= 1 << 20, "{came}");
        assert!(large.code == Some(0) || large.stderr.contains("the program's output is refused"), "{}", large.stderr);
        let deep = run("d=/output; for n in $(busybox seq 80); do d=$d/d; done; mkdir -p $d", &[]);
        assert!(deep.code == Some(125) && deep.stderr.contains("nested"), "{}", deep.stderr);
    }
}

use std::os::unix::fs::PermissionsExt;

#[test]
fn an_artifact_whose_author_is_trusted_runs_where_it_lies() {
    if !rustix_is_root() {
        eprintln!("skipped: only root mounts");
        return;
    }
    if !Path::new("/dev/loop-control").exists() {
        eprintln!("skipped: no loop devices");
        return;
    }
    let Some(world) = boxed(World::new()) else { return };
    for format in ["sif", "squashfs"] {
        let file = format!("box.{format}");
        world.forge(["export", "box", "--format", format, "-o", &file]).ok();
        let empty = world.path(format!("empty-{format}"));
        let run = |arguments: &[&str]| {
            let mut command = world.command([&["run", "--trust", &format!("./{file}")], arguments].concat());
            command.env("FORGE_STORE", &empty);
            Ran::of(command.output().unwrap())
        };
        let ran = run(&["--", "sh", "-c", "echo here; ! echo x > /bin/x; exit 3"]);
        if ran.stderr.contains("loop device") {
            eprintln!("skipped: no loop device to be had: {}", ran.stderr);
            return;
        }
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(3), "here\n"), "{}", ran.stderr);
        // Nothing went into the store, and nothing stays mounted.
        assert!(!empty.join("checkouts").exists() || fs::read_dir(empty.join("checkouts")).unwrap().next().is_none());
        assert!(!fs::read_to_string("/proc/mounts").unwrap().contains(empty.to_str().unwrap()));
        let attached = || {
            let blocks = fs::read_dir("/sys/block").unwrap().flatten();
            let files = blocks.filter_map(|block| fs::read_to_string(block.path().join("loop/backing_file")).ok());
            files.filter(|backing| backing.contains(world.path("project").to_str().unwrap())).count()
        };
        assert_eq!(attached(), 0);
        // Also if it is killed.
        let mut command = world.command(["run", "--trust", &format!("./{file}"), "--", "sleep", "60"]);
        let mut child = command.env("FORGE_STORE", &empty).spawn().unwrap();
        let soon = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while attached() == 0 && std::time::Instant::now() < soon {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(attached(), 1);
        child.kill().unwrap();
        child.wait().unwrap();
        while attached() != 0 && std::time::Instant::now() < soon {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(attached(), 0, "the loop device stayed");
    }
}

/// Who packed it here need not say that its author is trusted; who changed a byte of it, or could, must.
#[test]
fn what_was_packed_here_runs_where_it_lies() {
    if !rustix_is_root() || !Path::new("/dev/loop-control").exists() {
        eprintln!("skipped: only root mounts, over a loop device");
        return;
    }
    let Some(world) = boxed(World::new()) else { return };
    world.forge(["export", "box", "--format", "sif", "-o", "box.sif"]).ok();
    let checkouts = || {
        let found = |kind| fs::read_dir(world.store().join("checkouts").join(kind)).map_or(0, Iterator::count);
        found("exact") + found("caller")
    };
    let before = checkouts();
    let run = |words: &[&str]| world.forge([&["run"], words, &["./box.sif", "--", "echo", "here"]].concat());
    let ran = run(&[]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "here\n"), "{}", ran.stderr);
    assert_eq!(checkouts(), before, "it was unpacked");
    // Whoever else may write to it could do so while it is mounted.
    let path = world.path("project/box.sif");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(run(&[]).stdout, "here\n");
    assert!(checkouts() > before, "it was mounted");
}

#[test]
fn by_fuse_nothing_is_unpacked_and_nobody_is_trusted() {
    if !crate::world::have("squashfuse") {
        return;
    }
    if !rustix_is_root() || !Path::new("/dev/fuse").exists() {
        eprintln!("skipped: /dev/fuse is not for us");
        return;
    }
    let Some(world) = boxed(World::new()) else { return };
    world.forge(["export", "box", "--format", "sif", "-o", "box.sif"]).ok();
    let empty = world.path("empty");
    let mut command = world.command(["run", "--fuse", "./box.sif", "--", "sh", "-c", "echo by fuse; exit 5"]);
    let ran = Ran::of(command.env("FORGE_STORE", &empty).output().unwrap());
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(5), "by fuse\n"), "{}", ran.stderr);
    assert!(!empty.join("checkouts").exists() || fs::read_dir(empty.join("checkouts")).unwrap().next().is_none());
    let serving = Command::new("pgrep").args(["-f", empty.to_str().unwrap()]).output();
    assert!(serving.is_ok_and(|found| found.stdout.is_empty()), "a server stayed");
}

#[test]
fn another_runtime_runs_the_same_formation() {
    let Some(world) = boxed(World::new()) else { return };
    let missing = world.forge(["run", "--runtime", "no-such-runtime", "box", "--", "true"]);
    assert!(missing.code == Some(125) && missing.stderr.contains("hint:"), "{}", missing.stderr);
    if cfg!(feature = "libcontainer") && rustix_is_root() {
        let words =
            ["run", "--runtime", "libcontainer", "--memory", "64M", "box", "--", "sh", "-c", "id -u; hostname; exit 3"];
        let theirs = world.forge(words);
        let name = world.forge(["run", "box", "--", "hostname"]).stdout;
        assert_eq!((theirs.code, theirs.stdout), (Some(3), format!("0\n{name}")), "{}", theirs.stderr);
        let timed = world.forge(["run", "--runtime", "libcontainer", "--timeout", "1s", "box", "--", "sleep", "50"]);
        assert_eq!(timed.code, Some(124), "{}", timed.stderr);
    } else if !cfg!(feature = "libcontainer") {
        let without = world.forge(["run", "--runtime", "libcontainer", "box", "--", "true"]);
        assert!(without.code == Some(125) && without.stderr.contains("--features"), "{}", without.stderr);
    }
    if !crate::world::have("crun") {
        return;
    }
    let ours = world.forge(["run", "box", "--", "sh", "-c", "id -u; hostname; ls /; exit 3"]);
    let words = ["run", "--runtime", "crun", "box", "--", "sh", "-c", "id -u; hostname; ls /; exit 3"];
    let theirs = world.forge(words);
    assert_eq!((theirs.code, &theirs.stdout), (Some(3), &ours.stdout), "{}", theirs.stderr);
    for command in ["nope", "/bin/nope"] {
        let missing = world.forge(["run", "--runtime", "crun", "box", "--", command]);
        assert!(missing.code == Some(127) && missing.stderr.contains("not found"), "{}", missing.stderr);
    }
    // What is written is gone afterwards, and did not reach the checkout.
    world.forge(["run", "--runtime", "crun", "box", "--", "sh", "-c", "echo evil > /bin/sh"]);
    assert_eq!(world.forge(["run", "box", "--", "echo", "whole"]).stdout, "whole\n");
    let timed = world.forge(["run", "--runtime", "crun", "--timeout", "1s", "box", "--", "sleep", "50"]);
    assert_eq!(timed.code, Some(124), "{}", timed.stderr);
    let refused = world.forge(["run", "--runtime", "crun", "-p", "80", "box", "--", "true"]);
    assert!(refused.code == Some(125) && refused.stderr.contains("ports"), "{}", refused.stderr);
    let both = world.forge(["run", "--runtime", "crun", "--backend", "runner", "box", "--", "true"]);
    assert_eq!(both.code, Some(125), "{}", both.stderr);
}

fn rustix_is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}

/// Root without root's power is an ordinary user, and a backend of its own to compare with.
fn can_compare() -> bool {
    rustix_is_root() && crate::world::have("unshare") && crate::world::have("setpriv")
}

/// `forge parity` for whoever has the groups that root has who has logged in: an ordinary user's sandbox keeps the caller's.
fn parity(world: &World, words: &[&str]) -> Ran {
    let wrapper: &[&str] = if can_compare() { &["setpriv", "--groups", "0"] } else { &[] };
    Ran::of(world.wrapped(wrapper, [&["parity"], words].concat()).output().unwrap())
}

#[test]
fn what_has_not_passed_parity_is_refused_where_that_is_required() {
    let Some(world) = boxed(World::new()) else { return };
    let run = || world.forge(["run", "--require-parity", "box", "--", "echo", "ran"]);
    let before = run();
    assert!(before.code == Some(125) && before.stderr.contains("hint: forge parity"), "{}", before.stderr);
    let can_compare = can_compare();
    let on = if can_compare { "native,native:user" } else { "native" };
    let parity = parity(&world, &["--on", on, "-o", "../out/report.json", "box", "--", "echo", "same"]);
    assert_eq!(parity.code, Some(if can_compare { 0 } else { 1 }), "{}\n{}", parity.stdout, parity.stderr);
    let report: serde_json::Value = serde_json::from_slice(&fs::read(world.path("out/report.json")).unwrap()).unwrap();
    let seen = &report["backends"][0]["seen"];
    assert_eq!(seen["digest.measured"], report["formation"]);
    assert_eq!(seen["output.bytes"], "5");
    assert_eq!(seen["process.CapEff"], "0000000000000000", "{seen:#}");
    assert!(seen["files.content"].as_str().unwrap().len() == 64);
    if !can_compare {
        assert_eq!(run().code, Some(125));
        return;
    }
    let after = run();
    assert_eq!((after.code, after.stdout.as_str()), (Some(0), "ran\n"), "{}", after.stderr);
    // A formation that was changed on the disk is a difference, and is not accepted any more.
    for kind in ["exact", "caller"] {
        let Ok(checkouts) = fs::read_dir(world.store().join("checkouts").join(kind)) else { continue };
        for checkout in checkouts {
            fs::write(checkout.unwrap().path().join("root/bin/more"), "evil").unwrap();
        }
    }
    let changed = world.forge(["parity", "--on", "native", "box", "--", "echo", "same"]);
    assert_eq!(changed.code, Some(1), "{}", changed.stdout);
    assert!(changed.stdout.contains("differs: digest.measured"), "{}", changed.stdout);
    assert_eq!(run().code, Some(125));
}

#[test]
fn a_comparison_with_nothing_passes_nothing() {
    let Some(world) = boxed(World::new()) else { return };
    let parity = |words: &[&str]| parity(&world, words);
    let is_accepted = || world.forge(["run", "--require-parity", "box", "--", "sh", "-c", "true"]).code == Some(0);
    let alone = parity(&["--on", "native", "box", "--", "echo", "same"]);
    assert_eq!(alone.code, Some(1), "{}", alone.stdout);
    assert!(alone.stdout.contains("nothing compared: native alone"), "{}", alone.stdout);
    assert!(!is_accepted());
    if !can_compare() {
        return;
    }
    let both = ["--on", "native,native:user", "box", "--"];
    let missing = parity(&[&both[..], &["nope"]].concat());
    assert_eq!(missing.code, Some(1), "{}", missing.stdout);
    assert!(missing.stdout.contains("nothing compared: exit status 127"), "{}", missing.stdout);
    assert!(!is_accepted());
    // What differed is not settled by looking at one of the two, nor by looking at nothing.
    let random = ["sh", "-c", "read x < /proc/sys/kernel/random/uuid; echo $x"];
    assert_eq!(parity(&[&both[..], &random].concat()).code, Some(1));
    parity(&["--on", "native", "box", "--", "echo", "same"]);
    parity(&[&both[..], &["nope"]].concat());
    assert!(!is_accepted());
    let passed = parity(&[&both[..], &["echo", "same"]].concat());
    assert_eq!(passed.code, Some(0), "{}", passed.stdout);
    assert!(is_accepted());
}
