//! The directory of a failed step that was kept (`--keep-failed`): what is in it, so that it can be entered.
//!
//! `step.json` lies in the step's scratch directory. The directory itself stays until the store is collected.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use executor::{Network, RootFs, Sandbox, Streams, Writable};
use serde_json::{Value, json};
use store::directory::{Ownership, Scratch};
use store::{Store, TreeId};

use crate::{Builder, Error, Event, Result, step};

/// The file that describes it.
const FILE: &str = "step.json";

/// A step's directory that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The path of its derivation; empty if it had none.
    pub derivation: String,
    /// Its name.
    pub name: String,
    /// The tree that its command ran over.
    pub root: TreeId,
    /// Where its changes lie.
    pub changes: PathBuf,
    /// The whole environment of its command.
    pub environment: BTreeMap<OsString, OsString>,
    /// Its working directory.
    pub directory: PathBuf,
    /// User and group.
    pub user: (u32, u32),
    /// Program and arguments.
    pub command: Vec<OsString>,
}

impl Kept {
    /// Keeps the directory of a step that has failed, with its description in `place`; gives the step's error, which says where.
    ///
    /// What cannot be described (the disk may be full) is not kept: why the step failed is more than its files.
    pub fn keep(&self, builder: &Builder<'_>, scratch: Scratch, place: &Path, failed: Error) -> Error {
        match self.write(place) {
            Ok(()) => failed.with_kept(scratch.keep()),
            Err(error) => {
                let reason = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                let note = format!("the files of step `{}` are not kept: {error}{reason}", self.name);
                builder.reporter.report(Event::Note(&note));
                failed
            }
        }
    }

    /// Writes the description into the step's directory. Bytes that are no text become something else in it.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let words = |words: &[OsString]| -> Vec<Value> {
            words.iter().map(|word| Value::from(word.to_string_lossy())).collect()
        };
        let environment: serde_json::Map<String, Value> = self
            .environment
            .iter()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), Value::from(value.to_string_lossy())))
            .collect();
        let record = json!({
            "schema": 1,
            "derivation": self.derivation,
            "name": self.name,
            "root": self.root.to_string(),
            "changes": self.changes.strip_prefix(directory).unwrap_or(&self.changes),
            "environment": environment,
            "directory": self.directory,
            "user": [self.user.0, self.user.1],
            "command": words(&self.command),
        });
        let path = directory.join(FILE);
        std::fs::write(&path, record.to_string()).map_err(Error::file("write", path))
    }

    /// Reads the description in a directory; none if it is no kept step's.
    pub fn read(directory: &Path) -> Option<Self> {
        let text = std::fs::read(directory.join(FILE)).ok()?;
        let record: Value = serde_json::from_slice(&text).ok()?;
        let text = |name: &str| record.get(name)?.as_str().map(str::to_owned);
        let words = |value: &Value| -> Option<Vec<OsString>> {
            value.as_array()?.iter().map(|word| word.as_str().map(OsString::from)).collect()
        };
        let number = |index: usize| u32::try_from(record.get("user")?.get(index)?.as_u64()?).ok();
        let environment = record.get("environment")?.as_object()?;
        Some(Self {
            derivation: text("derivation")?,
            name: text("name")?,
            root: text("root")?.parse().ok()?,
            changes: directory.join(text("changes")?),
            environment: environment
                .iter()
                .filter_map(|(name, value)| Some((OsString::from(name), OsString::from(value.as_str()?))))
                .collect(),
            directory: PathBuf::from(text("directory")?),
            user: (number(0)?, number(1)?),
            command: words(record.get("command")?)?,
        })
    }

    /// The sandbox that the step ran in, with what it left, for another command on the caller's own streams.
    pub fn sandbox(&self, store: &Store, command: Vec<OsString>) -> Result<Sandbox> {
        let checkout = store.checkout(self.root, Ownership::Caller)?;
        let pretend_root = self.user == (0, 0);
        Ok(Sandbox {
            root: RootFs { layers: vec![checkout], writable: Writable::Kept(self.changes.clone()) },
            binds: Vec::new(),
            command,
            environment: self.environment.clone(),
            directory: self.directory.clone(),
            user: self.user,
            groups: Vec::new(),
            hostname: step::HOST_NAME.to_owned(),
            network: Network::None,
            limits: step::limits(None),
            stop_signal: None,
            streams: Streams::Inherit,
            pretend_root,
            one_user: !pretend_root,
            require: Vec::new(),
            interrupt: None,
            ..Sandbox::default()
        })
    }

    /// A shell for it: bash or sh along its own PATH, else one that lies among a Nix step's inputs.
    pub fn shell(&self, store: &Store) -> Result<Vec<OsString>> {
        for path in ["/bin/bash", "/usr/bin/bash", "/bin/sh", "/usr/bin/sh"] {
            if store.look(self.root, path.as_bytes())?.is_some() {
                return Ok(vec![path.into()]);
            }
        }
        if let Some(store::Node::Directory(id)) = store.look(self.root, b"/nix/store")? {
            for program in ["bash", "sh", "busybox"] {
                for name in store.tree(id)?.entries.keys() {
                    let path = [b"/nix/store/", name.as_bytes(), b"/bin/", program.as_bytes()].concat();
                    if store.look(self.root, &path)?.is_some() {
                        let path = OsString::from_vec(path);
                        return Ok(if program == "busybox" { vec![path, "sh".into()] } else { vec![path] });
                    }
                }
            }
        }
        // What the step's own command begins with may be a shell by another name: `/bin/busybox sh -c …`.
        Ok(self.command.iter().take_while(|word| !word.as_bytes().starts_with(b"-")).take(2).cloned().collect())
    }
}

