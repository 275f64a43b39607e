//! `http://` and `https://`: another forge (`forge serve`).
//!
//! A pull asks once what lies below, without what both sides have, and once for the blobs that are missing, which come as one stream. A push asks
//! once what the other lacks, and sends it as one stream. A cut line is taken up again where it was cut.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::answer::candidates;
use super::arriving::{Arrived, Broken, Reception};
use super::closure::{BlobUse, Closure, Earlier};
use super::incoming::{Incoming, Outline};
use super::message::{Below, Lacking, Lacks, encode_items};
use super::outgoing::{Item, send};
use super::{About, Error, Moved, ObjectId, Peer, Realisation, Result, Settings, Subject, Watch, pieces};
use crate::http::{Answer, Call, Client, Content, Failure, Patience, Place, split};
use crate::{BlobId, FileHash, FormationId, Store};

/// How often a transfer that moves on is taken up again.
const ATTEMPTS: u32 = 8;
/// An answer that is read as a whole is never longer.
const MOST_ANSWER: u64 = 128 << 20;
/// What a peer must bring at least, in bytes a second, once it has been waited for as long as its patience allows.
const LEAST_RATE: f64 = 16_384.0;

/// Another forge.
pub struct Http {
    name: String,
    address: String,
    token: Option<String>,
    client: Client,
    patience: Patience,
    /// Bytes of questions and answers.
    wire: AtomicU64,
}

impl Http {
    /// The forge at an address; none if it is not one.
    pub fn new(settings: &Settings) -> Option<Self> {
        let parts = split(&settings.address)?;
        (parts.user.is_none() && !parts.path.contains(['?', '#'])).then(|| Self {
            name: settings.shown(),
            address: settings.address.trim_end_matches('/').to_owned(),
            token: settings.token.clone(),
            client: Client::new(settings.environment.clone(), settings.patience),
            patience: settings.patience,
            wire: AtomicU64::new(0),
        })
    }

    fn call(&self, method: &str, path: &str, content: Content<'_>) -> Result<Answer> {
        let place = Place::new(format!("{}/v1/{path}", self.address));
        let mut headers = Vec::new();
        headers.extend(self.token.as_ref().map(|token| ("authorization", format!("Bearer {token}"))));
        if let Content::Bytes(bytes) = &content {
            self.wire.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        let answer = self.client.call(&place, Call { method, headers: &headers, content });
        let mut answer = answer.map_err(|failure| self.failed(failure))?;
        if (200..=299).contains(&answer.status) {
            return Ok(answer);
        }
        // Why, in the server's own words; as far as they are words.
        let mut words = Vec::new();
        let _ = (&mut answer.body).take(512).read_to_end(&mut words);
        let words: String =
            String::from_utf8_lossy(&words).trim().chars().filter(|letter| !letter.is_control()).collect();
        let peer = self.name.clone();
        Err(match answer.status {
            401 | 403 => Error::Refused { peer, reason: if words.is_empty() { "no access".to_owned() } else { words } },
            404 => Error::Missing { peer, object: if words.is_empty() { format!("`{path}`") } else { words } },
            status @ (408 | 429 | 500..=599) => {
                Error::Unreachable { peer, reason: format!("{}: {words}", Failure::Status(status)) }
            }
            status => Error::Protocol { peer, reason: format!("{}: {words}", Failure::Status(status)) },
        })
    }

    fn failed(&self, failure: Failure) -> Error {
        Error::Unreachable { peer: self.name.clone(), reason: failure.to_string() }
    }

    fn protocol(&self, reason: impl Into<String>) -> Error {
        Error::Protocol { peer: self.name.clone(), reason: reason.into() }
    }

    /// A whole answer, which is small.
    fn answer(&self, method: &str, path: &str, content: Content<'_>) -> Result<Vec<u8>> {
        let answer = self.call(method, path, content)?;
        let mut bytes = Vec::new();
        let read = self.paced(answer.body).take(MOST_ANSWER + 1).read_to_end(&mut bytes);
        read.map_err(|error| self.cut(&error))?;
        if bytes.len() as u64 > MOST_ANSWER {
            return Err(self.protocol("an answer without end"));
        }
        Ok(bytes)
    }

    fn json<T: serde::de::DeserializeOwned>(&self, method: &str, path: &str, question: &[u8]) -> Result<T> {
        let content = if method == "GET" { Content::None } else { Content::Bytes(question) };
        let bytes = self.answer(method, path, content)?;
        serde_json::from_slice(&bytes).map_err(|error| self.protocol(error.to_string()))
    }

    fn cut(&self, error: &io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::InvalidData => self.protocol(error.to_string()),
            _ => Error::Unreachable { peer: self.name.clone(), reason: format!("the line was cut: {error}") },
        }
    }

