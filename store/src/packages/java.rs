//! What a Java archive says it is: Maven's records in it, else its manifest, else its file name.
//!
//! A jar comes from outside: its directory is read entry by entry, only what is asked for is unpacked, and all that is unpacked of one
//! file of the tree (archives in archives included) is bounded. What cannot be read is left out.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom, Take};

use flate2::read::DeflateDecoder;
use sha2::{Digest as _, Sha256};

use super::{Checksum, Ecosystem, Package};
use crate::digest::to_hex;

/// Archives in archives in archives: a web archive in an enterprise archive has libraries.
const DEEPEST: usize = 3;
/// A document (manifest, properties, project) has no more bytes.
const LARGEST_DOCUMENT: u64 = 1 << 20;
/// Nor has an archive in an archive.
const LARGEST_INNER: u64 = 64 << 20;
/// Nor all that is unpacked for one file of the tree.
const MOST_UNPACKED: u64 = 512 << 20;
/// Entries of one archive that are of interest.
const MOST_ENTRIES: usize = 10_000;

/// Whether a file of this name is a Java archive.
pub(super) fn is_archive(name: &[u8]) -> bool {
    [&b".jar"[..], b".war", b".ear"].iter().any(|end| name.len() > end.len() && name.ends_with(end))
}

/// The packages in an archive; none of a file that is none.
pub(super) fn packages(file: impl Read + Seek, name: &str) -> Vec<Package> {
    let mut found = Vec::new();
    let mut left = MOST_UNPACKED;
    // What was read until a fault stays.
    let _ = add_packages(BufReader::new(file), name, 0, &mut left, &mut found);
    found
}

fn add_packages(
    mut file: impl Read + Seek,
    name: &str,
    depth: usize,
    left: &mut u64,
    found: &mut Vec<Package>,
) -> io::Result<()> {
    let entries = directory(&mut file)?;
    let mut manifest = BTreeMap::new();
    let mut projects = Vec::new();
    let mut text = |entry: &Entry| match unpack(&mut file, entry, LARGEST_DOCUMENT, left) {
        Some(content) => String::from_utf8_lossy(&content).into_owned(),
        None => String::new(),
    };
    for (path, entry) in &entries {
        if path.eq_ignore_ascii_case("META-INF/MANIFEST.MF") {
            manifest = attributes(&text(entry));
        } else if let Some(directory) = path.strip_suffix("pom.properties") {
            let record = text(entry);
            let project = entries.get(&format!("{directory}pom.xml")).map(&mut text).unwrap_or_default();
            projects.extend(of_maven(&properties(&record), &project));
        }
    }
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    // Others' records lie in an archive that has their classes, too: its own is the only one, or the one that is called as the file is.
    let own = match projects.as_slice() {
        [_] => Some(0),
        several => several.iter().position(|project| {
            let artifact = project.name.rsplit(':').next().unwrap_or_default();
            stem == artifact || stem == format!("{artifact}-{}", project.version)
        }),
    };
    let mut itself = match own {
        Some(at) => projects.swap_remove(at),
        None => of_manifest(&manifest, stem),
    };
    complete(&mut itself, &manifest);
    itself.checksums = vec![Checksum { algorithm: "sha256".to_owned(), digest: digest(&mut file)? }];
    found.push(itself);
    found.append(&mut projects);
    if depth == DEEPEST {
        return Ok(());
    }
    for (path, entry) in entries.iter().filter(|(path, _)| is_archive(path.as_bytes())) {
        let Some(inner) = unpack(&mut file, entry, LARGEST_INNER, left) else { continue };
        let name = path.rsplit('/').next().unwrap_or(path);
        // One that is no archive is left out alone.
        let _ = add_packages(Cursor::new(inner), name, depth + 1, left, found);
    }
    Ok(())
}

/// What an entry holds, if it has no more bytes than `most`, nor than are `left` for this file of the tree.
fn unpack(file: &mut (impl Read + Seek), entry: &Entry, most: u64, left: &mut u64) -> Option<Vec<u8>> {
    let most = most.min(*left);
    let content = entry.content(file, most);
    // What was unpacked in vain took its time as well.
    *left -= content.as_ref().map_or(most, |content| content.len() as u64);
    content.ok()
}

fn digest(file: &mut (impl Read + Seek)) -> io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = Sha256::new();
    let mut buffer = [0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    Ok(to_hex(&hasher.finalize()))
}

/// An entry of a zip archive (PKWARE's APPNOTE 6.3).
#[derive(Debug)]
struct Entry {
    /// Where its own header begins.
    at: u64,
    compressed: u64,
    method: u16,
}

