//! Formations on their way: to a peer with claims and fetched files, from the first that has them; and what is said of it.

use store::directory::{Claim, Record};
use store::peer::{Group, Moved, Nowhere, ObjectId, Peer, Realisation, Subject};
use store::signing::NamedKey;
use store::{BlobId, FileHash, FormationId, Store, StorePath};

use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::words::say;
use crate::{peers, render};

/// Gives formations to a peer, names them there, and leaves the claims behind them, signed.
pub fn push(
    store: &Store,
    peer: &dyn Peer,
    formations: &[(FormationId, String)],
    key: Option<&NamedKey>,
    context: &Context,
) -> Result<Moved> {
    let goals: Vec<ObjectId> = formations.iter().map(|(id, _)| ObjectId::Formation(*id)).collect();
    let moved = peers::watched(context, "push", peer.name(), |watch| Ok(peer.push(store, &goals, watch)?))?;
    for (id, name) in formations {
        peer.set_name(name, *id)?;
        if let Some(key) = key {
            peer.put_realisations(&realisations(store, &store.record(*id)?, key)?)?;
        }
    }
    Ok(moved)
}

/// The claims about the steps of a formation whose results go along with it: its layers.
fn realisations(store: &Store, record: &Record, key: &NamedKey) -> Result<Vec<Realisation>> {
    let mut realisations = Vec::new();
    for step in &record.steps {
        let Some(path) = StorePath::parse(&step.derivation) else { continue };
        let Some(claim) = store.claim_of_output(&path, "out")? else { continue };
        let goes_along = match &claim {
            Claim::Delta(id) => record.layers.iter().any(|layer| layer.delta == id.to_string()),
            Claim::Blob(_) => false,
        };
        if goes_along {
            let mut realisation = Realisation::new(Subject::Output(path.to_string(), "out".to_owned()), claim);
            realisation.sign(key);
            realisations.push(realisation);
        }
    }
    Ok(realisations)
}

/// Gives the files that were fetched for formations, findable by the hash that their lock names.
pub fn push_sources(
    store: &Store,
    peer: &dyn Peer,
    formations: &[(FormationId, String)],
    context: &Context,
) -> Result<Moved> {
    let mut fetched: Vec<(FileHash, BlobId)> = Vec::new();
    for (id, _) in formations {
        // What is known by the hash of an archive's content is no file.
        for fetch in store.record(*id)?.fetched.iter().filter(|fetch| !fetch.algorithm.starts_with("nar-")) {
            let Some(hash) = FileHash::parse(&fetch.digest) else { continue };
            match store.blob_with_hash(&hash)? {
                Some(blob) => fetched.push((hash, blob)),
                None if !context.global.quiet => say!("forge: `{}` is not here any more", fetch.name),
                None => {}
            }
        }
    }
    fetched.sort_unstable();
    fetched.dedup();
    let goals: Vec<ObjectId> = fetched.iter().map(|(_, blob)| ObjectId::Blob(*blob)).collect();
    let moved = peers::watched(context, "push", "fetched files", |watch| Ok(peer.push(store, &goals, watch)?))?;
    peer.put_fetched(&fetched)?;
    Ok(moved)
}

/// One line of what was moved.
pub fn said(moved: &Moved, did: &str, peer: &str, context: &Context) {
    if !context.global.quiet {
        let (objects, bytes, wire) = (moved.moved.len(), render::size(moved.bytes), render::size(moved.wire));
        say!("{did} {objects} objects, {bytes} ({wire} on the line), {} were there: {peer}", moved.had.len());
    }
}

/// The record of a transfer: every object, and who had it.
pub fn receipt(moved: &Moved, peer: &str, what: &str, about: serde_json::Value) -> serde_json::Value {
    let objects = |objects: &[ObjectId], moved: bool| -> Vec<serde_json::Value> {
        let record = |object: &ObjectId| {
            let id = store::digest::to_hex(object.as_bytes());
            serde_json::json!({ "kind": object.kind(), "id": id, "moved": moved })
        };
        objects.iter().map(record).collect()
    };
    let mut all = objects(&moved.moved, true);
    all.extend(objects(&moved.had, false));
    serde_json::json!({
        "schema": 1,
        "peer": peer,
        what: about,
        "moved": moved.moved.len(),
        "had": moved.had.len(),
        "differences": moved.differences,
        "bytes": moved.bytes,
        "wire": moved.wire,
        "objects": all,
    })
}

/// Brings a formation here from the first peer that has it.
pub fn from_group(group: &Group<'_>, store: &Store, id: FormationId, context: &Context) -> Result<(Moved, String)> {
    let wanted = [ObjectId::Formation(id)];
    let pulled = peers::watched(context, "pull", &id.short(), |watch| Ok(group.pull(store, &wanted, watch)?))?;
    pulled.map_err(|answers| nowhere(&id.to_string(), answers))
}

/// Brings a formation here that a command needs and the store has not got, if there is anybody to ask. It keeps its name.
pub fn missing(store: &Store, id: FormationId, error: store::Error, context: &Context) -> Result<FormationId> {
    let group = peers::group(context)?;
    if group.is_empty() {
        return Err(error.into());
    }
    let (moved, from) = from_group(&group, store, id, context)?;
    store.set_root(&store.formation(id)?.name, id)?;
    said(&moved, "pulled", &from, context);
    Ok(id)
}

/// Nobody has it, in their words.
pub fn nowhere(given: &str, nowhere: Nowhere) -> Failure {
    let code = if nowhere.lies { code::DAMAGED } else { code::UNREACHABLE };
    let failure = Failure::new(code, format!("no formation `{given}` here or at the peers"));
    let failure = nowhere.answers.into_iter().fold(failure, |failure, (_, answer)| failure.cause(answer));
    failure.hint("`forge build` makes it again if you have its expression; `forge remote test` asks the peers")
}
