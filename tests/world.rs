//! A world of its own for each test: a store, a home, a project, and a cleared environment.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// A user that owns nothing, for tests that start as root.
pub const NOBODY: u32 = 61_234;

/// What a test works in; gone when dropped.
pub struct World {
    directory: tempfile::TempDir,
    user: Option<u32>,
}

impl World {
    /// For whoever runs the tests.
    pub fn new() -> Self {
        let directory = tempfile::tempdir_in(own_directory()).expect("a temporary directory");
        for name in ["home", "project", "out"] {
            fs::create_dir(directory.path().join(name)).expect("an empty directory");
        }
        Self { directory, user: None }
    }

    /// For an ordinary user; `None`, with words, where the tests do not run as root and cannot become one.
    pub fn of_ordinary_user() -> Option<Self> {
        if !is_root() {
            eprintln!("skipped: only root can become another user");
            return None;
        }
        let mut world = Self::new();
        world.user = Some(NOBODY);
        let mut paths = vec![world.path("")];
        paths.extend(["home", "project", "out"].map(|name| world.path(name)));
        for path in paths {
            std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).expect("root may give files away");
        }
        Some(world)
    }

    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(below)
    }

    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// Writes a file of the project and gives its path.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path("project").join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(&path, content).expect("a file");
        for path in [&path, path.parent().expect("a parent")] {
            if let Some(user) = self.user {
                std::os::unix::fs::chown(path, Some(user), Some(user)).expect("root may give files away");
            }
        }
        path
    }

    /// `forge` with these arguments, in the project, with nothing of the caller's environment but how to reach its mirrors.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        self.wrapped(&[], arguments)
    }

    /// The same behind another command, for instance `unshare -n`.
    pub fn wrapped<S: AsRef<OsStr>>(&self, wrapper: &[&str], arguments: impl IntoIterator<Item = S>) -> Command {
        let forge = binary();
        let mut command = match wrapper {
            [] => Command::new(forge),
            [program, rest @ ..] => {
                let mut command = Command::new(program);
                command.args(rest).arg(forge);
                command
            }
        };
        command.args(arguments).env_clear().current_dir(self.path("project"));
        command.env("FORGE_STORE", self.store()).env("HOME", self.path("home")).env("CI", "true");
        for (name, value) in std::env::vars_os() {
            let text = name.to_string_lossy().to_lowercase();
            let network =
                ["ssl_cert_", "pip_", "uv_"].iter().any(|prefix| text.starts_with(prefix)) || text.ends_with("_proxy");
            if network || text == "path" {
                command.env(name, value);
            }
        }
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    /// Runs `forge` to its end.
    pub fn forge<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        Ran::of(self.command(arguments).output().expect("forge starts"))
    }

    /// The same with something on stdin.
    pub fn forge_with_input<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>, input: &[u8]) -> Ran {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("forge starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        let input = input.to_vec();
        let writer = std::thread::spawn(move || _ = stdin.write_all(&input));
        let output = child.wait_with_output().expect("forge ends");
        writer.join().expect("the writer ends");
        Ran::of(output)
    }

    /// Builds an expression of the project; gives the id.
    #[track_caller]
    pub fn build(&self, file: &str) -> String {
        let ran = self.forge(["build", file]);
        ran.id()
    }
}

/// What came of running `forge`.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn of(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// The id that a build printed as its last line.
    #[track_caller]
    pub fn id(&self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        let id = self.stdout.lines().last().expect("a last line").to_owned();
        assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "not an id: {id}");
        id
    }

    #[track_caller]
    pub fn ok(&self) -> &Self {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout, self.stderr))
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A port of this machine that nobody has: below those that the kernel gives to whoever connects, as other tests do all the time.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    (0..10_000)
        .map(|_| 10_000 + (std::process::id() as u16 % 100 * 100 + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000)
        .find(|port| TcpStream::connect(("127.0.0.1", *port)).is_err())
        .expect("a free port")
}

/// Whether a program that judges us is here.
pub fn have(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("skipped: no `{program}` here");
    }
    found
}

/// The built `forge`, where every user can execute it.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let built = Path::new(env!("CARGO_BIN_EXE_forge"));
        if !is_root() {
            return built.to_owned();
        }
        // The build directory may lie in a home that others cannot enter.
        let copy = own_directory().join("forge");
        fs::copy(built, &copy).expect("a copy");
        copy
    })
}

/// Where all of this process lies. What is used until its end is never dropped: the next process of tests takes away what those that
/// have ended left.
fn own_directory() -> &'static Path {
    const NAME: &str = "forge-tests-";
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let all = std::env::temp_dir();
        for entry in fs::read_dir(&all).into_iter().flatten().flatten() {
            let of = entry.file_name().to_str().and_then(|name| name.strip_prefix(NAME)?.parse::<u32>().ok());
            if of.is_some_and(|process| !Path::new("/proc").join(process.to_string()).exists()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let directory = all.join(format!("{NAME}{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("its mode");
        directory
    })
}

/// A small formation that several tests look at, built once: a Debian root with a shell, and files of the project.
pub fn small() -> &'static (World, String) {
    static SMALL: OnceLock<(World, String)> = OnceLock::new();
    SMALL.get_or_init(|| {
        let world = World::new();
        world.write("app/hello.sh", "#!/bin/sh\necho \"hello, $1\"\n");
        world.write(
            "runtime.expr",
            r#"{ forge }:
forge.formation {
  name = "small";
  version = "1.2";
  layers = [
    (forge.debian { packages = [ ]; })
    (forge.files { "/app" = ./app; "/etc/greeting" = "good day\n"; })
    (forge.run { script = "mkdir -p /var/lib/made && id -u > /var/lib/made/uid && chown 42:42 /var/lib/made/uid"; })
  ];
  environment.GREETING = "good day";
  command = [ "sh" "/app/hello.sh" "world" ];
}
"#,
        );
        let id = world.build("runtime.expr");
        (world, id)
    })
}
