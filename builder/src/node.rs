//! Node: which registry this machine uses, packages as npm unpacks them, and `node_modules` as npm lays it out.
//!
//! Which packages there are the user's own `package-lock.json` says (`expressions/lib/node.nix` reads it), each with its digest.
//! [`package::Package`] unpacks one, [`modules::Modules`] puts them together; neither runs anything of them.

pub mod modules;
pub mod package;
pub mod registry;
mod settings;
