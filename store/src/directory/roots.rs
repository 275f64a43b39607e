//! Formations, their records, and the names that keep them.

use std::collections::BTreeMap;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::lease::Use;
use super::versioned::{is_root, split};
use super::{Record, Store, failed, object_path};
use crate::formation::is_name;
use crate::{Error, Formation, FormationId, Result};

impl Store {
    /// Keeps a formation and what is known of it. An earlier record of the same formation is kept, unless only this one says
    /// how it was made.
    pub fn put_formation(&self, formation: &Formation, record: &Record) -> Result<FormationId> {
        let encoded = formation.encode();
        let id = Formation::id_of(&encoded);
        let damaged = |source| Error::Decode { from: id.to_string(), kind: "formation", source };
        Formation::decode(&encoded).map_err(damaged)?;
        let (formation_path, record_path) = (object_path("formations", &id.to_string()), record_path(id));
        self.note(Use::Formation(id));
        let here = self.size_of(&formation_path)? == Some(encoded.len() as u64);
        let enough = |known: Record| record.steps.is_empty() || !known.steps.is_empty();
        let kept = self.is_there(&record_path) && self.read_record(id).is_ok_and(enough);
        if !here || !kept {
            let mut text = serde_json::to_string_pretty(record).expect("a record is plain values");
            text.push('\n');
            let mut staged = Vec::new();
            for (wanted, bytes, relative) in
                [(!kept, text.as_bytes(), &record_path), (!here, encoded.as_slice(), &formation_path)]
            {
                if wanted {
                    let mut temporary = self.temporary()?;
                    temporary.write(bytes)?;
                    staged.push((temporary, relative));
                }
            }
            // The root goes to the disk, and they with it.
            self.has_written();
            self.sync()?;
            staged.into_iter().try_for_each(|(temporary, relative)| temporary.place(relative))?;
        }
        if here {
            self.touch(id);
        }
        if self.is_doomed(Use::Formation(id)) {
            // What is below it may still wait in a batch.
            self.sync()?;
            self.rescue_now(Use::Formation(id))?;
        }
        Ok(id)
    }

    /// Keeps beside a formation what it was built from; the first one stays.
    pub fn describe(&self, id: FormationId, description: String) -> Result<()> {
        let mut record = self.record(id)?;
        if record.description.is_some() {
            return Ok(());
        }
        record.description = Some(description);
        let mut text = serde_json::to_string_pretty(&record).expect("a record is plain values");
        text.push('\n');
        self.replace(&record_path(id), text.as_bytes())
    }

    /// Whether a formation is here, and so its root; then it stays as long as this store is open.
    pub fn has_formation(&self, id: FormationId) -> bool {
        self.has(Use::Formation(id))
    }

    /// Reads a formation; it stays as long as this store is open.
    pub fn formation(&self, id: FormationId) -> Result<Formation> {
        self.note(Use::Formation(id));
        if self.is_doomed(Use::Formation(id)) {
            return Err(Error::NotFound { kind: "formation", id: id.to_string() });
        }
        self.read_formation(id)
    }

    /// The same for whoever notes nothing.
    pub(super) fn read_formation(&self, id: FormationId) -> Result<Formation> {
        let (relative, bytes) = self.read_object("formation", "formations", &id.to_string())?;
        let actual = Formation::id_of(&bytes);
        if actual != id {
            return Err(self.mismatch(&relative, &actual.to_string(), &id.to_string()));
        }
        let from = self.full(&relative).display().to_string();
        Formation::decode(&bytes).map_err(|source| Error::Decode { from, kind: "formation", source })
    }

    /// What is known of a formation beside its identity; nothing, if it came without a record, or if that is damaged: nobody's work
    /// ends for it, [`Store::verify`] names it, and the next build writes it anew.
    pub fn record(&self, id: FormationId) -> Result<Record> {
        match self.read_record(id) {
            Err(Error::Record { .. }) => Ok(Record::default()),
            read => read,
        }
    }

    pub(super) fn read_record(&self, id: FormationId) -> Result<Record> {
        let relative = record_path(id);
        let Some(bytes) = self.read_if_there(&relative)? else {
            return match self.is_there(&object_path("formations", &id.to_string())) {
                true => Ok(Record::default()),
                false => Err(Error::NotFound { kind: "formation", id: id.to_string() }),
            };
        };
        let bad = |source: serde_json::Error| Error::Record { path: self.full(&relative), source };
        serde_json::from_slice(&bytes).map_err(bad)
    }

    /// Every formation here, sorted by id.
    pub fn formations(&self) -> Result<Vec<FormationId>> {
        let mut formations = Vec::new();
        for start in self.names_in("formations")? {
            formations.extend(self.formations_starting(&start)?);
        }
        formations.sort();
        Ok(formations)
    }

    /// The formation that a digest, a unique prefix of 6 digits or more, or a name stands for.
    pub fn find(&self, given: &str) -> Result<FormationId> {
        let id = self.look_up(given)?;
        self.touch(id);
        Ok(id)
    }

