//! Whole expressions: what we print is what Nix prints, and what we complain of is what it complains of. What is expected lies
//! beside each fixture, from Nix 2.34.8; where Nix 2.34 is on the `PATH` it is asked again, and asked generated questions too.

#[path = "support/nix.rs"]
mod nix;

use std::fs;
use std::path::{Path, PathBuf};

use nix::Answer;

fn arguments(file: &Path) -> Vec<std::ffi::OsString> {
    vec!["--eval".into(), "--strict".into(), file.into()]
}

fn ours(file: &Path) -> Answer {
    nix::ours(arguments(file))
}

fn theirs(file: &Path) -> Answer {
    nix::theirs(arguments(file))
}

/// What went wrong, without how it came to that: that is told a little differently from one version of Nix to the next.
fn headline(errors: &str) -> &str {
    errors.lines().rev().map(str::trim_start).find(|line| line.starts_with("error: ")).unwrap_or_default()
}

/// The fixtures of a kind: the expression's file and what is expected.
fn fixtures(kind: &str) -> Vec<(PathBuf, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/expressions").join(kind);
    let directory = directory.canonicalize().expect("the fixtures are there");
    let mut files: Vec<_> =
        fs::read_dir(&directory).expect("a directory").map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "nix"));
    files.sort();
    files
        .into_iter()
        .map(|file| {
            let expected = fs::read_to_string(file.with_extension("expected")).expect("what is expected");
            let expected = expected.replace("DIRECTORY", &directory.to_string_lossy());
            (file, expected)
        })
        .collect()
}

#[test]
fn expressions_print_what_nix_prints() {
    for (file, expected) in fixtures("okay") {
        let answer = ours(&file);
        assert_eq!((answer.output, answer.errors, answer.okay), (expected, String::new(), true), "{}", file.display());
    }
}

#[test]
fn mistakes_are_told_as_nix_tells_them() {
    for (file, expected) in fixtures("fail") {
        let answer = ours(&file);
        assert_eq!((answer.output, answer.okay), (String::new(), false), "{}", file.display());
        assert_eq!(headline(&answer.errors), expected.trim_end(), "{}", file.display());
    }
}

#[test]
fn what_is_expected_is_what_nix_says() {
    if !nix::is_here() {
        return;
    }
    // Nix may see another file system than we do, but for the temporary directory.
    let directory = tempfile::tempdir().expect("a directory");
    for kind in ["okay", "fail"] {
        for (file, expected) in fixtures(kind) {
            let copy = directory.path().join(file.file_name().expect("a name"));
            fs::copy(&file, &copy).expect("the fixture is copied");
            let answer = theirs(&copy);
            let original = file.parent().expect("a directory").to_string_lossy();
            let errors = answer.errors.replace(&*directory.path().to_string_lossy(), &original);
            let found = if kind == "okay" { &answer.output } else { headline(&errors) };
            assert_eq!(found.trim_end(), expected.trim_end(), "{}", file.display());
        }
    }
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
}

