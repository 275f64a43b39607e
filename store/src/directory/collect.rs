//! Deleting what nothing needs any more.
//!
//! Kept is what a root names: its formation, the record, the merged root and the deltas that the record lists, all below
//! them, and the checkouts of the root; likewise what a [`Lease`] holds. Claims keep nothing: those whose result goes, go.
//!
//! Whoever has the store open holds a shared lock on `DIR/format`, and collection takes it exclusively: nobody is putting
//! anything meanwhile. What refers is deleted before what it refers to, so that a crash half-way leaves a valid store.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::place::remove_all;
use super::scratch::Locked;
use super::{Store, failed};
use crate::{BlobId, DeltaId, Error, Node, Result, TreeId};

/// Keeps trees and their checkouts from being collected, without keeping the store open.
#[derive(Debug)]
pub struct Lease {
    locked: Locked,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.locked.remove();
    }
}

/// What a collection deleted, or would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Collected {
    /// Formations without a name.
    pub formations: u64,
    /// Trees laid out on disk.
    pub checkouts: u64,
    /// Deltas and trees.
    pub trees: u64,
    /// Blobs.
    pub blobs: u64,
    /// Claims whose result is gone.
    pub claims: u64,
    /// Bytes of blobs, trees and inodes of their own; what a directory takes is not counted.
    pub bytes: u64,
}

/// What is needed.
#[derive(Default)]
struct Marked {
    formations: HashSet<String>,
    checkouts: HashSet<TreeId>,
    deltas: HashSet<DeltaId>,
    trees: HashSet<TreeId>,
    blobs: HashSet<BlobId>,
}

impl Store {
    /// Keeps these trees and their checkouts as long as the lease lives, also when this store is closed before: a run that
    /// may take weeks holds what it runs on, and lets others collect the rest.
    pub fn hold(&self, trees: &[TreeId]) -> Result<Lease> {
        let mut locked = Locked::new(&self.path.join("leases"))?;
        let lines: String = trees.iter().map(|id| format!("{id}\n")).collect();
        locked.write(lines.as_bytes())?;
        Ok(Lease { locked })
    }

    /// Deletes what nothing needs any more, or says what that would be. Fails with [`Error::Busy`] while other processes have
    /// the store open; no other thread of this one may be using it.
    pub fn collect(&self, dry_run: bool) -> Result<Collected> {
        if dry_run {
            return self.sweep(&self.mark()?, true);
        }
        if let Err(errno) = rustix::fs::flock(&self.lease, FlockOperation::NonBlockingLockExclusive) {
            // A failed upgrade may have lost the lock that there was (flock(2)).
            rustix::fs::flock(&self.lease, FlockOperation::LockShared).map_err(failed("lock", self.full("format")))?;
            return match errno {
                Errno::WOULDBLOCK => Err(Error::Busy { processes: self.users()? }),
                errno => Err(failed("lock", self.full("format"))(errno)),
            };
        }
        let collected = self.remove_dead_scratch().and_then(|()| self.sweep(&self.mark()?, false));
        rustix::fs::flock(&self.lease, FlockOperation::LockShared).map_err(failed("lock", self.full("format")))?;
        collected
    }

