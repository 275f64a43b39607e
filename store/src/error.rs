//! What can go wrong in a store, and with what.

use std::io;
use std::path::PathBuf;

/// The result of a store operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on a path failed.
    #[error("cannot {action} `{}`", .path.display())]
    File {
        /// The verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory was made by another version of forge, or is none of ours.
    #[error("`{}` has the store format `{found}`, which this forge does not know", .path.display())]
    Format {
        /// The store.
        path: PathBuf,
        /// What its `format` file says.
        found: String,
    },
    /// A new store was to be made where something else lies.
    #[error("`{}` is not a store, and not empty", .path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// A store that this process could fill with files that its owner cannot use.
    #[error("the store `{}` belongs to user {owner}", .path.display())]
    Owner {
        /// The store.
        path: PathBuf,
        /// The user's id.
        owner: u32,
    },
    /// No object has this id.
    #[error("no {kind} `{id}` in the store")]
    NotFound {
        /// `blob`, `tree`, `delta`, `formation`.
        kind: &'static str,
        /// Id, prefix or name as given.
        id: String,
    },
    /// What is here of a name has other versions.
    #[error("no version of `{name}` is `{constraint}`")]
    NoVersion {
        /// The name.
        name: String,
        /// What was asked for.
        constraint: String,
        /// The versions that are here, oldest first.
        versions: Vec<String>,
    },
    /// A prefix or name fits several formations.
    #[error("`{given}` fits {} formations", .candidates.len())]
    Ambiguous {
        /// What was given.
        given: String,
        /// Full ids with their names.
        candidates: Vec<(crate::FormationId, String)>,
    },
    /// Neither a digest, nor a prefix of 6 digits or more, nor a name.
    #[error("`{given}` is neither a digest, nor a prefix of at least 6 digits, nor a name")]
    Malformed {
        /// What was given.
        given: String,
    },
    /// Bytes do not have the digest that names them.
    #[error("bytes from `{from}` have digest {actual}, expected {expected}")]
    Mismatch {
        /// Where they came from.
        from: String,
        /// What they hash to.
        actual: String,
        /// What they should.
        expected: String,
    },
    /// An object is not in its canonical encoding.
    #[error("`{from}` is not a valid {kind}")]
    Decode {
        /// Which object.
        from: String,
        /// Of what kind it should be.
        kind: &'static str,
        /// Where it is wrong.
        source: crate::DecodeError,
    },
    /// What is known of a formation cannot be read.
    #[error("`{}` is not a valid record", .path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A file that a tree cannot hold.
    #[error("`{}` cannot be kept: {reason}", .path.display())]
    Unsupported {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// A file system on which owners cannot be noted: NFS before 4.2, tmpfs before Linux 6.6.
    #[error("`{}` cannot have the owner that it is to have: its file system has no attributes to note it in (user_xattr)", .path.display())]
    NoAttributes {
        /// Which file.
        path: PathBuf,
    },
    /// A file that is none of the formats that are read.
    #[error("`{}` is no artifact: neither squashfs, SIF, OCI nor tar", .path.display())]
    UnknownFormat {
        /// Which file.
        path: PathBuf,
    },
    /// An artifact holds something else than the formation that it claims to be.
    #[error("`{}` claims to be formation {formation}, and is not", .path.display())]
    Claim {
        /// Which file.
        path: PathBuf,
        /// What it claims to be.
        formation: crate::FormationId,
        /// The root of that formation.
        expected: crate::TreeId,
        /// The root that it holds.
        actual: crate::TreeId,
    },
    /// Something in a formation that a format cannot hold.
    #[error("{format} cannot hold this: {reason}{}", if .what.is_empty() { String::new() } else { format!(" (`{what}`)") })]
    Unpackable {
        /// `squashfs`, …
        format: &'static str,
        /// The entry, as far as one is at fault.
        what: String,
        /// Why not.
        reason: &'static str,
    },
    /// An artifact of which the store does not know what lies where.
    #[error("the store remembers nothing of `{}`", .path.display())]
    Unremembered {
        /// The artifact.
        path: PathBuf,
    },
    /// What was remembered of an earlier artifact is wrong. Packing starts again without it; nobody sees this.
    #[error("what was remembered of an earlier artifact is wrong")]
    StaleIndex,
    /// An index has one image of each platform.
    #[error("several formations for {platform}: an index has one of each platform")]
    SamePlatform {
        /// Which.
        platform: String,
    },
    /// An artifact is not signed by whom it must be, or not as it is.
    #[error("`{}` is not signed as it must be: {reason}", .path.display())]
    Signature {
        /// Which file.
        path: PathBuf,
        /// Why no signature counts.
        reason: String,
    },
    /// A key cannot be used.
    #[error("cannot use the key `{}`", .path.display())]
    Key {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: crate::signing::KeyError,
    },
    /// A registry failed us.
    #[error(transparent)]
    Registry(#[from] crate::registry::Error),
    /// An archive from outside is not what it says.
    #[error("bad {format} archive `{from}`: {reason}")]
    Archive {
        /// Where it came from.
        from: String,
        /// `tar`, `squashfs`, `SIF`.
        format: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl Error {
    /// For `map_err`: a system call on `path` failed.
    pub fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}
