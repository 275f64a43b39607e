//! Reads what the kernel says in small files (/proc, control groups): three calls, where the standard library also asks for a size
//! that is always 0, and then reads in small pieces.

use std::io;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

/// More than a page, which is what most such files give at a time.
const PIECE: usize = 8 * 1024;

/// The whole of a small file.
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(CWD, path.as_ref(), flags, Mode::empty())?;
    let mut bytes = Vec::with_capacity(PIECE);
    loop {
        // What is no longer than a page leaves room enough for being told that it has ended.
        bytes.reserve(PIECE / 2);
        match rustix::io::read(&file, rustix::buffer::spare_capacity(&mut bytes)) {
            Ok(0) => return Ok(bytes),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The same as text; what is no text is replaced.
pub fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    let bytes = read(path)?;
    Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Writes to a file that is there, at one go.
pub fn write(path: impl AsRef<Path>, text: &str) -> io::Result<()> {
    let file = rustix::fs::openat(CWD, path.as_ref(), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    let length = rustix::io::retry_on_intr(|| rustix::io::write(&file, text.as_bytes()))?;
    if length == text.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_file_is_read_however_long() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE] {
            std::fs::write(&path, vec![b'x'; length]).unwrap();
            assert_eq!(read(&path).unwrap().len(), length);
        }
        assert!(read(directory.path().join("absent")).is_err());
        std::fs::write(&path, b"a\xffb").unwrap();
        assert_eq!(read_text(&path).unwrap(), "a\u{fffd}b");
        write(&path, "0").unwrap();
        assert_eq!(read(&path).unwrap(), b"0\xffb");
    }
}
