//! `forge export --sign`, `forge sign`, `forge verify FILE`: who signed a SIF is told, and what was changed or is by somebody else
//! is refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::world::{World, have};

/// A key of the fixtures.
fn key(name: &str) -> String {
    format!("{}/../store/tests/keys/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A small formation in the store.
fn formation(world: &World) -> String {
    world.write("root/etc/motd", "hello\n");
    world.forge(["import", "root", "--name", "signed"]).id()
}

/// An unsigned SIF of it.
fn sif(world: &World, id: &str) -> PathBuf {
    let path = world.path("out/x.sif");
    world.forge(["export", id, "--format", "sif", "-f", "-o", path.to_str().unwrap()]).ok();
    path
}

#[test]
fn a_signed_export_is_verified_by_its_key_and_by_no_other() {
    let world = World::new();
    let id = formation(&world);
    let unsigned = sif(&world, &id);
    let path = world.path("out/signed.sif");
    let file = path.to_str().unwrap();
    let exported = ["export", &id, "--format", "sif", "--sign", &key("ed25519.sec.asc"), "-o", file, "--json"];
    let json = world.forge(exported).json();
    assert_eq!(json["signed"], true);
    assert_eq!(json["size"].as_u64().unwrap(), fs::metadata(&path).unwrap().len());

    let verified = world.forge(["verify", file, "--key", &key("ed25519.pub.asc"), "--json"]).json();
    assert_eq!(verified["verified"], true);
    assert_eq!(verified["signatures"].as_array().unwrap().len(), 1);
    let ran = world.forge(["verify", file, "--key", &key("ed25519.pub.asc")]);
    assert!(ran.ok().stdout.starts_with("good "), "{}", ran.stdout);

    let ran = world.forge(["verify", file, "--key", &key("locked.pub.asc")]);
    assert!(ran.code == Some(12) && ran.stderr.contains("trusted"), "{}", ran.stderr);
    let ran = world.forge(["verify", unsigned.to_str().unwrap(), "--key", &key("ed25519.pub.asc")]);
    assert!(ran.code == Some(12) && ran.stderr.contains("it has no signature"), "{}", ran.stderr);
    // The signature is no part of what is run.
    assert_eq!(world.forge(["inspect", file, "--verify", "--json"]).json()["formation"]["id"], id.as_str());
}

#[test]
fn a_byte_that_was_changed_after_signing_is_refused() {
    let world = World::new();
    let id = formation(&world);
    let path = sif(&world, &id);
    let file = path.to_str().unwrap();
    let ran = world.forge(["sign", file, "--key", &key("ed25519.sec.asc")]);
    assert_eq!(ran.ok().stdout, format!("{file}\n"));
    let whole = fs::read(&path).unwrap();
    // In the superblock and the data of the image; what no descriptor names is not signed.
    let image = whole.windows(4).position(|window| window == b"hsqs").unwrap();
    for position in [image + 8, image + 100] {
        let mut changed = whole.clone();
        changed[position] ^= 1;
        fs::write(&path, changed).unwrap();
        let ran = world.forge(["verify", file, "--key", &key("ed25519.pub.asc")]);
        assert!(ran.code == Some(12) && ran.stdout.is_empty(), "byte {position}: {}", ran.stderr);
    }
    fs::write(&path, &whole).unwrap();
    world.forge(["verify", file, "--key", &key("ed25519.pub.asc")]).ok();
}

#[test]
fn a_locked_key_opens_with_its_passphrase_only_and_before_anything_is_written() {
    let world = World::new();
    let id = formation(&world);
    let path = world.path("out/locked.sif");
    let file = path.to_str().unwrap();
    for name in ["locked.sec.asc", "locked.pem"] {
        let arguments = ["export", &id, "--format", "sif", "-f", "-o", file, "--sign", &key(name)];
        let with = |passphrase: &str| {
            let mut command = world.command(arguments.iter().chain(&["--passphrase-env", "PASSPHRASE"]));
            crate::world::Ran::of(command.env("PASSPHRASE", passphrase).output().unwrap())
        };
        let wrong = with("guess");
        assert!(wrong.code.is_some_and(|code| code != 0 && code != 70) && !path.exists(), "{}", wrong.stderr);
        let nobody = world.forge(arguments);
        assert!(nobody.code.is_some_and(|code| code != 0 && code != 70) && !path.exists(), "{}", nobody.stderr);
        with("secret").ok();
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn what_cannot_carry_a_signature_says_so() {
    let world = World::new();
    let id = formation(&world);
    for format in ["squashfs", "tar", "oci"] {
        let ran = world.forge(["export", &id, "--format", format, "--sign", &key("ed25519.sec.asc"), "-o", "x"]);
        assert!(ran.code == Some(2) && ran.stderr.contains("carries no signature"), "{format}: {}", ran.stderr);
    }
    world.forge(["export", &id, "--format", "squashfs", "-o", "x.squashfs"]).ok();
    let ran = world.forge(["sign", "x.squashfs", "--key", &key("ed25519.sec.asc")]);
    assert!(ran.code == Some(2) && ran.stderr.contains("hint: "), "{}", ran.stderr);
    let file = sif(&world, &id);
    for (name, code) in [("ed25519.pub.asc", 12), ("README.md", 12), ("nowhere", 10)] {
        let ran = world.forge(["sign", file.to_str().unwrap(), "--key", &key(name)]);
        assert!(ran.code.is_some_and(|found| found == code || found == 2), "{name}: {:?} {}", ran.code, ran.stderr);
    }
}

#[test]
fn apptainer_verifies_what_forge_signed() {
    if !have("apptainer") || !have("openssl") {
        eprintln!("skipped: no apptainer or no openssl");
        return;
    }
    let world = World::new();
    let id = formation(&world);
    let (secret, public) = (world.path("secret.pem"), world.path("public.pem"));
    let openssl = |arguments: &[&str], from: Option<&Path>, to: &Path| {
        let mut command = Command::new("openssl");
        command.args(arguments).arg("-out").arg(to);
        from.map(|from| command.arg("-in").arg(from));
        assert!(command.output().unwrap().status.success());
    };
    openssl(&["genpkey", "-algorithm", "ed25519"], None, &secret);
    openssl(&["pkey", "-pubout"], Some(&secret), &public);
    let path = sif(&world, &id);
    world.forge(["sign", path.to_str().unwrap(), "--key", secret.to_str().unwrap()]).ok();
    let ran = Command::new("apptainer").args(["verify", "--key"]).arg(&public).arg(&path).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}
