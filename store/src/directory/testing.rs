//! What the tests of this directory share.

use super::Store;
use crate::{BlobId, File, Metadata, Name, Node, Tree, TreeId};

/// A store of the test's own.
pub struct World {
    pub store: Store,
    /// Removed at the end.
    pub _directory: tempfile::TempDir,
}

pub fn world() -> World {
    let directory = tempfile::tempdir().unwrap();
    World { store: Store::open(directory.path().join("store")).unwrap(), _directory: directory }
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

impl World {
    /// A file with this content that root owns.
    pub fn file(&self, content: &str, mode: u16) -> Node {
        self.file_with(content, Metadata::root(mode))
    }

    pub fn file_with(&self, content: &str, metadata: Metadata) -> Node {
        let blob = self.store.put_blob(content.as_bytes(), metadata.mode & 0o100 != 0).unwrap();
        Node::File(File { blob, size: content.len() as u64, metadata })
    }

    pub fn tree<const N: usize>(&self, mode: u16, entries: [(&str, Node); N]) -> TreeId {
        let entries = entries.into_iter().map(|(text, node)| (name(text), node)).collect();
        self.store.put_tree(&Tree { metadata: Metadata::root(mode), entries }).unwrap()
    }

    /// Where the bytes of a blob lie.
    pub fn blob_path(&self, id: BlobId, executable: bool) -> std::path::PathBuf {
        self.store.path().join(super::objects::blob_path(id, executable))
    }
}
