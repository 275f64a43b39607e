//! Flake references: `github:owner/repo`, `git+https://…?ref=…`, `path:…`, and the attributes that they stand for.
//!
//! Pure text: nothing is looked at and nothing asked. What is accepted, what it means and how it is refused is as in Nix 2.34.

pub mod registry;
mod url;

use std::collections::BTreeMap;

use store::nix::hash::{HashAlgorithm, HashFormat, NixHash};

pub use url::Url;
use url::{NoUrl, number};

/// What a flake reference says, by name: `type`, `url`, `rev`, …
pub type Attributes = BTreeMap<String, Attribute>;

/// One thing that a flake reference says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// A text.
    Text(String),
    /// `lastModified`, `revCount`
    Number(u64),
    /// `submodules`, `shallow`, …
    Flag(bool),
}

/// Why a reference is none, in the words of Nix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ReferenceError {
    /// One sentence.
    pub message: String,
    /// It may be something else than an address: a path, say.
    address: bool,
}

type Result<T> = std::result::Result<T, ReferenceError>;

fn wrong(message: impl Into<String>) -> ReferenceError {
    ReferenceError { message: message.into(), address: false }
}

fn bad_url(message: impl Into<String>) -> ReferenceError {
    ReferenceError { message: message.into(), address: true }
}

