//! What an error tells the user: one headline, the place, the causes, and a hint that can be typed.
//!
//! Rooms say what went wrong and with what; advice is given here, where the commands are known.

use std::fmt::Write as _;
use std::io;

use expressions::Question;
use expressions::error::{Finding, Place};

use crate::render;

/// Exit codes of forge itself.
pub mod code {
    /// A negative answer: differs, not valid.
    pub const NEGATIVE: u8 = 1;
    /// Wrong use.
    pub const USAGE: u8 = 2;
    /// Not found.
    pub const NOT_FOUND: u8 = 10;
    /// Nobody answers.
    pub const UNREACHABLE: u8 = 11;
    /// Signature or policy refused.
    pub const REFUSED: u8 = 12;
    /// Damaged.
    pub const DAMAGED: u8 = 13;
    /// Disk full.
    pub const DISK_FULL: u8 = 14;
    /// The lock would have to change, or somebody holds what is needed.
    pub const LOCKED: u8 = 15;
    /// A bug in forge.
    pub const BUG: u8 = 70;
    /// A build failed.
    pub const BUILD_FAILED: u8 = 100;
    /// Bytes do not have the digest that was asked for.
    pub const MISMATCH: u8 = 102;
    /// A step gave something else when it was made again.
    pub const NOT_DETERMINISTIC: u8 = 104;
    /// `forge run`: killed for a limit (128 and SIGKILL).
    pub const KILLED: u8 = 137;
    /// `forge run`: time limit.
    pub const TIMED_OUT: u8 = 124;
    /// `forge run`: forge failed, not the program.
    pub const RUN_FAILED: u8 = 125;
    /// `forge run`: the command cannot be executed.
    pub const CANNOT_EXECUTE: u8 = 126;
    /// `forge run`: the command is not there.
    pub const COMMAND_NOT_FOUND: u8 = 127;
}

/// The result of a command.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// What the user is told, and the exit code.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Exit code.
    pub code: u8,
    /// `forge run` keeps this code instead of 125.
    pub own_code_in_run: bool,
    headline: String,
    place: Option<Box<Place>>,
    causes: Vec<String>,
    details: Option<String>,
    /// What a failed step printed; on a terminal only the end of it is shown.
    log: Option<String>,
    /// Each of several things that failed.
    parts: Vec<Failure>,
    hints: Vec<String>,
    /// Further findings, each shown whole.
    findings: Vec<Finding>,
}

impl Failure {
    /// A failure with a headline: lower case, no period.
    pub fn new(code: u8, headline: impl Into<String>) -> Self {
        Self {
            code,
            own_code_in_run: false,
            headline: headline.into(),
            place: None,
            causes: Vec::new(),
            details: None,
            log: None,
            parts: Vec::new(),
            hints: Vec::new(),
            findings: Vec::new(),
        }
    }

