//! What may be lost at any time and only saves work: small files under `cache/KIND/NAME`.

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::{Store, failed};
use crate::Result;

impl Store {
    /// Keeps some bytes, instead of those of the same name. Others see the old or the new.
    pub(crate) fn put_cached(&self, kind: &str, name: &str, bytes: &[u8]) -> Result<()> {
        let mut temporary = self.temporary()?;
        // Not synced: whoever reads it checks it.
        temporary.write(bytes)?;
        temporary.place(&format!("cache/{kind}/{name}"))
    }

    /// The bytes of a name, unless they are gone.
    pub(crate) fn read_cached(&self, kind: &str, name: &str) -> Result<Option<Vec<u8>>> {
        self.read_if_there(&format!("cache/{kind}/{name}"))
    }

    /// The names of a kind, the latest first.
    pub(crate) fn cached(&self, kind: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for name in self.names_in(&format!("cache/{kind}"))? {
            let relative = format!("cache/{kind}/{name}");
            if let Ok(stat) = rustix::fs::statat(&self.directory, &relative, AtFlags::SYMLINK_NOFOLLOW) {
                names.push((std::cmp::Reverse((stat.st_mtime, stat.st_mtime_nsec)), name));
            }
        }
        names.sort_unstable();
        Ok(names.into_iter().map(|(_, name)| name).collect())
    }

    /// Drops a name.
    pub(crate) fn drop_cached(&self, kind: &str, name: &str) -> Result<()> {
        let relative = format!("cache/{kind}/{name}");
        match rustix::fs::unlinkat(&self.directory, &relative, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed("remove", self.full(&relative))(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::world;

    #[test]
    fn what_is_cached_is_replaced_listed_and_dropped() {
        let world = world();
        let store = &world.store;
        assert!(store.cached("kind").unwrap().is_empty() && store.read_cached("kind", "a").unwrap().is_none());
        for (name, bytes) in [("a", b"1"), ("b", b"2"), ("a", b"3")] {
            store.put_cached("kind", name, bytes).unwrap();
        }
        let mut names = store.cached("kind").unwrap();
        names.sort_unstable();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(store.read_cached("kind", "a").unwrap().unwrap(), b"3");
        store.drop_cached("kind", "a").unwrap();
        store.drop_cached("kind", "a").unwrap();
        assert_eq!(store.cached("kind").unwrap(), ["b"]);
    }
}
