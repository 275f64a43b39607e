//! Compressed streams, told by how they begin: what archives of others come in.

use std::io::{BufRead, BufReader, Read};

use liblzma::stream::{CONCATENATED, Stream};

/// How much memory a decoder may take: that of `xz -9` four times.
const XZ_MEMORY: u64 = 256 << 20;
/// The longest window of zstd, as its own tool takes without being asked: 128 MiB.
const ZSTD_WINDOW_LOG: u32 = 27;

/// How a stream that begins like this is compressed, by the name of the tool.
pub fn compression(head: &[u8]) -> Option<&'static str> {
    let starts: [(&[u8], &str); 5] = [
        (b"\x1f\x8b", "gzip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\xfd7zXZ\0", "xz"),
        (b"BZh", "bzip2"),
        (b"\x5d\0\0", "lzma"),
    ];
    // zstd lets frames come first that a decoder skips.
    let skipped = head.len() >= 4 && head[0] & 0xf0 == 0x50 && head[1..4] == [0x2a, 0x4d, 0x18];
    let found = starts.iter().find(|(start, _)| head.starts_with(start)).map(|(_, name)| *name);
    found.or(skipped.then_some("zstd"))
}

/// Unpacks a stream if it is compressed, whatever with, and says what that was. Streams that follow each other are one.
pub fn unpacked<'a>(reader: impl Read + 'a) -> std::io::Result<(Option<&'static str>, Box<dyn Read + 'a>)> {
    let mut reader = BufReader::with_capacity(128 << 10, reader);
    let kind = compression(filled(&mut reader)?);
    let unpacked: Box<dyn Read + 'a> = match kind {
        None => Box::new(reader),
        Some("gzip") => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        Some("bzip2") => Box::new(bzip2::bufread::MultiBzDecoder::new(reader)),
        Some("zstd") => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Some(name) => {
            let stream = match name {
                "xz" => Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED),
                _ => Stream::new_lzma_decoder(XZ_MEMORY),
            };
            Box::new(liblzma::bufread::XzDecoder::new_stream(reader, stream?))
        }
    };
    Ok((kind, unpacked))
}

/// What is in the buffer once something is. A pipe may give a byte at a time, but whoever writes a header writes it at once.
fn filled<R: Read>(reader: &mut BufReader<R>) -> std::io::Result<&[u8]> {
    loop {
        match reader.fill_buf() {
            Ok(_) => return Ok(reader.buffer()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(bytes: &[u8]) -> std::io::Result<(Option<&'static str>, Vec<u8>)> {
        let (kind, mut reader) = unpacked(bytes)?;
        let mut all = Vec::new();
        reader.read_to_end(&mut all)?;
        Ok((kind, all))
    }

    #[test]
    fn every_compression_is_told_by_its_beginning_and_streams_follow_each_other() {
        let text = b"some text, some text, some text".repeat(100);
        let gzip = {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&text).unwrap();
            encoder.finish().unwrap()
        };
        let bzip2 = {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
            encoder.write_all(&text).unwrap();
            encoder.finish().unwrap()
        };
        let zstd = zstd::encode_all(&text[..], 3).unwrap();
        let xz = liblzma::encode_all(&text[..], 1).unwrap();
        for (name, stream) in [("gzip", gzip), ("bzip2", bzip2), ("zstd", zstd), ("xz", xz)] {
            assert_eq!(read(&stream).unwrap(), (Some(name), text.clone()));
            assert_eq!(read(&stream.repeat(2)).unwrap(), (Some(name), text.repeat(2)), "{name}");
            assert!(read(&stream[..stream.len() - 1]).is_err(), "{name}");
        }
        assert_eq!(read(&text).unwrap(), (None, text));
        assert_eq!(read(b"").unwrap(), (None, Vec::new()));
    }
}
