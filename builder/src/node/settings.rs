//! What npm on this machine is configured with, as far as fetching goes: its registries, and what they want to know of us.
//!
//! As npm reads it (npmrc(5)): variables, then the user's file, then the machine's; the first that says something decides.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::Machine;
use crate::fetch::{percent_encode, split};

/// Settings by name, as npmrc files have them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settings {
    values: BTreeMap<String, String>,
}

impl Settings {
    /// Reads what there is. A file that cannot be read is as if it were not there.
    pub fn read(machine: &Machine) -> Self {
        let mut settings = Self::default();
        for (name, value) in &machine.environment {
            let lower = name.to_ascii_lowercase();
            let Some(setting) = lower.strip_prefix("npm_config_").filter(|_| !value.is_empty()) else { continue };
            // A variable's name cannot have what a key such as `//host/:_authToken` has; npm takes those as they are written.
            let setting = if setting.starts_with("//") {
                name["npm_config_".len()..].to_owned()
            } else {
                setting.replace('_', "-")
            };
            settings.values.entry(setting).or_insert_with(|| value.clone());
        }
        let named = |setting: &str| settings.values.get(setting).map(PathBuf::from);
        let user = named("userconfig").or_else(|| Some(machine.home.as_ref()?.join(".npmrc")));
        let global = named("globalconfig")
            .into_iter()
            .chain(["etc/npmrc", "usr/etc/npmrc", "usr/local/etc/npmrc"].map(|file| machine.file(file)));
        for file in user.into_iter().chain(global).collect::<Vec<_>>() {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            settings.add(&text, machine);
        }
        settings
    }

    fn add(&mut self, text: &str, machine: &Machine) {
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with([';', '#', '['])) {
            let Some((name, value)) = line.split_once('=') else { continue };
            let value = value.trim().trim_matches(['"', '\'']);
            let value = with_variables(value, machine);
            self.values.entry(name.trim().to_owned()).or_insert(value);
        }
    }

    /// The registry of a scope (`@company`), or of packages without one; none if nothing says.
    pub fn registry(&self, scope: Option<&str>) -> Option<&str> {
        let of_scope = scope.and_then(|scope| self.values.get(&format!("{scope}:registry")));
        of_scope.or_else(|| self.values.get("registry")).map(String::as_str).filter(|url| split(url).is_some())
    }

    /// The token for an address: of the setting for the longest path that it lies below.
    pub fn token(&self, url: &str) -> Option<&str> {
        self.about(url, "_authToken")
    }

    /// `user:password` for an address, percent-encoded.
    pub fn user(&self, url: &str) -> Option<String> {
        let decoded = |text: &str| {
            let bytes = store::nix::hash::from_base64(text.as_bytes())?;
            String::from_utf8(bytes).ok()
        };
        let (name, password) = match self.about(url, "_auth") {
            Some(both) => {
                let both = decoded(both)?;
                let (name, password) = both.split_once(':')?;
                (name.to_owned(), password.to_owned())
            }
            None => (self.about(url, "username")?.to_owned(), decoded(self.about(url, "_password")?)?),
        };
        Some(format!("{}:{}", percent_encode(&name), percent_encode(&password)))
    }

    fn about(&self, url: &str, what: &str) -> Option<&str> {
        let parts = split(url)?;
        let mut below = format!("//{}{}", parts.host, parts.path);
        loop {
            let bare = below.trim_end_matches('/');
            for key in [format!("{bare}/:{what}"), format!("{bare}:{what}")] {
                if let Some(value) = self.values.get(&key) {
                    return Some(value);
                }
            }
            let cut = bare.rfind('/').filter(|cut| *cut > 1)?;
            below.truncate(cut);
        }
    }
}

/// `${NAME}` in a value stands for a variable; one that is not set stays as it is written.
fn with_variables(value: &str, machine: &Machine) -> String {
    let mut text = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, behind)) = after.split_once('}') else { break };
        text.push_str(before);
        match machine.environment.get(name.trim_end_matches('?')) {
            Some(value) => text.push_str(value),
            None => text.push_str(&format!("${{{name}}}")),
        }
        rest = behind;
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_file_comes_before_the_machines_and_variables_before_both() {
        let home = tempfile::tempdir().unwrap();
        let text = "# mine\nregistry = https://user.example/npm/\n@co:registry=https://co.example/\n//co.example/:_authToken=${TOKEN}\n\
                    //user.example/:_auth=bWU6cEBzcw==\n[section]\nnonsense\n";
        std::fs::write(home.path().join(".npmrc"), text).unwrap();
        std::fs::create_dir(home.path().join("etc")).unwrap();
        std::fs::write(home.path().join("etc/npmrc"), "registry=https://machine.example/\n").unwrap();
        let mut machine =
            Machine { home: Some(home.path().to_owned()), root: home.path().to_owned(), ..Machine::default() };
        machine.environment.insert("TOKEN".to_owned(), "s3cret".to_owned());
        let settings = Settings::read(&machine);
        assert_eq!(settings.registry(None), Some("https://user.example/npm/"));
        assert_eq!(settings.registry(Some("@co")), Some("https://co.example/"));
        assert_eq!(settings.registry(Some("@other")), Some("https://user.example/npm/"));
        assert_eq!(settings.token("https://co.example/x/-/x-1.tgz"), Some("s3cret"));
        assert_eq!(settings.user("https://user.example/npm/x/-/x-1.tgz").as_deref(), Some("me:p%40ss"));
        assert_eq!(settings.token("https://elsewhere.example/x"), None);
        machine.environment.insert("NPM_CONFIG_REGISTRY".to_owned(), "https://variable.example".to_owned());
        assert_eq!(Settings::read(&machine).registry(None), Some("https://variable.example"));
    }
}
