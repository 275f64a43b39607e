//! Who answers what a lock asks.
//!
//! To add one, write a file, implement [`Resolver`], and add a line to [`ALL`].

use serde_json::Value;
use store::lock::{LockEntry, LockRequest};

use crate::{Builder, Error, Result, debian, fetch, python};

/// Answers lock requests of one kind, by the ecosystem's own knowledge.
pub trait Resolver: Sync {
    /// The kind it answers.
    fn kind(&self) -> &'static str;
    /// Finds the answer. The network may be used; nothing of the answer names a host.
    fn resolve(&self, builder: &Builder<'_>, request: &LockRequest) -> Result<LockEntry>;
}

/// Every resolver.
#[rustfmt::skip]
pub const ALL: &[&dyn Resolver] = &[
    &debian::resolver::Packages,
    &debian::resolver::Index,
    &python::resolver::Python,
    &crate::oci::Image,
    &python::lockfile::LockFile,
    &fetch::resolver::Url,
    &fetch::tree::Trees,
];

/// Answers a request.
pub fn resolve(builder: &Builder<'_>, request: &LockRequest) -> Result<LockEntry> {
    let resolver = ALL.iter().find(|resolver| resolver.kind() == request.kind);
    let resolver = resolver.ok_or_else(|| Error::NoResolver { kind: request.kind.clone() })?;
    resolver.resolve(builder, request)
}

/// A parameter of a request, as the type the resolver wants.
pub fn parameter<T: serde::de::DeserializeOwned>(request: &LockRequest, name: &str) -> Result<T> {
    let value = request.parameters.get(name).cloned().unwrap_or(Value::Null);
    serde_json::from_value(value).map_err(|source| Error::Parameter {
        step: format!("lock of {}", request.kind),
        parameter: name.to_owned(),
        reason: source.to_string(),
    })
}

/// A parameter of a request that may be absent.
pub fn parameter_or<T: serde::de::DeserializeOwned>(request: &LockRequest, name: &str, default: T) -> Result<T> {
    if request.parameters.get(name).is_none_or(Value::is_null) { Ok(default) } else { parameter(request, name) }
}
