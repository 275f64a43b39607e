//! Offers a store to peers: `forge serve`. What it says is drawn in `docs/formats/peer.md`.
//!
//! A thread for each connection, and no more connections than were allowed: a store's work is disk and hashing, and who waits for a slow
//! line waits in the kernel. Everything that comes is bounded (heads, questions, frames, time) and hashed before it is kept.

mod connection;
mod line;
mod routes;
mod tokens;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use store::signing::NamedKey;

pub use line::{Tls, TlsError};
pub use tokens::{Access, Tokens, TokensError};

/// How a server behaves.
pub struct Options {
    /// Where it listens.
    pub address: SocketAddr,
    /// Who may do what.
    pub tokens: Tokens,
    /// Its certificate and key; plain HTTP without.
    pub tls: Option<Tls>,
    /// Signs what the store itself knows of its steps.
    pub key: Option<NamedKey>,
    /// Connections at a time.
    pub connections: usize,
    /// How long a client may be silent within a request.
    pub silence: Duration,
    /// How long requests may take to end once the server is to stop.
    pub grace: Duration,
}

/// What went wrong before anything was served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct ListenError {
    /// Where.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    shared: Arc<Shared>,
}

/// What all connections use.
pub(crate) struct Shared {
    pub store: PathBuf,
    pub options: Options,
    /// Not zero once the server is to stop.
    pub stop: Arc<AtomicI32>,
    open: AtomicUsize,
    /// Told of what is worth a line.
    pub tell: Box<dyn Fn(&str) + Send + Sync>,
}

impl Server {
    /// Listens, and serves nobody yet. Each connection opens the store at this path for itself: what it found there or put there
    /// is kept from collection as long as it lasts, and no longer. `stop` ends it when it is not zero.
    pub fn listen(
        store: PathBuf,
        options: Options,
        stop: Arc<AtomicI32>,
        tell: impl Fn(&str) + Send + Sync + 'static,
    ) -> Result<Self, ListenError> {
        let failed = |source| ListenError { address: options.address, source };
        let listener = TcpListener::bind(options.address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let shared = Shared { store, options, stop, open: AtomicUsize::new(0), tell: Box::new(tell) };
        Ok(Self { listener, shared: Arc::new(shared) })
    }

    /// Where it listens, with the port that it was given.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is to stop; then lets requests end, as long as its grace lasts. Says how many did not.
    pub fn run(&self) -> usize {
        while self.shared.stop.load(Ordering::Relaxed) == 0 {
            let mut waiting = [PollFd::new(&self.listener, PollFlags::IN)];
            let _ = poll(&mut waiting, Some(&Timespec { tv_sec: 0, tv_nsec: 100_000_000 }));
            // All that wait: a hundred clients come at once.
            while let Ok((stream, from)) = self.listener.accept() {
                self.serve(stream, from);
            }
        }
        let until = Instant::now() + self.shared.options.grace;
        while self.shared.open.load(Ordering::SeqCst) > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.shared.open.load(Ordering::SeqCst)
    }

    fn serve(&self, stream: TcpStream, from: SocketAddr) {
        let shared = Arc::clone(&self.shared);
        if shared.open.fetch_add(1, Ordering::SeqCst) >= shared.options.connections {
            shared.open.fetch_sub(1, Ordering::SeqCst);
            connection::refuse(&stream);
            return;
        }
        let started = std::thread::Builder::new().name("connection".to_owned()).spawn(move || {
            let leaving = Leaving(&shared.open);
            connection::serve(&shared, stream, from);
            drop(leaving);
        });
        if started.is_err() {
            self.shared.open.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Counts a connection out, however its thread ends.
struct Leaving<'a>(&'a AtomicUsize);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A certificate and its key, in PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those that lead to an authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}
