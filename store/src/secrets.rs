//! What does not belong in a store: files that look like private keys and tokens.
//!
//! A store is shared and keeps what it has; so sources are looked at before they enter it, and layers, which have what packages and steps
//! brought, before they get a name. By name only what is never anything
//! else; by content the forms that their makers gave to keys and tokens so that they can be found. What this finds may be a test's
//! key: it is said, and refused only on request.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::{Error, Node, Result, Store, TreeId};

/// A file that looks like a secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Secret {
    /// Where it lies.
    pub path: PathBuf,
    /// What it looks like, for instance `a private key`.
    pub what: &'static str,
}

/// Keys and tokens stand at the beginning of a file, or the file is short.
const LOOKED_AT: u64 = 256 * 1024;

/// Names that a private key or password has, and little else.
const NAMES: &[(&str, &str)] = &[
    ("id_rsa", "an SSH private key"),
    ("id_dsa", "an SSH private key"),
    ("id_ecdsa", "an SSH private key"),
    ("id_ed25519", "an SSH private key"),
    ("id_ed25519_sk", "an SSH private key"),
    (".netrc", "passwords for hosts"),
    (".git-credentials", "passwords for git"),
    (".pgpass", "passwords for databases"),
    (".htpasswd", "passwords for a web server"),
    (".vault-token", "a token for Vault"),
];

/// Paths that end so have tokens if their content says so.
const TOLD_BY_BOTH: &[(&str, &[u8], &str)] = &[
    (".npmrc", b"_authToken", "a token for npm"),
    (".pypirc", b"password", "a password for a Python index"),
    (".docker/config.json", b"\"auth\"", "passwords for registries"),
    (".aws/credentials", b"aws_secret_access_key", "a key for AWS"),
    (".kube/config", b"client-key-data", "a key for Kubernetes"),
    (".kube/config", b"token:", "a token for Kubernetes"),
];

/// What stands in front of a key's text.
const MARKS: &[(&[u8], &str)] = &[
    (b"PRIVATE KEY-----", "a private key"),
    (b"-----BEGIN PGP PRIVATE KEY BLOCK-----", "an OpenPGP private key"),
    (b"PuTTY-User-Key-File-", "a PuTTY private key"),
    (b"AGE-SECRET-KEY-1", "an age secret key"),
    (b"\"private_key_id\": \"", "a key for a Google service account"),
];

/// What a token begins with, how many letters and digits (and `_`, `-`) follow at least, and whose it is.
const TOKENS: &[(&[u8], usize, &str)] = &[
    (b"ghp_", 36, "a token for GitHub"),
    (b"gho_", 36, "a token for GitHub"),
    (b"ghs_", 36, "a token for GitHub"),
    (b"ghu_", 36, "a token for GitHub"),
    (b"github_pat_", 60, "a token for GitHub"),
    (b"glpat-", 20, "a token for GitLab"),
    (b"npm_", 36, "a token for npm"),
    (b"pypi-AgE", 60, "a token for PyPI"),
    (b"xoxb-", 30, "a token for Slack"),
    (b"xoxp-", 30, "a token for Slack"),
    (b"sk_live_", 20, "a key for Stripe"),
    (b"rk_live_", 20, "a key for Stripe"),
    (b"AIzaSy", 33, "a key for Google"),
    (b"AKIA", 16, "a key for AWS"),
    (b"hf_", 34, "a token for Hugging Face"),
    (b"dckr_pat_", 20, "a token for Docker"),
];

/// What a file looks like, by its path and how it begins; none if it looks harmless.
pub fn looks_like(path: &Path, start: &[u8]) -> Option<&'static str> {
    let name = path.file_name()?.as_encoded_bytes();
    let by_name = NAMES.iter().find(|(secret, _)| name == secret.as_bytes());
    // An empty one is a placeholder.
    if let Some((_, what)) = by_name.filter(|_| !start.is_empty()) {
        return Some(what);
    }
    let whole = path.as_os_str().as_encoded_bytes();
    let ends = |suffix: &str| {
        whole.strip_suffix(suffix.as_bytes()).is_some_and(|before| before.is_empty() || before.ends_with(b"/"))
    };
    let by_both = TOLD_BY_BOTH.iter().find(|(suffix, text, _)| ends(suffix) && find(start, text).is_some());
    if let Some((.., what)) = by_both {
        return Some(what);
    }
    if let Some((_, what)) = MARKS.iter().find(|(mark, _)| has_key_behind(start, mark)) {
        return Some(what);
    }
    // Programs hold such words by chance and on purpose; tokens stand in texts.
    if start.contains(&0) {
        return None;
    }
    TOKENS.iter().find(|(prefix, length, _)| has_token(start, prefix, *length)).map(|(.., what)| *what)
}

