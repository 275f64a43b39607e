//! What can be typed after `forge gc`, `pin` and `verify`: keeping a store small and whole.

use std::path::PathBuf;

use clap::Args;

/// `forge gc`
#[derive(Debug, Args)]
pub struct GcArguments {
    /// Only says what would go
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Also keeps what was built or used since then, for instance 30d or 12h
    #[arg(long, value_name = "TIME")]
    pub keep: Option<String>,
    /// Also keeps what was used last, as much as the store has room for within this size, for instance 20G
    #[arg(long, value_name = "SIZE")]
    pub max_size: Option<String>,
}

/// `forge pin`
#[derive(Debug, Args)]
pub struct PinArguments {
    /// Digest, prefix or name [default: lists the pinned formations]
    #[arg(value_name = "FORMATION", required_if_eq("remove", "true"))]
    pub formation: Option<String>,
    /// Takes the pin away
    #[arg(short, long)]
    pub remove: bool,
}

/// `forge verify`
#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// A SIF, whose signatures are verified [default: the store is hashed]
    #[arg(value_name = "FILE", requires = "trusted")]
    pub file: Option<PathBuf>,
    /// A public key that is trusted: OpenPGP, or ed25519 in PEM
    #[arg(short, long, value_name = "KEY", group = "trusted", requires = "file")]
    pub key: Vec<PathBuf>,
    /// OpenPGP keys that are trusted
    #[arg(long, value_name = "KEYS", group = "trusted", requires = "file")]
    pub keyring: Vec<PathBuf>,
    /// Also makes good what is damaged in the store: from a peer, else by forgetting it so that the next build makes it
    #[arg(long, conflicts_with = "file")]
    pub repair: bool,
    /// Only names what is damaged in the store, and leaves it where it is
    #[arg(short = 'n', long, conflicts_with_all = ["file", "repair"])]
    pub dry_run: bool,
}
