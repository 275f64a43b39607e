//! What the environment scripts of somebody else's image set, as far as that can be known without a shell.
//!
//! Assignments, `export` and `unset` are read, with quotes and the usual expansions. Nothing is ever run: a statement that is more
//! than that (a command, a condition and all inside it) is left out and counted, so that the caller can say so.

use std::collections::{BTreeMap, BTreeSet};

use super::scripts::is_shell_name;

/// Where programs are looked for if an image does not say, as Apptainer has it.
pub const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// `${A:-${B:-…}}` deeper than this is left out.
const MOST_NESTED: usize = 16;
/// An environment that grows beyond this (`A=$A$A`) is left out.
const MOST_BYTES: usize = 1 << 20;

/// Variables as they are after the scripts that were read.
#[derive(Debug, Clone)]
pub struct Environment {
    variables: BTreeMap<Vec<u8>, Vec<u8>>,
    exported: BTreeSet<Vec<u8>>,
    /// Statements that were left out.
    pub left_out: u64,
}

impl Environment {
    /// As it is when the first script is sourced.
    pub fn new() -> Self {
        let path = b"PATH".to_vec();
        let variables = BTreeMap::from([(path.clone(), DEFAULT_PATH.to_vec())]);
        Self { variables, exported: BTreeSet::from([path]), left_out: 0 }
    }

    /// What a program sees.
    pub fn exported(self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let Self { mut variables, exported, .. } = self;
        variables.retain(|name, _| exported.contains(name));
        variables
    }

    /// Takes variables as they are.
    pub fn exported_from(&mut self, variables: &BTreeMap<Vec<u8>, Vec<u8>>) {
        self.variables.extend(variables.clone());
        self.exported.extend(variables.keys().cloned());
    }

    /// Takes in what a script sets.
    pub fn source(&mut self, script: &[u8]) {
        let mut reader = Reader { script, at: 0 };
        // Ends that compound statements wait for, the outermost first.
        let mut waiting: Vec<&[u8]> = Vec::new();
        while reader.at < script.len() {
            let start = reader.at;
            let statement = reader.statement(self);
            let text = &script[start..reader.at];
            if follow_compounds(text, &mut waiting) {
                self.left_out += 1;
                continue;
            }
            match statement {
                Some(words) => self.apply(words),
                None => self.left_out += 1,
            }
        }
    }

    fn apply(&mut self, words: Vec<Word>) {
        let Some(first) = words.first() else { return };
        if words.iter().all(|word| word.name.is_some()) {
            words.into_iter().for_each(|word| self.set(word, false));
            return;
        }
        let verb = if first.name.is_none() { first.text.as_slice() } else { b"" };
        let rest = &words[1..];
        let is_name = |word: &Word| word.name.is_none() && is_shell_name(&word.text);
        match verb {
            b":" | b"true" => {}
            b"export" if rest.iter().all(|word| word.name.is_some() || is_name(word)) => {
                words.into_iter().skip(1).for_each(|word| self.set(word, true));
            }
            b"unset" if rest.iter().all(is_name) => {
                for word in rest {
                    self.variables.remove(&word.text);
                    self.exported.remove(&word.text);
                }
            }
            _ => self.left_out += 1,
        }
    }

    fn set(&mut self, word: Word, export: bool) {
        let name = match word.name {
            Some(name) => {
                let others = self.variables.values().map(Vec::len).sum::<usize>();
                if others + word.text.len() > MOST_BYTES {
                    self.left_out += 1;
                    return;
                }
                self.variables.insert(name.clone(), word.text);
                name
            }
            None => word.text,
        };
        if export {
            self.exported.insert(name);
        }
    }

    /// The value of a variable in a closed sandbox; none if it depends on who runs the image.
    fn value(&self, name: &[u8]) -> Option<Option<&[u8]>> {
        let outside = [&b"HOME"[..], b"USER", b"LOGNAME", b"PWD", b"OLDPWD", b"UID", b"TERM", b"SHELL"].contains(&name)
            || name.starts_with(b"APPTAINER")
            || name.starts_with(b"SINGULARITY");
        match self.variables.get(name) {
            Some(value) => Some(Some(value)),
            None if outside => None,
            None => Some(None),
        }
    }
}

/// Notes which compound statements begin and end with a statement; whether it is part of one.
fn follow_compounds<'a>(text: &'a [u8], waiting: &mut Vec<&'a [u8]>) -> bool {
    let inside = !waiting.is_empty();
    let mut opened = false;
    for word in text.split(|byte| byte.is_ascii_whitespace() || *byte == b';').filter(|word| !word.is_empty()) {
        let end: &[u8] = match word {
            b"if" => b"fi",
            b"for" | b"while" | b"until" | b"select" => b"done",
            b"case" => b"esac",
            b"{" => b"}",
            // What may stand before another beginning.
            b"then" | b"else" | b"elif" | b"do" | b"!" | b"time" => continue,
            word if waiting.last() == Some(&word) => {
                waiting.pop();
                continue;
            }
            // `name() {`
            word if word.ends_with(b"()") || word == b"function" => continue,
            _ if text.ends_with(b"{") && text.windows(2).any(|pair| pair == b"()") => continue,
            _ => break,
        };
        waiting.push(end);
        opened = true;
    }
    inside || opened
}

