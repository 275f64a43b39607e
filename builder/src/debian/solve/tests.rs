//! Small systems, each with one difficulty.

use super::*;
use crate::debian::index::{self, Package};
use crate::world::World;

/// An index of paragraphs like `name version: Field: value; Field: value`.
fn index(lines: &str) -> String {
    let mut text = String::new();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (head, fields) = line.split_once(": ").unwrap_or((line.trim_end_matches(':'), ""));
        let (name, version) = head.split_once(' ').unwrap();
        text += &format!(
            "Package: {name}\nVersion: {version}\nFilename: pool/{name}\nSize: 1\nSHA256: {}\n",
            "0".repeat(64)
        );
        if !fields.contains("Architecture") {
            text += "Architecture: amd64\n";
        }
        text += &fields.split(';').map(|field| field.trim().to_owned() + "\n").collect::<String>();
        text += "\n";
    }
    text
}

fn solved_with(lines: &str, wishes: &[&str], recommends: bool) -> Result<String> {
    let text = index(lines);
    let packages: Vec<Package<'_>> = index::packages(&text, "suite").collect::<Result<_>>()?;
    let universe = Universe::new(packages, "amd64");
    let wishes: Vec<String> = wishes.iter().map(|wish| (*wish).to_owned()).collect();
    let world = World::new();
    let found = solve(
        &world.builder(),
        &universe,
        &Wishes { ecosystem: "Debian suite", packages: &wishes, recommends, essential: true },
    )?;
    let texts = found.into_iter().map(|place| {
        let package = universe.package(place);
        format!("{} {}", package.name, package.version)
    });
    Ok(texts.collect::<Vec<_>>().join(", "))
}

fn solved(lines: &str, wishes: &[&str]) -> String {
    solved_with(lines, wishes, false).unwrap()
}

