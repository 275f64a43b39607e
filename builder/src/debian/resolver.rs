//! Answers locks for Debian: `debian` (which packages a wish stands for) and `debian-index` (the index itself).

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde_json::Value;
use store::digest::to_hex;
use store::lock::{LockEntry, LockRequest};

use super::release::{self, Release};
use super::solve::{self, Wishes};
use super::universe::{Place, Universe};
use super::{index, index::Package};
use crate::report::{Event, Span};
use crate::resolve::{Resolver, parameter, parameter_or};
use crate::{Builder, Error, Result};

/// `{suite, architecture, packages, essential?, recommends?, components?, snapshot?, repositories?, keys?}` → a record per package.
///
/// A repository beside the suite is a text as apt has it behind `deb`, `URL SUITE COMPONENT…`, with its armoured keys at the same
/// place in `keys`.
pub struct Packages;

/// `{suite, component, architecture}` → one record.
pub struct Index;

impl Resolver for Packages {
    fn kind(&self) -> &'static str {
        "debian"
    }

    fn resolve(&self, builder: &Builder<'_>, request: &LockRequest) -> Result<LockEntry> {
        let suite: String = parameter(request, "suite")?;
        let architecture: String = parameter(request, "architecture")?;
        let mut packages: Vec<String> = parameter(request, "packages")?;
        let recommends = parameter_or(request, "recommends", false)?;
        let essential = parameter_or(request, "essential", true)?;
        let components = parameter_or(request, "components", vec!["main".to_owned()])?;
        let _span = Span::start(builder.reporter, "resolve", format!("Debian {suite}"), None);
        let snapshot: String = parameter_or(request, "snapshot", String::new())?;
        let mut suites = suites(&suite);
        if !snapshot.is_empty() {
            suites.iter_mut().for_each(|part| part.suite = format!("{}@{snapshot}", part.suite));
        }
        let texts: Vec<Vec<(String, String)>> =
            suites.par_iter().map(|suite| texts(builder, suite, &components, &architecture)).collect::<Result<_>>()?;
        let mut texts: Vec<(String, String, String)> =
            texts.into_iter().flatten().map(|(suite, text)| (suite, String::new(), text)).collect();
        let repositories: Vec<String> = parameter_or(request, "repositories", Vec::new())?;
        let keys: Vec<String> = parameter_or(request, "keys", Vec::new())?;
        for (index, repository) in repositories.iter().enumerate() {
            let keys = keys.get(index).map_or("", String::as_str);
            texts.extend(repository_texts(builder, repository, keys, &architecture)?);
        }
        let read: Vec<Vec<Package<'_>>> = texts
            .par_iter()
            .map(|(suite, base, text)| {
                let of_base = |package: Result<_>| package.map(|package| Package { repository: base, ..package });
                index::packages(text, suite).map(of_base).collect()
            })
            .collect::<Result<_>>()?;
        let universe = Universe::new(read.into_iter().flatten(), &architecture);
        // A root is made with a merged /usr. Where a package says so, the one that would merge it later is not needed, nor its Perl.
        if essential && !universe.named(MERGED).is_empty() && !packages.iter().any(|wish| wish.starts_with("usrmerge"))
        {
            packages.push(MERGED.to_owned());
        }
        let ecosystem = format!("Debian {suite}");
        let wishes = Wishes { ecosystem: &ecosystem, packages: &packages, recommends, essential };
        let found = solve::solve(builder, &universe, &wishes)?;
        let essential = solve::essential(&universe, &found);
        let record = |place: &Place| {
            let mut record = record(universe.package(*place));
            if essential.contains(place) {
                record.insert("essential".to_owned(), Value::from(true));
            }
            record
        };
        let records = found.iter().map(record).collect();
        Ok(LockEntry { request: request.clone(), records })
    }
}

