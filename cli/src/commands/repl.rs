//! `forge repl`: expressions typed in one after the other, with the names that were bound before.

mod editor;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Command;

use expressions::session::{Environment, Piece, Reading, Session, Style, Trouble, begin};
use store::lock::Lock;

use self::editor::{Line, Lines};
use crate::args::ReplArguments;
use crate::context::{Context, absolute};
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;
use crate::interrupt;
use crate::plan;
use crate::render::{self, Paint};
use crate::words::{self, say};

/// Names, words that follow, what it does.
const COMMANDS: &[(&[&str], &str, &str)] = &[
    (&[":a", ":add"], "EXPR", "brings the attributes of a set into scope"),
    (&[":b"], "EXPR", "says how a derivation is built (a session builds nothing)"),
    (&[":doc"], "EXPR", "shows what is written about a function or an attribute"),
    (&[":e", ":edit"], "EXPR", "opens $EDITOR where something is defined, then reloads"),
    (&[":l", ":load"], "FILE", "brings the attributes of a file into scope"),
    (&[":ll", ":last-loaded"], "", "lists what was brought into scope last"),
    (&[":log"], "EXPR", "says where the log of a build is"),
    (&[":p", ":print"], "EXPR", "evaluates all of a value; a string is printed as it is"),
    (&[":q", ":quit"], "", "ends the session"),
    (&[":r", ":reload"], "", "forgets all names and loads the files again"),
    (&[":t"], "EXPR", "says what kind of value it is"),
    (&[":te", ":trace-enable"], "[true|false]", "shows whole traces of failures, or no longer"),
    (&[":?", ":help"], "", "shows this"),
];

/// `forge repl`
pub fn run(arguments: &ReplArguments, context: &Context) -> Result<ExitCode> {
    let directory = std::env::current_dir()?;
    let file = arguments.file.as_deref().map(plan::expression_file).transpose()?;
    let lock = match &file {
        Some(file) => plan::read_lock(&file.with_file_name("forge.lock"))?.0,
        None => Lock::default(),
    };
    let project = match &file {
        Some(file) => plan::project_of(file),
        None => plan::project_of(&directory.join("expression")),
    };
    let environment = Environment {
        directory,
        sources: plan::sources(project, &arguments.sources, context)?,
        system: plan::system(),
        lock,
        arguments: plan::function_arguments(&arguments.arguments),
        listener: Some(plan::listener()),
    };
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let history = terminal.then(|| context.state_path().ok()).flatten().map(|path| path.join("repl-history"));
    let talk = Talk {
        show_trace: context.global.show_trace,
        json: context.global.json,
        quiet: context.global.quiet,
        // The answers go to stdout.
        colors: context.color_on_stdout(),
        paint: Paint::new(context.color()),
        editor: context.variable("EDITOR").cloned(),
    };
    let expression = arguments.expression.clone();
    begin(environment, move |session| talk.run(session, file.as_deref(), expression.as_deref(), terminal, history))
}

/// How answers are given.
struct Talk {
    show_trace: bool,
    json: bool,
    quiet: bool,
    colors: bool,
    paint: Paint,
    editor: Option<std::ffi::OsString>,
}

/// Whether there is a next question.
#[derive(PartialEq)]
enum Then {
    GoOn,
    End,
}

impl Talk {
    fn run(
        mut self,
        session: Session,
        file: Option<&Path>,
        expression: Option<&str>,
        terminal: bool,
        history: Option<PathBuf>,
    ) -> Result<ExitCode> {
        interrupt::interrupts(session.interrupter());
        let session = std::rc::Rc::new(std::cell::RefCell::new(session));
        let mut lines = Lines::new(&session, terminal, history)?;
        if terminal && !self.quiet {
            say!("forge {}, the language of Nix 2.34. :? shows the commands.", env!("CARGO_PKG_VERSION"));
        }
        if let Some(file) = file {
            let loaded = interrupt::watched(|| session.borrow_mut().load(file));
            self.added(loaded)?;
        }
        if let Some(text) = expression {
            let loaded = interrupt::watched(|| session.borrow_mut().load_text(text));
            self.added(loaded)?;
        }
        let mut pending = String::new();
        loop {
            let line = match lines.next(pending.is_empty())? {
                Line::Text(line) => line,
                Line::Interrupted => {
                    pending.clear();
                    continue;
                }
                Line::End if pending.is_empty() => break,
                // What was begun is not all there: say what is wrong with it.
                Line::End => {
                    let answer = session.borrow_mut().show(&pending, false);
                    self.trouble(answer)?;
                    break;
                }
            };
            pending.push_str(&line);
            let (command, text) = split(&pending);
            if matters(command) && session.borrow().read(text) == Reading::Incomplete && !text.trim().is_empty() {
                pending.push('\n');
                continue;
            }
            let whole = std::mem::take(&mut pending);
            lines.remember(whole.trim());
            let then = interrupt::watched(|| self.answer(&mut session.borrow_mut(), &whole));
            if then? == Then::End {
                break;
            }
        }
        lines.save();
        Ok(ExitCode::SUCCESS)
    }

