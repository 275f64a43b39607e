//! What a formation is made of, as a bill of materials: SPDX 2.3 (ISO/IEC 5962), in JSON.
//!
//! It is a function of the formation and of what was fetched for it: no clock, no machine, so that it is the same wherever it is
//! asked for. Packages are those that the tree itself tells ([`Store::packages`]); digests are of what they were unpacked from.

use serde_json::{Value, json};

use crate::directory::FetchRecord;
use crate::packages::{Ecosystem, Package, licence};
use crate::{FormationId, Result, Store};

/// The media type of what [`sbom`] gives, for attaching it to an artifact.
pub const MEDIA_TYPE: &str = "application/spdx+json";

/// Every document says that it was made at the time that every file shows: 1980-01-02 00:00 UTC.
pub(crate) const CREATED: &str = "1980-01-02T00:00:00Z";

/// The SPDX document of a formation.
pub fn sbom(store: &Store, id: FormationId) -> Result<Value> {
    let (formation, record) = (store.formation(id)?, store.record(id)?);
    let (distribution, release) = store.distribution(formation.root)?;
    let mut packages = vec![json!({
        "name": formation.name,
        "SPDXID": ROOT,
        "versionInfo": if formation.version.is_empty() { "NOASSERTION" } else { &formation.version },
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "primaryPackagePurpose": "CONTAINER",
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        // Not as a checksum: the digest is of the formation's encoding, not of a file that anyone could hash.
        "comment": format!("formation {id} for {}, root tree {}", formation.platform, formation.root),
    })];
    let mut relationships = vec![relationship("SPDXRef-DOCUMENT", "DESCRIBES", ROOT)];
    let mut references = std::collections::BTreeMap::new();
    let mut unclaimed: Vec<&FetchRecord> = record.fetched.iter().collect();
    for (number, package) in (1..).zip(store.packages(formation.root)?) {
        let spdx_id = identifier(number, &package.name);
        let licence = licence(&package.licences);
        if let Some(licence) = &licence {
            references.extend(licence.references.clone());
        }
        let origin = unclaimed.iter().position(|fetch| is_of(fetch, &package)).map(|at| unclaimed.remove(at));
        let named = |text: &str| if text.is_empty() { "NOASSERTION".to_owned() } else { text.to_owned() };
        let mut described = json!({
            "name": package.name,
            "SPDXID": spdx_id,
            "versionInfo": package.version,
            "supplier": supplier(&package.supplier),
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": licence.as_ref().map_or("NOASSERTION", |licence| &licence.expression),
            "copyrightText": "NOASSERTION",
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": purl(&package, &distribution, &release),
            }],
        });
        if is_address(&package.homepage) {
            described["homepage"] = json!(named(&package.homepage));
        }
        if let Some(fetch) = origin {
            described["checksums"] = checksums(fetch);
            described["sourceInfo"] = json!(fetch.url);
        }
        packages.push(described);
        relationships.push(relationship(ROOT, "CONTAINS", &spdx_id));
    }
    for (number, fetch) in (packages.len()..).zip(unclaimed) {
        let spdx_id = identifier(number, &fetch.name);
        packages.push(json!({
            "name": fetch.name,
            "SPDXID": spdx_id,
            "downloadLocation": if is_address(&fetch.url) { &fetch.url } else { "NOASSERTION" },
            "filesAnalyzed": false,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": "NOASSERTION",
            "copyrightText": "NOASSERTION",
            "checksums": checksums(fetch),
            "sourceInfo": fetch.url,
        }));
        relationships.push(relationship(&spdx_id, "BUILD_DEPENDENCY_OF", ROOT));
    }
    let references: Vec<Value> = references
        .into_iter()
        .map(|(id, name)| {
            json!({
                "licenseId": id,
                "name": name,
                "extractedText": format!("the package calls it `{name}`; its text is in the package's copyright file"),
            })
        })
        .collect();
    let mut document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("{}{}{}", formation.name, if formation.version.is_empty() { "" } else { "-" }, formation.version),
        "documentNamespace": format!("urn:forge:sbom:{id}"),
        "creationInfo": { "created": CREATED, "creators": [format!("Tool: forge-{}", env!("CARGO_PKG_VERSION"))] },
        "packages": packages,
        "relationships": relationships,
    });
    if !references.is_empty() {
        document["hasExtractedLicensingInfos"] = Value::Array(references);
    }
    Ok(document)
}

const ROOT: &str = "SPDXRef-Formation";

fn relationship(element: &str, kind: &str, related: &str) -> Value {
    json!({ "spdxElementId": element, "relationshipType": kind, "relatedSpdxElement": related })
}

/// Identifiers have letters, digits, `.` and `-` only; the number keeps them apart.
fn identifier(number: usize, name: &str) -> String {
    let keeps = |character: char| if character.is_ascii_alphanumeric() || character == '.' { character } else { '-' };
    format!("SPDXRef-Package-{number}-{}", name.chars().map(keeps).collect::<String>())
}

