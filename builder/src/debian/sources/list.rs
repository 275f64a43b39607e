//! `sources.list` and what lies in `sources.list.d`, as sources.list(5) describes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{SignedBy, Source};
use crate::{Error, Machine, Result};
use store::paragraph;

/// Every archive of binary packages that is enabled, in apt's order.
pub fn read(machine: &Machine) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut files = vec![machine.file("etc/apt/sources.list")];
    files.extend(in_directory(&machine.file("etc/apt/sources.list.d"), &["list", "sources"]));
    for path in files {
        let Some(text) = read_file(&path)? else { continue };
        if path.extension().is_some_and(|extension| extension == "sources") {
            paragraph::paragraphs(&text).for_each(|paragraph| from_paragraph(machine, paragraph, &mut sources));
        } else {
            text.lines().for_each(|line| from_line(machine, line, &mut sources));
        }
    }
    Ok(sources)
}

/// The files of a directory with one of these extensions, in order; none if there is no such directory.
pub fn in_directory(directory: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let wanted = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        extensions.contains(&extension)
    };
    let mut paths: Vec<PathBuf> = entries.filter(wanted).collect();
    paths.sort();
    paths
}

/// The text of a file; none if there is none. What is not UTF-8 is replaced: it can only be in a comment or a name nobody has.
pub fn read_file(path: &Path) -> Result<Option<String>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", path)(error)),
    }
}

/// `deb [option=value …] URI SUITE COMPONENT…`
fn from_line(machine: &Machine, line: &str, sources: &mut Vec<Source>) {
    let line = line.split('#').next().unwrap_or_default().trim();
    let Some(rest) = line.strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t'])).map(str::trim_start) else {
        return;
    };
    let (options, rest) = match rest.strip_prefix('[') {
        Some(inside) => match inside.split_once(']') {
            Some((options, rest)) => (options, rest),
            None => return,
        },
        None => ("", rest),
    };
    let mut fields = BTreeMap::new();
    for option in options.split_whitespace() {
        let Some((name, value)) = option.split_once('=') else { continue };
        // `arch+=` and `arch-=` change apt's defaults, of which we have none.
        let name = name.trim_end_matches(['+', '-']).to_ascii_lowercase();
        let name = if name == "arch" { "architectures".to_owned() } else { name };
        fields.insert(name, value.replace(',', " "));
    }
    let mut words = rest.split_whitespace();
    let (Some(uri), Some(suite)) = (words.next(), words.next()) else { return };
    let components = words.map(str::to_owned).collect();
    add(machine, &fields, uri, suite, components, sources);
}

/// A paragraph with `Types`, `URIs`, `Suites`, `Components`.
fn from_paragraph(machine: &Machine, paragraph: &str, sources: &mut Vec<Source>) {
    let fields: BTreeMap<String, String> = paragraph::fields(paragraph)
        .map(|(name, value)| (name.to_ascii_lowercase(), paragraph::unfold(value)))
        .collect();
    let words = |name: &str| fields.get(name).map_or("", String::as_str).split_whitespace();
    if !words("types").any(|kind| kind == "deb") || fields.get("enabled").is_some_and(|value| !is_yes(value)) {
        return;
    }
    for uri in words("uris") {
        for suite in words("suites") {
            let components = words("components").map(str::to_owned).collect();
            add(machine, &fields, uri, suite, components, sources);
        }
    }
}

fn add(
    machine: &Machine,
    fields: &BTreeMap<String, String>,
    uri: &str,
    suite: &str,
    components: Vec<String>,
    sources: &mut Vec<Source>,
) {
    let is_http = uri.starts_with("http://") || uri.starts_with("https://");
    // A suite that ends with a slash is a flat repository, without components and `dists/`. One without `main` is no Debian
    // archive, whatever its suite is called.
    if !is_http || suite.ends_with('/') || !components.iter().any(|component| component == "main") {
        return;
    }
    let words =
        |name: &str| fields.get(name).map_or("", String::as_str).split_whitespace().map(str::to_owned).collect();
    sources.push(Source {
        suite: Some(suite.to_owned()),
        components,
        architectures: words("architectures"),
        signed_by: fields.get("signed-by").map_or(SignedBy::Machine, |value| signed_by(machine, value)),
        trusted: fields.get("trusted").is_some_and(|value| is_yes(value)),
        check_valid_until: fields.get("check-valid-until").is_none_or(|value| is_yes(value)),
        ..Source::mirror(uri)
    });
}

/// A key, files of keys, or fingerprints; the exact subkey (`!`) is taken for its key.
fn signed_by(machine: &Machine, value: &str) -> SignedBy {
    if value.contains("-----BEGIN PGP") {
        return SignedBy::Inline(value.trim().to_owned());
    }
    let (mut files, mut fingerprints) = (Vec::new(), Vec::new());
    for word in value.split_whitespace() {
        if word.starts_with('/') {
            files.push(machine.file(word));
        } else {
            fingerprints.push(word.trim_end_matches('!').to_ascii_uppercase());
        }
    }
    SignedBy::Named { files, fingerprints }
}

/// As apt reads truth.
fn is_yes(value: &str) -> bool {
    ["yes", "true", "with", "on", "enable", "1"].contains(&value.trim().to_ascii_lowercase().as_str())
}
