//! What can be typed after `forge volume`.

use clap::{Args, Subcommand};

/// `forge volume`
#[derive(Debug, Args)]
pub struct VolumeArguments {
    /// What to do.
    #[command(subcommand)]
    pub action: VolumeAction,
}

/// What is done with volumes.
#[derive(Debug, Subcommand)]
pub enum VolumeAction {
    /// Makes an empty volume, as `forge run -v NAME:/path` does by itself; prints its directory
    Create {
        /// Letters, digits, `.`, `_` and `-`
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Lists this user's volumes, what they take, and where they lie
    List,
    /// Removes volumes with all that is in them; one that a run shows is left
    #[command(visible_alias = "rm")]
    Remove {
        /// Their names
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
}
