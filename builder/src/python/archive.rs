//! Reading a wheel: a zip archive whose every file is named, with its digest, in its `RECORD`.
//!
//! A wheel comes from outside and nothing in it is believed: names that lead elsewhere, symlinks, duplicates, overlapping
//! entries and files longer than they say are refused, and so is every file that `RECORD` does not vouch for.

use std::collections::BTreeMap;
use std::io::{Read, Seek};

use libdeflater::DecompressionError;
use sha2::{Digest, Sha256, Sha384, Sha512};
use store::BlobId;
use zip::{CompressionMethod, ZipArchive};

use crate::python::normalise;
use crate::{Error, Result};

/// Files that are inflated in one go, before and after; the others piece by piece. The libraries of scientific packages are shorter.
const LARGEST_WHOLE: u64 = 32 << 20;
/// Files that are read as a whole: metadata and scripts to be rewritten. No honest one comes near.
const LARGEST_TEXT: u64 = 64 << 20;
/// Bytes that all files of one wheel may have together.
const LARGEST_WHEEL: u64 = 32 << 30;

/// A wheel opened for reading.
pub struct Archive<R> {
    zip: ZipArchive<R>,
    file: String,
    entries: BTreeMap<String, Entry>,
    record: BTreeMap<String, Recorded>,
    inflater: Inflater,
    /// `NAME-VERSION.dist-info`.
    pub metadata_directory: String,
    /// Pure or platform-specific; both go to the same directory on Debian.
    pub root_is_pure: bool,
}

/// A file in the archive.
#[derive(Debug, Clone, Copy)]
struct Entry {
    index: usize,
    size: u64,
    executable: bool,
}

/// What `RECORD` says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Recorded {
    digest: Option<(Algorithm, Vec<u8>)>,
    size: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Sha256,
    Sha384,
    Sha512,
}

/// A file of the wheel that is now in the store.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its content.
    pub blob: BlobId,
    /// Its length.
    pub size: u64,
    /// Its SHA-256, as `RECORD` wants it.
    pub sha256: [u8; 32],
}

impl<R> Archive<R> {
    /// The wheel's file name.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The error for this wheel.
    pub fn bad(&self, reason: impl Into<String>) -> Error {
        Error::Invalid { what: "wheel", name: self.file.clone(), reason: reason.into() }
    }
}

impl<R: Read + Seek> Archive<R> {
    /// Opens a wheel and reads its `WHEEL` and `RECORD`. `file` is the wheel's file name.
    pub fn open(reader: R, file: &str) -> Result<Self> {
        let bad = |reason: String| Error::Invalid { what: "wheel", name: file.to_owned(), reason };
        let mut zip = ZipArchive::new(reader).map_err(|error| bad(error.to_string()))?;
        // What another reader of the same zip would see must be what is seen here.
        zip.validate_header_consistency().map_err(|error| bad(error.to_string()))?;
        if zip.has_overlapping_files().map_err(|error| bad(error.to_string()))? {
            return Err(bad("its entries overlap".to_owned()));
        }
        let mut entries = BTreeMap::new();
        let mut total = 0u64;
        for index in 0..zip.len() {
            let entry = zip.by_index_data(index).map_err(|error| bad(error.to_string()))?;
            let name = std::str::from_utf8(entry.name_raw()).map_err(|_| bad("a file name is not UTF-8".to_owned()))?;
            if entry.is_dir() {
                continue;
            }
            check_path(name).map_err(|reason| bad(format!("`{}` {reason}", name.escape_debug())))?;
            let mode = entry.unix_mode().unwrap_or(0);
            // The type bits of st_mode; archives made elsewhere have none.
            if !matches!(mode & 0o170000, 0 | 0o100000) {
                return Err(bad(format!("`{name}` is not a regular file")));
            }
            if entry.encrypted() {
                return Err(bad(format!("`{name}` is encrypted")));
            }
            total = total.saturating_add(entry.size());
            if total > LARGEST_WHEEL {
                return Err(bad("its files are larger than any wheel's".to_owned()));
            }
            let found = Entry { index, size: entry.size(), executable: mode & 0o111 != 0 };
            if entries.insert(name.to_owned(), found).is_some() {
                return Err(bad(format!("`{name}` is in it twice")));
            }
        }
        let metadata_directory = find_metadata_directory(&entries, file).map_err(&bad)?;
        let mut archive = Self {
            zip,
            file: file.to_owned(),
            entries,
            record: BTreeMap::new(),
            inflater: Inflater::default(),
            metadata_directory,
            root_is_pure: true,
        };
        let record = archive.unchecked_text(&archive.metadata_path("RECORD"))?;
        archive.record = parse_record(&record).map_err(&bad)?;
        archive.check_recorded()?;
        archive.read_wheel_file()?;
        Ok(archive)
    }

