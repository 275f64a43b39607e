//! Everything that reads what others wrote, as functions of bytes: they may refuse them, and must neither panic nor hang.
//! Shared by the fuzz targets here and by the quick test `expressions/tests/hostile.rs`.

use std::collections::BTreeMap;
use std::path::Path;

use expressions::ast::Span;
use expressions::frontend::{Invocation, nix_instantiate};
use expressions::lexer::{Lexer, Piece, Token};
use expressions::posix_regex::Regex;
use expressions::{Sources, aterm, check_text, flake_reference, from_toml, json, nix_hash, store_path, version};

/// A reader and its name.
pub type Reader = (&'static str, fn(&[u8]));

/// All of them.
pub const READERS: &[Reader] = &[
    ("lexer", lexer),
    ("parser", parser),
    ("evaluator", evaluator),
    ("regex", regex),
    ("json", json_text),
    ("toml", toml),
    ("aterm", derivation),
    ("names", names),
];

/// Tokens follow one another to the end; texts and paths end, from wherever they begin.
pub fn lexer(bytes: &[u8]) {
    let mut lexer = Lexer::new(bytes);
    let mut before = 0;
    loop {
        let (token, span) = lexer.token();
        check_span(span, bytes);
        if token == Token::End {
            break;
        }
        assert!(lexer.offset() > before, "no progress at {before}");
        before = lexer.offset();
        for piece in [Lexer::string_piece, Lexer::indented_piece, Lexer::path_piece] {
            let mut inner = lexer;
            for _ in 0..3 {
                let at = inner.offset();
                let (piece, span) = piece(&mut inner);
                check_span(span, bytes);
                if let Piece::Text { text, .. } = piece {
                    check_span(text, bytes);
                    assert!(inner.offset() > at, "no progress in a text at {at}");
                }
            }
        }
    }
}

fn check_span(span: Span, bytes: &[u8]) {
    assert!(span.start <= span.end && span.end as usize <= bytes.len(), "{span:?}");
}

/// Reading, giving names their meaning, looking for what is doubtful, and printing.
pub fn parser(bytes: &[u8]) {
    let findings = check_text("text".into(), bytes.to_vec(), Path::new("/d"), &Sources::pure("/nowhere"));
    for finding in &findings {
        let place = finding.place.as_ref();
        place.map(expressions::error::Place::line_and_column);
    }
    instantiate(&["--parse", "-"], bytes);
}

/// Evaluating, with little depth, and nothing to be seen.
pub fn evaluator(bytes: &[u8]) {
    // What makes much of little is known and no finding: Nix does so, too.
    let large = bytes.windows(5).any(|window| window.iter().all(u8::is_ascii_digit));
    if large
        || [&b"genList"[..], b"genericClosure"].iter().any(|word| bytes.windows(word.len()).any(|found| found == *word))
    {
        return;
    }
    instantiate(&["--eval", "--strict", "--pure-eval", "--option", "max-call-depth", "200", "-"], bytes);
}

fn instantiate(arguments: &[&str], input: &[u8]) {
    let printed = nix_instantiate(&Invocation {
        arguments: arguments.iter().map(Into::into).collect(),
        directory: "/nowhere".into(),
        environment: BTreeMap::new(),
        input: input.to_vec(),
        terminal: false,
        system: "x86_64-linux".to_owned(),
        time: 0,
        recorder: None,
        lock: Default::default(),
        fetched: BTreeMap::new(),
    });
    assert!(printed.code == 0 || !printed.errors.is_empty(), "refused without a word");
}

/// The first line is a pattern, the rest is searched.
pub fn regex(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (pattern, text) = bytes.split_at(end);
    if let Ok(regex) = Regex::new(pattern) {
        let whole = regex.match_full(text);
        let all = regex.find_all(text);
        for captures in whole.ok().flatten().into_iter().chain(all.ok().into_iter().flatten()) {
            assert_eq!(captures.len(), regex.group_count() + 1);
            captures.iter().flatten().for_each(|range| _ = &text[range.clone()]);
        }
    }
}

/// Events up to the end or the first mistake.
pub fn json_text(bytes: &[u8]) {
    let mut reader = json::JsonReader::new(bytes);
    let mut count = 0;
    while let Ok(Some(_)) = reader.next_event() {
        count += 1;
        assert!(count <= 2 * bytes.len() + 2, "more events than bytes");
    }
}

/// TOML, with and without timestamps.
pub fn toml(bytes: &[u8]) {
    for timestamps in [false, true] {
        let _ = from_toml::read(bytes, timestamps);
    }
}

/// What is a derivation is written as it was read.
pub fn derivation(bytes: &[u8]) {
    if let Ok(derivation) = aterm::read("name", bytes) {
        let written = aterm::write(&derivation);
        let again = aterm::read("name", &written).expect("what was written can be read");
        assert!(again == derivation && aterm::write(&again) == written);
    }
}

/// Versions, names, hashes, store paths, references to flakes.
pub fn names(bytes: &[u8]) {
    let (left, right) = bytes.split_at(bytes.len() / 2);
    let order = version::compare_versions(left, right);
    assert_eq!(version::compare_versions(right, left), order.reverse());
    let _ = version::split_version(bytes).count();
    let (name, rest) = version::parse_name(bytes);
    assert!(name.len() + rest.len() <= bytes.len());
    if let Ok(hash) = nix_hash::NixHash::parse(bytes, None) {
        let text = hash.to_text(nix_hash::HashFormat::Sri, true);
        assert_eq!(nix_hash::NixHash::parse(text.as_bytes(), None).ok().as_ref(), Some(&hash));
    }
    let _ = store_path::parse(bytes);
    let _ = store_path::check_name(bytes);
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(reference) = flake_reference::parse(text)
    {
        let _ = flake_reference::to_string(&reference);
    }
}
