//! `--writable DIR`: what is written to the root is kept, and the next run goes on from there.
//!
//! The program runs as a build step does: root of everything in its root, whoever runs it, by a supervisor. So what is kept is the same
//! layer for root and for an ordinary user, owners, devices and all, and `forge commit` can make a formation of it. Whoever uses the
//! directory holds a lock on it: an upper layer is one overlay's only.

use std::fs::File;
use std::path::{Path, PathBuf};

use executor::{RootFs, Sandbox, Writable};
use rustix::fs::{FlockOperation, flock};
use store::directory::Ownership;
use store::{Formation, FormationId, Store};

use crate::args::RunOptions;
use crate::context::absolute;
use crate::error::{Failure, Result, code};

/// Of the checkout below what is kept: owners are the supervisor's to pretend.
pub const OWNERSHIP: Ownership = Ownership::Caller;

/// Says in DIR whose changes it holds.
pub const OF: &str = "formation";

/// The directory, made where it is not there.
pub fn make(directory: &Path) -> Result<PathBuf> {
    let directory = absolute(directory)?;
    std::fs::create_dir_all(&directory).map_err(|error| failed("make", &directory, &error))?;
    Ok(directory)
}

fn failed(action: &str, directory: &Path, error: &std::io::Error) -> Failure {
    Failure::new(code::USAGE, format!("--writable: cannot {action} `{}`", directory.display())).cause(error.to_string())
}

/// The directory is ours as long as the file is open.
pub fn lock(directory: &Path) -> Result<File> {
    let failed = |error: std::io::Error| {
        Failure::new(code::USAGE, format!("cannot open `{}`", directory.display())).cause(error.to_string())
    };
    let file = File::open(directory).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let failure = Failure::new(code::LOCKED, format!("`{}` is in use", directory.display()));
            Err(failure
                .hint("a run keeps its changes there, or `forge commit` reads them: try again when it has ended"))
        }
        Err(error) => Err(failed(error.into())),
    }
}

/// The sandbox with its changes kept in `directory`, which is locked.
pub fn keep(
    store: &Store,
    id: FormationId,
    formation: &Formation,
    options: &RunOptions,
    directory: &Path,
    sandbox: Sandbox,
) -> Result<(Sandbox, File)> {
    let refuse = |what: &str| {
        let failure = Failure::new(code::USAGE, format!("--writable and {what} do not go together"));
        Err(failure.hint("what is kept is written by root of the root, as by a step of a build"))
    };
    if options.read_only {
        return refuse("--read-only");
    }
    if sandbox.user != (0, 0) || !sandbox.groups.is_empty() {
        return refuse("a user other than root");
    }
    if !options.cap_add.is_empty() || !options.cap_drop.is_empty() {
        return refuse("capabilities");
    }
    let directory = make(directory)?;
    let failed = |action: &str, error| failed(action, &directory, &error);
    let file = lock(&directory)?;
    let note = directory.join(OF);
    match std::fs::read_to_string(&note) {
        Ok(text) if text.trim() == id.to_string() => {}
        Ok(text) => {
            let headline = format!("`{}` holds changes of another formation", directory.display());
            return Err(Failure::new(code::USAGE, headline)
                .cause(format!("of {}, not of {id}", text.trim()))
                .hint("name another directory, or make a formation of those first: forge commit DIR NAME"));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut entries = std::fs::read_dir(&directory).map_err(|error| failed("read", error))?;
            if entries.next().is_some() {
                let headline = format!("--writable: `{}` is not empty", directory.display());
                return Err(
                    Failure::new(code::USAGE, headline).hint("name an empty directory, or one that is not there")
                );
            }
            builder::scan::prepare(store, &directory, formation.root)?;
            std::fs::write(&note, format!("{id}\n")).map_err(|error| failed("write to", error))?;
        }
        Err(error) => return Err(failed("read", error)),
    }
    let checkout = store.checkout(formation.root, OWNERSHIP)?;
    let root = RootFs { layers: vec![checkout], writable: Writable::Kept(directory) };
    Ok((Sandbox { root, pretend_root: true, ..sandbox }, file))
}
