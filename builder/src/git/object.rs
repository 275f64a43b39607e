//! Git's objects: commits, trees, files and tags, and the names that follow from their bytes.

use std::fmt;

use sha1::{Digest, Sha1};

/// The SHA-1 of an object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId([u8; 20]);

impl ObjectId {
    /// From its 20 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// From 40 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = store::digest::from_hex(&text.to_ascii_lowercase())?;
        Self::from_bytes(&bytes)
    }

    /// Its 20 bytes.
    pub fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// The name of an object with this content.
    pub fn of(kind: Kind, content: &[u8]) -> Self {
        let mut hash = Sha1::new();
        hash.update(format!("{} {}\0", kind.as_str(), content.len()));
        hash.update(content);
        Self(hash.finalize().into())
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&store::digest::to_hex(&self.0))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A state of the files and how it came to be.
    Commit,
    /// A directory.
    Tree,
    /// A file's content, or a symlink's target.
    Blob,
    /// A name for an object, with words.
    Tag,
}

impl Kind {
    /// As git writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Tree => "tree",
            Self::Blob => "blob",
            Self::Tag => "tag",
        }
    }

    /// Reads what git writes.
    pub fn parse(text: &[u8]) -> Option<Self> {
        [Self::Commit, Self::Tree, Self::Blob, Self::Tag].into_iter().find(|kind| kind.as_str().as_bytes() == text)
    }
}

/// A commit, as far as it counts here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its files.
    pub tree: ObjectId,
    /// What it came from.
    pub parents: Vec<ObjectId>,
    /// When it was committed, in seconds since 1970.
    pub time: i64,
}

impl Commit {
    /// Reads a commit's bytes.
    pub fn parse(content: &[u8]) -> Option<Self> {
        let (mut tree, mut parents, mut time) = (None, Vec::new(), None);
        for line in content.split(|byte| *byte == b'\n').take_while(|line| !line.is_empty()) {
            let line = String::from_utf8_lossy(line);
            let Some((word, rest)) = line.split_once(' ') else { continue };
            match word {
                "tree" => tree = Some(ObjectId::parse(rest)?),
                "parent" => parents.push(ObjectId::parse(rest)?),
                // `Name <address> SECONDS ZONE`
                "committer" => time = rest.rsplit(' ').nth(1).and_then(|seconds| seconds.parse().ok()),
                _ => {}
            }
        }
        Some(Self { tree: tree?, parents, time: time? })
    }
}

/// What a tag names: the first line of its bytes.
pub fn tagged(content: &[u8]) -> Option<ObjectId> {
    let line = content.split(|byte| *byte == b'\n').next()?;
    ObjectId::parse(std::str::from_utf8(line.strip_prefix(b"object ")?).ok()?)
}

/// What an entry of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// A file.
    File,
    /// A file that may be executed.
    Executable,
    /// A symbolic link.
    Symlink,
    /// A directory.
    Directory,
    /// A commit of another repository.
    Submodule,
}

impl EntryKind {
    /// Of a mode, as git writes it.
    pub fn of_mode(mode: u32) -> Option<Self> {
        match mode & 0o170000 {
            0o100000 if mode & 0o100 != 0 => Some(Self::Executable),
            0o100000 => Some(Self::File),
            0o120000 => Some(Self::Symlink),
            0o040000 => Some(Self::Directory),
            0o160000 => Some(Self::Submodule),
            _ => None,
        }
    }
}

/// An entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// Its name.
    pub name: Vec<u8>,
    /// Its object.
    pub id: ObjectId,
}

/// Reads a tree's bytes.
pub fn tree(content: &[u8]) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut rest = content;
    while !rest.is_empty() {
        let blank = rest.iter().position(|byte| *byte == b' ')?;
        let mode = u32::from_str_radix(std::str::from_utf8(&rest[..blank]).ok()?, 8).ok()?;
        let name = &rest[blank + 1..];
        let end = name.iter().position(|byte| *byte == 0)?;
        let id = ObjectId::from_bytes(name.get(end + 1..end + 21)?)?;
        entries.push(Entry { kind: EntryKind::of_mode(mode)?, name: name[..end].to_vec(), id });
        rest = &name[end + 21..];
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_named_as_git_names_them() {
        // `git hash-object -t blob --stdin`, `git hash-object -t tree /dev/null`
        assert_eq!(ObjectId::of(Kind::Blob, b"hello\n").to_string(), "ce013625030ba8dba906f756967f9e9ca394464a");
        assert_eq!(ObjectId::of(Kind::Tree, b"").to_string(), "4b825dc642cb6eb9a060e54bf8d69288fbee4904");
    }

    #[test]
    fn what_is_no_object_is_none() {
        for text in [&b""[..], b"tree x\n", b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\ncommitter x\n"] {
            assert!(Commit::parse(text).is_none());
        }
        for text in [&b"100644"[..], b"100644 a\0", b"999999 a\0aaaaaaaaaaaaaaaaaaaa", b"100644 a"] {
            assert!(tree(text).is_none());
        }
        assert!(tagged(b"object 12").is_none());
    }
}
