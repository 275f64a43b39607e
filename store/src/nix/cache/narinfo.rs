//! The two small texts of a cache: `nix-cache-info` and `.narinfo`. One `Name: value` a line.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::StorePath;
use crate::derivation::{HashAlgorithm, STORE_DIRECTORY};
use crate::nix::hash::{HashFormat, NixHash, to_base64};
use crate::nix::path;
use crate::signing::{NamedKey, NamedPublicKey, named};

/// Texts are read into memory; the references of the largest closures take some hundred kilobytes.
const LONGEST: usize = 4 << 20;

/// Why a text is not what a cache should give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NarInfoError {
    /// It is too long, or no text.
    #[error("it is no text of a sane length")]
    NoText,
    /// A line that is none.
    #[error("line {line} is not `Name: value`")]
    Line {
        /// Which, counted from 1.
        line: usize,
    },
    /// A field that must be there is not, or is there twice.
    #[error("it has not one field `{field}`")]
    Field {
        /// Which.
        field: &'static str,
    },
    /// A field has a value that makes no sense.
    #[error("field `{field}` cannot be `{value}`")]
    Value {
        /// Which.
        field: &'static str,
        /// As it stands there, shortened.
        value: String,
    },
}

fn bad(field: &'static str, value: &str) -> NarInfoError {
    let value = value.chars().filter(|character| !character.is_control()).take(100).collect();
    NarInfoError::Value { field, value }
}

/// The fields of a text, in their order.
fn fields(bytes: &[u8]) -> Result<Vec<(&str, &str)>, NarInfoError> {
    let text = std::str::from_utf8(bytes).map_err(|_| NarInfoError::NoText)?;
    if bytes.len() > LONGEST {
        return Err(NarInfoError::NoText);
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty());
    let field = |(index, line): (usize, _)| {
        let (name, value): (&str, &str) = str::split_once(line, ':').ok_or(NarInfoError::Line { line: index + 1 })?;
        Ok((name, value.trim()))
    };
    lines.map(field).collect()
}

/// What a cache says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheInfo {
    /// Whether it likes to be asked for many paths at once.
    pub mass_query: bool,
    /// Lower ones are asked first.
    pub priority: u32,
}

impl Default for CacheInfo {
    /// What Nix assumes of a cache that says nothing.
    fn default() -> Self {
        Self { mass_query: false, priority: 50 }
    }
}

impl CacheInfo {
    /// Reads `nix-cache-info`. A cache of another store than `/nix/store` is refused: its paths mean something else.
    pub fn parse(bytes: &[u8]) -> Result<Self, NarInfoError> {
        let mut info = Self::default();
        let mut directory = None;
        for (name, value) in fields(bytes)? {
            match name {
                "StoreDir" => directory = Some(value.to_owned()),
                "WantMassQuery" => info.mass_query = value == "1",
                "Priority" => info.priority = value.parse().map_err(|_| bad("Priority", value))?,
                _ => {}
            }
        }
        match directory {
            Some(directory) if directory != STORE_DIRECTORY => Err(bad("StoreDir", &directory)),
            _ => Ok(info),
        }
    }

    /// As it is served.
    pub fn to_text(self) -> String {
        let (mass, priority) = (u8::from(self.mass_query), self.priority);
        format!("StoreDir: {STORE_DIRECTORY}\nWantMassQuery: {mass}\nPriority: {priority}\n")
    }
}

/// What a cache says of a store path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NarInfo {
    /// The path.
    pub path: StorePath,
    /// Where its archive lies, relative to the cache.
    pub url: String,
    /// `none`, `xz`, `zstd`, `bzip2`, `gzip`.
    pub compression: String,
    /// Bytes of the file, if it says so.
    pub file_size: Option<u64>,
    /// SHA-256 of the archive.
    pub nar_hash: [u8; 32],
    /// Bytes of the archive.
    pub nar_size: u64,
    /// What it refers to; itself, if it does.
    pub references: BTreeSet<StorePath>,
    /// The derivation that made it.
    pub deriver: Option<StorePath>,
    /// `NAME:BASE64`, each.
    pub signatures: Vec<String>,
    /// How its name follows from its content, if it does: `fixed:r:sha256:…`.
    pub content_address: Option<String>,
}

