//! The main job: from a runtime expression to a running formation, by digest.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::world::{Ran, World, have, is_root, small};

/// The example of the README, in a project of its own.
fn example(world: &World) {
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/analysis");
    world.write("runtime.expr", &fs::read_to_string(source.join("runtime.expr")).unwrap());
    world.write("app/analysis.py", &fs::read_to_string(source.join("app/analysis.py")).unwrap());
}

#[test]
fn the_example_gives_one_id_wherever_it_is_built_and_runs() {
    let world = World::new();
    example(&world);
    let id = world.build("runtime.expr");

    // It reads real data, prints a table, and writes a file to a bound directory.
    let bind = format!("{}:/out", world.path("out").display());
    let ran = world.forge(["run", "analysis", "--bind", &bind]);
    ran.ok();
    assert!(
        ran.stdout.contains("packages") && ran.stdout.contains("numpy") && ran.stdout.contains("Section"),
        "{}",
        ran.stdout
    );
    let summary = fs::read_to_string(world.path("out/summary.csv")).unwrap();
    assert!(summary.starts_with("Section,") && summary.lines().count() > 40, "{summary}");

    // A second build fetches nothing and makes nothing, and needs no network.
    let lock = fs::read_to_string(world.path("project/forge.lock")).unwrap();
    let again = world.forge(["build", "runtime.expr", "--json"]);
    assert_eq!(again.json()["id"], id.as_str());
    assert_eq!(again.json()["made"], serde_json::json!({}));
    if have("unshare") && is_root() {
        let cut = |arguments: &[&str]| Ran::of(world.wrapped(&["unshare", "-n"], arguments).output().unwrap());
        assert_eq!(cut(&["build", "runtime.expr"]).id(), id);
        cut(&["run", "runtime.expr", "--", "python3", "-c", "import pandas"]).ok();
        // What was fetched is enough to make everything else again: only the claims and checkouts go.
        fs::remove_dir_all(world.store().join("claims")).unwrap();
    }
    assert_eq!(fs::read_to_string(world.path("project/forge.lock")).unwrap(), lock);

    // Another directory, store, user, umask, time zone, language and host name: the same id.
    let Some(other) = World::of_ordinary_user() else { return };
    if !have("unshare") {
        return;
    }
    example(&other);
    other.write("forge.lock", &lock);
    let elsewhere = r#"hostname elsewhere; umask 077; exec setpriv --reuid "$1" --regid "$1" --clear-groups "$2" build --locked --jobs 1 ./runtime.expr"#;
    let mut command = other.command(["version"]);
    let forge = command.get_program().to_owned();
    let environment: Vec<_> =
        command.get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned))).collect();
    command = Command::new("unshare");
    command.args(["-u", "sh", "-ec", elsewhere, "sh", &crate::world::NOBODY.to_string()]).arg(forge).env_clear();
    command.envs(environment.into_iter().filter_map(|(name, value)| Some((name, value?))));
    command.env("TZ", "Asia/Tokyo").env("LANG", "tr_TR.UTF-8").env("LC_ALL", "C").current_dir(other.path("project"));
    let built = Ran::of(command.output().unwrap());
    assert_eq!(built.id(), id, "{}", built.stderr);
    let ran =
        other.forge(["run", &id, "--", "python3", "-c", "import os, pandas; print(os.getuid(), pandas.__name__)"]);
    assert_eq!(ran.ok().stdout, "0 pandas\n");
}

#[test]
fn a_formation_is_run_by_digest_prefix_name_and_file() {
    let (world, id) = small();
    for given in [id.as_str(), &id[..8], "small", "./runtime.expr"] {
        let ran = world.forge(["run", given]);
        assert_eq!(ran.ok().stdout, "hello, world\n", "{given}");
    }
    let ran =
        world.forge(["run", "small", "--", "sh", "-c", "echo $GREETING; cat /etc/greeting /var/lib/made/uid; pwd"]);
    assert_eq!(ran.ok().stdout, "good day\ngood day\n0\n/\n");
}

#[test]
fn streams_and_exit_status_pass_through() {
    let (world, id) = small();
    let input: Vec<u8> = (0..3_000_000_u32).map(|number| b'a' + (number % 23) as u8).collect();
    let ran = world.forge_with_input(["run", id, "--", "cat"], &input);
    assert!(ran.ok().stdout.as_bytes() == input, "{} bytes of {}", ran.stdout.len(), input.len());
    let ran = world.forge(["run", id, "--", "sh", "-c", "echo out; echo err >&2; exit 42"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(42), "out\n"));
    assert!(ran.stderr.contains("err"), "{}", ran.stderr);
    assert_eq!(world.forge(["run", id, "--", "sh", "-c", "kill -9 $$"]).code, Some(137));
    assert_eq!(world.forge(["run", id, "--", "no-such-program"]).code, Some(127));
    assert_eq!(world.forge(["run", id, "--", "/etc/greeting"]).code, Some(126));
    assert_eq!(world.forge(["run", id, "--", "/etc"]).code, Some(126));
}

