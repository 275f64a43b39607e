//! Bad input: one headline, the place, the cause, a hint, the right exit code, and nothing lost.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use store::directory::Record;
use store::{Formation, Launch, Store, Tree};

use crate::world::{Ran, World, have, is_root, small};

/// An expression with these layers.
fn formation(layers: &str) -> String {
    format!("{{ forge }}:\nforge.formation {{\n  name = \"bad\";\n  layers = [ {layers} ];\n}}\n")
}

/// Builds an expression that must fail; neither a lock nor a formation is left.
#[track_caller]
fn fails(world: &World, expression: &str, code: i32) -> String {
    world.write("runtime.expr", expression);
    let ran = world.forge(["build", "-q"]);
    assert_eq!(ran.code, Some(code), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
    assert!(!world.path("project/forge.lock").exists(), "a lock was written");
    assert_eq!(world.forge(["list", "--json"]).json()["formations"], serde_json::json!([]));
    ran.stderr.replace(&world.path("project").display().to_string(), "PROJECT")
}

#[test]
fn a_syntax_error_is_shown_with_its_place() {
    let words = fails(&World::new(), "{ forge }:\nforge.formation {\n  name = \"x\"\n  layers = [ ];\n}\n", 1);
    insta::assert_snapshot!(words, @r#"
    error: syntax error, unexpected '=', expecting ';'
     --> PROJECT/runtime.expr:4:10
      |
    4 |   layers = [ ];
      |          ^
    hint: the attribute before it wants a `;` at its end: after `"x"` in line 3
    "#);
}

#[test]
fn a_file_that_is_no_artifact_is_not_read_as_an_expression() {
    let world = World::new();
    world.write("empty.sif", "");
    world.write("random.sif", "x");
    for (file, words) in [
        ("empty.sif", "`empty.sif` is no artifact"),
        ("./random.sif", "`./random.sif` is no artifact"),
        ("missing.sif", "there is no file `missing.sif`"),
        ("./missing.sif", "there is no file `./missing.sif`"),
    ] {
        let ran = world.forge(["run", file]);
        assert!(ran.code == Some(125) && ran.stderr.starts_with("error: "), "{ran:?}");
        assert!(ran.stderr.contains(words), "{file}: {}", ran.stderr);
    }
}

#[test]
fn what_is_not_where_it_should_be_is_no_failed_build() {
    let world = World::new();
    let in_store = |store: &str, words: &[&str]| {
        Ran::of(world.command(words).env("FORGE_STORE", store).output().expect("forge starts"))
    };
    let device = in_store("/dev/null", &["list"]);
    assert!(device.code == Some(2) && device.stderr.contains("hint: a store is a directory"), "{device:?}");
    let state = world.path("out/state");
    let container = world.forge(["runtime", "--root", state.to_str().expect("a path"), "state", "nope"]);
    assert_eq!(container.code, Some(10), "{}", container.stderr);
    let mut command = world.command(["volume", "create", "x"]);
    let relative = Ran::of(command.env("HOME", "relative").output().expect("forge starts"));
    assert!(relative.stderr.contains("HOME is not set to an absolute path"), "{relative:?}");
    let script = "mkdir gone && cd gone && rmdir ../gone && exec \"$0\" bundle box made";
    let gone = Ran::of(world.wrapped(&["sh", "-c", script], [] as [&str; 0]).output().expect("forge starts"));
    assert!(gone.stderr.contains("the current directory, which is not there any more"), "{gone:?}");
}

#[test]
fn a_misspelt_function_is_guessed() {
    let words = fails(&World::new(), &formation("(forge.debain { packages = [ ]; })"), 1);
    insta::assert_snapshot!(words, @r"
    error: attribute 'debain' missing
     --> PROJECT/runtime.expr:4:21
      |
    4 |   layers = [ (forge.debain { packages = [ ]; }) ];
      |                     ^^^^^^
      … 2 steps outside your files: --show-trace shows all
    hint: did you mean `debian`?
    ");
}

#[test]
fn what_newcomers_write_is_answered_with_what_to_write() {
    let mistakes = [
        ("forge.formation { }\n".to_owned(), "a runtime expression begins with `{ forge }:`"),
        (formation("forge.files { }"), "in a list a call stands in parentheses: [ (forge.debian { … }) ]"),
        ("{ forge, version }:\nforge.formation { }\n".to_owned(), "give it with --argstr NAME TEXT"),
        (formation("(forge.files { \"/p\" = /etc/passwd; })"), "an expression reads only its project"),
        (formation("").replace("];", "];\n  command = \"jq .\";"), "`command` is a list of strings, for instance"),
        (
            formation("").replace("];", "];\n  ports = [ null ];"),
            "`ports` is a list of numbers and texts, for instance",
        ),
    ];
    for (expression, answer) in mistakes {
        let words = fails(&World::new(), &expression, 1);
        assert!(words.contains(answer), "{expression}\n{words}");
    }
}

#[test]
fn a_wrong_setting_is_shown_where_it_stands() {
    let expression =
        "{ forge }:\nforge.formation {\n  name = \"x\";\n  layers = [ ];\n  limits.memory = \"lots\";\n}\n";
    let words = fails(&World::new(), expression, 1);
    insta::assert_snapshot!(words, @r#"
    error: limits.memory is a number of bytes such as "512M" or "2G", not a string: "lots"
     --> PROJECT/runtime.expr:5:3
      |
    5 |   limits.memory = "lots";
      |   ^^^^^^
      … 1 step outside your files: --show-trace shows all
    "#);
}

#[test]
fn a_name_that_is_none_is_shown_where_it_stands() {
    let words = fails(&World::new(), "{ forge }:\nforge.formation {\n  name = \"a/b\";\n  layers = [ ];\n}\n", 1);
    assert!(words.contains("--> PROJECT/runtime.expr:3:3"), "{words}");
}

#[test]
fn an_interrupt_ends_an_evaluation_that_would_not_end() {
    let world = World::new();
    let numbers = "builtins.genList (x: x) 100000";
    let sum = |each: &str| format!("builtins.foldl' (a: b: {each}) 0 ({numbers})");
    world.write("runtime.expr", &format!("{{ forge }}:\n{}\n", sum(&sum("a + b"))));
    let begun = Instant::now();
    interrupted(&world, Duration::from_millis(500));
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[test]
fn an_unknown_package_is_shown_where_it_is_wished_and_has_near_names() {
    let words = fails(&World::new(), &formation("(forge.debian { packages = [ \"pyton3\" ]; })"), 10);
    assert!(words.contains("error: Debian bookworm has no package `pyton3`"), "{words}");
    assert!(words.contains("hint: near it: ") && words.contains("python3"), "{words}");
    assert!(words.contains("packages = [ \"pyton3\" ]"), "{words}");
    let marked = words.lines().find(|line| line.contains('^')).expect("it is marked");
    assert_eq!(marked.matches('^').count(), "\"pyton3\"".len(), "{words}");
}

#[test]
fn an_impossible_version_says_which_there_are() {
    let words = fails(&World::new(), &formation("(forge.debian { packages = [ \"dash (>= 99)\" ]; })"), 100);
    assert!(words.contains("cannot be met") && words.contains("dash (>= 99)") && words.contains("0.5"), "{words}");
}

#[test]
fn an_index_that_cannot_be_reached_is_named() {
    let world = World::new();
    world.write("runtime.expr", &formation("(forge.debian { packages = [ ]; })"));
    // Port 9 of this machine: nobody listens there.
    let mut command = world.command(["build", "-q"]);
    let ran = Ran::of(command.env("FORGE_DEBIAN_MIRROR", "http://127.0.0.1:9/debian").output().unwrap());
    assert_eq!(ran.code, Some(11), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("http://127.0.0.1:9/debian/dists/bookworm") && ran.stderr.contains("refused"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("hint: ") && ran.stderr.contains("FORGE_DEBIAN_MIRROR"), "{}", ran.stderr);
    assert!(!world.path("project/forge.lock").exists());
}

/// Serves the same body for every request, slowly if asked to; gives the address.
fn serve(body: &'static [u8], pause: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = stream.write_all(head.as_bytes());
                for chunk in body.chunks(1 << 10) {
                    if stream.write_all(chunk).is_err() {
                        return;
                    }
                    std::thread::sleep(pause);
                }
            });
        }
    });
    format!("http://{address}")
}

#[test]
fn bytes_with_another_digest_are_refused() {
    let address = serve(b"not what was asked for", Duration::ZERO);
    let digest = "0".repeat(64);
    let layer =
        format!("(forge.files {{ \"/a\" = forge.fetchurl {{ url = \"{address}/file\"; sha256 = \"{digest}\"; }}; }})");
    let words = fails(&World::new(), &formation(&layer), 102);
    assert!(words.contains("/file` came as sha256:") && words.contains(&digest) && words.contains("hint:"), "{words}");
}

#[test]
fn a_file_that_changed_since_it_was_locked_is_refused() {
    let world = World::new();
    let address = serve(b"new content", Duration::ZERO);
    let expression =
        formation(&format!("(forge.files {{ \"/a\" = forge.fetchurl {{ url = \"{address}/file\"; }}; }})"));
    world.write("runtime.expr", &expression);
    world.forge(["lock", "-q"]).ok();
    let lock = fs::read_to_string(world.path("project/forge.lock")).unwrap();
    let digest = lock.split("sha256 = \"").nth(1).unwrap()[..64].to_owned();
    let other = lock.replace(&digest, &"ab".repeat(32));
    world.write("forge.lock", &other);
    assert_eq!(world.forge(["build", "-q"]).code, Some(102));
    assert_eq!(fs::read_to_string(world.path("project/forge.lock")).unwrap(), other);
}

#[test]
fn an_interrupt_leaves_nothing_and_the_next_build_goes_on() {
    let world = World::new();
    // 4 MiB at 1 KiB every 20 ms: longer than anyone waits.
    let address = serve(&[7; 4 << 20], Duration::from_millis(20));
    world.write(
        "runtime.expr",
        &formation(&format!("(forge.files {{ \"/a\" = forge.fetchurl {{ url = \"{address}/f\"; }}; }})")),
    );
    interrupted(&world, Duration::from_millis(700));
    assert!(!world.path("project/forge.lock").exists());
    // In a step: the command in the sandbox is gone too.
    let marker = format!("{}", 86_400 + std::process::id());
    let (ready, layer) = (small(), format!("(forge.run {{ script = \"sleep {marker}\"; }})"));
    let base = fs::read_to_string(ready.0.path("project/runtime.expr")).unwrap();
    let expression =
        base.replace("(forge.debian { packages = [ ]; })", &format!("(forge.debian {{ packages = [ ]; }}) {layer}"));
    ready.0.write("sleeper.expr", &expression.replace("\"small\"", "\"sleeper\""));
    let mut child = ready.0.command(["build", "-q", "sleeper.expr"]).stderr(Stdio::piped()).spawn().unwrap();
    let sleeping = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        processes
            .filter(|entry| {
                fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == format!("sleep\0{marker}\0").as_bytes())
            })
            .count()
    };
    let started = Instant::now();
    while sleeping() == 0 {
        assert!(started.elapsed() < Duration::from_secs(120), "the step never began");
        assert!(child.try_wait().unwrap().is_none(), "the build ended by itself");
        std::thread::sleep(Duration::from_millis(50));
    }
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(sleeping(), 0, "the command outlived its build");
    let left: Vec<_> = fs::read_dir(ready.0.store().join("scratch")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    ready.0.forge(["build", "-q", "runtime.expr"]).ok();
}

