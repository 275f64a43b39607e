//! What clients say to `forge serve`: whatever comes down a line is answered or the line is closed, and the server lives.
#![no_main]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use server::{Access, Options, Server, Tokens};

fn address() -> SocketAddr {
    static ADDRESS: OnceLock<(tempfile::TempDir, SocketAddr)> = OnceLock::new();
    let (_, address) = ADDRESS.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let anyone = Access { read: true, write: true };
        let options = Options {
            address: ([127, 0, 0, 1], 0).into(),
            tokens: Tokens::parse("", anyone).expect("no tokens"),
            tls: None,
            key: None,
            connections: 64,
            silence: Duration::from_secs(1),
            grace: Duration::ZERO,
        };
        let server = Server::listen(directory.path().join("store"), options, Arc::default(), |_| {}).expect("a port");
        let address = server.address().expect("an address");
        std::thread::spawn(move || server.run());
        (directory, address)
    });
    *address
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut line = TcpStream::connect(address()).expect("the server lives");
    line.set_read_timeout(Some(Duration::from_secs(9))).expect("a timeout");
    // It may have said enough, and closed, before it has read all.
    let _ = line.write_all(bytes);
    let _ = line.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    match line.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert!(error.kind() != std::io::ErrorKind::WouldBlock, "the server hangs"),
    }
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 "));
});