impl NarInfo {
    /// Reads a `.narinfo`. Fields that are not known are passed over; of those that are, each stands there once.
    pub fn parse(bytes: &[u8]) -> Result<Self, NarInfoError> {
        let fields = fields(bytes)?;
        let optional = |field: &'static str| {
            let mut values = fields.iter().filter(|(name, _)| *name == field).map(|(_, value)| *value);
            match (values.next(), values.next()) {
                (_, Some(_)) => Err(NarInfoError::Field { field }),
                (value, None) => Ok(value.filter(|value| !value.is_empty())),
            }
        };
        let one = |field| optional(field)?.ok_or(NarInfoError::Field { field });
        let number = |field| -> Result<u64, NarInfoError> {
            let text = one(field)?;
            text.parse().map_err(|_| bad(field, text))
        };
        let below = |field, text: &str| {
            let path = format!("{STORE_DIRECTORY}/{text}");
            path::parse(path.as_bytes()).map_err(|_| bad(field, text))
        };
        let store_path = one("StorePath")?;
        let path = path::parse(store_path.as_bytes()).map_err(|_| bad("StorePath", store_path))?;
        let url = one("URL")?;
        if !is_below(url) {
            return Err(bad("URL", url));
        }
        let hash = one("NarHash")?;
        let nar_hash = NixHash::parse(hash.as_bytes(), Some(HashAlgorithm::Sha256)).ok();
        let nar_hash =
            nar_hash.and_then(|hash| hash.into_bytes().try_into().ok()).ok_or_else(|| bad("NarHash", hash))?;
        let nar_size = number("NarSize")?;
        if nar_size == 0 {
            return Err(bad("NarSize", "0"));
        }
        // What Nix takes where nothing stands.
        let compression = optional("Compression")?.unwrap_or("bzip2");
        if !["none", "xz", "zstd", "bzip2", "gzip"].contains(&compression) {
            return Err(bad("Compression", compression));
        }
        let references = optional("References")?.unwrap_or_default();
        let references = references.split_whitespace().map(|name| below("References", name));
        let deriver = match optional("Deriver")? {
            None | Some("unknown-deriver") => None,
            Some(name) => Some(below("Deriver", name)?),
        };
        let signatures = fields.iter().filter(|(name, _)| *name == "Sig").map(|(_, value)| (*value).to_owned());
        Ok(Self {
            path,
            url: url.to_owned(),
            compression: compression.to_owned(),
            file_size: optional("FileSize")?.map(|_| number("FileSize")).transpose()?,
            nar_hash,
            nar_size,
            references: references.collect::<Result<_, _>>()?,
            deriver,
            signatures: signatures.collect(),
            content_address: optional("CA")?.map(str::to_owned),
        })
    }

    /// As it is served.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| _ = writeln!(text, "{name}: {value}");
        line("StorePath", self.path.as_str());
        line("URL", &self.url);
        line("Compression", &self.compression);
        if let Some(size) = self.file_size {
            line("FileSize", &size.to_string());
        }
        line("NarHash", &self.nar_hash_text());
        line("NarSize", &self.nar_size.to_string());
        let names: Vec<&str> = self.references.iter().map(base_name).collect();
        line("References", &names.join(" "));
        if let Some(deriver) = &self.deriver {
            line("Deriver", base_name(deriver));
        }
        for signature in &self.signatures {
            line("Sig", signature);
        }
        if let Some(address) = &self.content_address {
            line("CA", address);
        }
        text
    }

    fn nar_hash_text(&self) -> String {
        let hash = NixHash::from_bytes(HashAlgorithm::Sha256, self.nar_hash.to_vec()).expect("32 bytes");
        hash.to_text(HashFormat::Nix32, true)
    }

    /// What is signed: the path, its archive's hash and size, and what it refers to.
    pub fn fingerprint(&self) -> String {
        let references: Vec<&str> = self.references.iter().map(StorePath::as_str).collect();
        format!("1;{};{};{};{}", self.path, self.nar_hash_text(), self.nar_size, references.join(","))
    }

    /// Adds a signature.
    pub fn sign(&mut self, key: &NamedKey) {
        let signature = to_base64(&key.sign(self.fingerprint().as_bytes()));
        self.signatures.push(format!("{}:{signature}", key.name()));
    }

    /// The name of a trusted key that has signed this; none if there is none.
    pub fn signed_by<'a>(&self, trusted: &'a [NamedPublicKey]) -> Option<&'a str> {
        let fingerprint = self.fingerprint();
        self.signatures.iter().filter_map(|text| named(text)).find_map(|(name, signature)| {
            let verifies =
                |key: &&NamedPublicKey| key.name() == name && key.verifies(fingerprint.as_bytes(), &signature);
            trusted.iter().find(verifies).map(NamedPublicKey::name)
        })
    }

    /// Whether the path's own name proves its content, so that nobody need have signed it: a fixed output, hashed as an archive.
    pub fn proves_itself(&self) -> bool {
        let hash = NixHash::from_bytes(HashAlgorithm::Sha256, self.nar_hash.to_vec()).expect("32 bytes");
        let address = format!("fixed:r:{}", hash.to_text(HashFormat::Nix32, true));
        self.content_address.as_deref() == Some(address.as_str())
            && self.references.is_empty()
            && path::fixed_output_path(self.path.name().as_bytes(), true, &hash).is_ok_and(|path| path == self.path)
    }
}

