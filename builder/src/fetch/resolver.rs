//! Answers locks of kind `url`: what lies at an address now, by size and digest.

use std::collections::BTreeMap;

use serde_json::Value;
use store::digest::to_hex;
use store::lock::{LockEntry, LockRequest};

use super::Wanted;
use crate::resolve::{Resolver, parameter};
use crate::{Builder, Error, Result};

/// `{url}` → one record.
pub struct Url;

impl Resolver for Url {
    fn kind(&self) -> &'static str {
        "url"
    }

    fn resolve(&self, builder: &Builder<'_>, request: &LockRequest) -> Result<LockEntry> {
        let url: String = parameter(request, "url")?;
        let (blob, sha256) = builder.fetcher.fetch(builder, &Wanted { url: &url, sha256: None, size: None })?;
        let file = builder.store.open_blob(blob)?;
        let size = file.metadata().map_err(Error::file("look at", builder.store.path()))?.len();
        let record = BTreeMap::from([
            ("size".to_owned(), Value::from(size)),
            ("sha256".to_owned(), Value::from(to_hex(&sha256))),
        ]);
        Ok(LockEntry { request: request.clone(), records: vec![record] })
    }
}
