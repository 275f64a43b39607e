//! A Nix archive, read: its files, directories and symlinks come into the store as they stream, hashed on the way.
//!
//! Only the one canonical form is taken: entries in order and each once, padding of zeros, nothing after the end. Everything is
//! root's, modes 0444 and 0555, as in a store of Nix's.

use std::collections::BTreeMap;
use std::io::{self, Read};

use sha2::{Digest, Sha256};

use crate::nix::nar::DEEPEST;
use crate::{Error, File, Metadata, Name, Node, Result, Store, Tree};

/// Words and names are short; targets of symlinks are at most a page.
const LONGEST_STRING: u64 = 4096;
/// Of one archive. What a directory has is held in memory until it is whole.
const MOST_ENTRIES: u64 = 5_000_000;

/// What an archive held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// What lies at the top; it is in the store.
    pub node: Node,
    /// SHA-256 of the archive.
    pub nar_hash: [u8; 32],
    /// Bytes of the archive.
    pub nar_size: u64,
}

/// Takes an archive of at most `most` bytes into the store. `from` is for messages.
pub fn unpack(store: &Store, reader: &mut dyn Read, most: u64, from: &str) -> Result<Unpacked> {
    let mut archive =
        Reading { store, from, source: Counted { reader, left: most, hasher: Sha256::new(), read: 0 }, entries: 0 };
    archive.expect(b"nix-archive-1")?;
    let node = archive.node(0)?;
    let mut end = [0];
    match archive.source.read(&mut end) {
        Ok(0) => {}
        Ok(_) => return Err(archive.bad("something follows its end")),
        Err(error) => return Err(archive.unreadable(&error)),
    }
    let Counted { hasher, read, .. } = archive.source;
    Ok(Unpacked { node, nar_hash: hasher.finalize().into(), nar_size: read })
}

/// Hashes and bounds what is read.
struct Counted<'a> {
    reader: &'a mut dyn Read,
    left: u64,
    hasher: Sha256,
    read: u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        if count as u64 > self.left {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is longer than was announced"));
        }
        self.left -= count as u64;
        self.read += count as u64;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

struct Reading<'a> {
    store: &'a Store,
    from: &'a str,
    source: Counted<'a>,
    entries: u64,
}

