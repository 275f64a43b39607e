//! Nix judges us: what it is asked here is generated, and both must answer alike. Without `nix-instantiate` 2.34 on
//! the `PATH` these tests say that they were skipped.

use std::fmt::Write as _;
use std::process::Command;

use expressions::json::float_onto;
use expressions::posix_regex::{Captures, Regex};
use expressions::version::{compare_versions, parse_name, split_version};
use serde_json::{Value, json};

/// What Nix says to an expression: its value, or the last line of its complaint. Nothing without Nix.
fn nix(expression: &str) -> Option<Result<Value, String>> {
    let version = Command::new("nix-instantiate").arg("--version").output();
    if !version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("(Nix) 2.34.")) {
        eprintln!("skipped: there is no nix-instantiate 2.34 on the PATH");
        return None;
    }
    let directory = tempfile::tempdir().expect("a directory for the question");
    let file = directory.path().join("question.nix");
    std::fs::write(&file, expression).expect("the question is written");
    let mut command = Command::new("nix-instantiate");
    command.args(["--eval", "--strict", "--json"]).arg(&file);
    let output = command.output().expect("Nix was here a moment ago");
    if output.status.success() {
        return Some(Ok(serde_json::from_slice(&output.stdout).expect("Nix prints JSON")));
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let last = complaint.lines().rev().find_map(|line| line.trim().strip_prefix("error: "));
    Some(Err(last.unwrap_or_default().to_owned()))
}

/// A string as an expression.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$").replace('\n', "\\n"))
}

/// Small numbers that look random and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % limit
    }

    fn pick<'a>(&mut self, items: &[&'a str]) -> &'a str {
        items[self.below(items.len())]
    }

    fn text(&mut self, pieces: &[&str], most: usize) -> String {
        (0..self.below(most + 1)).map(|_| self.pick(pieces)).collect()
    }
}

/// A regular expression. Nix tries every way, so that there must not be too many: `counts` says how many parts may be repeated.
fn pattern(numbers: &mut Numbers, depth: usize, counts: &mut usize) -> String {
    const ATOMS: &[&str] = &[
        "a",
        "b",
        "c",
        ".",
        "^",
        "$",
        "[ab]",
        "[^a]",
        "[a-c]",
        "[[:alpha:]]",
        "[]a]",
        "\\.",
        "\\(",
        "[^]-]",
        "é",
        "-",
        "()",
    ];
    const COUNTS: &[&str] = &["", "", "", "*", "+", "?", "{2}", "{1,}", "{0,2}", "{1,3}"];
    let mut text = String::new();
    for _ in 0..=numbers.below(3) {
        let inner = match numbers.below(if depth == 0 { 4 } else { 7 }) {
            0..4 => numbers.pick(ATOMS).to_owned(),
            4 => format!("({}|{})", pattern(numbers, depth - 1, counts), pattern(numbers, depth - 1, counts)),
            _ => format!("({})", pattern(numbers, depth - 1, counts)),
        };
        let count = if *counts == 0 || matches!(inner.as_str(), "^" | "$") { "" } else { numbers.pick(COUNTS) };
        *counts -= usize::from(!count.is_empty());
        text.push_str(&inner);
        text.push_str(count);
    }
    if depth > 0 && numbers.below(4) == 0 {
        text = format!("{text}|{}", pattern(numbers, depth - 1, counts));
    }
    text
}

fn groups(captures: &Captures, text: &str) -> Value {
    captures[1..]
        .iter()
        .map(|range| range.clone().map(|range| String::from_utf8_lossy(&text.as_bytes()[range])))
        .collect()
}

fn split(regex: &Regex, text: &str) -> Value {
    let mut parts = Vec::new();
    let mut end = 0;
    for captures in regex.find_all(text.as_bytes()).expect("the text is short") {
        let whole = captures[0].clone().expect("the whole has matched");
        parts.push(json!(String::from_utf8_lossy(&text.as_bytes()[end..whole.start])));
        parts.push(groups(&captures, text));
        end = whole.end;
    }
    parts.push(json!(String::from_utf8_lossy(&text.as_bytes()[end..])));
    Value::Array(parts)
}

