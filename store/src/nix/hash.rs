//! Hashes as Nix knows them: which functions, how they are written, and how a text is read as one.
//!
//! Nix's base 32 leaves out `e o u t`, and writes the last byte first. Reading is lenient where Nix is lenient: base 64 stops
//! at the first `=`, skips line ends and wants no padding.

use std::fmt;
use std::io;

pub use crate::derivation::HashAlgorithm;
use crate::digest::to_hex;
use sha2::Digest;

/// Digits of Nix's base 32.
const NIX32_DIGITS: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";
const BASE64_DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// How a hash is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashFormat {
    /// Hexadecimal.
    Base16,
    /// Nix's own base 32.
    Nix32,
    /// Base 64 with padding.
    Base64,
    /// `ALGORITHM-BASE64`, as browsers write it.
    Sri,
}

impl HashFormat {
    /// Reads the name of a format; `base32` is the old name of `nix32`.
    pub fn parse(name: &[u8]) -> Result<Self, HashError> {
        match name {
            b"base16" => Ok(Self::Base16),
            b"nix32" | b"base32" => Ok(Self::Nix32),
            b"base64" => Ok(Self::Base64),
            b"sri" => Ok(Self::Sri),
            _ => Err(HashError::UnknownFormat { name: lossy(name) }),
        }
    }
}

/// Why a text is not a hash. The words are Nix's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// No such function.
    #[error("unknown hash algorithm '{name}', expect 'blake3', 'md5', 'sha1', 'sha256', or 'sha512'")]
    UnknownAlgorithm {
        /// What was given.
        name: String,
    },
    /// BLAKE3 is not part of the language as it is by default.
    #[error(
        "experimental Nix feature 'blake3-hashes' is disabled; add '--extra-experimental-features blake3-hashes' to enable it"
    )]
    Blake3,
    /// No such format.
    #[error("unknown hash format '{name}', expect 'base16', 'base32', 'base64', or 'sri'")]
    UnknownFormat {
        /// What was given.
        name: String,
    },
    /// The text does not say which function, and nothing else does.
    #[error("hash '{text}' does not include a type, nor is the type otherwise known from context")]
    NoAlgorithm {
        /// What was given.
        text: String,
    },
    /// The text names another function than was asked for.
    #[error("hash '{text}' should have type '{}'", expected.as_str())]
    OtherAlgorithm {
        /// What was given.
        text: String,
        /// What was asked for.
        expected: HashAlgorithm,
    },
    /// No format of this function has this length.
    #[error("hash '{text}' has wrong length for hash algorithm '{}'", algorithm.as_str())]
    WrongLength {
        /// What was given, without the name of the function.
        text: String,
        /// Which function.
        algorithm: HashAlgorithm,
    },
    /// The digits do not stand for as many bytes as the function gives.
    #[error("invalid {format} hash '{text}', length {actual} != expected length {expected}")]
    Digits {
        /// The format as Nix calls it here.
        format: &'static str,
        /// What was given, without the name of the function.
        text: String,
        /// Bytes that were read; 0 if a character is no digit.
        actual: usize,
        /// Bytes that the function gives.
        expected: usize,
    },
    /// An empty text stands for a hash of zeros only where the function is known.
    #[error("empty hash requires explicit hash algorithm")]
    Empty,
}

/// Reads the name of a hash function.
pub fn parse_algorithm(name: &[u8]) -> Result<HashAlgorithm, HashError> {
    match name {
        b"md5" => Ok(HashAlgorithm::Md5),
        b"sha1" => Ok(HashAlgorithm::Sha1),
        b"sha256" => Ok(HashAlgorithm::Sha256),
        b"sha512" => Ok(HashAlgorithm::Sha512),
        b"blake3" => Err(HashError::Blake3),
        _ => Err(HashError::UnknownAlgorithm { name: lossy(name) }),
    }
}

/// Bytes that a function gives.
pub const fn hash_size(algorithm: HashAlgorithm) -> usize {
    match algorithm {
        HashAlgorithm::Md5 => 16,
        HashAlgorithm::Sha1 => 20,
        HashAlgorithm::Sha256 => 32,
        HashAlgorithm::Sha512 => 64,
    }
}

/// A hash and the function that gave it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NixHash {
    algorithm: HashAlgorithm,
    bytes: Vec<u8>,
}

impl NixHash {
    /// The hash with these bytes, if they are as many as the function gives.
    pub fn from_bytes(algorithm: HashAlgorithm, bytes: Vec<u8>) -> Option<Self> {
        (bytes.len() == hash_size(algorithm)).then_some(Self { algorithm, bytes })
    }

