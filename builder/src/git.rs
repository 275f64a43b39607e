//! Git repositories, read by forge itself: local ones where they lie, others by git's own protocol. No program is run but `ssh`, for
//! its addresses.
//!
//! Every object is compared with the name it was asked by, so a commit is what its name says whoever hands it over. What
//! comes out are a commit's files as they are committed: nothing is converted, and `.git` is not part of them.

pub mod attributes;
mod index;
pub mod keep;
mod line;
pub mod object;
pub mod pack;
mod remote;
pub mod repository;
pub mod work_tree;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use store::{Name, TreeId};

use crate::draft::Draft;
use crate::fetch::{local_path, redact};
use crate::report::Span;
use crate::{Builder, Error, Result};
use attributes::Attributes;
use keep::Keeper;
use object::{EntryKind, Kind, ObjectId};
use remote::Remote;
use repository::Repository;

/// How deep repositories may be nested as submodules.
const DEEPEST: usize = 16;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// `file:///path`, `https://…`, `http://…`, `ssh://…`
    pub url: String,
    /// A branch, a tag, or a full reference; `HEAD` if none is named.
    pub reference: Option<String>,
    /// A commit.
    pub revision: Option<ObjectId>,
    /// With the files of other repositories that the commit names.
    pub submodules: bool,
    /// The number of commits is of no interest.
    pub shallow: bool,
    /// Without what `.gitattributes` says is not to be handed out.
    pub export_ignore: bool,
    /// Of a local work tree, changes that are not committed are taken along; else they are refused.
    pub uncommitted: bool,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The files.
    pub tree: TreeId,
    /// The commit they are of, or the one that they were changed from.
    pub revision: ObjectId,
    /// There are changes that are not committed.
    pub dirty: bool,
    /// When it was committed, in seconds since 1970.
    pub time: i64,
    /// How many commits led to it, itself included; not where that is of no interest.
    pub count: Option<u64>,
}

/// Finds a commit's files.
pub fn obtain(builder: &Builder<'_>, wanted: &Wanted) -> Result<Found> {
    obtain_nested(builder, wanted, 0)
}

fn obtain_nested(builder: &Builder<'_>, wanted: &Wanted, depth: usize) -> Result<Found> {
    let _span = Span::start(builder.reporter, "fetch", label(&wanted.url), None);
    if depth > DEEPEST {
        return Err(refused(&wanted.url, "its submodules nest too deep"));
    }
    if let Some(path) = local_path(&wanted.url) {
        let repository = Repository::open(&path).map_err(|error| refused(&wanted.url, error.to_string()))?;
        let repository = repository.ok_or_else(|| refused(&wanted.url, "there is none at this path"))?;
        return Source { builder, wanted, repository, depth }.local();
    }
    let scheme = wanted.url.split(':').next().unwrap_or_default();
    if !matches!(scheme, "http" | "https" | "ssh") {
        let reason = format!("`{scheme}:` is not spoken: give an `https:` or `ssh:` address, or the path of a clone");
        return Err(refused(&wanted.url, reason));
    }
    let remote = Remote::open(builder, &wanted.url)?;
    let scratch = builder.store.scratch()?;
    let revision = match wanted.revision {
        Some(revision) => revision,
        None => advertised(&remote, wanted)?,
    };
    let depth_of_history = wanted.shallow.then_some(1);
    if let Err(error) = remote.fetch(&[revision], depth_of_history, scratch.path()) {
        // A server may hand out only what a reference leads to: then all of that is fetched.
        if wanted.revision.is_none() || !matches!(error, Error::Invalid { .. }) {
            return Err(error);
        }
        let all: BTreeSet<ObjectId> = remote.references(&["refs/"])?.into_iter().map(|(_, id)| id).collect();
        let all: Vec<ObjectId> = all.into_iter().collect();
        remote.fetch(&all, None, scratch.path())?;
    }
    let repository = Repository::open(scratch.path()).map_err(|error| refused(&wanted.url, error.to_string()))?;
    let repository = repository.ok_or_else(|| refused(&wanted.url, "it gives nothing"))?;
    let source = Source { builder, wanted, repository, depth };
    let commit = source.peel(revision)?;
    source.commit(commit)
}

/// What the server says that the wanted reference is.
fn advertised(remote: &Remote<'_>, wanted: &Wanted) -> Result<ObjectId> {
    let name = wanted.reference.as_deref().unwrap_or("HEAD");
    let candidates = if name == "HEAD" || name.starts_with("refs/") {
        vec![name.to_owned()]
    } else {
        vec![format!("refs/heads/{name}"), format!("refs/tags/{name}")]
    };
    let prefixes: Vec<&str> = candidates.iter().map(String::as_str).collect();
    let references = remote.references(&prefixes)?;
    let find = |candidate: &String| references.iter().find(|(name, _)| name == candidate).map(|(_, id)| *id);
    candidates.iter().find_map(find).ok_or_else(|| no_reference(&wanted.url, name))
}

/// What a reference of a repository elsewhere is at the moment: the commit's name.
pub fn revision_of(builder: &Builder<'_>, wanted: &Wanted) -> Result<ObjectId> {
    advertised(&Remote::open(builder, &wanted.url)?, wanted)
}

