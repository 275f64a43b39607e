//! The store from outside: what is kept, collected, damaged, repaired and refused, by the built `forge`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::world::{Ran, World, have, is_root};

/// A directory of so many small files.
fn source(world: &World, name: &str, count: usize) -> PathBuf {
    for number in 0..count {
        world.write(&format!("{name}/d{}/f{number}", number % 5), &format!("{name} {number}\n"));
    }
    world.path("project").join(name)
}

fn import(world: &World, path: &Path, name: &str) -> String {
    world.forge(["import".as_ref(), path.as_os_str(), "--name".as_ref(), name.as_ref()]).id()
}

#[test]
fn collection_says_what_it_would_do_and_keeps_what_was_used_of_late() {
    let world = World::new();
    let (kept, gone) = (source(&world, "kept", 200), source(&world, "gone", 300));
    let kept = import(&world, &kept, "kept");
    let gone = import(&world, &gone, "gone");
    world.forge(["rm", "gone"]).ok();
    let planned = world.forge(["gc", "--dry-run", "--json"]).json();
    assert_eq!((&planned["freed"]["blobs"], &planned["freed"]["formations"]), (&300.into(), &1.into()));
    // What was used within the time, or fits into the size, stays.
    for keep in [["--keep", "1h"], ["--max-size", "1G"]] {
        let freed = world.forge(["gc", keep[0], keep[1], "--json"]).json();
        assert_eq!(freed["freed"]["blobs"], 0, "{keep:?}");
        world.forge(["info", &gone]).ok();
    }
    world.forge(["pin", &gone[..10]]).ok();
    assert_eq!(world.forge(["gc", "--json"]).json()["freed"]["blobs"], 0);
    assert_eq!(world.forge(["pin"]).ok().stdout.trim(), gone);
    world.forge(["pin", "--remove", &gone]).ok();
    assert_eq!(world.forge(["pin", "--remove", &gone]).code, Some(1));
    assert_eq!(world.forge(["gc", "--json"]).json(), {
        let mut freed = planned.clone();
        freed["dry_run"] = false.into();
        freed
    });
    assert_eq!(world.forge(["info", &gone]).code, Some(10));
    world.forge(["info", &kept]).ok();
    world.forge(["verify"]).ok();
    for wrong in [["--keep", "soon"], ["--max-size", "much"]] {
        assert_eq!(world.forge(["gc", wrong[0], wrong[1]]).code, Some(2));
    }
}

#[test]
fn what_is_damaged_is_named_set_aside_and_made_good() {
    let world = World::new();
    let directory = source(&world, "precious", 100);
    let id = import(&world, &directory, "precious");
    import(&world, &source(&world, "other", 100), "other");
    // The byte after a content's first words, in whatever pack it lies.
    let packs = fs::read_dir(world.store().join("packs")).unwrap().map(|entry| entry.unwrap().path());
    let damaged = packs.filter(|path| path.extension().is_some_and(|suffix| suffix == "pack")).any(|path| {
        let mut bytes = fs::read(&path).unwrap();
        let Some(place) = bytes.windows(12).position(|window| window == b"precious 42\n") else { return false };
        bytes[place] = b'P';
        fs::write(path, bytes).unwrap();
        true
    });
    assert!(damaged);
    // It enters nothing that is made of it.
    let export = world.forge(["export", "precious", "--format", "tar", "-o", "-"]);
    assert_eq!(export.code, Some(13), "{}", export.stderr);
    let found = world.forge(["verify", "--dry-run", "--json"]);
    assert_eq!(found.code, Some(13));
    assert_eq!(found.json()["damaged"][0]["formations"], serde_json::json!([id]));
    let found = world.forge(["verify"]);
    assert_eq!(found.code, Some(13));
    assert!(found.stdout.contains("in formation") && found.stdout.contains("precious"), "{}", found.stdout);
    assert!(!found.stdout.contains("other"), "{}", found.stdout);
    assert_eq!(fs::read_dir(world.store().join("damaged")).unwrap().count(), 1);
    // Now it is missing, which is named too, until it is there again.
    assert_eq!(world.forge(["verify", "--repair"]).code, Some(13));
    // Its source is known to be unchanged, and read all the same: what it gave is gone.
    assert_eq!(import(&world, &directory, "precious"), id);
    world.forge(["verify"]).ok();
    world.forge(["export", "precious", "--format", "tar", "-o", "-"]).ok();
}

#[test]
fn an_index_may_be_deleted_at_any_time() {
    let world = World::new();
    let id = import(&world, &source(&world, "indexed", 150), "indexed");
    let tar = || world.forge(["export", "indexed", "--format", "tar", "--json", "-o", "out.tar", "--force"]).json();
    let before = tar();
    for entry in fs::read_dir(world.store().join("packs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|suffix| suffix == "index") {
            fs::remove_file(path).unwrap();
        }
    }
    // What was changed a moment ago is not remembered, and there may be no cache yet.
    let _ = fs::remove_dir_all(world.store().join("cache"));
    assert_eq!(tar(), before);
    assert_eq!(import(&world, &world.path("project/indexed"), "indexed"), id);
    world.forge(["verify"]).ok();
}

