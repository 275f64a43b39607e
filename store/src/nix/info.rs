//! What is known of a store path of Nix's that was made here: which delta has it, its archive's hash, and what it refers to.
//!
//! Like every claim it keeps nothing from being collected, and is none when its delta is gone.

use std::collections::{BTreeSet, VecDeque};

use crate::derivation::StorePath;
use crate::digest::{from_hex, to_hex};
use crate::{Delta, DeltaId, Metadata, Name, Node, RelativePath, Result, Store, Tree};

/// What is known of a store path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathInfo {
    /// The path.
    pub path: StorePath,
    /// SHA-256 of its archive.
    pub nar_hash: [u8; 32],
    /// Bytes of its archive.
    pub nar_size: u64,
    /// What it refers to; itself, if it does.
    pub references: BTreeSet<StorePath>,
    /// The derivation that made it.
    pub deriver: Option<StorePath>,
}

impl Store {
    /// Remembers what lies at a store path. `node` is it; gives the delta that puts it there.
    pub fn put_store_path(&self, node: &Node, info: &PathInfo) -> Result<DeltaId> {
        let delta = self.delta_at(&info.path, node)?;
        let strings = |paths: &BTreeSet<StorePath>| paths.iter().map(StorePath::to_string).collect::<Vec<_>>();
        let note = serde_json::json!({
            "path": info.path.as_str(),
            "narHash": to_hex(&info.nar_hash),
            "narSize": info.nar_size,
            "references": strings(&info.references),
            "deriver": info.deriver.as_ref().map(StorePath::as_str),
        });
        self.put_claim_of_path(&info.path, delta, &note.to_string())?;
        Ok(delta)
    }

    /// What is known of a store path, and the delta that has it; none if it was not made here, or has gone.
    pub fn store_path(&self, path: &StorePath) -> Result<Option<(DeltaId, PathInfo)>> {
        let Some((delta, note)) = self.claim_of_path(path)? else { return Ok(None) };
        Ok(parse(&note).filter(|info| info.path == *path).map(|info| (delta, info)))
    }

    /// The same of the path with these 32 digits.
    pub fn store_path_of_digits(&self, digits: &str) -> Result<Option<(DeltaId, PathInfo)>> {
        let Some((delta, note)) = self.claim_of_digits(digits)? else { return Ok(None) };
        Ok(parse(&note).filter(|info| hash_part(&info.path) == digits).map(|info| (delta, info)))
    }

    /// Everything that some store paths lead to, themselves included, sorted; none if something of it is not here.
    pub fn store_closure<'a>(
        &self,
        paths: impl IntoIterator<Item = &'a StorePath>,
    ) -> Result<Option<Vec<(DeltaId, PathInfo)>>> {
        let mut open: VecDeque<StorePath> = paths.into_iter().cloned().collect();
        let mut found = std::collections::BTreeMap::new();
        while let Some(path) = open.pop_front() {
            if found.contains_key(&path) {
                continue;
            }
            let Some((delta, info)) = self.store_path(&path)? else { return Ok(None) };
            open.extend(info.references.iter().cloned());
            found.insert(path, (delta, info));
        }
        Ok(Some(found.into_values().collect()))
    }

    /// The delta that puts a node at a store path, and passes through the directories above it.
    pub fn delta_at(&self, path: &StorePath, node: &Node) -> Result<DeltaId> {
        let mut node = node.clone();
        let name = Name::new(base_name(path).as_bytes()).expect("a store path's last part is a name");
        for name in [name, Name::new(*b"store").expect("a name"), Name::new(*b"nix").expect("a name")] {
            let entries = std::collections::BTreeMap::from([(name, node)]);
            node = Node::Directory(self.put_tree(&Tree { metadata: Metadata::root(0o755), entries })?);
        }
        let Node::Directory(tree) = node else { unreachable!("it was wrapped a moment ago") };
        let passed = [&b""[..], b"nix", b"nix/store"];
        let passed = passed.map(|path| RelativePath::parse(path).expect("a path")).into();
        self.put_delta(&Delta { tree, removed: BTreeSet::new(), passed })
    }

    /// The one store path that a delta has, and what lies there; none if it has anything else.
    pub fn node_of_store_delta(&self, delta: DeltaId) -> Result<Option<(StorePath, Node)>> {
        let mut tree = self.tree(self.delta(delta)?.tree)?;
        for expected in [&b"nix"[..], b"store"] {
            let mut entries = tree.entries.iter();
            let (Some((name, Node::Directory(id))), None) = (entries.next(), entries.next()) else { return Ok(None) };
            if name.as_bytes() != expected {
                return Ok(None);
            }
            tree = self.tree(*id)?;
        }
        let mut entries = tree.entries.iter();
        let (Some((name, node)), None) = (entries.next(), entries.next()) else { return Ok(None) };
        let path = StorePath::parse(&format!("/nix/store/{}", String::from_utf8_lossy(name.as_bytes())));
        Ok(path.map(|path| (path, node.clone())))
    }
}

/// A store path without `/nix/store/`.
pub fn base_name(path: &StorePath) -> &str {
    &path.as_str()[crate::derivation::STORE_DIRECTORY.len() + 1..]
}

/// The 32 digits by which a store path is recognised in a file.
pub fn hash_part(path: &StorePath) -> &str {
    &base_name(path)[..32]
}

fn parse(note: &str) -> Option<PathInfo> {
    let note: serde_json::Value = serde_json::from_str(note).ok()?;
    let path = |value: &serde_json::Value| StorePath::parse(value.as_str()?);
    Some(PathInfo {
        path: path(note.get("path")?)?,
        nar_hash: from_hex(note.get("narHash")?.as_str()?)?.try_into().ok()?,
        nar_size: note.get("narSize")?.as_u64()?,
        references: note.get("references")?.as_array()?.iter().map(path).collect::<Option<_>>()?,
        deriver: note.get("deriver").and_then(path),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::testing::world;

    #[test]
    fn what_lies_at_a_store_path_is_remembered_with_what_it_refers_to() {
        let world = world();
        let store = &world.store;
        let path = |digit: char| StorePath::parse(&format!("/nix/store/{}-a", digit.to_string().repeat(32))).unwrap();
        let info = |digit: char, references: &[char]| PathInfo {
            path: path(digit),
            nar_hash: [7; 32],
            nar_size: 12,
            references: references.iter().map(|digit| path(*digit)).collect(),
            deriver: None,
        };
        let node = world.file("x", 0o444);
        assert_eq!(store.store_path(&path('1')).unwrap(), None);
        let delta = store.put_store_path(&node, &info('1', &['1', '2'])).unwrap();
        assert_eq!(store.store_path(&path('1')).unwrap(), Some((delta, info('1', &['1', '2']))));
        assert_eq!(store.node_of_store_delta(delta).unwrap(), Some((path('1'), node.clone())));
        // What it refers to is not here.
        assert_eq!(store.store_closure([&path('1')]).unwrap(), None);
        let other = store.put_store_path(&node, &info('2', &[])).unwrap();
        let closure = store.store_closure([&path('1')]).unwrap().unwrap();
        assert_eq!(closure.iter().map(|(delta, _)| *delta).collect::<Vec<_>>(), [delta, other]);
        // Two of them are merged side by side.
        let whole = store.merge(&[delta, other]).unwrap();
        assert_eq!(store.look(whole, path('2').as_str().as_bytes()).unwrap(), Some(node));
        let merged = store.put_delta(&Delta::whole(whole)).unwrap();
        assert_eq!(store.node_of_store_delta(merged).unwrap(), None);
    }
}
