//! HTTP/1.1 on one connection (RFC 9112): requests come one after the other, each with a head and a body of bounds.
//!
//! Strict on purpose: a body has a length or comes in chunks, never both, and what two readers could read differently is refused.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use store::Store;

use crate::Shared;
use crate::line::Line;
use crate::routes::Offer;

const MOST_HEAD: usize = 16 << 10;
const MOST_FIELDS: usize = 64;
/// A head comes at once, or from somebody who wants to hold a thread.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long a connection may lie idle between requests.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// While idle it is looked so often whether the server is to stop.
const LOOK: Duration = Duration::from_millis(200);
/// So much of a body that nobody reads is taken off the line, so that the answer is seen before the end.
const MOST_DRAINED: u64 = 64 << 20;

/// What somebody asks.
pub struct Request<'a> {
    /// `GET`, …
    pub method: String,
    /// The path, without what stands behind a question mark.
    pub path: String,
    /// `Authorization`.
    pub authorization: Option<String>,
    /// What comes along.
    pub body: Body<'a>,
}

/// How a request's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Left(u64),
    /// Bytes left of the current chunk.
    Chunk(u64),
    /// No chunk has begun.
    First,
    Over,
}

/// What comes along with a request.
pub struct Body<'a> {
    buffered: Buffered<'a>,
    length: Length,
    /// Nothing more comes: who was silent, or spoke nonsense, is not waited for again.
    broken: bool,
}

/// A line, and what was read of it too early.
struct Buffered<'a> {
    line: &'a mut Line,
    early: &'a mut Vec<u8>,
}

impl Read for Buffered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.early.is_empty() {
            return self.line.read(buffer);
        }
        let count = buffer.len().min(self.early.len());
        buffer[..count].copy_from_slice(&self.early[..count]);
        self.early.drain(..count);
        Ok(count)
    }
}

impl Buffered<'_> {
    /// A line of a chunked body, without its end.
    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            if self.early.is_empty() {
                let mut more = [0; 4096];
                let count = self.line.read(&mut more)?;
                self.early.extend(&more[..count]);
            }
            self.read_exact(&mut byte)?;
            if byte == *b"\n" && line.last() == Some(&b'\r') {
                line.pop();
                return String::from_utf8(line).map_err(|_| io::ErrorKind::InvalidData.into());
            }
            line.push(byte[0]);
            if line.len() > 1024 {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.broken {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let result = self.read_some(buffer);
        self.broken = result.is_err();
        result
    }
}

impl Body<'_> {
    fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.length {
                Length::Over | Length::Left(0) => return Ok(0),
                Length::Left(left) | Length::Chunk(left) if left > 0 => {
                    let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                    let count = self.buffered.read(&mut buffer[..most])?;
                    if count == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    let left = left - count as u64;
                    self.length =
                        if matches!(self.length, Length::Left(_)) { Length::Left(left) } else { Length::Chunk(left) };
                    return Ok(count);
                }
                Length::Chunk(_) => {
                    if !self.buffered.line()?.is_empty() {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                    self.next_chunk()?;
                }
                _ => self.next_chunk()?,
            }
        }
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        let line = self.buffered.line()?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let plain = !digits.is_empty() && digits.len() <= 15 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let size = if plain { u64::from_str_radix(digits, 16).ok() } else { None };
        match size.ok_or(io::ErrorKind::InvalidData)? {
            0 => {
                // Trailers, of which we want none.
                for _ in 0..MOST_FIELDS {
                    if self.buffered.line()?.is_empty() {
                        self.length = Length::Over;
                        return Ok(());
                    }
                }
                Err(io::ErrorKind::InvalidData.into())
            }
            size => {
                self.length = Length::Chunk(size);
                Ok(())
            }
        }
    }
}

/// Writes what is answered to who asked.
type WriteTo<'a> = Box<dyn FnOnce(&mut (dyn Write + Send)) -> io::Result<()> + 'a>;

/// What is answered.
pub enum Response<'a> {
    /// A status and a text.
    Text(u16, String),
    /// A status, a media type and bytes.
    Bytes(u16, &'static str, Vec<u8>),
    /// What this writes, as it comes. An error cuts the line, so that nobody takes it for the end.
    Stream(&'static str, WriteTo<'a>),
}

