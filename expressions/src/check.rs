//! What can be said of an expression without evaluating it: syntax, names that nothing explains, names that nobody uses.
//!
//! Files that it imports by a plain path are looked at, too. After a mistake of syntax reading goes on with what was probably
//! meant, so that the next one is found as well.

mod names;
mod repair;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::repair::Repair;
use crate::ast::Tree;
use crate::error::{Finding, SourceText};
use crate::eval::Evaluator;
use crate::failure::Sort;
use crate::{Sources, paths, report, stack};

/// Everything that is wrong or doubtful about a file and what it imports, in order of files and places.
pub fn check(file: &Path, sources: &Sources) -> Vec<Finding> {
    check_and_list(file, sources).0
}

/// The same, and every path that the texts name and do not import: what may become a layer.
pub fn check_and_list(file: &Path, sources: &Sources) -> (Vec<Finding>, BTreeSet<PathBuf>) {
    let sources = sources.clone();
    stack::deep(move || {
        let evaluator = Evaluator::new(sources, crate::settings::Settings::forge(), Some(String::new()), None);
        let mut waiting = vec![paths::normal(file.as_os_str().as_bytes())];
        let mut seen = BTreeSet::new();
        let mut findings = Vec::new();
        let mut named: BTreeSet<Vec<u8>> = BTreeSet::new();
        while let Some(path) = waiting.pop() {
            let bytes = evaluator.resolve_expression(&path).and_then(|path| {
                let bytes = evaluator.sources.read(Path::new(OsStr::from_bytes(&path)))?;
                Ok((path, bytes))
            });
            match bytes {
                Err(failure) => findings.extend(report::error(&evaluator, *failure).findings),
                Ok((path, bytes)) if seen.insert(path.clone()) => {
                    let directory = paths::directory(&path).to_vec();
                    let text = Arc::new(SourceText { name: PathBuf::from(OsString::from_vec(path)), bytes });
                    let (mut imports, paths) = check_one(&evaluator, &text, &directory, &mut findings);
                    named.extend(paths.into_iter().filter(|path| !imports.contains(path)));
                    imports.reverse();
                    waiting.extend(imports);
                }
                Ok(_) => {}
            }
        }
        let named = named.into_iter().map(|path| PathBuf::from(OsString::from_vec(path)));
        (findings, named.collect())
    })
}

/// The same for one text; imports are not followed.
pub fn check_text(name: PathBuf, bytes: Vec<u8>, directory: &Path, sources: &Sources) -> Vec<Finding> {
    let sources = sources.clone();
    stack::deep(move || {
        let evaluator = Evaluator::new(sources, crate::settings::Settings::forge(), Some(String::new()), None);
        let mut findings = Vec::new();
        let text = Arc::new(SourceText { name, bytes });
        check_one(&evaluator, &text, &paths::normal(directory.as_os_str().as_bytes()), &mut findings);
        findings
    })
}

/// Gives the paths that the text imports, and all that it names.
fn check_one(
    evaluator: &Evaluator,
    text: &Arc<SourceText>,
    directory: &[u8],
    findings: &mut Vec<Finding>,
) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let mut found = Vec::new();
    let (tree, repairs) = read(evaluator, text, directory, &mut found);
    let Some(tree) = tree else {
        findings.append(&mut found);
        return Default::default();
    };
    let lost = |finding: &Finding| repairs.iter().any(|repair| repair.may_explain(&finding.message));
    if let Err(failure) = evaluator.compile(&tree, None) {
        found.extend(report::error(evaluator, *failure).findings.into_iter().filter(|finding| !lost(finding)));
    }
    let names = names::look(evaluator, text, &tree);
    if repairs.is_empty() {
        found.extend(names.findings);
    }
    for finding in &mut found {
        // What was read may have been mended; what is shown was not.
        if let Some(place) = &mut finding.place {
            place.text = Arc::clone(text);
        }
    }
    found.sort_by_key(|finding| finding.place.as_ref().map_or(0, |place| place.start));
    findings.append(&mut found);
    (names.imports, names.paths)
}

/// Beyond so many mistakes of syntax in one file nobody reads on.
const MOST: usize = 20;

/// The tree of a text, mended where it is wrong, if that can be done; and what was mended.
fn read(
    evaluator: &Evaluator,
    text: &Arc<SourceText>,
    directory: &[u8],
    found: &mut Vec<Finding>,
) -> (Option<Tree>, Vec<Repair>) {
    let mut current = Arc::clone(text);
    let mut repairs = Vec::new();
    let mut reached = None;
    loop {
        let failure = match evaluator.parse(&current, directory) {
            Ok((tree, warnings)) => {
                found.extend(warnings);
                return (Some(tree), repairs);
            }
            Err(failure) => failure,
        };
        let Sort::Parse(finding) = failure.sort else {
            found.extend(report::error(evaluator, *failure).findings);
            return (None, repairs);
        };
        let at = finding.place.as_ref().map(|place| place.start);
        // A mistake that the last repair did not get past, or made.
        if reached.is_some() && at <= reached {
            return (None, repairs);
        }
        // Something was closed too early, and rather by the last repair.
        if !repairs.is_empty() && finding.message.ends_with("expecting end of file") {
            return (None, repairs);
        }
        reached = at;
        let repair = repair::of(&finding);
        found.push(report::syntax::explained(*finding));
        let Some(repair) = repair.filter(|_| found.len() < MOST) else { return (None, repairs) };
        let bytes = repair.applied(&current.bytes);
        current = Arc::new(SourceText { name: text.name.clone(), bytes });
        repairs.push(repair);
    }
}

#[cfg(test)]
mod tests;
