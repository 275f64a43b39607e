//! Which packages a tree says it has: what the databases of package managers in it tell.
//!
//! Read are dpkg's status with the packages' copyright files, apk's database, Python's `*.dist-info`, the `package.json`
//! of `node_modules`, and what forge writes down of programs that are built from crates. All of this is a function of the tree alone, so a formation that came from elsewhere has a list too.
//! What is unreadable is left out: a list of packages is no reason to fail.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Node, Result, Store, TreeId, paragraph};

mod licence;

pub use licence::{Licence, licence};

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
        }
    }
}

/// A package in a tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Package {
    /// Whose it is.
    pub ecosystem: Ecosystem,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// For which processor; empty if for any, or not said.
    pub architecture: String,
    /// Who made it, as it says; may be empty.
    pub supplier: String,
    /// Its home page; may be empty.
    pub homepage: String,
    /// Its licences as it writes them, sorted; empty if it says none that a program could read.
    pub licences: Vec<String>,
}

/// No file that is read for this has more bytes.
const MOST: u64 = 64 << 20;
/// Directories below directories: deeper ones are not looked into.
const DEEPEST: usize = 64;

impl Store {
    /// Reads what [`Store::packages`] remembers.
    pub(crate) fn find_packages(&self, root: TreeId) -> Result<Vec<Package>> {
        let mut packages = BTreeSet::new();
        self.debian_packages(root, &mut packages)?;
        self.alpine_packages(root, &mut packages)?;
        self.language_packages(root, &mut Vec::new(), &mut packages)?;
        self.recorded_packages(root, &mut packages)?;
        Ok(packages.into_iter().collect())
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
                    ecosystem: Ecosystem::Debian,
                    licences: copyright_licences(&copyright),
                    architecture: field("Architecture"),
                    supplier: field("Maintainer"),
                    homepage: field("Homepage"),
                    name,
                    version,
                });
            }
        }
        Ok(())
    }

    fn alpine_packages(&self, root: TreeId, packages: &mut BTreeSet<Package>) -> Result<()> {
        let text = self.text_at(root, b"lib/apk/db/installed")?;
        for paragraph in text.split("\n\n") {
            let fields: BTreeMap<&str, &str> =
                paragraph.lines().rev().filter_map(|line| line.split_once(':')).collect();
            let field = |name| fields.get(name).copied().unwrap_or_default().to_owned();
            if !field("P").is_empty() {
                packages.insert(Package {
                    ecosystem: Ecosystem::Alpine,
                    name: field("P"),
                    version: field("V"),
                    architecture: field("A"),
                    supplier: field("m"),
                    homepage: field("U"),
                    licences: one(&field("L")),
                });
            }
        }
        Ok(())
    }

    /// What lies anywhere in the tree: `NAME.dist-info/METADATA` and `node_modules/NAME/package.json`.
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
                Package {
                    ecosystem: Ecosystem::Rust,
                    name: recorded.name,
                    version: recorded.version,
                    architecture: String::new(),
                    supplier: String::new(),
                    homepage: recorded.homepage,
                    licences: one(&recorded.licence),
                }
            }));
        }
        Ok(())
    }

    fn language_packages(
        &self,
        directory: TreeId,
        path: &mut Vec<Vec<u8>>,
        packages: &mut BTreeSet<Package>,
    ) -> Result<()> {
        // Debian's own Python and Node packages are in dpkg's list.
        let is_debians = path.len() == 4 && path.join(&b'/') == b"usr/lib/python3/dist-packages"
            || path.len() == 3 && path.join(&b'/') == b"usr/share/nodejs";
        if path.len() > DEEPEST || is_debians {
            return Ok(());
        }
        let tree = self.tree(directory)?;
        for (name, node) in &tree.entries {
            let Node::Directory(child) = node else { continue };
            if name.as_bytes().ends_with(b".dist-info") {
                packages.extend(python_package(&self.text_at(*child, b"METADATA")?));
            }
            let parent = path.iter().rev().find(|name| !name.starts_with(b"@"));
            if parent.is_some_and(|parent| parent == b"node_modules") {
                packages.extend(node_package(&self.text_at(*child, b"package.json")?));
            }
            path.push(name.as_bytes().to_vec());
            self.language_packages(*child, path, packages)?;
            path.pop();
        }
        Ok(())
    }
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
        ecosystem: Ecosystem::Python,
        name: field("Name"),
        version: field("Version"),
        architecture: String::new(),
        supplier: [field("Author"), field("Author-email"), field("Maintainer")]
            .into_iter()
            .find(|who| !who.is_empty())
            .unwrap_or_default(),
        homepage,
        licences,
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
    let package = Package {
        ecosystem: Ecosystem::Node,
        name: field("name"),
        version: field("version"),
        architecture: String::new(),
        supplier: either("author", "name"),
        homepage: field("homepage"),
        licences: one(&either("license", "type")),
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
                "usr/local/share/forge/packages/rust-x.json",
                file(r#"[{"ecosystem":"cargo","name":"serde","version":"1.0.0","licence":"MIT OR Apache-2.0"}]"#),
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
                "numpy 2.0 BSD-3-Clause AND MIT",
                "@a/b 1.0.0 ISC",
                "serde 1.0.0 MIT OR Apache-2.0"
            ]
        );
    }
}
