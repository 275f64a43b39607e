//! `forge pull`: what is not here is taken from a peer, and checked.

use std::process::ExitCode;

use store::peer::{Group, Moved, Nowhere, ObjectId};
use store::{FormationId, Store};

use crate::args::PullArguments;
use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::{peers, registries};

/// `forge pull`
pub fn run(arguments: &PullArguments, context: &Context) -> Result<ExitCode> {
    let given = arguments.formation.as_str();
    if let Some(tag) = &arguments.tag {
        super::tag::check_name(tag)?;
    }
    if registries::is_meant(given) && arguments.peer.is_none() {
        return super::image::pull(given, arguments.tag.as_deref(), context);
    }
    let store = context.store()?;
    let (id, moved, from) = match &arguments.peer {
        Some(peer) => {
            let peer = peers::named(context, peer)?;
            let missing =
                || store::peer::Error::Missing { peer: peer.name().to_owned(), object: format!("formation `{given}`") };
            let id = peer.find(given)?.ok_or_else(missing)?;
            let pull = |watch: &store::peer::Watch<'_>| Ok(peer.pull(&store, &[ObjectId::Formation(id)], watch)?);
            (id, peers::watched(context, "pull", given, pull)?, peer.name().to_owned())
        }
        None => {
            let group = peers::group(context)?;
            if group.is_empty() {
                let failure = Failure::new(code::UNREACHABLE, "no peer is configured");
                return Err(
                    failure.hint("forge remote add NAME ADDRESS; or give an address: forge pull FORMATION ADDRESS")
                );
            }
            let id = match given.parse::<FormationId>() {
                Ok(id) => id,
                Err(_) => {
                    group.find(given)?.ok_or_else(|| nowhere(given, Nowhere { answers: Vec::new(), lies: false }))?
                }
            };
            let (moved, from) = from_group(&group, &store, id, context)?;
            (id, moved, from)
        }
    };
    let name = match store::formation::is_name(given) {
        true => given.to_owned(),
        false => store.formation(id)?.name,
    };
    store.set_root(&name, id)?;
    if let Some(tag) = &arguments.tag {
        store.set_root(tag, id)?;
    }
    super::push::said(&moved, "pulled", &from, context);
    if context.global.json {
        super::print_json(&super::push::receipt(&moved, &from, "id", id.to_string().into()))?;
    } else {
        super::print(&format!("{id}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
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
    super::push::said(&moved, "pulled", &from, context);
    Ok(id)
}

fn nowhere(given: &str, nowhere: Nowhere) -> Failure {
    let code = if nowhere.lies { code::DAMAGED } else { code::UNREACHABLE };
    let failure = Failure::new(code, format!("no formation `{given}` here or at the peers"));
    let failure = nowhere.answers.into_iter().fold(failure, |failure, (_, answer)| failure.cause(answer));
    failure.hint("`forge build` makes it again if you have its expression; `forge remote test` asks the peers")
}
