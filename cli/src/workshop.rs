//! A builder with all that it borrows: made alike for a build, a lock, an evaluation's wishes and a look at this host.

use std::sync::Arc;

use builder::{Builder, Machine};
use store::Store;
use store::peer::Group;

use crate::args::BuildOptions;
use crate::context::Context;
use crate::error::Result;
use crate::peers;
use crate::progress::Progress;

/// What a builder borrows, kept in one place.
pub struct Workshop<'a> {
    store: &'a Store,
    machine: &'a Machine,
    progress: &'a Progress,
    fetcher: builder::fetch::Fetcher,
    peers: Group<'static>,
    context: &'a Context,
}

impl<'a> Workshop<'a> {
    /// Prepares for building.
    pub fn new(store: &'a Store, machine: &'a Machine, progress: &'a Progress, context: &'a Context) -> Result<Self> {
        let (fetcher, peers) = (builder::fetch::Fetcher::new(machine)?, peers::group(context)?);
        Ok(Self { store, machine, progress, fetcher, peers, context })
    }

    /// A builder with these options.
    pub fn builder(&'a self, options: &BuildOptions, context: &Context) -> Builder<'a> {
        Builder {
            store: self.store,
            backend: &self.context.backend,
            machine: self.machine,
            reporter: self.progress,
            fetcher: &self.fetcher,
            jobs: context.jobs(options.jobs),
            cores: options.cores.map(|cores| cores as usize),
            keep_going: options.keep_going,
            keep_failed: options.keep_failed,
            interrupt: Arc::clone(&context.interrupt),
            work: None,
            peers: Some(&self.peers),
            made: None,
        }
    }
}
