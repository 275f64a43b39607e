//! `forge pull`: what is not here is taken from a peer, and checked.

use store::FormationId;
use store::peer::{Nowhere, ObjectId};

use crate::args::PullArguments;
use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;
use crate::names::check_name;
use crate::transfer::{from_group, nowhere, receipt, said};
use crate::{peers, registries};

/// `forge pull`
pub fn run(arguments: &PullArguments, context: &Context) -> Result<ExitCode> {
    let given = arguments.formation.as_str();
    if let Some(tag) = &arguments.tag {
        check_name(tag)?;
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
    said(&moved, "pulled", &from, context);
    if context.global.json {
        super::print_json(&receipt(&moved, &from, "id", id.to_string().into()))?;
    } else {
        super::print(&format!("{id}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
