//! Who answers what a lock asks.
//!
//! To add one, write a file, implement [`Resolver`], and add a line to [`ALL`].

use store::lock::{LockEntry, LockRequest};

use crate::{Builder, Error, Result};

/// Answers lock requests of one kind, by the ecosystem's own knowledge.
pub trait Resolver: Sync {
    /// The kind it answers.
    fn kind(&self) -> &'static str;
    /// Finds the answer. The network may be used; nothing of the answer names a host.
    fn resolve(&self, builder: &Builder<'_>, request: &LockRequest) -> Result<LockEntry>;
}

/// Every resolver.
pub const ALL: &[&dyn Resolver] = &[&crate::python::resolver::Python];

/// Answers a request.
pub fn resolve(builder: &Builder<'_>, request: &LockRequest) -> Result<LockEntry> {
    let resolver = ALL.iter().find(|resolver| resolver.kind() == request.kind);
    let resolver = resolver.ok_or_else(|| Error::NoResolver { kind: request.kind.clone() })?;
    resolver.resolve(builder, request)
}
