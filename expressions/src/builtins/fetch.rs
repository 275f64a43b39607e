//! Flake references, and what comes from elsewhere: the glue between values and the modules that know no values.
//!
//! Nothing is fetched here. What is known by its hash has a name at once, and is wanted when it is read; of anything else the
//! lock is asked what it is.

mod mercurial;
mod registries;

use store::derivation::{Fetched, Source};
use store::nix::hash::{HashAlgorithm, HashFormat, NixHash};

use super::{Builtin, NOWHERE, builtin};
use crate::eval::{Coercion, Evaluator};
use crate::failure::{Failure, Result, Sort};
use crate::fetching::{self, Said};
use crate::flake_reference::{self, Attributes};
use crate::locking::Question;
use crate::places::PlaceId;
use crate::settings::Settings;
use crate::symbols::known;
use crate::value::{Attribute, Context, Reference, Value, View};
use crate::{paths, show, store_path};

pub(super) static BUILTINS: &[Builtin] = &[
    builtin("parseFlakeRef", 1, parse_flake_ref),
    builtin("flakeRefToString", 1, flake_ref_to_string),
    builtin("fetchurl", 1, fetch_url),
    builtin("fetchTarball", 1, fetch_tarball),
    builtin("fetchTree", 1, fetch_tree),
    builtin("fetchGit", 1, fetch_git),
    builtin("getFlake", 1, get_flake),
    builtin("fetchMercurial", 1, mercurial::fetch_mercurial),
    builtin("fetchClosure", 1, fetch_closure),
    builtin("outputOf", 2, output_of),
];

/// Whether a builtin is there at all: some are not while Nix's feature of their name is off.
pub(super) fn is_on(name: &str, settings: &Settings) -> bool {
    match name {
        "fetchTree" => settings.has("fetch-tree"),
        "fetchClosure" => settings.has("fetch-closure"),
        "outputOf" => settings.has("dynamic-derivations"),
        _ => true,
    }
}

fn parse_flake_ref(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    evaluator.settings.needs("flakes")?;
    let what = "while evaluating the argument passed to builtins.parseFlakeRef";
    let text = evaluator.force_string_without_context(&arguments[0], NOWHERE, what)?;
    let attributes = flake_reference::parse(&String::from_utf8_lossy(&text.bytes)).map_err(refused)?;
    Ok(to_value(evaluator, &attributes))
}

fn flake_ref_to_string(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    evaluator.settings.needs("flakes")?;
    let what = "while evaluating the argument passed to builtins.flakeRefToString";
    let set = evaluator.force_set(&arguments[0], NOWHERE, what)?;
    let mut attributes = Attributes::new();
    for (name, value) in show::sorted(evaluator, &set) {
        let name = String::from_utf8_lossy(&name).into_owned();
        let value = evaluator.force(&value, NOWHERE)?;
        let attribute = match value.view() {
            View::Integer(integer) => flake_reference::Attribute::Number(
                u64::try_from(integer)
                    .map_err(|_| Failure::new(format!("negative value given for flake ref attr {name}: {integer}")))?,
            ),
            View::Boolean(flag) => flake_reference::Attribute::Flag(flag),
            View::String(text) => flake_reference::Attribute::Text(String::from_utf8_lossy(&text.bytes).into_owned()),
            _ => {
                let kind = value.kind();
                return Err(Failure::new(format!(
                    "flake reference attribute sets may only contain integers, Booleans, and strings, but attribute '{name}' is {kind}"
                )));
            }
        };
        attributes.insert(name, attribute);
    }
    Ok(Value::string(flake_reference::to_string(&attributes).map_err(refused)?))
}

fn refused(error: flake_reference::ReferenceError) -> Box<Failure> {
    Failure::new(error.message)
}

