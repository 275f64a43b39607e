//! Stands at the sockets inside a step's closed network: answers what names are asked for, and passes connections on to hosts that the
//! step names.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use executor::{Content, Doors};
use rustix::event::{PollFd, PollFlags};
use store::http::{Client, Patience, addresses, split};

use super::names::{self, Answer};
use super::{ATTRIBUTE, Hosts};
use crate::{Builder, Error, Result};

/// Most connections of a step at a time; who comes beyond waits in the kernel's queue.
const MOST_CONNECTIONS: usize = 128;
/// Most names of a step: each that is asked for takes an address.
const MOST_NAMES: usize = 4096;
/// How long a host may take to be found and to take a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest question that there can be over UDP without further agreement (RFC 1035, 4.2.1), and some more.
const LONGEST_QUESTION: usize = 4096;

/// While it is there, what the step names can be reached from inside.
pub struct Doorkeeper {
    shared: Arc<Shared>,
    /// Closed to end the thread.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    hosts: Hosts,
    /// Where `/etc` of this machine is.
    machine: PathBuf,
    /// Knows this machine's proxies.
    client: Client,
    /// What the step prints to: it is told there of what is closed to it.
    log: PathBuf,
    state: Mutex<State>,
    ended: AtomicBool,
}

#[derive(Default)]
struct State {
    /// In the order of their addresses.
    names: Vec<String>,
    /// Both ends of what is open, by number: one descriptor each, of which a process usually has 1,024.
    connections: BTreeMap<u64, Arc<[TcpStream; 2]>>,
    last: u64,
    /// How many are open or being made.
    count: usize,
    refused: Vec<String>,
}

impl Doorkeeper {
    /// Begins to serve as soon as the sandbox that gets these sockets and files has made them.
    pub fn start(builder: &Builder<'_>, hosts: &Hosts, log: &Path) -> Result<(Self, Doors, Vec<Content>)> {
        let (opened, comes) = mpsc::channel::<executor::doors::Opened>();
        let doors = Doors { ports: hosts.listened(), opened };
        let shared = Arc::new(Shared::new(builder, hosts, log));
        let contents = shared.contents();
        let (ends, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|error| Error::file("make a pipe for", log)(error.into()))?;
        let serving = Arc::clone(&shared);
        let thread = thread::Builder::new().spawn(move || {
            // The sender goes with the sandbox: where that comes to nothing, nothing comes.
            if let Ok(opened) = comes.recv() {
                serve(&serving, &opened.listeners, &opened.names, &ends);
            }
        });
        let thread = thread.map_err(Error::file("start a thread for", log))?;
        Ok((Self { shared, stop: Some(stop), thread: Some(thread) }, doors, contents))
    }
}

