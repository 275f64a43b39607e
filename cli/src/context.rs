//! The environment, the settings and the store: what every command works in. Variables and settings are read here, nowhere else.
//!
//! A setting comes from the command line, else a `FORGE_…` variable, else `forge.toml` of the project, else the user's and then
//! the machine's `config.toml`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicI32;

use builder::Machine;
use executor::Native;
use store::Store;

use crate::args::{Color, Global};
use crate::error::{Failure, Result, code};
use crate::evaluation_cache::EvaluationCache;

/// What every command works in.
pub struct Context {
    /// As typed.
    pub global: Global,
    /// The caller's environment.
    pub environment: BTreeMap<OsString, OsString>,
    /// Settings with their origins.
    pub settings: Settings,
    /// Carries sandboxes out.
    pub backend: Native,
    /// The signal that interrupted us, or 0.
    pub interrupt: Arc<AtomicI32>,
}

/// One setting and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting<T> {
    /// Its value.
    pub value: T,
    /// `--store`, `$FORGE_STORE`, a file, or `built in`.
    pub origin: String,
}

/// Everything that can be set.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `store`: the store's directory.
    pub store: Option<Setting<PathBuf>>,
    /// `jobs`: how many steps run at a time.
    pub jobs: Option<Setting<usize>>,
    /// `debian.mirrors`: override apt's.
    pub debian_mirrors: Option<Setting<Vec<String>>>,
    /// `debian.snapshots`: archives that keep suites as they were.
    pub debian_snapshots: Option<Setting<Vec<String>>>,
    /// `python.index`: overrides pip's and uv's.
    pub python_index: Option<Setting<String>>,
    /// `npm.registry`: overrides npm's.
    pub npm_registry: Option<Setting<String>>,
    /// `cargo.index`: overrides cargo's.
    pub cargo_index: Option<Setting<String>>,
    /// `nix.caches`: Nix binary caches that are asked before a derivation of Nix's is made.
    pub nix_caches: Option<Setting<Vec<String>>>,
    /// `nix.trusted_keys`: keys of caches that are believed, `NAME:BASE64`.
    pub nix_trusted_keys: Option<Setting<Vec<String>>>,
    /// `registries.insecure`: hosts that may be spoken to in plain HTTP.
    pub insecure_registries: Option<Setting<Vec<String>>>,
    /// `evaluation_cache`: whether what evaluations gave is kept.
    pub evaluation_cache: Option<Setting<bool>>,
    /// `runner.image`: an image that somebody pushed, instead of one made of this program.
    pub runner_image: Option<Setting<String>>,
    /// `runner.engine`: how the engine is called, for instance `sudo docker`.
    pub runner_engine: Option<Setting<String>>,
    /// `runner.options`: what is added to every `run` of the engine's.
    pub runner_options: Option<Setting<String>>,
    /// `[remotes.NAME]`: the peers, by name.
    pub remotes: BTreeMap<String, Setting<Remote>>,
}

/// A peer as it is configured.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remote {
    /// `file://DIR`, `https://HOST`, …
    pub address: String,
    /// Lower ones are asked first.
    #[serde(default = "Remote::usual_priority")]
    pub priority: u32,
    /// A file with the token that lets us in. A project's `forge.toml` may not name one: it would send a file of the user's to whom it likes.
    pub token_file: Option<PathBuf>,
}

impl Remote {
    /// Of a remote that says none.
    pub fn usual_priority() -> u32 {
        50
    }
}

