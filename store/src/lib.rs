//! The nouns of forge, the directory they are kept in, and the files they are packed into.
//!
//! A store keeps every object under the digest of its content, so an object proves itself. This room uses no other room.

pub mod delta;
pub mod derivation;
pub mod diff;
pub mod digest;
pub mod directory;
mod encoding;
pub mod error;
pub mod file_hash;
pub mod format;
pub mod formation;
pub mod http;
pub mod lock;
pub mod name;
pub mod nix;
pub mod openpgp;
pub mod packages;
pub mod paragraph;
pub mod peer;
pub mod provenance;
pub mod registry;
pub mod sbom;
pub mod secrets;
pub mod signing;
pub mod tree;

pub use delta::{Delta, RelativePath};
pub use derivation::{Derivation, Goal, GoalLayer, Plan, StorePath};
pub use digest::{ArtifactId, BlobId, DeltaId, FormationId, TreeId};
pub use directory::Store;
pub use encoding::DecodeError;
pub use error::{Error, Result};
pub use file_hash::FileHash;
pub use formation::{Capabilities, Formation, Launch, Limits, Port, Signal, User};
pub use name::Name;
pub use tree::{File, Metadata, Node, Tree};
