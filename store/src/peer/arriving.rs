//! What comes as a stream: every piece is hashed as it arrives. Blobs are kept at once, all else waits ([`super::incoming`]).

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};

use super::frame::{Frame, Kind, MAGIC, MOST_RAW, bad};
use super::incoming::{MOST_RECORD_BYTES, Outline};
use super::pieces::Partial;
use super::{Error, ObjectId, Result};
use crate::directory::Record;
use crate::{BlobId, FormationId, Store};

/// Trees and the like of one stream that wait in memory.
const MOST_WAITING: u64 = 1 << 30;

/// What came, and how far the stream went.
#[derive(Default)]
pub struct Arrived {
    /// Blobs that are in the store now.
    pub blobs: HashSet<BlobId>,
    /// Encodings of everything else, each hashed.
    pub objects: HashMap<ObjectId, Vec<u8>>,
    /// What is known of formations.
    pub records: HashMap<FormationId, Record>,
    /// What the sender has not got.
    pub missing: HashSet<ObjectId>,
    /// Differences that could not be read, because what they differ from is not here.
    pub without_base: HashSet<BlobId>,
    /// How many blobs came as differences.
    pub differences: u64,
    /// Bytes in objects.
    pub bytes: u64,
    /// Bytes of objects that wait.
    waiting: u64,
}

/// Why a stream ended before its end.
#[derive(Debug)]
pub enum Broken {
    /// The line was cut, or what came is no stream.
    Line(io::Error),
    /// It sent something else than it said, or than was asked for.
    Lie(ObjectId),
    /// Our own store, or the user.
    Own(Error),
}

impl From<crate::Error> for Broken {
    fn from(error: crate::Error) -> Self {
        Self::Own(error.into())
    }
}

/// How a stream is received.
pub struct Reception<'a> {
    /// Where blobs are kept.
    pub store: &'a Store,
    /// Whether a blob is a program, if it may come at all.
    pub wanted: &'a (dyn Fn(BlobId) -> Option<bool> + Sync),
    /// Told how many bytes of objects have come, after each part; may end it.
    pub tell: &'a (dyn Fn(u64) -> Result<()> + Sync),
}