fn refused(url: &str, reason: impl Into<String>) -> Error {
    Error::Invalid { what: "Git repository", name: redact(url), reason: reason.into() }
}

fn no_reference(url: &str, name: &str) -> Error {
    refused(url, format!("it has no branch, tag or reference `{name}`"))
}

fn label(url: &str) -> String {
    let name = url.split('?').next().unwrap_or(url).trim_end_matches('/');
    name.rsplit('/').next().unwrap_or(name).to_owned()
}

/// A repository that something is taken from.
struct Source<'a> {
    builder: &'a Builder<'a>,
    wanted: &'a Wanted,
    repository: Repository,
    depth: usize,
}

impl Source<'_> {
    fn fail(&self, error: impl ToString) -> Error {
        refused(&self.wanted.url, error.to_string())
    }

    fn local(&self) -> Result<Found> {
        let (repository, wanted) = (&self.repository, self.wanted);
        if let Some(revision) = wanted.revision {
            let commit = self.peel(revision)?;
            return self.commit(commit);
        }
        let name = wanted.reference.as_deref().unwrap_or("HEAD");
        // gitrevisions(7), "<refname>"
        let places = ["", "refs/", "refs/tags/", "refs/heads/", "refs/remotes/"];
        let mut found = None;
        for place in places {
            let full = format!("{place}{name}");
            let is_reference = full.starts_with("refs/") || full == "HEAD";
            if let Some(id) = repository.reference(&full).map_err(|error| self.fail(error))?.filter(|_| is_reference) {
                found = Some(id);
                break;
            }
        }
        let id = found.ok_or_else(|| no_reference(&wanted.url, name))?;
        let commit = self.peel(id)?;
        match (&repository.work_tree, &wanted.reference) {
            (Some(top), None) => self.work_tree(top, commit),
            _ => self.commit(commit),
        }
    }

    /// The commit that a name stands for.
    fn peel(&self, id: ObjectId) -> Result<ObjectId> {
        let commit = self.repository.peel(id).map_err(|error| self.fail(error))?;
        commit.ok_or_else(|| self.fail(format!("it has no commit {id}")))
    }

    fn commit(&self, id: ObjectId) -> Result<Found> {
        let commit = self.repository.commit(id).map_err(|error| self.fail(error))?;
        let check = || self.builder.check_interrupt();
        let count = if self.wanted.shallow {
            None
        } else if self.repository.is_shallow() {
            return Err(self.fail("it is shallow, so how many commits there are is not known: say `shallow = true`"));
        } else {
            Some(self.repository.count(id, &check)?.map_err(|error| self.fail(error))?)
        };
        let modules = if self.wanted.submodules { self.modules(commit.tree)? } else { BTreeMap::new() };
        let keeper = Keeper {
            store: self.builder.store,
            repository: &self.repository,
            export_ignore: self.wanted.export_ignore,
            check: &check,
            fail: &|error| self.fail(error),
        };
        let tree = keeper.keep(commit.tree, &mut |path, id| self.submodule(&modules, path, id))?;
        Ok(Found { tree, revision: id, dirty: false, time: commit.time, count })
    }

    /// The submodules that a tree's `.gitmodules` names: name and address, by path.
    fn modules(&self, tree: ObjectId) -> Result<BTreeMap<Vec<u8>, Module>> {
        let content = self.repository.wanted(tree, Kind::Tree).map_err(|error| self.fail(error))?;
        let entries = object::tree(&content).ok_or_else(|| self.fail("a tree is damaged"))?;
        let Some(entry) = entries.iter().find(|entry| entry.name == b".gitmodules") else { return Ok(BTreeMap::new()) };
        let text = self.repository.wanted(entry.id, Kind::Blob).map_err(|error| self.fail(error))?;
        Ok(read_modules(&text))
    }

    fn submodule(&self, modules: &BTreeMap<Vec<u8>, Module>, path: &[u8], id: ObjectId) -> Result<Option<TreeId>> {
        let Some(module) = modules.get(path) else { return Ok(None) };
        let base = self.repository.origin().unwrap_or_else(|| self.wanted.url.clone());
        let wanted = Wanted {
            url: module_url(&base, &module.url),
            reference: None,
            revision: Some(id),
            submodules: true,
            shallow: true,
            export_ignore: false,
            uncommitted: false,
        };
        // A clone may have it already.
        let parts = module.name.split('/');
        let kept = parts.fold(self.repository.directory.join("modules"), |path, part| path.join(part));
        let leads_out = module.name.split('/').any(|part| matches!(part, "" | "." | ".."));
        if !leads_out && let Ok(Some(repository)) = Repository::open(&kept) {
            let source = Source { builder: self.builder, wanted: &wanted, repository, depth: self.depth + 1 };
            if matches!(source.repository.peel(id), Ok(Some(_))) {
                return Ok(Some(source.commit(id)?.tree));
            }
        }
        Ok(Some(obtain_nested(self.builder, &wanted, self.depth + 1)?.tree))
    }

    /// A work tree: its commit if nothing was changed since, else what is there now.
    fn work_tree(&self, top: &Path, id: ObjectId) -> Result<Found> {
        let commit = self.repository.commit(id).map_err(|error| self.fail(error))?;
        let read = || -> io::Result<_> {
            let committed = work_tree::committed(&self.repository, commit.tree)?;
            let staged = work_tree::staged(&self.repository)?;
            let dirty = work_tree::is_dirty(top, &committed, &staged)?;
            Ok((staged, dirty))
        };
        let (staged, dirty) = read().map_err(|error| self.fail(error))?;
        if !dirty {
            return self.commit(id);
        }
        if !self.wanted.uncommitted {
            return Err(self.fail(
                "it has changes that are not committed, which a lock cannot hold: commit them, or name a `rev`",
            ));
        }
        if self.wanted.submodules && staged.values().any(|(kind, _)| *kind == EntryKind::Submodule) {
            return Err(self.fail("it has changes that are not committed, and submodules: commit them"));
        }
        let mut attributes: Vec<(Vec<u8>, Attributes)> = Vec::new();
        if self.wanted.export_ignore {
            for path in staged.keys().filter(|path| *path == b".gitattributes" || path.ends_with(b"/.gitattributes")) {
                if let Some((_, text)) = work_tree::on_disk(top, path).map_err(|error| self.fail(error))? {
                    attributes.push((path[..path.len() - b".gitattributes".len()].to_vec(), Attributes::parse(&text)));
                }
            }
        }
        let mut draft = Draft::passing();
        for path in staged.iter().filter(|(_, (kind, _))| *kind != EntryKind::Submodule).map(|(path, _)| path) {
            self.builder.check_interrupt()?;
            if is_ignored(&attributes, path) {
                continue;
            }
            let Some((kind, content)) = work_tree::on_disk(top, path).map_err(|error| self.fail(error))? else {
                continue;
            };
            let node = keep::leaf(self.builder.store, kind, &content)
                .map_err(|stop| stop.unwrap_or_else(|| self.fail("a symlink leads nowhere")))?;
            let names: Vec<Name> = path
                .split(|byte| *byte == b'/')
                .map(Name::new)
                .collect::<Result<_, _>>()
                .map_err(|error| self.fail(error))?;
            draft
                .insert(self.builder.store, &names, node)
                .map_err(|error| error.about("Git repository", &self.wanted.url))?;
        }
        let tree = draft.tree(self.builder.store)?;
        Ok(Found { tree, revision: id, dirty: true, time: commit.time, count: None })
    }
}

