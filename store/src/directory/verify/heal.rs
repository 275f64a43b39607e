//! What is damaged is set aside, and made good: from elsewhere, or by being made again.
//!
//! What is set aside lies below `damaged/` until the next collection. What cannot be had from elsewhere is forgotten: the claims
//! go whose results hold it, so that the next build makes it instead of finding it.

use std::collections::{BTreeMap, HashMap, HashSet};

use rayon::prelude::*;
use rustix::io::Errno;

use super::super::lease::{Room, Use};
use super::super::packs::{Entry, encode, index_path};
use super::super::{Store, claims, failed, objects};
use super::Damage;
use crate::peer::ObjectId;
use crate::{Error, FormationId, Node, Result, TreeId};

/// Puts these objects into the store, those that can be had from elsewhere. [`crate::peer::Peer::pull`] does.
pub type Restore<'a> = &'a dyn Fn(&[ObjectId]) -> Result<()>;

/// The formations that hold damaged objects.
#[derive(Debug, Default)]
pub struct Affected {
    /// By object, each sorted.
    pub formations: BTreeMap<ObjectId, Vec<FormationId>>,
    /// Trees that have something damaged in them, or are damaged.
    trees: HashSet<TreeId>,
    objects: HashSet<ObjectId>,
}

impl Store {
    /// In which formations these objects are. What cannot be read is passed over: it is one of them, or is missing.
    pub fn affected(&self, objects: impl IntoIterator<Item = ObjectId>) -> Result<Affected> {
        let mut affected = Affected { objects: objects.into_iter().collect(), ..Affected::default() };
        if affected.objects.is_empty() {
            return Ok(affected);
        }
        let mut roots: Vec<(FormationId, Vec<TreeId>)> = Vec::new();
        for id in self.formations()? {
            let mut trees = Vec::new();
            if affected.objects.contains(&Use::Formation(id)) {
                affected.formations.entry(Use::Formation(id)).or_default().push(id);
            }
            trees.extend(self.read_formation(id).map(|formation| formation.root));
            for layer in self.record(id).unwrap_or_default().layers {
                let Ok(delta) = layer.delta.parse() else { continue };
                if affected.objects.contains(&Use::Delta(delta)) {
                    affected.formations.entry(Use::Delta(delta)).or_default().push(id);
                }
                trees.extend(self.delta(delta).map(|delta| delta.tree));
            }
            roots.push((id, trees));
        }
        let mut holds: HashMap<TreeId, Vec<ObjectId>> = HashMap::new();
        for (id, trees) in &roots {
            for tree in trees {
                self.held_below(*tree, &affected.objects, &mut holds);
                for object in &holds[tree] {
                    affected.formations.entry(*object).or_default().push(*id);
                }
            }
        }
        for formations in affected.formations.values_mut() {
            formations.sort();
            formations.dedup();
        }
        // Claims may have trees that no formation has.
        for relative in self.claim_paths()? {
            if let Some(tree) = self.tree_of_claim(&relative)? {
                self.held_below(tree, &affected.objects, &mut holds);
            }
        }
        affected.trees.extend(holds.iter().filter(|(_, objects)| !objects.is_empty()).map(|(id, _)| *id));
        Ok(affected)
    }

    /// Notes which of the objects each tree at or below this one holds; each tree is read once.
    fn held_below(&self, root: TreeId, objects: &HashSet<ObjectId>, holds: &mut HashMap<TreeId, Vec<ObjectId>>) {
        let mut waiting = vec![root];
        while let Some(id) = waiting.last().copied() {
            if holds.contains_key(&id) {
                waiting.pop();
                continue;
            }
            let mut held: Vec<ObjectId> = objects.get(&Use::Tree(id)).copied().into_iter().collect();
            let before = waiting.len();
            if let Ok(tree) = self.read_tree(id) {
                for node in tree.entries.values() {
                    match node {
                        Node::File(file) => held.extend(objects.get(&Use::Blob(file.blob))),
                        Node::Directory(child) => match holds.get(child) {
                            Some(below) => held.extend(below),
                            None => waiting.push(*child),
                        },
                        _ => {}
                    }
                }
            }
            if waiting.len() == before {
                held.sort();
                held.dedup();
                holds.insert(id, held);
                waiting.pop();
            }
        }
    }

