//! `builtin:files`: puts sources, downloads and other layers at paths of a root.

use std::collections::{BTreeMap, BTreeSet};

use store::directory::Claim;
use store::{Delta, DeltaId, File, Metadata, Node, RelativePath, Tree};

use super::{Builtin, Input, Job};
use crate::{Error, Result};

/// Parameters: `files`, from absolute target to store path. A longer target may lie inside a shorter one.
pub struct Files;

impl Builtin for Files {
    fn name(&self) -> &'static str {
        "files"
    }

    fn phase(&self) -> &'static str {
        "files"
    }

    fn build(&self, job: &Job<'_>) -> Result<Claim> {
        let files: BTreeMap<String, String> = job.parameter("files")?;
        let mut nodes: BTreeMap<RelativePath, (&str, Node)> = BTreeMap::new();
        for (target, source) in &files {
            let bad = |reason: &str| Error::Conflict { path: target.clone(), reason: reason.to_owned() };
            if !target.starts_with('/') {
                return Err(bad("a path inside a formation starts with `/`"));
            }
            let path = RelativePath::parse(target.as_bytes()).map_err(|_| bad("not a path"))?;
            if let Some((other, _)) = nodes.insert(path, (target, node(job, source)?)) {
                return Err(bad(&format!("the same path as `{other}`")));
            }
        }
        let mut deltas = Vec::new();
        for (path, (target, node)) in &nodes {
            let above = (0..path.0.len()).filter_map(|depth| nodes.get(&RelativePath(path.0[..depth].to_vec())));
            if let Some((file, _)) = above.into_iter().find(|(_, node)| !matches!(node, Node::Directory(_))) {
                let reason = format!("it lies below `{file}`, which is no directory");
                return Err(Error::Conflict { path: (*target).to_owned(), reason });
            }
            deltas.push(place(job, path, node.clone())?);
        }
        Ok(Claim::Delta(job.builder.store.squash(&deltas)?))
    }
}

/// What a path in the store stands for: an input of the step, or what lies below one.
fn node(job: &Job<'_>, source: &str) -> Result<Node> {
    let store = job.builder.store;
    // `/nix/store/NAME`, and the rest.
    let end = source.match_indices('/').nth(3).map_or(source.len(), |(end, _)| end);
    let (input, rest) = source.split_at(end);
    let mut node = match job.input(input)? {
        Input::Source(node) | Input::Output { node, .. } => node.clone(),
        Input::Claim(Claim::Blob(blob)) => {
            let size = store.open_blob(*blob)?.metadata().map_err(Error::file("read", input))?.len();
            Node::File(File { blob: *blob, size, metadata: Metadata::root(0o644) })
        }
        Input::Claim(Claim::Delta(delta)) => Node::Directory(store.delta(*delta)?.tree),
    };
    for part in rest.split('/').filter(|part| !part.is_empty()) {
        let missing = |reason: &str| Error::Conflict { path: source.to_owned(), reason: reason.to_owned() };
        let Node::Directory(tree) = node else { return Err(missing("what is above it is no directory")) };
        let tree = store.tree(tree)?;
        let found = tree.entries.iter().find(|(name, _)| name.as_bytes() == part.as_bytes());
        node = found.ok_or_else(|| missing(&format!("there is no `{part}`")))?.1.clone();
    }
    Ok(node)
}

/// A delta with one thing at one path; the directories on the way are passed through.
fn place(job: &Job<'_>, path: &RelativePath, mut node: Node) -> Result<DeltaId> {
    let store = job.builder.store;
    for name in path.0.iter().rev() {
        let tree = Tree { entries: BTreeMap::from([(name.clone(), node)]), ..Tree::empty() };
        node = Node::Directory(store.put_tree(&tree)?);
    }
    let Node::Directory(tree) = node else {
        let reason = "a file cannot be the root".to_owned();
        return Err(Error::Conflict { path: "/".to_owned(), reason });
    };
    let passed: BTreeSet<RelativePath> =
        (0..path.0.len().max(1)).map(|depth| RelativePath(path.0[..depth].to_vec())).collect();
    Ok(store.put_delta(&Delta { tree, removed: BTreeSet::new(), passed })?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draft::Draft;
    use crate::world::World;

    /// Puts a file `F` and a directory `D` with a file `a` at these targets; gives what is refused.
    fn placed(targets: &[(&str, &str)]) -> String {
        let world = World::new();
        let builder = world.builder();
        let blob = builder.store.put_blob(b"text", false).unwrap();
        let file = Input::Source(Node::File(File { blob, size: 4, metadata: Metadata::root(0o644) }));
        let mut draft = Draft::passing();
        draft.write(builder.store, "a", 0o644, b"a").unwrap();
        let directory = Input::Claim(Claim::Delta(draft.delta(builder.store).unwrap()));
        let inputs = BTreeMap::from([("F".to_owned(), file), ("D".to_owned(), directory)]);
        let files: BTreeMap<&str, &str> = targets.iter().copied().collect();
        let parameters = serde_json::json!({ "files": files });
        let job = Job { builder: &builder, name: "files", parameters: &parameters, inputs: &inputs, fixed: None };
        Files.build(&job).map_or_else(|error| error.to_string(), |_| "placed".to_owned())
    }

    #[test]
    fn nothing_is_put_below_a_file_or_twice_at_one_path() {
        // What a derivation gives, a file or a directory, an expression cannot know.
        assert_eq!(placed(&[("/x", "F"), ("/x/y", "F")]), "`/x/y`: it lies below `/x`, which is no directory");
        assert_eq!(placed(&[("/x", "F"), ("/x/y/z", "D")]), "`/x/y/z`: it lies below `/x`, which is no directory");
        assert_eq!(placed(&[("/x", "F"), ("//x", "D")]), "`/x`: the same path as `//x`");
        assert_eq!(placed(&[("/x", "D"), ("/x/a", "F"), ("/x/b", "F"), ("/x-y", "F"), ("/", "D")]), "placed");
    }
}
