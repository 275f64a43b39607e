//! A repository at an `http:`, `https:` or `ssh:` address, by git's own protocol in its second version (gitprotocol-v2(5)): which
//! references it has, and a pack with what is wanted, kept as a bare repository in a scratch directory.

use std::cell::{RefCell, RefMut};
use std::collections::HashMap;
use std::fs;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use sha1::{Digest, Sha1};

use super::line::Line;
use super::object::{Kind, ObjectId};
use super::pack::{Packed, apply, bad, header, inflate};
use crate::fetch::Place;
use crate::{Builder, Error, Result};

/// The most bytes of a pack that are taken.
const LARGEST_PACK: u64 = 64 << 30;
/// The most bytes of a list of references.
const LARGEST_LIST: u64 = 256 << 20;
const SERVICE: &str = "git-upload-pack";

/// A repository that answers.
pub struct Remote<'a> {
    builder: &'a Builder<'a>,
    /// Where it is, after redirects.
    base: String,
    /// By `ssh`: the line, while it is open.
    line: Option<RefCell<Option<Line>>>,
}

/// One packet of the protocol (gitprotocol-common(5)).
pub enum Packet {
    /// Bytes.
    Data(Vec<u8>),
    /// Ends a section.
    Delimiter,
    /// Ends an answer.
    End,
}

/// What comes from a line that somebody else holds.
struct Borrowed<'a>(RefMut<'a, Line>);

impl Read for Borrowed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<'a> Remote<'a> {
    /// Asks whether there is a repository.
    pub fn open(builder: &'a Builder<'a>, url: &str) -> Result<Self> {
        builder.check_interrupt()?;
        if url.starts_with("ssh:") {
            let line = Some(RefCell::new(Some(Line::open(builder, url)?)));
            return Ok(Self { builder, base: url.to_owned(), line });
        }
        let url = url.trim_end_matches('/');
        let place = Place::new(format!("{url}/info/refs?service={SERVICE}"));
        let answer = builder.fetcher.ask(builder, &place, &version(), None)?;
        let base = answer.url.split("/info/refs?").next().unwrap_or(url).to_owned();
        let mut body = answer.body.take(LARGEST_LIST);
        let fail = |error: io::Error| refused(url, error.to_string());
        let mut lines = Vec::new();
        while let Some(packet) = packet(&mut body).map_err(fail)? {
            if let Packet::Data(line) = packet {
                lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if lines.len() > 1000 {
                break;
            }
        }
        let mut words = lines.iter().filter(|line| !line.starts_with("# service="));
        if words.next().map(String::as_str) != Some("version 2") {
            return Err(refused(url, "it does not speak the second version of git's protocol"));
        }
        if words.any(|line| line.starts_with("object-format=") && line != "object-format=sha1") {
            return Err(refused(url, "its objects are not named by SHA-1"));
        }
        Ok(Self { builder, base, line: None })
    }

    /// The line, opened again if it was used up.
    fn line<'b>(&'b self, line: &'b RefCell<Option<Line>>) -> Result<RefMut<'b, Line>> {
        let mut open = line.borrow_mut();
        if open.is_none() {
            *open = Some(Line::open(self.builder, &self.base)?);
        }
        RefMut::filter_map(open, Option::as_mut).map_err(|_| refused(&self.base, "the line is not open"))
    }

    fn call(&self, request: &[u8]) -> Result<Box<dyn Read + '_>> {
        if let Some(line) = &self.line {
            let mut line = self.line(line)?;
            if let Err(error) = line.send(request) {
                let reason = line.failure(&error);
                return Err(refused(&self.base, reason));
            }
            return Ok(Box::new(Borrowed(line)));
        }
        let place = Place::new(format!("{}/{SERVICE}", self.base));
        let mut headers = version();
        headers.push(("content-type", format!("application/x-{SERVICE}-request")));
        headers.push(("accept", format!("application/x-{SERVICE}-result")));
        Ok(Box::new(self.builder.fetcher.ask(self.builder, &place, &headers, Some(request))?.body))
    }