    fn paced<'a>(&'a self, body: Box<dyn Read + Send>) -> Paced<'a> {
        Paced { body, wire: &self.wire, waited: Duration::ZERO, read: 0, patience: self.patience.silence }
    }

    fn broken(&self, broken: Broken) -> Error {
        match broken {
            Broken::Line(error) => self.cut(&error),
            Broken::Lie(object) => Error::lie(&self.name, object),
            Broken::Own(error) => error,
        }
    }

    /// Asks for a stream and takes what comes of it. Blobs that were not asked for are refused.
    fn stream(
        &self,
        store: &Store,
        path: &str,
        question: &[u8],
        wanted: &HashMap<BlobId, bool>,
        tell: &(dyn Fn(u64) -> Result<()> + Sync),
    ) -> Result<(Arrived, Option<Error>)> {
        let answer = self.call("POST", path, Content::Bytes(question))?;
        let wanted = |id: BlobId| wanted.get(&id).copied();
        let reception = Reception { store, wanted: &wanted, tell };
        let (arrived, broken) = reception.receive(&mut self.paced(answer.body));
        Ok((arrived, broken.map(|broken| self.broken(broken))))
    }

    /// Brings blobs, and takes a cut line up again as long as something comes.
    fn blobs(
        &self,
        store: &Store,
        lacking: Vec<(BlobUse, Option<BlobId>)>,
        watch: &Watch<'_>,
    ) -> Result<(HashSet<BlobId>, u64)> {
        let total = lacking.iter().map(|(used, _)| used.size.unwrap_or_default()).sum();
        let wanted: HashMap<BlobId, bool> = lacking.iter().map(|(used, _)| (used.id, used.executable)).collect();
        let (mut came, mut differences, mut before, mut failures) = (HashSet::new(), 0, 0, 0);
        let mut plain: HashSet<BlobId> = HashSet::new();
        while came.len() < lacking.len() {
            watch.check()?;
            let left = lacking.iter().filter(|(used, _)| !came.contains(&used.id));
            let item = |(used, earlier): &(BlobUse, Option<BlobId>)| Item {
                id: ObjectId::Blob(used.id),
                before: earlier.filter(|_| !plain.contains(&used.id)),
                pieces: if used.size.is_none_or(|size| size > pieces::PIECE) {
                    pieces::here(store, used.id)
                } else {
                    0
                },
            };
            let items: Vec<Item> = left.map(item).collect();
            let tell = |bytes: u64| {
                (watch.progress)(before + bytes, Some(total));
                watch.check()
            };
            let answer = self.stream(store, "objects/get", &encode_items(&items), &wanted, &tell);
            let (arrived, broken) = match answer {
                Ok(answer) => answer,
                Err(error) => (Arrived::default(), Some(error)),
            };
            before += arrived.bytes;
            differences += arrived.differences;
            if let Some(missing) = arrived.missing.iter().next() {
                return Err(Error::missing(&self.name, *missing));
            }
            let moved = arrived.bytes > 0 || !arrived.without_base.is_empty();
            plain.extend(arrived.without_base);
            came.extend(arrived.blobs);
            match broken {
                None if !moved && came.len() < lacking.len() => {
                    return Err(self.protocol("it sent less than was asked for"));
                }
                None => {}
                Some(error @ Error::Unreachable { .. }) => self.again(error, moved, &mut failures, watch)?,
                Some(error) => return Err(error),
            }
        }
        Ok((came, differences))
    }

    /// Whether a transfer that was cut is taken up again: not on the way to something else, and only while something comes.
    fn again(&self, error: Error, moved: bool, failures: &mut u32, watch: &Watch<'_>) -> Result<()> {
        *failures = if moved { 1 } else { *failures + 1 };
        if !self.patience.is_long() || *failures > ATTEMPTS {
            return Err(error);
        }
        let until = Instant::now() + Duration::from_millis(100) * 2u32.pow((*failures - 1).min(5));
        while Instant::now() < until {
            watch.check()?;
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// What both sides have that is most like what is to be moved: files there are what differences are made against.
    fn earlier(store: &Store, bases: &[FormationId], name: Option<&str>) -> Vec<BlobUse> {
        let like = |id: &&FormationId| {
            store.formation(**id).is_ok_and(|formation| name.is_none_or(|name| formation.name == name))
        };
        let best = bases.iter().find(like).or(bases.first());
        let closure = best.and_then(|id| {
            let root = store.formation(*id).ok()?.root;
            Closure::of(store, &[ObjectId::Tree(root)], &|_| false).ok()
        });
        closure.map(|closure| closure.blobs).unwrap_or_default()
    }

    /// Sends a stream of these items.
    fn send(&self, store: &Store, items: &[Item], total: u64, watch: &Watch<'_>) -> Result<(u64, Kept)> {
        let (mut reader, mut writer) = io::pipe().map_err(crate::Error::file("make a pipe in", store.path()))?;
        std::thread::scope(|scope| {
            let sender = scope.spawn(move || {
                let mut moved = 0;
                let sent = send(store, items, &mut writer, &mut |bytes| {
                    moved += bytes;
                    (watch.progress)(moved, Some(total));
                    watch.check().map_err(|_| io::ErrorKind::Interrupted.into())
                });
                drop(writer);
                sent
            });
            let mut counted = Counted { reader: &mut reader, wire: &self.wire };
            let answer = self.call("POST", "objects/put", Content::Stream(&mut counted, None));
            // Should the server have stopped reading, the sender must not wait for ever.
            drop(reader);
            let sent = match sender.join() {
                Ok(sent) => sent,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            watch.check()?;
            if let Err(super::outgoing::SendError::Store(error)) = sent {
                return Err(error.into());
            }
            let mut answer = answer?;
            let mut bytes = Vec::new();
            (&mut answer.body).take(MOST_ANSWER).read_to_end(&mut bytes).map_err(|error| self.cut(&error))?;
            let kept: Kept = serde_json::from_slice(&bytes).map_err(|error| self.protocol(error.to_string()))?;
            Ok((sent.map(|sent| sent.differences).unwrap_or_default(), kept))
        })
    }

    /// Asks which of these are lacking there.
    fn lacks(&self, question: &Lacks) -> Result<Lacking> {
        let bytes = self.answer("POST", "lacks", Content::Bytes(&question.encode()))?;
        let lacking = Lacking::decode(&bytes).map_err(|error| self.protocol(error.to_string()))?;
        if lacking.objects.len() != question.objects.len() || lacking.bases.len() > question.bases.len() {
            return Err(self.protocol("an answer to another question"));
        }
        Ok(lacking)
    }
}

/// What the other side says of a push.
#[derive(serde::Deserialize)]
struct Kept {
    missing: Vec<String>,
}

impl Peer for Http {
    fn name(&self) -> &str {
        &self.name
    }

    fn about(&self) -> Result<About> {
        #[derive(serde::Deserialize)]
        struct Said {
            protocol: u32,
            forge: String,
            read: bool,
            write: bool,
        }
        let said: Said = self.json("GET", "about", b"")?;
        if said.protocol != 1 {
            return Err(self.protocol(format!("it speaks protocol {}", said.protocol)));
        }
        Ok(About { kind: format!("forge {}", said.forge), read: said.read, write: said.write })
    }

    fn find(&self, given: &str) -> Result<Option<FormationId>> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte);
        if given.is_empty() || given.len() > 128 || !given.bytes().all(plain) {
            return Ok(None);
        }
        match self.answer("GET", &format!("formations/{given}"), Content::None) {
            Err(Error::Missing { .. }) => Ok(None),
            answer => {
                let text = String::from_utf8_lossy(&answer?).trim_end().to_owned();
                text.parse().map(Some).map_err(|_| self.protocol("what it calls a formation is no id"))
            }
        }
    }

    fn pull(&self, store: &Store, wanted: &[ObjectId], watch: &Watch<'_>) -> Result<Moved> {
        let start = self.wire.load(Ordering::Relaxed);
        let bases = candidates(store, None)?;
        let question = Below { goals: wanted.to_vec(), bases: bases.clone() };
        let tell = |_: u64| watch.check();
        let all_blobs = wanted.iter().all(|id| matches!(id, ObjectId::Blob(_)));
        let outline = match all_blobs {
            true => Arrived::default(),
            false => self.outline(store, &question, &tell)?,
        };
        let asker = Asking { peer: self, store, outline, further: Mutex::default(), watch };
        let mut incoming = Incoming::gather(store, &self.name, wanted, &asker)?;
        let lacking = incoming.lacking()?;
        let earlier = if lacking.is_empty() || bases.is_empty() {
            Vec::new()
        } else {
            Self::earlier(store, &bases, incoming.name())
        };
        let pairs = Earlier::new(&earlier);
        let lacking: Vec<_> = lacking
            .into_iter()
            .map(|used| (pairs.of(&used).map(|earlier| earlier.id), used))
            .map(|(earlier, used)| (used, earlier))
            .collect();
        let batch = store.batch_in_parts();
        let (came, differences) = self.blobs(store, lacking, watch)?;
        let moved = incoming.keep(&came)?;
        batch.finish()?;
        Ok(Moved { differences, wire: self.wire.load(Ordering::Relaxed) - start, ..moved })
    }

    fn push(&self, store: &Store, given: &[ObjectId], watch: &Watch<'_>) -> Result<Moved> {
        let start = self.wire.load(Ordering::Relaxed);
        let mut moved = Moved::default();
        let mut failures = 0;
        let closure = Closure::of(store, given, &|_| false)?;
        let name =
            closure.formations.first().map(|id| store.formation(*id)).transpose()?.map(|formation| formation.name);
        let mut bases = candidates(store, name.as_deref())?;
        bases.retain(|id| !closure.formations.contains(id));
        let first = match bases.first() {
            Some(id) if store.formation(*id).is_ok_and(|formation| Some(&formation.name) == name.as_ref()) => {
                Closure::of(store, &[ObjectId::Formation(*id)], &|_| false).ok()
            }
            _ => None,
        };
        let mut without: HashSet<ObjectId> =
            first.map(|first| first.objects().into_iter().collect()).unwrap_or_default();
        let uses: HashMap<BlobId, &BlobUse> = closure.blobs.iter().map(|used| (used.id, used)).collect();
        // What the other needs is written last: blobs, trees, deltas, formations.
        let mut everything = closure.objects();
        everything.reverse();
        let mut plain: HashSet<ObjectId> = HashSet::new();
        let mut forced: HashSet<ObjectId> = HashSet::new();
        loop {
            watch.check()?;
            let objects: Vec<ObjectId> = everything.iter().copied().filter(|id| !without.contains(id)).collect();
            let question = Lacks { bases: bases.clone(), without_first: !without.is_empty(), objects };
            let lacking = match self.lacks(&question) {
                Err(error @ Error::Unreachable { .. }) => {
                    self.again(error, false, &mut failures, watch)?;
                    continue;
                }
                lacking => lacking?,
            };
            if !without.is_empty() && lacking.bases.first() != Some(&true) {
                without.clear();
                continue;
            }
            let there = bases.iter().zip(&lacking.bases).filter(|(_, there)| **there).map(|(id, _)| *id);
            let there: Vec<FormationId> = there.collect();
            let earlier = if there.is_empty() { Vec::new() } else { Self::earlier(store, &there, name.as_deref()) };
            let pairs = Earlier::new(&earlier);
            let pieces: HashMap<u32, u64> = lacking.pieces.iter().copied().collect();
            let (mut items, mut total) = (Vec::new(), 0);
            for (place, (id, lacking)) in question.objects.iter().zip(&lacking.objects).enumerate() {
                if !lacking && !forced.contains(id) {
                    continue;
                }
                let used = match id {
                    ObjectId::Blob(id) => uses.get(id).copied(),
                    _ => None,
                };
                total += used.and_then(|used| used.size).unwrap_or_default();
                let before =
                    used.filter(|_| !plain.contains(id)).and_then(|used| pairs.of(used)).map(|earlier| earlier.id);
                items.push(Item { id: *id, before, pieces: pieces.get(&(place as u32)).copied().unwrap_or_default() });
            }
            // What waits there in memory only is lost when the line is cut; a formation is sent again with its trees.
            let sent = if items.is_empty() {
                Ok((0, Kept { missing: Vec::new() }))
            } else {
                self.send(store, &items, total, watch)
            };
            let (differences, kept) = match sent {
                Err(error @ Error::Unreachable { .. }) => {
                    self.again(error, false, &mut failures, watch)?;
                    continue;
                }
                sent => sent?,
            };
            moved.differences += differences;
            moved.moved.extend(items.iter().map(|item| item.id).filter(|id| !forced.contains(id)));
            moved.bytes += total;
            if kept.missing.is_empty() {
                let sent: HashSet<&ObjectId> = moved.moved.iter().collect();
                moved.had = everything.iter().filter(|id| !sent.contains(id)).copied().collect();
                moved.wire = self.wire.load(Ordering::Relaxed) - start;
                return Ok(moved);
            }
            // It said that it has them, or what they differ from, and has not: a crash may have taken them.
            let missing: HashSet<String> = kept.missing.into_iter().collect();
            let named: Vec<ObjectId> =
                everything.iter().copied().filter(|id| missing.contains(&id.to_string())).collect();
            let before = forced.len();
            plain.extend(&named);
            forced.extend(&named);
            forced.extend(everything.iter().copied().filter(|id| !matches!(id, ObjectId::Blob(_))));
            without.clear();
            failures += 1;
            if forced.len() == before || failures > ATTEMPTS {
                return Err(self.protocol("it lacks what it was given"));
            }
        }
    }

    fn set_name(&self, name: &str, id: FormationId) -> Result<()> {
        self.answer("PUT", &format!("names/{name}"), Content::Bytes(id.to_string().as_bytes())).map(drop)
    }

    fn realisations(&self, subjects: &[Subject]) -> Result<Vec<Realisation>> {
        let question: Vec<String> = subjects.iter().map(Subject::to_string).collect();
        let question = serde_json::to_vec(&question).expect("texts");
        let texts: Vec<String> = self.json("POST", "realisations/get", &question)?;
        texts.iter().map(|text| Realisation::parse(text).ok_or_else(|| self.protocol("a claim that is none"))).collect()
    }

    fn put_realisations(&self, realisations: &[Realisation]) -> Result<()> {
        let texts: Vec<String> = realisations.iter().map(Realisation::to_text).collect();
        let texts = serde_json::to_vec(&texts).expect("texts");
        self.answer("POST", "realisations/put", Content::Bytes(&texts)).map(drop)
    }

    fn fetched(&self, hashes: &[FileHash]) -> Result<Vec<Option<BlobId>>> {
        let question: Vec<String> = hashes.iter().map(FileHash::to_string).collect();
        let question = serde_json::to_vec(&question).expect("texts");
        let answer: Vec<Option<String>> = self.json("POST", "fetched/get", &question)?;
        if answer.len() != hashes.len() {
            return Err(self.protocol("an answer to another question"));
        }
        let id = |text: Option<String>| match text {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| self.protocol("what it calls a blob is no id")),
        };
        answer.into_iter().map(id).collect()
    }

    fn put_fetched(&self, fetched: &[(FileHash, BlobId)]) -> Result<()> {
        let list: Vec<(String, String)> =
            fetched.iter().map(|(hash, blob)| (hash.to_string(), blob.to_string())).collect();
        let list = serde_json::to_vec(&list).expect("texts");
        self.answer("POST", "fetched/put", Content::Bytes(&list)).map(drop)
    }
}

