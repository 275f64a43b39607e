//! `forge nix-instantiate`: what was written for Nix runs as it is.

use std::os::unix::fs::symlink;
use std::process::Command;

use crate::world::{Ran, World};

#[test]
fn it_evaluates_parses_and_instantiates() {
    let world = World::new();
    let words =
        |arguments: &[&str]| world.forge(std::iter::once(&"nix-instantiate").chain(arguments)).ok().stdout.clone();
    assert_eq!(words(&["--eval", "--strict", "--json", "-E", "{ a = [ 1 (1 + 1) ]; }"]), "{\"a\":[1,2]}\n");
    assert_eq!(words(&["--eval", "-E", "{ a = 1 + 1; }"]), "{ a = <CODE>; }\n");
    assert_eq!(words(&["--eval", "--raw", "-E", "\"a b\""]), "a b");
    assert_eq!(words(&["--parse", "-E", "x: x + 1"]), "(x: (x + 1))\n");
    assert_eq!(words(&["--eval", "-E", "1", "2", "--timeout", "1", "--read-write-mode"]), "1\n2\n");
    assert_eq!(
        words(&["--eval", "--argstr", "a", "x", "--arg", "b", "1 + 1", "-E", "{ a, b }: a + toString b"]),
        "\"x2\"\n"
    );
    assert_eq!(words(&["--eval", "-A", "a.b.1", "-E", "{ a.b = [ 1 2 ]; }"]), "2\n");
    let derivation = "derivation { name = \"x\"; system = \"s\"; builder = \"/b\"; outputs = [ \"out\" \"dev\" ]; }";
    let path = words(&["-E", derivation]);
    assert!(path.starts_with("/nix/store/") && path.ends_with("-x.drv\n"), "{path}");
    assert_eq!(words(&["-E", derivation, "-A", "dev"]), format!("{}!dev\n", path.trim_end()));
    assert!(words(&["--version"]).starts_with("nix-instantiate (forge/"));
    assert!(words(&["--help"]).contains("nix-instantiate"));
}

#[test]
fn it_is_impure_as_nix_is() {
    let world = World::new();
    world.write("found/default.nix", "\"found\"");
    world.write("default.nix", "\"default\"");
    let ran = |arguments: &[&str]| {
        let mut command = world.command(std::iter::once(&"nix-instantiate").chain(arguments));
        command.env("NIX_PATH", "here=found").env("A_VARIABLE", "seen");
        Ran::of(command.output().expect("forge starts"))
    };
    assert_eq!(ran(&["--eval", "-E", "import <here>"]).ok().stdout, "\"found\"\n");
    assert_eq!(ran(&["--eval", "<here>"]).ok().stdout, "\"found\"\n");
    assert_eq!(ran(&["--eval"]).ok().stdout, "\"default\"\n");
    assert_eq!(ran(&["--eval", "-I", "there=found", "-E", "import <there>"]).ok().stdout, "\"found\"\n");
    assert_eq!(ran(&["--eval", "-E", "builtins.getEnv \"A_VARIABLE\""]).ok().stdout, "\"seen\"\n");
    assert_eq!(ran(&["--eval", "-E", "builtins.currentTime > 1000000000"]).ok().stdout, "true\n");
    assert!(ran(&["--find-file", "here"]).ok().stdout.ends_with("/project/found\n"));
    assert_eq!(ran(&["--eval", "-E", "builtins.pathExists /etc"]).ok().stdout, "true\n");
}

#[test]
fn it_reads_its_input_and_answers_to_its_name() {
    let world = World::new();
    assert_eq!(world.forge_with_input(["nix-instantiate", "--eval", "-"], b"1 + 1").ok().stdout, "2\n");
    let name = world.path("nix-instantiate");
    symlink(env!("CARGO_BIN_EXE_forge"), &name).expect("a link");
    let ran = Ran::of(Command::new(name).args(["--eval", "-E", "1 + 1"]).output().expect("forge starts"));
    assert_eq!(ran.ok().stdout, "2\n");
}

#[test]
fn its_errors_are_nix_s_and_its_exit_code_is_1() {
    let world = World::new();
    let fails = |arguments: &[&str]| {
        let ran = world.forge(std::iter::once(&"nix-instantiate").chain(arguments));
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        ran.stderr
    };
    assert_eq!(
        fails(&["--eval", "--foo"]),
        "error: unrecognised flag '--foo'\nTry 'nix-instantiate --help' for more information.\n"
    );
    let words = fails(&["--eval", "-E", "throw \"\u{1b}[1mbold\u{1b}[0m\""]);
    assert!(words.ends_with("error: bold\n"), "{words:?}");
    let words = fails(&["--eval", "--option", "abort-on-warn", "true", "-E", "builtins.warn \"w\" 1"]);
    assert!(words.starts_with("evaluation warning: w\n") && words.contains("aborting to reveal"), "{words}");
    assert!(fails(&["--parse", "-E", "{ a = 1"]).contains("syntax error, unexpected end of file"));
}