    /// The references whose names begin so, and what they name; tags by what they are of.
    pub fn references(&self, prefixes: &[&str]) -> Result<Vec<(String, ObjectId)>> {
        if let Some(line) = &self.line
            && let Some(mut known) = self.line(line)?.references()
        {
            known.retain(|(name, _)| prefixes.iter().any(|prefix| name.starts_with(prefix)));
            return Ok(known);
        }
        let mut request = pkt("command=ls-refs");
        request.extend(b"0001");
        request.extend(pkt("peel"));
        for prefix in prefixes {
            request.extend(pkt(&format!("ref-prefix {prefix}")));
        }
        request.extend(b"0000");
        let mut body = self.call(&request)?.take(LARGEST_LIST);
        let mut references = Vec::new();
        let fail = |error: io::Error| refused(&self.base, error.to_string());
        while let Some(Packet::Data(text)) = packet(&mut body).map_err(fail)? {
            let text = String::from_utf8_lossy(&text).trim_end().to_owned();
            let mut words = text.split(' ');
            let (Some(id), Some(name)) = (words.next().and_then(ObjectId::parse), words.next()) else { continue };
            let peeled = words.find_map(|word| ObjectId::parse(word.strip_prefix("peeled:")?));
            references.push((name.to_owned(), peeled.unwrap_or(id)));
        }
        Ok(references)
    }

    /// Fetches objects with what leads to them (with `depth`, only so many commits of it) into a bare repository.
    pub fn fetch(&self, wanted: &[ObjectId], depth: Option<u32>, directory: &Path) -> Result<()> {
        let mut request = pkt("command=fetch");
        request.extend(b"0001");
        for word in ["no-progress", "ofs-delta"] {
            request.extend(pkt(word));
        }
        for id in wanted {
            request.extend(pkt(&format!("want {id}")));
        }
        request.extend(depth.map(|depth| pkt(&format!("deepen {depth}"))).unwrap_or_default());
        request.extend(pkt("done"));
        request.extend(b"0000");
        let fail = |error: io::Error| refused(&self.base, error.to_string());
        let stopped = |stop: Option<io::Error>| stop.map_or_else(|| Error::Interrupted { signal: 0 }, fail);
        let Some(line) = &self.line else {
            return receive(self.builder, BufReader::new(self.call(&request)?), directory, false).map_err(stopped);
        };
        let is_first = {
            let open = self.line(line)?;
            if open.is_first() {
                request = open.first_request(wanted, depth).map_err(fail)?;
            }
            open.is_first()
        };
        drop(self.call(&request)?);
        // What follows the pack is of no interest; who asks again does so on another line.
        let mut open = line.borrow_mut().take();
        let Some(open) = &mut open else { return Err(refused(&self.base, "the line is not open")) };
        receive(self.builder, &mut *open, directory, is_first).map_err(|stop| match stop {
            Some(error) => refused(&self.base, open.failure(&error)),
            None => stopped(None),
        })
    }
}

fn version() -> Vec<(&'static str, String)> {
    vec![("git-protocol", "version=2".to_owned())]
}

fn refused(url: &str, reason: impl Into<String>) -> Error {
    Error::Invalid { what: "Git repository", name: crate::fetch::redact(url), reason: reason.into() }
}

/// A packet of one line.
pub fn pkt(text: &str) -> Vec<u8> {
    format!("{:04x}{text}\n", text.len() + 5).into_bytes()
}

/// The next packet; none where the stream ends.
pub fn packet(reader: &mut dyn Read) -> io::Result<Option<Packet>> {
    let mut length = [0; 4];
    let mut have = 0;
    while have < 4 {
        match reader.read(&mut length[have..])? {
            0 if have == 0 => return Ok(None),
            0 => return Err(bad("the answer ends within a packet")),
            count => have += count,
        }
    }
    let digits = std::str::from_utf8(&length).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let length = digits.and_then(|digits| usize::from_str_radix(digits, 16).ok());
    match length.ok_or_else(|| bad("the answer is not of git's protocol"))? {
        0 | 2 => Ok(Some(Packet::End)),
        1 => Ok(Some(Packet::Delimiter)),
        3 => Err(bad("the answer is not of git's protocol")),
        length => {
            let mut data = vec![0; length - 4];
            reader.read_exact(&mut data)?;
            if let Some(words) = data.strip_prefix(b"ERR ") {
                return Err(bad(String::from_utf8_lossy(words).trim_end().to_owned()));
            }
            Ok(Some(Packet::Data(data)))
        }
    }
}

