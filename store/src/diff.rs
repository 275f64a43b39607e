//! How two trees differ: paths added, removed and changed, and what of a changed file is different.
//!
//! Equal subtrees are passed over by id, so comparing costs what differs.

use crate::{Metadata, Name, Node, Result, Store, TreeId};

mod content;

pub use content::{ContentChange, SectionChange};

/// A path at which two trees differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Below the root, without slash in front; empty for the root itself.
    pub path: Vec<u8>,
    /// What it is in the one tree; none if it is not there.
    pub before: Option<Node>,
    /// What it is in the other.
    pub after: Option<Node>,
    /// What of it differs, if it is in both: `type`, `mode`, `owner`, `size`, `content`, `target`, `device`, `attributes`.
    pub aspects: Vec<&'static str>,
}

impl Store {
    /// All paths at which two trees differ, in the order of their bytes, component by component. A directory that only one tree has is listed
    /// with everything below it.
    pub fn differences(&self, before: TreeId, after: TreeId) -> Result<Vec<Difference>> {
        let mut differences = Vec::new();
        let (before, after) = (Node::Directory(before), Node::Directory(after));
        self.compare(&mut Vec::new(), Some(&before), Some(&after), &mut differences)?;
        Ok(differences)
    }

    fn compare(
        &self,
        path: &mut Vec<u8>,
        before: Option<&Node>,
        after: Option<&Node>,
        differences: &mut Vec<Difference>,
    ) -> Result<()> {
        if before == after {
            return Ok(());
        }
        let aspects = match (before, after) {
            (Some(before), Some(after)) => self.aspects(before, after)?,
            _ => Vec::new(),
        };
        let only_below =
            matches!((before, after), (Some(Node::Directory(_)), Some(Node::Directory(_)))) && aspects.is_empty();
        if !only_below {
            let (before, after) = (before.cloned(), after.cloned());
            differences.push(Difference { path: path.clone(), before, after, aspects });
        }
        let entries = |node: Option<&Node>| match node {
            Some(Node::Directory(id)) => self.tree(*id).map(Some),
            _ => Ok(None),
        };
        let (before, after) = (entries(before)?, entries(after)?);
        let names = before.iter().chain(&after).flat_map(|tree| tree.entries.keys());
        let names: std::collections::BTreeSet<&Name> = names.collect();
        for name in names {
            let length = path.len();
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            let of = |tree: &Option<std::sync::Arc<crate::Tree>>| {
                tree.as_ref().and_then(|tree| tree.entries.get(name).cloned())
            };
            self.compare(path, of(&before).as_ref(), of(&after).as_ref(), differences)?;
            path.truncate(length);
        }
        Ok(())
    }

    /// What differs between two nodes of one path; of directories themselves, not of what is in them.
    fn aspects(&self, before: &Node, after: &Node) -> Result<Vec<&'static str>> {
        let mut aspects = Vec::new();
        let mut note = |differs: bool, aspect| {
            if differs {
                aspects.push(aspect);
            }
        };
        match (before, after) {
            (Node::File(before), Node::File(after)) => {
                note(before.size != after.size, "size");
                note(before.blob != after.blob, "content");
            }
            (Node::Symlink { target: before, .. }, Node::Symlink { target: after, .. }) => {
                note(before != after, "target")
            }
            (Node::Directory(_), Node::Directory(_)) | (Node::Fifo(_), Node::Fifo(_)) => {}
            (
                Node::Device { block, major, minor, .. },
                Node::Device { block: other_block, major: other_major, minor: other_minor, .. },
            ) => note((block, major, minor) != (other_block, other_major, other_minor), "device"),
            _ => note(true, "type"),
        }
        let (before, after) = (self.metadata_of(before)?, self.metadata_of(after)?);
        note(before.mode != after.mode, "mode");
        note((before.uid, before.gid) != (after.uid, after.gid), "owner");
        note(before.attributes != after.attributes, "attributes");
        Ok(aspects)
    }

    /// Mode, owner and attributes of any node.
    pub fn metadata_of(&self, node: &Node) -> Result<Metadata> {
        Ok(match node {
            Node::File(file) => file.metadata.clone(),
            Node::Directory(id) => self.tree(*id)?.metadata.clone(),
            Node::Symlink { uid, gid, .. } => Metadata { uid: *uid, gid: *gid, ..Metadata::root(0o777) },
            Node::Fifo(metadata) | Node::Device { metadata, .. } => metadata.clone(),
        })
    }

    /// What differs inside a file that both trees have; none if it is no file in one of them, or its content is the same.
    pub fn content_change(&self, difference: &Difference) -> Result<Option<ContentChange>> {
        let (Some(Node::File(before)), Some(Node::File(after))) = (&difference.before, &difference.after) else {
            return Ok(None);
        };
        if before.blob == after.blob {
            return Ok(None);
        }
        if before.size.max(after.size) > content::MOST {
            return Ok(Some(ContentChange::Bytes { first: None }));
        }
        Ok(Some(content::compare(&self.blob(before.blob)?, &self.blob(after.blob)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::testing::world;

    #[test]
    fn every_kind_of_difference_has_its_path_and_aspect() {
        let world = world();
        let link = |target: &str, uid| Node::Symlink { target: target.into(), uid, gid: 0 };
        let inner = world.tree(0o755, [("same", world.file("s", 0o644))]);
        let lib = |mode| Node::Directory(world.tree(mode, [("in", Node::Directory(inner))]));
        let before = world.tree(
            0o755,
            [
                ("content", world.file("one", 0o644)),
                ("gone", Node::Directory(inner)),
                ("lib", lib(0o755)),
                ("link", link("a", 0)),
                ("mode", world.file("x", 0o644)),
                ("type", world.file("x", 0o644)),
            ],
        );
        let after = world.tree(
            0o755,
            [
                ("content", world.file("two!", 0o644)),
                ("lib", lib(0o700)),
                ("link", link("b", 7)),
                ("mode", world.file("x", 0o755)),
                ("new", world.file("n", 0o644)),
                ("type", link("x", 0)),
            ],
        );
        let differences = world.store.differences(before, after).unwrap();
        let short: Vec<String> = differences
            .iter()
            .map(|difference| {
                let sign = match (&difference.before, &difference.after) {
                    (None, _) => '+',
                    (_, None) => '-',
                    _ => '~',
                };
                format!("{sign}{} {}", String::from_utf8_lossy(&difference.path), difference.aspects.join(","))
            })
            .collect();
        let expected = [
            "~content size,content",
            "-gone ",
            "-gone/same ",
            "~lib mode",
            "~link target,owner",
            "~mode mode",
            "+new ",
            "~type type,mode",
        ];
        assert_eq!(short, expected);
        assert_eq!(world.store.differences(before, before).unwrap(), []);
        let change = world.store.content_change(&differences[0]).unwrap();
        assert!(
            matches!(change, Some(ContentChange::Text { diff }) if diff.contains("-one") && diff.contains("+two!"))
        );
    }
}
