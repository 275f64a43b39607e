//! What a SIF's file name says: `NAME-VERSION[-VARIANT]-linux-ARCH.sif`.

use std::path::Path;

use crate::Formation;
use crate::formation::{is_name, is_variant};

/// The parts of a file name that follows the convention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileName {
    /// A formation's name.
    pub name: String,
    /// A formation's version.
    pub version: String,
    /// Empty for the plain one.
    pub variant: String,
    /// As OCI writes platforms, for instance `linux/amd64`.
    pub platform: String,
}

impl FileName {
    /// Of a path's last part; none if it does not follow the convention.
    ///
    /// A version begins with a digit (or `v` and a digit) and has no dash: so names may have dashes, and what follows the version is
    /// the variant.
    pub fn of(path: &Path) -> Option<Self> {
        let stem = path.file_name()?.to_str()?.strip_suffix(".sif")?;
        let (rest, architecture) = stem.rsplit_once('-')?;
        let rest = rest.strip_suffix("-linux")?;
        let known = !architecture.is_empty() && architecture.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let is_version = |part: &str| {
            let digits = part.strip_prefix('v').unwrap_or(part);
            digits.starts_with(|first: char| first.is_ascii_digit())
        };
        let (before, last) = rest.rsplit_once('-')?;
        let (name, version, variant) = match before.rsplit_once('-') {
            _ if is_version(last) => (before, last, ""),
            Some((name, version)) if is_version(version) => (name, version, last),
            _ => return None,
        };
        let fits = known && is_name(name) && is_variant(variant);
        let text = str::to_owned;
        fits.then(|| Self {
            name: text(name),
            version: text(version),
            variant: text(variant),
            platform: format!("linux/{architecture}"),
        })
    }

    /// The file name that a formation's artifact has by default.
    pub fn default_of(formation: &Formation, extension: &str) -> String {
        let platform = formation.platform.replace('/', "-");
        let parts = [formation.name.as_str(), &formation.version, &formation.variant, &platform];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        // A formation that was made elsewhere may call itself anything.
        format!("{}.{extension}", parts.join("-").replace('/', "-"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Launch, Tree};

    fn parts(name: &str) -> Option<[String; 4]> {
        let FileName { name, version, variant, platform } = FileName::of(Path::new(name))?;
        Some([name, version, variant, platform])
    }

    #[test]
    fn names_are_written_and_read_back() {
        let cases = [
            ("analysis", "1.0.0", "", "amd64"),
            ("a-b-c", "v2", "cuda", "arm64"),
            ("x", "2024.1+b1", "pytorch", "amd64"),
        ];
        for (name, version, variant, architecture) in cases {
            let platform = format!("linux/{architecture}");
            let formation = Formation {
                name: name.to_owned(),
                version: version.to_owned(),
                variant: variant.to_owned(),
                platform: platform.clone(),
                root: Tree::empty().id(),
                launch: Launch::default(),
            };
            let file = FileName::default_of(&formation, "sif");
            assert_eq!(
                parts(&format!("/some/where/{file}")),
                Some([name.into(), version.into(), variant.into(), platform])
            );
        }
    }

    #[test]
    fn other_names_say_nothing() {
        for name in [
            "ubuntu_22.04.sif",
            "analysis.sif",
            "a-1.0-amd64.sif",
            "a-linux-amd64.sif",
            "-1-linux-amd64.sif",
            "a-1-linux-.sif",
            "a-1-linux-amd64.squashfs",
            "a-b-c-linux-amd64.sif",
        ] {
            assert_eq!(parts(name), None, "{name}");
        }
    }
}
