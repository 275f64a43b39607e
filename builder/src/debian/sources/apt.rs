//! What else apt is configured with that matters for reaching a mirror: proxies, passwords, and whether old indexes are refused.

use std::collections::BTreeMap;

use super::Source;
use super::list::{in_directory, read_file};
use crate::Machine;
use crate::fetch::{percent_encode, split};

/// Settings of apt.conf(5) and apt_auth.conf(5).
pub struct Settings {
    /// By lower-case name, `acquire::http::proxy`.
    values: BTreeMap<String, String>,
    /// What the names and passwords are for, and they, percent-encoded: `user:password`.
    users: Vec<(String, String)>,
}

impl Settings {
    /// Reads what there is. A file that cannot be read (apt keeps passwords from ordinary users) is as if it were not there.
    pub fn read(machine: &Machine) -> Self {
        let mut settings = Self { values: BTreeMap::new(), users: Vec::new() };
        let mut files = in_directory(&machine.file("etc/apt/apt.conf.d"), &["", "conf"]);
        files.push(machine.file("etc/apt/apt.conf"));
        for path in files {
            if let Ok(Some(text)) = read_file(&path) {
                read_configuration(&text, &mut settings.values);
            }
        }
        let mut files = vec![machine.file("etc/apt/auth.conf")];
        files.extend(in_directory(&machine.file("etc/apt/auth.conf.d"), &["conf"]));
        for path in files {
            if let Ok(Some(text)) = read_file(&path) {
                read_users(&text, &mut settings.users);
            }
        }
        settings
    }

    /// Completes a source.
    pub fn apply(&self, source: &mut Source) {
        let Some(parts) = split(&source.base) else { return };
        // The method for https looks at the settings of http where its own are absent.
        let schemes: &[&str] = if parts.scheme == "https" { &["https", "http"] } else { &["http"] };
        let setting = |suffix: &str| {
            schemes
                .iter()
                .find_map(|scheme| self.values.get(&format!("acquire::{scheme}::proxy{suffix}").to_ascii_lowercase()))
        };
        let proxy = setting(&format!("::{}", parts.host_name())).or_else(|| setting(""));
        source.proxy = proxy.filter(|proxy| !proxy.is_empty()).cloned();
        if self
            .values
            .get("acquire::check-valid-until")
            .is_some_and(|value| ["false", "no", "0"].contains(&value.as_str()))
        {
            source.check_valid_until = false;
        }
        if parts.user.is_none()
            && let Some(user) = self.user(parts.scheme, parts.host, parts.path)
        {
            source.base = format!("{}://{user}@{}{}", parts.scheme, parts.host, parts.path);
        }
    }

    /// A password is sent in the clear only if the entry says `http://`.
    fn user(&self, scheme: &str, host: &str, path: &str) -> Option<&str> {
        let suits = |machine: &str| {
            let rest = match machine.split_once("://") {
                Some((named, rest)) if named == scheme => rest,
                None if scheme == "https" => machine,
                _ => return false,
            };
            let (named, below) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            named == host && path.starts_with(below)
        };
        self.users.iter().find(|(machine, _)| suits(machine)).map(|(_, user)| user.as_str())
    }
}

/// `machine HOST login NAME password WORD`, in any white space.
fn read_users(text: &str, users: &mut Vec<(String, String)>) {
    let text: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let text = text.join("\n");
    let mut words = text.split_whitespace();
    let mut entry: Option<(String, String, String)> = None;
    let mut keep = |entry: Option<(String, String, String)>| {
        users.extend(entry.map(|(machine, login, password)| (machine, format!("{login}:{password}"))));
    };
    while let Some(word) = words.next() {
        match (word, words.next()) {
            ("machine", Some(value)) => {
                keep(entry.take());
                entry = Some((value.to_owned(), String::new(), String::new()));
            }
            ("login", Some(value)) => entry.iter_mut().for_each(|entry| entry.1 = percent_encode(value)),
            ("password", Some(value)) => entry.iter_mut().for_each(|entry| entry.2 = percent_encode(value)),
            _ => {}
        }
    }
    keep(entry.take());
}

/// `Name::Name "value";` and `Name { Name "value"; };`, with comments.
fn read_configuration(text: &str, values: &mut BTreeMap<String, String>) {
    let mut scopes: Vec<String> = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let next = &rest[character.len_utf8()..];
        rest = match character {
            '"' => {
                let (value, after) = next.split_once('"').unwrap_or((next, ""));
                words.push(value.to_owned());
                after
            }
            '#' => next.split_once('\n').map_or("", |(_, after)| after),
            '/' if next.starts_with('/') => next.split_once('\n').map_or("", |(_, after)| after),
            '/' if next.starts_with('*') => next.split_once("*/").map_or("", |(_, after)| after),
            '{' => {
                scopes.push(words.drain(..).next().unwrap_or_default());
                next
            }
            '}' | ';' => {
                if let [name, value] = words.as_slice() {
                    let name = scopes.iter().chain([name]).map(String::as_str).filter(|scope| !scope.is_empty());
                    values.insert(name.collect::<Vec<_>>().join("::").to_ascii_lowercase(), value.clone());
                }
                words.clear();
                if character == '}' {
                    scopes.pop();
                }
                next
            }
            character if character.is_whitespace() => next,
            _ => {
                let end = rest.find(|end: char| end.is_whitespace() || "{};\"".contains(end)).unwrap_or(rest.len());
                words.push(rest[..end].to_owned());
                &rest[end..]
            }
        };
    }
}
