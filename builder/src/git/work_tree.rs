//! A work tree with changes that are not committed: the files that git's index names (gitformat-index(5)), as they are on disk.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::object::{EntryKind, Kind, ObjectId, tree};
use super::pack::{LARGEST, bad};
use super::repository::Repository;

/// Files by path, and what they are.
pub type Files = BTreeMap<Vec<u8>, (EntryKind, ObjectId)>;

/// The files that a commit's tree has.
pub fn committed(repository: &Repository, id: ObjectId) -> io::Result<Files> {
    let mut files = Files::new();
    let mut waiting = vec![(Vec::new(), id)];
    while let Some((path, id)) = waiting.pop() {
        let content = repository.wanted(id, Kind::Tree)?;
        for entry in tree(&content).ok_or_else(|| bad(format!("tree {id} is damaged")))? {
            let mut path: Vec<u8> = path.clone();
            path.extend_from_slice(&entry.name);
            if entry.kind == EntryKind::Directory {
                path.push(b'/');
                if path.len() > 4096 {
                    return Err(bad("its directories nest too deep"));
                }
                waiting.push((path, entry.id));
            } else {
                files.insert(path, (entry.kind, entry.id));
            }
        }
    }
    Ok(files)
}

/// The files that the index has; nothing is read of what is on disk.
pub fn staged(repository: &Repository) -> io::Result<Files> {
    let mut bytes = Vec::new();
    match fs::File::open(repository.directory.join("index")) {
        Ok(file) => _ = file.take(LARGEST).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Files::new()),
        Err(error) => return Err(error),
    }
    read_index(&bytes)
}

fn read_index(bytes: &[u8]) -> io::Result<Files> {
    let damaged = || bad("the index is damaged");
    let number = |at: usize| -> io::Result<u32> {
        let bytes = bytes.get(at..at + 4).ok_or_else(damaged)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    };
    let version = number(4)?;
    if !bytes.starts_with(b"DIRC") || !(2..=4).contains(&version) {
        return Err(bad("the index is of a version that is not known"));
    }
    let count = number(8)?;
    let (mut files, mut at, mut last) = (Files::new(), 12, Vec::new());
    for _ in 0..count {
        let mode = number(at + 24)?;
        let id = ObjectId::from_bytes(bytes.get(at + 40..at + 60).ok_or_else(damaged)?).ok_or_else(damaged)?;
        let flags = number(at + 58)? as u16;
        let mut name = at + 62;
        if flags & 0x4000 != 0 {
            if version < 3 {
                return Err(damaged());
            }
            name += 2;
        }
        let rest = bytes.get(name..).ok_or_else(damaged)?;
        let path = if version == 4 {
            // As in a pack: how much of the path before does not stay.
            let (mut cut, mut used) = (0_usize, 0);
            loop {
                let byte = *rest.get(used).filter(|_| used < 5).ok_or_else(damaged)?;
                cut = if used == 0 { 0 } else { cut + 1 } << 7 | usize::from(byte & 0x7f);
                used += 1;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let rest = &rest[used..];
            let end = rest.iter().position(|byte| *byte == 0).ok_or_else(damaged)?;
            let kept = last.len().checked_sub(cut).ok_or_else(damaged)?;
            at = name + used + end + 1;
            [&last[..kept], &rest[..end]].concat()
        } else {
            let end = rest.iter().position(|byte| *byte == 0).ok_or_else(damaged)?;
            // One to eight zeros, so that the entry's length is a multiple of eight.
            at += (name - at + end + 8) & !7;
            rest[..end].to_vec()
        };
        last.clone_from(&path);
        // Of a merge that is not finished there are several; the user's own counts.
        let kind = EntryKind::of_mode(mode).ok_or_else(damaged)?;
        if kind == EntryKind::Directory {
            return Err(bad("its index is sparse, which is not read"));
        }
        files.insert(path, (kind, id));
    }
    // A split index has the rest of its entries in another file.
    let mut extension = at;
    while let Some(name) = bytes.get(extension..extension + 4).filter(|_| extension + 28 <= bytes.len()) {
        if name == b"link" {
            return Err(bad("its index is split, which is not read"));
        }
        extension = extension.saturating_add(8).saturating_add(number(extension + 4)? as usize);
    }
    Ok(files)
}

/// What lies at a path of the work tree: a file or symlink and its content. None if there is nothing, or something else.
pub fn on_disk(top: &Path, path: &[u8]) -> io::Result<Option<(EntryKind, Vec<u8>)>> {
    // No symlink on the way is followed: what git tracks lies in directories.
    let mut place = top.to_owned();
    let mut parts = path.split(|byte| *byte == b'/').peekable();
    while let Some(part) = parts.next() {
        if matches!(part, b"" | b"." | b".." | b".git") {
            return Err(bad("a path of the index leads out"));
        }
        place.push(std::ffi::OsStr::from_bytes(part));
        if parts.peek().is_some() && !fs::symlink_metadata(&place).is_ok_and(|metadata| metadata.is_dir()) {
            return Ok(None);
        }
    }
    let metadata = match fs::symlink_metadata(&place) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if metadata.is_symlink() {
        return Ok(Some((EntryKind::Symlink, fs::read_link(&place)?.into_os_string().into_vec())));
    }
    if !metadata.is_file() {
        return Ok(None);
    }
    let kind = if metadata.permissions().mode() & 0o100 != 0 { EntryKind::Executable } else { EntryKind::File };
    let mut content = Vec::new();
    fs::File::open(&place)?.take(LARGEST).read_to_end(&mut content)?;
    Ok(Some((kind, content)))
}

/// Whether what is on disk differs from a commit's files.
pub fn is_dirty(top: &Path, committed: &Files, staged: &Files) -> io::Result<bool> {
    if committed != staged {
        return Ok(true);
    }
    for (path, (kind, id)) in staged.iter().filter(|(_, (kind, _))| *kind != EntryKind::Submodule) {
        match on_disk(top, path)? {
            Some((found, content)) if found == *kind && ObjectId::of(Kind::Blob, &content) == *id => {}
            _ => return Ok(true),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_is_none_is_an_error() {
        assert!(read_index(b"").is_err());
        assert!(read_index(b"DIRC\0\0\0\x09\0\0\0\0").is_err());
        assert!(read_index(b"DIRC\0\0\0\x02\0\0\0\0").is_ok());
        assert!(read_index(b"DIRC\0\0\0\x02\xff\xff\xff\xff").is_err());
        for version in 2..=4 {
            for length in 0..90 {
                let bytes = [&b"DIRC\0\0\0"[..], &[version], b"\0\0\0\x01", &vec![0x81; length]].concat();
                let _ = read_index(&bytes);
            }
        }
    }
}
