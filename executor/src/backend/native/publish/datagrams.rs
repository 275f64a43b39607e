//! UDP that is passed on: each client has a socket inside, so that the program tells them apart and answers find their way.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

/// Most clients at a time; the one that was silent longest makes room.
pub const MOST: usize = 256;
/// How long a client is remembered that says nothing and hears nothing.
const SILENCE: Duration = Duration::from_secs(120);

/// All that are remembered.
#[derive(Default)]
pub struct Datagrams {
    clients: Vec<Client>,
}

struct Client {
    /// Which of the listeners it speaks to.
    listener: usize,
    address: SocketAddr,
    inside: UdpSocket,
    last: Instant,
}

impl Datagrams {
    /// Adds what is waited for: one entry for each client.
    pub fn wanted<'a>(&'a self, polled: &mut Vec<PollFd<'a>>) {
        polled.extend(self.clients.iter().map(|client| PollFd::from_borrowed_fd(client.inside.as_fd(), PollFlags::IN)));
    }

    /// When the next client may be forgotten.
    pub fn timeout(&self) -> Option<Timespec> {
        let oldest = self.clients.iter().map(|client| client.last).min()?;
        let left = (oldest + SILENCE).saturating_duration_since(Instant::now());
        Some(Timespec { tv_sec: left.as_secs() as i64 + 1, tv_nsec: 0 })
    }

    /// Passes answers out, through the listener that was asked; and forgets who is silent.
    pub fn answers(&mut self, listeners: &[Option<&UdpSocket>], ready: &[PollFlags]) {
        let mut buffer = [0; 65_536];
        for (client, ready) in self.clients.iter_mut().zip(ready) {
            if ready.is_empty() {
                continue;
            }
            // A client that cannot be reached loses datagrams, as everywhere.
            while let Ok(length) = client.inside.recv(&mut buffer) {
                client.last = Instant::now();
                if let Some(Some(socket)) = listeners.get(client.listener) {
                    let _ = socket.send_to(&buffer[..length], client.address);
                }
            }
        }
        let now = Instant::now();
        self.clients.retain(|client| now.duration_since(client.last) < SILENCE);
    }

    /// Passes on what has come to a listener.
    pub fn questions(&mut self, listener: usize, socket: &UdpSocket, port: u16) {
        let mut buffer = [0; 65_536];
        while let Ok((length, address)) = socket.recv_from(&mut buffer) {
            let Some(client) = self.client(listener, address, port) else { continue };
            client.last = Instant::now();
            let _ = client.inside.send(&buffer[..length]);
        }
    }

    fn client(&mut self, listener: usize, address: SocketAddr, port: u16) -> Option<&mut Client> {
        let known = self.clients.iter().position(|client| client.listener == listener && client.address == address);
        let index = match known {
            Some(index) => index,
            None => {
                if self.clients.len() >= MOST {
                    let oldest = (0..self.clients.len()).min_by_key(|index| self.clients[*index].last)?;
                    self.clients.swap_remove(oldest);
                }
                let inside = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
                inside.connect((Ipv4Addr::LOCALHOST, port)).ok()?;
                inside.set_nonblocking(true).ok()?;
                self.clients.push(Client { listener, address, inside, last: Instant::now() });
                self.clients.len() - 1
            }
        };
        self.clients.get_mut(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_apart_and_each_gets_its_own_answer() {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (listener, program) = (bind(), bind());
        listener.set_nonblocking(true).unwrap();
        let patience = Some(Duration::from_secs(20));
        let clients = [bind(), bind()];
        let mut datagrams = Datagrams::default();
        for (index, client) in clients.iter().enumerate() {
            client.set_read_timeout(patience).unwrap();
            client.send_to(format!("question {index}").as_bytes(), listener.local_addr().unwrap()).unwrap();
        }
        program.set_read_timeout(patience).unwrap();
        let mut buffer = [0; 100];
        let mut asked = Vec::new();
        while asked.len() < 2 {
            datagrams.questions(0, &listener, program.local_addr().unwrap().port());
            program.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let Ok((length, from)) = program.recv_from(&mut buffer) else { continue };
            let answer = [b"answer to ", &buffer[..length]].concat();
            program.send_to(&answer, from).unwrap();
            asked.push(from);
        }
        assert_ne!(asked[0], asked[1]);
        let mut polled = Vec::new();
        datagrams.wanted(&mut polled);
        assert_eq!(polled.len(), 2);
        drop(polled);
        for (index, client) in clients.iter().enumerate() {
            datagrams.answers(&[Some(&listener)], &[PollFlags::IN, PollFlags::IN]);
            let length = client.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..length], *format!("answer to question {index}").as_bytes());
        }
        assert!(datagrams.timeout().is_some());
    }
}