fn to_value(evaluator: &Evaluator, attributes: &Attributes) -> Value {
    let entries = attributes.iter().map(|(name, attribute)| {
        let value = match attribute {
            flake_reference::Attribute::Text(text) => Value::string(text.as_str()),
            flake_reference::Attribute::Number(number) =>
            // As Nix does, beyond its largest.
            {
                Value::integer(number.cast_signed())
            }
            flake_reference::Attribute::Flag(flag) => Value::boolean(*flag),
        };
        Attribute::new(evaluator.symbols.intern(name.as_bytes()), value)
    });
    Value::set(entries.collect())
}

fn fetch_closure(_: &Evaluator, _: &[Value], _: PlaceId) -> Result<Value> {
    Err(Failure::new(
        "store paths are not fetched from binary caches during evaluation: `fetchClosure` is not supported",
    ))
}

fn output_of(_: &Evaluator, _: &[Value], _: PlaceId) -> Result<Value> {
    Err(Failure::new("derivations that are made by derivations are not supported: `outputOf` is refused"))
}

fn fetch_url(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    fetch_file(evaluator, &arguments[0], "fetchurl")
}

fn fetch_tarball(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    fetch_file(evaluator, &arguments[0], "fetchTarball")
}

/// `fetchurl` and `fetchTarball`.
fn fetch_file(evaluator: &Evaluator, argument: &Value, who: &str) -> Result<Value> {
    let argument = evaluator.force(argument, NOWHERE)?;
    let unpack = who == "fetchTarball";
    let (mut url, mut expected, mut name) = (None, None, None);
    let is_set = matches!(argument.view(), View::Set(_));
    if let View::Set(set) = argument.view() {
        for (key, value) in show::sorted(evaluator, &set) {
            let text = |what: &str| evaluator.force_string_without_context(&value, NOWHERE, what);
            match &key[..] {
                b"url" => url = Some(text("while evaluating the url we should fetch")?),
                b"sha256" => {
                    let text = text("while evaluating the sha256 of the content we should fetch")?;
                    let hash = NixHash::parse_or_zeros(&text.bytes, Some(HashAlgorithm::Sha256));
                    expected = Some(hash.map_err(|error| Failure::new(error.to_string()))?);
                }
                b"name" => name = Some(text("while evaluating the name of the content we should fetch")?),
                other => {
                    let other = String::from_utf8_lossy(other);
                    return Err(Failure::new(format!("unsupported argument '{other}' to '{who}'")));
                }
            }
        }
    } else {
        url = Some(evaluator.force_string_without_context(
            &argument,
            NOWHERE,
            "while evaluating the url we should fetch",
        )?);
    }
    let url = url.ok_or_else(|| Failure::new("'url' argument required"))?;
    let mut url = String::from_utf8_lossy(&url.bytes).into_owned();
    if let Some(channel) = url.strip_prefix("channel:").filter(|_| unpack) {
        url = format!("https://channels.nixos.org/{channel}/nixexprs.tar.xz");
    }
    let given_name = name.as_ref().map(|name| name.bytes.to_vec());
    let named = given_name.is_some();
    let name = given_name.unwrap_or_else(|| match unpack {
        true => b"source".to_vec(),
        false => paths::base_name(url.as_bytes()).to_vec(),
    });
    if let Err(error) = store_path::check_name(&name) {
        let advice = match (named, is_set) {
            (true, _) => format!(
                "Please change the value for the 'name' attribute passed to '{who}', so that it can create a valid store path."
            ),
            (_, true) => format!(
                "Please add a valid 'name' attribute to the argument for '{who}', so that it can create a valid store path."
            ),
            _ => format!(
                "Please pass an attribute set with 'url' and 'name' attributes to '{who}',  so that it can create a valid store path."
            ),
        };
        return Err(Failure::new(format!("invalid store path name when fetching URL '{url}': {error}. {advice}")));
    }
    if flake_reference::Url::parse(&url).is_none() && !url.contains(':') {
        return Err(Failure::new(format!("'{url}' doesn't have a scheme")));
    }
    let project = &evaluator.sources.project;
    if unpack {
        let attributes =
            Attributes::from([("type".to_owned(), "tarball".into()), ("url".to_owned(), url.as_str().into())]);
        let request = fetching::tree_request(&attributes, project, false);
        let hash = match expected {
            Some(hash) => hash,
            None => ask(evaluator, &request)?.nar_hash.ok_or_else(|| Failure::new("the lock says no hash"))?,
        };
        let fetched = fetching::fetched(absolute(&request, &attributes), &hash);
        return name_fetched(evaluator, &name, &hash, fetched);
    }
    let request = fetching::url_request(&url, project);
    let hash = match expected {
        Some(hash) => hash,
        None => {
            let record = answer(evaluator, &request)?;
            let text = record.get("sha256").and_then(|text| text.as_str()).unwrap_or_default().to_owned();
            NixHash::parse(text.as_bytes(), Some(HashAlgorithm::Sha256))
                .map_err(|error| Failure::new(error.to_string()))?
        }
    };
    let mut request = request;
    request.parameters.insert("url".to_owned(), url.into());
    let sha256 = hash.as_bytes().try_into().ok();
    let fetched = sha256.map(|sha256| Fetched { request, recursive: false, sha256 });
    name_fetched(evaluator, &name, &hash, fetched)
}

