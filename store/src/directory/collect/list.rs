//! What is not needed: everything in the store's directories that is not marked.

use rayon::prelude::*;
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::super::lease::Use;
use super::super::{Ownership, Store, failed, objects};
use super::mark::Marked;
use crate::digest::from_hex;
use crate::{BlobId, DeltaId, FormationId, Result, TreeId};

/// Something to be deleted.
#[derive(Debug)]
pub(super) enum Dead {
    /// A claim, and what it says.
    Claim { relative: String, text: Vec<u8>, result: Option<Use> },
    /// What is known of a formation.
    Record(FormationId),
    /// A tree laid out on disk, by its owners.
    Checkout(&'static str, TreeId),
    /// An object; of a blob, the inode with mode 0755 or the one with 0644.
    Object(Use, bool),
}

/// Everything to be deleted: what refers to something before that.
#[derive(Debug, Default)]
pub(super) struct AllDead(Vec<Dead>);

impl AllDead {
    pub fn slices(&self, length: usize) -> impl Iterator<Item = &[Dead]> {
        self.0.chunks(length)
    }

    pub fn all(&self) -> &[Dead] {
        &self.0
    }

    /// Takes out what has been marked since.
    pub fn retain(&mut self, marked: &Marked) {
        self.0.retain(|dead| !dead.is_kept(&|one| marked.has(one), &|id| marked.checkouts.contains(&id)));
    }

    /// Everything that says, by being there, that something else is.
    pub fn given_up(&self) -> Vec<Use> {
        let objects = self.0.iter().filter_map(|dead| match dead {
            Dead::Object(one @ (Use::Tree(_) | Use::Delta(_) | Use::Formation(_)), _) => Some(*one),
            _ => None,
        });
        objects.collect()
    }
}

impl Dead {
    /// Whether something that is used keeps it.
    pub fn is_kept(&self, used: &dyn Fn(Use) -> bool, checked_out: &dyn Fn(TreeId) -> bool) -> bool {
        match self {
            Self::Claim { result, .. } => result.is_some_and(used),
            Self::Record(id) => used(Use::Formation(*id)),
            Self::Checkout(_, id) => checked_out(*id),
            Self::Object(one, _) => used(*one),
        }
    }

    pub fn relative(&self) -> String {
        match self {
            Self::Claim { relative, .. } => relative.clone(),
            Self::Record(id) => format!("records/{id}.json"),
            Self::Checkout(ownership, id) => format!("checkouts/{ownership}/{id}"),
            Self::Object(one, program) => objects::use_path(*one, *program),
        }
    }
}

impl Store {
    /// Everything that is not marked. Claims whose result is not marked are listed even if it is not listed itself: it is gone.
    pub(super) fn list_dead(&self, marked: &Marked) -> Result<AllDead> {
        let mut dead = Vec::new();
        for kind in self.names_in("claims")? {
            dead.extend(self.list_objects(&format!("claims/{kind}"), &|relative, _| {
                let Some(text) = self.read_if_there(&relative)? else { return Ok(None) };
                let result = super::super::claims::result_of(&text);
                let kept = result.is_some_and(|one| marked.has(one));
                Ok((!kept).then_some(Dead::Claim { relative, text, result }))
            })?);
        }
        let object = |kind: fn([u8; 32]) -> Use| {
            move |_, id: &str| {
                let (digits, program) = id.strip_suffix(".x").map_or((id, false), |digits| (digits, true));
                // What has another name is nothing of ours.
                let digest = from_hex(digits).and_then(|bytes| bytes.try_into().ok());
                let one = digest.map(kind).filter(|one| !marked.has(*one));
                Ok(one.map(|one| Dead::Object(one, program)))
            }
        };
        let formation = |digest| Use::Formation(FormationId::from_bytes(digest));
        dead.extend(self.list_objects("formations", &object(formation))?);
        for name in self.names_in("records")? {
            let id = name.strip_suffix(".json").and_then(|id| id.parse().ok());
            dead.extend(id.filter(|id| !marked.formations.contains(id)).map(Dead::Record));
        }
        for (_, ownership) in Ownership::ALL {
            for name in self.names_in(&format!("checkouts/{ownership}"))? {
                let id = name.parse().ok().filter(|id| !marked.checkouts.contains(id));
                dead.extend(id.map(|id| Dead::Checkout(ownership, id)));
            }
        }
        dead.extend(self.list_objects("deltas", &object(|digest| Use::Delta(DeltaId::from_bytes(digest))))?);
        dead.extend(self.list_objects("trees", &object(|digest| Use::Tree(TreeId::from_bytes(digest))))?);
        dead.extend(self.list_objects("blobs", &object(|digest| Use::Blob(BlobId::from_bytes(digest))))?);
        Ok(AllDead(dead))
    }

    /// What `list` makes of the files of a kind, given path and digest.
    fn list_objects<T: Send>(
        &self,
        kind: &str,
        list: &(dyn Fn(String, &str) -> Result<Option<T>> + Sync),
    ) -> Result<Vec<T>> {
        let starts = self.names_in(kind)?;
        let list = |start: &String| {
            let mut found = Vec::new();
            for rest in self.names_in(&format!("{kind}/{start}"))? {
                found.extend(list(format!("{kind}/{start}/{rest}"), &format!("{start}{rest}"))?);
            }
            Ok(found)
        };
        let found: Vec<Vec<T>> = starts.par_iter().map(list).collect::<Result<_>>()?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Deletes the inodes of checkouts that no checkout links to; gives their bytes. Who was about to link to one makes it again.
    pub(super) fn sweep_inodes(&self, dry_run: bool) -> Result<u64> {
        let sweep = |relative: String, _: &str| {
            let stat = match rustix::fs::statat(&self.directory, &relative, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(failed("look at", self.full(&relative))(errno)),
            };
            if stat.st_nlink != 1 {
                return Ok(None);
            }
            if !dry_run {
                self.unlink(&relative)?;
            }
            Ok(Some(stat.st_size.unsigned_abs()))
        };
        Ok(self.list_objects("checkouts/inodes", &sweep)?.into_iter().sum())
    }

    /// Removes a file that may be gone already.
    pub(in super::super) fn unlink(&self, relative: &str) -> Result<()> {
        match rustix::fs::unlinkat(&self.directory, relative, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed("remove", self.full(relative))(errno)),
        }
    }
}
