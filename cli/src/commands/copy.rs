//! `forge copy`: from one peer to another, by way of the store here, so that everything is checked in between.

use store::peer::ObjectId;

use crate::args::CopyArguments;
use crate::context::Context;
use crate::error::Result;
use crate::exit::ExitCode;
use crate::{peers, transfer};

/// `forge copy`
pub fn run(arguments: &CopyArguments, context: &Context) -> Result<ExitCode> {
    let given = arguments.formation.as_str();
    let (from, to) = (peers::named(context, &arguments.from)?, peers::named(context, &arguments.to)?);
    let missing =
        || store::peer::Error::Missing { peer: from.name().to_owned(), object: format!("formation `{given}`") };
    let id = from.find(given)?.ok_or_else(missing)?;
    let store = context.store()?;
    let goals = [ObjectId::Formation(id)];
    let pulled = peers::watched(context, "pull", given, |watch| Ok(from.pull(&store, &goals, watch)?))?;
    let pushed = peers::watched(context, "push", given, |watch| Ok(to.push(&store, &goals, watch)?))?;
    let name = match store::formation::is_name(given) {
        true => given.to_owned(),
        false => store.formation(id)?.name,
    };
    to.set_name(&name, id)?;
    transfer::said(&pulled, "pulled", from.name(), context);
    transfer::said(&pushed, "pushed", to.name(), context);
    if context.global.json {
        super::print_json(&transfer::receipt(&pushed, to.name(), "id", id.to_string().into()))?;
    } else {
        super::print(&format!("{id}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
