//! Which packages a tree says it has: what the databases of package managers in it tell.
//!
//! Read are dpkg's status with the packages' copyright files, apk's database, Python's `*.dist-info` and `*.egg-info`, the `package.json`
//! of `node_modules` with npm's own record beside them, Java archives, and what forge writes down of programs that are built from crates. All of this is a function of the tree alone, so a formation that came from elsewhere has a list too.
//! What is unreadable is left out: a list of packages is no reason to fail.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::digest::to_hex;
use crate::nix::hash::from_base64;
use crate::{BlobId, Node, Result, Store, TreeId, paragraph};

mod java;
mod licence;
mod purl;

pub use licence::{Licence, licence};
pub(crate) use purl::{normal, origin, purl};

/// Whose packages they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Ecosystem {
    /// Debian and what is made from it.
    Debian,
    /// Alpine.
    Alpine,
    /// The Python package index.
    Python,
    /// The npm registry.
    Node,
    /// The registry of crates.
    Rust,
    /// Maven's repositories, and jars of nobody.
    Java,
}

impl Ecosystem {
    /// The type of a package URL (the purl specification's word).
    pub fn purl_type(self) -> &'static str {
        match self {
            Self::Debian => "deb",
            Self::Alpine => "apk",
            Self::Python => "pypi",
            Self::Node => "npm",
            Self::Rust => "cargo",
            Self::Java => "maven",
        }
    }
}

/// A package in a tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Package {
    /// Whose it is.
    pub ecosystem: Ecosystem,
    /// Its name; of Java `GROUP:ARTIFACT` where that is known.
    pub name: String,
    /// Its version; empty where a jar says none.
    pub version: String,
    /// For which processor; empty if for any, or not said.
    pub architecture: String,
    /// Who made it, as it says; may be empty.
    pub supplier: String,
    /// Its home page; may be empty.
    pub homepage: String,
    /// Its licences as it writes them, sorted; empty if it says none that a program could read.
    pub licences: Vec<String>,
    /// Digests of what it was unpacked from, as the tree tells them.
    pub checksums: Vec<Checksum>,
}

/// A digest of a file that a package came in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Checksum {
    /// `sha256`, `sha512` or `sha1`.
    pub algorithm: String,
    /// Its digits, in hexadecimal.
    pub digest: String,
}

impl Package {
    /// One of which only this is known.
    fn named(ecosystem: Ecosystem, name: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            ecosystem,
            name: name.into(),
            version: version.into(),
            architecture: String::new(),
            supplier: String::new(),
            homepage: String::new(),
            licences: Vec::new(),
            checksums: Vec::new(),
        }
    }
}

/// No file that is read for this has more bytes.
const MOST: u64 = 64 << 20;
/// No Java archive has more.
const LARGEST_ARCHIVE: u64 = 4 << 30;
/// Directories below directories: deeper ones are not looked into.
const DEEPEST: usize = 64;

impl Store {
    /// Reads what [`Store::packages`] remembers.
    pub(crate) fn find_packages(&self, root: TreeId) -> Result<Vec<Package>> {
        let mut packages = BTreeSet::new();
        self.debian_packages(root, &mut packages)?;
        // What Debian's packages brought is in its list, and not told again by what it looks like.
        let mut walk = Walk { of_debian: !packages.is_empty(), ..Walk::default() };
        self.alpine_packages(root, &mut packages)?;
        self.language_packages(root, &mut walk, &mut packages)?;
        self.recorded_packages(root, &mut packages)?;
        let with_integrity = |mut package: Package| {
            let key = (package.name.clone(), package.version.clone());
            if package.ecosystem == Ecosystem::Node
                && let Some(Some(checksum)) = walk.integrities.get(&key)
            {
                package.checksums = vec![checksum.clone()];
            }
            package
        };
        Ok(packages.into_iter().map(with_integrity).collect())
    }

