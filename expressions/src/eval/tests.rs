//! No expression takes more memory than it may.

use std::path::PathBuf;

use super::Evaluator;
use crate::settings::Settings;
use crate::sources::Sources;
use crate::{heap, stack};

/// What an expression fails with that may use 64 MiB; all of its value is wanted.
fn failure(expression: &str) -> String {
    stack::deep(|| {
        let evaluator = Evaluator::new(Sources::pure("/nowhere"), Settings::default(), None, None);
        heap::set_limit(64 << 20);
        let result = evaluator.within_memory(|| {
            let value = evaluator.eval_text(PathBuf::from("«string»"), expression.as_bytes().to_vec(), b"/")?;
            evaluator.force_deep(&value)
        });
        result.map_or_else(|failure| failure.message.to_string(), |()| "it does not fail".to_owned())
    })
}

#[test]
fn what_wants_unbounded_memory_fails_in_words() {
    let long = "(builtins.concatStringsSep \"\" (builtins.genList (x: \"0123456789\") 100000))";
    let nested = "builtins.foldl' (all: x: [ all all all all ]) [ 1 ] (builtins.genList (x: x) 20)";
    for expression in [
        // One thing that is too large,
        "builtins.genList (x: x) 1000000000000",
        "builtins.genList (x: x) 100000000",
        // something that doubles,
        "let f = s: f (s + s); in f \"aaaaaaaa\"",
        "let f = s: f \"${s}${s}\"; in f \"aaaaaaaa\"",
        "let f = list: f (list ++ list); in f [ 1 ]",
        "let f = list: f (builtins.concatLists [ list list ]); in f [ 1 ]",
        // something that comes of what is small,
        &format!("builtins.replaceStrings [ \"0\" ] [ {long} ] {long}"),
        &format!("builtins.concatStringsSep {long} (builtins.genList (x: \"\") 100000)"),
        "builtins.concatMap (x: builtins.genList (x: x) 10000) (builtins.genList (x: x) 100000)",
        &format!("builtins.toJSON ({nested})"),
        &format!("builtins.toXML ({nested})"),
        &format!("toString ({nested})"),
        // and something that goes on and on.
        "let f = n: { inherit n; more = f (n + 1); }; g = set: builtins.seq set.n (g set.more); in g (f 0)",
        "builtins.genericClosure { startSet = [ { key = 0; } ]; operator = item: [ { key = item.key + 1; } ]; }",
    ] {
        let message = failure(expression);
        assert!(message.contains("out of memory") || message.contains("max-call-depth"), "{expression}: {message}");
    }
    assert_eq!(failure("builtins.length (builtins.genList (x: x) 1000000)"), "it does not fail");
}
