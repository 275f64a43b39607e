//! Limits hold, and what they ended says so.
#![allow(missing_docs)]

mod common;

use std::time::{Duration, Instant};

use common::{World, is_root};
use executor::{Ending, Error};

#[test]
fn time_is_over_after_a_moment_to_tidy_up() {
    let Some(mut world) = World::new() else { return };
    world.sandbox.limits.timeout_millis = Some(2000);
    let start = Instant::now();
    let outcome = world.run(&["sh", "-c", "trap 'echo tidied; exit 0' TERM; while true; do sleep 0.05; done"]).unwrap();
    assert_eq!((outcome.ending, world.stdout().as_str()), (Ending::TimedOut, "tidied\n"));
    assert!((Duration::from_secs(2)..Duration::from_secs(60)).contains(&start.elapsed()));
}

#[test]
fn what_does_not_end_in_time_is_killed() {
    let Some(mut world) = World::new() else { return };
    world.sandbox.limits.timeout_millis = Some(200);
    let start = Instant::now();
    let outcome = world.run(&["sh", "-c", "trap '' TERM; while true; do sleep 0.05; done"]).unwrap();
    assert_eq!(outcome.ending, Ending::TimedOut);
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_fork_bomb_stays_small() {
    let Some(mut world) = World::new() else { return };
    world.sandbox.limits.pids = Some(20);
    world.sandbox.limits.timeout_millis = Some(20_000);
    // 30 that sleep do not fit; the shell itself is one of the 20.
    let outcome = world.run(&["sh", "-c", "for i in $(seq 30); do sleep 5 & done; echo all"]).unwrap();
    if !outcome.missing.is_empty() {
        eprintln!("skipped: {:?}", outcome.missing);
        return;
    }
    assert_ne!(outcome.ending, Ending::Exited(0));
    assert!(world.stderr().contains("can't fork"), "{}", world.stderr());
    assert_eq!(
        world.run(&["sh", "-c", "for i in $(seq 19); do sleep 0.2 & done; wait; echo all"]).unwrap().ending,
        Ending::Exited(0)
    );
    let bomb = world.run(&["sh", "-c", "b() { b | b & }; b; sleep 1"]).unwrap();
    assert!(bomb.wall < Duration::from_secs(60), "{bomb:?}");
}

#[test]
fn what_asks_for_processes_without_end_is_ended() {
    let Some(mut world) = World::new() else { return };
    world.sandbox.limits.pids = Some(50);
    world.sandbox.bounds.refused_for = Some(Duration::from_secs(1));
    // What is refused a few and goes on with fewer is left alone.
    let few = "for i in $(seq 60); do sleep 1 2>/dev/null & done; wait; sleep 3; echo done";
    let outcome = world.run(&["sh", "-c", &format!("({few}) || (sleep 3; echo done)")]).unwrap();
    if !outcome.isolation.get("pids").is_some_and(|how| how.starts_with("cgroup")) {
        return eprintln!("skipped: no cgroup counts processes: {:?}", outcome.missing);
    }
    assert_eq!((outcome.ending, world.stdout().lines().last()), (Ending::Exited(0), Some("done")));
    world.sandbox.limits.timeout_millis = Some(100_000);
    let bomb = "BEGIN { while (1) system(\"sleep 5 &\") }";
    let outcome = world.run(&["awk", bomb]).unwrap();
    assert_eq!((outcome.ending, outcome.met), (Ending::Signalled(9), vec!["pids"]));
}

#[test]
fn a_hog_of_memory_is_ended_and_named() {
    let Some(mut world) = World::new() else { return };
    world.sandbox.limits.memory = Some(32 << 20);
    world.sandbox.limits.timeout_millis = Some(60_000);
    let hog = ["awk", "BEGIN { s = \"0123456789\"; while (1) s = s s }"];
    let outcome = world.run(&["true"]).unwrap();
    if !outcome.missing.is_empty() {
        assert!(outcome.missing[0].starts_with("memory: no limit, as "), "{:?}", outcome.missing);
        eprintln!("skipped: {:?}", outcome.missing);
        world.sandbox.require.push("memory".to_owned());
        assert!(matches!(world.run(&["true"]).unwrap_err(), Error::Required { .. }));
        return;
    }
    assert_eq!(world.run(&hog).unwrap().ending, Ending::OutOfMemory);
    let files = ["dd", "if=/dev/zero", "of=/tmp/file", "bs=1M", "count=100"];
    assert_ne!(world.run(&files).unwrap().ending, Ending::Exited(0), "files in memory count");
    assert_eq!(world.run(&["sh", "-c", "echo small"]).unwrap().ending, Ending::Exited(0));
}

#[test]
fn what_the_host_keeps_is_kept_where_a_cgroup_can() {
    let Some(mut world) = World::new() else { return };
    world.sandbox.bounds.host_memory = Some(32 << 20);
    world.sandbox.limits.timeout_millis = Some(60_000);
    let outcome = world.run(&["true"]).unwrap();
    assert_eq!(outcome.missing, [""; 0], "nobody asked for it");
    if !outcome.isolation.contains_key("memory") {
        return eprintln!("skipped: no cgroup of memory can be had");
    }
    let hog = ["awk", "BEGIN { s = \"0123456789\"; while (1) s = s s }"];
    assert_eq!(world.run(&hog).unwrap().ending, Ending::OutOfMemory);
    // What was asked for goes before it.
    world.sandbox.limits.memory = Some(1 << 30);
    let little = ["awk", "BEGIN { s = \"0123456789\"; while (length(s) < 50000000) s = s s; print \"done\" }"];
    assert_eq!(world.run(&little).unwrap().ending, Ending::Exited(0));
}

#[test]
fn processor_time_is_shared_out() {
    let Some(mut world) = World::new() else { return };
    world.sandbox.limits.cpu_millis = Some(200);
    world.sandbox.limits.timeout_millis = Some(2000);
    let outcome = world.run(&["sh", "-c", "while true; do :; done"]).unwrap();
    if !outcome.missing.is_empty() {
        eprintln!("skipped: {:?}", outcome.missing);
        return;
    }
    assert_eq!(outcome.ending, Ending::TimedOut);
    assert!(outcome.cpu < Duration::from_millis(900), "{outcome:?}");
}

#[test]
fn what_is_required_is_had_or_refused() {
    let Some(mut world) = World::new() else { return };
    world.sandbox.require = ["user", "network", "mount", "pid", "seccomp"].map(str::to_owned).into();
    assert_eq!(world.shell("echo all"), "all\n");
    world.sandbox.require = vec!["memory".to_owned()];
    assert!(matches!(world.run(&["true"]).unwrap_err(), Error::Required { what, .. } if what == "memory"));
    world.sandbox.require = vec!["moon".to_owned()];
    assert!(matches!(world.run(&["true"]).unwrap_err(), Error::Required { what, .. } if what == "moon"));
    world.sandbox.require = vec!["network".to_owned()];
    world.sandbox.network = executor::Network::Host;
    assert!(matches!(world.run(&["true"]).unwrap_err(), Error::Required { .. }));
}

#[test]
fn this_host_tells_what_it_gives() {
    let Some(_) = World::new() else { return };
    let capabilities = executor::check();
    for name in ["user namespaces", "overlay", "seccomp", "kernel"] {
        let capability = capabilities.iter().find(|capability| capability.name == name).unwrap();
        assert!(capability.available, "{capability:?}");
    }
    if is_root() {
        assert!(capabilities.iter().all(|capability| capability.available || capability.cure.is_some()));
    }
}

/// Not a test of its own: what the next one starts where no more user namespaces can be made.
#[test]
#[ignore = "started by the other tests"]
fn without_user_namespaces() {
    if std::env::var_os("WITHOUT_USER_NAMESPACES").is_none() {
        return;
    }
    let mut world = World::new().unwrap();
    match world.run(&["echo", "ran"]) {
        Ok(outcome) => println!("{}missing {:?}", world.stdout(), outcome.missing),
        Err(Error::NoUserNamespaces { switch, .. }) => println!("switch {}", switch.unwrap()),
        Err(error) => println!("{}", common::chain(&error)),
    }
}

#[test]
fn a_host_that_forbids_user_namespaces_is_told_by_its_switch() {
    let Some(_) = World::new() else { return };
    let program = std::env::current_exe().unwrap().display().to_string();
    let inside = |before: &str| {
        let script = format!(
            "echo 0 > /proc/sys/user/max_user_namespaces && exec {before} {program} --ignored --exact without_user_namespaces --nocapture"
        );
        let output = std::process::Command::new("unshare")
            .args(["-Ur", "sh", "-c", &script])
            .env("WITHOUT_USER_NAMESPACES", "1")
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // Without power there is no other way.
    let text = inside("setpriv --bounding-set=-all --inh-caps=-all");
    assert!(text.contains("switch user.max_user_namespaces\n"), "{text}");
    // Root can do without, and says so. (Root of a namespace, here: of the mount namespace too.)
    let text = inside("unshare -m");
    assert!(text.contains("ran\nmissing [\"user: no user namespace"), "{text}");
}

#[test]
fn a_command_is_asked_to_end_by_the_signal_it_wants() {
    let Some(mut world) = World::new() else { return };
    world.sandbox.limits.timeout_millis = Some(300);
    world.sandbox.stop_signal = Some(3);
    let script = "trap 'echo quit; exit 0' QUIT; trap 'echo wrong' TERM; while true; do sleep 0.05; done";
    let outcome = world.run(&["sh", "-c", script]).unwrap();
    assert_eq!((outcome.ending, world.stdout().as_str()), (Ending::TimedOut, "quit\n"));
}

#[test]
fn further_groups_are_given_or_said_to_be_missing() {
    let Some(mut world) = World::new() else { return };
    world.sandbox.user = (33, 34);
    world.sandbox.groups = vec![4, 5];
    let outcome = world.run(&["sh", "-c", "grep Groups: /proc/self/status"]).unwrap();
    let groups: Vec<String> = world.stdout().split_whitespace().skip(1).map(str::to_owned).collect();
    match outcome.missing.iter().any(|missing| missing.starts_with("groups: ")) {
        true => assert!(!groups.contains(&"4".to_owned()), "{groups:?}"),
        // Its own is among them: CVE-2022-2989.
        false => assert_eq!(groups, ["4", "5", "34"]),
    }
}
