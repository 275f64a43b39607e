//! What this machine's own configuration says of Python indexes: forge's, uv's, pip's.

use std::path::PathBuf;

use crate::fetch::split;
use crate::{Error, Machine, Result};

/// Indexes, as far as something names them. Addresses may hold passwords.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Indexes {
    /// The main one.
    pub default: Option<String>,
    /// Asked before it, in this order, as uv does: a project that one of them has is taken from there.
    pub extra: Vec<String>,
}

impl Indexes {
    /// All of them, in the order asked.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.extra.iter().chain(&self.default).map(String::as_str)
    }

    /// What was found later stands behind what was found before.
    fn or(mut self, later: Self) -> Self {
        if self.default.is_none() {
            self.default = later.default;
        }
        self.extra.extend(later.extra.into_iter().filter(|url| !self.extra.contains(url)).collect::<Vec<_>>());
        self
    }
}

/// What is configured. There may be no default: then pip is to be asked for its own.
pub fn configured(machine: &Machine) -> Result<Indexes> {
    let own = Indexes { default: machine.python_index.clone(), extra: Vec::new() };
    let mut found = own;
    if found.default.is_none() {
        found = uv(machine)?;
    }
    if found.default.is_none() {
        found = found.or(pip(machine)?);
    }
    for url in found.all() {
        if split(url).is_none() {
            return Err(Error::Invalid {
                what: "Python index",
                // Not the address: whatever this is, a password may be in it.
                name: url.split_once("://").map_or("…".to_owned(), |(scheme, _)| format!("{scheme}://…")),
                reason: "an address that begins with `https://` or `http://` is expected".to_owned(),
            });
        }
    }
    Ok(found)
}