fn unsolvable(lines: &str, wishes: &[&str]) -> String {
    match solved_with(lines, wishes, false) {
        Err(Error::Unsolvable { explanation, .. }) => explanation,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_needed_and_essential_comes_along_and_nothing_else() {
    let lines = "
        base 1: Essential: yes; Pre-Depends: libbase
        libbase 2
        app 1: Depends: lib (>= 1), app-data:any
        app-data 1: Architecture: all; Multi-Arch: allowed
        lib 1: Architecture: amd64; Recommends: other
        other 1";
    assert_eq!(solved(lines, &["app"]), "app 1, app-data 1, base 1, lib 1, libbase 2");
    assert_eq!(solved(lines, &[]), "base 1, libbase 2");
    assert_eq!(solved_with(lines, &["app"], true).unwrap(), "app 1, app-data 1, base 1, lib 1, libbase 2, other 1");
}

#[test]
fn the_newest_version_wins_unless_something_says_otherwise() {
    let lines = "
        lib 1.9
        lib 1.10
        lib 1.10~rc1
        old 1: Depends: lib (<< 1.10)
        new 1: Depends: lib";
    assert_eq!(solved(lines, &["new"]), "lib 1.10, new 1");
    assert_eq!(solved(lines, &["new", "old"]), "lib 1.10~rc1, new 1, old 1");
    assert_eq!(solved(lines, &["lib=1.9"]), "lib 1.9");
    assert_eq!(solved(lines, &["lib (<< 1.10~)"]), "lib 1.9");
}

#[test]
fn alternatives_are_taken_in_their_order() {
    let lines = "
        app 1: Depends: first | second
        first 1: Conflicts: foe
        second 1
        foe 1
        broken 1: Depends: absent
        hopeful 1: Depends: broken | absent | second";
    assert_eq!(solved(lines, &["app"]), "app 1, first 1");
    assert_eq!(solved(lines, &["app", "foe"]), "app 1, foe 1, second 1");
    // What is there anyway will do.
    assert_eq!(solved(lines, &["app", "second"]), "app 1, second 1");
    assert_eq!(solved(lines, &["hopeful"]), "hopeful 1, second 1");
}

#[test]
fn a_virtual_package_is_a_choice() {
    let lines = "
        app 1: Depends: awk
        gawk 1: Priority: optional; Provides: awk
        mawk 1: Priority: required; Provides: awk
        strict 1: Depends: awk (>= 2)
        nawk 1: Priority: extra; Provides: awk (= 3)
        loose 1: Depends: real
        real 1
        unreal 1: Priority: required; Provides: real";
    assert_eq!(solved(lines, &["app"]), "app 1, mawk 1");
    assert_eq!(solved(lines, &["app", "gawk"]), "app 1, gawk 1");
    assert_eq!(solved(lines, &["strict"]), "nawk 1, strict 1");
    assert_eq!(solved(lines, &["loose"]), "loose 1, real 1");
    assert!(unsolvable(lines, &["awk"]).contains("provided by `mawk`, `gawk`, `nawk`"));
    assert_eq!(solved("one 1: Provides: only", &["only"]), "one 1");
}

#[test]
fn conflicts_and_breaks_are_kept() {
    let lines = "
        post 1: Provides: mta; Conflicts: mta
        exim 1: Provides: mta; Conflicts: mta
        lib 1
        lib 2
        app 1: Breaks: lib (<< 2)
        tool 1: Depends: lib (= 1)
        name 1: Conflicts: lib";
    assert_eq!(solved(lines, &["post"]), "post 1");
    let explanation = unsolvable(lines, &["post", "exim"]);
    assert!(explanation.contains("post") && explanation.contains("exim"), "{explanation}");
    assert_eq!(solved(lines, &["app", "lib"]), "app 1, lib 2");
    unsolvable(lines, &["app", "tool"]);
    unsolvable(lines, &["name", "lib"]);
}

#[test]
fn another_architecture_is_not_taken() {
    let lines = "
        app 1: Depends: lib:i386 | lib:amd64
        bad 1: Depends: lib:i386
        lib 1
        lib 2: Architecture: i386
        plain 1: Depends: lib:any";
    assert_eq!(solved(lines, &["app"]), "app 1, lib 1");
    unsolvable(lines, &["bad"]);
    // Only a package that says so may stand for every architecture's.
    unsolvable(lines, &["plain"]);
}

#[test]
fn merged_usr_is_checked_and_not_made() {
    let lines = "
        base 1: Essential: yes; Depends: usrmerge | usr-is-merged
        usrmerge 1: Depends: perl
        usr-is-merged 1
        perl 1";
    assert_eq!(solved(lines, &[]), "base 1, usr-is-merged 1");
    assert_eq!(solved(lines, &["usrmerge"]), "base 1, perl 1, usrmerge 1");
}

#[test]
fn what_cannot_be_had_is_explained() {
    let lines = "
        python3 3.11
        python3-pip 23
        numpy 1: Depends: python3 (>= 3.12)
        deep 1: Depends: numpy";
    let Err(Error::UnknownPackage { near, .. }) = solved_with(lines, &["pyhton3"], false) else { panic!() };
    assert_eq!(near, ["python3"]);
    assert_eq!(unsolvable(lines, &["python3=3.12"]), "`python3 (= 3.12)` is not there: `python3` has version `3.11`");
    let explanation = unsolvable(lines, &["deep"]);
    assert!(explanation.contains("python3 >= 3.12") && explanation.contains("deep"), "{explanation}");
    for wish in ["", "a b", "python3 >= 3", "../x", "python3 (3)"] {
        assert!(matches!(solved_with(lines, &[wish], false), Err(Error::Invalid { .. })), "{wish}");
    }
}

#[test]
fn circles_are_no_trouble() {
    let lines = "
        libc 1: Depends: libgcc
        libgcc 1: Depends: libc (>= 1)
        app 1: Depends: libc";
    assert_eq!(solved(lines, &["app"]), "app 1, libc 1, libgcc 1");
}

#[test]
fn recommendations_that_cannot_be_had_are_left_out() {
    let lines = "
        app 1: Recommends: foe, friend, absent; Conflicts: foe
        foe 1
        friend 1: Recommends: friends-friend
        friends-friend 1";
    assert_eq!(solved_with(lines, &["app"], true).unwrap(), "app 1, friend 1, friends-friend 1");
}
