//! `forge runner`: the image that runs formations where this kernel does not.

use crate::args::runner::{RunnerAction, RunnerArguments, RunnerBuildArguments, RunnerPushArguments};
use crate::context::Context;
use crate::engines::engine;
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;
use crate::runner_image;
use crate::words::say;

/// `forge runner`
pub fn run(arguments: &RunnerArguments, context: &Context) -> Result<ExitCode> {
    match &arguments.action {
        RunnerAction::Build(arguments) => build(arguments, context),
        RunnerAction::Push(arguments) => push(arguments, context),
    }
}

fn build(arguments: &RunnerBuildArguments, context: &Context) -> Result<ExitCode> {
    let store = context.store()?;
    let id = runner_image::formation(&store, arguments.binary.as_deref(), arguments.platform.as_deref())?;
    let platform = store.formation(id)?.platform;
    let reference = match &arguments.output {
        Some(path) => {
            let failed = |error: std::io::Error| {
                Failure::new(code::REFUSED, format!("cannot write `{}`", path.display())).cause(error.to_string())
            };
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(".".as_ref());
            let file = tempfile::Builder::new().prefix(".forge-runner").tempfile_in(directory).map_err(failed)?;
            let reference = runner_image::archive(&store, id, file.as_file())?;
            file.persist(path).map_err(|error| failed(error.error))?;
            reference
        }
        None => runner_image::loaded(&store, &engine(arguments.backend, context)?, id, &platform, context)?,
    };
    if context.global.json {
        super::print_json(&serde_json::json!({
            "schema": 1, "id": id.to_string(), "platform": platform, "image": reference,
            "file": arguments.output.as_ref().map(|path| path.display().to_string()),
        }))?;
    } else {
        if !context.global.quiet {
            say!("image {reference}");
        }
        super::print(&format!("{id}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn push(arguments: &RunnerPushArguments, context: &Context) -> Result<ExitCode> {
    let store = context.store()?;
    let engine = engine(arguments.backend, context)?;
    let id = runner_image::formation(&store, arguments.binary.as_deref(), arguments.platform.as_deref())?;
    let platform = store.formation(id)?.platform;
    let image = runner_image::loaded(&store, &engine, id, &platform, context)?;
    let last = arguments.reference.rsplit('/').next().unwrap_or_default();
    let reference = match last.contains(':') {
        true => arguments.reference.clone(),
        false => {
            let architecture = platform.rsplit('/').next().unwrap_or_default();
            format!("{}:{}-{architecture}", arguments.reference, env!("CARGO_PKG_VERSION"))
        }
    };
    engine.tag(&image, &reference)?;
    engine.push(&reference)?;
    if context.global.json {
        super::print_json(
            &serde_json::json!({ "schema": 1, "id": id.to_string(), "platform": platform, "image": reference }),
        )?;
    } else {
        super::print(&format!("{reference}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
