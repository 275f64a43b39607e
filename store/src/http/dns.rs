//! What addresses a host's name has: `/etc/hosts`, then the name servers of `/etc/resolv.conf`.
//!
//! `getaddrinfo` of a static C library would load the machine's NSS modules into a program that was not linked with them, and those
//! may be of another version. So forge asks by itself, as resolv.conf(5) and RFC 1035 say: A and AAAA at once from one socket, the
//! next server when one is silent or refuses, TCP where an answer does not fit. `localhost` is this machine whatever anyone says
//! (RFC 6761).

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use message::{Answer, Kind};

mod message;
#[cfg(test)]
mod tests;

/// As many as the C library asks.
const MOST_SERVERS: usize = 3;
/// resolv.conf(5): six directories in older C libraries, no bound in newer ones. This is ours.
const MOST_SEARCHED: usize = 16;
/// The rest of a larger file is not looked at.
const LARGEST_FILE: u64 = 8 << 20;

/// What `/etc/resolv.conf` says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Configuration {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    /// A name with fewer dots is looked for in the searched domains first.
    dots: usize,
    timeout: Duration,
    attempts: u32,
    rotate: bool,
}

/// Why a name has no address.
#[derive(Debug)]
pub enum Failure {
    /// Nobody knows it.
    Unknown,
    /// Nobody answered.
    Silent(io::Error),
}

/// The addresses of a host, in the order in which they are tried. `root` is where `/etc` is; `most` is the time for all of it.
pub fn addresses(root: &Path, host: &str, most: Duration) -> Result<Vec<IpAddr>, Failure> {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if !message::is_name(&name) {
        return Err(Failure::Unknown);
    }
    let found = in_hosts(&read(&root.join("etc/hosts")), &name);
    if !found.is_empty() {
        return Ok(found);
    }
    if name == "localhost" || name.ends_with(".localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let configuration = Configuration::parse(&read(&root.join("etc/resolv.conf")));
    let deadline = Instant::now() + most;
    for candidate in configuration.candidates(&name, host.ends_with('.')) {
        match configuration.ask(&candidate, deadline) {
            Ok(addresses) if !addresses.is_empty() => return Ok(addresses),
            Ok(_) | Err(Failure::Unknown) => {}
            // The next name would be asked of the same silent servers.
            Err(silent) => return Err(silent),
        }
    }
    Err(Failure::Unknown)
}

/// A file that is missing says nothing.
fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        let _ = file.take(LARGEST_FILE).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// hosts(5): an address, then its names.
fn in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(address) = words.next().and_then(address) else { continue };
        let is_named = words.any(|word| word.strip_suffix('.').unwrap_or(word).eq_ignore_ascii_case(name));
        if is_named && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

/// An address, without the interface that may follow a link-local one.
fn address(word: &str) -> Option<IpAddr> {
    word.split('%').next()?.parse().ok()
}

impl Configuration {
    /// Reads resolv.conf(5). What is not understood is skipped, as the C library does.
    fn parse(text: &str) -> Self {
        let mut it = Self {
            servers: Vec::new(),
            search: Vec::new(),
            dots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            rotate: false,
        };
        for line in text.lines() {
            let mut words = line.split(['#', ';']).next().unwrap_or_default().split_whitespace();
            match words.next() {
                Some("nameserver") if it.servers.len() < MOST_SERVERS => {
                    it.servers.extend(words.next().and_then(address).map(|address| SocketAddr::new(address, 53)));
                }
                // The last of `domain` and `search` holds.
                Some("domain" | "search") => {
                    let domains = words.map(|domain| domain.trim_end_matches('.').to_ascii_lowercase());
                    it.search = domains.filter(|domain| message::is_name(domain)).take(MOST_SEARCHED).collect();
                }
                Some("options") => words.for_each(|word| it.option(word)),
                _ => {}
            }
        }
        if it.servers.is_empty() {
            // As the C library: the machine itself.
            it.servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53));
        }
        it
    }

    fn option(&mut self, word: &str) {
        let (option, value) = word.split_once(':').unwrap_or((word, ""));
        match (option, value.parse::<u32>().ok()) {
            ("ndots", Some(dots)) => self.dots = dots.min(15) as usize,
            ("timeout", Some(seconds)) => self.timeout = Duration::from_secs(u64::from(seconds.clamp(1, 30))),
            ("attempts", Some(attempts)) => self.attempts = attempts.clamp(1, 5),
            ("rotate", _) => self.rotate = true,
            _ => {}
        }
    }

    /// The full names that a name may stand for.
    fn candidates(&self, name: &str, is_full: bool) -> Vec<String> {
        if is_full {
            return vec![name.to_owned()];
        }
        let searched = self.search.iter().map(|domain| format!("{name}.{domain}")).filter(|it| message::is_name(it));
        let own = [name.to_owned()].into_iter();
        match name.matches('.').count() >= self.dots {
            true => own.chain(searched).collect(),
            false => searched.chain(own).collect(),
        }
    }

    /// Asks every server in turn until one knows.
    fn ask(&self, name: &str, deadline: Instant) -> Result<Vec<IpAddr>, Failure> {
        let mut last = io::Error::from(io::ErrorKind::TimedOut);
        let first = if self.rotate { usize::from(message::random()) % self.servers.len() } else { 0 };
        for _ in 0..self.attempts {
            for number in 0..self.servers.len() {
                let server = self.servers[(first + number) % self.servers.len()];
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(Failure::Silent(last));
                }
                match ask_server(server, name, self.timeout.min(left)) {
                    Err(Failure::Silent(error)) => last = error,
                    answer => return answer,
                }
            }
        }
        Err(Failure::Silent(last))
    }
}

