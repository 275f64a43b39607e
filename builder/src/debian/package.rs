//! `builtin:debian-package`: a `.deb`, as dpkg would lay it out on a merged-/usr system, without running anything.
//!
//! The archive is read once, straight into blobs and trees. Beside its files the delta has what dpkg would note of it below
//! `var/lib/dpkg/info`, and the control paragraph below `status.d`, where `debian-configure` finds it. Configuration files wait
//! under the name that dpkg gives them until their package is configured: `FILE.dpkg-new`. Hard links become equal
//! entries. Directories that are root's with mode 0755 are merely passed through: nearly every package ships `/usr`, and it is
//! for the one that ships `/tmp` as 1777 to say so. An archive that would write outside, over itself or without end is refused.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};

use store::directory::Claim;
use store::{BlobId, DeltaId, File, Metadata, Name, Node, RelativePath, Store};

use super::archive::{Ar, Entry, Kind, Tar, bad, decompress};
use super::control::{Control, MERGED, control_path, merged_usr, waiting};
use crate::builtin::{Builtin, Job};
use crate::draft::{Draft, DraftError, names};
use crate::fetch::Wanted;
use crate::{Builder, Error, Result};

/// Parameter: `package`, the blob of a `.deb`.
pub struct Package;

/// The most that control files of one package may take; the largest in Debian have a few MiB of templates.
const CONTROL_LIMIT: u64 = 64 << 20;
/// The most that a package may unpack to; the largest in Debian (game data, debug symbols) have below 10 GiB.
const DATA_LIMIT: u64 = 64 << 30;
/// The most entries; the largest in Debian have some 100,000.
const ENTRY_LIMIT: usize = 2_000_000;
/// Files up to this size are held in memory while they are hashed.
const SMALL: u64 = 1 << 20;

impl Builtin for Package {
    fn name(&self) -> &'static str {
        "debian-package"
    }

    fn phase(&self) -> &'static str {
        "unpack"
    }

    fn build(&self, job: &Job<'_>) -> Result<Claim> {
        let blob = job.blob(&job.parameter::<String>("package")?)?;
        Ok(Claim::Delta(unpack_blob(job.builder, job.name, blob)?))
    }
}

/// Fetches a package and unpacks it. `name` is for people.
pub fn obtain(builder: &Builder<'_>, name: &str, wanted: &Wanted<'_>) -> Result<DeltaId> {
    let (blob, _) = builder.fetcher.fetch(builder, wanted)?;
    unpack_blob(builder, name, blob)
}

fn unpack_blob(builder: &Builder<'_>, name: &str, blob: BlobId) -> Result<DeltaId> {
    let reader = BufReader::with_capacity(64 * 1024, builder.store.open_blob(blob)?);
    unpack(builder.store, name, reader, &|| builder.check_interrupt())
}

/// What stopped an unpacking.
enum Stop {
    /// The archive is not what it should be.
    Bad(String),
    /// Something of ours failed.
    Failed(Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Bad(error.to_string())
    }
}

