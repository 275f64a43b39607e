//! What an evaluation wants of the world outside: the builder finds it, and the evaluation goes on. The store is opened only
//! when something is wanted.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use builder::{Builder, Machine};
use expressions::{Listener, Question};
use serde_json::Value;
use store::derivation::Fetched;
use store::lock::{LockEntry, LockRequest};
use store::{Store, StorePath};

use crate::args::BuildOptions;
use crate::context::Context;
use crate::error::{Failure, Result};
use crate::progress::{Progress, Style};
use crate::workshop::Workshop;

/// How often an evaluation may be begun again. Each time it comes further; nothing honest wants so many things one by one.
pub const MOST_ROUNDS: usize = 10_000;

/// The world outside. What was laid out stays on disk as long as this lives.
pub struct Outside<'a> {
    context: &'a Context,
    style: Style,
    opened: OnceCell<(Store, Machine)>,
}

impl<'a> Outside<'a> {
    /// Opens nothing yet.
    pub fn new(context: &'a Context) -> Self {
        let style = Style::of(None, context);
        Self { context, style, opened: OnceCell::new() }
    }

    fn with<T>(&self, work: impl FnOnce(&Builder<'_>) -> Result<T>) -> Result<T> {
        if self.opened.get().is_none() {
            crate::interrupt::watch(&self.context.interrupt);
            let _ = self.opened.set((self.context.store()?, self.context.machine()));
        }
        let (store, machine) = self.opened.get().expect("it was opened a moment ago");
        let progress = Progress::new(self.style);
        let workshop = Workshop::new(store, machine, &progress, self.context)?;
        let options = BuildOptions::default();
        let result = work(&workshop.builder(&options, self.context));
        progress.finish();
        result
    }

    /// Answers what a lock asks.
    pub fn answer(&self, project: &Path, questions: &[Question]) -> Result<Vec<LockEntry>> {
        self.with(|builder| questions.iter().map(|question| answer(builder, project, question)).collect())
    }

    /// Fetches and lays out what is to be read.
    pub fn lay_out(&self, wanted: &[(StorePath, Fetched)]) -> Result<Vec<(StorePath, PathBuf)>> {
        self.with(|builder| lay_out(builder, wanted))
    }
}

/// Answers one question. What lies in the project is told from there in a lock, and looked for where it is. A failure is shown where
/// the user wrote what it speaks of.
pub fn answer(builder: &Builder<'_>, project: &Path, question: &Question) -> Result<LockEntry> {
    let mut asked = question.request.clone();
    if let Some(Value::String(url)) = asked.parameters.get_mut("url")
        && let Some(path) = url.strip_prefix("file:./")
    {
        let mut whole = String::from("file://");
        for part in project.components() {
            if let std::path::Component::Normal(name) = part {
                whole.push('/');
                whole.push_str(&builder::fetch::percent_encode(&name.to_string_lossy()));
            }
        }
        *url = format!("{whole}/{path}");
    }
    let entry = builder::resolve::resolve(builder, &asked);
    let entry = entry.map_err(|error| Failure::from(error).where_asked(question))?;
    Ok(LockEntry { request: question.request.clone(), ..entry })
}

/// Fetches and lays out what is to be read; says where.
pub fn lay_out(builder: &Builder<'_>, wanted: &[(StorePath, Fetched)]) -> Result<Vec<(StorePath, PathBuf)>> {
    let place =
        |(path, fetched): &(StorePath, Fetched)| Ok((path.clone(), builder::fetch::tree::lay_out(builder, fetched)?));
    wanted.iter().map(place).collect()
}

/// Whether a request is for something that an expression itself names by its address.
pub fn names_its_address(request: &LockRequest) -> bool {
    matches!(request.kind.as_str(), "url" | "tree")
}

/// A listener that does not say again what was said in the rounds before: evaluations say the same on the same way.
pub struct Once {
    listener: Listener,
    counts: Arc<Mutex<(usize, usize)>>,
}

impl Once {
    /// Around another listener.
    pub fn new(listener: Listener) -> Self {
        Self { listener, counts: Arc::default() }
    }

    /// For the next round.
    pub fn again(&self) -> Listener {
        let (listener, counts) = (Arc::clone(&self.listener), Arc::clone(&self.counts));
        counts.lock().unwrap_or_else(PoisonError::into_inner).0 = 0;
        Arc::new(move |message| {
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            counts.0 += 1;
            if counts.0 > counts.1 {
                counts.1 = counts.0;
                listener(message);
            }
        })
    }
}

/// The same for what `nix-instantiate` prints, by bytes.
#[derive(Default)]
pub struct PrintedBefore(Mutex<BTreeMap<bool, (usize, usize)>>);

impl PrintedBefore {
    /// A round begins.
    pub fn begin(&self) {
        for (now, _) in self.0.lock().unwrap_or_else(PoisonError::into_inner).values_mut() {
            *now = 0;
        }
    }

    /// What of these bytes was not printed in an earlier round, on either of two streams.
    pub fn news<'b>(&self, stream: bool, bytes: &'b [u8]) -> &'b [u8] {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, before) = counts.entry(stream).or_default();
        let old = before.saturating_sub(*now).min(bytes.len());
        *now += bytes.len();
        *before = (*before).max(*now);
        &bytes[old..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_printed_is_not_printed_again() {
        let printed = PrintedBefore::default();
        assert_eq!(printed.news(true, b"ab"), b"ab");
        assert_eq!(printed.news(false, b"x"), b"x");
        printed.begin();
        assert_eq!(printed.news(true, b"a"), b"");
        assert_eq!(printed.news(true, b"bcd"), b"cd");
        assert_eq!(printed.news(false, b"xy"), b"y");
        printed.begin();
        assert_eq!(printed.news(true, b"abcd!"), b"!");
    }
}
