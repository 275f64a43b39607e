//! Runs a command in isolation. Knows neither plans nor expressions.
//!
//! [`Sandbox`] says what a command may see, a [`Backend`] carries it out, an [`Outcome`] says what came of it.

pub mod backend;
pub mod error;
pub mod owners;
pub mod sandbox;

pub use backend::native::check::{Capability, check};
pub use backend::{Backend, Native};
pub use error::{Error, Result};
pub use sandbox::{Bind, Ending, Network, Outcome, RootFs, Sandbox, Streams, Writable};
