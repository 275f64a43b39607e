//! Finds the command inside the root and becomes it, or says why that is not possible.
//!
//! Looking and executing are one act: each place is tried with `execve`, as the kernel alone knows what it will run.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::message::{Cause, Failure, Kind};
use super::sys::{self, Strings};
use crate::{Error, Sandbox};

/// Where programs are looked for if the environment has no `PATH`: what Debian's shell uses.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command ready to be executed.
pub struct Program {
    /// Every place it may be, in order.
    places: Vec<CString>,
    arguments: Strings,
    environment: Strings,
}

impl Program {
    /// Refuses an empty command, and strings with a NUL.
    pub fn new(sandbox: &Sandbox) -> Result<Self, Error> {
        let command = sandbox.command.first().filter(|command| !command.is_empty());
        let command = command.ok_or_else(|| Error::CommandNotFound { command: OsString::new() })?;
        let mut places = Vec::new();
        if command.as_bytes().contains(&b'/') {
            places.push(string(command.as_bytes().to_vec())?);
        } else {
            let path = sandbox.environment.get(OsStr::new("PATH")).map_or(DEFAULT_PATH, |path| path.as_bytes());
            for directory in path.split(|&byte| byte == b':') {
                // An empty part means the working directory, as in every shell.
                let directory = if directory.is_empty() { b"." } else { directory };
                places.push(string([directory, b"/", command.as_bytes()].concat())?);
            }
        }
        let arguments = sandbox.command.iter().map(|argument| string(argument.as_bytes().to_vec()));
        let environment =
            sandbox.environment.iter().map(|(name, value)| string([name.as_bytes(), b"=", value.as_bytes()].concat()));
        Ok(Self {
            places,
            arguments: Strings::new(arguments.collect::<Result<_, _>>()?),
            environment: Strings::new(environment.collect::<Result<_, _>>()?),
        })
    }

    /// The same from words: of a container's configuration. The last `PATH` counts.
    pub fn of(words: &[OsString], environment: &[OsString]) -> Result<Self, Error> {
        let variable = |text: &OsString| {
            let bytes = text.as_bytes();
            let at = bytes.iter().position(|byte| *byte == b'=')?;
            Some((OsStr::from_bytes(&bytes[..at]).to_owned(), OsStr::from_bytes(&bytes[at + 1..]).to_owned()))
        };
        let command = words.to_vec();
        Self::new(&Sandbox {
            command,
            environment: environment.iter().filter_map(variable).collect(),
            ..Sandbox::default()
        })
    }

    /// Refuses a program, or an interpreter of one, that is the launcher's own file under another name: `/proc/self/exe` still is, until
    /// the command is executed (CVE-2019-5736). For kernels that cannot be told so.
    pub fn refuse_ourselves(&self) -> Result<(), Failure> {
        let identity = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
        let own = identity(Path::new("/proc/self/exe"));
        for place in &self.places {
            let mut path = PathBuf::from(OsStr::from_bytes(place.as_bytes()));
            // As deep as the kernel follows: BINPRM's depth, and a dynamic linker.
            for _ in 0..6 {
                if own.is_some() && identity(&path) == own {
                    return Err(not_executed("it leads out of the root".to_owned()));
                }
                match interpreter(&path) {
                    Some(next) => path = PathBuf::from(next),
                    None => break,
                }
            }
        }
        Ok(())
    }

    /// Becomes the command. Only returns if that failed.
    pub fn execute(&self) -> Failure {
        let mut refused = None;
        for place in &self.places {
            let error = sys::execute(place, &self.arguments, &self.environment);
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => {
                    let path = Path::new(OsStr::from_bytes(place.as_bytes()));
                    if fs::metadata(path).is_ok() {
                        return explain(path, error);
                    }
                }
                // As a shell does, go on looking, and remember that there was one.
                Some(libc::EACCES) => refused = refused.or(Some((place, error))),
                _ => return explain(Path::new(OsStr::from_bytes(place.as_bytes())), error),
            }
        }
        match refused {
            Some((place, error)) => explain(Path::new(OsStr::from_bytes(place.as_bytes())), error),
            None => Failure::new(Kind::NotFound, &io::Error::from_raw_os_error(libc::ENOENT), ""),
        }
    }
}