    /// A file of `.dist-info`.
    pub fn metadata_path(&self, name: &str) -> String {
        format!("{}/{name}", self.metadata_directory)
    }

    /// Every file, sorted, with whether anyone may execute it.
    pub fn files(&self) -> Vec<(String, bool)> {
        self.entries.iter().map(|(name, entry)| (name.clone(), entry.executable)).collect()
    }

    /// The bytes of a file, if it is there, checked against `RECORD`.
    pub fn bytes(&mut self, name: &str) -> Result<Option<Vec<u8>>> {
        if !self.entries.contains_key(name) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        // An error of the reader is noticed by what reads for us.
        self.read(name, LARGEST_TEXT, &mut |reader| {
            let _ = reader.read_to_end(&mut bytes);
            Ok(())
        })?;
        Ok(Some(bytes))
    }

    /// A text of the wheel, if it is there.
    pub fn text(&mut self, name: &str) -> Result<Option<String>> {
        let bytes = self.bytes(name)?;
        let text = bytes.map(|bytes| String::from_utf8(bytes).map_err(|_| self.bad(format!("`{name}` is not UTF-8"))));
        text.transpose()
    }

    /// The first bytes of a file, not checked; to see what kind of file it is.
    pub fn begins_with(&mut self, name: &str, start: &[u8]) -> Result<bool> {
        let Some(entry) = self.entries.get(name).copied() else { return Ok(false) };
        let mut bytes = Vec::new();
        let length = start.len() as u64;
        let read = self.zip.by_index(entry.index).map(|file| file.take(length).read_to_end(&mut bytes));
        match read {
            Ok(Ok(_)) => Ok(bytes == start),
            Ok(Err(error)) => Err(self.bad(format!("`{name}`: {error}"))),
            Err(error) => Err(self.bad(format!("`{name}`: {error}"))),
        }
    }

    /// Puts a file into the store, checked against `RECORD` on the way.
    pub fn keep(&mut self, name: &str, executable: bool, store: &store::Store) -> Result<Kept> {
        let mut put = None;
        let sha256 = self.read(name, LARGEST_WHEEL, &mut |reader| {
            put = Some(store.put_blob_from(reader, executable)?);
            Ok(())
        })?;
        let (blob, size) = put.ok_or_else(|| self.bad(format!("`{name}` was not read")))?;
        Ok(Kept { blob, size, sha256 })
    }