impl Entry {
    /// What it holds; an error if that has more bytes than `most`, or is not stored in a way that Java reads.
    fn content(&self, file: &mut (impl Read + Seek), most: u64) -> io::Result<Vec<u8>> {
        let mut header = [0; 30];
        file.seek(SeekFrom::Start(self.at))?;
        file.read_exact(&mut header)?;
        let lengths = u64::from(half(&header, 26)) + u64::from(half(&header, 28));
        file.seek(SeekFrom::Start(self.at + 30 + lengths))?;
        let packed = file.by_ref().take(self.compressed);
        let mut content = Vec::new();
        match self.method {
            0 => packed.take(most + 1).read_to_end(&mut content)?,
            8 => DeflateDecoder::new(packed).take(most + 1).read_to_end(&mut content)?,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        if content.len() as u64 > most {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(content)
    }
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]))
}

/// The entries of interest by their names.
fn directory(file: &mut (impl Read + Seek)) -> io::Result<BTreeMap<String, Entry>> {
    const END: &[u8] = b"PK\x05\x06";
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let length = file.seek(SeekFrom::End(0))?;
    // A comment of 65,535 bytes may follow the end's record of 22.
    let tail_at = length.saturating_sub(65_535 + 22);
    file.seek(SeekFrom::Start(tail_at))?;
    let mut tail = Vec::new();
    file.by_ref().take(65_535 + 22).read_to_end(&mut tail)?;
    let end = (0..tail.len().saturating_sub(21)).rev().find(|at| tail[*at..].starts_with(END)).ok_or_else(invalid)?;
    let (mut size, mut offset) = (word(&tail, end + 12), word(&tail, end + 16));
    let mut behind = tail_at + end as u64;
    // More than 65,535 entries, or 4 GiB: another record stands before, and one that says where it is.
    if let Some(locator) = end.checked_sub(20).filter(|at| tail[*at..].starts_with(b"PK\x06\x07")) {
        behind = u64::from_le_bytes(tail[locator + 8..locator + 16].try_into().unwrap_or_default());
        let mut record = [0; 56];
        file.seek(SeekFrom::Start(behind))?;
        file.read_exact(&mut record)?;
        size = u64::from_le_bytes(record[40..48].try_into().unwrap_or_default());
        offset = u64::from_le_bytes(record[48..56].try_into().unwrap_or_default());
    }
    // A program may stand before the archive: all offsets are then too small by as much.
    let start = behind.checked_sub(size).ok_or_else(invalid)?;
    let before = start.checked_sub(offset).ok_or_else(invalid)?;
    file.seek(SeekFrom::Start(start))?;
    let mut entries = BTreeMap::new();
    let mut records: Take<_> = file.take(size);
    let mut header = [0; 46];
    while records.limit() >= 46 && entries.len() < MOST_ENTRIES {
        records.read_exact(&mut header)?;
        if !header.starts_with(b"PK\x01\x02") {
            return Err(invalid());
        }
        let mut name = vec![0; usize::from(half(&header, 28))];
        records.read_exact(&mut name)?;
        let rest = u64::from(half(&header, 30)) + u64::from(half(&header, 32));
        io::copy(&mut records.by_ref().take(rest), &mut io::sink())?;
        let name = String::from_utf8_lossy(&name).into_owned();
        let document = name.strip_prefix("META-INF/").is_some_and(|below| {
            below.eq_ignore_ascii_case("MANIFEST.MF")
                || below.starts_with("maven/") && (below.ends_with("/pom.properties") || below.ends_with("/pom.xml"))
        });
        if document || is_archive(name.as_bytes()) {
            let entry = Entry {
                at: before.saturating_add(word(&header, 42)),
                compressed: word(&header, 20),
                method: half(&header, 10),
            };
            entries.insert(name, entry);
        }
    }
    Ok(entries)
}

/// The main attributes of a manifest, by their names in small letters; a line that begins with a space goes on with the one before.
fn attributes(text: &str) -> BTreeMap<String, String> {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines().take_while(|line| !line.is_empty()) {
        match (line.strip_prefix(' '), lines.last_mut()) {
            (Some(rest), Some(last)) => last.push_str(rest),
            _ => lines.push(line.to_owned()),
        }
    }
    let pairs = lines.iter().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect()
}

fn properties(text: &str) -> BTreeMap<&str, &str> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with(['#', '!']));
    lines.filter_map(|line| line.split_once('=')).map(|(name, value)| (name.trim(), value.trim())).collect()
}

