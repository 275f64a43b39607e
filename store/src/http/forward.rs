//! Plain HTTP through a proxy, as RFC 9112 (section 3.2.2) wants it: `GET http://host/path`.
//!
//! ureq asks every proxy for a tunnel (`CONNECT`), also for plain HTTP. Proxies of companies and caches of packages refuse tunnels to
//! port 80. So a request is sent to the proxy itself, with the origin in its `Host`, and its first line is completed on its way out.

use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// Completes the first line of what goes out.
#[derive(Debug)]
pub struct Forward;

/// A connection to a proxy.
#[derive(Debug)]
pub struct Forwarded<T>(T);

impl<In: Transport> Connector<In> for Forward {
    type Out = Forwarded<In>;

    fn connect(&self, _: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(Forwarded))
    }
}

impl<T: Transport> Transport for Forwarded<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let output = self.0.buffers().output();
        let added = match output.get(..amount).and_then(origin) {
            None => 0,
            Some((target, origin)) => {
                let (end, length) = (amount + origin.len(), output.len());
                let room = output.get_mut(..end).ok_or(Error::LargeResponseHeader(end, length))?;
                room.copy_within(target..amount, target + origin.len());
                room[target..target + origin.len()].copy_from_slice(origin.as_bytes());
                origin.len()
            }
        };
        self.0.transmit_output(amount + added, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.0.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }
}

/// Where the target of the first line begins, if what goes out is a head: bodies go out the same way.
fn target(output: &[u8]) -> Option<usize> {
    let line = output.split(|byte| *byte == b'\r').next()?;
    let method = line.iter().position(|byte| *byte == b' ')?;
    let is_head = line.ends_with(b" HTTP/1.1")
        && line[..method].iter().all(u8::is_ascii_uppercase)
        && line.get(method + 1) == Some(&b'/');
    is_head.then_some(method + 1)
}

/// The origin that the head of a request is for, `http://host:port`.
fn origin(output: &[u8]) -> Option<(usize, String)> {
    let target = target(output)?;
    // A body may follow the head at once.
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(output.len());
    let head = std::str::from_utf8(&output[..end]).ok()?;
    let field = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("host").then(|| value.trim())
    })?;
    Some((target, format!("http://{field}")))
}