impl From<&str> for Attribute {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// `builtins.parseFlakeRef`: a name of the registry, an address, or an absolute path, and `dir` in any of them.
pub fn parse(text: &str) -> Result<Attributes> {
    let (attributes, fragment) = parse_any(text)?;
    match fragment.is_empty() {
        true => Ok(attributes),
        false => Err(wrong(format!("unexpected fragment '{fragment}' in flake reference '{text}'"))),
    }
}

fn parse_any(text: &str) -> Result<(Attributes, String)> {
    if let Some((path, fragment)) = as_identifier(text) {
        let path = path.split('/').map(|segment| segment.as_bytes().to_vec()).collect();
        let url = Url { scheme: "flake".to_owned(), path, ..Url::default() };
        return Ok((from_url(&url, true)?, fragment.to_owned()));
    }
    match Url::parse_lenient(text).map(with_directory) {
        Ok(Err(error)) if error.address => {}
        Ok(result) => return result,
        Err(NoUrl::Query) => {
            let query = text.split('#').next().and_then(|text| text.split_once('?')).map_or("", |(_, query)| query);
            return Err(wrong(format!("invalid URI query '{query}': leftover")));
        }
        Err(NoUrl::Form) => {}
    }
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let not_absolute = || wrong(format!("flake reference '{text}' is not an absolute path"));
    if !path.starts_with('/') {
        return Err(not_absolute());
    }
    let url = Url {
        scheme: "path".to_owned(),
        authority: Some(String::new()),
        path: path.split('/').map(|segment| segment.as_bytes().to_vec()).collect(),
        query: url::parse_query(query).ok_or_else(not_absolute)?,
        fragment: fragment.to_owned(),
    };
    with_directory(url)
}

/// `dir` is of the flake and not of where it is fetched from.
fn with_directory(mut url: Url) -> Result<(Attributes, String)> {
    let fragment = std::mem::take(&mut url.fragment);
    let directory = url.query.remove("dir");
    let mut attributes = from_url(&url, true)?;
    if let Some(directory) = directory.filter(|directory| !directory.is_empty()) {
        attributes.insert("dir".to_owned(), Attribute::Text(directory));
    }
    Ok((attributes, fragment))
}

/// `name`, `name/ref`, `name/rev`, `name/ref/rev`, and a fragment.
fn as_identifier(text: &str) -> Option<(&str, &str)> {
    let (path, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (name, rest) = match path.split_once('/') {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    };
    let good = is_identifier(name) && rest.is_none_or(is_reference_text);
    good.then_some((path, fragment))
}

/// A name of the registry.
fn is_identifier(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

fn is_reference_text(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '@')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_./@+-".contains(&byte))
}

/// Whether it is a commit's full name.
pub fn is_revision(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether git takes it as the name of a branch, a tag or a reference (git-check-ref-format).
pub fn is_legal_reference(name: &str) -> bool {
    let forbidden = |byte: u8| byte <= b' ' || byte == 127 || b"~^:?*[\\".contains(&byte);
    let component = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    name != "@"
        && !name.starts_with('-')
        && !name.ends_with('.')
        && !name.contains("..")
        && !name.contains("@{")
        && !name.bytes().any(forbidden)
        && name.split('/').all(component)
}

/// Ends of file names that say that something is an archive.
const ARCHIVES: &[&str] = &[".zip", ".tar", ".tgz", ".tar.gz", ".tar.xz", ".tar.bz2", ".tar.zst"];

/// What an address stands for. With `tree`, a plain `https:` address is an archive, whatever it ends in.
pub fn from_url(url: &Url, tree: bool) -> Result<Attributes> {
    let mut attributes = Attributes::new();
    let text = |value: &str| Attribute::Text(value.to_owned());
    let (application, transport) = url.scheme.split_once('+').unwrap_or(("", &url.scheme));
    match url.scheme.as_str() {
        "path" => {
            if let Some(authority) = url.authority.as_deref().filter(|authority| !authority.is_empty()) {
                let message = format!("path URL '{url}' should not have an authority ('{authority}')");
                return Err(wrong(message));
            }
            for (name, value) in &url.query {
                let value = match name.as_str() {
                    "rev" | "narHash" => text(value),
                    "revCount" | "lastModified" => Attribute::Number(
                        number(value)
                            .ok_or_else(|| wrong(format!("path URL '{url}' has invalid parameter '{name}'")))?,
                    ),
                    _ => return Err(wrong(format!("path URL '{url}' has unsupported parameter '{name}'"))),
                };
                attributes.insert(name.clone(), value);
            }
            attributes.insert("type".to_owned(), text("path"));
            let path = url.file_path().ok_or_else(|| bad_url(format!("'{url}' is not a valid URL")))?;
            attributes.insert("path".to_owned(), text(&path));
        }
        "flake" => indirect(url, &mut attributes)?,
        "github" | "gitlab" | "sourcehut" => forge(url, &mut attributes)?,
        "git" => git(url, "git", &mut attributes)?,
        scheme if application == "git" && scheme.len() > 4 => git(url, transport, &mut attributes)?,
        "hg+http" | "hg+https" | "hg+ssh" | "hg+file" => {
            let mut other = Url { scheme: transport.to_owned(), query: BTreeMap::new(), ..url.clone() };
            for (name, value) in &url.query {
                match name.as_str() {
                    "rev" | "ref" => _ = attributes.insert(name.clone(), text(value)),
                    _ => _ = other.query.insert(name.clone(), value.clone()),
                }
            }
            attributes.insert("type".to_owned(), text("hg"));
            attributes.insert("url".to_owned(), text(&other.to_string()));
        }
        _ => {
            let file = url.path.last().map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default();
            let is_archive = ARCHIVES.iter().any(|end| file.ends_with(end));
            let kind = match (application, transport) {
                ("tarball", "file" | "http" | "https") => "tarball",
                ("file", "file" | "http" | "https") => "file",
                ("", "file" | "http" | "https") if tree || is_archive => "tarball",
                ("", "file" | "http" | "https") => "file",
                _ => return Err(wrong(format!("input '{url}' is unsupported"))),
            };
            let mut other = Url { scheme: transport.to_owned(), ..url.clone() };
            for name in ["narHash", "rev"] {
                if let Some(value) = other.query.remove(name) {
                    attributes.insert(name.to_owned(), Attribute::Text(value));
                }
            }
            for name in ["revCount", "lastModified"] {
                if let Some(value) = other.query.remove(name).and_then(|value| number(&value)) {
                    attributes.insert(name.to_owned(), Attribute::Number(value));
                }
            }
            other.query.remove("name");
            other.query.remove("unpack");
            attributes.insert("type".to_owned(), text(kind));
            attributes.insert("url".to_owned(), text(&other.to_string()));
        }
    }
    Ok(attributes)
}

fn indirect(url: &Url, attributes: &mut Attributes) -> Result<()> {
    let path = url.segments().unwrap_or_default();
    let mut set = |name: &str, value: &str| _ = attributes.insert(name.to_owned(), value.into());
    set("type", "indirect");
    let id = match path.as_slice() {
        [id] => id,
        [id, revision] if is_revision(revision) => {
            set("rev", revision);
            id
        }
        [id, reference] if is_legal_reference(reference) => {
            set("ref", reference);
            id
        }
        [_, other] => {
            let message = format!("in flake URL '{url}', '{other}' is not a commit hash or branch/tag name");
            return Err(bad_url(message));
        }
        [id, reference, revision] => {
            if !is_legal_reference(reference) {
                return Err(bad_url(format!("in flake URL '{url}', '{reference}' is not a branch/tag name")));
            }
            if !is_revision(revision) {
                return Err(bad_url(format!("in flake URL '{url}', '{revision}' is not a commit hash")));
            }
            set("ref", reference);
            set("rev", revision);
            id
        }
        _ => return Err(bad_url(format!("GitHub URL '{url}' is invalid"))),
    };
    if !is_identifier(id) {
        return Err(bad_url(format!("'{id}' is not a valid flake ID")));
    }
    set("id", id);
    Ok(())
}

fn is_host(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
}

fn forge(url: &Url, attributes: &mut Attributes) -> Result<()> {
    let path = url.segments().unwrap_or_default();
    let (mut reference, mut revision) = (None, None);
    let [owner, repository, rest @ ..] = path.as_slice() else {
        return Err(bad_url(format!("URL '{url}' is invalid")));
    };
    match rest {
        [] => {}
        [one] if is_revision(one) => revision = Some(one.clone()),
        more => {
            let text = more.join("/");
            if !is_legal_reference(&text) {
                return Err(bad_url(format!("in URL '{url}', '{text}' is not a commit hash or branch/tag name")));
            }
            reference = Some(text);
        }
    }
    for (name, value) in &url.query {
        match name.as_str() {
            "rev" if revision.is_some() => {
                return Err(bad_url(format!("URL '{url}' contains multiple commit hashes")));
            }
            "rev" => {
                revision_of(value)?;
                revision = Some(value.clone());
            }
            "ref" if !is_legal_reference(value) => {
                return Err(bad_url(format!("URL '{url}' contains an invalid branch/tag name")));
            }
            "ref" if reference.is_some() => {
                return Err(bad_url(format!("URL '{url}' contains multiple branch/tag names")));
            }
            "ref" => reference = Some(value.clone()),
            "host" if !is_host(value) => {
                return Err(bad_url(format!("URL '{url}' contains an invalid instance host")));
            }
            "host" | "narHash" => _ = attributes.insert(name.clone(), value.as_str().into()),
            _ => {}
        }
    }
    if let (Some(reference), Some(revision)) = (&reference, &revision) {
        let message = format!("URL '{url}' contains both a commit hash and a branch/tag name {reference} {revision}");
        return Err(bad_url(message));
    }
    let all =
        [("ref", reference), ("rev", revision), ("owner", Some(owner.clone())), ("repo", Some(repository.clone()))];
    for (name, value) in all {
        attributes.extend(value.map(|value| (name.to_owned(), Attribute::Text(value))));
    }
    attributes.insert("type".to_owned(), url.scheme.as_str().into());
    Ok(())
}

/// A commit's name in hexadecimal; other spellings of a SHA-1 are taken.
fn revision_of(text: &str) -> Result<String> {
    let hash = NixHash::parse(text.as_bytes(), Some(HashAlgorithm::Sha1)).map_err(|error| wrong(error.to_string()))?;
    Ok(hash.to_text(HashFormat::Base16, false))
}

fn git(url: &Url, transport: &str, attributes: &mut Attributes) -> Result<()> {
    let mut other = Url { scheme: transport.to_owned(), query: BTreeMap::new(), ..url.clone() };
    for (name, value) in &url.query {
        let value = match name.as_str() {
            "rev" | "ref" => Attribute::Text(value.clone()),
            "shallow" | "submodules" | "lfs" | "exportIgnore" | "allRefs" => Attribute::Flag(value == "1"),
            "keytype" | "publicKey" | "publicKeys" | "verifyCommit" => return Err(verified_fetches()),
            _ => {
                other.query.insert(name.clone(), value.clone());
                continue;
            }
        };
        attributes.insert(name.clone(), value);
    }
    attributes.insert("type".to_owned(), "git".into());
    attributes.insert("url".to_owned(), Attribute::Text(other.to_string()));
    check(attributes)
}

fn verified_fetches() -> ReferenceError {
    wrong(
        "experimental Nix feature 'verified-fetches' is disabled; add '--extra-experimental-features verified-fetches' to enable it",
    )
}

/// What git calls an address: `user@host:path` is by ssh, and a path is a file's.
pub fn git_url(text: &str) -> Result<Url> {
    let file = |authority| {
        let path = text.split('/').map(|segment| segment.as_bytes().to_vec()).collect();
        Ok(Url { scheme: "file".to_owned(), authority, path, ..Url::default() })
    };
    if text.starts_with('/') {
        return file(Some(String::new()));
    }
    let colon = text.split_once(':').filter(|(before, _)| !before.contains('/'));
    let text = match (colon, text.rsplit_once(':')) {
        _ if text.contains("://") || text.starts_with("file:") => text.to_owned(),
        (Some((before, _)), Some((host, path))) if before.contains('@') => format!("ssh://{host}/{path}"),
        (Some(_), _) => {
            let message = format!("SCP-like URL '{text}' is not supported; use SSH URL syntax instead (ssh://...)");
            return Err(bad_url(message));
        }
        (None, _) => return file(None),
    };
    Url::parse(&text).ok_or_else(|| no_url(&text))
}

fn no_url(text: &str) -> ReferenceError {
    bad_url(match text.contains(':') {
        true => format!("'{text}' is not a valid URL: leftover"),
        false => format!("'{text}' doesn't have a scheme"),
    })
}

/// A text among the attributes.
pub fn text<'a>(attributes: &'a Attributes, name: &str) -> Result<Option<&'a str>> {
    match attributes.get(name) {
        None => Ok(None),
        Some(Attribute::Text(text)) => Ok(Some(text)),
        Some(_) => Err(wrong(format!("input attribute '{name}' is not a string {}", to_json(attributes)))),
    }
}

/// A text that must be there.
pub fn required<'a>(attributes: &'a Attributes, name: &str) -> Result<&'a str> {
    text(attributes, name)?.ok_or_else(|| wrong(format!("input attribute '{name}' is missing")))
}