/// What Maven wrote down when it made an archive.
fn of_maven(properties: &BTreeMap<&str, &str>, project: &str) -> Option<Package> {
    let field = |name: &str| properties.get(name).copied().filter(|value| !value.is_empty());
    let (group, artifact, version) = (field("groupId")?, field("artifactId")?, field("version")?);
    let mut package = Package::named(Ecosystem::Java, format!("{group}:{artifact}"), version);
    // The project's own address stands before all that have addresses as well, but for its parent.
    let own = project.split_once("</parent>").map_or(project, |(_, own)| own);
    let others = ["licenses", "organization", "developers", "scm", "dependencies", "build"];
    let end = others.iter().filter_map(|tag| own.find(&format!("<{tag}>"))).min().unwrap_or(own.len());
    package.homepage = between(&own[..end], "url").next().map(plain).unwrap_or_default();
    if let Some(licences) = between(project, "licenses").next() {
        package.licences =
            between(licences, "license").filter_map(|one| Some(plain(between(one, "name").next()?))).collect();
        package.licences.retain(|name| !name.is_empty());
        package.licences.sort();
    }
    if let Some(organization) = between(own, "organization").next() {
        package.supplier = between(organization, "name").next().map(plain).unwrap_or_default();
    }
    Some(package)
}

/// What stands between a tag and its end, each time. The few tags that are asked for have no attributes.
fn between<'a>(text: &'a str, tag: &str) -> impl Iterator<Item = &'a str> {
    let (begin, end) = (format!("<{tag}>"), format!("</{tag}>"));
    let mut rest = text;
    std::iter::from_fn(move || {
        let inside = &rest[rest.find(&begin)? + begin.len()..];
        let (found, after) = inside.split_once(&end)?;
        rest = after;
        Some(found)
    })
}

/// Text of XML in one line.
fn plain(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'").replace("&amp;", "&")
}

/// What an archive without Maven's records is called: OSGi's name, Java's own, or that of the file.
fn of_manifest(manifest: &BTreeMap<String, String>, stem: &str) -> Package {
    let field = |name: &str| manifest.get(name).map(String::as_str).filter(|value| !value.is_empty());
    // `NAME-1.2.jar`: the version begins at the first hyphen before a digit.
    let cut =
        stem.match_indices('-').map(|(at, _)| at).find(|at| stem[at + 1..].starts_with(|c: char| c.is_ascii_digit()));
    let (file_name, file_version) = cut.map_or((stem, ""), |at| (&stem[..at], &stem[at + 1..]));
    let bundle = field("bundle-symbolicname").map(|name| name.split(';').next().unwrap_or_default().trim());
    let name = bundle.or(field("automatic-module-name")).or(field("implementation-title")).unwrap_or(file_name);
    let version = field("bundle-version").or(field("implementation-version")).unwrap_or(file_version);
    Package::named(Ecosystem::Java, name, version)
}

/// Takes from the manifest what is not known yet.
fn complete(package: &mut Package, manifest: &BTreeMap<String, String>) {
    let field = |names: [&str; 2]| names.iter().find_map(|name| manifest.get(*name)).cloned().unwrap_or_default();
    if package.licences.is_empty() {
        // `NAME;link="ADDRESS", …`, or addresses alone.
        let named = field(["bundle-license", "bundle-license"]);
        let names = named.split(',').map(|one| one.split(';').next().unwrap_or_default().trim().trim_matches('"'));
        package.licences = names.filter(|name| !name.is_empty()).map(of_address).collect();
        package.licences.sort();
        package.licences.dedup();
    }
    if package.supplier.is_empty() {
        package.supplier = field(["implementation-vendor", "bundle-vendor"]);
    }
    if package.homepage.is_empty() {
        package.homepage = field(["bundle-docurl", "implementation-url"]);
    }
}

/// A licence that is named by where its text lies.
fn of_address(name: &str) -> String {
    let Some((_, address)) = name.split_once("://") else { return name.to_owned() };
    let address = address.trim_start_matches("www.").to_ascii_lowercase();
    let known = [
        ("apache.org/licenses/license-2.0", "Apache-2.0"),
        ("eclipse.org/legal/epl-v10", "EPL-1.0"),
        ("eclipse.org/legal/epl-v20", "EPL-2.0"),
        ("eclipse.org/legal/epl-2.0", "EPL-2.0"),
        ("opensource.org/licenses/apache-2.0", "Apache-2.0"),
        ("opensource.org/licenses/mit", "MIT"),
        ("opensource.org/licenses/bsd-3-clause", "BSD-3-Clause"),
        ("spdx.org/licenses/mit", "MIT"),
        ("gnu.org/licenses/lgpl-2.1", "LGPL-2.1-only"),
    ];
    known
        .iter()
        .find(|(begin, _)| address.starts_with(begin))
        .map_or_else(|| name.to_owned(), |(_, id)| (*id).to_owned())
}

#[cfg(test)]
mod tests;
