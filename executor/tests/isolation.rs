//! What a command cannot see, write or do, whatever its layers contain.
#![allow(missing_docs)]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use common::{World, chain, is_root};
use executor::{Ending, MemoryMount, Network, Writable};

#[test]
fn nothing_of_the_host_is_mounted() {
    let Some(mut world) = World::new() else { return };
    let mounts = world.shell("awk '{print $5, $9}' /proc/self/mountinfo");
    let points: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').next()).collect();
    let known = ["/", "/dev", "/proc", "/sys", "/tmp"];
    for point in &points {
        let below = ["/dev/", "/proc/", "/sys/"].iter().any(|parent| point.starts_with(parent));
        assert!(known.contains(point) || below, "{mounts}");
    }
    assert_eq!(points.iter().filter(|point| **point == "/").count(), 1, "{mounts}");
}

#[test]
fn it_has_no_capabilities_and_gains_none() {
    let Some(mut world) = World::new() else { return };
    for user in [(0, 0), (1000, 1000)] {
        world.sandbox.user = user;
        let status = world.shell("grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups)' /proc/self/status");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert!(status.contains(&format!("{set}:\t0000000000000000\n")), "{status}");
        }
        assert!(status.contains("NoNewPrivs:\t1\n") && status.contains("Seccomp:\t2\n"), "{status}");
        if is_root() {
            // Its own group and no other of the caller's.
            assert!(status.contains(&format!("Groups:\t{} \n", user.1)), "{status}");
        }
    }
}

#[test]
fn it_is_in_namespaces_of_its_own() {
    let Some(mut world) = World::new() else { return };
    for kind in ["user", "mnt", "pid", "ipc", "uts", "net", "cgroup"] {
        let inside = world.shell(&format!("readlink /proc/self/ns/{kind}"));
        let outside = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_ne!(inside.trim_end(), outside.to_str().unwrap(), "{kind}");
    }
}

#[test]
fn calls_that_reach_into_the_kernel_are_refused() {
    let Some(mut world) = World::new() else { return };
    for script in [
        "mount -t tmpfs none /lower-only",
        "umount /proc",
        "umount -l /tmp",
        "unshare -U true",
        "unshare -r -m true",
        "chroot / true",
        "mknod /tmp/disk b 8 0",
        "hostname other",
        "dd if=/dev/zero of=/proc/sysrq-trigger count=1",
        "echo 1 > /proc/sys/kernel/core_pattern",
        "echo 1 > /proc/sys/vm/drop_caches",
        "echo 0 > /proc/sys/net/ipv4/ip_forward",
        "cat /proc/1/environ",
        "readlink /proc/1/fd/0",
        "readlink /proc/1/exe",
        "ls /proc/1/root/",
        "dd if=/proc/1/mem of=/dev/null count=1",
        "cat /proc/1/exe > /tmp/forge",
        "kill -9 1; sleep 0.2; exit 1",
        "touch /sys/x",
        "ifconfig lo down",
    ] {
        let outcome = world.run(&["sh", "-c", script]).unwrap();
        assert!(matches!(outcome.ending, Ending::Exited(status) if status != 0), "{script}: {outcome:?}");
    }
    assert_eq!(
        world.shell("cat /proc/kcore /proc/keys /proc/timer_list /proc/sysrq-trigger 2>/dev/null | wc -c"),
        "0\n"
    );
    assert_eq!(
        world.shell("ls -A /proc/acpi /proc/scsi /sys/firmware 2>/dev/null | grep -v -e : -e '^$' | wc -l"),
        "0\n"
    );
}