    /// Reads a file through its digests; what does not agree with `RECORD` and the archive's own size is refused.
    fn read(&mut self, name: &str, most: u64, take: &mut dyn FnMut(&mut dyn Read) -> Result<()>) -> Result<[u8; 32]> {
        let entry = self.entries.get(name).copied().ok_or_else(|| self.bad(format!("it has no `{name}`")))?;
        if entry.size > most {
            return Err(self.bad(format!("`{name}` is {} bytes long", entry.size)));
        }
        let recorded = self.record.get(name).cloned();
        let wanted = recorded.as_ref().and_then(|recorded| recorded.digest.clone());
        let algorithm = wanted.as_ref().map(|(algorithm, _)| *algorithm);
        let mut through = |bytes: &mut dyn Read| {
            let mut reader = Checked::new(bytes, entry.size, algorithm);
            let taken = take(&mut reader);
            (taken, reader.finish())
        };
        let read = match self.inflater.whole(&mut self.zip, entry) {
            Ok(Some(mut bytes)) => Ok(through(&mut bytes)),
            Ok(None) => self.zip.by_index(entry.index).map(|mut file| through(&mut file)).map_err(|e| e.to_string()),
            Err(reason) => Err(reason),
        };
        let (taken, finished) = read.map_err(|reason| self.bad(format!("`{name}`: {reason}")))?;
        let (sha256, digest) = match (taken, finished) {
            // The archive's fault comes first: whoever took the bytes fails because of it.
            (_, Err(Fault::Archive(reason))) => return Err(self.bad(format!("`{name}`: {reason}"))),
            (Err(error), _) => return Err(error),
            (Ok(()), Err(Fault::Short)) => {
                return Err(self.bad(format!("`{name}` is shorter than the archive says")));
            }
            (Ok(()), Ok(digests)) => digests,
        };
        if recorded.and_then(|recorded| recorded.size).is_some_and(|size| size != entry.size) {
            return Err(self.bad(format!("`{name}` has another size than RECORD says")));
        }
        if wanted.is_some_and(|(_, wanted)| wanted != digest) {
            return Err(self.bad(format!("`{name}` has another digest than RECORD says")));
        }
        Ok(sha256)
    }

    fn unchecked_text(&mut self, name: &str) -> Result<String> {
        self.text(name)?.ok_or_else(|| self.bad(format!("it has no `{name}`")))
    }

