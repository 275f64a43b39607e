//! What an artifact's file is called: `NAME-VERSION[-VARIANT]-linux-ARCH.SUFFIX`.

use std::path::Path;

use crate::Formation;
use crate::formation::{is_name, is_variant};

/// What a file's name says of the formation in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileName {
    /// Empty if the name says nothing that a formation can be called.
    pub name: String,
    /// From the first part on that begins with a digit; may be empty.
    pub version: String,
    /// What follows the version; may be empty.
    pub variant: String,
    /// For instance `linux/amd64`.
    pub platform: Option<String>,
}

/// Suffixes that archives and images have.
const SUFFIXES: [&str; 18] = [
    "tar", "tgz", "txz", "tbz", "tbz2", "tzst", "gz", "xz", "bz2", "zst", "lzma", "squashfs", "sqfs", "sqsh", "sif",
    "img", "oci", "simg",
];

impl FileName {
    /// What an artifact of a formation is called if nobody says otherwise.
    pub fn default_for(formation: &Formation, extension: &str) -> String {
        let platform = formation.platform.replace('/', "-");
        let parts = [formation.name.as_str(), &formation.version, &formation.variant, &platform];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        // A formation that was made elsewhere may call itself anything.
        format!("{}.{extension}", parts.join("-").replace('/', "-"))
    }

    /// Of a path whose last part follows the whole convention; none if anything is missing.
    pub fn whole(path: &Path) -> Option<Self> {
        let parsed = Self::parse(path.file_name()?.to_str()?);
        let whole = !parsed.name.is_empty() && !parsed.version.is_empty() && parsed.platform.is_some();
        whole.then_some(parsed)
    }

    /// Reads a file's name, without the directory it is in.
    pub fn parse(file_name: &str) -> Self {
        let mut stem = file_name;
        while let Some((before, suffix)) = stem.rsplit_once('.') {
            if before.is_empty() || !SUFFIXES.contains(&suffix.to_ascii_lowercase().as_str()) {
                break;
            }
            stem = before;
        }
        let mut parts: Vec<&str> = stem.split('-').collect();
        let mut platform = None;
        if let [.., "linux", architecture] = parts[..]
            && parts.len() > 2
            && !architecture.is_empty()
        {
            platform = Some(format!("linux/{architecture}"));
            parts.truncate(parts.len() - 2);
        }
        let starts_with_digit = |part: &&str| part.starts_with(|first: char| first.is_ascii_digit());
        let end = parts.iter().skip(1).position(starts_with_digit).map_or(parts.len(), |at| at + 1);
        let (name, rest) = parts.split_at(end);
        let (version, variant) = match rest {
            [] => (String::new(), String::new()),
            [version, variant @ ..] => ((*version).to_owned(), variant.join(".")),
        };
        let name: String =
            name.join("-").chars().filter(|c| c.is_ascii_alphanumeric() || "._+-".contains(*c)).collect();
        let name = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        let name = if is_name(name) { name.to_owned() } else { String::new() };
        let variant = if is_variant(&variant) { variant } else { String::new() };
        Self { name, version, variant, platform }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Launch, Tree};

    #[test]
    fn what_is_written_is_read() {
        for (name, version, variant, platform) in
            [("analysis", "1.0.0", "", "linux/amd64"), ("a-b", "2024.1", "cuda", "linux/arm64")]
        {
            let [name, version, variant, platform] = [name, version, variant, platform].map(str::to_owned);
            let (root, launch) = (Tree::empty().id(), Launch::default());
            let formation = Formation { name, version, variant, platform, root, launch };
            let file = FileName::default_for(&formation, "sif");
            let read = FileName::whole(Path::new(&format!("/some/where/{file}"))).unwrap();
            let expected = [formation.name, formation.version, formation.variant, formation.platform];
            assert_eq!([read.name, read.version, read.variant, read.platform.unwrap()], expected);
        }
        for name in ["analysis.sif", "a-1.0.sif", "a-linux-amd64.sif", "ubuntu_22.04-linux-amd64.sif"] {
            assert_eq!(FileName::whole(Path::new(name)), None, "{name}");
        }
    }

    #[test]
    fn names_are_read_by_the_convention() {
        let parsed = |text: &str| {
            let FileName { name, version, variant, platform } = FileName::parse(text);
            [name, version, variant, platform.unwrap_or_default()].join("|")
        };
        for (text, expected) in [
            ("analysis-1.0.0-linux-amd64.sif", "analysis|1.0.0||linux/amd64"),
            ("python-science-3.12-cuda-linux-arm64.squashfs", "python-science|3.12|cuda|linux/arm64"),
            ("alpine_3.19.tar.gz", "alpine_3.19|||"),
            ("debian-12.tar.xz", "debian|12||"),
            ("rootfs", "rootfs|||"),
            (".tar", "tar|||"),
            ("-linux-amd64", "|||linux/amd64"),
            ("linux-amd64", "linux-amd64|||"),
            ("été.tar", "t|||"),
            // It would be taken for a digest.
            ("abcdef.tar", "|||"),
        ] {
            assert_eq!(parsed(text), expected, "{text}");
        }
    }
}