/// Whether a mark is there, and something that could be a key behind it: programs that read keys name the mark alone.
fn has_key_behind(text: &[u8], mark: &[u8]) -> bool {
    let mut rest = text;
    while let Some(place) = find(rest, mark) {
        rest = &rest[place + mark.len()..];
        let key = rest.iter().filter(|byte| !byte.is_ascii_whitespace()).take(40);
        let like_a_key =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b':' | b'-' | b',');
        if key.clone().count() == 40 && key.clone().all(like_a_key) {
            return true;
        }
    }
    false
}

fn has_token(text: &[u8], prefix: &[u8], length: usize) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let mut from = 0;
    while let Some(place) = find(&text[from..], prefix).map(|place| from + place) {
        let body = text[place + prefix.len()..].iter().take_while(|byte| is_part(byte));
        // Random, not a word or a row of the same letter that stands for a token in a manual.
        let different: BTreeSet<&u8> = body.clone().take(length).collect();
        if (place == 0 || !is_part(&text[place - 1])) && body.count() >= length && different.len() >= 8 {
            return true;
        }
        from = place + prefix.len();
    }
    false
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = *wanted.first()?;
    let mut from = 0;
    while let Some(place) = text[from..].iter().position(|byte| *byte == first) {
        if text[from + place..].starts_with(wanted) {
            return Some(from + place);
        }
        from += place + 1;
    }
    None
}

/// The files at or below a path that look like secrets, sorted. `selected` as in [`crate::derivation::Source`].
///
/// Symbolic links are not followed, and what cannot be read is passed over: whoever takes it in will say so.
pub fn find_in(source: &Path, selected: Option<&BTreeSet<Vec<u8>>>) -> Result<Vec<Secret>> {
    let mut files = Vec::new();
    let mut waiting = vec![source.to_owned()];
    while let Some(path) = waiting.pop() {
        let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            let entries = std::fs::read_dir(&path).map_err(Error::file("read the directory", &path))?;
            waiting.extend(entries.flatten().map(|entry| entry.path()));
        } else if metadata.is_file() {
            let below = path.strip_prefix(source).unwrap_or(&path).as_os_str().as_encoded_bytes();
            if path == *source || selected.is_none_or(|selected| selected.contains(below)) {
                files.push(path);
            }
        }
    }
    let look = |path: PathBuf| {
        let mut start = Vec::new();
        let file = std::fs::File::open(&path).ok()?;
        file.take(LOOKED_AT).read_to_end(&mut start).ok()?;
        looks_like(&path, &start).map(|what| Secret { path, what })
    };
    let mut secrets: Vec<Secret> = files.into_par_iter().filter_map(look).collect();
    secrets.sort();
    Ok(secrets)
}