impl Reception<'_> {
    /// Reads a stream to its end. What came before it broke is kept, and told.
    pub fn receive(&self, input: &mut dyn Read) -> (Arrived, Option<Broken>) {
        let state = Mutex::new(Arrived::default());
        let broken = Mutex::new(None);
        // One more than there are processors: one of them may be waiting for the disk.
        let workers = 1 + rayon::current_num_threads().clamp(1, 8);
        let (giver, taker) = sync_channel::<Frame>(2);
        let taker = Mutex::new(taker);
        std::thread::scope(|scope| {
            let (taker, state, broken) = (&taker, &state, &broken);
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(move || self.work(taker, state, broken))).collect();
            let result = self.read(input, state, &|frame| {
                broken.lock().unwrap_or_else(PoisonError::into_inner).is_none() && giver.send(frame).is_ok()
            });
            drop(giver);
            for thread in threads {
                // A panic is a bug and goes on its way.
                if let Err(panic) = thread.join() {
                    std::panic::resume_unwind(panic);
                }
            }
            if let Err(error) = result {
                broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        });
        let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        (state, broken.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads frames: what is small goes to the workers, pieces go into their files.
    fn read(&self, input: &mut dyn Read, state: &Mutex<Arrived>, give: &dyn Fn(Frame) -> bool) -> Result<(), Broken> {
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic).map_err(Broken::Line)?;
        if magic != *MAGIC {
            return Err(Broken::Line(bad("it does not begin as a stream of objects does")));
        }
        let mut partial: Option<Partial<'_>> = None;
        loop {
            let frame = Frame::read(input).map_err(Broken::Line)?;
            match frame.kind {
                Kind::Objects | Kind::Difference => {
                    if !give(frame) {
                        return Ok(());
                    }
                }
                Kind::Pieces => {
                    self.finish(partial.take(), state)?;
                    partial = Some(self.pieces(&frame)?);
                }
                Kind::Piece => {
                    let partial = partial.as_mut().ok_or_else(|| Broken::Line(bad("a piece of nothing")))?;
                    let (id, index) = parse_head(&frame.head, 4).ok_or_else(|| Broken::Line(bad("a piece's head")))?;
                    let lie = Broken::Lie(ObjectId::Blob(partial.id()));
                    let content = frame.into_content(&[]);
                    match content {
                        Ok(content) if id == partial.id() && partial.add(index, &content)? => {
                            self.tell(state, content.len() as u64)?;
                        }
                        _ => return Err(lie),
                    }
                }
                Kind::Missing => {
                    let content = frame.content(&[]).map_err(Broken::Line)?;
                    let mut state = lock(state);
                    for entry in content.chunks(33) {
                        let (kind, digest) = entry.split_at(1);
                        let kind =
                            ["blob", "tree", "delta", "formation"].into_iter().find(|it| it.as_bytes()[0] == kind[0]);
                        let digest = <[u8; 32]>::try_from(digest).ok();
                        let id = kind.zip(digest).and_then(|(kind, digest)| ObjectId::from_parts(kind, digest));
                        state.missing.insert(id.ok_or_else(|| Broken::Line(bad("a missing object's id")))?);
                    }
                    if state.missing.len() > MOST_RAW / 33 {
                        return Err(Broken::Line(bad("too many missing objects")));
                    }
                }
                Kind::Wait => {
                    self.tell(state, 0)?;
                }
                Kind::End => return self.finish(partial.take(), state),
            }
        }
    }

    fn tell(&self, state: &Mutex<Arrived>, bytes: u64) -> Result<(), Broken> {
        let total = {
            let mut state = lock(state);
            state.bytes += bytes;
            state.bytes
        };
        (self.tell)(total).map_err(Broken::Own)
    }

    fn pieces(&self, frame: &Frame) -> Result<Partial<'_>, Broken> {
        let (id, size) = parse_head(&frame.head, 8).ok_or_else(|| Broken::Line(bad("the head of pieces")))?;
        let lie = || Broken::Lie(ObjectId::Blob(id));
        (self.wanted)(id).ok_or_else(lie)?;
        let content = frame.content(&[]).map_err(|_| lie())?;
        if content.len() % 32 != 0 {
            return Err(lie());
        }
        let hashes = content.chunks(32).map(|hash| hash.try_into().expect("32 bytes")).collect();
        Partial::open(self.store, id, size, hashes)?.ok_or_else(lie)
    }

    /// A large blob is whole, or has been given up by its sender.
    fn finish(&self, partial: Option<Partial<'_>>, state: &Mutex<Arrived>) -> Result<(), Broken> {
        let Some(partial) = partial else { return Ok(()) };
        let id = partial.id();
        if partial.finish((self.wanted)(id).unwrap_or_default())? {
            lock(state).blobs.insert(id);
        }
        Ok(())
    }

    fn work(&self, frames: &Mutex<Receiver<Frame>>, state: &Mutex<Arrived>, broken: &Mutex<Option<Broken>>) {
        loop {
            let frame = frames.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(frame) = frame else { return };
            // After a failure the rest is only drained, so that the reader does not wait for ever.
            if lock(broken).is_some() {
                continue;
            }
            let result = match frame.kind {
                Kind::Objects => self.objects(frame, state),
                _ => self.difference(&frame, state),
            };
            if let Err(error) = result {
                lock(broken).get_or_insert(error);
            }
        }
    }

    fn objects(&self, frame: Frame, state: &Mutex<Arrived>) -> Result<(), Broken> {
        let content = frame.into_content(&[]).map_err(Broken::Line)?;
        let mut rest = content.as_slice();
        while !rest.is_empty() {
            let no_object = || Broken::Line(bad("no object in a frame of objects"));
            let (head, behind) = rest.split_at_checked(37).ok_or_else(no_object)?;
            let digest = <[u8; 32]>::try_from(&head[1..33]).expect("32 bytes");
            let length = u32::from_le_bytes(head[33..].try_into().expect("four bytes")) as usize;
            let (bytes, behind) = behind.split_at_checked(length).ok_or_else(no_object)?;
            rest = behind;
            let kind = ["blob", "tree", "delta", "formation"].into_iter().find(|kind| kind.as_bytes()[0] == head[0]);
            match kind.and_then(|kind| ObjectId::from_parts(kind, digest)) {
                Some(id) => self.object(id, bytes, state)?,
                None if head[0] == b'r' => {
                    let id = FormationId::from_bytes(digest);
                    let record = (bytes.len() as u64 <= MOST_RECORD_BYTES).then(|| serde_json::from_slice(bytes).ok());
                    let record = record.flatten().ok_or(Broken::Lie(ObjectId::Formation(id)))?;
                    lock(state).records.insert(id, record);
                }
                None => return Err(no_object()),
            }
        }
        self.tell(state, content.len() as u64)
    }

    fn object(&self, id: ObjectId, bytes: &[u8], state: &Mutex<Arrived>) -> Result<(), Broken> {
        if id.of_same_kind(bytes) != id {
            return Err(Broken::Lie(id));
        }
        let ObjectId::Blob(blob) = id else {
            let mut state = lock(state);
            state.waiting += bytes.len() as u64;
            if state.waiting > MOST_WAITING {
                return Err(Broken::Line(bad("more trees than anybody has")));
            }
            state.objects.insert(id, bytes.to_vec());
            return Ok(());
        };
        let executable = (self.wanted)(blob).ok_or(Broken::Lie(id))?;
        self.store.put_blob(bytes, executable)?;
        lock(state).blobs.insert(blob);
        Ok(())
    }

    fn difference(&self, frame: &Frame, state: &Mutex<Arrived>) -> Result<(), Broken> {
        let halves = frame
            .head
            .split_at_checked(32)
            .and_then(|(one, other)| Some((one.try_into().ok()?, other.try_into().ok()?)));
        let (id, before): ([u8; 32], [u8; 32]) = halves.ok_or_else(|| Broken::Line(bad("the head of a difference")))?;
        let (id, before) = (BlobId::from_bytes(id), BlobId::from_bytes(before));
        let lie = || Broken::Lie(ObjectId::Blob(id));
        let executable = (self.wanted)(id).ok_or_else(lie)?;
        let too_large = self.store.blob_size(before)?.is_some_and(|size| size > MOST_RAW as u64);
        let before = if too_large { return Err(lie()) } else { self.store.blob(before) };
        // What is not here, or damaged here, is nothing to build on; the blob is asked for again as a whole.
        let Ok(before) = before else {
            lock(state).without_base.insert(id);
            return Ok(());
        };
        let bytes = frame.content(&before).map_err(|_| lie())?;
        if BlobId::of(&bytes) != id {
            return Err(lie());
        }
        self.store.put_blob(&bytes, executable)?;
        {
            let mut state = lock(state);
            state.blobs.insert(id);
            state.differences += 1;
        }
        self.tell(state, bytes.len() as u64)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A blob's id and a number of so many bytes.
fn parse_head(head: &[u8], length: usize) -> Option<(BlobId, u64)> {
    let (id, number) = head.split_at_checked(32)?;
    let mut bytes = [0; 8];
    (number.len() == length).then_some(())?;
    bytes[..length].copy_from_slice(number);
    Some((BlobId::from_bytes(id.try_into().ok()?), u64::from_le_bytes(bytes)))
}

impl Outline for Arrived {
    fn encodings(&self, ids: &[ObjectId]) -> Result<Vec<Option<Vec<u8>>>> {
        Ok(ids.iter().map(|id| self.objects.get(id).cloned()).collect())
    }

    fn record(&self, id: FormationId) -> Result<Option<Record>> {
        Ok(self.records.get(&id).cloned())
    }
}
