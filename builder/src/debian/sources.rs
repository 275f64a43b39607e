//! Where this machine's Debian mirrors are: read from forge's own configuration, else from apt's.
//!
//! Both of apt's forms are read (sources.list(5)): one line a source, and paragraphs (`*.sources`). A source that apt could use and
//! forge cannot (`cdrom:`, `mirror+file:`, `tor+http:`, flat repositories) is passed over. Nothing here asks the network.

mod apt;
mod list;

pub use list::in_directory;

use std::path::PathBuf;

use crate::fetch::Place;
use crate::{Error, Machine, Result};

/// One archive as the machine's configuration has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What `dists/` and `pool/` lie below, without a slash at its end; with user name and password where apt has them.
    pub base: String,
    /// The proxy that apt uses for it.
    pub proxy: Option<String>,
    /// Which suite; none for a mirror that forge was told of, which may have any.
    pub suite: Option<String>,
    /// Which components; empty for all that are asked.
    pub components: Vec<String>,
    /// Architectures it is restricted to; empty for all.
    pub architectures: Vec<String>,
    /// Who may sign it.
    pub signed_by: SignedBy,
    /// Whether a missing or wrong signature is accepted (`Trusted: yes`).
    pub trusted: bool,
    /// Whether an index that is past its `Valid-Until` is refused; as apt, unless the source says otherwise.
    pub check_valid_until: bool,
}

/// Whose signature makes an index good.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SignedBy {
    /// Whoever the machine's apt trusts.
    #[default]
    Machine,
    /// Keys in these files, and of these fingerprints.
    Named {
        /// Key rings, binary or armoured.
        files: Vec<PathBuf>,
        /// Fingerprints of keys, upper case.
        fingerprints: Vec<String>,
    },
    /// These keys, armoured.
    Inline(String),
}

impl Source {
    /// A file of this archive.
    pub fn place(&self, file: &str) -> Place {
        Place { proxy: self.proxy.clone(), ..Place::new(format!("{}/{file}", self.base)) }
    }

    /// A repository that is signed by these keys, armoured.
    pub fn named(base: &str, keys: &str) -> Self {
        Self { signed_by: SignedBy::Inline(keys.to_owned()), suite: Some(String::new()), ..Self::mirror(base) }
    }

    fn mirror(base: &str) -> Self {
        Self {
            base: base.trim_end_matches('/').to_owned(),
            proxy: None,
            suite: None,
            components: Vec::new(),
            architectures: Vec::new(),
            signed_by: SignedBy::Machine,
            trusted: false,
            check_valid_until: true,
        }
    }
}

/// Every archive this machine knows, in the order configured.
pub fn read(machine: &Machine) -> Result<Vec<Source>> {
    let mut mirrors: Vec<&str> = machine.debian_mirrors.iter().map(String::as_str).collect();
    if mirrors.is_empty() {
        mirrors.extend(machine.variable("FORGE_DEBIAN_MIRROR").into_iter().flat_map(str::split_whitespace));
    }
    if !mirrors.is_empty() {
        return Ok(mirrors.into_iter().map(Source::mirror).collect());
    }
    let settings = apt::Settings::read(machine);
    let mut sources = list::read(machine)?;
    for source in &mut sources {
        settings.apply(source);
    }
    Ok(sources)
}

/// A suite and the time of a snapshot of it: `bookworm@20260801T000000Z`.
pub fn split(suite: &str) -> (&str, Option<&str>) {
    suite.split_once('@').map_or((suite, None), |(suite, time)| (suite, Some(time)))
}

/// Whether this is how archives of snapshots name a time: a day, or a second of one.
pub fn is_time(text: &str) -> bool {
    let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    let second = text.split_once('T').and_then(|(day, rest)| Some((day, rest.strip_suffix('Z')?)));
    digits(text, 8) || second.is_some_and(|(day, second)| digits(day, 8) && digits(second, 6))
}

/// What stands for the time in the address of an archive of snapshots, as in apt.
const TIME: &str = "@SNAPSHOTID@";

/// The archives that keep a suite as it was at a time. Who may sign it is what this machine's own source of the suite says; that it
/// was valid for a week only is no reproach.
fn of_snapshot(machine: &Machine, suite: &str, time: &str) -> Result<Vec<Source>> {
    let mut archives: Vec<&str> = machine.debian_snapshots.iter().map(String::as_str).collect();
    if archives.is_empty() {
        archives.extend(machine.variable("FORGE_DEBIAN_SNAPSHOTS").into_iter().flat_map(str::split_whitespace));
    }
    if archives.is_empty() {
        return Err(Error::NotConfigured {
            what: "archive of Debian's snapshots",
            settings: vec![
                format!("`FORGE_DEBIAN_SNAPSHOTS`, for instance `http://host/archive/debian/{TIME}`"),
                "`debian.snapshots` in forge's configuration".to_owned(),
            ],
        });
    }
    let now = of_suite(machine, suite).ok().and_then(|sources| sources.into_iter().next());
    let now = now.unwrap_or_else(|| Source::mirror(""));
    let archive = |archive: &str| {
        let base = neighbour(archive.trim_end_matches('/'), suite.ends_with("-security")).replace(TIME, time);
        Source { base, trusted: false, check_valid_until: false, components: Vec::new(), ..now.clone() }
    };
    Ok(archives.into_iter().map(archive).collect())
}

