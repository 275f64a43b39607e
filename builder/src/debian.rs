//! Debian: indexes, dependency solving, packages, and their configuration.

pub mod paragraph;
pub mod sources;
