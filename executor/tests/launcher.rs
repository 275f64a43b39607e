//! What passes between the launcher's own streams, terminal and signals and the command; and that nothing stays when the launcher is
//! killed. The launcher is this test program, started anew for one run.
#![allow(missing_docs)]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::World;
use executor::{Ending, Streams};
use rustix::process::Signal;

const SCRIPT: &str = "LAUNCH_SCRIPT";

/// Not a test of its own: what [`launch`] starts.
#[test]
#[ignore = "started by the other tests"]
fn launcher() {
    let Some(script) = std::env::var_os(SCRIPT) else { return };
    let mut world = World::new().unwrap();
    world.sandbox.streams = Streams::Inherit;
    world.sandbox.limits.pids = Some(50);
    let shared = std::env::var_os("LAUNCH_SHARED").map(PathBuf::from);
    if let Some(shared) = shared {
        world.bind(shared, "/shared", false);
    }
    let outcome = world.run(&["sh", "-c", script.to_str().unwrap()]).unwrap();
    drop(world);
    std::process::exit(match outcome.ending {
        Ending::Exited(status) => status,
        Ending::Signalled(signal) => 128 + signal,
        Ending::TimedOut | Ending::OutOfMemory | Ending::TooMuchOutput => 99,
    });
}

fn command_line() -> Vec<String> {
    let program = std::env::current_exe().unwrap().display().to_string();
    let arguments = ["--ignored", "--exact", "launcher", "--nocapture", "--quiet"].map(str::to_owned);
    std::iter::once(program).chain(arguments).collect()
}

fn launch(script: &str, shared: &Path) -> Launched {
    let line = command_line();
    let mut command = Command::new(&line[0]);
    command.args(&line[1..]).env(SCRIPT, script).env("LAUNCH_SHARED", shared);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    Launched(Some(child))
}

fn wait_for(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < Duration::from_secs(30), "it does not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What the test harness prints around the command's own output.
fn own(output: &str) -> String {
    output
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("running "))
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn streams_are_the_launchers_own() {
    let Some(world) = World::new() else { return };
    let mut child = launch("cat; echo err >&2; exit 5", world.directory.path());
    child.child().stdin.take().unwrap().write_all(b"in and out\n").unwrap();
    let output = child.finish();
    assert_eq!(own(&String::from_utf8(output.stdout).unwrap()), "in and out\n");
    assert_eq!(output.stderr, b"err\n");
    assert_eq!(output.status.code(), Some(5));
}

#[test]
fn signals_reach_the_command() {
    let Some(world) = World::new() else { return };
    for (signal, name) in [
        (Signal::TERM, "TERM"),
        (Signal::INT, "INT"),
        (Signal::HUP, "HUP"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::QUIT, "QUIT"),
    ] {
        let ready = world.path(name);
        let script =
            format!("trap 'echo got {name}; exit 3' {name}; touch /shared/{name}; while true; do sleep 0.05; done");
        let mut child = launch(&script, world.directory.path());
        wait_for(|| ready.exists());
        child.signal(signal);
        let output = child.finish();
        assert_eq!(own(&String::from_utf8(output.stdout).unwrap()), format!("got {name}\n"));
        assert_eq!(output.status.code(), Some(3));
    }
}

#[test]
fn stopping_and_going_on_pass_through() {
    let Some(world) = World::new() else { return };
    let count = world.path("count");
    let script = "i=0; while true; do i=$((i+1)); echo $i > /shared/count; sleep 0.02; done";
    let mut child = launch(script, world.directory.path());
    wait_for(|| count.exists());
    let stat = format!("/proc/{}/stat", child.child().id());
    let state = || fs::read_to_string(&stat).unwrap().contains(") T ");
    child.signal(Signal::TSTP);
    wait_for(state);
    std::thread::sleep(Duration::from_millis(200));
    let stopped = fs::read_to_string(&count).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(fs::read_to_string(&count).unwrap(), stopped);
    child.signal(Signal::CONT);
    wait_for(|| fs::read_to_string(&count).is_ok_and(|now| now != stopped && !now.is_empty()));
}

#[test]
fn nothing_stays_when_the_launcher_is_killed() {
    let Some(world) = World::new() else { return };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for turn in 0..5 {
        let mark = format!("mark-{}-{turn}", std::process::id());
        let ready = world.path(&mark);
        let script = format!("setsid sleep 12345{turn} & sleep 12345{turn} & touch /shared/{mark}; wait; wait");
        let mut child = launch(&script, world.directory.path());
        if turn != 4 {
            wait_for(|| ready.exists());
        } else {
            // While it is being set up.
            std::thread::sleep(Duration::from_millis(4));
        }
        child.child().kill().unwrap();
        assert_eq!(child.finish().status.signal(), Some(9));
        wait_for(|| sleepers(&format!("12345{turn}")) == 0);
    }
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
    if !common::is_root() {
        return;
    }
    // The cgroups of the killed are removed by the next run; by a later one, if something of them was still ending.
    wait_for(|| {
        assert!(launch("true", world.directory.path()).finish().status.success());
        ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].iter().all(|cgroup| {
            let left = fs::read_dir(cgroup).into_iter().flatten().flatten();
            !left.into_iter().any(|entry| is_stale(&entry.file_name()))
        })
    });
}

