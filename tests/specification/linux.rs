//! config-linux.md and the mounts of config.md: namespaces, devices, masks, mounts, kernel settings, seccomp.

use std::fs;

use serde_json::json;

use super::{Judge, mount, with};

#[test]
fn namespaces_are_new_joined_or_inherited() {
    let Some(judge) = Judge::new() else { return };
    let names = ["pid", "ipc", "uts", "mnt", "net"];
    let script = "for name in pid ipc uts mnt net; do readlink /proc/self/ns/$name; done";
    let host: Vec<String> = names
        .iter()
        .map(|name| fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string())
        .collect();
    let inside: Vec<String> = judge.run("new", &Judge::config(script)).lines().map(str::to_owned).collect();
    assert!(host.len() == inside.len() && host.iter().zip(&inside).all(|(host, inside)| host != inside), "{inside:?}");
    // "If a namespace type is not specified …, the container MUST inherit the runtime namespace of that type";
    // with a path "the runtime MUST place the container process in the namespace associated with that path".
    let config = with(Judge::config(script), |config| {
        config.as_object_mut().unwrap().remove("hostname");
        config["linux"]["namespaces"] =
            json!([{ "type": "pid" }, { "type": "mount" }, { "type": "network", "path": "/proc/self/ns/net" }]);
    });
    let inside: Vec<String> = judge.run("inherited", &config).lines().map(str::to_owned).collect();
    assert_eq!((&inside[1], &inside[2], &inside[4]), (&host[1], &host[2], &host[4]));
    assert!(inside[0] != host[0] && inside[3] != host[3]);
}

#[test]
fn ids_are_mapped_as_configured() {
    let Some(judge) = Judge::new() else { return };
    let config = with(Judge::config("tr -s ' ' < /proc/self/uid_map; tr -s ' ' < /proc/self/gid_map"), |config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        config["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 0, "size": 10 }]);
        config["linux"]["gidMappings"] = json!([{ "containerID": 0, "hostID": 0, "size": 20 }]);
    });
    assert_eq!(judge.run("mapped", &config), " 0 0 10\n 0 0 20\n");
}

#[test]
fn default_devices_and_links_are_there() {
    let Some(judge) = Judge::new() else { return };
    let script = "for name in null zero full random urandom tty; do stat -c '%n %t:%T %F' /dev/$name; done; \
        for name in fd stdin stdout stderr; do readlink /dev/$name; done; readlink /dev/ptmx | sed 's,^/dev/,,'";
    let printed = judge.run("devices", &Judge::config(script));
    let expected = "/dev/null 1:3 character special file\n/dev/zero 1:5 character special file\n/dev/full 1:7 character special file\n\
        /dev/random 1:8 character special file\n/dev/urandom 1:9 character special file\n/dev/tty 5:0 character special file\n\
        /proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n";
    assert_eq!(printed, expected);
    let config = with(Judge::config("stat -c '%t:%T %a %u:%g' /dev/extra"), |config| {
        config["linux"]["devices"] = json!([{ "path": "/dev/extra", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 3, "gid": 4 }]);
    });
    assert_eq!(judge.run("extra-device", &config), "1:5 640 3:4\n");
}

#[test]
fn the_root_is_read_only_if_it_says_so() {
    let Some(judge) = Judge::new() else { return };
    let printed = judge.run("read-only", &Judge::config("touch /data/x 2> /dev/null && echo written || echo refused"));
    assert_eq!(printed, "refused\n");
    assert!(!super::root().unwrap().join("data/x").exists());
}

