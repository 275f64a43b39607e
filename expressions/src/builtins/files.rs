//! Files, as far as the sources show them, and sources for the store.

use std::collections::BTreeSet;

use store::derivation::Source;

use super::{Builtin, NOWHERE, builtin};
use crate::eval::Evaluator;
use crate::eval::in_store;
use crate::failure::{Failure, Result};
use crate::nix_hash::{HashAlgorithm, NixHash};
use crate::places::PlaceId;
use crate::symbols::known;
use crate::value::{Attribute, Context, Reference, Value, View};
use crate::{paths, store_path};

pub(super) static BUILTINS: &[Builtin] = &[
    builtin("pathExists", 1, path_exists),
    builtin("readFile", 1, read_file),
    builtin("readDir", 1, read_dir),
    builtin("readFileType", 1, read_file_type),
    builtin("findFile", 2, find_file),
    builtin("toPath", 1, to_path),
    builtin("toFile", 2, to_file),
    builtin("path", 1, path),
    builtin("filterSource", 2, filter_source),
    builtin("storePath", 1, store_path_),
    builtin("placeholder", 1, placeholder),
    builtin("getEnv", 1, get_env),
];

/// The bytes of a file, or of a text that the expression made.
pub(super) fn read(evaluator: &Evaluator, path: &[u8]) -> Result<Vec<u8>> {
    match evaluator.made_text(path) {
        Some(text) => Ok(text),
        None => evaluator.sources.read(&evaluator.real_path(path)?),
    }
}

/// `builtins.nixPath`
pub(super) fn search_path(evaluator: &Evaluator) -> Value {
    use std::os::unix::ffi::OsStrExt as _;
    let entries = evaluator.sources.search_path.iter().map(|(prefix, path)| {
        Value::set(vec![
            Attribute::new(known::PATH, Value::string(path.as_os_str().as_bytes())),
            Attribute::new(known::PREFIX, Value::string(prefix.as_str())),
        ])
    });
    Value::list(entries.collect())
}

fn path_exists(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let value = evaluator.force(&arguments[0], NOWHERE)?;
    let path = evaluator.coerce_to_readable(&value, NOWHERE)?;
    if evaluator.made_text(&path).is_some() || path == store::derivation::STORE_DIRECTORY.as_bytes() {
        return Ok(Value::TRUE);
    }
    if evaluator.is_left_out(&path) {
        return Ok(Value::FALSE);
    }
    let real = evaluator.real_path(&path)?;
    // A string that ends in a slash asks for a directory.
    let wants_directory =
        matches!(value.view(), View::String(text) if text.bytes.ends_with(b"/") || text.bytes.ends_with(b"/."));
    let exists = if wants_directory {
        evaluator.sources.is_directory(&real).unwrap_or(false)
    } else {
        evaluator.sources.exists(&real)
    };
    Ok(Value::boolean(exists))
}

fn read_file(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let path = evaluator.coerce_to_readable(&arguments[0], NOWHERE)?;
    let bytes = read(evaluator, &path)?;
    let shown = String::from_utf8_lossy(&path);
    if bytes.contains(&0) {
        let message = format!("the contents of the file '{shown}' cannot be represented as a Nix string");
        return Err(Failure::new(message));
    }
    // What it refers to is looked for by what the path refers to; sources of the plan refer to nothing.
    Ok(Value::string(bytes))
}

fn read_dir(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let path = evaluator.coerce_to_readable(&arguments[0], NOWHERE)?;
    let entries = evaluator.sources.entries(&evaluator.real_path(&path)?)?;
    let selection = evaluator.selection(&path);
    let is_left = |name: &[u8]| selection.as_ref().is_none_or(|selection| selection.has(name));
    let entries = entries
        .into_iter()
        .filter(|(name, _)| is_left(name))
        .map(|(name, kind)| Attribute::new(evaluator.symbols.intern(&name), Value::string(kind.as_str())));
    Ok(Value::set(entries.collect()))
}

fn read_file_type(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let path = evaluator.coerce_to_readable(&arguments[0], NOWHERE)?;
    if evaluator.made_text(&path).is_some() {
        return Ok(Value::string("regular"));
    }
    Ok(Value::string(evaluator.sources.kind(&evaluator.real_path(&path)?)?.as_str()))
}

