//! Deleting what nothing needs any more, while others work.
//!
//! Kept is what a name or a pin stands for: its formation, the record, the merged root and the deltas that the record lists, all
//! below them, and the checkouts of the root; likewise what a running process uses ([`super::lease`]). Claims keep nothing: those
//! whose result goes, go. With [`Keep`], what was used of late stays too.
//!
//! Nobody is kept out while it is marked and listed. Then, in the room, what was noted meanwhile is added and the rest is given
//! up at once ([`super::doomed`]); and it is deleted slice by slice, each in the room with the latest notes read. A kill at any
//! point leaves a valid store. The protocol, and why it holds, is in `docs/why/collection.md`.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rayon::prelude::*;
use rustix::io::Errno;

use super::lease::{Room, Use};
use super::place::remove_all;
use super::{Store, failed};
use crate::{FormationId, Result};

mod candidates;
mod list;
mod mark;
mod packs;

use list::Dead;
use mark::{Marked, Whole};

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

/// What is kept beside what is needed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Keep {
    /// Formations that were used, and steps that were made, since then; and no others.
    pub since: Option<SystemTime>,
    /// The latest used, as many as the store has room for in so many bytes of objects.
    pub bytes: Option<u64>,
}

/// How much is deleted in one go while all others wait.
const SLICE: usize = 2048;
/// How long others have the room between two slices.
const PAUSE: Duration = Duration::from_millis(1);

impl Store {
    /// Deletes what nothing needs any more, or says what that would be; others go on meanwhile.
    ///
    /// What only this store noted (not another, of this process or another) is not held: whoever collects knows. No other
    /// thread may be using this one.
    pub fn collect(&self, dry_run: bool) -> Result<Collected> {
        self.collect_but(&Keep::default(), dry_run)
    }

    /// The same, but keeps what was used of late.
    pub fn collect_but(&self, keep: &Keep, dry_run: bool) -> Result<Collected> {
        self.forget_notes();
        if dry_run {
            let mut marked = Marked::default();
            self.mark_roots(&mut marked)?;
            // Without the room a lease may be missed; nothing is deleted for that.
            marked.uses(self, self.read_leases(&mut HashMap::new())?)?;
            self.mark_candidates(&mut marked, keep)?;
            let dead = self.list_dead(&marked)?;
            let packed = self.sort_packs(&marked)?;
            let sweep = Sweep { store: self, dry_run, noted: &HashSet::new(), moved: Mutex::default() };
            let mut collected = sweep.all(dead.all())?;
            collected.bytes += self.sweep_inodes(dry_run)?;
            return Ok(packed.iter().flatten().fold(collected, |sum, pack| sum + pack.collected()));
        }
        let room = Room::of(self)?;
        let collected = self.collect_in(&room, keep);
        room.open();
        collected
    }