/// An expression of a kind. `x`, `y` and `f` may be used where they are in scope; now and then something is wrong on purpose.
fn expression(numbers: &mut Numbers, kind: Kind, depth: usize) -> String {
    if depth == 0 {
        let leaves: &[&str] = match kind {
            Kind::Number => &["0", "1", "7", "(-3)", "2.5", "x", "x", "y", "1000000", "0.1"],
            Kind::Text => &["\"\"", "\"a\"", "\"b-1.2\"", "''\n  a\n    b\n''", "\"é\\n\"", "s", "s"],
            Kind::Truth => &["true", "false", "(x == y)", "(s == \"a\")"],
            Kind::List => &["[ ]", "[ 1 2 ]", "[ x \"a\" ]", "l", "l"],
            Kind::Set => &["{ }", "{ a = 1; }", "{ a = x; b = \"t\"; }", "rec { a = 1; b = a; }", "t", "t"],
        };
        return numbers.pick(leaves).to_owned();
    }
    let mut part = |kind| expression(numbers, kind, depth - 1);
    let (number, other, text, more, truth, list, rest, set, second) = (
        part(Kind::Number),
        part(Kind::Number),
        part(Kind::Text),
        part(Kind::Text),
        part(Kind::Truth),
        part(Kind::List),
        part(Kind::List),
        part(Kind::Set),
        part(Kind::Set),
    );
    let general = |same: &str, otherwise: &str| {
        [
            format!("(if {truth} then {same} else {otherwise})"),
            format!("(let x = {number}; y = x + 1; in {same})"),
            format!("(with {set}; {same})"),
            format!("(({{ x ? {number}, s ? \"d\", ... }}: {same}) {set})"),
            format!("(assert {truth} || true; {same})"),
            format!("(builtins.seq {number} {same})"),
        ]
    };
    let mut choices: Vec<String> = match kind {
        Kind::Number => vec![
            format!("({number} + {other})"),
            format!("({number} - {other} * 2)"),
            format!("({number} / {other})"),
            format!("(builtins.length {list})"),
            format!("(builtins.stringLength {text})"),
            format!("(builtins.foldl' (x: y: x + 1) {number} {list})"),
            format!("({set}.a or {number})"),
            format!("(builtins.compareVersions {text} {more})"),
            format!("(builtins.floor {number})"),
            format!("((f: f (f {number})) (x: x + {other}))"),
        ],
        Kind::Text => vec![
            format!("({text} + {more})"),
            format!("\"<${{{text}}}>\""),
            format!("(toString {list})"),
            format!("(toString {number})"),
            format!("(builtins.substring 0 2 {text})"),
            format!("(builtins.concatStringsSep \",\" (builtins.attrNames {set}))"),
            format!("(builtins.replaceStrings [ \"a\" \"-\" ] [ \"b\" \"\" ] {text})"),
            format!("(builtins.toJSON {set})"),
            format!("(builtins.hashString \"sha256\" {text})"),
            format!("(builtins.typeOf {number})"),
        ],
        Kind::Truth => vec![
            format!("({number} < {other})"),
            format!("({text} == {more})"),
            format!("(!{truth} || {number} >= {other})"),
            format!("({set} ? a.b)"),
            format!("({list} == {rest})"),
            format!("({set} == {second})"),
            format!("(builtins.elem {number} {list})"),
            format!("({truth} -> {text} < {more})"),
        ],
        Kind::List => vec![
            format!("({list} ++ {rest})"),
            format!("[ {number} {text} {set} ]"),
            format!("(map (x: [ x ]) {list})"),
            format!("(builtins.filter (x: builtins.isInt x) {list})"),
            format!("(builtins.attrValues {set})"),
            format!("(builtins.genList (x: x + {number}) 3)"),
            format!("(builtins.split \"([a-b])\" {text})"),
            format!("(builtins.sort (x: y: builtins.typeOf x < builtins.typeOf y) {list})"),
            format!("(builtins.tail {list})"),
        ],
        Kind::Set => vec![
            format!("({set} // {second})"),
            format!("{{ a = {number}; c = {text}; }}"),
            format!("{{ inherit ({set}) a; x = {list}; }}"),
            format!("rec {{ a = {number}; b = a; \"q r\" = {truth}; }}"),
            format!("(builtins.mapAttrs (name: x: {{ inherit name x; }}) {set})"),
            format!("(removeAttrs {set} [ \"a\" ])"),
            format!("(builtins.listToAttrs [ {{ name = {text}; value = {number}; }} ])"),
            format!("(builtins.intersectAttrs {set} {second})"),
            format!("(builtins.tryEval {list})"),
            format!("(builtins.parseDrvName {text})"),
        ],
    };
    let (same, otherwise) = match kind {
        Kind::Number => (&number, &other),
        Kind::Text => (&text, &more),
        Kind::Truth => (&truth, &truth),
        Kind::List => (&list, &rest),
        Kind::Set => (&set, &second),
    };
    choices.extend(general(same, otherwise));
    if numbers.below(40) == 0 {
        return numbers
            .pick(&["(throw \"wrong\")", "undefined'", "(1 + \"a\")", "{ }.a", "(null)", "([ ] 1)"])
            .to_owned();
    }
    choices.swap_remove(numbers.below(choices.len()))
}

#[derive(Clone, Copy)]
enum Kind {
    Number,
    Text,
    Truth,
    List,
    Set,
}

const KINDS: [Kind; 5] = [Kind::Number, Kind::Text, Kind::Truth, Kind::List, Kind::Set];

fn question(numbers: &mut Numbers) -> String {
    let kind = KINDS[numbers.below(KINDS.len())];
    let body = expression(numbers, kind, 3);
    format!("let x = 2; y = 0.5; s = \"s-a\"; l = [ 1 \"a\" 2 ]; t = {{ a = {{ b = 1; }}; d = \"d\"; }}; in\n{body}\n")
}

#[test]
fn generated_expressions_print_what_nix_prints() {
    if !nix::is_here() {
        return;
    }
    let mut numbers = Numbers(7);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("question.nix");
    for round in 0..100 {
        let question = question(&mut numbers);
        fs::write(&file, &question).expect("the question is written");
        let theirs = theirs(&file);
        let ours = ours(&file);
        assert_eq!((&ours.output, ours.okay), (&theirs.output, theirs.okay), "round {round}: {question}");
        assert_eq!(headline(&ours.errors), headline(&theirs.errors), "round {round}: {question}");
    }
}

#[test]
fn many_generated_expressions_have_the_value_they_have_in_nix() {
    if !nix::is_here() {
        return;
    }
    let mut numbers = Numbers(8);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("question.nix");
    let mut questions = Vec::new();
    while questions.len() < 600 {
        // What goes wrong would end the whole list.
        let question = question(&mut numbers);
        fs::write(&file, &question).expect("the question is written");
        if ours(&file).okay {
            questions.push(question);
        }
    }
    for questions in questions.chunks(100) {
        let list: String = questions.iter().map(|question| format!("(builtins.toXML ({question}))\n")).collect();
        fs::write(&file, format!("builtins.concatStringsSep \"\\n---\\n\" [ {list} ]"))
            .expect("the question is written");
        let theirs = theirs(&file);
        let ours = ours(&file);
        assert!(theirs.okay, "{}", theirs.errors);
        let values = ours.output.split("\\n---\\n").zip(theirs.output.split("\\n---\\n"));
        for (question, (ours, theirs)) in questions.iter().zip(values) {
            assert_eq!(ours, theirs, "{question}");
        }
        assert_eq!((ours.output, ours.okay), (theirs.output, theirs.okay));
    }
}
