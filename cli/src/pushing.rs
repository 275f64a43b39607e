//! Pushing while building: what a step gave goes to a peer while other steps are still made.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use store::directory::Claim;
use store::peer::{Moved, ObjectId, Peer, Realisation, Watch};
use store::signing::NamedKey;
use store::{FormationId, Store};

use crate::args::PushOptions;
use crate::context::Context;
use crate::error::{Failure, Result};
use crate::{peers, transfer};

/// Is told what was made.
type Told<'a> = &'a (dyn Fn(Realisation) + Sync);

/// Steps that end within this time go together.
const TOGETHER: Duration = Duration::from_millis(300);

/// Gives a peer what is made.
pub struct Pusher {
    peer: Box<dyn Peer>,
    key: Option<NamedKey>,
    sources: bool,
}

impl Pusher {
    /// As the command line says; none if it names no peer. A peer that is not there is found out before anything is built.
    pub fn of(options: &PushOptions, context: &Context) -> Result<Option<Self>> {
        let Some(peer) = &options.peer else { return Ok(None) };
        let peer = peers::named(context, peer)?;
        let key = peers::signing_key(context, options.sign.as_deref())?;
        Ok(Some(Self { peer, key, sources: options.sources }))
    }

    /// Builds, and pushes beside it. What the peer refuses is told when the build is done.
    pub fn beside<T>(
        &self,
        store: &Store,
        context: &Context,
        build: &dyn Fn(Option<Told<'_>>) -> Result<T>,
    ) -> Result<(T, Result<Moved>)> {
        let (giver, taker) = channel();
        std::thread::scope(|scope| {
            let pushing = scope.spawn(move || self.push(store, &taker, context));
            let giver = std::sync::Mutex::new(giver);
            let built = build(Some(&|realisation| {
                // The pusher may have given up; the end tells why.
                let _ = giver.lock().unwrap_or_else(std::sync::PoisonError::into_inner).send(realisation);
            }));
            drop(giver);
            let pushed = match pushing.join() {
                Ok(pushed) => pushed,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            Ok((built?, pushed))
        })
    }

    fn push(&self, store: &Store, made: &Receiver<Realisation>, context: &Context) -> Result<Moved> {
        let watch = Watch { interrupt: &context.interrupt, progress: &|_, _| {} };
        let mut moved = Moved::default();
        while let Ok(first) = made.recv() {
            let mut batch = vec![first];
            std::thread::sleep(TOGETHER);
            batch.extend(made.try_iter());
            // Downloads go with --sources.
            batch.retain(|realisation| matches!(realisation.claim, Claim::Delta(_)));
            let mut goals: Vec<ObjectId> = batch
                .iter()
                .filter_map(|realisation| match realisation.claim {
                    Claim::Delta(id) => Some(ObjectId::Delta(id)),
                    Claim::Blob(_) => None,
                })
                .collect();
            goals.sort_unstable();
            goals.dedup();
            if goals.is_empty() {
                continue;
            }
            moved.add(self.peer.push(store, &goals, &watch)?);
            if let Some(key) = &self.key {
                batch.iter_mut().for_each(|realisation| realisation.sign(key));
                self.peer.put_realisations(&batch)?;
            }
        }
        Ok(moved)
    }

    /// Pushes the formation itself; gives the receipt of all that was pushed.
    pub fn finish(
        &self,
        store: &Store,
        id: FormationId,
        name: &str,
        pushed: Result<Moved>,
        context: &Context,
    ) -> Result<serde_json::Value, Failure> {
        let mut moved = pushed?;
        let formations = [(id, name.to_owned())];
        moved.add(transfer::push(store, &*self.peer, &formations, self.key.as_ref(), context)?);
        if self.sources {
            moved.add(transfer::push_sources(store, &*self.peer, &formations, context)?);
        }
        // What went with a step was there when the formation went.
        let sent: std::collections::HashSet<ObjectId> = moved.moved.iter().copied().collect();
        moved.had.retain(|object| !sent.contains(object));
        moved.had.sort_unstable();
        moved.had.dedup();
        transfer::said(&moved, "pushed", self.peer.name(), context);
        Ok(transfer::receipt(&moved, self.peer.name(), "id", id.to_string().into()))
    }
}
