//! How a formation wants to be run, as a record: what `info` prints and `diff` compares.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use store::{Formation, Launch, Port, User};

/// Name, version, variant, platform and launch settings.
pub fn of(formation: &Formation) -> Value {
    json!({
        "name": formation.name,
        "version": formation.version,
        "variant": formation.variant,
        "platform": formation.platform,
        "launch": launch(&formation.launch),
    })
}

/// Launch settings.
pub fn launch(launch: &Launch) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let words = |words: &[Vec<u8>]| words.iter().map(|word| text(word)).collect::<Vec<String>>();
    let environment = launch.environment.iter().map(|(name, value)| (text(name), text(value)));
    json!({
        "entrypoint": words(&launch.entrypoint),
        "command": words(&launch.command),
        "environment": environment.collect::<BTreeMap<_, _>>(),
        "directory": launch.directory.as_deref().map(text),
        "user": launch.user.as_ref().map(User::to_string),
        "limits": {
            "memory": launch.limits.memory,
            "cpu_millis": launch.limits.cpu_millis,
            "pids": launch.limits.pids,
            "timeout_millis": launch.limits.timeout_millis,
        },
        "ports": launch.ports.iter().map(Port::to_string).collect::<Vec<_>>(),
        "network": launch.network,
        "stop_signal": launch.stop_signal.map(|signal| signal.to_string()),
        "capabilities": launch.capabilities.names(),
        "labels": launch.labels,
    })
}

/// The settings that are set, each under its path: `launch.limits.memory`, with its value as JSON.
pub fn flat(value: &Value) -> BTreeMap<String, String> {
    fn walk(path: &str, value: &Value, found: &mut BTreeMap<String, String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    walk(&path, value, found);
                }
            }
            Value::Null => {}
            Value::Array(items) if items.is_empty() => {}
            Value::String(text) if text.is_empty() && !path.contains(".environment.") && !path.contains(".labels.") => {
            }
            value => _ = found.insert(path.to_owned(), value.to_string()),
        }
    }
    let mut found = BTreeMap::new();
    walk("", value, &mut found);
    found
}