    /// Adds a cause.
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// Adds something the user can do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Shows where.
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(Box::new(place));
        self
    }

    /// Shows where the user wrote what was asked. That nobody answers is about nothing that is written there.
    pub fn where_asked(self, question: &Question) -> Self {
        let words = [&self.headline].into_iter().chain(&self.details).chain(&self.causes);
        let words = words.map(String::as_str).collect::<Vec<_>>().join("\n");
        match question.place_of(&words) {
            Some(place) if self.code != code::UNREACHABLE && self.place.is_none() => self.at(place),
            _ => self,
        }
    }

    /// Shows a text of several lines, such as the end of a log.
    pub fn detail(mut self, text: impl Into<String>) -> Self {
        self.details = Some(text.into());
        self
    }

    /// Leaves the end of what a failed step printed: a person can ask for the rest.
    pub fn with_short_log(mut self) -> Self {
        self.log = self.log.map(|log| last_lines(&log, 25));
        self.parts = self.parts.into_iter().map(Self::with_short_log).collect();
        self
    }

    /// Shows these instead of the headline.
    pub fn with_findings(mut self, findings: Vec<Finding>) -> Self {
        self.findings = findings;
        self
    }

    fn own_code(mut self) -> Self {
        self.own_code_in_run = true;
        self
    }

    /// Adds the whole chain of causes of an error.
    pub fn caused_by(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if !self.causes.contains(&text) {
                self.causes.push(text);
            }
            next = cause.source();
        }
        self
    }

    /// Its first line.
    pub fn headline(&self) -> &str {
        &self.headline
    }

    /// The text for stderr.
    pub fn render(&self, color: bool, show_trace: bool) -> String {
        let paint = render::Paint::new(color);
        let mut text = String::new();
        if self.findings.is_empty() {
            let _ = writeln!(text, "{} {}", paint.error("error:"), render::quoted(&self.headline));
            if let Some(place) = &self.place {
                text.push_str(&render::excerpt(place, paint));
            }
        }
        for finding in &self.findings {
            text.push_str(&render::finding(finding, show_trace, paint));
        }
        for cause in &self.causes {
            let _ = writeln!(text, "  caused by: {}", render::quoted(cause).replace('\n', "\n             "));
        }
        for lines in self.details.iter().chain(&self.log) {
            for line in render::quoted(lines).lines() {
                let _ = writeln!(text, "  {} {line}", paint.dim("|"));
            }
        }
        for part in &self.parts {
            let part = Failure { hints: Vec::new(), ..part.clone() };
            text.push_str(&part.render(color, show_trace));
        }
        for hint in &self.hints {
            let _ = writeln!(text, "{} {}", paint.hint("hint:"), render::quoted(hint));
        }
        text
    }

    /// The last event of `--log-format json`: the record's fields.
    pub fn to_event(&self) -> serde_json::Value {
        let mut event = self.to_json()["error"].take();
        event["event"] = "error".into();
        event
    }

    /// The record for `--json`.
    pub fn to_json(&self) -> serde_json::Value {
        let finding = |finding: &Finding| {
            serde_json::json!({
                "message": finding.message,
                "place": finding.place.as_ref().map(render::place_json),
                "hint": finding.hint,
            })
        };
        serde_json::json!({
            "schema": 1,
            "error": {
                "code": self.code,
                "message": self.headline,
                "place": self.place.as_deref().map(render::place_json),
                "causes": self.causes,
                "details": self.details,
                "log": self.log,
                "parts": self.parts.iter().map(|part| part.to_json()["error"].clone()).collect::<Vec<_>>(),
                "hints": self.hints,
                "findings": self.findings.iter().map(finding).collect::<Vec<_>>(),
            }
        })
    }
}

/// Whether an error, or a cause of it, is a full disk or quota.
fn disk_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) {
            return true;
        }
        next = error.source();
    }
    false
}

