//! What steps printed: kept compressed, one file for each derivation, `logs/ab/REST-NAME.drv.zst` where `abREST-NAME.drv` is the
//! derivation's own name.
//!
//! A log is written when its step has ended, well or not; one that is made again replaces it. Logs are no objects: what is lost of
//! them is lost, and nothing else depends on them.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use store::{Store, StorePath};

use crate::{Error, Result};

/// How long logs are kept that nobody has looked after: [`prune`].
pub const KEPT: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// More than this is not unpacked: no log is that long.
const LONGEST: u64 = 256 << 20;

/// A log that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Of which derivation.
    pub derivation: StorePath,
    /// When the step ended.
    pub time: SystemTime,
}

fn directory(store: &Store) -> PathBuf {
    store.path().join("logs")
}

fn path(store: &Store, derivation: &StorePath) -> PathBuf {
    let name = base_name(derivation);
    directory(store).join(&name[..2]).join(format!("{}.zst", &name[2..]))
}

fn base_name(derivation: &StorePath) -> &str {
    derivation.as_str().rsplit('/').next().unwrap_or_default()
}

/// Keeps what a step printed.
pub fn write(store: &Store, derivation: &StorePath, text: &[u8]) -> Result<()> {
    let path = path(store, derivation);
    let failed = |error| Error::file("write", &path)(error);
    let packed = zstd::bulk::compress(text, 3).map_err(failed)?;
    let parent = path.parent().unwrap_or(&path);
    // A name of its own: two processes may keep a log of the same derivation.
    let temporary = parent.join(format!(".{}-{}", std::process::id(), base_name(derivation)));
    let written = fs::write(&temporary, &packed).or_else(|_| {
        fs::create_dir_all(parent)?;
        fs::write(&temporary, &packed)
    });
    written.and_then(|()| fs::rename(&temporary, &path)).map_err(failed)
}

/// What a step printed when it was last made here.
pub fn read(store: &Store, derivation: &StorePath) -> Result<Option<Vec<u8>>> {
    let path = path(store, derivation);
    let file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("read", path)(error)),
    };
    let mut text = Vec::new();
    let unpacked = zstd::Decoder::new(file).and_then(|decoder| decoder.take(LONGEST).read_to_end(&mut text));
    unpacked.map_err(Error::file("read", path))?;
    Ok(Some(text))
}

/// The logs that are kept, the newest first, as far as the name fits: a derivation's path or file name, the first digits of its
/// hash (6 or more), or the step's name with or without `.drv`.
pub fn find(store: &Store, given: &str) -> Result<Vec<Kept>> {
    let given = given.strip_prefix("/nix/store/").unwrap_or(given);
    let mut found = Vec::new();
    for shard in entries(&directory(store))? {
        let Some(first) = shard.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
        for file in entries(&shard)? {
            let Some(rest) = file.file_name().and_then(|name| name.to_str()?.strip_suffix(".zst")) else { continue };
            let Some(derivation) = StorePath::parse(&format!("/nix/store/{first}{rest}")) else { continue };
            let whole = format!("{first}{rest}");
            let name = derivation.name().strip_suffix(".drv").unwrap_or(derivation.name());
            let fits = whole == given
                || derivation.name() == given
                || name == given
                || given.len() >= 6 && !given.contains('-') && whole.starts_with(given);
            if fits && let Ok(metadata) = fs::metadata(&file) {
                found.push(Kept { derivation, time: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH) });
            }
        }
    }
    found.sort_by(|left, right| right.time.cmp(&left.time).then_with(|| left.derivation.cmp(&right.derivation)));
    Ok(found)
}

/// Removes logs that are older than [`KEPT`]; gives how many.
pub fn prune(store: &Store, now: SystemTime) -> Result<u64> {
    let mut removed = 0;
    for shard in entries(&directory(store))? {
        for file in entries(&shard)? {
            let old = fs::metadata(&file).and_then(|metadata| metadata.modified());
            let old = old.is_ok_and(|time| now.duration_since(time).is_ok_and(|age| age > KEPT));
            if old && fs::remove_file(&file).is_ok() {
                removed += 1;
            }
        }
    }
    Ok(removed)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(error) => Err(Error::file("read the directory", directory)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn derivation(digit: char, name: &str) -> StorePath {
        StorePath::parse(&format!("/nix/store/{}-{name}.drv", digit.to_string().repeat(32))).unwrap()
    }

    #[test]
    fn a_log_is_found_by_path_digits_and_name() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("store")).unwrap();
        let (first, second) = (derivation('1', "hello-1.0"), derivation('2', "hello-1.0"));
        assert_eq!(find(&store, "hello-1.0").unwrap(), []);
        let long = "a line\n".repeat(100_000);
        write(&store, &first, long.as_bytes()).unwrap();
        write(&store, &second, b"").unwrap();
        assert_eq!(read(&store, &first).unwrap().unwrap(), long.as_bytes());
        assert_eq!(read(&store, &second).unwrap().unwrap(), b"");
        assert_eq!(read(&store, &derivation('3', "other")).unwrap(), None);
        let digits = "1".repeat(6);
        for given in [first.as_str(), &first.as_str()[11..], &digits] {
            let found = find(&store, given).unwrap();
            assert!(found.len() == 1 && found[0].derivation == first, "{given}: {found:?}");
        }
        assert_eq!(find(&store, "hello-1.0").unwrap().len(), 2);
        assert_eq!(find(&store, "11111").unwrap(), []);
        assert_eq!(find(&store, "../../etc").unwrap(), []);
        assert_eq!(prune(&store, SystemTime::now()).unwrap(), 0);
        assert_eq!(prune(&store, SystemTime::now() + 2 * KEPT).unwrap(), 2);
        assert_eq!(find(&store, "hello-1.0").unwrap(), []);
    }

    #[test]
    fn a_damaged_log_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("store")).unwrap();
        let derivation = derivation('1', "a");
        write(&store, &derivation, b"text").unwrap();
        fs::write(path(&store, &derivation), b"no zstd").unwrap();
        assert!(matches!(read(&store, &derivation), Err(Error::File { .. })));
    }
}