    /// "Installation will fail if any file in the archive is not both mentioned and correctly hashed in RECORD", but for
    /// RECORD and its signatures (binary distribution format). Digests are checked as the files are read.
    fn check_recorded(&self) -> Result<()> {
        let exempt = ["RECORD", "RECORD.jws", "RECORD.p7s"].map(|name| self.metadata_path(name));
        for name in self.entries.keys().filter(|name| !exempt.contains(name)) {
            match self.record.get(name) {
                None => return Err(self.bad(format!("`{name}` is not in its RECORD"))),
                Some(Recorded { digest: None, .. }) => {
                    return Err(self.bad(format!("`{name}` has no digest in RECORD")));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn read_wheel_file(&mut self) -> Result<()> {
        let text = self.unchecked_text(&self.metadata_path("WHEEL"))?;
        let field = |name: &str| {
            text.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let version = field("Wheel-Version").unwrap_or_default();
        if version.split('.').next() != Some("1") {
            return Err(self.bad(format!("its format version is `{version}`, and 1.x is understood")));
        }
        self.root_is_pure = field("Root-Is-Purelib").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        Ok(())
    }
}

/// Inflates files in one go, which takes two thirds of what it takes piece by piece.
struct Inflater {
    decompressor: libdeflater::Decompressor,
    deflated: Vec<u8>,
    inflated: Vec<u8>,
}

impl Default for Inflater {
    fn default() -> Self {
        Self { decompressor: libdeflater::Decompressor::new(), deflated: Vec::new(), inflated: Vec::new() }
    }
}

impl Inflater {
    /// The bytes of a file, if it is deflated and small enough to be held in memory.
    fn whole<R: Read + Seek>(&mut self, zip: &mut ZipArchive<R>, entry: Entry) -> Result<Option<&[u8]>, String> {
        let Ok(size) = usize::try_from(entry.size) else { return Ok(None) };
        if entry.size > LARGEST_WHOLE {
            return Ok(None);
        }
        let mut file = zip.by_index_raw(entry.index).map_err(|error| error.to_string())?;
        if file.compression() != CompressionMethod::Deflated || file.compressed_size() > LARGEST_WHOLE {
            return Ok(None);
        }
        self.deflated.clear();
        file.read_to_end(&mut self.deflated).map_err(|error| error.to_string())?;
        if self.inflated.len() < size {
            self.inflated.resize(size, 0);
        }
        let bytes = &mut self.inflated[..size];
        match self.decompressor.deflate_decompress(&self.deflated, bytes) {
            Ok(length) if length == size => {}
            Ok(_) => return Err("it is shorter than the archive says".to_owned()),
            Err(DecompressionError::InsufficientSpace) => return Err("it is longer than the archive says".to_owned()),
            Err(DecompressionError::BadData) => return Err("it is damaged: not what DEFLATE makes".to_owned()),
        }
        if libdeflater::crc32(bytes) != file.crc32() {
            return Err("it is damaged: another checksum than the archive says".to_owned());
        }
        Ok(Some(bytes))
    }
}

/// Whether a name leads nowhere but below where it is put.
fn check_path(name: &str) -> Result<(), &'static str> {
    if name.contains('\\') {
        return Err("has a backslash in its name");
    }
    if name.split('/').any(|part| store::Name::new(part).is_err()) {
        return Err("leads elsewhere");
    }
    Ok(())
}

/// The one `.dist-info` directory, which must be of the project that the file name says.
fn find_metadata_directory(entries: &BTreeMap<String, Entry>, file: &str) -> Result<String, String> {
    let mut found: Option<&str> = None;
    for name in entries.keys() {
        let Some((top, _)) = name.split_once('/') else { continue };
        if top.ends_with(".dist-info") && found != Some(top) {
            if found.is_some() {
                return Err("it has more than one `.dist-info` directory".to_owned());
            }
            found = Some(top);
        }
    }
    let found = found.ok_or("it has no `.dist-info` directory")?;
    let inside = normalise(found.trim_end_matches(".dist-info").split('-').next().unwrap_or_default());
    let outside = normalise(file.split('-').next().unwrap_or_default());
    if inside != outside {
        return Err(format!("it has `{found}` in it"));
    }
    Ok(found.to_owned())
}

/// Hashes what passes and notices when it is longer or shorter than promised.
struct Checked<R> {
    inner: R,
    left: u64,
    sha256: Sha256,
    other: Option<Other>,
    failure: Option<String>,
}

enum Fault {
    /// The archive cannot be read, or has more than it says.
    Archive(String),
    /// Not everything was read, because there is less, or because the taker stopped.
    Short,
}

enum Other {
    Sha384(Box<Sha384>),
    Sha512(Box<Sha512>),
}

impl<R: Read> Checked<R> {
    fn new(inner: R, size: u64, algorithm: Option<Algorithm>) -> Self {
        let other = match algorithm {
            Some(Algorithm::Sha384) => Some(Other::Sha384(Box::default())),
            Some(Algorithm::Sha512) => Some(Other::Sha512(Box::default())),
            Some(Algorithm::Sha256) | None => None,
        };
        Self { inner, left: size, sha256: Sha256::new(), other, failure: None }
    }

    /// SHA-256, and the digest that RECORD has.
    fn finish(self) -> Result<([u8; 32], Vec<u8>), Fault> {
        if let Some(reason) = self.failure {
            return Err(Fault::Archive(reason));
        }
        if self.left != 0 {
            return Err(Fault::Short);
        }
        let sha256: [u8; 32] = self.sha256.finalize().into();
        let digest = match self.other {
            None => sha256.to_vec(),
            Some(Other::Sha384(hasher)) => hasher.finalize().to_vec(),
            Some(Other::Sha512(hasher)) => hasher.finalize().to_vec(),
        };
        Ok((sha256, digest))
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer).and_then(|length| {
            let left = self.left.checked_sub(length as u64);
            self.left = left.ok_or_else(|| std::io::Error::other("it is longer than the archive says"))?;
            Ok(length)
        });
        let length = read.inspect_err(|error| {
            if error.kind() != std::io::ErrorKind::Interrupted {
                self.failure = Some(error.to_string());
            }
        })?;
        self.sha256.update(&buffer[..length]);
        match &mut self.other {
            None => {}
            Some(Other::Sha384(hasher)) => hasher.update(&buffer[..length]),
            Some(Other::Sha512(hasher)) => hasher.update(&buffer[..length]),
        }
        Ok(length)
    }
}

fn parse_record(text: &str) -> Result<BTreeMap<String, Recorded>, String> {
    let mut record = BTreeMap::new();
    for fields in parse_csv(text) {
        let [path, digest, size] = fields.as_slice() else {
            return Err("a line of RECORD has not three fields".to_owned());
        };
        let digest = match digest.split_once('=') {
            None if digest.is_empty() => None,
            None => return Err(format!("RECORD has a digest `{digest}`")),
            Some((name, value)) => {
                let (algorithm, length) = match name {
                    "sha256" => (Algorithm::Sha256, 32),
                    "sha384" => (Algorithm::Sha384, 48),
                    "sha512" => (Algorithm::Sha512, 64),
                    _ => return Err(format!("RECORD has a digest `{name}`, and SHA-256 or better is expected")),
                };
                let bytes = from_base64(value).filter(|bytes| bytes.len() == length);
                Some((algorithm, bytes.ok_or_else(|| format!("RECORD has a digest `{value}`"))?))
            }
        };
        let size =
            if size.is_empty() { None } else { Some(size.parse().map_err(|_| format!("RECORD has a size `{size}`"))?) };
        let recorded = Recorded { digest, size };
        if record.insert(path.clone(), recorded.clone()).is_some_and(|earlier| earlier != recorded) {
            return Err(format!("RECORD has two lines for `{path}`"));
        }
    }
    Ok(record)
}

/// Comma-separated values as Python's `csv` module reads them: `"` quotes, `""` in quotes is a quote.
fn parse_csv(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut field) = (Vec::new(), Vec::new(), String::new());
    let mut characters = text.chars().peekable();
    let mut quoted = false;
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            other if quoted => field.push(other),
            '"' if field.is_empty() => quoted = true,
            ',' => row.push(std::mem::take(&mut field)),
            '\r' | '\n' => {
                if !row.is_empty() || !field.is_empty() {
                    row.push(std::mem::take(&mut field));
                    rows.push(std::mem::take(&mut row));
                }
            }
            other => field.push(other),
        }
    }
    if !row.is_empty() || !field.is_empty() {
        row.push(field);
        rows.push(row);
    }
    rows
}

