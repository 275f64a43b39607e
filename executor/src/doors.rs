//! Sockets inside a closed network that the caller answers: so a command reaches what the caller lets it reach, and by no other way.
//!
//! Sockets belong for ever to the network namespace that they were made in. Process 1 makes them there before it gives up its power, and
//! hands them out; what comes in at them is the caller's matter. The opposite way is [`crate::published`].

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::mpsc::Sender;

/// Which sockets, and who gets them.
#[derive(Debug, Clone)]
pub struct Doors {
    /// TCP ports: each is listened on at every address inside, and all of 127.0.0.0/8 is there. A connection's own address tells which
    /// was meant.
    pub ports: Vec<u16>,
    /// Gets them, before the command starts.
    pub opened: Sender<Opened>,
}

/// What the caller answers for as long as it likes; it is of no use once the run is over.
#[derive(Debug)]
pub struct Opened {
    /// In the order of [`Doors::ports`].
    pub listeners: Vec<TcpListener>,
    /// At port 53 of 127.0.0.1, where names are asked for.
    pub names: UdpSocket,
}

/// Where names are asked for.
const NAMES: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 53);

impl Doors {
    /// How many sockets there are.
    pub(crate) fn count(&self) -> usize {
        self.ports.len() + 1
    }

    /// Makes one of them, in the network namespace that the caller is in.
    pub(crate) fn open(&self, index: usize) -> std::io::Result<OwnedFd> {
        match self.ports.get(index) {
            Some(port) => TcpListener::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, *port)).map(OwnedFd::from),
            None => UdpSocket::bind(NAMES).map(OwnedFd::from),
        }
    }

    /// Gives all of them to whom they are for. That nobody wants them any more is no failure of the run.
    pub(crate) fn give(&self, mut sockets: Vec<OwnedFd>) {
        if let Some(names) = sockets.pop() {
            let listeners = sockets.into_iter().map(TcpListener::from).collect();
            let _ = self.opened.send(Opened { listeners, names: UdpSocket::from(names) });
        }
    }
}
