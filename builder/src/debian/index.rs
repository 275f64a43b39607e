//! The packages of a suite: its Packages index, found by its digest in the store or at a mirror, and read without copying.

use std::io::Read;

use store::BlobId;
use store::digest::{from_hex, to_hex};

use super::release::Release;
use crate::fetch::Wanted;
use crate::{Builder, Error, Result};
use store::paragraph;

/// Larger than any index; a compressed one could claim anything.
const LARGEST: u64 = 1 << 30;

/// An index as the Release lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Below the mirror's base; by its digest where the archive has that.
    pub file: String,
    /// `main/binary-amd64/Packages.xz`.
    pub path: String,
    /// Compressed.
    pub size: u64,
    /// Of the compressed bytes.
    pub sha256: [u8; 32],
}

/// Where the index of a component lies, in the first of these forms that the Release lists.
pub fn listed(release: &Release, component: &str, architecture: &str, forms: &[&str]) -> Result<Listed> {
    let stem = format!("{component}/binary-{architecture}/Packages");
    let suite = &release.suite;
    for form in forms {
        let path = format!("{stem}{form}");
        if let Some((size, sha256)) = release.files.get(&path) {
            let name = release.name();
            let directory = format!("dists/{name}/{component}/binary-{architecture}");
            let file = if release.by_hash {
                format!("{directory}/by-hash/SHA256/{}", to_hex(sha256))
            } else {
                format!("dists/{name}/{path}")
            };
            return Ok(Listed { file, path, size: *size, sha256: *sha256 });
        }
    }
    Err(Error::Invalid {
        what: "index",
        name: format!("Release of suite {suite}"),
        reason: format!("it has no packages of component `{component}` for architecture `{architecture}`"),
    })
}

/// The text of a component's index.
pub fn fetch(builder: &Builder<'_>, release: &Release, component: &str, architecture: &str) -> Result<String> {
    let listed = listed(release, component, architecture, &[".xz", ".zst", ".gz", ""])?;
    let blob = fetch_listed(builder, release, &listed)?;
    let bad = |reason: String| Error::Invalid { what: "index", name: listed.path.clone(), reason };
    let file = builder.store.open_blob(blob)?;
    let mut reader: Box<dyn Read> = match listed.path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("xz") => Box::new(liblzma::read::XzDecoder::new_multi_decoder(file)),
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Some("zst") => Box::new(zstd::Decoder::new(file).map_err(|error| bad(error.to_string()))?),
        _ => Box::new(file),
    };
    let mut bytes = Vec::new();
    reader.by_ref().take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| bad(error.to_string()))?;
    if bytes.len() as u64 > LARGEST {
        return Err(bad(format!("it is longer than {LARGEST} bytes")));
    }
    // Descriptions of long ago are not all UTF-8; names and versions are.
    Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Fetches an index by its digest; a mirror without files by digest has it under its name.
pub fn fetch_listed(builder: &Builder<'_>, release: &Release, listed: &Listed) -> Result<BlobId> {
    let (sha256, size) = (Some(listed.sha256), Some(listed.size));
    let url = release.address(&listed.file);
    match builder.fetcher.fetch(builder, &Wanted { url: &url, sha256, size }) {
        Err(Error::Fetch { gone: true, .. }) if release.by_hash => {
            let url = release.address(&format!("dists/{}/{}", release.name(), listed.path));
            Ok(builder.fetcher.fetch(builder, &Wanted { url: &url, sha256, size })?.0)
        }
        fetched => Ok(fetched?.0),
    }
}

/// A package as an index has it. Relations are texts, read when they are needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Its own architecture, may be `all`.
    pub architecture: &'a str,
    /// The suite whose Release listed it.
    pub suite: &'a str,
    /// Where a repository that is not this machine's own lies; empty for a suite of its mirrors.
    pub repository: &'a str,
    /// Below the mirror's base.
    pub file: &'a str,
    /// Of the `.deb`.
    pub size: u64,
    /// Of the `.deb`.
    pub sha256: [u8; 32],
    /// Must be there in every system.
    pub essential: bool,
    /// Its place in [`PRIORITIES`].
    pub priority: u8,
    /// `same`, `foreign`, `allowed`, or empty.
    pub multi_arch: &'a str,
    /// Before it is unpacked.
    pub pre_depends: &'a str,
    /// Before it is configured.
    pub depends: &'a str,
    /// Found with it in all but unusual installations.
    pub recommends: &'a str,
    /// Must not be there at the same time.
    pub conflicts: &'a str,
    /// Must not be configured at the same time.
    pub breaks: &'a str,
    /// Names that it stands for too.
    pub provides: &'a str,
}

