//! `builtin:fetch`: one file from elsewhere, pinned by its SHA-256.
//!
//! The only builtin that sees the network. What it gives follows from the digest, not from the address.

use store::derivation::HashAlgorithm;
use store::directory::Claim;

use super::{Builtin, Job};
use crate::fetch::Wanted;
use crate::{Error, Result};

/// `{url, size?}`, with a flat SHA-256 as fixed output.
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
        let size: Option<u64> = job.parameter("size")?;
        let fixed = job.fixed.filter(|fixed| fixed.algorithm == HashAlgorithm::Sha256 && !fixed.recursive);
        let sha256 = fixed.and_then(|fixed| fixed.hash.as_slice().try_into().ok()).ok_or_else(|| Error::Parameter {
            step: job.name.to_owned(),
            parameter: "outputHash".to_owned(),
            reason: "a download is pinned by a flat sha256".to_owned(),
        })?;
        let wanted = Wanted { url: &url, sha256: Some(sha256), size };
        let (blob, _) = job.builder.fetcher.fetch(job.builder, &wanted)?;
        Ok(Claim::Blob(blob))
    }
}