/// The kept directories of steps, the newest first: by path, name, or derivation.
pub fn find(store: &Store, given: &str) -> Result<Vec<(PathBuf, Kept)>> {
    let direct = Path::new(given);
    if direct.is_absolute()
        && !given.starts_with("/nix/store/")
        && let Some(kept) = Kept::read(direct)
    {
        return Ok(vec![(direct.to_owned(), kept)]);
    }
    let directory = store.path().join("scratch");
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file("read the directory", directory)(error)),
    };
    let mut found: Vec<(SystemTime, PathBuf, Kept)> = Vec::new();
    for entry in entries.flatten() {
        let Some(kept) = Kept::read(&entry.path()) else { continue };
        let base = kept.derivation.strip_prefix("/nix/store/").unwrap_or_default();
        let fits = given.is_empty()
            || kept.name == given
            || kept.derivation == given
            || base == given
            || given.len() >= 6 && base.starts_with(given);
        let time = std::fs::metadata(entry.path().join(FILE)).and_then(|metadata| metadata.modified());
        if fits {
            found.push((time.unwrap_or(SystemTime::UNIX_EPOCH), entry.path(), kept));
        }
    }
    found.sort_by_key(|(time, ..)| std::cmp::Reverse(*time));
    Ok(found.into_iter().map(|(_, path, kept)| (path, kept)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_read_as_it_was_written_and_half_of_one_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let kept = Kept {
            derivation: format!("/nix/store/{}-a.drv", "0".repeat(32)),
            name: "a".to_owned(),
            root: store::Tree::empty().id(),
            changes: directory.path().join("changes"),
            environment: BTreeMap::from([("A".into(), "b c".into())]),
            directory: PathBuf::from("/build"),
            user: (1000, 100),
            command: vec!["/bin/sh".into(), "-c".into(), "true".into()],
        };
        assert_eq!(Kept::read(directory.path()), None);
        kept.write(directory.path()).unwrap();
        assert_eq!(Kept::read(directory.path()), Some(kept));
        let text = std::fs::read_to_string(directory.path().join(FILE)).unwrap();
        std::fs::write(directory.path().join(FILE), &text[..text.len() / 2]).unwrap();
        assert_eq!(Kept::read(directory.path()), None);
    }
}