    /// The tree that a claim's result is, or is made of.
    fn tree_of_claim(&self, relative: &str) -> Result<Option<TreeId>> {
        Ok(match self.read_if_there(relative)?.and_then(|text| claims::result_of(&text)) {
            Some(Use::Tree(id)) => Some(id),
            Some(Use::Delta(id)) => self.delta(id).ok().map(|delta| delta.tree),
            _ => None,
        })
    }

    /// Moves what is damaged out of the way, to `damaged/`: nobody comes upon it any more.
    pub fn set_aside(&self, damaged: &[Damage]) -> Result<()> {
        let mut packed: BTreeMap<&str, Vec<ObjectId>> = BTreeMap::new();
        for damage in damaged {
            for inode in &damage.inodes {
                self.move_aside(inode)?;
            }
            if let (Some(pack), Some(object)) = (pack_name(&damage.relative), damage.object) {
                packed.entry(pack).or_default().push(object);
                continue;
            }
            // Somebody may have made it good meanwhile.
            let whole = damage.object.is_some_and(|object| self.verify_file(&damage.relative, object).is_ok());
            if !whole {
                self.move_aside(&damage.relative)?;
            }
        }
        if packed.is_empty() {
            return Ok(());
        }
        // A collection writes indexes too.
        let room = Room::of(self)?;
        let aside = packed.into_iter().try_for_each(|(name, objects)| self.set_aside_packed(name, &objects));
        room.open();
        aside
    }

    /// Copies damaged objects out of their pack, and takes them from its index.
    fn set_aside_packed(&self, name: &str, objects: &[ObjectId]) -> Result<()> {
        let packs = self.all_packs()?;
        let Some(pack) = packs.iter().find(|pack| pack.name == name) else { return Ok(()) };
        let (damaged, whole): (Vec<Entry>, Vec<Entry>) =
            pack.entries().unwrap_or_default().into_iter().partition(|entry| objects.contains(&entry.object));
        super::super::ensure_directory(&self.full("damaged"))?;
        for entry in damaged {
            let mut copy = self.temporary()?;
            copy.write(&pack.read(entry).unwrap_or_default())?;
            let digest = crate::digest::to_hex(entry.object.as_bytes());
            copy.place(&format!("damaged/{}-{digest}-{}", entry.object.kind(), super::super::random_name()?))?;
        }
        let mut index = self.temporary()?;
        index.write(&encode(&whole))?;
        index.sync(&index_path(name))?;
        index.place(&index_path(name))
    }

