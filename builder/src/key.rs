//! What a step is made from, by content: the key under which its result is found again, and the facts by which it is explained.
//!
//! Store paths of inputs are names, and are replaced by what they came out as: a changed input that gives the same content changes
//! no key (early cutoff).

use std::collections::BTreeMap;

use serde_json::Value;
use store::digest::StepKey;
use store::directory::Claim;
use store::{Derivation, Tree};

use crate::builtin::{Builtin, Input};

/// One thing that a step was made from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Fact {
    /// What it is called: `builder`, `command[2]`, `layers[0]`, `environment.PATH`.
    pub label: String,
    /// What it was. A long text is cut, and then ends in the digest of the whole.
    pub value: String,
    /// For what a step made: the path of its derivation or its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// Texts up to this length are kept as they are.
const LONGEST: usize = 600;

impl Fact {
    /// A fact; a long text is cut.
    pub fn new(label: impl Into<String>, value: impl Into<String>) -> Self {
        let mut value = value.into();
        if value.len() > LONGEST {
            let digest = store::BlobId::of(value.as_bytes());
            let end = (0..=LONGEST).rev().find(|end| value.is_char_boundary(*end)).unwrap_or(0);
            value.truncate(end);
            value.push_str(&format!("… ({digest})"));
        }
        Self { label: label.into(), value, from: None }
    }
}

/// The key of a step that forge makes itself, and its facts.
pub fn of_builtin(
    derivation: &Derivation,
    builtin: &dyn Builtin,
    parameters: &Value,
    inputs: &BTreeMap<String, Input>,
) -> (StepKey, Vec<Fact>) {
    let fixed = derivation.outputs.values().find_map(|output| output.fixed.as_ref());
    let fixed = fixed.map(|fixed| format!("{}:{}", fixed.algorithm.as_str(), store::digest::to_hex(&fixed.hash)));
    let description = serde_json::json!({
        "builtin": builtin.name(),
        "version": builtin.version(),
        "system": String::from_utf8_lossy(&derivation.system),
        "parameters": replace(parameters, inputs),
        "fixed": fixed,
    });
    let key = StepKey::of(description.to_string().as_bytes());
    let mut facts = vec![
        Fact::new("builder", format!("builtin:{} version {}", builtin.name(), builtin.version())),
        Fact::new("system", String::from_utf8_lossy(&derivation.system)),
    ];
    facts.extend(fixed.map(|fixed| Fact::new("fixed output", fixed)));
    flatten("", parameters, inputs, &mut facts);
    (key, facts)
}

fn replace(value: &Value, inputs: &BTreeMap<String, Input>) -> Value {
    match value {
        Value::String(text) => Value::String(inputs.get(text).map_or_else(|| text.clone(), content)),
        Value::Array(items) => Value::Array(items.iter().map(|item| replace(item, inputs)).collect()),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), replace(value, inputs))).collect())
        }
        value => value.clone(),
    }
}

fn flatten(label: &str, value: &Value, inputs: &BTreeMap<String, Input>, facts: &mut Vec<Fact>) {
    match value {
        Value::String(text) => match inputs.get(text) {
            Some(input) => facts.push(Fact { from: Some(text.clone()), ..Fact::new(label, content(input)) }),
            None => facts.push(Fact::new(label, text.clone())),
        },
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                flatten(&format!("{label}[{number}]"), item, inputs, facts);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let label = if label.is_empty() { name.clone() } else { format!("{label}.{name}") };
                flatten(&label, value, inputs, facts);
            }
        }
        value => facts.push(Fact::new(label, value.to_string())),
    }
}

/// What an input is, by content.
pub fn content(input: &Input) -> String {
    match input {
        Input::Claim(Claim::Blob(id)) => format!("blob:{id}"),
        Input::Claim(Claim::Delta(id)) => format!("delta:{id}"),
        Input::Output { path, closure, .. } => {
            let deltas: String = closure.iter().map(ToString::to_string).collect();
            format!("output:{path}:{}", store::BlobId::of(deltas.as_bytes()))
        }
        Input::Source(node) => {
            // A node has no id of its own; the tree that has nothing else does.
            let name = store::Name::new(*b"source").expect("a name");
            format!("source:{}", Tree { entries: BTreeMap::from([(name, node.clone())]), ..Tree::empty() }.id())
        }
    }
}
