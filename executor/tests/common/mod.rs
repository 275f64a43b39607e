//! A root with busybox in it, and a sandbox over it that is closed in every way.
#![allow(dead_code, missing_docs)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use executor::{Backend, Bind, Ending, Native, Network, Outcome, Result, RootFs, Sandbox, Streams, Writable};
use store::Limits;

/// A directory with a root (`lower`), and what the command printed (`stdout`, `stderr`).
pub struct World {
    pub directory: tempfile::TempDir,
    pub sandbox: Sandbox,
}

/// Where Debian's `busybox-static` has it.
fn busybox() -> Option<PathBuf> {
    let places = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
    places.into_iter().find(|path| path.exists())
}

impl World {
    /// `None`, and words, where the machine lacks what the tests need.
    pub fn new() -> Option<Self> {
        let Some(busybox) = busybox() else {
            eprintln!("skipped: no busybox (Debian: `apt-get install busybox-static`)");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        // As the store keeps checkouts: nobody else may come near.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let lower = directory.path().join("lower");
        for name in ["bin", "etc", "lower-only", "proc", "dev", "tmp", "sys"] {
            fs::create_dir_all(lower.join(name)).unwrap();
        }
        fs::copy(busybox, lower.join("bin/busybox")).unwrap();
        let applets = "sh cat ls id echo env hostname stat sleep kill true false touch mkdir rm rmdir mv ps grep sed head tail wc \
             readlink test [ printf dd mount umount unshare chown chmod chroot pwd seq ip ifconfig nc cut tr awk find sync \
             setsid timeout stty tty ln mknod nproc";
        for applet in applets.split_ascii_whitespace() {
            symlink("busybox", lower.join("bin").join(applet)).unwrap();
        }
        fs::write(lower.join("etc/motd"), "from the layer\n").unwrap();
        let mut world = Self {
            sandbox: Sandbox {
                root: RootFs { layers: vec![lower], writable: Writable::Temporary },
                binds: Vec::new(),
                command: Vec::new(),
                environment: BTreeMap::from([("PATH".into(), "/bin".into())]),
                directory: PathBuf::from("/"),
                user: (0, 0),
                groups: Vec::new(),
                hostname: "inside".to_owned(),
                network: Network::None,
                limits: Limits::default(),
                stop_signal: None,
                streams: Streams::File(PathBuf::new()),
                pretend_root: false,
                require: Vec::new(),
                interrupt: None,
                ..Sandbox::default()
            },
            directory,
        };
        world.sandbox.streams = Streams::Files(world.path("stdout"), world.path("stderr"));
        Some(world)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn lower(&self) -> &Path {
        &self.sandbox.root.layers[0]
    }

    pub fn bind(&mut self, source: impl Into<PathBuf>, target: &str, read_only: bool) {
        self.sandbox.binds.push(Bind { source: source.into(), target: PathBuf::from(target), read_only });
    }

    /// Runs a command; its output is in `stdout` and `stderr` afterwards.
    pub fn run(&mut self, command: &[&str]) -> Result<Outcome> {
        for name in ["stdout", "stderr"] {
            let _ = fs::remove_file(self.path(name));
        }
        self.sandbox.command = command.iter().map(OsString::from).collect();
        Native::default().run(&self.sandbox)
    }

    /// Runs a shell script that must succeed; gives what it printed.
    #[track_caller]
    pub fn shell(&mut self, script: &str) -> String {
        let outcome = self.run(&["sh", "-c", script]).unwrap_or_else(|error| panic!("{}", chain(&error)));
        assert_eq!(outcome.ending, Ending::Exited(0), "{}{}", self.stdout(), self.stderr());
        self.stdout()
    }

    pub fn stdout(&self) -> String {
        fs::read_to_string(self.path("stdout")).unwrap_or_default()
    }

    pub fn stderr(&self) -> String {
        fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
