//! Digests, descriptors, manifests and indexes, as the OCI image specification 1.1 and Docker's schema 2 write them.
//!
//! What is written goes out in one spelling: fields in a fixed order, no blanks. What is read may have more fields than these.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};

use crate::digest::{from_hex, to_hex};

/// What OCI calls its kinds of content.
pub mod media {
    /// An image index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// An image manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An image configuration.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// A layer: a tar stream. `+gzip` and `+zstd` say how it is compressed.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// The `{}` that stands for a configuration where there is none.
    pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
    /// Docker's index.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker's manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker's layer, whatever follows.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
}

/// An algorithm and its value, written `sha256:…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Digest {
    /// The one that everybody writes.
    Sha256([u8; 32]),
    /// The other that the specification registers.
    Sha512([u8; 64]),
}

/// A text that is no digest forge can check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no digest: sha256: or sha512: and as many lower-case hexadecimal digits are expected")]
pub struct DigestError {
    text: String,
}

impl Digest {
    /// The SHA-256 of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::Sha256(Sha256::digest(bytes).into())
    }

    /// `sha256` or `sha512`: the directory of a layout.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "sha256",
            Self::Sha512(_) => "sha512",
        }
    }

    /// The digits: the file in that directory.
    pub fn hex(&self) -> String {
        match self {
            Self::Sha256(bytes) => to_hex(bytes),
            Self::Sha512(bytes) => to_hex(bytes),
        }
    }

    /// What computes the digest of the same algorithm.
    pub fn hasher(&self) -> Hasher {
        match self {
            Self::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Self::Sha512(_) => Hasher::Sha512(Box::new(Sha512::new())),
        }
    }
}

/// Computes a digest piece by piece.
#[derive(Debug, Clone)]
pub enum Hasher {
    /// SHA-256
    Sha256(Sha256),
    /// SHA-512
    Sha512(Box<Sha512>),
}

impl Hasher {
    /// Takes some more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// Of all bytes that it was given.
    pub fn finish(self) -> Digest {
        match self {
            Self::Sha256(hasher) => Digest::Sha256(hasher.finalize().into()),
            Self::Sha512(hasher) => Digest::Sha512(hasher.finalize().into()),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.algorithm(), self.hex())
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let parsed = text.split_once(':').and_then(|(algorithm, hex)| {
            let bytes = from_hex(hex)?;
            match algorithm {
                "sha256" => Some(Self::Sha256(bytes.try_into().ok()?)),
                "sha512" => Some(Self::Sha512(bytes.try_into().ok()?)),
                _ => None,
            }
        });
        parsed.ok_or_else(|| DigestError { text: text.to_owned() })
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// Where an image runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Platform {
    /// As Go names it: `amd64`, `arm64`.
    pub architecture: String,
    /// `linux`
    pub os: String,
    /// Of the processor, `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// Reads `linux/arm64/v8`.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.splitn(3, '/').map(str::to_owned);
        let os = parts.next().unwrap_or_default();
        Self { architecture: parts.next().unwrap_or_default(), os, variant: parts.next() }
    }

    /// Whether an image for `self` is what is asked for by `wanted`: a variant counts where both name one, and the first of
    /// an architecture (`arm64/v8`) is the plain one.
    pub fn fits(&self, wanted: &Self) -> bool {
        let variant = |platform: &Self| match (platform.architecture.as_str(), platform.variant.as_deref()) {
            ("arm64", Some("v8")) | ("amd64", Some("v1")) | (_, Some("")) => None,
            (_, variant) => variant.map(str::to_owned),
        };
        let variants = (variant(self), variant(wanted));
        self.os == wanted.os
            && self.architecture == wanted.architecture
            && (variants.0 == variants.1 || variants.1.is_none() || variants.0.is_none())
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) if !variant.is_empty() => write!(formatter, "/{variant}"),
            _ => Ok(()),
        }
    }
}

/// Annotations, and labels: sorted, because the map is.
pub type Annotations = BTreeMap<String, String>;

/// Says which content is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Of its bytes.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Of an image in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What a manifest that is no image is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// What else is said of it.
    #[serde(default, skip_serializing_if = "null_or_empty", deserialize_with = "nullable")]
    pub annotations: Annotations,
}

impl Descriptor {
    /// Of some bytes.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// Of what has this digest and size.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        let (platform, artifact_type, annotations) = (None, None, Annotations::new());
        Self { media_type: media_type.to_owned(), digest, size, platform, artifact_type, annotations }
    }

    /// Whether it names an index, OCI's or Docker's.
    pub fn is_index(&self) -> bool {
        [media::INDEX, media::DOCKER_INDEX].contains(&self.media_type.as_str())
    }
}

/// What an image is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2
    pub schema_version: u32,
    /// Of the manifest itself.
    #[serde(default)]
    pub media_type: String,
    /// What it is for, if it is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// How it is run.
    pub config: Descriptor,
    /// Lowest first.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    /// What it belongs to, if it is a referrer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// What else is said of it.
    #[serde(default, skip_serializing_if = "null_or_empty", deserialize_with = "nullable")]
    pub annotations: Annotations,
}

/// Manifests side by side: of several platforms, or of a layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// 2
    pub schema_version: u32,
    /// Of the index itself.
    #[serde(default)]
    pub media_type: String,
    /// What is in it.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
    /// What else is said of it.
    #[serde(default, skip_serializing_if = "null_or_empty", deserialize_with = "nullable")]
    pub annotations: Annotations,
}

impl Index {
    /// Of these.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: media::INDEX.to_owned(), manifests, annotations: Annotations::new() }
    }
}

/// The one spelling of what we write.
pub fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain values have a JSON form")
}

fn null_or_empty(annotations: &Annotations) -> bool {
    annotations.is_empty()
}

/// `null` is what Go writes for a map that is not there.
pub(super) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_written_in_one_way() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), empty);
        assert_eq!(empty.parse(), Ok(Digest::of(b"")));
        let long = format!("sha512:{}", "ab".repeat(64));
        assert_eq!(long.parse::<Digest>().unwrap().to_string(), long);
        for bad in [
            "",
            "sha256",
            "sha256:",
            &empty.to_uppercase(),
            &empty[1..],
            &empty[..70],
            "sha256:../../etc/passwd",
            "md5:00",
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_platform_fits_what_is_asked_for() {
        let fits = |has: &str, wanted: &str| Platform::parse(has).fits(&Platform::parse(wanted));
        assert!(fits("linux/arm64/v8", "linux/arm64") && fits("linux/arm64", "linux/arm64/v8"));
        assert!(fits("linux/arm/v7", "linux/arm") && !fits("linux/arm/v7", "linux/arm/v6"));
        assert!(!fits("linux/amd64", "linux/arm64") && !fits("windows/amd64", "linux/amd64"));
        assert_eq!(Platform::parse("linux/arm64/v8").to_string(), "linux/arm64/v8");
    }

    #[test]
    fn a_map_that_is_null_is_none() {
        let text =
            format!(r#"{{"mediaType":"x","digest":"{}","size":3,"annotations":null,"more":1}}"#, Digest::of(b""));
        let descriptor: Descriptor = serde_json::from_str(&text).unwrap();
        assert_eq!(
            String::from_utf8(to_json(&descriptor)).unwrap(),
            format!(r#"{{"mediaType":"x","digest":"{}","size":3}}"#, Digest::of(b""))
        );
    }
}
