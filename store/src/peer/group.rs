//! The configured peers together: all are asked in one round, and the best that has what is wanted gives it.
//!
//! One that does not answer, or lies, is asked nothing more for the length of a command, and one line says so.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use super::{Error, Moved, ObjectId, Peer, Realisation, Result, Subject, Watch};
use crate::signing::NamedPublicKey;
use crate::{BlobId, FileHash, FormationId, Store};

/// How long all peers together may take to say that they are there. A user waits no longer than that for those that are not.
const FIRST_ANSWER: Duration = Duration::from_millis(800);

/// Peers in the order of their priority.
pub struct Group<'a> {
    peers: Vec<Member>,
    /// Done before the first question: who does not answer is asked none.
    greeted: Once,
    trusted: Vec<NamedPublicKey>,
    tell: Box<dyn Fn(&str) + Send + Sync + 'a>,
    /// What was asked before.
    asked: Mutex<HashMap<FileHash, Option<BlobId>>>,
}

struct Member {
    peer: Arc<dyn Peer>,
    /// Why it is asked nothing more.
    gone: Mutex<Option<String>>,
}

/// What was not to be had, and what each peer said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nowhere {
    /// Each peer's name and answer.
    pub answers: Vec<(String, String)>,
    /// Whether one of them sent wrong bytes.
    pub lies: bool,
}

impl<'a> Group<'a> {
    /// These peers; claims count if one of these keys has signed them. `tell` is given a line when a peer is dropped.
    pub fn new(
        peers: Vec<Box<dyn Peer>>,
        trusted: Vec<NamedPublicKey>,
        tell: impl Fn(&str) + Send + Sync + 'a,
    ) -> Self {
        let peers = peers.into_iter().map(|peer| Member { peer: peer.into(), gone: Mutex::default() }).collect();
        Self { peers, greeted: Once::new(), trusted, tell: Box::new(tell), asked: Mutex::default() }
    }

    /// Whether there is anybody to ask.
    pub fn is_empty(&self) -> bool {
        self.living().next().is_none()
    }

    fn living(&self) -> impl Iterator<Item = &Member> {
        self.peers.iter().filter(|member| member.gone.lock().is_ok_and(|gone| gone.is_none()))
    }

    /// Once, before anything is asked: all peers at the same time. Names, connections and certificates can each take as long as a
    /// server likes; so it is the whole that is bounded, and a thread that still waits is left behind.
    fn greet(&self) {
        self.greeted.call_once(|| {
            let (giver, taker) = channel();
            let mut silent: BTreeMap<usize, &Member> = BTreeMap::new();
            for (place, member) in self.peers.iter().enumerate() {
                let (peer, giver) = (Arc::clone(&member.peer), giver.clone());
                let asked = std::thread::Builder::new().spawn(move || giver.send((place, peer.greet())).is_ok());
                // Without a thread it is asked like everybody else, and waited for.
                if asked.is_ok() {
                    silent.insert(place, member);
                }
            }
            drop(giver);
            let until = Instant::now() + FIRST_ANSWER;
            while let Ok((place, answer)) = taker.recv_timeout(until.saturating_duration_since(Instant::now())) {
                if let (Some(member), Err(error)) = (silent.remove(&place), answer) {
                    // What is wrong here shows when it is asked something.
                    let _ = self.failed(member, error);
                }
                if silent.is_empty() {
                    return;
                }
            }
            for member in silent.into_values() {
                let reason = format!("no answer within {} s", FIRST_ANSWER.as_secs_f64());
                let _ = self.failed(member, Error::Unreachable { peer: member.peer.name().to_owned(), reason });
            }
        });
    }

    /// Takes note of a peer's failure. Our own is the caller's.
    fn failed(&self, member: &Member, error: Error) -> Result<String> {
        if !error.is_the_peers() {
            return Err(error);
        }
        let text = error.to_string();
        if error.ends_it()
            && let Ok(mut gone) = member.gone.lock()
            && gone.is_none()
        {
            (self.tell)(&format!("{text}; it is not asked again"));
            *gone = Some(text.clone());
        }
        Ok(text)
    }

