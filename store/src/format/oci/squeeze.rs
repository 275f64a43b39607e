//! Compresses a stream on several threads, to the same bytes on any number of them.
//!
//! The stream is cut every [`PIECE`] bytes, each piece is compressed on its own, and the results are put one after the other: of zstd
//! as frames (RFC 8878 section 3: frames that follow one another are one stream), of gzip as deflate blocks of one member, each
//! piece ending on a byte (RFC 1951's empty stored block), so that readers that know only one member read all of it.
//!
//! One thread makes the stream and hashes it, some compress, and the caller's takes the results in order; each waits for the others
//! when it is too far ahead, so that memory stays bounded.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use flate2::Crc;
use miniz_oxide::deflate::core::{
    CompressorOxide, TDEFLFlush, TDEFLStatus, compress, create_comp_flags_from_zip_params,
};
use sha2::{Digest as _, Sha256};

use super::descriptor::Digest;
use crate::format::{Compression, write_failed};
use crate::{BlobId, Result, Store};

/// Four times the window of zstd's default level: what the cuts cost is below one part in a hundred. It shows in the bytes.
const PIECE: usize = 8 << 20;
/// More would only take memory.
const MOST_WORKERS: usize = 12;
/// Of the thread that walks the trees.
const STACK: usize = 64 << 20;

/// A compressed stream in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Squeezed {
    /// Where it is.
    pub blob: BlobId,
    /// Its bytes.
    pub size: u64,
    /// Their digest.
    pub digest: Digest,
    /// Of the stream before it was compressed.
    pub diff_id: Digest,
}

type Piece = io::Result<Vec<u8>>;

/// Compresses what `produce` writes, and keeps it in the store.
pub fn squeeze(
    store: &Store,
    compression: Compression,
    produce: impl FnOnce(&mut dyn Write) -> Result<()> + Send,
) -> Result<Squeezed> {
    let workers = rayon::current_num_threads().clamp(1, MOST_WORKERS);
    let (raw, packed) = (Spare::default(), Spare::default());
    let (raw, packed) = (&raw, &packed);
    thread::scope(|scope| {
        let (order, ordered) = sync_channel::<Receiver<Piece>>(workers + 1);
        let (jobs, waiting) = sync_channel::<Job>(1);
        let waiting = std::sync::Arc::new(Mutex::new(waiting));
        for _ in 0..workers {
            let waiting = std::sync::Arc::clone(&waiting);
            scope.spawn(move || work(compression, &waiting, raw, packed));
        }
        drop(waiting);
        let producer = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, move || {
            // Only gzip has a check sum of its own.
            let crc = matches!(compression, Compression::Gzip(_)).then(Crc::new);
            let mut cutter =
                Cutter { order, jobs, piece: Vec::new(), spare: raw, sent: false, hasher: Sha256::new(), crc };
            produce(&mut cutter)?;
            cutter.finish().map_err(write_failed)
        });
        let producer = producer.map_err(write_failed)?;
        let mut pieces = Pieces { ordered, piece: Vec::new(), at: 0, spare: packed, hasher: Sha256::new() };
        if let Compression::Gzip(_) = compression {
            // RFC 1952: deflate, no name, no time, no hint, an unknown system.
            pieces.piece = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
        }
        let kept = store.put_blob_from(&mut pieces, false);
        let Pieces { ordered, hasher, .. } = pieces;
        // A producer that waits to hand something over learns that nobody wants it.
        drop(ordered);
        let produced = match producer.join() {
            Ok(produced) => produced,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        // If the stream could not be kept, its producer only found nobody listening.
        let (blob, size) = kept?;
        Ok(Squeezed { blob, size, digest: Digest::Sha256(hasher.finalize().into()), diff_id: produced? })
    })
}

/// Buffers that are used again: pages that the system would have to clear first.
#[derive(Default)]
struct Spare(Mutex<Vec<Vec<u8>>>);

