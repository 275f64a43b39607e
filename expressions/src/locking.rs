//! What an expression asks the lock, what the lock does not answer, and what is to be read of what comes from elsewhere.

use std::collections::BTreeMap;

use store::StorePath;
use store::derivation::Fetched;
use store::lock::{Lock, LockRequest};

/// The lock of an evaluation.
#[derive(Default)]
pub struct Locking {
    /// What is answered.
    pub lock: Lock,
    /// What is not, by the text of the request.
    pub missing: BTreeMap<String, LockRequest>,
    /// What was to be read and is not on this machine's disk.
    pub wanted: BTreeMap<StorePath, Fetched>,
}

/// What an evaluation could not go on without.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unanswered {
    /// The lock does not answer these.
    pub requests: Vec<LockRequest>,
    /// These are known by their hash, and were to be read (see [`crate::Sources::show`]).
    pub wanted: Vec<(StorePath, Fetched)>,
}

impl Unanswered {
    /// Nothing is wanting.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.wanted.is_empty()
    }
}

impl Locking {
    /// What came up since it was last asked.
    pub fn take_unanswered(&mut self) -> Unanswered {
        Unanswered {
            requests: std::mem::take(&mut self.missing).into_values().collect(),
            wanted: std::mem::take(&mut self.wanted).into_iter().collect(),
        }
    }
}