#[test]
fn regular_expressions_match_what_they_match_in_nix() {
    let mut numbers = Numbers(1);
    for round in 0..10 {
        let mut questions = String::from("[\n");
        let mut answers = Vec::new();
        while answers.len() < 200 {
            let pattern = pattern(&mut numbers, 2, &mut 4);
            let text = numbers.text(&["a", "b", "c", "ab", ".", "(", "é", "]", "-", "aa"], 4);
            let regex = Regex::new(pattern.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
            let (quoted_pattern, quoted_text) = (quoted(&pattern), quoted(&text));
            // A match may end within a character, which JSON cannot hold.
            let is_whole = |value: &Value| !value.to_string().contains('\u{fffd}');
            let whole = regex.match_full(text.as_bytes()).expect("the text is short");
            let whole = whole.map_or(Value::Null, |captures| groups(&captures, &text));
            let parts = split(&regex, &text);
            if is_whole(&whole) && is_whole(&parts) {
                let _ = writeln!(
                    questions,
                    "  [ (builtins.match {quoted_pattern} {quoted_text}) (builtins.split {quoted_pattern} {quoted_text}) ]"
                );
                answers.push((pattern, text, json!([whole, parts])));
            }
        }
        questions.push_str("]\n");
        let Some(theirs) = nix(&questions) else { return };
        let theirs = theirs.unwrap_or_else(|complaint| panic!("round {round}: {complaint}"));
        for ((pattern, text, ours), theirs) in answers.iter().zip(theirs.as_array().expect("a list")) {
            assert_eq!(ours, theirs, "`{pattern}` on `{text}`");
        }
    }
}

#[test]
fn malformed_regular_expressions_are_malformed_in_nix() {
    let mut numbers = Numbers(2);
    let pieces = [
        "a", "(", ")", "[", "]", "{", "}", "*", "+", "?", "|", "^", "$", "\\", "-", "1", ",", "[:", ":]", "[.",
        "alpha", "é", "/",
    ];
    let mut asked = 0;
    let mut questions = String::from("[\n");
    let mut answers = Vec::new();
    while asked < 60 {
        let pattern = numbers.text(&pieces, 6);
        match Regex::new(pattern.as_bytes()) {
            Ok(regex) => {
                let whole = regex.match_full(b"a").expect("the text is short");
                answers.push((pattern.clone(), whole.map_or(Value::Null, |captures| groups(&captures, "a"))));
                let _ = writeln!(questions, "  (builtins.match {} \"a\")", quoted(&pattern));
            }
            Err(error) => {
                asked += 1;
                let Some(theirs) = nix(&format!("builtins.match {} \"a\"", quoted(&pattern))) else { return };
                assert_eq!(theirs, Err(error.to_string()));
            }
        }
    }
    questions.push_str("]\n");
    let Some(theirs) = nix(&questions) else { return };
    let theirs = theirs.unwrap_or_else(|complaint| panic!("{complaint}"));
    for ((pattern, ours), theirs) in answers.iter().zip(theirs.as_array().expect("a list")) {
        assert_eq!(ours, theirs, "`{pattern}`");
    }
}

#[test]
fn versions_compare_as_in_nix() {
    let mut numbers = Numbers(3);
    let pieces = ["1", "2", "10", "007", ".", "-", "pre", "a", "rc", "é", "_", "3000000000", "A"];
    let mut questions = String::from("[\n");
    let mut answers = Vec::new();
    for _ in 0..500 {
        let (left, right) = (numbers.text(&pieces, 5), numbers.text(&pieces, 5));
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (name, version) = parse_name(left.as_bytes());
        let parts: Vec<_> = split_version(left.as_bytes()).map(lossy).collect();
        let ours = json!([
            compare_versions(left.as_bytes(), right.as_bytes()) as i8,
            parts,
            { "name": lossy(name), "version": lossy(version) },
        ]);
        let (left, right) = (quoted(&left), quoted(&right));
        let _ = writeln!(
            questions,
            "  [ (builtins.compareVersions {left} {right}) (builtins.splitVersion {left}) (builtins.parseDrvName {left}) ]"
        );
        answers.push((left, right, ours));
    }
    questions.push_str("]\n");
    let Some(theirs) = nix(&questions) else { return };
    for ((left, right, ours), theirs) in answers.iter().zip(theirs.expect("all are sound").as_array().expect("a list"))
    {
        assert_eq!(ours, theirs, "{left} {right}");
    }
}

#[test]
fn floats_are_written_as_in_nix() {
    let mut numbers = Numbers(4);
    let mut questions = String::from("builtins.concatStringsSep \" \" (map builtins.toJSON [\n");
    let mut ours = Vec::new();
    for _ in 0..1000 {
        let float = format!("{}.{}e{}", numbers.below(1000), numbers.below(100_000_000), numbers.below(60) as i32 - 30);
        let _ = writeln!(questions, "{float}");
        if !ours.is_empty() {
            ours.push(b' ');
        }
        float_onto(&mut ours, float.parse().expect("a float"));
    }
    questions.push_str("])\n");
    let Some(theirs) = nix(&questions) else { return };
    let theirs = theirs.expect("all are sound");
    let ours = String::from_utf8(ours).expect("digits");
    for (ours, theirs) in ours.split(' ').zip(theirs.as_str().expect("a string").split(' ')) {
        // The C++ library does not always find the shortest digits; the number is the same.
        assert!(
            ours == theirs || ours.parse::<f64>() == theirs.parse::<f64>() && ours.len() < theirs.len(),
            "{ours} {theirs}"
        );
    }
}