    fn collect_in(&self, room: &Room, keep: &Keep) -> Result<Collected> {
        self.remove_dead_scratch()?;
        // From here on no lease goes: the gate is there.
        self.remove_dead_leases()?;
        let mut read = HashMap::new();
        let mut marked = Marked::default();
        self.mark_roots(&mut marked)?;
        let taken = room.take(self)?;
        let mut uses = self.read_leases(&mut read)?;
        drop(taken);
        marked.uses(self, uses.drain(..))?;
        self.mark_candidates(&mut marked, keep)?;
        let mut dead = self.list_dead(&marked)?;
        let mut packed = self.sort_packs(&marked)?;

        // Now for good: leases before names, for who names something notes it first.
        let taken = room.take(self)?;
        marked.uses(self, self.read_leases(&mut read)?)?;
        self.mark_roots(&mut marked)?;
        dead.retain(&marked);
        packed.iter_mut().flatten().for_each(|pack| pack.retain(&marked));
        let mut given_up = dead.given_up();
        given_up.extend(packed.iter().flatten().flat_map(|pack| pack.dead()));
        given_up.retain(|one| !matches!(one, Use::Blob(_)));
        let mut noted: HashSet<Use> = self.still_doomed(|one| marked.has(one))?.into_iter().collect();
        given_up.extend(&noted);
        if given_up.is_empty() {
            self.end_doom()?;
        } else {
            self.doom(given_up.clone())?;
        }
        drop(taken);

        let mut collected = Collected::default();
        for slice in dead.slices(SLICE) {
            let taken = room.take(self)?;
            noted.extend(self.read_leases(&mut read)?);
            let sweep = Sweep { store: self, dry_run: false, noted: &noted, moved: Mutex::default() };
            collected = collected + sweep.all(slice)?;
            drop(taken);
            let moved = sweep.moved.into_inner().unwrap_or_else(PoisonError::into_inner);
            moved.par_iter().try_for_each(|path| remove_all(path))?;
            std::thread::sleep(PAUSE);
        }
        for group in packed {
            let mut noted = || {
                noted.extend(self.read_leases(&mut read)?);
                Ok(noted.clone())
            };
            collected = collected + self.sweep_packs(&group, room, &mut noted)?;
        }
        collected.bytes += self.sweep_inodes(false)?;
        self.remove_rests()?;
        // What is deleted must not come back after a crash without being given up any more.
        rustix::fs::syncfs(&self.directory).map_err(failed("sync", &self.path))?;
        let _taken = room.take(self)?;
        given_up.retain(|one| noted.contains(one));
        self.end_doom_but(given_up)?;
        self.remove_dead_leases()?;
        Ok(collected)
    }

    fn mark_roots(&self, marked: &mut Marked) -> Result<()> {
        let named: HashSet<FormationId> = self.roots()?.into_values().collect();
        for id in named.into_iter().chain(self.pins()?) {
            if !marked.is_whole(id) {
                marked.formation(self, id, Whole::Must)?;
            }
        }
        Ok(())
    }

    /// What no lock protects, and may go at any time.
    fn remove_rests(&self) -> Result<()> {
        // Directories that `--keep-failed` left: they have no lock. A living process's is made before the directory.
        for name in self.names_in("scratch")?.iter().filter(|name| !name.ends_with(".lock")) {
            if !self.is_there(&format!("scratch/{name}.lock")) {
                remove_all(&self.full(&format!("scratch/{name}")))?;
            }
        }
        // An index whose pack a crash kept from coming; should the pack come now, another index is made.
        for name in self.names_in("packs")?.iter().filter_map(|name| name.strip_suffix(".index")) {
            if !self.is_there(&format!("packs/{name}.pack")) {
                self.unlink(&format!("packs/{name}.index"))?;
            }
        }
        remove_all(&self.full("damaged"))?;
        self.forget_sources()?;
        self.forget_facts()?;
        crate::format::squashfs::forget_lost(self)
    }
}

impl std::ops::Add for Collected {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            formations: self.formations + other.formations,
            checkouts: self.checkouts + other.checkouts,
            trees: self.trees + other.trees,
            blobs: self.blobs + other.blobs,
            claims: self.claims + other.claims,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// One object of so many bytes, deleted.
fn count_of(object: Use, bytes: u64) -> Collected {
    match object {
        Use::Formation(_) => Collected { formations: 1, ..Collected::default() },
        Use::Delta(_) | Use::Tree(_) => Collected { trees: 1, bytes, ..Collected::default() },
        Use::Blob(_) => Collected { blobs: 1, bytes, ..Collected::default() },
    }
}

/// Deletes some of what is dead, but for what was noted since.
struct Sweep<'a> {
    store: &'a Store,
    dry_run: bool,
    noted: &'a HashSet<Use>,
    /// Checkouts that were moved away, and are still to be taken apart: that takes longer than others should wait.
    moved: Mutex<Vec<PathBuf>>,
}

