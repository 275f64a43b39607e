//! Structured attributes: a derivation's attributes as JSON, and as declarations of bash.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};
use store::StorePath;

use super::{Inputs, invalid};
use crate::Result;

/// The attributes, with the outputs' paths and what was asked of references filled in.
pub fn attributes(
    name: &str,
    text: &[u8],
    scratch: &BTreeMap<String, StorePath>,
    inputs: &Inputs,
    describe: &mut dyn FnMut(&StorePath) -> Result<Map<String, Value>>,
) -> Result<Map<String, Value>> {
    let Ok(Value::Object(mut attributes)) = serde_json::from_slice(text) else {
        return Err(invalid(name, "its structured attributes are no JSON object"));
    };
    let outputs = scratch.iter().map(|(name, path)| (name.clone(), Value::from(path.as_str())));
    attributes.insert("outputs".to_owned(), Value::Object(outputs.collect()));
    if let Some(Value::Object(asked)) = attributes.get("exportReferencesGraph").cloned() {
        for (key, paths) in asked {
            let paths: Vec<&Value> = match &paths {
                Value::Array(paths) => paths.iter().collect(),
                path => vec![path],
            };
            let mut roots = Vec::new();
            for path in paths {
                let path = path.as_str().and_then(StorePath::parse).filter(|path| inputs.paths.contains_key(path));
                roots.push(path.ok_or_else(|| invalid(name, format!("`exportReferencesGraph.{key}` is no input")))?);
            }
            let closure = inputs.closure(&roots);
            let described = closure.iter().map(|path| describe(path).map(Value::Object)).collect::<Result<Vec<_>>>()?;
            attributes.insert(key, Value::Array(described));
        }
    }
    // What was put in stands at its place in the order of names.
    let sorted: BTreeMap<String, Value> = attributes.into_iter().collect();
    Ok(sorted.into_iter().collect())
}

/// Declarations of bash for the attributes that it can hold.
pub fn declarations(attributes: &Map<String, Value>) -> String {
    let mut text = String::new();
    for (name, value) in attributes {
        if !is_name(name) {
            continue;
        }
        if let Some(simple) = simple(value) {
            let _ = writeln!(text, "declare {name}={simple}");
            continue;
        }
        match value {
            Value::Array(items) => {
                if let Some(items) = items.iter().map(simple).collect::<Option<Vec<_>>>() {
                    let items: String = items.iter().map(|item| format!("{item} ")).collect();
                    let _ = writeln!(text, "declare -a {name}=({items})");
                }
            }
            Value::Object(fields) => {
                let fields = fields.iter().map(|(key, value)| Some(format!("[{}]={} ", quoted(key), simple(value)?)));
                if let Some(fields) = fields.collect::<Option<String>>() {
                    let _ = writeln!(text, "declare -A {name}=({fields})");
                }
            }
            _ => {}
        }
    }
    text
}

fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A value that is one word of bash: a text, a whole number, a truth, or nothing.
fn simple(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(quoted(text)),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Some(whole.to_string()),
            None => number.as_f64().filter(|number| number.fract() == 0.0).map(|number| format!("{number:.0}")),
        },
        Value::Null => Some("''".to_owned()),
        Value::Bool(true) => Some("1".to_owned()),
        Value::Bool(false) => Some(String::new()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bash_gets_what_it_can_hold() {
        let attributes = serde_json::json!({
            "a": "it's", "b": 3, "c": true, "d": false, "e": null, "f": ["x y", 1], "g": {"k v": "w"},
            "h": [["deep"]], "i": {"deep": []}, "not-a-name": "x", "j": 2.0, "k": 2.5,
        });
        let Value::Object(attributes) = attributes else { panic!() };
        assert_eq!(
            declarations(&attributes),
            "declare a='it'\\''s'\ndeclare b=3\ndeclare c=1\ndeclare d=\ndeclare e=''\ndeclare -a f=('x y' 1 )\n\
             declare -A g=(['k v']='w' )\ndeclare j=2\n"
        );
    }
}
