//! The store's directory on disk: where objects, roots and claims lie.
//!
//! ```text
//! DIR/format                      "forge store 1\n"
//! DIR/blobs/ab/cdef…              a blob's bytes, mode 0644; `cdef….x` the same with mode 0755
//! DIR/trees/ab/cdef…              encoded trees; likewise deltas/, formations/
//! DIR/records/<formation id>.json what is known of a formation beside its identity
//! DIR/claims/…                    which step or derivation gave what
//! DIR/roots/NAME                  a name's formation id
//! DIR/checkouts/…                 trees laid out on disk
//! DIR/scratch/…                   what running processes are making; locked by them
//! ```
//!
//! Plain files only; every object is written to a temporary name, synced and renamed, so that a crash at any point leaves a
//! valid store and every step may be repeated. The whole directory is mode 0700.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::derivation::StorePath;
use crate::digest::StepKey;
use crate::{BlobId, Delta, DeltaId, File, Formation, FormationId, Metadata, Name, Result, Tree, TreeId};

/// A store on this machine. Any number of threads and processes may share one.
pub struct Store {}

/// What one output of a derivation or step turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// A single file, for instance a download.
    Blob(BlobId),
    /// A delta to be merged into a root.
    Delta(DeltaId),
}

/// One layer in the record of how a formation's root came to be.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LayerRecord {
    /// What people call it.
    pub label: String,
    /// The delta's id, in hexadecimal.
    pub delta: String,
    /// Bytes in its files, each counted once per entry.
    pub size: u64,
    /// Entries that are not directories.
    pub files: u64,
}

/// What is known of a formation beside its identity.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Record {
    /// Lowest first.
    pub layers: Vec<LayerRecord>,
    /// When it was first built here, in seconds since 1970.
    pub built: u64,
    /// Packages in it, as the lock has them.
    #[serde(default)]
    pub packages: Vec<BTreeMap<String, serde_json::Value>>,
}

/// Who owns the files of a checkout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ownership {
    /// As the tree says; only root can make it.
    Exact,
    /// Everything belongs to the caller; what the tree says otherwise is noted in [`OWNER_ATTRIBUTE`].
    Caller,
}

/// On files and directories of an [`Ownership::Caller`] checkout, and of what a build step leaves: `UID:GID` in decimal,
/// where the tree's owner is not 0:0.
pub const OWNER_ATTRIBUTE: &str = "user.forge.owner";
/// On an empty regular file that stands for a device: `c MAJOR:MINOR` or `b MAJOR:MINOR` in decimal.
pub const DEVICE_ATTRIBUTE: &str = "user.forge.device";

/// A directory that belongs to this process until dropped; removed then, or by the next process if this one is killed.
pub struct Scratch {}

impl Scratch {
    /// Where it is. On the store's own file system, so that files can be renamed and linked into the store.
    pub fn path(&self) -> &Path {
        unimplemented!()
    }
    /// Keeps the directory after all (`--keep-failed`), and says where.
    pub fn keep(self) -> PathBuf {
        unimplemented!()
    }
}

/// Sizes of a tree, all below it included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extent {
    /// Bytes in files, each counted once per entry.
    pub bytes: u64,
    /// Entries that are not directories.
    pub files: u64,
    /// Directories, the root included.
    pub directories: u64,
}

