//! `forge commit`

use std::path::PathBuf;

use clap::Args;

/// `forge commit`
#[derive(Debug, Args)]
pub struct CommitArguments {
    /// What `forge run --writable DIR` kept; it stays as it is, and the next such run goes on from there
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Names the formation so [default: as the one that it was made from]
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Its version [default: that of the one that it was made from]
    #[arg(long, value_name = "TEXT")]
    pub version: Option<String>,
}