/// A failure for an error of any room: its words and causes, a full disk noticed.
fn plain(code: u8, error: &(dyn std::error::Error + 'static)) -> Failure {
    if disk_full(error) {
        let failure = Failure::new(code::DISK_FULL, error.to_string()).caused_by(error);
        return failure.hint("`forge gc` frees what nothing names; --store DIR keeps the store on another disk");
    }
    Failure::new(code, error.to_string()).caused_by(error)
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        plain(code::USAGE, &error)
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        use store::Error::*;
        match &error {
            NotFound { kind: "formation", id } => {
                let failure = Failure::new(code::NOT_FOUND, format!("not found: {id}")).cause(error.to_string());
                match crate::runtimes::named(id) {
                    Some(name) if crate::runtimes::has_version(id) => {
                        failure.hint(format!("`forge build {name}` makes it"))
                    }
                    Some(name) => {
                        failure.hint(format!("`forge build {name}` makes version {}", crate::runtimes::VERSION))
                    }
                    None => failure.hint(
                        "`forge list` shows what is here; `forge build ./runtime.expr` makes what a file describes",
                    ),
                }
            }
            NoVersion { name, versions, .. } => {
                let shown: Vec<&str> =
                    versions.iter().filter(|version| !version.is_empty()).map(String::as_str).collect();
                plain(code::NOT_FOUND, &error).hint(match shown.as_slice() {
                    [] => format!("`forge run {name}` takes what is here: it says no version of itself"),
                    shown => format!("here are: {}", shown.join(", ")),
                })
            }
            NotFound { kind: store::provenance::RECORD, .. } => plain(code::NOT_FOUND, &error)
                .hint("it was not built in this store: where it was, `forge provenance` tells how"),
            NotFound { .. } => plain(code::DAMAGED, &error).hint("`forge verify` says what is missing"),
            Ambiguous { given, candidates } => {
                let mut failure = Failure::new(code::USAGE, format!("`{given}` fits {} formations", candidates.len()));
                let line = |(id, name): &(store::FormationId, String)| format!("{id} {name}");
                failure.details = Some(candidates.iter().map(line).collect::<Vec<_>>().join("\n"));
                failure.hint("give more digits")
            }
            Malformed { .. } => plain(code::USAGE, &error)
                .hint("an expression's file is given with a slash or its suffix: ./runtime.expr"),
            Registry(error) => error.into(),
            Mismatch { from, .. } if from.starts_with(store::registry::SCHEME) => plain(code::MISMATCH, &error)
                .hint("the registry gives other bytes than it says: do not go on before you know why"),
            Mismatch { .. } | Decode { .. } => {
                plain(code::DAMAGED, &error).hint("`forge verify` looks at the whole store")
            }
            Claim { expected, actual, .. } => plain(code::DAMAGED, &error)
                .cause(format!("its root is {actual}, that of the formation {expected}"))
                .hint("it was changed, or damaged on its way: get it again from where it was made"),
            SamePlatform { .. } => plain(code::USAGE, &error),
            Archive { .. } => plain(code::DAMAGED, &error),
            Signature { .. } => plain(code::REFUSED, &error)
                .hint("do not run it before you know why; `forge verify FILE --key KEY` takes a key that you trust"),
            Key { source: store::signing::KeyError::Locked, .. } => plain(code::USAGE, &error)
                .hint("--passphrase-fd N or --passphrase-env NAME gives it where there is no terminal"),
            Key { .. } => plain(code::USAGE, &error),
            Unremembered { .. } => plain(code::NOT_FOUND, &error)
                .hint("leave --from away: what this store exported and still lies there is found by itself"),
            NoAttributes { .. } => plain(code::BUILD_FAILED, &error)
                .hint("--store DIR on another file system: what is built there runs from here, too"),
            UnknownFormat { .. } | Unsupported { .. } | Unpackable { .. } => plain(code::NEGATIVE, &error),
            File { source, .. }
                if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                plain(code::DISK_FULL, &error)
            }
            File { source, .. }
                if matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) =>
            {
                plain(code::REFUSED, &error).hint("--store DIR or FORGE_STORE names a store of your own")
            }
            File { path, source, .. } if path.ends_with("format") && source.kind() == io::ErrorKind::NotADirectory => {
                plain(code::USAGE, &error).hint("a store is a directory: is that what --store or FORGE_STORE names?")
            }
            _ => plain(code::BUILD_FAILED, &error),
        }
    }
}

impl From<&store::registry::Error> for Failure {
    fn from(error: &store::registry::Error) -> Self {
        use store::registry::Error::*;
        match error {
            Reference { .. } => plain(code::USAGE, error).hint("oci://HOST[:PORT]/REPOSITORY[:TAG][@DIGEST] is expected"),
            Interrupted => Self::new(130, "interrupted").own_code(),
            Unreachable { host, .. } => plain(code::UNREACHABLE, error).hint(format!(
                "one that speaks plain HTTP is named by FORGE_INSECURE_REGISTRIES={host} or `registries.insecure` of the settings"
            )),
            NotFound { .. } => plain(code::NOT_FOUND, error).hint("is that the repository's name, and the tag's?"),
            Denied { host, logged_in: false, .. } => plain(code::REFUSED, error)
                .hint(format!("log in first: `podman login {host}` or `docker login {host}`; forge reads their files")),
            Denied { .. } => plain(code::REFUSED, error).hint("the login is known there, and lacks the right"),
            Bad { .. } => plain(code::DAMAGED, error),
            LoginFile { .. } | Helper { .. } => plain(code::USAGE, error),
            Status { .. } => plain(code::UNREACHABLE, error),
        }
    }
}