/// Both questions to one server, over UDP from a port that the kernel draws.
fn ask_server(server: SocketAddr, name: &str, timeout: Duration) -> Result<Vec<IpAddr>, Failure> {
    let silent = Failure::Silent;
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).map_err(silent)?;
    socket.connect(server).map_err(silent)?;
    let kinds = [Kind::A, Kind::Aaaa];
    let numbers = [message::random(), message::random()];
    for (number, kind) in numbers.iter().zip(kinds) {
        socket.send(&message::question(*number, name, kind)).map_err(silent)?;
    }
    let deadline = Instant::now() + timeout;
    let mut answers: [Option<Answer>; 2] = [None, None];
    let mut bytes = [0; 4096];
    while answers.iter().any(Option::is_none) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        socket.set_read_timeout(Some(left)).map_err(silent)?;
        let length = match socket.recv(&mut bytes) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // Nothing listens there (ECONNREFUSED), or it is too late.
            Err(error) if answers.iter().all(Option::is_none) => return Err(silent(error)),
            Err(_) => break,
        };
        for (place, (number, kind)) in answers.iter_mut().zip(numbers.iter().zip(kinds)) {
            // What answers another question is someone else's.
            if let Some(answer) = message::answer(&bytes[..length], *number, name, kind) {
                place.get_or_insert(answer);
            }
        }
    }
    for (place, kind) in answers.iter_mut().zip(kinds) {
        if matches!(place, Some(Answer::Cut)) {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
            *place = Some(ask_by_tcp(server, name, kind, left).map_err(silent)?);
        }
    }
    join(answers)
}

/// An answer that does not fit a datagram (RFC 7766): two bytes of length, then the message.
fn ask_by_tcp(server: SocketAddr, name: &str, kind: Kind, timeout: Duration) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&server, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let number = message::random();
    let question = message::question(number, name, kind);
    let mut framed = (question.len() as u16).to_be_bytes().to_vec();
    framed.extend(question);
    stream.write_all(&framed)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes)?;
    message::answer(&bytes, number, name, kind).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// What both answers say together. IPv4 first: a host that has an IPv6 address and no way there is common, the other is rare.
fn join(answers: [Option<Answer>; 2]) -> Result<Vec<IpAddr>, Failure> {
    let silent = || Err(Failure::Silent(io::ErrorKind::TimedOut.into()));
    if answers.iter().all(Option::is_none) {
        return silent();
    }
    let (mut addresses, mut unknown, mut refused) = (Vec::new(), false, false);
    for answer in answers.into_iter().flatten() {
        match answer {
            Answer::Addresses(found) => addresses.extend(found),
            Answer::Unknown => unknown = true,
            Answer::Refused | Answer::Cut => refused = true,
        }
    }
    match (addresses.is_empty(), unknown, refused) {
        // The name is there; it may have no address.
        (false, ..) | (true, false, false) => Ok(addresses),
        (true, true, _) => Err(Failure::Unknown),
        (true, false, true) => Err(Failure::Silent(io::Error::other("the name server refused to answer"))),
    }
}
