//! The Python index of this machine: where it is, and what it has of a project.
//!
//! Asked in this order; the first that names an index decides: forge's own configuration, uv's (environment, `uv.toml`), pip's
//! (environment, `pip.conf`), and pip's own built-in default, which is asked at run time ([`super::tool`]): no address stands here.
//! An index may need a password, so addresses are never shown whole, and never get into a lock.

mod page;
mod settings;

pub use page::{Listed, file_name, parse};
pub use settings::{Indexes, configured};

use crate::fetch::{Place, percent_encode, redact};
use crate::python::{normalise, tool};
use crate::{Builder, Error, Result};

/// Both forms of the simple interface (PEP 691, PEP 503), the one with sizes first.
const ACCEPT: &str = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

/// The indexes to ask: what is configured, else pip's own default.
pub fn indexes(builder: &Builder<'_>) -> Result<Indexes> {
    let found = configured(builder.machine)?;
    if found.default.is_some() {
        return Ok(found);
    }
    let default = tool::default_index(builder)?;
    Ok(Indexes { default: Some(default), ..found })
}

/// What a machine without any Python index is told.
pub fn not_configured() -> Error {
    Error::NotConfigured {
        what: "Python index",
        settings: vec![
            "`python_index` in forge's own configuration".to_owned(),
            "the environment: `UV_DEFAULT_INDEX` or `PIP_INDEX_URL`".to_owned(),
            "`index-url` in `~/.config/pip/pip.conf` or `/etc/pip.conf`".to_owned(),
        ],
    }
}

/// Where the index says that a file of a project lies, for [`crate::fetch`].
pub fn places(builder: &Builder<'_>, project: &str, file: &str) -> Result<Vec<Place>> {
    let what = format!("python:{project}/{file}");
    let mut tried: Vec<(String, String)> = Vec::new();
    let mut all_gone = true;
    let indexes = indexes(builder)?;
    for index in indexes.all() {
        match listed(builder, index, project) {
            Ok(found) => match found.into_iter().find(|listed| listed.file == file) {
                Some(listed) => return Ok(vec![Place::new(listed.url)]),
                None => tried.push((redact(index), "it no longer lists this file".to_owned())),
            },
            Err(Error::Fetch { tried: failed, gone, .. }) => {
                all_gone &= gone;
                tried.extend(failed);
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::Fetch { what, tried, gone: all_gone })
}

/// Every file that an index lists for a project.
pub fn listed(builder: &Builder<'_>, index: &str, project: &str) -> Result<Vec<Listed>> {
    let url = format!("{}/{}/", index.trim_end_matches('/'), percent_encode(&normalise(project)));
    let document = builder.fetcher.document(builder, &Place::new(url), Some(ACCEPT))?;
    parse(&document.bytes, document.media_type.as_deref(), &document.url).map_err(|reason| Error::Invalid {
        what: "index page",
        name: redact(&document.url),
        reason,
    })
}

#[cfg(test)]
mod tests;
