//! A suite's Release file: which indexes it has, and that they are what its archive signed.

use std::collections::BTreeMap;
use std::time::SystemTime;

use store::digest::from_hex;

use super::signature::Ring;
use super::sources::{self, Source};
use store::paragraph;

use super::date;
use crate::{Builder, Error, Result};

/// How far ahead of this machine's clock an archive's may be.
const CLOCK_TOLERANCE: i64 = 3600;

/// A Release file that was found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// As it was asked for, with the time of a snapshot.
    pub suite: String,
    /// `Debian`, or whose it is.
    pub origin: String,
    /// Whether indexes lie below their digests too, where an update of the mirror does not take them away under our hands.
    pub by_hash: bool,
    /// Where a repository that is not this machine's own lies: its files are asked for there, and nowhere else.
    pub base: Option<String>,
    /// Size and SHA-256 by path below `dists/SUITE`.
    pub files: BTreeMap<String, (u64, [u8; 32])>,
}

/// Why one archive's Release is not used; kept until the others were asked.
enum Refusal {
    /// It has not got the suite, or cannot be reached.
    Fetch(Vec<(String, String)>, bool),
    /// It has, and is not to be believed.
    Bad(Error),
}

/// The Release of a suite, fetched anew, from the first of this machine's archives whose signature is good.
///
/// Of several that are configured under the same suite, Debian's own is preferred: a vendor may call his `bookworm` too.
pub fn fetch(builder: &Builder<'_>, suite: &str) -> Result<Release> {
    let (name, time) = sources::split(suite);
    if let Some(time) = time.filter(|time| !sources::is_time(time)) {
        let reason = "`YYYYMMDDTHHMMSSZ` is expected, or a day".to_owned();
        return Err(Error::Invalid { what: "time of a snapshot", name: time.to_owned(), reason });
    }
    if name.is_empty()
        || name.contains("..")
        || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    {
        let reason = "letters, digits, `-`, `.` and `_` are expected".to_owned();
        return Err(Error::Invalid { what: "suite", name: suite.to_owned(), reason });
    }
    let (mut tried, mut gone, mut bad, mut other) = (Vec::new(), true, None, None);
    for source in sources::of_suite(builder.machine, suite)? {
        let fetched = fetch_from(builder, name, &source);
        match fetched.map(|release| Release { suite: suite.to_owned(), ..release }) {
            Ok(release) if release.origin == "Debian" => return Ok(release),
            Ok(release) => other = other.or(Some(release)),
            Err(Refusal::Fetch(answers, is_gone)) => {
                tried.extend(answers);
                gone &= is_gone;
            }
            Err(Refusal::Bad(error @ Error::Interrupted { .. })) => return Err(error),
            Err(Refusal::Bad(error)) => bad = bad.or(Some(error)),
        }
    }
    match (other, bad) {
        (Some(release), _) => Ok(release),
        (None, Some(error)) => Err(error),
        (None, None) => Err(Error::Fetch { what: format!("index of suite {suite}"), tried, gone }),
    }
}

/// The Release of a suite of a repository that an expression names, with the keys that may have signed it.
pub fn fetch_of(builder: &Builder<'_>, suite: &str, base: &str, keys: &str) -> Result<Release> {
    let source = Source::named(base, keys);
    match fetch_from(builder, suite, &source) {
        Ok(release) => Ok(Release { base: Some(source.base), ..release }),
        Err(Refusal::Bad(error)) => Err(error),
        Err(Refusal::Fetch(tried, gone)) => Err(Error::Fetch { what: format!("index of suite {suite}"), tried, gone }),
    }
}

impl Release {
    /// What its directory is called, whatever its time.
    pub fn name(&self) -> &str {
        sources::split(&self.suite).0
    }

    /// The address of a file below the archive's base.
    pub fn address(&self, file: &str) -> String {
        match &self.base {
            Some(base) => format!("{base}/{file}"),
            None => format!("debian:{}/{file}", self.suite),
        }
    }
}

fn fetch_from(builder: &Builder<'_>, suite: &str, source: &Source) -> Result<Release, Refusal> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let text = signed_text(builder, suite, source, now)?;
    let release = parse(&text, suite, source, now).map_err(Refusal::Bad)?;
    Ok(release)
}

fn signed_text(builder: &Builder<'_>, suite: &str, source: &Source, now: i64) -> Result<String, Refusal> {
    let read = |name: &str| {
        let place = source.place(&format!("dists/{suite}/{name}"));
        builder.fetcher.document(builder, &place, None).map(|document| document.bytes).map_err(|error| match error {
            Error::Fetch { tried, gone, .. } => Refusal::Fetch(tried, gone),
            error => Refusal::Bad(error),
        })
    };
    let unsigned = |reason| Refusal::Bad(Error::Signature { what: format!("suite {suite}"), reason });
    let ring = Ring::of(builder.machine, source).map_err(Refusal::Bad)?;
    let opened = match read("InRelease") {
        Ok(bytes) => match ring.open(&bytes, now) {
            Err(_) if source.trusted => Ok(trusted_text(&bytes)),
            opened => opened,
        },
        // The older form, in two files.
        Err(Refusal::Fetch(answers, true)) => match read("Release") {
            Err(Refusal::Fetch(..)) => return Err(Refusal::Fetch(answers, true)),
            Err(refusal) => return Err(refusal),
            Ok(bytes) if source.trusted => Ok(trusted_text(&bytes)),
            Ok(bytes) => match read("Release.gpg") {
                Err(Refusal::Fetch(_, true)) => Err("it is not signed".to_owned()),
                Err(refusal) => return Err(refusal),
                Ok(signature) => ring
                    .check_detached(&signature, &bytes, now)
                    .and_then(|()| String::from_utf8(bytes).map_err(|_| "it is not a text".to_owned())),
            },
        },
        Err(refusal) => return Err(refusal),
    };
    opened.map_err(unsigned)
}

