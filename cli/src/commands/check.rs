//! `forge check`: every finding at once, nothing built.

use std::collections::BTreeSet;
use std::io::Write;

use expressions::Sources;
use expressions::error::Severity;
use store::secrets::Secret;

use crate::args::CheckArguments;
use crate::context::Context;
use crate::error::{Result, code};
use crate::exit::ExitCode;
use crate::words::say;
use crate::{plan, render, secrets};

/// The formation that is meant where no file is.
fn formation(given: &std::path::Path, context: &Context) -> Result<Option<store::FormationId>> {
    let Some(given) = given.to_str().filter(|text| !given.exists() && !text.contains('/')) else { return Ok(None) };
    Ok(context.store()?.find(given).ok())
}

/// `forge check`
pub fn run(arguments: &CheckArguments, context: &Context) -> Result<ExitCode> {
    let mut findings = Vec::new();
    let mut secrets = BTreeSet::new();
    for file in &arguments.files {
        if let Some(id) = formation(file, context)? {
            secrets.extend(secrets::in_formation(&context.store()?, id)?);
            continue;
        }
        let path = plan::expression_file(file)?;
        if crate::joblet::is_description(&path) {
            findings.extend(crate::joblet::findings(&path, context)?);
            continue;
        }
        let project = plan::project_of(&path);
        let (found, named) = expressions::check_and_list(&path, &Sources::pure(project.clone()));
        findings.extend(found);
        for source in named.iter().filter(|source| source.starts_with(&project)) {
            secrets.extend(store::secrets::find_in(source, None)?);
        }
    }
    let secrets: Vec<Secret> = secrets.into_iter().collect();
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    if context.global.json {
        let record = |finding: &expressions::error::Finding| {
            serde_json::json!({
                "severity": if finding.severity == Severity::Error { "error" } else { "warning" },
                "message": finding.message,
                "place": finding.place.as_ref().map(render::place_json),
                "hint": finding.hint,
            })
        };
        let findings: Vec<_> = findings.iter().map(record).collect();
        super::print_json(
            &serde_json::json!({ "schema": 1, "errors": errors, "findings": findings, "secrets": secrets::to_json(&secrets) }),
        )?;
    } else {
        let paint = render::Paint::new(context.color());
        let text: String =
            findings.iter().map(|finding| render::finding(finding, context.global.show_trace, paint)).collect();
        let _ = std::io::stderr().write_all(text.as_bytes());
        secrets::warn(&secrets, context);
        if findings.is_empty() && secrets.is_empty() && !context.global.quiet {
            say!("nothing found");
        }
    }
    if errors == 0 && arguments.strict {
        secrets::refuse(&secrets)?;
    }
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::from(code::NEGATIVE) })
}
