//! `forge lock`: writes the exact packages that an expression's wishes stand for, and builds nothing.

use crate::args::{BuildOptions, LockArguments};
use crate::context::Context;
use crate::error::Result;
use crate::exit::ExitCode;
use crate::interrupt;
use crate::plan::{Expression, LockMode};
use crate::progress::{Progress, Style};
use crate::words::say;
use crate::workshop::Workshop;

/// `forge lock`
pub fn run(arguments: &LockArguments, context: &Context) -> Result<ExitCode> {
    interrupt::watch(&context.interrupt);
    let store = context.store()?;
    let progress = Progress::new(Style::of(None, context));
    let machine = context.machine();
    let workshop = Workshop::new(&store, &machine, &progress, context)?;
    let builder = workshop.builder(&BuildOptions::default(), context);
    let mut expression = Expression::open(&arguments.expression, context)?;
    let before = expression.lock().clone();
    let mode = match (&arguments.update, arguments.locked) {
        (Some(names), _) => LockMode::Update(names.clone()),
        (None, true) => LockMode::Locked,
        (None, false) => LockMode::Add,
    };
    let result = expression.plan(&mode, &mut || Ok(&builder));
    progress.finish();
    result?;
    let changes = changes(&before, expression.lock());
    let path = expression.lock_path.display().to_string();
    if context.global.json {
        let record = serde_json::json!({ "schema": 1, "lock": path, "changes": changes });
        super::print_json(&record)?;
    } else if !context.global.quiet {
        for change in &changes {
            say!("{change}");
        }
        match changes.is_empty() {
            true if before == *expression.lock() => say!("{path} is up to date"),
            true => say!("{path} says more or less of the same versions"),
            false => {}
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What changed, a line per package: `+ numpy 2.1.0`, `- numpy 2.0.0`.
fn changes(before: &store::lock::Lock, after: &store::lock::Lock) -> Vec<String> {
    let records = |lock: &store::lock::Lock| {
        let mut lines = std::collections::BTreeSet::new();
        for entry in lock.entries.values() {
            for record in &entry.records {
                let text = |name: &str| record.get(name).and_then(serde_json::Value::as_str);
                let name = text("name").or_else(|| text("file")).or_else(|| text("sha256")).unwrap_or("?");
                lines.insert(format!("{name} {}", text("version").unwrap_or_default()).trim_end().to_owned());
            }
        }
        lines
    };
    let (before, after) = (records(before), records(after));
    let mut changes: Vec<(String, char)> = before.difference(&after).map(|line| (line.clone(), '-')).collect();
    changes.extend(after.difference(&before).map(|line| (line.clone(), '+')));
    changes.sort();
    changes.into_iter().map(|(line, sign)| format!("{sign} {line}")).collect()
}