    /// The hash of some bytes.
    pub fn of(algorithm: HashAlgorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Which function gave it.
    pub fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its bytes, taken.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Reads `ALGORITHM:DIGITS` (base 16, 32 or 64, told apart by length), `ALGORITHM-BASE64`, or digits alone where the
    /// function is known from elsewhere.
    pub fn parse(text: &[u8], expected: Option<HashAlgorithm>) -> Result<Self, HashError> {
        let separator = text.iter().position(|byte| *byte == b':').or(text.iter().position(|byte| *byte == b'-'));
        let (named, rest) = match separator {
            Some(at) => (Some(parse_algorithm(&text[..at])?), &text[at + 1..]),
            None => (None, text),
        };
        let algorithm = match (named, expected) {
            (None, None) => return Err(HashError::NoAlgorithm { text: lossy(text) }),
            (Some(named), Some(expected)) if named != expected => {
                return Err(HashError::OtherAlgorithm { text: lossy(text), expected });
            }
            (Some(algorithm), _) | (None, Some(algorithm)) => algorithm,
        };
        let is_sri = separator.is_some_and(|at| text[at] == b'-');
        let size = hash_size(algorithm);
        let (format, bytes) = if is_sri {
            ("SRI", from_base64(rest))
        } else if rest.len() == size * 2 {
            ("base16", from_base16(rest))
        } else if rest.len() == nix32_length(size) {
            ("nix32", from_nix32(rest))
        } else if rest.len() == size.div_ceil(3) * 4 {
            ("Base64", from_base64(rest))
        } else {
            return Err(HashError::WrongLength { text: lossy(rest), algorithm });
        };
        // A wrong digit leaves Nix with no bytes at all, and this is how it says so.
        let bytes = bytes.unwrap_or_default();
        let actual = bytes.len();
        Self::from_bytes(algorithm, bytes).ok_or(HashError::Digits {
            format,
            text: lossy(rest),
            actual,
            expected: size,
        })
    }

    /// Like [`NixHash::parse`], but an empty text is a hash of zeros, as `lib.fakeHash` has been spelled.
    pub fn parse_or_zeros(text: &[u8], expected: Option<HashAlgorithm>) -> Result<Self, HashError> {
        match (text, expected) {
            (b"", None) => Err(HashError::Empty),
            (b"", Some(algorithm)) => Ok(Self { algorithm, bytes: vec![0; hash_size(algorithm)] }),
            _ => Self::parse(text, expected),
        }
    }

    /// Written in a format; for others than SRI the name of the function and a colon go in front if wished for.
    pub fn to_text(&self, format: HashFormat, with_algorithm: bool) -> String {
        let name = self.algorithm.as_str();
        match format {
            HashFormat::Sri => format!("{name}-{}", to_base64(&self.bytes)),
            _ if with_algorithm => format!("{name}:{}", self.to_text(format, false)),
            HashFormat::Base16 => to_hex(&self.bytes),
            HashFormat::Nix32 => to_nix32(&self.bytes),
            HashFormat::Base64 => to_base64(&self.bytes),
        }
    }
}

impl fmt::Debug for NixHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.to_text(HashFormat::Base16, true))
    }
}

/// A hash in the making; bytes are written to it.
#[derive(Clone)]
pub enum Hasher {
    /// Of MD5.
    Md5(md5::Md5),
    /// Of SHA-1.
    Sha1(sha1::Sha1),
    /// Of SHA-256.
    Sha256(sha2::Sha256),
    /// Of SHA-512.
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// Of no bytes yet.
    pub fn new(algorithm: HashAlgorithm) -> Self {
        match algorithm {
            HashAlgorithm::Md5 => Self::Md5(md5::Md5::new()),
            HashAlgorithm::Sha1 => Self::Sha1(sha1::Sha1::new()),
            HashAlgorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            HashAlgorithm::Sha512 => Self::Sha512(sha2::Sha512::new()),
        }
    }

    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Md5(hasher) => hasher.update(bytes),
            Self::Sha1(hasher) => hasher.update(bytes),
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// The hash of all bytes taken.
    pub fn finish(self) -> NixHash {
        let (algorithm, bytes) = match self {
            Self::Md5(hasher) => (HashAlgorithm::Md5, hasher.finalize().to_vec()),
            Self::Sha1(hasher) => (HashAlgorithm::Sha1, hasher.finalize().to_vec()),
            Self::Sha256(hasher) => (HashAlgorithm::Sha256, hasher.finalize().to_vec()),
            Self::Sha512(hasher) => (HashAlgorithm::Sha512, hasher.finalize().to_vec()),
        };
        NixHash { algorithm, bytes }
    }
}

impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The hash folded to fewer bytes: byte `i` is exclusive-or-ed into byte `i` modulo the size.
pub fn fold(bytes: &[u8], size: usize) -> Vec<u8> {
    let mut folded = vec![0; size];
    for (index, byte) in bytes.iter().enumerate() {
        folded[index % size] ^= byte;
    }
    folded
}

const fn nix32_length(size: usize) -> usize {
    (size * 8).div_ceil(5)
}

/// Nix's base 32.
pub fn to_nix32(bytes: &[u8]) -> String {
    let digit = |position: usize| {
        let (index, shift) = (position * 5 / 8, position * 5 % 8);
        let pair = u16::from(bytes[index]) | u16::from(bytes.get(index + 1).copied().unwrap_or(0)) << 8;
        char::from(NIX32_DIGITS[usize::from(pair >> shift & 31)])
    };
    (0..nix32_length(bytes.len())).rev().map(digit).collect()
}

