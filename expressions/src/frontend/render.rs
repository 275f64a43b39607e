//! Failures and messages as Nix writes them: the trace with pieces of the text, then what happened.

use std::collections::HashSet;
use std::fmt::Write as _;

use crate::Message;
use crate::error::{Finding, Place};
use crate::eval::Evaluator;
use crate::failure::{Failure, Frame, Shown, Sort};
use crate::parser::{OR_AS_A_NAME, PARENTHESES};

/// A failure, with all of its trace or the innermost part.
pub fn failure(evaluator: &Evaluator, failure: &Failure, show_trace: bool) -> String {
    let mut body = String::new();
    let (mut message, mut place) = (failure.message.to_string(), evaluator.places.get(failure.place));
    if let Sort::Parse(finding) = &failure.sort {
        (message, place) = (finding.message.clone(), finding.place.clone());
    }
    let frames = failure.trace.outermost_first().filter(|frame| show_trace || frame.shown != Shown::InFull);
    let frames: Vec<&Frame> = frames.collect();
    if !frames.is_empty() {
        trace(evaluator, &frames, show_trace, &mut body);
        body.push_str("\nerror: ");
    }
    body.push_str(&message);
    body.push('\n');
    if let Some(place) = place {
        code(&place, "", &mut body);
    }
    // Nix has none for variables.
    let suggestions = if message.starts_with("undefined variable") { &[][..] } else { &failure.suggestions };
    if let Some((last, others)) = suggestions.split_last() {
        let others = others.join(", ");
        let list = if others.is_empty() { last.clone() } else { format!("{others} or {last}") };
        let one_of = if others.is_empty() { "" } else { "one of " };
        let _ = writeln!(body, "Did you mean {one_of}{list}?");
    }
    let mut text = indented("error: ", &body);
    if message.starts_with("unknown hash algorithm '") {
        // To Nix that is a word of the command line, wherever it stands.
        text.push_str("Try 'nix-instantiate --help' for more information.\n");
    }
    text
}

fn trace(evaluator: &Evaluator, frames: &[&Frame], show_trace: bool, body: &mut String) {
    let mut seen = HashSet::new();
    let mut skipped: Vec<&Frame> = Vec::new();
    let (mut count, mut truncate) = (0, false);
    for frame in frames.iter().filter(|frame| !frame.text.is_empty()) {
        truncate |= !show_trace && count > 3;
        if truncate && frame.shown != Shown::Always {
            continue;
        }
        if !seen.insert((frame.place, frame.text.as_str())) {
            skipped.push(frame);
            continue;
        }
        flush(evaluator, &mut skipped, &mut count, body);
        count += 1;
        one(evaluator, frame, &mut count, body);
    }
    flush(evaluator, &mut skipped, &mut count, body);
    if truncate {
        body.push_str("\n(stack trace truncated; use '--show-trace' to show the full, detailed trace)\n");
    }
}

fn flush(evaluator: &Evaluator, skipped: &mut Vec<&Frame>, count: &mut usize, body: &mut String) {
    if skipped.len() > 5 {
        let _ = writeln!(body, "\n({} duplicate frames omitted)", skipped.len());
        skipped.clear();
    }
    for frame in skipped.drain(..) {
        one(evaluator, frame, count, body);
    }
}

fn one(evaluator: &Evaluator, frame: &Frame, count: &mut usize, body: &mut String) {
    let _ = writeln!(body, "\n… {}", frame.text);
    if let Some(place) = evaluator.places.get(frame.place) {
        code(&place, "  ", body);
        *count += 1;
    }
}

/// A place with the line it is in and those around.
fn code(place: &Place, indent: &str, body: &mut String) {
    let (line, column) = place.line_and_column();
    let _ = write!(body, "{indent}at {}:{line}:{column}:", place.text.name.display());
    let lines: Vec<String> = place.text.lines().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    let text = |number: usize| lines.get(number.checked_sub(1)?);
    for number in [line.wrapping_sub(1), line, line + 1] {
        // An empty line before everything, or after a last line that is empty, is none.
        let Some(text) = text(number).filter(|_| number > 0) else { continue };
        let _ = write!(body, "\n {number:>5}| {text}");
        if number == line {
            let _ = write!(body, "\n      |{}^", " ".repeat(column));
        }
    }
    body.push('\n');
}

