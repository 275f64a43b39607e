//! Archives of what the store keeps: a tree is hashed as Nix would hash it on disk, without being laid out.

use std::io::Read;

use super::hash::{HashAlgorithm, Hasher, NixHash};
use super::nar::DEEPEST;
use crate::{Error, Node, Result, Store};

impl Store {
    /// The hash of the archive of a node. Owners, and modes but the owner's execute bit, do not count.
    pub fn nar_hash(&self, node: &Node, algorithm: HashAlgorithm) -> Result<NixHash> {
        let mut hasher = Hasher::new(algorithm);
        self.write_nar(node, &mut |bytes| {
            hasher.update(bytes);
            Ok(())
        })?;
        Ok(hasher.finish())
    }

    /// Writes the archive of a node.
    pub fn write_nar(&self, node: &Node, sink: &mut dyn FnMut(&[u8]) -> std::io::Result<()>) -> Result<()> {
        let mut archive = Archive { store: self, sink };
        archive.strings(&[b"nix-archive-1"])?;
        archive.node(node, 0)
    }
}

struct Archive<'a> {
    store: &'a Store,
    sink: &'a mut dyn FnMut(&[u8]) -> std::io::Result<()>,
}

impl Archive<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        (self.sink)(bytes).map_err(Error::file("write", "an archive"))
    }

    fn string(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes(&(bytes.len() as u64).to_le_bytes())?;
        self.bytes(bytes)?;
        self.padding(bytes.len() as u64)
    }

    fn strings(&mut self, strings: &[&[u8]]) -> Result<()> {
        strings.iter().try_for_each(|string| self.string(string))
    }

    fn refused(&self, reason: &'static str) -> Error {
        Error::Unsupported { path: self.store.path().to_owned(), reason }
    }

    fn padding(&mut self, length: u64) -> Result<()> {
        self.bytes(&[0; 7][..(length.wrapping_neg() % 8) as usize])
    }

    /// `DEEPEST` bounds the recursion.
    fn node(&mut self, node: &Node, depth: usize) -> Result<()> {
        if depth >= DEEPEST {
            return Err(self.refused("its directories nest too deep for a Nix archive"));
        }
        match node {
            Node::File(file) => {
                self.strings(&[b"(", b"type", b"regular"])?;
                if file.metadata.mode & 0o100 != 0 {
                    self.strings(&[b"executable", b""])?;
                }
                self.string(b"contents")?;
                self.bytes(&file.size.to_le_bytes())?;
                let mut blob = self.store.open_blob(file.blob)?;
                // Not on the stack: directories nest.
                let mut buffer = vec![0; 64 * 1024];
                let mut left = file.size;
                while left > 0 {
                    let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                    blob.read_exact(&mut buffer[..wanted]).map_err(Error::file("read", self.store.path()))?;
                    self.bytes(&buffer[..wanted])?;
                    left -= wanted as u64;
                }
                self.padding(file.size)?;
            }
            Node::Directory(id) => {
                self.strings(&[b"(", b"type", b"directory"])?;
                let tree = self.store.tree(*id)?;
                for (name, inner) in &tree.entries {
                    self.strings(&[b"entry", b"(", b"name", name.as_bytes(), b"node"])?;
                    self.node(inner, depth + 1)?;
                    self.string(b")")?;
                }
            }
            Node::Symlink { target, .. } => self.strings(&[b"(", b"type", b"symlink", b"target", target])?,
            Node::Fifo(_) | Node::Device { .. } => {
                return Err(self.refused("a Nix archive holds neither fifos nor devices"));
            }
        }
        self.string(b")")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::nix::nar::{Disk, hash_archive};
    use crate::{Metadata, Name, Tree};

    #[test]
    fn a_kept_tree_hashes_as_the_one_on_disk() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("store")).unwrap();
        let top = directory.path().join("t");
        fs::create_dir_all(top.join("sub/empty")).unwrap();
        for length in [0, 1, 7, 8, 9, 70_000] {
            fs::write(top.join(format!("sub/{length}")), vec![b'x'; length]).unwrap();
        }
        fs::write(top.join("exe"), "x").unwrap();
        fs::set_permissions(top.join("exe"), fs::Permissions::from_mode(0o700)).unwrap();
        symlink("/nowhere", top.join("link")).unwrap();
        let node = store.ingest_source(&top, None).unwrap();
        for algorithm in [HashAlgorithm::Sha256, HashAlgorithm::Sha1] {
            let on_disk = hash_archive(&Disk, &top, algorithm, &mut |_, _| Ok(true)).unwrap();
            assert_eq!(store.nar_hash(&node, algorithm).unwrap(), on_disk);
        }
    }

    #[test]
    fn what_an_archive_cannot_hold_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("store")).unwrap();
        let refuses = |node: &Node| store.nar_hash(node, HashAlgorithm::Sha256).is_err();
        assert!(refuses(&Node::Fifo(Metadata::root(0o644))));
        let mut id = store.put_tree(&Tree::empty()).unwrap();
        for _ in 1..DEEPEST {
            assert!(!refuses(&Node::Directory(id)));
            let mut tree = Tree::empty();
            tree.entries.insert(Name::new("d").unwrap(), Node::Directory(id));
            id = store.put_tree(&tree).unwrap();
        }
        assert!(!refuses(&Node::Directory(id)));
        let mut tree = Tree::empty();
        tree.entries.insert(Name::new("d").unwrap(), Node::Directory(id));
        assert!(refuses(&Node::Directory(store.put_tree(&tree).unwrap())));
    }
}
