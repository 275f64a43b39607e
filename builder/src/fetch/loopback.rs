//! A tiny HTTP/1.1 server on the loopback interface, for tests: it serves what it is told, and can lie, cut, stall, and redirect.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// How a path is answered.
#[derive(Debug, Clone)]
pub enum Page {
    /// With these bytes; ranges are understood.
    Bytes(Vec<u8>),
    /// With these bytes and no `content-length`: their end is the connection's.
    Unsized(Vec<u8>),
    /// With these bytes, ranges ignored.
    Whole(Vec<u8>),
    /// Every answer ends after so many bytes, though all were promised.
    Cut(Vec<u8>, usize),
    /// With ranges ignored, and the first answer cut after so many bytes.
    CutOnce(Vec<u8>, usize),
    /// With a status and nothing else.
    Status(u16),
    /// With this status so many times, then with the bytes.
    Flaky(u16, usize, Vec<u8>),
    /// With a redirect.
    Redirect(String),
}

/// Serves until dropped.
pub struct Loopback {
    address: SocketAddr,
    pages: Arc<Mutex<BTreeMap<String, Page>>>,
    asked: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
}

impl Loopback {
    /// A server with nothing on it.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            pages: Arc::default(),
            asked: Arc::default(),
            stop: Arc::default(),
        };
        let (pages, asked, stop) = (Arc::clone(&server.pages), Arc::clone(&server.asked), Arc::clone(&server.stop));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (pages, asked) = (Arc::clone(&pages), Arc::clone(&asked));
                // A client that goes away is no failure of a test.
                std::thread::spawn(move || _ = stream.and_then(|stream| answer(&stream, &pages, &asked)));
            }
        });
        server
    }

    /// Puts a page up; the path begins with a slash.
    pub fn put(&self, path: &str, page: Page) -> String {
        self.pages.lock().unwrap().insert(path.to_owned(), page);
        self.url(path)
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Heads of the requests so far, a text each.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

fn answer(
    stream: &TcpStream,
    pages: &Mutex<BTreeMap<String, Page>>,
    asked: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut head = String::new();
    let mut reader = BufReader::new(stream);
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
    asked.lock().unwrap().push(head.clone());
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let range = head
        .to_ascii_lowercase()
        .split("range: bytes=")
        .nth(1)
        .and_then(|rest| rest.split('-').next().and_then(|number| number.parse::<usize>().ok()));
    let page = {
        let mut pages = pages.lock().unwrap();
        let page = pages.get(&path).cloned().unwrap_or(Page::Status(404));
        match &page {
            Page::CutOnce(bytes, _) => _ = pages.insert(path, Page::Whole(bytes.clone())),
            Page::Flaky(_, 1, bytes) => _ = pages.insert(path, Page::Bytes(bytes.clone())),
            Page::Flaky(status, times, bytes) => _ = pages.insert(path, Page::Flaky(*status, times - 1, bytes.clone())),
            _ => {}
        }
        page
    };
    let mut stream = stream;
    let mut send = |status: u16, fields: &str, bytes: &[u8]| {
        write!(stream, "HTTP/1.1 {status} x\r\nconnection: close\r\n{fields}\r\n")?;
        stream.write_all(bytes)
    };
    let length = |bytes: &[u8]| format!("content-length: {}\r\n", bytes.len());
    match (page, range) {
        (Page::Bytes(bytes), Some(from)) if from < bytes.len() => {
            let fields = format!("content-range: bytes {from}-{}/{}\r\n", bytes.len() - 1, bytes.len());
            send(206, &(length(&bytes[from..]) + &fields), &bytes[from..])
        }
        (Page::Cut(bytes, at), Some(from)) if from < bytes.len() => {
            let fields = format!("content-range: bytes {from}-{}/{}\r\n", bytes.len() - 1, bytes.len());
            send(206, &(length(&bytes[from..]) + &fields), &bytes[from..bytes.len().min(from + at)])
        }
        (Page::Bytes(bytes) | Page::Whole(bytes), _) => send(200, &length(&bytes), &bytes),
        (Page::Unsized(bytes), _) => send(200, "", &bytes),
        (Page::Cut(bytes, at) | Page::CutOnce(bytes, at), _) => send(200, &length(&bytes), &bytes[..at]),
        (Page::Status(status) | Page::Flaky(status, ..), _) => send(status, "content-length: 0\r\n", b""),
        (Page::Redirect(to), _) => send(302, &format!("location: {to}\r\ncontent-length: 0\r\n"), b""),
    }
}
