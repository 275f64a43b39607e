//! Mercurial repositories, by the program `hg` of this machine: there is no telling a repository's files without it. What comes out
//! are a commit's files as `hg archive` has them, or a work tree's that are tracked.

use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use store::nix::nar::DEEPEST;
use store::{Name, TreeId};

use crate::draft::Draft;
use crate::fetch::program::Program;
use crate::fetch::{local_path, redact};
use crate::git::keep;
use crate::git::object::EntryKind;
use crate::report::Span;
use crate::{Builder, Error, Result};

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// `file:///path`, `https://…`, `http://…`, `ssh://…`
    pub url: String,
    /// A branch, bookmark or tag; `default` if none is named.
    pub reference: Option<String>,
    /// A commit: 40 hexadecimal digits.
    pub revision: Option<String>,
    /// Of a local work tree, changes that are not committed are taken along; else they are refused.
    pub uncommitted: bool,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The files.
    pub tree: TreeId,
    /// The commit; none if there are changes that are not committed.
    pub revision: Option<String>,
    /// Its number in this repository.
    pub count: Option<u64>,
}

/// Finds a commit's files.
pub fn obtain(builder: &Builder<'_>, wanted: &Wanted) -> Result<Found> {
    let name = wanted.url.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let _span = Span::start(builder.reporter, "fetch", name.to_owned(), None);
    let hg = Hg { builder, wanted };
    let local = local_path(&wanted.url);
    let scheme = wanted.url.split(':').next().unwrap_or_default();
    if local.is_none() && !matches!(scheme, "http" | "https" | "ssh") {
        return Err(hg.refused(format!(
            "`{scheme}:` is not spoken: give an `https:` or `ssh:` address, or the path of a clone"
        )));
    }
    if let Some(top) = local.as_ref().filter(|_| wanted.revision.is_none() && wanted.reference.is_none())
        && top.join(".hg").exists()
        && !hg.run(&["status", "--modified", "--added", "--removed"], Some(top))?.is_empty()
    {
        if !wanted.uncommitted {
            return Err(hg.refused(
                "it has changes that are not committed, which a lock cannot hold: commit them, or name a `rev`",
            ));
        }
        let files = hg.run(&["status", "--clean", "--modified", "--added", "--no-status", "--print0"], Some(top))?;
        let files = files.split(|byte| *byte == 0).filter(|path| !path.is_empty()).map(<[u8]>::to_vec).collect();
        return Ok(Found { tree: hg.keep(top, files)?, revision: None, count: None });
    }
    let scratch = builder.store.scratch()?;
    let [clone, files] = ["clone", "files"].map(|name| scratch.path().join(name));
    let from = local.map_or(wanted.url.clone(), |path| path.display().to_string());
    hg.run(&["clone", "--noupdate", "--quiet", "--", &from, &text(&clone)], None)?;
    let name = wanted.revision.as_deref().or(wanted.reference.as_deref()).unwrap_or("default");
    let told = hg.run(&["log", "--rev", name, "--limit", "1", "--template", "{node} {rev}"], Some(&clone))?;
    let told = String::from_utf8_lossy(&told).into_owned();
    let Some((revision, count)) = told.split_once(' ').filter(|(revision, _)| revision.len() == 40) else {
        return Err(hg.refused(format!("it has no commit, branch or tag `{name}`")));
    };
    if wanted.revision.as_deref().is_some_and(|wanted| wanted != revision) {
        return Err(hg.refused(format!("it says that `{name}` is {revision}")));
    }
    hg.run(&["archive", "--rev", revision, "--", &text(&files)], Some(&clone))?;
    let fail = |error: io::Error| hg.refused(error.to_string());
    let mut paths = Vec::new();
    walk(&files, Path::new(""), 0, &mut paths).map_err(fail)?;
    paths.retain(|path| path != b".hg_archival.txt");
    let tree = hg.keep(&files, paths)?;
    Ok(Found { tree, revision: Some(revision.to_owned()), count: count.parse().ok() })
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// The files and symlinks below a directory, by their paths in it.
fn walk(top: &Path, below: &Path, depth: usize, paths: &mut Vec<Vec<u8>>) -> io::Result<()> {
    if depth > DEEPEST {
        return Err(io::Error::other("its directories nest too deep"));
    }
    for entry in fs::read_dir(top.join(below))? {
        let entry = entry?;
        let path: PathBuf = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            walk(top, &path, depth + 1, paths)?;
        } else {
            paths.push(path.into_os_string().into_vec());
        }
    }
    Ok(())
}

struct Hg<'a> {
    builder: &'a Builder<'a>,
    wanted: &'a Wanted,
}

impl Hg<'_> {
    fn refused(&self, reason: impl Into<String>) -> Error {
        Error::Invalid { what: "Mercurial repository", name: redact(&self.wanted.url), reason: reason.into() }
    }

    fn run(&self, arguments: &[&str], repository: Option<&Path>) -> Result<Vec<u8>> {
        // `HGPLAIN`: the same words whatever the user has configured (hg(1), environment).
        let program = Program::new("hg").arguments(repository.iter().flat_map(|top| ["-R".to_owned(), text(top)]));
        let program =
            program.arguments(["--noninteractive"]).arguments(arguments.iter().copied()).variable("HGPLAIN", "1");
        program.output(self.builder, "Mercurial repositories", |words| self.refused(words))
    }

    /// Takes files into the store.
    fn keep(&self, top: &Path, paths: Vec<Vec<u8>>) -> Result<TreeId> {
        let store = self.builder.store;
        let mut draft = Draft::passing();
        for path in paths {
            self.builder.check_interrupt()?;
            let place = top.join(std::ffi::OsStr::from_bytes(&path));
            let (kind, content) = read(&place).map_err(Error::file("read", &place))?;
            let node = keep::leaf(store, kind, &content)
                .map_err(|stop| stop.unwrap_or_else(|| self.refused("a symlink leads nowhere")))?;
            let names = path.split(|byte| *byte == b'/').map(Name::new).collect::<Result<Vec<_>, _>>();
            let names = names.map_err(|error| self.refused(error.to_string()))?;
            draft.insert(store, &names, node).map_err(|error| error.about("Mercurial repository", &self.wanted.url))?;
        }
        Ok(draft.tree(store)?)
    }
}

fn read(place: &Path) -> io::Result<(EntryKind, Vec<u8>)> {
    use std::os::unix::fs::PermissionsExt as _;
    let metadata = fs::symlink_metadata(place)?;
    if metadata.is_symlink() {
        return Ok((EntryKind::Symlink, fs::read_link(place)?.into_os_string().into_vec()));
    }
    let kind = if metadata.permissions().mode() & 0o100 != 0 { EntryKind::Executable } else { EntryKind::File };
    Ok((kind, fs::read(place)?))
}