fn find_file(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to builtins.findFile";
    let list = evaluator.force_list(&arguments[0], NOWHERE, what)?;
    let mut entries = Vec::new();
    for item in list.iter() {
        let what = "while evaluating an element of the list passed to builtins.findFile";
        let entry = evaluator.force_set(&item, NOWHERE, what)?;
        let mut prefix = Vec::new();
        if let Some(attribute) = entry.get(known::PREFIX) {
            let what = "while evaluating the `prefix` attribute of an element of the list passed to builtins.findFile";
            prefix = evaluator.force_string_without_context(&attribute.value, attribute.place, what)?.bytes.to_vec();
        }
        let path = super::sets::wanted(evaluator, &entry, known::PATH, "in an element of the __nixPath")?;
        let what = "while evaluating the `path` attribute of an element of the list passed to builtins.findFile";
        let mut context = Context::new();
        let path = evaluator.coerce(&path.value, &mut context, path.place, what, crate::eval::Coercion::PLAIN)?;
        evaluator.refuse_building(&path, &context)?;
        entries.push((prefix, path));
    }
    let what = "while evaluating the second argument passed to builtins.findFile";
    let wanted = evaluator.force_string_without_context(&arguments[1], NOWHERE, what)?;
    for (prefix, path) in &entries {
        let rest = match wanted.bytes.strip_prefix(&prefix[..]) {
            Some(rest) if prefix.is_empty() => rest,
            Some(rest) if rest.is_empty() || rest[0] == b'/' => rest,
            _ => continue,
        };
        let path = paths::join(path, rest.strip_prefix(b"/").unwrap_or(rest));
        if evaluator.real_path(&path).is_ok_and(|path| evaluator.sources.exists(&path)) {
            return Ok(Value::path(path));
        }
    }
    if wanted.bytes == b"nix/fetchurl.nix" {
        return Ok(Value::path(crate::eval::FETCHURL_PATH));
    }
    let wanted = String::from_utf8_lossy(&wanted.bytes);
    Err(Failure::of(
        crate::failure::Sort::Throw,
        if evaluator.sources.impure || !entries.is_empty() {
            format!("file '{wanted}' was not found in the Nix search path (add it using $NIX_PATH or -I)")
        } else {
            format!("cannot look up '<{wanted}>' in pure evaluation mode (use '--impure' to override)")
        },
    ))
}

fn to_path(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let mut context = Context::new();
    let what = "while evaluating the first argument passed to builtins.toPath";
    let path = evaluator.coerce_to_path(&arguments[0], &mut context, NOWHERE, what)?;
    Ok(Value::string_with(path, context))
}

fn to_file(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to builtins.toFile";
    let name = evaluator.force_string_without_context(&arguments[0], NOWHERE, what)?;
    let mut context = Context::new();
    let what = "while evaluating the second argument passed to builtins.toFile";
    let text = evaluator.force_string_into(&arguments[1], &mut context, NOWHERE, what)?;
    let mut references = BTreeSet::new();
    for reference in context.references() {
        match &*reference {
            Reference::Path(path) => _ = references.insert(path.clone()),
            other => {
                let (name, other) = (String::from_utf8_lossy(&name.bytes), other.to_text());
                return Err(Failure::new(format!(
                    "files created by builtins.toFile may not reference derivations, but {name} references {other}"
                )));
            }
        }
    }
    let path = store_path::text_path(&name.bytes, &text.bytes, &references)
        .map_err(|error| Failure::new(error.to_string()))?;
    let mut registry = evaluator.registry.borrow_mut();
    registry.sources.insert(path.clone(), Source::Text(text.bytes.to_vec()));
    registry.references.insert(path.clone(), references);
    Ok(Value::string_with(path.as_str(), Context::from([Reference::Path(path.clone())])))
}

fn add(
    evaluator: &Evaluator,
    path: &[u8],
    context: &Context,
    name: &[u8],
    filter: Option<&Value>,
    recursive: bool,
    expected: Option<&NixHash>,
) -> Result<Value> {
    evaluator.refuse_building(path, context)?;
    let result = (|| {
        let failed = |error: store_path::StorePathError| Failure::new(error.to_string());
        let actual = if recursive {
            evaluator.hash_source(path, name, filter)?
        } else {
            let bytes = read(evaluator, path)?;
            let hash = NixHash::of(HashAlgorithm::Sha256, &bytes);
            let store_path = store_path::fixed_output_path(name, false, &hash).map_err(failed)?;
            let source = Source::Path { path: evaluator.real_path(path)?, selected: None };
            evaluator.registry.borrow_mut().sources.insert(store_path.clone(), source);
            store_path
        };
        if let Some(hash) = expected
            && store_path::fixed_output_path(name, recursive, hash).map_err(failed)? != actual
        {
            let path = String::from_utf8_lossy(path);
            let message = format!("store path mismatch in (possibly filtered) path added from '{path}'");
            return Err(Failure::new(message));
        }
        Ok(Value::string_with(actual.as_str(), Context::from([Reference::Path(actual.clone())])))
    })();
    result.map_err(|failure: Box<Failure>| {
        failure.during(NOWHERE, format!("while adding path '{}'", String::from_utf8_lossy(path)))
    })
}

