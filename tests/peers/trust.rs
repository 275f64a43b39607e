//! Keys, and whose claims are believed.

use std::os::unix::fs::PermissionsExt;

use super::refused;
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
