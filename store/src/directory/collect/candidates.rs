//! What is kept though nothing needs it: formations of artifacts that are run in place, and what was used of late.

use std::time::{Duration, SystemTime};

use rustix::fs::AtFlags;

use super::super::lease::Use;
use super::super::{Store, claims, objects};
use super::Keep;
use super::mark::{Marked, Whole};
use crate::{BlobId, FormationId, Result};

/// A formation that was read from a file, which is still as it was, stays that long after it was last run.
const IN_PLACE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl Store {
    pub(super) fn mark_candidates(&self, marked: &mut Marked, keep: &Keep) -> Result<()> {
        self.mark_files(marked)?;
        if keep.since.is_none() && keep.bytes.is_none() {
            return Ok(());
        }
        let mut candidates: Vec<(SystemTime, Use)> = Vec::new();
        for id in self.formations()? {
            if let Some(time) = self.used(&objects::use_path(Use::Formation(id), false)) {
                candidates.push((time, Use::Formation(id)));
            }
        }
        for relative in self.claim_paths()? {
            let result = self.read_if_there(&relative)?.and_then(|text| claims::result_of(&text));
            if let (Some(result), Some(time)) = (result, self.used(&relative)) {
                candidates.push((time, result));
            }
        }
        candidates.retain(|(time, _)| keep.since.is_none_or(|since| *time >= since));
        candidates.sort_unstable_by(|one, other| other.cmp(one));
        let mut room = keep.bytes.map(|bytes| bytes.saturating_sub(self.weight_of_marked(marked)));
        for (_, one) in candidates {
            if marked.has(one) {
                continue;
            }
            let mut with = Marked::beside(marked);
            with.uses(self, [one])?;
            if let Some(room) = &mut room {
                let weight = self.weight_of_marked(&with);
                // What was used longer ago does not stay instead of what was used later.
                let Some(rest) = room.checked_sub(weight) else { break };
                *room = rest;
            }
            let added = with.only();
            marked.extend(added);
        }
        Ok(())
    }

    /// The formations of artifacts that lie where they were run from, unchanged.
    fn mark_files(&self, marked: &mut Marked) -> Result<()> {
        for start in self.names_in("claims/files")? {
            for rest in self.names_in(&format!("claims/files/{start}"))? {
                let relative = format!("claims/files/{start}/{rest}");
                let recent = self.used(&relative).is_some_and(|time| time.elapsed().is_ok_and(|age| age < IN_PLACE));
                let Some(text) = self.read_if_there(&relative)?.filter(|_| recent) else { continue };
                let Some(Use::Formation(id)) = claims::result_of(&text) else { continue };
                let path = String::from_utf8_lossy(&text).lines().nth(1).map(std::path::PathBuf::from);
                let unchanged = path
                    .and_then(|path| path.metadata().ok())
                    .is_some_and(|found| found.is_file() && claims::file_path(&found) == relative);
                if unchanged && !marked.formations.contains(&id) {
                    marked.formation(self, id, Whole::May)?;
                }
            }
        }
        Ok(())
    }

    /// When this was made or last used.
    fn used(&self, relative: &str) -> Option<SystemTime> {
        let stat = rustix::fs::statat(&self.directory, relative, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let time = Duration::new(u64::try_from(stat.st_mtime).ok()?, u32::try_from(stat.st_mtime_nsec).ok()?);
        SystemTime::UNIX_EPOCH.checked_add(time)
    }

    /// Notes that a formation is used now, for [`Keep`].
    pub(in super::super) fn touch(&self, id: FormationId) {
        self.touch_file(&objects::use_path(Use::Formation(id), false));
    }

    fn weight_of_marked(&self, marked: &Marked) -> u64 {
        use rayon::prelude::*;
        let file = |one: Use, program| self.size_of(&objects::use_path(one, program)).ok().flatten();
        let size = |one: Use| file(one, false).or_else(|| self.packed_size(one).ok().flatten()).unwrap_or(0);
        let blob = |id: &BlobId| size(Use::Blob(*id)) + file(Use::Blob(*id), true).unwrap_or(0);
        let blobs: u64 = marked.blobs.par_iter().map(blob).sum();
        let trees: u64 = marked.trees.par_iter().map(|id| size(Use::Tree(*id))).sum();
        blobs + trees
    }
}
