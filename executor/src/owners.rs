//! Who owns what cannot carry a mark: the file `owners` beside a kept upper layer.
//!
//! Files and directories of a build step carry their owner in an extended attribute; symbolic links and named pipes cannot.
//! What is not listed belongs to 0:0. The file is read before the step (what the layers below have) and written after it:
//!
//! ```text
//! file   = record*
//! record = UID ":" GID " " KIND " " PATH NUL      in decimal; KIND is one letter; PATH is relative to the root, without
//!                                                 slash at either end, and may hold any byte but NUL; sorted by PATH
//! ```

use std::collections::BTreeMap;

/// What kind of file an entry is about: a path that has become something else since is not what was meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `l`: a symbolic link.
    Symlink,
    /// `p`: a named pipe.
    Fifo,
    /// `s`: a socket.
    Socket,
    /// `d`: a directory on a file system without attributes.
    Directory,
    /// `f`: a regular file on a file system without attributes.
    File,
}

impl Kind {
    const ALL: [(Self, u8); 5] =
        [(Self::Symlink, b'l'), (Self::Fifo, b'p'), (Self::Socket, b's'), (Self::Directory, b'd'), (Self::File, b'f')];
}

/// An owner, and of what kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Of what.
    pub kind: Kind,
}

/// The table, by path relative to the root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owners(pub BTreeMap<Vec<u8>, Entry>);

/// Bytes that are not such a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {record} of the table of owners is damaged")]
pub struct OwnersError {
    /// Which one, from 0.
    pub record: usize,
}

impl Owners {
    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (path, Entry { uid, gid, kind }) in &self.0 {
            let letter = Kind::ALL.iter().find(|(known, _)| known == kind).map_or(b'f', |(_, letter)| *letter);
            bytes.extend_from_slice(format!("{uid}:{gid} {} ", char::from(letter)).as_bytes());
            bytes.extend_from_slice(path);
            bytes.push(0);
        }
        bytes
    }

    /// Reads the file.
    pub fn parse(bytes: &[u8]) -> Result<Self, OwnersError> {
        let Some(bytes) = bytes.strip_suffix(b"\0") else {
            return if bytes.is_empty() { Ok(Self::default()) } else { Err(OwnersError { record: 0 }) };
        };
        let parse = |(record, bytes): (usize, &[u8])| parse_record(bytes).ok_or(OwnersError { record });
        Ok(Self(bytes.split(|byte| *byte == 0).enumerate().map(parse).collect::<Result<_, _>>()?))
    }
}

fn parse_record(bytes: &[u8]) -> Option<(Vec<u8>, Entry)> {
    let mut parts = bytes.splitn(3, |byte| *byte == b' ');
    let (uid, gid) = std::str::from_utf8(parts.next()?).ok()?.split_once(':')?;
    let &[letter] = parts.next()? else { return None };
    let (kind, _) = *Kind::ALL.iter().find(|(_, known)| *known == letter)?;
    let path = parts.next().filter(|path| !path.is_empty())?;
    Some((path.to_vec(), Entry { uid: uid.parse().ok()?, gid: gid.parse().ok()?, kind }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_survives_being_written_whatever_the_names() {
        let entry = |uid, kind| Entry { uid, gid: 7, kind };
        let table = Owners(BTreeMap::from([
            (b"a b\nc".to_vec(), entry(0, Kind::Symlink)),
            (b"a/\xff l".to_vec(), entry(u32::MAX - 1, Kind::Fifo)),
        ]));
        assert_eq!(Owners::parse(&table.encode()), Ok(table));
        assert_eq!(Owners::parse(b""), Ok(Owners::default()));
    }

    #[test]
    fn damage_is_an_error() {
        for bad in
            [&b"0:0 l a"[..], b"\0", b"0:0 l \0", b"0 l a\0", b"0:x l a\0", b"0:0 q a\0", b"0:0 ll a\0", b"-1:0 l a\0"]
        {
            assert!(Owners::parse(bad).is_err(), "{bad:?}");
        }
    }
}
