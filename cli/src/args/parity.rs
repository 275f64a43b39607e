//! `forge parity`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

/// `forge parity`
#[derive(Debug, Args)]
pub struct ParityArguments {
    /// A digest, prefix or name
    #[arg(value_name = "FORMATION")]
    pub formation: String,
    /// Only these backends: native, native:user, runner:podman, runner:docker [default: all of these that are here]; and the runtimes crun, runc, youki, which never see quite the same
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub on: Vec<String>,
    /// Signs the report with this secret key (ed25519 in PEM), beside it: FILE.sig
    #[arg(long, value_name = "KEY", requires = "output")]
    pub sign: Option<PathBuf>,
    /// Its passphrase.
    #[command(flatten)]
    pub passphrase: super::PassphraseArguments,
    /// Also writes the report, as JSON
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// What is run and compared, instead of the formation's own command
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}
