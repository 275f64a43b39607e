//! A repository at an `http:`, `https:` or `ssh:` address, by git's own protocol in its second version (gitprotocol-v2(5)): which
//! references it has, and a pack with what is wanted, kept as a bare repository in a scratch directory.

use std::cell::{RefCell, RefMut};
use std::fs;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use super::index::index;
use super::line::Line;
use super::object::ObjectId;
use super::pack::bad;
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
