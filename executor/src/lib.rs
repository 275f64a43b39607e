//! Runs a command in isolation. Knows neither plans nor expressions.
//!
//! [`Sandbox`] says what a command may see, a [`Backend`] carries it out, an [`Outcome`] says what came of it.

pub mod backend;
pub mod bounds;
pub mod doors;
pub mod error;
pub mod oci;
pub mod outcome;
pub mod owners;
pub mod published;
pub mod sandbox;

pub use backend::native::begin_process;
pub use backend::native::check::{Capability, check};
pub use backend::{Backend, Native, Other};
pub use error::{Error, Result};
pub use outcome::{Counted, Ending, Outcome};
pub use sandbox::{
    Bind, Bounds, Capabilities, Content, Device, Doors, MemoryMount, Network, Published, Resource, ResourceLimit,
    RootFs, Sandbox, Streams, Writable, depth,
};
