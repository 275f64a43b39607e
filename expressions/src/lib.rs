//! Turns a runtime expression into a plan. It alone knows the Nix language; it starts no process and opens no connection.

pub mod ast;
pub mod aterm;
pub mod error;
pub mod from_toml;
pub mod json;
pub mod modulo;
pub mod nar;
pub mod nix_hash;
pub mod parser;
pub mod posix_regex;
pub mod store_path;
pub mod version;

pub use error::{Error, Finding};
