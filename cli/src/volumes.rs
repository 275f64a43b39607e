//! Named volumes: directories of this user that outlive runs, `-v NAME:/path`. They lie among what is kept of this user, a directory
//! each, and are in no store: what is in them has no digest and is never collected.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::args::RunOptions;
use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::words::say;

/// Where a volume is shown if nothing is said: where Joblet shows it.
const PLACE: &str = "/volumes";
/// How the names of those begin that are being removed.
const REMOVED: &str = ".removed-";

/// Whether a text names a volume, and no path: letters, digits, `.`, `_` and `-`, first a letter or digit.
pub fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// A volume.
#[derive(Debug)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its directory.
    pub path: PathBuf,
}

impl Volume {
    /// The volume of a name, whether it is there or not.
    pub fn named(name: &str, context: &Context) -> Result<Self> {
        if !is_name(name) {
            let failure = Failure::new(code::USAGE, format!("`{name}` is not a name for a volume"));
            return Err(failure.hint("letters, digits, `.`, `_` and `-`, starting with a letter or digit; 64 at most"));
        }
        Ok(Self { name: name.to_owned(), path: directory(context)?.join(name) })
    }

    /// Makes it, unless it is there; says whether it was made.
    pub fn ensure(&self) -> Result<bool> {
        let above = self.path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(above).map_err(|error| self.failed("make", &error))?;
        match fs::create_dir(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.path.is_dir() => Ok(false),
            Err(error) => Err(self.failed("make", &error)),
        }
    }

    /// Says that it is used as long as the file is open: in this process, and in those that it becomes.
    fn hold(&self) -> Result<File> {
        let file = File::open(&self.path).map_err(|error| self.failed("open", &error))?;
        flock(&file, FlockOperation::LockShared).map_err(|error| self.failed("hold", &error.into()))?;
        Ok(file)
    }

    /// Removes it with all that is in it, unless a run uses it.
    pub fn remove(&self) -> Result<()> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.unknown()),
            Err(error) => return Err(self.failed("open", &error)),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let failure = Failure::new(code::LOCKED, format!("volume `{}` is in use", self.name));
                return Err(failure.hint("a run shows it; it can be removed when that has ended"));
            }
            Err(error) => return Err(self.failed("hold", &error.into())),
        }
        // Gone for others at once, and for good when that is done. A run that waits for the lock finds no such name.
        let aside = self.path.with_file_name(format!("{REMOVED}{}-{}", std::process::id(), self.name));
        fs::rename(&self.path, &aside).map_err(|error| self.failed("remove", &error))?;
        store::directory::remove_all(&aside)?;
        clear_away(self.path.parent().unwrap_or(Path::new("/")));
        Ok(())
    }

    /// Bytes on the disk. What cannot be read is not counted.
    pub fn size(&self) -> u64 {
        let mut bytes = 0;
        let mut directories = vec![self.path.clone()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                let Ok(facts) = entry.metadata() else { continue };
                bytes += facts.blocks() * 512;
                if facts.is_dir() {
                    directories.push(entry.path());
                }
            }
        }
        bytes
    }

    fn unknown(&self) -> Failure {
        Failure::new(code::NOT_FOUND, format!("no volume `{}`", self.name))
            .hint("`forge volume list` shows what is here")
    }

    fn failed(&self, action: &str, error: &io::Error) -> Failure {
        let code = if error.kind() == io::ErrorKind::StorageFull { code::DISK_FULL } else { code::REFUSED };
        Failure::new(code, format!("cannot {action} volume `{}` ({})", self.name, self.path.display()))
            .cause(error.to_string())
    }
}

/// Ends what a process began that was killed while it removed a volume. One that is still at it holds the lock. What cannot be removed
/// stays: it is no volume any more, and nobody has asked for it.
fn clear_away(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(file) = File::open(entry.path()) else { continue };
        if entry.file_name().as_encoded_bytes().starts_with(REMOVED.as_bytes())
            && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            let _ = store::directory::remove_all(&entry.path());
        }
    }
}

/// Where this user's volumes lie.
fn directory(context: &Context) -> Result<PathBuf> {
    Ok(context.state_path()?.join("volumes"))
}

/// All of this user's, by name.
pub fn all(context: &Context) -> Result<Vec<Volume>> {
    let mut volumes = Vec::new();
    for entry in fs::read_dir(directory(context)?).into_iter().flatten().flatten() {
        if let Some(name) = entry.file_name().to_str().filter(|name| is_name(name)) {
            volumes.push(Volume { name: name.to_owned(), path: entry.path() });
        }
    }
    volumes.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(volumes)
}

/// Volumes that a run shows.
#[derive(Debug, Default)]
pub struct Held {
    volumes: Vec<Volume>,
    _files: Vec<File>,
}

impl Held {
    /// Gives volumes that are still empty to the user that the run has, as container engines do: it could write nothing otherwise.
    pub fn give(&self, (user, group): (u32, u32)) -> Result<()> {
        for volume in &self.volumes {
            let is_empty = fs::read_dir(&volume.path).is_ok_and(|mut entries| entries.next().is_none());
            if is_empty && user != 0 {
                chown(&volume.path, Some(user), Some(group)).map_err(|error| volume.failed("give away", &error))?;
            }
        }
        Ok(())
    }
}

/// The options with the paths of volumes in the place of their names, made where they are not there; nothing if none is named.
pub fn settled(options: &RunOptions, context: &Context) -> Result<Option<(RunOptions, Held)>> {
    let named = |text: &str| {
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        is_name(name).then(|| (name.to_owned(), rest.to_owned()))
    };
    if !options.volume.iter().any(|text| named(text).is_some()) {
        return Ok(None);
    }
    let (mut options, mut held) = (options.clone(), Held::default());
    for text in &mut options.volume {
        let Some((name, rest)) = named(text) else { continue };
        let volume = Volume::named(&name, context)?;
        if volume.ensure()? && !context.global.quiet {
            say!("   volume {name} made");
        }
        held._files.push(volume.hold()?);
        // Between the two it may have been removed: then the run says that there is no such directory.
        *text = match rest.as_str() {
            "" | "rw" => format!("{}:{PLACE}/{name}", volume.path.display()),
            "ro" => format!("{}:{PLACE}/{name}:ro", volume.path.display()),
            rest => format!("{}:{rest}", volume.path.display()),
        };
        held.volumes.push(volume);
    }
    Ok(Some((options, held)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_paths() {
        for good in ["a", "cache", "data-1.2_x"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".", "..", ".cache", "-a", "a/b", "/a", "ä", &"a".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
