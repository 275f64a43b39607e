//! What a call of a fetcher asks the lock, and what the answer says. Knows no values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use store::derivation::Fetched;
use store::lock::LockRequest;
use store::nix::hash::{HashAlgorithm, NixHash};

use crate::flake_reference::{Attribute, Attributes, Url};

/// What is said of a tree beside what asks for it: by its user, or by the lock.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    /// The hash of its archive.
    pub nar_hash: Option<NixHash>,
    /// The commit.
    pub revision: Option<String>,
    /// The commit that it was changed from, without being committed.
    pub dirty_revision: Option<String>,
    /// How many commits led to it.
    pub revision_count: Option<u64>,
    /// When it was changed last, in seconds since 1970.
    pub last_modified: Option<u64>,
}

/// Attributes that say what a tree is rather than where it is.
const SAID: &[&str] =
    &["narHash", "lastModified", "revCount", "dirtyRev", "dirtyShortRev", "treeHash", "name", "dir", "unpack"];

impl Said {
    /// What the user says.
    pub fn by_attributes(attributes: &Attributes, nar_hash: Option<NixHash>) -> Self {
        let text = |name: &str| match attributes.get(name) {
            Some(Attribute::Text(text)) => Some(text.clone()),
            _ => None,
        };
        let number = |name: &str| match attributes.get(name) {
            Some(Attribute::Number(number)) => Some(*number),
            _ => None,
        };
        let (revision_count, last_modified) = (number("revCount"), number("lastModified"));
        Self { nar_hash, revision: text("rev"), dirty_revision: None, revision_count, last_modified }
    }

    /// What the lock says; none if it says no hash.
    pub fn by_record(record: &BTreeMap<String, Json>) -> Option<Self> {
        let text = |name: &str| record.get(name).and_then(Json::as_str).map(str::to_owned);
        let number = |name: &str| record.get(name).and_then(Json::as_u64);
        let hash = NixHash::parse(text("narHash")?.as_bytes(), Some(HashAlgorithm::Sha256)).ok()?;
        Some(Self {
            nar_hash: Some(hash),
            revision: text("rev"),
            dirty_revision: text("dirtyRev"),
            revision_count: number("revCount"),
            last_modified: number("lastModified"),
        })
    }
}

/// The question for a file.
pub fn url_request(url: &str, project: &Path) -> LockRequest {
    let parameters = BTreeMap::from([("url".to_owned(), Json::from(relative(url, project)))]);
    LockRequest { kind: "url".to_owned(), parameters }
}

/// The question for a tree. A local work tree may be taken as it is only where nothing is written to a lock (`uncommitted`).
pub fn tree_request(attributes: &Attributes, project: &Path, uncommitted: bool) -> LockRequest {
    let mut parameters = BTreeMap::new();
    for (name, attribute) in attributes {
        let value = match attribute {
            Attribute::Text(url) if name == "url" => Json::from(relative(url, project)),
            Attribute::Text(text) => Json::from(text.as_str()),
            Attribute::Number(number) => Json::from(*number),
            Attribute::Flag(true) => Json::from(true),
            // Not being said is the same.
            Attribute::Flag(false) => continue,
        };
        if !SAID.contains(&name.as_str()) {
            parameters.insert(name.clone(), value);
        }
    }
    let get = |name: &str| parameters.get(name).and_then(Json::as_str);
    let is_work_tree = matches!(get("type"), Some("git" | "hg"))
        && get("url").is_some_and(|url| url.starts_with("file:"))
        && get("rev").is_none()
        && get("ref").is_none();
    if uncommitted && is_work_tree {
        parameters.insert("uncommitted".to_owned(), Json::from(true));
    }
    LockRequest { kind: "tree".to_owned(), parameters }
}

/// The file of this machine that a question is about, whose answer would bring what is in it. Of a repository only what was committed
/// is brought, and a repository is named as one.
pub fn local_file(request: &LockRequest, project: &Path) -> Option<PathBuf> {
    let get = |name: &str| request.parameters.get(name).and_then(Json::as_str);
    if !matches!(get("type"), None | Some("file" | "tarball")) {
        return None;
    }
    let url = get("url")?;
    let path = |url: &str| Url::parse(url).filter(|url| url.scheme == "file").and_then(|url| url.file_path());
    match url.strip_prefix("file:./") {
        Some(inside) => Some(project.join(path(&format!("file:///{inside}"))?.trim_start_matches('/'))),
        None => path(url).map(PathBuf::from),
    }
}