#[test]
fn a_run_sees_nothing_of_the_host_that_was_not_named() {
    let (world, id) = small();
    let mut command = world.command([
        "run",
        id,
        "--",
        "sh",
        "-c",
        "env; ls /proc | grep -c '^[0-9]'; ls /sys/class/net 2>/dev/null; id -u",
    ]);
    let output = Ran::of(command.env("SECRET_OF_THE_HOST", "1").output().unwrap());
    assert!(!output.ok().stdout.contains("SECRET_OF_THE_HOST"), "{}", output.stdout);
    assert!(!output.stdout.contains("FORGE_STORE"), "{}", output.stdout);
    // The root can be written to, and nothing of it stays.
    world
        .forge(["run", id, "--", "sh", "-c", "echo x > /etc/new && rm /etc/greeting && rm -r /app && mkdir /app"])
        .ok();
    assert_eq!(
        world.forge(["run", id, "--", "sh", "-c", "test ! -e /etc/new && cat /etc/greeting"]).ok().stdout,
        "good day\n"
    );
    assert_ne!(world.forge(["run", "--read-only", id, "--", "sh", "-c", "echo x > /etc/new"]).code, Some(0));
    // No way out over the network.
    let ran = world.forge([
        "run",
        id,
        "--",
        "sh",
        "-c",
        "cat /proc/net/route | wc -l; cat /proc/net/dev | grep -v lo: | wc -l",
    ]);
    assert_eq!(ran.ok().stdout, "1\n2\n");
}

#[test]
fn binds_variables_and_directory_are_what_was_asked_for() {
    let (world, id) = small();
    let out = world.path("out");
    let bind = format!("{}:/data/here", out.display());
    world
        .forge([
            "run",
            id,
            "-B",
            &bind,
            "-e",
            "A=b c",
            "-w",
            "/var/lib",
            "--",
            "sh",
            "-c",
            "echo $A $(pwd) > /data/here/a",
        ])
        .ok();
    assert_eq!(fs::read_to_string(out.join("a")).unwrap(), "b c /var/lib\n");
    let read_only = format!("{bind}:ro");
    let ran = world.forge(["run", id, "-B", &read_only, "--", "sh", "-c", "echo x > /data/here/a"]);
    assert_ne!(ran.code, Some(0));
    assert_eq!(fs::read_to_string(out.join("a")).unwrap(), "b c /var/lib\n");
    assert_eq!(world.forge(["run", id, "-B", "/no/such:/a"]).code, Some(125));
    assert_eq!(world.forge(["run", id, "-e", "=x"]).code, Some(125));
}

