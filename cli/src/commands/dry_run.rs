//! `forge build --dry-run`: what would be fetched and made.

use std::fmt::Write as _;

use builder::survey::survey;
use serde_json::json;

use crate::args::BuildArguments;
use crate::context::Context;
use crate::error::Result;
use crate::exit::ExitCode;
use crate::plan::{Expression, LockMode};
use crate::progress::{Progress, Style};
use crate::workshop::Workshop;
use crate::{interrupt, render};

/// Says it on stdout.
pub fn run(arguments: &BuildArguments, context: &Context) -> Result<ExitCode> {
    let (store, options) = (context.store()?, &arguments.options);
    interrupt::watch(&context.interrupt);
    let progress = Progress::new(Style::of(options.log_format, context));
    let machine = context.machine();
    let workshop = Workshop::new(&store, &machine, &progress, context)?;
    let builder = workshop.builder(options, context);
    let mut expression = Expression::open(&arguments.expression, context)?;
    let mode = if options.locked { LockMode::Locked } else { LockMode::Unwritten };
    let plan = expression.plan(&mode, &mut || Ok(&builder));
    progress.finish();
    let plan = plan?;
    let goal = &plan.goal;
    let found = survey(&builder, &plan)?;
    let bytes: u64 = found.fetched.iter().filter_map(|file| file.size).sum();
    let unsized_files = found.fetched.iter().filter(|file| file.size.is_none()).count();
    let is_new = expression.is_new();
    if context.global.json {
        let file = |file: &builder::survey::Download| json!({ "name": file.name, "url": file.url, "size": file.size });
        let step = |step: &builder::survey::Step| json!({ "phase": step.phase, "name": step.name });
        super::print_json(&json!({
            "schema": 1,
            "name": goal.name,
            "version": goal.version,
            "platform": goal.platform,
            "lock_would_change": is_new,
            "known": found.known,
            "fetch": found.fetched.iter().map(file).collect::<Vec<_>>(),
            "fetch_bytes": bytes,
            "make": found.made.iter().map(step).collect::<Vec<_>>(),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    for file in &found.fetched {
        let size = file.size.map(|size| format!(" ({})", render::size(size))).unwrap_or_default();
        let _ = writeln!(text, "{:>9} {}{size}", "fetch", render::plain(&file.name));
    }
    for step in &found.made {
        let _ = writeln!(text, "{:>9} {}", step.phase, render::plain(&step.name));
    }
    let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let mut sum = format!("{} to fetch", count(found.fetched.len(), "file"));
    if bytes > 0 {
        let more = if unsized_files > 0 { format!(" and {unsized_files} of unknown size") } else { String::new() };
        let _ = write!(sum, " ({}{more})", render::size(bytes));
    }
    let _ = writeln!(text, "{sum}, {} to make, {} here", count(found.made.len(), "step"), count(found.known, "result"));
    if is_new {
        let _ = writeln!(text, "{} would be written", expression.lock_path.display());
    }
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
