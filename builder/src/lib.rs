//! Makes what a plan asks for, one step at a time, and answers what a lock asks.

pub mod builtin;
pub mod debian;
pub mod draft;
pub mod error;
pub mod fetch;
pub mod git;
pub mod machine;
pub mod node;
pub mod python;
pub mod report;
pub mod resolve;
pub mod scan;
pub mod schedule;
pub mod step;
pub mod unpack;
#[cfg(test)]
mod world;

pub use error::{Error, Result};
pub use machine::Machine;
pub use report::{Event, Reporter};
pub use schedule::{Built, realise};

use executor::Backend;
use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use store::Store;

/// What building works with. Cheap to pass around; shared by all threads.
pub struct Builder<'a> {
    /// Where everything is kept.
    pub store: &'a Store,
    /// Who runs the steps.
    pub backend: &'a dyn Backend,
    /// What this machine is configured with.
    pub machine: &'a Machine,
    /// Who is told what happens.
    pub reporter: &'a dyn Reporter,
    /// Downloads, shared so that connections and the index of a mirror are used again.
    pub fetcher: &'a fetch::Fetcher,
    /// How many steps run at a time.
    pub jobs: usize,
    /// Keeps the scratch directory of a failed step.
    pub keep_failed: bool,
    /// Not zero once the user has interrupted: the signal number. Every loop and transfer looks at it.
    pub interrupt: Arc<AtomicI32>,
}

impl Builder<'_> {
    /// Fails with [`Error::Interrupted`] once the user has interrupted.
    pub fn check_interrupt(&self) -> Result<()> {
        match self.interrupt.load(std::sync::atomic::Ordering::Relaxed) {
            0 => Ok(()),
            signal => Err(Error::Interrupted { signal }),
        }
    }
}
