//! `requirements.txt` with hashes, as pip's `--require-hashes` wants it. Which files those are the index says.

use pep508_rs::VersionOrUrl;
use rayon::prelude::*;

use super::{Choice, Pinned, bad};
use crate::python::{index, requirement};
use crate::{Builder, Error, Result};

/// A line of the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// As written, without extras.
    pub name: String,
    /// The one version that is asked for.
    pub version: String,
    /// SHA-256 in hexadecimal, of every file that may be installed.
    pub hashes: Vec<String>,
}

/// Reads the lines that hold on the target.
pub fn read(name: &str, text: &str, choice: &Choice<'_>) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for line in text.replace("\\\n", " ").replace("\\\r\n", " ").lines() {
        // A number sign begins a comment where a blank stands before it.
        let line = line.split(" #").next().unwrap_or_default().trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with('-') {
            let harmless = [
                "-i ",
                "--index-url",
                "--extra-index-url",
                "--require-hashes",
                "--only-binary",
                "--prefer-binary",
                "--trusted-host",
                "--no-binary",
            ];
            if harmless.iter().any(|option| line.starts_with(option)) {
                continue;
            }
            return Err(bad(name, format!("`{line}` cannot be followed")));
        }
        let (wanted, options) =
            line.split_once("--hash").map_or((line, ""), |(wanted, _)| (wanted, &line[wanted.len()..]));
        let requirement =
            requirement::parse(wanted).map_err(|reason| bad(name, format!("`{}`: {reason}", wanted.trim())))?;
        if !requirement.marker.evaluate(&choice.environment, &[]) {
            continue;
        }
        let version = match &requirement.version_or_url {
            Some(VersionOrUrl::VersionSpecifier(specifiers)) if specifiers.len() == 1 => {
                let text = specifiers.to_string();
                text.strip_prefix("==").map(|version| version.trim_start_matches('=').trim().to_owned())
            }
            _ => None,
        };
        let project = requirement.name.to_string();
        let version = version.filter(|version| !version.contains('*')).ok_or_else(|| {
            bad(name, format!("`{project}` is not pinned: `{project}==VERSION --hash=sha256:…` is expected"))
        })?;
        let mut hashes = Vec::new();
        for option in options.split_whitespace() {
            match option.trim_start_matches("--hash").trim_start_matches('=').split_once(':') {
                Some(("sha256", digest)) => hashes.push(digest.to_ascii_lowercase()),
                _ => return Err(bad(name, format!("`{project}`: `{option}` is no SHA-256"))),
            }
        }
        if hashes.is_empty() {
            let hint = "`uv pip compile --generate-hashes` or `pip-compile --generate-hashes` writes them";
            return Err(bad(name, format!("`{project}` has no hash; {hint}")));
        }
        lines.push(Line { name: project, version, hashes });
    }
    Ok(lines)
}

/// The packages of a file, with the files of the index that have one of their hashes.
pub fn pinned(builder: &Builder<'_>, name: &str, text: &str, choice: &Choice<'_>) -> Result<Vec<Pinned>> {
    let lines = read(name, text, choice)?;
    let indexes = index::indexes(builder)?;
    let find = |line: &Line| {
        let mut last = None;
        for index in indexes.all() {
            let listed = match index::listed(builder, index, &line.name) {
                Ok(listed) => listed,
                Err(error @ Error::Fetch { .. }) => {
                    last = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let files: Vec<_> = listed
                .into_iter()
                .filter_map(|listed| Some((listed.file, listed.sha256?, listed.size)))
                .filter(|(_, sha256, _)| line.hashes.contains(sha256))
                .collect();
            if !files.is_empty() {
                return Ok(Pinned { name: line.name.clone(), version: line.version.clone(), files });
            }
        }
        Err(last.unwrap_or_else(|| {
            bad(name, format!("no index has a file of `{} {}` with one of its hashes", line.name, line.version))
        }))
    };
    lines.par_iter().map(find).collect()
}
