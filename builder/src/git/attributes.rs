//! `export-ignore` in `.gitattributes` (gitattributes(5)): which files of a commit are not handed out.

/// The lines of one `.gitattributes`, each a pattern and what it says of `export-ignore`.
#[derive(Debug, Clone, Default)]
pub struct Attributes(Vec<(Pattern, Option<bool>)>);

#[derive(Debug, Clone)]
struct Pattern {
    /// Without slash in front.
    text: Vec<u8>,
    /// It has a slash, so it is of a path from here, not of a name anywhere.
    anchored: bool,
}

impl Attributes {
    /// Reads a file's text. What is not understood says nothing.
    pub fn parse(text: &[u8]) -> Self {
        let mut lines = Vec::new();
        // A macro of the user's own that brings `export-ignore` along.
        let mut macros = vec![(b"export-ignore".to_vec(), true)];
        for line in text.split(|byte| *byte == b'\n') {
            let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            let Some(first) = words.next().filter(|first| !first.starts_with(b"#")) else { continue };
            let mut said = None;
            for word in words {
                let (name, value) = match word {
                    [b'-', name @ ..] => (name, Some(false)),
                    [b'!', name @ ..] => (name, None),
                    name => (name, Some(!name.contains(&b'=') || name.ends_with(b"=true"))),
                };
                let name = name.split(|byte| *byte == b'=').next().unwrap_or_default();
                if let Some((_, meaning)) = macros.iter().find(|(known, _)| known == name) {
                    said = Some(value.map(|value| value == *meaning));
                }
            }
            let Some(said) = said else { continue };
            if let Some(name) = first.strip_prefix(b"[attr]") {
                macros.push((name.to_vec(), said == Some(true)));
                continue;
            }
            // A negative pattern is an error to git, and ignored; one that ends in a slash fits nothing.
            if first.starts_with(b"!") || first.ends_with(b"/") {
                continue;
            }
            let text = first.strip_prefix(b"/").unwrap_or(first).to_vec();
            lines.push((Pattern { text, anchored: first.contains(&b'/') }, said));
        }
        Self(lines)
    }

    /// What the lines say of a path relative to their directory; the last one that fits counts.
    fn says(&self, path: &[u8]) -> Option<Option<bool>> {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        let fits = |pattern: &Pattern| glob(&pattern.text, if pattern.anchored { path } else { name });
        self.0.iter().rev().find(|(pattern, _)| fits(pattern)).map(|(_, said)| *said)
    }
}

/// Whether a path is left out, by the attributes of the directories that lead to it: each with the length of its own path and
/// a slash, outermost first.
pub fn ignored(attributes: &[(usize, Attributes)], path: &[u8]) -> bool {
    let says = attributes.iter().rev().find_map(|(start, attributes)| attributes.says(&path[*start..]));
    says.flatten().unwrap_or(false)
}

/// Whether a pattern of a shell fits all of a text; `*` and `?` stop at slashes, `**` does not.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    // Every way is tried once: what cannot fit from a place of both is remembered by working from the end.
    let mut fits = vec![vec![false; text.len() + 1]; pattern.len() + 1];
    fits[pattern.len()][text.len()] = true;
    for at in (0..pattern.len()).rev() {
        let (one, length) = token(&pattern[at..]);
        for place in (0..=text.len()).rev() {
            let after = |count: usize| fits[at + length][place + count];
            let next = text.get(place).copied();
            let not_slash = next.is_some_and(|byte| byte != b'/');
            let fit = match one {
                Token::Byte(byte) => next == Some(byte) && after(1),
                Token::Any => not_slash && after(1),
                Token::Class(class) => not_slash && next.is_some_and(|byte| in_class(class, byte)) && after(1),
                Token::Star => after(0) || not_slash && fits[at][place + 1],
                // `**/` is nothing or any number of directories.
                Token::Directories => {
                    let boundary = place == 0 || text[place - 1] == b'/';
                    boundary && after(0) || next.is_some() && fits[at][place + 1]
                }
                Token::Everything => after(0) || next.is_some() && fits[at][place + 1],
            };
            fits[at][place] = fit;
        }
    }
    fits[0][0]
}

#[derive(Clone, Copy)]
enum Token<'a> {
    Byte(u8),
    Any,
    Star,
    Directories,
    Everything,
    Class(&'a [u8]),
}

fn token(pattern: &[u8]) -> (Token<'_>, usize) {
    match pattern {
        [b'*', b'*', b'/', ..] => (Token::Directories, 3),
        [b'*', b'*', ..] => (Token::Everything, 2),
        [b'*', ..] => (Token::Star, 1),
        [b'?', ..] => (Token::Any, 1),
        [b'\\', byte, ..] => (Token::Byte(*byte), 2),
        [b'[', rest @ ..] => {
            // A bracket right at the start is one of the characters.
            let skip = 1 + usize::from(matches!(rest.first(), Some(b'!' | b'^')));
            match rest.iter().skip(skip).position(|byte| *byte == b']') {
                Some(end) => (Token::Class(&rest[..end + skip]), end + skip + 2),
                None => (Token::Byte(b'['), 1),
            }
        }
        [byte, ..] => (Token::Byte(*byte), 1),
        [] => (Token::Everything, 0),
    }
}

fn in_class(class: &[u8], byte: u8) -> bool {
    let (negative, mut rest) = match class {
        [b'!' | b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut found = false;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if let [b'-', last, tail @ ..] = tail {
            found |= (*first..=*last).contains(&byte);
            rest = tail;
        } else {
            found |= *first == byte;
        }
    }
    found != negative
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_in_a_shell() {
        for (pattern, text, expected) in [
            ("*.c", "a.c", true),
            ("*.c", "a/b.c", false),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**", "a/x/y", true),
            ("**/b", "a/x/b", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("[", "[", true),
            ("", "", true),
            ("a**b", "axxb", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
        // What would take a naive matcher for ever.
        assert!(!glob("*a".repeat(40).as_bytes(), "a".repeat(39).as_bytes()));
    }

    #[test]
    fn the_innermost_and_last_line_counts() {
        let outer = Attributes::parse(
            b"# words\n/e export-ignore\n*.skip export-ignore\nkeep.skip -export-ignore\n*.x binary\n",
        );
        let inner = Attributes::parse(b"a.skip !export-ignore\n*.y export-ignore=false\n");
        let chain = [(0, outer.clone()), (4, inner)];
        let ignored =
            |path: &str| ignored(if path.starts_with("sub/") { &chain } else { &chain[..1] }, path.as_bytes());
        assert!(ignored("e") && ignored("z.skip") && ignored("d/z.skip") && ignored("sub/b.skip"));
        assert!(!ignored("d/e") && !ignored("keep.skip") && !ignored("a.x") && !ignored("sub/a.skip"));
        let own = Attributes::parse(b"[attr]private export-ignore\nx private\n");
        assert!(super::ignored(&[(0, own)], b"x"));
    }
}
