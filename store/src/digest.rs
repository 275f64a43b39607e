//! Digests: which hash, of what, and how it is written.
//!
//! Everything is BLAKE3-256. A blob's id is the plain hash of its bytes, so that `b3sum` agrees; every other kind hashes its
//! canonical encoding under a context string of its own (BLAKE3's `derive_key` mode), so that one kind never passes for another.
//! Digests are written as 64 lower-case hexadecimal digits.

pub(crate) mod short;

use std::fmt;
use std::str::FromStr;

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a digest: 64 lower-case hexadecimal digits are expected")]
pub struct ParseDigestError {
    /// What was given.
    pub text: String,
}

macro_rules! digest {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The id with these 32 bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes of the id.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The first eight hexadecimal digits, as people quote it.
            pub fn short(&self) -> String {
                to_hex(&self.0[..4])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&to_hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}({})", stringify!($name), to_hex(&self.0))
            }
        }

        impl FromStr for $name {
            type Err = ParseDigestError;
            fn from_str(text: &str) -> Result<Self, ParseDigestError> {
                let bytes = from_hex(text).and_then(|bytes| bytes.try_into().ok());
                bytes.map(Self).ok_or_else(|| ParseDigestError { text: text.to_owned() })
            }
        }
    };
}

digest! {
    /// The bytes of one file: plain BLAKE3-256.
    BlobId
}
digest! {
    /// The canonical encoding of one directory (`docs/formats/tree.md`).
    TreeId
}
digest! {
    /// The canonical encoding of what a step changed (`docs/formats/tree.md`).
    DeltaId
}
digest! {
    /// The canonical encoding of a formation (`docs/formats/formation.md`).
    FormationId
}
digest! {
    /// The bytes of an artifact file.
    ArtifactId
}
digest! {
    /// What a step was made from: builder, parameters and the ids of its inputs. Two steps with one key give one result.
    StepKey
}

/// Context strings of `derive_key`. They are part of every id of their kind and never change.
pub(crate) const TREE_CONTEXT: &str = "forge 2026-11-21 tree v1";
pub(crate) const DELTA_CONTEXT: &str = "forge 2026-11-21 delta v1";
pub(crate) const FORMATION_CONTEXT: &str = "forge 2026-11-21 formation v1";
const STEP_CONTEXT: &str = "forge 2026-11-21 step v1";

impl BlobId {
    /// The id of a blob with these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl StepKey {
    /// The key of a step described by these bytes.
    pub fn of(description: &[u8]) -> Self {
        Self(blake3::derive_key(STEP_CONTEXT, description))
    }
}

/// Lower-case hexadecimal.
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// The bytes that an even number of lower-case hexadecimal digits stand for.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_id_is_what_b3sum_prints() {
        // The hash of the empty input, from the BLAKE3 test vectors.
        let expected = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(BlobId::of(b"").to_string(), expected);
        assert_eq!(expected.parse::<BlobId>().unwrap(), BlobId::of(b""));
    }

    #[test]
    fn only_64_lower_case_digits_are_a_digest() {
        let good = "a".repeat(64);
        assert!(good.parse::<TreeId>().is_ok());
        for bad in ["", "a", &good[1..], &good.to_uppercase(), &format!("{good}a"), &format!("{}g", &good[1..])] {
            assert!(bad.parse::<TreeId>().is_err(), "{bad}");
        }
    }
}