fn interrupt(child: &std::process::Child) {
    rustix::process::kill_process(rustix::process::Pid::from_child(child), rustix::process::Signal::INT).unwrap();
}

/// Whether a process has a handler for SIGINT, by its `/proc/PID/status`.
fn catches_interrupt(status: &str) -> bool {
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or_default();
    u64::from_str_radix(caught.trim(), 16).is_ok_and(|mask| mask & 1 << 1 != 0)
}

#[track_caller]
fn interrupted(world: &World, after: Duration) {
    let mut child = world.command(["build", "-q"]).stderr(Stdio::piped()).spawn().unwrap();
    // Before it listens for signals, one simply ends it.
    let listens =
        || fs::read_to_string(format!("/proc/{}/status", child.id())).is_ok_and(|status| catches_interrupt(&status));
    while !listens() {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(after);
    interrupt(&child);
    let started = Instant::now();
    let status = child.wait().unwrap();
    let mut words = String::new();
    child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
    assert_eq!(status.code(), Some(130), "{words}");
    assert!(words.contains("interrupted"), "{words}");
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_full_disk_is_named_and_loses_nothing() {
    if !is_root() || !have("unshare") {
        return;
    }
    let world = World::new();
    fs::create_dir_all(world.path("project/app")).unwrap();
    fs::write(world.path("project/app/large"), vec![7; 6 << 20]).unwrap();
    world.write("runtime.expr", &formation("(forge.files { \"/app\" = ./app; })"));
    fs::create_dir(world.store()).unwrap();
    let script = r#"
        mount -t tmpfs -o size=4m none "$FORGE_STORE"
        "$@"; code=$?
        mount -o remount,size=64m "$FORGE_STORE"
        "$@" >/dev/null && "$1" verify || exit 99
        exit $code"#;
    let ran = Ran::of(world.wrapped(&["unshare", "-m", "sh", "-c", script, "sh"], ["build", "-q"]).output().unwrap());
    assert_eq!(ran.code, Some(14), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("No space left on device") && ran.stderr.contains("hint: `forge gc`"),
        "{}",
        ran.stderr
    );
}

#[test]
fn an_id_that_nobody_has_is_said_to_be_so() {
    let world = World::new();
    for (arguments, code) in
        [(["info", "0123456789abcdef"], 10), (["run", "0123456789abcdef"], 125), (["run", "nobody"], 125)]
    {
        let ran = world.forge(arguments);
        assert_eq!(ran.code, Some(code), "{}", ran.stderr);
        assert!(ran.stderr.contains("no formation") && ran.stderr.contains("hint:"), "{}", ran.stderr);
    }
    assert_eq!(world.forge(["info", "no/such"]).code, Some(2));
    assert_eq!(world.forge(["run", "./no-such.expr"]).code, Some(125));
    let (ready, id) = small();
    for option in [["--pids", "0"], ["--memory", "0"], ["--timeout", "x"], ["--cpus", "0"]] {
        let ran = ready.forge(["run", option[0], option[1], id.as_str(), "--", "true"]);
        assert_eq!(ran.code, Some(125), "{option:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("is expected"), "{}", ran.stderr);
    }
    assert_eq!(world.forge(["build", "./no-such.expr"]).code, Some(10));
}

#[test]
fn an_ambiguous_prefix_lists_its_candidates() {
    let world = World::new();
    let store = Store::open(world.store()).unwrap();
    let root = store.put_tree(&Tree::empty()).unwrap();
    let formation = |number: u32| Formation {
        name: "twin".to_owned(),
        version: number.to_string(),
        variant: String::new(),
        platform: "linux/amd64".to_owned(),
        root,
        launch: Launch::default(),
    };
    // Six digits of some five thousand ids: two of them agree (the birthday paradox).
    let mut known = std::collections::HashMap::new();
    let (first, second) = (0..)
        .find_map(|number| {
            let prefix = formation(number).id().to_string()[..6].to_owned();
            known.insert(prefix, number).map(|earlier| (earlier, number))
        })
        .unwrap();
    let ids =
        [first, second].map(|number| store.put_formation(&formation(number), &Record::default()).unwrap().to_string());
    drop(store);
    let ran = world.forge(["info", &ids[0][..6]]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(
        ids.iter().all(|id| ran.stderr.contains(id.as_str())) && ran.stderr.contains("give more digits"),
        "{}",
        ran.stderr
    );
    assert_eq!(world.forge(["info", &ids[1]]).code, Some(0));
}

#[test]
fn a_host_that_forbids_user_namespaces_is_told_the_switch() {
    let (world, id) = small();
    if !have("unshare") {
        return;
    }
    // Root without any power, where nobody may make user namespaces: what an ordinary user of such a host is.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces; exec setpriv --bounding-set=-all --inh-caps=-all \"$@\"";
    let wrapper = ["unshare", "-Ur", "sh", "-c", script, "sh"];
    let ran = Ran::of(world.wrapped(&wrapper, ["run", id.as_str()]).output().unwrap());
    assert_eq!(ran.code, Some(125), "{}", ran.stderr);
    assert!(ran.stderr.contains("this host forbids user namespaces"), "{}", ran.stderr);
    assert!(ran.stderr.contains("user.max_user_namespaces") && ran.stderr.contains("hint:"), "{}", ran.stderr);
}

#[test]
fn a_lock_that_a_merge_broke_is_shown() {
    let world = World::new();
    world.write("runtime.expr", &formation(""));
    world.write("forge.lock", "version = 1\n<<<<<<< ours\n");
    let ran = world.forge(["build", "-q"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("forge.lock:2:") && ran.stderr.contains("hint:"), "{}", ran.stderr);
    world.write("forge.lock", "version = 9\n");
    assert_eq!(world.forge(["build", "-q"]).code, Some(2));
    assert_eq!(fs::read_to_string(world.path("project/forge.lock")).unwrap(), "version = 9\n");
}

#[test]
fn check_reports_every_finding_at_once() {
    let world = World::new();
    world
        .write("runtime.expr", "{ forge }:\nlet unused = 1;\nin forge.formation { name = nam; layers = [ laier ]; }\n");
    let ran = world.forge(["check"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    for words in ["undefined variable 'nam'", "undefined variable 'laier'", "unused"] {
        assert!(ran.stderr.contains(words), "no `{words}` in {}", ran.stderr);
    }
    let json = world.forge(["check", "--json"]).json();
    assert_eq!(json["errors"], 2);
    assert_eq!(json["findings"].as_array().unwrap().len(), 3);
}

#[test]
fn wrong_use_has_its_code() {
    let world = World::new();
    assert_eq!(world.forge(["no-such-command"]).code, Some(2));
    assert_eq!(world.forge(["build", "--no-such-flag"]).code, Some(2));
    for run in [&["run", "--no-such-flag"][..], &["-q", "run", "--no-such-flag"], &["--store", "x", "shell", "--no"]] {
        assert_eq!(world.forge(run).code, Some(125), "{run:?}");
    }
    assert_eq!(world.forge(["tag", "x", "0123456789"]).code, Some(2));
    let mut command = world.command(["list"]);
    assert_eq!(Ran::of(command.env("FORGE_STORE", "/proc/nowhere").output().unwrap()).code, Some(100));
    let mut command = Command::new(env!("CARGO_BIN_EXE_forge"));
    let ran = Ran::of(command.arg("list").env_clear().output().unwrap());
    assert!(is_root() || ran.stderr.contains("set FORGE_STORE"), "{}", ran.stderr);
}

#[test]
fn a_path_that_goes_up_is_followed() {
    let world = World::new();
    world.write("tools/runtime.expr", "{ forge }: { a = 1; b = ./x; }");
    world.write("elsewhere/note", "");
    let mut command = world.command(["eval", "../tools/runtime.expr", "-A", "a"]);
    let ran = Ran::of(command.current_dir(world.path("project/elsewhere")).output().unwrap());
    assert_eq!(ran.stdout, "1\n", "{}", ran.stderr);
    assert_eq!(world.forge(["check", "elsewhere/../tools"]).code, Some(0));
}

#[test]
fn a_reader_that_goes_away_is_no_bug() {
    let (world, id) = small();
    let mut child = world.command(["export", id, "--format", "tar", "-o", "-", "--json"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut words = String::new();
    child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{words}");
    assert!(words.contains("standard output was closed"), "{words}");
}