/// From the most needed on.
pub const PRIORITIES: [&str; 5] = ["required", "important", "standard", "optional", "extra"];

/// The packages of an index.
pub fn packages<'a>(text: &'a str, suite: &'a str) -> impl Iterator<Item = Result<Package<'a>>> {
    paragraph::paragraphs(text).map(move |paragraph| {
        package(paragraph, suite).ok_or_else(|| {
            let name = paragraph::field(paragraph, "Package").unwrap_or("(without name)");
            Error::Invalid {
                what: "index",
                name: format!("Packages of suite {suite}"),
                reason: format!("package `{name}` lacks a field, or has a bad one"),
            }
        })
    })
}

fn package<'a>(paragraph: &'a str, suite: &'a str) -> Option<Package<'a>> {
    let mut package = Package {
        name: "",
        version: "",
        architecture: "",
        suite,
        repository: "",
        file: "",
        size: 0,
        sha256: [0; 32],
        essential: false,
        priority: PRIORITIES.len() as u8,
        multi_arch: "",
        pre_depends: "",
        depends: "",
        recommends: "",
        conflicts: "",
        breaks: "",
        provides: "",
    };
    let (mut size, mut sha256) = (None, None);
    for (name, value) in paragraph::fields(paragraph) {
        match name {
            "Package" => package.name = value,
            "Version" => package.version = value,
            "Architecture" => package.architecture = value,
            "Filename" => package.file = value.strip_prefix("./").unwrap_or(value),
            "Size" => size = value.parse().ok(),
            "SHA256" => sha256 = from_hex(value).and_then(|digest| digest.try_into().ok()),
            "Essential" => package.essential = value == "yes",
            "Priority" => {
                let place = PRIORITIES.iter().position(|known| *known == value);
                package.priority = place.map_or(PRIORITIES.len() as u8, |place| place as u8);
            }
            "Multi-Arch" => package.multi_arch = value,
            "Pre-Depends" => package.pre_depends = value,
            "Depends" => package.depends = value,
            "Recommends" => package.recommends = value,
            "Conflicts" => package.conflicts = value,
            "Breaks" => package.breaks = value,
            "Provides" => package.provides = value,
            _ => {}
        }
    }
    (package.size, package.sha256) = (size?, sha256?);
    let is_path = !package.file.is_empty() && !package.file.split('/').any(|part| matches!(part, "" | "." | ".."));
    (is_name(package.name) && !package.version.is_empty() && !package.architecture.is_empty() && is_path)
        .then_some(package)
}

/// Whether a text may name a package (Debian policy, section 5.6.1, and upper case, which vendors use).
pub fn is_name(text: &str) -> bool {
    text.len() >= 2
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_package_is_read() {
        let text = format!(
            "Package: mawk\nVersion: 1.3.4\nPriority: required\nArchitecture: amd64\nEssential: no\nDepends: libc6 (>= 2.29),\n libm\n\
             Provides: awk\nFilename: ./pool/main/m/mawk_1.deb\nSize: 5\nSHA256: {DIGEST}\nDescription: ä\n .\n Package: no\n"
        );
        let package = packages(&text, "bookworm").next().unwrap().unwrap();
        assert_eq!((package.name, package.version, package.suite), ("mawk", "1.3.4", "bookworm"));
        assert_eq!((package.file, package.size, package.priority), ("pool/main/m/mawk_1.deb", 5, 0));
        assert_eq!(package.depends, "libc6 (>= 2.29),\n libm");
        assert!(!package.essential);
    }

    #[test]
    fn a_bad_package_is_an_error() {
        let good = format!("Package: ab\nVersion: 1\nArchitecture: all\nFilename: pool/x\nSize: 5\nSHA256: {DIGEST}\n");
        assert!(packages(&good, "s").next().unwrap().is_ok());
        for (from, to) in [
            ("Package: ab", "Package: a b"),
            ("Package: ab", "Package: ../x"),
            ("Version: 1\n", ""),
            ("pool/x", "../../etc/passwd"),
            ("pool/x", "/etc/passwd"),
            ("Size: 5", "Size: -5"),
            ("SHA256: e3", "SHA256: xx"),
        ] {
            assert!(packages(&good.replace(from, to), "s").next().unwrap().is_err(), "{to}");
        }
    }
}
