//! What an evaluation asked of the world, with the answers: while all of them stay the same, so does what it gives.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::real::RealPaths;
use crate::nar::{Disk, FileKind, Files as _};

/// A question; paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Question {
    /// The bytes of a file, links being followed.
    File(PathBuf),
    /// The names in a directory and what they stand for, a link to it being followed.
    Entries(PathBuf),
    /// The names alone.
    Names(PathBuf),
    /// Whether there is something, itself and not what it may point to.
    Exists(PathBuf),
    /// What there is, itself and not what it may point to.
    Kind(PathBuf),
    /// Whether there is a directory, links being followed.
    Directory(PathBuf),
    /// Where a link points.
    Link(PathBuf),
    /// Where a path leads when all links in it are followed.
    Real(PathBuf),
    /// A variable of the environment.
    Variable(OsString),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// There is none.
    Nothing,
    /// Yes or no.
    Truth(bool),
    /// A kind of file, by number.
    Kind(u8),
    /// Some bytes.
    Bytes(Vec<u8>),
    /// The BLAKE3 digest of an answer that is too long to be kept, and how what it was read from looked then.
    Digest([u8; 32], Option<Stamp>),
}

/// How a file or directory looks without being read. Whoever changes it changes this, unless within one tick of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Device.
    pub device: u64,
    /// Inode.
    pub inode: u64,
    /// Size in bytes.
    pub size: u64,
    /// When its bytes were changed, in nanoseconds since 1970.
    pub modified: i128,
    /// When anything about it was changed; nobody can set this back.
    pub changed: i128,
}

impl Stamp {
    /// Of something on disk.
    pub fn of(metadata: &Metadata) -> Self {
        let time = |seconds: i64, nanoseconds: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: time(metadata.mtime(), metadata.mtime_nsec()),
            changed: time(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// All that was asked, each question once, in order.
pub type Facts = BTreeMap<Question, Answer>;

/// Writes down what an evaluation asks.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Arc<Mutex<Record>>);

#[derive(Debug, Default)]
struct Record {
    facts: HashMap<Question, Answer>,
    /// Something was asked whose answer cannot be asked for again, or was not the same twice.
    spoilt: bool,
}

impl Recorder {
    /// What was asked so far; none if it does not tell all that the evaluation depended on.
    pub fn facts(&self) -> Option<Facts> {
        let record = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if record.spoilt { None } else { Some(record.facts.clone().into_iter().collect()) }
    }

    /// Notes an answer.
    pub(crate) fn note(&self, question: Question, answer: Answer) {
        let mut record = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = match (record.facts.get(&question), &answer) {
            // The same bytes may come from another file meanwhile: the first one's looks will not do then, its bytes will.
            (Some(Answer::Digest(earlier, _)), Answer::Digest(digest, _)) => earlier == digest,
            (Some(earlier), _) => *earlier == answer,
            (None, _) => {
                record.facts.insert(question, answer);
                true
            }
        };
        record.spoilt |= !same;
    }

    /// Notes that what was asked cannot be asked again.
    pub(crate) fn spoil(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).spoilt = true;
    }
}

/// Asks again.
pub struct Checker<'a> {
    environment: &'a BTreeMap<OsString, OsString>,
    real: RealPaths,
}

impl<'a> Checker<'a> {
    /// With this environment.
    pub fn new(environment: &'a BTreeMap<OsString, OsString>) -> Self {
        Self { environment, real: RealPaths::default() }
    }

