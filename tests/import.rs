//! Artifacts, archives and directories come back: `forge import`, `forge inspect`, and running an artifact in place.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

use crate::world::{Ran, World, have, small};

/// Exports the small formation into a world of its own.
fn exported(format: &str) -> (World, String, std::path::PathBuf) {
    let (from, id) = small();
    let world = World::new();
    let path = world.path(format!("small-1-linux-amd64.{format}"));
    from.forge(["export", id, "--format", format, "-o", path.to_str().unwrap()]).ok();
    (world, id.clone(), path)
}

#[test]
fn what_forge_exported_is_imported_to_the_same_id_and_runs() {
    for format in ["squashfs", "tar", "sif", "oci"] {
        let (world, id, path) = exported(format);
        let path = path.to_str().unwrap();
        let inspected = world.forge(["inspect", path, "--json"]).json();
        assert_eq!(inspected["formation"]["id"], id.as_str());
        assert!(inspected["format"].as_str().unwrap().starts_with(format), "{inspected}");
        assert_eq!(world.forge(["list", "--json"]).json()["total"], 0, "nothing was unpacked");
        let imported = world.forge(["import", path]);
        assert_eq!((imported.id(), imported.stderr.as_str()), (id.clone(), ""));
        assert_eq!(world.forge(["run", "small"]).ok().stdout, "hello, world\n");
        world.forge(["verify"]).ok();
        let text = world.forge(["inspect", path, "--digest", "--verify"]).ok().stdout.clone();
        assert!(text.contains("holds the formation that it claims") && text.contains("sha256"), "{text}");
    }
}

#[test]
fn an_artifact_says_how_it_is_run_and_the_terminal_only_shows_it() {
    let world = World::new();
    world.write(
        "said.expr",
        r#"{ forge }: forge.formation {
          name = "said"; layers = [ (forge.files { "/a" = "a"; }) ]; entrypoint = [ "/entry" ]; command = [ "a b" ];
          environment.COLOR = "blue"; user = "web:7"; directory = "/srv"; ports = [ 80 "53/udp" ]; stopSignal = "SIGINT";
          labels."org.example" = builtins.fromJSON "\"red \\u001b[31m\"";
        }"#,
    );
    let id = world.build("said.expr");
    for format in ["squashfs", "sif", "oci"] {
        world.forge(["export", &id, "--format", format, "-o", "artifact", "-f"]).ok();
        for command in [["inspect", "./artifact"], ["info", &id]] {
            let text = world.forge(command).ok().stdout.clone();
            for line in [
                "entrypoint   /entry",
                "command      'a b'",
                "directory    /srv",
                "user         web:7",
                "ports        53/udp, 80/tcp",
                "stop signal  SIGINT",
                "environment  COLOR=blue",
                "label        org.example=red \u{fffd}[31m",
            ] {
                assert!(text.lines().any(|said| said == line), "{format}: {line}: {text}");
            }
        }
    }
}

#[test]
fn an_artifact_is_run_in_place_and_read_once() {
    let (world, id, path) = exported("squashfs");
    let given = path.to_str().unwrap();
    assert_eq!(world.forge(["run", given]).ok().stdout, "hello, world\n");
    // It is remembered by its inode, size and times.
    let claims = fs::read_dir(world.store().join("claims/files")).unwrap().count();
    assert_eq!(claims, 1);
    assert_eq!(world.forge(["run", given, "--", "cat", "/etc/greeting"]).ok().stdout, "good day\n");
    assert_eq!(world.forge(["list", "--json"]).ok().stdout.matches(id.as_str()).count(), 1);
    // A changed file is another one: a byte of its data differs, and it is not what it claims to be.
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let refused = world.forge(["run", given]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(125), ""), "{}", refused.stderr);
    assert_eq!(world.forge(["import", given]).code, Some(13));
}

#[test]
fn an_artifact_that_lies_about_its_content_is_found_out() {
    let (world, _, path) = exported("tar");
    // The same claim over another content: one letter of a script.
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(6).position(|window| window == b"hello,").unwrap();
    bytes[at] = b'H';
    fs::write(&path, bytes).unwrap();
    for command in [&["import"][..], &["inspect", "--verify"]] {
        let refused = world.forge([command, &[path.to_str().unwrap()]].concat());
        assert_eq!(refused.code, Some(13), "{}", refused.stderr);
        assert!(refused.stderr.contains("claims to be formation") && refused.stderr.contains("hint:"));
    }
    assert_eq!(world.forge(["list", "--json"]).json()["total"], 0);
}

