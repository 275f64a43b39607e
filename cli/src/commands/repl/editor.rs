//! Lines of a session: from a terminal with history and completion, or as they come.

use std::cell::RefCell;
use std::io::BufRead;
use std::path::PathBuf;
use std::rc::Rc;

use expressions::session::Session;
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::config::CompletionType;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor, Helper, Highlighter, Hinter, Validator};

use super::COMMANDS;
use crate::error::{Failure, Result, code};

/// A line, or why there is none.
pub enum Line {
    /// Without its end.
    Text(String),
    /// Ctrl-C: what was typed does not count.
    Interrupted,
    /// There are no more.
    End,
}

/// Where lines come from.
pub enum Lines {
    /// A terminal, and where its history is kept.
    Terminal(Box<Editor<Words, FileHistory>>, Option<PathBuf>),
    /// A pipe or file.
    Input(std::io::Lines<std::io::BufReader<std::io::Stdin>>),
}

/// The longest history that is kept.
const REMEMBERED: usize = 10_000;

impl Lines {
    /// From the terminal, or from standard input.
    pub fn new(session: &Rc<RefCell<Session>>, terminal: bool, history: Option<PathBuf>) -> Result<Self> {
        if !terminal {
            return Ok(Self::Input(std::io::BufReader::new(std::io::stdin()).lines()));
        }
        let failed = |error: ReadlineError| {
            Failure::new(code::USAGE, "cannot use this terminal").cause(error.to_string()).hint("pipe the lines in")
        };
        let config = Config::builder().completion_type(CompletionType::List).auto_add_history(false);
        let config = config.max_history_size(REMEMBERED).and_then(|config| config.history_ignore_dups(true));
        let mut editor = Editor::with_config(config.map_err(failed)?.build()).map_err(failed)?;
        editor.set_helper(Some(Words { session: Rc::clone(session), files: FilenameCompleter::new() }));
        if let Some(path) = &history {
            // The first session has no history yet.
            let _ = editor.load_history(path);
        }
        Ok(Self::Terminal(Box::new(editor), history))
    }

    /// The next line; `first` of what is asked, or one that goes on.
    pub fn next(&mut self, first: bool) -> Result<Line> {
        match self {
            Self::Input(lines) => match lines.next() {
                Some(line) => Ok(Line::Text(line?)),
                None => Ok(Line::End),
            },
            Self::Terminal(editor, _) => match editor.readline(if first { "forge> " } else { "     > " }) {
                Ok(line) => Ok(Line::Text(line)),
                Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
                Err(ReadlineError::Eof) => Ok(Line::End),
                Err(ReadlineError::Io(error)) => Err(error.into()),
                Err(error) => Err(Failure::new(code::USAGE, "cannot read from this terminal").cause(error.to_string())),
            },
        }
    }

    /// Puts what was asked into the history.
    pub fn remember(&mut self, text: &str) {
        if let Self::Terminal(editor, _) = self
            && !text.is_empty()
        {
            let _ = editor.add_history_entry(text);
        }
    }

    /// Keeps the history for the next session. That it cannot be kept is no reason to fail.
    pub fn save(&mut self) {
        if let Self::Terminal(editor, Some(path)) = self {
            if let Some(directory) = path.parent() {
                let _ = std::fs::create_dir_all(directory);
            }
            let _ = editor.append_history(path);
        }
    }
}

/// Completes commands, names, attributes and files.
#[derive(Helper, Hinter, Highlighter, Validator)]
pub struct Words {
    session: Rc<RefCell<Session>>,
    files: FilenameCompleter,
}

impl Completer for Words {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        position: usize,
        context: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let before = &line[..position];
        let pair = |word: &str| Pair { display: word.to_owned(), replacement: word.to_owned() };
        if before.starts_with(':') && !before.contains(char::is_whitespace) {
            let names = COMMANDS.iter().flat_map(|(names, _, _)| names.iter());
            return Ok((0, names.filter(|name| name.starts_with(before)).map(|name| pair(name)).collect()));
        }
        let word =
            before.rsplit(|sign: char| sign.is_whitespace() || "([{\"".contains(sign)).next().unwrap_or_default();
        let is_path = ["./", "../", "/", "~/"].iter().any(|start| word.starts_with(start));
        if is_path || before.starts_with(":l ") || before.starts_with(":load ") {
            return self.files.complete(line, position, context);
        }
        let Ok(mut session) = self.session.try_borrow_mut() else { return Ok((position, Vec::new())) };
        let (start, words) = crate::interrupt::watched(|| session.complete(before));
        Ok((start, words.iter().map(|word| pair(word)).collect()))
    }
}