/// The archives that may have a suite, best first.
///
/// Those configured with it come first. Then those of the same family under another suite: a machine set up for `bookworm` can lock
/// `trixie`, and its mirror's neighbour `…-security` has `bookworm-security`.
pub fn of_suite(machine: &Machine, suite: &str) -> Result<Vec<Source>> {
    if let (suite, Some(time)) = split(suite) {
        return of_snapshot(machine, suite, time);
    }
    let sources = read(machine)?;
    if sources.is_empty() {
        return Err(not_configured());
    }
    let (mut found, mut others) = (Vec::new(), Vec::new());
    for source in sources {
        match &source.suite {
            Some(configured) if configured == suite => found.push(source),
            Some(configured) if !is_debian_suite(configured) => {}
            _ => others.push(source),
        }
    }
    for mut other in others {
        // What the configuration says of another suite's components does not hold here, nor that it may go unsigned.
        other.suite = None;
        other.components.clear();
        other.trusted = false;
        other.base = neighbour(&other.base, suite.ends_with("-security"));
        if !found.iter().any(|known: &Source| known.base == other.base) {
            found.push(other);
        }
    }
    if found.is_empty() { Err(not_configured()) } else { Ok(found) }
}

/// Where a file of a suite's archive may lie.
pub fn places(machine: &Machine, suite: &str, file: &str) -> Result<Vec<Place>> {
    let mut sources = of_suite(machine, suite);
    // Files of a pool are known by their digests: what is still at a mirror need not come from the archive of snapshots.
    if let (suite, Some(_)) = split(suite)
        && !file.starts_with("dists/")
        && let Ok(mut mirrors) = of_suite(machine, suite)
    {
        mirrors.extend(sources.unwrap_or_default());
        sources = Ok(mirrors);
    }
    let mut places: Vec<Place> = sources?.iter().map(|source| source.place(file)).collect();
    places.dedup();
    Ok(places)
}

/// The address of the security archive beside a mirror, or of the mirror beside a security archive: `…/debian` and
/// `…/debian-security`, also in the middle of a snapshot's path.
fn neighbour(base: &str, security: bool) -> String {
    const SUFFIX: &str = "-security";
    let mut segments: Vec<String> = base.split('/').map(str::to_owned).collect();
    if segments.iter().skip(3).any(|segment| segment.ends_with(SUFFIX)) == security {
        return base.to_owned();
    }
    let suits = |segment: &&mut String| if security { *segment == "debian" } else { segment.ends_with(SUFFIX) };
    match segments.iter_mut().skip(3).rev().find(suits) {
        Some(segment) if security => segment.push_str(SUFFIX),
        Some(segment) => segment.truncate(segment.len() - SUFFIX.len()),
        None => return format!("{base}{SUFFIX}"),
    }
    segments.join("/")
}

/// Whether a suite is one of Debian's own, `bookworm` or `bookworm-updates`. Others' archives (`nodistro`, `bookworm-vendor`) are
/// not looked through for Debian's packages.
fn is_debian_suite(suite: &str) -> bool {
    const RELEASES: &[&str] = &[
        "buster",
        "bullseye",
        "bookworm",
        "trixie",
        "forky",
        "duke",
        "sid",
        "oldoldstable",
        "oldstable",
        "stable",
        "testing",
        "unstable",
        "experimental",
    ];
    const PARTS: &[&str] = &["", "updates", "security", "proposed-updates", "backports", "backports-sloppy"];
    let (release, part) = suite.split_once('-').unwrap_or((suite, ""));
    RELEASES.contains(&release) && PARTS.contains(&part)
}

