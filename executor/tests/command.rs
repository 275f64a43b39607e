//! What a command gets, and what is said of its end.
#![allow(missing_docs)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use common::{World, chain};
use executor::{Ending, Error, Streams};

#[test]
fn a_command_runs_and_its_output_and_status_come_back() {
    let Some(mut world) = World::new() else { return };
    let outcome =
        world.run(&["sh", "-c", "echo out; echo err >&2; exit 7"]).unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(outcome.ending, Ending::Exited(7));
    assert_eq!((world.stdout().as_str(), world.stderr().as_str()), ("out\n", "err\n"));
    assert_eq!(outcome.missing, Vec::<String>::new());
    assert!(outcome.peak_memory > 0 && outcome.wall > Duration::ZERO);
}

#[test]
fn both_streams_go_to_one_file_in_order_and_stdin_is_empty() {
    let Some(mut world) = World::new() else { return };
    world.sandbox.streams = Streams::File(world.path("stdout"));
    assert_eq!(world.shell("cat; echo one; echo two >&2; echo three"), "one\ntwo\nthree\n");
}

#[test]
fn a_signal_is_told_from_an_exit() {
    let Some(mut world) = World::new() else { return };
    assert_eq!(world.run(&["sh", "-c", "kill -SEGV $$"]).unwrap().ending, Ending::Signalled(11));
    assert_eq!(world.run(&["sh", "-c", "exit 139"]).unwrap().ending, Ending::Exited(139));
}

#[test]
fn it_sees_its_own_environment_directory_host_name_and_user_only() {
    let Some(mut world) = World::new() else { return };
    world.sandbox.environment.insert("GREETING".into(), "hello world".into());
    world.sandbox.directory = "/lower-only".into();
    world.sandbox.user = (1234, 4321);
    assert_eq!(
        world.shell("env | grep -v -e PWD -e SHLVL -e OLDPWD; pwd; hostname; id -u; id -g; umask"),
        "PATH=/bin\nGREETING=hello world\n/lower-only\ninside\n1234\n4321\n0022\n"
            .replace("PATH=/bin\nGREETING=hello world", "GREETING=hello world\nPATH=/bin")
    );
    assert_eq!(world.shell("echo $$"), "2\n", "the first process is the sandbox's own");
}

#[test]
fn it_has_three_descriptors_and_default_signals() {
    let Some(mut world) = World::new() else { return };
    // The fourth is that of the directory being listed.
    assert_eq!(world.shell("ls /proc/self/fd | wc -l"), "4\n");
    assert_eq!(
        world.shell("grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status | awk '{print $2}'").lines().collect::<Vec<_>>(),
        ["0000000000000000"; 3]
    );
}