fn words(text: Option<&str>) -> Vec<String> {
    text.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// uv's variables, then its files: the user's, then the system's.
fn uv(machine: &Machine) -> Result<Indexes> {
    let variable = |name: &str| machine.variable(name);
    // `UV_INDEX` may name an index: `name=url`.
    let unnamed = |word: String| match word.split_once('=') {
        Some((name, url)) if !name.contains(['/', ':']) => url.to_owned(),
        _ => word,
    };
    let default = variable("UV_DEFAULT_INDEX").or_else(|| variable("UV_INDEX_URL"));
    let extra = words(variable("UV_INDEX")).into_iter().chain(words(variable("UV_EXTRA_INDEX_URL")));
    let mut found =
        Indexes { default: default.map(|word| unnamed(word.to_owned())), extra: extra.map(unnamed).collect() };
    let files = match variable("UV_CONFIG_FILE") {
        Some(file) => vec![PathBuf::from(file)],
        None if variable("UV_NO_CONFIG").is_some() => Vec::new(),
        None => [user_configuration(machine, "uv/uv.toml")]
            .into_iter()
            .flatten()
            .chain([machine.file("etc/xdg/uv/uv.toml"), machine.file("etc/uv/uv.toml")])
            .collect(),
    };
    for file in files {
        if let Some(text) = read(&file)? {
            found = found.or(uv_file(&text).map_err(|reason| bad_file(&file, reason))?);
        }
    }
    Ok(found)
}

/// What a `uv.toml` says: `[[index]]`, else the older `index-url` and `extra-index-url`, at the top or below `[pip]`.
fn uv_file(text: &str) -> Result<Indexes, String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct File {
        #[serde(default)]
        index: Vec<Index>,
        index_url: Option<String>,
        #[serde(default)]
        extra_index_url: Vec<String>,
        pip: Option<Pip>,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Pip {
        index_url: Option<String>,
        #[serde(default)]
        extra_index_url: Vec<String>,
    }
    #[derive(serde::Deserialize)]
    struct Index {
        url: String,
        #[serde(default)]
        default: bool,
        #[serde(default)]
        explicit: bool,
    }
    let file: File = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    let mut found = Indexes::default();
    // An explicit index is only for projects that say so, and requirements here cannot.
    for index in file.index.into_iter().filter(|index| !index.explicit) {
        if index.default {
            found.default = Some(index.url);
        } else {
            found.extra.push(index.url);
        }
    }
    let pip = file.pip.map(|pip| Indexes { default: pip.index_url, extra: pip.extra_index_url }).unwrap_or_default();
    Ok(found.or(pip).or(Indexes { default: file.index_url, extra: file.extra_index_url }))
}

/// pip's variables, then its files, of which the user's newer place goes before the older, and those before the system's.
fn pip(machine: &Machine) -> Result<Indexes> {
    let variable = |name: &str| machine.variable(name);
    let mut found = Indexes {
        default: variable("PIP_INDEX_URL").map(str::to_owned),
        extra: words(variable("PIP_EXTRA_INDEX_URL")),
    };
    let mut files = Vec::new();
    // pip: "if this environment variable is set to os.devnull, no configuration file is read".
    let named = variable("PIP_CONFIG_FILE");
    if named != Some("/dev/null") {
        files.extend(named.map(PathBuf::from));
        files.extend(user_configuration(machine, "pip/pip.conf"));
        files.extend(machine.home.as_ref().map(|home| home.join(".pip/pip.conf")));
        files.extend(["etc/xdg/pip/pip.conf", "etc/pip.conf"].map(|file| machine.file(file)));
    }
    for file in files {
        if let Some(text) = read(&file)? {
            found = found.or(pip_file(&text));
        }
    }
    Ok(found)
}

/// What a `pip.conf` says: an ini file as Python's `configparser` reads it. `[install]` goes before `[global]`.
fn pip_file(text: &str) -> Indexes {
    let mut values: Vec<(String, String, String)> = Vec::new();
    let mut section = String::new();
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with(char::is_whitespace) {
            if let Some((_, _, value)) = values.last_mut() {
                value.push('\n');
                value.push_str(trimmed);
            }
        } else if let Some(name) = trimmed.strip_prefix('[') {
            section = name.trim_end_matches(']').to_ascii_lowercase();
        } else if let Some(at) = trimmed.find(['=', ':']) {
            let key = trimmed[..at].trim().to_ascii_lowercase().replace('_', "-");
            let key = key.trim_start_matches('-').to_owned();
            values.push((section.clone(), key, trimmed[at + 1..].trim().to_owned()));
        }
    }
    let value = |key: &str| {
        ["install", "global"].into_iter().find_map(|wanted| {
            let found = values.iter().rev().find(|(section, name, _)| section == wanted && name == key);
            found.map(|(_, _, value)| value.as_str()).filter(|value| !value.is_empty())
        })
    };
    Indexes { default: value("index-url").map(str::to_owned), extra: words(value("extra-index-url")) }
}

fn user_configuration(machine: &Machine, file: &str) -> Option<PathBuf> {
    let directory = match machine.variable("XDG_CONFIG_HOME") {
        Some(directory) => Some(PathBuf::from(directory)),
        None => machine.home.as_ref().map(|home| home.join(".config")),
    };
    Some(directory?.join(file))
}

/// A configuration file's text, if there is one. One of another user that we may not read is as good as none.
fn read(path: &PathBuf) -> Result<Option<String>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) => match error.kind() {
            std::io::ErrorKind::NotFound
            | std::io::ErrorKind::PermissionDenied
            | std::io::ErrorKind::NotADirectory
            | std::io::ErrorKind::IsADirectory => Ok(None),
            _ => Err(Error::file("read", path)(error)),
        },
    }
}

