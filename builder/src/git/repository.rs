//! A repository on disk, read and never written: its objects, whether loose or packed, and its references.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use super::object::{Commit, Kind, ObjectId, tagged};
use super::pack::{Object, Pack, bad};

/// How many links references, tags and borrowed object directories may go through.
const LONGEST_CHAIN: usize = 10;
/// The largest of git's small files that is read (`packed-refs` of a million references).
const LARGEST_FILE: u64 = 256 << 20;

/// A repository.
pub struct Repository {
    /// `.git`, or the repository itself if it is bare.
    pub directory: PathBuf,
    /// Where everything but `HEAD` and the index lies; another directory for a further work tree.
    common: PathBuf,
    /// Its files, unless it is bare.
    pub work_tree: Option<PathBuf>,
    objects: Vec<PathBuf>,
    packs: OnceCell<Vec<Pack>>,
}

impl Repository {
    /// Opens the repository at a path: a work tree, or a bare one. None if there is none.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        let inner = path.join(".git");
        let (directory, work_tree) = if inner.is_dir() {
            (inner, Some(path.to_owned()))
        } else if inner.is_file() {
            // Of a further work tree, or of a submodule: `gitdir: PATH`.
            let text = text_of(&inner)?;
            let target = text.strip_prefix("gitdir:").ok_or_else(|| bad("its .git leads nowhere"))?.trim();
            (path.join(target), Some(path.to_owned()))
        } else {
            (path.to_owned(), None)
        };
        if !directory.join("HEAD").is_file() {
            return Ok(None);
        }
        let common = match text_of(&directory.join("commondir")) {
            Ok(text) => directory.join(text.trim()),
            Err(_) => directory.clone(),
        };
        if !common.join("objects").is_dir() {
            return Ok(None);
        }
        let config = text_of(&common.join("config")).unwrap_or_default().to_ascii_lowercase();
        for (setting, what) in [("objectformat", "sha256"), ("refstorage", "reftable")] {
            let set = config.lines().filter_map(|line| line.split_once('='));
            if set.into_iter().any(|(name, value)| name.trim() == setting && value.trim() == what) {
                return Err(bad(format!("it is kept as {what}, which is not read")));
            }
        }
        let mut objects = vec![common.join("objects")];
        let mut at = 0;
        while let Some(directory) = objects.get(at).filter(|_| at < LONGEST_CHAIN) {
            let borrowed = text_of(&directory.join("info/alternates")).unwrap_or_default();
            let borrowed: Vec<PathBuf> =
                borrowed.lines().filter(|line| !line.is_empty()).map(|line| directory.join(line)).collect();
            objects.extend(borrowed);
            at += 1;
        }
        Ok(Some(Self { directory, common, work_tree, objects, packs: OnceCell::new() }))
    }

    /// Whether it knows only a part of its history.
    pub fn is_shallow(&self) -> bool {
        fs::metadata(self.common.join("shallow")).is_ok_and(|metadata| metadata.len() > 0)
    }

    /// An object, if it is here. Its bytes have the name that was asked for.
    pub fn read(&self, id: ObjectId) -> io::Result<Option<Object>> {
        let Some((kind, content)) = self.read_unchecked(id, 0)? else { return Ok(None) };
        let actual = ObjectId::of(kind, &content);
        if actual != id {
            return Err(bad(format!("object {id} is damaged: its content has the name {actual}")));
        }
        Ok(Some((kind, content)))
    }

    fn read_unchecked(&self, id: ObjectId, depth: usize) -> io::Result<Option<Object>> {
        if depth > LONGEST_CHAIN {
            return Err(bad("differences lead from pack to pack without end"));
        }
        for pack in self.packs()? {
            if let Some(offset) = pack.find(id)? {
                return pack.read(offset, &|other| self.read_unchecked(other, depth + 1)).map(Some);
            }
        }
        let name = id.to_string();
        for directory in &self.objects {
            match fs::File::open(directory.join(&name[..2]).join(&name[2..])) {
                Ok(file) => return loose(file).map(Some),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn packs(&self) -> io::Result<&[Pack]> {
        if let Some(packs) = self.packs.get() {
            return Ok(packs);
        }
        let mut packs = Vec::new();
        for directory in &self.objects {
            let Ok(entries) = fs::read_dir(directory.join("pack")) else { continue };
            for entry in entries {
                let path = entry?.path();
                if path.extension().is_some_and(|extension| extension == "idx") {
                    packs.push(Pack::open(&path)?);
                }
            }
        }
        Ok(self.packs.get_or_init(|| packs))
    }

    /// An object that must be here and of a kind.
    pub fn wanted(&self, id: ObjectId, kind: Kind) -> io::Result<std::rc::Rc<Vec<u8>>> {
        match self.read(id)? {
            Some((found, content)) if found == kind => Ok(content),
            Some((found, _)) => Err(bad(format!("{id} is a {}, not a {}", found.as_str(), kind.as_str()))),
            None => Err(bad(format!("object {id} is missing"))),
        }
    }

    /// A commit.
    pub fn commit(&self, id: ObjectId) -> io::Result<Commit> {
        let content = self.wanted(id, Kind::Commit)?;
        Commit::parse(&content).ok_or_else(|| bad(format!("commit {id} is damaged")))
    }

    /// The commit that a name stands for, through tags; none if the object is not here or names none.
    pub fn peel(&self, mut id: ObjectId) -> io::Result<Option<ObjectId>> {
        for _ in 0..LONGEST_CHAIN {
            match self.read(id)? {
                Some((Kind::Commit, _)) => return Ok(Some(id)),
                Some((Kind::Tag, content)) => {
                    id = tagged(&content).ok_or_else(|| bad(format!("tag {id} is damaged")))?;
                }
                _ => return Ok(None),
            }
        }
        Err(bad("a tag leads on without end"))
    }

    /// What a reference is: its full name (`HEAD`, `refs/heads/main`).
    pub fn reference(&self, name: &str) -> io::Result<Option<ObjectId>> {
        let packed = self.packed_references()?;
        let mut name = name.to_owned();
        for _ in 0..LONGEST_CHAIN {
            // Nothing that leads out of the directory is a name.
            if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
                return Ok(None);
            }
            let own = text_of(&self.directory.join(&name)).or_else(|_| text_of(&self.common.join(&name)));
            let Ok(text) = own else { return Ok(packed.get(&name).copied()) };
            match text.strip_prefix("ref:") {
                Some(target) => name = target.trim().to_owned(),
                None => return Ok(ObjectId::parse(text.trim())),
            }
        }
        Err(bad("a reference leads on without end"))
    }

    fn packed_references(&self) -> io::Result<BTreeMap<String, ObjectId>> {
        let text = match text_of(&self.common.join("packed-refs")) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(error),
        };
        let lines = text.lines().filter(|line| !line.starts_with(['#', '^'])).filter_map(|line| line.split_once(' '));
        Ok(lines.filter_map(|(id, name)| Some((name.to_owned(), ObjectId::parse(id)?))).collect())
    }

    /// A setting of the repository, by section and name: `remote.origin.url`.
    pub fn origin(&self) -> Option<String> {
        let text = text_of(&self.common.join("config")).ok()?;
        let mut inside = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                inside = line.replace(' ', "").eq_ignore_ascii_case("[remote\"origin\"]");
            } else if let Some((name, value)) = line.split_once('=').filter(|_| inside)
                && name.trim().eq_ignore_ascii_case("url")
            {
                return Some(value.trim().to_owned());
            }
        }
        None
    }

    /// How many commits lead to this one, itself included.
    pub fn count(&self, id: ObjectId, check: &dyn Fn() -> crate::Result<()>) -> crate::Result<io::Result<u64>> {
        let mut known = std::collections::HashSet::from([id]);
        let mut waiting = vec![id];
        while let Some(id) = waiting.pop() {
            check()?;
            match self.commit(id) {
                Ok(commit) => waiting.extend(commit.parents.into_iter().filter(|parent| known.insert(*parent))),
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(known.len() as u64))
    }
}

