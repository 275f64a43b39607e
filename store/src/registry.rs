//! OCI registries: images are pulled from them and formations pushed to them, by the OCI distribution specification 1.1.
//!
//! | part | file |
//! |---|---|
//! | what an image is called | `reference.rs` |
//! | who we are: Docker's and Podman's login files | `login.rs` |
//! | requests: scheme, tokens, redirects, asking again | `session.rs`, `challenge.rs` |
//! | manifests, blobs, referrers that are fetched | `fetch.rs` |
//! | an image becomes a formation | `pull.rs` |
//! | a formation becomes an image there | `push.rs`, `seen.rs` |
//!
//! A registry is not believed: everything is compared with the digest that it was asked for by, and bounded by the size that was
//! announced. Nothing is read from the environment: whoever opens a [`Session`] hands logins and settings down in an [`Access`].

mod challenge;
mod error;
mod fetch;
pub mod login;
mod pull;
mod push;
mod reference;
mod seen;
mod session;

#[cfg(test)]
mod tests;

pub use challenge::Challenge;
pub use error::Error;
pub use pull::{Described, DescribedLayer, Pulled, describe, inspect, pull};
pub use push::{How, Pushed, PushedPart, formation_tag, push};
pub use reference::{Reference, SCHEME, as_tag, is_loopback, is_tag};
pub use session::{Access, Event, Listener, Session, Settings};
