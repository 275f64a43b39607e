//! Paragraphs of `Name: value` lines (deb822(5)): package indexes, Release files, apt's sources, control files, dpkg's status.
//!
//! An index has 60,000 paragraphs of 25 fields; it is read without copying.

/// The paragraphs of a text. Comments stay in.
pub fn paragraphs(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(['\n', '\r']);
        if rest.is_empty() {
            return None;
        }
        let mut from = 0;
        let end = loop {
            match rest[from..].find('\n') {
                None => break rest.len(),
                Some(at) => {
                    from += at + 1;
                    let line = rest[from..].split('\n').next().unwrap_or_default();
                    if line.trim_end_matches('\r').is_empty() {
                        break from;
                    }
                }
            }
        };
        let (paragraph, after) = rest.split_at(end);
        rest = after;
        Some(paragraph)
    })
}

/// Names and values of a paragraph. A value keeps its folded lines as they are, trimmed at both ends.
pub fn fields(paragraph: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = paragraph;
    std::iter::from_fn(move || {
        loop {
            if rest.is_empty() {
                return None;
            }
            let mut end = rest.find('\n').map_or(rest.len(), |at| at + 1);
            let is_comment = rest.starts_with('#');
            while !is_comment && rest[end..].starts_with([' ', '\t', '#']) {
                end += rest[end..].find('\n').map_or(rest.len() - end, |at| at + 1);
            }
            let (field, after) = rest.split_at(end);
            rest = after;
            if let Some((name, value)) =
                field.split_once(':').filter(|_| !is_comment && !field.starts_with([' ', '\t']))
            {
                return Some((name, value.trim()));
            }
        }
    })
}

/// One field's value, by its name in any case.
pub fn field<'a>(paragraph: &'a str, name: &str) -> Option<&'a str> {
    fields(paragraph).find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// A folded value with its lines unfolded: the blank in front of each goes, ` .` is an empty line, comments go.
pub fn unfold(value: &str) -> String {
    let lines = value.lines().filter(|line| !line.starts_with('#')).map(|line| match line.trim() {
        "." => "",
        line => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_and_fields_are_told_apart() {
        let text = "\n\nA: 1\nB:  two\n  more\n# note\n .\n\tend\n#C: no\nnonsense\nD:\n\n\nA: 2\n\r\nA: 3";
        let read: Vec<Vec<_>> = paragraphs(text).map(|paragraph| fields(paragraph).collect()).collect();
        assert_eq!(read.len(), 3);
        assert_eq!(read[0][0], ("A", "1"));
        assert_eq!(unfold(read[0][1].1), "two\nmore\n\nend");
        assert_eq!(read[0][2], ("D", ""));
        assert_eq!(field("x: 1\nSHA256: 2\n", "sha256"), Some("2"));
        assert_eq!(read[2], [("A", "3")]);
    }

    #[test]
    fn nonsense_has_no_fields_and_no_panic() {
        for text in ["", "\n", " ", ":", "#", "ä", "\u{0}\n \n", "a", "a:", " a:b\n"] {
            let count = paragraphs(text).flat_map(fields).count();
            assert!(count <= 1, "{text:?}");
        }
    }
}