    /// The answer as it is now; what cannot be found out is no answer. If a digest's stamp is still that of `known`, so is the digest.
    pub fn ask(&self, question: &Question, known: &Answer) -> io::Result<Answer> {
        match question {
            Question::File(path) => match known {
                Answer::Digest(_, Some(stamp)) if Stamp::of(&fs::metadata(path)?) == *stamp => Ok(known.clone()),
                _ => read(path).map(|(_, answer)| answer),
            },
            Question::Entries(path) | Question::Names(path) => match known {
                Answer::Digest(_, Some(stamp)) if Stamp::of(&fs::metadata(path)?) == *stamp => Ok(known.clone()),
                _ => list(path, matches!(question, Question::Entries(_))).map(|(_, answer)| answer),
            },
            Question::Exists(path) => {
                absent(fs::symlink_metadata(path)).map(|metadata| Answer::Truth(metadata.is_some()))
            }
            Question::Kind(path) => Ok(match absent(fs::symlink_metadata(path))? {
                None => Answer::Nothing,
                Some(_) => Answer::Kind(kind_number(Disk.kind(path).map_err(io::Error::other)?)),
            }),
            Question::Directory(path) => Ok(match absent(fs::metadata(path))? {
                None => Answer::Nothing,
                Some(metadata) => Answer::Truth(metadata.is_dir()),
            }),
            Question::Link(path) => Ok(Answer::Bytes(fs::read_link(path)?.into_os_string().into_vec())),
            Question::Real(path) => Ok(real_answer(self.real.resolve(path).as_deref())),
            Question::Variable(name) => Ok(variable_answer(self.environment.get(name))),
        }
    }
}

pub(super) fn real_answer(path: Option<&Path>) -> Answer {
    path.map_or(Answer::Nothing, |path| Answer::Bytes(path.as_os_str().as_bytes().to_vec()))
}

pub(super) fn variable_answer(value: Option<&OsString>) -> Answer {
    value.map_or(Answer::Nothing, |value| Answer::Bytes(value.as_bytes().to_vec()))
}

pub(super) fn kind_number(kind: FileKind) -> u8 {
    match kind {
        FileKind::Regular { executable: false } => 0,
        FileKind::Regular { executable: true } => 1,
        FileKind::Directory => 2,
        FileKind::Symlink => 3,
        FileKind::Unknown => 4,
    }
}

/// What is not there is an answer, too.
pub(super) fn absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    use io::ErrorKind::{NotADirectory, NotFound};
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The bytes of a file.
pub(super) fn read(path: &Path) -> io::Result<(Vec<u8>, Answer)> {
    let mut file = fs::File::open(path)?;
    let before = file.metadata()?;
    let mut bytes = Vec::with_capacity(usize::try_from(before.size()).unwrap_or(0).min(1 << 24) + 1);
    file.read_to_end(&mut bytes)?;
    let before = Stamp::of(&before);
    let stamp = Some(before).filter(|stamp| {
        // Not what was changed while it was read, nor what is no plain file (and says nothing by its looks).
        file.metadata().is_ok_and(|after| after.is_file() && Stamp::of(&after) == *stamp)
    });
    let digest = *blake3::hash(&bytes).as_bytes();
    Ok((bytes, Answer::Digest(digest, stamp)))
}

/// Names with kinds if they are asked for.
type Listing = Vec<(Vec<u8>, FileKind)>;

/// What is in a directory, by the bytes of the names.
pub(super) fn list(path: &Path, with_kinds: bool) -> io::Result<(Listing, Answer)> {
    let before = fs::metadata(path)?;
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let kind = match with_kinds {
            true => {
                let kind = entry.file_type()?;
                match () {
                    () if kind.is_file() => FileKind::Regular { executable: false },
                    () if kind.is_dir() => FileKind::Directory,
                    () if kind.is_symlink() => FileKind::Symlink,
                    () => FileKind::Unknown,
                }
            }
            false => FileKind::Unknown,
        };
        entries.push((entry.file_name().into_vec(), kind));
    }
    entries.sort_unstable_by(|left, right| left.0.cmp(&right.0));
    let mut hasher = blake3::Hasher::new();
    for (name, kind) in &entries {
        hasher.update(name).update(&[0, kind_number(*kind)]);
    }
    let before = Stamp::of(&before);
    let stamp = Some(before).filter(|stamp| fs::metadata(path).is_ok_and(|after| Stamp::of(&after) == *stamp));
    Ok((entries, Answer::Digest(*hasher.finalize().as_bytes(), stamp)))
}

/// Notes the digest of a file that is read piece by piece, when all of it was read.
pub(super) struct Noting<R> {
    pub file: R,
    pub hasher: blake3::Hasher,
    pub path: PathBuf,
    pub stamp: Stamp,
    pub length: u64,
    pub recorder: Recorder,
}

impl<R: Read> Read for Noting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.length += count as u64;
        Ok(count)
    }
}

impl<R> Drop for Noting<R> {
    fn drop(&mut self) {
        let unchanged = fs::metadata(&self.path).is_ok_and(|after| Stamp::of(&after) == self.stamp);
        if self.length != self.stamp.size || !unchanged {
            return self.recorder.spoil();
        }
        let answer = Answer::Digest(*self.hasher.finalize().as_bytes(), Some(self.stamp));
        self.recorder.note(Question::File(self.path.clone()), answer);
    }
}

impl Question {
    /// The path that is asked about, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path)
            | Self::Entries(path)
            | Self::Names(path)
            | Self::Exists(path)
            | Self::Kind(path)
            | Self::Directory(path)
            | Self::Link(path)
            | Self::Real(path) => Some(path),
            Self::Variable(_) => None,
        }
    }

    /// A number for the sort of question, and what it is about.
    pub fn parts(&self) -> (u8, &[u8]) {
        let number = match self {
            Self::File(_) => 0,
            Self::Entries(_) => 1,
            Self::Names(_) => 2,
            Self::Exists(_) => 3,
            Self::Kind(_) => 4,
            Self::Directory(_) => 5,
            Self::Link(_) => 6,
            Self::Real(_) => 7,
            Self::Variable(_) => 8,
        };
        let about = match self {
            Self::Variable(name) => name.as_bytes(),
            other => other.path().map_or(&b""[..], |path| path.as_os_str().as_bytes()),
        };
        (number, about)
    }

    /// The question of these parts.
    pub fn of_parts(number: u8, about: &[u8]) -> Option<Self> {
        let about = OsStr::from_bytes(about);
        let make: fn(PathBuf) -> Self = match number {
            0 => Self::File,
            1 => Self::Entries,
            2 => Self::Names,
            3 => Self::Exists,
            4 => Self::Kind,
            5 => Self::Directory,
            6 => Self::Link,
            7 => Self::Real,
            8 => return Some(Self::Variable(about.to_owned())),
            _ => return None,
        };
        Some(make(PathBuf::from(about)))
    }
}
