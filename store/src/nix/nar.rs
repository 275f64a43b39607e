//! Nix archives: a file, directory or symlink as one stream of bytes, to be hashed.
//!
//! Of the metadata only the owner's execute bit is kept. Entries are sorted by the bytes of their names; every string is
//! written as its length (64 bits, little-endian), its bytes, and zeros up to a multiple of eight.

use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::hash::{HashAlgorithm, Hasher, NixHash};

/// Directories may nest this deep; Nix sets the same limit.
pub const DEEPEST: usize = 64;

/// What a path stands for, not following symlinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    Regular {
        /// Its owner may execute it.
        executable: bool,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A fifo, socket or device: an archive cannot hold it.
    Unknown,
}

impl FileKind {
    /// As `builtins.readFileType` and filters see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Regular { .. } => "regular",
            Self::Directory => "directory",
            Self::Symlink => "symlink",
            Self::Unknown => "unknown",
        }
    }
}

/// Where the bytes of an archive come from. The evaluator's sources guard what is read; [`Disk`] reads anything.
pub trait Files {
    /// What goes wrong in reading.
    type Error: From<NarError>;
    /// What the path stands for, itself and not what it may point to.
    fn kind(&self, path: &Path) -> Result<FileKind, Self::Error>;
    /// The names in a directory, in any order.
    fn entries(&self, path: &Path) -> Result<Vec<Vec<u8>>, Self::Error>;
    /// Where a symlink points.
    fn target(&self, path: &Path) -> Result<Vec<u8>, Self::Error>;
    /// The length of a regular file and its bytes.
    fn open(&self, path: &Path) -> Result<(u64, Box<dyn Read>), Self::Error>;
}

/// Why there is no archive.
#[derive(Debug, thiserror::Error)]
pub enum NarError {
    /// Nothing there.
    #[error("path '{}' does not exist", path.display())]
    Missing {
        /// Where.
        path: PathBuf,
    },
    /// Neither file, directory nor symlink.
    #[error("file '{}' has an unsupported type", path.display())]
    Kind {
        /// Where.
        path: PathBuf,
    },
    /// Nested beyond [`DEEPEST`].
    #[error("path '{}' exceeds maximum NAR directory depth of {DEEPEST}", path.display())]
    Deep {
        /// Where.
        path: PathBuf,
    },
    /// The file was changed while it was read.
    #[error("file '{}' has {actual} bytes instead of {expected}: it changed while it was read", path.display())]
    Changed {
        /// Where.
        path: PathBuf,
        /// Its length when it was opened.
        expected: u64,
        /// How many bytes there were, or one more than expected.
        actual: u64,
    },
    /// The system refused.
    #[error("cannot {action} '{}'", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Decides, for an entry's path relative to the top (without slash in front) and its kind, whether it is taken.
pub type Filter<'a, E> = &'a mut dyn FnMut(&[u8], FileKind) -> Result<bool, E>;

/// The hash of the archive of what lies at a path. The filter is asked for every entry below it, parents first, in order.
pub fn hash_archive<E: From<NarError>>(
    files: &dyn Files<Error = E>,
    path: &Path,
    algorithm: HashAlgorithm,
    filter: Filter<'_, E>,
) -> Result<NixHash, E> {
    let mut hasher = Hasher::new(algorithm);
    archive(files, path, filter, &mut |bytes| hasher.update(bytes))?;
    Ok(hasher.finish())
}

/// The hash of a file's bytes.
pub fn hash_file<E: From<NarError>>(
    files: &dyn Files<Error = E>,
    path: &Path,
    algorithm: HashAlgorithm,
) -> Result<NixHash, E> {
    let mut hasher = Hasher::new(algorithm);
    let (size, file) = files.open(path)?;
    copy(path, size, file, &mut |bytes| hasher.update(bytes))?;
    Ok(hasher.finish())
}

/// Writes the archive of what lies at a path.
pub fn archive<E: From<NarError>>(
    files: &dyn Files<Error = E>,
    path: &Path,
    filter: Filter<'_, E>,
    sink: &mut dyn FnMut(&[u8]),
) -> Result<(), E> {
    let mut walk = Walk { files, filter, sink };
    walk.string(b"nix-archive-1");
    let kind = files.kind(path)?;
    walk.node(path, kind, &mut Vec::new(), 0)
}

struct Walk<'a, E> {
    files: &'a dyn Files<Error = E>,
    filter: Filter<'a, E>,
    sink: &'a mut dyn FnMut(&[u8]),
}

