//! A script of the shell as statements: which lines belong together, which commands they run, and whether that is all they do.
//!
//! This reads as much of the language as it takes to say where a statement ends (POSIX, Shell Command Language, with what bash adds
//! to it), and runs nothing. What it does not understand is one statement to the end of the script, and no simple one: whoever asks
//! then leaves it as it is. The statements' texts one after the other are the script, byte for byte.

/// Whole lines of a script that belong together: a command, several, a compound one, a comment, or nothing.
#[derive(Debug)]
pub struct Statement<'a> {
    /// The lines, with their ends.
    pub text: &'a str,
    /// Every command in them, those inside others too, in the order in which they end.
    pub commands: Vec<Command>,
    /// Nothing but commands one after the other (`;`, `&&`), which print to the terminal or to /dev/null.
    pub is_simple: bool,
    /// Nothing is put in for variables.
    pub is_literal: bool,
}

/// Words, without quotes and without what only says where output goes.
#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    /// The line of the script that it starts on, from 1.
    pub line: usize,
    /// They.
    pub words: Vec<String>,
}

/// Takes a script apart.
pub fn statements(script: &str) -> Vec<Statement<'_>> {
    let mut reader = Reader { text: script, at: 0, line: 1, documents: Vec::new(), found: Found::new(), depth: 0 };
    let mut statements = Vec::new();
    while reader.at < script.len() {
        let start = reader.at;
        if reader.list(None).is_none() {
            reader.at = script.len();
            reader.found.is_simple = false;
        }
        let Found { commands, is_simple, is_literal } = std::mem::replace(&mut reader.found, Found::new());
        statements.push(Statement { text: &script[start..reader.at], commands, is_simple, is_literal });
    }
    statements
}

/// Deeper than any script; what is nested is read by functions that call themselves.
const DEEPEST: usize = 64;

struct Found {
    commands: Vec<Command>,
    is_simple: bool,
    is_literal: bool,
}

impl Found {
    fn new() -> Self {
        Self { commands: Vec::new(), is_simple: true, is_literal: true }
    }
}

/// A document of `<<` whose lines are still to come.
struct Document {
    delimiter: String,
    /// `<<-`: tabs before the delimiter do not count.
    is_indented: bool,
    /// The delimiter has quotes: a backslash at the end of a line joins nothing.
    is_quoted: bool,
}

/// A word, and whether any of it was quoted.
struct Word {
    text: String,
    is_quoted: bool,
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    documents: Vec<Document>,
    found: Found,
    depth: usize,
}

