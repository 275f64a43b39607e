//! What an expression asks the lock, what the lock does not answer, and what is to be read of what comes from elsewhere.

use std::collections::BTreeMap;

use store::StorePath;
use store::derivation::Fetched;
use store::lock::{Lock, LockRequest};

use crate::error::Place;

/// The lock of an evaluation.
#[derive(Default)]
pub struct Locking {
    /// What is answered.
    pub lock: Lock,
    /// What is not, by the text of the request.
    pub missing: BTreeMap<String, Question>,
    /// What was to be read and is not on this machine's disk.
    pub wanted: BTreeMap<StorePath, Fetched>,
}

/// What the lock does not answer, and who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What is asked.
    pub request: LockRequest,
    /// Where the user wrote it; several layers ask together. None where it is written in what comes with forge.
    pub origins: Vec<Origin>,
}

/// Something that a user wrote and that the lock is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Its name there.
    pub place: Place,
    /// The texts that it is or holds.
    pub texts: Vec<String>,
}

impl Origin {
    /// Of a place alone.
    pub fn of(place: Place) -> Self {
        Self { place, texts: Vec::new() }
    }
}

impl Question {
    /// Where the user wrote what a failure to answer speaks of; where the question is from, if it speaks of nothing that was written.
    pub fn place_of(&self, failure: &str) -> Option<Place> {
        let written = self.origins.iter().flat_map(|origin| origin.texts.iter().map(move |text| (origin, text)));
        let found = written.filter_map(|of| Some((weight(failure, of.1)?, of))).max_by_key(|(weight, _)| *weight);
        match found {
            Some((_, (origin, text))) => Some(within(&origin.place, text).unwrap_or_else(|| origin.place.clone())),
            None => Some(self.origins.first()?.place.clone()),
        }
    }
}

/// How surely a message speaks of a text, or of the name that it begins with (`requests` of `requests[socks]>=2`): surest if that is
/// what it quotes, and the longer the surer, as `numpy` is in `numpy>=2`, too. None if it is no word of it.
fn weight(message: &str, text: &str) -> Option<(bool, usize)> {
    let of_names = |letter: char| letter.is_alphanumeric() || "._-+".contains(letter);
    let name = text.split(|letter| !of_names(letter)).next().unwrap_or_default();
    let is_word = |word: &str| {
        message.match_indices(word).any(|(at, _)| {
            let after = message[at + word.len()..].trim_start_matches('.');
            !message[..at].ends_with(of_names) && !after.starts_with(of_names)
        })
    };
    let weight = |word: &&str| Some((message.contains(&format!("`{word}`")), text.len())).filter(|_| is_word(word));
    [text, name].iter().filter(|word| !word.is_empty()).filter_map(weight).max()
}

/// Where a text stands in quotes in what follows an attribute's name, as it does unless it is put together.
fn within(attribute: &Place, text: &str) -> Option<Place> {
    let bytes = &attribute.text.bytes;
    let mut at = attribute.end;
    while let Some(byte) = bytes.get(at) {
        let rest = &bytes[at + 1..];
        at += 1 + match byte {
            b'"' => {
                let length = rest.iter().position(|byte| *byte == b'"')?;
                if &rest[..length] == text.as_bytes() {
                    return Some(Place { text: attribute.text.clone(), start: at, end: at + length + 2 });
                }
                length + 1
            }
            b'#' => rest.iter().position(|byte| *byte == b'\n')?,
            // The end of the list, or of the attribute.
            b']' | b';' | b'}' => return None,
            _ => 0,
        };
    }
    None
}

/// What an evaluation could not go on without.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unanswered {
    /// The lock does not answer these.
    pub requests: Vec<Question>,
    /// These are known by their hash, and were to be read (see [`crate::Sources::show`]).
    pub wanted: Vec<(StorePath, Fetched)>,
}

impl Unanswered {
    /// Nothing is wanting.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.wanted.is_empty()
    }
}

impl Locking {
    /// What came up since it was last asked.
    pub fn take_unanswered(&mut self) -> Unanswered {
        Unanswered {
            requests: std::mem::take(&mut self.missing).into_values().collect(),
            wanted: std::mem::take(&mut self.wanted).into_iter().collect(),
        }
    }
}
