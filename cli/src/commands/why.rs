//! `forge why`: why something is in a formation.

use std::fmt::Write as _;

use builder::why::{Answer, step_name};

use crate::args::building::WhyArguments;
use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;

/// `forge why`
pub fn run(arguments: &WhyArguments, context: &Context) -> Result<ExitCode> {
    let store = context.store()?;
    let id = store.find(&arguments.formation)?;
    let Some(answer) = builder::why::why(&store, id, &arguments.thing)? else {
        let headline = format!("`{}` has no package, file or step `{}`", arguments.formation, arguments.thing);
        return Err(Failure::new(code::NEGATIVE, headline)
            .hint("`forge graph` draws its steps, `forge sbom` lists its packages; a file is named from `/`"));
    };
    if context.global.json {
        super::print_json(&serde_json::json!({
            "schema": 1,
            "kind": answer.kind,
            "name": answer.name,
            "package": answer.package.as_ref().map(|(name, version)| serde_json::json!({ "name": name, "version": version })),
            "needed_by": answer.needed_by,
            "referred_by": answer.referred_by,
            "layers": answer.layers,
            "steps": answer.steps,
        }))?;
    } else {
        super::print(&words(&answer))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn words(answer: &Answer) -> String {
    let mut text = format!("{} {}\n", answer.kind, answer.name);
    if let Some((name, version)) = &answer.package {
        let _ = writeln!(text, "  package  {name} {version}");
    }
    for (title, way) in [("needed", &answer.needed_by), ("referred", &answer.referred_by)] {
        if way.len() > 1 {
            let _ = writeln!(text, "  {title:<8} {}", way.join(" → "));
        }
    }
    for layer in &answer.layers {
        let _ = writeln!(text, "  layer    {} {}", layer.delta.get(..8).unwrap_or_default(), layer.label);
    }
    if !answer.steps.is_empty() {
        let names: Vec<&str> = answer.steps.iter().map(|step| step_name(step)).collect();
        let _ = writeln!(text, "  steps    {}", names.join(" → "));
    }
    text
}
