//! A hash by which others know a file: SHA-256 of packages and wheels, npm's SHA-512, older SHA-1. Its length tells which.

use std::fmt;

use crate::derivation::HashAlgorithm;
use crate::digest::{StepKey, from_hex, to_hex};

/// The hash of a file's bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileHash(Vec<u8>);

impl FileHash {
    /// Of these bytes; none if no algorithm gives as many.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Option<Self> {
        let hash = Self(bytes.into());
        hash.find_algorithm().map(|_| hash)
    }

    /// As it is written: hexadecimal.
    pub fn parse(text: &str) -> Option<Self> {
        from_hex(text).and_then(Self::new)
    }

    /// Which hash it is.
    pub fn algorithm(&self) -> HashAlgorithm {
        self.find_algorithm().unwrap_or(HashAlgorithm::Sha256)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Under which key it is remembered which blob has it.
    pub(crate) fn key(&self) -> StepKey {
        StepKey::of(&[b"blob with ", self.algorithm().as_str().as_bytes(), b" ", &self.0].concat())
    }

    fn find_algorithm(&self) -> Option<HashAlgorithm> {
        match self.0.len() {
            20 => Some(HashAlgorithm::Sha1),
            32 => Some(HashAlgorithm::Sha256),
            64 => Some(HashAlgorithm::Sha512),
            _ => None,
        }
    }
}

impl From<[u8; 32]> for FileHash {
    /// A SHA-256.
    fn from(sha256: [u8; 32]) -> Self {
        Self(sha256.to_vec())
    }
}

impl fmt::Display for FileHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&to_hex(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_tells_the_algorithm() {
        for (length, algorithm) in
            [(20, Some("sha1")), (32, Some("sha256")), (64, Some("sha512")), (16, None), (0, None)]
        {
            let hash = FileHash::new(vec![7; length]);
            assert_eq!(hash.as_ref().map(|hash| hash.algorithm().as_str()), algorithm);
            if let Some(hash) = hash {
                assert_eq!(FileHash::parse(&hash.to_string()), Some(hash));
            }
        }
        assert_eq!(FileHash::parse("zz"), None);
    }
}