    fn look_up(&self, given: &str) -> Result<FormationId> {
        let not_found = || Error::NotFound { kind: "formation", id: given.to_owned() };
        if is_root(given)
            && let Some(id) = self.root(given)?
        {
            return Ok(id);
        }
        if is_name(given) || split(given).is_some() {
            return match self.find_version(given)? {
                Some(id) => Ok(id),
                None => Err(self.no_version(given)?.unwrap_or_else(not_found)),
            };
        }
        if let Ok(id) = given.parse::<FormationId>() {
            return match self.has_formation(id) {
                true => Ok(id),
                false => Err(not_found()),
            };
        }
        let digits = given.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !digits || !(6..64).contains(&given.len()) {
            return Err(Error::Malformed { given: given.to_owned() });
        }
        let mut candidates = self.formations_starting(&given[..2])?;
        candidates.retain(|id| id.to_string().starts_with(given) && self.has_formation(*id));
        match candidates[..] {
            [] => Err(not_found()),
            [id] => Ok(id),
            _ => {
                candidates.sort();
                let roots = self.roots()?;
                let named = |id| match roots.iter().find(|(_, rooted)| **rooted == id) {
                    Some((name, _)) => (id, name.clone()),
                    None => (id, self.formation(id).map(|formation| formation.name).unwrap_or_default()),
                };
                let candidates = candidates.into_iter().map(named).collect();
                Err(Error::Ambiguous { given: given.to_owned(), candidates })
            }
        }
    }

    /// Gives a formation a name, which keeps it from being collected. An earlier formation of that name loses it.
    pub fn set_root(&self, name: &str, id: FormationId) -> Result<()> {
        self.set_roots(&[name], id)
    }

    /// Gives a formation several names; for all of them together it is waited once until the disk has them.
    pub fn set_roots(&self, names: &[&str], id: FormationId) -> Result<()> {
        if let Some(name) = names.iter().find(|name| !is_root(name)) {
            return Err(Error::Malformed { given: (*name).to_owned() });
        }
        if !self.has_formation(id) {
            return Err(Error::NotFound { kind: "formation", id: id.to_string() });
        }
        let mut changed = false;
        for name in names {
            if self.root(name)? != Some(id) {
                self.replace(&format!("roots/{name}"), format!("{id}\n").as_bytes())?;
                changed = true;
            }
        }
        if !changed {
            return Ok(());
        }
        // With it, everything that was renamed before is on the disk: this is how a build ends.
        self.sync_directory("roots")
    }

    /// Takes a name away; says whether it was there.
    pub fn remove_root(&self, name: &str) -> Result<bool> {
        if !is_root(name) {
            return Err(Error::Malformed { given: name.to_owned() });
        }
        let relative = format!("roots/{name}");
        match rustix::fs::unlinkat(&self.directory, &relative, AtFlags::empty()) {
            // Who was told that a name is gone does not find it again after a power cut.
            Ok(()) => self.sync_directory("roots").map(|()| true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(failed("remove", self.full(&relative))(errno)),
        }
    }

    /// All names.
    pub fn roots(&self) -> Result<BTreeMap<String, FormationId>> {
        let mut roots = BTreeMap::new();
        for name in self.names_in("roots")? {
            if let Some(id) = self.root(&name)? {
                roots.insert(name, id);
            }
        }
        Ok(roots)
    }

    /// Keeps a formation whatever its names stand for.
    pub fn pin(&self, id: FormationId) -> Result<()> {
        if !self.has_formation(id) {
            return Err(Error::NotFound { kind: "formation", id: id.to_string() });
        }
        self.replace(&format!("pins/{id}"), b"")?;
        self.sync_directory("pins")
    }

    /// Takes a pin away; says whether there was one.
    pub fn remove_pin(&self, id: FormationId) -> Result<bool> {
        let relative = format!("pins/{id}");
        match rustix::fs::unlinkat(&self.directory, &relative, AtFlags::empty()) {
            Ok(()) => self.sync_directory("pins").map(|()| true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(failed("remove", self.full(&relative))(errno)),
        }
    }

    /// All pinned formations, sorted.
    pub fn pins(&self) -> Result<Vec<FormationId>> {
        let mut pins: Vec<FormationId> = self.names_in("pins")?.iter().filter_map(|name| name.parse().ok()).collect();
        pins.sort();
        Ok(pins)
    }

    /// What a name stands for. One that a crash left unreadable stands for nothing.
    pub(super) fn root(&self, name: &str) -> Result<Option<FormationId>> {
        let bytes = self.read_if_there(&format!("roots/{name}"))?;
        Ok(bytes.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.trim_end().parse().ok()))
    }

    fn formations_starting(&self, start: &str) -> Result<Vec<FormationId>> {
        let names = self.names_in(&format!("formations/{start}"))?;
        Ok(names.iter().filter_map(|rest| format!("{start}{rest}").parse().ok()).collect())
    }

    /// The names in a directory of the store; none if it is not there.
    pub(super) fn names_in(&self, relative: &str) -> Result<Vec<String>> {
        let path = self.full(relative);
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::file("read the directory", path)(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::file("read the directory", &path))?;
            names.extend(entry.file_name().into_string());
        }
        Ok(names)
    }
}