/// One line of a RECORD.
pub fn record_line(path: &str, kept: Option<(&[u8; 32], u64)>) -> String {
    let path = if path.contains(['"', ',', '\r', '\n']) {
        format!("\"{}\"", path.replace('"', "\"\""))
    } else {
        path.to_owned()
    };
    match kept {
        Some((sha256, size)) => format!("{path},sha256={},{size}\n", to_base64(sha256)),
        None => format!("{path},,\n"),
    }
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// URL-safe base 64 without padding.
pub fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(char::from(BASE64[(word >> (18 - 6 * place) & 63) as usize]));
        }
    }
    text
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut word, mut bits) = (Vec::new(), 0u32, 0);
    for digit in text.trim_end_matches('=').bytes() {
        let value = BASE64.iter().position(|candidate| *candidate == digit)?;
        word = word << 6 | value as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits) as u8);
            word &= (1 << bits) - 1;
        }
    }
    (word == 0 && bits < 6).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_64_goes_there_and_back() {
        for length in 0..70usize {
            let bytes: Vec<u8> = (0..length).map(|index| (index * 37) as u8).collect();
            assert_eq!(from_base64(&to_base64(&bytes)).unwrap(), bytes);
        }
        assert_eq!(to_base64(b"\xfb\xff"), "-_8");
        assert!(from_base64("A").is_none());
        assert!(from_base64("A+").is_none());
    }

    #[test]
    fn record_is_comma_separated_values() {
        let line = record_line("a,\"b\".py", Some((&[0; 32], 3)));
        assert_eq!(line, "\"a,\"\"b\"\".py\",sha256=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA,3\n");
        let record = parse_record(&format!("{line}x/RECORD,,\r\n")).unwrap();
        assert_eq!(record["a,\"b\".py"].size, Some(3));
        assert_eq!(record["x/RECORD"], Recorded { digest: None, size: None });
        for bad in ["a,b\n", "a,md5=AAAA,1\n", "a,sha256=AAAA,1\n", "a,,x\n", "a,sha256,1", "a,,1\na,,2\n"] {
            assert!(parse_record(bad).is_err(), "{bad}");
        }
    }
}