#[allow(unused_variables)]
impl Store {
    /// Opens the store at `path`, and makes it if there is none. Fails if a newer forge made it.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        unimplemented!()
    }
    /// Where it is.
    pub fn path(&self) -> &Path {
        unimplemented!()
    }
    /// A new empty directory of this process's own.
    pub fn scratch(&self) -> Result<Scratch> {
        unimplemented!()
    }

    /// Keeps some bytes. May be repeated.
    pub fn put_blob(&self, bytes: &[u8], executable: bool) -> Result<BlobId> {
        unimplemented!()
    }
    /// Keeps what a reader gives, and says how long it was. `executable` only says which inode is written first.
    pub fn put_blob_from(&self, reader: &mut dyn Read, executable: bool) -> Result<(BlobId, u64)> {
        unimplemented!()
    }
    /// Keeps a file of the scratch directory by moving it (one that others may still write to must be copied instead).
    pub fn adopt_blob(&self, path: &Path, executable: bool) -> Result<(BlobId, u64)> {
        unimplemented!()
    }
    /// Opens a blob for reading.
    pub fn open_blob(&self, id: BlobId) -> Result<fs::File> {
        unimplemented!()
    }
    /// The bytes of a blob.
    pub fn blob(&self, id: BlobId) -> Result<Vec<u8>> {
        unimplemented!()
    }
    /// Whether the blob is here.
    pub fn has_blob(&self, id: BlobId) -> bool {
        unimplemented!()
    }

    /// Keeps a tree. Its blobs and subtrees must be here already.
    pub fn put_tree(&self, tree: &Tree) -> Result<TreeId> {
        unimplemented!()
    }
    /// Reads a tree; recent ones are remembered.
    pub fn tree(&self, id: TreeId) -> Result<Arc<Tree>> {
        unimplemented!()
    }
    /// Size of a tree and all below it.
    pub fn extent(&self, id: TreeId) -> Result<Extent> {
        unimplemented!()
    }
    /// Keeps a delta. Its tree must be here already.
    pub fn put_delta(&self, delta: &Delta) -> Result<DeltaId> {
        unimplemented!()
    }
    /// Reads a delta.
    pub fn delta(&self, id: DeltaId) -> Result<Delta> {
        unimplemented!()
    }
    /// The tree that these deltas, lowest first, add up to. Whole subtrees that only one of them has are taken by id.
    pub fn merge(&self, deltas: &[DeltaId]) -> Result<TreeId> {
        unimplemented!()
    }
    /// The delta that these deltas, lowest first, add up to (so that another may be put under it).
    pub fn squash(&self, deltas: &[DeltaId]) -> Result<DeltaId> {
        unimplemented!()
    }

    /// Keeps a formation and what is known of it; an earlier record of the same formation is kept.
    pub fn put_formation(&self, formation: &Formation, record: &Record) -> Result<FormationId> {
        unimplemented!()
    }
    /// Reads a formation.
    pub fn formation(&self, id: FormationId) -> Result<Formation> {
        unimplemented!()
    }
    /// What is known of a formation beside its identity.
    pub fn record(&self, id: FormationId) -> Result<Record> {
        unimplemented!()
    }
    /// Every formation here, sorted by id.
    pub fn formations(&self) -> Result<Vec<FormationId>> {
        unimplemented!()
    }
    /// The formation that a digest, a unique prefix of 6 digits or more, or a name stands for.
    pub fn find(&self, given: &str) -> Result<FormationId> {
        unimplemented!()
    }
    /// Gives a formation a name, which keeps it from being collected. An earlier formation of that name loses it.
    pub fn set_root(&self, name: &str, id: FormationId) -> Result<()> {
        unimplemented!()
    }
    /// Takes a name away; says whether it was there.
    pub fn remove_root(&self, name: &str) -> Result<bool> {
        unimplemented!()
    }
    /// All names.
    pub fn roots(&self) -> Result<BTreeMap<String, FormationId>> {
        unimplemented!()
    }

    /// What this output of a derivation came out as, when it was last built.
    pub fn claim_of_output(&self, derivation: &StorePath, output: &str) -> Result<Option<Claim>> {
        unimplemented!()
    }
    /// Remembers what an output of a derivation came out as.
    pub fn put_claim_of_output(&self, derivation: &StorePath, output: &str, claim: &Claim) -> Result<()> {
        unimplemented!()
    }
    /// What a step with this key came out as.
    pub fn claim_of_step(&self, key: &StepKey) -> Result<Option<Claim>> {
        unimplemented!()
    }
    /// Remembers what a step came out as.
    pub fn put_claim_of_step(&self, key: &StepKey, claim: &Claim) -> Result<()> {
        unimplemented!()
    }

    /// Takes in a file, symlink or directory of the project: root:root, modes 0644 or 0755. `selected` as in [`crate::derivation::Source`].
    pub fn ingest_source(
        &self,
        path: &Path,
        selected: Option<&std::collections::BTreeSet<Vec<u8>>>,
    ) -> Result<crate::Node> {
        unimplemented!()
    }

    /// Lays a tree out on disk, once; later calls find it. Files are shared by hard link between checkouts.
    /// The directory has the tree's modes (its own included) and times of 1980-01-02 00:00 UTC.
    pub fn checkout(&self, id: TreeId, ownership: Ownership) -> Result<PathBuf> {
        unimplemented!()
    }
}
