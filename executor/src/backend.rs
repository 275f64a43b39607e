//! Who carries a sandbox out.

use crate::{Outcome, Result, Sandbox};

pub mod libcontainer;
pub mod native;
pub mod other;
pub mod runner;

pub use native::Native;
pub use other::Other;

/// A way to run a command in isolation.
pub trait Backend: Send + Sync {
    /// As written after `--backend`.
    fn name(&self) -> &'static str;
    /// Runs the command and waits for its end. Nothing is left behind: no mount, process, cgroup or file.
    fn run(&self, sandbox: &Sandbox) -> Result<Outcome>;
}
