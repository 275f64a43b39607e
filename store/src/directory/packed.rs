//! Artifacts that were packed here: who runs one where it lies trusts no stranger with it.
//!
//! Under `cache/artifacts/`: a digest that `forge export` printed; `cache/artifact-files/`: a file in a state in which it had one.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use super::Store;
use crate::{ArtifactId, Error, Result};

const DIGESTS: &str = "artifacts";
const FILES: &str = "artifact-files";
/// A file that was changed so short a time ago may be changed again without another time of change.
const SETTLED: Duration = Duration::from_millis(25);

impl Store {
    /// Notes that these bytes were packed here.
    pub fn put_packed(&self, id: ArtifactId) -> Result<()> {
        self.put_cached(DIGESTS, &id.to_string(), b"")
    }

    /// Whether a file's bytes were packed here, and nobody but this user can have changed or can change them. It is hashed if it was not
    /// in this state before.
    pub fn was_packed_here(&self, file: &File) -> Result<bool> {
        let metadata = || file.metadata().map_err(Error::file("look at", "the artifact"));
        let before = metadata()?;
        let is_ours = before.uid() == rustix::process::geteuid().as_raw() && before.mode() & 0o022 == 0;
        if !is_ours {
            return Ok(false);
        }
        let state = state(&before);
        if self.read_cached(FILES, &state)?.is_some() {
            return Ok(true);
        }
        if self.cached(DIGESTS)?.is_empty() {
            return Ok(false);
        }
        let mut hasher = blake3::Hasher::new();
        let mut reader = file;
        std::io::Seek::rewind(&mut reader).map_err(Error::file("read", "the artifact"))?;
        hasher.update_reader(reader).map_err(Error::file("read", "the artifact"))?;
        let id = ArtifactId::from_bytes(*hasher.finalize().as_bytes());
        let after = metadata()?;
        let is_known = self.read_cached(DIGESTS, &id.to_string())?.is_some() && self::state(&after) == state;
        if is_known && is_settled(&after) {
            self.put_cached(FILES, &state, id.to_string().as_bytes())?;
        }
        Ok(is_known)
    }
}

/// A name for a file as it is now.
fn state(metadata: &Metadata) -> String {
    let numbers = [
        metadata.dev(),
        metadata.ino(),
        metadata.len(),
        metadata.mtime() as u64,
        metadata.mtime_nsec() as u64,
        metadata.ctime() as u64,
        metadata.ctime_nsec() as u64,
    ];
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    crate::digest::to_hex(&blake3::derive_key("forge 2026 state of an artifact's file", &bytes))
}

fn is_settled(metadata: &Metadata) -> bool {
    let changed = Duration::new(metadata.ctime().unsigned_abs(), metadata.ctime_nsec().unsigned_abs() as u32);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(changed) > SETTLED
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::testing::world;
    use super::*;

    #[test]
    fn what_was_packed_here_is_known_until_a_byte_or_its_permissions_change() {
        let world = world();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("artifact");
        fs::write(&path, b"packed").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let known = || world.store.was_packed_here(&File::open(&path).unwrap()).unwrap();
        assert!(!known(), "nothing was packed");
        world.store.put_packed(ArtifactId::from_bytes(*blake3::hash(b"packed").as_bytes())).unwrap();
        assert!(known());
        std::thread::sleep(2 * SETTLED);
        // The second time it is noted, the third it is not read.
        assert!(known() && known());
        fs::write(&path, b"forged").unwrap();
        assert!(!known());
        fs::write(&path, b"packed").unwrap();
        assert!(known());
        // Whoever could write to it while it is mounted writes into a running kernel's file system.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(!known());
    }
}
