//! What a store gives, as one stream: small objects together, large blobs in pieces, and what the other side has in an older form as
//! the difference from that.
//!
//! Everything is hashed once more on its way out: what is damaged here is named as missing, never given.

use std::io::{self, Read, Write};
use std::time::Instant;

use rayon::prelude::*;

use super::frame::{Frame, Kind, MAGIC, MOST_RAW};
use super::{ObjectId, pieces};
use crate::{BlobId, Error, Store};

mod pace;

use pace::{Pace, Way};

/// Small objects are put together up to this size.
const BATCH: u64 = 512 << 10;
/// A blob larger than this is not sent as a difference: both forms lie in memory.
const MOST_DIFFERENCE: u64 = 48 << 20;
/// What a smaller one would gain its hash outweighs.
const LEAST_DIFFERENCE: u64 = 256;
/// Pieces of a large blob that are compressed at once.
const AT_ONCE: usize = 8;

/// How well lists of digests are compressed, which are hardly shorter for it.
const LEVEL: i32 = 3;
/// And differences: they are small, and what is found is worth the search.
const DIFFERENCE_LEVEL: i32 = 6;

/// Something that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Which.
    pub id: ObjectId,
    /// What the other side has in its place.
    pub before: Option<BlobId>,
    /// Pieces of it that the other side has.
    pub pieces: u64,
}

impl Item {
    /// All of an object.
    pub fn whole(id: ObjectId) -> Self {
        Self { id, before: None, pieces: 0 }
    }
}

/// What was sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sent {
    /// How many objects went as differences.
    pub differences: u64,
    /// Bytes in the objects, without the pieces that were there.
    pub bytes: u64,
}