/// The request with the address as it is on this machine: what is asked with it is not written down.
fn absolute(request: &store::lock::LockRequest, attributes: &Attributes) -> store::lock::LockRequest {
    let mut request = request.clone();
    if let Some(flake_reference::Attribute::Text(url)) = attributes.get("url") {
        request.parameters.insert("url".to_owned(), url.as_str().into());
    }
    request
}

/// Gives something from elsewhere its name in the store.
fn name_fetched(evaluator: &Evaluator, name: &[u8], hash: &NixHash, fetched: Option<Fetched>) -> Result<Value> {
    let fetched = fetched.ok_or_else(|| Failure::new("what is fetched is known by a sha256"))?;
    let path = store_path::fixed_output_path(name, fetched.recursive, hash);
    let path = path.map_err(|error| Failure::new(error.to_string()))?;
    evaluator.registry.borrow_mut().sources.entry(path.clone()).or_insert(Source::Fetched(fetched));
    Ok(Value::string_with(path.as_str(), context_of(path.clone())))
}

/// A string's context that is one path.
fn context_of(path: store::StorePath) -> Context {
    let mut context = Context::new();
    context.insert(Reference::Path(path));
    context
}

/// What the lock says. If it says nothing, that is noted, and the evaluation goes no further.
fn answer(
    evaluator: &Evaluator,
    request: &store::lock::LockRequest,
) -> Result<std::collections::BTreeMap<String, serde_json::Value>> {
    let mut locking = evaluator.locking.borrow_mut();
    if let Some(record) = locking.lock.answer(request).and_then(|entry| entry.records.first()) {
        return Ok(record.clone());
    }
    evaluator.sources.guard_request(request)?;
    let key = request.key();
    let failure = Failure::new(format!("not locked: {key}"));
    locking.missing.insert(key, Question { request: request.clone(), origins: Vec::new() });
    Err(failure)
}

fn ask(evaluator: &Evaluator, request: &store::lock::LockRequest) -> Result<Said> {
    let record = answer(evaluator, request)?;
    Said::by_record(&record).ok_or_else(|| Failure::new(format!("the lock says no hash of {}", request.key())))
}

fn fetch_git(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    fetch(evaluator, &arguments[0], "fetchGit")
}

fn fetch_tree(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    fetch(evaluator, &arguments[0], "fetchTree")
}

