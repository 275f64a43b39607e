//! Short questions with Nix's answers (`fixtures/expressions/questions`): ours must be the same. Where Nix 2.34 is on the
//! `PATH` it is asked again.

#[path = "support/nix.rs"]
mod nix;

use std::ffi::OsString;
use std::path::Path;

use nix::Answer;

/// The questions of a file and what is expected of them.
fn questions(name: &str) -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/expressions/questions").join(name);
    let text = std::fs::read_to_string(path).expect("the fixture is there");
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.chunks_exact(2).map(|pair| (pair[0].to_owned(), pair[1].trim_start().to_owned())).collect()
}

fn arguments(question: &str) -> Vec<OsString> {
    let features = ["flakes", "fetch-tree", "parse-toml-timestamps", "pipe-operators"];
    let features = features.iter().flat_map(|feature| ["--extra-experimental-features", feature]);
    ["--eval", "--strict", "--json"].into_iter().chain(features).chain(["-E", question]).map(OsString::from).collect()
}

/// The value as JSON, or what is wrong without how it came to that.
fn short(answer: &Answer) -> String {
    let complaint = answer.errors.lines().map(str::trim).rfind(|line| line.starts_with("error: "));
    complaint.unwrap_or(answer.output.trim_end()).to_owned()
}

fn check(name: &str) {
    let nix_is_here = nix::is_here();
    for (question, expected) in questions(name) {
        assert_eq!(short(&nix::ours(arguments(&question))), expected, "{question}");
        if nix_is_here {
            assert_eq!(short(&nix::theirs(arguments(&question))), expected, "Nix says of {question}");
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

#[test]
fn pipes_call_what_they_lead_to() {
    check("pipes.txt");
}