impl Spare {
    /// An empty one with this much room.
    fn take(&self, room: usize) -> Vec<u8> {
        let mut buffer = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        buffer.clear();
        buffer.reserve_exact(room);
        buffer
    }

    fn give(&self, buffer: Vec<u8>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

struct Job {
    piece: Vec<u8>,
    result: SyncSender<Piece>,
}

/// Takes the stream and cuts it.
struct Cutter<'a> {
    order: SyncSender<Receiver<Piece>>,
    jobs: SyncSender<Job>,
    piece: Vec<u8>,
    spare: &'a Spare,
    /// Whether a piece has been sent.
    sent: bool,
    hasher: Sha256,
    crc: Option<Crc>,
}

impl Cutter<'_> {
    fn send(&mut self) -> io::Result<()> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let piece = std::mem::take(&mut self.piece);
        self.hasher.update(&piece);
        if let Some(crc) = &mut self.crc {
            crc.update(&piece);
        }
        self.sent = true;
        let (result, receiver) = sync_channel(1);
        self.order.send(receiver).map_err(|_| gone())?;
        self.jobs.send(Job { piece, result }).map_err(|_| gone())
    }

    fn finish(mut self) -> io::Result<Digest> {
        // Of nothing, too, there is one piece: no frame at all is no zstd stream.
        if !self.piece.is_empty() || !self.sent {
            self.send()?;
        }
        if let Some(crc) = &self.crc {
            // An empty last block, the check sum, and the length modulo 2³².
            let mut end = vec![0x03, 0x00];
            end.extend(crc.sum().to_le_bytes());
            end.extend(crc.amount().to_le_bytes());
            let (result, receiver) = sync_channel(1);
            result.send(Ok(end)).expect("there is room for one");
            self.order.send(receiver).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        Ok(Digest::Sha256(self.hasher.finalize().into()))
    }
}

impl Write for Cutter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.capacity() == 0 {
            self.piece = self.spare.take(PIECE);
        }
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn work(compression: Compression, waiting: &Mutex<Receiver<Job>>, raw: &Spare, packed: &Spare) {
    let mut compressor = match PieceCompressor::new(compression) {
        Ok(compressor) => compressor,
        Err(error) => {
            // Whoever waits for a piece hears of it; the others are told that nobody works.
            if let Ok(job) = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv() {
                let _ = job.result.send(Err(error));
            }
            return;
        }
    };
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { piece, result }) = job else { return };
        let made = compressor.pack(&piece, packed);
        raw.give(piece);
        let _ = result.send(made);
    }
}

enum PieceCompressor {
    Zstd(zstd::bulk::Compressor<'static>),
    Gzip(Box<CompressorOxide>),
}

impl PieceCompressor {
    fn new(compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::Zstd(level) => Self::Zstd(zstd::bulk::Compressor::new(i32::from(level))?),
            Compression::Gzip(level) => {
                // A negative number of window bits asks for bare deflate.
                let flags = create_comp_flags_from_zip_params(i32::from(level), -15, 0);
                Self::Gzip(Box::new(CompressorOxide::new(flags)))
            }
        })
    }

    fn pack(&mut self, piece: &[u8], spare: &Spare) -> Piece {
        match self {
            Self::Zstd(compressor) => {
                let mut packed = spare.take(zstd::zstd_safe::compress_bound(piece.len()));
                compressor.compress_to_buffer(piece, &mut packed)?;
                Ok(packed)
            }
            Self::Gzip(state) => {
                state.reset();
                let mut packed = spare.take(piece.len() / 2 + 4096);
                packed.resize(packed.capacity(), 0);
                let (mut read, mut written) = (0, 0);
                loop {
                    let (status, taken, given) =
                        compress(state, &piece[read..], &mut packed[written..], TDEFLFlush::Sync);
                    read += taken;
                    written += given;
                    if status != TDEFLStatus::Okay {
                        return Err(io::Error::other(format!("deflate: {status:?}")));
                    }
                    // With room left over, all of it is out, and ends on a byte.
                    if read == piece.len() && written < packed.len() {
                        packed.truncate(written);
                        return Ok(packed);
                    }
                    packed.resize(packed.len() * 2, 0);
                }
            }
        }
    }
}

