//! `forge test`: runs what a formation says shows that it works (`test` in its expression).

use std::ffi::OsString;

use crate::args::Target;
use crate::args::test::TestArguments;
use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;
use crate::words::say;

/// `forge test`
pub fn run(arguments: &TestArguments, context: &Context) -> Result<ExitCode> {
    let (id, formation) = {
        let store = context.store()?;
        let id = super::run::formation(&store, &arguments.target, context)?;
        (id, store.formation(id)?)
    };
    let words = formation.launch.labels.get("forge.test");
    let words: Option<Vec<String>> = words.and_then(|text| serde_json::from_str(text).ok());
    let Some(words) = words.filter(|words| !words.is_empty()) else {
        let failure = Failure::new(code::NEGATIVE, format!("formation `{}` has no test", formation.name));
        return Err(
            failure.hint("`test = [ \"program\" \"argument\" ];` in its expression says what shows that it works")
        );
    };
    let target = Target { formation: id.to_string(), attribute: None, ..arguments.target.clone() };
    let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
    let ended = super::run::execute(&target, &|_| words.clone(), &super::run::Verb::Words(&words), context)?;
    let passed = ended == ExitCode::SUCCESS;
    let name = &formation.name;
    if context.global.json {
        let record = serde_json::json!({ "schema": 1, "id": id.to_string(), "name": name, "passed": passed });
        super::print_json(&record)?;
    } else if passed && !context.global.quiet {
        say!("passed: {name}; next: forge run {name}");
    } else if !passed {
        say!("failed: {name}; look around: forge shell {name}");
    }
    Ok(ended)
}
