//! `forge eval`: evaluates an expression and prints its value.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use expressions::{Format, Input, Outcome, Request};
use store::lock::Lock;

use crate::args::EvalArguments;
use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::plan;

/// `forge eval`
pub fn run(arguments: &EvalArguments, context: &Context) -> Result<ExitCode> {
    let format = match () {
        () if context.global.json => Format::Json,
        () if arguments.xml => Format::Xml,
        () if arguments.raw => Format::Raw,
        () => Format::Nix,
    };
    let (input, project, lock) = match &arguments.expression {
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
    let request = Request {
        input,
        attribute: plan::attribute_path(arguments.attribute.as_deref())?,
        arguments: plan::function_arguments(&arguments.arg, &arguments.argstr),
        system: plan::system(),
        sources,
        listener: Some(plan::listener()),
    };
    // JSON and XML have no word for what is not evaluated.
    let strict = arguments.strict || matches!(format, Format::Json);
    match context.evaluation_cache().eval_to(&request, &lock, format, strict)? {
        Outcome::Done(mut text) => {
            if format != Format::Raw && !text.ends_with(b"\n") {
                text.push(b'\n');
            }
            super::print_bytes(&text)?;
            std::io::stdout().flush()?;
            Ok(ExitCode::SUCCESS)
        }
        Outcome::Unlocked(requests) => {
            let failure = Failure::new(code::NEGATIVE, "the value depends on what is not locked yet");
            let failure = requests
                .iter()
                .fold(failure, |failure, request| failure.cause(format!("not locked: {}", plan::words(request))));
            Err(failure.hint("`forge lock` writes the lock"))
        }
    }
}
