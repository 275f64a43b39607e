//! TCP connections that are passed on, each as two halves with a buffer of their own: the end of one direction is not that of the other.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// Most connections at a time, with two descriptors each.
const MOST: usize = 500;
/// How long nobody is accepted after that has failed for want of something: whoever waits would be reported at once again.
const REST: Duration = Duration::from_millis(50);
/// What is read at a time.
const BUFFER: usize = 64 * 1024;

/// All that are open.
pub struct Streams {
    pairs: Vec<Pair>,
    most: usize,
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
    /// None yet, and never more than so many open files allow; one at least.
    pub fn within(files: usize) -> Self {
        Self { pairs: Vec::new(), most: (files / 2).clamp(1, MOST) }
    }

    /// Whether another may be accepted.
    pub fn has_room(&self) -> bool {
        self.pairs.len() < self.most
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
        while self.has_room() {
            let outside = match listener.accept() {
                Ok((outside, _)) => outside,
                Err(error) if is_later(&error) || error.kind() == io::ErrorKind::ConnectionAborted => return,
                Err(_) => return std::thread::sleep(REST),
            };
            let places = [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))];
            let Some(inside) = places.into_iter().find_map(|place| connect(place).ok()) else { continue };
            let ready = outside.set_nonblocking(true).is_ok()
                && [&outside, &inside].into_iter().all(|stream| stream.set_nodelay(true).is_ok());
            if ready {
                self.pairs.push(Pair { outside, inside, inward: Half::default(), outward: Half::default() });
            }
        }
    }
}

/// Connects without waiting. On a loopback a connection is made or refused at once, but where the program's own queue is full: then the
/// kernel asks again and again, and until that succeeds nothing can be read or written.
fn connect(place: SocketAddr) -> io::Result<TcpStream> {
    let family = if place.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &place) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
        Err(error) => Err(error.into()),
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