/// The address of a file, told from the project's directory if it is in it.
pub fn project_url(path: &Path, project: &Path) -> String {
    let mut whole = String::from("file://");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => whole.push(*byte as char),
            byte => whole.push_str(&format!("%{byte:02X}")),
        }
    }
    relative(&whole, project)
}

/// A lock names no path of the machine: what lies in the project is told from there.
fn relative(url: &str, project: &Path) -> String {
    let path =
        Url::parse(url).filter(|url| url.scheme == "file" && url.query.is_empty()).and_then(|url| url.file_path());
    let inside = path.as_deref().and_then(|path| Path::new(path).strip_prefix(project).ok()).and_then(Path::to_str);
    match inside.filter(|_| project.parent().is_some()) {
        Some(inside) => {
            let path = format!("./{inside}").split('/').map(|part| part.as_bytes().to_vec()).collect();
            Url { scheme: "file".to_owned(), path, ..Url::default() }.to_string()
        }
        None => url.to_owned(),
    }
}

/// How to ask for exactly what was found, whatever a branch may be by then.
pub fn pinned(request: &LockRequest, said: &Said) -> LockRequest {
    let mut request = request.clone();
    if let Some(revision) =
        said.revision.as_deref().filter(|_| request.parameters.get("type") != Some(&"tarball".into()))
    {
        request.parameters.insert("rev".to_owned(), Json::from(revision));
        request.parameters.remove("ref");
        request.parameters.remove("uncommitted");
    }
    request
}

/// A tree that is known by its hash.
pub fn fetched(request: LockRequest, hash: &NixHash) -> Option<Fetched> {
    Some(Fetched { request, recursive: true, sha256: hash.as_bytes().try_into().ok()? })
}

/// `YYYYMMDDhhmmss`, in universal time.
pub fn date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March here, so that the leap day is their last; 719468 days lie between the year 0 and 1970.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, year) = if month < 10 { (month + 3, year) } else { (month - 9, year + 1) };
    let (hours, minutes) = (rest / 3_600, rest / 60 % 60);
    format!("{:04}{month:02}{day:02}{hours:02}{minutes:02}{:02}", era * 400 + year, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "19700101000000"),
            (951_782_399, "20000228235959"),
            (951_782_400, "20000229000000"),
            (1_700_000_500, "20231114222140"),
            (4_107_542_399, "21000228235959"),
            (4_107_542_400, "21000301000000"),
        ] {
            assert_eq!(date(seconds), expected);
        }
    }

    #[test]
    fn a_question_names_no_path_of_the_machine() {
        let url = |request: LockRequest| request.parameters["url"].as_str().unwrap().to_owned();
        let project = Path::new("/home/me/project");
        assert_eq!(url(url_request("file:///home/me/project/sub/a%20b.tar", project)), "file:./sub/a%20b.tar");
        assert_eq!(url(url_request("file:///home/me/other", project)), "file:///home/me/other");
        assert_eq!(url(url_request("https://host.example/x", project)), "https://host.example/x");
        assert_eq!(url(url_request("file:///etc/x", Path::new("/"))), "file:///etc/x");
    }

    #[test]
    fn what_is_said_of_a_tree_is_no_part_of_the_question() {
        let attributes =
            crate::flake_reference::parse("git+https://host.example/x?ref=main&shallow=0&submodules=1&dir=sub");
        let request = tree_request(&attributes.unwrap(), Path::new("/p"), true);
        assert_eq!(
            request.key(),
            r#"tree {"ref":"main","submodules":true,"type":"git","url":"https://host.example/x"}"#
        );
        let said = Said { revision: Some("12".to_owned()), ..Said::default() };
        let pinned = pinned(&request, &said);
        assert_eq!(pinned.key(), r#"tree {"rev":"12","submodules":true,"type":"git","url":"https://host.example/x"}"#);
    }
}
