//! How places, findings and tables look.

use std::fmt::Write as _;

use expressions::error::{Finding, Place, Severity, Step};

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    color: bool,
}

impl Paint {
    /// Colours if `color`.
    pub fn new(color: bool) -> Self {
        Self { color }
    }

    /// Whether there are colours.
    pub fn colored(self) -> bool {
        self.color
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Red.
    pub fn error(self, text: &str) -> String {
        self.with("1;31", text)
    }

    /// Yellow.
    pub fn warning(self, text: &str) -> String {
        self.with("1;33", text)
    }

    /// Cyan.
    pub fn hint(self, text: &str) -> String {
        self.with("1;36", text)
    }

    /// Red, for what is gone.
    pub fn removed(self, text: &str) -> String {
        self.with("31", text)
    }

    /// Green, for what is new.
    pub fn added(self, text: &str) -> String {
        self.with("32", text)
    }

    /// Grey.
    pub fn dim(self, text: &str) -> String {
        self.with("2", text)
    }
}

/// How many steps of a trace are shown unasked.
const TRACE: usize = 4;

/// A finding with its place and its hint, and what of its trace lies in the user's own files (all of it if `whole`).
pub fn finding(finding: &Finding, whole: bool, paint: Paint) -> String {
    let word = match finding.severity {
        Severity::Error => paint.error("error:"),
        Severity::Warning => paint.warning("warning:"),
    };
    let mut text = format!("{word} {}\n", finding.message);
    if let Some(place) = &finding.place {
        text.push_str(&excerpt(place, paint));
    }
    let mut shown: Vec<&Step> = Vec::new();
    let (mut more, mut elsewhere) = (0, 0);
    for step in &finding.trace {
        let line = |place: &Place| (place.text.name.clone(), place.line_and_column().0);
        let known = |other: Option<&Place>| step.place.is_some() && step.place.as_ref().map(line) == other.map(line);
        // One line says one thing, unless all is wanted; who is called is said by the place of the call.
        let said = known(finding.place.as_ref()) || shown.last().is_some_and(|last| known(last.place.as_ref()));
        let callee = step.what.starts_with("while calling") && !step.what.ends_with("builtin");
        match step.own {
            _ if whole => shown.push(step),
            true if said || callee => {}
            true if shown.len() < TRACE => shown.push(step),
            true => more += 1,
            false => elsewhere += usize::from(step.place.is_some()),
        }
    }
    for step in shown {
        let at = step.place.as_ref().map(|place| format!(" at {}", location(place))).unwrap_or_default();
        let _ = writeln!(text, "  {}{at}", step.what);
    }
    let steps = |count: usize| if count == 1 { "1 step".to_owned() } else { format!("{count} steps") };
    let folded = match (more, elsewhere) {
        (0, 0) => None,
        (0, elsewhere) => Some(format!("{} outside your files", steps(elsewhere))),
        (more, 0) => Some(format!("{more} more")),
        (more, elsewhere) => Some(format!("{more} more, and {} outside your files", steps(elsewhere))),
    };
    if let Some(folded) = folded {
        let _ = writeln!(text, "  {}", paint.dim(&format!("… {folded}: --show-trace shows all")));
    }
    if let Some(hint) = &finding.hint {
        let _ = writeln!(text, "{} {hint}", paint.hint("hint:"));
    }
    text
}

/// `FILE:LINE:COLUMN`.
pub fn location(place: &Place) -> String {
    let (line, column) = place.line_and_column();
    format!("{}:{line}:{column}", place.text.name.display())
}

/// The line of a place, with a caret under it.
pub fn excerpt(place: &Place, paint: Paint) -> String {
    let (line, column) = place.line_and_column();
    let bytes = &place.text.bytes;
    let start = (place.start.min(bytes.len()) + 1).saturating_sub(column);
    let end = bytes[start..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| start + length);
    // Tabs would put the caret elsewhere than under its character.
    let source = String::from_utf8_lossy(&bytes[start..end]).replace('\t', " ").trim_end().to_owned();
    let before = String::from_utf8_lossy(&bytes[start..start + column - 1]).chars().count();
    let marked = &bytes[place.start.min(end)..place.end.clamp(place.start.min(end), end)];
    let is_long = source.chars().count() > WIDEST;
    let (source, before) = if is_long { narrow(&source, before) } else { (source, before) };
    let most = if is_long { source.chars().count().saturating_sub(before).max(1) } else { usize::MAX };
    let width = String::from_utf8_lossy(marked).chars().count().clamp(1, most);
    let number = line.to_string();
    let margin = " ".repeat(number.len());
    let mut text = format!("{margin}{} {}\n", paint.dim("-->"), location(place));
    let _ = writeln!(text, "{margin} {}", paint.dim("|"));
    let _ = writeln!(text, "{} {} {source}", paint.dim(&number), paint.dim("|"));
    let _ = writeln!(text, "{margin} {} {}{}", paint.dim("|"), " ".repeat(before), paint.error(&"^".repeat(width)));
    text
}

/// So much of a line is shown: a file of one line may be of megabytes.
const WIDEST: usize = 400;

/// The part of a long line around a column, and where the column is in it.
fn narrow(source: &str, before: usize) -> (String, usize) {
    let length = source.chars().count();
    let skipped = before.saturating_sub(WIDEST / 2).min(length - 1);
    let (left, right) = (if skipped > 0 { "…" } else { "" }, if length > skipped + WIDEST { "…" } else { "" });
    let shown: String = source.chars().skip(skipped).take(WIDEST).collect();
    (format!("{left}{shown}{right}"), before - skipped + usize::from(skipped > 0))
}

/// A place for `--json`.
pub fn place_json(place: &Place) -> serde_json::Value {
    let (line, column) = place.line_and_column();
    serde_json::json!({ "file": place.text.name.display().to_string(), "line": line, "column": column })
}

/// Bytes for people: `234.5 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Columns under headings, separated by two spaces.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([headings[column].chars().count()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(headings.to_vec());
    for row in rows {
        let row: Vec<String> = row.iter().map(|cell| plain(cell)).collect();
        text.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    text
}

/// One line that a terminal only shows: what an artifact says of itself is not for it to obey.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// What a program printed, for a terminal that is to show it and not to obey it: without sequences that colour, move or name
/// anything, and of a line that was written over, what stood there last.
pub fn quoted(text: &str) -> String {
    let mut lines = text.lines().map(|line| {
        let shown = without_sequences(line);
        let last = shown.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default();
        last.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect::<String>()
    });
    let mut quoted = lines.next().unwrap_or_default();
    for line in lines {
        quoted.push('\n');
        quoted.push_str(&line);
    }
    quoted
}

/// Leaves out the sequences of ECMA-48 (5.4: control sequences; 8.3.89: operating system commands).
fn without_sequences(line: &str) -> String {
    let mut shown = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        shown.push_str(before);
        rest = match after.chars().next() {
            Some('[') => {
                let end = after[1..].find(|c: char| ('@'..='~').contains(&c));
                end.map_or("", |end| &after[1 + end + 1..])
            }
            Some(']' | 'P' | '_' | '^' | 'X') => {
                let end = after.find(['\u{7}', '\u{1b}']);
                end.map_or("", |end| after[end..].trim_start_matches(['\u{7}']).trim_start_matches("\u{1b}\\"))
            }
            Some(other) => &after[other.len_utf8()..],
            None => "",
        };
    }
    shown + rest
}

