//! What a `pylock.toml` says (PEP 751), as far as wheels go: one record for every package, without any address.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::python::index::file_name;
use crate::python::normalise;
use crate::python::tags::{Tags, Target};
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
    #[serde(default)]
    wheels: Vec<Wheel>,
}

#[derive(serde::Deserialize)]
struct Wheel {
    name: Option<String>,
    url: Option<String>,
    path: Option<String>,
    size: Option<u64>,
    #[serde(default)]
    hashes: BTreeMap<String, String>,
}

impl Wheel {
    fn file(&self) -> Option<String> {
        self.name.clone().or_else(|| file_name(self.url.as_deref().or(self.path.as_deref())?))
    }
}

/// The records of a lock: name, version, file, size where it is known, SHA-256.
pub fn records(text: &str, target: &Target) -> Result<Vec<BTreeMap<String, Value>>> {
    let bad = |reason: String| Error::Invalid { what: "lock", name: "pylock.toml".to_owned(), reason };
    let document: Document = toml::from_str(text).map_err(|error| bad(error.message().to_owned()))?;
    if document.lock_version.split('.').next() != Some("1") {
        return Err(bad(format!("it has version {}, and 1.x is understood", document.lock_version)));
    }
    let tags = target.tags();
    document.packages.iter().map(|package| record(package, target, &tags)).collect()
}

fn record(package: &Package, target: &Target, tags: &Tags) -> Result<BTreeMap<String, Value>> {
    let name = normalise(&package.name);
    let ranked = package.wheels.iter().filter_map(|wheel| {
        let file = wheel.file()?;
        Some((tags.rank(&file)?, file, wheel))
    });
    let Some((_, file, wheel)) = ranked.min_by(|left, right| (&left.0, &left.1).cmp(&(&right.0, &right.1))) else {
        let explanation = if package.wheels.is_empty() {
            format!("`{name}` comes only as source distribution, and forge installs wheels")
        } else {
            format!("`{name}` has no wheel for {} with glibc 2.{}", target.machine, target.glibc_minor)
        };
        return Err(Error::Unsolvable { ecosystem: format!("Python {}", target.python), explanation });
    };
    let sha256 = wheel.hashes.get("sha256").filter(|digest| {
        digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    });
    let sha256 = sha256.ok_or_else(|| Error::Invalid {
        what: "wheel",
        name: file.clone(),
        reason: "the index gives no SHA-256 for it".to_owned(),
    })?;
    let (written, version_written) = crate::python::wheel::name_and_version(&file).unwrap_or_default();
    if written != name {
        return Err(Error::Invalid { what: "wheel", name: file, reason: format!("it is listed for `{name}`") });
    }
    let version = package.version.clone().unwrap_or(version_written);
    let mut record = BTreeMap::from([
        ("name".to_owned(), Value::from(name)),
        ("version".to_owned(), Value::from(version)),
        ("file".to_owned(), Value::from(file)),
        ("sha256".to_owned(), Value::from(sha256.as_str())),
    ]);
    if let Some(size) = wheel.size {
        record.insert("size".to_owned(), Value::from(size));
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "ba0efaa9080b619ff2f3459d1d500c57bddea4a6b424b60a91141db6fd2f08bc";

    fn of(packages: &str) -> Result<String> {
        let text = format!("lock-version = \"1.0\"\ncreated-by = \"uv\"\n{}", packages.replace("DIGEST", DIGEST));
        let records = records(&text, &Target::parse("3.11", "linux/amd64", "2.36")?)?;
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
        let sdist =
            "[[packages]]\nname = \"docopt\"\nversion = \"1\"\nsdist = { url = \"https://host/docopt-1.tar.gz\" }";
        insta::assert_snapshot!(error(sdist), @"`docopt` comes only as source distribution, and forge installs wheels");
        let windows =
            "[[packages]]\nname = \"a\"\nversion = \"1\"\nwheels = [{ url = \"https://h/a-1-py3-none-win32.whl\" }]";
        insta::assert_snapshot!(error(windows), @"`a` has no wheel for x86_64 with glibc 2.36");
        let bare =
            "[[packages]]\nname = \"a\"\nversion = \"1\"\nwheels = [{ url = \"https://h/a-1-py3-none-any.whl\" }]";
        insta::assert_snapshot!(error(bare), @"the index gives no SHA-256 for it");
        let other = "[[packages]]\nname = \"a\"\nversion = \"1\"\nwheels = [{ url = \"https://h/b-1-py3-none-any.whl\", hashes = { sha256 = \"DIGEST\" } }]";
        insta::assert_snapshot!(error(other), @"it is listed for `a`");
        assert!(!error("nonsense").is_empty());
    }
}
