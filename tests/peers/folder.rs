//! A peer that is a directory of plain objects.

use std::fs;

use super::{files, forget, project, refused, whole};
use crate::world::World;

fn address(world: &World) -> String {
    format!("file://{}", world.path("peer").display())
}

#[test]
fn a_formation_goes_to_a_folder_and_comes_back_by_id_and_by_name() {
    let world = World::new();
    let id = project(&world, "1");
    let receipt = world.forge(["push", "shared", &address(&world), "--json"]).json();
    assert!(receipt["moved"].as_u64() > Some(20), "{receipt}");
    let again = world.forge(["push", &id, &address(&world), "--json"]).json();
    assert_eq!(again["moved"], 0, "{again}");
    for given in [id.as_str(), "shared", &id[..12]] {
        forget(&world);
        assert_eq!(world.forge(["pull", given, &address(&world)]).id(), id);
        whole(&world, &id);
    }
    // A new version moves what is new.
    let second = project(&world, "2");
    let receipt = world.forge(["push", "shared", &address(&world), "--json"]).json();
    assert!(receipt["moved"].as_u64() < Some(12) && receipt["had"].as_u64() > Some(0), "{receipt}");
    forget(&world);
    assert_eq!(world.forge(["pull", "shared", &address(&world)]).id(), second);
    assert_eq!(world.forge(["pull", &id, &address(&world)]).id(), id);
    whole(&world, &id);
}

#[test]
fn what_is_damaged_there_is_not_taken() {
    let world = World::new();
    let id = project(&world, "1");
    world.forge(["push", &id, &address(&world)]).ok();
    let objects = files(&world.path("peer"));
    let objects =
        objects.iter().filter(|path| !path.starts_with(world.path("peer/names")) && !path.ends_with("format"));
    for path in objects.filter(|path| !path.starts_with(world.path("peer/records"))) {
        forget(&world);
        let good = fs::read(path).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        fs::write(path, &bad).unwrap();
        refused(&world.forge(["pull", &id, &address(&world)]), 13, "sent wrong bytes");
        fs::remove_file(path).unwrap();
        let without = world.forge(["pull", &id, &address(&world)]);
        // A layer that is not there is one that is not known; everything else must be.
        if !path.starts_with(world.path("peer/deltas")) {
            refused(&without, 11, "has no");
        }
        assert!(!world.store().join("formations").exists() || without.code == Some(0));
        fs::write(path, &good).unwrap();
    }
    world.forge(["pull", &id, &address(&world)]).ok();
    whole(&world, &id);
}

#[test]
fn what_is_no_peer_is_said() {
    let world = World::new();
    let id = project(&world, "1");
    refused(&world.forge(["pull", &id, "file:///nowhere/at/all"]), 11, "does not answer");
    refused(&world.forge(["pull", &id, &format!("file://{}", world.store().display())]), 11, "forge serve");
    refused(&world.forge(["push", &id, &format!("file://{}", world.path("project").display())]), 12, "not empty");
    refused(&world.forge(["push", &id, "gopher://host"]), 2, "not the address of a peer");
    refused(&world.forge(["push", &id, "nobody"]), 10, "no peer is called");
    refused(&world.forge(["pull", &id]), 11, "no peer is configured");
    world.forge(["push", &id, &address(&world)]).ok();
    refused(&world.forge(["pull", &"0".repeat(64), &address(&world)]), 11, "has no formation");
}

#[test]
fn peers_are_configured_listed_tested_and_asked_by_priority() {
    let world = World::new();
    let id = project(&world, "1");
    world.forge(["remote", "add", "dead", "file:///nowhere/at/all", "--priority", "1"]).ok();
    world.forge(["remote", "add", "team", &address(&world)]).ok();
    refused(&world.forge(["remote", "test"]), 11, "");
    world.forge(["push", "shared", "team"]).ok();
    world.forge(["remote", "test", "team"]).ok();
    let listed = world.forge(["remote", "list", "--json"]).json();
    let names: Vec<&str> =
        listed["remotes"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["dead", "team"]);
    forget(&world);
    let pulled = world.forge(["pull", "shared"]);
    assert_eq!(pulled.id(), id);
    assert_eq!(pulled.stderr.matches("does not answer").count(), 1, "{}", pulled.stderr);
    world.forge(["remote", "remove", "dead"]).ok();
    refused(&world.forge(["remote", "remove", "dead"]), 10, "no remote");
    // What is in no store of anybody.
    refused(&world.forge(["pull", &"0".repeat(64)]), 11, "here or at the peers");
}

#[test]
fn a_formation_is_copied_between_peers() {
    let world = World::new();
    let id = project(&world, "1");
    let other = format!("file://{}", world.path("other").display());
    world.forge(["push", "shared", &address(&world)]).ok();
    forget(&world);
    assert_eq!(world.forge(["copy", &address(&world), &other, "shared"]).id(), id);
    forget(&world);
    assert_eq!(world.forge(["pull", "shared", &other]).id(), id);
    whole(&world, &id);
}