impl<E: From<NarError>> Walk<'_, E> {
    fn string(&mut self, bytes: &[u8]) {
        (self.sink)(&(bytes.len() as u64).to_le_bytes());
        (self.sink)(bytes);
        self.padding(bytes.len() as u64);
    }

    fn strings(&mut self, strings: &[&[u8]]) {
        for string in strings {
            self.string(string);
        }
    }

    fn padding(&mut self, length: u64) {
        (self.sink)(&[0; 7][..(length.wrapping_neg() % 8) as usize]);
    }

    /// `relative` is the path from the top; it comes back as it was. `DEEPEST` bounds the recursion.
    fn node(&mut self, path: &Path, kind: FileKind, relative: &mut Vec<u8>, depth: usize) -> Result<(), E> {
        if depth >= DEEPEST {
            return Err(NarError::Deep { path: path.to_owned() }.into());
        }
        match kind {
            FileKind::Regular { executable } => {
                self.strings(&[b"(", b"type", b"regular"]);
                if executable {
                    self.strings(&[b"executable", b""]);
                }
                self.string(b"contents");
                let (size, file) = self.files.open(path)?;
                (self.sink)(&size.to_le_bytes());
                copy(path, size, file, self.sink)?;
                self.padding(size);
            }
            FileKind::Directory => {
                self.strings(&[b"(", b"type", b"directory"]);
                let mut names = self.files.entries(path)?;
                names.sort_unstable();
                let length = relative.len();
                for name in names {
                    let below = path.join(std::ffi::OsStr::from_bytes(&name));
                    let kind = self.files.kind(&below)?;
                    if length > 0 {
                        relative.push(b'/');
                    }
                    relative.extend_from_slice(&name);
                    if (self.filter)(relative, kind)? {
                        self.strings(&[b"entry", b"(", b"name", &name, b"node"]);
                        self.node(&below, kind, relative, depth + 1)?;
                        self.string(b")");
                    }
                    relative.truncate(length);
                }
            }
            FileKind::Symlink => {
                let target = self.files.target(path)?;
                self.strings(&[b"(", b"type", b"symlink", b"target", &target]);
            }
            FileKind::Unknown => return Err(NarError::Kind { path: path.to_owned() }.into()),
        }
        self.string(b")");
        Ok(())
    }
}

/// Hands on exactly `size` bytes; a file that has more or fewer has changed, and its hash would be of nothing that ever was.
fn copy(path: &Path, size: u64, file: Box<dyn Read>, sink: &mut dyn FnMut(&[u8])) -> Result<(), NarError> {
    let mut file = file.take(size.saturating_add(1));
    let mut buffer = vec![0; 64 * 1024];
    let mut actual = 0;
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(NarError::File { action: "read", path: path.to_owned(), source }),
        };
        actual += count as u64;
        sink(&buffer[..count]);
    }
    if actual == size { Ok(()) } else { Err(NarError::Changed { path: path.to_owned(), expected: size, actual }) }
}

/// The file system, unguarded.
#[derive(Debug, Clone, Copy)]
pub struct Disk;

impl Disk {
    fn refused(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> NarError {
        move |source| match source.kind() {
            io::ErrorKind::NotFound => NarError::Missing { path: path.to_owned() },
            _ => NarError::File { action, path: path.to_owned(), source },
        }
    }
}

impl Files for Disk {
    type Error = NarError;

    fn kind(&self, path: &Path) -> Result<FileKind, NarError> {
        let metadata = fs::symlink_metadata(path).map_err(Self::refused("look at", path))?;
        let kind = metadata.file_type();
        Ok(match () {
            () if kind.is_file() => FileKind::Regular { executable: metadata.permissions().mode() & 0o100 != 0 },
            () if kind.is_dir() => FileKind::Directory,
            () if kind.is_symlink() => FileKind::Symlink,
            () => FileKind::Unknown,
        })
    }

    fn entries(&self, path: &Path) -> Result<Vec<Vec<u8>>, NarError> {
        let entries = fs::read_dir(path).map_err(Self::refused("list", path))?;
        let names = entries.map(|entry| entry.map(|entry| entry.file_name().into_vec()));
        names.collect::<Result<_, _>>().map_err(Self::refused("list", path))
    }

    fn target(&self, path: &Path) -> Result<Vec<u8>, NarError> {
        let target = fs::read_link(path).map_err(Self::refused("read the link", path))?;
        Ok(target.into_os_string().into_vec())
    }