    fn move_aside(&self, relative: &str) -> Result<()> {
        let name = format!("damaged/{}-{}", relative.replace('/', "-"), super::super::random_name()?);
        match self.rename(relative, &name) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed("set aside", self.full(relative))(errno)),
        }
    }

    /// Makes good what was set aside: from a second copy here, or from elsewhere. What is still missing is forgotten, so that
    /// a build makes it again; these are given back.
    pub fn heal(&self, affected: &Affected, restore: Restore<'_>) -> Result<Vec<ObjectId>> {
        let lacking = || affected.objects.iter().copied().filter(|object| !self.has(*object)).collect::<Vec<_>>();
        let mut missing = lacking();
        missing.sort();
        if !missing.is_empty() {
            restore(&missing)?;
            missing.retain(|object| !self.has(*object));
            self.sync()?;
        }
        if !missing.is_empty() {
            self.forget(affected, &missing)?;
        }
        Ok(missing)
    }

    /// What names and the formations here refer to, and is not here: each with the path where it would lie.
    pub(super) fn lost(&self) -> Result<Vec<(String, ObjectId)>> {
        let mut waiting: Vec<ObjectId> = Vec::new();
        for id in self.formations()? {
            // What is damaged has been found already; what a collection is deleting is not missing.
            waiting.extend(self.formation(id).map(|formation| Use::Tree(formation.root)));
        }
        let mut seen: HashSet<ObjectId> = waiting.iter().copied().collect();
        let mut lost = Vec::new();
        for (name, id) in self.roots()? {
            // A name that was taken away meanwhile, and its formation with it, is no loss.
            if !self.has_formation(id) && self.root(&name)? == Some(id) && seen.insert(Use::Formation(id)) {
                lost.push((objects::use_path(Use::Formation(id), false), Use::Formation(id)));
            }
        }
        while !waiting.is_empty() {
            let look = |object: &ObjectId| match object {
                Use::Tree(id) => match self.read_tree(*id) {
                    Ok(tree) => (None, below(&tree)),
                    Err(Error::NotFound { .. }) => (Some(*object), Vec::new()),
                    Err(_) => (None, Vec::new()),
                },
                object => ((!self.has(*object)).then_some(*object), Vec::new()),
            };
            let looked: Vec<(Option<ObjectId>, Vec<ObjectId>)> = waiting.par_iter().map(look).collect();
            waiting.clear();
            for (gone, below) in looked {
                lost.extend(gone.map(|object| (objects::use_path(object, false), object)));
                waiting.extend(below.into_iter().filter(|object| seen.insert(*object)));
            }
        }
        Ok(lost)
    }

    /// Removes the claims whose results hold something that is missing.
    fn forget(&self, affected: &Affected, missing: &[ObjectId]) -> Result<()> {
        let missing: HashSet<ObjectId> = missing.iter().copied().collect();
        let paths = self.claim_paths()?;
        paths.par_iter().try_for_each(|relative| {
            let result = self.read_if_there(relative)?.and_then(|text| claims::result_of(&text));
            let lost = result.is_some_and(|one| missing.contains(&one))
                || self.tree_of_claim(relative)?.is_some_and(|tree| affected.trees.contains(&tree));
            if lost { self.unlink(relative) } else { Ok(()) }
        })
    }
}

fn pack_name(relative: &str) -> Option<&str> {
    relative.strip_prefix("packs/")?.strip_suffix(".pack")
}

