//! `forge eval`: evaluates an expression and prints its value.

use std::io::Write;
use std::path::Path;

use expressions::{Format, Input, Outcome, Request};
use store::lock::Lock;

use crate::args::EvalArguments;
use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;
use crate::outside::{MOST_ROUNDS, Once, Outside, names_its_address};
use crate::plan;

/// `forge eval`
pub fn run(arguments: &EvalArguments, context: &Context) -> Result<ExitCode> {
    let format = match () {
        () if context.global.json => Format::Json,
        () if arguments.xml => Format::Xml,
        () if arguments.raw => Format::Raw,
        () => Format::Nix,
    };
    let (input, project, mut lock) = match &arguments.expression {
        Some(text) => {
            let directory = std::env::current_dir()?;
            let project = plan::project_of(&directory.join("expression"));
            (Input::Text { text: text.clone().into_bytes(), directory }, project, Lock::default())
        }
        None => {
            let file = plan::expression_file(arguments.file.as_deref().unwrap_or(Path::new(".")))?;
            let (lock, _) = plan::read_lock(&file.with_file_name("forge.lock"))?;
            (Input::File(file.clone()), plan::project_of(&file), lock)
        }
    };
    let sources = plan::sources(project, &arguments.sources, context)?;
    let mut request = Request {
        input,
        attribute: plan::attribute_path(arguments.attribute.as_deref())?,
        arguments: plan::function_arguments(&arguments.arguments),
        system: plan::system(),
        sources,
        listener: None,
    };
    // JSON and XML have no word for what is not evaluated.
    let strict = arguments.strict || matches!(format, Format::Json);
    let (cache, outside) = (context.evaluation_cache(), Outside::new(context));
    let once = Once::new(plan::listener());
    for _ in 0..MOST_ROUNDS {
        request.listener = Some(once.again());
        match cache.eval_to(&request, &lock, format, strict)? {
            Outcome::Done(mut text) => {
                if format != Format::Raw && !text.ends_with(b"\n") {
                    text.push(b'\n');
                }
                super::print_bytes(&text)?;
                std::io::stdout().flush()?;
                return Ok(ExitCode::SUCCESS);
            }
            // What an expression names by its address is looked at now, and written down by no one.
            Outcome::Unlocked(questions) if questions.iter().all(|question| names_its_address(&question.request)) => {
                for entry in outside.answer(&request.sources.project, &questions)? {
                    lock.insert(entry);
                }
            }
            Outcome::Unlocked(questions) => {
                let failure = Failure::new(code::NEGATIVE, "the value depends on what is not locked yet");
                let words = questions.iter().map(|question| format!("not locked: {}", plan::words(&question.request)));
                return Err(words.fold(failure, Failure::cause).hint("`forge lock` writes the lock"));
            }
            Outcome::Unread(wanted) => {
                for (path, place) in outside.lay_out(&wanted)? {
                    request.sources.show(path, place);
                }
            }
        }
    }
    Err(Failure::new(code::NEGATIVE, "the evaluation wants ever more of what is elsewhere"))
}
