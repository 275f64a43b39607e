//! Turns a runtime expression into a plan. It alone knows the Nix language; it starts no process and opens no connection.
//!
//! A text becomes a tree ([`ast`]), names get their meaning (`compile`), the evaluator works values out (`eval`), and the
//! formation that comes out becomes a [`store::Plan`] (`plan`).

pub mod ast;
pub mod ast_print;
mod builtins;
mod check;
mod code;
mod compile;
pub mod error;
mod eval;
mod failure;
mod fast_hash;
mod fetching;
pub mod flake_reference;
pub mod from_toml;
pub mod frontend;
mod heap;
pub mod json;
pub mod lexer;
mod library;
mod locking;
mod machine;
pub mod modulo;
pub mod parser;
mod paths;
mod places;
mod plan;
pub mod posix_regex;
mod registry;
mod report;
pub mod session;
mod settings;
mod show;
pub mod sources;
mod stack;
pub mod symbols;
mod text;
mod value;
pub mod version;

pub use store::nix::{aterm, hash as nix_hash, nar, path as store_path};

pub use check::{check, check_and_list, check_text};
pub use error::{Error, Finding};
pub use locking::{Origin, Question, Unanswered};
pub use plan::{Argument, Evaluated, Format, Input, Outcome, Request, eval_to, evaluate};
pub use sources::Sources;
pub use stack::Interrupter;

/// Which evaluator this is: another source, another identity.
pub const IDENTITY: &str = env!("EVALUATOR_IDENTITY");

/// Something that an evaluation says while it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// `builtins.trace`
    Trace(String),
    /// `builtins.warn`
    EvaluationWarning(String),
    /// Something in a text hardly means what it says.
    Warning(Finding),
}

/// Hears what an evaluation says.
pub type Listener = std::sync::Arc<dyn Fn(&Message) + Send + Sync>;
