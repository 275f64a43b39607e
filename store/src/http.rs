//! Asks HTTP servers: through the proxies and with the certificates of this machine. What is asked for is the caller's matter:
//! peers and registries (`peer`), mirrors and indexes (`builder`).

mod address;
mod client;
mod dns;
mod forward;
mod names;

pub use address::{Parts, join, percent_decode, percent_encode, redact, split};
pub use client::{Answer, Call, Client, Content, Failure, Patience};
pub use dns::{Failure as NameFailure, addresses};

/// One place where something may lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `http://…` or `https://…`; a user name and password in it are sent, and never shown.
    pub url: String,
    /// The proxy to go through, where it is not the environment's: `http://host:port`, or `DIRECT`.
    pub proxy: Option<String>,
    /// A token that is sent to this host, and to no other that it leads to (RFC 6750).
    pub token: Option<String>,
}

impl Place {
    /// A place that is reached as the environment says.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), proxy: None, token: None }
    }
}
