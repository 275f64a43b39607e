//! Ports of a closed network that the host's side reaches.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use store::Port;

/// A port of the host's side that stands for one inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The address of this machine that is listened on.
    pub address: IpAddr,
    /// The port there.
    pub outside: u16,
    /// The port inside, and its protocol.
    pub inside: Port,
}

impl Published {
    /// Where the host's side connects to.
    pub fn listens_on(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.outside)
    }
}

impl fmt::Display for Published {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}->{}", self.listens_on(), self.inside)
    }
}