fn path(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the argument passed to 'builtins.path'";
    let set = evaluator.force_set(&arguments[0], NOWHERE, what)?;
    let mut context = Context::new();
    let (mut path, mut name, mut filter, mut recursive, mut expected) = (None, Vec::new(), None, true, None);
    for entry in set.iter() {
        let (value, place) = (&entry.value, entry.place);
        match entry.name {
            known::PATH => {
                let what = "while evaluating the 'path' attribute passed to 'builtins.path'";
                path = Some(evaluator.coerce_to_path(value, &mut context, place, what)?);
            }
            known::NAME => {
                let what = "while evaluating the `name` attribute passed to builtins.path";
                name = evaluator.force_string_without_context(value, place, what)?.bytes.to_vec();
            }
            known::FILTER => {
                let what = "while evaluating the `filter` parameter passed to builtins.path";
                filter = Some(evaluator.force_function(value, place, what)?);
            }
            known::RECURSIVE => {
                let what = "while evaluating the `recursive` attribute passed to builtins.path";
                recursive = evaluator.force_boolean(value, place, what)?;
            }
            known::SHA256 => {
                let what = "while evaluating the `sha256` attribute passed to builtins.path";
                let text = evaluator.force_string_without_context(value, place, what)?;
                let hash = NixHash::parse_or_zeros(&text.bytes, Some(HashAlgorithm::Sha256));
                expected = Some(hash.map_err(|error| Failure::new(error.to_string()))?);
            }
            other => {
                let other = evaluator.symbols.text(other);
                return Err(Failure::new(format!("unsupported argument '{other}' to 'builtins.path'")).at(place));
            }
        }
    }
    let Some(path) = path else {
        return Err(Failure::new("missing required 'path' attribute in the first argument to 'builtins.path'"));
    };
    if name.is_empty() {
        name = paths::base_name(&path).to_vec();
    }
    add(evaluator, &path, &context, &name, filter.as_ref(), recursive, expected.as_ref())
}

fn filter_source(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let mut context = Context::new();
    let what = "while evaluating the second argument (the path to filter) passed to 'builtins.filterSource'";
    let path = evaluator.coerce_to_path(&arguments[1], &mut context, NOWHERE, what)?;
    let what = "while evaluating the first argument passed to builtins.filterSource";
    let filter = evaluator.force_function(&arguments[0], NOWHERE, what)?;
    add(evaluator, &path, &context, paths::base_name(&path), Some(&filter), true, None)
}

fn store_path_(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let mut context = Context::new();
    let what = "while evaluating the first argument passed to 'builtins.storePath'";
    let path = evaluator.coerce_to_path(&arguments[0], &mut context, NOWHERE, what)?;
    let shown = String::from_utf8_lossy(&path);
    let Some((store_path, _)) = in_store(&path) else {
        return Err(Failure::new(format!("path '{shown}' is not in the Nix store")));
    };
    // A path that no part of the expression made could not be found by whoever builds.
    let registry = evaluator.registry.borrow();
    if !registry.sources.contains_key(&store_path) && !registry.is_derivation(&store_path) {
        return Err(Failure::new(format!("path '{store_path}' is not made by this expression")));
    }
    context.insert(Reference::Path(store_path));
    Ok(Value::string_with(path, context))
}

fn placeholder(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to builtins.placeholder";
    let output = evaluator.force_string_without_context(&arguments[0], NOWHERE, what)?;
    Ok(Value::string(store_path::placeholder(&output.bytes)))
}

fn get_env(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    use std::os::unix::ffi::OsStrExt as _;
    let what = "while evaluating the first argument passed to builtins.getEnv";
    let name = evaluator.force_string_without_context(&arguments[0], NOWHERE, what)?;
    let value = evaluator.sources.variable(std::ffi::OsStr::from_bytes(&name.bytes));
    Ok(Value::string(value.map_or(&b""[..], |value| value.as_bytes())))
}