impl Drop for Doorkeeper {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        drop(self.stop.take());
        for ends in self.shared.state().connections.values() {
            ends.iter().for_each(|end| _ = end.shutdown(Shutdown::Both));
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn new(builder: &Builder<'_>, hosts: &Hosts, log: &Path) -> Self {
        Self {
            hosts: hosts.clone(),
            machine: builder.machine.file("/"),
            client: Client::new(builder.machine.environment.clone(), Patience::default()),
            log: log.to_owned(),
            state: Mutex::new(State { names: hosts.names().map(str::to_owned).collect(), ..State::default() }),
            ended: AtomicBool::new(false),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the step finds out what is there.
    fn contents(&self) -> Vec<Content> {
        let mut hosts = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
        for (index, name) in self.state().names.iter().enumerate() {
            if name != "localhost" && name.parse::<Ipv4Addr>().is_err() {
                hosts.push_str(&format!("{} {name}\n", address_of(index)));
            }
        }
        let services =
            "ftp 21/tcp\nssh 22/tcp\ndomain 53/udp\nhttp 80/tcp\nhttps 443/tcp\nrsync 873/tcp\ngit 9418/tcp\n";
        [
            ("/etc/hosts", hosts.as_str()),
            ("/etc/resolv.conf", "nameserver 127.0.0.1\n"),
            ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\nservices: files\n"),
            ("/etc/services", services),
        ]
        .map(|(target, text)| Content { target: target.into(), bytes: text.as_bytes().to_vec() })
        .into()
    }

    /// The address inside of a name; none if it is not to be had.
    fn address(&self, name: &str) -> Option<Ipv4Addr> {
        if !self.hosts.allows_name(name) {
            return None;
        }
        if name == "localhost" {
            return Some(Ipv4Addr::LOCALHOST);
        }
        let mut state = self.state();
        let index = match state.names.iter().position(|known| known == name) {
            Some(index) => index,
            None if state.names.len() < MOST_NAMES => {
                state.names.push(name.to_owned());
                state.names.len() - 1
            }
            None => return None,
        };
        Some(address_of(index))
    }

    /// The name that an address inside stands for.
    fn name(&self, address: IpAddr) -> Option<String> {
        let IpAddr::V4(address) = address else { return None };
        let number = u32::from(address);
        match number.checked_sub(u32::from(FIRST)) {
            Some(index) if number <= u32::from(LAST) => self.state().names.get(index as usize).cloned(),
            // Written as a number by who knows why; `localhost` is named so too.
            _ if address == Ipv4Addr::LOCALHOST && self.hosts.allows_name("localhost") => Some("localhost".to_owned()),
            _ => Some(address.to_string()),
        }
    }

    /// Tells the step, once, that something is closed to it.
    fn refuse(&self, what: &str) {
        let mut state = self.state();
        if state.refused.len() >= 100 || state.refused.iter().any(|told| told == what) {
            return;
        }
        state.refused.push(what.to_owned());
        drop(state);
        let line = format!(
            "forge: this step asked for {what}, which it does not name (`hosts` of forge.run, `{ATTRIBUTE}` of a derivation)\n"
        );
        // What cannot be told is refused none the less.
        let _ = OpenOptions::new().append(true).open(&self.log).and_then(|mut log| log.write_all(line.as_bytes()));
    }

    /// Connects to a host of the network.
    fn connect(&self, name: &str, port: u16) -> io::Result<TcpStream> {
        let scheme = if port == 80 { "http" } else { "https" };
        let Some(proxy) = self.client.proxy_for(&format!("{scheme}://{name}:{port}/")) else {
            return self.reach(name, port);
        };
        let proxy = if proxy.contains("://") { proxy } else { format!("http://{proxy}") };
        let parts = split(&proxy).ok_or_else(|| io::Error::other("the proxy is none of HTTP"))?;
        let at = parts.host.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(80);
        let mut stream = self.reach(parts.host_name(), at)?;
        let authorization =
            parts.authorization().map_or_else(String::new, |value| format!("Proxy-Authorization: {value}\r\n"));
        write!(stream, "CONNECT {name}:{port} HTTP/1.1\r\nHost: {name}:{port}\r\n{authorization}\r\n")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut head = Vec::new();
        let mut byte = [0];
        // What follows belongs to the tunnel: so one by one.
        while !head.ends_with(b"\r\n\r\n") && head.len() < 16 * 1024 {
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        stream.set_read_timeout(None)?;
        let is_open = head.split(|byte| *byte == b' ').nth(1).is_some_and(|status| status.starts_with(b"2"));
        if is_open { Ok(stream) } else { Err(io::Error::other("the proxy refused")) }
    }

    fn reach(&self, name: &str, port: u16) -> io::Result<TcpStream> {
        let found = addresses(&self.machine, name, PATIENCE).map_err(|_| io::ErrorKind::NotFound)?;
        let mut failed = io::Error::from(io::ErrorKind::NotFound);
        for address in found {
            match TcpStream::connect_timeout(&SocketAddr::new(address, port), PATIENCE) {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

/// Where addresses that stand for names begin: far from what programs use by themselves.
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 128, 0, 1);
const LAST: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 254);

fn address_of(index: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(FIRST) + index as u32)
}

/// Accepts and answers until `ends` is closed on its other side.
fn serve(shared: &Arc<Shared>, listeners: &[TcpListener], names: &UdpSocket, ends: &OwnedFd) {
    if listeners.iter().any(|listener| listener.set_nonblocking(true).is_err()) || names.set_nonblocking(true).is_err()
    {
        return;
    }
    let mut exhausted = false;
    while !shared.ended.load(Ordering::SeqCst) {
        let room = !std::mem::take(&mut exhausted) && shared.state().count < MOST_CONNECTIONS;
        let mut polled = vec![PollFd::new(ends, PollFlags::IN), PollFd::new(names, PollFlags::IN)];
        for listener in listeners {
            polled.push(PollFd::from_borrowed_fd(
                listener.as_fd(),
                if room { PollFlags::IN } else { PollFlags::empty() },
            ));
        }
        // Where there is no room, it is looked again soon.
        let soon = rustix::event::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        match rustix::event::poll(&mut polled, (!room).then_some(&soon)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        let ready: Vec<bool> = polled.iter().map(|it| !it.revents().is_empty()).collect();
        drop(polled);
        if ready[0] {
            return;
        }
        if ready[1] {
            answer(shared, names);
        }
        for (listener, is_ready) in listeners.iter().zip(&ready[2..]) {
            // Not asked before: who came since the poll would be taken and dropped.
            if !is_ready {
                continue;
            }
            match listener.accept() {
                Ok((inside, _)) => {
                    shared.state().count += 1;
                    let passing = Arc::clone(shared);
                    let started = thread::Builder::new().spawn(move || {
                        let _ = pass_on(&passing, inside);
                        passing.state().count -= 1;
                    });
                    // The connection is closed then, and others wait.
                    if started.is_err() {
                        shared.state().count -= 1;
                        exhausted = true;
                    }
                }
                Err(error) if is_gone(&error) => {}
                // accept(2): no descriptors or no memory, in this process or the system. Who waits goes on to make the socket
                // ready, so trying at once would be trying without end.
                Err(_) => exhausted = true,
            }
        }
    }
}

/// Whether a connection could not be taken only because it is no longer there.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted | io::ErrorKind::WouldBlock)
}

fn answer(shared: &Shared, socket: &UdpSocket) {
    let mut buffer = [0; LONGEST_QUESTION];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let Some(question) = names::read(&buffer[..length]) else { continue };
        let answer = match shared.address(&question.name) {
            Some(address) if question.wants_ipv4 => Answer::Address(address),
            Some(_) => Answer::Empty,
            None => {
                shared.refuse(&format!("host `{}`", question.name.escape_debug()));
                Answer::Unknown
            }
        };
        let _ = socket.send_to(&names::write(&question, answer), from);
    }
}

/// Passes one connection on, both ways, until both have ended.
fn pass_on(shared: &Shared, inside: TcpStream) -> io::Result<()> {
    inside.set_nonblocking(false)?;
    let meant = inside.local_addr()?;
    let port = meant.port();
    let name = shared.name(meant.ip()).ok_or(io::ErrorKind::NotFound)?;
    if !shared.hosts.allows(&name, port) {
        shared.refuse(&format!("port {port} of `{name}`"));
        return Ok(());
    }
    let outside = shared.connect(&name, port).inspect_err(|error| {
        let line = format!("forge: cannot connect to {name}:{port}: {error}\n");
        let _ = OpenOptions::new().append(true).open(&shared.log).and_then(|mut log| log.write_all(line.as_bytes()));
    })?;
    let _ = (inside.set_nodelay(true), outside.set_nodelay(true));
    let ends = Arc::new([inside, outside]);
    let number = {
        let mut state = shared.state();
        state.last += 1;
        let number = state.last;
        state.connections.insert(number, Arc::clone(&ends));
        number
    };
    // The step may have ended between the connection and its being noted.
    if !shared.ended.load(Ordering::SeqCst) {
        let [inside, outside] = &*ends;
        let pass = |mut from: &TcpStream, mut to: &TcpStream| {
            let _ = io::copy(&mut from, &mut to);
            // The end of one direction is not that of the other.
            let _ = to.shutdown(Shutdown::Write);
        };
        thread::scope(|scope| match thread::Builder::new().spawn_scoped(scope, || pass(inside, outside)) {
            Ok(_) => pass(outside, inside),
            Err(_) => ends.iter().for_each(|end| _ = end.shutdown(Shutdown::Both)),
        });
    }
    shared.state().connections.remove(&number);
    Ok(())
}

#[cfg(test)]
mod tests;