fn not_configured() -> Error {
    Error::NotConfigured {
        what: "Debian mirror",
        settings: vec![
            "`FORGE_DEBIAN_MIRROR`, for instance `http://host/debian`".to_owned(),
            "`debian.mirrors` in forge's configuration".to_owned(),
            "apt's own `/etc/apt/sources.list` and `/etc/apt/sources.list.d`".to_owned(),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine whose apt is configured with these files below `etc/apt`.
    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Machine) {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join("etc/apt").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let machine = Machine { root: directory.path().to_owned(), ..Machine::default() };
        (directory, machine)
    }

    fn urls(machine: &Machine, suite: &str) -> Vec<String> {
        places(machine, suite, "f").unwrap().into_iter().map(|place| place.url).collect()
    }

    #[test]
    fn both_forms_are_read_and_others_archives_left_alone() {
        let (_directory, machine) = machine(&[
            (
                "sources.list",
                "# all\ndeb [arch=amd64,arm64 trusted=yes signed-by=/k/a.gpg] http://one.example/debian/ bookworm main contrib # why\n\
              deb-src http://one.example/debian bookworm main\ndeb cdrom:[x]/ bookworm main\ndeb http://flat.example/ ./\n",
            ),
            (
                "sources.list.d/b.sources",
                "Types: deb deb-src\n# a comment\nURIs: http://two.example/debian\nSuites: bookworm\n bookworm-updates\n\
              Components: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END PGP PUBLIC KEY BLOCK-----\n\n\
              Enabled: no\nTypes: deb\nURIs: http://off.example/debian\nSuites: bookworm\nComponents: main\n\n\
              Types: deb\nURIs: http://two.example/debian-security\nSuites: bookworm-security\nComponents: main\n",
            ),
            (
                "sources.list.d/vendor.list",
                "deb https://vendor.example/apt nodistro main\ndeb https://vendor.example/debian bookworm stable\n",
            ),
            ("sources.list.d/ignored.list.save", "deb http://old.example/debian bookworm main\n"),
        ]);
        let sources = of_suite(&machine, "bookworm").unwrap();
        assert_eq!(sources[0].architectures, ["amd64", "arm64"]);
        assert!(sources[0].trusted);
        assert!(matches!(&sources[0].signed_by, SignedBy::Named { files, .. } if files[0].ends_with("k/a.gpg")));
        assert!(
            matches!(&sources[1].signed_by, SignedBy::Inline(text) if text.contains("BLOCK-----\n\nabc\n-----END"))
        );
        assert_eq!(urls(&machine, "bookworm"), ["http://one.example/debian/f", "http://two.example/debian/f"]);
        assert_eq!(urls(&machine, "bookworm-security")[0], "http://two.example/debian-security/f");
        // A suite that the machine is not set up for is looked for at the mirrors of the others, and must be signed there.
        assert_eq!(urls(&machine, "trixie"), ["http://one.example/debian/f", "http://two.example/debian/f"]);
        assert!(of_suite(&machine, "trixie").unwrap().iter().all(|source| !source.trusted));
        assert_eq!(
            urls(&machine, "trixie-security"),
            ["http://one.example/debian-security/f", "http://two.example/debian-security/f"]
        );
    }

    #[test]
    fn forges_own_setting_overrides_apt() {
        let (_directory, mut machine) = machine(&[("sources.list", "deb http://one.example/debian bookworm main")]);
        machine
            .environment
            .insert("FORGE_DEBIAN_MIRROR".to_owned(), "http://env.example/snap/debian/20250101T000000Z/".to_owned());
        assert_eq!(urls(&machine, "bookworm"), ["http://env.example/snap/debian/20250101T000000Z/f"]);
        assert_eq!(urls(&machine, "bookworm-security"), ["http://env.example/snap/debian-security/20250101T000000Z/f"]);
        machine.debian_mirrors = vec!["http://config.example/debian".to_owned()];
        assert_eq!(urls(&machine, "bookworm"), ["http://config.example/debian/f"]);
    }

    #[test]
    fn apts_proxies_and_passwords_are_used() {
        let (_directory, machine) = machine(&[
            (
                "sources.list",
                "deb https://one.example/debian bookworm main\ndeb http://two.example/debian bookworm main",
            ),
            (
                "apt.conf.d/10proxy",
                "/* all */ Acquire { http { Proxy \"http://proxy.example:3128\"; }; };\n// not this one\n\
              Acquire::http::Proxy::two.example \"DIRECT\";\nAcquire::Check-Valid-Until \"false\";\n",
            ),
            (
                "auth.conf.d/a.conf",
                "machine one.example login me password p@ss\nmachine two.example login no password no\n",
            ),
        ]);
        let sources = of_suite(&machine, "bookworm").unwrap();
        assert_eq!(sources[0].base, "https://me:p%40ss@one.example/debian");
        assert_eq!(sources[0].proxy.as_deref(), Some("http://proxy.example:3128"));
        assert_eq!(
            (sources[1].base.as_str(), sources[1].proxy.as_deref()),
            ("http://two.example/debian", Some("DIRECT"))
        );
        assert!(!sources[0].check_valid_until);
    }

    #[test]
    fn nothing_configured_says_what_to_set() {
        let (_directory, machine) = machine(&[("sources.list", "\ndeb\ndeb [\ndeb [x] http://a\n\0\u{ff}")]);
        assert!(matches!(of_suite(&machine, "bookworm"), Err(Error::NotConfigured { .. })));
    }
}
