//! Trees from elsewhere: archives, single files, repositories of git and Mercurial. They are named by the hash of their Nix archive, and
//! looked for by it in the store before anybody is asked.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;
use store::derivation::Fetched;
use store::digest::StepKey;
use store::directory::{Claim, Ownership};
use store::lock::{LockEntry, LockRequest};
use store::nix::hash::{HashAlgorithm, HashFormat, NixHash};
use store::{BlobId, Delta, File, Metadata, Name, Node, Tree};

use super::{Wanted, percent_encode};
use crate::git::object::ObjectId;
use crate::resolve::{Resolver, parameter, parameter_or};
use crate::{Builder, Error, Result, git, hg, unpack};

/// `{type, …}` → one record. `type` and what else there is are as in a flake reference (`docs/formats/lock.md`).
pub struct Trees;

/// What was found at an address.
struct Found {
    node: Node,
    /// `rev`, `revCount`, `lastModified`, `dirtyRev`
    record: BTreeMap<String, Value>,
}

impl Resolver for Trees {
    fn kind(&self) -> &'static str {
        "tree"
    }

    fn resolve(&self, builder: &Builder<'_>, request: &LockRequest) -> Result<LockEntry> {
        let Found { node, mut record } = look(builder, request)?;
        let hash = keep(builder, &node)?;
        record.insert("narHash".to_owned(), Value::from(hash.to_text(HashFormat::Sri, true)));
        Ok(LockEntry { request: request.clone(), records: vec![record] })
    }
}

/// Hashes a tree, and remembers it by its hash.
fn keep(builder: &Builder<'_>, node: &Node) -> Result<NixHash> {
    let hash = builder.store.nar_hash(node, HashAlgorithm::Sha256)?;
    let claim = match node {
        Node::Directory(tree) => Claim::Delta(builder.store.put_delta(&Delta::whole(*tree))?),
        Node::File(file) => Claim::Blob(file.blob),
        _ => return Ok(hash),
    };
    builder.store.put_claim_of_step(&key(hash.as_bytes()), &claim)?;
    Ok(hash)
}

fn key(sha256: &[u8]) -> StepKey {
    StepKey::of(&[b"tree with the sha256 of its nix archive ".as_slice(), sha256].concat())
}

/// What has this hash: from the store, or from where the request leads. Anything else that comes from there is refused.
pub fn obtain(builder: &Builder<'_>, fetched: &Fetched) -> Result<Node> {
    if !fetched.recursive {
        let url: String = parameter(&fetched.request, "url")?;
        let wanted = Wanted { url: &url, sha256: Some(fetched.sha256), size: None };
        let (blob, _) = builder.fetcher.fetch(builder, &wanted)?;
        return file(builder, blob);
    }
    match builder.store.claim_of_step(&key(&fetched.sha256))? {
        Some(Claim::Delta(delta)) => {
            if let Ok(delta) = builder.store.delta(delta)
                && builder.store.extent(delta.tree).is_ok()
            {
                return Ok(Node::Directory(delta.tree));
            }
        }
        Some(Claim::Blob(blob)) if builder.store.has_blob(blob) => return file(builder, blob),
        _ => {}
    }
    let Found { node, .. } = look(builder, &fetched.request)?;
    let actual = keep(builder, &node)?;
    if actual.as_bytes() == fetched.sha256 {
        return Ok(node);
    }
    let text = |hash: &NixHash| hash.to_text(HashFormat::Sri, true);
    let expected = NixHash::from_bytes(HashAlgorithm::Sha256, fetched.sha256.to_vec());
    Err(Error::Mismatch {
        what: describe(&fetched.request),
        actual: text(&actual),
        expected: expected.as_ref().map(text).unwrap_or_default(),
    })
}

/// The same, laid out on disk: where it can be read. It stays as long as the store is open.
pub fn lay_out(builder: &Builder<'_>, fetched: &Fetched) -> Result<PathBuf> {
    let node = obtain(builder, fetched)?;
    let name = Name::new(*b"file").expect("a name");
    let (tree, inside) = match node {
        Node::Directory(tree) => (tree, None),
        node => {
            let entries = BTreeMap::from([(name.clone(), node)]);
            (builder.store.put_tree(&Tree { entries, ..Tree::empty() })?, Some(name))
        }
    };
    let directory = builder.store.checkout(tree, Ownership::Caller)?;
    Ok(inside.map_or(directory.clone(), |name| directory.join(name.as_os_str())))
}

fn file(builder: &Builder<'_>, blob: BlobId) -> Result<Node> {
    let size = builder.store.open_blob(blob)?.metadata().map_err(Error::file("look at", builder.store.path()))?.len();
    Ok(Node::File(File { blob, size, metadata: Metadata::root(0o644) }))
}

/// What a request asks for, in words.
fn describe(request: &LockRequest) -> String {
    let text = |name: &str| request.parameters.get(name).and_then(Value::as_str).unwrap_or_default();
    match text("url") {
        "" => format!("{}:{}/{}", text("type"), text("owner"), text("repo")),
        url => super::redact(url),
    }
}

