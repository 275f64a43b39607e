//! What a `pylock.toml` says (PEP 751), as far as files of an index go: one record for every package, without any address.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::python::index::file_name;
use crate::python::lockfile::{self, Choice, Pinned};
use crate::python::normalise;
use crate::{Error, Result};

#[derive(serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Document {
    lock_version: String,
    #[serde(default)]
    packages: Vec<Package>,
}

#[derive(serde::Deserialize)]
struct Package {
    name: String,
    version: Option<String>,
    marker: Option<String>,
    sdist: Option<File>,
    #[serde(default)]
    wheels: Vec<File>,
    vcs: Option<toml::Value>,
    directory: Option<toml::Value>,
    archive: Option<toml::Value>,
}

#[derive(serde::Deserialize)]
struct File {
    name: Option<String>,
    url: Option<String>,
    path: Option<String>,
    size: Option<u64>,
    #[serde(default)]
    hashes: BTreeMap<String, String>,
}

impl File {
    fn file(&self) -> Option<String> {
        self.name.clone().or_else(|| file_name(self.url.as_deref().or(self.path.as_deref())?))
    }
}

/// The records of a lock: name, version, file, size where it is known, SHA-256.
pub fn records(text: &str, choice: &Choice<'_>) -> Result<Vec<BTreeMap<String, Value>>> {
    let bad = |reason: String| Error::Invalid { what: "lock", name: "pylock.toml".to_owned(), reason };
    let document: Document = toml::from_str(text).map_err(|error| bad(error.message().to_owned()))?;
    if document.lock_version.split('.').next() != Some("1") {
        return Err(bad(format!("it has version {}, and 1.x is understood", document.lock_version)));
    }
    let mut packages = Vec::new();
    for package in &document.packages {
        if let Some(marker) = &package.marker
            && !choice.holds("pylock.toml", marker, &choice.extras)?
        {
            continue;
        }
        packages.push(pinned(package)?);
    }
    lockfile::records(packages, choice.target)
}

fn pinned(package: &Package) -> Result<Pinned> {
    let name = normalise(&package.name);
    if package.vcs.is_some() || package.directory.is_some() || package.archive.is_some() {
        let reason = format!("`{name}` is of no index, and only what an index has can be installed");
        return Err(Error::Invalid { what: "lock", name: "pylock.toml".to_owned(), reason });
    }
    let mut files = Vec::new();
    for file in package.wheels.iter().chain(&package.sdist) {
        let Some(called) = file.file() else { continue };
        let sha256 = file.hashes.get("sha256").filter(|digest| {
            digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        });
        let sha256 = sha256.ok_or_else(|| Error::Invalid {
            what: "wheel",
            name: called.clone(),
            reason: "the index gives no SHA-256 for it".to_owned(),
        })?;
        if let Some((written, _)) = crate::python::wheel::name_and_version(&called)
            && written != name
        {
            return Err(Error::Invalid { what: "wheel", name: called, reason: format!("it is listed for `{name}`") });
        }
        files.push((called, sha256.clone(), file.size));
    }
    let of_file = || files.iter().find_map(|(file, ..)| Some(crate::python::wheel::name_and_version(file)?.1));
    let version = package.version.clone().or_else(of_file).unwrap_or_default();
    Ok(Pinned { name, version, files })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::tags::Target;

    const DIGEST: &str = "ba0efaa9080b619ff2f3459d1d500c57bddea4a6b424b60a91141db6fd2f08bc";

    fn of(packages: &str) -> Result<String> {
        let text = format!("lock-version = \"1.0\"\ncreated-by = \"uv\"\n{}", packages.replace("DIGEST", DIGEST));
        let target = Target::parse("3.11", "linux/amd64", "2.36")?;
        let records = records(&text, &Choice::of(&target)?)?;
        Ok(records.iter().map(|record| format!("{}\n", serde_json::to_string(record).unwrap())).collect())
    }

    #[test]
    fn the_best_wheel_of_every_package_is_taken() {
        let packages = r#"
            [[packages]]
            name = "Charset_Normalizer"
            version = "3.5.2"
            wheels = [
                { url = "https://u:p@host/a/charset_normalizer-3.5.2-py3-none-any.whl", hashes = { sha256 = "DIGEST" } },
                { url = "https://host/b/charset_normalizer-3.5.2-cp311-cp311-manylinux_2_28_x86_64.whl", upload-time = 2026-09-30T04:35:14Z, size = 7, hashes = { sha256 = "DIGEST" } },
            ]
            [[packages]]
            name = "local"
            version = "1.0+cpu"
            wheels = [{ url = "https://host/local-1.0%2Bcpu-py3-none-any.whl", hashes = { sha256 = "DIGEST" } }]
        "#;
        insta::assert_snapshot!(of(packages).unwrap(), @r#"
        {"file":"charset_normalizer-3.5.2-cp311-cp311-manylinux_2_28_x86_64.whl","name":"charset-normalizer","sha256":"ba0efaa9080b619ff2f3459d1d500c57bddea4a6b424b60a91141db6fd2f08bc","size":7,"version":"3.5.2"}
        {"file":"local-1.0+cpu-py3-none-any.whl","name":"local","sha256":"ba0efaa9080b619ff2f3459d1d500c57bddea4a6b424b60a91141db6fd2f08bc","version":"1.0+cpu"}
        "#);
    }

    #[test]
    fn what_cannot_be_installed_is_an_error() {
        let error = |packages: &str| match of(packages) {
            Err(Error::Unsolvable { explanation, .. }) => explanation,
            Err(Error::Invalid { reason, .. }) => reason,
            other => panic!("{other:?}"),
        };
        let sdist = "[[packages]]\nname = \"docopt\"\nversion = \"1\"\n\
                     sdist = { url = \"https://host/docopt-1.tar.gz\", hashes = { sha256 = \"DIGEST\" } }";
        assert!(of(sdist).unwrap().contains("docopt-1.tar.gz"));
        let elsewhere = "[[packages]]\nname = \"a\"\nvcs = { type = \"git\", url = \"https://h\" }";
        insta::assert_snapshot!(error(elsewhere), @"`a` is of no index, and only what an index has can be installed");
        let windows = "[[packages]]\nname = \"a\"\nversion = \"1\"\nwheels = [{ url = \"https://h/a-1-py3-none-win32.whl\", hashes = { sha256 = \"DIGEST\" } }]";
        insta::assert_snapshot!(error(windows), @"`a` has no file for x86_64 with glibc 2.36");
        let bare =
            "[[packages]]\nname = \"a\"\nversion = \"1\"\nwheels = [{ url = \"https://h/a-1-py3-none-any.whl\" }]";
        insta::assert_snapshot!(error(bare), @"the index gives no SHA-256 for it");
        let other = "[[packages]]\nname = \"a\"\nversion = \"1\"\nwheels = [{ url = \"https://h/b-1-py3-none-any.whl\", hashes = { sha256 = \"DIGEST\" } }]";
        insta::assert_snapshot!(error(other), @"it is listed for `a`");
        assert!(!error("nonsense").is_empty());
    }
}
