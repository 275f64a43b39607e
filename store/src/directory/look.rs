//! Paths in a kept tree, followed as the kernel follows them for a process whose root it is.

use super::Store;
use crate::{Name, Node, Result, TreeId};

/// Symbolic links that are followed on one way, as in Linux (path_resolution(7)).
const MOST_LINKS: usize = 40;

impl Store {
    /// What a path in a tree leads to: symbolic links are followed, the last one too, and none leads out of the tree. None if
    /// nothing is there, or if the way goes round in circles or through a file.
    pub fn look(&self, root: TreeId, path: &[u8]) -> Result<Option<Node>> {
        let mut waiting: Vec<Vec<u8>> = components(path);
        let mut above: Vec<TreeId> = Vec::new();
        let mut here = root;
        let mut links = 0;
        while let Some(component) = waiting.pop() {
            match component.as_slice() {
                b"" | b"." => continue,
                // The root's parent is the root.
                b".." => here = above.pop().unwrap_or(root),
                component => {
                    let Ok(name) = Name::new(component) else { return Ok(None) };
                    match self.tree(here)?.entries.get(&name) {
                        None => return Ok(None),
                        Some(Node::Directory(child)) => {
                            above.push(here);
                            here = *child;
                        }
                        Some(Node::Symlink { target, .. }) => {
                            links += 1;
                            if links > MOST_LINKS {
                                return Ok(None);
                            }
                            if target.starts_with(b"/") {
                                above.clear();
                                here = root;
                            }
                            waiting.extend(components(target));
                        }
                        // `file/` and `file/.` are nothing.
                        Some(node) => return Ok(waiting.is_empty().then(|| node.clone())),
                    }
                }
            }
        }
        Ok(Some(Node::Directory(here)))
    }

    /// The content of a file in a tree, as [`Store::look`] finds it; none if there is none, or it has more than `most` bytes.
    pub fn content_at(&self, root: TreeId, path: &[u8], most: u64) -> Result<Option<Vec<u8>>> {
        match self.look(root, path)? {
            Some(Node::File(file)) if file.size <= most => self.blob(file.blob).map(Some),
            _ => Ok(None),
        }
    }
}

/// Last first, so that the next one is popped.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::world;
    use super::*;

    fn link(target: &str) -> Node {
        Node::Symlink { target: target.into(), uid: 0, gid: 0 }
    }

    #[test]
    fn links_are_followed_and_lead_nowhere_else() {
        let world = world();
        let file = world.file("content", 0o644);
        let lib = world.tree(0o755, [("file", file.clone()), ("up", link("../../../../etc/passwd"))]);
        let usr = world.tree(0o755, [("lib", Node::Directory(lib))]);
        let etc = world.tree(0o755, [("passwd", world.file("root:x", 0o644))]);
        let root = world.tree(
            0o755,
            [
                ("etc", Node::Directory(etc)),
                ("lib", link("usr/lib")),
                ("loop", link("loop")),
                ("absolute", link("/lib/file")),
                ("usr", Node::Directory(usr)),
            ],
        );
        let look = |path: &str| world.store.look(root, path.as_bytes()).unwrap();
        for path in ["/lib/file", "lib/./file", "usr/lib/../lib/file", "/absolute", "../../lib/file"] {
            assert_eq!(look(path), Some(file.clone()), "{path}");
        }
        assert_eq!(look("/"), Some(Node::Directory(root)));
        assert_eq!(look("/lib"), Some(Node::Directory(lib)));
        for path in ["/loop", "/lib/file/", "/lib/file/x", "/none", "/usr/none/.."] {
            assert_eq!(look(path), None, "{path}");
        }
        let content = |most| world.store.content_at(root, b"/lib/up", most).unwrap();
        assert_eq!(content(6).as_deref(), Some(&b"root:x"[..]));
        assert_eq!(content(5), None);
    }
}