    /// Asks all at once; the answers are in the order of priority.
    fn ask<T: Send>(&self, question: impl Fn(&dyn Peer) -> Result<T> + Sync) -> Result<Vec<(&Member, T)>> {
        self.greet();
        let living: Vec<&Member> = self.living().collect();
        let answers: Vec<Result<T>> = match living.as_slice() {
            [only] => vec![question(&*only.peer)],
            many => std::thread::scope(|scope| {
                let question = &question;
                // A panic in one is a bug, and must not look like an answer.
                let threads: Vec<_> =
                    many.iter().copied().map(|member| scope.spawn(move || question(&*member.peer))).collect();
                threads.into_iter().map(|thread| thread.join().expect("no thread panicked")).collect()
            }),
        };
        let mut good = Vec::new();
        for (member, answer) in living.into_iter().zip(answers) {
            match answer {
                Ok(answer) => good.push((member, answer)),
                Err(error) => _ = self.failed(member, error)?,
            }
        }
        Ok(good)
    }

    /// The formation that an id or a name stands for, by the first peer that knows it.
    pub fn find(&self, given: &str) -> Result<Option<FormationId>> {
        Ok(self.ask(|peer| peer.find(given))?.into_iter().find_map(|(_, id)| id))
    }

    /// Who is worth asking for these objects: by priority, but of formations who says that it has them comes first. One that says so
    /// and has them not is asked all the same, last: a name or a claim of it may be older than what it holds.
    fn in_order(&self, wanted: &[ObjectId]) -> Result<Vec<&Member>> {
        self.greet();
        let mut order: Vec<&Member> = self.peers.iter().collect();
        let formations: Vec<String> = wanted
            .iter()
            .filter_map(|object| match object {
                ObjectId::Formation(id) => Some(id.to_string()),
                _ => None,
            })
            .collect();
        if !formations.is_empty() && self.living().nth(1).is_some() {
            let has_all =
                |peer: &dyn Peer| formations.iter().try_fold(true, |all, id| Ok(all && peer.find(id)?.is_some()));
            let having: Vec<*const Member> = self
                .ask(has_all)?
                .into_iter()
                .filter(|(_, has)| *has)
                .map(|(member, _)| std::ptr::from_ref(member))
                .collect();
            order.sort_by_key(|member| !having.contains(&std::ptr::from_ref(*member)));
        }
        Ok(order)
    }

    /// Brings objects into the store from the best peer that gives them all. None of ours fails; what each said is told.
    pub fn pull(
        &self,
        store: &Store,
        wanted: &[ObjectId],
        watch: &Watch<'_>,
    ) -> Result<std::result::Result<(Moved, String), Nowhere>> {
        let mut nowhere = Nowhere { answers: Vec::new(), lies: false };
        for member in self.in_order(wanted)? {
            if let Some(reason) = member.gone.lock().ok().and_then(|gone| gone.clone()) {
                nowhere.answers.push((member.peer.name().to_owned(), reason));
                continue;
            }
            match member.peer.pull(store, wanted, watch) {
                Ok(moved) => return Ok(Ok((moved, member.peer.name().to_owned()))),
                Err(error) => {
                    nowhere.lies |= matches!(error, Error::Lie { .. });
                    nowhere.answers.push((member.peer.name().to_owned(), self.failed(member, error)?));
                }
            }
        }
        Ok(Err(nowhere))
    }

    /// What came of these, as far as somebody says so whose key is trusted. Of several the first peer's counts.
    pub fn realisations(&self, subjects: &[Subject]) -> Result<BTreeMap<Subject, Realisation>> {
        let mut believed = BTreeMap::new();
        if subjects.is_empty() || self.trusted.is_empty() {
            return Ok(believed);
        }
        let asked: HashSet<&Subject> = subjects.iter().collect();
        for (_, answer) in self.ask(|peer| peer.realisations(subjects))? {
            for realisation in answer {
                if asked.contains(&realisation.subject) && realisation.signed_by(&self.trusted).is_some() {
                    believed.entry(realisation.subject.clone()).or_insert(realisation);
                }
            }
        }
        Ok(believed)
    }

    /// Which blobs have these hashes, as somebody says. It shows when they are here.
    pub fn fetched(&self, hashes: &[FileHash]) -> Result<Vec<Option<BlobId>>> {
        let lock = || self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = lock().clone();
        let new: Vec<FileHash> = hashes.iter().filter(|hash| !asked.contains_key(*hash)).cloned().collect();
        if !new.is_empty() && !self.is_empty() {
            let mut known = vec![None; new.len()];
            for (_, answer) in self.ask(|peer| peer.fetched(&new))? {
                for (known, answer) in known.iter_mut().zip(answer) {
                    *known = known.or(answer);
                }
            }
            lock().extend(new.into_iter().zip(known));
        }
        let asked = lock();
        Ok(hashes.iter().map(|hash| asked.get(hash).copied().flatten()).collect())
    }
}
