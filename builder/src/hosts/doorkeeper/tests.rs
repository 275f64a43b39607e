//! What a doorkeeper takes of the process that it is in: descriptors and time.

use std::net::SocketAddrV4;

use rustix::time::{ClockId, clock_gettime};

use super::*;
use crate::world::World;

/// A server on this machine, and a doorkeeper's own socket for it, on the address that stands for its name.
fn server_and_door() -> (TcpListener, TcpListener) {
    loop {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        // Somebody else's port at the other address is rare; then another one is tried.
        if let Ok(door) = TcpListener::bind((FIRST, server.local_addr().unwrap().port())) {
            return (server, door);
        }
    }
}

fn hosts(server: &TcpListener) -> Hosts {
    let mut hosts = Hosts::default();
    hosts.add_word(&format!("localhost:{}", server.local_addr().unwrap().port())).unwrap();
    hosts
}

/// Connects through the door; gives both ends, once bytes have gone both ways.
fn connect(server: &TcpListener, door: SocketAddr) -> [TcpStream; 2] {
    let client = TcpStream::connect(door).unwrap();
    let (served, _) = server.accept().unwrap();
    for (mut from, mut to) in [(&client, &served), (&served, &client)] {
        from.write_all(b"hello").unwrap();
        let mut bytes = [0; 5];
        to.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
    }
    [client, served]
}

/// How many descriptors this process has of a connection's end, by the addresses here and there (proc(5): `/proc/net/tcp`).
fn descriptors(here: SocketAddr, there: SocketAddr) -> usize {
    let written = |address: SocketAddr| match address {
        SocketAddr::V4(address) => written(address),
        SocketAddr::V6(_) => panic!("{address} is of the other family"),
    };
    let connections = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let ends = format!("{} {} ", written(here), written(there));
    let line = connections.lines().find(|line| line.contains(&ends)).unwrap();
    let name = PathBuf::from(format!("socket:[{}]", line.split_whitespace().nth(9).unwrap()));
    let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    links.filter(|link| std::fs::read_link(link.path()).is_ok_and(|target| target == name)).count()
}

fn written(address: SocketAddrV4) -> String {
    format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
}

#[test]
fn a_connection_takes_two_descriptors() {
    let (server, door) = server_and_door();
    let at = door.local_addr().unwrap();
    let world = World::new();
    let log = tempfile::NamedTempFile::new().unwrap();
    let (doorkeeper, doors, _) = Doorkeeper::start(&world.builder(), &hosts(&server), log.path()).unwrap();
    let names = UdpSocket::bind("127.0.0.1:0").unwrap();
    doors.opened.send(executor::doors::Opened { listeners: vec![door], names }).unwrap();
    let [client, served] = connect(&server, at);
    assert_eq!(descriptors(at, client.local_addr().unwrap()), 1);
    assert_eq!(descriptors(served.peer_addr().unwrap(), served.local_addr().unwrap()), 1);
    // And the end of a step is that of its connections.
    drop(doorkeeper);
    for mut end in [client, served] {
        assert_eq!(end.read(&mut [0]).unwrap_or(0), 0);
    }
}

#[test]
fn a_door_at_which_nobody_can_be_let_in_is_not_tried_without_end() {
    let (server, door) = server_and_door();
    let at = door.local_addr().unwrap();
    let world = World::new();
    let log = tempfile::NamedTempFile::new().unwrap();
    let shared = Arc::new(Shared::new(&world.builder(), &hosts(&server), log.path()));
    let names = UdpSocket::bind("127.0.0.1:0").unwrap();
    // Like one for whose connections no descriptor is left: always ready, and never good for anything.
    let [mut unread, end] = connect(&server, server.local_addr().unwrap());
    unread.write_all(b"x").unwrap();
    let broken = TcpListener::from(OwnedFd::from(end));
    let (ends, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let serving = thread::spawn(move || {
        serve(&shared, &[broken, door], &names, &ends);
        clock_gettime(ClockId::ThreadCPUTime)
    });
    let connection = connect(&server, at);
    thread::sleep(Duration::from_millis(500));
    drop((connection, stop));
    let took = serving.join().unwrap();
    assert!(took.tv_sec == 0 && took.tv_nsec < 100_000_000, "{took:?} of half a second");
}
