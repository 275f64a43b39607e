//! What a formation is made of, as a bill of materials: SPDX 2.3 (ISO/IEC 5962), in JSON.
//!
//! It is a function of the formation and of what was fetched for it: no clock, no machine, so that it is the same wherever it is
//! asked for. Packages are those that the tree itself tells ([`Store::packages`]); digests are of what they were unpacked from.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::directory::FetchRecord;
use crate::packages::{Ecosystem, Package, licence, normal, origin, purl};
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
    let mut references = BTreeMap::new();
    let mut unclaimed: Vec<&FetchRecord> = record.fetched.iter().collect();
    for (number, package) in (1..).zip(store.packages(formation.root)?) {
        let spdx_id = identifier(number, &package.name);
        let licence = licence(&package.licences);
        if let Some(licence) = &licence {
            references.extend(licence.references.clone());
        }
        let fetch = unclaimed.iter().position(|fetch| is_of(fetch, &package)).map(|at| unclaimed.remove(at));
        let mut described = json!({
            "name": package.name,
            "SPDXID": spdx_id,
            "versionInfo": named(&package.version),
            "supplier": supplier(&package.supplier, package.ecosystem),
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": licence.as_ref().map_or("NOASSERTION", |licence| &licence.expression),
            "copyrightText": "NOASSERTION",
            "externalRefs": reference(&purl(&package, &distribution, &release)),
        });
        if is_address(&package.homepage) {
            described["homepage"] = json!(package.homepage);
        }
        let told = package.checksums.iter().map(|one| (one.algorithm.as_str(), one.digest.as_str()));
        let sums: BTreeSet<_> = told.chain(fetch.and_then(checksum)).collect();
        if !sums.is_empty() {
            described["checksums"] = checksums(sums);
        }
        if let Some(fetch) = fetch {
            described["sourceInfo"] = json!(fetch.url);
        }
        packages.push(described);
        relationships.push(relationship(ROOT, "CONTAINS", &spdx_id));
    }
    for (number, fetch) in (packages.len()..).zip(unclaimed) {
        let origin = origin(fetch, &distribution);
        let name = origin.as_ref().map_or(&fetch.name, |origin| &origin.name);
        let spdx_id = identifier(number, name);
        let mut described = json!({
            "name": name,
            "SPDXID": spdx_id,
            "downloadLocation": if is_address(&fetch.url) { &fetch.url } else { "NOASSERTION" },
            "filesAnalyzed": false,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": "NOASSERTION",
            "copyrightText": "NOASSERTION",
            "checksums": checksums(checksum(fetch)),
            "sourceInfo": fetch.url,
        });
        if let Some(origin) = &origin {
            described["versionInfo"] = json!(origin.version);
            described["externalRefs"] = reference(&origin.purl);
        }
        packages.push(described);
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

fn named(text: &str) -> &str {
    if text.is_empty() { "NOASSERTION" } else { text }
}

/// A package URL as SPDX refers to it.
fn reference(purl: &str) -> Value {
    json!([{ "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl }])
}

fn supplier(who: &str, ecosystem: Ecosystem) -> String {
    if ecosystem == Ecosystem::Java && !who.trim().is_empty() {
        // Jars name who sells them.
        return format!("Organization: {}", who.replace(['(', ')'], "").trim());
    }
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

/// The hash of what was fetched, unless it is of a NAR: that is of no file that anyone could hash.
fn checksum(fetch: &FetchRecord) -> Option<(&str, &str)> {
    (!fetch.algorithm.starts_with("nar-")).then_some((&fetch.algorithm, &fetch.digest))
}

fn checksums<'a>(sums: impl IntoIterator<Item = (&'a str, &'a str)>) -> Value {
    let one =
        |(algorithm, digest): (&str, &str)| json!({ "algorithm": algorithm.to_uppercase(), "checksumValue": digest });
    Value::Array(sums.into_iter().map(one).collect())
}

/// Whether a package was unpacked from this.
fn is_of(fetch: &FetchRecord, package: &Package) -> bool {
    if package.checksums.iter().any(|sum| sum.algorithm == fetch.algorithm && sum.digest == fetch.digest) {
        return true;
    }
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
        // Jars are told by their digest alone.
        Ecosystem::Alpine | Ecosystem::Java => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(ecosystem: Ecosystem, name: &str, version: &str) -> Package {
        let (name, version, architecture) = (name.to_owned(), version.to_owned(), "amd64".to_owned());
        let (supplier, homepage, licences, checksums) = (String::new(), String::new(), Vec::new(), Vec::new());
        Package { ecosystem, name, version, architecture, supplier, homepage, licences, checksums }
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
    }

    #[test]
    fn suppliers_have_spdx_form() {
        for (given, expected) in [
            ("A B <a@b.org>", "Person: A B (a@b.org)"),
            ("", "NOASSERTION"),
            ("A, B", "Person: A"),
            ("Some (Team) <x>", "Person: Some Team x"),
        ] {
            assert_eq!(supplier(given, Ecosystem::Debian), expected);
        }
    }
}
