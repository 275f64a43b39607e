//! What a Nix builder finds around it: the variables, and the files in its build directory.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStringExt;

use serde_json::{Map, Value, json};
use store::derivation::{HashAlgorithm, STORE_DIRECTORY};
use store::nix::hash::{HashFormat, Hasher, NixHash, to_nix32};
use store::nix::path::{StorePathError, content_path, fixed_output_path, text_path};
use store::{Node, Store, StorePath};

use super::inputs::InputPath;
use super::references::replace;
use super::{Prepared, invalid, structured};
use crate::{Builder, Error, Result};

/// Where a builder works.
pub const DIRECTORY: &str = "/build";

/// What a builder finds.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// All of its variables.
    pub variables: BTreeMap<OsString, OsString>,
    /// Files of the build directory, by name.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// Works out what a builder finds.
pub fn surroundings(builder: &Builder<'_>, prepared: &Prepared) -> Result<Surroundings> {
    let derivation = &prepared.derivation;
    // A builder asks for its outputs by `placeholder`, or where they are floating by what stands for them.
    let outputs: BTreeMap<Vec<u8>, Vec<u8>> = prepared
        .scratch
        .iter()
        .map(|(name, path)| (store::nix::path::placeholder(name.as_bytes()).into_bytes(), path.as_str().into()))
        .collect();
    let mut variables: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut set = |name: &str, value: &str| _ = variables.insert(name.into(), value.into());
    // Programs see that there is nothing to be found there.
    set("PATH", "/path-not-set");
    set("HOME", "/homeless-shelter");
    set("NIX_STORE", STORE_DIRECTORY);
    set("NIX_BUILD_CORES", &super::cores(builder).to_string());
    let mut files = BTreeMap::new();
    match prepared.variable("__json") {
        Some(text) => {
            let text = replace(text, &outputs);
            let describe = &mut |path: &StorePath| describe(builder.store, prepared, path);
            let attributes =
                structured::attributes(&derivation.name, &text, &prepared.scratch, &prepared.inputs, describe)?;
            files.insert(".attrs.sh".to_owned(), structured::declarations(&attributes).into_bytes());
            files.insert(".attrs.json".to_owned(), Value::Object(attributes).to_string().into_bytes());
            set("NIX_ATTRS_SH_FILE", &format!("{DIRECTORY}/.attrs.sh"));
            set("NIX_ATTRS_JSON_FILE", &format!("{DIRECTORY}/.attrs.json"));
        }
        None => {
            let listed = prepared.variable("passAsFile").unwrap_or_default();
            let as_files: Vec<&[u8]> = words(listed).collect();
            for (name, value) in &derivation.environment {
                let value = replace(value, &outputs);
                if as_files.contains(&name.as_slice()) {
                    let digest = NixHash::of(HashAlgorithm::Sha256, name);
                    let file = format!(".attr-{}", to_nix32(digest.as_bytes()));
                    let variable = [name.as_slice(), b"Path"].concat();
                    variables.insert(variable, format!("{DIRECTORY}/{file}").into_bytes());
                    files.insert(file, value);
                } else {
                    variables.insert(name.clone(), value);
                }
            }
            for (name, graph) in graphs(prepared)? {
                files.insert(name, graph);
            }
        }
    }
    let mut set = |name: &str, value: &str| _ = variables.insert(name.into(), value.into());
    set("NIX_BUILD_TOP", DIRECTORY);
    for name in ["TMPDIR", "TEMPDIR", "TMP", "TEMP", "PWD"] {
        set(name, DIRECTORY);
    }
    set("NIX_LOG_FD", "2");
    set("TERM", "xterm-256color");
    if prepared.fixed().is_some() {
        set("NIX_OUTPUT_CHECKED", "1");
        // How this machine reaches the network is no part of what comes out: the hash says what that must be.
        let asked = prepared.variable("impureEnvVars").unwrap_or_default();
        for name in words(asked).filter_map(|name| std::str::from_utf8(name).ok()) {
            // A proxy is reached by us, for whoever connects to what the step names.
            let is_proxy = name.to_ascii_lowercase().ends_with("_proxy");
            let value = builder.machine.environment.get(name).filter(|_| !is_proxy).map_or("", String::as_str);
            variables.insert(name.into(), value.into());
        }
    }
    let variables =
        variables.into_iter().map(|(name, value)| (OsString::from_vec(name), OsString::from_vec(value))).collect();
    let arguments = derivation.arguments.iter().map(|word| OsString::from_vec(replace(word, &outputs))).collect();
    Ok(Surroundings { variables, files, arguments })
}