/// What one job of the pool gives.
enum Job<'a> {
    Batch(Vec<&'a Item>),
    Difference(&'a Item, BlobId),
    Large(&'a Item, u64),
}

/// Writes objects of the store as a stream. `tell` is called with the bytes of each part when it has been written, and may end it.
pub fn send(
    store: &Store,
    items: &[Item],
    out: &mut (dyn Write + Send),
    tell: &mut dyn FnMut(u64) -> io::Result<()>,
) -> Result<Sent, SendError> {
    out.write_all(MAGIC).map_err(SendError::Line)?;
    let mut sent = Sent::default();
    let jobs = jobs(store, items)?;
    // While one window is on the line, the next one is compressed.
    let window = rayon::current_num_threads().max(2) * 2;
    let (way, mut pace) = (Way::default(), Pace::default());
    std::thread::scope(|scope| -> Result<(), SendError> {
        let (giver, taker) = std::sync::mpsc::sync_channel::<Result<Vec<Made>, SendError>>(1);
        let way = &way;
        scope.spawn(move || {
            let mut small: Vec<&Job> = Vec::new();
            for job in &jobs {
                if let Job::Large(item, size) = job {
                    if !small.is_empty() && giver.send(make_all(store, &std::mem::take(&mut small), way)).is_err() {
                        return;
                    }
                    let made = large(store, item, *size, way, &mut |frames| giver.send(Ok(frames)).is_ok());
                    if let Err(error) = made {
                        let _ = giver.send(Err(error));
                        return;
                    }
                    continue;
                }
                small.push(job);
                if small.len() >= window && giver.send(make_all(store, &std::mem::take(&mut small), way)).is_err() {
                    return;
                }
            }
            if !small.is_empty() {
                let _ = giver.send(make_all(store, &small, way));
            }
        });
        let mut started = Instant::now();
        for frames in taker {
            let made_for = started.elapsed();
            started = Instant::now();
            let before = sent.bytes;
            for made in frames? {
                made.frame.write(out).map_err(SendError::Line)?;
                sent.differences += u64::from(made.frame.kind == Kind::Difference);
                sent.bytes += made.bytes;
                tell(made.bytes).map_err(SendError::Line)?;
            }
            pace.went(way, made_for, started.elapsed(), sent.bytes - before);
            started = Instant::now();
        }
        Ok(())
    })?;
    Frame::empty(Kind::End).write(out).and_then(|()| out.flush()).map_err(SendError::Line)?;
    Ok(sent)
}

/// Why nothing more is sent.
#[derive(Debug)]
pub enum SendError {
    /// The other side, or the line to it.
    Line(io::Error),
    /// This store.
    Store(Error),
}

impl From<Error> for SendError {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

struct Made {
    frame: Frame,
    /// Bytes of objects in it.
    bytes: u64,
}

fn jobs<'a>(store: &Store, items: &'a [Item]) -> Result<Vec<Job<'a>>, Error> {
    let (mut jobs, mut batch, mut length) = (Vec::new(), Vec::new(), 0);
    for item in items {
        let size = match item.id {
            ObjectId::Blob(id) => store.blob_size(id)?.unwrap_or_default(),
            // Of the size of a directory's listing; what is read tells.
            _ => 2048,
        };
        match item.before {
            Some(before) if (LEAST_DIFFERENCE..=MOST_DIFFERENCE).contains(&size) && item.pieces == 0 => {
                let before_size = store.blob_size(before)?;
                if before_size.is_some_and(|before| (1..=MOST_DIFFERENCE).contains(&before)) {
                    jobs.push(Job::Difference(item, before));
                    continue;
                }
            }
            _ => {}
        }
        if size > pieces::PIECE {
            jobs.push(Job::Large(item, size));
            continue;
        }
        batch.push(item);
        length += size;
        if length >= BATCH {
            jobs.push(Job::Batch(std::mem::take(&mut batch)));
            length = 0;
        }
    }
    if !batch.is_empty() {
        jobs.push(Job::Batch(batch));
    }
    Ok(jobs)
}

fn make_all(store: &Store, jobs: &[&Job<'_>], way: &Way) -> Result<Vec<Made>, SendError> {
    let made: Vec<Vec<Made>> = jobs.par_iter().map(|job| make(store, job, way)).collect::<Result<_, SendError>>()?;
    Ok(made.into_iter().flatten().collect())
}

fn make(store: &Store, job: &Job<'_>, way: &Way) -> Result<Vec<Made>, SendError> {
    let packed =
        |frame: io::Result<Frame>, bytes| Ok::<_, SendError>(Made { frame: frame.map_err(SendError::Line)?, bytes });
    match job {
        Job::Batch(items) => {
            let (mut content, mut missing, mut made, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
            for item in items {
                let Some(parts) = encoded(store, item.id)? else {
                    missing.push(kind_byte(item.id));
                    missing.extend(item.id.as_bytes());
                    continue;
                };
                for (kind, part) in parts {
                    if content.len() + part.len() + 37 > MOST_RAW && !content.is_empty() {
                        made.push(packed(way.frame(Kind::Objects, &[], content), bytes)?);
                        (content, bytes) = (Vec::new(), 0);
                    }
                    content.push(kind);
                    content.extend(item.id.as_bytes());
                    content.extend((part.len() as u32).to_le_bytes());
                    content.extend(&part);
                    bytes += part.len() as u64;
                }
            }
            if !content.is_empty() {
                made.push(packed(way.frame(Kind::Objects, &[], content), bytes)?);
            }
            if !missing.is_empty() {
                made.push(packed(Frame::new(Kind::Missing, &[], &missing, LEVEL), 0)?);
            }
            Ok(made)
        }
        Job::Difference(item, before) => {
            let ObjectId::Blob(id) = item.id else { return Ok(Vec::new()) };
            // One that is damaged here must not be what the other side's is compared with.
            let (Some(before_bytes), Some(bytes)) = (good(store.blob(*before))?, good(store.blob(id))?) else {
                return make(store, &whole(store, item)?, way);
            };
            let head = [id.as_bytes().as_slice(), before.as_bytes()].concat();
            let frame = Frame::difference(&head, &bytes, &before_bytes, DIFFERENCE_LEVEL).map_err(SendError::Line)?;
            if frame.length() * 10 > bytes.len() * 9 || frame.length() as u64 > 4 * pieces::PIECE {
                return make(store, &whole(store, item)?, way);
            }
            Ok(vec![Made { frame, bytes: bytes.len() as u64 }])
        }
        Job::Large(item, size) => {
            let mut made = Vec::new();
            large(store, item, *size, way, &mut |frames| {
                made.extend(frames);
                true
            })?;
            Ok(made)
        }
    }
}

fn whole<'a>(store: &Store, item: &'a Item) -> Result<Job<'a>, SendError> {
    let size = match item.id {
        ObjectId::Blob(id) => store.blob_size(id)?.unwrap_or_default(),
        _ => 0,
    };
    Ok(if size > pieces::PIECE { Job::Large(item, size) } else { Job::Batch(vec![item]) })
}

/// What is not here, or damaged here, is none.
fn good<T>(result: crate::Result<T>) -> crate::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::NotFound { .. } | Error::Mismatch { .. } | Error::Decode { .. } | Error::Record { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The byte that stands for a kind of object.
pub(super) fn kind_byte(id: ObjectId) -> u8 {
    id.kind().as_bytes()[0]
}

/// The parts that an object goes in: a formation comes with its record.
type Parts = Vec<(u8, Vec<u8>)>;

fn encoded(store: &Store, id: ObjectId) -> Result<Option<Parts>, Error> {
    let kind = kind_byte(id);
    let parts = match id {
        ObjectId::Blob(id) => good(store.blob(id))?.map(|bytes| vec![(kind, bytes)]),
        ObjectId::Tree(id) => good(store.tree(id))?.map(|tree| vec![(kind, tree.encode())]),
        ObjectId::Delta(id) => good(store.delta(id))?.map(|delta| vec![(kind, delta.encode())]),
        ObjectId::Formation(id) => good(store.formation(id))?.map(|formation| {
            let record = store.record(id).unwrap_or_default();
            let record = serde_json::to_vec(&record).expect("a record is plain values");
            vec![(b'r', record), (kind, formation.encode())]
        }),
    };
    Ok(parts.filter(|parts| parts.iter().all(|(_, part)| part.len() + 64 < MOST_RAW)))
}

/// A large blob: the hashes of its pieces, then those that the other side has not got.
fn large(
    store: &Store,
    item: &Item,
    size: u64,
    way: &Way,
    give: &mut dyn FnMut(Vec<Made>) -> bool,
) -> Result<(), SendError> {
    let ObjectId::Blob(id) = item.id else { return Ok(()) };
    let missing = |give: &mut dyn FnMut(Vec<Made>) -> bool| {
        let content = [&[kind_byte(item.id)], id.as_bytes().as_slice()].concat();
        let frame = Frame::new(Kind::Missing, &[], &content, LEVEL).map_err(SendError::Line)?;
        give(vec![Made { frame, bytes: 0 }]);
        Ok(())
    };
    let read = |error: io::Error| Error::file("read", store.path())(error);
    let Some(mut file) = good(store.open_blob(id))? else { return missing(give) };
    let mut passed = 0;
    let mut tick = || {
        passed += 1;
        // The other side does not wait longer than a second for a sign.
        if passed % 256 == 0 && !give(vec![Made { frame: Frame::empty(Kind::Wait), bytes: 0 }]) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    };
    let hashes = match pieces::hashes(&mut file, size, &mut tick) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return missing(give),
        hashes => hashes.map_err(read)?,
    };
    if pieces::id_of(&hashes, size) != Some(id) {
        return missing(give);
    }
    let head = [id.as_bytes().as_slice(), &size.to_le_bytes()].concat();
    let frame = Frame::new(Kind::Pieces, &head, &hashes.concat(), LEVEL).map_err(SendError::Line)?;
    if !give(vec![Made { frame, bytes: 0 }]) {
        return Ok(());
    }
    let mut file = store.open_blob(id)?;
    let mut index = item.pieces.min(pieces::count(size));
    io::Seek::seek(&mut file, io::SeekFrom::Start(index * pieces::PIECE)).map_err(read)?;
    while index < pieces::count(size) {
        let mut window = Vec::new();
        while window.len() < AT_ONCE && index < pieces::count(size) {
            let mut piece = Vec::new();
            (&mut file).take(pieces::PIECE).read_to_end(&mut piece).map_err(read)?;
            // It was whole a moment ago.
            if piece.is_empty() || pieces::hash(index, &piece) != hashes[index as usize] {
                return missing(give);
            }
            window.push((index, piece));
            index += 1;
        }
        let pack = |(index, piece): (u64, Vec<u8>)| {
            let head = [id.as_bytes().as_slice(), &(index as u32).to_le_bytes()].concat();
            let bytes = piece.len() as u64;
            Ok(Made { frame: way.frame(Kind::Piece, &head, piece)?, bytes })
        };
        let frames: Vec<Made> = window.into_par_iter().map(pack).collect::<io::Result<_>>().map_err(SendError::Line)?;
        if !give(frames) {
            return Ok(());
        }
    }
    Ok(())
}
