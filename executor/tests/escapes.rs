//! Escapes that were published for other runtimes, each by its number, and ways to see or exhaust the host: none of them works here.
//!
//! A layer may be anybody's: it holds the symbolic links, the programs and the scripts. The command is `busybox`, as root inside.
#![allow(missing_docs)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use common::{World, chain, is_root};
use executor::{
    Capabilities, Content, Device, Ending, Error, MemoryMount, Network, Published, Resource, ResourceLimit, Writable,
};

/// Runs a script that must not do what it tries.
#[track_caller]
fn refused(world: &mut World, script: &str) {
    let outcome = world.run(&["sh", "-c", script]).unwrap_or_else(|error| panic!("{script}: {}", chain(&error)));
    assert!(
        matches!(outcome.ending, Ending::Exited(status) if status != 0),
        "{script}: {outcome:?} {}",
        world.stdout()
    );
}

fn executable(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// CVE-2019-5736: the launcher's own executable is `/proc/self/exe` until the command is executed. A layer that makes the kernel
/// execute it, by a link or as an interpreter, would get a process whose `/proc/PID/exe` can be written to.
#[test]
fn cve_2019_5736_the_launcher_is_never_executed_inside() {
    let Some(mut world) = World::new() else { return };
    let own = std::env::current_exe().unwrap();
    let before = fs::read(&own).unwrap();
    symlink("/proc/self/exe", world.lower().join("bin/link")).unwrap();
    executable(&world.lower().join("bin/script"), "#!/proc/self/exe --list\n");
    executable(&world.lower().join("bin/deeper"), "#!/bin/script\n");
    for command in ["/bin/link", "/bin/script", "/bin/deeper", "link", "/proc/self/exe", "/proc/1/exe"] {
        match world.run(&[command, "--list"]) {
            Err(Error::CannotExecute { .. }) => {}
            other => panic!("{command}: {other:?} {}{}", world.stdout(), world.stderr()),
        }
        assert_eq!(world.stdout(), "", "{command}");
    }
    // Process 1 is the launcher's copy too.
    for script in ["cat /proc/1/exe", "echo > /proc/1/exe", "exec 3<>/proc/1/exe", "readlink /proc/1/exe"] {
        refused(&mut world, script);
    }
    assert!(fs::read(&own).unwrap() == before);
}

/// CVE-2024-21626: a descriptor of the host that stayed open, entered as the working directory.
#[test]
fn cve_2024_21626_no_working_directory_leads_out() {
    let Some(mut world) = World::new() else { return };
    let open = fs::File::open("/").unwrap();
    for number in 0..40 {
        world.sandbox.directory = format!("/proc/self/fd/{number}").into();
        if let Ok(outcome) =
            world.run(&["sh", "-c", "pwd -P; ls -d ../../../../../../lower-only && cat ../../../../../proc/1/environ"])
        {
            assert!(!matches!(outcome.ending, Ending::Exited(0)), "{number}: {}", world.stdout());
        }
    }
    drop(open);
    symlink("/proc/self/fd/7", world.lower().join("cwd")).unwrap();
    world.sandbox.directory = "/cwd".into();
    assert!(world.run(&["true"]).is_err());
}

/// CVE-2016-9962, and every leak of that kind: the command has its three streams and nothing else, and cannot reach those of process 1.
#[test]
fn cve_2016_9962_no_descriptor_is_left_open() {
    let Some(mut world) = World::new() else { return };
    let _held: Vec<fs::File> = (0..20).map(|_| fs::File::open("/").unwrap()).collect();
    // The shell reads its script from an argument; `ls` itself opens the directory as 3.
    assert_eq!(world.shell("ls /proc/self/fd"), "0\n1\n2\n3\n");
    refused(
        &mut world,
        "for fd in $(ls /proc/1/fd); do readlink /proc/1/fd/$fd && exit 0; cat /proc/1/fd/$fd && exit 0; done; exit 1",
    );
    refused(&mut world, "ls /proc/1/root/ /proc/1/cwd/");
}

/// CVE-2025-31133 (runc), CVE-2025-62161 and CVE-2025-54867 (youki), CVE-2023-27561, CVE-2023-28642, CVE-2021-30465: what is mounted over
/// a place that a layer has made a link.
#[test]
fn cve_2025_31133_what_is_masked_stays_masked_and_no_link_is_followed_out() {
    let Some(mut world) = World::new() else { return };
    let victim = world.path("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("core_pattern"), "precious").unwrap();
    for (name, target) in [
        ("dev", victim.to_str().unwrap()),
        ("proc", "/proc/1/root/proc"),
        ("proc", "dev/../../../../proc"),
        ("sys", "/proc/sys"),
        ("tmp", "/proc/self/cwd"),
        ("etc", "/proc/1/root/etc"),
    ] {
        let place = world.lower().join(name);
        let kept = world.path("kept-aside");
        fs::rename(&place, &kept).unwrap();
        symlink(target, &place).unwrap();
        world.sandbox.contents = vec![Content { target: "/etc/hosts".into(), bytes: b"127.0.0.1 x\n".to_vec() }];
        let script = "echo x > /proc/sys/kernel/core_pattern; echo c > /proc/sysrq-trigger; echo x > /dev/null; touch /dev/new; \
                      cat /proc/kcore /proc/keys | head -c 10";
        if world.run(&["sh", "-c", script]).is_ok() {
            assert_eq!(world.stdout(), "", "{name} -> {target}");
        }
        fs::remove_file(&place).unwrap();
        fs::rename(&kept, &place).unwrap();
        assert_eq!(fs::read_to_string(victim.join("core_pattern")).unwrap(), "precious", "{name} -> {target}");
        assert_eq!(fs::read_dir(&victim).unwrap().count(), 1, "{name} -> {target}");
    }
    // A layer with a null device of its own choosing changes nothing: the host's is used.
    fs::write(world.lower().join("dev/null"), "not a device").unwrap();
    assert_eq!(world.shell("cat /proc/keys /proc/timer_list; stat -c %t:%T /dev/null"), "1:3\n");
}

/// CVE-2025-52565: `/dev/console` is the very terminal that was made, or the caller's; never what a layer calls so. CVE-2025-52881 and
/// CVE-2025-62596: what the launcher writes to /proc goes to its own mount of it, never along a path of the layers.
#[test]
fn cve_2025_52565_and_52881_what_is_written_goes_where_it_should() {
    let Some(mut world) = World::new() else { return };
    let victim = world.path("victim");
    fs::write(&victim, "0").unwrap();
    fs::remove_dir(world.lower().join("proc")).unwrap();
    fs::create_dir_all(world.lower().join("fake/sys/net/ipv4")).unwrap();
    symlink(&victim, world.lower().join("fake/sys/net/ipv4/ip_unprivileged_port_start")).unwrap();
    symlink("fake", world.lower().join("proc")).unwrap();
    symlink(&victim, world.lower().join("dev/console")).unwrap();
    symlink(&victim, world.lower().join("dev/ptmx")).unwrap();
    if world.run(&["sh", "-c", "echo x > /dev/console; true"]).is_ok() {
        assert_eq!(fs::read_to_string(&victim).unwrap(), "0");
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "0");
}

/// CVE-2022-0492 (release_agent), CVE-2022-0185 (fsconfig), CVE-2021-22555 and their kind begin with power in a new namespace.
#[test]
fn cve_2022_0492_no_namespace_and_no_mount_can_be_made() {
    let Some(mut world) = World::new() else { return };
    for script in [
        "unshare -U true",
        "unshare -Ur mount -t cgroup -o rdma cgroup /tmp",
        "unshare -Urm true",
        "unshare -n true",
        "unshare -C true",
        "mount -t cgroup2 none /tmp",
        "mount -t cgroup -o memory cgroup /tmp",
        "mount -t proc proc /tmp",
        "mount -t sysfs sysfs /tmp",
        "mount --bind / /tmp",
        "mount -o remount,rw /proc/sys",
        "mount -o remount,rw /",
        "umount /proc/kcore",
        "umount /proc/sys",
        "umount /dev",
        "chroot /tmp true",
        "nsenter -t 1 -m true",
    ] {
        refused(&mut world, script);
    }
}

/// CVE-2022-29162, CVE-2022-24769: an inheritable set that is not empty lets a file give capabilities.
#[test]
fn cve_2022_29162_no_set_of_capabilities_has_any() {
    let Some(mut world) = World::new() else { return };
    let sets = world.shell("grep ^Cap /proc/self/status | cut -f 2 | sort -u");
    assert_eq!(sets, "0000000000000000\n");
}

#[test]
fn capabilities_that_are_named_are_had_and_no_others() {
    let Some(mut world) = World::new() else { return };
    let named = |name: &str| Capabilities::named(name).unwrap();
    let sets = "grep ^Cap /proc/self/status | cut -f 2 | sort -u";
    for user in [(0, 0), (1000, 1000)] {
        world.sandbox.user = user;
        world.sandbox.capabilities = named("SYS_CHROOT").with(named("KILL"));
        assert_eq!(world.shell(sets), "0000000000040020\n", "{user:?}");
        assert_eq!(world.shell("chroot / /bin/echo inside"), "inside\n");
        // Process 1 does not lend its own.
        refused(&mut world, "kill -9 1; sleep 0.2; exit 1");
        world.sandbox.capabilities = named("NET_ADMIN");
        assert_eq!(world.shell("ifconfig lo down && ifconfig lo up && echo fine"), "fine\n");
        // Not even with all of them is the host's kernel at hand.
        world.sandbox.capabilities = Capabilities::ALL;
        for script in [
            "mount -t tmpfs none /tmp",
            "unshare -m true",
            "echo 1 > /proc/sys/vm/drop_caches",
            "hostname other-host-name && false",
        ] {
            refused(&mut world, script);
        }
    }
    world.sandbox.capabilities = Capabilities::NONE;
    world.sandbox.user = (0, 0);
    refused(&mut world, "ifconfig lo down");
    world.sandbox.require = vec!["capabilities".to_owned()];
    assert_eq!(world.shell("echo none"), "none\n");
    world.sandbox.capabilities = named("KILL");
    assert!(matches!(world.run(&["true"]), Err(Error::Required { .. })));
}

#[test]
fn what_is_the_hosts_is_not_seen() {
    let Some(mut world) = World::new() else { return };
    // Processes: the shell, process 1, and what the shell starts.
    let count: u32 = world.shell("ls /proc | grep -c '^[0-9]'").trim().parse().unwrap();
    assert!(count <= 4, "{count} processes");
    assert_eq!(world.shell("env | grep -v -e ^PATH= -e ^PWD= -e ^SHLVL= -e ^_= | wc -l"), "0\n");
    assert_eq!(world.shell("cat /proc/self/cgroup | grep -v ':/$' | wc -l"), "0\n");
    assert_eq!(world.shell("hostname"), "inside\n");
    for script in [
        "dmesg",
        "cat /dev/kmsg",
        "cat /proc/kmsg",
        "cat /proc/kcore | head -c 1 | grep .",
        "grep . /proc/keys",
        "grep . /proc/timer_list",
        "grep . /proc/interrupts",
        "ls /dev/sda /dev/vda /dev/mem /dev/kvm /dev/fuse /dev/loop0 /dev/net/tun",
        "grep -v -e '^ *lo:' -e '|' /proc/net/dev",
        "grep -q 'ffffffff[0-9a-f]*[1-9a-f]' /proc/kallsyms",
    ] {
        refused(&mut world, script);
    }
    if !is_root() {
        return;
    }
    // Another user's file under a bind is another user's, also for root inside, who has no power over it.
    let secret = world.path("secret");
    fs::write(&secret, "secret").unwrap();
    std::os::unix::fs::chown(&secret, Some(4321), Some(4321)).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    world.bind(secret, "/secret", false);
    refused(&mut world, "cat /secret");
}

#[test]
fn what_may_not_be_written_is_not() {
    let Some(mut world) = World::new() else { return };
    for script in [
        "echo 1 > /proc/sys/kernel/panic",
        "echo x > /proc/sys/kernel/modprobe",
        "echo b > /proc/sysrq-trigger",
        "echo 1 > /proc/irq/default_smp_affinity",
        "echo -1000 > /proc/1/oom_score_adj",
        "echo 0 > /proc/1/uid_map",
        "touch /sys/kernel/x",
        "echo 1 > /sys/kernel/mm/transparent_hugepage/enabled",
        "mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk",
        "echo x > /dev/pts/ptmx/x",
    ] {
        refused(&mut world, script);
    }
    world.sandbox.root.writable = Writable::No;
    for script in ["touch /x", "rm /etc/motd", "echo x > /bin/busybox", "mkdir /etc/new"] {
        refused(&mut world, script);
    }
}

#[test]
fn output_is_counted_and_a_flood_is_ended() {
    let Some(mut world) = World::new() else { return };
    world.sandbox.bounds.output = Some(100_000);
    let outcome = world.run(&["sh", "-c", "while true; do echo 0123456789; echo to stderr >&2; done"]).unwrap();
    assert_eq!((outcome.ending, outcome.met), (Ending::TooMuchOutput, vec!["output"]));
    let (stdout, stderr) = (world.stdout().len(), world.stderr().len());
    assert_eq!(stdout + stderr, 100_000);
    world.sandbox.bounds.output = Some(6);
    let outcome = world.run(&["sh", "-c", "echo 12345"]).unwrap();
    assert_eq!((outcome.ending, world.stdout().as_str()), (Ending::Exited(0), "12345\n"));
}

#[test]
fn memory_file_systems_and_descriptors_are_bounded() {
    let Some(mut world) = World::new() else { return };
    world.sandbox.bounds.memory_files = Some(1 << 20);
    let fill = |place: &str| {
        format!("dd if=/dev/zero of={place}/file bs=64k count=64; status=$?; ls -l {place}/file >&2; exit $status")
    };
    for place in ["/tmp", "/dev/shm", "/etc", ""] {
        refused(&mut world, &fill(place));
        assert!(world.stderr().contains("No space left"), "{place}: {}", world.stderr());
    }
    world.sandbox.memory_mounts = vec![MemoryMount { target: "/run/own".into(), size: Some(1 << 18), mode: 0o700 }];
    refused(&mut world, &fill("/run/own"));
    assert_eq!(world.shell("stat -c %a /run/own"), "700\n");
    world.sandbox.bounds.resources = vec![ResourceLimit { resource: Resource::Nofile, soft: Some(10), hard: Some(12) }];
    assert_eq!(world.shell("ulimit -n; ulimit -Hn"), "10\n12\n");
    refused(&mut world, "ulimit -n 13");
    refused(&mut world, "exec 9</etc/motd; exec 11</etc/motd");
}

#[test]
fn processors_are_chosen() {
    let Some(mut world) = World::new() else { return };
    world.sandbox.bounds.cores = Some([0].into());
    let outcome = world.run(&["nproc"]).unwrap();
    assert_eq!(world.stdout(), "1\n", "{outcome:?}");
}

#[test]
fn what_was_given_is_recorded() {
    let Some(mut world) = World::new() else { return };
    world.sandbox.limits.pids = Some(30);
    let outcome = world.run(&["sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"]).unwrap();
    for name in ["mount", "pid", "ipc", "uts", "network", "cgroup"] {
        assert_eq!(outcome.isolation[name], "own", "{name}");
    }
    assert_eq!((outcome.isolation["capabilities"].as_str(), outcome.isolation["seccomp"].as_str()), ("none", "filter"));
    assert!(
        ["cgroup v1", "cgroup v2", "rlimit"].contains(&outcome.isolation["pids"].as_str())
            || !outcome.missing.is_empty()
    );
    assert!(outcome.usage.user + outcome.usage.system > Duration::ZERO && outcome.peak_memory > 0, "{outcome:?}");
    world.sandbox.network = Network::Host;
    assert_eq!(world.run(&["true"]).unwrap().isolation["network"], "host");
}

#[test]
fn a_device_and_a_made_file_are_shown() {
    let Some(mut world) = World::new() else { return };
    world.sandbox.devices = vec![Device { source: "/dev/zero".into(), target: "/dev/own-zero".into() }];
    world.sandbox.contents = vec![Content { target: "/etc/hosts".into(), bytes: b"192.0.2.1 far\n".to_vec() }];
    assert_eq!(world.shell("head -c 3 /dev/own-zero | wc -c; cat /etc/hosts"), "3\n192.0.2.1 far\n");
    assert!(!world.lower().join("etc/hosts").exists());
}

/// A port of the host's side that nobody has: below those that the kernel gives to whoever connects. It is not bound to find out: what
/// another test forks just then would keep it for a moment.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    (0..10_000)
        .map(|_| 20_000 + (std::process::id() as u16 % 100 * 100 + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000)
        .find(|port| TcpStream::connect(("127.0.0.1", *port)).is_err())
        .unwrap()
}

/// What holds soon: a process that another test just forked has our sockets until it closes them.
fn soon<T>(attempt: impl Fn() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(start.elapsed() < Duration::from_secs(40), "not soon");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Publishes port 80 of a world at the port that is given back.
fn publish(world: &mut World) -> u16 {
    let outside = free_port();
    let address = "127.0.0.1".parse().unwrap();
    world.sandbox.published = vec![Published { address, outside, inside: "80".parse().unwrap() }];
    world.sandbox.limits.timeout_millis = Some(60_000);
    outside
}

/// Asks until somebody answers.
fn ask(port: u16, question: &'static [u8]) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        // Those who come before the program listens are turned away, not kept waiting.
        soon(|| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
            let mut answer = Vec::new();
            // Whoever is turned away may hear of it at any of these.
            let _ = stream.write_all(question).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
            let _ = stream.read_to_end(&mut answer);
            (!answer.is_empty()).then_some(answer)
        })
    })
}