/// The compressed pieces in order.
struct Pieces<'a> {
    ordered: Receiver<Receiver<Piece>>,
    piece: Vec<u8>,
    at: usize,
    spare: &'a Spare,
    hasher: Sha256,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            let Ok(next) = self.ordered.recv() else { return Ok(0) };
            let gone = |_| io::Error::other("the compressor has stopped");
            self.spare.give(std::mem::replace(&mut self.piece, next.recv().map_err(gone)??));
            self.at = 0;
        }
        let length = buffer.len().min(self.piece.len() - self.at);
        buffer[..length].copy_from_slice(&self.piece[self.at..self.at + length]);
        self.hasher.update(&buffer[..length]);
        self.at += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("store")).unwrap();
        (directory, store)
    }

    /// Bytes of middling entropy, more than two pieces.
    fn stream(length: usize) -> Vec<u8> {
        let mut noise = vec![0; 65_536];
        blake3::Hasher::new().finalize_xof().fill(&mut noise[..10_000]);
        let mut bytes = noise.repeat(length / noise.len() + 1);
        bytes.truncate(length);
        bytes
    }

    fn packed(store: &Store, compression: Compression, bytes: &[u8]) -> (Squeezed, Vec<u8>) {
        let squeezed = squeeze(store, compression, |output| output.write_all(bytes).map_err(write_failed)).unwrap();
        (squeezed, store.blob(squeezed.blob).unwrap())
    }

    #[test]
    fn what_is_compressed_is_read_by_others_and_the_same_on_any_number_of_threads() {
        let (_directory, store) = world();
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 12_345] {
            let bytes = stream(length);
            for compression in [Compression::Zstd(1), Compression::Gzip(1)] {
                let (squeezed, compressed) = packed(&store, compression, &bytes);
                assert_eq!((squeezed.digest, squeezed.diff_id), (Digest::of(&compressed), Digest::of(&bytes)));
                assert_eq!(squeezed.size, compressed.len() as u64);
                let mut read = Vec::new();
                match compression {
                    Compression::Zstd(_) => {
                        _ = zstd::Decoder::new(&compressed[..]).unwrap().read_to_end(&mut read).unwrap()
                    }
                    // The first member only: there is no other.
                    Compression::Gzip(_) => {
                        _ = flate2::read::GzDecoder::new(&compressed[..]).read_to_end(&mut read).unwrap();
                    }
                }
                assert!(read == bytes, "{compression} {length}");
            }
        }
        let bytes = stream(3 * PIECE + 7);
        for compression in [Compression::Zstd(3), Compression::Gzip(1)] {
            let on = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| packed(&store, compression, &bytes).0)
            };
            assert_eq!(on(1), on(5));
        }
    }

    /// Part of the format's version, as the compressors are.
    #[test]
    fn digests_are_pinned() {
        let (_directory, store) = world();
        let bytes = stream(PIECE + 100_000);
        let digests = [Compression::Zstd(3), Compression::Gzip(6)]
            .map(|compression| packed(&store, compression, &bytes).0.digest.hex()[..16].to_owned());
        assert_eq!(digests, ["acaedd7f1a8079cd", "874df52fe70713d4"]);
    }

    #[test]
    fn what_fails_on_the_way_is_said() {
        let (_directory, store) = world();
        let failed = squeeze(&store, Compression::Zstd(1), |output| {
            output.write_all(&stream(3 * PIECE)).map_err(write_failed)?;
            Err(write_failed(io::Error::other("on purpose")))
        });
        let crate::Error::File { source, .. } = failed.unwrap_err() else { panic!("another error") };
        assert_eq!(source.to_string(), "on purpose");
    }
}