/// Whether an address stays below the cache that names it.
fn is_below(url: &str) -> bool {
    !url.starts_with('/')
        && !url.contains(['\\', '#', ' '])
        && url.bytes().all(|byte| byte.is_ascii_graphic())
        && !url.split('?').next().unwrap_or_default().contains(':')
        && url.split(['/', '?']).all(|part| part != ".." && !part.to_ascii_lowercase().contains("%2e"))
}

fn base_name(path: &StorePath) -> &str {
    &path.as_str()[STORE_DIRECTORY.len() + 1..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As Nix 2.8 wrote it into a cache of files, with a key of ours.
    const HELLO: &str = "StorePath: /nix/store/24ypqm0ac11yjyg551a5z5x76xdifq0r-t\n\
        URL: nar/1b0ri5lsf45dknj8bfxi1syz35kdl79ka7wj30wlwk1cs6rdzjw6.nar.xz\n\
        Compression: xz\n\
        FileHash: sha256:1b0ri5lsf45dknj8bfxi1syz35kdl79ka7wj30wlwk1cs6rdzjw6\n\
        FileSize: 300\n\
        NarHash: sha256:1impfw8zdgisxkghq9a3q7cn7jb9zyzgxdydiamp8z2nlyyl0h5h\n\
        NarSize: 1400\n\
        References: 0c0x0x1x2y3z4a5b6c7d8f9g0h1i2j3k-b 24ypqm0ac11yjyg551a5z5x76xdifq0r-t\n\
        Deriver: 3c7xs2ngk0fnb69mm5bans6080fqxsnb-t.drv\n\
        Sig: cache.example-1:AAAA\n";

    #[test]
    fn a_narinfo_reads_back() {
        let info = NarInfo::parse(HELLO.as_bytes()).unwrap();
        assert_eq!((info.references.len(), info.nar_size, info.file_size), (2, 1400, Some(300)));
        assert_eq!(NarInfo::parse(info.to_text().as_bytes()).unwrap(), info);
        assert!(info.fingerprint().starts_with(
            "1;/nix/store/24ypqm0ac11yjyg551a5z5x76xdifq0r-t;sha256:1impfw8zdgisxkghq9a3q7cn7jb9zyzgxdydiamp8z2nlyyl0h5h;1400;/nix/store/0c0x"
        ));
    }

    #[test]
    fn a_signature_counts_if_its_key_is_trusted_and_covers_everything_that_matters() {
        let key = NamedKey::from_seed("cache.example-1", [1; 32]);
        let other = NamedKey::from_seed("cache.example-1", [2; 32]);
        let mut info = NarInfo::parse(HELLO.as_bytes()).unwrap();
        assert_eq!(info.signed_by(&[key.public()]), None);
        info.sign(&key);
        assert_eq!(info.signed_by(&[other.public(), key.public()]), Some("cache.example-1"));
        assert_eq!(info.signed_by(&[other.public()]), None);
        assert_eq!(info.signed_by(&[]), None);
        let changes: [fn(&mut NarInfo); 4] = [
            |info| info.nar_size += 1,
            |info| info.nar_hash[0] ^= 1,
            |info| _ = info.references.pop_first(),
            |info| info.path = info.references.first().unwrap().clone(),
        ];
        for change in changes {
            let mut changed = info.clone();
            change(&mut changed);
            assert_eq!(changed.signed_by(&[key.public()]), None);
        }
        // Where the archive lies is not signed: its hash is.
        info.url = "nar/elsewhere".to_owned();
        assert!(info.signed_by(&[key.public()]).is_some());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let without = |name: &str| HELLO.lines().filter(|line| !line.starts_with(name)).collect::<Vec<_>>().join("\n");
        for name in ["StorePath", "URL", "NarHash", "NarSize"] {
            assert!(NarInfo::parse(without(name).as_bytes()).is_err(), "{name}");
            let twice = format!("{HELLO}{}\n", HELLO.lines().find(|line| line.starts_with(name)).unwrap());
            assert!(NarInfo::parse(twice.as_bytes()).is_err(), "{name}");
        }
        for (from, to) in [
            ("/nix/store/24yp", "/etc/store/24yp"),
            ("-t\nURL", "-../../x\nURL"),
            ("nar/1b0", "../1b0"),
            ("nar/1b0", "/etc/1b0"),
            ("nar/1b0", "https://elsewhere.example/1b0"),
            ("nar/1b0", "nar/%2e%2e/1b0"),
            ("Compression: xz", "Compression: sh"),
            ("NarSize: 1400", "NarSize: -1"),
            ("NarSize: 1400", "NarSize: 99999999999999999999"),
            ("NarSize: 1400", "NarSize: 0"),
            ("sha256:1imp", "sha1:1imp"),
            ("sha256:1imp", "sha256:1"),
            ("References: 0c0x", "References: /0c0x"),
            ("Deriver: 3c7x", "Deriver: x3c7x"),
            ("FileSize: 300", "FileSize 300"),
        ] {
            assert!(HELLO.contains(from), "{from}");
            assert!(NarInfo::parse(HELLO.replacen(from, to, 1).as_bytes()).is_err(), "{to}");
        }
    }

    #[test]
    fn a_cache_of_another_store_is_refused() {
        let info = CacheInfo { mass_query: true, priority: 40 };
        assert_eq!(info.to_text(), "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n");
        assert_eq!(CacheInfo::parse(info.to_text().as_bytes()), Ok(info));
        assert_eq!(CacheInfo::parse(b""), Ok(CacheInfo::default()));
        assert!(CacheInfo::parse(b"StoreDir: /gnu/store\n").is_err());
        assert!(CacheInfo::parse(b"Priority: high\n").is_err() && CacheInfo::parse(b"\xff").is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_panics(index in any::<prop::sample::Index>(), with in "[\\x00-\\x7f]{0,8}", noise in prop::collection::vec(any::<u8>(), 0..64)) {
            let at = index.index(HELLO.len());
            for text in [format!("{}{with}{}", &HELLO[..at], &HELLO[at..]).into_bytes(), HELLO[..at].into(), noise] {
                if let Ok(info) = NarInfo::parse(&text) {
                    prop_assert_eq!(NarInfo::parse(info.to_text().as_bytes()).unwrap(), info);
                }
                let _ = CacheInfo::parse(&text);
            }
        }
    }
}
