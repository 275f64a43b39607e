//! `builtin:npm-package`: a package's tarball as npm unpacks it, without running anything.
//!
//! What npm does (pacote, node-tar): the first part of every name is cut off, links are left out, a `.gitignore` without an
//! `.npmignore` beside it is called `.npmignore`, files may be read by all, and what `package.json` calls a program may be run.

use std::collections::BTreeSet;
use std::io::BufReader;

use store::directory::Claim;
use store::format::tar::read::{Archive, Kind, Problem};
use store::format::{Bounds, unpacked};
use store::{BlobId, File, Metadata, Node, RelativePath, Store};

use crate::builtin::{Builtin, Job};
use crate::draft::Draft;
use crate::{Error, Result};

/// Parameter: `package`, the blob of a tarball.
pub struct Package;

impl Builtin for Package {
    fn name(&self) -> &'static str {
        "npm-package"
    }

    fn phase(&self) -> &'static str {
        "unpack"
    }

    fn build(&self, job: &Job<'_>) -> Result<Claim> {
        let blob = job.blob(&job.parameter::<String>("package")?)?;
        let draft = unpack(job.builder.store, job.name, blob, &|| job.builder.check_interrupt())?;
        Ok(Claim::Delta(draft.delta(job.builder.store)?))
    }
}

/// The files of a package.
fn unpack(store: &Store, name: &str, blob: BlobId, check: &dyn Fn() -> Result<()>) -> Result<Draft> {
    let bad = |reason: String| Error::Invalid { what: "package", name: name.to_owned(), reason };
    let unread = |problem: Problem| match problem {
        Problem::Read(error) => bad(error.to_string()),
        Problem::Damaged(reason) => bad(reason),
    };
    let file = store.open_blob(blob)?;
    let size = file.metadata().map_err(Error::file("look at", store.path()))?.len();
    let mut bounds = Bounds { depth: 256, ..Bounds::for_size(size) };
    let (_, reader) = unpacked(file).map_err(|error| bad(error.to_string()))?;
    let mut archive = Archive::new(BufReader::with_capacity(64 * 1024, reader));
    let mut draft = Draft::new(Metadata::root(0o755));
    let mut ignores: BTreeSet<RelativePath> = BTreeSet::new();
    while let Some(entry) = archive.next().map_err(unread)? {
        check()?;
        let shown = String::from_utf8_lossy(&entry.path).into_owned();
        let path = RelativePath::parse(&entry.path).map_err(|error| bad(format!("`{shown}`: {error}")))?;
        let mut path = RelativePath(path.0.into_iter().skip(1).collect());
        bounds.take(entry.size, path.0.len()).map_err(|reason| bad(format!("`{shown}`: {reason}")))?;
        match entry.kind {
            Kind::Directory => {
                let directory = draft.directory(store, &path.0).map_err(|error| error.about("package", name))?;
                (directory.metadata, directory.passed) = (Metadata::root(0o755), false);
            }
            Kind::File if !path.0.is_empty() => {
                if let Some(last) = path.0.last_mut() {
                    if last.as_bytes() == b".npmignore" {
                        ignores.insert(path.clone());
                    } else if last.as_bytes() == b".gitignore" {
                        *last = store::Name::new(*b".npmignore").expect("a name");
                        if ignores.contains(&path) {
                            continue;
                        }
                    }
                }
                // npm makes every file readable, and for its owner writable; group and others may not write.
                let mode = entry.mode & 0o777 | 0o666;
                let metadata = Metadata::root(mode & !0o022);
                let (blob, size) = store.put_blob_from(&mut archive.content(), mode & 0o111 != 0)?;
                if size != entry.size {
                    return Err(bad(format!("`{shown}` is cut off")));
                }
                let (_, parents) = path.0.split_last().expect("a file has a name");
                settle(&mut draft, store, parents).map_err(|error| error.about("package", name))?;
                let node = Node::File(File { blob, size, metadata });
                draft.replace(store, &path.0, node).map_err(|error| error.about("package", name))?;
            }
            _ => {}
        }
    }
    for program in programs(store, &draft)? {
        set_executable(store, &mut draft, &program).map_err(|error| error.about("package", name))?;
    }
    Ok(draft)
}

/// Directories that an archive names only by what is in them.
fn settle(draft: &mut Draft, store: &Store, path: &[store::Name]) -> Result<(), crate::draft::DraftError> {
    for depth in 1..=path.len() {
        let directory = draft.directory(store, &path[..depth])?;
        (directory.metadata, directory.passed) = (Metadata::root(0o755), false);
    }
    Ok(())
}

