//! What is true of a tree for ever, kept so that it is not found out twice: how large it is, and which packages it has.
//!
//! A fact lies in `cache/KIND/TREE` behind a checksum over the kind, the tree and the fact; one that does not check is found out again.
//! Whether the objects of the tree are still here is not such a fact: who must know that asks [`Store::extent`] itself.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Extent, Store};
use crate::packages::Package;
use crate::{Result, TreeId};

/// The kinds. A number grows when what is found out changes, so that older facts are left behind.
const EXTENTS: &str = "extents-1";
const PACKAGES: &str = "packages-2";
const KINDS: [&str; 2] = [EXTENTS, PACKAGES];
const CHECKSUM: usize = 32;

impl Store {
    /// The extent of a tree, as it was found once.
    pub fn known_extent(&self, root: TreeId) -> Result<Extent> {
        self.fact(EXTENTS, root, || self.extent(root))
    }

    /// The packages of a tree, sorted, each once.
    pub fn packages(&self, root: TreeId) -> Result<Vec<Package>> {
        self.fact(PACKAGES, root, || self.find_packages(root))
    }

    fn fact<T: Serialize + DeserializeOwned>(
        &self,
        kind: &str,
        root: TreeId,
        find: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let name = root.to_string();
        if let Some(fact) = self.read_cached(kind, &name)?.and_then(|bytes| decode(kind, root, &bytes)) {
            return Ok(fact);
        }
        let fact = find()?;
        if let Ok(mut bytes) = serde_json::to_vec(&fact) {
            let checksum = checksum(kind, root, &bytes);
            bytes.extend(checksum);
            // A store that can only be read is asked again the next time.
            let _ = self.put_cached(kind, &name, &bytes);
        }
        Ok(fact)
    }

    /// Forgets the facts of trees that are gone.
    pub(super) fn forget_facts(&self) -> Result<()> {
        for kind in KINDS {
            for name in self.cached(kind)? {
                let is_here = name.parse::<TreeId>().is_ok_and(|root| self.has_tree(root));
                if !is_here {
                    self.drop_cached(kind, &name)?;
                }
            }
        }
        Ok(())
    }
}

fn decode<T: DeserializeOwned>(kind: &str, root: TreeId, bytes: &[u8]) -> Option<T> {
    let (fact, found) = bytes.split_last_chunk::<CHECKSUM>()?;
    if checksum(kind, root, fact) != *found {
        return None;
    }
    serde_json::from_slice(fact).ok()
}

fn checksum(kind: &str, root: TreeId, fact: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(kind.as_bytes()).update(root.as_bytes()).update(fact);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::testing::world;
    use super::*;
    use crate::Tree;

    #[test]
    fn a_fact_is_found_once_checked_and_forgotten_with_its_tree() {
        let world = world();
        let store = &world.store;
        let root = world.tree(0o755, [("a", world.file("four", 0o644))]);
        let found = store.known_extent(root).unwrap();
        assert_eq!(found, store.extent(root).unwrap());
        assert_eq!(store.cached(EXTENTS).unwrap(), [root.to_string()]);

        // It is believed where it checks, and only there: the same bytes are nothing under another name.
        let kept = store.read_cached(EXTENTS, &root.to_string()).unwrap().unwrap();
        assert_eq!(decode::<Extent>(EXTENTS, root, &kept), Some(found));
        assert_eq!(decode::<Extent>(EXTENTS, Tree::empty().id(), &kept), None);
        for at in 0..kept.len() {
            let mut changed = kept.clone();
            changed[at] ^= 1;
            store.put_cached(EXTENTS, &root.to_string(), &changed).unwrap();
            assert_eq!(store.known_extent(root).unwrap(), found);
        }

        store.forget_facts().unwrap();
        assert_eq!(store.cached(EXTENTS).unwrap().len(), 1);
        store.put_cached(PACKAGES, &Tree::empty().id().to_string(), b"").unwrap();
        store.forget_facts().unwrap();
        assert!(store.cached(PACKAGES).unwrap().is_empty(), "a tree that is not here");
    }
}