#[test]
fn its_devices_are_those_that_programs_need() {
    let Some(mut world) = World::new() else { return };
    let names = "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero";
    assert_eq!(world.shell("ls -A /dev").split_ascii_whitespace().collect::<Vec<_>>().join(" "), names);
    assert_eq!(world.shell("echo x > /dev/null; dd if=/dev/zero bs=10 count=1 2>/dev/null | wc -c"), "10\n");
    assert_eq!(
        world.shell("stat -c %a /dev/shm /tmp; touch /dev/shm/x /tmp/x; ls -A /tmp /dev/shm"),
        "1777\n1777\n/dev/shm:\nx\n\n/tmp:\nx\n"
    );
    let outcome = world.run(&["sh", "-c", "echo x > /dev/full"]).unwrap();
    assert_eq!(outcome.ending, Ending::Exited(1));
}

#[test]
fn it_has_a_loopback_and_nothing_else() {
    let Some(mut world) = World::new() else { return };
    assert_eq!(world.shell("ls /sys/class/net; cat /proc/net/dev | grep -c :"), "lo\n1\n");
    assert_eq!(world.shell("(echo hello | nc -l -p 5000 &) ; sleep 0.3; nc 127.0.0.1 5000 < /dev/null"), "hello\n");
    world.sandbox.network = Network::Host;
    let outside = fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(world.shell("readlink /proc/self/ns/net").trim_end(), outside.to_str().unwrap());
    assert_eq!(world.shell("ls -A /sys"), "");
}

/// CVE-2025-31133 and CVE-2025-62161 are of this kind.
#[test]
fn symlinks_in_a_layer_lead_nowhere() {
    let Some(mut world) = World::new() else { return };
    let victim = world.path("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("file"), "precious").unwrap();
    let escape = format!("../../../../../../../..{}", victim.display());
    for name in ["proc", "dev", "tmp", "sys"] {
        for target in
            [victim.to_str().unwrap(), escape.as_str(), "/proc/1/root", "/proc/self/cwd", "..", "/etc/motd", name]
        {
            let place = world.lower().join(name);
            let _ = fs::remove_dir(&place);
            symlink(target, &place).unwrap();
            // It runs in its own root, or is refused; what it does to these places never reaches the host.
            let _ =
                world.run(&["sh", "-c", "touch /proc/new /dev/new /tmp/new /sys/new; echo overwritten > /tmp/file"]);
            fs::remove_file(&place).unwrap();
            fs::create_dir(&place).unwrap();
            assert_eq!(fs::read_to_string(victim.join("file")).unwrap(), "precious");
            assert_eq!(fs::read_dir(&victim).unwrap().count(), 1, "{name} -> {target}");
        }
    }
    symlink(&victim, world.lower().join("hole")).unwrap();
    let own = world.path("own");
    fs::create_dir(&own).unwrap();
    world.bind(own.clone(), "/hole/deep/er", false);
    world.shell("touch /hole/deep/er/mine");
    assert!(own.join("mine").exists());
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 1);
}

#[test]
fn a_dangling_link_is_followed_inside() {
    let Some(mut world) = World::new() else { return };
    // As Debian's /etc/resolv.conf under systemd-resolved.
    symlink("../run/systemd/resolve/stub.conf", world.lower().join("etc/resolv.conf")).unwrap();
    fs::write(world.path("resolv"), "nameserver 192.0.2.1\n").unwrap();
    world.bind(world.path("resolv"), "/etc/resolv.conf", true);
    assert_eq!(
        world.shell("cat /etc/resolv.conf; readlink /etc/resolv.conf"),
        "nameserver 192.0.2.1\n../run/systemd/resolve/stub.conf\n"
    );
}

