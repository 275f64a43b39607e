//! TCP connections that are passed on, each as two halves with a buffer of their own: the end of one direction is not that of the other.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

/// Most connections at a time; with two descriptors each, below the usual limit of open files.
const MOST: usize = 500;
/// How long a program may take to have room in its queue.
const PATIENCE: Duration = Duration::from_secs(1);
/// What is read at a time.
const BUFFER: usize = 64 * 1024;

/// All that are open.
#[derive(Default)]
pub struct Streams {
    pairs: Vec<Pair>,
}

struct Pair {
    outside: TcpStream,
    inside: TcpStream,
    inward: Half,
    outward: Half,
}

/// One direction.
#[derive(Default)]
struct Half {
    bytes: Vec<u8>,
    written: usize,
    /// Nothing more comes.
    ended: bool,
    /// The other side knows.
    told: bool,
}

impl Streams {
    /// Whether another may be accepted.
    pub fn has_room(&self) -> bool {
        self.pairs.len() < MOST
    }

    /// Whether those outside have heard all that those inside said, and that it ended.
    pub fn are_done(&self) -> bool {
        self.pairs.iter().all(|pair| pair.outward.told)
    }

    /// Adds what is waited for; gives which connection each entry is about. One that waits for nothing has no entry: the kernel would
    /// report again and again that its other side has gone.
    pub fn wanted<'a>(&'a self, polled: &mut Vec<PollFd<'a>>) -> Vec<usize> {
        let mut about = Vec::new();
        for (index, pair) in self.pairs.iter().enumerate() {
            let events = |reads: &Half, writes: &Half| {
                let mut events = PollFlags::empty();
                events.set(PollFlags::IN, reads.is_empty() && !reads.ended);
                events.set(PollFlags::OUT, !writes.is_empty());
                events
            };
            for (socket, events) in [
                (&pair.outside, events(&pair.inward, &pair.outward)),
                (&pair.inside, events(&pair.outward, &pair.inward)),
            ] {
                if !events.is_empty() {
                    polled.push(PollFd::from_borrowed_fd(socket.as_fd(), events));
                    about.push(index);
                }
            }
        }
        about
    }

    /// Passes on what has come, on connections that are ready.
    pub fn proceed(&mut self, ready: &BTreeSet<usize>) {
        let mut index = 0;
        self.pairs.retain_mut(|pair| {
            let is_ready = ready.contains(&index);
            index += 1;
            !is_ready
                || (pair.inward.pass(&pair.outside, &pair.inside).is_ok()
                    && pair.outward.pass(&pair.inside, &pair.outside).is_ok()
                    && !(pair.inward.told && pair.outward.told))
        });
    }

    /// Accepts those who wait, and connects each to the port inside. Where nobody listens there, they are turned away.
    pub fn accept(&mut self, listener: &TcpListener, port: u16) {
        while self.has_room()
            && let Ok((outside, _)) = listener.accept()
        {
            let places = [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))];
            // On a loopback a connection is made or refused at once, but where the program's own queue is full.
            let connect = |place| TcpStream::connect_timeout(place, PATIENCE).ok();
            let Some(inside) = places.iter().find_map(connect) else { continue };
            let ready = [&outside, &inside]
                .into_iter()
                .all(|stream| stream.set_nonblocking(true).is_ok() && stream.set_nodelay(true).is_ok());
            if ready {
                self.pairs.push(Pair { outside, inside, inward: Half::default(), outward: Half::default() });
            }
        }
    }
}

impl Half {
    fn is_empty(&self) -> bool {
        self.written == self.bytes.len()
    }

    /// Reads what is there and writes what goes. Whoever reads no more may still have something to say: that ends this direction. Whoever
    /// can no longer be read has gone: that error is the end of both.
    fn pass(&mut self, mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
        if self.is_empty() && !self.ended {
            self.bytes.resize(BUFFER, 0);
            match from.read(&mut self.bytes) {
                Ok(length) => {
                    self.ended = length == 0;
                    self.bytes.truncate(length);
                }
                Err(error) if is_later(&error) => self.bytes.clear(),
                Err(error) => return Err(error),
            }
            self.written = 0;
        }
        while !self.is_empty() {
            match to.write(&self.bytes[self.written..]) {
                Ok(length) => self.written += length,
                Err(error) if is_later(&error) => break,
                Err(_) => {
                    (self.bytes, self.written) = (Vec::new(), 0);
                    (self.ended, self.told) = (true, true);
                }
            }
        }
        if self.ended && self.is_empty() && !self.told {
            self.told = true;
            // Whoever has gone already need not be told.
            let _ = to.shutdown(Shutdown::Write);
        }
        Ok(())
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
