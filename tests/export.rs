//! `forge export`: the same bytes whoever packs them where, nothing half-written, and what was packed before is copied.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::world::{Ran, World, have, is_root};

/// A directory as a formation, without network: some text, something that does not compress, an executable.
fn imported(world: &World) -> String {
    let root = world.path("project/root");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::write(root.join("bin/tool"), "#!/bin/sh\necho tool\n").unwrap();
    fs::set_permissions(root.join("bin/tool"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(root.join("bin"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    let files = [("text", b"to be or not to be\n".repeat(20_000)), ("noise", (0..400_000).map(|_| noise()).collect())];
    for (name, bytes) in files {
        fs::write(root.join(name), bytes).unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    world.forge(["import", root.to_str().unwrap()]).id()
}

#[test]
fn the_same_bytes_in_another_store_zone_language_place_by_another_user_and_number_of_threads() {
    let (first, second) = (World::new(), World::of_ordinary_user().unwrap_or_else(World::new));
    let (id, other) = (imported(&first), imported(&second));
    assert_eq!(id, other);
    for format in ["squashfs", "sif", "oci", "tar"] {
        let (one, two) = (first.path("out/one"), second.path("project/two"));
        let ran = first.forge(["export", &id, "--format", format, "--sha256", "-o", one.to_str().unwrap(), "-f"]);
        ran.ok();
        let mut command = second.wrapped(&["sh", "-c", "umask 077; exec \"$@\"", "sh"], ["export", &id, "-f"]);
        command.args(["--format", format, "--fresh", "-o", two.to_str().unwrap()]);
        command.env("TZ", "Pacific/Auckland").env("LC_ALL", "tr_TR.UTF-8").env("RAYON_NUM_THREADS", "1");
        command.env("SOURCE_DATE_EPOCH", "86400");
        Ran::of(command.current_dir("/").output().unwrap()).ok();
        assert!(fs::read(&one).unwrap() == fs::read(&two).unwrap(), "{format} differs");
        assert_eq!(fs::metadata(&two).unwrap().permissions().mode() & 0o7777, 0o644);
        // What is printed is what others compute.
        if have("sha256sum") {
            let sum = Command::new("sha256sum").arg(&one).output().unwrap();
            let sum = String::from_utf8_lossy(&sum.stdout)[..64].to_owned();
            assert!(ran.stdout.contains(&format!("sha256 {sum}\n")), "{}", ran.stdout);
        }
        let inspected = first.forge(["inspect", "--digest", "--json", one.to_str().unwrap()]).json();
        let blake3 = inspected["blake3"].as_str().unwrap();
        assert!(ran.stdout.contains(&format!("blake3 {blake3}\n")), "{}", ran.stdout);
        let again = first.forge(["export", &id, "--format", format, "-f", "-o", one.to_str().unwrap()]);
        assert_eq!(again.stdout, format!("blake3 {blake3}\n{}\n", one.display()));
        assert!(ran.stdout.ends_with(&format!("{}\n", one.display())), "{}", ran.stdout);
    }
}

#[test]
fn what_was_exported_before_is_copied_unless_asked_otherwise() {
    let world = World::new();
    let id = imported(&world);
    let export = |name: &str, more: &[&str]| {
        let path = world.path("out").join(name);
        let mut arguments = vec!["export", &id, "--json", "-o", path.to_str().unwrap()];
        arguments.extend(more);
        let json = world.forge(arguments).json();
        (json["copied"].as_u64().unwrap(), json["blake3"].as_str().unwrap().to_owned())
    };
    let (nothing, digest) = export("1", &[]);
    let (all, again) = export("2", &[]);
    assert_eq!((nothing, &digest), (0, &again));
    assert!(all > 400_000);
    assert_eq!(export("3", &["--fresh"]), (0, digest.clone()));
    // SIFs and squashfs images hold the same blocks.
    assert!(export("4", &["--format", "sif"]).0 > 400_000);
    let other = export("5", &["--compression", "gzip:6"]);
    assert!(other.0 == 0 && other.1 != digest);
    let moved = world.path("moved");
    fs::rename(world.path("out/1"), &moved).unwrap();
    assert_eq!(export("6", &["--from", moved.to_str().unwrap()]), (all, digest));
    let foreign = world.write("foreign", "no artifact");
    let ran = world.forge(["export", &id, "--from", foreign.to_str().unwrap(), "-o", "x"]);
    assert_eq!(ran.code, Some(10), "{}", ran.stderr);
    assert!(ran.stderr.contains("remembers nothing") && !world.path("project/x").exists(), "{}", ran.stderr);
    let ran = world.forge(["export", &id, "--compression", "zstd:99", "-o", "x"]);
    assert!(ran.code == Some(2) && ran.stderr.contains("zstd:22"), "{}", ran.stderr);
}

#[test]
fn a_full_disk_leaves_no_half_artifact() {
    let world = World::new();
    if !is_root() {
        eprintln!("skipped: only root can mount a small file system");
        return;
    }
    let id = imported(&world);
    let full = world.path("full");
    fs::create_dir(&full).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&full).output().unwrap();
    if !mount.status.success() {
        eprintln!("skipped: {}", String::from_utf8_lossy(&mount.stderr));
        return;
    }
    let ran: Vec<Ran> = ["squashfs", "sif", "tar"]
        .map(|format| world.forge(["export", &id, "--format", format, "-o", full.join("x").to_str().unwrap()]))
        .into();
    let left = |path: &Path| fs::read_dir(path).unwrap().count();
    let left = left(&full);
    assert!(Command::new("umount").arg(&full).status().unwrap().success());
    for ran in &ran {
        assert_eq!(ran.code, Some(14), "{}", ran.stderr);
    }
    assert_eq!(left, 0);
}