    fn answer(&mut self, session: &mut Session, line: &str) -> Result<Then> {
        let (command, text) = split(line);
        let text = text.trim();
        let wants = COMMANDS.iter().find(|(names, _, _)| names.contains(&command)).map_or("", |(_, wants, _)| wants);
        if !command.is_empty() && text.is_empty() && !wants.is_empty() && !wants.starts_with('[') {
            self.say(&format!("{command} wants {}", wants.to_lowercase()));
            return Ok(Then::GoOn);
        }
        match command {
            "" => match session.read(text) {
                Reading::Nothing => {}
                Reading::Bindings => self.trouble(session.bind(text))?,
                _ if self.json => {
                    if let Some(mut json) = self.good(session.json(text))? {
                        json.push(b'\n');
                        super::print_bytes(&json)?;
                    }
                }
                _ if matches!(text, "exit" | "quit") && self.is_undefined(session, text) => return Ok(Then::End),
                _ => self.value(session.show(text, false))?,
            },
            ":a" | ":add" => self.added(session.add(text))?,
            ":l" | ":load" => {
                let path = text.trim_matches('"');
                let file = absolute(Path::new(path))?;
                let file = if file.is_dir() { plan::expression_file(&file).unwrap_or(file) } else { file };
                self.added(session.load(&file))?;
            }
            ":r" | ":reload" => self.reload(session)?,
            ":ll" | ":last-loaded" => match session.last_loaded() {
                [] => self.say("nothing has been loaded yet"),
                names => super::print(&format!("{}\n", names.join("\n")))?,
            },
            ":p" | ":print" => self.value(session.show(text, true))?,
            ":t" => {
                if let Some(kind) = self.good(session.kind(text))? {
                    super::print(&format!("{kind}\n"))?;
                }
            }
            ":doc" => self.document(session, text)?,
            ":e" | ":edit" => self.edit(session, text)?,
            ":b" | ":bl" | ":log" | ":i" | ":u" | ":sh" => self.build(session, command, text)?,
            ":lf" | ":load-flake" => {
                self.say("there are no flakes in a session: load the file that is meant, `:l FILE`")
            }
            ":te" | ":trace-enable" => {
                self.show_trace = match text {
                    "" => !self.show_trace,
                    text => text == "true",
                };
                let not = if self.show_trace { "" } else { "not " };
                super::print(&format!("{not}showing whole traces\n"))?;
            }
            ":q" | ":quit" => return Ok(Then::End),
            ":?" | ":help" => super::print(&help())?,
            other => {
                self.say(&format!("there is no command `{other}`"));
                say!("{} :? shows the commands", self.paint.hint("hint:"));
            }
        }
        Ok(Then::GoOn)
    }

    /// `exit` ends a session, unless it is a name.
    fn is_undefined(&self, session: &mut Session, text: &str) -> bool {
        !session.complete(text).1.iter().any(|name| name == text)
    }

    fn value(&self, answer: std::result::Result<Vec<Piece>, Trouble>) -> Result<()> {
        let Some(pieces) = self.good(answer)? else { return Ok(()) };
        let text: String = pieces.iter().map(|piece| self.colored(piece)).collect();
        super::print(&format!("{text}\n"))
    }

    fn colored(&self, piece: &Piece) -> String {
        let color = match piece.style {
            _ if !self.colors => return piece.text.clone(),
            Style::Plain => return piece.text.clone(),
            Style::Constant => "1;36",
            Style::String | Style::Repeated => "1;35",
            Style::Path => "1;32",
            Style::Function => "1;34",
            Style::Error => "1;31",
        };
        format!("\x1b[{color}m{}\x1b[0m", piece.text)
    }

    fn added(&self, answer: std::result::Result<Vec<String>, Trouble>) -> Result<()> {
        const SHOWN: usize = 20;
        let Some(names) = self.good(answer)? else { return Ok(()) };
        let more = match names.len().saturating_sub(SHOWN) {
            0 => String::new(),
            count => format!("\n… and {count} more: :ll lists them"),
        };
        let plural = if names.len() == 1 { "" } else { "s" };
        let shown = names[..names.len().min(SHOWN)].join(", ");
        if !self.quiet {
            say!("added {} name{plural}{}{shown}{more}", names.len(), if names.is_empty() { "" } else { ": " });
        }
        Ok(())
    }

