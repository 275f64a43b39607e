//! `forge verify`: hashes everything in the store again and names what is damaged.

use std::process::ExitCode;

use crate::context::Context;
use crate::error::{Result, code};

/// `forge verify`
pub fn run(context: &Context) -> Result<ExitCode> {
    let damaged = context.store()?.verify()?;
    if context.global.json {
        let record = |damage: &store::directory::Damage| serde_json::json!({ "path": damage.path.display().to_string(), "error": damage.error.to_string() });
        let damaged: Vec<_> = damaged.iter().map(record).collect();
        super::print_json(&serde_json::json!({ "schema": 1, "damaged": damaged }))?;
    } else {
        for damage in &damaged {
            super::print(&format!("{}: {}\n", damage.path.display(), damage.error))?;
        }
        if !context.global.quiet {
            eprintln!(
                "{}",
                if damaged.is_empty() {
                    "nothing is damaged"
                } else {
                    "`forge gc`, then a build, makes damaged objects again"
                }
            );
        }
    }
    Ok(if damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(code::DAMAGED) })
}
