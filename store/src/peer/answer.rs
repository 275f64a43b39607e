//! What a store answers when it is somebody's peer: the other half of [`super::http`], without the line between.

use std::collections::HashSet;
use std::io::{Read, Write};

use rayon::prelude::*;

use super::arriving::{Arrived, Broken, Reception};
use super::closure::Closure;
use super::incoming::{Incoming, Outline};
use super::message::{Below, Lacking, Lacks};
use super::outgoing::{Item, SendError, Sent, send};
use super::{Error, ObjectId, Result, pieces};
use crate::{FormationId, Store, TreeId};

/// More bases than this are not looked at: what they share shows by then.
pub const MOST_BASES: usize = 256;

/// What came of a push.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kept {
    /// How many objects are kept that were not here.
    pub kept: u64,
    /// What must come before the rest can be kept.
    pub missing: Vec<ObjectId>,
}

/// Which objects of a list are not here.
pub fn lacking(store: &Store, question: &Lacks) -> Result<Lacking> {
    let has = |id: &ObjectId| -> crate::Result<bool> {
        Ok(match id {
            ObjectId::Blob(id) => store.has_blob(*id),
            ObjectId::Tree(id) => store.has_tree(*id),
            ObjectId::Delta(id) => store.delta(*id).is_ok(),
            ObjectId::Formation(id) => store.formation(*id).is_ok(),
        })
    };
    let lacks = |id: &ObjectId| Ok(!has(id)?);
    let objects: Vec<bool> = question.objects.par_iter().map(lacks).collect::<crate::Result<_>>()?;
    let bases = question.bases.iter().take(MOST_BASES).map(|id| store.formation(*id).is_ok()).collect();
    let mut known = Vec::new();
    for (place, (id, lacking)) in question.objects.iter().zip(&objects).enumerate() {
        if let (ObjectId::Blob(id), true) = (id, lacking) {
            let here = pieces::here(store, *id);
            if here > 0 {
                known.push((place as u32, here));
            }
        }
    }
    Ok(Lacking { bases, objects, pieces: known })
}

/// Trees below formations that both sides have.
fn trees_below(store: &Store, bases: &[FormationId]) -> Result<HashSet<TreeId>> {
    let here = |id: &&FormationId| store.formation(**id).is_ok();
    let goals: Vec<ObjectId> = bases.iter().take(MOST_BASES).filter(here).map(|id| ObjectId::Formation(*id)).collect();
    // Deltas may have come without what is below them; of the root itself everything is there.
    let mut below = HashSet::new();
    for goal in goals {
        let known = &below;
        match Closure::of(store, &[goal], &|id| known.contains(&id)) {
            Ok(closure) => below.extend(closure.trees),
            // A base that is damaged here is none.
            Err(crate::Error::NotFound { .. } | crate::Error::Mismatch { .. } | crate::Error::Decode { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(below)
}

/// Writes everything but blobs below what was asked for, except what lies below the bases that are here too.
pub fn below(store: &Store, question: &Below, out: &mut (dyn Write + Send)) -> Result<Sent, SendError> {
    let own = |error: Error| match error {
        Error::Store(error) => SendError::Store(error),
        error => SendError::Line(std::io::Error::other(error.to_string())),
    };
    let known = trees_below(store, &question.bases).map_err(own)?;
    let goals: Vec<ObjectId> =
        question.goals.iter().copied().filter(|goal| !matches!(goal, ObjectId::Blob(_))).collect();
    let closure = Closure::of(store, &goals, &|id| known.contains(&id))?;
    let formations = closure.formations.iter().copied().map(ObjectId::Formation);
    let deltas = closure.deltas.iter().copied().map(ObjectId::Delta);
    let trees = closure.trees.iter().copied().map(ObjectId::Tree);
    let items: Vec<Item> = formations.chain(deltas).chain(trees).map(Item::whole).collect();
    send(store, &items, out, &mut |_| Ok(()))
}

/// Takes a stream into the store. What does not belong together as a whole is not kept, and what is missing is told.
pub fn take(store: &Store, input: &mut dyn Read, tell: &(dyn Fn(u64) -> Result<()> + Sync)) -> Result<Kept, Broken> {
    let batch = store.batch_in_parts();
    let reception = Reception { store, wanted: &|_| Some(false), tell };
    let (arrived, broken) = reception.receive(input);
    let kept = match broken {
        Some(broken) => Err(broken),
        None => keep(store, &arrived),
    };
    // What came before the line was cut is kept, too.
    batch.finish()?;
    kept
}

fn keep(store: &Store, arrived: &Arrived) -> Result<Kept, Broken> {
    let mut kept = Kept { kept: arrived.blobs.len() as u64, missing: Vec::new() };
    kept.missing.extend(arrived.without_base.iter().copied().map(ObjectId::Blob));
    let goals: Vec<ObjectId> = arrived.objects.keys().copied().collect();
    if goals.is_empty() {
        return Ok(kept);
    }
    let outline = Noted { arrived, missing: std::sync::Mutex::default() };
    let gathered = Incoming::gather(store, "the client", &goals, &outline);
    kept.missing.extend(outline.missing.into_inner().unwrap_or_default());
    let mut incoming = match gathered {
        Err(Error::Missing { .. }) => return Ok(kept),
        Err(Error::Lie { .. }) => return Err(Broken::Lie(goals[0])),
        gathered => gathered.map_err(Broken::Own)?,
    };
    kept.missing.extend(incoming.lacking().map_err(Broken::Own)?.iter().map(|used| ObjectId::Blob(used.id)));
    if !kept.missing.is_empty() {
        return Ok(kept);
    }
    match incoming.keep(&HashSet::new()) {
        Ok(moved) => kept.kept += moved.moved.len() as u64,
        Err(Error::Lie { .. }) => return Err(Broken::Lie(goals[0])),
        Err(error) => return Err(Broken::Own(error)),
    }
    Ok(kept)
}

/// Notes what is asked for and did not come.
struct Noted<'a> {
    arrived: &'a Arrived,
    missing: std::sync::Mutex<Vec<ObjectId>>,
}

impl Outline for Noted<'_> {
    fn encodings(&self, ids: &[ObjectId]) -> Result<Vec<Option<Vec<u8>>>> {
        let answers = self.arrived.encodings(ids)?;
        let mut missing = self.missing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let absent = ids.iter().zip(&answers).filter(|(id, bytes)| bytes.is_none() && matches!(id, ObjectId::Tree(_)));
        missing.extend(absent.map(|(id, _)| *id));
        Ok(answers)
    }

    fn record(&self, id: FormationId) -> Result<Option<crate::directory::Record>> {
        self.arrived.record(id)
    }
}

/// Formations of a store that an other side may have too: those of this name first, the latest first.
pub(super) fn candidates(store: &Store, name: Option<&str>) -> crate::Result<Vec<FormationId>> {
    let mut candidates = Vec::new();
    for id in store.formations()? {
        let Ok(formation) = store.formation(id) else { continue };
        let built = store.record(id).map(|record| record.built).unwrap_or_default();
        candidates.push((name.is_none_or(|name| formation.name != name), std::cmp::Reverse(built), id));
    }
    candidates.sort_unstable();
    candidates.truncate(MOST_BASES);
    Ok(candidates.into_iter().map(|(_, _, id)| id).collect())
}