/// A small file as text.
pub fn text_of(path: &Path) -> io::Result<String> {
    let mut text = Vec::new();
    fs::File::open(path)?.take(LARGEST_FILE).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// An object in a file of its own: `KIND SIZE NUL CONTENT`, compressed.
fn loose(file: fs::File) -> io::Result<Object> {
    let mut reader = flate2::read::ZlibDecoder::new(BufReader::new(file));
    let mut head = Vec::new();
    loop {
        let mut byte = [0];
        reader.read_exact(&mut byte)?;
        if byte[0] == 0 {
            break;
        }
        head.push(byte[0]);
        if head.len() > 32 {
            return Err(bad("an object has no head"));
        }
    }
    let damaged = || bad("an object has no head");
    let blank = head.iter().position(|byte| *byte == b' ').ok_or_else(damaged)?;
    let kind = Kind::parse(&head[..blank]).ok_or_else(damaged)?;
    let size: u64 =
        std::str::from_utf8(&head[blank + 1..]).ok().and_then(|size| size.parse().ok()).ok_or_else(damaged)?;
    if size > super::pack::LARGEST {
        return Err(bad(format!("an object has {size} bytes, too many to be read")));
    }
    let mut content = Vec::new();
    reader.take(size + 1).read_to_end(&mut content)?;
    if content.len() as u64 != size {
        return Err(bad("an object has another size than it says"));
    }
    Ok((kind, std::rc::Rc::new(content)))
}