/// A word of a statement.
#[derive(Debug, Clone, Default)]
struct Word {
    /// Of an assignment.
    name: Option<Vec<u8>>,
    /// The value of an assignment, else the word.
    text: Vec<u8>,
}

struct Reader<'a> {
    script: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.script.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// The words up to the next line end or `;`. None if there is more than words; it is passed over all the same.
    fn statement(&mut self, environment: &Environment) -> Option<Vec<Word>> {
        let mut words = Vec::new();
        loop {
            match self.peek() {
                None => return Some(words),
                Some(b'\n' | b';') => {
                    self.at += 1;
                    return Some(words);
                }
                Some(b' ' | b'\t' | b'\r') => self.at += 1,
                Some(b'\\') if self.script.get(self.at + 1) == Some(&b'\n') => self.at += 2,
                Some(b'#') => {
                    while self.peek().is_some_and(|byte| byte != b'\n') {
                        self.at += 1;
                    }
                }
                Some(_) => match self.word(environment) {
                    Some(word) => words.push(word),
                    None => {
                        self.skip();
                        return None;
                    }
                },
            }
        }
    }

    /// Passes over the rest of a statement that is not understood; it ends with its line, if no quote is open there.
    fn skip(&mut self) {
        let mut quote = None;
        while let Some(byte) = self.next() {
            match (quote, byte) {
                (None, b'\n') => return,
                (None | Some(b'"'), b'\\') => _ = self.next(),
                (None, b'\'' | b'"') => quote = Some(byte),
                (Some(open), byte) if open == byte => quote = None,
                _ => {}
            }
        }
    }

    fn word(&mut self, environment: &Environment) -> Option<Word> {
        let start = self.at;
        let mut word = Word::default();
        let length = self.script[start..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_');
        let length = length.count();
        let name = &self.script[start..start + length];
        if self.script.get(start + length) == Some(&b'=') && is_shell_name(name) && length > 0 {
            word.name = Some(name.to_vec());
            self.at = start + length + 1;
            if self.peek() == Some(b'~') {
                return None;
            }
        }
        self.pieces(environment, &mut word.text, Within::Word, 0)?;
        Some(word)
    }

    /// Quoted and unquoted pieces up to the end of the word, of the quotes, or of the braces.
    fn pieces(&mut self, environment: &Environment, text: &mut Vec<u8>, within: Within, depth: usize) -> Option<()> {
        if depth > MOST_NESTED || text.len() > MOST_BYTES {
            return None;
        }
        loop {
            let byte = self.peek();
            let quoted = within == Within::Quotes;
            match byte {
                None if within == Within::Word => return Some(()),
                None => return None,
                Some(b' ' | b'\t' | b'\r' | b'\n' | b';') if within == Within::Word => return Some(()),
                Some(b'"') if quoted => return Some(()),
                Some(b'}') if within == Within::Braces => return Some(()),
                _ => {}
            }
            let byte = self.next()?;
            match byte {
                b'\\' => match self.next()? {
                    b'\n' => {}
                    byte if !quoted || b"\\\"$`".contains(&byte) => text.push(byte),
                    byte => text.extend([b'\\', byte]),
                },
                b'"' => {
                    self.pieces(environment, text, Within::Quotes, depth + 1)?;
                    self.at += 1;
                }
                b'\'' if !quoted => loop {
                    match self.next()? {
                        b'\'' => break,
                        byte => text.push(byte),
                    }
                },
                b'$' => self.expansion(environment, text, depth)?,
                b'`' => return None,
                b'&' | b'|' | b'<' | b'>' | b'(' | b')' | b'*' | b'?' | b'[' if within == Within::Word => return None,
                byte => text.push(byte),
            }
        }
    }

    /// What follows a `$`.
    fn expansion(&mut self, environment: &Environment, text: &mut Vec<u8>, depth: usize) -> Option<()> {
        let name = |reader: &mut Self| -> Vec<u8> {
            let rest = &reader.script[reader.at..];
            let length = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
            reader.at += length;
            rest[..length].to_vec()
        };
        let braces = self.peek() == Some(b'{');
        self.at += usize::from(braces);
        let name = name(self);
        if !is_shell_name(&name) {
            // `$(`, `$1`, `$?`; a lone `$` stands for itself.
            let alone =
                !braces && name.is_empty() && matches!(self.peek(), None | Some(b' ' | b'"' | b'\n' | b'/' | b':'));
            return alone.then(|| text.push(b'$'));
        }
        let value = environment.value(&name);
        if !braces {
            text.extend(value?.unwrap_or_default());
            return Some(());
        }
        let colon = self.peek() == Some(b':');
        self.at += usize::from(colon);
        let operator = self.next()?;
        let mut other = Vec::new();
        if b"-+".contains(&operator) {
            self.pieces(environment, &mut other, Within::Braces, depth + 1)?;
            self.at += 1;
        }
        let is_set = |value: &Option<&[u8]>| value.is_some_and(|value| !(colon && value.is_empty()));
        match operator {
            b'}' if !colon => text.extend(value?.unwrap_or_default()),
            // Whoever runs an image may give a value; a closed sandbox does not.
            b'-' => match value.flatten().filter(|value| is_set(&Some(value))) {
                Some(value) => text.extend(value),
                None => text.extend(other),
            },
            b'+' => {
                if is_set(&value?) {
                    text.extend(other);
                }
            }
            _ => return None,
        }
        Some(())
    }
}