impl Reading<'_> {
    fn bad(&self, reason: impl Into<String>) -> Error {
        Error::Archive { from: self.from.to_owned(), format: "Nix", reason: reason.into() }
    }

    fn unreadable(&self, error: &io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.bad("it is cut short"),
            _ => self.bad(error.to_string()),
        }
    }

    fn exactly(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.source.read_exact(buffer).map_err(|error| self.unreadable(&error))
    }

    fn number(&mut self) -> Result<u64> {
        let mut bytes = [0; 8];
        self.exactly(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn padding(&mut self, length: u64) -> Result<()> {
        let mut bytes = [0; 7];
        let bytes = &mut bytes[..(length.wrapping_neg() % 8) as usize];
        self.exactly(bytes)?;
        match bytes.iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(self.bad("its padding is not of zeros")),
        }
    }

    fn string(&mut self) -> Result<Vec<u8>> {
        let length = self.number()?;
        if length > LONGEST_STRING {
            return Err(self.bad(format!("a word or name in it has {length} bytes")));
        }
        let mut bytes = vec![0; length as usize];
        self.exactly(&mut bytes)?;
        self.padding(length)?;
        Ok(bytes)
    }

    fn expect(&mut self, word: &[u8]) -> Result<()> {
        match self.string()? {
            found if found == word => Ok(()),
            found => {
                let (found, word) = (found.escape_ascii().to_string(), word.escape_ascii().to_string());
                Err(self.bad(format!("it has `{found}` where `{word}` is expected")))
            }
        }
    }

    /// `DEEPEST` bounds the recursion.
    fn node(&mut self, depth: usize) -> Result<Node> {
        if depth >= DEEPEST {
            return Err(self.bad("its directories nest too deep"));
        }
        self.entries += 1;
        if self.entries > MOST_ENTRIES {
            return Err(self.bad("it has too many entries"));
        }
        self.expect(b"(")?;
        self.expect(b"type")?;
        let kind = self.string()?;
        match kind.as_slice() {
            b"regular" => self.file(),
            b"symlink" => {
                self.expect(b"target")?;
                let target = self.string()?;
                if target.is_empty() || target.contains(&0) {
                    return Err(self.bad("a symlink in it leads nowhere"));
                }
                self.expect(b")")?;
                Ok(Node::Symlink { target, uid: 0, gid: 0 })
            }
            b"directory" => self.directory(depth),
            _ => Err(self.bad(format!("it has an entry of kind `{}`", kind.escape_ascii()))),
        }
    }

    fn file(&mut self) -> Result<Node> {
        let mut word = self.string()?;
        let executable = word == b"executable";
        if executable {
            self.expect(b"")?;
            word = self.string()?;
        }
        if word != b"contents" {
            return Err(self.bad(format!("a file in it has `{}`", word.escape_ascii())));
        }
        let size = self.number()?;
        if size > self.source.left {
            return Err(self.bad("a file in it is longer than all of it"));
        }
        let mut content = (&mut self.source).take(size);
        let (blob, read) = self.store.put_blob_from(&mut content, executable)?;
        if read != size {
            return Err(self.bad("it is cut short"));
        }
        self.padding(size)?;
        self.expect(b")")?;
        Ok(Node::File(File { blob, size, metadata: Metadata::root(if executable { 0o555 } else { 0o444 }) }))
    }

    fn directory(&mut self, depth: usize) -> Result<Node> {
        let mut entries: BTreeMap<Name, Node> = BTreeMap::new();
        loop {
            let word = self.string()?;
            match word.as_slice() {
                b")" => break,
                b"entry" => {}
                _ => return Err(self.bad(format!("a directory in it has `{}`", word.escape_ascii()))),
            }
            self.expect(b"(")?;
            self.expect(b"name")?;
            let name = self.string()?;
            let shown = name.escape_ascii().to_string();
            let name = Name::new(&name[..]).map_err(|_| self.bad(format!("`{shown}` is no name")))?;
            if entries.last_key_value().is_some_and(|(last, _)| *last >= name) {
                return Err(self.bad(format!("`{shown}` is out of order, or there twice")));
            }
            self.expect(b"node")?;
            let node = self.node(depth + 1)?;
            self.expect(b")")?;
            entries.insert(name, node);
        }
        Ok(Node::Directory(self.store.put_tree(&Tree { metadata: Metadata::root(0o555), entries })?))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use proptest::prelude::*;

    use super::*;
    use crate::nix::nar::{Disk, archive};

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("store")).unwrap();
        (directory, store)
    }

    /// An archive with one of everything.
    fn bytes(directory: &std::path::Path) -> Vec<u8> {
        let top = directory.join("t");
        fs::create_dir_all(top.join("sub/empty")).unwrap();
        for length in [0, 1, 7, 8, 9, 70_000] {
            fs::write(top.join(format!("sub/{length}")), vec![b'x'; length]).unwrap();
        }
        fs::write(top.join("exe"), "x").unwrap();
        fs::set_permissions(top.join("exe"), fs::Permissions::from_mode(0o700)).unwrap();
        symlink("/nowhere", top.join("link")).unwrap();
        let mut bytes = Vec::new();
        archive(&Disk, &top, &mut |_, _| Ok(true), &mut |part| bytes.extend_from_slice(part)).unwrap();
        bytes
    }

    fn read(store: &Store, bytes: &[u8]) -> Result<Unpacked> {
        unpack(store, &mut &bytes[..], 1 << 20, "test")
    }

    #[test]
    fn an_archive_reads_back_to_the_same_bytes() {
        let (directory, store) = store();
        let bytes = bytes(directory.path());
        let unpacked = read(&store, &bytes).unwrap();
        let mut again = Vec::new();
        let write = &mut |part: &[u8]| {
            again.extend_from_slice(part);
            Ok(())
        };
        store.write_nar(&unpacked.node, write).unwrap();
        assert!(again == bytes);
        assert_eq!(unpacked.nar_size, bytes.len() as u64);
        assert_eq!(unpacked.nar_hash, <[u8; 32]>::from(Sha256::digest(&bytes)));
    }

    #[test]
    fn no_other_form_is_taken() {
        let (directory, store) = store();
        let bytes = bytes(directory.path());
        for length in [0, 1, 8, 100, bytes.len() - 8, bytes.len() - 1] {
            assert!(read(&store, &bytes[..length]).is_err(), "{length}");
        }
        assert!(read(&store, &[&bytes[..], b"x"].concat()).is_err());
        assert!(unpack(&store, &mut &bytes[..], bytes.len() as u64 - 1, "test").is_err());
        let word = |text: &[u8]| {
            let mut word = (text.len() as u64).to_le_bytes().to_vec();
            word.extend_from_slice(text);
            word.resize(word.len().next_multiple_of(8), 0);
            word
        };
        let words = |texts: &[&[u8]]| texts.iter().flat_map(|text| word(text)).collect::<Vec<u8>>();
        let link: &[&[u8]] = &[b"(", b"type", b"symlink", b"target", b"x", b")"];
        let directory = |names: &[&[u8]]| {
            let mut all = words(&[b"nix-archive-1", b"(", b"type", b"directory"]);
            for name in names {
                all.extend(words(&[b"entry", b"(", b"name", name, b"node"]));
                all.extend(words(link));
                all.extend(words(&[b")"]));
            }
            all.extend(words(&[b")"]));
            all
        };
        assert!(read(&store, &directory(&[b"a", b"b"])).is_ok());
        for names in [&[&b"b"[..], b"a"][..], &[b"a", b"a"], &[b".."], &[b"a/b"], &[b""], &[b"."], &[b"a\0"]] {
            assert!(read(&store, &directory(names)).is_err(), "{names:?}");
        }
        // A file that says it has 2^60 bytes; a word of that length; directories in directories.
        let mut huge = words(&[b"nix-archive-1", b"(", b"type", b"regular", b"contents"]);
        huge.extend((1u64 << 60).to_le_bytes());
        assert!(read(&store, &huge).is_err());
        assert!(read(&store, &(1u64 << 60).to_le_bytes()).is_err());
        let mut deep = words(&[b"nix-archive-1"]);
        for _ in 0..=DEEPEST {
            deep.extend(words(&[b"(", b"type", b"directory", b"entry", b"(", b"name", b"d", b"node"]));
        }
        assert!(read(&store, &deep).unwrap_err().to_string().contains("too deep"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn what_reads_writes_the_same_bytes(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..3)) {
            let (directory, store) = store();
            let mut bytes = bytes(directory.path());
            // In the small entries at the end, where structure is dense.
            let end = bytes.len() - 1400;
            for (index, byte) in changes {
                let at = if byte & 1 == 0 { index.index(1200) } else { end + index.index(1400) };
                bytes[at] = byte;
            }
            if let Ok(unpacked) = read(&store, &bytes) {
                prop_assert_eq!(unpacked.nar_hash, <[u8; 32]>::from(Sha256::digest(&bytes)));
            }
        }
    }
}