/// The text of an index whose signature is not looked at, because the machine's configuration says so (`Trusted: yes`).
fn trusted_text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let body = text.split_once("-----BEGIN PGP SIGNED MESSAGE-----").and_then(|(_, rest)| rest.split_once("\n\n"));
    let body = body.map_or(text.as_ref(), |(_, body)| body);
    body.split("-----BEGIN PGP SIGNATURE-----").next().unwrap_or_default().to_owned()
}

fn parse(text: &str, suite: &str, source: &Source, now: i64) -> Result<Release> {
    let invalid = |reason: String| Error::Invalid { what: "index", name: format!("Release of suite {suite}"), reason };
    let fields: BTreeMap<&str, &str> =
        paragraph::paragraphs(text).next().into_iter().flat_map(paragraph::fields).collect();
    let field = |name: &str| fields.get(name).copied().unwrap_or_default();
    // A mirror that gives another suite's index under this name would have it believed: both are signed.
    if field("Suite") != suite && field("Codename") != suite {
        return Err(invalid(format!("it is of suite `{}` (`{}`)", field("Suite"), field("Codename"))));
    }
    let time = |name: &str| -> Result<Option<i64>> {
        let text = field(name);
        let time = date::parse(text);
        if text.is_empty() || time.is_some() {
            Ok(time)
        } else {
            Err(invalid(format!("`{name}: {text}` is not a time")))
        }
    };
    let stale = |reason: String| Error::Signature { what: format!("suite {suite}"), reason };
    let clock = || format!("this machine's clock says {}", date::format(now));
    if let Some(made) = time("Date")?.filter(|made| *made > now + CLOCK_TOLERANCE) {
        return Err(stale(format!("it was made on {}, and {}: is the clock slow?", date::format(made), clock())));
    }
    if let Some(until) = time("Valid-Until")?.filter(|until| *until < now && source.check_valid_until) {
        let until = date::format(until);
        return Err(stale(format!(
            "it was valid until {until}, and {}: the mirror is stale, or the clock wrong",
            clock()
        )));
    }
    let mut files = BTreeMap::new();
    for line in field("SHA256").lines() {
        let mut words = line.split_whitespace();
        let (Some(digest), Some(size), Some(path)) = (words.next(), words.next(), words.next()) else { continue };
        let digest = from_hex(digest).and_then(|digest| digest.try_into().ok());
        let (Some(digest), Ok(size)) = (digest, size.parse()) else {
            return Err(invalid(format!("`{line}` is not a digest, size and path")));
        };
        files.insert(path.to_owned(), (size, digest));
    }
    if files.is_empty() {
        return Err(invalid("it lists no files by SHA-256".to_owned()));
    }
    Ok(Release {
        base: None,
        suite: suite.to_owned(),
        origin: field("Origin").to_owned(),
        by_hash: field("Acquire-By-Hash") == "yes",
        files,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Origin: Debian\nSuite: oldstable\nCodename: bookworm\nDate: Sat, 11 Jul 2026 10:16:37 UTC\n\
        Valid-Until: Sat, 18 Jul 2026 10:16:37 UTC\nAcquire-By-Hash: yes\nMD5Sum:\n 00 1 x\nSHA256:\n \
        e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855        0 main/binary-amd64/Packages\n";
    const DURING: i64 = 1_783_764_997 + 3600;

    fn source(check_valid_until: bool) -> Source {
        let machine =
            crate::Machine { debian_mirrors: vec!["http://host.example/debian".into()], ..Default::default() };
        Source { check_valid_until, ..sources::read(&machine).unwrap().remove(0) }
    }

    #[test]
    fn what_is_listed_is_found() {
        for suite in ["bookworm", "oldstable"] {
            let release = parse(TEXT, suite, &source(true), DURING).unwrap();
            assert!(release.by_hash);
            assert_eq!(release.files.len(), 1);
            assert_eq!(release.files["main/binary-amd64/Packages"].0, 0);
        }
    }

    #[test]
    fn another_suites_index_is_refused() {
        assert!(matches!(parse(TEXT, "trixie", &source(true), DURING), Err(Error::Invalid { .. })));
    }

    #[test]
    fn times_are_kept() {
        let late = DURING + 30 * 86_400;
        let Err(Error::Signature { reason, .. }) = parse(TEXT, "bookworm", &source(true), late) else { panic!() };
        assert!(reason.contains("valid until 2026-07-18 10:16 UTC"), "{reason}");
        assert!(parse(TEXT, "bookworm", &source(false), late).is_ok());
        let Err(Error::Signature { reason, .. }) = parse(TEXT, "bookworm", &source(true), 0) else { panic!() };
        assert!(reason.contains("is the clock slow"), "{reason}");
    }

    #[test]
    fn nonsense_is_an_error() {
        let ours = "Suite: bookworm\n";
        for text in [
            "",
            "\n\n",
            ours,
            "Suite: bookworm\nSHA256:\n",
            "Suite: bookworm\nSHA256:\n zz 1 x\n",
            "Suite: bookworm\nDate: now\n",
        ] {
            assert!(matches!(parse(text, "bookworm", &source(true), DURING), Err(Error::Invalid { .. })), "{text:?}");
        }
    }
}
