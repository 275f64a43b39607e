//! Files that a formation is packed into, and read back from.
//!
//! Each is a deterministic projection: the same formation and [`Options`] give the same bytes on every machine, whatever its
//! core count, clock, locale or umask, and carry the formation's encoding, so that it is read back to the same id. What a file claims
//! is not believed: [`read`] hashes what it holds, and compares. To add a format, write a file, implement [`Format`], and add a
//! line to [`ALL`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::directory::LayerRecord;
use crate::{ArtifactId, Error, Formation, FormationId, Launch, Node, Result, Store, TreeId};

mod artifact;
mod compression;
mod digest_map;
mod digests;
mod file_name;
mod growing;
mod hashing;
pub mod oci;
pub mod sif;
pub mod squashfs;
pub mod tar;
#[cfg(test)]
mod testing;
mod unpack;

pub use artifact::{Artifact, HEAD_LENGTH};
pub use compression::{Compression, CompressionError, Compressor};
pub use digests::Digests;
pub use file_name::FileName;
pub use growing::{Growing, Links};
pub use unpack::{compression, unpacked};

/// The time that every file of every artifact shows: 1980-01-02 00:00 UTC, in seconds since 1970.
pub const TIME: u32 = 315_619_200;

/// Of everything that decides which bytes a formation gives: layouts, defaults, and the exact versions of the compressors
/// ([`Compression::version`]). A change that shows in the bytes raises it.
pub const VERSION: u32 = 1;

/// What shapes an artifact's bytes beside the formation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Of what is compressed in it; a tar has nothing that is.
    pub compression: Compression,
    /// Whether what was compressed before is used again: blocks of earlier artifacts that the store remembers, layers that it
    /// keeps. That does not show in the bytes.
    pub remembered: bool,
    /// Artifacts to be copied from before all others; each must be one that the store remembers, wherever it lies now.
    pub from: Vec<PathBuf>,
    /// Documents that go along with an OCI image.
    pub attach: Vec<Attachment>,
}

/// A document about a formation that goes along with an OCI image of it, as a referrer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// What it is made of ([`crate::sbom`]).
    Sbom,
    /// How it was made ([`crate::provenance`]).
    Provenance,
}

impl Attachment {
    /// Of the document.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Sbom => crate::sbom::MEDIA_TYPE,
            Self::Provenance => crate::provenance::MEDIA_TYPE,
        }
    }

    /// Its bytes.
    pub fn document(self, store: &Store, id: FormationId) -> Result<Vec<u8>> {
        let document = match self {
            Self::Sbom => crate::sbom::sbom(store, id)?,
            Self::Provenance => crate::provenance::provenance(store, id)?,
        };
        Ok(document.to_string().into_bytes())
    }
}

/// What was written to a file.
#[derive(Debug, Clone, Default)]
pub struct Packed {
    /// Bytes written.
    pub length: u64,
    /// Bytes that were copied from earlier artifacts.
    pub copied: u64,
    index: Option<squashfs::Index>,
    windows: Option<hashing::Windows>,
}

impl Packed {
    /// The digest of the artifact, if the file is as it was written. Most of it was hashed as it was written.
    pub fn digest(&self, file: &File) -> Result<ArtifactId> {
        match &self.windows {
            Some(windows) => windows.clone().finish(file),
            None => Ok(Digests::of(file)?.artifact),
        }
    }

    /// Notes where the artifact lies now, so that a later one may copy from it. `gc` forgets it when it is gone from there.
    pub fn remember(&self, store: &Store, path: &Path) -> Result<()> {
        self.index.as_ref().map_or(Ok(()), |index| index.remember(store, path))
    }
}

/// A way to pack a formation.
pub trait Format: Sync {
    /// As written after `--format`, for instance `squashfs`.
    fn name(&self) -> &'static str;
    /// The file name suffix, without dot.
    fn extension(&self) -> &'static str;
    /// Writes the formation, front to back, so that a pipe will do.
    fn pack(&self, store: &Store, formation: FormationId, options: &Options, output: &mut dyn Write) -> Result<()>;

    /// Writes the same bytes to an empty file, open for reading too: what is not made front to back needs no copy then.
    fn pack_file(&self, store: &Store, formation: FormationId, options: &Options, file: &File) -> Result<Packed> {
        pack_in_order(file, |output| self.pack(store, formation, options, output))
    }

