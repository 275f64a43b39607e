//! What this machine is configured with: where its mirrors and indexes are, and how to reach them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use store::signing::NamedPublicKey;

/// Read once by `cli`; no library reads the environment.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// Variables that the ecosystems' own tools honour (`PIP_INDEX_URL`, `UV_INDEX_URL`, `https_proxy`, `SSL_CERT_FILE`, `APT_CONFIG`, …).
    pub environment: BTreeMap<String, String>,
    /// The root of the host's own configuration, `/` except in tests: `etc/apt`, `etc/pip.conf` are looked for below it.
    pub root: PathBuf,
    /// The user's home, if there is one.
    pub home: Option<PathBuf>,
    /// Debian mirrors from forge's own configuration; they override apt's. `http://host/debian`.
    pub debian_mirrors: Vec<String>,
    /// Archives of Debian's snapshots, with `@SNAPSHOTID@` for the time. `http://host/archive/debian/@SNAPSHOTID@`.
    pub debian_snapshots: Vec<String>,
    /// A Python index from forge's own configuration; overrides pip's and uv's. `https://host/simple`.
    pub python_index: Option<String>,
    /// An npm registry from forge's own configuration; overrides npm's. `https://host/npm`.
    pub npm_registry: Option<String>,
    /// Nix binary caches that are asked, and whose word counts.
    pub nix_caches: NixCaches,
    /// Who we are at registries of images, and which may be spoken to in plain HTTP.
    pub registries: store::registry::Settings,
    /// An index of crates from forge's own configuration; overrides cargo's. `https://host/index/`.
    pub cargo_index: Option<String>,
}

/// Nix binary caches that are asked before a derivation of Nix's is made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NixCaches {
    /// `https://…`, `http://…` or `file:///…`, in the order in which they are asked.
    pub addresses: Vec<String>,
    /// Keys that sign what is believed.
    pub trusted: Vec<NamedPublicKey>,
}

impl Machine {
    /// A file of the host's configuration.
    pub fn file(&self, below_root: &str) -> PathBuf {
        let root = if self.root.as_os_str().is_empty() { Path::new("/") } else { &self.root };
        root.join(below_root.trim_start_matches('/'))
    }

    /// A variable, if it is set and not empty.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}
