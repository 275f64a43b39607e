//! How blocks of an artifact are compressed.
//!
//! Method and level are parameters of the artifact: another level gives other bytes. So does another version of a
//! compressor, which is why both are built from vendored sources and [`Compression::version`] is part of the format's
//! version. Neither looks at the processor to decide what to write.

use std::fmt;
use std::io;
use std::str::FromStr;

use miniz_oxide::deflate::core::{
    CompressorOxide, TDEFLFlush, TDEFLStatus, compress, create_comp_flags_from_zip_params,
};

use super::write_failed;
use crate::Result;

/// A method and its level, written `zstd:3` or `gzip:9`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Zstandard, level 1 to 22.
    Zstd(u8),
    /// DEFLATE, level 1 to 9, for readers that know no Zstandard: kernels before 4.14.
    Gzip(u8),
}

/// A text that names no compression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is no compression: zstd, gzip, zstd:1 to zstd:22, gzip:1 to gzip:9")]
pub struct CompressionError {
    /// What was given.
    pub given: String,
}

impl Compression {
    /// What wrote the bytes, exactly: a new version may give other bytes for the same content.
    pub fn version(self) -> &'static str {
        match self {
            Self::Zstd(_) => "zstd 1.5.7",
            Self::Gzip(_) => "miniz_oxide 0.9.1",
        }
    }

    /// The level.
    pub fn level(self) -> u8 {
        match self {
            Self::Zstd(level) | Self::Gzip(level) => level,
        }
    }
}

impl Default for Compression {
    /// Level 3: twice the speed of level 6, for 4 % more bytes.
    fn default() -> Self {
        Self::Zstd(3)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zstd(level) => write!(formatter, "zstd:{level}"),
            Self::Gzip(level) => write!(formatter, "gzip:{level}"),
        }
    }
}

impl FromStr for Compression {
    type Err = CompressionError;

    fn from_str(text: &str) -> Result<Self, CompressionError> {
        let (method, level) = match text.split_once(':') {
            Some((method, level)) => (method, Some(number(level))),
            None => (text, None),
        };
        match (method, level) {
            ("zstd", None) => Ok(Self::default()),
            ("gzip", None) => Ok(Self::Gzip(9)),
            ("zstd", Some(Some(level @ 1..=22))) => Ok(Self::Zstd(level)),
            ("gzip", Some(Some(level @ 1..=9))) => Ok(Self::Gzip(level)),
            _ => Err(CompressionError { given: text.to_owned() }),
        }
    }
}

/// Digits only: `+3` is another way to write the same.
fn number(text: &str) -> Option<u8> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Compresses one block after the other. What a block becomes does not depend on those before it.
pub struct Compressor(Method);

enum Method {
    Zstd(zstd::bulk::Compressor<'static>),
    Gzip(Box<CompressorOxide>),
}

impl Compressor {
    /// Its tables take some hundred kilobytes: one for a thread, not one for a block.
    pub fn new(compression: Compression) -> Result<Self> {
        Ok(Self(match compression {
            Compression::Zstd(level) => {
                Method::Zstd(zstd::bulk::Compressor::new(i32::from(level)).map_err(write_failed)?)
            }
            Compression::Gzip(level) => {
                // A positive number of window bits asks for the header and check sum of zlib.
                let flags = create_comp_flags_from_zip_params(i32::from(level), 15, 0);
                Method::Gzip(Box::new(CompressorOxide::new(flags)))
            }
        }))
    }

    /// How much room [`Compressor::pack`] wants for a block of this length.
    pub fn room(&self, length: usize) -> usize {
        match self.0 {
            Method::Zstd(_) => zstd::zstd_safe::compress_bound(length),
            Method::Gzip(_) => length,
        }
    }

    /// Writes the block in a smaller form, and says how long that is; `None` if there is none.
    pub fn pack(&mut self, block: &[u8], room: &mut [u8]) -> Result<Option<usize>> {
        let length = match &mut self.0 {
            Method::Zstd(compressor) => compressor.compress_to_buffer(block, room).map_err(write_failed)?,
            Method::Gzip(state) => {
                state.reset();
                // What does not fit into less than the block is not smaller.
                match compress(state, block, &mut room[..block.len().saturating_sub(1)], TDEFLFlush::Finish) {
                    (TDEFLStatus::Done, _, written) => written,
                    (TDEFLStatus::Okay, ..) => return Ok(None),
                    (status, ..) => return Err(write_failed(io::Error::other(format!("deflate: {status:?}")))),
                }
            }
        };
        Ok((length < block.len()).then_some(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compression_is_read_as_it_is_written() {
        for compression in [Compression::Zstd(1), Compression::Zstd(22), Compression::Gzip(1), Compression::Gzip(9)] {
            assert_eq!(compression.to_string().parse(), Ok(compression));
        }
        assert_eq!("zstd".parse(), Ok(Compression::Zstd(3)));
        for bad in ["", "zstd:", "zstd:0", "zstd:23", "gzip:10", "gzip:-1", "xz", "zstd:3:3", "ZSTD", "zstd:+3"] {
            assert!(bad.parse::<Compression>().is_err(), "{bad}");
        }
    }

    /// What a block becomes is part of every artifact's format version: whoever raises these raises
    /// [`VERSION`](crate::format::VERSION).
    #[test]
    fn the_compressors_are_those_of_the_format_version() {
        let lock = include_str!("../../../Cargo.lock");
        let version = |name: &str| {
            let start = lock.find(&format!("name = \"{name}\"\nversion = \"")).expect("it is in the lock");
            lock[start..].split('"').nth(3).expect("a version").to_owned()
        };
        let zstd = zstd::zstd_safe::version_string();
        assert_eq!(Compression::Zstd(3).version(), format!("zstd {zstd}"));
        assert!(version("zstd-sys").ends_with(&format!("+zstd.{zstd}")), "not the vendored library");
        assert_eq!(Compression::Gzip(9).version(), format!("miniz_oxide {}", version("miniz_oxide")));
    }

    #[test]
    fn a_block_does_not_depend_on_those_before_it() {
        let text = |seed: usize| -> Vec<u8> {
            let word = |number: usize| format!("{} ", (number * seed) % 977).into_bytes();
            (0..20_000).flat_map(word).take(100_000 + seed).collect()
        };
        let noise: Vec<u8> = blake3_noise(131_072);
        for compression in [Compression::Zstd(3), Compression::Zstd(19), Compression::Gzip(9)] {
            let pack = |compressor: &mut Compressor, block: &[u8]| {
                let mut room = vec![0; compressor.room(block.len())];
                compressor.pack(block, &mut room).unwrap().map(|length| room[..length].to_vec())
            };
            let mut used = Compressor::new(compression).unwrap();
            for block in [&text(3), &noise, &text(7), &b"x".to_vec(), &vec![0; 131_072], &text(3)] {
                let fresh = pack(&mut Compressor::new(compression).unwrap(), block);
                assert_eq!(pack(&mut used, block), fresh);
            }
            assert_eq!(pack(&mut used, &noise), None);
            assert!(pack(&mut used, &text(3)).is_some());
        }
    }

    fn blake3_noise(length: usize) -> Vec<u8> {
        let mut noise = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        noise
    }
}