fn supplier(who: &str) -> String {
    // `Name <mail>` is `Person: Name (mail)`; a list of people has no form in SPDX.
    let who = who.split(", ").next().unwrap_or_default();
    let plain = who.replace(['(', ')'], "");
    match plain.split_once('<') {
        _ if plain.trim().is_empty() => "NOASSERTION".to_owned(),
        Some((name, mail)) if mail.trim_end().ends_with('>') && !name.trim().is_empty() && mail.contains('@') => {
            format!("Person: {} ({})", name.trim(), mail.trim_end().trim_end_matches('>'))
        }
        _ => format!("Person: {}", plain.replace(['<', '>'], "").trim()),
    }
}

fn is_address(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.contains([' ', '\n', '<', '>', '"']))
}

fn checksums(fetch: &FetchRecord) -> Value {
    let algorithm = fetch.algorithm.strip_prefix("nar-").unwrap_or(&fetch.algorithm);
    match fetch.algorithm == algorithm {
        true => json!([{ "algorithm": algorithm.to_uppercase(), "checksumValue": fetch.digest }]),
        // A NAR's hash is of no file that anyone could hash.
        false => json!([]),
    }
}

/// Whether a package was unpacked from this.
fn is_of(fetch: &FetchRecord, package: &Package) -> bool {
    let file = fetch.url.rsplit('/').next().unwrap_or_default();
    match package.ecosystem {
        Ecosystem::Debian => {
            // File names of a pool leave the epoch out (Debian policy, section 5.6.12).
            let version = package.version.split_once(':').map_or(package.version.as_str(), |(_, version)| version);
            let file = file.replace("%3a", ":");
            file == format!("{}_{version}_{}.deb", package.name, package.architecture)
                || file == format!("{}_{}_{}.deb", package.name, package.version, package.architecture)
        }
        Ecosystem::Python => {
            // A source distribution's name ends with its version.
            if let Some((name, version)) = file.strip_suffix(".tar.gz").and_then(|file| file.rsplit_once('-')) {
                return normal(name) == normal(&package.name) && version == package.version;
            }
            let mut parts = file.strip_suffix(".whl").unwrap_or_default().split('-');
            let name = parts.next().unwrap_or_default();
            normal(name) == normal(&package.name) && parts.next() == Some(package.version.as_str())
        }
        Ecosystem::Node => {
            let base = package.name.rsplit('/').next().unwrap_or_default();
            fetch.url.ends_with(&format!("{}/-/{base}-{}.tgz", package.name, package.version))
        }
        Ecosystem::Rust => fetch.url == format!("cargo:{}/{}", package.name, package.version),
        Ecosystem::Alpine => false,
    }
}

/// PEP 503's normal form of a project's name.
fn normal(name: &str) -> String {
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

/// The package URL (purl specification, 1.0).
fn purl(package: &Package, distribution: &str, release: &str) -> String {
    let (name, version) = (&package.name, escaped(&package.version));
    let kind = package.ecosystem.purl_type();
    match package.ecosystem {
        Ecosystem::Debian | Ecosystem::Alpine => {
            let distribution = if distribution.is_empty() { "debian" } else { distribution };
            let mut text = format!("pkg:{kind}/{}/{}@{version}", escaped(distribution), escaped(&name.to_lowercase()));
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
        Ecosystem::Python => format!("pkg:{kind}/{}@{version}", escaped(&normal(name))),
        Ecosystem::Rust => format!("pkg:{kind}/{}@{version}", escaped(name)),
        Ecosystem::Node => {
            let parts: Vec<String> = name.split('/').map(escaped).collect();
            format!("pkg:{kind}/{}@{version}", parts.join("/"))
        }
    }
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

    fn package(ecosystem: Ecosystem, name: &str, version: &str) -> Package {
        let (name, version, architecture) = (name.to_owned(), version.to_owned(), "amd64".to_owned());
        let (supplier, homepage, licences) = (String::new(), String::new(), Vec::new());
        Package { ecosystem, name, version, architecture, supplier, homepage, licences }
    }

    #[test]
    fn packages_are_told_from_what_they_were_unpacked_from() {
        let fetch = |url: &str| FetchRecord {
            name: String::new(),
            url: url.to_owned(),
            algorithm: "sha256".to_owned(),
            digest: String::new(),
        };
        let deb = package(Ecosystem::Debian, "libc6", "1:2.36-9+deb12u13");
        assert!(is_of(&fetch("debian:bookworm/pool/main/g/glibc/libc6_2.36-9+deb12u13_amd64.deb"), &deb));
        assert!(!is_of(&fetch("debian:bookworm/pool/main/g/glibc/libc6_2.36-9_amd64.deb"), &deb));
        let wheel = package(Ecosystem::Python, "ruamel.yaml", "0.18");
        assert!(is_of(&fetch("python:ruamel-yaml/ruamel_yaml-0.18-py3-none-any.whl"), &wheel));
        assert_eq!(
            purl(&deb, "debian", "12"),
            "pkg:deb/debian/libc6@1%3A2.36-9%2Bdeb12u13?arch=amd64&distro=debian-12"
        );
        assert_eq!(purl(&package(Ecosystem::Node, "@a/b", "1"), "", ""), "pkg:npm/%40a/b@1");
    }

    #[test]
    fn suppliers_have_spdx_form() {
        for (given, expected) in [
            ("A B <a@b.org>", "Person: A B (a@b.org)"),
            ("", "NOASSERTION"),
            ("A, B", "Person: A"),
            ("Some (Team) <x>", "Person: Some Team x"),
        ] {
            assert_eq!(supplier(given), expected);
        }
    }
}
