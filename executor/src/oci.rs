//! The OCI runtime specification, in both directions: a sandbox as a configuration for other runtimes, and containers that orchestrators
//! create, start, look at, kill and delete.
//!
//! A container's state lies in a directory of its own below one that the caller names:
//!
//! ```text
//! ROOT/ID/state.json   what `state` prints, with the start time of the process and the cgroups
//! ROOT/ID/start        a socket, until the container is started: whoever connects and says `go` starts it
//! ```

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oci_spec::runtime::{Hook, Spec};
use serde_json::{Value, json};

use crate::backend::native::container::{self, Placed, Wanted};
use crate::{Error, Result};

mod describe;

pub(crate) use describe::DEFAULT_PATH;
pub use describe::describe;

/// The newest version of the specification that was read for this.
pub const VERSION: &str = "1.2.1";

/// What can be said to `create` beside the bundle.
#[derive(Debug, Clone, Default)]
pub struct CreateOptions {
    /// Gets the number of the container's first process.
    pub pid_file: Option<PathBuf>,
    /// Gets the near end of its terminal.
    pub console_socket: Option<PathBuf>,
    /// How many descriptors from 3 on are handed on.
    pub preserve_fds: u32,
    /// Whoever asks looks after bounds: no cgroup is made or joined.
    pub no_cgroups: bool,
}

/// Containers below one directory.
#[derive(Debug, Clone)]
pub struct Containers {
    root: PathBuf,
}

/// What is known of a container.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct State {
    oci_version: String,
    id: String,
    bundle: PathBuf,
    pid: i32,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
    /// Tells the process from a later one of the same number.
    started: String,
    cgroups: Vec<PathBuf>,
    /// Those that are still to come: the configuration may have changed since, which has no effect.
    #[serde(default)]
    poststart: Vec<Hook>,
    #[serde(default)]
    poststop: Vec<Hook>,
}

fn failed(action: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let action = action.into();
    |source| Error::Setup { action, source }
}

fn refuse(action: impl Into<String>, why: impl Into<String>) -> Error {
    failed(action)(io::Error::other(why.into()))
}

