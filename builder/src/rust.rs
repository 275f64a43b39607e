//! Rust: which index of crates this machine uses, and crates laid out as cargo wants them of a vendored source.
//!
//! Which crates there are the user's own `Cargo.lock` says, each with its digest (`expressions/lib/rust.nix` reads it); cargo builds
//! in the sandbox, without network.

pub mod registry;
pub mod vendor;
