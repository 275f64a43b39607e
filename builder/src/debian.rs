//! Debian: indexes, dependency solving, packages, and their configuration.