impl From<store::Error> for Stop {
    fn from(error: store::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<DraftError> for Stop {
    fn from(error: DraftError) -> Self {
        match error {
            DraftError::Taken { .. } => Self::Bad(error.to_string()),
            DraftError::Store(error) => error.into(),
        }
    }
}

/// Unpacks the `.deb` that a reader gives. `name` is for people; `check` is asked before every entry, and stops it.
pub fn unpack(store: &Store, name: &str, reader: impl io::BufRead, check: &dyn Fn() -> Result<()>) -> Result<DeltaId> {
    read(store, reader, check).map_err(|stop| match stop {
        Stop::Bad(reason) => Error::Invalid { what: "package", name: name.to_owned(), reason },
        Stop::Failed(error) => error,
    })
}

fn read(store: &Store, reader: impl io::BufRead, check: &dyn Fn() -> Result<()>) -> Result<DeltaId, Stop> {
    let mut archive = Ar::new(reader)?;
    let mut control_files = None;
    let mut first = true;
    while let Some(member) = archive.next_member()? {
        // deb(5): the format's version comes first, then control, then data; what begins with an underscore is passed over.
        if std::mem::take(&mut first) {
            let mut version = String::new();
            Read::take(&mut archive, 64).read_to_string(&mut version)?;
            if member != "debian-binary" || !version.starts_with("2.") {
                return Err(bad("it is no package of format 2").into());
            }
        } else if let Some(ending) = member.strip_prefix("control.tar").filter(|_| control_files.is_none()) {
            let tar = Tar::new(decompress(&member, ending, &mut archive, CONTROL_LIMIT)?);
            control_files = Some(read_control_files(tar)?);
        } else if let Some(ending) = member.strip_prefix("data.tar") {
            let control_files = control_files.ok_or_else(|| bad("its data comes before its control files"))?;
            let tar = Tar::new(decompress(&member, ending, &mut archive, DATA_LIMIT)?);
            return Unpacking::new(store, control_files)?.run(tar, check);
        } else if !member.starts_with('_') {
            return Err(bad(format!("it has an unexpected member `{member}`")).into());
        }
    }
    Err(bad("it has no data").into())
}

/// Control files by name, with their content and whether they are executable.
type ControlFiles = BTreeMap<Name, (Vec<u8>, bool)>;

fn read_control_files(mut tar: Tar<impl Read>) -> io::Result<ControlFiles> {
    let mut files = ControlFiles::new();
    while let Some(entry) = tar.next_entry()? {
        let path = RelativePath::parse(&entry.path).map_err(|error| bad(error.to_string()))?;
        match (entry.kind, <[Name; 1]>::try_from(path.0)) {
            (Kind::Directory, Err(path)) if path.is_empty() => {}
            (Kind::File(_), Ok([name])) => {
                let mut content = Vec::new();
                tar.read_to_end(&mut content)?;
                files.insert(name, (content, entry.mode & 0o111 != 0));
            }
            _ => return Err(bad("its control archive has something else than files")),
        }
        if files.len() > 1000 {
            return Err(bad("it has too many control files"));
        }
    }
    tar.finish()?;
    Ok(files)
}

/// A package on its way into the store.
struct Unpacking<'a> {
    store: &'a Store,
    control: Control,
    paragraph: String,
    control_files: ControlFiles,
    /// Paths as the package has them, and whether they were met.
    conffiles: Vec<(RelativePath, bool)>,
    draft: Draft,
    list: Vec<u8>,
}

impl<'a> Unpacking<'a> {
    fn new(store: &'a Store, mut control_files: ControlFiles) -> io::Result<Self> {
        let (paragraph, _) =
            control_files.remove(b"control".as_slice()).ok_or_else(|| bad("it has no control file"))?;
        let paragraph = String::from_utf8(paragraph).map_err(|_| bad("its control file is not UTF-8"))?;
        let control = Control::parse(&paragraph).map_err(bad)?;
        let conffiles = control_files.get(b"conffiles".as_slice()).map(|(content, _)| String::from_utf8_lossy(content));
        let conffiles =
            conffiles.unwrap_or_default().lines().filter_map(control_path).map(|path| (path, false)).collect();
        let draft = Draft::passing();
        Ok(Self { store, control, paragraph, control_files, conffiles, draft, list: Vec::new() })
    }

    fn run(mut self, mut tar: Tar<impl Read>, check: &dyn Fn() -> Result<()>) -> Result<DeltaId, Stop> {
        let mut count = 0;
        while let Some(entry) = tar.next_entry()? {
            count += 1;
            if count > ENTRY_LIMIT {
                return Err(bad("it has too many entries").into());
            }
            check().map_err(Stop::Failed)?;
            self.add(entry, &mut tar)?;
        }
        tar.finish()?;
        self.finish()
    }

