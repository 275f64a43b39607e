//! Makes what a plan asks for, one step at a time, and answers what a lock asks.

pub mod builtin;
pub mod check;
pub mod debian;
mod disk;
pub mod draft;
pub mod error;
pub mod explain;
pub mod fetch;
pub mod git;
pub mod hg;
pub mod hosts;
pub mod joblet;
pub mod journal;
pub mod kept;
pub mod key;
pub mod log;
pub mod machine;
mod maker;
mod memory;
pub mod nix;
pub mod node;
pub mod oci;
pub mod python;
pub mod realise;
mod remembered;
pub mod report;
pub mod resolve;
pub mod rust;
pub mod scan;
pub mod schedule;
pub mod step;
mod substitute;
pub mod survey;
pub mod unpack;
pub mod why;
pub mod work;
#[cfg(test)]
mod world;

pub use error::{Error, Result};
pub use machine::{Machine, NixCaches};
pub use realise::{Built, Output, realise, realise_plain};
pub use report::{Event, Reporter};

use executor::Backend;
use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use store::Store;

/// In [`Builder::interrupt`]: what runs is to be ended at once, and not because the user wants it.
pub const STOP: i32 = -9;

/// What building works with. Cheap to pass around; shared by all threads.
#[derive(Clone)]
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
    /// How many cores a step is told that it may use; as many as there are, if none is given.
    pub cores: Option<usize>,
    /// Goes on with what does not need a step that failed.
    pub keep_going: bool,
    /// Keeps the scratch directory of a failed step.
    pub keep_failed: bool,
    /// Not zero once the user has interrupted: the signal number. Every loop and transfer looks at it.
    /// Negative, if what runs is to be ended at once.
    pub interrupt: Arc<AtomicI32>,
    /// The step that is being made, if one is.
    pub work: Option<Arc<work::Work>>,
    /// Who may have what would have to be made or fetched.
    pub peers: Option<&'a store::peer::Group<'a>>,
    /// Told what came of each step that was made, unsigned.
    pub made: Option<&'a (dyn Fn(store::peer::Realisation) + Sync)>,
}

impl Builder<'_> {
    /// How many cores a step is told that it may use.
    pub fn cores_told(&self) -> usize {
        self.cores.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1)
    }

    /// Fails with [`Error::Interrupted`] once the user has interrupted.
    pub fn check_interrupt(&self) -> Result<()> {
        match self.interrupt.load(std::sync::atomic::Ordering::Relaxed) {
            0 => Ok(()),
            // Ended for another reason than the user's.
            STOP => Err(Error::Interrupted { signal: 0 }),
            signal => Err(Error::Interrupted { signal: signal.abs() }),
        }
    }
}