impl Sweep<'_> {
    fn all(&self, dead: &[Dead]) -> Result<Collected> {
        let one = |dead: &Dead| self.one(dead);
        dead.par_iter().map(one).try_reduce(Collected::default, |one, other| Ok(one + other))
    }

    fn one(&self, dead: &Dead) -> Result<Collected> {
        let mut collected = Collected::default();
        let noted = |one| self.noted.contains(&one);
        if dead.is_kept(&noted, &|id| noted(Use::Tree(id))) {
            return Ok(collected);
        }
        let relative = dead.relative();
        match dead {
            Dead::Claim { text, .. } => {
                // It may say something else by now.
                if self.store.read_if_there(&relative)?.as_ref() != Some(text) {
                    return Ok(collected);
                }
                collected.claims = 1;
            }
            Dead::Record(_) => {}
            Dead::Checkout(..) => {
                collected.checkouts = 1;
                if !self.dry_run {
                    self.move_away(&relative)?;
                }
                return Ok(collected);
            }
            Dead::Object(one, _) => {
                let Some(bytes) = self.store.size_of(&relative)? else { return Ok(collected) };
                collected = count_of(*one, bytes);
            }
        }
        if !self.dry_run {
            self.store.unlink(&relative)?;
        }
        Ok(collected)
    }

    /// Renames a checkout away before it is taken apart: that it is there says that it is whole.
    fn move_away(&self, relative: &str) -> Result<()> {
        let away = self.store.temporary_path()?;
        match self.store.rename(relative, &away) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(failed("move", self.store.full(relative))(errno)),
        }
        self.moved.lock().unwrap_or_else(PoisonError::into_inner).push(self.store.full(&away));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, world};
    use super::super::{Claim, LayerRecord, Ownership, Record};
    use super::*;
    use crate::digest::StepKey;
    use crate::{Delta, DeltaId, Error, Formation, FormationId, Launch, Node, Tree, TreeId};

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
    fn what_was_noted_before_it_was_there_is_not_listed_once_it_is() {
        let world = world();
        let (formation, _, delta) = formation(&world, "late");
        let other = Store::open(world.store.path()).unwrap();
        // The order of a writer beside a collection: it notes, the note is read, it writes, what is dead is listed.
        let (mut marked, uses) = (Marked::default(), [Use::Formation(formation), Use::Delta(delta)]);
        let paths = uses.map(|one| other.full(&super::super::objects::use_path(one, false)));
        let away = paths.each_ref().map(|path| path.with_extension("away"));
        for (path, away) in paths.iter().zip(&away).filter(|(path, _)| path.exists()) {
            std::fs::rename(path, away).unwrap();
        }
        marked.uses(&other, uses).unwrap();
        for (path, away) in paths.iter().zip(&away).filter(|(_, away)| away.exists()) {
            std::fs::rename(away, path).unwrap();
        }
        let mut dead = other.list_dead(&marked).unwrap();
        dead.retain(&marked);
        assert!(!dead.given_up().contains(&uses[0]) && !dead.given_up().contains(&uses[1]));
        // A name that it gets meanwhile keeps all below it.
        world.store.set_root("late", formation).unwrap();
        other.mark_roots(&mut marked).unwrap();
        let mut dead = other.list_dead(&marked).unwrap();
        dead.retain(&marked);
        assert_eq!(dead.given_up(), []);
    }

    #[test]
    fn a_lease_holds_its_trees_and_checkouts_until_it_is_dropped() {
        let world = world();
        let (_, root, _) = formation(&world, "running");
        let checkout = world.store.checkout(root, Ownership::Caller).unwrap();
        let other = Store::open(world.store.path()).unwrap();
        let lease = other.hold(&[root]).unwrap();
        drop(other);
        world.store.collect(false).unwrap();
        assert!(checkout.join("directory/file").exists());
        assert_eq!(world.store.extent(root).unwrap().files, 2);
        drop(lease);
        world.store.collect(false).unwrap();
        assert!(!checkout.exists() && !world.store.has_tree(root));
    }

    #[test]
    fn what_another_process_put_found_or_looked_up_stays_until_it_ends() {
        let world = world();
        let (id, root, delta) = formation(&world, "here");
        let key = StepKey::of(b"key");
        let uses: [&dyn Fn(&Store); 5] = [
            &|other| assert!(other.formation(id).is_ok()),
            &|other| assert!(other.claim_of_step(&key).unwrap().is_some()),
            &|other| assert!(other.has_tree(root)),
            &|other| drop(other.checkout(root, Ownership::Caller).unwrap()),
            &|other| assert!(other.find(&id.to_string()).is_ok()),
        ];
        for one_use in uses {
            formation(&world, "here");
            world.store.put_claim_of_step(&key, &Claim::Delta(delta)).unwrap();
            let other = Store::open(world.store.path()).unwrap();
            one_use(&other);
            world.store.collect(false).unwrap();
            assert_eq!(world.store.extent(root).unwrap().files, 2);
        }
        // What is only put is held too, before anything refers to it.
        let other = Store::open(world.store.path()).unwrap();
        let blob = other.put_blob(b"only just put", false).unwrap();
        world.store.collect(false).unwrap();
        assert!(other.blob(blob).is_ok() && !world.store.has_tree(root));
        drop(other);
        world.store.collect(false).unwrap();
        assert!(!world.store.has_blob(blob));
    }

    #[test]
    fn what_is_given_up_counts_as_gone_until_it_is_put_again() {
        let world = world();
        let (id, root, delta) = formation(&world, "half");
        let key = StepKey::of(b"key");
        world.store.put_claim_of_step(&key, &Claim::Delta(delta)).unwrap();
        // A collection was killed after it had deleted a blob, and nothing else yet.
        world.store.doom(vec![Use::Tree(root), Use::Delta(delta), Use::Formation(id)]).unwrap();
        std::fs::remove_file(world.blob_path(crate::BlobId::of(b"half"), false)).unwrap();
        let other = Store::open(world.store.path()).unwrap();
        assert!(!other.has_tree(root) && !other.has_delta(delta) && other.claim_of_step(&key).unwrap().is_none());
        assert!(matches!(other.formation(id), Err(Error::NotFound { .. })));
        assert!(matches!(other.set_root("half", id), Err(Error::NotFound { .. })));
        // Who makes it again has it again, and so has everybody else.
        formation(&world, "half");
        other.set_root("half", id).unwrap();
        assert!(other.has_tree(root) && other.claim_of_step(&key).unwrap().is_some());
        drop(other);
        world.store.collect(false).unwrap();
        assert_eq!(world.store.extent(root).unwrap().files, 2);
        assert!(!world.store.path().join("gc/doomed").exists() && !world.store.path().join("gc/rescued").exists());
        assert!(world.store.verify().unwrap().is_empty());
    }

    /// Found by a thousand kills: others took a tree for whole while what lies below it waited in a batch, which was lost.
    #[test]
    fn what_is_put_again_in_a_batch_is_whole_for_others_when_all_below_it_is() {
        for names_it in [false, true] {
            let world = world();
            let (id, root, delta) = formation(&world, "batch");
            let (whole, told) = (world.store.formation(id).unwrap(), world.store.record(id).unwrap());
            let trees = |id| Tree::clone(&world.store.tree(id).unwrap());
            let Node::Directory(below) = trees(root).entries.into_values().next().unwrap() else {
                panic!("a directory")
            };
            let (above, below_it) = (trees(root), trees(below));
            let given_up = [Use::Tree(root), Use::Tree(below), Use::Delta(delta), Use::Formation(id)];
            world.store.doom(given_up.to_vec()).unwrap();
            std::fs::remove_file(world.store.full(&super::super::objects::use_path(given_up[1], false))).unwrap();

            let [writer, other] = [0, 1].map(|_| Store::open(world.store.path()).unwrap());
            let batch = writer.batch();
            assert_eq!((writer.put_tree(&below_it).unwrap(), writer.put_tree(&above).unwrap()), (below, root));
            assert!(writer.has_tree(root) && !other.has_tree(root));
            if names_it {
                assert_eq!(writer.put_formation(&whole, &told).unwrap(), id);
            } else {
                batch.finish().unwrap();
            }
            assert!(other.has_tree(root) && other.has_formation(id) == names_it);
            assert_eq!(other.extent(root).unwrap().files, 2);
        }
    }

    /// Found by a thousand kills: who only looks notes first, too, and so kept the file of a formation whose trees went.
    #[test]
    fn what_was_only_looked_at_while_it_went_counts_as_gone_afterwards() {
        let world = world();
        let (id, root, delta) = formation(&world, "looked at");
        let given_up = vec![Use::Tree(root), Use::Delta(delta), Use::Formation(id)];
        world.store.doom(given_up.clone()).unwrap();
        let other = Store::open(world.store.path()).unwrap();
        assert!(other.formation(id).is_err());
        // The collection reads that note, leaves the formation for it, and deletes the rest.
        for gone in &given_up[..2] {
            std::fs::remove_file(world.store.full(&super::super::objects::use_path(*gone, false))).unwrap();
        }
        world.store.end_doom_but(given_up).unwrap();
        assert!(!other.has_formation(id) && world.store.verify().unwrap().is_empty());
        drop(other);
        // It is put again, or goes with the next collection.
        world.store.collect(false).unwrap();
        assert!(world.store.formations().unwrap().is_empty() && !world.store.path().join("gc/doomed").exists());
        formation(&world, "looked at");
        assert_eq!(world.store.extent(root).unwrap().files, 2);
    }

    /// The same found by kills: who looked still had his note when the next collection came, and that took the formation for needed.
    #[test]
    fn what_was_only_looked_at_counts_as_gone_for_every_later_collection() {
        let world = world();
        let (id, root, delta) = formation(&world, "looked at");
        let given_up = vec![Use::Tree(root), Use::Delta(delta), Use::Formation(id)];
        world.store.doom(given_up.clone()).unwrap();
        let other = Store::open(world.store.path()).unwrap();
        assert!(other.formation(id).is_err() && !other.has_tree(root));
        std::fs::remove_file(world.blob_path(crate::BlobId::of(b"looked at"), false)).unwrap();
        world.store.end_doom_but(given_up).unwrap();
        for _ in 0..2 {
            world.store.collect(false).unwrap();
            assert!(world.store.is_stored(Use::Tree(root)) && !world.store.has_tree(root));
            assert!(!other.has_formation(id) && world.store.verify().unwrap().is_empty());
            world.store.forget_notes();
        }
        formation(&world, "looked at");
        assert_eq!((other.has_formation(id), world.store.extent(root).unwrap().files), (true, 2));
        drop(other);
        world.store.forget_notes();
        world.store.collect(false).unwrap();
        assert!(!world.store.has_tree(root) && !world.store.path().join("gc/doomed").exists());
    }

    /// Found by kills: what was put again just when a collection wrote its last list was on that list for good.
    #[test]
    fn what_is_put_again_while_a_collection_ends_is_seen_by_it_or_comes_after_it() {
        let world = world();
        let (_, root, _) = formation(&world, "again");
        world.store.doom(vec![Use::Tree(root)]).unwrap();
        let other = Store::open(world.store.path()).unwrap();
        let room = Room::of(&world.store).unwrap();
        let taken = room.take(&world.store).unwrap();
        std::thread::scope(|scope| {
            let puts = scope.spawn(|| other.rescue_now(Use::Tree(root)));
            std::thread::sleep(Duration::from_millis(50));
            assert!(world.store.is_doomed(Use::Tree(root)) && !puts.is_finished());
            world.store.end_doom_but(vec![Use::Tree(root)]).unwrap();
            drop(taken);
            puts.join().unwrap().unwrap();
        });
        room.open();
        assert!(world.store.has_tree(root) && other.has_tree(root));
    }

    #[test]
    fn a_pin_keeps_without_a_name() {
        let world = world();
        let (id, root, _) = formation(&world, "pinned");
        world.store.pin(id).unwrap();
        world.store.collect(false).unwrap();
        assert_eq!((world.store.pins().unwrap(), world.store.extent(root).unwrap().files), (vec![id], 2));
        assert!(world.store.remove_pin(id).unwrap() && !world.store.remove_pin(id).unwrap());
        assert_eq!(world.store.collect(false).unwrap().formations, 1);
        assert!(matches!(world.store.pin(id), Err(Error::NotFound { .. })));
    }

    #[test]
    fn the_latest_used_stay_as_far_as_time_and_room_say() {
        let world = world();
        let ids = ["old", "new"].map(|content| formation(&world, content).0);
        let path =
            |id: FormationId| world.store.path().join(super::super::objects::use_path(Use::Formation(id), false));
        let day = Duration::from_secs(24 * 60 * 60);
        let long_ago = SystemTime::now() - 40 * day;
        std::fs::File::open(path(ids[0])).unwrap().set_modified(long_ago).unwrap();
        let kept = |keep: Keep| {
            world.store.collect_but(&keep, true).unwrap();
            let gone = world.store.collect_but(&keep, true).unwrap().formations;
            2 - gone
        };
        let since = |days| Some(SystemTime::now() - days * day);
        assert_eq!(kept(Keep { since: since(30), bytes: None }), 1);
        assert_eq!(kept(Keep { since: since(50), bytes: None }), 2);
        assert_eq!(kept(Keep { since: None, bytes: Some(1 << 20) }), 2);
        assert_eq!(kept(Keep { since: None, bytes: Some(300) }), 1);
        assert_eq!(kept(Keep { since: None, bytes: Some(0) }), 0);
        assert_eq!(kept(Keep { since: since(30), bytes: Some(1 << 20) }), 1);
        world.store.collect_but(&Keep { since: since(30), bytes: None }, false).unwrap();
        assert_eq!(world.store.formations().unwrap(), [ids[1]]);
    }

    /// Writers that find, use and finish things while collection after collection runs: what they finished must be whole.
    #[test]
    fn what_is_made_while_others_collect_is_whole() {
        let world = world();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        std::thread::scope(|scope| {
            let collecting = scope.spawn(|| {
                let mut collections = 0;
                while !stop.load(relaxed) {
                    Store::open(world.store.path()).unwrap().collect(false).unwrap();
                    collections += 1;
                }
                collections
            });
            let writers: Vec<_> = (0..4)
                .map(|number| {
                    let path = world.store.path();
                    scope.spawn(move || {
                        for round in 0..12 {
                            // Few contents, so that each is found as often as it is made, held or dead.
                            let store = Store::open(path).unwrap();
                            let world = World { store, _directory: tempfile::tempdir().unwrap() };
                            let (id, root, _) = formation(&world, &format!("c{}", (number + round) % 3));
                            let name = format!("writer-{number}");
                            world.store.set_root(&name, id).unwrap();
                            let checkout = world.store.checkout(root, Ownership::Caller).unwrap();
                            // The name alone must do from here on.
                            let World { store, _directory } = world;
                            drop(store);
                            let store = Store::open(path).unwrap();
                            assert_eq!(store.extent(root).unwrap().files, 2);
                            assert!(checkout.join("directory/own").exists());
                            let tree = store.tree(root).unwrap();
                            let Some(Node::Directory(below)) = tree.entries.values().next() else { panic!() };
                            for node in store.tree(*below).unwrap().entries.values() {
                                let Node::File(file) = node else { panic!() };
                                assert_eq!(store.blob(file.blob).unwrap().len() as u64, file.size);
                            }
                            assert!(store.remove_root(&name).unwrap());
                        }
                    })
                })
                .collect();
            for writer in writers {
                writer.join().unwrap();
            }
            stop.store(true, relaxed);
            assert!(collecting.join().unwrap() > 0);
        });
        assert!(world.store.verify().unwrap().is_empty());
        world.store.collect(false).unwrap();
        assert_eq!(world.store.collect(true).unwrap(), Collected::default());
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