#[test]
fn a_background_process_does_not_outlive_the_command() {
    let Some(mut world) = World::new() else { return };
    let start = Instant::now();
    assert_eq!(world.shell("setsid sleep 1000 & setsid sleep 1000 & echo done"), "done\n");
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn what_it_used_is_counted_with_its_children() {
    let Some(mut world) = World::new() else { return };
    let script = "(dd if=/dev/zero of=/dev/null bs=1M count=3000 2>/dev/null) & wait";
    let outcome = world.run(&["sh", "-c", script]).unwrap();
    assert!(outcome.cpu > Duration::from_millis(10), "{outcome:?}");
}

#[test]
fn a_command_that_is_not_there_is_not_found() {
    let Some(mut world) = World::new() else { return };
    for command in ["no-such-command", "/no/such/command", "./nope", "/etc/motd/x", ""] {
        let error = world.run(&[command]).unwrap_err();
        assert!(matches!(&error, Error::CommandNotFound { command: given } if given == command), "{error:?}");
    }
}

#[test]
fn a_command_that_cannot_be_executed_says_why() {
    let Some(mut world) = World::new() else { return };
    let write = |name: &str, mode: u32, bytes: &[u8]| {
        let path = world.lower().join("bin").join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    write("plain", 0o644, b"#!/bin/sh\n");
    write("text", 0o755, b"echo no first line\n");
    write("empty", 0o755, b"");
    write("script", 0o755, b"#! /usr/bin/missing -x\n");
    // The head of an aarch64 program, or, there, of an x86-64 one.
    let machine = if cfg!(target_arch = "x86_64") { 183u8 } else { 62 };
    let mut foreign = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0".to_vec();
    foreign.extend([machine, 0]);
    foreign.resize(64, 0);
    write("foreign", 0o755, &foreign);
    for (command, why) in [
        ("plain", "Permission denied (os error 13)"),
        ("/etc", "Is a directory (os error 21)"),
        ("text", "it is neither a program nor a script that begins with `#!`"),
        ("empty", "it is empty"),
        ("script", "its interpreter `/usr/bin/missing` is missing"),
        ("foreign", "it is a program for another kind of machine"),
    ] {
        let error = world.run(&[command]).unwrap_err();
        assert!(matches!(&error, Error::CannotExecute { .. }), "{error:?}");
        assert_eq!(chain(&error), format!("cannot execute `{command}`: {why}"));
    }
}

#[test]
fn a_program_whose_dynamic_linker_is_missing_says_which() {
    let Some(mut world) = World::new() else { return };
    // This very test is a dynamic program; the root has no libraries.
    fs::copy(std::env::current_exe().unwrap(), world.lower().join("bin/dynamic")).unwrap();
    let error = world.run(&["dynamic"]).unwrap_err();
    let text = chain(&error);
    assert!(
        text.starts_with("cannot execute `dynamic`: its interpreter `/lib") && text.ends_with("` is missing"),
        "{text}"
    );
}

#[test]
fn a_later_place_of_the_path_is_found_past_one_that_may_not_be_executed() {
    let Some(mut world) = World::new() else { return };
    fs::write(world.lower().join("etc/sh"), "").unwrap();
    world.sandbox.environment.insert("PATH".into(), "/nowhere:/etc:/bin".into());
    assert_eq!(world.shell("echo found"), "found\n");
}

#[test]
fn what_is_missing_of_a_sandbox_is_named() {
    let Some(mut world) = World::new() else { return };
    world.sandbox.directory = "/no/such".into();
    let error = world.run(&["true"]).unwrap_err();
    assert_eq!(chain(&error), "cannot enter the working directory `/no/such`: No such file or directory (os error 2)");
    world.sandbox.directory = "/".into();
    world.bind("/no/such/source", "/mnt", true);
    let error = world.run(&["true"]).unwrap_err();
    assert_eq!(chain(&error), "cannot open `/no/such/source`: No such file or directory (os error 2)");
    world.sandbox.binds.clear();
    world.sandbox.root.layers.push("/no/such/layer".into());
    let error = world.run(&["true"]).unwrap_err();
    assert_eq!(chain(&error), "cannot open layer `/no/such/layer`: No such file or directory (os error 2)");
    world.sandbox.root.layers.clear();
    assert!(matches!(world.run(&["true"]).unwrap_err(), Error::Setup { .. }));
}

#[test]
fn strings_with_a_nul_are_refused() {
    let Some(mut world) = World::new() else { return };
    assert!(matches!(world.run(&["echo", "a\0b"]).unwrap_err(), Error::Setup { .. }));
}

#[test]
fn an_interrupt_reaches_the_command() {
    let Some(mut world) = World::new() else { return };
    let interrupt = Arc::new(AtomicI32::new(0));
    world.sandbox.interrupt = Some(Arc::clone(&interrupt));
    let started = world.path("started");
    fs::create_dir(&started).unwrap();
    world.bind(started.clone(), "/started", false);
    let sender = std::thread::spawn(move || {
        while !started.join("yes").exists() {
            std::thread::sleep(Duration::from_millis(10));
        }
        interrupt.store(15, Ordering::Relaxed);
    });
    let script = "trap 'echo told; exit 3' TERM; touch /started/yes; while true; do sleep 0.05; done";
    let outcome = world.run(&["sh", "-c", script]).unwrap();
    sender.join().unwrap();
    assert_eq!((outcome.ending, world.stdout().as_str()), (Ending::Exited(3), "told\n"));
}

#[test]
fn an_interrupt_that_comes_before_the_command_waits_for_it() {
    let Some(mut world) = World::new() else { return };
    world.sandbox.interrupt = Some(Arc::new(AtomicI32::new(15)));
    let outcome = world.run(&["sleep", "60"]).unwrap();
    assert_eq!(outcome.ending, Ending::Signalled(15));
}

#[test]
fn a_command_that_ignores_an_interrupt_is_killed_by_a_second() {
    let Some(mut world) = World::new() else { return };
    let interrupt = Arc::new(AtomicI32::new(0));
    world.sandbox.interrupt = Some(Arc::clone(&interrupt));
    let sender = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        interrupt.store(15, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(300));
        interrupt.store(-15, Ordering::Relaxed);
    });
    let start = Instant::now();
    let outcome = world.run(&["sh", "-c", "trap '' TERM INT; while true; do sleep 0.05; done"]).unwrap();
    sender.join().unwrap();
    assert_eq!(outcome.ending, Ending::Signalled(9));
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn many_run_at_once_from_the_threads_of_one_process() {
    let Some(world) = World::new() else { return };
    drop(world);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                for turn in 0..5 {
                    let mut world = World::new().unwrap();
                    assert_eq!(world.shell(&format!("echo {thread} {turn}")), format!("{thread} {turn}\n"));
                }
            });
        }
    });
}