fn string(bytes: Vec<u8>) -> Result<CString, Error> {
    CString::new(bytes).map_err(|error| {
        let what = OsString::from_vec(error.into_vec());
        let source = io::Error::from(io::ErrorKind::InvalidInput);
        Error::Setup { action: format!("pass {what:?}, which contains a NUL"), source }
    })
}

fn not_executed(why: String) -> Failure {
    Failure { kind: Kind::CannotExecute, what: String::new(), cause: Cause::Words(why) }
}

/// Why a program that is there could not be executed.
fn explain(path: &Path, error: io::Error) -> Failure {
    let plain = Failure::new(Kind::CannotExecute, &error, "");
    match error.raw_os_error() {
        Some(libc::EACCES) if path.is_dir() => {
            Failure::new(Kind::CannotExecute, &io::Error::from_raw_os_error(libc::EISDIR), "")
        }
        Some(libc::ENOENT) => match interpreter(path) {
            Some(interpreter) => not_executed(format!("its interpreter `{interpreter}` is missing")),
            None => plain,
        },
        Some(libc::ENOEXEC) => match first_bytes(path) {
            Some(bytes) if bytes.starts_with(b"\x7fELF") => {
                not_executed("it is a program for another kind of machine".to_owned())
            }
            Some(bytes) if bytes.is_empty() => not_executed("it is empty".to_owned()),
            Some(_) => not_executed("it is neither a program nor a script that begins with `#!`".to_owned()),
            None => plain,
        },
        _ => plain,
    }
}

fn first_bytes(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(4096).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The program that this one needs: of a script the first word after `#!`, of an ELF file the dynamic linker.
fn interpreter(path: &Path) -> Option<String> {
    let bytes = first_bytes(path)?;
    if let Some(line) = bytes.strip_prefix(b"#!") {
        let line = line.split(|&byte| byte == b'\n').next()?.trim_ascii();
        let word = line.split(|byte| byte.is_ascii_whitespace()).next()?;
        return Some(String::from_utf8_lossy(word).into_owned());
    }
    let name = elf_interpreter(&bytes)?;
    Some(String::from_utf8_lossy(name).into_owned())
}

/// `PT_INTERP` of a 64-bit little-endian ELF file, if it lies in these first bytes (linkers put it there): elf(5).
fn elf_interpreter(bytes: &[u8]) -> Option<&[u8]> {
    const PT_INTERP: u64 = 3;
    const IDENTITY: &[u8] = b"\x7fELF\x02\x01";
    let number = |at: usize, length: usize| {
        let field = bytes.get(at..at.checked_add(length)?)?;
        Some(field.iter().rev().fold(0u64, |number, &byte| number << 8 | u64::from(byte)))
    };
    if !bytes.starts_with(IDENTITY) {
        return None;
    }
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for index in 0..count {
        let header = usize::try_from(table.checked_add(index * size)?).ok()?;
        if number(header, 4)? == PT_INTERP {
            let start = usize::try_from(number(header.checked_add(8)?, 8)?).ok()?;
            let length = usize::try_from(number(header.checked_add(32)?, 8)?).ok()?;
            let name = bytes.get(start..start.checked_add(length)?)?;
            return Some(name.strip_suffix(b"\0").unwrap_or(name));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreter_of_a_script_and_of_a_program() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("script");
        fs::write(&script, "#! /usr/bin/env -S python3\n").unwrap();
        assert_eq!(interpreter(&script).as_deref(), Some("/usr/bin/env"));
        if let Some(name) = interpreter(Path::new("/bin/sh")) {
            assert!(name.starts_with("/lib"), "{name}");
        }
    }

    #[test]
    fn a_broken_program_has_no_interpreter() {
        let mut bytes = vec![0xff; 4096];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        for length in 0..bytes.len() {
            assert_eq!(elf_interpreter(&bytes[..length]), None);
        }
    }
}