/// What `package.json` says are programs (`bin`, a path or paths by name).
fn programs(store: &Store, draft: &Draft) -> Result<Vec<RelativePath>> {
    let about = RelativePath::parse(b"package.json").expect("a path");
    let Some(Node::File(file)) = draft.leaf(store, &about.0)? else { return Ok(Vec::new()) };
    if file.size > 16 << 20 {
        return Ok(Vec::new());
    }
    let text = store.blob(file.blob)?;
    let Ok(about) = serde_json::from_slice::<serde_json::Value>(&text) else { return Ok(Vec::new()) };
    let paths: Vec<&str> = match about.get("bin") {
        Some(serde_json::Value::String(path)) => vec![path],
        Some(serde_json::Value::Object(paths)) => paths.values().filter_map(serde_json::Value::as_str).collect(),
        _ => Vec::new(),
    };
    Ok(paths.into_iter().filter_map(|path| RelativePath::parse(path.as_bytes()).ok()).collect())
}

/// Lets everybody run a file, if it is one.
pub(super) fn set_executable(
    store: &Store,
    draft: &mut Draft,
    path: &RelativePath,
) -> Result<(), crate::draft::DraftError> {
    let Some(Node::File(file)) = draft.leaf(store, &path.0)? else { return Ok(()) };
    let mode = file.metadata.mode | 0o111;
    if mode == file.metadata.mode {
        return Ok(());
    }
    // The store keeps programs apart, so that a checkout can link to them.
    let blob = store.put_blob_from(&mut store.open_blob(file.blob)?, true)?.0;
    let metadata = Metadata { mode, ..file.metadata };
    draft.replace(store, &path.0, Node::File(File { blob, metadata, ..file }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;

    /// A tarball of entries: name, mode, and content; none for a directory, a target after `->` for a link.
    fn tarball(entries: &[(&str, u32, Option<&str>)]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, mode, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_mode(*mode);
            let content = match content {
                None => {
                    header.set_entry_type(tar::EntryType::Directory);
                    ""
                }
                Some(content) => match content.strip_prefix("->") {
                    Some(target) => {
                        header.set_entry_type(tar::EntryType::Symlink);
                        header.set_link_name(target).unwrap();
                        ""
                    }
                    None => content,
                },
            };
            header.set_size(content.len() as u64);
            let bytes = name.as_bytes();
            header.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
            header.set_cksum();
            archive.append(&header, content.as_bytes()).unwrap();
        }
        archive.into_inner().unwrap()
    }

    fn lines(entries: &[(&str, u32, Option<&str>)]) -> Result<String> {
        let world = World::new();
        let builder = world.builder();
        let blob = builder.store.put_blob(&tarball(entries), false)?;
        let tree = unpack(builder.store, "x-1", blob, &|| Ok(()))?.tree(builder.store)?;
        let mut text = String::new();
        fn walk(store: &Store, id: store::TreeId, prefix: &str, text: &mut String) {
            let tree = store.tree(id).unwrap();
            for (name, node) in &tree.entries {
                let path = format!("{prefix}/{name}");
                match node {
                    Node::Directory(id) => {
                        text.push_str(&format!("{path}/ {:o}\n", store.tree(*id).unwrap().metadata.mode));
                        walk(store, *id, &path, text);
                    }
                    Node::File(file) => text.push_str(&format!("{path} {:o}\n", file.metadata.mode)),
                    other => text.push_str(&format!("{path} {other:?}\n")),
                }
            }
        }
        walk(builder.store, tree, "", &mut text);
        Ok(text)
    }

    #[test]
    fn a_package_is_unpacked_as_npm_does() {
        let about = r#"{ "bin": { "x": "./bin/x.js", "gone": "gone.js", "out": "../../etc/passwd" } }"#;
        let text = lines(&[
            ("package", 0o700, None),
            ("package/package.json", 0o600, Some(about)),
            ("package/bin/x.js", 0o644, Some("#!/usr/bin/env node\n")),
            ("package/run.sh", 0o777, Some("#!/bin/sh\n")),
            ("package/.gitignore", 0o644, Some("a")),
            ("package/sub/.npmignore", 0o644, Some("b")),
            ("package/sub/.gitignore", 0o644, Some("c")),
            ("package/link", 0o777, Some("->/etc/passwd")),
        ]);
        insta::assert_snapshot!(text.unwrap(), @"
        /.npmignore 644
        /bin/ 755
        /bin/x.js 755
        /package.json 644
        /run.sh 755
        /sub/ 755
        /sub/.npmignore 644
        ");
    }

    #[test]
    fn an_archive_that_leads_out_is_refused() {
        assert!(lines(&[("package/../../x", 0o644, Some("a"))]).is_err());
        assert!(lines(&[("package/a", 0o644, Some("a")), ("package/a/b", 0o644, Some("b"))]).is_err());
    }

    #[test]
    fn a_name_ends_at_its_first_nul_wherever_it_would_lead_after_that() {
        let text = lines(&[("package/a/\u{1}\0/../../../x", 0o644, Some("b"))]).unwrap();
        assert_eq!(text, "/a/ 755\n/a/\\x01 644\n");
    }
}