fn look(builder: &Builder<'_>, request: &LockRequest) -> Result<Found> {
    let kind: String = parameter(request, "type")?;
    match kind.as_str() {
        "tarball" => archive(builder, &parameter::<String>(request, "url")?, None),
        "file" => {
            let url: String = parameter(request, "url")?;
            let (blob, _) = builder.fetcher.fetch(builder, &Wanted { url: &url, sha256: None, size: None })?;
            Ok(Found { node: file(builder, blob)?, record: BTreeMap::new() })
        }
        "git" => from_git(builder, request),
        "hg" => from_hg(builder, request),
        "github" | "gitlab" | "sourcehut" => from_forge(builder, request, &kind),
        _ => Err(Error::Parameter {
            step: "lock of tree".to_owned(),
            parameter: "type".to_owned(),
            reason: format!("`{kind}` is none of `tarball`, `file`, `git`, `hg`, `github`, `gitlab`, `sourcehut`"),
        }),
    }
}

fn archive(builder: &Builder<'_>, url: &str, revision: Option<ObjectId>) -> Result<Found> {
    let (blob, _) = builder.fetcher.fetch(builder, &Wanted { url, sha256: None, size: None })?;
    let unpacked = unpack::unpack(builder, blob, &super::redact(url))?;
    let mut record = BTreeMap::from([("lastModified".to_owned(), Value::from(unpacked.modified))]);
    record.extend(revision.map(|revision| ("rev".to_owned(), Value::from(revision.to_string()))));
    Ok(Found { node: Node::Directory(unpacked.tree), record })
}

fn revision(request: &LockRequest) -> Result<Option<ObjectId>> {
    let text: Option<String> = parameter_or(request, "rev", None)?;
    let parsed = text.map(|text| ObjectId::parse(&text).ok_or(text));
    parsed.transpose().map_err(|text| Error::Parameter {
        step: "lock of tree".to_owned(),
        parameter: "rev".to_owned(),
        reason: format!("`{text}` is no commit"),
    })
}

fn from_git(builder: &Builder<'_>, request: &LockRequest) -> Result<Found> {
    let flag = |name: &str| parameter_or(request, name, false);
    let wanted = git::Wanted {
        url: parameter(request, "url")?,
        reference: parameter_or(request, "ref", None)?,
        revision: revision(request)?,
        submodules: flag("submodules")?,
        shallow: flag("shallow")?,
        export_ignore: flag("exportIgnore")?,
        uncommitted: flag("uncommitted")?,
    };
    let found = git::obtain(builder, &wanted)?;
    let mut record = BTreeMap::from([("lastModified".to_owned(), Value::from(found.time))]);
    let name = if found.dirty { "dirtyRev" } else { "rev" };
    record.insert(name.to_owned(), Value::from(found.revision.to_string()));
    record.extend(found.count.map(|count| ("revCount".to_owned(), Value::from(count))));
    Ok(Found { node: Node::Directory(found.tree), record })
}

fn from_hg(builder: &Builder<'_>, request: &LockRequest) -> Result<Found> {
    let wanted = hg::Wanted {
        url: parameter(request, "url")?,
        reference: parameter_or(request, "ref", None)?,
        revision: parameter_or(request, "rev", None)?,
        uncommitted: parameter_or(request, "uncommitted", false)?,
    };
    let found = hg::obtain(builder, &wanted)?;
    let mut record = BTreeMap::new();
    record.extend(found.revision.map(|revision| ("rev".to_owned(), Value::from(revision))));
    record.extend(found.count.map(|count| ("revCount".to_owned(), Value::from(count))));
    Ok(Found { node: Node::Directory(found.tree), record })
}

/// Where a forge keeps a repository, and an archive of one of its commits.
struct Forge {
    repository: String,
    archive: String,
}

fn forge(kind: &str, host: Option<&str>, owner: &str, name: &str, revision: &str) -> Forge {
    match kind {
        "gitlab" => {
            let host = host.unwrap_or("gitlab.com");
            let project = percent_encode(&format!("{owner}/{name}"));
            Forge {
                repository: format!("https://{host}/{owner}/{name}.git"),
                archive: format!("https://{host}/api/v4/projects/{project}/repository/archive.tar.gz?sha={revision}"),
            }
        }
        "sourcehut" => {
            let repository = format!("https://{}/{owner}/{name}", host.unwrap_or("git.sr.ht"));
            Forge { archive: format!("{repository}/archive/{revision}.tar.gz"), repository }
        }
        _ => {
            let repository = format!("https://{}/{owner}/{name}", host.unwrap_or("github.com"));
            Forge { archive: format!("{repository}/archive/{revision}.tar.gz"), repository }
        }
    }
}

fn from_forge(builder: &Builder<'_>, request: &LockRequest, kind: &str) -> Result<Found> {
    let (owner, name): (String, String) = (parameter(request, "owner")?, parameter(request, "repo")?);
    let host: Option<String> = parameter_or(request, "host", None)?;
    let at = |revision: &str| forge(kind, host.as_deref(), &owner, &name, revision);
    let revision = match revision(request)? {
        Some(revision) => revision,
        None => {
            let wanted = git::Wanted {
                url: at("").repository,
                reference: parameter_or(request, "ref", None)?,
                revision: None,
                submodules: false,
                shallow: true,
                export_ignore: false,
                uncommitted: false,
            };
            git::revision_of(builder, &wanted)?
        }
    };
    archive(builder, &at(&revision.to_string()).archive, Some(revision))
}

#[cfg(test)]
mod tests;
