//! Derivations: the steps of making something, as Nix writes them down, and the plan they make up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use crate::formation::Launch;
use crate::lock::LockRequest;

/// The logical store directory of Nix. Nothing is ever written there on the host: the paths exist inside sandboxes and formations.
pub const STORE_DIRECTORY: &str = "/nix/store";

/// Nix's name for an output or source, `/nix/store/<32 digits of base 32>-<name>`: what was asked for, not what came out.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorePath(String);

impl StorePath {
    /// Reads a full store path, without anything below it.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(STORE_DIRECTORY)?.strip_prefix('/')?;
        let (hash, name) = (rest.get(..32)?, rest.get(32..)?.strip_prefix('-')?);
        let in_alphabet = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase() && !b"eotu".contains(&byte);
        let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._?=".contains(&byte);
        let good = hash.bytes().all(in_alphabet) && name.bytes().all(in_name) && (1..=211).contains(&name.len());
        good.then(|| Self(text.to_owned()))
    }

    /// The whole path, from `/nix/store`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part after the hash.
    pub fn name(&self) -> &str {
        &self.0[STORE_DIRECTORY.len() + 34..]
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for StorePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Hash functions that a fixed output may be pinned with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HashAlgorithm {
    /// 128 bits; only because old expressions use it.
    Md5,
    /// 160 bits; only because old expressions use it.
    Sha1,
    /// 256 bits.
    Sha256,
    /// 512 bits.
    Sha512,
}

impl HashAlgorithm {
    /// As Nix writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }
}

/// What an output must be, known before it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedOutput {
    /// The hash is of the NAR of a file tree rather than of a single file's bytes.
    pub recursive: bool,
    /// Which hash.
    pub algorithm: HashAlgorithm,
    /// Its bytes.
    pub hash: Vec<u8>,
}

/// One output of a derivation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Where it appears; none if that is known only when it is built: it is floating, or depends on what is.
    pub path: Option<StorePath>,
    /// What it must be, for a fixed output. With an empty hash the output is floating: named by what comes out.
    pub fixed: Option<FixedOutput>,
}

/// One step of making something: run a builder on inputs. Texts are bytes, as Nix's are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derivation {
    /// The name without hash.
    pub name: String,
    /// By name; `out` unless the expression says otherwise.
    pub outputs: BTreeMap<String, Output>,
    /// Which outputs of which derivations it uses.
    pub input_derivations: BTreeMap<StorePath, BTreeSet<String>>,
    /// Sources it uses.
    pub input_sources: BTreeSet<StorePath>,
    /// For instance `x86_64-linux`, or `builtin`.
    pub system: Vec<u8>,
    /// A program, or `builtin:NAME` for work that forge does itself.
    pub builder: Vec<u8>,
    /// Arguments of the program.
    pub arguments: Vec<Vec<u8>>,
    /// Environment of the program; parameters of a builtin.
    pub environment: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Where a source of the plan comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file or directory of the project. Its SHA-256 (of the NAR) is in the store path, so a change since is noticed.
    Path {
        /// Where it lies.
        path: PathBuf,
        /// Paths below it that are taken (`builtins.path` with a filter), relative, without slash in front; everything if none.
        selected: Option<BTreeSet<Vec<u8>>>,
    },
    /// A text that the expression made (`builtins.toFile`).
    Text(Vec<u8>),
    /// Something from elsewhere (`builtins.fetchTarball` and its like).
    Fetched(Fetched),
}

/// Something from elsewhere that is known by its hash: it is looked for by that before anybody is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// How to ask for it: of kind `url` or `tree` (`docs/formats/lock.md`).
    pub request: LockRequest,
    /// The hash is of its Nix archive rather than of a file's bytes.
    pub recursive: bool,
    /// Its SHA-256.
    pub sha256: [u8; 32],
}

/// One layer of the goal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoalLayer {
    /// What people call it, for instance `debian bookworm`.
    pub label: String,
    /// The derivation that makes it (a key of [`Plan::derivations`]).
    pub derivation: StorePath,
    /// Which of its outputs.
    pub output: String,
}

/// What a plan is for: a formation, or a derivation as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goal {
    /// Name of the formation.
    pub name: String,
    /// Version of the formation, may be empty.
    pub version: String,
    /// Variant of the formation, may be empty.
    pub variant: String,
    /// `linux/amd64` or `linux/arm64`, as OCI writes platforms.
    pub platform: String,
    /// Lowest first; merged they are the formation's root.
    pub layers: Vec<GoalLayer>,
    /// How it wants to be run.
    pub launch: Launch,
    /// No formation is wanted: only what the one layer's derivation gives.
    pub plain: bool,
}

/// All derivations needed and the goal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// By `.drv` path; closed under input derivations.
    pub derivations: BTreeMap<StorePath, Derivation>,
    /// By store path; closed under input sources.
    pub sources: BTreeMap<StorePath, Source>,
    /// What it is all for.
    pub goal: Goal,
}
