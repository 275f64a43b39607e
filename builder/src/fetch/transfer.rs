//! One file on its way: hashed while it is read, taken up again where the connection was cut, refused at its end if it is not what
//! was asked for.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use store::digest::to_hex;
use store::http::{Answer, Client, Failure, split};

use super::gate::{Gate, Pass};
use super::{Place, Wanted};
use crate::Builder;
use crate::report::Span;

/// How often a place is asked before the next one is.
const ATTEMPTS: u32 = 4;
/// A line that is cut again and again, but brings this much in between, is worth asking on.
const PROGRESS: u64 = 1 << 20;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Progress is told this often at most.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// Reads one file from one place. What it gives is good only if it came to its end without error.
pub struct Transfer<'a> {
    builder: &'a Builder<'a>,
    client: &'a Client,
    wanted: &'a Wanted<'a>,
    place: &'a Place,
    accept: Option<&'a str>,
    answer: Answer,
    /// As the server says.
    length: Option<u64>,
    received: u64,
    hash: Sha256,
    attempts: u32,
    /// How much was received when it was last taken up again.
    resumed: u64,
    failure: Option<Failure>,
    told: Instant,
    span: Span<'a>,
    _pass: Pass<'a>,
}

impl<'a> Transfer<'a> {
    /// Asks for a file that is to be kept.
    pub fn start(
        builder: &'a Builder<'a>,
        client: &'a Client,
        gate: &'a Gate,
        wanted: &'a Wanted<'a>,
        place: &'a Place,
    ) -> Result<Self, Failure> {
        Self::start_document(builder, client, gate, wanted, place, None)
    }

    /// Asks for something of these media types.
    pub fn start_document(
        builder: &'a Builder<'a>,
        client: &'a Client,
        gate: &'a Gate,
        wanted: &'a Wanted<'a>,
        place: &'a Place,
        accept: Option<&'a str>,
    ) -> Result<Self, Failure> {
        let host = split(&place.url).map_or("", |parts| parts.host);
        let pass = gate.enter(builder, host).map_err(|_| Failure::Interrupted)?;
        let span = Span::start(builder.reporter, "fetch", label(wanted.url), wanted.size);
        let mut attempts = 0;
        let answer = ask(builder, client, place, accept, None, &mut attempts)?;
        let length = length_of(&answer);
        if let (Some(expected), Some(actual)) = (wanted.size, length)
            && expected != actual
        {
            return Err(Failure::Lie { actual: format!("{actual} bytes"), expected: format!("{expected} bytes") });
        }
        Ok(Self {
            builder,
            client,
            wanted,
            place,
            accept,
            answer,
            length,
            received: 0,
            hash: Sha256::new(),
            attempts,
            resumed: 0,
            failure: None,
            told: Instant::now(),
            span,
            _pass: pass,
        })
    }

    /// The SHA-256 of what was read.
    pub fn digest(&self) -> [u8; 32] {
        self.hash.clone().finalize().into()
    }