impl Containers {
    /// Those whose state lies in `root`, which need not be there.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Makes a container of a bundle, up to its program.
    pub fn create(&self, id: &str, bundle: &Path, options: &CreateOptions) -> Result<()> {
        let directory = self.directory(id)?;
        let bundle = fs::canonicalize(bundle).map_err(failed(format!("open the bundle `{}`", bundle.display())))?;
        let spec = read(&bundle)?;
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700).recursive(true);
        builder.create(&self.root).map_err(failed(format!("make `{}`", self.root.display())))?;
        builder.recursive(false).create(&directory).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                let why =
                    "there is a container of this name already, or what a killed `create` left of it: `delete --force`";
                refuse(format!("create `{id}`"), why)
            }
            _ => failed(format!("make `{}`", directory.display()))(error),
        })?;
        let mut placed = Placed::default();
        let result = self.create_in(&directory, id, &bundle, &spec, options, &mut placed);
        if result.is_err() {
            placed.remove();
            let _ = fs::remove_dir_all(&directory);
        }
        result
    }

    fn create_in(
        &self,
        directory: &Path,
        id: &str,
        bundle: &Path,
        spec: &Spec,
        options: &CreateOptions,
        placed: &mut Placed,
    ) -> Result<()> {
        let start = at_socket(directory, UnixListener::bind).map_err(failed("make a socket"))?;
        let console = match &options.console_socket {
            Some(path) => {
                let connect = UnixStream::connect(path);
                Some(connect.map_err(failed(format!("connect to the console socket `{}`", path.display())))?)
            }
            None => None,
        };
        if !options.no_cgroups {
            *placed = Placed::new(spec, id).map_err(|(action, source)| Error::Setup { action, source })?;
        }
        let annotations = spec.annotations().clone().unwrap_or_default().into_iter().collect();
        let mut state = State {
            oci_version: spec.version().clone(),
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            pid: 0,
            annotations,
            started: String::new(),
            cgroups: placed.directories.clone(),
            poststart: hooks(spec, |hooks| hooks.poststart()),
            poststop: hooks(spec, |hooks| hooks.poststop()),
        };
        let seen = {
            let state = state.clone();
            move |pid: i32| {
                let value = State { pid, ..state.clone() }.shown("creating");
                value.to_string().into_bytes()
            }
        };
        let preserved = options.preserve_fds;
        let wanted = Wanted { spec, bundle, state: &seen, start, console, preserved };
        state.pid = container::create(wanted, placed)?;
        state.started = start_of(state.pid).unwrap_or_default();
        let finish = || -> io::Result<()> {
            fs::write(directory.join("state.json"), serde_json::to_vec(&state)?)?;
            if let Some(path) = &options.pid_file {
                fs::write(path, state.pid.to_string())?;
            }
            Ok(())
        };
        finish().map_err(|error| {
            let _ = container::kill(state.pid, libc::SIGKILL);
            failed("write the container's state")(error)
        })
    }

    /// Lets the program of a created container begin. Gives the hooks that failed, which is no failure of the container.
    pub fn start(&self, id: &str) -> Result<Vec<Error>> {
        let (directory, state) = self.load(id)?;
        let status = state.status(&directory);
        if status != "created" {
            return Err(refuse(format!("start `{id}`"), format!("it is {status}, not created")));
        }
        let mut connection = at_socket(&directory, UnixStream::connect).map_err(failed(format!("start `{id}`")))?;
        let mut answer = String::new();
        let talk = connection.write_all(b"go").and_then(|()| connection.read_to_string(&mut answer));
        let _ = fs::remove_file(directory.join("start"));
        talk.map_err(failed(format!("start `{id}`")))?;
        if !answer.is_empty() {
            return Err(refuse(format!("start `{id}`"), answer));
        }
        Ok(run_all(&state.poststart, &state.shown("running")))
    }

    /// What the specification wants to be told of a container.
    pub fn state(&self, id: &str) -> Result<Value> {
        let (directory, state) = self.load(id)?;
        Ok(state.shown(state.status(&directory)))
    }

    /// All containers.
    pub fn list(&self) -> Result<Vec<Value>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            if let Some(id) = entry.file_name().to_str()
                && let Ok(state) = self.state(id)
            {
                found.push(state);
            }
        }
        found.sort_by_key(|state| state["id"].to_string());
        Ok(found)
    }

    /// Sends a signal to the container's first process, or to all.
    pub fn kill(&self, id: &str, signal: i32, all: bool) -> Result<()> {
        let (directory, state) = self.load(id)?;
        let status = state.status(&directory);
        if status == "stopped" {
            return match all {
                true => Ok(()),
                false => Err(refuse(format!("signal `{id}`"), "it is stopped")),
            };
        }
        let mut processes = vec![state.pid];
        if all && let Some(cgroup) = state.cgroups.first() {
            let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
            processes.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid != state.pid));
        }
        for pid in processes {
            match container::kill(pid, signal) {
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                result => result.map_err(failed(format!("signal `{id}`")))?,
            }
        }
        Ok(())
    }

    /// Takes away all that is left of a container; of one that is not stopped only if it is forced. Gives the hooks that failed.
    pub fn delete(&self, id: &str, force: bool) -> Result<Vec<Error>> {
        let (directory, state) = match self.load(id) {
            Err(_) if force && self.directory(id).is_ok_and(|directory| !directory.join("state.json").exists()) => {
                let _ = fs::remove_dir_all(self.directory(id)?);
                return Ok(Vec::new());
            }
            loaded => loaded?,
        };
        let status = state.status(&directory);
        if status != "stopped" && !force {
            return Err(refuse(format!("delete `{id}`"), format!("it is {status}, not stopped")));
        }
        if status != "stopped" {
            let _ = container::kill(state.pid, libc::SIGKILL);
            let deadline = Instant::now() + Duration::from_secs(10);
            while state.status(&directory) != "stopped" {
                if Instant::now() > deadline {
                    return Err(refuse(format!("delete `{id}`"), "its process does not end"));
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        container::remove_cgroups(&state.cgroups);
        fs::remove_dir_all(&directory).map_err(failed(format!("remove `{}`", directory.display())))?;
        Ok(run_all(&state.poststop, &state.shown("stopped")))
    }

    fn directory(&self, id: &str) -> Result<PathBuf> {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
        if id.is_empty() || id.len() > 1024 || id == "." || id == ".." || !id.bytes().all(is_good) {
            return Err(refuse(format!("name a container `{id}`"), "letters, digits, `_`, `+`, `-` and `.` are names"));
        }
        Ok(self.root.join(id))
    }

    fn load(&self, id: &str) -> Result<(PathBuf, State)> {
        let directory = self.directory(id)?;
        let bytes = fs::read(directory.join("state.json")).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                let source = io::Error::new(io::ErrorKind::NotFound, "there is no container of this name");
                Error::Setup { action: format!("find `{id}`"), source }
            }
            _ => failed(format!("read the state of `{id}`"))(error),
        })?;
        let state = serde_json::from_slice(&bytes);
        Ok((directory, state.map_err(|error| failed(format!("read the state of `{id}`"))(error.into()))?))
    }
}

