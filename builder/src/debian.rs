//! Debian: indexes, dependency solving, packages, and their configuration.

pub mod archive;
pub mod configure;
pub mod control;
pub mod date;
pub mod index;
pub mod newest;
pub mod package;
pub mod relation;
pub mod release;
pub mod resolver;
pub mod signature;
pub mod solve;
pub mod sources;
pub mod universe;
pub mod version;
