//! What an image is called: `oci://HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]`.
//!
//! A name never leads out of its place: repositories and tags become parts of addresses, so their characters are checked here,
//! by the grammar of the OCI distribution specification.

use std::fmt;
use std::str::FromStr;

use super::Error;
use crate::format::oci::descriptor::Digest;

/// How every reference begins.
pub const SCHEME: &str = "oci://";
/// The distribution specification's own bound.
const LONGEST_NAME: usize = 255;

/// A repository of a registry, and what of it is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// `host` or `host:port`.
    pub host: String,
    /// Lower-case names with slashes between them.
    pub repository: String,
    /// What it is called there now.
    pub tag: Option<String>,
    /// Which bytes its manifest has; it counts more than the tag.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Whether a text is meant to be a reference.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(SCHEME)
    }

    /// What is asked for: the digest, else the tag, else `latest`.
    pub fn wanted(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// The same repository without tag and digest.
    pub fn bare(&self) -> Self {
        Self { tag: None, digest: None, ..self.clone() }
    }

    /// The same with another tag, and no digest.
    pub fn tagged(&self, tag: &str) -> Self {
        Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() }
    }

    /// The same pinned.
    pub fn pinned(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// The last part of the repository: what the image is called.
    pub fn name(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or_default()
    }

    /// Whether the host is this machine itself: spoken to in plain HTTP too, as Docker and Podman do.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

/// Whether `host` or `host:port` is this machine itself.
pub fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inside, _)) => inside,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether a text may be a tag.
pub fn is_tag(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric() || first == b'_')
        && text.len() <= 128
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// The tag that is most like a text.
pub fn as_tag(text: &str) -> String {
    let allowed = |character: char| character.is_ascii_alphanumeric() || "_.-".contains(character);
    let tag: String =
        text.chars().map(|character| if allowed(character) { character } else { '_' }).take(128).collect();
    match is_tag(&tag) {
        true => tag,
        false => format!("_{tag}").chars().take(128).collect(),
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, with slashes between.
fn is_repository(text: &str) -> bool {
    let is_part = |part: &str| {
        let end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        end(part.bytes().next())
            && end(part.bytes().last())
            && part.bytes().all(allowed)
            && part
                .split(|character: char| character.is_ascii_alphanumeric())
                .all(|between| ["", ".", "_", "__"].contains(&between) || between.bytes().all(|byte| byte == b'-'))
    };
    text.len() <= LONGEST_NAME && text.split('/').all(is_part)
}

fn is_host(text: &str) -> bool {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((inside, after)) if inside.parse::<std::net::Ipv6Addr>().is_ok() => match after.strip_prefix(':') {
                Some(port) => ("v6", Some(port)),
                None if after.is_empty() => ("v6", None),
                None => return false,
            },
            _ => return false,
        },
        None => match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    let is_name = |name: &str| {
        !name.is_empty()
            && name.len() <= 253
            && name.split('.').all(|label| {
                !label.is_empty()
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            })
    };
    is_name(name) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(given: &str) -> Result<Self, Error> {
        let bad = |reason: &'static str| Error::Reference { given: given.to_owned(), reason };
        let rest = given.strip_prefix(SCHEME).ok_or_else(|| bad("it does not begin with `oci://`"))?;
        let (host, path) = rest.split_once('/').ok_or_else(|| bad("it names no repository"))?;
        let (path, digest) = match path.split_once('@') {
            Some((path, digest)) => {
                (path, Some(digest.parse().map_err(|_| bad("after `@` a digest such as `sha256:…` is expected"))?))
            }
            None => (path, None),
        };
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (path, None),
        };
        if !is_host(host) {
            return Err(bad("its host is none"));
        }
        if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(bad("a repository is written in lower case"));
        }
        if !is_repository(repository) {
            return Err(bad(
                "a repository is names of letters, digits and single `.`, `_`, `-`, with `/` between them",
            ));
        }
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(bad("a tag is up to 128 letters, digits, `_`, `.` and `-`"));
        }
        Ok(Self { host: host.to_owned(), repository: repository.to_owned(), tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{SCHEME}{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(formatter, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(formatter, "@{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_reads_back() {
        let digest = Digest::of(b"");
        for text in [
            "oci://registry.example/app",
            "oci://registry.example:5000/team/app:1.0",
            "oci://localhost/a__b/c--d:_x",
            "oci://[::1]:5000/x",
            "oci://127.0.0.1:5000/x/y.z",
            &format!("oci://registry.example/team/app@{digest}"),
            &format!("oci://registry.example/team/app:1.0@{digest}"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
        let reference: Reference = "oci://registry.example:5000/team/app:1.0".parse().unwrap();
        assert_eq!((reference.name(), reference.wanted().as_str()), ("app", "1.0"));
        assert_eq!(reference.bare().wanted(), "latest");
        assert_eq!(reference.pinned(digest).wanted(), digest.to_string());
    }

    #[test]
    fn every_name_has_a_tag() {
        for (name, tag) in [("analysis", "analysis"), ("1.0+2", "1.0_2"), ("-x", "_-x"), ("", "_"), ("ü/b", "__b")] {
            assert_eq!(as_tag(name), tag);
            assert!(is_tag(&as_tag(name)));
        }
    }

    #[test]
    fn what_would_lead_elsewhere_is_refused() {
        for text in [
            "registry.example/app",
            "oci://registry.example",
            "oci:///app",
            "oci://registry.example/",
            "oci://registry.example/../v2/x",
            "oci://registry.example/a//b",
            "oci://registry.example/App",
            "oci://registry.example/a?b",
            "oci://registry.example/a%2fb",
            "oci://registry.example/a b",
            "oci://user@registry.example/a",
            "oci://registry.example:0/a",
            "oci://registry.example:99999/a",
            "oci://registry.example:5000:1/a",
            "oci://registry..example/a",
            "oci://registry.example/a:",
            "oci://registry.example/a:-x",
            "oci://registry.example/a:b/c",
            "oci://registry.example/a@sha256:00",
            "oci://registry.example/a.-b",
            "oci://[::1/a",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
        assert!(format!("oci://h/{}", "a".repeat(256)).parse::<Reference>().is_err());
    }

    #[test]
    fn this_machine_is_known_by_its_names() {
        for (host, expected) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.8.9.1", true),
            ("[::1]:5000", true),
            ("localhost.example", false),
            ("10.0.0.1:5000", false),
        ] {
            assert_eq!(is_loopback(host), expected, "{host}");
        }
    }
}