impl State {
    fn status(&self, directory: &Path) -> &'static str {
        let lives = start_of(self.pid).is_some_and(|started| started == self.started);
        match (lives, directory.join("start").exists()) {
            (false, _) => "stopped",
            (true, true) => "created",
            (true, false) => "running",
        }
    }

    fn shown(&self, status: &str) -> Value {
        let mut value = json!({
            "ociVersion": self.oci_version,
            "id": self.id,
            "status": status,
            "bundle": self.bundle,
            "annotations": self.annotations,
        });
        if status != "stopped" && self.pid != 0 {
            value["pid"] = self.pid.into();
        }
        value
    }
}

/// What this runtime has of the specification: features.md.
pub fn features() -> Value {
    let named = |names: &[&str]| names.iter().map(|name| Value::from(*name)).collect::<Value>();
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": VERSION,
        "hooks": named(&["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]),
        "mountOptions": named(&[
            "async", "atime", "bind", "defaults", "dev", "diratime", "exec", "noatime", "nodev", "nodiratime", "noexec", "nosuid",
            "nosymfollow", "private", "rbind", "relatime", "ro", "rprivate", "rro", "rshared", "rslave", "runbindable", "rw", "shared",
            "slave", "strictatime", "suid", "unbindable",
        ]),
        "linux": {
            "namespaces": named(&["cgroup", "ipc", "mount", "network", "pid", "user", "uts"]),
            "capabilities": store::Capabilities::ALL.names(),
            "cgroup": { "v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": false },
            "seccomp": {
                "enabled": true,
                "actions": named(&[
                    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
                    "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
                ]),
                "operators": named(&[
                    "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE",
                ]),
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": false },
        },
    })
}

/// The configuration of a bundle, as far as it can be judged before anything is made.
fn read(bundle: &Path) -> Result<Spec> {
    let path = bundle.join("config.json");
    let bytes = fs::read(&path).map_err(|source| Error::File { action: "read", path: path.clone(), source })?;
    let wrong = |why: String| refuse(format!("read `{}`", path.display()), why);
    let spec: Spec = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    if !spec.version().starts_with("1.") {
        return Err(wrong(format!("version `{}` of the specification is not 1", spec.version())));
    }
    let process = spec.process().as_ref().ok_or_else(|| wrong("there is no `process`".to_owned()))?;
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(wrong("`process.args` is empty".to_owned()));
    }
    if !process.cwd().is_absolute() {
        return Err(wrong("`process.cwd` is not absolute".to_owned()));
    }
    let Some(linux) = spec.linux() else { return Err(wrong("it is not for Linux".to_owned())) };
    let kinds: Vec<_> = linux.namespaces().iter().flatten().map(|namespace| namespace.typ()).collect();
    if kinds.iter().enumerate().any(|(index, kind)| kinds[..index].contains(kind)) {
        return Err(wrong("`linux.namespaces` names a kind twice".to_owned()));
    }
    Ok(spec)
}

fn hooks(spec: &Spec, choose: fn(&oci_spec::runtime::Hooks) -> &Option<Vec<Hook>>) -> Vec<Hook> {
    spec.hooks().as_ref().and_then(|hooks| choose(hooks).clone()).unwrap_or_default()
}

/// Runs hooks of which none keeps the next from running; gives what failed.
fn run_all(hooks: &[Hook], state: &Value) -> Vec<Error> {
    let state = state.to_string();
    let run = |hook: &Hook| container::run_hooks(std::slice::from_ref(hook), state.as_bytes());
    hooks.iter().filter_map(|hook| run(hook).err()).collect()
}

/// A socket's name has room for 107 bytes; a directory's path may have more.
fn at_socket<T>(directory: &Path, work: impl FnOnce(PathBuf) -> io::Result<T>) -> io::Result<T> {
    let directory = fs::File::open(directory)?;
    work(PathBuf::from(format!("/proc/self/fd/{}/start", directory.as_raw_fd())))
}

/// When a process was started, if it is alive: proc(5).
fn start_of(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    (!["Z", "X", "x"].contains(fields.first()?)).then(|| fields.get(19).map(|start| (*start).to_owned()))?
}
