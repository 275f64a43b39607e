//! Building: what steps see, that each is made once, what is told of them, and that they come out the same elsewhere.
//!
//! Steps run over a root that is nothing but a static shell, taken from this machine: no network is needed.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::world::{Ran, World, have};

/// A static shell of this machine, put into the project; none, with words, where there is none.
pub fn shell(world: &World) -> Option<()> {
    let found = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| fs::metadata(path).is_ok())?;
    let bytes = fs::read(found).ok()?;
    if wants_loader(&bytes) {
        return None;
    }
    let path = world.write("seed/busybox", "");
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    Some(())
}

/// Whether a program of 64 bits has a program header PT_INTERP (3): elf(5). The root has no loader for it.
fn wants_loader(bytes: &[u8]) -> bool {
    let number = |at: usize, size: usize| {
        let field = bytes.get(at..at + size).unwrap_or_default();
        field.iter().rev().fold(0_usize, |number, byte| number << 8 | usize::from(*byte))
    };
    let (start, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).any(|index| number(start + index * size, 4) == 3)
}

macro_rules! world_with_shell {
    () => {{
        let world = World::new();
        if shell(&world).is_none() {
            eprintln!("skipped: no static busybox here");
            return;
        }
        world
    }};
}

/// An expression with these layers; `sh NAME SCRIPT` is a step over the shell.
fn formation(name: &str, layers: &str) -> String {
    format!(
        r#"{{ forge, text ? "one" }}:
let
  base = forge.files {{ "/bin/busybox" = ./seed/busybox; }};
  sh = name: script: forge.run {{
    inherit name;
    layers = [ base ];
    command = [ "/bin/busybox" "sh" "-euc" "PATH=/bin; b() {{ /bin/busybox \"$@\"; }}; ${{script}}" ];
  }};
in forge.formation {{
  name = "{name}";
  layers = [ base {layers} ];
  command = [ "/bin/busybox" "true" ];
}}
"#
    )
}

