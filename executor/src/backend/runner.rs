//! Docker and Podman: where this kernel does not run formations, one of their containers does, with forge inside.
//!
//! An engine's program is called as a user would call it; `arguments.rs` says with what. The container gets the store read-only, what
//! was bound, and the few powers that forge needs to isolate the command inside ([`Power`]); forge inside checks what it is to run.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

pub mod arguments;
#[cfg(test)]
mod tests;

pub use arguments::{Container, Mount, OWN_PROCESSES, Power, Reach};

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Podman.
    Podman,
    /// Docker.
    Docker,
}

impl Kind {
    /// In the order in which they are looked for: Podman wants no daemon.
    pub const ALL: [Kind; 2] = [Kind::Podman, Kind::Docker];

    /// As written after `--backend runner:`, and the program's name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Podman => "podman",
            Kind::Docker => "docker",
        }
    }
}

/// An engine of this machine, and how it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// Which it is.
    pub kind: Kind,
    /// The program and what always comes first, for instance `sudo docker` or `podman --cgroup-manager=cgroupfs`.
    pub program: Vec<OsString>,
    /// What is added to every `run`.
    pub options: Vec<OsString>,
}

/// Why an engine does not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not installed.
    #[error("`{program}` is not installed here")]
    Missing {
        /// What was looked for.
        program: String,
    },
    /// It is there, and what does its work is not.
    #[error("{engine} is installed and does not answer")]
    Silent {
        /// Which.
        engine: &'static str,
        /// Its words.
        said: String,
    },
    /// This user may not ask it.
    #[error("{engine} does not serve this user")]
    Refused {
        /// Which.
        engine: &'static str,
        /// Its words.
        said: String,
    },
    /// The image is for another kind of machine.
    #[error("image `{image}` is for {found}, and a container here runs {wanted}")]
    Platform {
        /// Its name.
        image: String,
        /// Of the image.
        found: String,
        /// Of the formation.
        wanted: String,
    },
    /// Anything else that it said.
    #[error("{engine} cannot {action}")]
    Failed {
        /// Which.
        engine: &'static str,
        /// What was asked of it.
        action: String,
        /// Its words.
        said: String,
    },
    /// It could not be started or waited for.
    #[error("cannot start `{program}`")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
}

/// What an engine knows of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// By which the engine keeps it: a digest of its configuration or manifest.
    pub id: String,
    /// `linux/amd64`.
    pub platform: String,
}

impl Engine {
    /// An engine called by its plain name.
    pub fn new(kind: Kind) -> Self {
        Self { kind, program: vec![kind.name().into()], options: Vec::new() }
    }

    fn name(&self) -> String {
        self.program.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    fn command<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, arguments: I) -> Command {
        let (program, first) = self.program.split_first().expect("an engine has a program");
        let mut command = Command::new(program);
        command.args(first).args(arguments);
        command
    }

    fn cannot_start(&self, source: io::Error) -> Error {
        match source.kind() {
            ErrorKind::NotFound => Error::Missing { program: self.program[0].to_string_lossy().into_owned() },
            _ => Error::Start { program: self.name(), source },
        }
    }

    /// Asks something small; its words on stdout.
    fn ask<S: AsRef<OsStr>>(&self, action: &str, arguments: &[S]) -> Result<String, Error> {
        let output = self.command(arguments).stdin(Stdio::null()).output().map_err(|error| self.cannot_start(error))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(self.explain(action, &String::from_utf8_lossy(&output.stderr)))
    }

    /// What an engine's complaint means.
    pub fn explain(&self, action: &str, said: &str) -> Error {
        let (engine, said) = (self.kind.name(), said.trim().to_owned());
        let lower = said.to_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
        if has(&["permission denied while trying to connect", "got permission denied"]) {
            return Error::Refused { engine, said };
        }
        if has(&[
            "cannot connect to",
            "is the docker daemon running",
            "unable to connect to podman",
            "error during connect",
        ]) {
            return Error::Silent { engine, said };
        }
        Error::Failed { engine, action: action.to_owned(), said }
    }

    /// The version, which says that it is there and answers.
    pub fn version(&self) -> Result<String, Error> {
        let format = match self.kind {
            Kind::Podman => "{{.Client.Version}}",
            Kind::Docker => "{{.Server.Version}}",
        };
        Ok(self.ask("say its version", &["version", "--format", format])?.trim().to_owned())
    }

    /// What it knows of an image; nothing if it does not have it.
    pub fn image(&self, reference: &str) -> Result<Option<ImageFacts>, Error> {
        let format = "{{.Id}} {{.Os}}/{{.Architecture}}";
        match self.ask("look at its images", &["image", "inspect", "--format", format, reference]) {
            Ok(line) => {
                let mut words = line.split_whitespace().map(str::to_owned);
                let (id, platform) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                // Podman leaves the algorithm out.
                let id = if id.contains(':') { id } else { format!("sha256:{id}") };
                Ok(Some(ImageFacts { id, platform }))
            }
            Err(Error::Failed { said, .. })
                if ["no such image", "image not known", "no such object"]
                    .iter()
                    .any(|words| said.to_lowercase().contains(words)) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes in an image from a file as `docker save` writes it.
    pub fn load(&self, archive: &Path) -> Result<(), Error> {
        let arguments = ["load".as_ref(), "--quiet".as_ref(), "--input".as_ref(), archive.as_os_str()];
        self.ask("load the runner image", &arguments).map(drop)
    }

    /// Fetches an image; the engine shows how far it is on stderr, unless `quiet`.
    pub fn pull(&self, reference: &str, platform: &str, quiet: bool) -> Result<(), Error> {
        let mut command = self.command(["pull", "--platform", platform]);
        if quiet {
            command.arg("--quiet");
        }
        // Docker shows its progress on stdout, which is the program's.
        let stderr = if quiet { Stdio::null() } else { io::stderr().into() };
        command.arg(reference).stdin(Stdio::null()).stdout(stderr);
        let status = command.status().map_err(|error| self.cannot_start(error))?;
        if status.success() {
            return Ok(());
        }
        let action = format!("pull `{reference}`");
        Err(Error::Failed { engine: self.kind.name(), action, said: "its words are above".to_owned() })
    }

    /// Gives an image of its another name.
    pub fn tag(&self, image: &str, reference: &str) -> Result<(), Error> {
        self.ask("tag the image", &["tag", image, reference]).map(drop)
    }

    /// Sends an image to its registry; the engine shows how far it is on stderr.
    pub fn push(&self, reference: &str) -> Result<(), Error> {
        let mut command = self.command(["push", reference]);
        command.stdin(Stdio::null()).stdout(io::stderr());
        let status = command.status().map_err(|error| self.cannot_start(error))?;
        let action = format!("push `{reference}`");
        match status.success() {
            true => Ok(()),
            false => Err(Error::Failed { engine: self.kind.name(), action, said: "its words are above".to_owned() }),
        }
    }

    /// Starts a container with the caller's own streams. It is gone when the engine's program has ended.
    pub fn start(&self, container: &Container) -> Result<Child, Error> {
        self.command(container.arguments(self)).spawn().map_err(|error| self.cannot_start(error))
    }

    /// Runs a container to its end, with stdin empty; exit status, stdout and stderr.
    pub fn capture(&self, container: &Container) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), Error> {
        let mut command = self.command(container.arguments(self));
        let output = command.stdin(Stdio::null()).output().map_err(|error| self.cannot_start(error))?;
        Ok((output.status, output.stdout, output.stderr))
    }
}