/// `fetchTree` and `fetchGit`.
fn fetch(evaluator: &Evaluator, argument: &Value, who: &str) -> Result<Value> {
    let by_git = who == "fetchGit";
    let argument = evaluator.force(argument, NOWHERE)?;
    let mut attributes = Attributes::new();
    let coerced = |value: &Value| -> Result<String> {
        let what = format!("while evaluating the argument passed to '{who}'");
        let mut context = Context::new();
        let text = evaluator.coerce(value, &mut context, NOWHERE, &what, Coercion::PLAIN)?;
        evaluator.refuse_building(&text, &context)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    if let View::Set(set) = argument.view() {
        for (name, value) in show::sorted(evaluator, &set) {
            let name = String::from_utf8_lossy(&name).into_owned();
            if name == "type" {
                let what = format!("while evaluating the `type` argument passed to '{who}'");
                let text = evaluator.force_string_without_context(&value, NOWHERE, &what)?;
                attributes.insert(name, String::from_utf8_lossy(&text.bytes).as_ref().into());
                continue;
            }
            let value = evaluator.force(&value, NOWHERE)?;
            let attribute = match value.view() {
                View::String(_) | View::Path(_) => flake_reference::Attribute::Text(coerced(&value)?),
                View::Boolean(flag) => flake_reference::Attribute::Flag(flag),
                View::Integer(number) => flake_reference::Attribute::Number(u64::try_from(number).map_err(|_| {
                    Failure::new(format!("negative value given for '{who}' argument '{name}': {number}"))
                })?),
                _ => {
                    let kind = value.kind();
                    return Err(Failure::new(format!(
                        "argument '{name}' to '{who}' is {kind} while a string, Boolean or integer is expected"
                    )));
                }
            };
            attributes.insert(name, attribute);
        }
        if by_git {
            attributes.entry("type".to_owned()).or_insert_with(|| "git".into());
            let submodules = flake_reference::flag(&attributes, "submodules").map_err(refused)?;
            if !submodules {
                let on = flake_reference::Attribute::Flag(true);
                attributes.entry("exportIgnore".to_owned()).or_insert(on);
            }
        } else if attributes.get("type") == Some(&"git".into()) && !attributes.contains_key("name") {
            // Commits are counted only for those who ask for it, or name the repository by its address alone.
            attributes.entry("shallow".to_owned()).or_insert(flake_reference::Attribute::Flag(true));
        } else if !attributes.contains_key("type") {
            return Err(Failure::new(format!("argument 'type' is missing in call to '{who}'")));
        } else if attributes.contains_key("name") {
            return Err(Failure::new(format!("argument 'name' isn’t supported in call to '{who}'")));
        }
    } else {
        let url = coerced(&argument)?;
        if by_git {
            let on = flake_reference::Attribute::Flag(true);
            attributes.extend([("type".to_owned(), "git".into()), ("exportIgnore".to_owned(), on)]);
            attributes.insert("url".to_owned(), url.as_str().into());
        } else {
            evaluator.settings.needs("flakes")?;
            let parsed = flake_reference::Url::parse(&url);
            let parsed = parsed.ok_or_else(|| match url.contains(':') {
                true => Failure::new(format!("'{url}' is not a valid URL: leftover")),
                false => Failure::new(format!("'{url}' doesn't have a scheme")),
            })?;
            attributes = flake_reference::from_url(&parsed, false).map_err(refused)?;
        }
    }
    if attributes.get("type") == Some(&"git".into())
        && let Some(url) = flake_reference::text(&attributes, "url").map_err(refused)?
    {
        let url = flake_reference::git_url(url).map_err(refused)?.to_string();
        attributes.insert("url".to_owned(), url.as_str().into());
    }
    tree(evaluator, attributes, by_git)
}

/// A tree by what asks for it: the set that says what it is.
fn tree(evaluator: &Evaluator, mut attributes: Attributes, by_git: bool) -> Result<Value> {
    flake_reference::check(&attributes).map_err(refused)?;
    let kind = flake_reference::required(&attributes, "type").map_err(refused)?.to_owned();
    let given = attributes.clone();
    let text = |name: &str| flake_reference::text(&given, name).map_err(refused);
    let name = text("name")?.unwrap_or("source").to_owned();
    let expected = flake_reference::nar_hash(&attributes).map_err(refused)?;
    let shown = || flake_reference::to_string(&given).unwrap_or_default();
    match kind.as_str() {
        "path" => return path(evaluator, &attributes, expected),
        "git" => {
            if flake_reference::flag(&attributes, "lfs").map_err(refused)? {
                return Err(Failure::new("files that git keeps elsewhere (`lfs`) are not fetched"));
            }
            if let Some(revision) = text("rev")?.filter(|revision| !flake_reference::is_revision(revision)) {
                let hash = NixHash::parse(revision.as_bytes(), Some(HashAlgorithm::Sha1));
                let hash = hash.map_err(|error| Failure::new(error.to_string()))?;
                let revision = hash.to_text(HashFormat::Base16, false);
                attributes.insert("rev".to_owned(), revision.as_str().into());
            }
        }
        "tarball" | "file" => {
            let url = text("url")?.unwrap_or_default();
            if url.strip_prefix("file:").is_some_and(|rest| !rest.starts_with('/')) {
                let message = format!(
                    "{kind} '{url}' must use an absolute path. The 'file' scheme does not support relative paths."
                );
                return Err(Failure::new(message).during(NOWHERE, format!("while fetching the input '{}'", shown())));
            }
        }
        "github" | "gitlab" | "sourcehut" => {}
        "indirect" => {
            let found = registries::direct(evaluator, &given, false)?;
            return tree(evaluator, found, by_git);
        }
        "hg" => {
            if let Some(revision) = text("rev")?.filter(|revision| !flake_reference::is_revision(revision)) {
                let shown = shown();
                return Err(Failure::new(format!("'{revision}' is no commit of Mercurial, in the input '{shown}'")));
            }
        }
        _ => {
            let json = flake_reference::to_json(&attributes);
            return Err(Failure::new(format!("cannot show unsupported input '{json}'")));
        }
    }
    let request = fetching::tree_request(&attributes, &evaluator.sources.project, evaluator.sources.impure);
    let said = Said::by_attributes(&attributes, expected.clone());
    let counted = !by_git || said.revision_count.is_some();
    let whole = match kind.as_str() {
        "git" => said.revision.is_some() && said.last_modified.is_some() && counted,
        "file" => true,
        "tarball" => true,
        _ => said.revision.is_some(),
    };
    // What is known is not asked; and of an archive nothing but its time is asked, if that is.
    let mut later = None;
    let said = if expected.is_some() && whole {
        if said.last_modified.is_none() && kind != "file" {
            later = Some(request.clone());
        }
        said
    } else {
        ask(evaluator, &request)?
    };
    let hash = said.nar_hash.clone().ok_or_else(|| Failure::new("the lock says no hash"))?;
    if let Some(expected) = expected.filter(|expected| *expected != hash) {
        let [expected, hash] = [&expected, &hash].map(|hash| hash.to_text(HashFormat::Sri, true));
        let message = format!("NAR hash mismatch in input '{}', expected '{expected}' but got '{hash}'", shown());
        return Err(Failure::of(Sort::Mismatch, message));
    }
    let fetched = fetching::fetched(absolute(&fetching::pinned(&request, &said), &attributes), &hash);
    let path = name_fetched(evaluator, name.as_bytes(), &hash, fetched)?;
    let submodules = flake_reference::flag(&attributes, "submodules").map_err(refused)?;
    Ok(described(evaluator, path, &said, (kind == "git").then_some(submodules), by_git, later))
}

/// `{ outPath; narHash; … }`, as far as it is known. `later` is what the time of an archive is asked with.
fn described(
    evaluator: &Evaluator,
    path: Value,
    said: &Said,
    submodules: Option<bool>,
    by_git: bool,
    later: Option<store::lock::LockRequest>,
) -> Value {
    let symbol = |name: &str| evaluator.symbols.intern(name.as_bytes());
    let mut entries = vec![Attribute::new(known::OUT_PATH, path)];
    let mut put = |name: &str, value: Value| entries.push(Attribute::new(symbol(name), value));
    let short = |revision: &str| revision.chars().take(7).collect::<String>();
    if let Some(hash) = &said.nar_hash {
        put("narHash", Value::string(hash.to_text(HashFormat::Sri, true)));
    }
    if let Some(submodules) = submodules {
        put("submodules", Value::boolean(submodules));
    }
    let none = by_git.then(|| "0".repeat(40));
    if let Some(revision) = said.revision.as_ref().or(none.as_ref()) {
        put("rev", Value::string(revision.as_str()));
        put("shortRev", Value::string(short(revision)));
    }
    if let Some(count) = said.revision_count.or(by_git.then_some(0)) {
        put("revCount", Value::integer(count.cast_signed()));
    }
    if let Some(revision) = &said.dirty_revision {
        put("dirtyRev", Value::string(format!("{revision}-dirty")));
        put("dirtyShortRev", Value::string(format!("{}-dirty", short(revision))));
    }
    if let Some(seconds) = said.last_modified {
        put("lastModified", Value::integer(seconds.cast_signed()));
        put("lastModifiedDate", Value::string(fetching::date(seconds)));
    } else if let Some(request) = later {
        for as_date in [false, true] {
            let request = request.clone();
            let work = move |evaluator: &Evaluator| {
                let seconds = ask(evaluator, &request)?.last_modified.unwrap_or(0);
                Ok(match as_date {
                    true => Value::string(fetching::date(seconds)),
                    false => Value::integer(seconds.cast_signed()),
                })
            };
            let name = if as_date { "lastModifiedDate" } else { "lastModified" };
            put(name, evaluator.native(std::rc::Rc::new(work)));
        }
    }
    Value::set(entries)
}

/// `type = "path"`: what lies on this machine is read as any source is.
fn path(evaluator: &Evaluator, attributes: &Attributes, expected: Option<NixHash>) -> Result<Value> {
    let path = flake_reference::required(attributes, "path").map_err(refused)?;
    if !path.starts_with('/') {
        let shown = flake_reference::to_string(attributes).unwrap_or_default();
        return Err(Failure::new(format!("cannot fetch input '{shown}' because it uses a relative path")));
    }
    let path = paths::normal(path.as_bytes());
    let store_path = evaluator.hash_source(&path, b"source", None)?;
    let real = evaluator.real_path(&path)?;
    let reader = crate::sources::Reader(evaluator);
    let hash = crate::nar::hash_archive(&reader, &real, HashAlgorithm::Sha256, &mut |_, _| Ok(true))?;
    if let Some(expected) = expected.filter(|expected| *expected != hash) {
        let [expected, hash] = [&expected, &hash].map(|hash| hash.to_text(HashFormat::Sri, true));
        let shown = flake_reference::to_string(attributes).unwrap_or_default();
        let message = format!("NAR hash mismatch in input '{shown}', expected '{expected}' but got '{hash}'");
        return Err(Failure::of(Sort::Mismatch, message));
    }
    let mut said = Said::by_attributes(attributes, Some(hash));
    if said.last_modified.is_none() {
        said.last_modified = evaluator.sources.last_modified(&real)?;
    }
    let context = context_of(store_path.clone());
    Ok(described(evaluator, Value::string_with(store_path.as_str(), context), &said, None, false, None))
}

const FLAKE: &str = include_str!("flake.nix");

fn get_flake(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    evaluator.settings.needs("flakes")?;
    let what = "while evaluating the argument passed to builtins.getFlake";
    let reference = evaluator.force_string_without_context(&arguments[0], NOWHERE, what)?;
    let mut text = String::from_utf8_lossy(&reference.bytes).into_owned();
    if let Ok(mut attributes) = flake_reference::parse(&text)
        && attributes.get("type") == Some(&"indirect".into())
    {
        let directory = attributes.remove("dir");
        let mut found = registries::direct(evaluator, &attributes, true)?;
        found.extend(directory.map(|directory| ("dir".to_owned(), directory)));
        text = flake_reference::to_string(&found).map_err(refused)?;
    }
    let function = evaluator.internal("«nix-internal»/call-flake.nix", FLAKE)?;
    evaluator.call(&function, &[Value::string(text)], NOWHERE)
}