#[test]
fn a_failed_step_is_shown_logged_and_kept() {
    let world = world_with_shell!();
    world.write(
        "runtime.expr",
        &formation(
            "bad",
            r#"(sh "first" "for i in $(b seq 1 60); do echo line $i; done; echo made > /made; exit 3")
               (sh "second" "echo two; exit 4") (sh "good" "echo fine; echo x > /good")"#,
        ),
    );
    let ran = world.forge(["build", "--keep-going", "--keep-failed"]);
    assert_eq!(ran.code, Some(100), "{}", ran.stderr);
    // In CI all of it is shown: whoever reads it cannot ask for more.
    for shown in
        ["step `first` failed: exit status 3", "step `second` failed: exit status 4", "| line 1\n", "| line 60"]
    {
        assert!(ran.stderr.contains(shown), "{shown}: {}", ran.stderr);
    }
    assert!(ran.stderr.contains("run good"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("fine"), "what went well is silent: {}", ran.stderr);
    assert_eq!(world.forge(["log", "good"]).ok().stdout, "fine\n");
    assert_eq!(world.forge(["log", "first"]).ok().stdout.lines().count(), 60);
    assert_eq!(world.forge(["log", "nothing"]).code, Some(10));
    // The directory of the failed step is entered as it was left.
    let shell = world.forge_with_input(["shell", "--build", "first"], b"/bin/busybox cat /made; exit 5\n");
    assert_eq!((shell.code, shell.stdout.as_str()), (Some(5), "made\n"), "{}", shell.stderr);
    assert_eq!(world.forge(["shell", "--build", "good"]).code, Some(125));
    // Without --keep-going the first failure is the last.
    let ran = world.forge(["build", "--jobs", "1"]);
    assert_eq!(ran.code, Some(100));
    assert_eq!(ran.stderr.matches("exit status").count(), 1, "{}", ran.stderr);
    // Events for programs.
    let ran = world.forge(["build", "--jobs", "1", "--log-format", "json"]);
    let events: Vec<serde_json::Value> = ran
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no event: {line}")))
        .collect();
    assert!(events.iter().any(|event| event["event"] == "planned"), "{}", ran.stderr);
    assert!(
        events
            .iter()
            .any(|event| event["event"] == "failed" && (event["what"] == "second" || event["what"] == "first"))
    );
    let last = events.last().expect("there are events");
    assert!(last["event"] == "error" && last["code"] == 100 && last["log"].is_string(), "{last}");
    // What ended for another's sake has not failed.
    let layers = r#"(sh "slow" "b sleep 60") (sh "bad" "b sleep 1; exit 3")"#;
    world.write("runtime.expr", &formation("stops", layers));
    let ran = world.forge(["build", "--jobs", "2", "--log-format", "lines"]);
    assert_eq!(ran.code, Some(100), "{}", ran.stderr);
    for (ending, step) in [("failed", "bad"), ("stopped", "slow")] {
        assert!(ran.stderr.contains(&format!(" {ending} run {step} (")), "{ending}: {}", ran.stderr);
    }
}

#[test]
fn what_changed_is_explained_and_what_did_not_is_not_made_again() {
    let world = world_with_shell!();
    let layers = r##"(sh "early" "# ${text}
        echo same > /same") (forge.run { name = "late"; command = [ "/bin/busybox" "cp" "/same" "/copy" ]; })"##;
    world.write("runtime.expr", &formation("cut", layers));
    let first = world.build("runtime.expr");
    // Another script with the same result: what lies above is known by its inputs (early cutoff).
    let again = world.forge(["build", "--argstr", "text", "two", "--json"]);
    assert_eq!(again.json()["id"], first.as_str());
    assert_eq!(again.json()["made"], serde_json::json!({ "run": 1 }), "{}", again.stderr);
    let why = world.forge(["explain", "early"]);
    assert!(why.ok().stdout.contains("command[3]") && why.stdout.contains("# two"), "{}", why.stdout);
    let why = world.forge(["explain", "late"]);
    assert!(why.ok().stdout.contains("not made") && why.stdout.contains("same inputs by content"), "{}", why.stdout);
    let all = world.forge(["explain", "cut", "--json"]);
    assert!(all.json()["steps"].as_array().is_some_and(|steps| steps.len() >= 3), "{}", all.stdout);
    assert_eq!(world.forge(["explain", "nothing"]).code, Some(10));
    // What a step keeps is a step of the same name: it is no answer that another one of that name came out otherwise.
    let kept = |text: &str| {
        let step = format!(
            r#"(forge.run {{ name = "part"; command = [ "/bin/busybox" "sh" "-euc" "echo {text} > /part" ]; keep = [ "/part" ]; }})"#
        );
        world.write("part.expr", &formation("part-of-it", &step));
        world.build("part.expr");
    };
    kept("one");
    kept("two");
    let why = world.forge(["explain", "part"]);
    assert!(why.ok().stdout.contains("+ echo two > /part"), "{}", why.stdout);
    // Nothing to do leaves nothing behind and says nothing.
    let quiet = world.forge(["build"]);
    assert_eq!((quiet.id(), quiet.stderr.as_str()), (first, ""));
}

#[test]
fn the_steps_are_drawn_and_why_something_is_there_is_told() {
    let world = world_with_shell!();
    world.write("runtime.expr", &formation("drawn", r#"(sh "step\"quoted" "echo x > /there")"#));
    let ran = world.forge(["build"]);
    // A name with a quote is no name for a step; the error says so and nothing is made.
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    world.write(
        "runtime.expr",
        &formation("drawn", r#"(sh "quoted" "b mkdir -p /usr/share; echo x > /usr/share/there")"#),
    );
    world.build("runtime.expr");
    let dot = world.forge(["graph", "drawn"]);
    assert!(
        dot.ok().stdout.starts_with("digraph \"drawn\" {") && dot.stdout.contains("label = \"quoted\""),
        "{}",
        dot.stdout
    );
    if have("dot") {
        assert!(dot.stdout.contains("->"));
    }
    let mermaid = world.forge(["graph", "drawn", "--format", "mermaid"]);
    assert!(mermaid.ok().stdout.starts_with("flowchart LR\n"), "{}", mermaid.stdout);
    let graph = world.forge(["graph", "drawn", "--json"]).json();
    assert!(graph["steps"].as_array().is_some_and(|steps| steps.iter().any(|step| step["name"] == "quoted")));
    let why = world.forge(["why", "drawn", "/usr/share/there"]);
    assert!(why.ok().stdout.contains("run quoted"), "{}", why.stdout);
    assert_eq!(world.forge(["why", "drawn", "quoted", "--json"]).json()["kind"], "step");
    assert_eq!(world.forge(["why", "drawn", "/nowhere"]).code, Some(1));
}

#[test]
fn what_differs_elsewhere_is_found_with_its_cause() {
    let world = world_with_shell!();
    let steady = r#"(sh "steady" "b mkdir /d; for i in 1 2 3 4 5 6 7 8; do echo $i > /d/$i; done; b ls /d > /list")"#;
    world.write("steady.expr", &formation("steady", steady));
    let ran = world.forge(["build", "steady.expr", "--check"]);
    assert!(ran.ok().stderr.contains("no difference"), "{}", ran.stderr);
    let loose = r#"(sh "loose" "b date +%s > /time; b cat /proc/sys/kernel/random/uuid > /random; b uname -n > /host; b env > /env")"#;
    world.write("loose.expr", &formation("loose", loose));
    let ran = world.forge(["build", "loose.expr", "--check", "--json"]);
    assert_eq!(ran.code, Some(104), "{}", ran.stderr);
    assert!(ran.stderr.contains("/time") && ran.stderr.contains("the time of the build"), "{}", ran.stderr);
    // One record, which whoever reads it reads to its end.
    let record: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let files = record["check"]["differing"][0]["files"].as_array().unwrap();
    let found: Vec<(&str, &str)> =
        files.iter().map(|file| (file["path"].as_str().unwrap(), file["cause"].as_str().unwrap())).collect();
    // The host's name, the environment and paths are fixed, and no difference.
    assert_eq!(found, [("random", "random"), ("time", "time")]);
    // Of a step that keeps some paths, nothing else is compared.
    for (keep, code) in [("/kept", 0), ("/random", 104)] {
        let script = format!(
            r#"(forge.run {{ name = "kept"; command = [ "/bin/busybox" "sh" "-euc" "b=/bin/busybox; $b cat /proc/sys/kernel/random/uuid > /random; $b mkdir /kept; echo x > /kept/x" ]; keep = [ "{keep}" ]; }})"#
        );
        world.write("kept.expr", &formation("kept", &script));
        let ran = world.forge(["build", "kept.expr", "--check"]);
        assert_eq!(ran.code, Some(code), "{keep}: {}", ran.stderr);
    }
}

/// What an order of files is on this file system, the check must not miss.
#[test]
fn an_order_that_the_file_system_gave_is_found() {
    let world = world_with_shell!();
    for number in 0..24 {
        world.write(&format!("many/file{number}"), "x");
    }
    // Busybox lists in the directory's own order with `find`.
    let script = r#"(forge.files { "/many" = ./many; }) (forge.run { name = "lists"; command = [ "/bin/busybox" "sh" "-c" "/bin/busybox find /many > /order" ]; })"#;
    world.write("runtime.expr", &formation("order", script));
    let ran = world.forge(["build", "--check"]);
    assert_eq!(ran.code, Some(104), "{}", ran.stderr);
    assert!(ran.stderr.contains("/order") && ran.stderr.contains("the same in another order"), "{}", ran.stderr);
}

#[test]
fn two_builds_at_once_make_a_step_once() {
    let world = world_with_shell!();
    world.write(
        "runtime.expr",
        &formation("once", r#"(sh "slow" "b sleep 2; b cat /proc/sys/kernel/random/uuid > /id")"#),
    );
    let mut children: Vec<_> = (0..2)
        .map(|_| world.command(["build"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    let outputs: Vec<Ran> = children.drain(..).map(|child| Ran::of(child.wait_with_output().unwrap())).collect();
    assert_eq!(outputs[0].id(), outputs[1].id());
    let made = outputs.iter().filter(|ran| ran.stderr.contains("run slow")).count();
    assert_eq!(made, 1, "{outputs:?}");
    // One that dies gives up its claim.
    world.write("runtime.expr", &formation("dead", r#"(sh "slower" "b sleep 4; echo x > /x")"#));
    let mut dead = world.command(["build"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    dead.kill().unwrap();
    dead.wait().unwrap();
    world.forge(["build"]).ok();
}

#[test]
fn an_interrupt_ends_everything_and_leaves_nothing() {
    let world = world_with_shell!();
    // It does not care for signals, and neither does what it started.
    let script = r#"(sh "stubborn" "trap '' INT TERM; (b sleep 77) & b sleep 77")"#;
    world.write("runtime.expr", &formation("stubborn", script));
    let mut child = world.command(["build"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let scratch = world.store().join("scratch");
    let began = Instant::now();
    let running = || {
        fs::read_dir(&scratch)
            .is_ok_and(|mut entries| entries.any(|entry| entry.unwrap().path().join("changes").exists()))
    };
    while !running() && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_millis(500));
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let interrupted = Instant::now();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    // A second, with room for a busy machine.
    assert!(interrupted.elapsed() < Duration::from_secs(20), "{:?}", interrupted.elapsed());
    assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0);
    assert_eq!(fs::read_dir(world.store().join("building")).unwrap().count(), 0);
}

#[test]
fn a_step_sees_its_inputs_and_nothing_of_the_host() {
    let world = world_with_shell!();
    let probe = r#"(sh "probe" "
        b env | b sort; b id -u; b hostname; umask; b pwd; b ls /; b ls /etc 2>/dev/null || true
        b cat /proc/net/dev | b tail -n +3 | b cut -d: -f1; b ls /proc | b grep -c '^[0-9]'
        echo limits $(ulimit -Sn) $(ulimit -Sc); b ls /sys | b wc -l; b ls /dev; b cat /proc/1/environ | b wc -c; b cat /proc/self/mountinfo
    ")"#;
    world.write("runtime.expr", &formation("probe", probe));
    let mut command = world.command(["build"]);
    command.env("SECRET_OF_THE_HOST", "1").env("TZ", "Asia/Tokyo").env("LC_ALL", "tr_TR.UTF-8");
    Ran::of(command.output().unwrap()).id();
    let seen = world.forge(["log", "probe"]).ok().stdout.clone();
    let (environment, rest) = seen.split_at(seen.find("\n0\nforge\n").unwrap_or_else(|| panic!("{seen}")) + 1);
    for line in environment.lines() {
        let name = line.split('=').next().unwrap();
        let known =
            ["HOME", "LANG", "LC_ALL", "PATH", "PWD", "SHLVL", "SOURCE_DATE_EPOCH", "TERM", "TZ", "OLDPWD", "_"];
        assert!(known.contains(&name), "{line}");
    }
    assert!(environment.contains("SOURCE_DATE_EPOCH=315619200\n") && environment.contains("TZ=UTC\n"), "{seen}");
    let lines: Vec<&str> = rest.lines().collect();
    assert_eq!(lines[..4], ["0", "forge", "0022", "/"]);
    for absent in ["/root", "home", "usr", "tmp/", "SECRET", "eth0", "ens"] {
        assert!(!rest.contains(absent), "{absent}: {rest}");
    }
    // Nor does the kernel tell where the store is, and so whose.
    for text in [&seen, &world.forge(["run", "probe", "--", "/bin/busybox", "cat", "/proc/self/mountinfo"]).ok().stdout]
    {
        assert!(text.contains(" / / ") && !text.contains(world.store().to_str().unwrap()), "{text}");
    }
    // Whatever limits the caller has.
    assert!(lines.contains(&"limits 1024 0"), "{rest}");
    // A loopback and nothing else.
    assert!(lines.iter().any(|line| line.trim() == "lo"), "{rest}");
    assert!(!rest.contains("sda") && !rest.contains("vda") && !rest.contains("kvm"), "{rest}");
}

#[test]
fn attempts_to_escape_are_contained() {
    let world = world_with_shell!();
    let outside = world.path("out/secret");
    fs::write(&outside, "secret").unwrap();
    let script = format!(
        r#"(sh "escapes" "
        b ln -s {outside} /link; b cat /link 2>/dev/null && exit 9
        b ln -s / /root-link; b ls /root-link/../../.. > /seen
        b cat /proc/1/root{outside} 2>/dev/null && exit 9
        b mknod /disk b 8 0; test -z \"$(b head -c 1 /disk)\" || exit 8
        b mount -t tmpfs none /bin 2>/dev/null && exit 9
        b chroot / /bin/busybox true; echo 1 > /proc/sysrq-trigger && exit 9
        echo x > /proc/sys/kernel/hostname && exit 9
        b kill -9 1; b kill -9 {pid} 2>/dev/null && exit 9
        b cp /bin/busybox /busybox-setuid; b chmod 4755 /busybox-setuid; b rm /disk
        b mknod /memory c 1 1
        echo contained > /proof
    " )"#,
        outside = outside.display(),
        pid = std::process::id()
    )
    .replace("&& exit 9", "&& exit 9 || true");
    world.write("runtime.expr", &formation("escapes", &script));
    let ran = world.forge(["build"]);
    ran.id();
    // What it left of such things is said, and no run heeds it.
    for said in ["step `escapes` leaves set-id programs: `/busybox-setuid`", "step `escapes` leaves devices: `/memory`"]
    {
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
    }
    let read = world.forge(["run", "escapes", "--", "/bin/busybox", "head", "-c", "1", "/memory"]);
    assert!(read.code != Some(0) && read.stdout.is_empty(), "{}", read.stdout);
    assert_eq!(world.forge(["run", "escapes", "--", "/bin/busybox", "cat", "/proof"]).ok().stdout, "contained\n");
    // A set-uid file is in the tree, and no run lets it be one.
    let ran = world.forge(["run", "--user", "4:4", "escapes", "--", "/busybox-setuid", "id", "-u"]);
    assert_eq!(ran.ok().stdout, "4\n");
    assert_eq!(fs::read_to_string(&outside).unwrap(), "secret");
}

#[test]
fn a_fork_bomb_and_a_flood_end_with_their_step() {
    let world = world_with_shell!();
    let bomb = r#"(sh "bomb" "bomb() { bomb | bomb & }; ulimit -u 200 2>/dev/null || true; bomb; b sleep 1; exit 7")"#;
    world.write("runtime.expr", &formation("bomb", bomb));
    // It ends by itself, or is ended when it has asked for more processes than there may be for some seconds.
    let ran = world.forge(["build"]);
    assert_eq!(ran.code, Some(100), "{}", ran.stderr);
    assert_eq!(fs::read_dir(world.store().join("scratch")).unwrap().count(), 0);
}

/// Derivations in Nix's own words, without a formation around them.
const CHAIN: &str = r#"
let
  system = "x86_64-linux";
  busybox = "${./seed}/busybox";
  sh = name: attributes: script: derivation ({
    inherit name system;
    builder = busybox;
    args = [ "sh" "-euc" script ];
  } // attributes);
  tools = sh "tools-1.0" { } ''
    ${busybox} mkdir -p $out/bin
    for program in sh mkdir cat ls env sort echo ln sed id; do ${busybox} ln -s ${busybox} $out/bin/$program; done
  '';
  withTools = name: attributes: sh name ({ PATH = "${tools}/bin"; } // attributes);
  hello = withTools "hello-2.0" { outputs = [ "out" "doc" ]; } ''
    mkdir -p $out/bin $doc
    echo "hello from $out with ${tools}" > $out/bin/hello
    echo "see $out" > $doc/readme
    ln -s ../bin/hello $out/link
  '';
  probe = withTools "probe" {
    big = "one\ntwo\n";
    passAsFile = [ "big" ];
    exportReferencesGraph = [ "graph" hello ];
    me = builtins.placeholder "out";
  } ''
    mkdir $out
    cat $bigPath graph > $out/files
    env | sort | sed '/^_=/d;/NIX_BUILD_CORES/d;/^TERM/d' > $out/env
    (ls -a $NIX_BUILD_TOP; id -u; cat /etc/passwd /etc/group /etc/hosts; umask) > $out/seen
  '';
  structured = withTools "structured" {
    __structuredAttrs = true;
    PATH = null;
    list = [ "a b" "c'd" 3 ];
    set = { x = "1"; y = true; };
    deep = [ [ 1 ] ];
    refs = hello;
    exportReferencesGraph.closure = [ hello flat text ];
  } ''
    export PATH=${tools}/bin
    out=$(sed 's/.*"outputs":{"out":"\([^"]*\)".*/\1/' < $NIX_BUILD_TOP/.attrs.json)
    mkdir -p $out; cat $NIX_BUILD_TOP/.attrs.sh > $out/sh; cat $NIX_BUILD_TOP/.attrs.json > $out/json
  '';
  text = builtins.toFile "text" "with ${./seed}\n";
  flat = withTools "flat.txt" {
    outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = builtins.hashString "sha256" "fixed\n";
  } "echo fixed > $out";
  profile = derivation {
    name = "user-environment"; inherit system; builder = "builtin:buildenv"; manifest = "${flat}";
    derivations = [ "true" 5 1 "${tools}" "true" 5 2 "${hello}" "${hello.doc}" ];
  };
  wrong = withTools "wrong" { outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = builtins.hashString "sha256" "a"; } "echo b > $out";
  confined = withTools "confined" { allowedReferences = [ ]; } "echo ${tools} > $out";
  floating = comment: sh "floating" {
    __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; inherit comment;
  } "${busybox} mkdir $out; ${busybox} printf 'I am %s' $out > $out/self";
  above = comment: sh "above" { below = floating comment; } ''${busybox} mkdir $out; echo "$below $out" > $out/names'';
in {
  inherit tools hello probe structured flat profile wrong confined;
  inherit (hello) doc;
  floating = floating "one"; above = above "one"; above2 = above "another";
}
"#;

#[test]
fn nix_derivations_give_what_nix_gives() {
    let world = world_with_shell!();
    if std::env::consts::ARCH != "x86_64" {
        eprintln!("skipped: the digests are of x86_64");
        return;
    }
    world.write("chain.nix", CHAIN);
    let judged = have("nix-build") && crate::world::is_root();
    let attributes = ["tools", "hello", "doc", "probe", "structured", "flat", "profile"];
    let root = world.path("nix");
    for attribute in attributes {
        let built = world.forge(["build", "chain.nix", "-A", attribute, "--json"]);
        let record = built.ok().json();
        let path = record["path"].as_str().unwrap().to_owned();
        if !judged {
            continue;
        }
        let nix = |program: &str, arguments: &[&str]| {
            let mut command = std::process::Command::new(program);
            command.args(["--store", root.to_str().unwrap()]).args(arguments).current_dir(world.path("project"));
            command
                .env("NIX_CONFIG", "build-users-group =\nsandbox = true\nsubstitute = false")
                .env("HOME", world.path("home"));
            Ran::of(command.output().unwrap())
        };
        let ran = nix("nix-build", &["chain.nix", "-A", attribute, "--no-out-link"]);
        if ran.code != Some(0) {
            eprintln!("skipped: nix-build does not build here: {}", ran.stderr);
            return;
        }
        assert_eq!(ran.stdout.trim(), path);
        let hash = nix("nix-store", &["--query", "--hash", &path]).stdout;
        let hash = store::nix::hash::NixHash::parse(hash.trim().as_bytes(), None).unwrap();
        let ours = record["nar_hash"].as_str().unwrap();
        assert_eq!(ours, format!("sha256:{}", store::digest::to_hex(hash.as_bytes())), "{attribute}");
        let mut theirs: Vec<String> =
            nix("nix-store", &["--query", "--references", &path]).stdout.lines().map(str::to_owned).collect();
        theirs.sort();
        assert_eq!(record["references"], serde_json::json!(theirs), "{attribute}");
    }
}

#[test]
fn what_is_fixed_confined_or_floating_is_held_to_it() {
    let world = world_with_shell!();
    world.write("chain.nix", CHAIN);
    let wrong = world.forge(["build", "chain.nix", "-A", "wrong"]);
    assert_eq!(wrong.code, Some(102), "{}", wrong.stderr);
    let confined = world.forge(["build", "chain.nix", "-A", "confined"]);
    assert_eq!(confined.code, Some(100));
    assert!(confined.stderr.contains("`allowedReferences` does not allow"), "{}", confined.stderr);
    // A floating output is named by what it is: another comment, the same name, and nothing above it is made again.
    world.forge(["build", "chain.nix", "-A", "floating"]).ok();
    let above = world.forge(["build", "chain.nix", "-A", "above", "--json"]).ok().json();
    let again = world.forge(["build", "chain.nix", "-A", "above2", "--json"]).ok().json();
    assert_eq!(above["path"], again["path"]);
    assert_eq!(again["made"], serde_json::json!({ "build": 1 }));
    let checked = world.forge(["build", "chain.nix", "-A", "hello", "--check"]);
    assert!(checked.ok().stderr.contains("no difference"), "{}", checked.stderr);
    // Nothing of it is on the host.
    assert!(!Path::new(above["path"].as_str().unwrap()).exists());
}

#[test]
fn what_nix_derivations_give_is_a_layer_with_all_it_refers_to() {
    let world = world_with_shell!();
    world.write("chain.nix", CHAIN);
    world.write(
        "runtime.expr",
        r#"{ forge }:
let chain = import ./chain.nix; in forge.formation {
  name = "layered";
  layers = [ (forge.closure chain.hello) (forge.files { "/copy" = chain.flat; }) ];
  command = [ "${chain.tools}/bin/cat" "${chain.hello}/bin/hello" "/copy" ];
}
"#,
    );
    world.build("runtime.expr");
    let ran = world.forge(["run", "layered"]);
    assert!(ran.ok().stdout.starts_with("hello from /nix/store/") && ran.stdout.ends_with("fixed\n"), "{}", ran.stdout);
    let path = ran.stdout.split_whitespace().nth(4).unwrap();
    let why = world.forge(["why", "layered", path]);
    assert!(why.ok().stdout.contains("hello-2.0 → "), "{}", why.stdout);
    // A derivation is nothing to run.
    assert_eq!(world.forge(["run", "./chain.nix", "-A", "hello"]).code, Some(125));
}

#[test]
fn hooks_run_over_the_layers_so_far_and_not_for_ever() {
    let world = world_with_shell!();
    let expression = |post: &str| {
        format!(
            r#"{{ forge }}: forge.formation {{
  name = "hooked";
  layers = [ (forge.files {{ "/bin/sh" = ./seed/busybox; }}) (forge.files {{ "/later" = "x"; }}) ];
  preInstall = "test ! -e /later && echo pre > /pre";
  postInstall = {post};
  command = [ "/bin/sh" ];
}}
"#
        )
    };
    world.write("runtime.expr", &expression(r#""test -e /later && read text < /pre && echo $text then post > /post""#));
    world.build("runtime.expr");
    let ran = world.forge(["run", "hooked", "--", "/bin/sh", "-c", "read text < /post; echo $text"]);
    assert_eq!(ran.ok().stdout, "pre then post\n");
    world.write("runtime.expr", &expression(r#"{ script = "while :; do :; done"; timeout = "1s"; }"#));
    let ran = world.forge(["build"]);
    assert_eq!(ran.code, Some(100), "{}", ran.stderr);
    assert!(ran.stderr.contains("timed out after 1s"), "{}", ran.stderr);
}

#[test]
fn an_ordinary_user_builds_the_same() {
    let Some(other) = World::of_ordinary_user() else { return };
    let world = world_with_shell!();
    if shell(&other).is_none() {
        return;
    }
    for world in [&world, &other] {
        world.write("chain.nix", CHAIN);
    }
    for attribute in ["probe", "above"] {
        let ids = [&world, &other].map(|world| {
            let ran = world.forge(["build", "chain.nix", "-A", attribute, "--json"]);
            ran.ok().json()["nar_hash"].clone()
        });
        assert_eq!(ids[0], ids[1], "{attribute}");
    }
    // Files that their owner may not read, with an owner of their own and two names.
    let closed = r#"(sh "closed" "echo x > /closed; b chown 33:44 /closed; b chmod 0 /closed; b ln /closed /other")"#;
    let ids = [&world, &other].map(|world| {
        world.write("runtime.expr", &formation("closed", closed));
        world.build("runtime.expr")
    });
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn a_command_that_is_not_there_is_a_failed_build_and_not_the_runs_own() {
    let world = world_with_shell!();
    world.write("runtime.expr", &formation("lost", r#"(forge.run { layers = [ base ]; command = [ "/no/such" ]; })"#));
    for (verb, code) in [("build", 100), ("run", 125)] {
        let ran = world.forge([verb, "./runtime.expr"]);
        assert_eq!(ran.code, Some(code), "{}", ran.stderr);
        assert!(ran.stderr.contains("`/no/such` not found") && ran.stderr.contains("`essential`"), "{}", ran.stderr);
    }
}

#[test]
fn the_pipeline_of_the_documentation_goes_through_and_a_node_runs_what_it_pushed() {
    let world = World::new();
    if shell(&world).is_none() {
        eprintln!("skipped: no static busybox");
        return;
    }
    let expression = |test: &str| {
        format!(
            "{{ forge }}: forge.formation {{ name = \"app\"; version = \"1\"; layers = [ (forge.files {{ \"/bin/sh\" = ./seed/busybox; }}) ]; \
             command = [ \"sh\" \"-c\" \"echo runs\" ]; test = [ \"sh\" \"-c\" \"{test}\" ]; }}\n"
        )
    };
    world.write("runtime.expr", &expression("echo tested"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/ci/pipeline.sh");
    let peer = format!("file://{}", world.path("peer").display());
    let pipeline = || {
        let words = [script.to_str().expect("text"), "runtime.expr", &peer];
        let mut command = world.wrapped(&["sh", "-c", "FORGE=$0 exec sh \"$@\""], words);
        Ran::of(command.output().expect("a shell"))
    };
    let ran = pipeline();
    let id = ran.ok().stdout.trim().to_owned();
    assert!(id.len() == 64 && ran.stderr.contains("no difference"), "{ran:?}");
    assert!(world.path("project/sbom.spdx.json").is_file() && world.path("project/provenance.json").is_file());
    let node = World::new();
    node.forge(["remote", "add", "team", &peer]).ok();
    assert_eq!(node.forge(["run", &id]).ok().stdout, "runs\n");
    // A stage that fails ends it: nothing is pushed.
    world.write("runtime.expr", &expression("exit 3"));
    let failed = pipeline();
    assert!(failed.code != Some(0) && failed.stdout.is_empty() && !failed.stderr.contains("pushed"), "{failed:?}");
}
