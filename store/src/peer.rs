//! Peers: other stores, from which what is missing here is taken, and to which what is made here is given.
//!
//! | address | is | file |
//! |---|---|---|
//! | `file://DIR` | a directory of plain objects, on any file system | `peer/folder.rs` |
//! | `oci://HOST[:PORT]/REPOSITORY` | a repository of an OCI registry, with formations as images | `peer/registry.rs` |
//! | `http://HOST[:PORT]`, `https://…` | another forge: `forge serve` | `peer/http.rs` |
//!
//! A peer is not believed, only checked: every object is hashed before it is kept, and a peer that sends a wrong byte is asked nothing
//! more. Claims ("this step gave that") prove nothing by themselves; they travel signed ([`Realisation`]) and count if a key that the
//! caller trusts has signed them. A new kind of peer is a file with a [`Peer`] in it and an arm in [`open`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::http::Patience;
use crate::{BlobId, DeltaId, FileHash, FormationId, Store, TreeId};

pub mod answer;
pub mod arriving;
pub mod closure;
pub mod error;
mod folder;
mod frame;
mod group;
mod http;
mod incoming;
pub mod message;
pub mod outgoing;
mod pieces;
mod realisation;
mod registry;

pub use error::{Error, Result};
pub use folder::Folder;
pub use group::{Group, Nowhere};
pub use http::Http;
pub use realisation::{Realisation, Signature, Subject};
pub(crate) use realisation::{join as join_realisations, texts as realisation_texts};
pub use registry::Registry;

/// Something that is named by the digest of its content, and so proves itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectId {
    /// The bytes of a file.
    Blob(BlobId),
    /// A directory.
    Tree(TreeId),
    /// What a step changed.
    Delta(DeltaId),
    /// A root and the way to run it.
    Formation(FormationId),
}

impl ObjectId {
    /// `blob`, `tree`, `delta`, `formation`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Blob(_) => "blob",
            Self::Tree(_) => "tree",
            Self::Delta(_) => "delta",
            Self::Formation(_) => "formation",
        }
    }

    /// The digest.
    pub fn as_bytes(&self) -> &[u8; 32] {
        match self {
            Self::Blob(id) => id.as_bytes(),
            Self::Tree(id) => id.as_bytes(),
            Self::Delta(id) => id.as_bytes(),
            Self::Formation(id) => id.as_bytes(),
        }
    }

    /// The object of this kind with this digest.
    pub fn from_parts(kind: &str, digest: [u8; 32]) -> Option<Self> {
        Some(match kind {
            "blob" => Self::Blob(BlobId::from_bytes(digest)),
            "tree" => Self::Tree(TreeId::from_bytes(digest)),
            "delta" => Self::Delta(DeltaId::from_bytes(digest)),
            "formation" => Self::Formation(FormationId::from_bytes(digest)),
            _ => return None,
        })
    }

    /// What these bytes would be called if they were an object of the same kind.
    pub fn of_same_kind(&self, bytes: &[u8]) -> Self {
        match self {
            Self::Blob(_) => Self::Blob(BlobId::of(bytes)),
            Self::Tree(_) => Self::Tree(crate::Tree::id_of(bytes)),
            Self::Delta(_) => Self::Delta(crate::Delta::id_of(bytes)),
            Self::Formation(_) => Self::Formation(crate::Formation::id_of(bytes)),
        }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.kind(), crate::digest::to_hex(self.as_bytes()))
    }
}

/// What a peer says of itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct About {
    /// `folder`, `forge 0.1.0`, …
    pub kind: String,
    /// Whether we may take from it.
    pub read: bool,
    /// Whether we may give to it.
    pub write: bool,
}

/// What came of a push or a pull.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Moved {
    /// What was moved, in the order of its arrival.
    pub moved: Vec<ObjectId>,
    /// What the receiving side had. Below a tree that it had nothing is listed.
    pub had: Vec<ObjectId>,
    /// How many of `moved` went as a difference against what both sides had.
    pub differences: u64,
    /// Bytes in the objects that were moved.
    pub bytes: u64,
    /// Bytes on the line, questions included.
    pub wire: u64,
}

impl Moved {
    /// Adds what came of a further transfer.
    pub fn add(&mut self, other: Self) {
        self.moved.extend(other.moved);
        self.had.extend(other.had);
        self.differences += other.differences;
        self.bytes += other.bytes;
        self.wire += other.wire;
    }
}

