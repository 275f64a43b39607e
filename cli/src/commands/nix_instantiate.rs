//! `forge nix-instantiate`: for what was written for Nix. Its arguments are not forge's and never reach the parser of those.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::sync::Arc;

use clap::CommandFactory;
use expressions::frontend::{Invocation, Sink, Stream, reads_input};

use store::lock::Lock;

use crate::args::{Arguments, Global};
use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::evaluation_cache::EvaluationCache;
use crate::exit::ExitCode;
use crate::outside::{MOST_ROUNDS, Outside, PrintedBefore};
use crate::plan;

/// The name that another program of Nix is called by.
const NAME: &str = "nix-instantiate";

/// The arguments, if this is how forge was called: by that name, or with that word as its first.
pub fn arguments() -> Option<Vec<OsString>> {
    let mut words = std::env::args_os();
    let program = words.next()?;
    Some(match std::path::Path::new(&program).file_name() == Some(OsStr::new(NAME)) {
        true => words.collect(),
        false if words.next()? == NAME => words.collect(),
        false => return None,
    })
}

/// `forge nix-instantiate`
pub fn run(arguments: Vec<OsString>) -> Result<ExitCode> {
    if arguments.iter().any(|word| word == "--help") {
        let mut forge = Arguments::command();
        forge.build();
        let help = forge.find_subcommand_mut(NAME).map(|command| command.render_long_help().to_string());
        super::print(&help.unwrap_or_default())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut input = Vec::new();
    if reads_input(&arguments) {
        std::io::stdin().read_to_end(&mut input)?;
    }
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    let mut invocation = Invocation {
        arguments,
        directory: std::env::current_dir()?,
        environment: Context::variables(),
        input,
        terminal: std::io::IsTerminal::is_terminal(&std::io::stderr()),
        system: plan::system(),
        time: i64::try_from(now).unwrap_or(i64::MAX),
        recorder: None,
        lock: Lock::default(),
        fetched: BTreeMap::new(),
    };
    let before = Arc::new(PrintedBefore::default());
    let printed = Arc::clone(&before);
    let sink: Sink = Arc::new(move |stream, bytes: &[u8]| {
        let bytes = printed.news(stream == Stream::Output, bytes);
        // Whoever reads may have gone.
        let _ = match stream {
            Stream::Output => std::io::stdout().write_all(bytes).and_then(|()| std::io::stdout().flush()),
            Stream::Errors => std::io::stderr().write_all(bytes),
        };
    });
    let unwanted = invocation.arguments.windows(3).any(|words| words == ["--option", "eval-cache", "false"]);
    // Settings that cannot be read are not Nix's, and no reason to fail.
    let context = Context::new(Global { quiet: true, ..Global::default() });
    let cache = context.as_ref().ok().filter(|_| !unwanted).map(Context::evaluation_cache);
    let cache = cache.unwrap_or_else(EvaluationCache::none);
    let mut outside = None;
    for _ in 0..MOST_ROUNDS {
        before.begin();
        let unanswered = match cache.nix_instantiate(invocation.clone(), &sink) {
            Ok(0) => return Ok(ExitCode::SUCCESS),
            Ok(code) => return Ok(ExitCode::from(code)),
            Err(unanswered) => unanswered,
        };
        let outside = match (&mut outside, &context) {
            (Some(outside), _) => outside,
            (none, Ok(context)) => none.insert(Outside::new(context)),
            (_, Err(_)) => break,
        };
        if unanswered.requests.is_empty() {
            invocation.fetched.extend(outside.lay_out(&unanswered.wanted)?);
        } else {
            for entry in outside.answer(&invocation.directory, &unanswered.requests)? {
                invocation.lock.insert(entry);
            }
        }
    }
    context.map(|_| ())?;
    Err(Failure::new(code::NEGATIVE, "the evaluation wants ever more of what is elsewhere"))
}
