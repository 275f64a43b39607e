//! Nothing is evaluated again while all that was read stays the same, whichever command asks; and everything is, once it does not.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use crate::world::World;

/// What is kept, by inode: an evaluation writes its entry anew, and one that is not carried out again does not.
fn kept(world: &World) -> Vec<u64> {
    let entries = fs::read_dir(world.path("home/.cache/forge/evaluations")).into_iter().flatten().flatten();
    let mut inodes: Vec<u64> = entries.map(|entry| entry.metadata().expect("an entry").ino()).collect();
    inodes.sort_unstable();
    inodes
}

const DERIVATION: &str = "derivation { name = \"x\"; system = \"x86_64-linux\"; builder = \"/b\"; ";

#[test]
fn every_command_answers_from_what_it_kept_until_something_changes() {
    let world = World::new();
    world.write("packages/default.nix", "{ x ? 1 }: { a.b = import ./part.nix; list = builtins.readDir ./parts; }");
    world.write("packages/part.nix", &format!("{DERIVATION} args = [ (builtins.readFile ./parts/one) ]; }}"));
    world.write("packages/parts/one", "one");
    world.write(
        "runtime.expr",
        "{ forge }: forge.formation { name = \"n\"; layers = [ (forge.files { \"/a\" = ./packages/parts; }) ]; }",
    );
    let packages = world.path("project/packages").display().to_string();
    let commands: &[&[&str]] = &[
        &["nix-instantiate", &packages, "-A", "a.b"],
        &["nix-instantiate", "./packages", "-A", "a.b"],
        &["nix-instantiate", "--eval", "--strict", "packages", "-A", "list"],
        &["nix-instantiate", "packages/part.nix"],
        &["eval", "--strict", "-E", "(import ./packages { }).list"],
        &["eval", "packages/part.nix", "-A", "drvPath"],
        &["build", "-q"],
    ];
    for command in commands {
        // What was changed within a tick of the clock before it was read is compared byte by byte, and noted once more.
        std::thread::sleep(Duration::from_millis(1100));
        let run = || world.forge(*command).ok().stdout.clone();
        let first = run();
        let before = kept(&world);
        assert_eq!(run(), first);
        assert_eq!(kept(&world), before, "{command:?} was evaluated again");
        assert!(!before.is_empty());
        let (old, new) = (world.path("project/packages/parts/one"), world.path("project/packages/parts/two"));
        // Bytes, or a name in a directory.
        fs::write(&old, format!("{command:?}")).expect("a file");
        fs::write(&new, "two").expect("a file");
        let changed = run();
        assert_ne!(changed, first, "{command:?}");
        assert_ne!(kept(&world), before, "{command:?} was not evaluated again");
        fs::write(&old, "one").expect("a file");
        fs::remove_file(&new).expect("a file");
        assert_eq!(run(), first, "{command:?}");
    }
}

#[test]
fn a_run_of_a_file_answers_from_what_it_kept_too() {
    let world = World::new();
    if crate::building::shell(&world).is_none() {
        eprintln!("skipped: no static busybox here");
        return;
    }
    world.write("seed/word", "first");
    world.write(
        "runtime.expr",
        "{ forge }: forge.formation { name = \"n\"; layers = [ (forge.files { \"/bin/busybox\" = ./seed/busybox; \"/word\" = builtins.readFile ./seed/word; }) ]; command = [ \"/bin/busybox\" \"cat\" \"/word\" ]; }",
    );
    // As above.
    std::thread::sleep(Duration::from_millis(1100));
    let run = || world.forge(["run", "./runtime.expr"]).ok().stdout.clone();
    assert_eq!(run(), "first");
    let before = kept(&world);
    assert!(!before.is_empty());
    assert_eq!(run(), "first");
    assert_eq!(kept(&world), before, "it was evaluated again");
    world.write("seed/word", "second");
    assert_eq!(run(), "second");
    assert_ne!(kept(&world), before, "it was not evaluated again");
}
