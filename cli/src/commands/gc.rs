//! `forge gc`: frees what no name and no running command needs.

use std::time::{Duration, SystemTime};

use store::directory::Keep;

use crate::args::GcArguments;
use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;
use crate::words::say;
use crate::{render, units};

/// `forge gc`
pub fn run(arguments: &GcArguments, context: &Context) -> Result<ExitCode> {
    let keep = keep(arguments)?;
    let store = context.store()?;
    let collected = store.collect_but(&keep, arguments.dry_run)?;
    if !arguments.dry_run {
        builder::log::prune(&store, SystemTime::now())?;
    }
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
        say!("{}: {}", if arguments.dry_run { "would free" } else { "freed" }, render::size(collected.bytes));
    }
    Ok(ExitCode::SUCCESS)
}

fn keep(arguments: &GcArguments) -> Result<Keep> {
    let since = |text: &String| {
        let age = units::millis(text).map(Duration::from_millis);
        let wrong = || Failure::new(code::USAGE, format!("--keep `{text}`: a time such as 30d or 12h is expected"));
        // What is older than 1970 is as old as can be.
        Ok::<_, Failure>(SystemTime::now().checked_sub(age.ok_or_else(wrong)?).unwrap_or(SystemTime::UNIX_EPOCH))
    };
    let bytes = |text: &String| {
        let wrong = || Failure::new(code::USAGE, format!("--max-size `{text}`: a size such as 20G is expected"));
        units::bytes(text).ok_or_else(wrong)
    };
    Ok(Keep {
        since: arguments.keep.as_ref().map(since).transpose()?,
        bytes: arguments.max_size.as_ref().map(bytes).transpose()?,
    })
}
