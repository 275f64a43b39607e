//! Programs of this machine that fetch what forge does not fetch itself: `ssh` and `hg`. They see the user's own environment, since
//! keys, agents and known hosts are the user's; nothing that is built ever runs so.

use std::io::Read;
use std::process::{Command, Stdio};

use crate::{Builder, Error, Machine, Result};

/// Of what a program says, so many bytes at the end are kept.
const LONGEST_WORDS: usize = 4096;

/// A call of a program.
pub struct Program {
    name: String,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
}

impl Program {
    /// Looked for on the user's `PATH`.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), arguments: Vec::new(), variables: Vec::new() }
    }

    /// With further arguments.
    pub fn arguments(mut self, arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// With a variable set.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The command, with pipes.
    pub fn command(&self, machine: &Machine) -> Command {
        // The name is looked up here: where the environment is replaced, `Command` would look where this process does.
        let path = machine.variable("PATH").unwrap_or("/usr/bin:/bin");
        let mut candidates = path.split(':').map(|directory| std::path::Path::new(directory).join(&self.name));
        let found = candidates.find(|path| !self.name.contains('/') && path.is_file());
        let mut command = Command::new(found.unwrap_or_else(|| self.name.clone().into()));
        command.args(&self.arguments).env_clear().envs(&machine.environment);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it to its end; what it prints on its stdout. `refused` says what failed by the words on its stderr.
    pub fn output(
        &self,
        builder: &Builder<'_>,
        purpose: &'static str,
        refused: impl FnOnce(String) -> Error,
    ) -> Result<Vec<u8>> {
        builder.check_interrupt()?;
        let mut command = self.command(builder.machine);
        let output = command.stdin(Stdio::null()).output().map_err(|error| not_started(&self.name, purpose, error))?;
        builder.check_interrupt()?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let words = last_words(&output.stderr[..]);
        Err(refused(if words.is_empty() { format!("`{}` failed: {}", self.name, output.status) } else { words }))
    }
}

/// The error where a program cannot be started: mostly it is not there.
pub fn not_started(name: &str, purpose: &'static str, error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => Error::NoProgram { program: name.to_owned(), purpose },
        _ => Error::File { action: "run", path: name.into(), source: error },
    }
}

/// The end of what a program says, in one line.
pub fn last_words(mut words: impl Read) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = words.read(&mut buffer) {
        kept.extend_from_slice(&buffer[..count]);
        let over = kept.len().saturating_sub(LONGEST_WORDS);
        kept.drain(..over);
    }
    let text = String::from_utf8_lossy(&kept);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ").chars().filter(|sign| !sign.is_control()).collect()
}
