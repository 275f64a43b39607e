//! How a formation wants to be run, as a record: what `info` prints and `diff` compares.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use store::{Formation, Launch, Limits, Port, User};

use crate::render;

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

/// Launch settings for people, a line each: what it is called, and its value. What is not set has an empty value, or no line.
pub fn lines(launch: &Launch) -> Vec<(&'static str, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let words = |words: &[Vec<u8>]| render::shell_words(&words.iter().map(|word| text(word)).collect::<Vec<String>>());
    let mut lines = vec![
        ("entrypoint", words(&launch.entrypoint)),
        ("command", words(&launch.command)),
        ("directory", launch.directory.as_deref().map(text).unwrap_or_default()),
        ("user", launch.user.as_ref().map(User::to_string).unwrap_or_default()),
        ("limits", limits(&launch.limits)),
        ("ports", launch.ports.iter().map(Port::to_string).collect::<Vec<_>>().join(", ")),
        ("capabilities", launch.capabilities.names().join(" ")),
        ("stop signal", launch.stop_signal.map(|signal| signal.to_string()).unwrap_or_default()),
    ];
    let environment = launch.environment.iter();
    lines.extend(environment.map(|(name, value)| ("environment", format!("{}={}", text(name), text(value)))));
    lines.extend(launch.labels.iter().map(|(name, value)| ("label", format!("{name}={value}"))));
    lines
}

fn limits(limits: &Limits) -> String {
    let mut words = Vec::new();
    words.extend(limits.memory.map(|bytes| format!("memory {}", render::size(bytes))));
    words.extend(limits.cpu_millis.map(|millis| format!("{} processors", millis as f64 / 1000.0)));
    words.extend(limits.pids.map(|pids| format!("{pids} processes")));
    words.extend(limits.timeout_millis.map(|millis| format!("{} s", millis as f64 / 1000.0)));
    words.join(", ")
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
