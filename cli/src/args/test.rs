//! What `forge test` takes.

use clap::Args;

use super::Target;

/// `forge test`
#[derive(Debug, Args)]
pub struct TestArguments {
    /// What is tested, and how its test is run.
    #[command(flatten)]
    pub target: Target,
}