fn indented(prefix: &str, body: &str) -> String {
    let mut text = String::new();
    let rest = " ".repeat(prefix.len());
    for (number, line) in body.trim_end().split('\n').enumerate() {
        let line = format!("{}{line}", if number == 0 { prefix } else { &rest });
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// What an evaluation says while it goes on.
pub fn message(message: &Message) -> String {
    match message {
        Message::Trace(text) => format!("trace: {text}\n"),
        Message::EvaluationWarning(text) if text.starts_with('\n') => format!("evaluation warning:{text}\n"),
        Message::EvaluationWarning(text) => indented("evaluation warning: ", text),
        Message::Warning(finding) => warning(finding),
    }
}

fn warning(finding: &Finding) -> String {
    // Nix has words of their own for these two.
    if finding.message == OR_AS_A_NAME
        && let Some((place, shown)) = finding.place.as_ref().zip(finding.hint.as_ref())
    {
        let ((line, column), name) = (place.line_and_column(), place.text.name.display());
        let shown = shown.strip_prefix(PARENTHESES).unwrap_or(shown);
        return format!(
            "warning: at {name}:{line}:{column}: This expression uses `or` as an identifier in a way that will change in a future Nix release.\n\
             Wrap this entire expression in parentheses to preserve its current meaning:\n    {shown}\n\
             Give feedback at https://github.com/NixOS/nix/pull/11121\n"
        );
    }
    let mut body = String::new();
    for step in &finding.trace {
        let _ = writeln!(body, "\n… {}", step.what);
    }
    body.push_str(if finding.trace.is_empty() { "" } else { "\nwarning: " });
    let _ = writeln!(body, "{}", finding.message);
    if let Some(place) = &finding.place {
        code(place, "", &mut body);
    }
    indented("warning: ", &body)
}

/// What of a text goes to stderr: a terminal's control sequences could do anything, so only colours are left, and those on
/// terminals only. Tabs are filled up with blanks, as if all of the text were one line.
pub fn filtered(text: &str, terminal: bool) -> String {
    let mut output = String::with_capacity(text.len());
    let mut column = 0;
    let mut rest = text.chars().peekable();
    let between = |next: Option<&char>, low: char, high: char| next.is_some_and(|sign| (low..=high).contains(sign));
    while let Some(sign) = rest.next() {
        match sign {
            '\x1b' => {
                let mut sequence = String::from(sign);
                match rest.peek() {
                    Some('[') => {
                        sequence.extend(rest.next());
                        while between(rest.peek(), '\x20', '\x3f') {
                            sequence.extend(rest.next());
                        }
                        if between(rest.peek(), '\x40', '\x7e') {
                            sequence.extend(rest.next());
                        }
                        if terminal && sequence.ends_with('m') {
                            output.push_str(&sequence);
                        }
                    }
                    Some(']') => {
                        while rest.peek().is_some_and(|sign| *sign != '\x1b') {
                            rest.next();
                        }
                        rest.next();
                        rest.next_if_eq(&'\\');
                    }
                    Some('\x40'..='\x5f') => _ = rest.next(),
                    _ => {}
                }
            }
            '\t' => {
                let blanks = 8 - column % 8;
                output.extend(std::iter::repeat_n(' ', blanks));
                column += blanks;
            }
            '\r' | '\x07' => {}
            '\n' => output.push(sign),
            _ => {
                output.push(sign);
                column += 1;
            }
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::filtered;

    /// As Nix 2.34.8 writes it.
    #[test]
    fn control_sequences_do_not_reach_the_terminal() {
        assert_eq!(filtered("trace: a\tb\nccc\tdd\te\rx\n", false), "trace: a        b\nccc    dd      ex\n");
        let text = "trace: \x1b[1;35mred\x1b[0m \x07 bell \x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\ é\tz \x1bMq\n";
        assert_eq!(filtered(text, false), "trace: red  bell link é z q\n");
        assert_eq!(filtered("\x1b[1mbold\x1b[0m\x1b[2J", true), "\x1b[1mbold\x1b[0m");
        assert_eq!(filtered("\x1b", false) + &filtered("\x1b[", false) + &filtered("\x1b]x", true), "");
    }
}
