//! Claims: which step or derivation gave what. Unlike objects they do not prove themselves.
//!
//! A claim is a small text: the kind and digest of the result, and below it, for people, what it is about. A claim whose
//! result is gone or that a crash left unreadable is no claim.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::sync::PoisonError;

use rustix::fs::{AtFlags, Timespec, Timestamps, UTIME_NOW};

use super::lease::Use;
use super::{Claim, Store, failed};
use crate::derivation::StorePath;
use crate::digest::StepKey;
use crate::{BlobId, DeltaId, FormationId, Result};

/// What a claim is about.
#[derive(Debug, Clone, Copy)]
pub enum Claimed<'a> {
    /// An output of a derivation.
    Output(&'a StorePath, &'a str),
    /// Every step with this key.
    Step(&'a StepKey),
}

const CONTEXT: &str = "forge 2026-11-21 claim v1";

/// Up to so many claims are open at a time, and their directories written out one by one; of more, the disk writes out all that it has.
const FEW: usize = 4;

/// So many claims about store paths are kept in memory before they are written down, at most.
const MOST_LATER: usize = 512;

impl Claimed<'_> {
    fn relative(&self) -> String {
        match self {
            Self::Output(derivation, output) => output_path(derivation, output),
            Self::Step(key) => claim_path("steps", key.as_bytes()),
        }
    }
}

impl Store {
    /// What this output of a derivation came out as, when it was last built.
    pub fn claim_of_output(&self, derivation: &StorePath, output: &str) -> Result<Option<Claim>> {
        self.read_claim(&output_path(derivation, output))
    }

    /// Remembers what an output of a derivation came out as.
    pub fn put_claim_of_output(&self, derivation: &StorePath, output: &str, claim: &Claim) -> Result<()> {
        self.put_claims(&[(Claimed::Output(derivation, output), claim)])
    }

    /// What a step with this key came out as.
    pub fn claim_of_step(&self, key: &StepKey) -> Result<Option<Claim>> {
        self.read_claim(&claim_path("steps", key.as_bytes()))
    }

    /// Remembers what a step came out as.
    pub fn put_claim_of_step(&self, key: &StepKey, claim: &Claim) -> Result<()> {
        self.put_claims(&[(Claimed::Step(key), claim)])
    }