fn below(tree: &crate::Tree) -> Vec<ObjectId> {
    let below = tree.entries.values().filter_map(|node| match node {
        Node::File(file) => Some(Use::Blob(file.blob)),
        Node::Directory(id) => Some(Use::Tree(*id)),
        _ => None,
    });
    below.collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::super::testing::{World, world};
    use super::super::super::{Claim, LayerRecord, Ownership, Record};
    use super::*;
    use crate::digest::StepKey;
    use crate::{BlobId, Delta, Formation, Launch};

    fn formation(world: &World, name: &str, content: &str) -> (FormationId, TreeId) {
        let below = world.tree(0o755, [("file", world.file(content, 0o644)), ("own", world.file(content, 0o600))]);
        let root = world.tree(0o755, [("directory", Node::Directory(below))]);
        let delta = world.store.put_delta(&Delta::whole(root)).unwrap();
        let (version, variant, platform) = (String::new(), String::new(), "linux/amd64".to_owned());
        let name = name.to_owned();
        let formation = Formation { name, version, variant, platform, root, launch: Launch::default() };
        let layer = LayerRecord { label: "layer".to_owned(), delta: delta.to_string(), size: 1, files: 1 };
        let record = Record { layers: vec![layer], ..Record::default() };
        let id = world.store.put_formation(&formation, &record).unwrap();
        world.store.put_claim_of_step(&StepKey::of(content.as_bytes()), &Claim::Delta(delta)).unwrap();
        (id, root)
    }

    #[test]
    fn damage_is_named_with_its_formations_set_aside_and_healed_from_elsewhere() {
        let world = world();
        let (first, root) = formation(&world, "first", "precious");
        let (second, _) = formation(&world, "second", "precious");
        formation(&world, "third", "other");
        let checkout = world.store.checkout(root, Ownership::Caller).unwrap();
        let blob = BlobId::of(b"precious");
        // The blob, and with it the checkout that links to it; and an inode of the checkout's own.
        fs::write(world.blob_path(blob, false), "precioux").unwrap();
        fs::write(checkout.join("directory/own"), "preciouz").unwrap();
        let damaged = world.store.verify().unwrap();
        let objects: Vec<_> = damaged.iter().map(|damage| damage.object).collect();
        assert_eq!(objects, [Some(Use::Blob(blob)), None]);
        let affected = world.store.affected(objects.into_iter().flatten()).unwrap();
        let mut both = vec![first, second];
        both.sort();
        assert_eq!(affected.formations, BTreeMap::from([(Use::Blob(blob), both)]));

        world.store.set_aside(&damaged).unwrap();
        assert!(!world.store.has_blob(blob) && !checkout.exists());
        assert_eq!(fs::read_dir(world.store.path().join("damaged")).unwrap().count(), 3);
        assert!(matches!(world.store.checkout(root, Ownership::Caller), Err(Error::NotFound { .. })));
        let found = world.store.verify().unwrap();
        assert_eq!(found.iter().map(|damage| damage.object).collect::<Vec<_>>(), [Some(Use::Blob(blob))]);
        // A peer that gives something else heals nothing.
        let put = |bytes: &[u8]| world.store.put_blob(bytes, false).map(drop);
        assert_eq!(world.store.heal(&affected, &|_| put(b"precioux")).unwrap(), [Use::Blob(blob)]);
        let asked = std::cell::RefCell::new(Vec::new());
        let restore: Restore<'_> = &|objects| {
            asked.borrow_mut().extend_from_slice(objects);
            put(b"precious")
        };
        assert!(world.store.heal(&affected, restore).unwrap().is_empty());
        assert_eq!(asked.into_inner(), [Use::Blob(blob)]);
        let checkout = world.store.checkout(root, Ownership::Caller).unwrap();
        assert_eq!(fs::read(checkout.join("directory/own")).unwrap(), b"precious");
        assert!(world.store.verify().unwrap().is_empty());
        world.store.collect(false).unwrap();
        assert!(!world.store.path().join("damaged").exists());
    }

    #[test]
    fn what_nobody_has_is_forgotten_so_that_it_is_made_again() {
        let world = world();
        let (_, root) = formation(&world, "lost", "precious");
        formation(&world, "whole", "other");
        let claim = |content: &str| world.store.claim_of_step(&StepKey::of(content.as_bytes())).unwrap();
        let tree = world.store.path().join(objects::use_path(Use::Tree(root), false));
        fs::write(&tree, "").unwrap();
        let store = Store::open(world.store.path()).unwrap();
        let damaged = store.verify().unwrap();
        let affected = store.affected(damaged.iter().filter_map(|damage| damage.object)).unwrap();
        store.set_aside(&damaged).unwrap();
        assert_eq!(store.heal(&affected, &|_| Ok(())).unwrap(), [Use::Tree(root)]);
        assert!(claim("precious").is_none() && claim("other").is_some());
        formation(&world, "lost", "precious");
        assert!(claim("precious").is_some() && store.verify().unwrap().is_empty());
    }

    #[test]
    fn a_checkout_that_a_killed_collection_gave_up_is_not_damaged() {
        let world = world();
        let (_, root) = formation(&world, "gone", "content");
        let Node::Directory(below) = world.store.tree(root).unwrap().entries.values().next().unwrap().clone() else {
            panic!("the only entry is a directory");
        };
        let checkout = world.store.checkout(root, Ownership::Caller).unwrap();
        world.store.doom(vec![Use::Tree(root), Use::Tree(below)]).unwrap();
        fs::remove_file(world.store.path().join(objects::use_path(Use::Tree(below), false))).unwrap();
        // Opened anew: no tree is remembered.
        let store = Store::open(world.store.path()).unwrap();
        let found = store.verify().unwrap();
        assert!(found.iter().all(|damage| !checkout.starts_with(&damage.path)), "{found:?}");
    }
}
