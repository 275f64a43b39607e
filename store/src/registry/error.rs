//! What can go wrong between us and a registry. Advice is `cli`'s.

use std::path::PathBuf;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A text that names no image.
    #[error("`{given}` names no image: {reason}")]
    Reference {
        /// What was given.
        given: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The user interrupted.
    #[error("interrupted")]
    Interrupted,
    /// Nobody answers, or not to the end.
    #[error("cannot reach registry `{host}`: {reason}")]
    Unreachable {
        /// The registry.
        host: String,
        /// In words.
        reason: String,
    },
    /// The registry has no such thing, or does not show it to us.
    #[error("registry `{host}` has no {what}")]
    NotFound {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// The registry wants to know who we are, or does not let us.
    #[error("registry `{host}` refuses to {action} `{repository}`{}", if .reason.is_empty() { String::new() } else { format!(": {}", .reason) })]
    Denied {
        /// The registry.
        host: String,
        /// Of it.
        repository: String,
        /// `read`, `write to`.
        action: &'static str,
        /// In its words.
        reason: String,
        /// Whether a login was shown.
        logged_in: bool,
    },
    /// The registry answered with another refusal.
    #[error("registry `{host}` answers {status} to {what}{}", if .reason.is_empty() { String::new() } else { format!(": {}", .reason) })]
    Status {
        /// The registry.
        host: String,
        /// Of its answer.
        status: u16,
        /// What was asked.
        what: String,
        /// In its words.
        reason: String,
    },
    /// The registry's answer is not what the specification says, or not what was asked for.
    #[error("bad answer of registry `{host}`: {reason}")]
    Bad {
        /// The registry.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A login file cannot be read.
    #[error("login file `{}`: {reason}", .path.display())]
    LoginFile {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A credential helper failed.
    #[error("credential helper `{helper}` for `{host}`: {reason}")]
    Helper {
        /// Its name.
        helper: String,
        /// What it was asked for.
        host: String,
        /// What it said.
        reason: String,
    },
}