/// Takes in the answer to `fetch`; without an error if it was interrupted. In the first version of the protocol there are no
/// sections: lines about what is shallow, one that says that it begins, and the pack.
fn receive(
    builder: &Builder<'_>,
    mut body: impl Read,
    directory: &Path,
    is_first: bool,
) -> std::result::Result<(), Option<io::Error>> {
    let packs = directory.join("objects/pack");
    fs::create_dir_all(&packs).map_err(Some)?;
    fs::write(directory.join("HEAD"), "ref: refs/heads/none\n").map_err(Some)?;
    let mut shallow = String::new();
    let mut section = String::from(if is_first { "shallow-info" } else { "" });
    let mut pack = io::BufWriter::new(fs::File::create(packs.join("pack-fetched.pack")).map_err(Some)?);
    let mut received = 0;
    loop {
        builder.check_interrupt().map_err(|_| None)?;
        match packet(&mut body).map_err(Some)? {
            Some(Packet::End) if is_first && section != "packfile" => {}
            None | Some(Packet::End) => break,
            Some(Packet::Data(data)) if is_first && data.starts_with(b"NAK") => "packfile".clone_into(&mut section),
            Some(Packet::Delimiter) => section.clear(),
            Some(Packet::Data(data)) if section.is_empty() => {
                section = String::from_utf8_lossy(&data).trim_end().to_owned();
            }
            Some(Packet::Data(data)) if section == "shallow-info" => {
                let text = String::from_utf8_lossy(&data);
                if let Some(id) = text.trim_end().strip_prefix("shallow ") {
                    shallow.push_str(id);
                    shallow.push('\n');
                }
            }
            Some(Packet::Data(data)) if section == "packfile" => match data.split_first() {
                Some((1, data)) => {
                    received += data.len() as u64;
                    if received > LARGEST_PACK {
                        return Err(Some(bad("its pack is too large")));
                    }
                    pack.write_all(data).map_err(Some)?;
                }
                Some((3, words)) => return Err(Some(bad(String::from_utf8_lossy(words).trim_end().to_owned()))),
                _ => {}
            },
            Some(Packet::Data(_)) => {}
        }
    }
    if received == 0 {
        return Err(Some(bad("it gives nothing of what was asked for")));
    }
    pack.into_inner().map_err(|error| Some(error.into_error()))?;
    if !shallow.is_empty() {
        fs::write(directory.join("shallow"), shallow).map_err(Some)?;
    }
    index(&packs.join("pack-fetched.pack"), &|| builder.check_interrupt().is_ok())
}

/// Writes the index of a pack (gitformat-pack(5), version 2): names every object by its bytes.
fn index(path: &Path, go_on: &dyn Fn() -> bool) -> std::result::Result<(), Option<io::Error>> {
    let mut objects = scan(path).map_err(Some)?;
    objects.sort_unstable_by_key(|object| object.at);
    let mut named: HashMap<ObjectId, u64> = HashMap::new();
    let places: HashMap<u64, usize> = objects.iter().enumerate().map(|(number, object)| (object.at, number)).collect();
    let file = fs::File::open(path).map_err(Some)?;
    // Differences may be from objects that come later, so it is gone over until nothing is left or nothing changes.
    let mut left: Vec<usize> = (0..objects.len()).collect();
    let mut known: HashMap<u64, (Kind, ObjectId)> = HashMap::new();
    let mut recent = Recent::default();
    while !left.is_empty() {
        let before = left.len();
        let mut still = Vec::new();
        for number in left {
            if !go_on() {
                return Err(None);
            }
            match resolve(&file, &objects, &places, &named, number, &mut recent).map_err(Some)? {
                Some((kind, content)) => {
                    let id = ObjectId::of(kind, &content);
                    named.insert(id, objects[number].at);
                    known.insert(objects[number].at, (kind, id));
                }
                None => still.push(number),
            }
        }
        if still.len() == before {
            return Err(Some(bad("its pack has differences from objects that it lacks")));
        }
        left = still;
    }
    write_index(path, &objects, &known).map_err(Some)
}

/// Where an object of a pack lies, and the check sum of its bytes there.
struct Located {
    at: u64,
    crc: u32,
}

/// Goes through a pack from its start to its end.
fn scan(path: &Path) -> io::Result<Vec<Located>> {
    let mut reader =
        Counting { inner: BufReader::with_capacity(1 << 16, fs::File::open(path)?), at: 0, crc: flate2::Crc::new() };
    let mut head = [0; 12];
    reader.read_exact(&mut head)?;
    let count = u32::from_be_bytes([head[8], head[9], head[10], head[11]]);
    if head[..8] != *b"PACK\0\0\0\x02" {
        return Err(bad("what it gives is no pack"));
    }
    let mut objects = Vec::new();
    for _ in 0..count {
        let at = reader.at;
        reader.crc = flate2::Crc::new();
        let (_, size) = header(&mut reader)?;
        inflate(&mut reader, size)?;
        objects.push(Located { at, crc: reader.crc.sum() });
    }
    Ok(objects)
}

