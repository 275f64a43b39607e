//! Promises between rooms, kept by the built `forge` on real packages. One binary, so that it is linked once.
//!
//! What needs a tool or a right that this machine lacks says that it was skipped.

mod apptainer;
mod arrows;
mod bad_input;
mod building;
mod documents;
mod ecosystems;
mod errors;
mod evaluation_cache;
mod exchange;
mod export;
mod fetchers;
mod formatting;
mod hosts;
mod import;
mod nix_builtins;
mod nix_cache;
mod nix_instantiate;
mod oci;
mod pages;
mod peers;
mod real_packages;
mod registries;
mod repl;
mod runner;
mod running;
mod settings;
mod signing;
mod specification;
mod spine;
mod store;
mod world;
