//! What a step changed: a tree, the paths it removed, and the directories it merely passed through.
//!
//! Merging deltas gives a tree without whiteouts; whiteouts exist only in overlayfs and OCI layers.

use std::collections::BTreeSet;

use crate::digest::{DELTA_CONTEXT, DeltaId, TreeId};
use crate::encoding::{DecodeError, Reader, Writer};
use crate::name::Name;

/// A path below a root: names from the top, none for the root itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RelativePath(pub Vec<Name>);

impl RelativePath {
    /// Reads `/a/b`, `a/b` or `./a/b/`; components `..` are refused.
    pub fn parse(path: &[u8]) -> Result<Self, crate::name::NameError> {
        let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
        Ok(Self(parts.map(Name::new).collect::<Result<_, _>>()?))
    }

    /// The names joined by `/`, without one at either end; empty for the root.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().map(Name::as_bytes).collect::<Vec<_>>().join(&b'/')
    }

    /// This path and one more name.
    pub fn join(&self, name: &Name) -> Self {
        let mut names = self.0.clone();
        names.push(name.clone());
        Self(names)
    }
}

/// What a step changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// What is there now: everything added or changed, and the directories on the way to it.
    pub tree: TreeId,
    /// What the lower tree had and is gone. A path that was removed and made anew is in both.
    pub removed: BTreeSet<RelativePath>,
    /// Directories of `tree` whose metadata is not this step's: the lower's stays, where it has the directory.
    pub passed: BTreeSet<RelativePath>,
}

const VERSION: u8 = 1;

impl Delta {
    /// A whole tree that nothing lies under.
    pub fn whole(tree: TreeId) -> Self {
        Self { tree, removed: BTreeSet::new(), passed: BTreeSet::new() }
    }

    /// The digest of the canonical encoding.
    pub fn id(&self) -> DeltaId {
        Self::id_of(&self.encode())
    }

    /// The id of the delta with this encoding.
    pub fn id_of(encoded: &[u8]) -> DeltaId {
        DeltaId::from_bytes(blake3::derive_key(DELTA_CONTEXT, encoded))
    }

    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u8(VERSION).digest(self.tree.as_bytes());
        for paths in [&self.removed, &self.passed] {
            writer.count(paths.len());
            for path in paths {
                writer.bytes(&path.to_bytes());
            }
        }
        writer.finish()
    }

    /// Reads an encoding; whatever is not the one canonical form is refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.u8("delta version")? != VERSION {
            return Err(DecodeError { what: "delta version", offset: 0 });
        }
        let tree = TreeId::from_bytes(reader.digest("tree id")?);
        let mut read_paths = || {
            let mut paths = BTreeSet::new();
            for _ in 0..reader.u32("path count")? {
                let at = reader.bad("path");
                let bytes = reader.bytes("path")?;
                let path = RelativePath::parse(bytes).map_err(|_| at.clone())?;
                if path.to_bytes() != bytes || paths.last().is_some_and(|last| *last >= path) {
                    return Err(at);
                }
                paths.insert(path);
            }
            Ok(paths)
        };
        let (removed, passed) = (read_paths()?, read_paths()?);
        reader.end()?;
        Ok(Self { tree, removed, passed })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Tree;

    fn delta() -> Delta {
        let paths = |texts: &[&str]| texts.iter().map(|text| RelativePath::parse(text.as_bytes()).unwrap()).collect();
        Delta { tree: Tree::empty().id(), removed: paths(&["a/b", "a-", "z"]), passed: paths(&["", "a"]) }
    }

    /// These digests are in every store there is. A change here is a change of format.
    #[test]
    fn digests_are_pinned() {
        let digests = [Delta::whole(Tree::empty().id()), delta()].map(|delta| delta.id().to_string());
        assert_eq!(
            digests,
            [
                "7f2047566d7bd03fd40eba3b0e623ce700128b5d9718963016147ef367a3284e",
                "37e637986891bc9ebd2491f487dbe1809c98eee0fdaa38191ecd40e88e179b90"
            ]
        );
    }

    #[test]
    fn a_delta_reads_back_and_no_cut_one_does() {
        let encoded = delta().encode();
        assert_eq!(Delta::decode(&encoded).unwrap(), delta());
        for length in 0..encoded.len() {
            assert!(Delta::decode(&encoded[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn a_path_is_written_in_one_way() {
        for (given, canonical) in [("/a/b", "a/b"), ("./a/b/", "a/b"), ("a//b", "a/b"), ("/", ""), ("", "")] {
            assert_eq!(RelativePath::parse(given.as_bytes()).unwrap().to_bytes(), canonical.as_bytes());
        }
        assert!(RelativePath::parse(b"a/../b").is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_decodes_encodes_to_the_same_bytes(
            noise in prop::collection::vec(any::<u8>(), 0..100),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        ) {
            let mut near = delta().encode();
            for (index, byte) in changes {
                let index = index.index(near.len());
                near[index] = byte;
            }
            for bytes in [noise, near] {
                if let Ok(delta) = Delta::decode(&bytes) {
                    prop_assert_eq!(delta.encode(), bytes);
                }
            }
        }
    }
}