fn bad_file(path: &std::path::Path, reason: String) -> Error {
    Error::Invalid { what: "configuration", name: path.display().to_string(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Host {
        directory: tempfile::TempDir,
        machine: Machine,
    }

    impl Host {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let root = directory.path().join("root");
            let home = directory.path().join("home");
            Self { machine: Machine { root, home: Some(home), ..Machine::default() }, directory }
        }

        fn file(self, path: &str, text: &str) -> Self {
            let path = self.directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
            self
        }

        fn variable(mut self, name: &str, value: &str) -> Self {
            self.machine.environment.insert(name.to_owned(), value.to_owned());
            self
        }

        fn says(&self) -> String {
            let found = configured(&self.machine).unwrap();
            format!("{} | {}", found.default.unwrap_or_default(), found.extra.join(" "))
        }
    }

    #[test]
    fn a_machine_that_says_nothing_has_no_index() {
        assert_eq!(Host::new().says(), " | ");
    }

    #[test]
    fn the_nearer_setting_wins() {
        let host = Host::new().file("root/etc/pip.conf", "[global]\nindex-url = http://etc/\n");
        assert_eq!(host.says(), "http://etc/ | ");
        let host = host.file(
            "home/.pip/pip.conf",
            "[global]\nindex_url: http://old-home/\nextra-index-url =\n  http://a/\n  http://b/\n",
        );
        assert_eq!(host.says(), "http://old-home/ | http://a/ http://b/");
        let host = host.file(
            "home/.config/pip/pip.conf",
            "[install]\nindex-url=http://install/\n[global]\nindex-url=http://no/\n",
        );
        assert_eq!(host.says(), "http://install/ | http://a/ http://b/");
        let host = host.variable("PIP_INDEX_URL", "http://pip-variable/");
        assert_eq!(host.says(), "http://pip-variable/ | http://a/ http://b/");
        let host = host.file("root/etc/uv/uv.toml", "[[index]]\nurl = \"http://uv-system/\"\ndefault = true\n");
        assert_eq!(host.says(), "http://uv-system/ | ");
        let host = host
            .file("home/.config/uv/uv.toml", "index-url = \"http://uv-home/\"\nextra-index-url = [\"http://c/\"]\n");
        assert_eq!(host.says(), "http://uv-home/ | http://c/");
        let host = host
            .variable("UV_DEFAULT_INDEX", "http://uv-variable/")
            .variable("UV_INDEX", "name=http://d/ http://e/?x=y");
        assert_eq!(host.says(), "http://uv-variable/ | http://d/ http://e/?x=y http://c/");
        let mut host = host;
        host.machine.python_index = Some("http://forge/".to_owned());
        assert_eq!(host.says(), "http://forge/ | ");
    }

    #[test]
    fn files_can_be_named_or_turned_off() {
        let host = Host::new().file("home/.config/pip/pip.conf", "[global]\nindex-url = http://home/\n");
        let elsewhere = host.directory.path().join("elsewhere.conf").display().to_string();
        let host = host.file("elsewhere.conf", "[global]\nindex-url = http://elsewhere/\n");
        assert_eq!(host.variable("PIP_CONFIG_FILE", &elsewhere).says(), "http://elsewhere/ | ");
        let host = Host::new().file("root/etc/pip.conf", "[global]\nindex-url = http://etc/\n");
        assert_eq!(host.variable("PIP_CONFIG_FILE", "/dev/null").says(), " | ");
        let host = Host::new().file("home/.config/uv/uv.toml", "index-url = \"http://home/\"\n");
        assert_eq!(host.variable("UV_NO_CONFIG", "1").says(), " | ");
    }

    #[test]
    fn bad_settings_are_errors_that_keep_passwords() {
        let host = Host::new().variable("PIP_INDEX_URL", "ftp://me:secret@host/simple");
        let message = configured(&host.machine).unwrap_err().to_string();
        assert!(message.contains("bad Python index") && !message.contains("secret"), "{message}");
        let host = Host::new().file("home/.config/uv/uv.toml", "index-url = \n");
        assert!(matches!(configured(&host.machine), Err(Error::Invalid { what: "configuration", .. })));
    }
}
