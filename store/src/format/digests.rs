//! The digests of an artifact file, both taken in one pass over it.

use std::fs::File;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

use super::write_failed;
use crate::{ArtifactId, Result};

/// By which others know an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digests {
    /// BLAKE3: how forge names it.
    pub artifact: ArtifactId,
    /// SHA-256: how registries and most tools do.
    pub sha256: [u8; 32],
}

/// How much is read at a time: it stays in a processor's cache while it is hashed twice.
const PART: usize = 128 * 1024;

impl Digests {
    /// Reads the file from its beginning to its end.
    pub fn of(file: &File) -> Result<Self> {
        let mut blake3 = blake3::Hasher::new();
        let mut sha256 = Sha256::new();
        let (mut now, mut next) = (vec![0; PART], vec![0; PART]);
        let mut filled = read_at(file, &mut now, 0)?;
        let mut position = filled as u64;
        while filled > 0 {
            let bytes = &now[..filled];
            // SHA-256 takes longer than the other hash and reading together; with one thread they follow one another.
            let ((), read) = rayon::join(
                || sha256.update(bytes),
                || {
                    blake3.update(bytes);
                    read_at(file, &mut next, position)
                },
            );
            filled = read?;
            position += filled as u64;
            std::mem::swap(&mut now, &mut next);
        }
        let artifact = ArtifactId::from_bytes(*blake3.finalize().as_bytes());
        Ok(Self { artifact, sha256: sha256.finalize().into() })
    }
}

/// Fills the buffer, unless the file ends.
fn read_at(file: &File, buffer: &mut [u8], position: u64) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], position + filled as u64) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(write_failed(error)),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn both_digests_are_those_of_the_whole_file() {
        // Nothing; less than a part; a part; one byte more; several.
        for length in [0, 1, PART, PART + 1, 3 * PART + 7] {
            let content: Vec<u8> = (0..length).map(|number| ((number * 7) >> 3) as u8).collect();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&content).unwrap();
            let digests = Digests::of(&file).unwrap();
            assert_eq!(digests.artifact.as_bytes(), blake3::hash(&content).as_bytes());
            assert_eq!(digests.sha256, <[u8; 32]>::from(Sha256::digest(&content)));
        }
    }
}
