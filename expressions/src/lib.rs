//! Turns a runtime expression into a plan. It alone knows the Nix language; it starts no process and opens no connection.

pub mod ast;
pub mod error;
pub mod nix_hash;
pub mod parser;

pub use error::{Error, Finding};