impl Http {
    /// Everything but blobs below some objects.
    fn outline(&self, store: &Store, question: &Below, tell: &(dyn Fn(u64) -> Result<()> + Sync)) -> Result<Arrived> {
        let mut failures = 0;
        loop {
            let answer = self.stream(store, "below", &question.encode(), &HashMap::new(), tell);
            let error = match answer {
                Ok((arrived, None)) => return Ok(arrived),
                Ok((_, Some(error))) | Err(error) => error,
            };
            failures += 1;
            if !self.patience.is_long() || failures > 3 || !matches!(error, Error::Unreachable { .. }) {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(100) * failures);
        }
    }
}

/// Gives what came as an outline, and asks for what it left out because we were thought to have it.
struct Asking<'a> {
    peer: &'a Http,
    store: &'a Store,
    outline: Arrived,
    further: Mutex<HashMap<ObjectId, Vec<u8>>>,
    watch: &'a Watch<'a>,
}

impl Outline for Asking<'_> {
    fn encodings(&self, ids: &[ObjectId]) -> Result<Vec<Option<Vec<u8>>>> {
        let mut further = self.further.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let absent = |id: &&ObjectId| !self.outline.objects.contains_key(id) && !further.contains_key(id);
        let absent: Vec<Item> = ids.iter().filter(absent).copied().map(Item::whole).collect();
        if !absent.is_empty() {
            let tell = |_: u64| self.watch.check();
            let (arrived, broken) =
                self.peer.stream(self.store, "objects/get", &encode_items(&absent), &HashMap::new(), &tell)?;
            if let Some(error) = broken {
                return Err(error);
            }
            further.extend(arrived.objects);
        }
        let find = |id: &ObjectId| self.outline.objects.get(id).or_else(|| further.get(id)).cloned();
        Ok(ids.iter().map(find).collect())
    }

    fn record(&self, id: FormationId) -> Result<Option<crate::directory::Record>> {
        self.outline.record(id)
    }
}

/// What is read off the line: counted, and given up if it comes too slowly.
struct Paced<'a> {
    body: Box<dyn Read + Send>,
    wire: &'a AtomicU64,
    waited: Duration,
    read: u64,
    patience: Duration,
}

impl Read for Paced<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let started = Instant::now();
        let count = self.body.read(buffer)?;
        self.waited += started.elapsed();
        self.read += count as u64;
        self.wire.fetch_add(count as u64, Ordering::Relaxed);
        let allowed = self.patience.as_secs_f64() + self.read as f64 / LEAST_RATE;
        if count > 0 && self.waited.as_secs_f64() > allowed {
            let reason = format!("{} bytes in {:.1} s", self.read, self.waited.as_secs_f64());
            return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
        }
        Ok(count)
    }
}

/// What is sent, counted.
struct Counted<'a> {
    reader: &'a mut io::PipeReader,
    wire: &'a AtomicU64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.wire.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