/// Words between white space.
pub fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// `exportReferencesGraph`: a file's name and a path, again and again; the file tells the path's closure.
fn graphs(prepared: &Prepared) -> Result<Vec<(String, Vec<u8>)>> {
    let name = &prepared.derivation.name;
    let Some(text) = prepared.variable("exportReferencesGraph") else { return Ok(Vec::new()) };
    let words: Vec<String> = words(text).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    if !words.len().is_multiple_of(2) {
        return Err(invalid(name, "`exportReferencesGraph` has an odd number of words"));
    }
    let mut graphs = Vec::new();
    for pair in words.chunks_exact(2) {
        let (file, path) = (&pair[0], &pair[1]);
        let plain = file.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        if !plain || file.starts_with('.') {
            return Err(invalid(name, format!("`{file}` is no file name for `exportReferencesGraph`")));
        }
        // A path below a store path stands for that.
        let whole = path.splitn(5, '/').take(4).collect::<Vec<_>>().join("/");
        let path = StorePath::parse(&whole).filter(|path| prepared.inputs.paths.contains_key(path));
        let path = path.ok_or_else(|| invalid(name, format!("`exportReferencesGraph`: `{whole}` is no input")))?;
        let mut graph = String::new();
        for path in prepared.inputs.closure([&path]) {
            let references = &prepared.inputs.paths[&path].references;
            // The empty line stands for the deriver, which is not told.
            graph.push_str(&format!("{path}\n\n{}\n", references.len()));
            references.iter().for_each(|reference| graph.push_str(&format!("{reference}\n")));
        }
        graphs.push((file.clone(), graph.into_bytes()));
    }
    Ok(graphs)
}

/// An input as structured attributes tell of it.
fn describe(store: &Store, prepared: &Prepared, path: &StorePath) -> Result<Map<String, Value>> {
    let size = |path: &StorePath| -> Result<u64> {
        let mut size = 0;
        store.write_nar(&prepared.inputs.paths[path].node, &mut |bytes| {
            size += bytes.len() as u64;
            Ok(())
        })?;
        Ok(size)
    };
    let input = &prepared.inputs.paths[path];
    let nar_hash = store.nar_hash(&input.node, HashAlgorithm::Sha256)?;
    let mut closure = 0;
    for path in prepared.inputs.closure([path]) {
        closure += size(&path)?;
    }
    let references: Vec<&str> = input.references.iter().map(StorePath::as_str).collect();
    // In the order of Nix, by name: the text is what a builder gets.
    let mut description = Map::new();
    if let Some(address) = address(store, path, input, &nar_hash)? {
        description.insert("ca".to_owned(), json!(address));
    }
    description.insert("closureSize".to_owned(), json!(closure));
    description.insert("narHash".to_owned(), json!(nar_hash.to_text(HashFormat::Nix32, true)));
    description.insert("narSize".to_owned(), json!(size(path)?));
    description.insert("path".to_owned(), json!(path.as_str()));
    description.insert("references".to_owned(), json!(references));
    Ok(description)
}

/// How a path follows from what lies there, as Nix writes it, if it does: of sources, texts, and outputs whose hash was known.
fn address(store: &Store, path: &StorePath, input: &InputPath, nar_hash: &NixHash) -> Result<Option<String>> {
    /// Longer texts are none that an expression wrote.
    const LONGEST_TEXT: u64 = 16 << 20;
    let (name, references) = (path.name().as_bytes(), &input.references);
    let is_it = |made: std::result::Result<StorePath, StorePathError>| made.is_ok_and(|made| made == *path);
    let written = |kind: &str, hash: &NixHash| Some(format!("{kind}:{}", hash.to_text(HashFormat::Nix32, true)));
    if is_it(content_path(name, true, nar_hash, references, false)) {
        return Ok(written("fixed:r", nar_hash));
    }
    let flat = match &input.node {
        Node::File(file) if file.metadata.mode & 0o111 == 0 => Some(file),
        _ => None,
    };
    if let Some(file) = flat.filter(|file| file.size <= LONGEST_TEXT) {
        let mut text = Vec::new();
        store.open_blob(file.blob)?.read_to_end(&mut text).map_err(Error::file("read", path.as_str()))?;
        if is_it(text_path(name, &text, references)) {
            return Ok(written("text", &NixHash::of(HashAlgorithm::Sha256, &text)));
        }
    }
    if !references.is_empty() {
        return Ok(None);
    }
    for algorithm in [HashAlgorithm::Sha256, HashAlgorithm::Sha512, HashAlgorithm::Sha1, HashAlgorithm::Md5] {
        if let Some(file) = flat {
            let mut hasher = Hasher::new(algorithm);
            let mut blob = BufReader::with_capacity(1 << 16, store.open_blob(file.blob)?);
            loop {
                let bytes = blob.fill_buf().map_err(Error::file("read", path.as_str()))?;
                let length = bytes.len();
                hasher.update(bytes);
                blob.consume(length);
                if length == 0 {
                    break;
                }
            }
            let hash = hasher.finish();
            if is_it(fixed_output_path(name, false, &hash)) {
                return Ok(written("fixed", &hash));
            }
        }
        let hash = store.nar_hash(&input.node, algorithm)?;
        if is_it(fixed_output_path(name, true, &hash)) {
            return Ok(written("fixed:r", &hash));
        }
    }
    Ok(None)
}