#[test]
fn a_read_only_bind_is_read_only_with_all_below_and_others_are_not() {
    let Some(mut world) = World::new() else { return };
    fs::create_dir(world.path("data")).unwrap();
    fs::write(world.path("data/in"), "content\n").unwrap();
    world.bind(world.path("data"), "/ro", true);
    world.bind(world.path("data"), "/some/where/rw", false);
    world.bind(world.path("data/in"), "/lower-only/file", true);
    assert_eq!(world.shell("cat /ro/in /lower-only/file; echo out > /some/where/rw/out"), "content\ncontent\n");
    assert_eq!(fs::read_to_string(world.path("data/out")).unwrap(), "out\n");
    let outcome = world.run(&["sh", "-c", "touch /ro/new || touch /lower-only/file"]).unwrap();
    assert_eq!(outcome.ending, Ending::Exited(1));
    assert!(world.stderr().contains("Read-only file system"), "{}", world.stderr());
    assert!(!world.lower().join("some").exists() && !world.lower().join("lower-only/file").exists());
}

#[test]
fn what_lies_deeper_is_mounted_later_in_whichever_order_it_is_named() {
    let Some(mut world) = World::new() else { return };
    for name in ["above", "above/in", "above/memory", "below"] {
        fs::create_dir(world.path(name)).unwrap();
    }
    fs::write(world.path("above/memory/covered"), "").unwrap();
    fs::write(world.path("below/file"), "below\n").unwrap();
    world.bind(world.path("below"), "/data/in", true);
    world.bind(world.path("above"), "/data", false);
    world.sandbox.memory_mounts.push(MemoryMount { target: "/data/memory".into(), size: None, mode: 0o755 });
    assert_eq!(
        world.shell("cat /data/in/file; ls -A /data/memory; touch /data/memory/new; ls /data"),
        "below\nin\nmemory\n"
    );
    assert!(!world.path("above/memory/new").exists());
}

#[test]
fn set_user_id_and_devices_of_a_bind_have_no_effect() {
    let Some(mut world) = World::new() else { return };
    fs::create_dir(world.path("data")).unwrap();
    world.bind(world.path("data"), "/data", false);
    let options = world.shell("awk '$5 == \"/data\" || $5 == \"/\" {print $6}' /proc/self/mountinfo");
    assert_eq!(options.matches("nosuid,nodev").count(), 2, "{options}");
}

#[test]
fn writes_go_to_memory_and_the_checkout_stays_as_it_is() {
    let Some(mut world) = World::new() else { return };
    let before = listing(world.lower());
    let script = "rm -r /lower-only; echo changed > /etc/motd; mkdir /new; touch /new/file; mv /etc /other; \
                  mkdir /lower-only; cat /other/motd; ls /lower-only";
    // Moving a directory of a lower layer is a copy for `mv`, and removing one needs attributes on tmpfs.
    assert_eq!(world.shell(script), "changed\n");
    assert_eq!(listing(world.lower()), before);
    assert_eq!(world.shell("cat /etc/motd; ls /lower-only"), "from the layer\n");
}

#[test]
fn a_read_only_root_refuses_writes_but_has_what_was_mounted() {
    let Some(mut world) = World::new() else { return };
    world.sandbox.root.writable = Writable::No;
    for name in ["proc", "dev", "tmp", "sys"] {
        fs::remove_dir(world.lower().join(name)).unwrap();
    }
    fs::create_dir(world.path("data")).unwrap();
    world.bind(world.path("data"), "/missing/in/the/root", false);
    assert_eq!(world.shell("echo $$; touch /tmp/x /dev/shm/x /missing/in/the/root/x; echo fine"), "2\nfine\n");
    let outcome = world.run(&["touch", "/etc/x"]).unwrap();
    assert_eq!(outcome.ending, Ending::Exited(1));
    assert!(world.stderr().contains("Read-only file system"), "{}", world.stderr());
    assert!(!world.lower().join("missing").exists() && !world.lower().join("proc").exists());
}

#[test]
fn layers_lie_over_one_another() {
    let Some(mut world) = World::new() else { return };
    let upper = world.path("upper-layer");
    fs::create_dir_all(upper.join("etc")).unwrap();
    fs::write(upper.join("etc/motd"), "from above\n").unwrap();
    fs::set_permissions(&upper, fs::Permissions::from_mode(0o751)).unwrap();
    world.sandbox.root.layers.push(upper);
    assert_eq!(world.shell("cat /etc/motd; ls -d /lower-only; stat -c %a /"), "from above\n/lower-only\n751\n");
}

