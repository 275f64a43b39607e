//! The six compressions of a squashfs, unpacked into a buffer of a known size: nothing here makes memory for what bytes claim.

use std::cell::RefCell;

use super::lzo;

/// How an image is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// zlib streams (RFC 1950).
    Gzip,
    /// LZMA1 with the header of `.lzma` files.
    Lzma,
    /// LZO1X.
    Lzo,
    /// xz files.
    Xz,
    /// Blocks of LZ4.
    Lz4,
    /// Frames of zstd.
    Zstd,
}

/// Enough for a dictionary as long as the largest block, with all that belongs to it.
const XZ_MEMORY: u64 = 32 << 20;

thread_local! {
    /// Making one costs more than unpacking a block of metadata with it.
    static ZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

impl Codec {
    /// The codec with this number in a superblock.
    pub(super) fn from_number(number: u16) -> Option<Self> {
        [Self::Gzip, Self::Lzma, Self::Lzo, Self::Xz, Self::Lz4, Self::Zstd]
            .get(usize::from(number.checked_sub(1)?))
            .copied()
    }

    /// As mksquashfs calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Lzma => "lzma",
            Self::Lzo => "lzo",
            Self::Xz => "xz",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Unpacks a block and says how long it is; none if it is damaged or does not fit.
    pub(super) fn unpack(self, input: &[u8], output: &mut [u8]) -> Option<usize> {
        match self {
            Self::Gzip => {
                let mut stream = flate2::Decompress::new(true);
                let done = stream.decompress(input, output, flate2::FlushDecompress::Finish).ok()?;
                (done == flate2::Status::StreamEnd).then(|| stream.total_out() as usize)
            }
            Self::Lzma => unpack_lzma(liblzma::stream::Stream::new_lzma_decoder(XZ_MEMORY).ok()?, input, output),
            Self::Xz => unpack_lzma(liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, 0).ok()?, input, output),
            Self::Lzo => lzo::decompress(input, output),
            Self::Lz4 => lz4_flex::block::decompress_into(input, output).ok(),
            Self::Zstd => ZSTD.with_borrow_mut(|decompressor| {
                if decompressor.is_none() {
                    *decompressor = zstd::bulk::Decompressor::new().ok();
                }
                decompressor.as_mut()?.decompress_to_buffer(input, output).ok()
            }),
        }
    }
}

fn unpack_lzma(mut stream: liblzma::stream::Stream, input: &[u8], output: &mut [u8]) -> Option<usize> {
    loop {
        let before = (stream.total_in(), stream.total_out());
        let (taken, filled) = (before.0 as usize, before.1 as usize);
        let action = liblzma::stream::Action::Finish;
        match stream.process(&input[taken..], &mut output[filled..], action).ok()? {
            liblzma::stream::Status::StreamEnd => return Some(stream.total_out() as usize),
            // Neither taken nor given: it wants more than there is.
            _ if before == (stream.total_in(), stream.total_out()) => return None,
            _ => {}
        }
    }
}
