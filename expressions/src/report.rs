//! From a failure inside the evaluator to findings that leave it.

use crate::error::{Error, Finding, Place, Severity};
use crate::eval::Evaluator;
use crate::failure::{Failure, Sort};

/// `did you mean …?`
pub fn did_you_mean(suggestions: &[String]) -> Option<String> {
    let quoted: Vec<String> = suggestions.iter().map(|name| format!("`{name}`")).collect();
    let (last, others) = quoted.split_last()?;
    Some(if others.is_empty() {
        format!("did you mean {last}?")
    } else {
        format!("did you mean {} or {last}?", others.join(", "))
    })
}

/// What to do about a mistake that newcomers make.
fn remedy(message: &str) -> Option<String> {
    let text = if message == "undefined variable 'forge'" {
        "a runtime expression begins with `{ forge }:`"
    } else if message.starts_with("the expression wants an argument") {
        "give it with --argstr NAME TEXT or --arg NAME EXPR, or give it a default: `NAME ? \"1.0\"`"
    } else if message.ends_with("is forbidden in pure evaluation mode") {
        "an expression reads only its project: the nearest directory above it with a forge.toml or a .git, else its own"
    } else {
        return None;
    };
    Some(text.to_owned())
}

/// What a failure tells the user.
pub fn error(evaluator: &Evaluator, failure: Failure) -> Error {
    if let Sort::Parse(finding) = failure.sort {
        return Error { findings: vec![*finding] };
    }
    let frames = failure.trace.outermost_first().filter(|frame| !frame.text.is_empty());
    let trace = frames.map(|frame| (frame.text.clone(), evaluator.places.get(frame.place)));
    let mut trace: Vec<_> = trace.collect();
    trace.reverse();
    // A failure in a builtin has no place of its own; the call of it has.
    // The user's own text says more than the library's.
    let own = [failure.place, failure.around].into_iter().filter_map(|place| evaluator.places.get(place));
    let places: Vec<_> = own.chain(trace.iter().filter_map(|(_, place)| place.clone())).collect();
    let is_users = |place: &&Place| !place.text.name.to_string_lossy().starts_with(['<', '«']);
    let place = places.iter().find(is_users).or(places.first()).cloned();
    let first = Finding {
        severity: Severity::Error,
        message: failure.message.to_string(),
        place,
        trace,
        hint: did_you_mean(&failure.suggestions).or_else(|| remedy(&failure.message)),
    };
    Error { findings: std::iter::once(first).chain(failure.more).collect() }
}