impl Resolver for Index {
    fn kind(&self) -> &'static str {
        "debian-index"
    }

    fn resolve(&self, builder: &Builder<'_>, request: &LockRequest) -> Result<LockEntry> {
        let suite: String = parameter(request, "suite")?;
        let component: String = parameter(request, "component")?;
        let architecture: String = parameter(request, "architecture")?;
        let release = release::fetch(builder, &suite)?;
        let listed = index::listed(&release, &component, &architecture, &[".xz"])?;
        let record = BTreeMap::from([
            ("suite".to_owned(), Value::from(suite)),
            ("file".to_owned(), Value::from(listed.file)),
            ("size".to_owned(), Value::from(listed.size)),
            ("sha256".to_owned(), Value::from(to_hex(&listed.sha256))),
        ]);
        Ok(LockEntry { request: request.clone(), records: vec![record] })
    }
}

/// The package that says that /usr is merged.
const MERGED: &str = "usr-is-merged";

/// One suite of those that a wish is answered from.
struct Part {
    suite: String,
    /// Whether the answer may do without it. Not every release has updates, and an archived one has no security archive beside it.
    optional: bool,
}

/// `bookworm` is answered from `bookworm`, its updates and its security archive; `bookworm-backports` from these and itself.
fn suites(suite: &str) -> Vec<Part> {
    let rolling = |name: &str| matches!(name, "sid" | "unstable" | "experimental" | "rc-buggy");
    let (release, part) = suite.split_once('-').unwrap_or((suite, ""));
    let mut parts = vec![Part { suite: release.to_owned(), optional: false }];
    if !rolling(release) {
        let extra =
            ["updates", "security"].map(|extra| Part { suite: format!("{release}-{extra}"), optional: extra != part });
        parts.extend(extra);
    }
    if !matches!(part, "" | "updates" | "security") {
        parts.push(Part { suite: suite.to_owned(), optional: false });
    }
    parts
}

/// The texts of a suite's indexes, each with the suite's name.
fn texts(
    builder: &Builder<'_>,
    part: &Part,
    components: &[String],
    architecture: &str,
) -> Result<Vec<(String, String)>> {
    let release: Release = match release::fetch(builder, &part.suite) {
        Ok(release) => release,
        // That no mirror has it is an answer; that none can be asked is not.
        Err(Error::Fetch { gone: true, .. }) if part.optional => {
            builder.reporter.report(Event::Note(&format!("no mirror has suite `{}`; going on without it", part.suite)));
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let read = |component: &String| {
        let text = index::fetch(builder, &release, component, architecture)?;
        Ok((part.suite.clone(), text))
    };
    components.iter().map(read).collect()
}

/// The indexes of a repository that an expression names: suite, where it lies, text.
fn repository_texts(
    builder: &Builder<'_>,
    repository: &str,
    keys: &str,
    architecture: &str,
) -> Result<Vec<(String, String, String)>> {
    let bad = |reason: &str| Error::Invalid {
        what: "repository",
        name: crate::fetch::redact(repository),
        reason: reason.to_owned(),
    };
    let words: Vec<&str> = repository.split_whitespace().collect();
    let [base, suite, components @ ..] = words.as_slice() else {
        return Err(bad("`URL SUITE COMPONENT…` is expected"));
    };
    if components.is_empty() || crate::fetch::split(base).is_none() {
        return Err(bad(
            "`URL SUITE COMPONENT…` is expected, with an address that begins with `https://` or `http://`",
        ));
    }
    if !keys.contains("-----BEGIN PGP PUBLIC KEY BLOCK-----") {
        return Err(bad("its key is no armoured OpenPGP key"));
    }
    let release = release::fetch_of(builder, suite, base, keys)?;
    let read = |component: &&str| {
        let text = index::fetch(builder, &release, component, architecture)?;
        Ok(((*suite).to_owned(), base.trim_end_matches('/').to_owned(), text))
    };
    components.iter().map(read).collect()
}

fn record(package: &Package<'_>) -> BTreeMap<String, Value> {
    let mut record = BTreeMap::from([
        ("name".to_owned(), Value::from(package.name)),
        ("version".to_owned(), Value::from(package.version)),
        ("architecture".to_owned(), Value::from(package.architecture)),
        ("suite".to_owned(), Value::from(package.suite)),
        ("file".to_owned(), Value::from(package.file)),
        ("size".to_owned(), Value::from(package.size)),
        ("sha256".to_owned(), Value::from(to_hex(&package.sha256))),
    ]);
    if !package.repository.is_empty() {
        record.insert("repository".to_owned(), Value::from(package.repository));
    }
    record
}

#[cfg(test)]
mod tests;