/// Knows where it is, and sums up what is read.
struct Counting<R> {
    inner: R,
    at: u64,
    crc: flate2::Crc,
}

impl<R: io::BufRead> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.crc.update(&buffer[..count]);
        self.at += count as u64;
        Ok(count)
    }
}

impl<R: io::BufRead> io::BufRead for Counting<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        if let Ok(buffer) = self.inner.fill_buf() {
            self.crc.update(&buffer[..count]);
        }
        self.at += count as u64;
        self.inner.consume(count);
    }
}

/// Objects that were worked out of late: the next ones are differences from them.
#[derive(Default)]
struct Recent {
    size: usize,
    objects: HashMap<u64, (Kind, std::rc::Rc<Vec<u8>>)>,
}

/// An object's bytes; none if it is a difference from one that has no name yet.
fn resolve(
    file: &fs::File,
    objects: &[Located],
    places: &HashMap<u64, usize>,
    named: &HashMap<ObjectId, u64>,
    number: usize,
    recent: &mut Recent,
) -> io::Result<Option<(Kind, std::rc::Rc<Vec<u8>>)>> {
    let mut at = objects[number].at;
    let mut differences: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut object = loop {
        if let Some(object) = recent.objects.get(&at) {
            break object.clone();
        }
        if differences.len() > objects.len() {
            return Err(bad("an object of its pack is a difference from itself"));
        }
        let mut reader = BufReader::new(Positioned { file, at });
        let (packed, size) = header(&mut reader)?;
        let content = inflate(&mut reader, size)?;
        match packed {
            Packed::Whole(kind) => break (kind, std::rc::Rc::new(content)),
            Packed::Before(distance) => {
                differences.push((at, content));
                let base = at.checked_sub(distance).filter(|base| places.contains_key(base));
                at = base.ok_or_else(|| bad("a difference leads out of its pack"))?;
            }
            Packed::From(id) => {
                differences.push((at, content));
                match named.get(&id) {
                    Some(base) => at = *base,
                    None => return Ok(None),
                }
            }
        }
    };
    while let Some((at, difference)) = differences.pop() {
        object = (object.0, std::rc::Rc::new(apply(&object.1, &difference)?));
        recent.size += object.1.len() + 64;
        if recent.size > 128 << 20 {
            recent.objects.clear();
            recent.size = object.1.len() + 64;
        }
        recent.objects.insert(at, object.clone());
    }
    Ok(Some(object))
}

struct Positioned<'a> {
    file: &'a fs::File,
    at: u64,
}

impl Read for Positioned<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = std::os::unix::fs::FileExt::read_at(self.file, buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

fn write_index(path: &Path, objects: &[Located], known: &HashMap<u64, (Kind, ObjectId)>) -> io::Result<()> {
    let mut entries: Vec<(ObjectId, &Located)> =
        objects.iter().filter_map(|object| Some((known.get(&object.at)?.1, object))).collect();
    entries.sort_by_key(|(id, _)| *id);
    let mut bytes = b"\xfftOc\0\0\0\x02".to_vec();
    for first in 0..=255_u8 {
        let count = entries.partition_point(|(id, _)| id.as_bytes()[0] <= first) as u32;
        bytes.extend(count.to_be_bytes());
    }
    entries.iter().for_each(|(id, _)| bytes.extend(id.as_bytes()));
    entries.iter().for_each(|(_, object)| bytes.extend(object.crc.to_be_bytes()));
    let mut large = Vec::new();
    for (_, object) in &entries {
        let offset = u32::try_from(object.at).ok().filter(|at| at & 0x8000_0000 == 0).unwrap_or_else(|| {
            large.push(object.at);
            0x8000_0000 | (large.len() - 1) as u32
        });
        bytes.extend(offset.to_be_bytes());
    }
    large.iter().for_each(|offset: &u64| bytes.extend(offset.to_be_bytes()));
    // The name of the pack, which nobody asks for here, and that of the index.
    bytes.extend([0; 20]);
    let name = Sha1::digest(&bytes);
    bytes.extend(name);
    fs::write(path.with_extension("idx"), bytes)
}
