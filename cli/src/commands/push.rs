//! `forge push`: what a peer has not got is given to it, with signed claims of what the steps gave.

use store::formation::is_name;
use store::{FormationId, Store};

use crate::args::PushArguments;
use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;
use crate::names::check_name;
use crate::transfer::{push, push_sources, receipt, said};
use crate::{peers, registries};

/// `forge push`
pub fn run(arguments: &PushArguments, context: &Context) -> Result<ExitCode> {
    let [formations @ .., peer] = arguments.words.as_slice() else {
        return Err(Failure::new(code::USAGE, "a formation and a peer are expected"));
    };
    if let Some(name) = &arguments.name {
        check_name(name)?;
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