/// The shape of `forge.toml` and `config.toml`.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    store: Option<PathBuf>,
    jobs: Option<usize>,
    evaluation_cache: Option<bool>,
    debian: DebianFile,
    python: PythonFile,
    registries: RegistriesFile,
    nix: NixFile,
    npm: NpmFile,
    cargo: CargoFile,
    remotes: BTreeMap<String, Remote>,
    runner: RunnerFile,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RunnerFile {
    image: Option<String>,
    engine: Option<String>,
    options: Option<String>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DebianFile {
    mirrors: Option<Vec<String>>,
    snapshots: Option<Vec<String>>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct NixFile {
    caches: Option<Vec<String>>,
    trusted_keys: Option<Vec<String>>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RegistriesFile {
    insecure: Option<Vec<String>>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PythonFile {
    index: Option<String>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CargoFile {
    index: Option<String>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct NpmFile {
    registry: Option<String>,
}

impl Context {
    /// Reads the environment and the settings.
    pub fn new(global: Global) -> Result<Self> {
        let environment = Self::variables();
        let settings = Settings::read(&global, &environment)?;
        let (backend, interrupt) = (Native::default(), Arc::new(AtomicI32::new(0)));
        Ok(Self { global, environment, settings, backend, interrupt })
    }

    /// The caller's environment.
    pub fn variables() -> BTreeMap<OsString, OsString> {
        std::env::vars_os().collect()
    }

    /// A variable of the environment that is set and not empty.
    pub fn variable(&self, name: &str) -> Option<&OsString> {
        self.environment.get(&OsString::from(name)).filter(|value| !value.is_empty())
    }

    /// A program of the caller's PATH.
    pub fn program(&self, name: impl AsRef<Path>) -> Option<PathBuf> {
        let path = self.variable("PATH").cloned().unwrap_or_default();
        std::env::split_paths(&path).map(|directory| directory.join(&name)).find(|path| path.is_file())
    }

    /// Whether colours go to stderr.
    pub fn color(&self) -> bool {
        self.color_on(std::io::stderr().is_terminal())
    }

    /// Whether colours go to stdout.
    pub fn color_on_stdout(&self) -> bool {
        self.color_on(std::io::stdout().is_terminal())
    }

    fn color_on(&self, terminal: bool) -> bool {
        match self.global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => self.variable("NO_COLOR").is_none() && terminal,
        }
    }

    /// Where what is only convenient to keep is kept.
    pub fn state_path(&self) -> Result<PathBuf> {
        let below = |name: &str, rest: &str| {
            let directory = self.variable(name).map(PathBuf::from).filter(|directory| directory.is_absolute())?;
            Some(directory.join(rest))
        };
        below("XDG_STATE_HOME", "forge")
            .or_else(|| below("HOME", ".local/state/forge"))
            .ok_or_else(|| Failure::new(code::USAGE, "no place for what is kept: HOME is not set to an absolute path"))
    }

    /// The user's own configuration: `config.toml`, keys and trusted keys lie in it.
    pub fn configuration_path(&self) -> Result<PathBuf> {
        let home = self.variable("XDG_CONFIG_HOME").map(PathBuf::from);
        let home = home.or_else(|| self.variable("HOME").map(|home| Path::new(home).join(".config")));
        home.filter(|home| home.is_absolute())
            .map(|home| home.join("forge"))
            .ok_or_else(|| Failure::new(code::USAGE, "no place for settings: HOME is not set to an absolute path"))
    }

    /// Whether bars are drawn: on a terminal, not in CI, and when something may be said at all.
    pub fn bars(&self) -> bool {
        let dumb = self.variable("TERM").is_some_and(|term| term == "dumb");
        std::io::stderr().is_terminal() && self.variable("CI").is_none() && !dumb && !self.global.quiet
    }

    /// Whether a person looks at stderr, rather than a log that is read later.
    pub fn is_watched(&self) -> bool {
        std::io::stderr().is_terminal() && self.variable("CI").is_none()
    }

    /// Where the store is, and who says so.
    pub fn store_path(&self) -> Result<Setting<PathBuf>> {
        if let Some(setting) = &self.settings.store {
            return Ok(setting.clone());
        }
        let below = |name: &str, rest: &str| {
            let value = PathBuf::from(self.variable(name).filter(|value| Path::new(value).is_absolute())?);
            Some(Setting { value: value.join(rest), origin: format!("${name}") })
        };
        if let Some(setting) = below("XDG_DATA_HOME", "forge/store") {
            return Ok(setting);
        }
        // Who is root only in a user namespace of its own is an ordinary user.
        let home = self.variable("HOME").is_some();
        if rustix::process::geteuid().is_root() && (!home || executor::backend::native::has_every_user()) {
            return Ok(Setting { value: "/var/lib/forge/store".into(), origin: "built in".to_owned() });
        }
        below("HOME", ".local/share/forge/store").ok_or_else(|| {
            Failure::new(code::USAGE, "no place for the store: HOME is not set to an absolute path")
                .hint("set FORGE_STORE to a directory")
        })
    }

    /// Opens the store.
    pub fn store(&self) -> Result<Store> {
        Ok(Store::open(self.store_path()?.value)?)
    }

    /// What this machine is configured with.
    pub fn machine(&self) -> Machine {
        let text =
            |(name, value): (&OsString, &OsString)| Some((name.to_str()?.to_owned(), value.to_str()?.to_owned()));
        Machine {
            environment: self.environment.iter().filter_map(text).collect(),
            root: PathBuf::from("/"),
            home: self.variable("HOME").map(PathBuf::from),
            debian_mirrors: self.settings.debian_mirrors.clone().map(|setting| setting.value).unwrap_or_default(),
            debian_snapshots: self.settings.debian_snapshots.clone().map(|setting| setting.value).unwrap_or_default(),
            python_index: self.settings.python_index.clone().map(|setting| setting.value),
            nix_caches: self.nix_caches(),
            registries: crate::registries::settings(self).unwrap_or_default(),
            cargo_index: self.settings.cargo_index.clone().map(|setting| setting.value),
            npm_registry: self.settings.npm_registry.clone().map(|setting| setting.value),
        }
    }

    /// Nix binary caches that are asked.
    fn nix_caches(&self) -> builder::NixCaches {
        let list =
            |setting: &Option<Setting<Vec<String>>>| setting.clone().map(|setting| setting.value).unwrap_or_default();
        let keys = list(&self.settings.nix_trusted_keys);
        builder::NixCaches {
            addresses: list(&self.settings.nix_caches),
            trusted: keys.iter().filter_map(|key| store::signing::NamedPublicKey::parse(key)).collect(),
        }
    }

    /// What evaluations gave before.
    pub fn evaluation_cache(&self) -> EvaluationCache {
        let wanted = self.settings.evaluation_cache.as_ref().is_none_or(|setting| setting.value);
        EvaluationCache::new(&self.environment, wanted)
    }

    /// How many steps run at a time.
    pub fn jobs(&self, given: Option<usize>) -> usize {
        let set = given.or(self.settings.jobs.as_ref().map(|setting| setting.value));
        set.unwrap_or_else(|| std::thread::available_parallelism().map_or(2, usize::from)).max(1)
    }
}

impl Settings {
    fn read(global: &Global, environment: &BTreeMap<OsString, OsString>) -> Result<Self> {
        let variable = |name: &str| environment.get(&OsString::from(name)).filter(|value| !value.is_empty());
        let mut settings = Self::default();
        if let Some(store) = &global.store {
            settings.store = Some(Setting { value: absolute(store)?, origin: "--store".to_owned() });
        }
        if let Some(store) = variable("FORGE_STORE") {
            let setting = Setting { value: absolute(Path::new(store))?, origin: "$FORGE_STORE".to_owned() };
            settings.store.get_or_insert(setting);
        }
        if let Some(jobs) = variable("FORGE_JOBS") {
            let value = jobs.to_str().and_then(|text| text.parse().ok()).filter(|jobs| *jobs > 0);
            let value = value.ok_or_else(|| Failure::new(code::USAGE, "FORGE_JOBS is not a number of steps"))?;
            settings.jobs = Some(Setting { value, origin: "$FORGE_JOBS".to_owned() });
        }
        if global.no_eval_cache {
            settings.evaluation_cache = Some(Setting { value: false, origin: "--no-eval-cache".to_owned() });
        }
        if let Some(wanted) = variable("FORGE_EVALUATION_CACHE") {
            let value = match wanted.to_str() {
                Some("1" | "true") => true,
                Some("0" | "false") => false,
                _ => return Err(Failure::new(code::USAGE, "FORGE_EVALUATION_CACHE is neither true nor false")),
            };
            let setting = Setting { value, origin: "$FORGE_EVALUATION_CACHE".to_owned() };
            settings.evaluation_cache.get_or_insert(setting);
        }
        let text = |name: &str| -> Result<Option<Setting<String>>> {
            let Some(value) = variable(name) else { return Ok(None) };
            let value = value.to_str().ok_or_else(|| Failure::new(code::USAGE, format!("{name} is not text")))?;
            Ok(Some(Setting { value: value.to_owned(), origin: format!("${name}") }))
        };
        settings.python_index = text("FORGE_PYTHON_INDEX")?;
        settings.cargo_index = text("FORGE_CARGO_INDEX")?;
        settings.npm_registry = text("FORGE_NPM_REGISTRY")?;
        let words = |setting: Setting<String>| Setting {
            value: setting.value.split_whitespace().map(str::to_owned).collect(),
            origin: setting.origin,
        };
        settings.nix_caches = text("FORGE_NIX_CACHES")?.map(words);
        settings.nix_trusted_keys = text("FORGE_NIX_TRUSTED_KEYS")?.map(words);
        settings.insecure_registries = text("FORGE_INSECURE_REGISTRIES")?.map(|setting| Setting {
            value: setting.value.split([' ', ',']).filter(|host| !host.is_empty()).map(str::to_owned).collect(),
            origin: setting.origin,
        });
        settings.runner_image = text("FORGE_RUNNER_IMAGE")?;
        settings.runner_engine = text("FORGE_RUNNER_ENGINE")?;
        settings.runner_options = text("FORGE_RUNNER_OPTIONS")?;
        settings.debian_mirrors = text("FORGE_DEBIAN_MIRROR")?.map(words);
        settings.debian_snapshots = text("FORGE_DEBIAN_SNAPSHOTS")?.map(words);
        let home = variable("XDG_CONFIG_HOME").map(PathBuf::from);
        let home = home.or_else(|| variable("HOME").map(|home| Path::new(home).join(".config")));
        if let Some(path) = project_file() {
            settings.read_file(&path, true)?;
        }
        let mut files = Vec::from_iter(home.map(|home| home.join("forge/config.toml")));
        files.push(PathBuf::from("/etc/forge/config.toml"));
        for path in files {
            settings.read_file(&path, false)?;
        }
        for key in settings.nix_trusted_keys.iter().flat_map(|setting| &setting.value) {
            if store::signing::NamedPublicKey::parse(key).is_none() {
                let failure = Failure::new(code::USAGE, format!("`{key}` is not a key of a Nix binary cache"));
                return Err(
                    failure.hint("NAME:BASE64 is expected, as `nix-store --generate-binary-cache-key` writes it")
                );
            }
        }
        Ok(settings)
    }

    /// Takes from a file what nothing before it has set.
    fn read_file(&mut self, path: &Path, of_project: bool) -> Result<()> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            // Another user's home (after su) is no reason to fail.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return Ok(()),
            Err(error) => {
                return Err(
                    Failure::new(code::USAGE, format!("cannot read `{}`", path.display())).cause(error.to_string())
                );
            }
        };
        let file: File = toml::from_str(&text).map_err(|error| {
            let failure = Failure::new(code::USAGE, format!("settings in `{}` are not valid", path.display()));
            failure.cause(error.message()).hint("`forge config show --origin` lists what can be set")
        })?;
        let origin = path.display().to_string();
        let directory = path.parent().unwrap_or(Path::new("/"));
        fn fill<T>(setting: &mut Option<Setting<T>>, value: Option<T>, origin: &str) {
            if setting.is_none() {
                *setting = value.map(|value| Setting { value, origin: origin.to_owned() });
            }
        }
        fill(&mut self.store, file.store.map(|store| directory.join(store)), &origin);
        fill(&mut self.jobs, file.jobs.filter(|jobs| *jobs > 0), &origin);
        fill(&mut self.evaluation_cache, file.evaluation_cache, &origin);
        fill(&mut self.debian_mirrors, file.debian.mirrors, &origin);
        fill(&mut self.debian_snapshots, file.debian.snapshots, &origin);
        fill(&mut self.nix_caches, file.nix.caches, &origin);
        fill(&mut self.nix_trusted_keys, file.nix.trusted_keys, &origin);
        fill(&mut self.insecure_registries, file.registries.insecure, &origin);
        fill(&mut self.python_index, file.python.index, &origin);
        fill(&mut self.cargo_index, file.cargo.index, &origin);
        fill(&mut self.npm_registry, file.npm.registry, &origin);
        for (name, mut remote) in file.remotes {
            if !store::formation::is_name(&name) {
                return Err(Failure::new(code::USAGE, format!("`{origin}`: `{name}` is not a name for a remote")));
            }
            if of_project && remote.token_file.take().is_some() {
                let failure = Failure::new(code::USAGE, format!("`{origin}` names a token for remote `{name}`"));
                return Err(failure.hint("a project may name a peer; its token belongs into your own config.toml"));
            }
            remote.token_file = remote.token_file.map(|path| directory.join(path));
            self.remotes.entry(name).or_insert(Setting { value: remote, origin: origin.clone() });
        }
        let runner = &file.runner;
        if of_project && (runner.image.is_some() || runner.engine.is_some() || runner.options.is_some()) {
            let failure = Failure::new(code::USAGE, format!("`{origin}` says how containers are started"));
            return Err(failure.hint("a project does not choose which programs this machine starts: [runner] belongs into your own config.toml"));
        }
        fill(&mut self.runner_image, file.runner.image, &origin);
        fill(&mut self.runner_engine, file.runner.engine, &origin);
        fill(&mut self.runner_options, file.runner.options, &origin);
        Ok(())
    }
}

/// The project's `forge.toml`: in the current directory or the nearest one above it.
pub fn project_file() -> Option<PathBuf> {
    let directory = std::env::current_dir().ok()?;
    directory.ancestors().map(|directory| directory.join("forge.toml")).find(|path| path.is_file())
}

/// A path that still means the same after the working directory changes.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| {
        let headline = match std::env::current_dir() {
            Ok(_) => format!("`{}` is not a path", path.display()),
            Err(_) => format!("`{}` lies in the current directory, which is not there any more", path.display()),
        };
        Failure::new(code::USAGE, headline).cause(error.to_string())
    })
}

/// The platform of this machine.
pub fn this_platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("linux/{architecture}")
}