/// A flag among the attributes.
pub fn flag(attributes: &Attributes, name: &str) -> Result<bool> {
    match attributes.get(name) {
        None => Ok(false),
        Some(Attribute::Flag(flag)) => Ok(*flag),
        Some(_) => Err(wrong(format!("input attribute '{name}' is not a Boolean"))),
    }
}

/// The attributes as JSON, as messages show them.
pub fn to_json(attributes: &Attributes) -> String {
    let fields = attributes.iter().map(|(name, attribute)| {
        let value = match attribute {
            Attribute::Text(text) => serde_json::Value::from(text.as_str()),
            Attribute::Number(number) => serde_json::Value::from(*number),
            Attribute::Flag(flag) => serde_json::Value::from(*flag),
        };
        (name.clone(), value)
    });
    serde_json::Value::Object(fields.collect()).to_string()
}

/// Refuses attributes that say nothing that could be fetched.
pub fn check(attributes: &Attributes) -> Result<()> {
    if !attributes.contains_key("type") {
        return Err(wrong("'type' attribute to specify input scheme is required but not provided"));
    }
    let kind = required(attributes, "type")?;
    let allowed: &[&str] = match kind {
        "path" => &["path", "rev", "revCount", "lastModified", "narHash"],
        "indirect" => &["id", "ref", "rev", "narHash"],
        "github" | "gitlab" | "sourcehut" => {
            &["owner", "repo", "ref", "rev", "narHash", "lastModified", "host", "treeHash"]
        }
        "git" => &[
            "url",
            "ref",
            "rev",
            "shallow",
            "submodules",
            "lfs",
            "exportIgnore",
            "lastModified",
            "revCount",
            "narHash",
            "allRefs",
            "name",
            "dirtyRev",
            "dirtyShortRev",
            "verifyCommit",
            "keytype",
            "publicKey",
            "publicKeys",
        ],
        "tarball" | "file" => &["url", "narHash", "name", "unpack", "rev", "revCount", "lastModified"],
        "hg" => &["url", "ref", "rev", "revCount", "narHash", "name"],
        _ => return Ok(()),
    };
    if let Some(name) = attributes.keys().find(|name| *name != "type" && !allowed.contains(&name.as_str())) {
        return Err(wrong(format!("input attribute '{name}' not supported by scheme '{kind}'")));
    }
    let json = || to_json(attributes);
    match kind {
        "path" => {
            required(attributes, "path")?;
            for name in ["revCount", "lastModified"] {
                if attributes.get(name).is_some_and(|value| !matches!(value, Attribute::Number(_))) {
                    return Err(wrong(format!("input attribute '{name}' is not an integer")));
                }
            }
        }
        "indirect" => {
            let id = required(attributes, "id")?;
            if !is_identifier(id) {
                return Err(bad_url(format!("'{id}' is not a valid flake ID")));
            }
        }
        "github" | "gitlab" | "sourcehut" => {
            required(attributes, "owner")?;
            required(attributes, "repo")?;
            let (reference, revision) = (text(attributes, "ref")?, text(attributes, "rev")?);
            if reference.is_some_and(|name| !is_legal_reference(name)) {
                return Err(bad_url(format!("input {} contains an invalid branch/tag name", json())));
            }
            if let (Some(reference), Some(revision)) = (reference, revision) {
                return Err(bad_url(format!(
                    "input {} contains both a commit hash ('{revision}') and a branch/tag name ('{reference}')",
                    json()
                )));
            }
            if text(attributes, "host")?.is_some_and(|host| !is_host(host)) {
                return Err(bad_url(format!("input {} contains an invalid instance host", json())));
            }
        }
        "git" => {
            for name in ["verifyCommit", "keytype", "publicKey", "publicKeys"] {
                if attributes.contains_key(name) {
                    return Err(verified_fetches());
                }
            }
            for name in ["shallow", "submodules", "lfs", "exportIgnore", "allRefs"] {
                flag(attributes, name)?;
            }
            if let Some(name) = text(attributes, "ref")?.filter(|name| !is_legal_reference(name)) {
                return Err(bad_url(format!("invalid Git branch/tag name '{name}'")));
            }
            git_url(required(attributes, "url")?)?;
        }
        _ => {
            let url = required(attributes, "url")?;
            if Url::parse(url).is_none() {
                return Err(no_url(url));
            }
            let reference = text(attributes, "ref")?.filter(|name| kind == "hg" && !is_reference_text(name));
            if let Some(name) = reference {
                return Err(bad_url(format!("invalid Mercurial branch/tag name '{name}'")));
            }
        }
    }
    Ok(())
}

