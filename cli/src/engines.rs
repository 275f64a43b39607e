//! Which container engine runs the runner image.

use executor::backend::runner::{Engine, Kind};

use crate::args::runner::BackendChoice;
use crate::context::Context;
use crate::error::{Failure, Result, code};

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
            let is_here = |kind: &Kind| context.program(kind.name()).is_some();
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