    /// Why reading failed, if it did.
    pub fn failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }

    /// Where it comes from, after redirects.
    pub fn url(&self) -> &str {
        &self.answer.url
    }

    /// Its media type.
    pub fn media_type(&self) -> Option<&str> {
        self.answer.header("content-type")
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        loop {
            self.builder.check_interrupt().map_err(|_| Failure::Interrupted)?;
            match self.answer.body.read(buffer) {
                Ok(0) if self.length.is_some_and(|length| self.received < length) => {
                    self.resume("the connection was cut")?
                }
                Ok(0) => return self.finish(),
                Ok(count) => return self.receive(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.resume(&error.to_string())?,
            }
        }
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<usize, Failure> {
        self.received += bytes.len() as u64;
        self.hash.update(bytes);
        if let Some(expected) = self.wanted.size.filter(|size| self.received > *size) {
            return Err(Failure::Lie { actual: "more bytes".to_owned(), expected: format!("{expected} bytes") });
        }
        if self.told.elapsed() > TELL_EVERY {
            self.told = Instant::now();
            self.span.advance(self.received);
        }
        Ok(bytes.len())
    }

    fn finish(&mut self) -> Result<usize, Failure> {
        self.span.advance(self.received);
        if let Some(expected) = self.wanted.size.filter(|size| self.received != *size) {
            let bytes = |count: u64| format!("{count} bytes");
            return Err(Failure::Lie { actual: bytes(self.received), expected: bytes(expected) });
        }
        if let Some(expected) = self.wanted.sha256.filter(|expected| *expected != self.digest()) {
            let text = |digest: &[u8]| format!("sha256:{}", to_hex(digest));
            return Err(Failure::Lie { actual: text(&self.digest()), expected: text(&expected) });
        }
        Ok(0)
    }

    /// Asks for the rest. Without a digest to check the whole by, only if the server can tell that it is the same file still.
    fn resume(&mut self, reason: &str) -> Result<(), Failure> {
        let cut = || Failure::Transport { reason: format!("{reason} after {} bytes", self.received), passing: true };
        let same =
            self.answer.header("etag").filter(|tag| !tag.starts_with("W/")).or(self.answer.header("last-modified"));
        let same = same.map(str::to_owned);
        if self.received > self.resumed + PROGRESS {
            self.attempts = 1;
        }
        self.resumed = self.received;
        if self.attempts >= ATTEMPTS || self.wanted.sha256.is_none() && same.is_none() {
            return Err(cut());
        }
        pause(self.builder, self.attempts)?;
        let rest = (self.received, same);
        self.answer = ask(self.builder, self.client, self.place, self.accept, Some(&rest), &mut self.attempts)?;
        let range = self.answer.header("content-range").unwrap_or_default();
        let continues = self.answer.status == 206 && range.starts_with(&format!("bytes {}-", self.received));
        if continues {
            return Ok(());
        }
        if self.wanted.sha256.is_none() {
            return Err(cut());
        }
        // The server gives the whole file again. What we have was hashed already, and the digest judges the sum of both.
        let skipped = io::copy(&mut (&mut self.answer.body).take(self.received), &mut io::sink());
        match skipped {
            Ok(count) if count == self.received => Ok(()),
            _ => Err(cut()),
        }
    }
}

impl Read for Transfer<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.read_some(buffer).map_err(|failure| {
            let error = io::Error::other(failure.to_string());
            self.failure = Some(failure);
            error
        })
    }
}

/// What people call a file: its name; of a Debian archive's indexes also which suite they are of.
fn label(url: &str) -> String {
    let name = url.rsplit(['/', ':']).find(|part| !part.is_empty()).unwrap_or(url);
    match url.split_once("/dists/") {
        Some((_, path)) => match path.split_once("/by-hash/") {
            Some((index, _)) => format!("index of {index}"),
            None => path.to_owned(),
        },
        None => name.to_owned(),
    }
}

/// Asks, and asks again while that may help. `rest`: from which byte on, and by what the server tells that it is the same file.
fn ask(
    builder: &Builder<'_>,
    client: &Client,
    place: &Place,
    accept: Option<&str>,
    rest: Option<&(u64, Option<String>)>,
    attempts: &mut u32,
) -> Result<Answer, Failure> {
    let mut headers = Vec::new();
    headers.extend(accept.map(|accept| ("accept", accept.to_owned())));
    if let Some((from, same)) = rest {
        headers.push(("range", format!("bytes={from}-")));
        headers.extend(same.clone().map(|same| ("if-range", same)));
    }
    loop {
        builder.check_interrupt().map_err(|_| Failure::Interrupted)?;
        *attempts += 1;
        match client.get(place, &headers) {
            Err(failure) if failure.is_passing() && *attempts < ATTEMPTS => pause(builder, *attempts)?,
            answer => return answer,
        }
    }
}

/// Waits a little longer every time, and ends when the user interrupts.
fn pause(builder: &Builder<'_>, attempts: u32) -> Result<(), Failure> {
    let until = Instant::now() + FIRST_PAUSE * 3u32.pow(attempts.saturating_sub(1).min(3));
    while Instant::now() < until {
        builder.check_interrupt().map_err(|_| Failure::Interrupted)?;
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// How long the whole file is, as the server says. An encoded body has another length than its content.
fn length_of(answer: &Answer) -> Option<u64> {
    match answer.header("content-encoding") {
        None | Some("identity") => answer.header("content-length")?.trim().parse().ok(),
        Some(_) => None,
    }
}