#[test]
fn what_is_kept_is_what_the_command_changed_and_nothing_that_was_mounted() {
    let Some(mut world) = World::new() else { return };
    let kept = world.path("kept");
    fs::create_dir(&kept).unwrap();
    fs::remove_dir(world.lower().join("proc")).unwrap();
    fs::create_dir(world.path("data")).unwrap();
    world.bind(world.path("data"), "/build/in", true);
    world.bind("/dev/null", "/etc/masked", true);
    world.sandbox.root.writable = Writable::Kept(kept.clone());
    world.shell("echo kept > /etc/new; rm /etc/motd; rm -r /lower-only; mkdir /lower-only; echo x > /tmp/x; mkdir -p /build/out");
    assert_eq!(
        listing(&kept.join("upper")),
        ["build/", "build/out/", "etc/", "etc/motd=0:0", "etc/new", "lower-only/"]
    );
    assert!(!kept.join("work").exists());
}

#[test]
fn an_ordinary_owner_is_read_exactly_by_root() {
    if !is_root() {
        eprintln!("skipped: only root can own files as others");
        return;
    }
    let Some(mut world) = World::new() else { return };
    std::os::unix::fs::chown(world.lower().join("etc/motd"), Some(1234), Some(42)).unwrap();
    world.sandbox.user = (1234, 42);
    assert_eq!(
        world.shell("stat -c %u:%g /etc/motd /bin; echo mine > /etc/motd; cat /etc/motd"),
        "1234:42\n0:0\nmine\n"
    );
}

#[test]
fn a_step_believes_that_it_is_root() {
    let Some(mut world) = World::new() else { return };
    let kept = world.path("kept");
    fs::create_dir(&kept).unwrap();
    world.sandbox.root.writable = Writable::Kept(kept.clone());
    world.sandbox.pretend_root = true;
    let script = "id -u; touch /owned; chown 12:34 /owned; stat -c %u:%g /owned; ln -s x /link; chown -h 5:6 /link; \
                  mknod /null c 1 3; stat -c %F /null; ls -A /sys | wc -l; echo $$";
    let outcome = world.run(&["sh", "-c", script]).unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(outcome.ending, Ending::Exited(0), "{}{}", world.stdout(), world.stderr());
    assert_eq!(world.stdout(), "0\n12:34\ncharacter special file\n0\n2\n");
    assert_eq!(fs::read(kept.join("owners")).unwrap(), b"5:6 l link\0");
    let owned = fs::metadata(kept.join("upper/owned")).unwrap();
    assert_eq!(owned.uid(), rustix::process::geteuid().as_raw());
}

#[test]
fn root_reaches_layers_below_what_others_own() {
    if !is_root() {
        eprintln!("skipped: only root can reach what others own");
        return;
    }
    let Some(mut world) = World::new() else { return };
    std::os::unix::fs::chown(world.directory.path(), Some(1234), Some(1234)).unwrap();
    assert_eq!(world.shell("echo plain"), "plain\n");
    world.sandbox.pretend_root = true;
    assert_eq!(world.shell("echo step"), "step\n");
}

/// Every path below a directory, sorted; directories end in a slash, whiteouts of overlayfs say so.
fn listing(directory: &Path) -> Vec<String> {
    fn walk(root: &Path, directory: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            if metadata.is_dir() {
                found.push(format!("{name}/"));
                walk(root, &path, found);
            } else if metadata.mode() & 0o170_000 == 0o020_000 {
                found.push(format!("{name}={}:{}", metadata.rdev() >> 8, metadata.rdev() & 0xff));
            } else {
                found.push(name);
            }
        }
    }
    let mut found = Vec::new();
    walk(directory, directory, &mut found);
    found.sort();
    found
}