fn record_path(id: FormationId) -> String {
    format!("records/{id}.json")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::testing::{World, world};
    use super::*;
    use crate::Launch;

    fn formation(world: &World, version: &str) -> FormationId {
        let (name, platform) = ("hello".to_owned(), "linux/amd64".to_owned());
        let root = world.tree(0o755, []);
        let (version, variant) = (version.to_owned(), String::new());
        let formation = Formation { name, version, variant, platform, root, launch: Launch::default() };
        world.store.put_formation(&formation, &Record { built: 1, ..Record::default() }).unwrap()
    }

    #[test]
    fn a_formation_is_found_by_digest_prefix_and_name() {
        let world = world();
        let id = formation(&world, "1");
        world.store.set_root("hello", id).unwrap();
        let digest = id.to_string();
        for given in ["hello", &digest, &digest[..6], &digest[..63]] {
            assert_eq!(world.store.find(given).unwrap(), id, "{given}");
        }
        assert_eq!(world.store.formation(id).unwrap().version, "1");
        assert_eq!(world.store.roots().unwrap().into_iter().collect::<Vec<_>>(), [("hello".to_owned(), id)]);
    }

    #[test]
    fn what_is_not_found_says_why() {
        let world = world();
        let id = formation(&world, "1");
        for given in ["nobody", "000000", &"0".repeat(64), "abc12"] {
            assert!(matches!(world.store.find(given), Err(Error::NotFound { .. })), "{given}");
        }
        for given in ["", "a/b", "../format", "-x", &"x".repeat(129)] {
            assert!(matches!(world.store.find(given), Err(Error::Malformed { .. })), "{given}");
            assert!(matches!(world.store.set_root(given, id), Err(Error::Malformed { .. })), "{given}");
        }
        let nowhere = FormationId::from_bytes([7; 32]);
        assert!(matches!(world.store.set_root("x", nowhere), Err(Error::NotFound { .. })));
    }

    #[test]
    fn an_ambiguous_prefix_lists_the_candidates() {
        let world = world();
        let id = formation(&world, "1");
        world.store.set_root("named", id).unwrap();
        // Two that share six digits do not come by chance: the second is a file with such a name.
        let mut twin = id.to_string();
        let last = if twin.ends_with('0') { '1' } else { '0' };
        twin.replace_range(63.., &last.to_string());
        fs::write(world.store.full(&object_path("formations", &twin)), "").unwrap();
        let given = &twin[..8];
        let Err(Error::Ambiguous { candidates, .. }) = world.store.find(given) else { panic!("not ambiguous") };
        assert!(candidates.contains(&(id, "named".to_owned())) && candidates.len() == 2);
    }

    #[test]
    fn a_name_moves_and_goes() {
        let world = world();
        let (first, second) = (formation(&world, "1"), formation(&world, "2"));
        world.store.set_root("hello", first).unwrap();
        world.store.set_root("hello", second).unwrap();
        assert_eq!(world.store.find("hello").unwrap(), second);
        assert!(world.store.remove_root("hello").unwrap() && !world.store.remove_root("hello").unwrap());
        assert!(world.store.find("hello").is_err());
        let mut both = [first, second];
        both.sort();
        assert_eq!(world.store.formations().unwrap(), both);
    }

    #[test]
    fn the_first_record_stays() {
        let world = world();
        let id = formation(&world, "1");
        let formation = world.store.formation(id).unwrap();
        world.store.put_formation(&formation, &Record { built: 2, ..Record::default() }).unwrap();
        assert_eq!(world.store.record(id).unwrap().built, 1);
        for text in ["name: first", "name: second"] {
            world.store.describe(id, text.to_owned()).unwrap();
        }
        let record = world.store.record(id).unwrap();
        assert_eq!((record.built, record.description.as_deref()), (1, Some("name: first")));
        assert!(world.store.record(FormationId::from_bytes([7; 32])).is_err());
    }

    #[test]
    fn a_damaged_record_is_named_and_keeps_nobody_from_working() {
        let world = world();
        let id = formation(&world, "recorded");
        let (formation, record) = (world.store.formation(id).unwrap(), Record { built: 7, ..Record::default() });
        world.store.set_root("recorded", id).unwrap();
        let path = world.store.path().join(record_path(id));
        for damaged in [&b"{ built"[..], b"", b"\xff"] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(world.store.record(id).unwrap(), Record::default());
            world.store.collect(false).unwrap();
            let found = world.store.verify().unwrap();
            assert_eq!(found.iter().map(|damage| &damage.path).collect::<Vec<_>>(), [&path]);
            world.store.set_aside(&found).unwrap();
            assert!(world.store.verify().unwrap().is_empty() && !path.exists());
            // Written over where it lies, too.
            fs::write(&path, damaged).unwrap();
            world.store.put_formation(&formation, &record).unwrap();
            assert_eq!(world.store.record(id).unwrap(), record);
        }
    }
}