#[test]
fn a_time_limit_ends_the_run() {
    let (world, id) = small();
    let started = Instant::now();
    let ran = world.forge(["run", id, "--timeout", "300ms", "--", "sleep", "100"]);
    assert_eq!(ran.code, Some(124), "{}", ran.stderr);
    assert!(ran.stderr.contains("time limit of 0.3 s"), "{}", ran.stderr);
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[test]
fn signals_reach_the_program() {
    let (world, id) = small();
    let script = "trap 'echo got it; exit 7' TERM; echo ready; while :; do sleep 0.1; done";
    let mut command = world.command(["run", id, "--", "sh", "-c", script]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    assert_eq!(line, "ready\n");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stdout, &mut rest).unwrap();
    assert_eq!((rest.as_str(), child.wait().unwrap().code()), ("got it\n", Some(7)));
}

#[test]
fn an_ordinary_user_does_all_of_it() {
    let Some(world) = World::of_ordinary_user() else { return };
    world.write("runtime.expr", "{ forge }: forge.formation { name = \"mine\"; layers = [ (forge.debian { packages = [ ]; }) (forge.run { script = \"chown 33:44 /opt; chmod 2775 /opt; mknod /opt/null c 1 3\"; }) ]; command = [ \"id\" \"-u\" ]; }\n");
    let id = world.build("runtime.expr");
    assert_eq!(world.forge(["run", "mine"]).ok().stdout, "0\n");
    assert_eq!(world.forge(["run", &id, "--", "sh", "-c", "echo x > /etc/x && cat /etc/x"]).ok().stdout, "x\n");
    let ran = world.forge_with_input(["run", &id, "--", "cat"], b"through");
    assert_eq!(ran.ok().stdout, "through");
    // What root would have made is in the tree, whatever this user's disk could hold.
    let mut archive =
        world.command(["export", &id, "--format", "tar", "-o", "-"]).stdout(Stdio::piped()).spawn().unwrap();
    let list = Command::new("tar")
        .args(["--numeric-owner", "-tvf", "-"])
        .stdin(archive.stdout.take().unwrap())
        .output()
        .unwrap();
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(archive.wait().unwrap().success());
    let line =
        |path: &str| list.lines().find(|line| line.ends_with(path)).unwrap_or_else(|| panic!("no {path}")).to_owned();
    assert!(line(" opt/").starts_with("drwxrwsr-x 33/44"), "{}", line(" opt/"));
    // A set-gid directory hands on its group.
    assert!(line(" opt/null").starts_with("crw-r--r-- 0/44"), "{}", line(" opt/null"));
}

#[test]
fn what_is_exported_is_read_by_others() {
    let (world, id) = small();
    let squashfs = world.path("small.squashfs");
    world.forge(["export", id, "--format", "squashfs", "-o", squashfs.to_str().unwrap()]).ok();
    if have("unsquashfs") {
        let list = Command::new("unsquashfs").args(["-lln"]).arg(&squashfs).output().unwrap();
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        assert!(list.contains("squashfs-root/app/hello.sh"), "{list}");
        assert!(list.lines().any(|line| line.contains("42/42") && line.ends_with("/var/lib/made/uid")), "{list}");
    }
    // The same bytes to a pipe as to a file, and on every run.
    let piped = world.command(["export", id, "--format", "squashfs", "-o", "-"]).output().unwrap();
    assert!(piped.stdout == fs::read(&squashfs).unwrap());
    let sif = world.path("small.sif");
    world.forge(["export", id, "--format", "sif", "-o", sif.to_str().unwrap()]).ok();
    assert_eq!(&fs::read(&sif).unwrap()[32..41], b"SIF_MAGIC");
    let again = world.forge(["export", id, "--format", "sif", "-o", sif.to_str().unwrap()]);
    assert_eq!(again.code, Some(2), "an existing file is not replaced unasked");
}

#[test]
fn the_lock_is_sorted_relative_and_honoured() {
    let (world, id) = small();
    let path = world.path("project/forge.lock");
    let lock = fs::read_to_string(&path).unwrap();
    assert!(!lock.contains("://"), "a lock names no host: {lock}");
    let records: Vec<&str> = lock.lines().filter(|line| line.starts_with("  {")).collect();
    assert!(records.len() > 40 && records.is_sorted(), "{} records", records.len());
    assert_eq!(world.forge(["build", "--locked", "runtime.expr"]).id(), *id);
    // What is not locked is refused, and the lock stays as it is.
    let more = fs::read_to_string(world.path("project/runtime.expr"))
        .unwrap()
        .replace("packages = [ ]", "packages = [ \"less\" ]");
    world.write("more.expr", &more);
    let ran = world.forge(["build", "--locked", "more.expr"]);
    assert_eq!(ran.code, Some(15), "{}", ran.stderr);
    assert!(ran.stderr.contains("--locked") && ran.stderr.contains("less"), "{}", ran.stderr);
    assert_eq!(fs::read_to_string(&path).unwrap(), lock);
}

#[test]
fn the_other_commands_answer() {
    let (world, id) = small();
    let list = world.forge(["list", "--json"]).json();
    assert!(list["formations"].as_array().unwrap().iter().any(|formation| formation["id"] == id.as_str()), "{list}");
    let info = world.forge(["info", "small", "--json"]).json();
    assert_eq!(info["launch"]["environment"]["GREETING"], "good day");
    assert_eq!(info["layers"].as_array().unwrap().len(), 3);
    assert!(world.forge(["info", &id[..6]]).ok().stdout.contains("sh /app/hello.sh world"));
    assert_eq!(world.forge(["eval", "-E", "1 + 1"]).ok().stdout, "2\n");
    assert_eq!(world.forge(["eval", "-E", "{ a = [ 1 \"x\" ]; }", "--json"]).ok().stdout, "{\"a\":[1,\"x\"]}\n");
    world.forge(["check", "runtime.expr"]).ok();
    world.forge(["lock", "runtime.expr", "--locked"]).ok();
    let doctor = world.forge(["doctor", "--json"]).json();
    assert!(doctor["checks"].as_array().unwrap().iter().any(|check| check["name"] == "user namespaces"), "{doctor}");
    world.forge(["tag", "small", "other-name"]).ok();
    assert_eq!(world.forge(["run", "other-name"]).ok().stdout, "hello, world\n");
    world.forge(["rm", "other-name"]).ok();
    assert_eq!(world.forge(["run", "other-name"]).code, Some(125));
    for shell in ["bash", "zsh", "fish"] {
        assert!(world.forge(["completions", shell]).ok().stdout.contains("forge"));
    }
    let build = world.forge(["build", "--json"]).json();
    assert_eq!((build["name"].as_str(), build["version"].as_str()), (Some("small"), Some("1.2")));
    assert!(build["layers"][0]["size"].as_u64().unwrap() > 1 << 20);
    assert!(build["seconds"]["evaluate_and_lock"].as_f64().unwrap() > 0.0);
}
