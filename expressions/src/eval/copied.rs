//! What lies in the store as far as an evaluation knows it, whether or not anybody ever builds it: sources that were copied (with what a
//! filter left of them), texts, and the files of derivations.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use store::StorePath;
use store::derivation::Source;

use super::Evaluator;
use crate::failure::{Failure, Result};
use crate::places::PlaceId;
use crate::value::{Attribute, Context, Reference, Value};
use crate::{paths, store_path};

/// `<nix/fetchurl.nix>`, which is in no directory.
pub const FETCHURL_PATH: &[u8] = b"/<nix/fetchurl.nix>";

/// A download as a derivation, with the attributes that Nix gives it, so that its name is the same.
const FETCHURL: &[u8] = include_bytes!("../builtins/fetchurl.nix");

/// What importing the file of a derivation gives; see [`Evaluator::import_derivation`].
const IMPORTED: &str = include_str!("../builtins/imported-derivation.nix");

impl Evaluator {
    /// The store path of a file or directory as it is now; it becomes a source of the plan.
    pub fn copy_to_store(&self, path: &[u8], context: &mut Context) -> Result<StorePath> {
        let path = paths::normal(path);
        let known = self.registry.borrow().copied.get(&path).cloned();
        let store_path = match known {
            Some(store_path) => store_path,
            None => {
                if path.ends_with(b".drv") {
                    return Err(Failure::new("file names are not allowed to end in '.drv'"));
                }
                let store_path = self.hash_source(&path, paths::base_name(&path), None)?;
                self.registry.borrow_mut().copied.insert(path, store_path.clone());
                store_path
            }
        };
        context.insert(Reference::Path(store_path.clone()));
        Ok(store_path)
    }

    /// Hashes a tree, whole or filtered, and notes it as a source. Of one that was filtered before, only what is left counts.
    pub fn hash_source(&self, path: &[u8], name: &[u8], filter: Option<&Value>) -> Result<StorePath> {
        let around = self.selection(path);
        let mut selected = (filter.is_some() || around.is_some()).then(BTreeSet::new);
        let real = self.real_path(path)?;
        let mut keep = |relative: &[u8], kind: crate::nar::FileKind| -> Result<bool> {
            if around.as_ref().is_some_and(|around| !around.has(relative)) {
                return Ok(false);
            }
            let Some(filter) = filter else {
                selected.as_mut().map(|selected| selected.insert(relative.to_vec()));
                return Ok(true);
            };
            let mut whole = path.to_vec();
            whole.push(b'/');
            whole.extend_from_slice(relative);
            let arguments = [Value::string(whole), Value::string(kind.as_str())];
            let kept = self.call(filter, &arguments, PlaceId::NONE)?;
            let what = "while evaluating the return value of the path filter function";
            let kept = self.force_boolean(&kept, PlaceId::NONE, what)?;
            if let (true, Some(selected)) = (kept, &mut selected) {
                selected.insert(relative.to_vec());
            }
            Ok(kept)
        };
        let algorithm = crate::nix_hash::HashAlgorithm::Sha256;
        let hash = crate::nar::hash_archive(&crate::sources::Reader(self), &real, algorithm, &mut keep)?;
        let store_path =
            store_path::fixed_output_path(name, true, &hash).map_err(|error| Failure::new(error.to_string()))?;
        let source = Source::Path { path: real, selected };
        self.registry.borrow_mut().sources.insert(store_path.clone(), source);
        Ok(store_path)
    }

    /// The path on disk: one in the store stands for the source that it was made from.
    pub fn real_path(&self, path: &[u8]) -> Result<PathBuf> {
        let below = |top: &Path, rest: &[u8]| match rest {
            [] => top.to_owned(),
            rest => top.join(OsStr::from_bytes(rest)),
        };
        if let Some((store_path, rest)) = in_store(path) {
            let registry = self.registry.borrow();
            match registry.sources.get(&store_path) {
                Some(Source::Path { .. }) if self.is_left_out(path) => {
                    let path = String::from_utf8_lossy(path);
                    return Err(Failure::new(format!("path '{path}' does not exist")));
                }
                Some(Source::Path { path: real, .. }) => return Ok(below(real, rest)),
                Some(Source::Text(_)) => {
                    return Err(Failure::new(format!("'{store_path}' is a text that the expression made, not a file")));
                }
                Some(Source::Fetched(fetched)) => {
                    if let Some(place) = self.sources.shown(&store_path) {
                        return Ok(below(place, rest));
                    }
                    // Whoever evaluates hears of it, fetches it, and evaluates again.
                    self.locking.borrow_mut().wanted.insert(store_path.clone(), fetched.clone());
                    return Err(Failure::new(format!("'{store_path}' has not been fetched yet")));
                }
                None => {}
            }
        }
        Ok(OsStr::from_bytes(path).into())
    }