/// The command that is being read.
#[derive(Default)]
struct Current {
    words: Vec<String>,
    line: usize,
    /// What follows `for` or `case` is no command.
    is_header: bool,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        self.line += usize::from(next == '\n');
        Some(next)
    }

    fn take(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.at += text.len();
            self.line += text.matches('\n').count();
        }
        found
    }

    /// Commands up to the end of a statement; inside `$(`, up to the `)`. Nothing where the script is not understood.
    fn list(&mut self, end: Option<char>) -> Option<()> {
        let mut open: Vec<&str> = Vec::new();
        let mut current = Current::default();
        // Whether an operator wants a command after it, on the next line if need be.
        let mut goes_on = false;
        loop {
            match self.peek() {
                None => {
                    self.finish(&mut current);
                    return (open.is_empty() && end.is_none() && self.documents.is_empty()).then_some(());
                }
                Some(' ' | '\t') => _ = self.next(),
                Some('\\') if self.take("\\\n") => {}
                Some('#') => {
                    while self.peek().is_some_and(|next| next != '\n') {
                        self.next();
                    }
                }
                Some('\n') => {
                    self.next();
                    let asks = current.words.is_empty() && goes_on;
                    self.finish(&mut current);
                    self.read_documents()?;
                    if open.is_empty() && end.is_none() && !asks {
                        return Some(());
                    }
                }
                Some(')') if matches!(open.last(), Some(&")" | &"()")) => {
                    self.next();
                    self.finish(&mut current);
                    // What a function does may begin on the next line.
                    goes_on = open.pop() == Some("()");
                }
                Some(')') if open.is_empty() && end == Some(')') => {
                    self.next();
                    self.finish(&mut current);
                    return Some(());
                }
                // After a pattern of `case`.
                Some(')') if open.last() == Some(&"esac") => {
                    self.next();
                    current = Current::default();
                }
                Some(')') => return None,
                // A group, a function's `()`, an array of bash.
                Some('(') => {
                    self.next();
                    self.found.is_simple = false;
                    let is_function = current.words.last().is_some_and(|word| !word.ends_with('='));
                    current = Current::default();
                    open.push(if is_function { "()" } else { ")" });
                }
                Some(';' | '&' | '|') => {
                    goes_on = self.operator(&mut current);
                    continue;
                }
                Some('<' | '>') => self.redirection(&mut current)?,
                Some(_) => {
                    let line = self.line;
                    let word = self.word()?;
                    // `2>`, `2<`: which of the files is meant.
                    let is_number = !word.is_quoted && word.text.bytes().all(|byte| byte.is_ascii_digit());
                    if is_number && !word.text.is_empty() && matches!(self.peek(), Some('<' | '>')) {
                        self.redirection(&mut current)?;
                        continue;
                    }
                    goes_on = false;
                    self.add(word, line, &mut current, &mut open)?;
                }
            }
        }
    }

    /// One more word: of the shell's own, if a command may begin here; else of a command.
    fn add(&mut self, word: Word, line: usize, current: &mut Current, open: &mut Vec<&'static str>) -> Option<()> {
        let begins = current.words.is_empty() && !current.is_header && !word.is_quoted;
        let text = if begins { word.text.as_str() } else { "" };
        let (opens, closes) = match text {
            "if" => (Some("fi"), None),
            "while" | "until" | "for" | "select" => (Some("done"), None),
            "case" => (Some("esac"), None),
            "{" => (Some("}"), None),
            "fi" | "done" | "esac" | "}" => (None, Some(text)),
            "then" | "elif" | "else" | "do" | "!" | "time" | "function" => (None, None),
            _ => {
                if current.words.is_empty() {
                    current.line = line;
                }
                // `case x in PATTERN)`: the pattern is thrown away at its bracket.
                current.words.push(word.text);
                return Some(());
            }
        };
        self.found.is_simple = false;
        current.is_header = matches!(text, "for" | "select" | "case");
        if text == "function" {
            self.blanks();
            self.word()?;
        }
        open.extend(opens);
        match closes {
            Some(closes) if open.last() == Some(&closes) => _ = open.pop(),
            Some(_) => return None,
            None => {}
        }
        Some(())
    }

    /// `;`, `&`, `|` and what is made of them; whether a command must follow.
    fn operator(&mut self, current: &mut Current) -> bool {
        self.finish(current);
        if self.take("&&") {
            return true;
        }
        if self.take("||") || self.take("|") {
            self.found.is_simple = false;
            return true;
        }
        // `;;` and its like end a branch of `case`.
        self.found.is_simple &= self.rest().starts_with(';') && !self.rest().starts_with(";;");
        self.next();
        false
    }

    /// `>`, `<` and what is made of them, with the word after it.
    fn redirection(&mut self, current: &mut Current) -> Option<()> {
        if self.take("<<<") {
            self.found.is_simple = false;
        } else if self.take("<<") {
            self.found.is_simple = false;
            let is_indented = self.take("-");
            self.blanks();
            let word = self.word()?;
            self.documents.push(Document { delimiter: word.text, is_indented, is_quoted: word.is_quoted });
            return Some(());
        } else if self.rest().starts_with("<(") || self.rest().starts_with(">(") {
            // Bash's name of a pipe is a word with a command in it.
            self.next();
            self.next();
            current.words.push(String::new());
            self.found.is_simple = false;
            return self.nested(|reader| reader.list(Some(')')));
        } else {
            let operator = [">>", ">&", ">|", "<&", "<>", ">", "<"].into_iter().find(|operator| self.take(operator))?;
            self.blanks();
            let word = self.word()?;
            let goes_nowhere = match operator {
                ">&" => matches!(word.text.as_str(), "1" | "2"),
                _ => word.text == "/dev/null",
            };
            self.found.is_simple &= goes_nowhere;
            return Some(());
        }
        self.blanks();
        self.word().map(|_| ())
    }

    fn blanks(&mut self) {
        while self.take(" ") || self.take("\t") || self.take("\\\n") {}
    }

    fn finish(&mut self, current: &mut Current) {
        let Current { words, line, is_header } = std::mem::take(current);
        if !words.is_empty() && !is_header {
            self.found.commands.push(Command { line, words });
        }
    }

    /// The lines of the documents that the line before asked for.
    fn read_documents(&mut self) -> Option<()> {
        for document in std::mem::take(&mut self.documents) {
            let mut is_joined = false;
            let start = self.at;
            let body = loop {
                let end = self.at;
                let line = self.rest().split_inclusive('\n').next()?;
                self.take(line);
                let line = line.trim_end_matches('\n');
                let shown = if document.is_indented { line.trim_start_matches('\t') } else { line };
                if shown == document.delimiter {
                    // Behind a line that is joined with it, shells differ in whether it ends the document.
                    (!is_joined).then_some(())?;
                    break &self.text[start..end];
                }
                let backslashes = line.len() - line.trim_end_matches('\\').len();
                is_joined = !document.is_quoted && backslashes % 2 == 1;
            };
            if !document.is_quoted {
                self.nested(|reader| reader.expansions(body))?;
            }
        }
        Some(())
    }

    /// Whether what is put into a document ends within it: some shells look for the end of a `$(` beyond the delimiter.
    fn expansions(&self, body: &str) -> Option<()> {
        let mut reader =
            Reader { text: body, at: 0, line: 1, documents: Vec::new(), found: Found::new(), depth: self.depth };
        let mut unused = Word { text: String::new(), is_quoted: false };
        while let Some(next) = reader.peek() {
            match next {
                '$' | '`' => reader.expansion(&mut unused)?,
                '\\' => {
                    reader.next();
                    reader.next();
                }
                _ => _ = reader.next(),
            }
        }
        Some(())
    }

    /// A word, at the first character that is no part of one. It may be empty: `''`, or nothing where one is missing.
    fn word(&mut self) -> Option<Word> {
        let mut word = Word { text: String::new(), is_quoted: false };
        while let Some(next) = self.peek() {
            match next {
                ' ' | '\t' | '\n' | ';' | '&' | '|' | '<' | '>' | '(' | ')' => break,
                '\\' if self.take("\\\n") => {}
                '\\' => {
                    self.next();
                    word.text.extend(self.next());
                    word.is_quoted = true;
                }
                '\'' => {
                    word.is_quoted = true;
                    let quoted = self.rest()[1..].split('\'').next()?;
                    self.next();
                    self.take(quoted);
                    word.text.push_str(quoted);
                    self.take("'").then_some(())?;
                }
                '"' => {
                    word.is_quoted = true;
                    self.next();
                    self.quoted(&mut word)?;
                }
                '$' | '`' => self.expansion(&mut word)?,
                _ => word.text.extend(self.next()),
            }
        }
        Some(word)
    }

    /// What is between double quotes, and the closing one.
    fn quoted(&mut self, word: &mut Word) -> Option<()> {
        loop {
            match self.peek()? {
                '"' => {
                    self.next();
                    return Some(());
                }
                '\\' if self.take("\\\n") => {}
                '\\' => {
                    self.next();
                    let next = self.next()?;
                    if !matches!(next, '$' | '`' | '"' | '\\') {
                        word.text.push('\\');
                    }
                    word.text.push(next);
                }
                '$' | '`' => self.expansion(word)?,
                _ => word.text.extend(self.next()),
            }
        }
    }

    /// What begins with `$` or a backtick; the word gets it as it is written.
    fn expansion(&mut self, word: &mut Word) -> Option<()> {
        let start = self.at;
        self.found.is_literal = false;
        if self.take("$((") {
            self.found.is_simple = false;
            self.brackets(2)?;
        } else if self.take("$(") {
            self.found.is_simple = false;
            self.nested(|reader| reader.list(Some(')')))?;
        } else if self.take("${") {
            self.nested(Self::braces)?;
        } else if self.take("$'") {
            // Bash undoes escapes in it, and other shells end it at the first quote: where that differs nothing is certain.
            let quoted = self.rest().split('\'').next()?;
            self.take(quoted);
            (self.take("'") && !quoted.ends_with('\\')).then_some(())?;
            word.is_quoted = true;
        } else if self.take("`") {
            self.found.is_simple = false;
            loop {
                match self.next()? {
                    '`' => break,
                    '\\' => _ = self.next()?,
                    _ => {}
                }
            }
        } else {
            self.next();
        }
        word.text.push_str(&self.text[start..self.at]);
        Some(())
    }

    /// The rest of `$((`: as many brackets are closed as are open.
    fn brackets(&mut self, mut open: usize) -> Option<()> {
        while open > 0 {
            match self.next()? {
                '(' => open += 1,
                ')' => open -= 1,
                '\'' | '"' | '`' | '\\' => return None,
                _ => {}
            }
        }
        Some(())
    }

    /// The rest of `${`.
    fn braces(&mut self) -> Option<()> {
        let mut unused = Word { text: String::new(), is_quoted: false };
        loop {
            match self.peek()? {
                '}' => {
                    self.next();
                    return Some(());
                }
                '"' => {
                    self.next();
                    self.quoted(&mut unused)?;
                }
                // Whether it quotes depends on what stands around the braces.
                '\'' => return None,
                '\\' => {
                    self.next();
                    self.next()?;
                }
                '$' | '`' => self.expansion(&mut unused)?,
                _ => _ = self.next(),
            }
        }
    }

    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        self.depth += 1;
        let done = if self.depth > DEEPEST { None } else { read(self) };
        self.depth -= 1;
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A statement a line: `simple` if it is such, its text, its commands.
    fn shown(script: &str) -> String {
        let mut shown = String::new();
        for statement in statements(script) {
            let commands: Vec<String> = statement
                .commands
                .iter()
                .map(|command| format!("{}:{}", command.line, command.words.join(" ")))
                .collect();
            let kind = if statement.is_simple { "simple" } else { "whole" };
            shown += &format!("{kind} {:?} [{}]\n", statement.text, commands.join(", "));
        }
        shown
    }

    #[test]
    fn statements_end_where_the_shell_says() {
        let script = "#!/bin/sh\n\na 'b c' # no word\nd \\\n  e && # why\nf > /dev/null 2>&1\ncat <<E >x\nfi\n\\\n'\nE\nif a; then\n  b\nfi\n\
                      for x in a b; do echo done; done\ncase $x in a|b) c;; (d) e;; esac\ng() {\n  h \"$(i j)\"\n}\nl | m\nn=(1 2)\no\n";
        insta::assert_snapshot!(shown(script), @r##"
        simple "#!/bin/sh\n" []
        simple "\n" []
        simple "a 'b c' # no word\n" [3:a b c]
        simple "d \\\n  e && # why\nf > /dev/null 2>&1\n" [4:d e, 6:f]
        whole "cat <<E >x\nfi\n\\\n'\nE\n" [7:cat]
        whole "if a; then\n  b\nfi\n" [12:a, 13:b]
        whole "for x in a b; do echo done; done\n" [15:echo done]
        whole "case $x in a|b) c;; (d) e;; esac\n" [16:c, 16:d, 16:e]
        whole "g() {\n  h \"$(i j)\"\n}\n" [18:i j, 18:h $(i j)]
        whole "l | m\n" [20:l, 20:m]
        whole "n=(1 2)\n" [21:1 2]
        simple "o\n" [22:o]
        "##);
    }

    #[test]
    fn the_statements_are_the_script_whatever_it_is() {
        let deep = "$(".repeat(100_000);
        for script in [
            "",
            "\n",
            "a",
            "a \\",
            "'",
            "\"$(",
            "cat <<E\nno end",
            "fi\na\n",
            "if a; then\n",
            "a)\nb",
            "(a\n",
            "${a",
            "`a",
            "a <",
            "a\r\nb\r\n",
            "cat <<'é'\né\nü\n",
            "echo \"${x:-'}\"\nb",
            "echo $'it\\'s'\nb",
            &deep,
        ] {
            let read = statements(script);
            assert_eq!(read.iter().map(|statement| statement.text).collect::<String>(), script);
        }
    }

    #[test]
    fn the_body_of_a_function_may_begin_on_the_next_line() {
        insta::assert_snapshot!(shown("f()\n\n# why\n{\n  a\n}\nb=(\n  c\n)\nd\n"), @r##"
        whole "f()\n\n# why\n{\n  a\n}\n" [5:a]
        whole "b=(\n  c\n)\n" [8:c]
        simple "d\n" [10:d]
        "##);
    }

    #[test]
    fn what_is_not_understood_is_one_statement_to_the_end() {
        for script in [
            "done\na\nb\n",
            "echo 'a\nb\n",
            "x=${y:-'}\na\n'}",
            "cat <<E\na\n",
            "cat <<E\na\\\nE\nb\nE\n",
            "cat <<E\n$(a\nE\n)\nE\n",
        ] {
            let read = statements(script);
            assert!(read.len() == 1 && !read[0].is_simple, "{script}");
        }
    }
}
