//! How an image that forge did not make wants to be run.
//!
//! Apptainer sources `/.singularity.d/env/*.sh` and starts `/.singularity.d/runscript`; so the script becomes the command, and of
//! the environment that is taken which can be read without running anything (`environment.rs`).

use std::collections::BTreeMap;

use serde_json::Value;

use super::environment::{DEFAULT_PATH, Environment};
use super::layout::{Image, Kind};
use super::scripts::RUN_SCRIPT;
use crate::format::{Artifact, Dropped};
use crate::{Launch, Node, Result, Store, TreeId};

/// Objects of metadata that are larger are not looked at.
pub const MOST_METADATA: u64 = 4 << 20;
/// A script that is larger is not looked at.
const MOST_SCRIPT: u64 = 1 << 20;
/// Scripts that Apptainer puts into every image: what they set is its own business.
const OF_EVERY_IMAGE: [&str; 4] = ["01-base.sh", "95-apps.sh", "99-base.sh", "99-runtimevars.sh"];

/// What the objects of an image say of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Described {
    /// Labels, of whichever object has some.
    pub labels: BTreeMap<String, String>,
    /// As [`from_objects`] reads it.
    pub launch: Launch,
}

impl Described {
    /// What the image calls itself.
    pub fn name(&self) -> Option<String> {
        self.label(&["org.opencontainers.image.title", "org.label-schema.name", "name"])
    }

    /// Its version.
    pub fn version(&self) -> Option<String> {
        self.label(&["org.opencontainers.image.version", "org.label-schema.version", "version"])
    }

    fn label(&self, names: &[&str]) -> Option<String> {
        let find = |wanted: &&str| {
            let value = self.labels.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value);
            value.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        names.iter().find_map(find)
    }
}

/// An object of JSON; null if there is none that can be read.
pub fn json(artifact: &Artifact, image: &Image, kind: Kind, name: &str) -> Result<Value> {
    let Some(descriptor) = image.find(kind, name) else { return Ok(Value::Null) };
    let content = image.content(artifact, descriptor, MOST_METADATA)?;
    Ok(content.and_then(|content| serde_json::from_slice(&content).ok()).unwrap_or(Value::Null))
}

/// What the objects beside the file system say; nothing is unpacked.
pub fn from_objects(artifact: &Artifact, image: &Image) -> Result<Described> {
    let mut described = Described::default();
    let mut add_labels = |labels: &Value| {
        for (name, value) in labels.as_object().into_iter().flatten() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            described.labels.insert(one_line(name), one_line(&value));
        }
    };
    let metadata = json(artifact, image, Kind::JSON, "inspect-metadata.json")?;
    let attributes = &metadata["data"]["attributes"];
    add_labels(&attributes["labels"]);
    add_labels(&json(artifact, image, Kind::LABELS, "")?);
    if attributes["runscript"].is_string() {
        described.launch.command = vec![RUN_SCRIPT.to_vec()];
    }
    let mut environment = Environment::new();
    let scripts: BTreeMap<&String, &Value> = attributes["environment"].as_object().into_iter().flatten().collect();
    for (path, script) in scripts {
        if !of_every_image(path) {
            environment.source(script.as_str().unwrap_or_default().as_bytes());
        }
    }
    described.launch.environment = finished(environment);
    Ok(described)
}

/// What the file system says. Statements that were left out are noted in `dropped`.
pub fn from_tree(
    store: &Store,
    root: TreeId,
    image: &Described,
    config: &Value,
    dropped: &mut Dropped,
) -> Result<Launch> {
    let mut launch = Launch::default();
    let has_shell = matches!(store.look(root, b"/bin/sh")?, Some(Node::File(_)));
    let run_script = match store.look(root, RUN_SCRIPT)? {
        Some(Node::File(file)) if file.metadata.mode & 0o111 != 0 => store.content_at(root, RUN_SCRIPT, MOST_SCRIPT)?,
        _ => None,
    };
    let needs_shell = |script: &[u8]| {
        let line = script.split(|byte| *byte == b'\n').next().unwrap_or_default();
        matches!(line.strip_prefix(b"#!").map(<[u8]>::trim_ascii), Some(b"/bin/sh" | b"/bin/bash"))
    };
    match run_script {
        Some(script) if has_shell || !needs_shell(&script) => launch.command = vec![RUN_SCRIPT.to_vec()],
        // Apptainer runs the script of an image that came from OCI in its own shell; it starts what the configuration says.
        Some(_) => {
            let words = |value: &Value| -> Vec<Vec<u8>> {
                let words = value.as_array().into_iter().flatten().filter_map(Value::as_str);
                words.filter(|word| !word.contains('\0')).map(|word| word.as_bytes().to_vec()).collect()
            };
            launch.command = [words(&config["Entrypoint"]), words(&config["Cmd"])].concat();
        }
        None if has_shell => launch.command = vec![b"/bin/sh".to_vec()],
        None => {}
    }
    let mut environment = Environment::new();
    if let Some(Node::Directory(id)) = store.look(root, b"/.singularity.d/env")? {
        for name in store.tree(id)?.entries.keys() {
            let text = name.to_string();
            if !text.ends_with(".sh") || of_every_image(&text) {
                continue;
            }
            let path = [b"/.singularity.d/env/", name.as_bytes()].concat();
            let before = environment.left_out;
            match store.content_at(root, &path, MOST_SCRIPT)? {
                Some(script) => environment.source(&script),
                None => environment.left_out += 1,
            }
            for _ in before..environment.left_out {
                dropped.add("statement of an environment script that only a shell could follow", &path);
            }
        }
    } else {
        environment.exported_from(&image.launch.environment);
    }
    launch.environment = finished(environment);
    Ok(launch)
}

fn of_every_image(path: &str) -> bool {
    OF_EVERY_IMAGE.contains(&path.rsplit('/').next().unwrap_or(path))
}

/// Apptainer appends what a `PATH` lacks of the usual places.
fn finished(environment: Environment) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut variables = environment.exported();
    variables.retain(|name, value| !name.contains(&0) && !value.contains(&0));
    let path = variables.entry(b"PATH".to_vec()).or_default();
    for place in DEFAULT_PATH.split(|byte| *byte == b':') {
        if !path.split(|byte| *byte == b':').any(|known| known == place) {
            if !path.is_empty() {
                path.push(b':');
            }
            path.extend(place);
        }
    }
    variables
}

/// For a terminal.
pub fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}