    /// Whether a filter left a path of a source out.
    pub fn is_left_out(&self, path: &[u8]) -> bool {
        match in_store(path) {
            None | Some((_, b"")) => false,
            Some((store_path, rest)) => match self.registry.borrow().sources.get(&store_path) {
                Some(Source::Path { selected: Some(selected), .. }) => !selected.contains(rest),
                _ => false,
            },
        }
    }

    /// What a filter left of the source that a path is or lies below; none where there is no filter.
    pub fn selection(&self, path: &[u8]) -> Option<Selection> {
        let (store_path, rest) = in_store(path)?;
        match self.registry.borrow().sources.get(&store_path)? {
            Source::Path { selected: Some(selected), .. } => {
                Some(Selection { selected: selected.clone(), below: rest.to_vec() })
            }
            _ => None,
        }
    }

    /// The text that a store path stands for, if the expression made it; that of a derivation is its `.drv` file.
    pub fn made_text(&self, path: &[u8]) -> Option<Vec<u8>> {
        if path == FETCHURL_PATH {
            return Some(FETCHURL.to_vec());
        }
        let (store_path, rest) = in_store(path)?;
        let registry = self.registry.borrow();
        match registry.sources.get(&store_path) {
            Some(Source::Text(text)) if rest.is_empty() => Some(text.clone()),
            None if rest.is_empty() => registry.text(&store_path),
            _ => None,
        }
    }

    /// What the import of a path gives that is the file of a derivation.
    pub fn import_derivation(&self, path: &[u8]) -> Result<Option<Value>> {
        let Some((path, b"")) = in_store(path) else { return Ok(None) };
        let Some(derivation) = self.registry.borrow().derivation(&path) else { return Ok(None) };
        let symbol = |name: &str| self.symbols.intern(name.as_bytes());
        let set = |entries: &[(&str, Value)]| {
            Value::set(entries.iter().map(|(name, value)| Attribute::new(symbol(name), *value)).collect())
        };
        let outputs = derivation.outputs.iter().map(|(name, output)| {
            let context = Context::from([Reference::Output(path.clone(), name.clone())]);
            let text = match &output.path {
                Some(path) => path.to_string(),
                None => store_path::upstream_placeholder(&path, name),
            };
            set(&[("name", Value::string(name)), ("text", Value::string_with(text, context))])
        });
        let outputs = Value::list(outputs.collect());
        let closure = Context::from([Reference::Closure(path.clone())]);
        let drv_path = Value::string_with(path.as_str(), closure);
        let argument = set(&[("drvPath", drv_path), ("name", Value::string(&derivation.name)), ("outputs", outputs)]);
        let function = self.internal("«nix-internal»/imported-derivation.nix", IMPORTED)?;
        self.call(&function, &[argument], PlaceId::NONE).map(Some)
    }
}

/// What a filter left of a source.
pub struct Selection {
    selected: BTreeSet<Vec<u8>>,
    /// From where paths are asked for.
    below: Vec<u8>,
}

impl Selection {
    /// Whether a path is left.
    pub fn has(&self, relative: &[u8]) -> bool {
        match &self.below[..] {
            [] => self.selected.contains(relative),
            below => self.selected.contains(&[below, b"/", relative].concat()),
        }
    }
}

/// The store path that a path is or lies below, and what follows.
pub fn in_store(path: &[u8]) -> Option<(StorePath, &[u8])> {
    let rest = path.strip_prefix(b"/nix/store/")?;
    let end = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
    let top = std::str::from_utf8(&path[..path.len() - rest.len() + end]).ok()?;
    let below = rest[end..].strip_prefix(b"/").unwrap_or_default();
    Some((StorePath::parse(top)?, below))
}
