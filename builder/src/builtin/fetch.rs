//! `builtin:fetch`: one file from elsewhere, pinned by its SHA-256, or by another hash that an ecosystem knows it by.
//!
//! The only builtin that sees the network. What it gives follows from the digest, not from the address.

use store::directory::Claim;

use super::{Builtin, Job};
use crate::fetch::pinned::{Pinned, fetch};
use crate::{Error, Result};

/// `{url, otherwise?, size?}`, with a flat hash as fixed output. `otherwise` is asked where `url` leads to nothing.
pub struct Fetch;

impl Builtin for Fetch {
    fn name(&self) -> &'static str {
        "fetch"
    }

    fn phase(&self) -> &'static str {
        "fetch"
    }

    fn build(&self, job: &Job<'_>) -> Result<Claim> {
        let url: String = job.parameter("url")?;
        let otherwise: Option<String> = job.parameter("otherwise")?;
        let size: Option<u64> = job.parameter("size")?;
        let fixed = job.fixed.filter(|fixed| !fixed.recursive && !fixed.hash.is_empty());
        let fixed = fixed.ok_or_else(|| Error::Parameter {
            step: job.name.to_owned(),
            parameter: "outputHash".to_owned(),
            reason: "a download is pinned by a flat hash".to_owned(),
        })?;
        let urls: Vec<&str> = [Some(&url), otherwise.as_ref()].into_iter().flatten().map(String::as_str).collect();
        let pinned = Pinned { urls: &urls, algorithm: fixed.algorithm, hash: &fixed.hash, size };
        Ok(Claim::Blob(fetch(job.builder, &pinned)?))
    }
}
