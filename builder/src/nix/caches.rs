//! What Nix derivations give is looked for in Nix's binary caches before anything is made: from the goals down, as far as nothing is
//! had. A path that a cache has, signed by a trusted key, comes with everything that it refers to; what it was made from is not made.
//!
//! Outputs whose names are known before they are made alone can be asked for: floating ones have none.

use std::collections::BTreeSet;
use std::sync::Mutex;

use store::directory::Claim;
use store::http::{Client, Patience};
use store::nix::cache::Caches;
use store::{Plan, StorePath};

use crate::report::{Event, Span};
use crate::schedule::derivation;
use crate::{Builder, Result, nix};

/// Brings what caches have, and notes it as what the derivations gave.
pub(crate) fn from_caches(builder: &Builder<'_>, plan: &Plan, goals: &[(&StorePath, &str)]) -> Result<()> {
    let settings = &builder.machine.nix_caches;
    if settings.addresses.is_empty() || !plan.derivations.values().any(nix::is_nix) {
        return Ok(());
    }
    let client = Client::new(builder.machine.environment.clone(), Patience::default());
    let caches = Caches {
        client: &client,
        addresses: settings.addresses.clone(),
        trusted: settings.trusted.clone(),
        interrupt: &builder.interrupt,
        dead: Mutex::default(),
    };
    let mut notes = BTreeSet::new();
    let mut open: Vec<(StorePath, String)> =
        goals.iter().map(|(path, output)| ((*path).clone(), (*output).to_owned())).collect();
    let mut seen: BTreeSet<(StorePath, String)> = open.iter().cloned().collect();
    while let Some((path, output)) = open.pop() {
        builder.check_interrupt()?;
        let wanted = derivation(plan, &path)?;
        if let Some(claim) = builder.store.claim_of_output(&path, &output)?
            && (!nix::is_nix(wanted) || nix::info::is_whole(builder.store, &claim)?)
        {
            continue;
        }
        let named = wanted.outputs.get(&output).and_then(|output| output.path.as_ref()).filter(|_| nix::is_nix(wanted));
        if let Some(name) = named {
            let span = Span::start(builder.reporter, "ask", format!("caches for {}", name.name()), None);
            let fetched = caches.fetch(builder.store, std::slice::from_ref(name));
            drop(span);
            // The store's word for an interrupt has no signal.
            builder.check_interrupt()?;
            let fetched = fetched?;
            notes.extend(fetched.notes);
            if let Some((delta, _)) = builder.store.store_path(name)?.filter(|_| fetched.here.contains(name)) {
                builder.store.put_claim_of_output(&path, &output, &Claim::Delta(delta))?;
                continue;
            }
        }
        for (input, outputs) in &wanted.input_derivations {
            for output in outputs {
                let key = (input.clone(), output.clone());
                if seen.insert(key.clone()) {
                    open.push(key);
                }
            }
        }
    }
    for note in &notes {
        builder.reporter.report(Event::Note(note));
    }
    Ok(())
}