    fn open(&self, path: &Path) -> Result<(u64, Box<dyn Read>), NarError> {
        let file = fs::File::open(path).map_err(Self::refused("open", path))?;
        let size = file.metadata().map_err(Self::refused("look at", path))?.len();
        Ok((size, Box::new(file)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nix::path::fixed_output_path;
    use std::os::unix::fs::symlink;

    /// A tree with one of everything; the expected paths below are what Nix 2.34.8 gives for the same tree.
    fn tree() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().join("t");
        fs::create_dir_all(top.join("sub/empty")).unwrap();
        for (name, content) in [("a", "hello"), ("exe", "x"), ("sub/b", "long content 12345678"), (".hidden", "")] {
            fs::write(top.join(name), content).unwrap();
        }
        let mode = |name: &str, mode| fs::set_permissions(top.join(name), fs::Permissions::from_mode(mode)).unwrap();
        // Others may execute `a`, its owner may not: then it is not executable.
        mode("a", 0o455);
        mode("exe", 0o700);
        symlink("a", top.join("link")).unwrap();
        symlink("/nowhere", top.join("dangling")).unwrap();
        directory
    }

    fn source(path: &Path, name: &str, filter: Filter<'_, NarError>) -> String {
        let hash = hash_archive(&Disk, path, HashAlgorithm::Sha256, filter).unwrap();
        fixed_output_path(name.as_bytes(), true, &hash).unwrap().to_string()
    }

    #[test]
    fn a_tree_is_named_as_nix_names_it() {
        let directory = tree();
        let top = directory.path().join("t");
        let mut asked = Vec::new();
        let all = source(&top, "t", &mut |path, kind| {
            asked.push(format!("{} {}", String::from_utf8_lossy(path), kind.as_str()));
            Ok(true)
        });
        assert_eq!(all, "/nix/store/24ypqm0ac11yjyg551a5z5x76xdifq0r-t");
        let order = [
            ".hidden regular",
            "a regular",
            "dangling symlink",
            "exe regular",
            "link symlink",
            "sub directory",
            "sub/b regular",
            "sub/empty directory",
        ];
        assert_eq!(asked, order);
        let some = source(&top, "t", &mut |path, kind| Ok(path != b"a" && kind != FileKind::Symlink));
        assert_eq!(some, "/nix/store/w7kqlz1az814rxm5fbypbga8n985qi85-t");
        let file = source(&top.join("sub/b"), "b", &mut |_, _| Ok(true));
        assert_eq!(file, "/nix/store/h042ipdxm8n4v0w4z4bys1m82hzs686f-b");
        let executable = source(&top.join("exe"), "exe", &mut |_, _| Ok(true));
        assert_eq!(executable, "/nix/store/3c7xs2ngk0fnb69mm5bans6080fqxsnb-exe");
    }

    #[test]
    fn a_flat_file_is_named_by_its_bytes_alone() {
        let directory = tree();
        let hash = hash_file(&Disk, &directory.path().join("t/exe"), HashAlgorithm::Sha256).unwrap();
        let path = fixed_output_path(b"exe", false, &hash).unwrap();
        assert_eq!(path.as_str(), "/nix/store/2b692b6vc0gppqmja6jfq7sxvwr9pm1y-exe");
    }

    #[test]
    fn lengths_around_the_padding_fill_up_to_eight() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for length in [0, 1, 7, 8, 9] {
            fs::write(&path, vec![b'x'; length]).unwrap();
            let mut bytes = Vec::new();
            archive(&Disk, &path, &mut |_, _| Ok(true), &mut |part| bytes.extend_from_slice(part)).unwrap();
            assert_eq!(bytes.len() % 8, 0, "{length}");
        }
    }

    #[test]
    fn what_an_archive_cannot_hold_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let hash = |path: &Path| hash_archive(&Disk, path, HashAlgorithm::Sha256, &mut |_, _| Ok(true));
        assert!(matches!(hash(&directory.path().join("missing")), Err(NarError::Missing { .. })));
        let mut deep = directory.path().join("deep");
        (0..DEEPEST - 1).for_each(|_| deep.push("d"));
        fs::create_dir_all(&deep).unwrap();
        assert!(hash(&directory.path().join("deep")).is_ok());
        fs::create_dir(deep.join("d")).unwrap();
        assert!(matches!(hash(&directory.path().join("deep")), Err(NarError::Deep { .. })));
        let socket = directory.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(matches!(hash(&socket), Err(NarError::Kind { path }) if path == socket));
    }
}