#[test]
fn a_published_port_is_reached_and_nothing_else_opens() {
    let Some(mut world) = World::new() else { return };
    let port = publish(&mut world);
    let client = ask(port, b"question\n");
    // Port 80 without any capability.
    let script = "nc -l -p 80 -e sh -c 'read line; echo heard $line'; ls /sys/class/net";
    let outcome = world.run(&["sh", "-c", script]).unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(client.join().unwrap(), b"heard question\n", "{outcome:?} {}", world.stderr());
    assert_eq!(world.stdout(), "lo\n");
    // With the run the listener has gone.
    let _taken = soon(|| TcpListener::bind(("127.0.0.1", port)).ok());
    // A port that somebody has is said before anything begins.
    assert!(matches!(world.run(&["true"]), Err(Error::Port { .. })));
}

#[test]
fn what_was_answered_last_arrives() {
    let Some(mut world) = World::new() else { return };
    let port = publish(&mut world);
    let client = ask(port, b"");
    // The command ends with its answer: megabytes are on their way then.
    let outcome = world.run(&["sh", "-c", "exec nc -l -p 80 -e head -c 3000000 /dev/zero"]).unwrap();
    assert_eq!(client.join().unwrap().len(), 3_000_000, "{outcome:?} {}", world.stderr());
}