#[test]
fn keys_and_tokens_are_told_and_refused_on_request() {
    let world = World::new();
    let key = format!("-----BEGIN {} KEY-----\n{}\n", "PRIVATE", "MIIEpAIBAAKCAQEA7bq8".repeat(10));
    world.write("app/deep/server.pem", &key);
    world.write("app/program", "harmless");
    world.write(
        "runtime.expr",
        r#"{ forge }: forge.formation { name = "leaky"; layers = [ (forge.files { "/app" = ./app; }) ]; command = [ "/app/program" ]; }"#,
    );
    let checked = world.forge(["check"]);
    assert!(checked.ok().stderr.contains("server.pem` looks like a private key"), "{}", checked.stderr);
    assert_eq!(world.forge(["check", "--json"]).json()["secrets"][0]["what"], "a private key");
    assert_eq!(world.forge(["check", "--strict"]).code, Some(12));
    let refused = world.forge(["build", "--strict"]);
    assert_eq!(refused.code, Some(12), "{}", refused.stderr);
    assert!(refused.stderr.contains("hint: bind it when it is run"), "{}", refused.stderr);
    assert!(!world.store().join("formations").exists());
    let built = world.forge(["build"]);
    built.id();
    assert!(built.stderr.contains("server.pem` looks like a private key"), "{}", built.stderr);
    fs::remove_file(world.path("project/app/deep/server.pem")).unwrap();
    world.forge(["check", "--strict"]).ok();
    // What was built with it is told by its name, and by no file.
    let layers = world.forge(["check", "leaky", "--strict"]);
    assert_eq!(layers.code, Some(12), "{}", layers.stderr);
    assert!(layers.stderr.contains("`/app/deep/server.pem`"), "{}", layers.stderr);
    world.forge(["build", "--strict"]).id();
    world.forge(["check", "leaky", "--strict"]).ok();
    // No source looks like one, and what comes of them does.
    world.write("app/one.txt", key.split_once('\n').unwrap().0);
    world.write("archive.expr", &ARCHIVED.replace("KEY", &key.replace('\n', "\\n")));
    let refused = world.forge(["build", "archive.expr", "--strict"]);
    assert_eq!(refused.code, Some(12), "{}", refused.stderr);
    assert_eq!(world.forge(["info", "archived"]).code, Some(10));
    let built = world.forge(["build", "archive.expr", "-q"]).id();
    assert_eq!(world.forge(["check", &built[..12], "--strict"]).code, Some(12));
}

/// A text of the expression itself: it lies in no file of the project's layers.
const ARCHIVED: &str = r#"{ forge }: forge.formation {
  name = "archived"; command = [ "true" ];
  layers = [ (forge.files { "/etc/server.pem" = "KEY"; }) ];
}"#;

#[test]
fn every_kind_of_file_comes_back_from_every_archive() {
    let world = World::new();
    let directory = world.path("everything");
    fs::create_dir_all(directory.join("empty")).unwrap();
    let path = |name: &[u8]| directory.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name));
    // Names of any bytes, holes, many files, a deep path, and every type that root may make.
    fs::write(path(b"\xff\xfe new\nline \x1b[31m"), "odd").unwrap();
    fs::write(path(&[b'n'; 255]), "long").unwrap();
    fs::File::create(path(b"sparse")).unwrap().set_len(3 << 20).unwrap();
    fs::create_dir(path(b"many")).unwrap();
    for number in 0..2000 {
        fs::write(path(b"many").join(number.to_string()), number.to_string()).unwrap();
    }
    let mut deep = directory.clone();
    (0..15).for_each(|_| deep.push("d".repeat(250)));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("bottom"), "deep").unwrap();
    std::os::unix::fs::symlink("../\u{1F980}/nowhere", path(b"link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, path(b"fifo"), rustix::fs::Mode::RUSR).unwrap();
    rustix::fs::lsetxattr(path(b"sparse"), "user.note", b"\0bytes\xff", rustix::fs::XattrFlags::empty()).unwrap();
    if is_root() {
        let mode = rustix::fs::Mode::from_raw_mode(0o4640);
        let device = rustix::fs::makedev(1, 3);
        let character = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, path(b"device"), character, mode, device).unwrap();
        std::os::unix::fs::chown(path(b"empty"), Some(123), Some(4_000_000)).unwrap();
    }
    let arguments = ["import", directory.to_str().unwrap(), "--keep", "--name", "everything", "--version", "1"];
    let id = world.forge(arguments).id();
    world.forge(["export", "everything", "--format", "tar", "-o", "e.tar"]).ok();
    let tar = world.path("project/e.tar");
    let elsewhere = World::new();
    let again = elsewhere.forge(["import".as_ref(), tar.as_os_str()]).id();
    assert_eq!(again, id);
    for (program, suffix) in [("gzip", "gz"), ("zstd", "zst"), ("xz", "xz"), ("bzip2", "bz2")] {
        if !have(program) {
            continue;
        }
        let fast = if program == "bzip2" { "-1" } else { "-1c" };
        let words: &[&str] = if program == "bzip2" { &[fast, "-c"] } else { &[fast] };
        let packed = Command::new(program).args(words).arg(&tar).output().unwrap().stdout;
        let file = elsewhere.path(format!("e.tar.{suffix}"));
        fs::write(&file, &packed).unwrap();
        assert_eq!(elsewhere.forge(["import".as_ref(), file.as_os_str()]).id(), id, "{suffix}");
        assert_eq!(elsewhere.forge_with_input(["import", "-"], &packed).id(), id, "{suffix} from a pipe");
    }
    elsewhere.forge(["verify"]).ok();
    // The deep directory is more than some temporary directories' cleaners take.
    fs::remove_dir_all(&directory).unwrap();
}

