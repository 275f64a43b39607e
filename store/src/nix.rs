//! What Nix computes of files: archives of trees, hashes, and the names that follow from them.
//!
//! Nothing of Nix is run or asked. Expressions name their sources by these, and whoever fetches checks what came by them.

pub mod aterm;
pub mod cache;
pub mod hash;
pub mod info;
pub mod kept;
pub mod nar;
pub mod path;