    /// The distribution that `os-release` names, `debian` and `12` for instance; empty texts if it does not.
    pub fn distribution(&self, root: TreeId) -> Result<(String, String)> {
        let text = self.text_at(root, b"etc/os-release")?;
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned()
        };
        Ok((value("ID"), value("VERSION_ID")))
    }

    fn text_at(&self, root: TreeId, path: &[u8]) -> Result<String> {
        let content = self.content_at(root, path, MOST)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&content).into_owned())
    }

    fn debian_packages(&self, root: TreeId, packages: &mut BTreeSet<Package>) -> Result<()> {
        let mut texts = vec![self.text_at(root, b"var/lib/dpkg/status")?];
        // Images without a package manager keep a file a package there.
        if let Some(Node::Directory(directory)) = self.look(root, b"var/lib/dpkg/status.d")? {
            for (name, node) in &self.tree(directory)?.entries {
                if matches!(node, Node::File(_)) && !name.as_bytes().ends_with(b".md5sums") {
                    texts.push(self.text_at(directory, name.as_bytes())?);
                }
            }
        }
        for text in &texts {
            for paragraph in paragraph::paragraphs(text) {
                let field = |name| paragraph::field(paragraph, name).unwrap_or_default().to_owned();
                let (name, version, status) = (field("Package"), field("Version"), field("Status"));
                let is_here = status.is_empty() || status.split_whitespace().last() == Some("installed");
                if name.is_empty() || version.is_empty() || !is_here {
                    continue;
                }
                let copyright = self.text_at(root, format!("usr/share/doc/{name}/copyright").as_bytes())?;
                packages.insert(Package {
                    licences: copyright_licences(&copyright),
                    architecture: field("Architecture"),
                    supplier: field("Maintainer"),
                    homepage: field("Homepage"),
                    ..Package::named(Ecosystem::Debian, name, version)
                });
            }
        }
        Ok(())
    }

    fn alpine_packages(&self, root: TreeId, packages: &mut BTreeSet<Package>) -> Result<()> {
        let mut text = self.text_at(root, b"lib/apk/db/installed")?;
        if text.is_empty() {
            text = self.text_at(root, b"usr/lib/apk/db/installed")?;
        }
        for paragraph in text.split("\n\n") {
            let fields: BTreeMap<&str, &str> =
                paragraph.lines().rev().filter_map(|line| line.split_once(':')).collect();
            let field = |name| fields.get(name).copied().unwrap_or_default().to_owned();
            if !field("P").is_empty() {
                packages.insert(Package {
                    architecture: field("A"),
                    supplier: field("m"),
                    homepage: field("U"),
                    licences: one(&field("L")),
                    ..Package::named(Ecosystem::Alpine, field("P"), field("V"))
                });
            }
        }
        Ok(())
    }

    /// What a program was made of does not show in it; forge writes it down beside it.
    fn recorded_packages(&self, root: TreeId, packages: &mut BTreeSet<Package>) -> Result<()> {
        #[derive(serde::Deserialize)]
        struct Recorded {
            ecosystem: String,
            name: String,
            version: String,
            #[serde(default)]
            licence: String,
            #[serde(default)]
            homepage: String,
            // Null where the crate had none.
            sha256: Option<String>,
        }
        let Some(Node::Directory(directory)) = self.look(root, b"usr/local/share/forge/packages")? else {
            return Ok(());
        };
        for (name, node) in &self.tree(directory)?.entries {
            if !matches!(node, Node::File(_)) || !name.as_bytes().ends_with(b".json") {
                continue;
            }
            let text = self.text_at(directory, name.as_bytes())?;
            let recorded: Vec<Recorded> = serde_json::from_str(&text).unwrap_or_default();
            packages.extend(recorded.into_iter().filter(|recorded| recorded.ecosystem == "cargo").map(|recorded| {
                let checksums = recorded.sha256.filter(|digest| is_digest(digest, 32));
                let checksum = |digest| Checksum { algorithm: "sha256".to_owned(), digest };
                Package {
                    homepage: recorded.homepage,
                    // `MIT/Apache-2.0` is how crates wrote it once.
                    licences: one(&recorded.licence.replace('/', " OR ")),
                    checksums: checksums.into_iter().map(checksum).collect(),
                    ..Package::named(Ecosystem::Rust, recorded.name, recorded.version)
                }
            }));
        }
        Ok(())
    }

    /// What lies anywhere in the tree: `NAME.dist-info/METADATA`, `node_modules/NAME/package.json`, `NAME.jar`.
    fn language_packages(&self, directory: TreeId, walk: &mut Walk, packages: &mut BTreeSet<Package>) -> Result<()> {
        if walk.path.len() > DEEPEST || walk.is_debians() {
            return Ok(());
        }
        let is_modules = walk.path.last().is_some_and(|name| name == b"node_modules");
        let parent = walk.path.iter().rev().find(|name| !name.starts_with(b"@"));
        let in_modules = parent.is_some_and(|parent| parent == b"node_modules");
        if !walk.seen.insert((directory, is_modules, in_modules)) {
            return Ok(());
        }
        if is_modules && let Ok(Some(text)) = self.content_at(directory, b".package-lock.json", MOST) {
            note_integrities(&text, &mut walk.integrities);
        }
        let tree = self.tree(directory)?;
        for (name, node) in &tree.entries {
            let bytes = name.as_bytes();
            match node {
                Node::Directory(child) => {
                    if bytes.ends_with(b".dist-info") {
                        packages.extend(python_package(&self.text_at(*child, b"METADATA")?));
                    } else if bytes.ends_with(b".egg-info") {
                        packages.extend(python_package(&self.text_at(*child, b"PKG-INFO")?));
                    }
                    if in_modules {
                        packages.extend(node_package(&self.text_at(*child, b"package.json")?));
                    }
                    walk.path.push(bytes.to_vec());
                    self.language_packages(*child, walk, packages)?;
                    walk.path.pop();
                }
                Node::File(_) if bytes.ends_with(b".egg-info") => {
                    packages.extend(python_package(&self.text_at(directory, bytes)?));
                }
                Node::File(file)
                    if java::is_archive(bytes) && file.size <= LARGEST_ARCHIVE && walk.archives.insert(file.blob) =>
                {
                    let archive = self.open_blob(file.blob)?;
                    packages.extend(java::packages(archive, &String::from_utf8_lossy(bytes)));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Where a walk through a tree is, and what it found beside packages.
#[derive(Default)]
struct Walk {
    of_debian: bool,
    path: Vec<Vec<u8>>,
    /// Directories that were looked into, and whether as those of npm: a tree may have one directory in many places.
    seen: HashSet<(TreeId, bool, bool)>,
    /// Java archives that were read.
    archives: HashSet<BlobId>,
    /// What npm says of packages, by name and version; none where two differ.
    integrities: BTreeMap<(String, String), Option<Checksum>>,
}

impl Walk {
    /// Whether Debian's own packages of a language lie here.
    fn is_debians(&self) -> bool {
        if !matches!(self.path.len(), 3 | 4) {
            return false;
        }
        let path = self.path.join(&b'/');
        let java = [&b"usr/share/java"[..], b"usr/share/maven-repo", b"usr/lib/jvm"];
        path == b"usr/lib/python3/dist-packages"
            || path == b"usr/share/nodejs"
            || self.of_debian && java.contains(&path.as_slice())
    }
}

/// npm's own record of what it installed (`node_modules/.package-lock.json`), which forge writes as well.
fn note_integrities(text: &[u8], integrities: &mut BTreeMap<(String, String), Option<Checksum>>) {
    #[derive(serde::Deserialize)]
    struct Lock {
        packages: BTreeMap<String, Locked>,
    }
    #[derive(serde::Deserialize)]
    struct Locked {
        name: Option<String>,
        version: Option<String>,
        integrity: Option<String>,
    }
    let Ok(lock) = serde_json::from_slice::<Lock>(text) else { return };
    for (path, locked) in lock.packages {
        let (Some(version), Some(integrity)) = (locked.version, locked.integrity) else { continue };
        let last = path.rsplit("node_modules/").next().unwrap_or_default().to_owned();
        // Several, divided by spaces, are alternatives; the first is the one that npm prefers.
        let first = integrity.split_whitespace().next().unwrap_or_default();
        let Some((algorithm, digits)) = first.split_once('-') else { continue };
        let length = match algorithm {
            "sha512" => 64,
            "sha256" => 32,
            "sha1" => 20,
            _ => continue,
        };
        let Some(bytes) = from_base64(digits.as_bytes()).filter(|bytes| bytes.len() == length) else { continue };
        let checksum = Checksum { algorithm: algorithm.to_owned(), digest: to_hex(&bytes) };
        let key = (locked.name.unwrap_or(last), version);
        let kept = integrities.entry(key).or_insert_with(|| Some(checksum.clone()));
        if kept.as_ref().is_some_and(|kept| *kept != checksum) {
            *kept = None;
        }
    }
}

/// Whether this is so many bytes in hexadecimal.
fn is_digest(text: &str, length: usize) -> bool {
    text.len() == 2 * length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn one(text: &str) -> Vec<String> {
    let text = text.trim();
    if text.is_empty() { Vec::new() } else { vec![text.to_owned()] }
}

/// The licences in a machine-readable copyright file (DEP 5); none of another.
fn copyright_licences(text: &str) -> Vec<String> {
    let mut paragraphs = paragraph::paragraphs(text);
    if paragraphs.next().is_none_or(|first| paragraph::field(first, "Format").is_none()) {
        return Vec::new();
    }
    let names = paragraph::paragraphs(text).filter_map(|paragraph| paragraph::field(paragraph, "License"));
    let names = names.filter_map(|value| value.lines().next()).map(str::trim).filter(|name| !name.is_empty());
    names.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Python's core metadata: headers as in mail, up to an empty line.
fn python_package(text: &str) -> Option<Package> {
    let header = paragraph::paragraphs(text).next()?;
    let field = |name| paragraph::field(header, name).unwrap_or_default().to_owned();
    let classifiers = || {
        let all = paragraph::fields(header).filter(|(name, _)| name.eq_ignore_ascii_case("Classifier"));
        let names = all.filter_map(|(_, value)| value.strip_prefix("License :: ")?.rsplit(" :: ").next());
        names.filter(|name| *name != "OSI Approved").map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let (expression, licence) = (field("License-Expression"), field("License"));
    let licences = match (expression.is_empty(), classifiers()) {
        (false, _) => vec![expression],
        (true, classifiers) if !classifiers.is_empty() => classifiers.into_iter().collect(),
        // Some put the whole text there.
        _ if licence.lines().count() == 1 && licence.len() < 100 => vec![licence],
        _ => Vec::new(),
    };
    let urls = paragraph::fields(header).filter(|(name, _)| name.eq_ignore_ascii_case("Project-URL"));
    let homepage = urls.filter_map(|(_, value)| value.split_once(',')).find(|(label, _)| {
        let label = label.trim();
        label.eq_ignore_ascii_case("homepage") || label.eq_ignore_ascii_case("home")
    });
    let homepage = match field("Home-page") {
        page if page.is_empty() => homepage.map(|(_, page)| page.trim().to_owned()).unwrap_or_default(),
        page => page,
    };
    let package = Package {
        supplier: [field("Author"), field("Author-email"), field("Maintainer")]
            .into_iter()
            .find(|who| !who.is_empty())
            .unwrap_or_default(),
        homepage,
        licences,
        ..Package::named(Ecosystem::Python, field("Name"), field("Version"))
    };
    (!package.name.is_empty() && !package.version.is_empty()).then_some(package)
}

/// A `package.json` (npm's own documentation of it).
fn node_package(text: &str) -> Option<Package> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    let field = |name: &str| value.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
    let inner = |name: &str, key: &str| {
        value.get(name).and_then(|value| value.get(key)).and_then(|value| value.as_str()).unwrap_or_default().to_owned()
    };
    let either = |name: &str, key: &str| if field(name).is_empty() { inner(name, key) } else { field(name) };
    let mut licences = one(&either("license", "type"));
    // As npm's first packages had it: a list of objects, or of names; any of them applies.
    if licences.is_empty()
        && let Some(several) = value.get("licenses").and_then(|value| value.as_array())
    {
        let names = several.iter().filter_map(|one| one.as_str().or_else(|| one.get("type")?.as_str()));
        licences = one(&names.collect::<Vec<_>>().join(" OR "));
    }
    let package = Package {
        supplier: either("author", "name"),
        homepage: field("homepage"),
        licences,
        ..Package::named(Ecosystem::Node, field("name"), field("version"))
    };
    (!package.name.is_empty() && !package.version.is_empty()).then_some(package)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::testing::world;

    #[test]
    fn every_database_is_read() {
        let world = world();
        let status = "Package: bash\nStatus: install ok installed\nVersion: 5.2\nArchitecture: amd64\nMaintainer: M <m@x>\n\n\
                      Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\nnonsense\n";
        let copyright = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n\
                         Files: *\nLicense: GPL-3+\n text\n\nFiles: x\nLicense: Expat\n";
        let metadata = "Metadata-Version: 2.4\nName: numpy\nVersion: 2.0\nLicense-Expression: BSD-3-Clause AND MIT\nAuthor: A\n\nName: no\n";
        let file = |content: &str| world.file(content, 0o644);
        // An empty zip archive.
        let jar = file("PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        let directory = |entries: Vec<(&str, Node)>| {
            let mut path = Node::Directory(world.tree(0o755, []));
            for (name, node) in entries {
                let mut node = node;
                for part in name.split('/').rev() {
                    node = Node::Directory(world.tree(0o755, [(part, node)]));
                }
                let (Node::Directory(old), Node::Directory(new)) = (&path, &node) else { unreachable!() };
                let deltas = [*old, *new].map(|tree| world.store.put_delta(&crate::Delta::whole(tree)).unwrap());
                path = Node::Directory(world.store.merge(&deltas).unwrap());
            }
            path
        };
        let Node::Directory(root) = directory(vec![
            ("var/lib/dpkg/status", file(status)),
            ("usr/share/doc/bash/copyright", file(copyright)),
            ("usr/local/lib/python3.11/dist-packages/numpy-2.0.dist-info/METADATA", file(metadata)),
            ("usr/lib/python3/dist-packages/own-1.dist-info/METADATA", file(metadata)),
            ("lib/apk/db/installed", file("P:musl\nV:1.2\nA:x86_64\nL:MIT\n\nP:busybox\nV:1\nL:GPL-2.0-only\n")),
            ("app/node_modules/@a/b/package.json", file(r#"{"name":"@a/b","version":"1.0.0","license":"ISC"}"#)),
            ("app/node_modules/c/package.json", file(r#"{"name":"c","version":1"#)),
            (
                "app/node_modules/.package-lock.json",
                file(
                    r#"{"packages":{"node_modules/@a/b":{"version":"1.0.0","integrity":"sha1-AAAAAAAAAAAAAAAAAAAAAAAAAAA= x"}}}"#,
                ),
            ),
            (
                "app/node_modules/old/package.json",
                file(r#"{"name":"old","version":"1","licenses":[{"type":"MIT"},"ISC"]}"#),
            ),
            ("opt/python/lib/egg.egg-info", file("Name: egg\nVersion: 2\nLicense: MIT\n")),
            ("usr/share/java/of-debian-1.jar", jar.clone()),
            ("app/lib/own-1.jar", jar),
            (
                "usr/local/share/forge/packages/rust-x.json",
                file(
                    r#"[{"ecosystem":"cargo","name":"serde","version":"1.0.0","licence":"MIT/Apache-2.0","sha256":null}]"#,
                ),
            ),
        ]) else {
            unreachable!()
        };
        let packages = world.store.packages(root).unwrap();
        let short: Vec<_> = packages
            .iter()
            .map(|package| format!("{} {} {}", package.name, package.version, package.licences.join("|")))
            .collect();
        assert_eq!(
            short,
            [
                "bash 5.2 Expat|GPL-3+",
                "busybox 1 GPL-2.0-only",
                "musl 1.2 MIT",
                "egg 2 MIT",
                "numpy 2.0 BSD-3-Clause AND MIT",
                "@a/b 1.0.0 ISC",
                "old 1 MIT OR ISC",
                "serde 1.0.0 MIT OR Apache-2.0",
                "own 1 "
            ]
        );
        let digests = packages.iter().flat_map(|package| &package.checksums).map(|sum| sum.digest.len());
        assert_eq!(digests.collect::<Vec<_>>(), [40, 64], "npm's, and the jar's own");
    }
}