/// A short run of what `just faults` does at length.
fn faults(what: &str, words: &[&str]) {
    if !have("python3") {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benchmarks/store/faults.py");
    let forge = World::new().command(["version"]).get_program().to_owned();
    let mut command = Command::new("python3");
    command.arg(script).arg(what).arg("--forge").arg(forge).args(words);
    let ran = Ran::of(command.output().unwrap());
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn many_processes_in_one_store_lose_nothing() {
    faults("crowd", &["--seconds", "4", "--processes", "12"]);
}

#[test]
fn processes_that_are_killed_lose_nothing_that_was_finished() {
    faults("kill", &["--points", "4", "--patience", "1.5"]);
}

#[test]
fn a_full_disk_loses_nothing_that_was_finished() {
    if is_root() {
        faults("full", &["--points", "2", "--patience", "2"]);
    } else {
        eprintln!("skipped: only root can mount a small file system");
    }
}

#[test]
fn a_power_cut_loses_nothing_that_was_finished() {
    if is_root() && have("mkfs.ext4") {
        faults("power", &["--points", "3", "--patience", "1.5"]);
    } else {
        eprintln!("skipped: only root can mount a file system and shut it down");
    }
}

#[test]
fn a_flipped_byte_is_found_and_nothing_wrong_is_given_out() {
    faults("flip", &["--points", "4"]);
}

#[test]
fn a_disk_that_fails_or_writes_less_loses_nothing() {
    // By ptrace(2), with the registers of one architecture.
    if cfg!(target_arch = "x86_64") {
        faults("eio", &["--points", "8"]);
    } else {
        eprintln!("skipped: calls are made to fail on x86-64 only");
    }
}

#[test]
fn a_line_that_lies_or_ends_loses_nothing() {
    faults("line", &["--points", "6"]);
}

#[test]
fn a_run_in_progress_keeps_what_it_runs_on_and_a_file_that_is_run_stays_known() {
    let (built, id) = crate::world::small();
    let world = World::new();
    let file = world.path("small.squashfs");
    built.forge(["export".as_ref(), id.as_ref(), "-o".as_ref(), file.as_os_str()]).ok();
    let words = ["--", "sh", "-c", "read line; cat /etc/greeting; ls /app"].map(std::ffi::OsStr::new);
    let start = || {
        let mut command = world.command(["run".as_ref(), file.as_os_str()].into_iter().chain(words));
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let mut running = start();
    while fs::read_dir(world.store().join("checkouts")).map_or(0, Iterator::count) == 0
        || fs::read_dir(world.store().join("leases")).map_or(0, Iterator::count) != 1
    {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // It has no name; as long as the file is there, unchanged, it is kept all the same.
    assert_eq!(world.forge(["gc", "--json"]).json()["freed"]["formations"], 0);
    fs::remove_file(&file).unwrap();
    world.forge(["gc"]).ok();
    std::io::Write::write_all(&mut running.stdin.take().unwrap(), b"\n").unwrap();
    let ran = Ran::of(running.wait_with_output().unwrap());
    assert_eq!(ran.ok().stdout, "good day\nhello.sh\n");
    // Now nothing needs it.
    world.forge(["gc"]).ok();
    assert_eq!(fs::read_dir(world.store().join("leases")).unwrap().count(), 0);
    assert!(world.forge(["list", "--json"]).json()["formations"].as_array().is_none_or(Vec::is_empty));
    assert_eq!(fs::read_dir(world.store().join("checkouts/exact")).map_or(0, Iterator::count), 0);
}