/// A cgroup of a launcher that is no more.
fn is_stale(name: &OsStr) -> bool {
    let Some(rest) = name.to_str().and_then(|name| name.strip_prefix("forge-")) else { return false };
    let owner = rest.split('-').nth(1).unwrap_or_default();
    !Path::new("/proc").join(owner).exists()
}

/// Processes that run `sleep` for this long.
fn sleepers(seconds: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| line == format!("sleep\0{seconds}\0").as_bytes()).count()
}

/// Runs a script inside with a terminal, types each of `keys` after a pause once there is a file `ready`, and gives all that the
/// terminal showed.
fn on_a_terminal(script: &str, keys: &[&str]) -> Option<String> {
    typed_at(&format!("exec {}", command_line().join(" ")), script, keys)
}

/// The same, of any command that starts the launcher.
fn typed_at(command: &str, script: &str, keys: &[&str]) -> Option<String> {
    let (world, mut launched) = at_a_terminal(command, script)?;
    let mut stdin = launched.child().stdin.take().unwrap();
    for keys in keys {
        // A control character throws away what was typed and not yet read.
        std::thread::sleep(Duration::from_millis(700));
        stdin.write_all(keys.as_bytes()).unwrap();
    }
    let output = launched.finish();
    drop((stdin, world));
    let text = String::from_utf8(output.stdout).unwrap().replace('\r', "");
    Some(format!("{}status {}\n", own(&text), output.status.code().unwrap_or(-1)))
}

/// Starts a command on a terminal, and waits for a file `ready`.
fn at_a_terminal(command: &str, script: &str) -> Option<(World, Launched)> {
    let world = World::new()?;
    if !Path::new("/usr/bin/script").exists() {
        eprintln!("skipped: no `script` (Debian: bsdutils)");
        return None;
    }
    let child = Command::new("/usr/bin/script")
        .args(["-qec", command, "/dev/null"])
        .env(SCRIPT, script)
        .env("LAUNCH_SHARED", world.directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let launched = Launched(Some(child));
    wait_for(|| world.path("ready").exists());
    Some((world, launched))
}

#[test]
fn the_terminal_is_the_commands_own() {
    let script = "test -t 0 && test -t 1 && echo terminal; tty; stty rows 12 columns 34; stty size < /dev/tty; \
                  touch /shared/ready; read line; echo got $line; exit 6";
    let Some(output) = on_a_terminal(script, &["some words\n"]) else { return };
    let expected = "terminal\n/dev/console\n12 34\n";
    assert!(output.contains(expected) && output.ends_with("got some words\nstatus 6\n"), "{output}");
}

#[test]
fn control_c_is_delivered_once() {
    let script = "n=0; trap 'n=$((n+1)); echo caught $n' INT; touch /shared/ready; i=0; \
                  while [ $i -lt 30 ]; do sleep 0.05; i=$((i+1)); done; echo $n in all; exit 4";
    let Some(output) = on_a_terminal(script, &["\x03"]) else { return };
    assert!(output.ends_with("1 in all\nstatus 4\n"), "{output}");
}

#[test]
fn a_shell_inside_has_job_control() {
    let script = "touch /shared/ready; exec sh -im";
    let keys = ["sleep 1000\n", "\x1a", "jobs; kill %1; exit 9\n", "exit 9\n"];
    let Some(output) = on_a_terminal(script, &keys) else { return };
    assert!(!output.contains("can't access tty") && output.contains("Stopped"), "{output}");
    assert!(output.ends_with("status 9\n"), "{output}");
}

#[test]
fn a_shell_inside_ends_with_its_own_status() {
    let Some(output) = on_a_terminal("touch /shared/ready; exec sh -i", &["exit 5\n"]) else { return };
    assert!(output.ends_with("status 5\n") && !output.contains("Cannot set"), "{output}");
}

#[test]
fn a_run_is_a_job_of_the_shell_that_started_it() {
    // A shell that starts it, and reads on afterwards.
    let line = format!(
        "printf '%s\\n' '{}' > $LAUNCH_SHARED/profile; ENV=$LAUNCH_SHARED/profile exec sh -im",
        command_line().join(" ")
    );
    let script = "touch /shared/ready; read line; echo got $line; exit 6";
    let keys = ["\x1a", "jobs\n", "fg\n", "words\n", "echo ended with $?\n", "exit 0\n"];
    let Some(output) = typed_at(&line, script, &keys) else { return };
    assert!(output.contains("Stopped") && output.contains("got words\n"), "{output}");
    assert!(output.contains("ended with 6\n") && output.ends_with("status 0\n"), "{output}");
}

#[test]
fn a_terminal_that_hangs_up_ends_the_run() {
    let mark = format!("54321{}", std::process::id());
    let line = format!("exec {}", command_line().join(" "));
    let Some((_world, mut launched)) = at_a_terminal(&line, &format!("touch /shared/ready; sleep {mark}")) else {
        return;
    };
    wait_for(|| sleepers(&mark) == 1);
    // The terminal goes with the process that has its other end; the launcher is the leader of the session.
    launched.child().kill().unwrap();
    wait_for(|| sleepers(&mark) == 0);
}

/// A launcher that does not outlive its test.
struct Launched(Option<Child>);

impl Launched {
    fn child(&mut self) -> &mut Child {
        self.0.as_mut().unwrap()
    }

    fn pid(&mut self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(self.child())
    }

    fn signal(&mut self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    fn finish(mut self) -> Output {
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