/// A command as it would be typed.
pub fn shell_words(command: &[String]) -> String {
    let plain = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./=:,+@%".contains(&byte))
    };
    let quote = |word: &String| if plain(word) { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''")) };
    command.iter().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use expressions::error::SourceText;
    use std::sync::Arc;

    #[test]
    fn the_caret_stands_under_its_character() {
        let bytes = "{\n\té = pyton;\n}".as_bytes().to_vec();
        let start = bytes.windows(5).position(|window| window == b"pyton").unwrap();
        let text = Arc::new(SourceText { name: "a.expr".into(), bytes });
        let place = Place { text, start, end: start + 5 };
        assert_eq!(excerpt(&place, Paint::new(false)), " --> a.expr:2:7\n  |\n2 |  é = pyton;\n  |      ^^^^^\n");
    }

    #[test]
    fn what_a_program_printed_is_shown_and_not_obeyed() {
        for (printed, shown) in [
            ("plain\ttext\n", "plain\ttext"),
            ("\u{1b}[31mred\u{1b}[0m, \u{1b}[2Jcleared\nnext", "red, cleared\nnext"),
            ("\u{1b}]0;title\u{7}a \u{1b}]0;title\u{1b}\\b \u{1b}(Bc", "a b Bc"),
            ("  1 %\r 50 %\r100 %\r\n", "100 %"),
            ("bell\u{7} cut \u{1b}[12", "bell\u{fffd} cut "),
        ] {
            assert_eq!(quoted(printed), shown, "{printed:?}");
        }
        assert_eq!(table(&["A"], &[vec!["\u{1b}[31m\nx".to_owned()]]), "A\n\u{fffd}[31m\u{fffd}x\n");
    }

    #[test]
    fn of_a_long_line_the_part_around_the_place_is_shown() {
        let mut bytes = "é".repeat(50_000).into_bytes();
        let start = bytes.len();
        bytes.extend_from_slice(b"pyton");
        bytes.extend("[".repeat(50_000).into_bytes());
        let text = Arc::new(SourceText { name: "a".into(), bytes });
        for (start, end, marked) in
            [(start, start + 5, "pyton"), (0, start, "é"), (start + 50_000, start + 50_005, "[")]
        {
            let shown = excerpt(&Place { text: Arc::clone(&text), start, end }, Paint::new(false));
            let lines: Vec<Vec<char>> = shown.lines().map(|line| line.chars().collect()).collect();
            assert!(lines.iter().all(|line| line.len() < 420), "{shown}");
            let caret = lines[3].iter().position(|sign| *sign == '^').unwrap();
            assert!(lines[2][caret..].iter().collect::<String>().starts_with(marked), "{shown}");
        }
    }

    #[test]
    fn an_excerpt_at_the_end_of_a_text_does_not_panic() {
        let text = Arc::new(SourceText { name: "a".into(), bytes: b"x\n".to_vec() });
        for start in 0..4 {
            excerpt(&Place { text: Arc::clone(&text), start, end: start + 3 }, Paint::new(true));
        }
    }

    #[test]
    fn sizes_have_one_unit() {
        assert_eq!([0, 1023, 1024, 1 << 20, 1_048_575].map(size), ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "1.0 MiB"]);
    }
}
