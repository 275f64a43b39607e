//! The OCI runtime specification (1.2): operations, states, hooks, the process, namespaces, devices, mounts, masks, seccomp. What the Go
//! suite `runtime-tools` asks of a runtime is asked of ours in the specification's own sentences.
//!
//! The suite is judged by a peer: `OCI_RUNTIME=crun OCI_RUNTIME_OPTIONS=--cgroup-manager=disabled cargo test … specification::`
//! asks another runtime the same.

mod engine;
mod lifecycle;
mod linux;
mod process;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::{Ran, World, is_root};

/// Bundles, and the runtime that is asked.
pub struct Judge {
    world: World,
}

/// A root with busybox, shared by all bundles; nobody writes to it.
fn root() -> Option<&'static Path> {
    static ROOT: OnceLock<Option<(tempfile::TempDir, PathBuf)>> = OnceLock::new();
    let made = ROOT.get_or_init(|| {
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).is_file())?;
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("rootfs");
        for name in ["bin", "proc", "dev", "sys", "tmp", "data", "etc"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::copy(busybox, root.join("bin/busybox")).unwrap();
        for applet in "sh cat id env ls sleep echo hostname readlink stat grep cut sort touch mkdir rm tr true false head tail mount \
            nproc test kill tty ulimit wc uname sed awk expr"
            .split_ascii_whitespace()
        {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        fs::write(root.join("etc/secret"), "secret\n").unwrap();
        Some((directory, root))
    });
    made.as_ref().map(|(_, root)| root.as_path())
}

impl Judge {
    /// `None`, with words, where containers cannot be made.
    pub fn new() -> Option<Self> {
        if !is_root() {
            eprintln!("skipped: only root makes every kind of container");
            return None;
        }
        if root().is_none() {
            eprintln!("skipped: no busybox (Debian: `apt-get install busybox-static`)");
            return None;
        }
        Some(Self { world: World::new() })
    }

    /// A configuration in which every part is legal and plain.
    pub fn config(script: &str) -> Value {
        json!({
            "ociVersion": "1.0.2",
            "root": { "path": root().unwrap(), "readonly": true },
            "hostname": "judged",
            "process": {
                "user": { "uid": 0, "gid": 0 },
                "args": ["sh", "-c", script],
                "env": ["PATH=/bin"],
                "cwd": "/",
            },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"] },
                { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666", "mode=0620"] },
                { "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777"] },
                { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"] },
            ],
            "linux": { "namespaces": [
                { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "network" },
            ] },
        })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.world.path("out").join(name)
    }

    /// Writes a bundle; gives its directory.
    pub fn bundle(&self, name: &str, config: &Value) -> PathBuf {
        let directory = self.path(name);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("config.json"), config.to_string()).unwrap();
        directory
    }

    /// The runtime with these words.
    pub fn command(&self, words: &[&str]) -> Command {
        let state = self.path("state");
        let mut command = match std::env::var_os("OCI_RUNTIME") {
            Some(other) => {
                let mut command = Command::new(other);
                let options = std::env::var("OCI_RUNTIME_OPTIONS").unwrap_or_default();
                command.args(options.split_ascii_whitespace());
                command
            }
            None => self.world.command(&[] as &[&str]),
        };
        command.arg("--root").arg(state).args(words);
        command
    }

    pub fn operate(&self, words: &[&str]) -> Ran {
        Ran::of(self.command(words).stdin(Stdio::null()).output().unwrap())
    }

    /// `create`, with what the program will print going to `NAME.out`.
    pub fn create(&self, id: &str, bundle: &Path) -> Ran {
        let (output, errors) = (self.path(&format!("{id}.out")), self.path(&format!("{id}.err")));
        let mut command = self.command(&["create", "--bundle", bundle.to_str().unwrap(), id]);
        command.stdin(Stdio::null()).stdout(File::create(&output).unwrap()).stderr(File::create(&errors).unwrap());
        let status = command.status().unwrap();
        Ran { code: status.code(), stdout: String::new(), stderr: fs::read_to_string(errors).unwrap() }
    }

    pub fn printed(&self, id: &str) -> String {
        fs::read_to_string(self.path(&format!("{id}.out"))).unwrap_or_default()
    }

    pub fn status(&self, id: &str) -> String {
        self.operate(&["state", id]).json()["status"].as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    pub fn wait_for(&self, id: &str, status: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.status(id) != status {
            assert!(Instant::now() < deadline, "`{id}` is not {status}: {}", self.status(id));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// From the first to the last; gives what the program printed.
    #[track_caller]
    pub fn run(&self, id: &str, config: &Value) -> String {
        let bundle = self.bundle(id, config);
        let created = self.create(id, &bundle);
        assert_eq!(created.code, Some(0), "create `{id}`: {}", created.stderr);
        let started = self.operate(&["start", id]);
        assert_eq!(started.code, Some(0), "start `{id}`: {}", started.stderr);
        self.wait_for(id, "stopped");
        let deleted = self.operate(&["delete", id]);
        assert_eq!(deleted.code, Some(0), "delete `{id}`: {}", deleted.stderr);
        self.printed(id)
    }

    /// That neither `create` nor `start` accepts it.
    #[track_caller]
    pub fn refused(&self, id: &str, config: &Value) {
        let bundle = self.bundle(id, config);
        let created = self.create(id, &bundle);
        if created.code == Some(0) {
            let started = self.operate(&["start", id]);
            assert_ne!(started.code, Some(0), "`{id}` was accepted");
        }
        let _ = self.operate(&["delete", "--force", id]);
    }
}

/// Changes a configuration.
pub fn with(mut config: Value, change: impl FnOnce(&mut Value)) -> Value {
    change(&mut config);
    config
}

/// Adds a mount.
pub fn mount(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().unwrap().push(mount);
}