/// The bytes that digits of Nix's base 32 stand for. Bits beyond the last whole byte make one byte more, unless they are zero.
pub fn from_nix32(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = vec![0; text.len() * 5 / 8];
    for (position, byte) in text.iter().rev().enumerate() {
        let digit = NIX32_DIGITS.iter().position(|digit| digit == byte)?;
        let (index, shift) = (position * 5 / 8, position * 5 % 8);
        let [low, high] = ((digit as u16) << shift).to_le_bytes();
        for (index, part) in [(index, low), (index + 1, high)] {
            if index < bytes.len() {
                bytes[index] |= part;
            } else if part != 0 {
                bytes.push(part);
            }
        }
    }
    Some(bytes)
}

/// Base 64 with padding.
pub fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for index in 0..4 {
            let digit = char::from(BASE64_DIGITS[(bits >> (18 - 6 * index) & 63) as usize]);
            text.push(if index <= chunk.len() { digit } else { '=' });
        }
    }
    text
}

/// The bytes that base 64 stands for: up to the first `=`, line ends skipped, bits that are left over dropped.
pub fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut count) = (Vec::with_capacity(text.len() / 4 * 3), 0_u32, 0);
    for byte in text.iter().take_while(|byte| **byte != b'=').filter(|byte| **byte != b'\n') {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 255) as u8);
        }
    }
    Some(bytes)
}

fn from_base16(text: &[u8]) -> Option<Vec<u8>> {
    crate::digest::from_hex(&std::str::from_utf8(text).ok()?.to_ascii_lowercase())
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EMPTY_SHA256: &str = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

    #[test]
    fn one_hash_is_read_and_written_in_every_format() {
        let hash = NixHash::of(HashAlgorithm::Sha256, b"");
        assert_eq!(hash.to_text(HashFormat::Sri, false), EMPTY_SHA256);
        // What `nix hash convert` prints.
        let nix32 = "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73";
        assert_eq!(hash.to_text(HashFormat::Nix32, true), nix32);
        for text in [HashFormat::Base16, HashFormat::Nix32, HashFormat::Base64, HashFormat::Sri] {
            let text = hash.to_text(text, true);
            assert_eq!(NixHash::parse(text.as_bytes(), None), Ok(hash.clone()), "{text}");
        }
        let bare = hash.to_text(HashFormat::Base16, false).to_uppercase();
        assert_eq!(NixHash::parse(bare.as_bytes(), Some(HashAlgorithm::Sha256)), Ok(hash));
        assert_eq!(
            NixHash::of(HashAlgorithm::Md5, b"").to_text(HashFormat::Nix32, false),
            "3y8bwfr609h3lh9ch0izcqq7fl"
        );
    }

    #[test]
    fn what_is_no_hash_is_refused_in_the_words_of_nix() {
        let digits = |digit: &str, count| format!("sha256:{}", digit.repeat(count));
        let z52 = digits("z", 52);
        let cases = [
            ("sha256:zz", None, "hash 'zz' has wrong length for hash algorithm 'sha256'"),
            ("zz", None, "hash 'zz' does not include a type, nor is the type otherwise known from context"),
            ("foo:zz", None, "unknown hash algorithm 'foo', expect 'blake3', 'md5', 'sha1', 'sha256', or 'sha512'"),
            ("sha256-zz", None, "invalid SRI hash 'zz', length 1 != expected length 32"),
            ("sha256-z!", None, "invalid SRI hash 'z!', length 0 != expected length 32"),
            (&z52, None, &format!("invalid nix32 hash '{}', length 33 != expected length 32", &z52[7..])),
            (
                "md5:d41d8cd98f00b204e9800998ecf8427e",
                Some(HashAlgorithm::Sha1),
                "hash 'md5:d41d8cd98f00b204e9800998ecf8427e' should have type 'sha1'",
            ),
        ];
        for (text, expected, message) in cases {
            assert_eq!(NixHash::parse(text.as_bytes(), expected).unwrap_err().to_string(), message);
        }
        // The padding is not looked at, nor what comes after it.
        let digits = "sha256-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        assert_eq!(NixHash::parse(digits.as_bytes(), None), NixHash::parse(format!("{digits}=more").as_bytes(), None));
    }

    proptest! {
        #[test]
        fn digits_read_back(bytes: Vec<u8>) {
            prop_assert_eq!(from_nix32(to_nix32(&bytes).as_bytes()), Some(bytes.clone()));
            prop_assert_eq!(from_base64(to_base64(&bytes).as_bytes()), Some(bytes));
        }

        #[test]
        fn no_text_is_too_odd_to_be_looked_at(text: Vec<u8>, prefix in "(sha1|md5|sha256|sha512|x)?[:-]?") {
            let text = [prefix.as_bytes(), &text].concat();
            let _ = NixHash::parse(&text, None);
            let _ = NixHash::parse_or_zeros(&text, Some(HashAlgorithm::Md5));
            let _ = (from_nix32(&text), from_base64(&text));
        }
    }
}