/// Says that there are too many.
pub fn refuse(mut stream: &TcpStream) {
    let _ = stream.set_nonblocking(false);
    let _ = stream.set_write_timeout(Some(Duration::from_secs(1)));
    let _ = stream.write_all(
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 21\r\nconnection: close\r\n\r\ntoo many connections\n",
    );
}

/// Serves a connection to its end.
pub fn serve(shared: &Shared, stream: TcpStream, from: SocketAddr) {
    let Ok(mut line) = Line::new(stream, shared.options.tls.as_ref(), shared.options.silence) else { return };
    let store = match Store::open(&shared.store) {
        Ok(store) => store,
        Err(error) => {
            (shared.tell)(&error.to_string());
            let _ = answer(&mut line, Response::Text(503, "the store cannot be opened\n".to_owned()), false, false);
            return;
        }
    };
    let mut early = Vec::new();
    loop {
        match request(shared, &store, &mut line, &mut early) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                if !matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
                ) {
                    (shared.tell)(&format!("{from}: {error}"));
                }
                return;
            }
        }
    }
}

/// Serves one request; says whether another may follow.
fn request(shared: &Shared, store: &Store, line: &mut Line, early: &mut Vec<u8>) -> io::Result<bool> {
    let Some(head) = read_head(shared, line, early)? else { return Ok(false) };
    let head = match head {
        Ok(head) => head,
        Err((status, words)) => {
            answer(line, Response::Text(status, words.to_owned()), false, false)?;
            return Ok(false);
        }
    };
    line.begin();
    line.set_silence(shared.options.silence);
    if head.expects && !matches!(head.length, Length::Left(0)) {
        line.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let body = Body { buffered: Buffered { line, early }, length: head.length, broken: false };
    let head_only = head.method == "HEAD";
    let mut request = Request { method: head.method, path: head.path, authorization: head.authorization, body };
    let offer = Offer { store, shared };
    let response = crate::routes::respond(&offer, &mut request);
    // What nobody read stands between this request and the next.
    let drained = io::copy(&mut (&mut request.body).take(MOST_DRAINED), &mut io::sink());
    let clean = drained.is_ok() && matches!(request.body.length, Length::Over | Length::Left(0));
    let keep = head.keep && clean && shared.stop.load(Ordering::Relaxed) == 0;
    answer(line, response, keep, head_only)?;
    Ok(keep)
}

struct Head {
    method: String,
    path: String,
    authorization: Option<String>,
    length: Length,
    keep: bool,
    expects: bool,
}

type Refusal = (u16, &'static str);

/// Reads a head; none if nobody asks any more.
fn read_head(shared: &Shared, line: &mut Line, early: &mut Vec<u8>) -> io::Result<Option<Result<Head, Refusal>>> {
    line.set_silence(LOOK);
    let mut since = Instant::now();
    let mut begun = !early.is_empty();
    loop {
        if let Some(end) = early.windows(4).position(|window| window == b"\r\n\r\n") {
            let head: Vec<u8> = early.drain(..end + 4).collect();
            return Ok(Some(parse_head(&head)));
        }
        if early.len() > MOST_HEAD {
            return Ok(Some(Err((431, "the head is too long\n"))));
        }
        let mut more = [0; 4096];
        match line.read(&mut more) {
            Ok(0) if early.is_empty() => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                if !begun {
                    (begun, since) = (true, Instant::now());
                }
                early.extend(&more[..count]);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                let stop = shared.stop.load(Ordering::Relaxed) != 0;
                if !begun && (stop || since.elapsed() > IDLE_TIME) {
                    return Ok(None);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if begun && since.elapsed() > HEAD_TIME {
            return Ok(Some(Err((408, "the head took too long\n"))));
        }
        if !begun {
            line.begin();
        }
    }
}

fn parse_head(bytes: &[u8]) -> Result<Head, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        _ => return Err((400, "this is no request\n")),
    }
    let version = parsed.version.unwrap_or_default();
    let target = parsed.path.unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let field = |name: &str| -> Result<Option<&str>, Refusal> {
        let mut found = parsed.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        let Some(first) = found.next() else { return Ok(None) };
        // Twice the same field is how one reader is made to see another request than the next.
        if found.next().is_some() {
            return Err((400, "a field stands there twice\n"));
        }
        std::str::from_utf8(first.value).map(|text| Some(text.trim())).map_err(|_| (400, "a field is no text\n"))
    };
    let length = match (field("content-length")?, field("transfer-encoding")?) {
        (None, None) => Length::Left(0),
        (Some(length), None) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => {
            Length::Left(length.parse().map_err(|_| (413, "the body is too long\n"))?)
        }
        (None, Some(coding)) if coding.eq_ignore_ascii_case("chunked") && version == 1 => Length::First,
        _ => return Err((400, "the body has no clear length\n")),
    };
    let connection = field("connection")?.unwrap_or_default().to_ascii_lowercase();
    Ok(Head {
        method: parsed.method.unwrap_or_default().to_owned(),
        path,
        authorization: field("authorization")?.map(str::to_owned),
        length,
        keep: version == 1 && !connection.split(',').any(|word| word.trim() == "close"),
        expects: field("expect")?.is_some_and(|text| text.eq_ignore_ascii_case("100-continue")),
    })
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        507 => "Insufficient Storage",
        _ => "Internal Server Error",
    }
}

fn answer(line: &mut Line, response: Response<'_>, keep: bool, head_only: bool) -> io::Result<()> {
    line.begin();
    let connection = if keep { "keep-alive" } else { "close" };
    let start = |status: u16, kind: &str, length: &str| {
        let challenge = if status == 401 { "www-authenticate: Bearer\r\n" } else { "" };
        let words = reason(status);
        format!(
            "HTTP/1.1 {status} {words}\r\ncontent-type: {kind}\r\n{length}\r\n{challenge}connection: {connection}\r\n\r\n"
        )
    };
    let (status, kind, bytes) = match response {
        Response::Text(status, text) => (status, "text/plain; charset=utf-8", text.into_bytes()),
        Response::Bytes(status, kind, bytes) => (status, kind, bytes),
        Response::Stream(kind, write) => {
            line.write_all(start(200, kind, "transfer-encoding: chunked").as_bytes())?;
            if head_only {
                return line.flush();
            }
            let mut chunks = Chunks { line, buffer: Vec::with_capacity(CHUNK) };
            write(&mut chunks)?;
            chunks.send()?;
            line.write_all(b"0\r\n\r\n")?;
            return line.flush();
        }
    };
    line.write_all(start(status, kind, &format!("content-length: {}", bytes.len())).as_bytes())?;
    if !head_only {
        line.write_all(&bytes)?;
    }
    line.flush()
}

const CHUNK: usize = 128 << 10;

/// Writes chunks of a decent size.
struct Chunks<'a> {
    line: &'a mut Line,
    buffer: Vec<u8>,
}