    fn reload(&self, session: &mut Session) -> Result<()> {
        for (file, result) in session.reload() {
            if !self.quiet {
                say!("loading {file}");
            }
            self.added(result)?;
        }
        Ok(())
    }

    fn document(&self, session: &mut Session, text: &str) -> Result<()> {
        let Some(found) = self.good(session.documentation(text))? else { return Ok(()) };
        let Some(found) = found else {
            self.say("this has no documentation: functions and attributes have");
            return Ok(());
        };
        let place = found.place.map(|place| format!("\ndefined at {}", render::location(&place))).unwrap_or_default();
        let text = if found.text.is_empty() { "(nothing is written about it)" } else { &found.text };
        super::print(&format!("{}{place}\n\n{text}\n", found.title))
    }

    fn edit(&self, session: &mut Session, text: &str) -> Result<()> {
        let Some(place) = self.good(session.place(text))? else { return Ok(()) };
        let Some(place) = place else {
            self.say("where this is defined is not known");
            return Ok(());
        };
        let file = &place.text.name;
        if !file.is_absolute() {
            // Part of forge, or typed in: there is no file to open.
            return super::print(&format!("{}\n", String::from_utf8_lossy(&place.text.bytes).trim_end()));
        }
        let Some(editor) = self.editor.as_ref().and_then(|editor| editor.to_str()) else {
            self.say(&format!("it is defined at {}, and EDITOR is not set", render::location(&place)));
            return Ok(());
        };
        let mut words = editor.split_whitespace();
        let Some(program) = words.next() else { return Ok(()) };
        let mut command = Command::new(program);
        command.args(words);
        if ["vi", "vim", "nvim", "nano", "emacs", "kak", "micro"].iter().any(|known| program.ends_with(known)) {
            command.arg(format!("+{}", place.line_and_column().0));
        }
        match command.arg(file).status() {
            Ok(_) => self.reload(session),
            Err(error) => {
                self.say(&format!("cannot start `{program}`: {error}"));
                Ok(())
            }
        }
    }

    fn build(&self, session: &mut Session, command: &str, text: &str) -> Result<()> {
        match self.good(session.derivation(text))? {
            None => {}
            Some(None) => self.say("this is no derivation"),
            Some(Some(path)) => {
                self.say(&format!("a session builds nothing, so {command} does nothing with `{path}`"));
                let hint =
                    "put it into a formation's layers: `forge build FILE` builds that, and prints a failed step's log";
                say!("{} {hint}", self.paint.hint("hint:"));
            }
        }
        Ok(())
    }

    fn say(&self, words: &str) {
        say!("{} {words}", self.paint.error("error:"));
    }

    fn trouble<T>(&self, answer: std::result::Result<T, Trouble>) -> Result<()> {
        self.good(answer).map(|_| ())
    }

    /// What was asked for; else words about why it is not there.
    fn good<T>(&self, answer: std::result::Result<T, Trouble>) -> Result<Option<T>> {
        match answer {
            Ok(good) => return Ok(Some(good)),
            Err(Trouble::Interrupted) => self.say("interrupted"),
            Err(Trouble::Wrong(error)) => {
                for finding in &error.findings {
                    words::show(&render::finding(finding, self.show_trace, self.paint));
                }
            }
            Err(Trouble::Unlocked(questions)) => {
                let failure = Failure::new(code::NEGATIVE, "the value depends on what is not locked yet");
                let words = questions.iter().map(|question| format!("not locked: {}", plan::words(&question.request)));
                let failure = words.fold(failure, Failure::cause).hint("`forge lock FILE` writes the lock");
                words::show(&failure.render(self.paint.colored(), false));
            }
        }
        Ok(None)
    }
}

/// A command and what follows it; no command if it is an expression.
fn split(line: &str) -> (&str, &str) {
    let line = line.trim_start();
    if !line.starts_with(':') {
        return ("", line);
    }
    line.split_once(char::is_whitespace).unwrap_or((line, ""))
}

/// Whether an expression follows, which may go over several lines.
fn matters(command: &str) -> bool {
    let wants = COMMANDS.iter().find(|(names, _, _)| names.contains(&command)).map(|(_, wants, _)| *wants);
    command.is_empty() || wants == Some("EXPR")
}

fn help() -> String {
    let mut rows = vec![
        ("EXPR".to_owned(), "evaluates an expression and prints its value"),
        ("NAME = EXPR".to_owned(), "gives a value a name; also a.b = …; inherit (…) a;"),
    ];
    for (names, wants, what) in COMMANDS {
        rows.push((format!("{} {wants}", names.join(", ")), what));
    }
    let width = rows.iter().map(|(left, _)| left.chars().count()).max().unwrap_or_default();
    rows.iter().map(|(left, right)| format!("  {left:width$}  {right}\n")).collect()
}
