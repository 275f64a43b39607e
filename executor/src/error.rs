//! What can go wrong before a command runs.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The result of an executor operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not in the root.
    #[error("command `{}` not found", .command.display())]
    CommandNotFound {
        /// As given.
        command: OsString,
    },
    /// The program is there and cannot be executed.
    #[error("cannot execute `{}`", .command.display())]
    CannotExecute {
        /// As given.
        command: OsString,
        /// Why.
        source: io::Error,
    },
    /// The host does not let this user make namespaces.
    #[error("this host forbids user namespaces")]
    NoUserNamespaces {
        /// Which switch forbids it, as `sysctl` names it, if it is known: `user.max_user_namespaces` or
        /// `kernel.unprivileged_userns_clone` is 0, or `kernel.apparmor_restrict_unprivileged_userns` is 1.
        switch: Option<String>,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something asked for with `require` is not to be had.
    #[error("isolation `{what}` is required and cannot be had here: {why}")]
    Required {
        /// What was required.
        what: String,
        /// Why it is not to be had.
        why: String,
    },
    /// Something of a run that only our own launcher does.
    #[error("another runtime cannot be told of {what}")]
    NotByOthers {
        /// What.
        what: &'static str,
    },
    /// The specification of runtimes is in JSON, which has texts only.
    #[error("another runtime cannot be told of {what} that is not UTF-8: `{}`", .value.display())]
    NotText {
        /// What.
        what: &'static str,
        /// As given.
        value: OsString,
    },
    /// A step of setting up the sandbox failed.
    #[error("cannot {action}")]
    Setup {
        /// What was being done, with the path if there is one.
        action: String,
        /// Why.
        source: io::Error,
    },
    /// A port of the host's side cannot be listened on.
    #[error("cannot listen on {address}")]
    Port {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The command succeeded, and not all of what it printed could be written.
    #[error("cannot write all of what the command printed")]
    Output {
        /// Why.
        source: io::Error,
    },
    /// A file of the host failed.
    #[error("cannot {action} `{}`", .path.display())]
    File {
        /// The verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}
