//! `forge eval`: evaluates an expression and prints its value.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use expressions::{Print, Request, Sources};

use crate::args::EvalArguments;
use crate::context::{Context, absolute};
use crate::error::{Failure, Result, code};
use crate::plan::attribute_path;

/// `forge eval`
pub fn run(arguments: &EvalArguments, context: &Context) -> Result<ExitCode> {
    let print = match () {
        () if context.global.json => Print::Json,
        () if arguments.xml => Print::Xml,
        () if arguments.raw => Print::Raw,
        () => Print::Nix,
    };
    let directory = std::env::current_dir()?;
    let request = match &arguments.expression {
        Some(text) => Request::text(text.as_bytes(), &directory, Sources::project_of(&directory.join("-"))),
        None => {
            let mut file = absolute(arguments.file.as_deref().unwrap_or(Path::new("runtime.expr")))?;
            if file.is_dir() {
                file.push("runtime.expr");
            }
            if !file.is_file() {
                return Err(Failure::new(code::NOT_FOUND, format!("no expression `{}`", file.display())));
            }
            let sources = Sources::project_of(&file);
            Request::file(&file, sources)
        }
    };
    let pairs = |words: &[String]| words.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect::<Vec<_>>();
    let mut request = Request {
        attribute: attribute_path(arguments.attribute.as_deref())?,
        arguments: pairs(&arguments.arg),
        string_arguments: pairs(&arguments.argstr),
        ..request
    };
    request.sources.impure = arguments.impure;
    for text in &arguments.include {
        let (name, path) = text.split_once('=').unwrap_or(("", text));
        request.sources.search_path.push((name.to_owned(), absolute(&PathBuf::from(path))?));
    }
    let text = expressions::eval_to(&request, print, arguments.strict)?;
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