    fn add(&mut self, entry: Entry, content: &mut impl Read) -> Result<(), Stop> {
        let path = RelativePath::parse(&entry.path).map_err(|error| bad(error.to_string()))?;
        // The list has every name as the package has it; only the root is written with its dot.
        self.list.push(b'/');
        self.list.extend(if path.0.is_empty() { b".".to_vec() } else { path.to_bytes() });
        self.list.push(b'\n');
        if path.to_bytes().contains(&b'\n') {
            return Err(bad("it has a name with a line break, which dpkg's own files cannot hold").into());
        }
        let (uid, gid) = (number_of(USERS, &entry.user), number_of(GROUPS, &entry.group));
        let metadata = Metadata { mode: entry.mode, uid, gid, attributes: BTreeMap::new() };
        let is_merged = path.0.len() == 1 && MERGED.iter().any(|merged| merged.as_bytes() == path.0[0].as_bytes());
        let mut place = match (is_merged, &entry.kind) {
            // The symlink that merges: newer base-files ship it themselves.
            (true, Kind::Symlink(target)) if is_usr(target, &path.0[0]) => path.0.clone(),
            (true, kind) if *kind != Kind::Directory => {
                return Err(bad(format!("its `/{}` is no directory", path.0[0])).into());
            }
            _ => merged_usr(&path.0),
        };
        let node = match entry.kind {
            Kind::Directory => {
                // What the root is like, nobody asks a package.
                let directory = self.draft.directory(self.store, &place)?;
                if !place.is_empty() && metadata != Metadata::root(0o755) {
                    (directory.metadata, directory.passed) = (metadata, false);
                }
                return Ok(());
            }
            Kind::File(size) => {
                let blob = self.keep(content, size, metadata.mode & 0o111 != 0)?;
                let conffile = self.conffiles.iter_mut().find(|(conffile, _)| *conffile == path);
                if let Some((_, met)) = conffile {
                    *met = true;
                    place = waiting(&place).ok_or_else(|| bad("a configuration file's name is too long"))?;
                }
                Node::File(File { blob, size, metadata })
            }
            Kind::HardLink(target) => {
                let target = RelativePath::parse(&target).map_err(|error| bad(error.to_string()))?;
                let target = merged_usr(&target.0);
                let linked = match (self.draft.leaf(self.store, &target)?, waiting(&target)) {
                    (None, Some(waiting)) => self.draft.leaf(self.store, &waiting)?,
                    (linked, _) => linked,
                };
                linked.ok_or_else(|| bad(format!("`/{path}` is a link to what it has not got", path = shown(&path))))?
            }
            Kind::Symlink(target) => {
                if target.is_empty() {
                    return Err(bad(format!("`/{}` is a symlink to nothing", shown(&path))).into());
                }
                Node::Symlink { target, uid, gid }
            }
            Kind::Fifo => Node::Fifo(metadata),
            Kind::Device { major: 0, minor: 0, .. } => return Err(bad("it has a device that is none").into()),
            Kind::Device { block, major, minor } => Node::Device { block, major, minor, metadata },
        };
        self.draft.insert(self.store, &place, node)?;
        Ok(())
    }

    /// Keeps the content of a file.
    fn keep(&self, content: &mut impl Read, size: u64, executable: bool) -> Result<BlobId, Stop> {
        if size <= SMALL {
            let mut bytes = Vec::with_capacity(size as usize);
            content.read_to_end(&mut bytes)?;
            return Ok(self.store.put_blob(&bytes, executable)?);
        }
        let mut watched = Watched { inner: content, failed: None };
        let kept = self.store.put_blob_from(&mut watched, executable);
        // The store would say that a file of its own failed, where the archive did.
        match watched.failed {
            Some(reason) => Err(Stop::Bad(reason)),
            None => Ok(kept?.0),
        }
    }