impl Chunks<'_> {
    fn send(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.line.write_all(format!("{:x}\r\n", self.buffer.len()).as_bytes())?;
            self.line.write_all(&self.buffer)?;
            self.line.write_all(b"\r\n")?;
            self.buffer.clear();
        }
        Ok(())
    }
}

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend(bytes);
        if self.buffer.len() >= CHUNK {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()?;
        self.line.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(head: &str) -> Result<Length, u16> {
        parse_head(head.as_bytes()).map(|head| head.length).map_err(|(status, _)| status)
    }

    #[test]
    fn a_body_has_one_clear_length() {
        let head = |fields: &str| length(&format!("POST /x HTTP/1.1\r\nhost: h\r\n{fields}\r\n"));
        assert_eq!(head(""), Ok(Length::Left(0)));
        assert_eq!(head("Content-Length: 12\r\n"), Ok(Length::Left(12)));
        assert_eq!(head("transfer-encoding: Chunked\r\n"), Ok(Length::First));
        for bad in [
            "content-length: 1\r\ncontent-length: 1\r\n",
            "content-length: 1\r\ntransfer-encoding: chunked\r\n",
            "content-length: +1\r\n",
            "content-length: \r\n",
            "transfer-encoding: gzip, chunked\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        ] {
            assert_eq!(head(bad), Err(400), "{bad}");
        }
        assert_eq!(head(&format!("content-length: {}9\r\n", u64::MAX)), Err(413));
        assert_eq!(length("POST /x HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n"), Err(400));
        assert_eq!(length("\0\r\n\r\n"), Err(400));
    }
}
