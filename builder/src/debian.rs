//! Debian: indexes, dependency solving, packages, and their configuration.

pub mod archive;
pub mod configure;
pub mod control;
pub mod package;
pub mod paragraph;
pub mod sources;