    /// Whether this is of the format, as far as its beginning (or, of a directory, its entries) tells.
    fn recognises(&self, artifact: &Artifact) -> bool;

    /// What the artifact says of itself. Nothing is unpacked, and nothing it says is checked.
    fn inspect(&self, artifact: &Artifact) -> Result<Inspection>;

    /// Takes what the artifact holds into the store. Callers want [`read`], which checks the claim as well.
    fn read(&self, store: &Store, artifact: &Artifact, bounds: &Bounds) -> Result<Imported>;
}

/// Fills an empty file front to back.
pub fn pack_in_order(file: &File, pack: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<Packed> {
    let hashed = hashing::Hashed { file, windows: hashing::Windows::from(0) };
    let mut output = BufWriter::with_capacity(1 << 20, hashed);
    pack(&mut output)?;
    let hashed = output.into_inner().map_err(|error| write_failed(error.into_error()))?;
    let length = file.metadata().map_err(write_failed)?.len();
    Ok(Packed { length, windows: Some(hashed.windows), ..Packed::default() })
}

/// Every format. The first that recognises an artifact reads it: what is a special case of another comes before it.
pub const ALL: &[&dyn Format] = &[&squashfs::Squashfs, &sif::Sif, &oci::Oci, &tar::Tar];

/// How much an artifact may hold. What holds more is refused, so that a few bytes cannot fill a disk or the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes in files, each counted once per entry.
    pub bytes: u64,
    /// Files, directories and everything else.
    pub entries: u64,
    /// Directories above an entry.
    pub depth: usize,
}

impl Bounds {
    /// What is sane for an artifact of this size: 64 GiB or, if that is more, twenty times
    /// what it is; a million entries or, if that is more, one for every 16 bytes.
    pub fn for_size(size: u64) -> Self {
        Self { bytes: size.saturating_mul(20).max(64 << 30), entries: (size / 16).max(1_000_000), depth: 4096 }
    }

    /// Counts one more entry of so many bytes, whose path has so many names. The error is a reason, in words.
    pub fn take(&mut self, bytes: u64, depth: usize) -> Result<(), &'static str> {
        if depth > self.depth {
            return Err("it is too deep");
        }
        self.entries = self.entries.checked_sub(1).ok_or("with it there are more entries than are allowed")?;
        self.bytes = self.bytes.checked_sub(bytes).ok_or("with it there are more bytes than are allowed")?;
        Ok(())
    }
}

/// What an artifact says of itself: plain values, none of them checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inspection {
    /// [`Format::name`], or a finer word for the same (`oci-archive`).
    pub format: &'static str,
    /// Bytes of the artifact.
    pub size: u64,
    /// How the most of it is compressed: `zstd`, `gzip`, `xz`, …; `none`; empty if that is not known without reading it.
    pub compression: String,
    /// The formation whose encoding it carries; none if forge did not make it.
    pub formation: Option<Formation>,
    /// What a foreign artifact says that it is called.
    pub name: Option<String>,
    /// What a foreign artifact says of its version.
    pub version: Option<String>,
    /// What a foreign artifact says of its platform, for instance `linux/amd64`.
    pub platform: Option<String>,
    /// How a foreign artifact wants to be run.
    pub launch: Launch,
    /// Partitions, layers, descriptors, in their order.
    pub parts: Vec<Part>,
    /// What else is worth knowing, by name: `block size`, `entries`, `signed by`. Of one line each.
    pub facts: BTreeMap<String, String>,
}

/// A piece of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Part {
    /// `partition`, `labels`, `layer`, …
    pub kind: String,
    /// What it is called inside, or its digest.
    pub name: String,
    /// Where it begins, if it lies in one file.
    pub offset: Option<u64>,
    /// Its bytes as stored.
    pub size: u64,
    /// What else is worth knowing, in a few words.
    pub detail: String,
}