    /// The processes that have the store open, as far as `/proc/locks` shows them.
    fn users(&self) -> Result<Vec<u32>> {
        let inode = rustix::fs::fstat(&self.lease).map_err(failed("look at", self.full("format")))?.st_ino;
        let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
        // `1: FLOCK  ADVISORY  READ 1234 fd:01:5678 0 EOF`; proc_locks(5).
        let holder = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let here = words.get(5)?.rsplit(':').next()? == inode.to_string();
            let process = here.then(|| words[4].parse().ok()).flatten()?;
            (process != rustix::process::getpid().as_raw_nonzero().get() as u32).then_some(process)
        };
        let mut users: Vec<u32> = locks.lines().filter_map(holder).collect();
        users.sort_unstable();
        users.dedup();
        Ok(users)
    }

    fn mark(&self) -> Result<Marked> {
        let mut marked = Marked::default();
        let mut trees = self.held()?;
        marked.checkouts.extend(&trees);
        for id in self.roots()?.into_values() {
            let formation = match self.formation(id) {
                // A name without its formation keeps nothing.
                Err(Error::NotFound { .. }) => continue,
                formation => formation?,
            };
            marked.formations.insert(id.to_string());
            marked.checkouts.insert(formation.root);
            trees.push(formation.root);
            for layer in self.record(id)?.layers {
                // A record is not part of the identity: what it lists may be gone, or never have been here.
                let Ok(delta_id) = layer.delta.parse::<DeltaId>() else { continue };
                match self.delta(delta_id) {
                    Err(Error::NotFound { .. }) => {}
                    delta => {
                        trees.push(delta?.tree);
                        marked.deltas.insert(delta_id);
                    }
                }
            }
        }
        trees.retain(|id| marked.trees.insert(*id));
        while !trees.is_empty() {
            // What cannot be read is not known to be unneeded: the error ends the collection before anything is deleted.
            let read: Vec<_> = trees.par_iter().map(|id| self.tree(*id)).collect::<Result<_>>()?;
            trees.clear();
            for node in read.iter().flat_map(|tree| tree.entries.values()) {
                match node {
                    Node::File(file) => _ = marked.blobs.insert(file.blob),
                    Node::Directory(id) if marked.trees.insert(*id) => trees.push(*id),
                    _ => {}
                }
            }
        }
        Ok(marked)
    }

    /// The trees that living leases hold. Those of dead processes are removed.
    fn held(&self) -> Result<Vec<TreeId>> {
        let mut trees = Vec::new();
        for name in self.names_in("leases")? {
            let relative = format!("leases/{name}");
            let Some(text) = self.read_if_there(&relative)? else { continue };
            let path = self.full(&relative);
            let file: OwnedFd = match rustix::fs::openat(CWD, &path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
                Ok(file) => file,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(failed("open", path)(errno)),
            };
            if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                std::fs::remove_file(&path).map_err(Error::file("remove", &path))?;
                continue;
            }
            trees.extend(String::from_utf8_lossy(&text).lines().filter_map(|line| line.parse::<TreeId>().ok()));
        }
        Ok(trees)
    }

    fn sweep(&self, marked: &Marked, dry_run: bool) -> Result<Collected> {
        let sweep = Sweep { store: self, dry_run };
        let mut collected = Collected::default();
        for kind in self.names_in("claims")? {
            let gone = |relative: &str, _: &str| {
                let text = self.read_if_there(relative)?.unwrap_or_default();
                let text = String::from_utf8_lossy(&text);
                let kept = match text.lines().next().and_then(|line| line.split_once(' ')) {
                    Some(("blob", id)) => id.parse().is_ok_and(|id| marked.blobs.contains(&id)),
                    Some(("delta", id)) => id.parse().is_ok_and(|id| marked.deltas.contains(&id)),
                    Some(("formation", id)) => marked.formations.contains(id),
                    Some(("tree", id)) => id.parse().is_ok_and(|id| marked.trees.contains(&id)),
                    _ => false,
                };
                Ok(!kept)
            };
            collected.claims += sweep.objects(&format!("claims/{kind}"), &gone)?.0;
        }
        collected.formations = sweep.objects("formations", &|_, id| Ok(!marked.formations.contains(id)))?.0;
        for name in self.names_in("records")? {
            if name.strip_suffix(".json").is_none_or(|id| !marked.formations.contains(id)) {
                sweep.remove(&format!("records/{name}"))?;
            }
        }
        for ownership in ["caller", "exact"] {
            for name in self.names_in(&format!("checkouts/{ownership}"))? {
                if !name.parse().is_ok_and(|id| marked.checkouts.contains(&id)) {
                    collected.checkouts += 1;
                    sweep.remove_checkout(&format!("checkouts/{ownership}/{name}"))?;
                }
            }
        }
        // Directories that `--keep-failed` left: they have no lock.
        let scratch = self.names_in("scratch")?;
        for name in scratch.iter().filter(|name| !name.ends_with(".lock")) {
            if !scratch.contains(&format!("{name}.lock")) && !dry_run {
                remove_all(&self.full(&format!("scratch/{name}")))?;
            }
        }
        if !dry_run {
            crate::format::squashfs::forget_lost(self)?;
        }
        let unlinked = |relative: &str, _: &str| Ok(self.links(relative)? == 1);
        collected.bytes += sweep.objects("checkouts/inodes", &unlinked)?.1;
        let gone_delta = |_: &str, id: &str| Ok(!id.parse().is_ok_and(|id| marked.deltas.contains(&id)));
        let gone_tree = |_: &str, id: &str| Ok(!id.parse().is_ok_and(|id| marked.trees.contains(&id)));
        let gone_blob =
            |_: &str, id: &str| Ok(!id.trim_end_matches(".x").parse().is_ok_and(|id| marked.blobs.contains(&id)));
        let (deltas, delta_bytes) = sweep.objects("deltas", &gone_delta)?;
        let (trees, tree_bytes) = sweep.objects("trees", &gone_tree)?;
        let (blobs, blob_bytes) = sweep.objects("blobs", &gone_blob)?;
        collected.trees = deltas + trees;
        collected.blobs = blobs;
        collected.bytes += delta_bytes + tree_bytes + blob_bytes;
        Ok(collected)
    }

    fn links(&self, relative: &str) -> Result<u64> {
        let stat = rustix::fs::statat(&self.directory, relative, AtFlags::SYMLINK_NOFOLLOW);
        Ok(stat.map_err(failed("look at", self.full(relative)))?.st_nlink as u64)
    }
}

