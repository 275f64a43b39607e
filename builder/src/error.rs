//! What can go wrong while locking and building, and with what. Advice is `cli`'s.

use std::path::PathBuf;

/// The result of a builder operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Asking peers failed, and it was not their fault.
    #[error(transparent)]
    Peer(store::peer::Error),
    /// The sandbox failed.
    #[error(transparent)]
    Executor(#[from] executor::Error),
    /// The user interrupted.
    #[error("interrupted")]
    Interrupted {
        /// By this signal.
        signal: i32,
    },
    /// A system call on a path failed.
    #[error("cannot {action} `{}`", .path.display())]
    File {
        /// The verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A step is described in a way that its builder does not take.
    #[error("step `{step}`: parameter `{parameter}`: {reason}")]
    Parameter {
        /// Name of the derivation.
        step: String,
        /// Which parameter.
        parameter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A derivation names a builder that forge has not got.
    #[error("step `{step}` wants builder `{builder}`")]
    NoBuilder {
        /// Name of the derivation.
        step: String,
        /// What it wants.
        builder: String,
    },
    /// A derivation is for another kind of machine.
    #[error("step `{step}` is to be made on `{wanted}`, and this machine is `{here}`")]
    System {
        /// Name of the derivation.
        step: String,
        /// What it wants.
        wanted: String,
        /// What this is.
        here: String,
    },
    /// A lock request names an answerer that forge has not got.
    #[error("nobody answers lock requests of kind `{kind}`")]
    NoResolver {
        /// What was asked.
        kind: String,
    },
    /// A plan that is not closed; a bug of whoever made it.
    #[error("the plan refers to `{path}` and has no such derivation or source")]
    NotInPlan {
        /// The missing one.
        path: String,
    },
    /// A derivation has no such output.
    #[error("step `{step}` has no output `{output}`")]
    NoOutput {
        /// Name of the derivation.
        step: String,
        /// What was asked for.
        output: String,
    },
    /// Two layers of one package set give the same path differently, or a file is put where it cannot be.
    #[error("`{path}`: {reason}")]
    Conflict {
        /// Which path.
        path: String,
        /// Who wants what.
        reason: String,
    },
    /// A command in a step failed.
    #[error("step `{step}` failed: {ending}")]
    Step {
        /// Name of the derivation.
        step: String,
        /// How its command ended, in words.
        ending: String,
        /// The end of what it printed.
        log: String,
        /// Where its scratch directory was kept, if it was.
        kept: Option<PathBuf>,
    },
    /// Several steps failed, or others could not be made because one did.
    #[error("{} of the steps failed, and {not_made} that need them were not made", .failures.len())]
    Steps {
        /// Each.
        failures: Vec<Self>,
        /// How many could not be made for want of them.
        not_made: usize,
    },
    /// What is to be fetched alone is more than the disk has room for.
    #[error("insufficient disk space at `{}`: {available} bytes are available, and {needed} are to be fetched", .path.display())]
    NoRoom {
        /// The store.
        path: PathBuf,
        /// Bytes.
        available: u64,
        /// Bytes, as far as they are known.
        needed: u64,
    },
    /// A step was ended because the disk of the store was about to be full.
    #[error("the disk of the store `{}` is filling up: {left}", .path.display())]
    DiskFull {
        /// The store.
        path: PathBuf,
        /// What there is still room for, in words.
        left: String,
    },
    /// Something from outside (package, index, wheel) is not what it should be.
    #[error("bad {what} `{name}`: {reason}")]
    Invalid {
        /// `package`, `index`, `wheel`, …
        what: &'static str,
        /// Which.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A transfer failed: every place that was asked, and what each said.
    #[error("cannot fetch `{what}`")]
    Fetch {
        /// File, index or URL.
        what: String,
        /// Address and answer, in the order asked.
        tried: Vec<(String, String)>,
        /// Whether this is a package or index that a mirror no longer has (404, 410).
        gone: bool,
    },
    /// A program of this machine is wanted and not there.
    #[error("there is no program `{program}` on this machine, which fetches {purpose}")]
    NoProgram {
        /// Its name.
        program: String,
        /// What it is for.
        purpose: &'static str,
    },
    /// Fetched bytes do not have the digest or size that was asked for.
    #[error("`{what}` came as {actual}, expected {expected}")]
    Mismatch {
        /// File or URL.
        what: String,
        /// `sha256:…`, or a number of bytes.
        actual: String,
        /// `sha256:…`, or a number of bytes.
        expected: String,
    },
    /// A step gave something else than it says must come out.
    #[error("step `{step}` gave {actual}, expected {}", if .expected.is_empty() { "none yet" } else { .expected })]
    Output {
        /// Name of the derivation.
        step: String,
        /// What came out.
        actual: String,
        /// What is written.
        expected: String,
    },
    /// Nothing on this machine says where to ask.
    #[error("no {what} is configured on this machine")]
    NotConfigured {
        /// `Debian mirror`, `Python index`.
        what: &'static str,
        /// What can be set, each a line.
        settings: Vec<String>,
    },
    /// The signature of an index is missing, wrong, or by a key that is not trusted.
    #[error("signature of `{what}` is not valid: {reason}")]
    Signature {
        /// Which index.
        what: String,
        /// Why.
        reason: String,
    },
    /// No package has this name.
    #[error("{ecosystem} has no package `{name}`")]
    UnknownPackage {
        /// `Debian bookworm`, `the Python index`.
        ecosystem: String,
        /// As asked for.
        name: String,
        /// Names like it, best first.
        near: Vec<String>,
    },
    /// The requirements cannot all be had.
    #[error("{ecosystem}: the requirements cannot be met together")]
    Unsolvable {
        /// `Debian bookworm`, `Python 3.11`.
        ecosystem: String,
        /// The solver's own words.
        explanation: String,
    },
    /// A lock file or project is for other Pythons than the layer's.
    #[error("{who} wants Python `{wanted}`, and the layer has {python}")]
    OtherPython {
        /// Which file, or what of it, in words.
        who: String,
        /// As written there.
        wanted: String,
        /// What there is.
        python: String,
    },
    /// A lock file is for other systems than the layer's.
    #[error("`{file}` is locked for `{wanted}`, and the layer is {here}")]
    OtherEnvironment {
        /// Which file.
        file: String,
        /// Its markers.
        wanted: String,
        /// What there is, in words.
        here: String,
    },
    /// A project does not say what it wants.
    #[error("`{file}` leaves `{field}` to what builds the project (`dynamic`)")]
    Dynamic {
        /// Which file.
        file: String,
        /// Which field of its project.
        field: &'static str,
    },
    /// The lock answers a request without some record that it needs.
    #[error("the lock has no `{field}` for `{name}`")]
    LockRecord {
        /// Which package.
        name: String,
        /// Which field.
        field: &'static str,
    },
}

impl From<store::peer::Error> for Error {
    fn from(error: store::peer::Error) -> Self {
        match error {
            store::peer::Error::Store(error) => Self::Store(error),
            store::peer::Error::Interrupted { signal } => Self::Interrupted { signal: signal.abs() },
            error => Self::Peer(error),
        }
    }
}

impl Error {
    /// Says where the directory of a failed step was kept.
    pub(crate) fn with_kept(self, path: PathBuf) -> Self {
        match self {
            Self::Step { step, ending, log, .. } => Self::Step { step, ending, log, kept: Some(path) },
            error => error,
        }
    }

    /// For `map_err`: a system call on `path` failed.
    pub fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}
