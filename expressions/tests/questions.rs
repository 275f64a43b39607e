//! Short questions with Nix's answers (`fixtures/expressions/questions`): ours must be the same. Where Nix 2.34 is on the
//! `PATH` it is asked again.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use expressions::frontend::{Invocation, nix_instantiate};

/// The questions of a file and what is expected of them.
fn questions(name: &str) -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/expressions/questions").join(name);
    let text = std::fs::read_to_string(path).expect("the fixture is there");
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.chunks_exact(2).map(|pair| (pair[0].to_owned(), pair[1].trim_start().to_owned())).collect()
}

fn arguments(question: &str) -> Vec<OsString> {
    let features = ["flakes", "fetch-tree", "parse-toml-timestamps"];
    let features = features.iter().flat_map(|feature| ["--extra-experimental-features", feature]);
    ["--eval", "--strict", "--json"].into_iter().chain(features).chain(["-E", question]).map(OsString::from).collect()
}

/// The value as JSON, or what is wrong without how it came to that.
fn answer(output: &[u8], errors: &[u8]) -> String {
    let (output, errors) = (String::from_utf8_lossy(output), String::from_utf8_lossy(errors));
    let complaint = errors.lines().map(str::trim).rfind(|line| line.starts_with("error: "));
    complaint.unwrap_or(output.trim_end()).to_owned()
}

fn ask_us(question: &str) -> String {
    let printed = nix_instantiate(&Invocation {
        arguments: arguments(question),
        directory: "/".into(),
        environment: BTreeMap::new(),
        input: Vec::new(),
        terminal: false,
        system: "x86_64-linux".to_owned(),
        time: 0,
        recorder: None,
        lock: store::lock::Lock::default(),
        fetched: BTreeMap::new(),
    });
    answer(&printed.output, &printed.errors)
}

fn check(name: &str) {
    let version = Command::new("nix-instantiate").arg("--version").output();
    let nix_is_here = version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("(Nix) 2.34."));
    if !nix_is_here {
        eprintln!("skipped: there is no nix-instantiate 2.34 on the PATH");
    }
    for (question, expected) in questions(name) {
        assert_eq!(ask_us(&question), expected, "{question}");
        if nix_is_here {
            let output = Command::new("nix-instantiate").args(arguments(&question)).output().expect("Nix answers");
            assert_eq!(answer(&output.stdout, &output.stderr), expected, "Nix says of {question}");
        }
    }
}

#[test]
fn flake_references_are_read_and_written_as_nix_does() {
    check("flake-references.txt");
}

#[test]
fn dates_of_toml_are_read_as_nix_reads_them() {
    check("toml-timestamps.txt");
}
