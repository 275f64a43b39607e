//! What happens while building, told to whoever shows it.

use std::time::Duration;

use crate::Error;

/// Something worth telling. `id` joins the events of one piece of work.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// Work begins. `bytes`: how many are to be transferred, where that is known.
    Started {
        /// Joins the events of one piece of work; unique in the process.
        id: u64,
        /// `fetch`, `unpack`, `configure`, `resolve`, `run`, … the phase by which times are summed.
        phase: &'static str,
        /// What, for instance `numpy-2.1.0-cp311….whl`.
        what: &'a str,
        /// Size of a transfer.
        bytes: Option<u64>,
    },
    /// A transfer goes on; `bytes` since it began.
    Advanced {
        /// As at the start.
        id: u64,
        /// So far.
        bytes: u64,
    },
    /// Work is done.
    Finished {
        /// As at the start.
        id: u64,
        /// As at the start.
        phase: &'static str,
        /// As at the start.
        what: &'a str,
        /// How long it took.
        took: Duration,
    },
    /// Work has failed.
    Failed {
        /// As at the start.
        id: u64,
        /// As at the start.
        phase: &'static str,
        /// As at the start.
        what: &'a str,
        /// How long it took.
        took: Duration,
    },
    /// Work was ended before it was done: by the user, or because something else has failed.
    Stopped {
        /// As at the start.
        id: u64,
        /// As at the start.
        phase: &'static str,
        /// As at the start.
        what: &'a str,
        /// How long it took.
        took: Duration,
    },
    /// Another process makes a step that is needed.
    Waiting {
        /// The step's name.
        what: &'a str,
        /// Which process, where that is known.
        process: Option<u32>,
    },
    /// One more step is done, failed, or found to be here.
    Progress {
        /// So many are.
        done: usize,
        /// Of so many that were planned.
        steps: usize,
    },
    /// How many steps there are, and how many are done already.
    Planned {
        /// To be made.
        steps: usize,
        /// Here already.
        known: usize,
    },
    /// Something the user should know that is no error.
    Note(&'a str),
}

/// Shows what happens.
pub trait Reporter: Send + Sync {
    /// Called from any thread.
    fn report(&self, event: Event<'_>);
}

/// A piece of work that reports its start now and its end when dropped.
pub struct Span<'a> {
    reporter: &'a dyn Reporter,
    id: u64,
    phase: &'static str,
    what: String,
    started: std::time::Instant,
    ending: Ending,
}

#[derive(Clone, Copy)]
enum Ending {
    Done,
    Failed,
    Stopped,
}

impl<'a> Span<'a> {
    /// Begins.
    pub fn start(reporter: &'a dyn Reporter, phase: &'static str, what: impl Into<String>, bytes: Option<u64>) -> Self {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let id = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let what = what.into();
        reporter.report(Event::Started { id, phase, what: &what, bytes });
        Self { reporter, id, phase, what, started: std::time::Instant::now(), ending: Ending::Done }
    }

    /// It ends for this reason, without having been done.
    pub fn fail(&mut self, error: &Error) {
        let stopped = matches!(error, Error::Interrupted { .. });
        self.ending = if stopped { Ending::Stopped } else { Ending::Failed };
    }

    /// So many bytes of a transfer so far.
    pub fn advance(&self, bytes: u64) {
        self.reporter.report(Event::Advanced { id: self.id, bytes });
    }
}

impl Drop for Span<'_> {
    fn drop(&mut self) {
        let (id, phase, what) = (self.id, self.phase, self.what.as_str());
        let took = self.started.elapsed();
        self.reporter.report(match self.ending {
            Ending::Done => Event::Finished { id, phase, what, took },
            Ending::Failed => Event::Failed { id, phase, what, took },
            Ending::Stopped => Event::Stopped { id, phase, what, took },
        });
    }
}