/// Whether a path, or a directory on the way to it, is left out.
fn is_ignored(attributes: &[(Vec<u8>, Attributes)], path: &[u8]) -> bool {
    let ends = (0..path.len()).filter(|at| path[*at] == b'/').chain([path.len()]);
    ends.into_iter().any(|end| {
        let path = &path[..end];
        let mut chain: Vec<(usize, Attributes)> = attributes
            .iter()
            .filter(|(directory, _)| path.starts_with(directory))
            .map(|(directory, attributes)| (directory.len(), attributes.clone()))
            .collect();
        chain.sort_by_key(|(start, _)| *start);
        attributes::ignored(&chain, path)
    })
}

/// A submodule in `.gitmodules`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Module {
    name: String,
    url: String,
}

/// Reads `.gitmodules` (git-config(1) as far as git itself writes it there).
fn read_modules(text: &[u8]) -> BTreeMap<Vec<u8>, Module> {
    let text = String::from_utf8_lossy(text);
    let mut modules = BTreeMap::new();
    let (mut name, mut path, mut url) = (String::new(), None::<String>, None::<String>);
    for line in text.lines().map(str::trim).chain(["["]) {
        if let Some(section) = line.strip_prefix('[') {
            if let (Some(path), Some(url)) = (path.take(), url.take()) {
                modules.insert(path.into_bytes(), Module { name: std::mem::take(&mut name), url });
            }
            name = section.split('"').nth(1).unwrap_or_default().to_owned();
        } else if let Some((key, value)) = line.split_once('=') {
            let value = value.trim().trim_matches('"').to_owned();
            match key.trim().to_ascii_lowercase().as_str() {
                "path" => path = Some(value.trim_end_matches('/').to_owned()),
                "url" => url = Some(value),
                _ => {}
            }
        }
    }
    modules
}

/// Where a submodule is: relative addresses start at the repository's own (git-submodule(1)).
fn module_url(base: &str, url: &str) -> String {
    let as_url = |text: &str| if text.starts_with('/') { format!("file://{text}") } else { text.to_owned() };
    if !url.starts_with("./") && !url.starts_with("../") {
        return as_url(url);
    }
    let mut base = as_url(base).trim_end_matches('/').to_owned();
    let mut rest = url;
    loop {
        if let Some(further) = rest.strip_prefix("../") {
            base.truncate(base.rfind('/').unwrap_or(base.len()));
            rest = further;
        } else if let Some(further) = rest.strip_prefix("./") {
            rest = further;
        } else {
            return format!("{base}/{rest}");
        }
    }
}

#[cfg(test)]
mod tests;