/// The hash of the tree that is expected.
pub fn nar_hash(attributes: &Attributes) -> Result<Option<NixHash>> {
    let Some(text) = text(attributes, "narHash")? else { return Ok(None) };
    if !text.contains('-') {
        return Err(wrong(format!("hash '{text}' is not SRI")));
    }
    NixHash::parse(text.as_bytes(), None).map(Some).map_err(|error| wrong(error.to_string()))
}

/// `builtins.flakeRefToString`
pub fn to_string(attributes: &Attributes) -> Result<String> {
    let mut attributes = attributes.clone();
    let directory = text(&attributes, "dir")?.map(str::to_owned);
    attributes.remove("dir");
    check(&attributes)?;
    let get = |name: &str| text(&attributes, name);
    let kind = required(&attributes, "type")?;
    let segments = |words: &[Option<&str>]| -> Vec<Vec<u8>> {
        words.iter().flatten().map(|word| word.as_bytes().to_vec()).collect()
    };
    let mut url = Url { scheme: kind.to_owned(), ..Url::default() };
    let query = |url: &mut Url, name: &str, value: &str| _ = url.query.insert(name.to_owned(), value.to_owned());
    match kind {
        "path" => {
            let path = required(&attributes, "path")?;
            url.path = path.split('/').map(|segment| segment.as_bytes().to_vec()).collect();
            for (name, attribute) in &attributes {
                match attribute {
                    Attribute::Text(text) if name != "path" && name != "type" => query(&mut url, name, text),
                    Attribute::Number(number) => query(&mut url, name, &number.to_string()),
                    Attribute::Flag(flag) => query(&mut url, name, if *flag { "1" } else { "0" }),
                    Attribute::Text(_) => {}
                }
            }
        }
        "indirect" => {
            url.scheme = "flake".to_owned();
            let revision = get("rev")?.map(revision_of).transpose()?;
            url.path = segments(&[get("id")?, get("ref")?, revision.as_deref()]);
        }
        "github" | "gitlab" | "sourcehut" => {
            let revision = get("rev")?.map(revision_of).transpose()?;
            url.path = segments(&[get("owner")?, get("repo")?, get("ref")?, revision.as_deref()]);
            if let Some(hash) = nar_hash(&attributes)? {
                query(&mut url, "narHash", &hash.to_text(HashFormat::Sri, true));
            }
            if let Some(host) = get("host")? {
                query(&mut url, "host", host);
            }
        }
        "git" => {
            url = git_url(required(&attributes, "url")?)?;
            if url.scheme != "git" {
                url.scheme.insert_str(0, "git+");
            }
            if let Some(revision) = get("rev")? {
                query(&mut url, "rev", &revision_of(revision)?);
            }
            if let Some(reference) = get("ref")? {
                query(&mut url, "ref", reference);
            }
            for name in ["shallow", "lfs", "submodules", "exportIgnore"] {
                if flag(&attributes, name)? {
                    query(&mut url, name, "1");
                }
            }
        }
        "hg" | "tarball" | "file" => {
            url = Url::parse(required(&attributes, "url")?).unwrap_or_default();
            if kind == "hg" {
                url.scheme.insert_str(0, "hg+");
                for name in ["rev", "ref"] {
                    if let Some(value) = get(name)? {
                        query(&mut url, name, value);
                    }
                }
            } else if let Some(hash) = nar_hash(&attributes)? {
                query(&mut url, "narHash", &hash.to_text(HashFormat::Sri, true));
            }
        }
        _ => return Err(wrong(format!("cannot show unsupported input '{}'", to_json(&attributes)))),
    }
    if let Some(directory) = directory.filter(|directory| !directory.is_empty()) {
        query(&mut url, "dir", &directory);
    }
    Ok(url.to_string())
}
