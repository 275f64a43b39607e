//! Where a run happens, and `forge runner`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use executor::backend::runner::Kind;

/// Who runs a formation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendChoice {
    /// This kernel.
    Native,
    /// A container of this engine, or of the first that is here.
    Runner(Option<Kind>),
}

impl Default for BackendChoice {
    fn default() -> Self {
        if cfg!(target_os = "linux") { Self::Native } else { Self::Runner(None) }
    }
}

impl FromStr for BackendChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "native" => Ok(Self::Native),
            "runner" => Ok(Self::Runner(None)),
            "runner:docker" => Ok(Self::Runner(Some(Kind::Docker))),
            "runner:podman" => Ok(Self::Runner(Some(Kind::Podman))),
            _ => Err("native, runner, runner:docker or runner:podman is expected".to_owned()),
        }
    }
}

/// Where a run happens, and how sure it is of what it runs.
#[derive(Default, Debug, Clone, Args)]
pub struct WhereOptions {
    /// Who runs it: native, runner, runner:docker, runner:podman [default: native on Linux, runner elsewhere]
    #[arg(long, value_name = "BACKEND")]
    pub backend: Option<BackendChoice>,
    /// Another OCI runtime runs it, on this kernel: crun, runc, youki, or the path of one
    #[arg(long, value_name = "RUNTIME")]
    pub runtime: Option<PathBuf>,
    /// Shows a file or directory as /input/NAME, read-only
    #[arg(long, value_name = "FILE")]
    pub input: Vec<PathBuf>,
    /// Brings back what the program leaves in /output: files and directories, into this directory, which is made
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Bound on what comes back [default: 256M]
    #[arg(long, value_name = "BYTES", requires = "output")]
    pub output_size: Option<String>,
    /// Hashes every byte of the formation again where it runs, and refuses one that differs
    #[arg(long)]
    pub measure: bool,
    /// The file (SIF or squashfs) is by someone who is trusted: as root, the kernel mounts it where it lies, and nothing is unpacked
    #[arg(long)]
    pub trust: bool,
    /// The file (SIF or squashfs) is read by `squashfuse` for this run, and nothing is unpacked: nobody needs to trust it
    #[arg(long, conflicts_with_all = ["trust", "runtime"])]
    pub fuse: bool,
    /// Refuses a formation that has not passed `forge parity` here
    #[arg(long)]
    pub require_parity: bool,
    /// Bounds that the container around us may hold: they are looked at, and set only if it does not
    #[arg(long, hide = true)]
    pub contained: bool,
}

/// `forge runner`
#[derive(Debug, Args)]
pub struct RunnerArguments {
    /// What to do.
    #[command(subcommand)]
    pub action: RunnerAction,
}

/// What is done with the runner image.
#[derive(Debug, Subcommand)]
pub enum RunnerAction {
    /// Makes the image of this forge and loads it into the engine, or writes it to a file; prints its formation's id
    Build(RunnerBuildArguments),
    /// Makes the image and sends it to a registry, under a name that `runner.image` can say
    Push(RunnerPushArguments),
}

/// `forge runner build`
#[derive(Debug, Args)]
pub struct RunnerBuildArguments {
    /// A static `forge` for Linux, of the architecture that is wanted [default: this program]
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// What the image must be for, for instance linux/arm64: a program of another architecture is refused
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Writes an archive that `docker load` and `podman load` read, and loads nothing
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The engine: runner, runner:docker, runner:podman
    #[arg(long, value_name = "BACKEND", default_value = "runner")]
    pub backend: BackendChoice,
}

/// `forge runner push`
#[derive(Debug, Args)]
pub struct RunnerPushArguments {
    /// Where to, `REGISTRY/REPOSITORY[:TAG]` [default tag: the version and architecture]
    #[arg(value_name = "REFERENCE")]
    pub reference: String,
    /// A static `forge` for Linux, of the architecture that is wanted [default: this program]
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// What the image must be for, for instance linux/arm64: a program of another architecture is refused
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// The engine: runner, runner:docker, runner:podman
    #[arg(long, value_name = "BACKEND", default_value = "runner")]
    pub backend: BackendChoice,
}
