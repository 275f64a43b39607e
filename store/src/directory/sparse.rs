//! Files with holes: where nothing was ever written, nothing is read from the disk and nothing written to it.
//!
//! Holes are no content: a file has the same id with them and without. Whatever is zero for long becomes a hole in the store, and so in
//! every checkout, wherever it came from.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::io::Errno;

/// So much of a file is read before it is asked for holes: most files are shorter.
const FIRST: u64 = 256 << 10;
/// What is zero in one piece of this length is left out. A multiple of every usual block of a file system.
const BLOCK: usize = 64 << 10;
static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// Reads a file from its beginning, holes as the zeros that they stand for.
pub(crate) struct Holes<'a> {
    file: &'a fs::File,
    position: u64,
    /// What lies there is to be read; before it is a hole.
    data: Range<u64>,
}

impl<'a> Holes<'a> {
    pub fn new(file: &'a fs::File) -> Self {
        Self { file, position: 0, data: 0..FIRST }
    }

    /// Finds the next data, or the end of the hole that the file ends with.
    fn look(&mut self) -> io::Result<()> {
        let at = self.position;
        self.data = match rustix::fs::seek(self.file, rustix::fs::SeekFrom::Data(at)) {
            Ok(start) => match rustix::fs::seek(self.file, rustix::fs::SeekFrom::Hole(start)) {
                Ok(end) if end > start => start..end,
                _ => start..u64::MAX,
            },
            // No data any more: a hole up to the end, or the end.
            Err(Errno::NXIO) => {
                let end = self.file.metadata()?.len().max(at);
                end..end
            }
            // A file system that knows of no holes.
            Err(_) => at..u64::MAX,
        };
        Ok(())
    }
}

impl Read for Holes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.data.end {
            self.look()?;
        }
        let count = if self.position < self.data.start {
            let count = (self.data.start - self.position).min(buffer.len() as u64) as usize;
            buffer[..count].fill(0);
            count
        } else {
            let most = (self.data.end - self.position).min(buffer.len() as u64) as usize;
            self.file.read_at(&mut buffer[..most], self.position)?
        };
        self.position += count as u64;
        Ok(count)
    }
}

/// Writes at the end of a new file, with holes for what is zero.
pub(crate) fn write(mut file: &fs::File, bytes: &[u8]) -> io::Result<()> {
    let is_zero = |block: &[u8]| *block == ZEROS[..block.len()] && block.len() == BLOCK;
    let mut rest = bytes;
    let mut hole = false;
    while !rest.is_empty() {
        hole = rest.chunks(BLOCK).next().is_some_and(is_zero);
        let length: usize = rest.chunks(BLOCK).take_while(|block| is_zero(block) == hole).map(<[u8]>::len).sum();
        let (run, behind) = rest.split_at(length);
        match hole {
            true => drop(file.seek(SeekFrom::Current(run.len() as i64))?),
            false => file.write_all(run)?,
        }
        rest = behind;
    }
    if hole {
        let end = file.stream_position()?;
        file.set_len(end)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::testing::world;
    use super::*;
    use crate::{BlobId, File, Metadata, Node};

    /// Blocks of data with holes of all kinds between: at the beginning, at the end, of one block, of many.
    fn pattern(blocks: &[Option<u8>], tail: &[u8]) -> Vec<u8> {
        let mut bytes: Vec<u8> = blocks.iter().flat_map(|block| vec![block.unwrap_or(0); BLOCK]).collect();
        bytes.extend(tail);
        bytes
    }

    #[test]
    fn what_was_written_with_holes_reads_back() {
        let one = Some(1);
        for (blocks, tail) in [
            (&[][..], &b""[..]),
            (&[], b"\0\0\0"),
            (&[None], b""),
            (&[None, None, one], b"\0"),
            (&[one, None, None, None, None, None, None, one, None], b""),
            (&[one, one, one, one, one, None], b"x"),
            (&[None, one, None, one, None, None, one, one], b"\0\0x"),
        ] {
            let bytes = pattern(blocks, tail);
            let file = tempfile::tempfile().unwrap();
            // In pieces that begin anywhere.
            for piece in bytes.chunks(3 * BLOCK + 17) {
                write(&file, piece).unwrap();
            }
            let mut read = Vec::new();
            Holes::new(&file).read_to_end(&mut read).unwrap();
            assert_eq!((file.metadata().unwrap().len(), read == bytes), (bytes.len() as u64, true), "{blocks:?}");
        }
    }

    #[test]
    fn a_large_sparse_file_stays_small_and_is_laid_out_with_its_holes() {
        let world = world();
        let sources = tempfile::tempdir().unwrap();
        // Larger than what is read at once, with some data in the middle and a hole at its end.
        let file = fs::File::create(sources.path().join("disk.img")).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"boot", 0).unwrap();
        file.write_all_at(b"middle", 33 << 20).unwrap();
        let room = |file: &fs::File| file.metadata().unwrap().blocks() * 512;
        if room(&file) > 1 << 20 {
            eprintln!("skipped: no holes on this file system");
            return;
        }
        let mut bytes = vec![0; 64 << 20];
        bytes[..4].copy_from_slice(b"boot");
        bytes[33 << 20..][..6].copy_from_slice(b"middle");
        let Node::Directory(id) = world.store.ingest_source(sources.path(), None).unwrap() else { panic!() };
        let blob = BlobId::of(&bytes);
        assert!(room(&world.store.open_blob(blob).unwrap()) < 1 << 20);
        assert!(world.store.verify().unwrap().is_empty());
        // The same from bytes that know of no holes, of another length.
        let (again, _) = world.store.put_blob_from(&mut &bytes[..63 << 20], false).unwrap();
        assert!(room(&world.store.open_blob(again).unwrap()) < 1 << 20);
        assert!(!world.store.tree(id).unwrap().entries.is_empty());
        // A copy for another mode has them, too.
        let odd = Metadata { mode: 0o600, ..Metadata::root(0o600) };
        let copy = tempfile::tempfile().unwrap();
        world.store.copy_blob(&File { blob, size: 64 << 20, metadata: odd }, &copy).unwrap();
        assert!(room(&copy) < 1 << 20 && copy.metadata().unwrap().len() == 64 << 20);
    }
}
