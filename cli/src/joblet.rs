//! `runtime.yaml` of Joblet on the command line: the expression that does the same, or all findings with their places; and what
//! Joblet has installed already.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use builder::joblet::{self, Description, Turned};
use expressions::error::{Finding, Place, Severity, SourceText};

use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::render;
use crate::words;

/// Whether a path is of such a file.
pub fn is_description(path: &Path) -> bool {
    path.extension().is_some_and(|suffix| suffix == "yaml" || suffix == "yml")
}

/// Everything that is wrong with a file, or doubtful.
pub fn findings(path: &Path, context: &Context) -> Result<Vec<Finding>> {
    Ok(match read(path)? {
        Err(findings) => findings,
        Ok((_, mut findings)) => {
            if let Ok((description, _)) = described(path)?.1 {
                findings.extend(here_already(&description, context)?);
            }
            findings
        }
    })
}

/// A warning where a runtime of that name and version is in the store. A store that is not there yet is not made for that.
fn here_already(description: &Description, context: &Context) -> Result<Option<Finding>> {
    if !context.store_path()?.value.is_dir() {
        return Ok(None);
    }
    let name = format!("{}@{}", description.name, description.version);
    Ok(context.store()?.find(&name).ok().map(|id| Finding {
        severity: Severity::Warning,
        message: format!("`{name}` is in the store already: {id}"),
        place: None,
        trace: Vec::new(),
        hint: Some("another version number keeps both".to_owned()),
    }))
}

/// The expression that a file stands for; what could not be turned is said on stderr.
pub fn expression(path: &Path, context: &Context) -> Result<Turned> {
    match read(path)? {
        Err(findings) => {
            let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
            let headline = format!("`{}` has {errors} mistake{}", path.display(), if errors == 1 { "" } else { "s" });
            Err(Failure::new(code::NEGATIVE, headline).with_findings(findings))
        }
        Ok((turned, findings)) => {
            if !context.global.quiet {
                let paint = render::Paint::new(context.color());
                for finding in findings {
                    words::show(&render::finding(&finding, false, paint));
                }
            }
            Ok(turned)
        }
    }
}

/// What Joblet lays out where it installs a runtime: a description, and beside it the root.
const INSTALLED: [&str; 2] = ["runtime.yml", "isolated"];

/// A runtime that Joblet has installed in a directory, `ROOT/NAME/VERSION` or `ROOT/NAME`: where its root is, and what it
/// says of itself. Nothing if the directory is something else.
pub fn installed(directory: &Path) -> Result<Option<(PathBuf, Description)>> {
    let [file, root] = INSTALLED.map(|name| directory.join(name));
    if !file.is_file() || !root.is_dir() {
        return Ok(None);
    }
    match described(&file)?.1 {
        Ok((description, _)) => Ok(Some((root, description))),
        Err(findings) => {
            Err(Failure::new(code::NEGATIVE, format!("`{}` has mistakes", file.display())).with_findings(findings))
        }
    }
}

type Read<T> = std::result::Result<(T, Vec<Finding>), Vec<Finding>>;

fn read(path: &Path) -> Result<Read<Turned>> {
    let (source, described) = described(path)?;
    Ok(described.map(|(description, mut findings)| {
        let turned = joblet::expression(&description);
        for (line, note) in &turned.notes {
            let text = String::from_utf8_lossy(&source.bytes);
            let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1));
            let start = line.and_then(|line| starts.into_iter().nth(line - 1));
            let place = start.map(|start| {
                let end = start + text[start..].lines().next().unwrap_or_default().len();
                Place { text: Arc::clone(&source), start, end }
            });
            let message = format!("cannot be turned: {note}");
            findings.push(Finding { severity: Severity::Warning, message, place, trace: Vec::new(), hint: None });
        }
        (turned, findings)
    }))
}

fn described(path: &Path) -> Result<(Arc<SourceText>, Read<Description>)> {
    const MOST: u64 = 16 << 20;
    let failed = |error: std::io::Error| {
        Failure::new(code::NOT_FOUND, format!("cannot read `{}`", path.display())).cause(error.to_string())
    };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > MOST {
        return Err(Failure::new(code::USAGE, format!("`{}` is too large for a description", path.display())));
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let source = Arc::new(SourceText { name: path.to_owned(), bytes: text.clone().into_bytes() });
    let shown = |finding: joblet::Finding| Finding {
        severity: if finding.warning { Severity::Warning } else { Severity::Error },
        message: finding.message,
        place: Some(Place { text: Arc::clone(&source), start: finding.start, end: finding.end }),
        trace: Vec::new(),
        hint: finding.hint,
    };
    let read = match joblet::read(&text) {
        Err(findings) => Err(findings.into_iter().map(shown).collect()),
        Ok((description, findings)) => Ok((description, findings.into_iter().map(shown).collect())),
    };
    Ok((source, read))
}