    /// Remembers what many outputs and steps came out as, at the price of one: the disk is told once to write out what they name.
    pub fn put_claims(&self, claims: &[(Claimed<'_>, &Claim)]) -> Result<()> {
        let mut new = Vec::new();
        for (of, claim) in claims {
            let about = match of {
                Claimed::Output(derivation, output) => format!("{derivation}!{output}"),
                Claimed::Step(key) => key.to_string(),
            };
            let (relative, result) = (of.relative(), named(claim));
            if !self.says(&relative, &result, &about)? {
                new.push((relative, result, about));
            }
        }
        // Of store paths first: what a step came out as counts for nothing without them.
        let later = self.store_paths.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let paths =
            later.iter().map(|(relative, (delta, note))| (relative.clone(), format!("delta {delta}"), note.clone()));
        new.splice(0..0, paths);
        if new.is_empty() {
            return Ok(());
        }
        self.write_durably(&new)?;
        // Not before they are written: another thread may ask for one.
        let mut left = self.store_paths.lock().unwrap_or_else(PoisonError::into_inner);
        left.retain(|relative, known| later.get(relative) != Some(known));
        Ok(())
    }

    /// Writes claims and what they name: the disk has them all afterwards.
    fn write_durably(&self, new: &[(String, String, String)]) -> Result<()> {
        if new.len() > FEW {
            self.sync()?;
            new.iter().try_for_each(|(relative, result, about)| self.write_synced(relative, result, about))?;
            return rustix::fs::syncfs(&self.directory).map_err(failed("sync", self.path()));
        }
        let mut staged = Vec::new();
        for (relative, result, about) in new {
            let mut temporary = self.temporary()?;
            temporary.write(format!("{result}\n{about}\n").as_bytes())?;
            staged.push((temporary, relative));
        }
        // What they name goes to the disk, and they with it.
        self.has_written();
        self.sync()?;
        for (temporary, relative) in staged {
            self.with_room(|| temporary.place(relative))?;
        }
        // A step that was completed counts, whatever happens to the machine: so the disk has their names, too.
        let directories: BTreeSet<&str> =
            new.iter().filter_map(|(relative, ..)| relative.rsplit_once('/')).map(|(it, _)| it).collect();
        directories.into_iter().try_for_each(|directory| self.sync_directory(directory))
    }

    /// The formation that an artifact was read as when its file was as it is now: the same file system and inode, size, and times
    /// of change, which nobody but root can set back.
    pub fn claim_of_file(&self, file: &Metadata) -> Result<Option<FormationId>> {
        let result = self.read_result(&file_path(file))?;
        Ok(result.and_then(|result| result.strip_prefix("formation ")?.parse().ok()))
    }

    /// Remembers which formation an artifact was read as. `about` is for people.
    pub fn put_claim_of_file(&self, file: &Metadata, id: FormationId, about: &str) -> Result<()> {
        self.write_result(&file_path(file), &format!("formation {id}"), &about.replace('\n', " "))
    }

    /// The formation that an image of a registry was read as: the same manifest, platform and name (`key`).
    pub fn claim_of_image(&self, key: &str) -> Result<Option<FormationId>> {
        let result = self.read_result(&claim_path("images", &blake3::derive_key(CONTEXT, key.as_bytes())))?;
        Ok(result.and_then(|result| result.strip_prefix("formation ")?.parse().ok()))
    }

    /// Remembers which formation an image was read as.
    pub fn put_claim_of_image(&self, key: &str, id: FormationId) -> Result<()> {
        let path = claim_path("images", &blake3::derive_key(CONTEXT, key.as_bytes()));
        self.write_result(&path, &format!("formation {id}"), &key.replace('\n', " "))
    }

    /// What merging or squashing (`kind`) these deltas gave.
    pub(super) fn claim_of_sum(&self, kind: &'static str, deltas: &[DeltaId]) -> Result<Option<String>> {
        self.read_result(&sum_path(kind, deltas))
    }

    pub(super) fn put_claim_of_sum(&self, kind: &'static str, deltas: &[DeltaId], result: &str) -> Result<()> {
        self.write_result(&sum_path(kind, deltas), result, kind)
    }

    /// A compressed layer of this key, and what was noted of it.
    pub(crate) fn claim_of_layer(&self, key: &[u8; 32]) -> Result<Option<(BlobId, String)>> {
        let relative = claim_path("layers", key);
        let Some(result) = self.read_result(&relative)? else { return Ok(None) };
        let Some(text) = self.read_if_there(&relative)? else { return Ok(None) };
        let note = String::from_utf8_lossy(&text).lines().nth(1).unwrap_or_default().to_owned();
        Ok(result.strip_prefix("blob ").and_then(|id| id.parse().ok()).map(|blob| (blob, note)))
    }

    pub(crate) fn put_claim_of_layer(&self, key: &[u8; 32], blob: BlobId, note: &str) -> Result<()> {
        self.write_result(&claim_path("layers", key), &format!("blob {blob}"), note)
    }

    /// The delta that has what lies at a store path of Nix's, and what was noted of it.
    pub(crate) fn claim_of_path(&self, path: &StorePath) -> Result<Option<(DeltaId, String)>> {
        self.claim_of_digits(crate::nix::info::hash_part(path))
    }

    /// The same, by the 32 digits of the path alone: that is what binary caches are asked by.
    pub(crate) fn claim_of_digits(&self, digits: &str) -> Result<Option<(DeltaId, String)>> {
        let relative = digits_path(digits);
        let later = self.store_paths.lock().unwrap_or_else(PoisonError::into_inner).get(&relative).cloned();
        if let Some(known) = later {
            return Ok(Some(known));
        }
        let Some(text) = self.read_if_there(&relative)? else { return Ok(None) };
        let note = String::from_utf8_lossy(&text).lines().nth(1).unwrap_or_default().to_owned();
        let Some(result) = self.read_result(&relative)? else { return Ok(None) };
        Ok(result.strip_prefix("delta ").and_then(|id| id.parse().ok()).map(|delta| (delta, note)))
    }

    /// Known to this process at once; written down with the next claim of an output or step, which waits for the disk anyway.
    pub(crate) fn put_claim_of_path(&self, path: &StorePath, delta: DeltaId, note: &str) -> Result<()> {
        let relative = store_path(path);
        if self.says(&relative, &format!("delta {delta}"), note)? {
            return Ok(());
        }
        let many = {
            let mut later = self.store_paths.lock().unwrap_or_else(PoisonError::into_inner);
            later.insert(relative, (delta, note.to_owned()));
            later.len() > MOST_LATER
        };
        if many { self.put_claims(&[]) } else { Ok(()) }
    }

    fn read_claim(&self, relative: &str) -> Result<Option<Claim>> {
        let result = self.read_result(relative)?;
        Ok(result.and_then(|result| {
            let (kind, digest) = result.split_once(' ')?;
            match kind {
                "blob" => Some(Claim::Blob(digest.parse().ok()?)),
                "delta" => Some(Claim::Delta(digest.parse().ok()?)),
                _ => None,
            }
        }))
    }

    /// The first line of a claim, if what it names is here.
    fn read_result(&self, relative: &str) -> Result<Option<String>> {
        let Some(bytes) = self.read_if_there(relative)? else { return Ok(None) };
        let Some(result) = result_of(&bytes).filter(|result| self.has(*result)) else { return Ok(None) };
        self.touch_file(relative);
        Ok(Some(match result {
            Use::Blob(id) => format!("blob {id}"),
            Use::Delta(id) => format!("delta {id}"),
            Use::Formation(id) => format!("formation {id}"),
            Use::Tree(id) => format!("tree {id}"),
        }))
    }

    /// Notes that something is used now: what was used of late may be kept.
    pub(super) fn touch_file(&self, relative: &str) {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        let _ = rustix::fs::utimensat(&self.directory, relative, &times, AtFlags::SYMLINK_NOFOLLOW);
    }

    /// The paths of all claims.
    pub(super) fn claim_paths(&self) -> Result<Vec<String>> {
        let mut paths = Vec::new();
        for kind in self.names_in("claims")? {
            for start in self.names_in(&format!("claims/{kind}"))? {
                let names = self.names_in(&format!("claims/{kind}/{start}"))?;
                paths.extend(names.into_iter().map(|rest| format!("claims/{kind}/{start}/{rest}")));
            }
        }
        Ok(paths)
    }

    /// Whether a claim says this already.
    fn says(&self, relative: &str, result: &str, about: &str) -> Result<bool> {
        let text = format!("{result}\n{about}\n");
        Ok(self.read_if_there(relative)?.is_some_and(|bytes| bytes == text.as_bytes()))
    }

    /// For what is quickly done again: the disk may have it later.
    fn write_result(&self, relative: &str, result: &str, about: &str) -> Result<()> {
        if self.says(relative, result, about)? {
            return Ok(());
        }
        self.sync()?;
        self.write_synced(relative, result, about)
    }

    /// Writes a claim, if what it names is on the disk.
    fn write_synced(&self, relative: &str, result: &str, about: &str) -> Result<()> {
        let text = format!("{result}\n{about}\n");
        let mut temporary = self.temporary()?;
        // What it names is on the disk by now; a claim that a crash of the machine loses or leaves empty is none, and what it spared
        // is done again.
        temporary.write(text.as_bytes())?;
        // In the room: a collection that deletes what the claim said before must not delete what it says now.
        self.with_room(|| temporary.place(relative))
    }
}

/// What a claim says, if it can be read.
pub(super) fn result_of(text: &[u8]) -> Option<Use> {
    let line = text.split(|byte| *byte == b'\n').next().and_then(|line| std::str::from_utf8(line).ok())?;
    let (kind, digest) = line.split_once(' ')?;
    match kind {
        "blob" => digest.parse().ok().map(Use::Blob),
        "delta" => digest.parse().ok().map(Use::Delta),
        "formation" => digest.parse().ok().map(Use::Formation),
        "tree" => digest.parse().ok().map(Use::Tree),
        _ => None,
    }
}

fn named(claim: &Claim) -> String {
    match claim {
        Claim::Blob(id) => format!("blob {id}"),
        Claim::Delta(id) => format!("delta {id}"),
    }
}

fn claim_path(kind: &str, key: &[u8; 32]) -> String {
    super::object_path(&format!("claims/{kind}"), &crate::digest::to_hex(key))
}

pub(super) fn file_path(file: &Metadata) -> String {
    let changed = [file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()];
    let mut description = Vec::new();
    for number in [file.dev(), file.ino(), file.len()] {
        description.extend(number.to_le_bytes());
    }
    description.extend(changed.iter().flat_map(|number| number.to_le_bytes()));
    claim_path("files", &blake3::derive_key(CONTEXT, &description))
}

fn output_path(derivation: &StorePath, output: &str) -> String {
    claim_path("outputs", &blake3::derive_key(CONTEXT, format!("{derivation}!{output}").as_bytes()))
}

fn store_path(path: &StorePath) -> String {
    digits_path(crate::nix::info::hash_part(path))
}

/// No two paths have the same digits: they are the hash of what is below, and of the name.
fn digits_path(digits: &str) -> String {
    claim_path("paths", &blake3::derive_key(CONTEXT, format!("store path {digits}").as_bytes()))
}

fn sum_path(kind: &'static str, deltas: &[DeltaId]) -> String {
    let ids: Vec<u8> = deltas.iter().flat_map(|id| *id.as_bytes()).collect();
    claim_path(kind, &blake3::derive_key(CONTEXT, &ids))
}

#[cfg(test)]
mod tests {
    use super::super::testing::world;
    use super::*;
    use crate::Delta;

    #[test]
    fn a_claim_is_remembered_until_its_result_goes() {
        let world = world();
        let store = &world.store;
        let blob = store.put_blob(b"x", false).unwrap();
        let delta = store.put_delta(&Delta::whole(world.tree(0o755, []))).unwrap();
        let derivation = StorePath::parse(&format!("/nix/store/{}-a.drv", "0".repeat(32))).unwrap();
        let key = StepKey::of(b"key");
        assert_eq!(store.claim_of_step(&key).unwrap(), None);
        store.put_claim_of_step(&key, &Claim::Blob(blob)).unwrap();
        store.put_claim_of_output(&derivation, "out", &Claim::Delta(delta)).unwrap();
        assert_eq!(store.claim_of_step(&key).unwrap(), Some(Claim::Blob(blob)));
        assert_eq!(store.claim_of_output(&derivation, "out").unwrap(), Some(Claim::Delta(delta)));
        assert_eq!(store.claim_of_output(&derivation, "lib").unwrap(), None);
        store.put_claim_of_step(&key, &Claim::Delta(delta)).unwrap();
        assert_eq!(store.claim_of_step(&key).unwrap(), Some(Claim::Delta(delta)));
        std::fs::remove_dir_all(store.path().join("deltas")).unwrap();
        assert_eq!(store.claim_of_step(&key).unwrap(), None);
    }

    #[test]
    fn a_claim_that_cannot_be_read_is_none() {
        let world = world();
        let key = StepKey::of(b"key");
        world.store.put_claim_of_step(&key, &Claim::Blob(world.store.put_blob(b"x", false).unwrap())).unwrap();
        let path = world.store.full(&claim_path("steps", key.as_bytes()));
        for content in [&b""[..], b"blob", b"blob xyz", b"delta ../../x\n", b"what 00\n", b"\xff\xff"] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(world.store.claim_of_step(&key).unwrap(), None);
        }
    }
}