/// What ends the pieces that are being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    Word,
    Quotes,
    Braces,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a script sets beside `PATH`, a line each, and how much of it was left out.
    fn after(script: &str) -> (String, u64) {
        let mut environment = Environment::new();
        environment.source(script.as_bytes());
        let left_out = environment.left_out;
        let mut exported = environment.exported();
        if exported.get(&b"PATH"[..]).is_some_and(|path| path == DEFAULT_PATH) {
            exported.remove(&b"PATH"[..]);
        }
        let lines =
            exported.iter().map(|(name, value)| format!("{}={}", name.escape_ascii(), String::from_utf8_lossy(value)));
        (lines.collect::<Vec<_>>().join(" "), left_out)
    }

    #[test]
    fn what_a_shell_would_export_is_read() {
        let (tail, exact) = (format!(":{}", DEFAULT_PATH.escape_ascii()), 0);
        let cases = [
            ("export A=1", "A=1"),
            (
                "#!/bin/sh\n# a comment\n\n  export A='it is' B=\"x \\\"y\\\" \\$z \\\\ \\n\"",
                r#"A=it is B=x "y" $z \ \n"#,
            ),
            ("A=1\nB=2; export B", "B=2"),
            ("export A=1 \\\n  B=2", "A=1 B=2"),
            ("export GREETING=\"${GREETING:-\"good day\"}\"", "GREETING=good day"),
            ("A=x\nexport B=${A}y$A-${A:+set}-${N:+set}-${N-${A:-no}}", "B=xyx-set--x"),
            ("export L=/opt/lib:$L", "L=/opt/lib:"),
            ("export A='x'\"'\"'y' # why", "A=x'y"),
            ("export A=1; unset A; :", ""),
            ("export A='two\nlines'", "A=two\nlines"),
        ];
        for (script, expected) in cases {
            assert_eq!(after(script), (expected.to_owned(), exact), "{script}");
        }
        assert_eq!(after("export PATH=\"/opt/bin:$PATH\"").0, format!("PATH=/opt/bin{tail}"));
    }

    #[test]
    fn what_only_a_shell_could_say_is_left_out() {
        for script in ["A=$(id)", "export A=`id`", "export A=$HOME/x", "export A=${A#x}", "export A=~/x", "export -n A"]
        {
            assert_eq!(after(&format!("{script}\nexport Z=1")), ("Z=1".to_owned(), 1), "{script}");
        }
        let script =
            "if [ -n \"$X\" ]; then\n  export A=1\n  if true; then export B=2; fi\nelse\n export C=3\nfi\nexport Z=1\n";
        assert_eq!(after(script).0, "Z=1");
        for script in
            ["for i in a b; do\nexport A=$i\ndone\n", "f() {\nexport A=1\n}\n", "case x in\nx) export A=1 ;;\nesac\n"]
        {
            assert_eq!(after(&format!("{script}export Z=1\n")).0, "Z=1", "{script}");
        }
        // A condition that never ends hides everything after it.
        assert_eq!(after("if true; then\nexport A=1\n").0, "");
        assert_eq!(after("test -d /x && export A=1\nexport Z=1").0, "Z=1");
    }

    #[test]
    fn an_environment_cannot_grow_without_bound() {
        let script = format!("A=0123456789abcdef\n{}export A\n", "A=$A$A\n".repeat(64));
        let (text, left_out) = after(&script);
        assert!(text.len() <= MOST_BYTES && left_out > 0);
        let nested = format!("export A={}x{}\nexport Z=1", "${B:-".repeat(5000), "}".repeat(5000));
        assert_eq!(after(&nested), ("Z=1".to_owned(), 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_script_is_too_strange(script in "([a-z]|[ \"'$\\\\{}()=;:#\n-]|if|fi|export |A=){0,60}") {
            let _ = after(&script);
        }
    }
}
