//! What peers have need not be made: steps that somebody whose key is trusted has made, and files that are known by their digest.
//!
//! Asked once before anything is made: for all steps that are not known here at once, then for all files that are still to be fetched.
//! A peer that does not answer is no reason to fail: what it would have given is made or fetched.

use std::collections::BTreeSet;

use store::digest::StepKey;
use store::directory::Claim;
use store::peer::{Group, ObjectId, Subject, Watch};
use store::{BlobId, Derivation, FileHash, Plan, StorePath};

use crate::report::Span;
use crate::schedule::{derivation, is_download};
use crate::{Builder, Result, nix};

/// Brings from peers what of a plan's outputs can be had.
pub(crate) fn from_peers(builder: &Builder<'_>, plan: &Plan, goals: &[(&StorePath, &str)]) -> Result<()> {
    let Some(peers) = builder.peers.filter(|peers| !peers.is_empty()) else { return Ok(()) };
    let unknown = walk(builder, plan, goals, &|_| false)?;
    if unknown.is_empty() {
        return Ok(());
    }
    // What a download gives follows from its digest: nobody need be trusted for it.
    let steps = unknown.iter().filter(|(path, _)| !is_download(&plan.derivations[path]));
    let subjects: Vec<Subject> = steps.map(|(path, output)| subject(path, output)).collect();
    let believed = peers.realisations(&subjects)?;
    // The topmost that are believed; nothing below them is looked at.
    let wanted = walk(builder, plan, goals, &|key| believed.contains_key(&subject(&key.0, &key.1)))?;
    let realisations: Vec<_> =
        wanted.iter().filter_map(|(path, output)| believed.get(&subject(path, output))).collect();
    let objects: BTreeSet<ObjectId> = realisations.iter().map(|realisation| object(&realisation.claim)).collect();
    if !objects.is_empty() && pull(builder, peers, "steps", objects)? {
        for realisation in realisations {
            builder.store.believe(realisation)?;
        }
    }
    let left = walk(builder, plan, goals, &|_| false)?;
    let downloads: BTreeSet<FileHash> = left.iter().filter_map(|(path, _)| hash_of(&plan.derivations[path])).collect();
    files(builder, peers, &downloads.into_iter().collect::<Vec<_>>())
}

/// Whether somebody has made a step with this key; then what came of it is here.
pub(crate) fn step(builder: &Builder<'_>, key: &StepKey) -> Result<Option<Claim>> {
    let Some(peers) = builder.peers.filter(|peers| !peers.is_empty()) else { return Ok(None) };
    let subject = Subject::Step(*key);
    let Some(realisation) = peers.realisations(std::slice::from_ref(&subject))?.remove(&subject) else {
        return Ok(None);
    };
    let came = pull(builder, peers, "step", BTreeSet::from([object(&realisation.claim)]))?;
    Ok(came.then_some(realisation.claim))
}

/// The blob with this hash, if a peer has it.
pub(crate) fn file(builder: &Builder<'_>, hash: &FileHash) -> Result<Option<BlobId>> {
    if let Some(peers) = builder.peers.filter(|peers| !peers.is_empty()) {
        files(builder, peers, std::slice::from_ref(hash))?;
    }
    Ok(builder.store.blob_with_hash(hash)?)
}

fn files(builder: &Builder<'_>, peers: &Group<'_>, wanted: &[FileHash]) -> Result<()> {
    let mut missing = Vec::new();
    for hash in wanted {
        if builder.store.blob_with_hash(hash)?.is_none() {
            missing.push(hash.clone());
        }
    }
    let known = peers.fetched(&missing)?;
    let pairs: Vec<(FileHash, BlobId)> =
        missing.into_iter().zip(known).filter_map(|(hash, blob)| Some((hash, blob?))).collect();
    let objects: BTreeSet<ObjectId> = pairs.iter().map(|(_, blob)| ObjectId::Blob(*blob)).collect();
    if objects.is_empty() || !pull(builder, peers, "fetched files", objects)? {
        return Ok(());
    }
    for (hash, blob) in pairs {
        // A peer may say what it likes; the bytes decide.
        if builder.store.has_hash(blob, &hash)? {
            builder.store.put_blob_with_hash(&hash, blob)?;
        }
    }
    Ok(())
}

/// Brings objects from the first peer that has them all; whether they are here.
fn pull(builder: &Builder<'_>, peers: &Group<'_>, what: &str, objects: BTreeSet<ObjectId>) -> Result<bool> {
    let span = Span::start(builder.reporter, "pull", what, None);
    let advance = |bytes: u64, _: Option<u64>| span.advance(bytes);
    let watch = Watch { interrupt: &builder.interrupt, progress: &advance };
    let objects: Vec<ObjectId> = objects.into_iter().collect();
    let came = peers.pull(builder.store, &objects, &watch)?.is_ok();
    builder.check_interrupt()?;
    Ok(came)
}

fn subject(path: &StorePath, output: &str) -> Subject {
    Subject::Output(path.to_string(), output.to_owned())
}

fn object(claim: &Claim) -> ObjectId {
    match claim {
        Claim::Blob(id) => ObjectId::Blob(*id),
        Claim::Delta(id) => ObjectId::Delta(*id),
    }
}

/// The hash of what a derivation fetches, if it is of one plain file.
fn hash_of(derivation: &Derivation) -> Option<FileHash> {
    let fixed = derivation.outputs.values().find_map(|output| output.fixed.as_ref())?;
    let plain = is_download(derivation) && !fixed.recursive;
    plain.then(|| FileHash::new(fixed.hash.clone())).flatten()
}

/// Outputs that are not here, from the goals down: as far as one is here or ends the way.
fn walk(
    builder: &Builder<'_>,
    plan: &Plan,
    goals: &[(&StorePath, &str)],
    ends: &dyn Fn(&(StorePath, String)) -> bool,
) -> Result<Vec<(StorePath, String)>> {
    let mut open: Vec<(StorePath, String)> =
        goals.iter().map(|(path, output)| ((*path).clone(), (*output).to_owned())).collect();
    let mut seen: BTreeSet<(StorePath, String)> = open.iter().cloned().collect();
    let mut unknown = Vec::new();
    while let Some(key) = open.pop() {
        let wanted = derivation(plan, &key.0)?;
        // What a Nix derivation gives is told by Nix's own caches.
        if nix::is_nix(wanted) || builder.store.claim_of_output(&key.0, &key.1)?.is_some() {
            continue;
        }
        if !ends(&key) {
            for (input, outputs) in &wanted.input_derivations {
                for output in outputs {
                    let key = (input.clone(), output.clone());
                    if seen.insert(key.clone()) {
                        open.push(key);
                    }
                }
            }
        }
        unknown.push(key);
    }
    Ok(unknown)
}