impl From<store::peer::Error> for Failure {
    fn from(error: store::peer::Error) -> Self {
        use store::peer::Error::*;
        match error {
            Store(error) => error.into(),
            Interrupted { signal } => Self::new(128 + signal.clamp(0, 64) as u8, "interrupted").own_code(),
            error @ Address { .. } => plain(code::USAGE, &error).hint("`forge remote add --help` says which there are"),
            error @ Unreachable { .. } => plain(code::UNREACHABLE, &error).hint("`forge remote test` asks the peers"),
            error @ Missing { .. } => {
                plain(code::UNREACHABLE, &error).hint("`forge build` makes it again if you have its expression")
            }
            error @ Lie { .. } => plain(code::DAMAGED, &error)
                .hint("nothing of it was kept; `forge verify` on the peer's machine says what is damaged there"),
            error @ Refused { .. } => {
                let failure = plain(code::REFUSED, &error);
                match failure.headline.contains("`file://") {
                    true => failure.hint("whose directory is that? `ls -ld` says who may write there"),
                    false => failure.hint("a token lets in: forge remote add NAME ADDRESS --token-file FILE"),
                }
            }
            error @ Protocol { .. } => plain(code::UNREACHABLE, &error)
                .hint("is it a peer of forge, and not much older or newer than this one?"),
        }
    }
}

impl From<executor::Error> for Failure {
    fn from(error: executor::Error) -> Self {
        use executor::Error::*;
        match &error {
            CommandNotFound { .. } => {
                let failure = plain(code::COMMAND_NOT_FOUND, &error).own_code();
                failure
                    .hint("`forge info` shows the formation's own command and PATH; `forge shell` looks around inside")
            }
            CannotExecute { .. } => plain(code::CANNOT_EXECUTE, &error).own_code(),
            NoUserNamespaces { switch, .. } => {
                let failure = plain(code::REFUSED, &error);
                match switch.as_deref() {
                    Some(switch) if switch.contains("apparmor") => {
                        failure.cause(format!("`{switch}` restricts them")).hint(
                            "an administrator allows them with `sysctl kernel.apparmor_restrict_unprivileged_userns=0`",
                        )
                    }
                    Some(switch) if switch.contains("max_user_namespaces") => failure
                        .cause(format!("`{switch}` is 0"))
                        .hint("an administrator allows them with `sysctl user.max_user_namespaces=15000`"),
                    Some(switch) => failure
                        .cause(format!("`{switch}` is 0"))
                        .hint(format!("an administrator allows them with `sysctl {switch}=1`")),
                    None => failure.hint("`forge doctor` says what this host gives"),
                }
            }
            NotByOthers { .. } | NotText { .. } => {
                plain(code::USAGE, &error).hint("without --runtime forge does it itself")
            }
            Required { what, .. } => {
                let failure = plain(code::REFUSED, &error);
                let is_limit = ["memory", "cpu", "cpus", "cores", "io", "pids"].contains(&what.as_str());
                match is_limit && !rustix::process::geteuid().is_root() {
                    true => failure.hint(
                        "where systemd runs, it gives you cgroups of your own: `systemd-run --user --scope -p Delegate=yes forge run …`",
                    ),
                    false => failure,
                }
                .hint("`forge doctor` says what this host gives, and the cure")
            }
            Port { address, source } => {
                let failure = plain(code::BUILD_FAILED, &error);
                match source.kind() {
                    io::ErrorKind::AddrInUse => failure.hint(format!(
                        "another program has it: choose another port of the host, as {}:PORT",
                        address.port().wrapping_add(1000).max(1024)
                    )),
                    io::ErrorKind::PermissionDenied => {
                        failure.hint("an ordinary user takes ports from 1024 on: 8080:80 reaches port 80 inside")
                    }
                    io::ErrorKind::AddrNotAvailable => {
                        failure.hint("that is no address of this machine: `ip address` lists them")
                    }
                    _ => failure,
                }
            }
            // move_mount(2): of what comes and what is there, one is a directory and the other is none.
            Setup { action, source } if action.starts_with("mount `") && source.kind() == io::ErrorKind::InvalidInput => {
                plain(code::BUILD_FAILED, &error).hint(
                    "a file is shown where a file is or nothing, a directory where a directory is or nothing: choose another place inside",
                )
            }
            // A container of the operations of the specification.
            Setup { action, source } if action.starts_with("find `") && source.kind() == io::ErrorKind::NotFound => {
                plain(code::NOT_FOUND, &error)
            }
            File { source, .. } if source.kind() == io::ErrorKind::NotFound => plain(code::NOT_FOUND, &error),
            Output { .. } => Failure::new(code::BUILD_FAILED, error.to_string())
                .caused_by(&error)
                .hint("the command itself exited with 0; what its output was to go to is full"),
            Setup { .. } | File { .. } => plain(code::BUILD_FAILED, &error),
        }
    }
}