struct Sweep<'a> {
    store: &'a Store,
    dry_run: bool,
}

impl Sweep<'_> {
    /// Removes the objects of a kind that `is_gone`, given their path and digest; gives their number and bytes.
    fn objects(&self, kind: &str, is_gone: &(dyn Fn(&str, &str) -> Result<bool> + Sync)) -> Result<(u64, u64)> {
        let starts = self.store.names_in(kind)?;
        let sweep = |start: &String| {
            let (mut count, mut bytes) = (0, 0);
            for rest in self.store.names_in(&format!("{kind}/{start}"))? {
                let relative = format!("{kind}/{start}/{rest}");
                if is_gone(&relative, &format!("{start}{rest}"))? {
                    count += 1;
                    bytes += self.store.size_of(&relative)?.unwrap_or(0);
                    self.remove(&relative)?;
                }
            }
            Ok((count, bytes))
        };
        let counted: Vec<(u64, u64)> = starts.par_iter().map(sweep).collect::<Result<_>>()?;
        Ok(counted.iter().fold((0, 0), |sum, next| (sum.0 + next.0, sum.1 + next.1)))
    }

    fn remove(&self, relative: &str) -> Result<()> {
        if self.dry_run {
            return Ok(());
        }
        match rustix::fs::unlinkat(&self.store.directory, relative, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed("remove", self.store.full(relative))(errno)),
        }
    }

    /// Renames a checkout away before it is taken apart: that it is there says that it is whole.
    fn remove_checkout(&self, relative: &str) -> Result<()> {
        if self.dry_run {
            return Ok(());
        }
        let away = self.store.temporary_path()?;
        let path: PathBuf = self.store.full(&away);
        self.store.rename(relative, &away).map_err(failed("move", self.store.full(relative)))?;
        remove_all(&path)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, world};
    use super::super::{Claim, LayerRecord, Ownership, Record};
    use super::*;
    use crate::digest::StepKey;
    use crate::{Delta, Formation, FormationId, Launch};

    fn formation(world: &World, content: &str) -> (FormationId, TreeId, DeltaId) {
        let below = world.tree(0o755, [("file", world.file(content, 0o644)), ("own", world.file(content, 0o600))]);
        let root = world.tree(0o755, [("directory", Node::Directory(below))]);
        let delta = world.store.put_delta(&Delta::whole(root)).unwrap();
        let (name, platform) = (content.to_owned(), "linux/amd64".to_owned());
        let (version, variant) = (String::new(), String::new());
        let formation = Formation { name, version, variant, platform, root, launch: Launch::default() };
        let layer = LayerRecord { label: "layer".to_owned(), delta: delta.to_string(), size: 1, files: 1 };
        let record = Record { layers: vec![layer], ..Record::default() };
        (world.store.put_formation(&formation, &record).unwrap(), root, delta)
    }

    #[test]
    fn collection_keeps_what_a_root_names_and_nothing_else() {
        let world = world();
        let ((kept, kept_root, kept_delta), (gone, gone_root, gone_delta)) =
            (formation(&world, "kept"), formation(&world, "gone"));
        world.store.set_root("kept", kept).unwrap();
        let claims =
            [(b"a", kept_delta), (b"b", gone_delta)].map(|(key, delta)| (StepKey::of(key), Claim::Delta(delta)));
        for (key, claim) in &claims {
            world.store.put_claim_of_step(key, claim).unwrap();
        }
        let checkouts = [kept_root, gone_root].map(|id| world.store.checkout(id, Ownership::Caller).unwrap());

        let planned = world.store.collect(true).unwrap();
        assert!(checkouts[1].exists() && world.store.formation(gone).is_ok());
        let collected = world.store.collect(false).unwrap();
        assert_eq!(Collected { bytes: 0, ..planned }, Collected { bytes: 0, ..collected });
        let expected = Collected { formations: 1, checkouts: 1, trees: 3, blobs: 1, claims: 1, bytes: 0 };
        assert_eq!(Collected { bytes: 0, ..collected }, expected);

        assert!(checkouts[0].join("directory/own").exists() && !checkouts[1].exists());
        assert_eq!(world.store.formations().unwrap(), [kept]);
        assert_eq!(world.store.claim_of_step(&claims[0].0).unwrap(), Some(claims[0].1.clone()));
        assert_eq!(world.store.claim_of_step(&claims[1].0).unwrap(), None);
        assert_eq!(world.store.merge(&[kept_delta]).unwrap(), kept_root);
        assert!(world.store.verify().unwrap().is_empty());
        assert_eq!(world.store.collect(false).unwrap(), Collected::default());
    }

    #[test]
    fn a_lease_holds_while_others_are_refused_only_by_an_open_store() {
        let world = world();
        let (_, root, _) = formation(&world, "running");
        let checkout = world.store.checkout(root, Ownership::Caller).unwrap();
        let other = Store::open(world.store.path()).unwrap();
        let lease = other.hold(&[root]).unwrap();
        assert!(matches!(world.store.collect(false), Err(Error::Busy { .. })));
        drop(other);
        world.store.collect(false).unwrap();
        assert!(checkout.join("directory/file").exists());
        assert_eq!(world.store.extent(root).unwrap().files, 2);
        drop(lease);
        world.store.collect(false).unwrap();
        assert!(!checkout.exists() && !world.store.has_tree(root));
    }

    #[test]
    fn nothing_is_deleted_when_something_needed_cannot_be_read() {
        let world = world();
        let (kept, root, _) = formation(&world, "kept");
        formation(&world, "gone");
        world.store.set_root("kept", kept).unwrap();
        let path = world.store.full(&super::super::object_path("trees", &root.to_string()));
        std::fs::write(&path, "damaged").unwrap();
        let store = Store::open(world.store.path()).unwrap();
        let World { store: first, _directory } = world;
        drop(first);
        assert!(matches!(store.collect(false), Err(Error::Mismatch { .. })));
        assert_eq!(store.formations().unwrap().len(), 2);
        let damaged = store.verify().unwrap();
        assert_eq!(damaged.iter().map(|damage| &damage.path).collect::<Vec<_>>(), [&path]);
    }
}
