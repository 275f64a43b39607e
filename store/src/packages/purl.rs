//! Package URLs (the purl specification, 1.0): what a package is called wherever one asks, and what was fetched.

use super::{Ecosystem, Package};
use crate::directory::FetchRecord;

/// A package as the file that it came in names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Its name, as its ecosystem writes it.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
    /// Its package URL.
    pub(crate) purl: String,
}

/// The package URL of a package in a tree of this distribution.
pub(crate) fn purl(package: &Package, distribution: &str, release: &str) -> String {
    let version = if package.version.is_empty() { String::new() } else { format!("@{}", escaped(&package.version)) };
    let (name, kind) = (&package.name, package.ecosystem.purl_type());
    match package.ecosystem {
        Ecosystem::Debian | Ecosystem::Alpine => {
            let distribution = if distribution.is_empty() { "debian" } else { distribution };
            let mut text = format!("pkg:{kind}/{}/{}{version}", escaped(distribution), escaped(&name.to_lowercase()));
            let mut qualifiers = Vec::new();
            if !package.architecture.is_empty() {
                qualifiers.push(format!("arch={}", escaped(&package.architecture)));
            }
            if !release.is_empty() {
                qualifiers.push(format!("distro={}-{}", escaped(distribution), escaped(release)));
            }
            if !qualifiers.is_empty() {
                text.push('?');
                text.push_str(&qualifiers.join("&"));
            }
            text
        }
        Ecosystem::Python => format!("pkg:{kind}/{}{version}", escaped(&normal(name))),
        Ecosystem::Rust => format!("pkg:{kind}/{}{version}", escaped(name)),
        Ecosystem::Node => format!("pkg:{kind}/{}{version}", parts(name)),
        Ecosystem::Java => match name.split_once(':') {
            Some((group, artifact)) => format!("pkg:{kind}/{}/{}{version}", escaped(group), escaped(artifact)),
            // Maven's names have a group; what has none may be of anybody.
            None => format!("pkg:generic/{}{version}", escaped(name)),
        },
    }
}

/// What the address of something fetched says of a package; none of a plain file.
pub(crate) fn origin(fetch: &FetchRecord, distribution: &str) -> Option<Origin> {
    let (scheme, rest) = fetch.url.split_once(':')?;
    let file = rest.rsplit('/').next()?;
    let of = |ecosystem: Ecosystem, name: &str, version: &str, architecture: &str| {
        let mut package = Package::named(ecosystem, name, version);
        architecture.clone_into(&mut package.architecture);
        let purl = purl(&package, distribution, "");
        Origin { name: package.name, version: package.version, purl }
    };
    match scheme {
        "debian" => {
            let mut parts = file.strip_suffix(".deb")?.split('_');
            let (name, version, architecture) = (parts.next()?, parts.next()?, parts.next()?);
            Some(of(Ecosystem::Debian, name, &version.replace("%3a", ":"), architecture))
        }
        "python" => {
            let (name, version) = match file.strip_suffix(".whl") {
                Some(wheel) => {
                    let mut parts = wheel.split('-');
                    (parts.next()?, parts.next()?)
                }
                None => file.strip_suffix(".tar.gz").or_else(|| file.strip_suffix(".zip"))?.rsplit_once('-')?,
            };
            Some(of(Ecosystem::Python, name, version, ""))
        }
        "npm" => {
            let (name, file) = rest.split_once("/-/")?;
            let base = name.rsplit('/').next()?;
            let version = file.strip_suffix(".tgz")?.strip_prefix(base)?.strip_prefix('-')?;
            Some(of(Ecosystem::Node, name, version, ""))
        }
        "cargo" => {
            let (name, version) = rest.split_once('/')?;
            Some(of(Ecosystem::Rust, name, version, ""))
        }
        "oci" => {
            let (repository, manifest) = rest.rsplit_once("@sha256:")?;
            let name = repository.rsplit('/').next()?.to_lowercase();
            let version = format!("sha256:{manifest}");
            let purl =
                format!("pkg:oci/{}@{}?repository_url={}", escaped(&name), escaped(&version), escaped(repository));
            Some(Origin { name, version, purl })
        }
        _ => None,
    }
}

/// PEP 503's normal form of a project's name.
pub(crate) fn normal(name: &str) -> String {
    let mut normal = String::new();
    for character in name.chars() {
        match character {
            '-' | '_' | '.' if normal.ends_with('-') => {}
            '-' | '_' | '.' => normal.push('-'),
            character => normal.push(character.to_ascii_lowercase()),
        }
    }
    normal
}

/// A name in parts, each escaped.
fn parts(name: &str) -> String {
    name.split('/').map(escaped).collect::<Vec<_>>().join("/")
}

/// Percent-encoded but for letters, digits and `.-_~`.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => escaped.push(char::from(byte)),
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_have_the_addresses_of_the_specification() {
        let named = |ecosystem, name: &str, version: &str| Package::named(ecosystem, name, version);
        let deb =
            Package { architecture: "amd64".to_owned(), ..named(Ecosystem::Debian, "libc6", "1:2.36-9+deb12u13") };
        for (package, expected) in [
            (deb, "pkg:deb/debian/libc6@1%3A2.36-9%2Bdeb12u13?arch=amd64&distro=debian-12"),
            (named(Ecosystem::Node, "@a/b", "1"), "pkg:npm/%40a/b@1"),
            (named(Ecosystem::Python, "ruamel.YAML", "0.18"), "pkg:pypi/ruamel-yaml@0.18"),
            (named(Ecosystem::Java, "com.google:gson", "2.10"), "pkg:maven/com.google/gson@2.10"),
            (named(Ecosystem::Java, "own", ""), "pkg:generic/own"),
        ] {
            assert_eq!(purl(&package, "debian", "12"), expected);
        }
    }

    #[test]
    fn what_was_fetched_is_named_by_its_address() {
        let origin_of = |url: &str| {
            let [name, algorithm, digest] = ["f", "sha256", "0"].map(str::to_owned);
            origin(&FetchRecord { name, url: url.to_owned(), algorithm, digest }, "debian").map(|origin| origin.purl)
        };
        let image = format!("oci:host:5000/team/App@sha256:{}", "0".repeat(64));
        let named = format!("pkg:oci/app@sha256%3A{}?repository_url=host%3A5000%2Fteam%2FApp", "0".repeat(64));
        for (url, expected) in [
            (
                "debian:trixie/pool/main/r/rustc/rustc_1.85.0%3a1_amd64.deb",
                "pkg:deb/debian/rustc@1.85.0%3A1?arch=amd64",
            ),
            ("python:ruamel-yaml/ruamel_yaml-0.18-py3-none-any.whl", "pkg:pypi/ruamel-yaml@0.18"),
            ("python:docopt/docopt-0.6.2.tar.gz", "pkg:pypi/docopt@0.6.2"),
            ("npm:@babel/core/-/core-7.1.0.tgz", "pkg:npm/%40babel/core@7.1.0"),
            ("cargo:serde/1.0.0", "pkg:cargo/serde@1.0.0"),
            (&image, &named),
        ] {
            assert_eq!(origin_of(url).as_deref(), Some(expected), "{url}");
        }
        for odd in ["", "x", "debian:x.deb", "npm:a/-/b-1.tgz", "oci:a/b", "https://a/b_1_c.deb", "python:a/b.whl"] {
            assert_eq!(origin_of(odd), None, "{odd}");
        }
    }
}
