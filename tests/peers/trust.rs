//! Keys, and whose claims are believed.

use std::os::unix::fs::PermissionsExt;

use super::{forget, project, refused, serve, whole};
use crate::world::World;

#[test]
fn keys_are_made_trusted_and_listed() {
    let world = World::new();
    let made = world.forge(["key", "generate", "team-1"]);
    let public = made.ok().stdout.trim().to_owned();
    assert!(public.starts_with("team-1:") && public.len() == "team-1:".len() + 44, "{public}");
    let secret = world.path("home/.config/forge/keys/team-1.secret");
    assert_eq!(std::fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    refused(&world.forge(["key", "generate", "team-1"]), 2, "there is a key");
    let other = World::new();
    other.forge(["key", "trust", &public]).ok();
    other.forge(["key", "trust", &public]).ok();
    let listed = other.forge(["key", "list", "--json"]).json();
    assert_eq!(listed["keys"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!((&listed["keys"][0]["public"], &listed["keys"][0]["own"]), (&public.into(), &false.into()));
    for bad in ["", "team", "team:AAAA", "team:!!", &std::fs::read_to_string(&secret).unwrap()] {
        refused(&other.forge(["key", "trust", bad]), 2, "not a public key");
    }
}

const ANYBODY: [&str; 2] = ["--anonymous", "read,write"];

/// A file that is fetched from a place that goes away.
fn mirrored(world: &World) -> std::path::PathBuf {
    let path = world.path("project/mirror/data.bin");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "what the mirror had\n").unwrap();
    world.write(
        "fetched.expr",
        &format!(
            "{{ forge }}:\nforge.formation {{ name = \"fetched\"; layers = [ (forge.files {{ \"/data\" = forge.fetchurl {{ url = \"file://{}\"; }}; }}) ]; command = [ \"true\" ]; }}\n",
            path.display()
        ),
    );
    path
}

#[test]
fn what_a_trusted_key_signed_need_not_be_made() {
    let (server, world, other) = (World::new(), World::new(), World::new());
    let served = serve(&server, &ANYBODY);
    let public = world.forge(["key", "generate", "team-1"]).ok().stdout.trim().to_owned();
    let id = project(&world, "1");
    world.forge(["push", "shared", &served.address]).ok();
    // The same expression elsewhere: nobody is trusted there yet.
    let made = |other: &World| {
        project(other, "1");
        forget(other);
        other.forge(["remote", "add", "team", &served.address]).ok();
        let record = other.forge(["build", "runtime.expr", "--json"]).json();
        assert_eq!(record["id"], id);
        record["made"].as_object().unwrap().values().filter_map(serde_json::Value::as_u64).sum::<u64>()
    };
    assert!(made(&other) > 0);
    other.forge(["key", "trust", &public]).ok();
    assert_eq!(made(&other), 0);
    whole(&other, &id);
    // A signature by another key of the same name is none.
    let liar = World::new();
    liar.forge(["key", "trust", &public.replace("team-1:", "team-2:")]).ok();
    assert!(made(&liar) > 0);
}

#[test]
fn a_run_takes_what_it_needs_from_a_peer() {
    let (server, world) = (World::new(), World::new());
    let served = serve(&server, &ANYBODY);
    let id = project(&world, "1");
    world.forge(["push", "shared", &served.address]).ok();
    forget(&world);
    world.forge(["remote", "add", "team", &served.address]).ok();
    // There is no shell in it: that it is looked for means that the formation is here.
    let ran = world.forge(["run", &id]);
    assert_eq!(ran.code, Some(127), "{}", ran.stderr);
    whole(&world, &id);
    drop(served);
    // What is here needs no peer, and nobody is asked.
    let ran = world.forge(["run", &id]);
    assert_eq!(ran.code, Some(127), "{}", ran.stderr);
    assert!(!ran.stderr.contains("peer"), "{}", ran.stderr);
    let other = world.forge(["run", &"0".repeat(64)]);
    assert_eq!(other.code, Some(125), "{}", other.stderr);
    // A build goes on by itself.
    forget(&world);
    assert_eq!(world.build("runtime.expr"), id);
}

#[test]
fn a_lock_outlives_its_mirror() {
    let (server, world) = (World::new(), World::new());
    let served = serve(&server, &ANYBODY);
    let file = mirrored(&world);
    let id = world.build("fetched.expr");
    world.forge(["push", "fetched", &served.address, "--sources"]).ok();
    std::fs::remove_file(&file).unwrap();
    forget(&world);
    assert_ne!(world.forge(["build", "fetched.expr", "--locked"]).code, Some(0));
    world.forge(["remote", "add", "team", &served.address]).ok();
    assert_eq!(world.forge(["build", "fetched.expr", "--locked"]).id(), id);
    // The same from a folder.
    let folder = format!("file://{}", world.path("peer").display());
    world.forge(["push", "fetched", &folder, "--sources"]).ok();
    forget(&world);
    world.forge(["remote", "add", "team", &folder]).ok();
    assert_eq!(world.forge(["build", "fetched.expr", "--locked"]).id(), id);
}

#[test]
fn a_build_pushes_while_it_goes_on_and_gives_a_receipt() {
    let (server, world, other) = (World::new(), World::new(), World::new());
    let served = serve(&server, &ANYBODY);
    let public = world.forge(["key", "generate", "ci-1"]).ok().stdout.trim().to_owned();
    let id = project(&world, "1");
    forget(&world);
    let record = world.forge(["build", "runtime.expr", "--push", &served.address, "--json"]).json();
    assert_eq!(record["id"], id);
    let objects = record["push"]["objects"].as_array().unwrap();
    let moved = objects.iter().filter(|object| object["moved"] == true).count();
    assert!(moved > 20 && objects.iter().any(|object| object["kind"] == "formation"), "{}", record["push"]);
    whole(&server, &id);
    other.forge(["key", "trust", &public]).ok();
    other.forge(["remote", "add", "ci", &served.address]).ok();
    assert_eq!(other.forge(["pull", "shared"]).id(), id);
    // A peer that is away costs the build nothing but its exit code.
    drop(served);
    forget(&world);
    let ran = world.forge(["build", "runtime.expr", "--push", "http://127.0.0.1:1"]);
    assert_eq!((ran.code, ran.stdout.trim()), (Some(11), id.as_str()), "{}", ran.stderr);
}

#[test]
fn damage_is_healed_from_a_peer() {
    let (server, world) = (World::new(), World::new());
    let served = serve(&server, &ANYBODY);
    let id = project(&world, "1");
    world.forge(["push", "shared", &served.address]).ok();
    world.forge(["remote", "add", "team", &served.address]).ok();
    let blobs = super::files(&world.store().join("blobs"));
    let largest = blobs.iter().max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = std::fs::read(largest).unwrap();
    bytes[1000] ^= 1;
    std::fs::set_permissions(largest, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(largest, bytes).unwrap();
    // What is damaged here goes to nobody.
    let fresh = format!("file://{}", world.path("peer").display());
    assert_ne!(world.forge(["push", "shared", &fresh]).code, Some(0));
    world.forge(["verify", "--repair"]).ok();
    whole(&world, &id);
}
