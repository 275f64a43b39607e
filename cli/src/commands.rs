//! One file per command. Each has `run(arguments, &Context)`.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::args::building::LogFormat;
use crate::args::{Arguments, Command};
use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;
use crate::words::{self, say};

pub mod build;
mod bundle;
mod check;
mod commit;
mod completions;
mod config;
mod copy;
mod diff;
mod doctor;
mod document;
mod dry_run;
mod eval;
mod explain;
mod export;
mod gc;
mod graph;
mod image;
pub mod import;
mod info;
mod inspect;
mod key;
mod list;
mod lock;
mod log;
pub mod nix_instantiate;
pub mod parity;
mod pin;
mod pull;
pub mod push;
mod remote;
mod repl;
mod run;
pub mod runner;
pub mod runtime;
mod serve;
mod sign;
mod tag;
mod test;
mod verify;
mod volume;
mod why;

/// Runs a command and turns what came of it into words and an exit code.
pub fn run(arguments: Arguments) -> ExitCode {
    // What stdout has is the program's own.
    let is_programs_stdout = matches!(arguments.command, Command::Run(_) | Command::Shell(_));
    let in_run = is_programs_stdout || matches!(arguments.command, Command::Test(_));
    let (json, show_trace) = (arguments.global.json, arguments.global.show_trace);
    let is_log_json = arguments.command.log_format() == Some(LogFormat::Json);
    let (result, color, person) = match Context::new(arguments.global) {
        Ok(context) => (dispatch(arguments.command, &context), context.color(), context.is_watched()),
        Err(failure) => (Err(failure), false, false),
    };
    let failure = match result {
        Ok(code) => return code,
        Err(failure) if person => failure.with_short_log(),
        Err(failure) => failure,
    };
    // Whoever reads events gets no other lines.
    words::show(&match is_log_json {
        true => format!(
            "{}
",
            failure.to_event()
        ),
        false => failure.render(color, show_trace),
    });
    let status = if in_run && !failure.own_code_in_run { code::RUN_FAILED } else { failure.code };
    // What a command gave before it failed says so itself: whoever reads JSON wants one record.
    if json && is_programs_stdout {
        let mut record = failure.to_json();
        record["exit"] = status.into();
        say!("{record}");
    } else if json && !HAS_RECORD.load(Ordering::Relaxed) {
        // Whoever reads may have gone.
        let _ = print(&format!("{}\n", failure.to_json()));
    }
    ExitCode::from(status)
}

fn dispatch(command: Command, context: &Context) -> Result<ExitCode> {
    match command {
        Command::Build(arguments) => build::run(&arguments, context),
        Command::Run(arguments) => run::run(&arguments, context),
        Command::Shell(arguments) => run::shell(&arguments, context),
        Command::Bundle(arguments) => bundle::run(&arguments, context),
        Command::Runtime(arguments) => runtime::run(&arguments, context),
        Command::Commit(arguments) => commit::run(&arguments, context),
        Command::Test(arguments) => test::run(&arguments, context),
        Command::Parity(arguments) => parity::run(&arguments, context),
        Command::Runner(arguments) => runner::run(&arguments, context),
        Command::Eval(arguments) => eval::run(&arguments, context),
        Command::Repl(arguments) => repl::run(&arguments, context),
        Command::NixInstantiate(arguments) => nix_instantiate::run(arguments.arguments),
        Command::Check(arguments) => check::run(&arguments, context),
        Command::Lock(arguments) => lock::run(&arguments, context),
        Command::Log(arguments) => log::run(&arguments, context),
        Command::Explain(arguments) => explain::run(&arguments, context),
        Command::Why(arguments) => why::run(&arguments, context),
        Command::Graph(arguments) => graph::run(&arguments, context),
        Command::List(_) => list::run(context),
        Command::Info(arguments) => info::run(&arguments, context),
        Command::Tag(arguments) => tag::tag(&arguments, context),
        Command::Rm(arguments) => tag::rm(&arguments, context),
        Command::Diff(arguments) => diff::run(&arguments, context),
        Command::Sbom(arguments) => document::sbom(&arguments, context),
        Command::Provenance(arguments) => document::provenance(&arguments, context),
        Command::Export(arguments) => export::run(&arguments, context),
        Command::Import(arguments) => import::run(&arguments, context),
        Command::Inspect(arguments) => inspect::run(&arguments, context),
        Command::Push(arguments) => push::run(&arguments, context),
        Command::Pull(arguments) => pull::run(&arguments, context),
        Command::Copy(arguments) => copy::run(&arguments, context),
        Command::Serve(arguments) => serve::run(&arguments, context),
        Command::Remote(arguments) => remote::run(&arguments, context),
        Command::Key(arguments) => key::run(&arguments, context),
        Command::Volume(arguments) => volume::run(&arguments, context),
        Command::Gc(arguments) => gc::run(&arguments, context),
        Command::Pin(arguments) => pin::run(&arguments, context),
        Command::Sign(arguments) => sign::run(&arguments, context),
        Command::Verify(arguments) => verify::run(&arguments, context),
        Command::Doctor(arguments) => doctor::run(&arguments, context),
        Command::Config(arguments) => config::run(&arguments, context),
        Command::Completions(arguments) => completions::run(&arguments),
    }
}

/// Writes data to stdout. A reader that has gone away is not an error of ours.
fn print(text: &str) -> Result<()> {
    print_bytes(text.as_bytes())
}

/// The same for what need not be text.
fn print_bytes(bytes: &[u8]) -> Result<()> {
    match std::io::stdout().write_all(bytes).and_then(|()| std::io::stdout().flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(code::DISK_FULL, "cannot write to standard output").cause(error.to_string()))
        }
        _ => Ok(()),
    }
}

/// Whether a JSON record was printed.
static HAS_RECORD: AtomicBool = AtomicBool::new(false);

/// Prints a JSON record.
fn print_json(value: &serde_json::Value) -> Result<()> {
    HAS_RECORD.store(true, Ordering::Relaxed);
    print(&format!("{}\n", serde_json::to_string_pretty(value).expect("a JSON value has a text")))
}