/// The files of a tree of the store that look like secrets, sorted; their paths begin at its root.
pub fn find_in_tree(store: &Store, root: TreeId) -> Result<Vec<Secret>> {
    let (mut level, mut secrets) = (vec![(root, PathBuf::from("/"))], Vec::new());
    let mut seen = BTreeSet::new();
    while !level.is_empty() {
        // A directory that is there twice is told once.
        level.retain(|(id, _)| seen.insert(*id));
        let look = |(id, path): &(TreeId, PathBuf)| {
            let (mut found, mut next) = (Vec::new(), Vec::new());
            for (name, node) in &store.tree(*id)?.entries {
                use std::os::unix::ffi::OsStrExt;
                let path = path.join(std::ffi::OsStr::from_bytes(name.as_bytes()));
                match node {
                    Node::Directory(child) => next.push((*child, path)),
                    Node::File(file) => {
                        let mut start = Vec::new();
                        let blob = store.open_blob_of(file.blob, file.metadata.mode & 0o100 != 0)?;
                        blob.take(LOOKED_AT).read_to_end(&mut start).map_err(Error::file("read", store.path()))?;
                        found.extend(looks_like(&path, &start).map(|what| Secret { path, what }));
                    }
                    _ => {}
                }
            }
            Ok((found, next))
        };
        let looked: Vec<_> = level.par_iter().map(look).collect::<Result<_>>()?;
        level.clear();
        for (found, next) in looked {
            secrets.extend(found);
            level.extend(next);
        }
    }
    secrets.sort();
    Ok(secrets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(path: &str, text: &str) -> Option<&'static str> {
        looks_like(Path::new(path), text.as_bytes())
    }

    /// Put together here, so that this file does not look like one.
    fn key(kind: &str) -> String {
        format!("-----BEGIN {kind}PRIVATE KEY-----\n{}\n", "MIIEpAIBAAKCAQEA7bq8".repeat(10))
    }

    #[test]
    fn keys_and_tokens_are_told_by_name_and_by_content() {
        for kind in ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "] {
            assert_eq!(looks("/app/server.pem", &key(kind)), Some("a private key"), "{kind}");
        }
        assert_eq!(looks("/home/a/.ssh/id_ed25519", "anything"), Some("an SSH private key"));
        assert_eq!(looks(".netrc", "machine a login b password c"), Some("passwords for hosts"));
        let token = "a8Bk2Lm9Qz7Rt4Vw1Xy6Cd3Ef5Gh0Jn2Pq4S";
        for (prefix, what) in
            [("ghp_", "a token for GitHub"), ("npm_", "a token for npm"), ("glpat-", "a token for GitLab")]
        {
            assert_eq!(looks("app/config.py", &format!("TOKEN = \"{prefix}{token}\"\n")), Some(what));
        }
        assert_eq!(looks("a/.npmrc", "//host/:_authToken=x"), Some("a token for npm"));
        assert_eq!(
            looks("x", &format!("AGE-SECRET-KEY-1{}", "QPZRY9X8GF2TVDW0S3JN".repeat(3))),
            Some("an age secret key")
        );
    }

    #[test]
    fn what_only_speaks_of_them_does_not_look_like_one() {
        let harmless = [
            ("id_ed25519.pub", "ssh-ed25519 AAAA"),
            ("id_rsa", ""),
            (
                "check.py",
                "if b'-----BEGIN RSA PRIVATE KEY-----' in text:\n    raise ValueError('no key, please; thank you')",
            ),
            ("manual.md", "export TOKEN=ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
            ("word.txt", "an npm_package_name_that_is_rather_long"),
            ("cert.pem", "-----BEGIN CERTIFICATE-----\nMIIEpAIBAAKCAQEA7bq8MIIEpAIBAAKCAQEA7bq8"),
            (".npmrc", "registry=http://host"),
            ("empty", ""),
        ];
        for (path, text) in harmless {
            assert_eq!(looks(path, text), None, "{path}");
        }
    }

    #[test]
    fn a_directory_is_looked_through_and_links_are_not_followed() {
        let source = tempfile::tempdir().unwrap();
        let path = |text: &str| source.path().join(text);
        std::fs::create_dir_all(path("a/b")).unwrap();
        std::fs::write(path("a/b/key"), key("RSA ")).unwrap();
        std::fs::write(path("a/fine"), "fine").unwrap();
        std::fs::write(path("id_rsa"), "x").unwrap();
        std::os::unix::fs::symlink("id_rsa", path("link")).unwrap();
        std::os::unix::fs::symlink(".", path("a/circle")).unwrap();
        let found = find_in(source.path(), None).unwrap();
        assert_eq!(
            found.iter().map(|secret| secret.path.clone()).collect::<Vec<_>>(),
            [path("a/b/key"), path("id_rsa")]
        );
        let world = crate::directory::testing::world();
        let Node::Directory(tree) = world.store.ingest_source(source.path(), None).unwrap() else { panic!() };
        let in_store = find_in_tree(&world.store, tree).unwrap();
        assert_eq!(
            in_store.iter().map(|secret| secret.path.display().to_string()).collect::<Vec<_>>(),
            ["/a/b/key", "/id_rsa"]
        );
        let selected = BTreeSet::from([b"a/fine".to_vec(), b"id_rsa".to_vec()]);
        assert_eq!(find_in(source.path(), Some(&selected)).unwrap().len(), 1);
        assert_eq!(find_in(&path("a/b/key"), None).unwrap()[0].what, "a private key");
    }
}
