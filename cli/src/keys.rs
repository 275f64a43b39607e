//! Keys that the user names, and their passphrases: from a descriptor, a variable, or the terminal. Neither is kept.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use store::signing::{SecretKey, Trust};

use crate::args::PassphraseArguments;
use crate::context::Context;
use crate::error::{Failure, Result, code};

/// A file that is larger holds no keys.
const MOST_BYTES: u64 = 16 << 20;
/// Nobody types more.
const MOST_PASSPHRASE: u64 = 64 << 10;

/// Seconds since 1970.
pub fn now() -> u32 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

/// The key in a file, opened.
pub fn secret(path: &Path, passphrase: &PassphraseArguments, context: &Context) -> Result<SecretKey> {
    let bytes = read(path)?;
    let mut failure = None;
    let key = SecretKey::read(&bytes, &mut || match given(path, passphrase, context) {
        Ok(passphrase) => passphrase,
        Err(error) => {
            failure = Some(error);
            None
        }
    });
    if let Some(failure) = failure {
        return Err(failure);
    }
    Ok(key.map_err(|source| store::Error::Key { path: path.to_owned(), source })?)
}

/// The public keys in these files.
pub fn trust<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Result<Trust> {
    let mut trust = Trust::default();
    for path in paths {
        trust.add(&read(path)?).map_err(|source| store::Error::Key { path: path.clone(), source })?;
    }
    Ok(trust)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |error: std::io::Error| {
        let code = if error.kind() == std::io::ErrorKind::NotFound { code::NOT_FOUND } else { code::USAGE };
        Failure::new(code, format!("cannot read the key `{}`", path.display())).cause(error.to_string())
    };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut bytes)).map_err(failed)?;
    Ok(bytes)
}

/// None if nobody can be asked.
fn given(key: &Path, arguments: &PassphraseArguments, context: &Context) -> Result<Option<Vec<u8>>> {
    if let Some(name) = &arguments.passphrase_env {
        let value = context.environment.get(std::ffi::OsStr::new(name));
        let value = value.ok_or_else(|| Failure::new(code::USAGE, format!("the variable `{name}` is not set")))?;
        return Ok(Some(std::os::unix::ffi::OsStrExt::as_bytes(value.as_os_str()).to_vec()));
    }
    if let Some(number) = arguments.passphrase_fd {
        // Opened anew, so that a descriptor needs no `unsafe`; a pipe or here-document gives the same bytes.
        let read = File::open(format!("/proc/self/fd/{number}")).and_then(first_line);
        return read.map(Some).map_err(|error| {
            Failure::new(code::USAGE, format!("cannot read a passphrase from descriptor {number}"))
                .cause(error.to_string())
        });
    }
    ask(key).map_err(|error| Failure::new(code::USAGE, "cannot ask for the passphrase").cause(error.to_string()))
}

fn first_line(file: File) -> std::io::Result<Vec<u8>> {
    let mut line = Vec::new();
    BufReader::new(file.take(MOST_PASSPHRASE)).read_until(b'\n', &mut line)?;
    while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        line.pop();
    }
    Ok(line)
}

/// On the terminal, whatever standard input and output are; none without one.
fn ask(key: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let Ok(mut terminal) = File::options().read(true).write(true).open("/dev/tty") else { return Ok(None) };
    let before = tcgetattr(&terminal)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    silent.local_modes.insert(LocalModes::ECHONL);
    write!(terminal, "passphrase of {}: ", key.display())?;
    tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
    let line = terminal.try_clone().and_then(first_line);
    tcsetattr(&terminal, OptionalActions::Flush, &before)?;
    line.map(Some)
}