impl From<executor::backend::runner::Error> for Failure {
    fn from(error: executor::backend::runner::Error) -> Self {
        use executor::backend::runner::Error::*;
        match &error {
            Missing { .. } => plain(code::NOT_FOUND, &error).hint(crate::engines::install_hint()),
            Silent { engine, said } => {
                let start = match (*engine, std::env::consts::OS) {
                    ("docker", "linux") => "systemctl start docker",
                    ("docker", _) => "start Docker Desktop, and wait until it says that it runs",
                    (_, "linux") => "systemctl --user start podman.socket",
                    _ => "podman machine start",
                };
                Self::new(code::UNREACHABLE, error.to_string()).cause(said.clone()).hint(start)
            }
            Refused { said, .. } => Self::new(code::REFUSED, error.to_string()).cause(said.clone()).hint(
                "join its group (`usermod -aG docker $USER`, which is as good as root), or use podman: --backend runner:podman",
            ),
            Platform { found, .. } => plain(code::CANNOT_EXECUTE, &error).hint(format!(
                "`forge runner build --binary FILE` takes a `forge` of that architecture; a formation for {found} runs as it is"
            )),
            Failed { said, .. } => Self::new(code::BUILD_FAILED, error.to_string()).cause(said.clone()),
            Start { .. } => plain(code::BUILD_FAILED, &error),
        }
    }
}

