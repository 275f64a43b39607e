//! `builtin:keep`: of what a step left, some paths; the rest was only for building.

use store::directory::Claim;
use store::{Derivation, Node, RelativePath};

use super::{Builtin, Job};
use crate::draft::{Draft, find};
use crate::{Error, Result};

/// Parameters: `layer`, `paths` (absolute).
pub struct Keep;

/// What a step of this kind keeps; none of another kind.
pub fn paths(derivation: &Derivation) -> Option<Vec<RelativePath>> {
    #[derive(serde::Deserialize)]
    struct Parameters {
        paths: Vec<String>,
    }
    let is_keep = derivation.builder.strip_prefix(b"builtin:").is_some_and(|name| name == Keep.name().as_bytes());
    let parameters = derivation.environment.get(&b"parameters"[..]).filter(|_| is_keep)?;
    let Parameters { paths } = serde_json::from_slice(parameters).ok()?;
    paths.iter().map(|path| RelativePath::parse(path.as_bytes()).ok()).collect()
}

impl Builtin for Keep {
    fn name(&self) -> &'static str {
        "keep"
    }

    fn phase(&self) -> &'static str {
        "keep"
    }

    fn build(&self, job: &Job<'_>) -> Result<Claim> {
        let store = job.builder.store;
        let tree = store.delta(job.delta(&job.parameter::<String>("layer")?)?)?.tree;
        let mut draft = Draft::passing();
        for given in job.parameter::<Vec<String>>("paths")? {
            let bad = |reason: String| Error::Conflict { path: given.clone(), reason };
            let path = RelativePath::parse(given.as_bytes()).map_err(|error| bad(error.to_string()))?;
            if path.0.is_empty() || !given.starts_with('/') {
                return Err(bad("a path below `/` is expected".to_owned()));
            }
            let node = find(store, tree, &path.0)?;
            let node = node.ok_or_else(|| bad(format!("step `{}` has not made it", job.name)))?;
            let is_directory = matches!(node, Node::Directory(_));
            draft.insert(store, &path.0, node).map_err(|error| error.about("layer", job.name))?;
            if is_directory {
                // Where the formation has the directory already, it stays as it is.
                let directory = draft.directory(store, &path.0).map_err(|error| error.about("layer", job.name))?;
                directory.passed = true;
            }
        }
        Ok(Claim::Delta(draft.delta(store)?))
    }
}
