//! Archives of sources (`.tar` however compressed, `.zip`) as trees of the store, in the shape that Nix gives them.
//!
//! Nothing in an archive is believed. A name that leads out, or through a symlink, is refused; so are fifos and devices, and
//! archives that are larger unpacked than anything honest. Of modes only the owner's execute bit is kept. Of an archive
//! that holds exactly one directory it is that directory that counts.

use std::io::{BufReader, Read};

use store::format::tar::read::{Archive, Entry, Kind};
use store::format::tar::unpack::Unpacker;
use store::format::{Bounds, Growing, Links, unpacked};
use store::nix::nar::DEEPEST;
use store::{BlobId, File, Metadata, Node, RelativePath, Store, TreeId};

use crate::{Builder, Error, Result};

/// The longest symlink target. Linux takes no longer one (`PATH_MAX`).
const LONGEST_TARGET: u64 = 4096;

/// What an archive holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpacked {
    /// Its files.
    pub tree: TreeId,
    /// The latest time of any entry, in seconds since 1970.
    pub modified: i64,
}

/// Unpacks an archive. `name` is for people.
pub fn unpack(builder: &Builder<'_>, archive: BlobId, name: &str) -> Result<Unpacked> {
    let mut file = builder.store.open_blob(archive)?;
    let size = file.metadata().map_err(Error::file("look at", builder.store.path()))?.len();
    let bounds = Bounds { depth: DEEPEST, ..Bounds::for_size(size) };
    let mut head = [0; 4];
    let length = read_full(&mut file, &mut head).map_err(Error::file("read", builder.store.path()))?;
    std::io::Seek::rewind(&mut file).map_err(Error::file("read", builder.store.path()))?;
    let (growing, modified) = match &head[..length] {
        b"PK\x03\x04" | b"PK\x05\x06" => zip(builder, file, name, bounds)?,
        _ => tar(builder, file, name, bounds)?,
    };
    let tree = growing.finish(builder.store)?;
    Ok(Unpacked { tree: only_directory(builder.store, tree)?, modified })
}

/// The one directory that a tree consists of, or the tree itself.
fn only_directory(store: &Store, id: TreeId) -> Result<TreeId> {
    let tree = store.tree(id)?;
    let mut nodes = tree.entries.values();
    Ok(match (nodes.next(), nodes.next()) {
        (Some(Node::Directory(only)), None) => *only,
        _ => id,
    })
}

fn read_full(reader: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match reader.read(&mut buffer[length..])? {
            0 => break,
            count => length += count,
        }
    }
    Ok(length)
}

fn bad(name: &str, reason: impl Into<String>) -> Error {
    Error::Invalid { what: "archive", name: name.to_owned(), reason: reason.into() }
}

fn tar(builder: &Builder<'_>, file: std::fs::File, name: &str, bounds: Bounds) -> Result<(Growing, i64)> {
    let store = builder.store;
    let (_, reader) = unpacked(file).map_err(|error| bad(name, error.to_string()))?;
    let mut archive = Archive::new(BufReader::with_capacity(64 * 1024, reader));
    let mut unpacker = Unpacker::new(store, name, &bounds, Growing::new(Links::Refuse));
    let mut modified = 0;
    while let Some(entry) = archive.next().map_err(|problem| unpacker.problem(problem))? {
        builder.check_interrupt()?;
        modified = modified.max(entry.modified);
        let mode = match entry.kind {
            Kind::Directory => 0o755,
            Kind::File if entry.mode & 0o100 != 0 => 0o755,
            Kind::File => 0o644,
            Kind::HardLink | Kind::Symlink => 0o777,
            Kind::Other(b'V') => continue,
            _ => {
                let path = String::from_utf8_lossy(&entry.path).into_owned();
                return Err(bad(name, format!("`{path}` is neither file, directory nor link")));
            }
        };
        // The archive's root may have an entry of its own.
        if entry.path.iter().all(|byte| matches!(byte, b'.' | b'/')) && entry.kind == Kind::Directory {
            continue;
        }
        let attributes = Default::default();
        unpacker.entry(&mut archive, Entry { mode, uid: 0, gid: 0, attributes, ..entry })?;
    }
    Ok((unpacker.finish()?.0, modified))
}

fn zip(builder: &Builder<'_>, file: std::fs::File, name: &str, mut bounds: Bounds) -> Result<(Growing, i64)> {
    let store = builder.store;
    let wrong = |error: zip::result::ZipError| bad(name, error.to_string());
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(wrong)?;
    if archive.has_overlapping_files().map_err(wrong)? {
        return Err(bad(name, "its entries overlap"));
    }
    let (mut growing, mut modified) = (Growing::new(Links::Refuse), 0);
    for index in 0..archive.len() {
        builder.check_interrupt()?;
        let mut entry = archive.by_index(index).map_err(wrong)?;
        let path = entry.name_raw().to_vec();
        let shown = String::from_utf8_lossy(&path).into_owned();
        let parsed = RelativePath::parse(&path).map_err(|error| bad(name, error.to_string()))?;
        let within = bounds.take(entry.size(), parsed.0.len());
        within.map_err(|reason| bad(name, format!("`{shown}`: {reason}")))?;
        modified = modified.max(entry.last_modified().map_or(0, |time| seconds(&time)));
        let mode = entry.unix_mode().unwrap_or(0o644);
        if entry.encrypted() {
            return Err(bad(name, format!("`{shown}` is encrypted")));
        }
        let put = if entry.is_dir() {
            if parsed.0.is_empty() {
                continue;
            }
            growing.put_directory(&parsed, Metadata::root(0o755))
        } else if mode & 0o170000 == 0o120000 {
            let mut target = Vec::new();
            let read = entry.by_ref().take(LONGEST_TARGET + 1).read_to_end(&mut target);
            read.map_err(|error| bad(name, error.to_string()))?;
            if target.is_empty() || target.contains(&0) || target.len() as u64 > LONGEST_TARGET {
                return Err(bad(name, format!("`{shown}` leads to no path")));
            }
            growing.put(&parsed, Node::Symlink { target, uid: 0, gid: 0 })
        } else if matches!(mode & 0o170000, 0 | 0o100000) {
            let executable = mode & 0o100 != 0;
            let announced = entry.size();
            let mut content = entry.by_ref().take(announced.saturating_add(1));
            let (blob, size) = store.put_blob_from(&mut content, executable)?;
            if size != announced {
                return Err(bad(name, format!("`{shown}` has another size than it says")));
            }
            let metadata = Metadata::root(if executable { 0o755 } else { 0o644 });
            growing.put(&parsed, Node::File(File { blob, size, metadata }))
        } else {
            Err("it is neither file, directory nor link")
        };
        put.map_err(|reason| bad(name, format!("`{shown}`: {reason}")))?;
    }
    Ok((growing, modified))
}

/// A time of a zip archive, which says no zone, taken as universal.
fn seconds(time: &zip::DateTime) -> i64 {
    let (year, month) = (i64::from(time.year()), i64::from(time.month()));
    // Days since 1970-01-01: the year begins in March, so that the leap day is its last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + i64::from(time.day()) - 719_469;
    ((days * 24 + i64::from(time.hour())) * 60 + i64::from(time.minute())) * 60 + i64::from(time.second())
}

#[cfg(test)]
mod tests;