impl From<builder::Error> for Failure {
    fn from(error: builder::Error) -> Self {
        use builder::Error::*;
        match error {
            Store(error) => error.into(),
            Peer(error) => error.into(),
            // Inside a build, a command that is not there is a failed build.
            Executor(error @ (executor::Error::CommandNotFound { .. } | executor::Error::CannotExecute { .. })) => {
                plain(code::BUILD_FAILED, &error).hint(
                    "a step has what its layers hold: without `essential` a Debian layer has no shell, which packages with scripts want",
                )
            }
            // Nor has the user named what a step lacks.
            Executor(error @ executor::Error::File { .. }) => plain(code::BUILD_FAILED, &error),
            Executor(error) => Self { own_code_in_run: false, ..Self::from(error) },
            Interrupted { signal } => Self::new(128 + signal.clamp(0, 64) as u8, "interrupted").own_code(),
            Step { step, ending, log, kept } => {
                let mut failure = Self::new(code::BUILD_FAILED, format!("step `{step}` failed: {ending}"));
                failure.log = Some(log).filter(|log| !log.is_empty());
                failure = failure.hint(format!("`forge log {step}` shows all that it printed"));
                match kept {
                    Some(path) => failure.hint(format!(
                        "its files are kept in {}; `forge shell --build {step}` enters them",
                        path.display()
                    )),
                    None => failure.hint("--keep-failed keeps its files, to be looked at with `forge shell --build`"),
                }
            }
            Steps { failures, not_made } => {
                let headline = match (failures.len(), not_made) {
                    (count, 0) => format!("{count} steps failed"),
                    (1, others) => format!("a step failed, and {others} that need it were not made"),
                    (count, others) => format!("{count} steps failed, and {others} that need them were not made"),
                };
                let mut whole = Self::new(code::BUILD_FAILED, headline);
                whole.parts = failures.into_iter().map(Self::from).collect();
                // The worst of them says how forge ends; of equals the first.
                let worst = whole.parts.iter().map(|part| part.code).find(|code| *code != code::BUILD_FAILED);
                whole.code = worst.unwrap_or(code::BUILD_FAILED);
                whole.hint("`forge log STEP` shows all that a step printed")
            }
            NoRoom { path, available, needed } => {
                let (available, needed) = (render::size(available), render::size(needed));
                let headline = format!("insufficient disk space: {available} available, need at least {needed}");
                Self::new(code::DISK_FULL, headline)
                    .cause(format!("so much is to be fetched into `{}`", path.display()))
                    .hint("`forge gc` frees what nothing names; --store DIR keeps the store on another disk")
            }
            error @ DiskFull { .. } => plain(code::DISK_FULL, &error)
                .hint("a step that writes without end was ended; else `forge gc` frees what nothing names"),
            Fetch { what, tried, gone } => {
                let code = if gone { code::NOT_FOUND } else { code::UNREACHABLE };
                let mut failure = Self::new(code, format!("cannot fetch `{what}`"));
                for (place, answer) in tried {
                    failure = failure.cause(format!("{place}: {answer}"));
                }
                if gone && what.starts_with("index of suite") {
                    failure.hint("is that the suite's name? A mirror has it under dists/; FORGE_DEBIAN_MIRROR names another mirror")
                } else if gone && what.contains("://") {
                    failure.hint("is that its address, and is it still there?")
                } else if gone {
                    failure.hint("the mirror has moved on: `forge lock --update` takes what it has now, a snapshot mirror keeps old files")
                } else {
                    failure.hint("`forge doctor --network` tests the mirrors; FORGE_DEBIAN_MIRROR and FORGE_PYTHON_INDEX name others")
                }
            }
            error @ NoProgram { .. } => {
                let NoProgram { program, .. } = &error else { return plain(code::NOT_FOUND, &error) };
                let package = match program.as_str() {
                    "ssh" => "openssh-client",
                    "hg" => "mercurial",
                    other => other,
                };
                let hint = format!("install it (Debian: `apt-get install {package}`), or name an `https:` address of an archive");
                plain(code::NOT_FOUND, &error).hint(hint)
            }
            NotConfigured { what, settings } => {
                let failure = Self::new(code::UNREACHABLE, format!("no {what} is configured on this machine"));
                settings.into_iter().fold(failure, Self::hint)
            }
            UnknownPackage { ecosystem, name, near } => {
                let failure = Self::new(code::NOT_FOUND, format!("{ecosystem} has no package `{name}`"));
                match near.as_slice() {
                    [] if ecosystem.starts_with("Debian") => failure
                        .hint("another suite may have it, or another of its `components`: contrib, non-free, non-free-firmware"),
                    [] => failure.hint("is that its name there? FORGE_PYTHON_INDEX names another index"),
                    near => failure.hint(format!("near it: {}", near.join(", "))),
                }
            }
            Unsolvable { ecosystem, explanation } => {
                let failure = Self::new(code::BUILD_FAILED, format!("{ecosystem}: the requirements cannot be met together"));
                failure.detail(explanation)
            }
            error @ Mismatch { .. } => plain(code::MISMATCH, &error)
                .hint("what was locked is not what is served: do not go on before you know why; `forge lock --update` takes it as it is now"),
            error @ Output { .. } => plain(code::MISMATCH, &error)
                .hint("`outputHash` says what must come out: write what came only if you know why it is that"),
            error @ Signature { .. } => plain(code::REFUSED, &error)
                .hint("Signed-By in the machine's apt sources names the keys that are trusted"),
            error @ OtherPython { .. } => plain(code::BUILD_FAILED, &error).hint(
                "forge.debian { suite = \"trixie\"; } has Python 3.13, bookworm 3.11, bullseye 3.9; else lock the project again for the Python that there is",
            ),
            error @ OtherEnvironment { .. } => plain(code::BUILD_FAILED, &error)
                .hint("lock the project again for linux, too: `environments` says for which systems that is"),
            error @ Dynamic { .. } => plain(code::BUILD_FAILED, &error).hint(
                "`uv lock` builds the project and writes what it wants: forge.python { lock = ./uv.lock; }, or write the list into the project",
            ),
            error @ LockRecord { .. } => {
                plain(code::USAGE, &error).hint("`forge lock --update` writes the lock anew")
            }
            error => plain(code::BUILD_FAILED, &error),
        }
    }
}

impl From<expressions::Error> for Failure {
    fn from(error: expressions::Error) -> Self {
        let code = if error.is_mismatch { code::MISMATCH } else { code::NEGATIVE };
        Self { findings: error.findings.clone(), ..Self::new(code, error.to_string()) }
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
