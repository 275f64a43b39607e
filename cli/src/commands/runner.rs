//! `forge runner`: the image that runs formations where this kernel does not.

use std::process::ExitCode;

use executor::backend::runner::{Engine, Kind};

use crate::args::runner::{BackendChoice, RunnerAction, RunnerArguments, RunnerBuildArguments, RunnerPushArguments};
use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::runner_image;

/// `forge runner`
pub fn run(arguments: &RunnerArguments, context: &Context) -> Result<ExitCode> {
    match &arguments.action {
        RunnerAction::Build(arguments) => build(arguments, context),
        RunnerAction::Push(arguments) => push(arguments, context),
    }
}

fn build(arguments: &RunnerBuildArguments, context: &Context) -> Result<ExitCode> {
    let store = context.store()?;
    let id = runner_image::formation(&store, arguments.binary.as_deref())?;
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
            eprintln!("image {reference}");
        }
        super::print(&format!("{id}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn push(arguments: &RunnerPushArguments, context: &Context) -> Result<ExitCode> {
    let store = context.store()?;
    let engine = engine(arguments.backend, context)?;
    let id = runner_image::formation(&store, arguments.binary.as_deref())?;
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

/// The engine that was asked for, or the first that is here, with what the settings say of it.
pub fn engine(choice: BackendChoice, context: &Context) -> Result<Engine> {
    let wanted = match choice {
        BackendChoice::Runner(wanted) => wanted,
        BackendChoice::Native => {
            return Err(Failure::new(code::USAGE, "an engine is expected: runner, runner:docker or runner:podman"));
        }
    };
    let words = |text: &str| text.split_whitespace().map(Into::into).collect::<Vec<_>>();
    let options = context.settings.runner_options.as_ref().map(|setting| words(&setting.value)).unwrap_or_default();
    let said = context.settings.runner_engine.as_ref().map(|setting| words(&setting.value)).unwrap_or_default();
    let with = |kind: Kind| -> Engine {
        let program = match said.is_empty() {
            true => vec![kind.name().into()],
            false => said.clone(),
        };
        Engine { kind, program, options: options.clone() }
    };
    let named = said.iter().find_map(|word| {
        let name = std::path::Path::new(word).file_name()?;
        Kind::ALL.into_iter().find(|kind| name == kind.name())
    });
    match (wanted, named) {
        (Some(kind), Some(named)) if kind != named => Ok(Engine { options, ..Engine::new(kind) }),
        (Some(kind), _) | (None, Some(kind)) => Ok(with(kind)),
        (None, None) => {
            let path = context.variable("PATH").cloned().unwrap_or_default();
            let is_here =
                |kind: &Kind| std::env::split_paths(&path).any(|directory| directory.join(kind.name()).is_file());
            Kind::ALL.into_iter().find(is_here).map(with).ok_or_else(|| {
                let failure = Failure::new(code::NOT_FOUND, "neither `podman` nor `docker` is installed here");
                failure.hint(install_hint())
            })
        }
    }
}

/// How an engine is installed, in words for this machine.
pub fn install_hint() -> &'static str {
    match std::env::consts::OS {
        "linux" => "apt-get install podman (or docker.io); or run it without an engine: --backend native",
        "macos" => "install Docker Desktop, or Podman and `podman machine init`",
        _ => "install Docker Desktop with WSL 2",
    }
}
