//! `forge gc`: frees what no name and no running command needs.

use std::process::ExitCode;

use crate::args::GcArguments;
use crate::context::Context;
use crate::error::Result;
use crate::render;

/// `forge gc`
pub fn run(arguments: &GcArguments, context: &Context) -> Result<ExitCode> {
    let collected = context.store()?.collect(arguments.dry_run)?;
    if context.global.json {
        super::print_json(&serde_json::json!({ "schema": 1, "dry_run": arguments.dry_run, "freed": collected }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = [
        ("formations", collected.formations),
        ("checkouts", collected.checkouts),
        ("trees", collected.trees),
        ("blobs", collected.blobs),
        ("claims", collected.claims),
    ];
    let rows: Vec<Vec<String>> = rows.iter().map(|(what, count)| vec![(*what).to_owned(), count.to_string()]).collect();
    super::print(&render::table(&["WHAT", if arguments.dry_run { "WOULD GO" } else { "GONE" }], &rows))?;
    if !context.global.quiet {
        eprintln!("{}: {}", if arguments.dry_run { "would free" } else { "freed" }, render::size(collected.bytes));
    }
    Ok(ExitCode::SUCCESS)
}
