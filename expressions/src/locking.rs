//! What the library asks the lock, and what the lock does not answer.

use std::collections::BTreeMap;

use store::lock::{Lock, LockRequest};

/// The lock of an evaluation.
#[derive(Default)]
pub struct Locking {
    /// What is answered.
    pub lock: Lock,
    /// What is not, by the text of the request.
    pub missing: BTreeMap<String, LockRequest>,
}
