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