#[test]
fn a_directory_is_imported_as_a_source_unless_it_is_to_be_kept() {
    let world = World::new();
    let directory = world.path("out/tool-2.1-lean");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("program"), "x").unwrap();
    fs::set_permissions(directory.join("program"), fs::Permissions::from_mode(0o710)).unwrap();
    symlink("program", directory.join("link")).unwrap();
    let given = directory.to_str().unwrap();
    let plain = world.forge(["import", given, "--json"]).json();
    assert_eq!([&plain["name"], &plain["version"], &plain["variant"]], ["tool", "2.1", "lean"]);
    let kept = world.forge(["import", "--keep", given, "--name", "kept", "--json"]).json();
    assert_ne!(plain["root"], kept["root"]);
    fs::set_permissions(directory.join("program"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(world.forge(["import", given, "--json"]).json()["id"], plain["id"], "0710 and 0755 are both executable");
    assert_eq!(world.forge(["import", "/nowhere/at/all"]).code, Some(10));
    assert_eq!(world.forge(["import", given, "--name", "no/name"]).code, Some(2));
}

#[test]
fn a_runtime_that_joblet_installed_is_imported_with_what_it_says_of_itself() {
    let world = World::new();
    // With a directory for the version, and without.
    for place in ["out/runtimes/tool/1.2.0", "out/runtimes/flat"] {
        let directory = world.path(place);
        fs::create_dir_all(directory.join("isolated/usr/bin")).unwrap();
        fs::write(directory.join("isolated/usr/bin/tool"), "x").unwrap();
        let description = "name: tool\nversion: 1.2.0\ndescription: A tool\nlanguage: python\nlanguage_version: \"3.11\"\n\
            environment:\n  PYTHONUNBUFFERED: \"1\"\npackages:\n  - numpy==1.26.4\n\
            mounts:\n  - source: isolated/usr\n    target: /usr\n    readonly: true\n\
            build_info:\n  built_at: 2025-01-01T00:00:00Z\n  built_with: joblet\n  platform: ubuntu-amd64\n";
        fs::write(directory.join("runtime.yml"), description).unwrap();
        let imported = world.forge(["import", directory.to_str().unwrap(), "--json"]).json();
        assert_eq!([&imported["name"], &imported["version"]], ["tool", "1.2.0"]);
        let info = world.forge(["info", "tool", "--json"]).json();
        assert_eq!((&info["description"], &info["files"]), (&"A tool".into(), &1.into()), "{info}");
        assert!(info.to_string().contains("PYTHONUNBUFFERED") && info["type"] == "python", "{info}");
        let shown = world.forge(["export", "tool", "--format", "tar", "-o", "-"]).ok().stdout.clone();
        assert!(shown.contains("usr/bin/tool") && !shown.contains("isolated"));
        let same =
            "schema_version: \"1.0\"\nname: tool\nversion: 1.2.0\nbase:\n  language: python\n  version: \"3.11\"\n";
        let validated = world.forge(["validate", world.write("runtime.yaml", same).to_str().unwrap()]);
        assert_eq!(validated.code, Some(0), "{}", validated.stderr);
        assert!(validated.stderr.contains("`tool@1.2.0` is in the store already"), "{}", validated.stderr);
        let other = world.write("other/runtime.yaml", &same.replace("1.2.0", "1.2.1"));
        let validated = world.forge(["validate", other.to_str().unwrap()]);
        assert!(!validated.stderr.contains("already"), "{}", validated.stderr);
        fs::write(directory.join("runtime.yml"), "name: [\n").unwrap();
        assert_eq!(world.forge(["import", directory.to_str().unwrap()]).code, Some(1));
    }
}

#[test]
fn a_tar_of_others_is_imported_from_a_file_and_a_pipe() {
    if !have("tar") {
        return;
    }
    let world = World::new();
    let directory = world.path("out/root");
    fs::create_dir_all(directory.join("bin")).unwrap();
    fs::write(directory.join("bin/tool"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(directory.join("bin/tool"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::hard_link(directory.join("bin/tool"), directory.join("bin/other")).unwrap();
    let archive = world.path("out/mine-3.tar.gz");
    let tar = Command::new("tar").arg("-czf").arg(&archive).arg("-C").arg(&directory).arg(".").status().unwrap();
    assert!(tar.success());
    let id = world.forge(["import", archive.to_str().unwrap()]).id();
    let info = world.forge(["info", "mine", "--json"]).json();
    assert_eq!((info["id"].as_str().unwrap(), info["version"].as_str().unwrap()), (id.as_str(), "3"));
    assert_eq!(info["files"], 2);
    let mut command = world.command(["import", "-", "--name", "mine", "--version", "3"]);
    command.stdin(Stdio::from(fs::File::open(&archive).unwrap()));
    assert_eq!(Ran::of(command.output().unwrap()).id(), id);
    // Bytes that are nothing.
    fs::write(&archive, "no archive").unwrap();
    assert_eq!(world.forge(["import", archive.to_str().unwrap()]).code, Some(1));
    assert_eq!(world.forge_with_input(["import", "-"], b"no archive").code, Some(13));
}