/// Who is told how a transfer goes on, and who may end it.
pub struct Watch<'a> {
    /// Not zero once the user has interrupted: the signal number.
    pub interrupt: &'a AtomicI32,
    /// Told how many bytes of objects were moved so far, and of how many, as far as that is known.
    pub progress: &'a (dyn Fn(u64, Option<u64>) + Sync),
}

impl Watch<'_> {
    /// Fails once the user has interrupted.
    pub fn check(&self) -> Result<()> {
        match self.interrupt.load(Ordering::Relaxed) {
            0 => Ok(()),
            signal => Err(Error::Interrupted { signal }),
        }
    }
}

/// Another store. What it gives is hashed before it is kept.
pub trait Peer: Send + Sync {
    /// As people call it: the name it is configured under, else its address.
    fn name(&self) -> &str;

    /// What it is and allows. Fails if it cannot be reached.
    fn about(&self) -> Result<About>;

    /// Whether it is there at all: the cheapest thing to ask.
    fn greet(&self) -> Result<()> {
        self.about().map(drop)
    }

    /// The formation that a full id or a name stands for there.
    fn find(&self, given: &str) -> Result<Option<FormationId>>;

    /// Brings these objects and all below them into the store, as far as they are missing. A formation comes with its record and the
    /// deltas that it lists.
    fn pull(&self, store: &Store, wanted: &[ObjectId], watch: &Watch<'_>) -> Result<Moved>;

    /// Gives these objects of the store and all below them, as far as they are missing there.
    fn push(&self, store: &Store, given: &[ObjectId], watch: &Watch<'_>) -> Result<Moved>;

    /// Gives a formation there a name. One whose names mean something else may refuse.
    fn set_name(&self, name: &str, id: FormationId) -> Result<()>;

    /// What it knows to have come of these, signed. A peer that knows nothing of claims gives none.
    fn realisations(&self, _subjects: &[Subject]) -> Result<Vec<Realisation>> {
        Ok(Vec::new())
    }

    /// Leaves signed claims there.
    fn put_realisations(&self, _realisations: &[Realisation]) -> Result<()> {
        Ok(())
    }

    /// Which blobs have these hashes, in the same order. A wrong answer shows when the blob is here.
    fn fetched(&self, hashes: &[FileHash]) -> Result<Vec<Option<BlobId>>> {
        Ok(vec![None; hashes.len()])
    }

    /// Tells which blobs (that it has) have which hash.
    fn put_fetched(&self, _fetched: &[(FileHash, BlobId)]) -> Result<()> {
        Ok(())
    }
}

/// What is needed to speak to a peer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// As people call it; empty for its address.
    pub name: String,
    /// `file://…`, `http://…`, …
    pub address: String,
    /// What lets us in, where one is needed.
    pub token: Option<String>,
    /// The caller's environment: proxies, certificates.
    pub environment: BTreeMap<String, String>,
    /// Who the caller is at registries, and which may be spoken to in plain HTTP.
    pub registries: crate::registry::Settings,
    /// How long it may take to answer.
    pub patience: Patience,
}

impl Settings {
    /// As it is shown: its name, or its address without a password.
    pub fn shown(&self) -> String {
        if self.name.is_empty() { crate::http::redact(&self.address) } else { self.name.clone() }
    }
}

/// The peer at an address. Nobody is asked yet.
pub fn open(settings: &Settings) -> Result<Box<dyn Peer>> {
    let bad = |reason: &'static str| Error::Address { address: crate::http::redact(&settings.address), reason };
    match settings.address.split_once("://") {
        Some(("file", path)) => {
            Ok(Box::new(Folder::new(settings.shown(), path).ok_or_else(|| bad("its path is not absolute"))?))
        }
        Some(("http" | "https", _)) => {
            let reason = "a host, a port and a path at most are expected; a token lets in";
            Ok(Box::new(Http::new(settings).ok_or_else(|| bad(reason))?))
        }
        Some(("oci", _)) => {
            Ok(Box::new(Registry::new(settings).ok_or_else(|| {
                bad("a host and a repository in lower case are expected: oci://HOST[:PORT]/REPOSITORY")
            })?))
        }
        _ => Err(bad("it begins with none of `file://`, `http://`, `https://`, `oci://`")),
    }
}

/// Thirty-two digits that nobody else comes upon.
fn random_name() -> std::io::Result<String> {
    let mut bytes = [0; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(crate::digest::to_hex(&bytes))
}
