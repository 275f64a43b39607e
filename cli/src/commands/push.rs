//! `forge push`: what a peer has not got is given to it, with signed claims of what the steps gave.

use std::process::ExitCode;

use store::directory::{Claim, Record};
use store::formation::is_name;
use store::peer::{Moved, ObjectId, Peer, Realisation, Subject};
use store::signing::NamedKey;
use store::{BlobId, FileHash, FormationId, Store, StorePath};

use crate::args::PushArguments;
use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::{peers, registries, render};

/// `forge push`
pub fn run(arguments: &PushArguments, context: &Context) -> Result<ExitCode> {
    let [formations @ .., peer] = arguments.words.as_slice() else {
        return Err(Failure::new(code::USAGE, "a formation and a peer are expected"));
    };
    if let Some(name) = &arguments.name {
        super::tag::check_name(name)?;
        if formations.len() > 1 {
            return Err(Failure::new(code::USAGE, "--name: one name for several formations"));
        }
    }
    let store = context.store()?;
    if let Some(address) = registries::address_of(peer, context) {
        return image(arguments, formations, &address, &store, context);
    }
    if !arguments.attach.is_empty() {
        let failure = Failure::new(code::USAGE, "--attach: documents go along with images");
        return Err(failure.hint("a peer of forge's own gets the record that they are made from"));
    }
    let peer = peers::named(context, peer)?;
    let key = peers::signing_key(context, arguments.sign.as_deref())?;
    let mut ids = Vec::new();
    for given in formations {
        let id = store.find(given)?;
        let own = || if is_name(given) { Ok(given.clone()) } else { store.formation(id).map(|it| it.name) };
        ids.push((
            id,
            match &arguments.name {
                Some(name) => name.clone(),
                None => own()?,
            },
        ));
    }
    let mut moved = push(&store, &*peer, &ids, key.as_ref(), context)?;
    if arguments.sources {
        moved.add(push_sources(&store, &*peer, &ids, context)?);
    }
    said(&moved, "pushed", peer.name(), context);
    if context.global.json {
        let ids: Vec<_> =
            ids.iter().map(|(id, name)| serde_json::json!({ "id": id.to_string(), "name": name })).collect();
        super::print_json(&receipt(&moved, peer.name(), "formations", ids.into()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// To a registry, where a formation is an image and its name a tag.
fn image(
    arguments: &PushArguments,
    formations: &[String],
    address: &str,
    store: &Store,
    context: &Context,
) -> Result<ExitCode> {
    if arguments.sources {
        let failure = Failure::new(code::USAGE, "--sources: a registry keeps images and nothing else");
        return Err(failure.hint("a file:// or https:// peer takes the fetched files"));
    }
    let ids = formations.iter().map(|given| Ok(store.find(given)?)).collect::<Result<Vec<FormationId>>>()?;
    let address = match &arguments.name {
        Some(name) => registries::reference(address)?.tagged(&store::registry::as_tag(name)).to_string(),
        None => address.to_owned(),
    };
    super::image::push(store, &ids, &address, &arguments.attach, arguments.compression, context)
}

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
                None if !context.global.quiet => eprintln!("forge: `{}` is not here any more", fetch.name),
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
        eprintln!("{did} {objects} objects, {bytes} ({wire} on the line), {} were there: {peer}", moved.had.len());
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
