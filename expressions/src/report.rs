//! From a failure inside the evaluator to findings that leave it.

pub mod syntax;

use crate::error::{Error, Finding, Place, Severity, Step};
use crate::eval::Evaluator;
use crate::failure::{Failure, Shown, Sort};

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
        "an expression reads only its project: the nearest directory above it with a forge.toml or a .git, else its own; a \
         download (`file://…`) from elsewhere on this machine says its hash"
    } else {
        return None;
    };
    Some(text.to_owned())
}

/// Whether a place is the user's: in a file of the project, or typed in.
pub(crate) fn is_own(evaluator: &Evaluator, place: &Place) -> bool {
    let name = &place.text.name;
    if name.is_absolute() {
        return name.starts_with(&evaluator.sources.project);
    }
    let name = name.to_string_lossy();
    !name.starts_with("<forge ") && !name.starts_with("«nix-internal»")
}

/// A place that begins a selection such as `a.b.name` is narrowed to the name that a message is about; one that is the quote
/// that a name begins with is widened to the name.
fn fitted(mut place: Place, message: &str) -> Place {
    if place.text.bytes.get(place.start..place.end) == Some(b"\"") {
        let rest = &place.text.bytes[place.end..];
        let length = rest.iter().position(|byte| matches!(byte, b'"' | b'\n' | b'\\'));
        place.end += length.filter(|length| rest[*length] == b'"').map_or(0, |length| length + 1);
    }
    let Some(name) = message.strip_prefix("attribute '").and_then(|rest| rest.strip_suffix("' missing")) else {
        return place;
    };
    let bytes = &place.text.bytes[place.start.min(place.text.bytes.len())..];
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"_'-.\"".contains(byte);
    let path = &bytes[..bytes.iter().take_while(|byte| is_part(byte)).count()];
    let wanted = [b".", name.as_bytes()].concat();
    let ends = |offset: &usize| matches!(path.get(offset + wanted.len()), None | Some(b'.'));
    let mut found =
        path.windows(wanted.len()).enumerate().filter(|(_, window)| *window == wanted).map(|(offset, _)| offset);
    match found.rfind(|offset| ends(offset)) {
        Some(offset) => {
            let start = place.start + offset + 1;
            Place { text: place.text, start, end: start + name.len() }
        }
        None => place,
    }
}

/// What a failure tells the user.
pub fn error(evaluator: &Evaluator, failure: Failure) -> Error {
    if let Sort::Parse(finding) = failure.sort {
        return Error::new(vec![syntax::explained(*finding)]);
    }
    let message = failure.message.to_string();
    let is_mismatch = failure.sort == Sort::Mismatch;
    let own = |place: &Place| is_own(evaluator, place);
    let step = |what: &str, place: Option<Place>| {
        let own = place.as_ref().is_some_and(own);
        Step { what: what.to_owned(), place, own }
    };
    let frames = failure.trace.outermost_first().filter(|frame| !frame.text.is_empty());
    let frames = frames.map(|frame| {
        let mut step = step(&frame.text, evaluator.places.get(frame.place));
        // What the user's own words say is shown wherever it is said.
        step.own |= frame.shown == Shown::Always && !frame.text.starts_with("while evaluating derivation");
        step
    });
    let mut trace: Vec<Step> = frames.collect();
    trace.reverse();
    // A failure in a builtin has no place of its own; the call of it has.
    let (at, around) = (evaluator.places.get(failure.place), evaluator.places.get(failure.around));
    // What a function was called with is wrong, and not the function.
    let of_call = message.starts_with("function '") && message.contains("' called with");
    let places = if of_call { [around.clone(), at.clone()] } else { [at.clone(), around] };
    let places: Vec<Place> =
        places.into_iter().flatten().chain(trace.iter().filter_map(|step| step.place.clone())).collect();
    // The user's own text says more than the library's.
    let place = places.iter().find(|place| own(place)).or(at.as_ref()).or(places.first()).cloned();
    if at.is_some() && at != place {
        trace.insert(0, step(if of_call { "the function is defined" } else { "what failed is" }, at));
    }
    let first = Finding {
        severity: Severity::Error,
        place: place.map(|place| fitted(place, &message)),
        hint: did_you_mean(&failure.suggestions).or_else(|| remedy(&message)),
        message,
        trace,
    };
    Error { findings: std::iter::once(first).chain(failure.more).collect(), is_mismatch }
}