/// What an artifact held; it is in the store now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Its file system.
    pub root: TreeId,
    /// The formation whose encoding it carries; none if forge did not make it.
    pub formation: Option<Formation>,
    /// What a foreign artifact says that it is called.
    pub name: Option<String>,
    /// What a foreign artifact says of its version.
    pub version: Option<String>,
    /// What a foreign artifact says of its platform.
    pub platform: Option<String>,
    /// How a foreign artifact wants to be run.
    pub launch: Launch,
    /// Its layers, lowest first, if it has any; their deltas are in the store.
    pub layers: Vec<LayerRecord>,
    /// What it held that no tree can hold.
    pub dropped: Dropped,
}

impl Imported {
    /// A file system about which nothing else is known.
    pub fn bare(root: TreeId) -> Self {
        let (formation, name, version, platform) = (None, None, None, None);
        let (launch, layers, dropped) = (Launch::default(), Vec::new(), Dropped::default());
        Self { root, formation, name, version, platform, launch, layers, dropped }
    }
}

/// What an artifact held that no tree can hold, by kind: how often, and where first. Times are not counted: nothing keeps them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dropped(pub BTreeMap<String, (u64, Vec<u8>)>);

impl Dropped {
    /// Notes one more: `kind` in the singular, for instance `socket`, and the path of the entry.
    pub fn add(&mut self, kind: impl Into<String>, path: &[u8]) {
        self.0.entry(kind.into()).or_insert_with(|| (0, path.to_vec())).0 += 1;
    }

    /// Notes all of another's.
    pub fn extend(&mut self, other: Self) {
        for (kind, (count, path)) in other.0 {
            self.0.entry(kind).or_insert_with(|| (0, path)).0 += count;
        }
    }
}

/// The format of an artifact.
pub fn of(artifact: &Artifact) -> Result<&'static dyn Format> {
    let found = ALL.iter().copied().find(|format| format.recognises(artifact));
    found.ok_or_else(|| Error::UnknownFormat { path: artifact.path().to_owned() })
}

/// What a file says of itself.
pub fn inspect(path: &Path) -> Result<Inspection> {
    let artifact = Artifact::open(path)?;
    of(&artifact)?.inspect(&artifact)
}

/// Takes what an artifact holds into the store. If it claims to hold a formation, that is what it holds, or this fails.
///
/// A directory that is of no format is taken in as a source: root's, modes 0644 and 0755.
pub fn read(store: &Store, artifact: &Artifact, bounds: &Bounds) -> Result<Imported> {
    if artifact.is_directory() && of(artifact).is_err() {
        return match store.ingest_source(artifact.path(), None)? {
            Node::Directory(root) => Ok(Imported::bare(root)),
            _ => Err(Error::Unsupported { path: artifact.path().to_owned(), reason: "it is being replaced" }),
        };
    }
    let batch = store.batch();
    let imported = of(artifact)?.read(store, artifact, bounds)?;
    batch.finish()?;
    check_claim(artifact.path(), imported)
}

/// The same of a tar, compressed or not, that comes out of a pipe. `from` is for messages.
pub fn read_stream(store: &Store, reader: &mut dyn Read, from: &Path, bounds: &Bounds) -> Result<Imported> {
    let batch = store.batch();
    let imported = tar::read_stream(store, reader, &from.display().to_string(), bounds)?;
    batch.finish()?;
    check_claim(from, imported)
}

/// Compares what was read with what it claims to be.
fn check_claim(path: &Path, imported: Imported) -> Result<Imported> {
    match &imported.formation {
        Some(formation) if formation.root != imported.root => Err(Error::Claim {
            path: path.to_owned(),
            formation: formation.id(),
            expected: formation.root,
            actual: imported.root,
        }),
        _ => Ok(imported),
    }
}

/// Fills a buffer as far as the reader goes.
fn read_full(reader: &mut (impl Read + ?Sized), buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// A time in seconds since 1970, as ISO 8601 writes it.
pub(crate) fn time_text(seconds: u32) -> String {
    let (days, rest) = (i64::from(seconds / 86_400), seconds % 86_400);
    // Howard Hinnant's days_to_civil: years begin in March, so that the leap day is the last; eras have 400 years.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) =
        (day_of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// For `map_err`: the artifact could not be written.
pub(crate) fn write_failed(source: std::io::Error) -> Error {
    Error::File { action: "write", path: Path::new("artifact").to_owned(), source }
}

#[cfg(test)]
mod tests;