    /// Notes what dpkg notes of a package that it unpacked, and keeps it all.
    fn finish(mut self) -> Result<DeltaId, Stop> {
        // dpkg writes the list itself, whatever the package says.
        let own = [b"list".as_slice(), b"control"];
        for (name, (content, executable)) in &self.control_files {
            if own.contains(&name.as_bytes()) || name.as_bytes().starts_with(b".") {
                continue;
            }
            let kind = std::str::from_utf8(name.as_bytes()).map_err(|_| bad("a control file's name is no text"))?;
            let path = self.control.info(kind);
            RelativePath::parse(path.as_bytes()).map_err(|error| bad(error.to_string()))?;
            self.draft.write(self.store, &path, if *executable { 0o755 } else { 0o644 }, content)?;
        }
        self.draft.write(self.store, &self.control.info("list"), 0o644, &self.list)?;
        let mut paragraph = self.paragraph.trim().to_owned();
        paragraph.push('\n');
        if self.conffiles.iter().any(|(_, met)| *met) {
            paragraph.push_str("Conffiles:\n");
        }
        // What dpkg writes instead of a digest until it has put the file in its place.
        for (path, _) in self.conffiles.iter().filter(|(_, met)| *met) {
            paragraph.push_str(&format!(" /{} newconffile\n", shown(path)));
        }
        self.draft.write(self.store, &self.control.waiting(), 0o644, paragraph.as_bytes())?;
        self.draft.directory(self.store, &names("var/lib/dpkg/info"))?;
        Ok(self.draft.delta(self.store)?)
    }
}

/// Remembers what went wrong.
struct Watched<'a, R> {
    inner: &'a mut R,
    failed: Option<String>,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).inspect_err(|error| self.failed = Some(error.to_string()))
    }
}

fn shown(path: &RelativePath) -> String {
    String::from_utf8_lossy(&path.to_bytes()).into_owned()
}

fn is_usr(target: &[u8], name: &Name) -> bool {
    target.strip_prefix(b"/").unwrap_or(target) == [b"usr/", name.as_bytes()].concat()
}

/// dpkg asks for an owner by name, and takes the number where nobody has the name. Before anything is configured, those are
/// known that base-passwd brings; their numbers are the same on every Debian system (policy 9.2.2).
fn number_of(known: &[(&str, u32)], (number, name): &(u32, Vec<u8>)) -> u32 {
    known.iter().find(|(known, _)| known.as_bytes() == name).map_or(*number, |(_, number)| *number)
}

const USERS: &[(&str, u32)] = &[
    ("root", 0),
    ("daemon", 1),
    ("bin", 2),
    ("sys", 3),
    ("sync", 4),
    ("games", 5),
    ("man", 6),
    ("lp", 7),
    ("mail", 8),
    ("news", 9),
    ("uucp", 10),
    ("proxy", 13),
    ("www-data", 33),
    ("backup", 34),
    ("list", 38),
    ("irc", 39),
    ("_apt", 42),
    ("nobody", 65534),
];

const GROUPS: &[(&str, u32)] = &[
    ("root", 0),
    ("daemon", 1),
    ("bin", 2),
    ("sys", 3),
    ("adm", 4),
    ("tty", 5),
    ("disk", 6),
    ("lp", 7),
    ("mail", 8),
    ("news", 9),
    ("uucp", 10),
    ("man", 12),
    ("proxy", 13),
    ("kmem", 15),
    ("dialout", 20),
    ("fax", 21),
    ("voice", 22),
    ("cdrom", 24),
    ("floppy", 25),
    ("tape", 26),
    ("sudo", 27),
    ("audio", 29),
    ("dip", 30),
    ("www-data", 33),
    ("backup", 34),
    ("operator", 37),
    ("list", 38),
    ("irc", 39),
    ("src", 40),
    ("shadow", 42),
    ("utmp", 43),
    ("video", 44),
    ("sasl", 45),
    ("plugdev", 46),
    ("staff", 50),
    ("games", 60),
    ("users", 100),
    ("nogroup", 65534),
];

#[cfg(test)]
pub(super) mod tests;