#[test]
fn masked_and_read_only_paths_are_so() {
    let Some(judge) = Judge::new() else { return };
    let script = "cat /etc/secret; ls -A /data | wc -l; echo 1 > /proc/sys/kernel/domainname 2> /dev/null || echo refused; cat /proc/kcore | wc -c";
    let config = with(Judge::config(script), |config| {
        config["linux"]["maskedPaths"] = json!(["/etc/secret", "/data", "/proc/kcore", "/proc/no-such"]);
        config["linux"]["readonlyPaths"] = json!(["/proc/sys", "/no/such"]);
    });
    fs::write(super::root().unwrap().join("data/.keep"), "").unwrap();
    assert_eq!(judge.run("masked", &config), "0\nrefused\n0\n");
}

#[test]
fn mounts_are_made_in_their_order_with_their_options() {
    let Some(judge) = Judge::new() else { return };
    let source = judge.path("source");
    fs::create_dir_all(source.join("sub")).unwrap();
    fs::write(source.join("file"), "from outside\n").unwrap();
    let script = "cat /tmp/bound/file; touch /tmp/bound/x 2> /dev/null || echo refused; \
        grep ' /tmp/bound ' /proc/self/mountinfo | cut -d' ' -f6 | tr ',' '\\n' | sort | grep -E '^(ro|nosuid|nodev|noexec)$' | tr '\\n' ' '; echo; \
        ls /tmp/bound/sub; stat -c %a /tmp/late";
    let config = with(Judge::config(script), |config| {
        let options = json!(["bind", "ro", "nosuid", "nodev", "noexec"]);
        mount(config, json!({ "destination": "/tmp/bound", "type": "bind", "source": source, "options": options }));
        // Over what was mounted before it.
        mount(
            config,
            json!({ "destination": "/tmp/late", "type": "tmpfs", "source": "tmpfs", "options": ["mode=0711", "size=4096"] }),
        );
    });
    assert_eq!(judge.run("mounts", &config), "from outside\nrefused\nnodev noexec nosuid ro \n711\n");
    let absent = with(Judge::config("true"), |config| {
        mount(
            config,
            json!({ "destination": "/tmp/x", "type": "bind", "source": "/no/such/source", "options": ["bind"] }),
        );
    });
    judge.refused("absent-source", &absent);
}

#[test]
fn a_link_in_the_root_leads_no_mount_out_of_it() {
    let Some(judge) = Judge::new() else { return };
    let outside = judge.path("outside");
    fs::create_dir_all(&outside).unwrap();
    let root = judge.path("linked");
    let copied = std::process::Command::new("cp").arg("-a").arg(super::root().unwrap()).arg(&root).status().unwrap();
    assert!(copied.success());
    std::os::unix::fs::symlink(&outside, root.join("escape")).unwrap();
    let config = with(Judge::config("true"), |config| {
        config["root"] = json!({ "path": root });
        mount(config, json!({ "destination": "/escape/in", "type": "tmpfs", "source": "tmpfs" }));
    });
    judge.run("link", &config);
    assert!(fs::read_dir(&outside).unwrap().next().is_none(), "a mount point was made outside");
}

#[test]
fn kernel_settings_of_a_namespace_are_set() {
    let Some(judge) = Judge::new() else { return };
    let config = with(Judge::config("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced"), |config| {
        config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1" });
    });
    assert_eq!(judge.run("settings", &config), "1\n1\n");
}

#[test]
fn seccomp_refuses_what_it_names() {
    let Some(judge) = Judge::new() else { return };
    let config = with(Judge::config("mkdir /tmp/a 2>&1 | sed 's/.*: //'; touch /tmp/b && echo touched"), |config| {
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 }],
        });
    });
    assert_eq!(judge.run("seccomp", &config), "No space left on device\ntouched\n");
}

#[test]
fn propagation_of_the_root_is_as_configured() {
    let Some(judge) = Judge::new() else { return };
    let script = "grep ' / / \\| / ' /proc/self/mountinfo | tail -n 1 | grep -o 'shared:\\|unbindable\\|master:' || echo private";
    let config = with(Judge::config(script), |config| config["linux"]["rootfsPropagation"] = json!("private"));
    assert_eq!(judge.run("private", &config), "private\n");
}
