//! `forge pin`: keeps a formation whatever its names stand for.

use crate::args::PinArguments;
use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;

/// `forge pin`
pub fn run(arguments: &PinArguments, context: &Context) -> Result<ExitCode> {
    let store = context.store()?;
    let Some(given) = &arguments.formation else {
        let pins: Vec<String> = store.pins()?.iter().map(ToString::to_string).collect();
        if context.global.json {
            super::print_json(&serde_json::json!({ "schema": 1, "pinned": pins }))?;
        } else {
            super::print(&pins.iter().map(|id| format!("{id}\n")).collect::<String>())?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let id = store.find(given)?;
    if !arguments.remove {
        store.pin(id)?;
    } else if !store.remove_pin(id)? {
        let failure = Failure::new(code::NEGATIVE, format!("`{given}` is not pinned"));
        return Err(failure.hint("`forge pin` lists what is"));
    }
    if context.global.json {
        super::print_json(&serde_json::json!({ "schema": 1, "id": id.to_string(), "pinned": !arguments.remove }))?;
    }
    Ok(ExitCode::SUCCESS)
}
