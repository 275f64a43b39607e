//! Nix binary caches: store paths as archives (NAR) behind plain files, each described by a `.narinfo` that its cache has signed.
//!
//! ```text
//! nix-cache-info                  StoreDir: /nix/store, WantMassQuery: 1, Priority: 40
//! <32 digits>.narinfo             what a store path is: hash, size, references, signatures; where its archive lies
//! nar/….nar[.xz|.zst|.bz2]        the archive
//! ```
//!
//! A cache is not believed, only checked: what it says of a path counts if a trusted key has signed it, and the archive must have the
//! hash that was signed. Fetching is `fetch.rs`; what is made here is given in the same form by `serve.rs`.

mod fetch;
mod narinfo;
mod serve;
mod unpack;

pub use fetch::{Caches, Fetched};
pub use narinfo::{CacheInfo, NarInfo, NarInfoError};
pub use serve::{Body, Served, is_of_a_cache, serve};
pub use unpack::{Unpacked, unpack};
