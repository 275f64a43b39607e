//! `forge bundle` and `forge runtime …`: the OCI runtime specification.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Target;

/// `forge bundle`
#[derive(Debug, Args)]
pub struct BundleArguments {
    /// What is run, and how.
    #[command(flatten)]
    pub target: Target,
    /// The directory to make: config.json and rootfs/
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Takes the place of the formation's entrypoint
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<OsString>,
    /// Replaces the formation's command
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// `forge runtime`
#[derive(Debug, Args)]
pub struct RuntimeArguments {
    /// Where the state of containers is kept [default: $XDG_RUNTIME_DIR/forge, for root /run/forge]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Errors are also written to this file
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// How
    #[arg(long, value_name = "FORMAT", value_parser = ["text", "json"], default_value = "text")]
    pub log_format: String,
    /// Taken and not needed: nobody is asked to make a unit, cgroups are made
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// Who makes cgroups: `disabled` is nobody; with any other word forge makes them itself
    #[arg(long, value_name = "WHO")]
    pub cgroup_manager: Option<String>,
    /// Taken and not needed
    #[arg(long)]
    pub debug: bool,
    /// Taken and not needed: it shows
    #[arg(long, value_name = "BOOL", num_args = 0..=1)]
    pub rootless: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub operation: Operation,
}

/// Operations of the specification.
#[derive(Debug, Subcommand)]
pub enum Operation {
    /// Makes a container of a bundle; its program waits for `start`
    Create(CreateArguments),
    /// Lets the program of a container begin
    Start(ContainerArguments),
    /// Makes a container, starts it, waits for its end and deletes it
    Run(CreateArguments),
    /// Prints the state of a container
    State(ContainerArguments),
    /// Sends a signal to a container's first process
    Kill(KillArguments),
    /// Takes away what is left of a container
    Delete(DeleteArguments),
    /// Prints what there is of the specification
    Features,
    /// Lists the containers
    List,
}

/// Which container.
#[derive(Debug, Args)]
pub struct ContainerArguments {
    /// Its name
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `create`
#[derive(Debug, Args)]
pub struct CreateArguments {
    /// The bundle's directory
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Gets the number of the first process
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// A socket that gets the terminal
    #[arg(long, value_name = "FILE")]
    pub console_socket: Option<PathBuf>,
    /// How many descriptors from 3 on are handed on
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Taken and not needed: no keyring is shared
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Refused: without pivot_root a root is not closed
    #[arg(long)]
    pub no_pivot: bool,
    /// Its name
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `kill`
#[derive(Debug, Args)]
pub struct KillArguments {
    /// All its processes
    #[arg(short, long)]
    pub all: bool,
    /// Its name
    #[arg(value_name = "ID")]
    pub id: String,
    /// A name or a number
    #[arg(value_name = "SIGNAL", default_value = "SIGTERM")]
    pub signal: String,
}

/// `delete`
#[derive(Debug, Args)]
pub struct DeleteArguments {
    /// Also if it runs
    #[arg(short, long)]
    pub force: bool,
    /// Its name
    #[arg(value_name = "ID")]
    pub id: String,
}
