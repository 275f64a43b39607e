//! What a run is given and what it is held to, from the command line: flags, ports, limits, changes that are kept, other runtimes.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::world::{Ran, World, free_port, is_root, small};

/// The JSON record of a run, which is the last line on stderr that looks like one.
fn record(stderr: &str) -> serde_json::Value {
    let line = stderr.lines().rfind(|line| line.starts_with('{')).unwrap_or_else(|| panic!("no record: {stderr}"));
    serde_json::from_str(line).expect("a record is JSON")
}

#[test]
fn dockers_and_apptainers_letters_mean_what_they_mean_there() {
    let (world, id) = small();
    let here = world.path("out/shown");
    fs::create_dir_all(&here).expect("a directory");
    fs::write(here.join("file"), "of the host\n").expect("a file");
    world.write("variables", "# a comment\nFROM_FILE=1\n\nTWICE=file\n");
    let volume = format!("{}:/shown:ro", here.display());
    let mount = format!("type=bind,source={},target=/mounted,readonly", here.display());
    let script = "cat /shown/file /mounted/file; echo $FROM_FILE $TWICE; pwd; hostname; grep far /etc/hosts; \
                  stat -c %a /run/own; head -c 3 /dev/nothing | wc -c; touch /shown/new 2>/dev/null || echo read-only";
    let ran = world.forge([
        "run",
        id,
        "--rm",
        "-i",
        "-v",
        &volume,
        "--mount",
        &mount,
        "--env-file",
        "variables",
        "-e",
        "TWICE=flag",
        "--pwd",
        "/var",
        "--hostname",
        "other",
        "--add-host",
        "far:192.0.2.7",
        "--tmpfs",
        "/run/own:size=1M,mode=700",
        "--device",
        "/dev/zero:/dev/nothing",
        "--",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(
        ran.ok().stdout,
        "of the host\nof the host\n1 flag\n/var\nother\n192.0.2.7\tfar\n700\n3\nread-only\n",
        "{}",
        ran.stderr
    );
}

#[test]
fn joblets_letters_mean_what_they_mean_there() {
    let (world, id) = small();
    let data = world.path("out/data of joblet");
    fs::create_dir_all(data.join("more")).expect("a directory");
    fs::write(data.join("more/inner"), "inner\n").expect("a file");
    fs::write(data.join("table"), "rows\n").expect("a file");
    let upload = format!("--upload={}", world.write("uploaded.sh", "echo uploaded\n").display());
    let directory = format!("--upload-dir={}", data.display());
    let script = "pwd; sh uploaded.sh; cat table more/inner; touch new && ls; echo $KEY; echo x 2>/dev/null > table || echo read-only";
    let mut command = world.command(["run", id, &upload, &directory]);
    command.args(["--max-memory=64", "--max-cpu=150", "--cpu-cores=0", "--secret-env", "KEY", "--json"]);
    command.args(["--", "sh", "-c", script]).env("KEY", "hidden");
    let ran = Ran::of(command.output().expect("forge starts"));
    assert_eq!(
        ran.ok().stdout,
        "/work\nuploaded\nrows\ninner\nmore\nnew\ntable\nuploaded.sh\nhidden\nread-only\n",
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("hidden"), "{}", ran.stderr);
    for (arguments, words) in [
        (&["--max-memory=0"][..], "--max-memory"),
        (&["--max-memory=64", "--memory=1G"], "cannot be used with"),
        (&["--max-cpu=half"], "--max-cpu"),
        (&["--upload=/no/such/file"], "--upload: there is no `/no/such/file`"),
        (&["--upload-dir=/no/such"], "--upload-dir: there is no `/no/such`"),
        (&["--runtime=small"], "forge run small -- CMD"),
    ] {
        let ran = world.forge([&["run", id][..], arguments, &["--", "true"]].concat());
        assert_eq!(ran.code, Some(125), "{arguments:?}");
        assert!(ran.stderr.contains(words), "{arguments:?}: {}", ran.stderr);
    }
    // A link shows nothing but what is in the directory.
    let outside = world.path("out/secret of the caller");
    fs::write(&outside, "secret").expect("a file");
    for (link, to) in [("out", outside.as_path()), ("dangling", "nowhere".as_ref()), ("in", "table".as_ref())] {
        std::os::unix::fs::symlink(to, data.join(link)).expect("a link");
    }
    let ran = world.forge(["run", id, &directory, "--", "sh", "-c", "ls; cat in"]);
    assert_eq!(ran.ok().stdout, "in\nmore\ntable\nrows\n", "{}", ran.stderr);
    assert_eq!(ran.stderr.matches("left out of the upload").count(), 2, "{}", ran.stderr);
    let ran = world.forge(["run", id, "--network=bridge", "--", "true"]);
    assert!(ran.code == Some(125) && ran.stderr.contains("-p HOST:CONTAINER"), "{}", ran.stderr);
    world.forge(["run", id, "--network=isolated", "--", "true"]).ok();
    let ran = world.forge(["run", id, "echo", "hi"]);
    assert_eq!(ran.code, Some(125), "{}", ran.stderr);
    assert!(ran.stderr.contains("then comes the command: -- echo"), "{}", ran.stderr);
}

#[test]
fn what_was_typed_outside_is_not_seen_inside() {
    let (world, id) = small();
    for options in [&[][..], &["--user", "12:34"], &["--tty"]] {
        let arguments =
            [&["run", id, "-e", "TOLD=to-the-program"], options, &["--", "sh", "-c", "cat /proc/1/cmdline"]];
        let ran = world.forge(arguments.concat());
        assert_eq!(ran.ok().stdout.trim_end_matches(['\0', '\r', '\n']), "forge", "{options:?}");
    }
}

#[test]
fn an_ordinary_user_is_told_where_containers_are_created() {
    let Some(world) = World::of_ordinary_user() else { return };
    let tree = world.path("out/tree");
    fs::create_dir_all(tree.join("bin")).expect("a directory");
    world.forge(["import", "--name", "box", tree.to_str().expect("text")]).id();
    let bundle = world.path("out/bundle");
    let bundle = bundle.to_str().expect("text");
    world.forge(["bundle", "box", bundle, "--", "/bin/x"]).ok();
    let state = world.path("out/state");
    let create = ["runtime", "--root", state.to_str().expect("text"), "create", "--bundle", bundle, "one"];
    let ran = world.forge(create);
    assert!(ran.code != Some(0) && ran.stderr.contains("unshare -rm"), "{ran:?}");
}

#[test]
fn what_makes_no_sense_is_refused_with_a_way_out() {
    let (world, id) = small();
    for (arguments, words) in [
        (&["--privileged"][..], "--cap-add"),
        (&["-d"], "systemd-run"),
        (&["--name", "x"], "--hostname"),
        (&["--network", "host", "-p", "80:81"], "--network none"),
        (&["--swap", "1G"], "--memory"),
        (&["-v", "/no-target"], "/volumes/NAME"),
        (&["--schedule=1hour"], "systemd-run --user --on-active"),
        (&["--gpu=900"], "--gpu 900: this machine shows"),
        (&["--gpu-memory=8GB"], "--gpu COUNT"),
        (&["--cap-add", "MOON"], "MOON"),
        (&["--ulimit", "moon=1"], "nofile"),
        (&["--cpuset-cpus", "4095"], "this machine has none"),
        (&["--tmpfs", "/a", "--tmpfs", "/a"], "mounted twice"),
        (&["--add-host", "x"], "NAME:ADDRESS"),
        (&["--hostname", "a b"], "letters"),
        (&["--writable", "/tmp/w", "--read-only"], "--read-only"),
        (&["--device", "/etc/passwd"], "--bind"),
        (&["--max-output", "0"], "more than 0"),
    ] {
        let ran = world.forge([&["run", id.as_str()], arguments, &["--", "true"]].concat());
        assert_eq!(ran.code, Some(125), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.starts_with("error: ") && ran.stderr.contains(words), "{arguments:?}: {}", ran.stderr);
    }
}

#[test]
fn what_goes_through_ends_with_the_program_whoever_reads_or_types() {
    let (world, id) = small();
    for (name, script, status) in [
        // Its end of a line is not at the end of what is typed.
        ("typed", r#"test "$(printf abc | "$@" run -t $ID -- cat)" = abcabc"#, 0),
        // Nobody reads what is typed, and the program has gone.
        (
            "untyped",
            r#"head -c 1000000 /dev/zero | "$@" run -t $ID -- sh -c 'stty raw -echo; sleep 0.5; exit 3' >/dev/null"#,
            3,
        ),
        ("unread", r#""$@" run -t $ID -- yes | head -1 >/dev/null; exit ${PIPESTATUS[0]}"#, 129),
        ("unread, counted", r#""$@" run --max-output 1G $ID -- yes | head -1 >/dev/null; exit ${PIPESTATUS[0]}"#, 141),
        // The pipe is full, and who should read it does not.
        (
            "late",
            r#"mkfifo late; sleep 60 <late >/dev/null 2>&1 & "$@" -q run --timeout 300ms --max-output 1G $ID -- yes >late; s=$?; kill $!; exit $s"#,
            124,
        ),
        ("over dev", r#"mkdir shown; "$@" run -B shown:/dev $ID -- sh -c 'exit 4'"#, 4),
    ] {
        let mut command = world.wrapped(&["bash", "-c", script, "bash"], [""; 0]);
        let begin = Instant::now();
        let ran = Ran::of(command.env("ID", id).current_dir(world.path("out")).output().expect("bash is there"));
        assert_eq!(ran.code, Some(status), "{name}: {ran:?}");
        assert!(begin.elapsed() < Duration::from_secs(30), "{name}: {:?}", begin.elapsed());
    }
}

#[test]
fn the_limit_that_ended_a_run_is_named() {
    let (world, id) = small();
    let ran = world.forge([
        "run",
        id,
        "--json",
        "--max-output",
        "1000",
        "--",
        "sh",
        "-c",
        "while :; do echo 0123456789; done",
    ]);
    assert_eq!((ran.code, ran.stdout.len()), (Some(137), 1000), "{}", ran.stderr);
    assert!(ran.stderr.contains("ended by the output limit of 1000 B"), "{}", ran.stderr);
    let told = record(&ran.stderr);
    assert_eq!((told["ended_by"].as_str(), told["exit"].as_u64()), (Some("output"), Some(137)));
    let ran = world.forge(["run", id, "--json", "--timeout", "200ms", "--", "sleep", "100"]);
    assert_eq!(record(&ran.stderr)["ended_by"], "time");
    let ran = world.forge([
        "run",
        id,
        "--json",
        "--memory",
        "64M",
        "--",
        "perl",
        "-e",
        "my @a; push @a, 'x' x 1000000 for 1 .. 1000",
    ]);
    let told = record(&ran.stderr);
    if told["outcome"]["isolation"]["memory"] != "rlimit" {
        assert_eq!((ran.code, told["ended_by"].as_str()), (Some(137), Some("memory")), "{}", ran.stderr);
        assert!(ran.stderr.contains("ended by the memory limit of 64.0 MiB"), "{}", ran.stderr);
        assert!(told["outcome"]["peak_memory"].as_u64().expect("a number") > 32 << 20);
    }
    let ran =
        world.forge(["run", id, "--pids", "5", "--", "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait"]);
    assert_ne!(ran.code, Some(0), "{}", ran.stderr);
    let ran = world.forge(["run", id, "--ulimit", "nofile=8:9", "--", "sh", "-c", "ulimit -n; ulimit -Hn"]);
    assert_eq!(ran.ok().stdout, "8\n9\n");
    let ran = world.forge(["run", id, "--json", "--", "sh", "-c", "kill -9 $$"]);
    let told = record(&ran.stderr);
    assert_eq!((&told["signal"], &told["ended_by"]), (&9.into(), &serde_json::Value::Null));
    for (limit, script, (signal, ended_by), line) in [
        ("cpu=1:9", "while :; do :; done", (24, "cpu"), "ended by the limit of 1 s of processor time"),
        ("cpu=1", "while :; do :; done", (9, "cpu"), "ended by the limit of 1 s of processor time"),
        (
            "fsize=2000",
            "exec head -c 3000 /dev/zero >/tmp/file",
            (25, "fsize"),
            "ended by the limit of 2.0 KiB for a file",
        ),
    ] {
        let ran = world.forge(["run", id, "--json", "--ulimit", limit, "--", "sh", "-c", script]);
        let told = record(&ran.stderr);
        assert_eq!(
            (told["signal"].as_i64(), told["ended_by"].as_str()),
            (Some(signal), Some(ended_by)),
            "{}",
            ran.stderr
        );
        assert!(ran.stderr.contains(line), "{}", ran.stderr);
    }
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let (world, id) = small();
    for (arguments, code) in [
        (&["--max-output", "1G", id, "--", "echo", "lost"][..], 125),
        (&["--max-output", "1G", id, "--", "sh", "-c", "exit 3"], 3),
    ] {
        let mut command = world.command(["run"].iter().chain(arguments));
        let ran =
            Ran::of(command.stdout(File::create("/dev/full").expect("it is there")).output().expect("forge starts"));
        assert_eq!(ran.code, Some(code), "{}", ran.stderr);
    }
}

#[test]
fn a_callers_umask_keeps_forge_from_nothing() {
    let (world, id) = small();
    // Root alone would not notice a mode.
    let as_others: &[&str] = match is_root() {
        true => &["setpriv", "--bounding-set=-dac_override,-dac_read_search"],
        false => &["env"],
    };
    let script = r#"umask 777; "$@" run $ID -- sh -c 'umask; echo >/tmp/new'; FORGE_STORE=$PWD/own; export FORGE_STORE; "$@" list; "$@" list"#;
    let mut command = world.wrapped(&[as_others, &["bash", "-c", script, "bash"]].concat(), [""; 0]);
    let ran = Ran::of(command.env("ID", id).current_dir(world.path("out")).output().expect("bash is there"));
    assert_eq!(ran.ok().stdout.lines().next(), Some("0022"));
}

#[test]
fn a_closed_network_is_reached_where_a_port_is_published() {
    let (world, id) = small();
    let (tcp, udp) = (free_port(), free_port());
    let script = "use Socket; \
        socket(my $t, PF_INET, SOCK_STREAM, 0); bind($t, sockaddr_in(80, INADDR_ANY)) or die $!; listen($t, 5); \
        socket(my $u, PF_INET, SOCK_DGRAM, 0); bind($u, sockaddr_in(53, INADDR_ANY)) or die $!; \
        print STDERR \"ready\\n\"; \
        accept(my $c, $t); my $line = <$c>; syswrite $c, \"heard $line\"; close $c; \
        my $from = recv($u, my $word, 100, 0); send($u, \"and $word\", 0, $from)";
    let published = [format!("{tcp}:80"), format!("127.0.0.1:{udp}:53/udp")];
    let mut command = world.command([
        "run",
        id,
        "-p",
        &published[0],
        "-p",
        &published[1],
        "--timeout",
        "60s",
        "--",
        "perl",
        "-e",
        script,
    ]);
    let mut child = command.stderr(Stdio::piped()).spawn().expect("forge starts");
    let mut told = String::new();
    let mut stderr = std::io::BufReader::new(child.stderr.take().expect("a pipe"));
    std::io::BufRead::read_line(&mut stderr, &mut told).expect("a line");
    assert_eq!(told, "ready\n");
    let mut stream = TcpStream::connect(("127.0.0.1", tcp)).expect("a connection");
    stream.write_all(b"question\n").expect("it takes it");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert_eq!(answer, "heard question\n");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a patience");
    socket.send_to(b"datagram", ("127.0.0.1", udp)).expect("it is sent");
    let mut buffer = [0; 100];
    let length = socket.recv(&mut buffer).expect("an answer");
    assert_eq!(&buffer[..length], b"and datagram");
    assert!(child.wait().expect("an end").success());
    // A port that somebody has.
    let _taken = TcpListener::bind(("127.0.0.1", tcp)).expect("it is free again");
    let ran = world.forge(["run", id, "-p", &published[0], "--", "true"]);
    assert_eq!(ran.code, Some(125));
    assert!(ran.stderr.contains("cannot listen on") && ran.stderr.contains("hint: "), "{}", ran.stderr);
}

#[test]
fn capabilities_are_those_that_are_named() {
    let world = World::new();
    world.write(
        "runtime.expr",
        "{ forge }: forge.formation { name = \"capable\"; capabilities = [ \"chown\" ]; layers = [ (forge.debian { packages = [ ]; }) ]; command = [ \"grep\" \"^CapBnd\" \"/proc/self/status\" ]; }\n",
    );
    let id = world.build("runtime.expr");
    assert_eq!(world.forge(["info", &id, "--json"]).json()["launch"]["capabilities"], serde_json::json!(["CAP_CHOWN"]));
    let bounding = |arguments: &[&str]| world.forge([&["run", id.as_str()], arguments].concat()).ok().stdout.clone();
    assert_eq!(bounding(&[]), "CapBnd:\t0000000000000001\n");
    assert_eq!(bounding(&["--cap-add", "KILL"]), "CapBnd:\t0000000000000021\n");
    assert_eq!(bounding(&["--cap-drop", "ALL", "--cap-add", "CAP_KILL"]), "CapBnd:\t0000000000000020\n");
    assert_eq!(bounding(&["--cap-drop", "chown"]), "CapBnd:\t0000000000000000\n");
    let refused = world.forge(["run", &id, "--require", "capabilities"]);
    assert_eq!(refused.code, Some(125), "{}", refused.stderr);
}

#[test]
fn changes_are_kept_and_become_a_formation() {
    let (world, id) = small();
    let kept = world.path("out/kept");
    let kept = kept.to_str().expect("a path");
    let script = "echo new > /etc/new; chown 5:6 /etc/new; rm /etc/greeting; id -u";
    assert_eq!(world.forge(["run", id, "--writable", kept, "--", "sh", "-c", script]).ok().stdout, "0\n");
    let again = "stat -c %u:%g /etc/new; test ! -e /etc/greeting && echo gone";
    assert_eq!(world.forge(["run", id, "--writable", kept, "--", "sh", "-c", again]).ok().stdout, "5:6\ngone\n");
    let other = world.forge(["commit", kept, "changed", "--version", "2"]);
    let changed = other.id();
    assert_eq!(
        world.forge(["run", "changed", "--", "sh", "-c", again.split(';').nth(1).expect("two")]).ok().stdout,
        "gone\n"
    );
    assert_ne!(&changed, id);
    // The directory is as it was: the next run goes on from there, and its formation is made again.
    let script = [again, "echo more > /etc/more"].join(";");
    assert_eq!(world.forge(["run", id, "--writable", kept, "--", "sh", "-c", again]).ok().stdout, "5:6\ngone\n");
    assert_eq!(world.forge(["commit", kept, "changed", "--version", "2"]).id(), changed);
    world.forge(["run", id, "--writable", kept, "--", "sh", "-c", &script]).ok();
    assert_ne!(world.forge(["commit", kept, "more"]).id(), changed);
    assert_eq!(world.forge(["commit", world.path("out/none").to_str().expect("a path")]).code, Some(10));
    // The record says which layer it was.
    let info = world.forge(["info", "changed", "--json"]).json();
    assert_eq!(info["layers"].as_array().expect("layers").last().expect("one")["label"], "changes of a run");
}

#[test]
fn what_a_run_keeps_is_its_own_until_it_ends() {
    let (world, id) = small();
    let kept = world.path("out/used");
    let kept = kept.to_str().expect("a path");
    let words = ["run", id, "--writable", kept, "--", "sh", "-c", "echo begun; read end; echo new > /etc/new"];
    let mut command = world.command(words);
    let mut first = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("forge starts");
    let mut begun = [0; 6];
    first.stdout.take().expect("a pipe").read_exact(&mut begun).expect("it begins");
    let second = world.forge(["run", id, "--writable", kept, "--", "true"]);
    assert!(second.code == Some(125) && second.stderr.contains("is in use"), "{}", second.stderr);
    let bundle =
        world.forge(["bundle", id, world.path("out/bundle of kept").to_str().expect("a path"), "--writable", kept]);
    assert!(bundle.code == Some(2) && bundle.stderr.contains("forge commit"), "{}", bundle.stderr);
    let commit = world.forge(["commit", kept]);
    assert!(commit.code == Some(15) && commit.stderr.contains("is in use"), "{}", commit.stderr);
    drop(first.stdin.take());
    assert!(first.wait().expect("it ends").success());
    assert_eq!(world.forge(["run", id, "--writable", kept, "--", "cat", "/etc/new"]).ok().stdout, "new\n");
}

#[test]
fn a_terminal_of_its_own_ends_with_its_program() {
    let (world, id) = small();
    let ran = world
        .forge_with_input(["run", id, "-it", "--", "sh", "-c", "tty; read line; echo got $line; exit 4"], b"words\n");
    assert_eq!(ran.code, Some(4), "{}", ran.stderr);
    let shown = ran.stdout.replace('\r', "");
    // What was typed shows too, before or after.
    assert!(shown.contains("/dev/pts/0\n") && shown.ends_with("got words\n"), "{shown}");
}

#[test]
fn a_run_that_fails_gives_a_record_where_one_that_ends_gives_its_own() {
    let (world, id) = small();
    let runtime = world.path("none");
    let runtime = runtime.to_str().expect("a path");
    for (words, exit, code) in [
        (&["run", "--json", "no-such-name"][..], 125, 10),
        (&["shell", "--json", "no-such-name"], 125, 10),
        (&["run", "--json", id, "--", "nope"], 127, 127),
        (&["run", "--json", id, "--", "/etc"], 126, 126),
        (&["run", "--json", id, "--memory", "x"], 125, 2),
        (&["run", "--json", "--runtime", runtime, id, "--", "true"], 125, 10),
    ] {
        let ran = world.forge(words);
        let last = ran.stderr.lines().last().expect("a line");
        let record: serde_json::Value = serde_json::from_str(last).unwrap_or_else(|_| panic!("{}", ran.stderr));
        assert_eq!((ran.code, &record["exit"]), (Some(exit), &exit.into()), "{words:?}: {record:#}");
        assert_eq!(record["error"]["code"], code, "{record:#}");
        assert!(ran.stdout.is_empty() && ran.stderr.starts_with("error: "), "{ran:?}");
    }
    let limited = world.forge(["run", "--json", "--timeout", "1s", id, "--", "sleep", "20"]);
    assert!(limited.stderr.lines().last().is_some_and(|line| line.starts_with('{')), "{}", limited.stderr);
}

#[test]
fn what_is_mounted_deeper_is_mounted_later() {
    let (world, id) = small();
    fs::create_dir_all(world.path("out/d/sub")).expect("a directory");
    fs::write(world.path("out/d/sub/f"), "below").expect("a file");
    fs::write(world.path("out/f"), "shown").expect("a file");
    let [file, directory] =
        [("out/f", "/data/sub/f"), ("out/d", "/data")].map(|(from, to)| format!("{}:{to}", world.path(from).display()));
    for order in [[&file, &directory], [&directory, &file]] {
        let ran = world.forge(["run", id, "-B", order[0], "-B", order[1], "--", "cat", "/data/sub/f"]);
        assert_eq!(ran.ok().stdout, "shown", "{order:?}");
    }
    for wrong in ["out/f:/etc", "out/d:/etc/passwd"] {
        let wrong = world.path(wrong);
        let ran = world.forge(["run", id, "-B", wrong.to_str().expect("a path"), "--", "true"]);
        assert!(ran.code == Some(125) && ran.stderr.contains("hint: a file is shown where"), "{}", ran.stderr);
    }
}

#[test]
fn who_cannot_be_told_does_not_change_how_it_ended() {
    let (world, id) = small();
    let full = || File::options().write(true).open("/dev/full").expect("a device");
    let ended = world.command(["run", "--json", id, "--", "sh", "-c", "exit 7"]).stderr(full()).status();
    assert_eq!(ended.expect("forge starts").code(), Some(7));
    let limited = ["run", "--timeout", "1s", id, "--", "sleep", "20"];
    assert_eq!(world.command(limited).stderr(full()).status().expect("forge starts").code(), Some(124));
    let missing = world.command(["run", id, "--", "/nope"]).stderr(full()).status().expect("forge starts");
    assert_eq!(missing.code(), Some(127));
}

#[test]
fn what_is_no_text_is_refused_where_it_would_become_another() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let (world, id) = small();
    let word = |bytes: &'static [u8]| OsStr::from_bytes(bytes).to_owned();
    let run = |first: &[&str], last: &[&[u8]]| {
        let words = first.iter().map(Into::into).chain(last.iter().map(|bytes| OsStr::from_bytes(bytes).to_owned()));
        Ran::of(world.command(words).env("ODD", word(b"\xfe")).output().expect("forge starts"))
    };
    let print: &[&[u8]] = &[b"sh", b"-c", b"printf %s \"$0$ODD\" | od -An -tx1", b"\xff"];
    assert_eq!(run(&["run", id, "-e", "ODD", "--"], print).ok().stdout, " ff fe\n");
    let bundle = world.path("out/bundle of no text");
    let bundle = ["bundle", id, bundle.to_str().expect("a path")];
    let plain: &[&[u8]] = &[b"--", b"true"];
    type Case<'a> = (&'a [&'a str], &'a [&'a [u8]], &'static str);
    let cases: [Case<'_>; 4] = [
        (&bundle, &[b"--", b"echo", b"\xff"], "an argument"),
        (&bundle, &[&[b"-e", b"ODD".as_slice()], plain].concat(), "a variable"),
        (&bundle, &[&[b"-w", b"/tmp/\xff".as_slice()], plain].concat(), "a path"),
        (&["run", id, "--runtime", "/bin/true"], &[b"--", b"echo", b"\xff"], "an argument"),
    ];
    for (first, last, what) in cases {
        let ran = run(first, last);
        assert!(ran.code == Some(if first[0] == "run" { 125 } else { 2 }), "{first:?}: {ran:?}");
        assert!(ran.stderr.contains(&format!("{what} that is not UTF-8")), "{}", ran.stderr);
    }
}

#[test]
fn a_bundle_is_a_container_for_the_operations_of_the_specification() {
    let (world, id) = small();
    if !is_root() {
        eprintln!("skipped: an ordinary user's containers need cgroups of their own");
        return;
    }
    let (bundle, state) = (world.path("out/bundle"), world.path("out/state"));
    let (bundle, state) = (bundle.to_str().expect("a path"), state.to_str().expect("a path"));
    let script = "echo inside $(hostname) $(id -u); grep -c . /proc/self/mountinfo > /dev/null; sleep 100";
    world.forge(["bundle", id, bundle, "--hostname", "boxed", "--", "sh", "-c", script]).ok();
    let config: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(format!("{bundle}/config.json")).expect("a file")).expect("JSON");
    assert_eq!(config["process"]["noNewPrivileges"], true);
    // As orchestrators call a runtime: without the word `runtime`.
    let operate = |arguments: &[&str]| world.forge([&["--root", state], arguments].concat());
    let pid_file = world.path("out/pid");
    let output = File::create(world.path("out/printed")).expect("a file");
    let mut create = world.command([
        "--root",
        state,
        "create",
        "--bundle",
        bundle,
        "--pid-file",
        pid_file.to_str().expect("a path"),
        "box",
    ]);
    assert!(create.stdin(Stdio::null()).stdout(output).stderr(Stdio::null()).status().expect("forge starts").success());
    let shown = operate(&["state", "box"]).json();
    assert_eq!((shown["status"].as_str(), shown["id"].as_str()), (Some("created"), Some("box")));
    assert_eq!(shown["pid"].to_string(), fs::read_to_string(&pid_file).expect("a number"));
    assert_eq!(fs::read_to_string(world.path("out/printed")).expect("a file"), "", "it has not begun");
    assert_ne!(operate(&["create", "--bundle", bundle, "box"]).code, Some(0), "a name is had once");
    operate(&["start", "box"]).ok();
    assert_ne!(operate(&["start", "box"]).code, Some(0));
    assert_eq!(operate(&["state", "box"]).json()["status"], "running");
    assert_ne!(operate(&["delete", "box"]).code, Some(0), "what runs is not deleted");
    let deadline = Instant::now() + Duration::from_secs(20);
    while fs::read_to_string(world.path("out/printed")).expect("a file") != "inside boxed 0\n" {
        assert!(Instant::now() < deadline, "it prints nothing");
        std::thread::sleep(Duration::from_millis(20));
    }
    operate(&["kill", "box", "KILL"]).ok();
    while operate(&["state", "box"]).json()["status"] != "stopped" {
        assert!(Instant::now() < deadline, "it does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    operate(&["delete", "box"]).ok();
    assert_ne!(operate(&["state", "box"]).code, Some(0));
    assert_eq!(fs::read_dir(state).expect("a directory").count(), 0, "nothing stays");
    assert_eq!(operate(&["features"]).json()["linux"]["seccomp"]["enabled"], true);
}

/// The kB of a process that are in memory.
fn resident(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Rss:")?.split_whitespace().next()?.parse().ok())
}

#[test]
fn beside_a_program_that_waits_forge_takes_little_memory() {
    let (world, id) = small();
    let mut command = world.command(["run", id, "--", "cat"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("forge starts");
    let launcher = child.id();
    let until = Instant::now() + Duration::from_secs(60);
    let mut least = u64::MAX;
    // Of the code of an unoptimised forge, more is needed to wait.
    let most = if cfg!(debug_assertions) { 15_000 } else { 5_000 };
    // The launcher and process 1 give back what they do not need once nothing has happened for a while.
    while least > most && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
        let below = fs::read_to_string(format!("/proc/{launcher}/task/{launcher}/children")).unwrap_or_default();
        let both = below.split_whitespace().filter_map(|pid| pid.parse().ok()).chain([launcher]);
        let sizes: Vec<u64> = both.filter_map(resident).collect();
        if sizes.len() == 2 {
            least = least.min(sizes.iter().sum());
        }
    }
    drop(child.stdin.take());
    assert!(child.wait().expect("forge ends").success());
    assert!(least <= most, "{least} kB");
}
